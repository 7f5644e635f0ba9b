//! At rest the operator is silent, whatever build of it runs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use searchcell_e2e::audit::{AuditLog, Request};
use searchcell_e2e::cells::placement;
use searchcell_e2e::objects::{number, text};
use searchcell_e2e::probe::Probe;
use searchcell_e2e::{Cell, Level, Operator, Scenario, env, run, say, skipped};
use serde_json::json;

/// Long enough for a process that leads to look at everything, and to look again.
const SETTLING: Duration = Duration::from_secs(15);

/// The operator restarted, by SIGTERM and by SIGKILL, and in front of a template that it would render differently:
/// no generation of any workload changes.
#[test]
fn operator_restart_changes_no_generation() {
    run("operator_restart_changes_no_generation", Level::Smoke, async |t| {
        let operator = t.start_operator().await;
        let cell = Cell { ingest: searchcell_e2e::Ingest::Fixed(1), ..Cell::mini("cell") };
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        let workloads = t.workloads("").await;
        let pods = t.pods("").await;
        assert_eq!(workloads.len(), 3, "{workloads:?}");

        let took = operator.terminate().await;
        assert!(took < Duration::from_secs(30), "SIGTERM took {took:?}");
        let operator = restarted(t).await;
        assert_eq!(t.workloads("").await, workloads, "after SIGTERM");
        operator.kill().await;

        // A build of the operator that renders another pod template meets templates that are not what it would
        // write, under an equal hash of the user's inputs. The same meeting, the other way round: the live templates
        // are made different by hand, and the hash stays. Whoever compares templates would now write its own.
        for plural in ["statefulsets", "deployments"] {
            for workload in t.objects.list(plural, "").await.unwrap() {
                let patch = json!({"spec": {"template": {"spec": {
                    "terminationGracePeriodSeconds": 77,
                    "containers": [{"name": "elasticsearch", "env": [{"name": "OF_ANOTHER_BUILD", "value": "1"}]}],
                }}}});
                let name = text(&workload, "/metadata/name");
                // the pods of a Deployment would be replaced at once: hold them still
                if plural == "deployments" {
                    t.objects.strategic(plural, name, &json!({"spec": {"paused": true}})).await.unwrap();
                }
                t.objects.strategic(plural, name, &patch).await.unwrap();
            }
        }
        let changed = t.workloads("").await;
        assert_ne!(changed, workloads);
        let log = AuditLog::mark(t.env).await;
        let operator = restarted(t).await;
        assert_eq!(t.workloads("").await, changed, "a template of another build is left alone");
        assert_eq!(t.pods("").await, pods, "and nothing restarts");
        for set in t.objects.list("statefulsets", "").await.unwrap() {
            assert_eq!(number(&set, "/spec/template/spec/terminationGracePeriodSeconds"), 77, "{set:#}");
        }
        if let Some(log) = log {
            let writes = log.writes_of(&operator.user);
            let unexpected: Vec<&Request> = (writes.iter())
                .filter(|request| {
                    !["leases", "events", "searchcells/status"].contains(&request.resource.as_str())
                })
                .collect();
            assert!(unexpected.is_empty(), "{unexpected:#?}");
        }
    });
}

/// A new process that leads and has looked at everything at least twice.
async fn restarted(t: &Scenario) -> Operator {
    let operator = t.start_operator().await;
    t.leads(&operator).await;
    tokio::time::sleep(SETTLING).await;
    operator
}

/// Ten minutes (SEARCHCELL_E2E_REST_SECONDS) without a change, and ten minutes while documents are indexed: nothing
/// is written but the Lease and one refresh of status.
#[test]
fn at_rest_and_while_indexing_nothing_is_written() {
    run("at_rest_and_while_indexing_nothing_is_written", Level::Full, async |t| {
        let seconds =
            env::variable("SEARCHCELL_E2E_REST_SECONDS").map_or(600, |text| text.parse().expect("seconds"));
        let watched = Duration::from_secs(seconds);
        let operator = t.start_operator().await;
        let cell = Cell { ingest: searchcell_e2e::Ingest::Fixed(1), ..Cell::small("cell") };
        t.apply(&cell.object()).await;
        t.apply(&placement("pool", "cell", json!({"pool": {"indices": 4}}), 2)).await;
        t.cell_ready(&cell).await;
        t.placement_ready("pool").await;
        // the last words about forming
        tokio::time::sleep(Duration::from_secs(90)).await;
        let Some(_) = AuditLog::mark(t.env).await else {
            return skipped("at_rest_and_while_indexing_nothing_is_written: this cluster keeps no audit log");
        };

        silent_for(t, &operator, watched, "at rest").await;
        let probe = Probe::writer(t.elastic("cell", "a"), "messages.p000.g1");
        silent_for(t, &operator, watched, "while indexing").await;
        let seen = probe.stop().await;
        say(format!("indexed {} documents meanwhile", seen.ok));
        assert_eq!(seen.failed, 0, "{seen:?}");
        assert!(seen.ok > watched.as_secs(), "{seen:?}");
    });
}

async fn silent_for(t: &Scenario, operator: &Operator, watched: Duration, what: &str) {
    let log = AuditLog::mark(t.env).await.unwrap();
    let (began, cpu) = (Instant::now(), operator.cpu());
    while began.elapsed() < watched {
        tokio::time::sleep(Duration::from_secs(60).min(watched)).await;
        say(format!("{what}: {} of {} s", began.elapsed().as_secs(), watched.as_secs()));
    }
    let requests = log.requests_of(&operator.user);
    let mut by_kind: BTreeMap<String, usize> = BTreeMap::new();
    for request in &requests {
        *by_kind.entry(format!("{} {}", request.verb, request.resource)).or_default() += 1;
    }
    let share = (operator.cpu() - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    say(format!("{what}: {share:.4} cores, requests in {} s: {by_kind:?}", watched.as_secs()));
    let status = ["searchcells/status", "indexplacements/status"];
    let writes = requests.iter().filter(|request| request.is_write() && request.resource != "leases");
    let (refreshes, others): (Vec<&Request>, Vec<&Request>) =
        writes.partition(|request| status.contains(&request.resource.as_str()));
    assert!(others.is_empty(), "{what}: {others:#?}");
    // one coarse refresh in five minutes at most, of each of the two objects
    let allowed = 2 * (1 + usize::try_from(watched.as_secs()).unwrap() / 300);
    assert!(refreshes.len() <= allowed, "{what}: {} writes of status: {refreshes:#?}", refreshes.len());
    assert!(
        !requests.iter().any(|request| request.verb == "list"),
        "{what}: watches, not lists: {by_kind:?}"
    );
}
