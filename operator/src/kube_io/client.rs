//! The real `KubeApi`: reads from the caches, writes by requests. Effects: network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{Client, Config, Resource};
use searchcell_core::names::{ClusterKey, FINALIZER, routing_table};
use searchcell_core::plan::Disruption;
use searchcell_core::routing::Published;
use searchcell_core::snapshot::CellObjects;
use searchcell_core::step::{Kind, Object, Target};
use searchcell_crds::{IndexPlacement, IndexPlacementStatus, SearchCell, SearchCellStatus};
use serde_json::json;

use crate::kube_io::fanout::{Caches, scopes};
use crate::kube_io::recreate::recreate_around_pods;
use crate::kube_io::requests::{self, Kindly};
use crate::kube_io::tables::Tables;
use crate::kube_io::template::replace_template;
use crate::ports::{KubeApi, KubeError};
use crate::security::parse::Parsed;
use crate::security::sealed::Sealed;

/// Hears of every request: its verb and its outcome, both from closed sets.
pub type OnRequest = dyn Fn(&'static str, &'static str) + Send + Sync;

/// Kubernetes as the operator sees it.
pub struct KubeIo {
    client: Client,
    caches: Arc<Caches>,
    parsed: Parsed,
    tables: Tables,
    own_namespace: String,
    /// Namespaces whose cells it looks at; `None`: all.
    scopes: Vec<Option<String>>,
    on_request: Arc<OnRequest>,
}

/// A client whose connections time out and which leaves retries to the loop.
pub fn client(config: Config) -> Result<Client, kube::Error> {
    Client::try_from(tuned(config))
}

/// How long its connections wait, and that it does not try again by itself.
pub fn tuned(mut config: Config) -> Config {
    config.connect_timeout = Some(Duration::from_secs(10));
    config.write_timeout = Some(Duration::from_secs(30));
    config.default_retry = false;
    config
}

/// Why a request failed, in the API server's own words where it said anything.
pub fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        error => error.to_string(),
    }
}

impl KubeIo {
    /// Reads from these caches, writes with this client, and says that it runs in this namespace.
    pub fn new(
        client: Client,
        caches: Arc<Caches>,
        own_namespace: String,
        on_request: Arc<OnRequest>,
    ) -> Self {
        Self {
            client,
            caches,
            parsed: Parsed::default(),
            tables: Tables::default(),
            own_namespace,
            scopes: vec![None],
            on_request,
        }
    }

    /// Looks at cells of these namespaces only; none: of all.
    pub fn of_namespaces(self, namespaces: &[String]) -> Self {
        Self { scopes: scopes(namespaces), ..self }
    }

    fn count<T, E: Into<KubeError>>(&self, verb: &'static str, result: Result<T, E>) -> Result<T, KubeError> {
        let result = result.map_err(Into::into);
        let outcome = match &result {
            Ok(_) => "success",
            Err(KubeError::Conflict(_) | KubeError::NotOurs { .. }) => "conflict",
            Err(KubeError::Refused(_) | KubeError::FixedSize(_)) => "refused",
            Err(KubeError::Unreachable(_)) => "unreachable",
        };
        (self.on_request)(verb, outcome);
        result
    }

    async fn set_finalizer<T: Kindly>(
        &self,
        object: &T,
        kind: Kindless,
        present: bool,
    ) -> Result<(), KubeError> {
        let meta = object.meta();
        let mut finalizers = meta.finalizers.clone().unwrap_or_default();
        if finalizers.iter().any(|name| name == FINALIZER) == present {
            return Ok(());
        }
        finalizers.retain(|name| name != FINALIZER);
        if present {
            finalizers.push(FINALIZER.to_owned());
        }
        let (Some(uid), Some(version)) = (&meta.uid, &meta.resource_version) else {
            return Err(KubeError::Conflict(format!("{} has no identity yet", kind.0)));
        };
        let target =
            Identity { name: meta.name.clone(), uid: uid.clone(), version: version.clone() }.target();
        let namespace = meta.namespace.clone().unwrap_or_default();
        let metadata = json!({ "finalizers": finalizers });
        let result = requests::merge::<T>(&self.client, &namespace, &target, metadata, json!({})).await;
        match result {
            // Gone already: nothing holds it back any more.
            Err(requests::Failed::NotFound(_)) if !present => self.count("finalize", Ok::<(), KubeError>(())),
            result => self.count("finalize", result),
        }
    }
}

/// Kind of an object that is not made by the operator, in messages.
struct Kindless(&'static str);

/// An object of the API itself as the target of a merge patch; its kind is in the type of the call.
struct Identity {
    name: Option<String>,
    uid: String,
    version: String,
}

impl Identity {
    fn target(self) -> Target {
        Target {
            kind: Kind::ConfigMap,
            name: self.name.unwrap_or_default(),
            uid: self.uid,
            resource_version: Some(self.version),
        }
    }
}

/// Calls a request for the type of a kind.
macro_rules! for_kind {
    ($kind:expr, $T:ident => $call:expr) => {
        match $kind {
            Kind::Service => {
                type $T = Service;
                $call
            }
            Kind::ConfigMap => {
                type $T = ConfigMap;
                $call
            }
            Kind::PodDisruptionBudget => {
                type $T = PodDisruptionBudget;
                $call
            }
            Kind::NetworkPolicy => {
                type $T = NetworkPolicy;
                $call
            }
            Kind::StatefulSet => {
                type $T = StatefulSet;
                $call
            }
            Kind::Deployment => {
                type $T = Deployment;
                $call
            }
            Kind::HorizontalPodAutoscaler => {
                type $T = HorizontalPodAutoscaler;
                $call
            }
            Kind::PersistentVolumeClaim => {
                type $T = PersistentVolumeClaim;
                $call
            }
            Kind::Pod => {
                type $T = Pod;
                $call
            }
            Kind::Secret => {
                type $T = Secret;
                $call
            }
        }
    };
}

/// Calls a request with the object of whatever kind.
macro_rules! for_object {
    ($object:expr, $o:ident => $call:expr) => {
        match $object {
            Object::Service($o) => $call,
            Object::ConfigMap($o) => $call,
            Object::PodDisruptionBudget($o) => $call,
            Object::NetworkPolicy($o) => $call,
            Object::StatefulSet($o) => $call,
            Object::Deployment($o) => $call,
            Object::HorizontalPodAutoscaler($o) => $call,
        }
    };
}

#[async_trait]
impl KubeApi for KubeIo {
    fn search_cell(&self, namespace: &str, name: &str) -> Option<SearchCell> {
        self.caches.cells.get(namespace, "", name)
    }

    fn placements(&self, namespace: &str) -> Vec<IndexPlacement> {
        self.caches.placements.group(namespace, "")
    }

    fn operator_namespace(&self) -> &str {
        &self.own_namespace
    }

    fn disruptions(&self) -> Vec<Disruption> {
        self.caches.cells.map(Disruption::of_cell).concat()
    }

    fn cell_objects(&self, namespace: &str, cell: &str) -> CellObjects {
        let caches = &self.caches;
        CellObjects {
            stateful_sets: caches.stateful_sets.group(namespace, cell),
            deployments: caches.deployments.group(namespace, cell),
            autoscalers: caches.autoscalers.group(namespace, cell),
            services: caches.services.group(namespace, cell),
            config_maps: caches.config_maps.group(namespace, cell),
            budgets: caches.budgets.group(namespace, cell),
            network_policies: caches.network_policies.group(namespace, cell),
            claims: caches.claims.group(namespace, cell),
            pods: caches.pods.group(namespace, cell),
            secrets: self.parsed.facts_of(namespace, cell, &caches.secrets.shared(namespace, cell)),
        }
    }

    fn table(&self, namespace: &str, collection: &str) -> Option<Arc<Published>> {
        self.tables.of(namespace, collection, &self.caches.tables.shared(namespace, collection))
    }

    async fn table_live(&self, namespace: &str, collection: &str) -> Result<Option<Published>, KubeError> {
        let found = requests::get::<ConfigMap>(&self.client, namespace, &routing_table(collection)).await;
        self.count("get", found.map(|found| found.as_ref().map(Published::read)))
    }

    async fn search_cell_live(&self, namespace: &str, name: &str) -> Result<Option<SearchCell>, KubeError> {
        self.count("get", requests::get(&self.client, namespace, name).await)
    }

    async fn disruptions_live(&self) -> Result<Vec<Disruption>, KubeError> {
        let mut all = Vec::new();
        for namespace in &self.scopes {
            let cells = requests::cells(&self.client, namespace.as_deref()).await;
            all.extend(self.count("list", cells)?.iter().flat_map(Disruption::of_cell));
        }
        Ok(all)
    }

    async fn placements_live(&self, namespace: &str) -> Result<Vec<IndexPlacement>, KubeError> {
        self.count("list", requests::placements(&self.client, namespace).await)
    }

    async fn claims_live(&self, cluster: &ClusterKey) -> Result<Vec<PersistentVolumeClaim>, KubeError> {
        let selector = selector_text(&cluster.selector(None, None));
        self.count("list", requests::list(&self.client, &cluster.namespace, &selector).await)
    }

    async fn pods_live(
        &self,
        namespace: &str,
        selector: &BTreeMap<String, String>,
    ) -> Result<BTreeSet<String>, KubeError> {
        let found = requests::list::<Pod>(&self.client, namespace, &selector_text(selector)).await;
        let pods = self.count("list", found)?;
        Ok(pods.into_iter().filter_map(|pod| pod.metadata.uid).collect())
    }

    async fn create(&self, namespace: &str, object: &Object, owner_uid: &str) -> Result<(), KubeError> {
        let kind = object.kind().as_str();
        let result = for_object!(object, o => {
            requests::create(&self.client, namespace, o.as_ref(), kind, owner_uid).await
        });
        self.count("create", result)
    }

    async fn apply(&self, namespace: &str, object: &Object, target: &Target) -> Result<(), KubeError> {
        let result = for_object!(object, o => {
            requests::apply(&self.client, namespace, o.as_ref(), target).await
        });
        self.count("apply", result)
    }

    async fn scale(&self, namespace: &str, target: &Target, replicas: i32) -> Result<(), KubeError> {
        let patch = json!({"spec": {"replicas": replicas}});
        let result = match target.kind {
            Kind::StatefulSet => {
                requests::merge::<StatefulSet>(&self.client, namespace, target, json!({}), patch).await
            }
            Kind::Deployment => {
                requests::merge::<Deployment>(&self.client, namespace, target, json!({}), patch).await
            }
            kind => Err(requests::Failed::Refused(format!("a {} has no replicas", kind.as_str()))),
        };
        self.count("scale", result)
    }

    async fn release_replicas(&self, namespace: &str, target: &Target) -> Result<(), KubeError> {
        let result = for_kind!(target.kind, T => {
            requests::release_replicas::<T>(&self.client, namespace, target).await
        });
        self.count("release_replicas", result)
    }

    async fn annotate(
        &self,
        namespace: &str,
        target: &Target,
        annotations: &BTreeMap<String, String>,
    ) -> Result<(), KubeError> {
        let metadata = json!({ "annotations": annotations });
        let result = for_kind!(target.kind, T => {
            requests::merge::<T>(&self.client, namespace, target, metadata, json!({})).await
        });
        self.count("annotate", result)
    }

    async fn grow_claim(&self, namespace: &str, target: &Target, size: &Quantity) -> Result<(), KubeError> {
        let patch = json!({"spec": {"resources": {"requests": {"storage": size}}}});
        let result =
            requests::merge::<PersistentVolumeClaim>(&self.client, namespace, target, json!({}), patch).await;
        self.count("grow", result).map_err(|error| match error {
            // The admission plugin's words; there is no reason code for it.
            KubeError::Refused(text) if text.contains("only dynamically provisioned pvc can be resized") => {
                KubeError::FixedSize(text)
            }
            error => error,
        })
    }

    async fn recreate_around_pods(
        &self,
        namespace: &str,
        target: &Target,
        size: &Quantity,
    ) -> Result<(), KubeError> {
        self.count("recreate", recreate_around_pods(&self.client, namespace, target, size).await)
    }

    async fn replace_template(
        &self,
        namespace: &str,
        object: &Object,
        target: &Target,
    ) -> Result<(), KubeError> {
        self.count("replace_template", replace_template(&self.client, namespace, object, target).await)
    }

    async fn delete(&self, namespace: &str, target: &Target) -> Result<(), KubeError> {
        let result = for_kind!(target.kind, T => {
            requests::delete::<T>(&self.client, namespace, target).await
        });
        self.count("delete", result)
    }

    async fn secret_live(&self, namespace: &str, name: &str) -> Result<Option<Sealed>, KubeError> {
        let found = requests::get::<Secret>(&self.client, namespace, name).await;
        self.count("get", found.map(|found| found.map(Sealed)))
    }

    async fn create_secret(
        &self,
        namespace: &str,
        secret: &Sealed,
        owner_uid: &str,
    ) -> Result<(), KubeError> {
        let result = requests::create(&self.client, namespace, &secret.0, "Secret", owner_uid).await;
        self.count("create", result)
    }

    async fn replace_secret(&self, namespace: &str, secret: &Sealed) -> Result<(), KubeError> {
        let result = match identity(&secret.0) {
            Ok(()) => requests::replace(&self.client, namespace, &secret.0).await.map_err(KubeError::from),
            Err(error) => Err(error),
        };
        self.count("replace", result)
    }

    async fn set_cell_finalizer(&self, cell: &SearchCell, present: bool) -> Result<(), KubeError> {
        self.set_finalizer(cell, Kindless("the cell"), present).await
    }

    async fn set_placement_finalizer(
        &self,
        placement: &IndexPlacement,
        present: bool,
    ) -> Result<(), KubeError> {
        self.set_finalizer(placement, Kindless("the placement"), present).await
    }

    async fn publish_cell_status(
        &self,
        cell: &SearchCell,
        status: &SearchCellStatus,
    ) -> Result<(), KubeError> {
        let mut cell = cell.clone();
        cell.status = Some(status.clone());
        let result = match identity(&cell) {
            Ok(()) => requests::replace_status(&self.client, &cell).await.map_err(KubeError::from),
            Err(error) => Err(error),
        };
        self.count("status", result)
    }

    async fn publish_placement_status(
        &self,
        placement: &IndexPlacement,
        status: &IndexPlacementStatus,
    ) -> Result<(), KubeError> {
        let mut placement = placement.clone();
        placement.status = Some(status.clone());
        let result = match identity(&placement) {
            Ok(()) => requests::replace_status(&self.client, &placement).await.map_err(KubeError::from),
            Err(error) => Err(error),
        };
        self.count("status", result)
    }
}

fn selector_text(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// A status may only be written over what was observed.
fn identity<T: Resource>(object: &T) -> Result<(), KubeError> {
    let meta = object.meta();
    let known =
        meta.uid.is_some() && meta.resource_version.as_ref().is_some_and(|version| !version.is_empty());
    if known { Ok(()) } else { Err(KubeError::Conflict("it was not observed yet".to_owned())) }
}
