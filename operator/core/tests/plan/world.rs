//! A world just large enough for the planner: applies steps to a snapshot, starts pods, lets a cluster form.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use searchcell_core::domain::ValidCell;
use searchcell_core::names::{FINALIZER, LABEL_ZONE};
use searchcell_core::plan::{plan_cell, plan_deletion, wanted_settings};
use searchcell_core::security::keystore::ANNOTATION_SINCE;
use searchcell_core::security::order::Order;
use searchcell_core::security::{Lifetimes, SecretFacts};
use searchcell_core::snapshot::{
    CellObjects, CellSnapshot, ElasticFacts, ElasticNode, Reading, Shutdown, Shutdowns, label,
};
use searchcell_core::status::cell_status;
use searchcell_core::step::{Action, Object, Outcome, Plan};
use searchcell_core::validate::validate_cell;
use searchcell_crds::{SearchCell, SearchCellStatus};
use serde_json::{Value, json};

pub const UUID: &str = "kq3-uuid";

pub fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

pub fn cell_object() -> SearchCell {
    serde_json::from_value(json!({
        "apiVersion": "searchcell.dev/v1alpha1", "kind": "SearchCell",
        "metadata": {"name": "guilds", "namespace": "search", "uid": "cell-uid", "generation": 1,
            "resourceVersion": "1", "creationTimestamp": "2026-11-21T11:00:00Z", "finalizers": [FINALIZER]},
        "spec": {
            "version": "9.5.3",
            "zones": [{"name": "a"}, {"name": "b"}, {"name": "c"}],
            "clusters": [{"name": "a"}],
            "nodes": {
                "master": {"count": 3, "storage": {"size": "1Gi"}},
                "ingest": {"replicas": 3, "resources": {"requests": {"cpu": "100m"}}},
                "data": {"perZone": 1, "storage": {"size": "1Gi"}},
            },
            "security": {"mode": "Disabled"},
        },
    }))
    .unwrap()
}

/// What clusters were told of restarts. Ids of nodes are their names.
fn records(snapshot: &mut CellSnapshot) -> impl Iterator<Item = &mut BTreeMap<String, Shutdown>> {
    snapshot.elastic.values_mut().filter_map(|reading| match reading {
        Reading::Known(ElasticFacts { shutdowns: Shutdowns::Known(records), .. }) => Some(records),
        _ => None,
    })
}

pub struct World {
    pub snapshot: CellSnapshot,
    pub now: Timestamp,
    counter: u64,
}

impl World {
    pub fn new(cell: SearchCell) -> Self {
        let snapshot = CellSnapshot {
            cell,
            objects: CellObjects::default(),
            elastic: BTreeMap::new(),
            placements: vec![],
            served: BTreeMap::new(),
            supplied: BTreeMap::new(),
            secure_settings: BTreeMap::new(),
            restarts_nodes: false,
            disruptions: Vec::new(),
            most_disruptions: 5,
            lifetimes: Lifetimes::default(),
            operator_namespace: "searchcell-system".to_owned(),
        };
        Self { snapshot, now: now(), counter: 0 }
    }

    pub fn valid(&self) -> ValidCell {
        validate_cell(&self.snapshot.cell).unwrap()
    }

    pub fn plan(&self) -> Plan {
        match self.snapshot.cell.metadata.deletion_timestamp {
            Some(_) => plan_deletion(&self.snapshot, self.now),
            None => plan_cell(&self.valid(), &self.snapshot, self.now),
        }
    }

    pub fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let mut value = serde_json::to_value(&self.snapshot.cell).unwrap();
        change(&mut value);
        self.snapshot.cell = serde_json::from_value(value).unwrap();
        *self.snapshot.cell.metadata.generation.as_mut().unwrap() += 1;
    }

    pub fn status(&self) -> SearchCellStatus {
        let plan = self.plan();
        let outcomes = vec![Outcome::Done; plan.steps.len()];
        cell_status(&self.snapshot, Ok(&self.valid()), &plan, &outcomes, self.now)
    }

    /// Plan, apply, publish, until the plan is empty; returns the names of all actions.
    pub fn settle(&mut self) -> Vec<&'static str> {
        let mut actions = Vec::new();
        for _ in 0..20 {
            let plan = self.plan();
            actions.extend(plan.steps.iter().map(|step| step.action.name()));
            let is_empty = plan.steps.is_empty();
            for step in plan.steps {
                self.apply(step.action);
            }
            self.run_controllers();
            self.snapshot.cell.status = Some(self.status());
            if is_empty {
                return actions;
            }
        }
        panic!("the plan does not settle: {:#?}", self.plan());
    }

    /// All nodes up, the cluster formed, its settings as they were put.
    pub fn form(&mut self, uuid: &str) {
        for cluster in self.valid().clusters {
            self.run_controllers();
            let mut facts = match self.snapshot.elastic.remove(&cluster.name) {
                Some(Reading::Known(facts)) => facts,
                _ => ElasticFacts::default(),
            };
            facts.uuid = Some(uuid.to_owned());
            for pod in &self.snapshot.objects.of_cluster(&cluster.name).pods {
                let name = pod.metadata.name.clone().unwrap();
                let role = label(&pod.metadata, "searchcell.dev/role").unwrap().to_owned();
                facts.master.get_or_insert_with(|| name.clone());
                let zone = label(&pod.metadata, LABEL_ZONE).map(str::to_owned);
                let node = ElasticNode { id: name.clone(), version: "9.5.3".into(), roles: vec![role], zone };
                facts.nodes.insert(name, node);
            }
            self.snapshot.elastic.insert(cluster.name, Reading::Known(facts));
        }
    }

    /// From nothing to rest.
    pub fn formed() -> Self {
        let mut world = Self::new(cell_object());
        world.settle();
        world.form(UUID);
        world.settle();
        world
    }

    pub fn apply(&mut self, action: Action) {
        let objects = &mut self.snapshot.objects;
        self.counter += 1;
        let (number, now) = (self.counter, self.now);
        let stamp = |meta: &mut ObjectMeta| {
            meta.uid.get_or_insert_with(|| format!("uid-{number}"));
            meta.resource_version = Some(number.to_string());
            meta.creation_timestamp.get_or_insert(Time(now));
        };
        match action {
            Action::AddFinalizer => self.snapshot.cell.metadata.finalizers = Some(vec![FINALIZER.into()]),
            Action::RemoveFinalizer => self.snapshot.cell.metadata.finalizers = None,
            Action::Bootstrap(mut map) => {
                stamp(&mut map.metadata);
                objects.config_maps.push(*map);
            }
            Action::Create(mut object) | Action::Apply { mut object, .. } => {
                stamp(object.metadata_mut());
                let name = object.name().to_owned();
                macro_rules! put {
                    ($list:ident, $object:ident) => {{
                        objects.$list.retain(|o| o.metadata.name.as_deref() != Some(&name));
                        objects.$list.push(*$object);
                    }};
                }
                match object {
                    Object::Service(o) => put!(services, o),
                    Object::ConfigMap(o) => put!(config_maps, o),
                    Object::PodDisruptionBudget(o) => put!(budgets, o),
                    Object::NetworkPolicy(o) => put!(network_policies, o),
                    Object::StatefulSet(o) => put!(stateful_sets, o),
                    Object::Deployment(o) => put!(deployments, o),
                    Object::HorizontalPodAutoscaler(o) => put!(autoscalers, o),
                }
            }
            Action::Scale { target, replicas } => {
                for set in objects
                    .stateful_sets
                    .iter_mut()
                    .filter(|o| o.metadata.name.as_deref() == Some(&target.name))
                {
                    set.spec.as_mut().unwrap().replicas = Some(replicas);
                }
                for set in objects
                    .deployments
                    .iter_mut()
                    .filter(|o| o.metadata.name.as_deref() == Some(&target.name))
                {
                    set.spec.as_mut().unwrap().replicas = Some(replicas);
                }
            }
            Action::ReleaseReplicas { .. } => {
                objects.deployments.iter_mut().for_each(|o| o.metadata.managed_fields = None)
            }
            Action::AnnotateClaim { target, annotations } => {
                for claim in
                    objects.claims.iter_mut().filter(|o| o.metadata.name.as_deref() == Some(&target.name))
                {
                    claim.metadata.annotations.get_or_insert_default().extend(annotations.clone());
                }
            }
            Action::GrowClaim { target, size } => {
                for claim in
                    objects.claims.iter_mut().filter(|o| o.metadata.uid.as_deref() == Some(&target.uid))
                {
                    claim.spec =
                        serde_json::from_value(json!({"resources": {"requests": {"storage": size}}}))
                            .unwrap();
                }
            }
            Action::RecreateAroundPods { target, size } => {
                for set in objects
                    .stateful_sets
                    .iter_mut()
                    .filter(|o| o.metadata.uid.as_deref() == Some(&target.uid))
                {
                    set.metadata.uid = Some(format!("uid-{number}"));
                    let templates = set.spec.as_mut().unwrap().volume_claim_templates.as_mut().unwrap();
                    let resources = templates[0].spec.as_mut().unwrap().resources.as_mut().unwrap();
                    resources.requests.as_mut().unwrap().insert("storage".into(), size.clone());
                }
            }
            Action::Delete { target }
            | Action::RemoveWorkload { target, .. }
            | Action::RemoveVolume { target } => {
                let keep = |meta: &ObjectMeta| meta.uid.as_deref() != Some(&target.uid);
                objects.config_maps.retain(|o| keep(&o.metadata));
                objects.services.retain(|o| keep(&o.metadata));
                objects.budgets.retain(|o| keep(&o.metadata));
                objects.network_policies.retain(|o| keep(&o.metadata));
                objects.autoscalers.retain(|o| keep(&o.metadata));
                objects.deployments.retain(|o| keep(&o.metadata));
                objects.stateful_sets.retain(|o| keep(&o.metadata));
                objects.claims.retain(|o| keep(&o.metadata));
            }
            Action::ReplaceTemplate { object, .. } => {
                let (name, marks) = (object.name().to_owned(), object.metadata().annotations.clone());
                for set in &mut objects.stateful_sets {
                    if set.metadata.name.as_deref() == Some(&name) {
                        set.metadata.annotations.clone_from(&marks);
                        if let (Some(spec), Object::StatefulSet(new)) = (&mut set.spec, &object) {
                            spec.template.spec = new.spec.as_ref().and_then(|new| new.template.spec.clone());
                        }
                        set.metadata.generation = Some(set.metadata.generation.unwrap_or(1) + 1);
                    }
                }
                for deployment in &mut objects.deployments {
                    if deployment.metadata.name.as_deref() == Some(&name) {
                        deployment.metadata.annotations.clone_from(&marks);
                    }
                }
            }
            Action::AnnounceRestart { id, absence, .. } => {
                for records in records(&mut self.snapshot) {
                    let (kind, reason) = ("RESTART".to_owned(), absence.reason().to_owned());
                    records.insert(id.clone(), Shutdown { kind, reason });
                }
            }
            Action::WithdrawRestart { id } => {
                for records in records(&mut self.snapshot) {
                    records.remove(&id);
                }
            }
            Action::ExcludeVoter { name } => {
                for reading in self.snapshot.elastic.values_mut() {
                    if let Reading::Known(facts) = reading {
                        facts.voting.remove(&name);
                        facts.no_votes.insert(name.clone());
                    }
                }
            }
            Action::ClearVotingExclusions => {
                for reading in self.snapshot.elastic.values_mut() {
                    if let Reading::Known(facts) = reading {
                        facts.no_votes.clear();
                    }
                }
            }
            Action::RestartNode { target } => {
                objects.pods.retain(|o| o.metadata.uid.as_deref() != Some(&target.uid));
            }
            Action::PutSettings(change) => {
                for reading in self.snapshot.elastic.values_mut() {
                    if let Reading::Known(facts) = reading {
                        for (name, value) in &change {
                            match value {
                                Some(value) => facts.settings.insert(name.clone(), value.clone()),
                                None => facts.settings.remove(name),
                            };
                        }
                    }
                }
            }
            Action::Secure(order) => match *order {
                Order::Keystore(order) => {
                    let keystore = crate::keystore::carried_out(&order, &self.snapshot, number);
                    let secrets = &mut self.snapshot.objects.secrets;
                    let mut metadata = order.metadata.clone();
                    if let Some(found) = secrets.iter().find(|s| s.metadata.name == order.metadata.name) {
                        metadata = found.metadata.clone();
                    }
                    let annotations = metadata.annotations.get_or_insert_default();
                    annotations.remove(ANNOTATION_SINCE);
                    if order.is_running {
                        annotations.insert(ANNOTATION_SINCE.to_owned(), now.to_string());
                    }
                    stamp(&mut metadata);
                    secrets.retain(|s| s.metadata.name != order.metadata.name);
                    secrets.push(SecretFacts {
                        metadata,
                        keystore: Some(keystore),
                        ..SecretFacts::default()
                    });
                }
                other => unreachable!("these cells have no security: see tests/security: {other:?}"),
            },
            Action::ReloadKeystore(_) => unreachable!("see keystore"),
            Action::CreateIndex { .. }
            | Action::PutMapping { .. }
            | Action::PutIndexSettings { .. }
            | Action::DeleteIndex { .. } => unreachable!("no step of a cell"),
        }
    }

    /// What Kubernetes' controllers do: pods and claims of every workload, all ready.
    pub fn run_controllers(&mut self) {
        let mut pods = Vec::new();
        let sets: Vec<StatefulSet> = self.snapshot.objects.stateful_sets.clone();
        for set in &sets {
            let name = set.metadata.name.clone().unwrap();
            for ordinal in 0..set.spec.as_ref().unwrap().replicas.unwrap() {
                let pod_name = format!("{name}-{ordinal}");
                let claim = format!("data-{pod_name}");
                if !self.snapshot.objects.claims.iter().any(|o| o.metadata.name.as_deref() == Some(&claim)) {
                    self.counter += 1;
                    let metadata = ObjectMeta {
                        uid: Some(format!("uid-{}", self.counter)),
                        creation_timestamp: Some(Time(now())),
                        ..named(&claim, &set.metadata)
                    };
                    self.snapshot
                        .objects
                        .claims
                        .push(PersistentVolumeClaim { metadata, ..Default::default() });
                }
                pods.push(pod(&pod_name, &set.metadata));
            }
        }
        let deployments: Vec<Deployment> = self.snapshot.objects.deployments.clone();
        for deployment in &deployments {
            for n in 0..deployment.spec.as_ref().unwrap().replicas.unwrap() {
                pods.push(pod(
                    &format!("{}-{n}", deployment.metadata.name.as_ref().unwrap()),
                    &deployment.metadata,
                ));
            }
        }
        self.snapshot.objects.pods = pods;
    }

    /// Settings at rest are those that are wanted.
    pub fn has_wanted_settings(&self) -> bool {
        let facts = self.snapshot.elastic("a").unwrap();
        wanted_settings(&self.valid()).iter().all(|(name, value)| facts.settings.get(name) == Some(value))
    }
}

fn named(name: &str, workload: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: workload.labels.clone(),
        annotations: workload.annotations.clone(),
        ..Default::default()
    }
}

fn pod(name: &str, workload: &ObjectMeta) -> Pod {
    serde_json::from_value(json!({
        "metadata": serde_json::to_value(named(name, workload)).unwrap(),
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }))
    .unwrap()
}
