//! From what ought to be and what is to what is done now: a bounded list of steps, the holds, and when to look
//! again. Pure and infallible.
//!
//! `security` (with `layers` and `certificates`) plans certificates and users, `keystore` keystores, `cluster` one
//! cluster of the spec, `workloads` its nodes, `volumes` what they write to, `settings` its cluster settings, `leave` clusters that
//! left the spec, `removal` whole cells that go.

mod certificates;
mod cluster;
mod drain;
mod keystore;
mod layers;
mod leave;
mod preflight;
mod removal;
mod roll;
mod security;
mod settings;
mod upgrade;
mod volumes;
mod workloads;

use std::time::Duration;

use jiff::Timestamp;
use searchcell_crds::{Operation, Reason};

pub use drain::{ALLOCATION_EXCLUDE, is_drain};
pub(crate) use leave::is_there;
pub use leave::{is_removal, kept_indices, may_delete_volumes, may_remove, placed_on};
pub use removal::{has_workloads, plan_deletion};
pub(crate) use roll::is_restart;
pub use roll::{ALLOCATION_ENABLE, Disruption, outdated, rolls};
pub use security::{NodeToAsk, Upkeep, nodes_to_ask, plan_security, supplied_secrets};
pub use settings::{setting_text, wanted_settings};
pub use workloads::master_layout;

use crate::domain::{ValidCell, ValidCluster};
use crate::names::{ClusterKey, FINALIZER};
use crate::security::keystore::resolve;
use crate::snapshot::{CellObjects, CellSnapshot};
use crate::step::{Action, Hold, Plan, Step};

/// At rest: how often Elasticsearch is asked for its state.
pub const WAKE_AT_REST: Duration = Duration::from_secs(30);
/// While something is under way. Changes of objects wake the operator at once; this is for Elasticsearch's.
pub const WAKE_WHILE_BUSY: Duration = Duration::from_secs(2);
/// While clusters of other cells go first.
const WAKE_WHILE_OTHERS_RESTART: Duration = Duration::from_secs(10);
/// While nothing can go on before a pod becomes ready, which wakes the operator by itself.
pub const WAKE_WHILE_WAITING_FOR_PODS: Duration = Duration::from_secs(60);

/// While an authority is rotated: how often nodes are asked what they show.
pub const WAKE_WHILE_ROTATING: Duration = Duration::from_secs(5);

/// What one pass collects for one cluster.
#[derive(Debug, Default)]
struct Draft {
    steps: Vec<Step>,
    holds: Vec<Hold>,
    /// What is under way, where that is known.
    operation: Option<Option<Operation>>,
}

impl Draft {
    fn step(&mut self, cluster: &str, why: impl Into<String>, action: Action) {
        self.steps.push(Step { cluster: Some(cluster.to_owned()), action, why: why.into() });
    }

    fn hold(&mut self, cluster: &str, reason: Reason, message: impl Into<String>) {
        self.holds.push(Hold { cluster: Some(cluster.to_owned()), reason, message: message.into() });
    }
}

/// Whose turn it is to restart nodes.
#[derive(Clone, Copy, Debug)]
struct Turn<'a> {
    order: &'a roll::Order<'a>,
    now: Timestamp,
}

/// Plans one pass over a cell that is not being deleted.
pub fn plan_cell(cell: &ValidCell, snapshot: &CellSnapshot, now: Timestamp) -> Plan {
    if !has_finalizer(&snapshot.cell.metadata) {
        let step = Step {
            cluster: None,
            action: Action::AddFinalizer,
            why: "volumes are cleaned up as deletionPolicy says before the cell goes".to_owned(),
        };
        return Plan { steps: vec![step], wake_after: WAKE_WHILE_BUSY, ..Plan::default() };
    }
    if cell.suspend {
        let hold = Hold {
            cluster: None,
            reason: Reason::Suspended,
            message: "spec.suspend is true: nothing is changed until it is false".to_owned(),
        };
        return Plan { holds: vec![hold], wake_after: WAKE_AT_REST, ..Plan::default() };
    }

    let cell = &resolve(cell, snapshot);
    let mut upkeep = plan_security(Some(cell), snapshot, now);
    keystore::plan_keystore(cell, snapshot, now, &mut upkeep);
    let mut plan = Plan { steps: std::mem::take(&mut upkeep.steps), ..Plan::default() };
    let mut any_pod_ready = false;
    let clusters: Vec<(&ValidCluster, CellObjects)> =
        (cell.clusters.iter()).map(|cluster| (cluster, snapshot.objects.of_cluster(&cluster.name))).collect();
    let order = roll::Order::new(cell, snapshot, &clusters);
    for (cluster, objects) in &clusters {
        any_pod_ready |= objects.pods.iter().any(crate::snapshot::is_ready);
        let mut draft = Draft::default();
        let turn = Turn { order: &order, now };
        cluster::plan_cluster(cell, &cell.key(&cluster.name), objects, snapshot, turn, &mut draft);
        plan.steps.extend(draft.steps);
        plan.holds.extend(draft.holds);
        plan.operations.extend(draft.operation.map(|operation| (cluster.name.clone(), operation)));
    }
    for name in leave::leaving(cell, snapshot) {
        let mut draft = Draft::default();
        leave::plan_leaving(cell, &cell.key(&name), snapshot, now, &mut draft);
        plan.steps.extend(draft.steps);
        plan.holds.extend(draft.holds);
        plan.operations.extend(draft.operation.map(|operation| (name, operation)));
    }
    plan.holds.append(&mut upkeep.holds);
    plan.steps.append(&mut upkeep.later);

    let restarts = order.is_busy() && !plan.operations.is_empty();
    let unsettled = restarts
        || plan.operations.values().any(Option::is_some)
        || cell.clusters.iter().any(|cluster| is_unsettled(cell, snapshot, &cluster.name));
    plan.wake_after = match (plan.steps.is_empty() && !unsettled, any_pod_ready) {
        (true, _) => WAKE_AT_REST,
        (false, _) if !plan.steps.is_empty() => WAKE_WHILE_BUSY,
        (false, true) => WAKE_WHILE_BUSY,
        (false, false) => WAKE_WHILE_WAITING_FOR_PODS,
    };
    if plan.steps.is_empty()
        && plan.operations.values().all(Option::is_none)
        && plan.holds.iter().any(|hold| hold.reason == Reason::AnotherCell)
    {
        plan.wake_after = plan.wake_after.max(WAKE_WHILE_OTHERS_RESTART);
    }
    plan.wake_after = upkeep.wake_after(now, plan.wake_after);
    plan
}

/// Plans one pass over a cell whose spec is invalid: what runs is left alone, but its certificates live on, and a node that is
/// back from a restart serves again.
pub fn plan_invalid_cell(snapshot: &CellSnapshot, now: Timestamp, wake_after: Duration) -> Plan {
    if snapshot.cell.spec.suspend || !has_finalizer(&snapshot.cell.metadata) {
        return Plan { wake_after, ..Plan::default() };
    }
    let mut upkeep = plan_security(None, snapshot, now);
    let (mut steps, holds) = (std::mem::take(&mut upkeep.steps), std::mem::take(&mut upkeep.holds));
    let meta = &snapshot.cell.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    for cluster in snapshot.objects.cluster_names() {
        let mut draft = Draft::default();
        let key = ClusterKey::new(text(&meta.namespace), text(&meta.name), cluster);
        leave::keep_told(&key, snapshot, &mut draft);
        steps.append(&mut draft.steps);
    }
    Plan { steps, holds, wake_after: upkeep.wake_after(now, wake_after), ..Plan::default() }
}

/// True while Elasticsearch is expected to change by itself: it forms, nodes join, shards start.
fn is_unsettled(cell: &ValidCell, snapshot: &CellSnapshot, cluster: &str) -> bool {
    let Some(facts) = snapshot.elastic(cluster) else { return true };
    let pods = &snapshot.objects.pods;
    let key = cell.key(cluster);
    let of_cluster = |pod: &&k8s_openapi::api::core::v1::Pod| {
        crate::snapshot::label(&pod.metadata, crate::names::LABEL_CLUSTER) == Some(key.cluster.as_str())
    };
    facts.master.is_none()
        || pods.iter().filter(of_cluster).any(|pod| {
            !crate::snapshot::is_ready(pod)
                || !pod.metadata.name.as_ref().is_some_and(|name| facts.nodes.contains_key(name))
        })
        || facts.indices.values().any(|index| {
            index.copies.iter().any(|copy| matches!(copy.state, crate::snapshot::ShardState::Initializing))
        })
}

/// True when the object carries our finalizer.
pub(crate) fn has_finalizer(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> bool {
    meta.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}
