//! One screen about a cell, from what its status and those of its placements say. Pure.

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use searchcell_crds::{
    ClusterStatus, IndexPlacement, Operation, OperationKind, RolloutPhase, RolloutStatus, SearchCell,
    SearchCellStatus,
};

/// Lines about one cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Screen {
    /// It and its placements are Ready, and nothing waits for a person.
    pub is_well: bool,
    text: String,
}

impl fmt::Display for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Screen {
    /// What is there to be said at a time.
    pub fn new(cell: &SearchCell, placements: &[&IndexPlacement], now: Timestamp) -> Self {
        let meta = &cell.metadata;
        let name = |text: &Option<String>| text.clone().unwrap_or_default();
        let status = cell.status.clone().unwrap_or_default();
        let mut lines =
            vec![title(&format!("{}/{}", name(&meta.namespace), name(&meta.name)), cell, &status)];
        if meta.generation.is_some() && status.observed_generation != meta.generation {
            lines.push(
                "the operator has not looked at the last change of the spec yet: does it run?".to_owned(),
            );
        }
        lines.extend(status.rollout.as_ref().map(|rollout| rolls(cell, rollout)));
        lines.push(String::new());
        lines.extend(conditions(&status.conditions, now));
        lines.push(String::new());
        lines.extend(clusters(&status.clusters, now));
        if !placements.is_empty() {
            lines.push(String::new());
            lines.extend(table_of_placements(placements));
        }
        let of_placements =
            placements.iter().map(|placement| placement.status.as_ref().map(|of| of.conditions.as_slice()));
        let mut all = of_placements.chain([Some(status.conditions.as_slice())]);
        let is_well = all.all(|conditions| conditions.is_some_and(are_well));
        Self { is_well, text: lines.join("\n") + "\n" }
    }
}

fn are_well(conditions: &[Condition]) -> bool {
    let is = |type_: &str| conditions.iter().any(|of| of.type_ == type_ && of.status == "True");
    is("Ready") && !is("Stalled")
}

fn title(name: &str, cell: &SearchCell, status: &SearchCellStatus) -> String {
    let version = match &status.version {
        Some(runs) if *runs != cell.spec.version => format!("{runs}, to be {}", cell.spec.version),
        _ => cell.spec.version.clone(),
    };
    let counts = |counts: &Option<String>, of: &str| {
        counts.as_ref().map(|counts| format!("   {of} {counts}")).unwrap_or_default()
    };
    let suspended = if cell.spec.suspend { "   suspended: nothing is changed" } else { "" };
    format!(
        "{name}   {version}{}{}{suspended}",
        counts(&status.clusters_ready, "clusters"),
        counts(&status.nodes_ready, "nodes")
    )
}

fn rolls(cell: &SearchCell, rollout: &RolloutStatus) -> String {
    let what = match (&rollout.from_version, &rollout.to_version) {
        (Some(from), Some(to)) => format!("{from} to {to}"),
        (None, Some(to)) => format!("to {to}"),
        _ => format!("{:?}", rollout.reason),
    };
    let id = &rollout.id;
    let name = cell.metadata.name.as_deref().unwrap_or_default();
    let next = match rollout.phase {
        RolloutPhase::AwaitingApproval => {
            format!(
                "; to approve: kubectl annotate searchcell {name} --overwrite searchcell.dev/approve-rollout={id}"
            )
        }
        _ => String::new(),
    };
    let (done, total) = (rollout.clusters_done, rollout.clusters_total);
    format!("rollout {id}: {what}, {:?}, {done} of {total} clusters done{next}", rollout.phase)
}

/// What is true: Degraded, Reconciling and Stalled only where they are.
fn conditions(conditions: &[Condition], now: Timestamp) -> Vec<String> {
    let shown = conditions.iter().filter(|of| of.type_ == "Ready" || of.status != "False");
    let row = |of: &Condition| {
        let name = if of.status == "True" { of.type_.clone() } else { format!("not {}", of.type_) };
        let name = if of.status == "Unknown" { format!("{}?", of.type_) } else { name };
        vec![name, of.reason.clone(), ago(of.last_transition_time.0, now), of.message.clone()]
    };
    aligned(&shown.map(row).collect::<Vec<_>>())
}

fn clusters(clusters: &[ClusterStatus], now: Timestamp) -> Vec<String> {
    let head = ["CLUSTER", "PHASE", "VERSION", "NODES", "UPDATED", "ZONES", "INDICES", "SHARDS", "DOCUMENTS"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(clusters.iter().map(|of| {
        let nodes = of.nodes.as_ref();
        let count = |number: Option<i32>| number.map_or("-".to_owned(), |number| number.to_string());
        let zones: Vec<String> =
            of.zones.iter().map(|zone| format!("{} {}/{}", zone.name, zone.ready, zone.total)).collect();
        vec![
            of.name.clone(),
            format!("{:?}", of.phase),
            of.version.clone().unwrap_or("-".to_owned()),
            nodes.map_or("-".to_owned(), |nodes| format!("{}/{}", nodes.ready, nodes.total)),
            nodes.map_or("-".to_owned(), |nodes| format!("{}/{}", nodes.updated, nodes.total)),
            zones.join(", "),
            count(of.indices),
            count(of.shards),
            of.documents.map_or("-".to_owned(), rounded),
        ]
    }));
    let mut lines = aligned(&rows).into_iter();
    let mut all: Vec<String> = lines.next().into_iter().collect();
    for (line, of) in lines.zip(clusters) {
        all.push(line);
        all.extend(of.operation.as_ref().map(|operation| format!("  now    {}", doing(operation, now))));
        all.extend(of.holds.iter().map(|hold| format!("  waits  {}: {}", hold.gate, hold.message)));
    }
    all
}

fn doing(operation: &Operation, now: Timestamp) -> String {
    let zone = operation.zone.as_ref().map(|zone| format!(" in zone {zone}")).unwrap_or_default();
    let what = match operation.kind {
        OperationKind::RestartNode => "restarts",
        OperationKind::RestartZone | OperationKind::RestartCluster => "restart together",
        OperationKind::DrainNode => "is emptied, to be removed",
        OperationKind::DrainZone => "are emptied, to be removed",
        OperationKind::ResizeVolume => "gets a larger volume",
        OperationKind::RemoveCluster => "go with their cluster, which is empty and has left the spec",
        OperationKind::DeleteVolumes => "are gone, and their volumes are being deleted",
    };
    let why = operation.message.as_ref().map(|why| format!("; no more than that: {why}")).unwrap_or_default();
    format!("{} {what}{zone}, since {}{why}", operation.nodes.join(", "), ago(operation.started_at.0, now))
}

fn table_of_placements(placements: &[&IndexPlacement]) -> Vec<String> {
    let head = ["PLACEMENT", "READY", "COLLECTION", "INDICES", "SHARDS", "DOCUMENTS"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(placements.iter().map(|placement| {
        let status = placement.status.as_ref();
        let ready = status.and_then(|status| status.conditions.iter().find(|of| of.type_ == "Ready"));
        vec![
            placement.metadata.name.clone().unwrap_or_default(),
            ready.map_or("-".to_owned(), |ready| ready.status.clone()),
            placement.spec.collection.clone(),
            status.and_then(|status| status.indices).map_or("-".to_owned(), |indices| indices.to_string()),
            status
                .and_then(|status| status.shards.as_ref())
                .map_or("-".to_owned(), |shards| shards.summary.clone()),
            status.and_then(|status| status.documents).map_or("-".to_owned(), rounded),
        ]
    }));
    let mut lines = aligned(&rows).into_iter();
    let mut all: Vec<String> = lines.next().into_iter().collect();
    for (line, placement) in lines.zip(placements) {
        all.push(line);
        let conditions = placement.status.iter().flat_map(|status| &status.conditions);
        let is_news = |of: &&Condition| (of.type_ == "Ready") != (of.status == "True");
        all.extend(
            conditions.filter(is_news).map(|of| format!("  {}  {}: {}", of.type_, of.reason, of.message)),
        );
        let problems = placement.status.iter().flat_map(|status| &status.problems);
        all.extend(problems.map(|of| format!("  {}  {}: {}", of.index, of.reason, of.message)));
    }
    all
}

/// How long ago, in its two largest units.
fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    }
}

/// Documents as status has them: to two significant digits.
fn rounded(documents: i64) -> String {
    match documents {
        1_000_000_000.. => format!("{:.1}e9", documents as f64 / 1e9),
        1_000_000.. => format!("{:.1}e6", documents as f64 / 1e6),
        _ => documents.to_string(),
    }
}

/// Rows with their columns below each other; the last column is as wide as it is.
fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cell() -> SearchCell {
        let time = "2026-01-01T10:00:00Z";
        serde_json::from_value(json!({
            "apiVersion": "searchcell.dev/v1alpha1", "kind": "SearchCell",
            "metadata": {"namespace": "search", "name": "guilds", "generation": 3},
            "spec": {"version": "9.5.3", "zones": [{"name": "a"}], "clusters": [{"name": "a"}, {"name": "b"}],
                "nodes": {"master": {"count": 1, "storage": {"size": "1Gi"}}, "data": {"perZone": 1, "storage": {"size": "1Gi"}}}},
            "status": {"observedGeneration": 3, "version": "9.1.0", "clustersReady": "2/2", "nodesReady": "17/18",
                "conditions": [
                    {"type": "Ready", "status": "True", "reason": "Serving", "message": "all serve", "lastTransitionTime": time},
                    {"type": "Degraded", "status": "False", "reason": "FullRedundancy", "message": "m", "lastTransitionTime": time},
                    {"type": "Reconciling", "status": "True", "reason": "RollingOut", "message": "nodes restart",
                        "lastTransitionTime": "2026-01-03T10:00:00Z"}],
                "rollout": {"id": "5f2c", "phase": "Canary", "reason": "VersionChange", "fromVersion": "9.1.0",
                    "toVersion": "9.5.3", "clustersDone": 0, "clustersTotal": 2},
                "clusters": [
                    {"name": "a", "phase": "Rolling", "version": "9.1.0", "nodes": {"ready": 8, "total": 9, "updated": 3},
                        "zones": [{"name": "a", "ready": 2, "total": 3}], "indices": 42, "shards": 126, "documents": 1_800_000_000_i64,
                        "operation": {"kind": "RestartNode", "zone": "a", "nodes": ["guilds-a-data-a-0"], "uids": ["u"],
                            "message": "index x has one copy", "startedAt": "2026-01-03T10:58:30Z"},
                        "holds": [{"gate": "RollingOut", "message": "guilds-a-data-a-0 restarts: waiting until it is back"}]},
                    {"name": "b", "phase": "Ready", "holds": [{"gate": "AnotherCluster", "message": "cluster a is the canary"}]}]},
        }))
        .unwrap()
    }

    fn placement(ready: &str) -> IndexPlacement {
        serde_json::from_value(json!({
            "apiVersion": "searchcell.dev/v1alpha1", "kind": "IndexPlacement", "metadata": {"namespace": "search", "name": "pool"},
            "spec": {"cell": "guilds", "collection": "messages", "pool": {"indices": 64}, "replicas": 2,
                "tenant": {"field": "guild_id"}, "mappings": {}},
            "status": {"indices": 64, "documents": 40_000_000,
                "shards": {"primaries": 64, "copies": 192, "started": 191, "misplaced": 0, "unassigned": 1, "summary": "191/192"},
                "conditions": [
                    {"type": "Ready", "status": ready, "reason": "Serving", "message": "m", "lastTransitionTime": "2026-01-01T10:00:00Z"},
                    {"type": "Degraded", "status": "True", "reason": "CopiesUnassigned", "message": "copies have no node: x",
                        "lastTransitionTime": "2026-01-01T10:00:00Z"}],
                "problems": [{"index": "messages.p003.g1", "reason": "CopiesShareZone", "message": "two copies are in zone a"}]},
        }))
        .unwrap()
    }

    fn screen(change: impl FnOnce(&mut SearchCell), placements: &[&IndexPlacement]) -> Screen {
        let mut cell = cell();
        change(&mut cell);
        Screen::new(&cell, placements, "2026-01-03T11:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_cell_in_the_middle_of_an_upgrade() {
        let pool = placement("True");
        let expected = "\
search/guilds   9.1.0, to be 9.5.3   clusters 2/2   nodes 17/18
rollout 5f2c: 9.1.0 to 9.5.3, Canary, 0 of 2 clusters done

Ready        Serving     2 d 1 h    all serve
Reconciling  RollingOut  1 h 0 min  nodes restart

CLUSTER  PHASE    VERSION  NODES  UPDATED  ZONES  INDICES  SHARDS  DOCUMENTS
a        Rolling  9.1.0    8/9    3/9      a 2/3  42       126     1.8e9
  now    guilds-a-data-a-0 restarts in zone a, since 1 min 30 s; no more than that: index x has one copy
  waits  RollingOut: guilds-a-data-a-0 restarts: waiting until it is back
b        Ready    -        -      -               -        -       -
  waits  AnotherCluster: cluster a is the canary

PLACEMENT  READY  COLLECTION  INDICES  SHARDS   DOCUMENTS
pool       True   messages    64       191/192  40.0e6
  Degraded  CopiesUnassigned: copies have no node: x
  messages.p003.g1  CopiesShareZone: two copies are in zone a
";
        let screen = screen(|_| {}, &[&pool]);
        assert_eq!(screen.to_string(), expected);
        assert!(screen.is_well);
    }

    #[test]
    fn what_is_not_well_is_told_by_text_and_exit_status() {
        let unready =
            screen(|cell| cell.status.as_mut().unwrap().conditions[0].status = "False".to_owned(), &[]);
        assert!(!unready.is_well && unready.to_string().contains("\nnot Ready "), "{unready}");
        let stalled =
            screen(|cell| cell.status.as_mut().unwrap().conditions[2].type_ = "Stalled".to_owned(), &[]);
        assert!(!stalled.is_well && stalled.to_string().contains("\nStalled "), "{stalled}");
        assert!(!screen(|_| {}, &[&placement("False")]).is_well);
        let unseen = screen(|cell| cell.status = None, &[]);
        assert!(!unseen.is_well && unseen.to_string().contains("does it run?"), "{unseen}");
    }

    #[test]
    fn what_a_person_is_to_do_is_there_to_be_copied() {
        let awaits = screen(
            |cell| {
                cell.status.as_mut().unwrap().rollout.as_mut().unwrap().phase = RolloutPhase::AwaitingApproval
            },
            &[],
        );
        let text = awaits.to_string();
        assert!(
            text.contains(
                "kubectl annotate searchcell guilds --overwrite searchcell.dev/approve-rollout=5f2c"
            ),
            "{text}"
        );
        let suspended = screen(|cell| cell.spec.suspend = true, &[]).to_string();
        assert!(suspended.contains("suspended: nothing is changed"), "{suspended}");
    }
}
