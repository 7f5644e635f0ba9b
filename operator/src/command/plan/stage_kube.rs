//! A Kubernetes in memory for the passes that a plan rehearses: it begins as what the caches have, and what is written
//! stays in them. Of the real one it only reads what no cache has. Effects: reads from the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta, Time};
use kube::runtime::watcher::Event;
use kube::{Client, Resource};
use searchcell_core::names::{ClusterKey, FIELD_MANAGER, FINALIZER, LABEL_CELL};
use searchcell_core::plan::Disruption;
use searchcell_core::routing::Published;
use searchcell_core::snapshot::{CellObjects, is_owned_by, label};
use searchcell_core::step::{Kind, Object, Target};
use searchcell_crds::{IndexPlacement, IndexPlacementStatus, SearchCell, SearchCellStatus};
use serde_json::json;

use crate::kube_io::cache::{Cache, Feed};
use crate::kube_io::client::KubeIo;
use crate::kube_io::fanout::Caches;
use crate::kube_io::requests::{self, Kindly};
use crate::kube_io::trim::Trim;
use crate::ports::{KubeApi, KubeError};
use crate::security::sealed::Sealed;

/// Kubernetes, as far as a rehearsal goes.
pub struct StageKube {
    client: Client,
    real: KubeIo,
    caches: Arc<Caches>,
    now: Timestamp,
    writes: AtomicU64,
}

/// Calls with the cache of a kind.
macro_rules! with_cache {
    ($self:expr, $kind:expr, $cache:ident => $call:expr) => {
        match $kind {
            Kind::Service => with_cache!(@ $self, services, $cache => $call),
            Kind::PodDisruptionBudget => with_cache!(@ $self, budgets, $cache => $call),
            Kind::NetworkPolicy => with_cache!(@ $self, network_policies, $cache => $call),
            Kind::StatefulSet => with_cache!(@ $self, stateful_sets, $cache => $call),
            Kind::Deployment => with_cache!(@ $self, deployments, $cache => $call),
            Kind::HorizontalPodAutoscaler => with_cache!(@ $self, autoscalers, $cache => $call),
            Kind::PersistentVolumeClaim => with_cache!(@ $self, claims, $cache => $call),
            Kind::Pod => with_cache!(@ $self, pods, $cache => $call),
            Kind::Secret => with_cache!(@ $self, secrets, $cache => $call),
            Kind::ConfigMap => with_cache!(@ $self, config_maps, $cache => $call),
        }
    };
    (@ $self:expr, $field:ident, $cache:ident => $call:expr) => {{
        let $cache = &$self.caches.$field;
        $call
    }};
}

/// Calls with an object, and the cache that it belongs in.
macro_rules! with_object {
    ($self:expr, $object:expr, ($o:ident, $cache:ident) => $call:expr) => {
        match $object {
            Object::Service($o) => with_cache!(@ $self, services, $cache => $call),
            Object::PodDisruptionBudget($o) => with_cache!(@ $self, budgets, $cache => $call),
            Object::NetworkPolicy($o) => with_cache!(@ $self, network_policies, $cache => $call),
            Object::StatefulSet($o) => with_cache!(@ $self, stateful_sets, $cache => $call),
            Object::Deployment($o) => with_cache!(@ $self, deployments, $cache => $call),
            Object::HorizontalPodAutoscaler($o) => with_cache!(@ $self, autoscalers, $cache => $call),
            // Routing tables are of no cell.
            Object::ConfigMap($o) if label(&$o.metadata, LABEL_CELL).is_none() => {
                with_cache!(@ $self, tables, $cache => $call)
            }
            Object::ConfigMap($o) => with_cache!(@ $self, config_maps, $cache => $call),
        }
    };
}

fn named(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { namespace: Some(namespace.to_owned()), name: Some(name.to_owned()), ..ObjectMeta::default() }
}

fn changed(name: &str) -> KubeError {
    KubeError::Conflict(format!("{name} is not as it was observed"))
}

impl StageKube {
    /// Begins with what the caches have. `real` reads from the same ones.
    pub fn new(client: Client, real: KubeIo, caches: Arc<Caches>, now: Timestamp) -> Self {
        Self { client, real, caches, now, writes: AtomicU64::new(0) }
    }

    /// How often something was written.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// Keys of a Secret, in order.
    pub fn secret_keys(&self, namespace: &str, name: &str) -> Vec<String> {
        let secret = self.caches.secrets.named(&named(namespace, name));
        secret.and_then(|secret| secret.data).into_iter().flatten().map(|(key, _)| key).collect()
    }

    /// Puts a cell there as the API server would have it.
    pub fn put_cell(&self, cell: SearchCell) {
        self.put(&self.caches.cells, cell);
    }

    /// Puts a placement there as the API server would have it.
    pub fn put_placement(&self, placement: IndexPlacement) {
        self.put(&self.caches.placements, placement);
    }

    fn put<T: Trim>(&self, cache: &Arc<Cache<T>>, mut object: T) {
        let version = self.writes.fetch_add(1, Ordering::SeqCst);
        object.meta_mut().resource_version = Some(format!("plan-{version}"));
        object.trim();
        Feed::new(Arc::clone(cache), None).take(Event::Apply(object));
    }

    fn remove<T: Trim>(&self, cache: &Arc<Cache<T>>, object: T) {
        self.writes.fetch_add(1, Ordering::SeqCst);
        Feed::new(Arc::clone(cache), None).take(Event::Delete(object));
    }

    /// Somebody else may have the name, of whom no cache knows: the API server does.
    async fn post<T: Trim + Kindly>(
        &self,
        cache: &Arc<Cache<T>>,
        namespace: &str,
        kind: &'static str,
        mut object: T,
        owner_uid: &str,
    ) -> Result<(), KubeError> {
        let name = object.meta().name.clone().unwrap_or_default();
        let live = match cache.named(&named(namespace, &name)) {
            Some(live) => Some(live),
            None => requests::get::<T>(&self.client, namespace, &name).await?,
        };
        match live {
            Some(live) if !is_owned_by(live.meta(), owner_uid) => {
                return Err(KubeError::NotOurs { kind, name });
            }
            Some(_) => return Err(KubeError::Conflict(format!("{kind} {name} is there already"))),
            None => {}
        }
        let uid = format!("plan-uid-{}", self.writes());
        let meta = object.meta_mut();
        meta.namespace = Some(namespace.to_owned());
        meta.uid = Some(uid);
        meta.creation_timestamp = Some(Time(self.now));
        self.put(cache, object);
        Ok(())
    }

    /// Changes an object that still is the target.
    fn change<T: Trim>(
        &self,
        cache: &Arc<Cache<T>>,
        namespace: &str,
        target: &Target,
        change: impl FnOnce(&mut T),
    ) -> Result<(), KubeError> {
        let live = cache.named(&named(namespace, &target.name));
        let is_same = |live: &T| {
            let meta = live.meta();
            meta.uid.as_deref() == Some(&target.uid)
                && (target.resource_version.is_none() || target.resource_version == meta.resource_version)
        };
        let mut object = live.filter(is_same).ok_or_else(|| changed(&target.name))?;
        change(&mut object);
        self.put(cache, object);
        Ok(())
    }
}

/// What is applied in the place of what is there: the identity stays.
fn applied<T: Resource>(live: &T, mut desired: T) -> T {
    let (meta, new) = (live.meta(), desired.meta_mut());
    new.namespace.clone_from(&meta.namespace);
    new.uid.clone_from(&meta.uid);
    new.creation_timestamp.clone_from(&meta.creation_timestamp);
    desired
}

fn set_finalizer(meta: &mut ObjectMeta, present: bool) {
    let finalizers = meta.finalizers.get_or_insert_default();
    finalizers.retain(|name| name != FINALIZER);
    if present {
        finalizers.push(FINALIZER.to_owned());
    }
}

/// As the API server notes it of who creates a Deployment with a number of pods.
fn owning_replicas() -> Vec<ManagedFieldsEntry> {
    vec![ManagedFieldsEntry {
        manager: Some(FIELD_MANAGER.to_owned()),
        fields_v1: Some(FieldsV1(json!({"f:spec": {"f:replicas": {}}}))),
        ..ManagedFieldsEntry::default()
    }]
}

#[async_trait]
impl KubeApi for StageKube {
    fn search_cell(&self, namespace: &str, name: &str) -> Option<SearchCell> {
        self.real.search_cell(namespace, name)
    }

    fn placements(&self, namespace: &str) -> Vec<IndexPlacement> {
        self.real.placements(namespace)
    }

    fn operator_namespace(&self) -> &str {
        self.real.operator_namespace()
    }

    fn disruptions(&self) -> Vec<Disruption> {
        self.real.disruptions()
    }

    fn cell_objects(&self, namespace: &str, cell: &str) -> CellObjects {
        self.real.cell_objects(namespace, cell)
    }

    fn table(&self, namespace: &str, collection: &str) -> Option<Arc<Published>> {
        self.real.table(namespace, collection)
    }

    async fn table_live(&self, namespace: &str, collection: &str) -> Result<Option<Published>, KubeError> {
        match self.real.table(namespace, collection) {
            Some(published) => Ok(Some((*published).clone())),
            None => self.real.table_live(namespace, collection).await,
        }
    }

    async fn search_cell_live(&self, namespace: &str, name: &str) -> Result<Option<SearchCell>, KubeError> {
        Ok(self.real.search_cell(namespace, name))
    }

    async fn disruptions_live(&self) -> Result<Vec<Disruption>, KubeError> {
        Ok(self.real.disruptions())
    }

    async fn placements_live(&self, namespace: &str) -> Result<Vec<IndexPlacement>, KubeError> {
        Ok(self.real.placements(namespace))
    }

    async fn claims_live(&self, cluster: &ClusterKey) -> Result<Vec<PersistentVolumeClaim>, KubeError> {
        let objects = self.real.cell_objects(&cluster.namespace, &cluster.cell);
        Ok(objects.of_cluster(&cluster.cluster).claims)
    }

    async fn create(&self, namespace: &str, object: &Object, owner_uid: &str) -> Result<(), KubeError> {
        let kind = object.kind().as_str();
        let mut object = object.clone();
        if let Object::Deployment(deployment) = &mut object
            && deployment.spec.as_ref().is_some_and(|spec| spec.replicas.is_some())
        {
            deployment.metadata.managed_fields = Some(owning_replicas());
        }
        with_object!(self, object, (o, cache) => self.post(cache, namespace, kind, *o, owner_uid).await)
    }

    async fn apply(&self, namespace: &str, object: &Object, target: &Target) -> Result<(), KubeError> {
        with_object!(self, object.clone(), (o, cache) => {
            self.change(cache, namespace, target, |live| *live = applied(live, *o))
        })
    }

    async fn scale(&self, namespace: &str, target: &Target, replicas: i32) -> Result<(), KubeError> {
        match target.kind {
            Kind::StatefulSet => self.change(&self.caches.stateful_sets, namespace, target, |set| {
                set.spec.get_or_insert_default().replicas = Some(replicas);
            }),
            Kind::Deployment => self.change(&self.caches.deployments, namespace, target, |deployment| {
                deployment.spec.get_or_insert_default().replicas = Some(replicas);
            }),
            kind => Err(KubeError::Refused(format!("a {} has no replicas", kind.as_str()))),
        }
    }

    async fn release_replicas(&self, namespace: &str, target: &Target) -> Result<(), KubeError> {
        self.change(&self.caches.deployments, namespace, target, |deployment| {
            deployment.metadata.managed_fields = None;
        })
    }

    async fn annotate(
        &self,
        namespace: &str,
        target: &Target,
        annotations: &BTreeMap<String, String>,
    ) -> Result<(), KubeError> {
        with_cache!(self, target.kind, cache => self.change(cache, namespace, target, |object| {
            object.meta_mut().annotations.get_or_insert_default().extend(annotations.clone());
        }))
    }

    async fn grow_claim(&self, namespace: &str, target: &Target, size: &Quantity) -> Result<(), KubeError> {
        self.change(&self.caches.claims, namespace, target, |claim| {
            let resources = claim.spec.get_or_insert_default().resources.get_or_insert_default();
            resources.requests.get_or_insert_default().insert("storage".to_owned(), size.clone());
        })
    }

    async fn recreate_around_pods(
        &self,
        namespace: &str,
        target: &Target,
        size: &Quantity,
    ) -> Result<(), KubeError> {
        self.change(&self.caches.stateful_sets, namespace, target, |set| {
            let templates = set.spec.get_or_insert_default().volume_claim_templates.iter_mut().flatten();
            for template in templates {
                let resources = template.spec.get_or_insert_default().resources.get_or_insert_default();
                resources.requests.get_or_insert_default().insert("storage".to_owned(), size.clone());
            }
        })
    }

    async fn replace_template(
        &self,
        namespace: &str,
        object: &Object,
        target: &Target,
    ) -> Result<(), KubeError> {
        // Templates are in no cache.
        let marks = object.metadata().annotations.clone().unwrap_or_default();
        self.annotate(namespace, target, &marks).await
    }

    async fn delete(&self, namespace: &str, target: &Target) -> Result<(), KubeError> {
        with_cache!(self, target.kind, cache => {
            let live = cache.named(&named(namespace, &target.name));
            if let Some(live) = live.filter(|live| live.meta().uid.as_deref() == Some(&target.uid)) {
                self.remove(cache, live);
            }
        });
        Ok(())
    }

    async fn pods_live(
        &self,
        namespace: &str,
        selector: &BTreeMap<String, String>,
    ) -> Result<BTreeSet<String>, KubeError> {
        let cell = selector.get(LABEL_CELL).map(String::as_str).unwrap_or_default();
        let pods = self.real.cell_objects(namespace, cell).pods;
        let is_selected =
            |meta: &ObjectMeta| selector.iter().all(|(key, value)| label(meta, key) == Some(value));
        let selected = pods.into_iter().filter(|pod| is_selected(&pod.metadata));
        Ok(selected.filter_map(|pod| pod.metadata.uid).collect())
    }

    async fn secret_live(&self, namespace: &str, name: &str) -> Result<Option<Sealed>, KubeError> {
        match self.caches.secrets.named(&named(namespace, name)) {
            Some(secret) => Ok(Some(Sealed(secret))),
            // A user's, which has no label of ours.
            None => self.real.secret_live(namespace, name).await,
        }
    }

    async fn create_secret(
        &self,
        namespace: &str,
        secret: &Sealed,
        owner_uid: &str,
    ) -> Result<(), KubeError> {
        self.post(&self.caches.secrets, namespace, "Secret", secret.0.clone(), owner_uid).await
    }

    async fn replace_secret(&self, namespace: &str, secret: &Sealed) -> Result<(), KubeError> {
        let meta = &secret.0.metadata;
        let target = Target {
            kind: Kind::Secret,
            name: secret.name().to_owned(),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone(),
        };
        self.change(&self.caches.secrets, namespace, &target, |live| *live = secret.0.clone())
    }

    async fn set_cell_finalizer(&self, cell: &SearchCell, present: bool) -> Result<(), KubeError> {
        let mut cell = cell.clone();
        set_finalizer(&mut cell.metadata, present);
        self.put_cell(cell);
        Ok(())
    }

    async fn set_placement_finalizer(
        &self,
        placement: &IndexPlacement,
        present: bool,
    ) -> Result<(), KubeError> {
        let mut placement = placement.clone();
        set_finalizer(&mut placement.metadata, present);
        self.put_placement(placement);
        Ok(())
    }

    async fn publish_cell_status(
        &self,
        cell: &SearchCell,
        status: &SearchCellStatus,
    ) -> Result<(), KubeError> {
        // What the pass itself wrote, its finalizer, is newer than what it observed.
        let meta = &cell.metadata;
        let live = self.caches.cells.named(meta).ok_or_else(|| changed("the cell"))?;
        self.put_cell(SearchCell { status: Some(status.clone()), ..live });
        Ok(())
    }

    async fn publish_placement_status(
        &self,
        placement: &IndexPlacement,
        status: &IndexPlacementStatus,
    ) -> Result<(), KubeError> {
        let meta = &placement.metadata;
        let live = self.caches.placements.named(meta).ok_or_else(|| changed("the placement"))?;
        self.put_placement(IndexPlacement { status: Some(status.clone()), ..live });
        Ok(())
    }
}
