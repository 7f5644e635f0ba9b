//! In which order the clusters of a cell restart their nodes, and what keeps one from following the other: an approval, the
//! canary, those that go first, what has not soaked, and what is not well since it changed. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use searchcell_crds::Reason;

use super::disruption::Disruption;
use super::gates::{self, Members};
use super::is_restart;
use super::nodes::rolls;
use crate::build;
use crate::domain::{ValidCell, ValidCluster};
use crate::names::ANNOTATION_APPROVE;
use crate::snapshot::{CellObjects, CellSnapshot, annotation};
use crate::status::some_of;

/// The clusters of a cell, in the order in which they change.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    cell: &'a ValidCell,
    is_approved: bool,
    standings: Vec<Standing<'a>>,
    /// Of all cells, and how many there may be at a time.
    disruptions: Vec<Disruption>,
    most_disruptions: usize,
}

#[derive(Debug)]
struct Standing<'a> {
    name: &'a str,
    /// Not all of its nodes run what the spec asks for.
    is_behind: bool,
    /// Status records a restart.
    is_under_way: bool,
    /// What is wrong with a cluster that has changed.
    trouble: Option<String>,
    /// When the last of its nodes became ready.
    ready_since: Option<Timestamp>,
}

/// Why a cluster does not go on.
pub(super) type Shut = (Reason, String);

impl<'a> Order<'a> {
    /// `clusters`: those of the spec, each with its objects.
    pub(crate) fn new(
        cell: &'a ValidCell,
        snapshot: &CellSnapshot,
        clusters: &[(&'a ValidCluster, CellObjects)],
    ) -> Self {
        let is_approved = !cell.is_approved_by_hand || {
            let id = build::cell_hash(cell);
            annotation(&snapshot.cell.metadata, ANNOTATION_APPROVE) == Some(id.as_str())
        };
        let all = clusters.iter().filter(|_| snapshot.restarts_nodes);
        let mut standings: Vec<Standing<'_>> =
            all.map(|(cluster, objects)| standing(cell, snapshot, &cluster.name, objects)).collect();
        // A stable sort: the others stay as the spec has them.
        standings.sort_by_key(|of| cell.canary.as_deref() != Some(of.name));
        let (disruptions, most_disruptions) = (snapshot.disruptions.clone(), snapshot.most_disruptions);
        Self { cell, is_approved, standings, disruptions, most_disruptions }
    }

    /// Whether any cluster has nodes that do not run what the spec asks for.
    pub(crate) fn is_busy(&self) -> bool {
        self.standings.iter().any(Standing::is_busy)
    }

    /// What has to hold of the cell before nodes of a cluster restart.
    pub(super) fn gate(&self, cluster: &str, now: Timestamp) -> Result<(), Shut> {
        if !self.is_approved {
            let id = build::cell_hash(self.cell);
            let message = format!("set the annotation {ANNOTATION_APPROVE}: {id} to let nodes restart");
            return Err((Reason::AwaitingApproval, message));
        }
        let others = || self.standings.iter().filter(|other| other.name != cluster);
        if let Some(canary) = others().find(|other| self.is_canary(other) && other.is_busy()) {
            let message = format!("cluster {} is the canary: its nodes restart first", canary.name);
            return Err((Reason::AnotherCluster, message));
        }
        self.has_room(cluster)?;
        let changed = || others().filter(|other| !other.is_busy());
        if let Some((name, trouble)) = changed().find_map(|other| Some((other.name, other.trouble.as_ref()?)))
        {
            let message = format!(
                "cluster {name} runs what the spec asks for and is not well: {trouble}; the others follow when it is, or when \
                 the spec is corrected"
            );
            return Err((Reason::Regressed, message));
        }
        let soak = SignedDuration::try_from(self.cell.soak).unwrap_or(SignedDuration::MAX);
        let soaks =
            |other: &&Standing<'_>| other.ready_since.is_some_and(|since| now.duration_since(since) < soak);
        if let Some(other) = changed().find(soaks) {
            let message = format!(
                "cluster {} has changed: the others follow when it has been settled for spec.rollout.soak",
                other.name
            );
            return Err((Reason::Soaking, message));
        }
        self.has_place(cluster, now)
    }

    /// Of all cells, few clusters at a time.
    fn has_place(&self, cluster: &str, now: Timestamp) -> Result<(), Shut> {
        let (key, most) = (self.cell.key(cluster), self.most_disruptions);
        Disruption::ahead(&self.disruptions, &key, now, most).map_err(|others| {
            let others: Vec<String> =
                others.iter().map(|other| format!("{}/{}", other.namespace, other.name())).collect();
            let message = format!(
                "--max-disrupted-clusters of the operator is {most}: nodes of {} restart first",
                some_of(&others)
            );
            (Reason::AnotherCell, message)
        })
    }

    fn is_canary(&self, standing: &Standing<'_>) -> bool {
        self.cell.canary.as_deref() == Some(standing.name)
    }

    /// Those that have begun go on; the others wait for those that come first.
    fn has_room(&self, cluster: &str) -> Result<(), Shut> {
        let place = |name: &str| self.standings.iter().position(|standing| standing.name == name);
        let begun = |name: &str| self.standings.iter().any(|of| of.name == name && of.is_under_way);
        let goes_first = |other: &&Standing<'_>| {
            let is_earlier = place(other.name) < place(cluster);
            match (other.is_under_way, begun(cluster)) {
                (true, false) => true,
                (false, true) => false,
                _ => other.is_behind && is_earlier,
            }
        };
        let others = self.standings.iter().filter(|other| other.name != cluster).filter(goes_first);
        let first: Vec<String> = others.map(|other| other.name.to_owned()).collect();
        let most = usize::try_from(self.cell.max_unavailable_clusters).unwrap_or(1).max(1);
        if first.len() < most {
            return Ok(());
        }
        Err((Reason::AnotherCluster, format!("nodes of cluster {} restart first", some_of(&first))))
    }
}

impl Standing<'_> {
    fn is_busy(&self) -> bool {
        self.is_behind || self.is_under_way
    }
}

fn standing<'a>(
    cell: &ValidCell,
    snapshot: &CellSnapshot,
    name: &'a str,
    objects: &CellObjects,
) -> Standing<'a> {
    let of_cluster = snapshot.cell.status.iter().flat_map(|status| &status.clusters);
    let is_under_way =
        of_cluster.filter(|of| of.name == name).any(|of| of.operation.as_ref().is_some_and(is_restart));
    let is_behind = rolls(cell, &cell.key(name), objects);
    let members = Members { objects, elastic: snapshot.elastic(name) };
    let trouble = (!is_behind && !is_under_way).then(|| gates::trouble(&members)).flatten();
    let ready_since = objects.pods.iter().filter_map(ready_since).max();
    Standing { name, is_behind, is_under_way, trouble, ready_since }
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready =
        conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}
