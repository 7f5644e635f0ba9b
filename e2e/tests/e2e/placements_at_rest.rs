//! What placements cost at rest: nothing is written, and a cluster is asked no more often for many placements and indices
//! than for few.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use searchcell_e2e::audit::AuditLog;
use searchcell_e2e::cells::{merged, placement};
use searchcell_e2e::objects::number;
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Operator, Scenario, run, say, wait_for};
use serde_json::json;

const WATCHED: Duration = Duration::from_secs(120);
const MANY: i64 = 200;
/// A cluster is asked this often at most, for all objects together.
const ASKED_EVERY_S: u64 = 10;
/// Documents and disks are read this often, with a request each; the state with its settings and nodes more seldom.
const SIZES_EVERY_S: u64 = 300;
const SIZES: [&str; 2] = ["stats", "disks"];
const DETAILS: [&str; 3] = ["state", "settings", "nodes"];
/// Requests to the API server a minute, watches that begin anew included.
const TO_KUBERNETES: u64 = 24;

/// What a stretch of rest has cost.
#[derive(Debug)]
struct Cost {
    /// Requests to the cluster, by operation.
    elastic: BTreeMap<String, u64>,
    /// Requests to the API server, by verb and resource; absent where there is no audit log.
    kubernetes: Option<BTreeMap<String, u64>>,
    seconds: u64,
}

impl Cost {
    fn of(&self, operations: &[&str]) -> u64 {
        let count = |of: &&str| self.elastic.get(*of).copied().unwrap_or_default();
        operations.iter().map(count).sum()
    }

    fn to_elastic(&self) -> u64 {
        self.elastic.values().sum()
    }

    /// The bound knows nothing of indices and placements. One more of each is the edge of the stretch. `objects`: those that
    /// have a status.
    fn check(&self, what: &str, objects: u64) {
        let times = |every: u64| self.seconds.div_ceil(every) + 1;
        let asked = self.of(&["summary"]);
        assert!((1..=times(ASKED_EVERY_S)).contains(&asked), "{what}: {self:?}");
        for operation in SIZES.iter().chain(&DETAILS) {
            assert!(self.of(&[operation]) <= times(SIZES_EVERY_S), "{what}: {operation}: {self:?}");
        }
        let known = asked + self.of(&SIZES) + self.of(&DETAILS) + self.of(&["handshake"]);
        assert_eq!(self.to_elastic(), known, "{what}: what else is asked or written? {self:?}");
        let Some(kubernetes) = &self.kubernetes else { return };
        let most = TO_KUBERNETES * self.seconds.div_ceil(60);
        assert!(kubernetes.values().sum::<u64>() <= most, "{what}: {self:?}");
        let of_verb =
            |verb: &str| kubernetes.keys().filter(|request| request.starts_with(verb)).collect::<Vec<_>>();
        assert!(of_verb("list ").is_empty(), "{what}: {self:?}");
        // The bytes of an index settle a while after it was made: a reading of sizes may change what status says.
        let (refreshes, others): (Vec<_>, Vec<_>) = (["create ", "patch ", "delete", "update "].into_iter())
            .flat_map(of_verb)
            .filter(|request| !request.ends_with(" leases"))
            .partition(|request| request.ends_with("s/status"));
        assert!(others.is_empty(), "{what}: {others:?} in {self:?}");
        let refreshed: u64 = refreshes.iter().filter_map(|request| kubernetes.get(*request)).sum();
        assert!(refreshed <= objects * self.of(&["stats"]), "{what}: {self:?}");
    }
}

/// Waits until all that is slow to be known is known, and then counts.
async fn rest(t: &Scenario, operator: Operator, what: &str, placements: &[&str]) -> (Operator, Cost) {
    for name in placements {
        t.placement_ready(name).await;
    }
    // Documents and disks are read every five minutes; a new process reads them at once.
    operator.terminate().await;
    let operator = t.start_operator().await;
    for name in placements {
        wait_for(&format!("the sizes of {name}"), LIMIT, async || {
            let object = t.objects.get("indexplacements", name).await?.ok_or("no placement")?;
            ensure(number(&object, "/status/documents") >= 0, || "not measured yet".to_owned())
        })
        .await;
    }
    let objects = placements.len() as u64;
    operator.looks("placement", objects, 3).await;
    let log = AuditLog::mark(t.env).await;
    let (began, before) = (Instant::now(), requests(&operator).await);
    tokio::time::sleep(WATCHED).await;
    let after = requests(&operator).await;
    let seconds = began.elapsed().as_secs();
    let elastic = after.into_iter().map(|(operation, count)| {
        let since = count - before.get(&operation).copied().unwrap_or_default();
        (operation, since)
    });
    let kubernetes = log.map(|log| {
        let mut by_kind = BTreeMap::new();
        for request in log.requests_of(&operator.user) {
            *by_kind.entry(format!("{} {}", request.verb, request.resource)).or_default() += 1;
        }
        by_kind
    });
    let cost = Cost { elastic: elastic.filter(|(_, count)| *count > 0).collect(), kubernetes, seconds };
    let minutes = cost.seconds as f64 / 60.0;
    let to_kubernetes = cost.kubernetes.iter().flat_map(BTreeMap::values).sum::<u64>() as f64 / minutes;
    say(format!(
        "{what}: {:.1} requests a minute to Elasticsearch, {to_kubernetes:.1} to the API server; {cost:?}",
        cost.to_elastic() as f64 / minutes
    ));
    (operator, cost)
}

/// Requests to Elasticsearch so far, by operation, however they ended.
async fn requests(operator: &Operator) -> BTreeMap<String, u64> {
    let mut requests = BTreeMap::new();
    for (labels, count) in operator.counts("searchcell_es_requests_total").await {
        let operation = labels.split("op=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        *requests.entry(operation.to_owned()).or_default() += count;
    }
    requests
}

/// One idle index, and two hundred of two placements: the same bound, and no write but the Lease, and a figure in status
/// when sizes have just been read.
#[test]
fn idle_indices_cost_no_requests() {
    run("idle_indices_cost_no_requests", Level::Full, async |t| {
        let operator = t.start_operator().await;
        let cell = Cell::small("cell");
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        t.apply(&placement("one", "cell", json!({"pool": {"indices": 1}}), 0)).await;
        let (operator, one) = rest(t, operator, "one index", &["one"]).await;
        one.check("one index", 2);

        let other = json!({"spec": {"collection": "idle"}});
        let pool = json!({"pool": {"indices": MANY - 1}});
        t.apply(&merged(placement("many", "cell", pool, 0), &other)).await;
        let (_operator, many) = rest(t, operator, "200 indices of two placements", &["one", "many"]).await;
        let object = t.objects.expect("indexplacements", "many").await;
        assert_eq!(number(&object, "/status/indices"), MANY - 1);
        many.check("200 indices of two placements", 3);
    });
}
