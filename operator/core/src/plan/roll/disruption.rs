//! How many clusters of all cells may be in the middle of a change at a time, so that one commit does not restart the world. Pure.
//!
//! A cluster takes its place by recording its first operation in status, and keeps it until all of its nodes run what the spec
//! asks for. Whoever has recorded one looks at the API server once more before it acts ([`Disruption::room`]): of two operators, or
//! two passes, that record at the same time at least one sees the other. The younger of the two takes its record back when it
//! sees the older one ([`Disruption::ahead`]).

use jiff::Timestamp;
use searchcell_crds::{ClusterPhase, ClusterStatus, RolloutPhase, SearchCell};

use super::is_restart;
use crate::names::ClusterKey;

/// A cluster whose nodes restart. The order is that in which they have taken their places.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disruption {
    /// When its first operation was recorded; `None`: nodes have restarted already, and others have not.
    since: Option<Timestamp>,
    cluster: ClusterKey,
}

impl Disruption {
    /// Those of a cell, as its status tells them.
    pub fn of_cell(cell: &SearchCell) -> Vec<Self> {
        let namespace = cell.metadata.namespace.as_deref().unwrap_or_default();
        let name = cell.metadata.name.as_deref().unwrap_or_default();
        let Some(status) = &cell.status else { return Vec::new() };
        let rolls = status.rollout.as_ref().is_some_and(|rollout| rollout.phase != RolloutPhase::Complete);
        let disruption = |of: &ClusterStatus| {
            let since = match &of.operation {
                _ if rolls && is_in_part(of) => None,
                Some(operation) if is_restart(operation) => Some(operation.started_at.0),
                _ => return None,
            };
            Some(Self { since, cluster: ClusterKey::new(namespace, name, &of.name) })
        };
        status.clusters.iter().filter_map(disruption).collect()
    }

    /// Who it is.
    pub fn cluster(&self) -> &ClusterKey {
        &self.cluster
    }

    /// Whether nodes of a cluster have restarted already, so that it has its place.
    pub fn has_begun(known: &[Self], cluster: &ClusterKey) -> bool {
        known.iter().any(|of| of.cluster == *cluster && of.since.is_none())
    }

    /// Whether a cluster that has recorded its first operation may restart a node. `live`: of all cells, read after that.
    ///
    /// # Errors
    ///
    /// Why not: its record is gone, or all places are taken by others, be they older or younger.
    pub fn room(live: &[Self], cluster: &ClusterKey, most: usize) -> Result<(), &'static str> {
        if !live.iter().any(|of| of.cluster == *cluster) {
            return Err("the status does not record that restart any more");
        }
        let others = live.iter().filter(|of| of.cluster != *cluster).count();
        if others < most { Ok(()) } else { Err("nodes of other cells restart already") }
    }

    /// What keeps a cluster from going on: those that have taken all places before it.
    pub(super) fn ahead<'a>(
        known: &'a [Self],
        cluster: &ClusterKey,
        now: Timestamp,
        most: usize,
    ) -> Result<(), Vec<&'a ClusterKey>> {
        let own = known.iter().find(|of| of.cluster == *cluster).cloned();
        let own = own.unwrap_or_else(|| Self { since: Some(now), cluster: cluster.clone() });
        let others: Vec<&ClusterKey> = known.iter().filter(|of| **of < own).map(|of| &of.cluster).collect();
        if others.len() < most { Ok(()) } else { Err(others) }
    }
}

/// Some of its nodes run what the spec asks for and others do not, or some do not run at all.
fn is_in_part(of: &ClusterStatus) -> bool {
    let is_new = matches!(of.phase, ClusterPhase::Pending | ClusterPhase::Forming | ClusterPhase::Deleting);
    !is_new
        && (of.nodes.as_ref())
            .is_some_and(|nodes| (1..nodes.total).contains(&nodes.updated) || nodes.ready < nodes.total)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use searchcell_crds::{NodeCounts, Operation, OperationKind, RolloutStatus, SearchCellStatus};

    use super::*;

    /// A cluster of six nodes: so many are updated, and a restart was recorded at that second.
    fn cluster(name: &str, updated: i32, recorded: Option<i64>) -> ClusterStatus {
        let operation = recorded.map(|second| Operation {
            kind: OperationKind::RestartNode,
            zone: None,
            nodes: vec!["n".to_owned()],
            uids: vec!["u".to_owned()],
            message: None,
            started_at: Time(Timestamp::from_second(second).unwrap()),
        });
        ClusterStatus {
            name: name.to_owned(),
            phase: ClusterPhase::Rolling,
            nodes: Some(NodeCounts { ready: 6, total: 6, updated }),
            operation,
            ..ClusterStatus::default()
        }
    }

    fn cell(name: &str, phase: RolloutPhase, clusters: Vec<ClusterStatus>) -> Vec<Disruption> {
        let mut cell = SearchCell::default();
        cell.metadata.namespace = Some("search".to_owned());
        cell.metadata.name = Some(name.to_owned());
        let rollout = Some(RolloutStatus { phase, ..RolloutStatus::default() });
        cell.status = Some(SearchCellStatus { clusters, rollout, ..SearchCellStatus::default() });
        Disruption::of_cell(&cell)
    }

    fn key(cell: &str) -> ClusterKey {
        ClusterKey::new("search", cell, "a")
    }

    #[test]
    fn who_has_begun_or_recorded_counts_and_nobody_else() {
        let names = |all: Vec<Disruption>| all.into_iter().map(|of| of.cluster.cluster).collect::<Vec<_>>();
        let clusters = || {
            let mut forms = cluster("forms", 3, None);
            forms.phase = ClusterPhase::Forming;
            let mut crashes = cluster("crashes", 0, None);
            crashes.nodes.as_mut().unwrap().ready = 5;
            let mut drains = cluster("drains", 0, Some(1));
            drains.operation.as_mut().unwrap().kind = OperationKind::DrainNode;
            vec![
                cluster("done", 6, None),
                cluster("waits", 0, None),
                cluster("begun", 1, None),
                cluster("recorded", 0, Some(1)),
                crashes,
                forms,
                drains,
            ]
        };
        assert_eq!(names(cell("x", RolloutPhase::Rolling, clusters())), ["begun", "recorded", "crashes"]);
        assert_eq!(names(cell("x", RolloutPhase::Paused, clusters())), ["begun", "recorded", "crashes"]);
        assert_eq!(names(cell("x", RolloutPhase::Complete, clusters())), ["recorded"]);
    }

    #[test]
    fn of_two_that_have_recorded_one_acts_and_the_other_one_withdraws() {
        let rolling = |name, updated, at| cell(name, RolloutPhase::Rolling, vec![cluster("a", updated, at)]);
        let now = Timestamp::from_second(100).unwrap();
        let both = [rolling("x", 0, Some(10)), rolling("y", 0, Some(20))].concat();
        assert_eq!(Disruption::ahead(&both, &key("x"), now, 1), Ok(()));
        assert_eq!(Disruption::ahead(&both, &key("y"), now, 1), Err(vec![&key("x")]));
        // Before the younger one has withdrawn, it might have acted.
        assert!(Disruption::room(&both, &key("x"), 1).is_err());
        assert_eq!(Disruption::room(&both[..1], &key("x"), 1), Ok(()));
        assert_eq!(Disruption::room(&both, &key("x"), 2), Ok(()));
        assert!(Disruption::room(&both[..1], &key("y"), 9).unwrap_err().contains("record"));

        let begun = [rolling("x", 0, Some(10)), rolling("y", 1, Some(20))].concat();
        assert!(Disruption::has_begun(&begun, &key("y")) && !Disruption::has_begun(&begun, &key("x")));
        assert_eq!(Disruption::ahead(&begun, &key("y"), now, 1), Ok(()));
        assert_eq!(Disruption::ahead(&begun, &key("x"), now, 1), Err(vec![&key("y")]));
        assert_eq!(Disruption::ahead(&begun, &key("z"), now, 2), Err(vec![&key("x"), &key("y")]));
        assert_eq!(Disruption::ahead(&begun, &key("z"), now, 3), Ok(()));
    }
}
