//! Plans certificates and users. It never asks what Elasticsearch is doing before it lets certificates live on: what is
//! due is renewed also while a cluster is held, while it left the spec, and while the spec is invalid. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use searchcell_crds::{Reason, SearchCell, SecurityMode};

use super::WAKE_WHILE_ROTATING;
use super::certificates::plan_certificates;
use super::layers::{LayerPlan, Layers};
use super::removal::has_workloads;
use crate::build;
use crate::domain::ValidCell;
use crate::drift::{self, Live};
use crate::names::{ClusterKey, LABEL_CELL, http_authority, http_trust};
use crate::security::authority::{Authority, Decision, Evidence, bundle, decide};
use crate::security::gate::rotation_may_advance;
use crate::security::leaf::{Workload, workloads};
use crate::security::order::{AuthorityOrder, Order};
use crate::security::users::{self, UsersView};
use crate::security::{ANNOTATION_STAGE_SINCE, Layer, Stage, whole_seconds};
use crate::snapshot::{CellObjects, CellSnapshot, Reading, annotation};
use crate::step::{Action, Hold, Kind, Object, Step};

/// What is to be done about security in this pass.
#[derive(Debug, Default)]
pub struct Upkeep {
    /// In order.
    pub steps: Vec<Step>,
    /// What is done after everything else: when it fails, nothing else waits for it.
    pub later: Vec<Step>,
    /// What it waits for.
    pub holds: Vec<Hold>,
    /// When something is due.
    pub wake_at: Option<Timestamp>,
    /// True while an authority is rotated: nodes are asked again soon.
    pub rotates: bool,
}

impl Upkeep {
    pub(super) fn order(&mut self, cluster: Option<&str>, order: Order, why: impl Into<String>) {
        let action = Action::Secure(Box::new(order));
        self.steps.push(Step { cluster: cluster.map(str::to_owned), action, why: why.into() });
    }

    pub(super) fn hold(&mut self, cluster: Option<&str>, reason: Reason, message: impl Into<String>) {
        let hold = Hold { cluster: cluster.map(str::to_owned), reason, message: message.into() };
        if !self.holds.contains(&hold) {
            self.holds.push(hold);
        }
    }

    /// The shorter of `other` and the time until something is due.
    pub(super) fn wake_after(&self, now: Timestamp, other: Duration) -> Duration {
        let other = if self.rotates { other.min(WAKE_WHILE_ROTATING) } else { other };
        let Some(at) = self.wake_at else { return other };
        // What is due and was not done waits for something else, which wakes the operator by itself.
        let until = at.duration_since(now);
        if until.is_positive() { other.min(until.unsigned_abs().max(Duration::from_secs(1))) } else { other }
    }

    pub(super) fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |wake| wake.min(at)));
    }
}

/// A cell whose security is to be kept up, valid or not.
pub(super) struct Scope<'a> {
    pub(super) name: &'a str,
    pub(super) uid: &'a str,
    pub(super) snapshot: &'a CellSnapshot,
    pub(super) now: Timestamp,
    /// Clusters that are there or ought to be, with the workloads of each.
    pub(super) clusters: Vec<(ClusterKey, CellObjects, Vec<Workload>)>,
    /// Secrets that users supply.
    pub(super) supplied: BTreeMap<Layer, String>,
}

impl<'a> Scope<'a> {
    fn new(cell: Option<&'a ValidCell>, snapshot: &'a CellSnapshot, now: Timestamp) -> Self {
        let meta = &snapshot.cell.metadata;
        let text = |value: &'a Option<String>| value.as_deref().unwrap_or_default();
        let (namespace, name, uid) = (text(&meta.namespace), text(&meta.name), text(&meta.uid));
        let mut names: BTreeSet<String> = (snapshot.objects.cluster_names().into_iter())
            .filter(|cluster| has_workloads(snapshot, cluster))
            .collect();
        names.extend(cell.iter().flat_map(|cell| &cell.clusters).map(|cluster| cluster.name.clone()));
        let clusters = (names.into_iter())
            .map(|cluster| {
                let in_spec = cell.filter(|cell| cell.clusters.iter().any(|found| found.name == cluster));
                let key = ClusterKey::new(namespace, name, &cluster);
                let objects = snapshot.objects.of_cluster(&cluster);
                let workloads = workloads(in_spec, uid, &key, &objects);
                (key, objects, workloads)
            })
            .collect();
        let supplied = supplied_secrets(&snapshot.cell);
        Self { name, uid, snapshot, now, clusters, supplied }
    }

    fn metadata(&self, name: String) -> ObjectMeta {
        build::secret_metadata(&self.snapshot.cell, name, crate::names::cell_labels(self.name))
    }
}

/// Secrets that the spec names for a layer. With an invalid spec, the names still hold.
pub fn supplied_secrets(cell: &SearchCell) -> BTreeMap<Layer, String> {
    let certificates = cell.spec.security.as_ref().and_then(|security| security.certificates.as_ref());
    let of = |layer| {
        let certificates = certificates?;
        let from = match layer {
            Layer::Http => certificates.http.as_ref(),
            Layer::Transport => certificates.transport.as_ref(),
        };
        from.map(|from| (layer, from.secret_name.clone()))
    };
    Layer::ALL.into_iter().filter_map(of).collect()
}

/// Plans security of a cell that is not being deleted. `cell`: absent when the spec is invalid.
pub fn plan_security(cell: Option<&ValidCell>, snapshot: &CellSnapshot, now: Timestamp) -> Upkeep {
    let mut upkeep = Upkeep::default();
    let wants = match cell {
        Some(cell) => cell.is_secure,
        // What an invalid spec asks for is not begun; what is there goes on.
        None => {
            snapshot.cell.spec.security_mode() == SecurityMode::Managed
                && !snapshot.objects.secrets.is_empty()
        }
    };
    if !wants {
        return upkeep;
    }
    let scope = Scope::new(cell, snapshot, now);
    let layers = Layers::new(&scope, &mut upkeep);
    authorities(&scope, &layers, &mut upkeep);
    publish_trust(&scope, &layers, &mut upkeep);
    plan_users(&scope, &mut upkeep);
    for (index, (key, objects, workloads)) in scope.clusters.iter().enumerate() {
        let of = |layer| layers.of(layer, index);
        for workload in workloads {
            plan_certificates(&scope, key, objects, workload, &of, &mut upkeep);
        }
    }
    upkeep
}

/// Authorities of the operator: made, and rotated stage by stage.
fn authorities(scope: &Scope<'_>, layers: &Layers, upkeep: &mut Upkeep) {
    let all: Vec<&str> = scope.clusters.iter().map(|(key, _, _)| key.cluster.as_str()).collect();
    if !scope.supplied.contains_key(&Layer::Http) && !scope.clusters.is_empty() {
        let plan = layers.of(Layer::Http, 0);
        let subject = format!("{} HTTP", scope.name);
        let metadata = scope.metadata(http_authority(scope.name));
        authority(scope, Layer::Http, None, &all, plan, metadata, subject, upkeep);
    }
    for (index, (key, _, _)) in scope.clusters.iter().enumerate() {
        if scope.supplied.contains_key(&Layer::Transport) {
            continue;
        }
        let plan = layers.of(Layer::Transport, index);
        let labels = key.labels(None, None);
        let metadata = build::secret_metadata(&scope.snapshot.cell, key.transport_authority(), labels);
        let subject = format!("{} transport", key.name());
        let cluster = key.cluster.as_str();
        authority(scope, Layer::Transport, Some(cluster), &[cluster], plan, metadata, subject, upkeep);
    }
}

#[allow(clippy::too_many_arguments)]
fn authority(
    scope: &Scope<'_>,
    layer: Layer,
    cluster: Option<&str>,
    clusters: &[&str],
    plan: &LayerPlan,
    metadata: ObjectMeta,
    subject: String,
    upkeep: &mut Upkeep,
) {
    let name = metadata.name.clone().unwrap_or_default();
    let secrets = &scope.snapshot.objects.secrets;
    let live = match drift::find(secrets, |secret| &secret.metadata, &name, scope.uid) {
        Live::Missing => None,
        Live::Ours(secret) => Some(secret),
        Live::NotOurs => return not_ours(cluster, &name, upkeep),
        Live::Terminating => return,
    };
    let found = live.map(Authority::of);
    let rotates = found.as_ref().is_some_and(|authority| authority.stage() != Stage::Steady);
    upkeep.rotates |= rotates;
    let evidence = Evidence {
        layer,
        now: scope.now,
        overlap: scope.snapshot.lifetimes.overlap,
        trusted: plan.trusted.clone(),
        served: plan.served.clone(),
        undisturbed: rotation_may_advance(scope.snapshot.cell.status.as_ref(), clusters),
        known: plan.known.clone(),
    };
    match decide(found.as_ref(), &evidence) {
        Decision::Rest(until) => upkeep.wake(until),
        Decision::Go(change, why) => {
            let replaces = live.map(|secret| drift::exact_target(Kind::Secret, &secret.metadata));
            let selector = match cluster {
                Some(name) => ClusterKey::new("", scope.name, name).selector(None, None),
                None => BTreeMap::from([(LABEL_CELL.to_owned(), scope.name.to_owned())]),
            };
            let pods = (scope.clusters.iter())
                .filter(|(key, _, _)| clusters.contains(&key.cluster.as_str()))
                .flat_map(|(_, objects, _)| &objects.pods)
                .filter_map(|pod| pod.metadata.uid.clone())
                .collect();
            let order = AuthorityOrder { metadata, replaces, change, subject, selector, pods };
            upkeep.order(cluster, Order::Authority(order), format!("authority of the {layer} layer: {why}"));
        }
        Decision::Wait(message, until) => {
            if let Some(until) = until {
                upkeep.wake(until);
            }
            upkeep.hold(cluster, Reason::RotatingCertificates, format!("{layer} authority: {message}"));
        }
    }
}

pub(super) fn not_ours(cluster: Option<&str>, name: &str, upkeep: &mut Upkeep) {
    let message =
        format!("Secret {name} belongs to another owner and is not adopted: delete it, or rename the cell");
    upkeep.hold(cluster, Reason::NameConflict, message);
}

/// Whom clients of HTTP trust, for everybody to mount.
fn publish_trust(scope: &Scope<'_>, layers: &Layers, upkeep: &mut Upkeep) {
    if scope.clusters.is_empty() {
        return;
    }
    let trust = &layers.of(Layer::Http, 0).trust;
    if trust.is_empty() {
        return;
    }
    let name = http_trust(scope.name);
    let maps = &scope.snapshot.objects.config_maps;
    let live = drift::find(maps, |map| &map.metadata, &name, scope.uid);
    let data = Some(BTreeMap::from([("ca.crt".to_owned(), bundle(trust))]));
    let mut metadata = scope.metadata(name.clone());
    let since = match &live {
        Live::Ours(found) if found.data == data => annotation(&found.metadata, ANNOTATION_STAGE_SINCE),
        _ => None,
    };
    let since = since.map_or_else(|| whole_seconds(scope.now).to_string(), str::to_owned);
    metadata.annotations.get_or_insert_default().insert(ANNOTATION_STAGE_SINCE.to_owned(), since);
    let desired = ConfigMap { metadata, data, ..ConfigMap::default() };
    let step = match live {
        Live::Missing => Action::Create(Object::ConfigMap(Box::new(desired))),
        Live::Ours(found) if drift::differs(&desired, found) => {
            let target = drift::target(Kind::ConfigMap, &found.metadata);
            Action::Apply { object: Object::ConfigMap(Box::new(desired)), target }
        }
        Live::Ours(_) | Live::Terminating => return,
        Live::NotOurs => {
            let message = format!(
                "ConfigMap {name} belongs to another owner and is not adopted: delete it, or rename the cell"
            );
            return upkeep.hold(None, Reason::NameConflict, message);
        }
    };
    upkeep.steps.push(Step { cluster: None, action: step, why: "whom clients trust".to_owned() });
}

fn plan_users(scope: &Scope<'_>, upkeep: &mut Upkeep) {
    let known_as = (scope.clusters.iter())
        .map(|(key, _, _)| scope.snapshot.elastic(&key.cluster).and_then(|facts| facts.known_as.as_deref()))
        .collect();
    let view = UsersView {
        cell: scope.name,
        uid: scope.uid,
        metadata: &|name| scope.metadata(name),
        secrets: &scope.snapshot.objects.secrets,
        known_as,
        lifetimes: scope.snapshot.lifetimes,
        now: scope.now,
    };
    let plan = users::plan(&view);
    for name in users::User::ALL
        .map(|user| user.secret(scope.name))
        .into_iter()
        .chain([users::users_secret(scope.name), users::standby_secret(scope.name)])
    {
        if drift::find(&scope.snapshot.objects.secrets, |o| &o.metadata, &name, scope.uid) == Live::NotOurs {
            not_ours(None, &name, upkeep);
        }
    }
    for (order, why) in plan.orders {
        upkeep.order(None, order, why);
    }
    for problem in plan.problems {
        upkeep.hold(None, Reason::InvalidSecret, problem);
    }
    if let Some(at) = plan.wake_at {
        upkeep.wake(at);
    }
}

/// A node to ask what it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeToAsk {
    /// Name of its cluster.
    pub cluster: String,
    /// UID of its pod.
    pub uid: String,
    /// Address of its pod.
    pub address: String,
}

/// Nodes to ask what they show: those of clusters in which whom nodes trust, or what they show, is on the move.
pub fn nodes_to_ask(snapshot: &CellSnapshot, now: Timestamp) -> Vec<NodeToAsk> {
    if snapshot.cell.spec.security_mode() != SecurityMode::Managed || snapshot.objects.secrets.is_empty() {
        return Vec::new();
    }
    let scope = Scope::new(None, snapshot, now);
    let layers = Layers::new(&scope, &mut Upkeep::default());
    let moves = (scope.clusters.iter().enumerate())
        .filter(|(index, _)| Layer::ALL.iter().any(|layer| layers.of(*layer, *index).moves));
    moves
        .flat_map(|(_, (key, objects, _))| objects.pods.iter().map(move |pod| (key, pod)))
        .filter_map(|(key, pod)| {
            let address = pod.status.as_ref()?.pod_ip.clone()?;
            Some(NodeToAsk { cluster: key.cluster.clone(), uid: pod.metadata.uid.clone()?, address })
        })
        .collect()
}

/// What a node shows, or why nobody knows.
pub(super) fn served<'a>(
    snapshot: &'a CellSnapshot,
    uid: Option<&String>,
) -> Result<&'a crate::security::Served, &'a str> {
    match uid.and_then(|uid| snapshot.served.get(uid)) {
        Some(Reading::Known(served)) => Ok(served),
        Some(Reading::Unavailable(why)) => Err(why),
        None => Err("it has not been asked"),
    }
}
