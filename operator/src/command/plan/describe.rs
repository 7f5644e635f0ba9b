//! Steps, holds and problems in words for a person, with what differs. Of Secrets only the names of their keys are told.
//! Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use searchcell_core::names::{ClusterKey, LABEL_COLLECTION, TABLE_KEY};
use searchcell_core::routing::{Published, Table, decode};
use searchcell_core::security::order::Order;
use searchcell_core::snapshot::{CellObjects, ElasticFacts, Reading, label};
use searchcell_core::status::waits_for_a_person;
use searchcell_core::step::{Action, Hold, Kind, Object, Step, Target};
use searchcell_core::validate::Problem;
use searchcell_crds::Reason;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::diff;
use super::script::{Line, Verb};

/// What steps are compared with.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Namespace of the pass.
    pub namespace: &'a str,
    /// Cell of its clusters.
    pub cell: &'a str,
    /// Its finalizer is on this.
    pub own: &'a str,
    /// What is there.
    pub objects: &'a CellObjects,
    /// What clusters said.
    pub elastic: &'a BTreeMap<String, Reading<ElasticFacts>>,
    /// Keys of a Secret as it would be, by its name.
    pub secret_keys: &'a dyn Fn(&str) -> Vec<String>,
}

/// A step that would be done.
pub fn step(step: &Step, view: &View<'_>) -> Line {
    let cluster = || {
        let name = step.cluster.as_deref().unwrap_or_default();
        ClusterKey::new(view.namespace, view.cell, name).name()
    };
    let facts = || view.elastic.get(step.cluster.as_deref()?)?.known();
    let change = |target: &Target, more: String| Line::new(Verb::Change, of_target(target), more);
    match &step.action {
        Action::AddFinalizer => {
            Line::new(Verb::Change, view.own, "").with(vec![format!("+ metadata.finalizers: {}", step.why)])
        }
        Action::RemoveFinalizer => Line::new(Verb::Delete, view.own, &step.why),
        Action::Bootstrap(map) => {
            let name = map.metadata.name.as_deref().unwrap_or_default();
            Line::new(Verb::Create, format!("ConfigMap {name}"), &step.why)
        }
        Action::Create(object) => Line::new(Verb::Create, of_object(object), size(object)),
        Action::Apply { object, target } => {
            let before = live(view.objects, target).unwrap_or_default();
            change(target, String::new()).with(diff::ours(&before, &value(object)))
        }
        Action::Scale { target, replicas } => {
            let before = live(view.objects, target);
            let before = before.as_ref().and_then(|live| live.pointer("/spec/replicas"));
            change(target, String::new()).with(diff::leaf("spec.replicas", before, Some(&json!(replicas))))
        }
        Action::ReleaseReplicas { target } => change(target, step.why.clone()),
        Action::AnnotateClaim { target, annotations } => {
            let before = live(view.objects, target);
            let before = before.as_ref().and_then(|live| live.pointer("/metadata/annotations"));
            let lines = annotations.iter().flat_map(|(name, text)| {
                let before = before.and_then(|before| before.get(name));
                diff::leaf(&format!("metadata.annotations[{name:?}]"), before, Some(&json!(text)))
            });
            change(target, String::new()).with(lines.collect())
        }
        Action::GrowClaim { target, size } => {
            let path = "spec.resources.requests.storage";
            let before = live(view.objects, target);
            let before = before.as_ref().and_then(|live| live.pointer("/spec/resources/requests/storage"));
            change(target, String::new()).with(diff::leaf(path, before, Some(&json!(size))))
        }
        Action::RecreateAroundPods { target, size } => {
            change(target, format!("{}, for volumes of {}; no pod restarts", step.why, size.0))
        }
        Action::ReplaceTemplate { target, .. } => change(target, step.why.clone()),
        Action::RestartNode { target } => change(target, format!("restart: {}", step.why)),
        Action::Delete { target }
        | Action::RemoveWorkload { target, .. }
        | Action::RemoveVolume { target } => Line::new(Verb::Delete, of_target(target), &step.why),
        Action::Secure(order) => {
            let verb = if is_new(order) { Verb::Create } else { Verb::Change };
            let keys = (view.secret_keys)(order.name()).join(", ");
            let keys = (!keys.is_empty()).then(|| format!("keys: {keys}"));
            Line::new(verb, format!("Secret {}", order.name()), &step.why).with(keys.into_iter().collect())
        }
        Action::ReloadKeystore(reload) => {
            let nodes: Vec<&str> = reload.nodes.keys().map(String::as_str).collect();
            let more = format!("loaded again by {}: {}", nodes.join(", "), step.why);
            Line::new(Verb::Change, format!("keystore of cluster {}", cluster()), more)
        }
        Action::AnnounceRestart { name, .. } => {
            Line::new(Verb::Change, format!("cluster {} is told that {name} restarts", cluster()), &step.why)
        }
        Action::WithdrawRestart { .. } => {
            Line::new(Verb::Change, format!("cluster {} is told that no node restarts", cluster()), &step.why)
        }
        Action::ExcludeVoter { name } => Line::new(
            Verb::Change,
            format!("cluster {} counts without the vote of {name}", cluster()),
            &step.why,
        ),
        Action::ClearVotingExclusions => {
            Line::new(Verb::Change, format!("all masters of cluster {} vote", cluster()), &step.why)
        }
        Action::PutSettings(settings) => {
            let before = facts().map(|facts| &facts.settings);
            Line::new(Verb::Change, format!("settings of cluster {}", cluster()), "")
                .with(settings_diff(before, settings))
        }
        Action::CreateIndex { name, body } => {
            let number = |key: &str| body.pointer(&format!("/settings/index.{key}")).and_then(Value::as_i64);
            let (shards, replicas) = (number("number_of_shards"), number("number_of_replicas"));
            let more = format!(
                "{}, {}",
                counted(shards.unwrap_or(1), "primary shard"),
                counted(replicas.unwrap_or(1), "replica")
            );
            Line::new(Verb::Create, format!("index {name} on cluster {}", cluster()), more)
        }
        Action::PutMapping { indices, .. } => {
            Line::new(Verb::Change, format!("mappings on cluster {}", cluster()), indices.join(", "))
        }
        Action::PutIndexSettings { indices, settings } => {
            let first = indices.first().and_then(|name| facts()?.indices.get(name));
            Line::new(
                Verb::Change,
                format!("settings of indices on cluster {}", cluster()),
                indices.join(", "),
            )
            .with(settings_diff(first.map(|index| &index.settings), settings))
        }
        Action::DeleteIndex { name, .. } => {
            Line::new(Verb::Delete, format!("index {name} on cluster {}", cluster()), &step.why)
        }
    }
}

/// A routing table that would be published in the place of `before`.
pub fn table(step: &Step, before: Option<&Published>) -> Option<Line> {
    let (Action::Create(object) | Action::Apply { object, .. }) = &step.action else { return None };
    let (collection, after) = table_of(object)?;
    let verb = if before.is_some() { Verb::Change } else { Verb::Create };
    let nothing = Value::Object(Map::new());
    let before = before.and_then(|published| published.table.as_ref()).map_or(nothing, readable);
    let differs = diff::all(&before, &readable(&after));
    let more = if differs.is_empty() { step.why.as_str() } else { "" };
    Some(Line::new(verb, format!("routing table of {collection}"), more).with(differs))
}

/// Something that would not be done.
pub fn hold(hold: &Hold) -> Line {
    waiting(hold.reason, hold.cluster.as_deref(), &hold.message)
}

/// The same, with its parts.
pub fn waiting(reason: Reason, cluster: Option<&str>, message: &str) -> Line {
    let verb =
        if waits_for_a_person(reason) || reason == Reason::Suspended { Verb::Hold } else { Verb::Later };
    let cluster = cluster.filter(|name| !message.contains(&format!("cluster {name}")));
    let cluster = cluster.map(|name| format!(" (cluster {name})")).unwrap_or_default();
    Line::new(verb, "", format!("{}{cluster}: {message}", reason.as_str()))
}

/// Something that is not valid.
pub fn problem(problem: &Problem) -> Line {
    Line::new(Verb::Refuse, "", format!("{} ({})", problem, problem.reason.as_str()))
}

fn of_target(target: &Target) -> String {
    format!("{} {}", target.kind.as_str(), target.name)
}

fn of_object(object: &Object) -> String {
    format!("{} {}", object.kind().as_str(), object.name())
}

/// A number of things.
pub fn counted(number: i64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// How many nodes, and how large.
fn size(object: &Object) -> String {
    let object = value(object);
    let replicas = object.pointer("/spec/replicas").and_then(Value::as_i64);
    let storage = "/spec/volumeClaimTemplates/0/spec/resources/requests/storage";
    let storage = object.pointer(storage).and_then(Value::as_str);
    let nodes = replicas.map(|replicas| counted(replicas, "node"));
    match (nodes, storage) {
        (Some(nodes), Some(storage)) => format!("{nodes}, volumes of {storage}"),
        (Some(nodes), None) => nodes,
        (None, _) => String::new(),
    }
}

fn value(object: &Object) -> Value {
    fn of<T: Serialize>(object: &T) -> Value {
        serde_json::to_value(object).unwrap_or_default()
    }
    match object {
        Object::Service(o) => of(o),
        Object::ConfigMap(o) => of(o),
        Object::PodDisruptionBudget(o) => of(o),
        Object::NetworkPolicy(o) => of(o),
        Object::StatefulSet(o) => of(o),
        Object::Deployment(o) => of(o),
        Object::HorizontalPodAutoscaler(o) => of(o),
    }
}

fn live(objects: &CellObjects, target: &Target) -> Option<Value> {
    fn find<T: Serialize + kube::Resource>(all: &[T], name: &str) -> Option<Value> {
        let found = all.iter().find(|object| object.meta().name.as_deref() == Some(name))?;
        serde_json::to_value(found).ok()
    }
    let name = &target.name;
    match target.kind {
        Kind::Service => find(&objects.services, name),
        Kind::ConfigMap => find(&objects.config_maps, name),
        Kind::PodDisruptionBudget => find(&objects.budgets, name),
        Kind::NetworkPolicy => find(&objects.network_policies, name),
        Kind::StatefulSet => find(&objects.stateful_sets, name),
        Kind::Deployment => find(&objects.deployments, name),
        Kind::HorizontalPodAutoscaler => find(&objects.autoscalers, name),
        Kind::PersistentVolumeClaim => find(&objects.claims, name),
        Kind::Pod => find(&objects.pods, name),
        Kind::Secret => None,
    }
}

fn is_new(order: &Order) -> bool {
    match order {
        Order::Authority(order) => order.replaces.is_none(),
        Order::Certificates(order) => order.replaces.is_none(),
        Order::Standby(order) => order.replaces.is_none(),
        Order::Users(order) => order.replaces.is_none(),
        Order::Keystore(order) => order.replaces.is_none(),
        Order::Credential(_) => true,
        Order::Hash { .. } => false,
    }
}

fn settings_diff(
    before: Option<&BTreeMap<String, Value>>,
    change: &BTreeMap<String, Option<Value>>,
) -> Vec<String> {
    let of = |(name, value): (&String, &Option<Value>)| {
        diff::leaf(name, before.and_then(|before| before.get(name)), value.as_ref())
    };
    change.iter().flat_map(of).collect()
}

/// The routing table that an object is, with its collection.
fn table_of(object: &Object) -> Option<(String, Table)> {
    let Object::ConfigMap(map) = object else { return None };
    let map: &ConfigMap = map;
    let collection = label(&map.metadata, LABEL_COLLECTION)?;
    let bytes = map.binary_data.as_ref()?.get(TABLE_KEY)?;
    Some((collection.to_owned(), decode(&bytes.0).ok()?))
}

/// Where indices and tenants are, by name.
fn readable(table: &Table) -> Value {
    let place = |position: u32| {
        table.index(position).map(|(index, cluster)| (index.name.clone(), cluster.name.clone()))
    };
    let indices: Map<String, Value> =
        (0..).map_while(place).map(|(index, cluster)| (index, cluster.into())).collect();
    let tenants = table.overrides.iter().map(|(tenant, chosen)| {
        let index = chosen.to.read.and_then(place).map_or_else(|| "nowhere".to_owned(), |(index, _)| index);
        (tenant.clone(), Value::from(index))
    });
    let of_pool = |range: &searchcell_core::routing::SlotRange| {
        let index = range.to.read.and_then(place).map_or_else(|| "nowhere".to_owned(), |(index, _)| index);
        (range.from.to_string(), Value::from(index))
    };
    let mut readable = Map::new();
    readable.insert("indices".to_owned(), indices.into());
    readable.insert("tenants".to_owned(), Map::from_iter(tenants).into());
    readable.insert("slots".to_owned(), table.slots.iter().map(of_pool).collect::<Map<_, _>>().into());
    Value::Object(readable)
}
