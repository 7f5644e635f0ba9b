//! The status of a SearchCell. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use searchcell_crds::conditions::{DEGRADED, READY};
use searchcell_crds::{
    ClusterPhase, ClusterStatus, Hold as StatusHold, NodeCounts, Operation, OperationKind, Reason,
    SearchCellStatus, SecurityMode,
};

use super::rollout::rollout;
use super::trouble::trouble;
use super::wanted::Wanted;
use super::{Conditions, join, some_of, two_significant_digits};
use crate::domain::{EsVersion, ValidCell};
use crate::identity::{Identity, identity};
use crate::names::ClusterKey;
use crate::placement::{Copies, verify};
use crate::plan::{is_drain, is_removal, is_there, rolls};
use crate::security::keystore::resolve;
use crate::snapshot::{CellSnapshot, ElasticFacts, Reading, is_ready};
use crate::step::{Outcome, Plan};
use crate::validate::Problem;

/// The status after a pass. `valid` is what validation made of the spec; with an invalid spec, what is said about
/// the running clusters goes on.
pub fn cell_status(
    snapshot: &CellSnapshot,
    valid: Result<&ValidCell, &[Problem]>,
    plan: &Plan,
    outcomes: &[Outcome],
    now: Timestamp,
) -> SearchCellStatus {
    let previous = snapshot.cell.status.clone().unwrap_or_default();
    let generation = snapshot.cell.metadata.generation;
    let is_deleting = snapshot.cell.metadata.deletion_timestamp.is_some();
    let resolved = valid.map(|cell| resolve(cell, snapshot));
    let valid = resolved.as_ref().map_err(|problems| *problems);
    let in_spec: Vec<&str> =
        valid.iter().flat_map(|cell| &cell.clusters).map(|cluster| cluster.name.as_str()).collect();
    // With an invalid spec, and for a cluster that left it, what was there before goes on being reported.
    let is_reported = |name: &&str| {
        let operation = plan.operations.get(*name);
        valid.is_err() || is_there(snapshot, name) || operation.is_some_and(|of| of.is_some())
    };
    let before = previous.clusters.iter().map(|status| status.name.clone());
    let mut others: BTreeSet<String> = before.collect();
    if valid.is_ok() {
        // Also when status was lost.
        others.extend(snapshot.objects.cluster_names());
    }
    let others = others.iter().map(String::as_str).filter(|name| !in_spec.contains(name)).filter(is_reported);
    let reports: Vec<Report> = (in_spec.iter().map(|name| (*name, valid.ok())))
        .chain(others.map(|name| (name, None)))
        .map(|(name, cell)| Report::new(snapshot, cell, &key_of(snapshot, name), &previous, plan, now))
        .collect();

    // One that is to go is missed by nobody.
    let is_asked_for = |name: &String| snapshot.cell.spec.clusters.iter().any(|of| of.name == *name);
    let stays = |of: &&Report| of.status.phase != ClusterPhase::Deleting || is_asked_for(&of.status.name);
    let stay: Vec<&Report> = reports.iter().filter(stays).collect();
    let mut conditions = Conditions::new(generation, now);
    if is_deleting {
        conditions.set(READY, false, Reason::Deleting, "the cell is being deleted");
    } else {
        ready(&mut conditions, &stay, valid);
    }
    degraded(&mut conditions, &stay);
    let under_way = if is_deleting {
        Some((Reason::Deleting, "what belongs to the cell goes as spec.deletionPolicy says".to_owned()))
    } else {
        reports.iter().find_map(Report::under_way)
    };
    conditions.progress(valid.err().unwrap_or_default(), plan, outcomes, under_way);

    let serving = stay.iter().filter(|report| report.why_not_serving.is_none()).count();
    let total: i32 = reports.iter().map(|report| report.total()).sum();
    let nodes_ready: i32 = reports.iter().map(|report| report.ready()).sum();
    let clusters: Vec<&ClusterStatus> = reports.iter().map(|report| &report.status).collect();
    let behind: BTreeSet<&str> =
        (reports.iter().filter(|of| of.is_behind)).map(|of| of.status.name.as_str()).collect();
    let rollout = valid.map_or(previous.rollout.clone(), |cell| {
        rollout(cell, snapshot, &clusters, &behind, previous.rollout.clone())
    });
    SearchCellStatus {
        observed_generation: generation,
        conditions: conditions.finish(&previous.conditions),
        version: lowest_version(snapshot).map(|version| version.to_string()).or(previous.version),
        clusters_ready: Some(format!("{serving}/{}", stay.len())),
        nodes_ready: Some(format!("{nodes_ready}/{total}")),
        rollout,
        clusters: reports.into_iter().map(|report| report.status).collect(),
    }
}

/// What is found out about one cluster.
struct Report {
    status: ClusterStatus,
    why_not_serving: Option<(Reason, String)>,
    missing_nodes: Vec<String>,
    trouble: Option<(Reason, String)>,
    copies: Copies,
    /// Not all of its nodes run what the spec asks for.
    is_behind: bool,
}

impl Report {
    fn new(
        snapshot: &CellSnapshot,
        cell: Option<&ValidCell>,
        key: &ClusterKey,
        previous: &SearchCellStatus,
        plan: &Plan,
        now: Timestamp,
    ) -> Self {
        let objects = snapshot.objects.of_cluster(&key.cluster);
        let before =
            previous.clusters.iter().find(|status| status.name == key.cluster).cloned().unwrap_or_default();
        let reading = snapshot.elastic.get(&key.cluster);
        let facts = reading.and_then(Reading::known);
        let created_at = snapshot.cell.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let identity = identity(before.uuid.as_deref(), &objects, facts, created_at);
        let wanted = Wanted::new(cell, key, &objects);
        let ready_pods: Vec<&Pod> = objects.pods.iter().filter(|pod| is_ready(pod)).collect();
        let missing_nodes = wanted.missing(&objects);
        let zones = cell.map_or(snapshot.cell.spec.active_zones().count(), |cell| cell.zones.len());
        let copies = facts.map_or_else(Copies::default, |facts| {
            facts
                .indices
                .values()
                .fold(Copies::default(), |sum, index| sum.plus(verify(index, facts, zones, now)))
        });

        let why_not_serving = why_not_serving(key, &identity, reading, facts, now);
        let is_whole = missing_nodes.is_empty() && wanted.workloads_exist;
        let is_new =
            matches!(before.phase, ClusterPhase::Pending | ClusterPhase::Forming | ClusterPhase::Deleting);
        let was_settled = !is_new;
        let goes =
            |of: &Option<Operation>| of.as_ref().is_some_and(|of| of.kind == OperationKind::DeleteVolumes);
        let was_going = goes(&before.operation);
        let operation = plan.operations.get(&key.cluster).cloned().unwrap_or(before.operation);
        let is_forgotten = was_going || goes(&operation);
        let drains = operation.as_ref().is_some_and(is_drain);
        let restarting = operation.as_ref().map(|operation| operation.nodes.as_slice()).unwrap_or_default();
        let only_restarting = missing_nodes.iter().all(|node| restarting.contains(node));
        let is_behind = cell.is_some_and(|cell| snapshot.restarts_nodes && rolls(cell, key, &objects));
        let removal = operation.as_ref().filter(|of| is_removal(of)).map(|of| of.kind);
        let phase = if removal.is_some() {
            ClusterPhase::Deleting
        } else if why_not_serving.is_some() && was_settled && before.uuid.is_some() {
            ClusterPhase::Unavailable
        } else if !was_settled && (!is_whole || why_not_serving.is_some()) {
            if wanted.workloads_exist { ClusterPhase::Forming } else { ClusterPhase::Pending }
        } else if (!is_whole && wanted.only_new_nodes_missing(&objects, &missing_nodes))
            || (drains && is_whole && copies.lost == 0)
        {
            ClusterPhase::Scaling
        } else if wanted.workloads_exist
            && only_restarting
            && !drains
            && (operation.is_some() || (is_behind && copies.lost == 0))
        {
            ClusterPhase::Rolling
        } else if !is_whole || copies.lost > 0 {
            ClusterPhase::Degraded
        } else {
            ClusterPhase::Ready
        };
        let trouble = objects.pods.iter().filter(|pod| !is_ready(pod)).find_map(trouble);
        // The first time, "serves" means that everything is there that was asked for.
        let forms = matches!(phase, ClusterPhase::Pending | ClusterPhase::Forming);
        let why_not_serving =
            why_not_serving.map(|why| trouble.clone().filter(|_| forms).unwrap_or(why)).or_else(|| {
                forms.then(|| {
                    let waiting = if missing_nodes.is_empty() {
                        "its objects".to_owned()
                    } else {
                        some_of(&missing_nodes)
                    };
                    (Reason::Forming, format!("cluster {} forms: waiting for {waiting}", key.cluster))
                })
            });

        let uuid = match identity {
            // What it was goes with its volumes: under this name another one may form.
            _ if is_forgotten => None,
            Identity::Known(uuid) => Some(uuid),
            _ => before.uuid,
        };
        let counts = facts.and_then(|facts| facts.counts.as_ref());
        let documents =
            counts.map(|counts| two_significant_digits(counts.values().map(|count| count.documents).sum()));
        let holds = (plan.holds.iter())
            .filter(|hold| hold.cluster.as_deref() == Some(key.cluster.as_str()))
            .map(|hold| StatusHold { gate: hold.reason.as_str().to_owned(), message: hold.message.clone() })
            .collect();
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let status = ClusterStatus {
            name: key.cluster.clone(),
            uuid,
            phase,
            version: facts.and_then(lowest_of).map(|version| version.to_string()).or(before.version),
            endpoint: Some(key.endpoint(scheme(snapshot))),
            nodes: Some(NodeCounts {
                ready: count(ready_pods.len()),
                total: wanted.total(),
                updated: wanted.updated,
            }),
            zones: wanted.zones(&ready_pods),
            indices: facts.map(|facts| count(facts.indices.len())).or(before.indices),
            shards: facts.map(|_| copies.started).or(before.shards),
            documents: documents.or(before.documents),
            operation,
            holds,
        };
        Self { status, why_not_serving, missing_nodes, trouble, copies, is_behind }
    }

    /// True before everything was there for the first time.
    fn forms(&self) -> bool {
        matches!(self.status.phase, ClusterPhase::Pending | ClusterPhase::Forming)
    }

    fn total(&self) -> i32 {
        self.status.nodes.as_ref().map_or(0, |nodes| nodes.total)
    }

    fn ready(&self) -> i32 {
        self.status.nodes.as_ref().map_or(0, |nodes| nodes.ready)
    }

    /// What is happening by itself.
    fn under_way(&self) -> Option<(Reason, String)> {
        let name = &self.status.name;
        let is_moving = matches!(
            self.status.phase,
            ClusterPhase::Pending | ClusterPhase::Forming | ClusterPhase::Scaling
        );
        if let Some(trouble) = self.trouble.clone().filter(|_| is_moving) {
            return Some(trouble);
        }
        match self.status.phase {
            ClusterPhase::Pending => {
                Some((Reason::Progressing, format!("objects of cluster {name} are being created")))
            }
            ClusterPhase::Forming => {
                Some((Reason::Forming, format!("cluster {name} forms for the first time")))
            }
            ClusterPhase::Scaling if self.missing_nodes.is_empty() => {
                let nodes = self.status.operation.iter().flat_map(|of| of.nodes.clone()).collect::<Vec<_>>();
                Some((
                    Reason::Draining,
                    format!("nodes of cluster {name} are emptied, to be removed: {}", some_of(&nodes)),
                ))
            }
            ClusterPhase::Scaling => Some((
                Reason::Scaling,
                format!("waiting for new nodes of cluster {name}: {}", some_of(&self.missing_nodes)),
            )),
            ClusterPhase::Rolling => {
                Some((Reason::RollingOut, format!("nodes of cluster {name} restart, one at a time")))
            }
            _ => None,
        }
    }
}

fn why_not_serving(
    key: &ClusterKey,
    identity: &Identity,
    reading: Option<&Reading<ElasticFacts>>,
    facts: Option<&ElasticFacts>,
    now: Timestamp,
) -> Option<(Reason, String)> {
    let name = &key.cluster;
    match identity {
        Identity::Known(_) => {}
        Identity::Unborn => return Some((Reason::Forming, format!("cluster {name} has not formed yet"))),
        Identity::OlderVolumes(_) | Identity::Conflict(_) | Identity::Foreign { .. } => {
            return Some((
                Reason::ForeignVolume,
                format!("it is unclear which cluster {name} is; see its holds"),
            ));
        }
    }
    match (reading, facts) {
        (Some(Reading::Unavailable(why)), _) => {
            Some((Reason::Unreachable, format!("cluster {name} does not answer: {why}")))
        }
        (_, None) => Some((Reason::Unreachable, format!("cluster {name} has not been read yet"))),
        (_, Some(facts)) if facts.master.is_none() => {
            Some((Reason::NoMaster, format!("cluster {name} has no elected master")))
        }
        (_, Some(facts)) => {
            let unstarted =
                |index: &&crate::snapshot::IndexFacts| verify(index, facts, 1, now).has_lost_primaries();
            let red: Vec<String> = (facts.indices.iter())
                .filter(|(_, index)| index.mark.is_some() && unstarted(index))
                .map(|(index, _)| index.clone())
                .collect();
            (!red.is_empty()).then(|| {
                (
                    Reason::PrimariesUnassigned,
                    format!("primaries are not started in cluster {name}: {}", some_of(&red)),
                )
            })
        }
    }
}

fn ready(conditions: &mut Conditions, reports: &[&Report], valid: Result<&ValidCell, &[Problem]>) {
    let not_serving: Vec<&(Reason, String)> =
        reports.iter().filter_map(|report| report.why_not_serving.as_ref()).collect();
    match not_serving.first() {
        Some((reason, _)) => {
            conditions.set(READY, false, *reason, join(not_serving.iter().map(|(_, text)| text.clone())))
        }
        None if reports.is_empty() => {
            let reason = if valid.is_err() { Reason::InvalidSpec } else { Reason::Pending };
            conditions.set(READY, false, reason, "no cluster has been created");
        }
        None => {
            let notices = valid.map(notices).unwrap_or_default();
            let texts =
                ["every cluster has an elected master and serves".to_owned()].into_iter().chain(notices);
            conditions.set(READY, true, Reason::Serving, join(texts));
        }
    }
}

fn scheme(snapshot: &CellSnapshot) -> &'static str {
    match snapshot.cell.spec.security_mode() {
        SecurityMode::Managed => "https",
        SecurityMode::Disabled => "http",
    }
}

/// What is accepted, and worth knowing.
fn notices(cell: &ValidCell) -> Vec<String> {
    let few = cell.master_count < 3 || cell.zones.len() < 3;
    let quorum = few.then(|| {
        format!(
            "notice {}: with {} master(s) in {} zone(s) the loss of one zone can stop a cluster",
            Reason::NoZoneQuorum.as_str(),
            cell.master_count,
            cell.zones.len()
        )
    });
    let open = (!cell.is_secure).then(|| {
        format!(
            "notice {}: spec.security.mode is Disabled, so whoever reaches a node can read and write everything",
            Reason::SecurityDisabled.as_str()
        )
    });
    quorum.into_iter().chain(open).collect()
}

fn degraded(conditions: &mut Conditions, reports: &[&Report]) {
    // A cluster that has never been whole is not degraded: it forms.
    let settled = reports.iter().filter(|report| {
        !matches!(report.status.phase, ClusterPhase::Pending | ClusterPhase::Forming | ClusterPhase::Scaling)
    });
    let mut causes: Vec<(Reason, String)> = Vec::new();
    for report in settled {
        let name = &report.status.name;
        if report.status.phase == ClusterPhase::Unavailable {
            causes.push((Reason::ClusterUnavailable, format!("cluster {name} does not serve")));
        }
        // What is restarted comes back.
        let restarts = report.status.phase == ClusterPhase::Rolling;
        let empty: Vec<String> = (report.status.zones.iter())
            .filter(|zone| zone.total > 0 && zone.ready == 0 && !restarts)
            .map(|zone| zone.name.clone())
            .collect();
        if let Some(trouble) = &report.trouble {
            causes.push(trouble.clone());
        } else if !empty.is_empty() {
            causes.push((
                Reason::ZoneMissing,
                format!("zone {} of cluster {name} has no ready node", some_of(&empty)),
            ));
        } else if !report.missing_nodes.is_empty() && !restarts {
            causes.push((
                Reason::NodesMissing,
                format!("nodes of cluster {name} are not ready: {}", some_of(&report.missing_nodes)),
            ));
        }
        if report.copies.lost > 0 && !restarts {
            causes
                .push((Reason::CopiesUnassigned, format!("copies of shards in cluster {name} have no node")));
        }
        if report.copies.misplaced > 0 {
            causes
                .push((Reason::CopiesShareZone, format!("copies of shards in cluster {name} share a zone")));
        }
    }
    let none_is_settled = reports.iter().all(|report| report.forms());
    match causes.first() {
        None if none_is_settled => {
            conditions.set(DEGRADED, false, Reason::Forming, "no cluster has formed yet: nothing is lost")
        }
        Some((reason, _)) => {
            conditions.set(DEGRADED, true, *reason, join(causes.iter().map(|(_, text)| text.clone())))
        }
        None => conditions.set(
            DEGRADED,
            false,
            Reason::FullRedundancy,
            "all nodes are there and all copies are started",
        ),
    }
}

pub(super) fn lowest_version(snapshot: &CellSnapshot) -> Option<EsVersion> {
    snapshot.elastic.values().filter_map(Reading::known).filter_map(lowest_of).min()
}

pub(super) fn lowest_of(facts: &ElasticFacts) -> Option<EsVersion> {
    facts.nodes.values().filter_map(|node| node.version.parse().ok()).min()
}

fn key_of(snapshot: &CellSnapshot, cluster: &str) -> ClusterKey {
    let meta = &snapshot.cell.metadata;
    ClusterKey::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
        cluster,
    )
}
