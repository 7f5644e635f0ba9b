//! The official clients, unmodified, before a router: what they write is there, and what is refused is told by their own
//! helpers. What each of them does is in `e2e/clients`.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use searchcell_e2e::cells::VERSION;
use searchcell_e2e::env::variable;
use searchcell_e2e::router::{Mounts, Router};
use searchcell_e2e::scenario::image;
use searchcell_e2e::{Level, Scenario, run, say, shell, skipped};
use serde_json::{Value, json};

use crate::router::{LARGE, places_of, prepare_with};

const CLIENTS: [&str; 4] = ["python", "node", "go", "java"];
const LINES: [&str; 2] = ["9", "8"];
/// The last release of the line before.
const FORMER: &str = "8.19.21";
/// Documents of each client of the newest line on the newest Elasticsearch; the other combinations write a tenth.
const DOCUMENTS: u64 = 100_000;
/// A tenth of this is the least that a client's program takes.
const FEWEST: u64 = 20_000;
/// For one client; what is measured is whether it ends, not when.
const LIMIT: Duration = Duration::from_secs(1800);

/// What the programs say that they did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    /// Documents that are to be there.
    stored: u64,
    /// Operations by what became of them.
    operations: BTreeMap<String, u64>,
}

#[test]
fn official_clients_do_not_notice() {
    run("official_clients_do_not_notice", Level::Full, async |t| {
        let documents = variable("SEARCHCELL_E2E_CLIENT_DOCUMENTS").map_or(DOCUMENTS, |number| {
            let number = number.parse().ok().filter(|number| *number >= FEWEST);
            number.unwrap_or_else(|| panic!("SEARCHCELL_E2E_CLIENT_DOCUMENTS is a number from {FEWEST}"))
        });
        let _operator = t.start_operator().await;
        for version in [VERSION, FORMER] {
            image(t.env, version).await;
            all_clients(t, version, documents).await;
            for (plural, name) in
                [("indexplacements", "large"), ("indexplacements", "pool"), ("searchcells", "guilds")]
            {
                t.objects.delete(plural, name).await.unwrap();
                t.gone_one(plural, name).await;
            }
        }
    });
}

async fn all_clients(t: &Scenario, version: &str, documents: u64) {
    // With half of that, Elasticsearch's circuit breaker refuses a read now and then while it indexes.
    let data = json!({"heap": "256Mi", "resources": {"requests": {"memory": "700Mi"}, "limits": {"memory": "900Mi"}}});
    let cell = prepare_with(t, json!({"version": version, "nodes": {"data": data}})).await;
    let mounts = Mounts::new(t, &["messages"]).await;
    let router = Router::start(t, &mounts, &["messages"], &json!({})).await;
    let mut told = Told::default();
    for line in LINES {
        for client in CLIENTS {
            let share = if (line, version) == ("9", VERSION) { documents } else { documents / 10 };
            one_client(t, &router, (client, line), share, &mut told).await;
        }
    }
    let mut counts = BTreeMap::new();
    for cluster in &cell.clusters {
        let elastic = t.elastic(&cell.name, cluster);
        elastic.json(Method::POST, "/messages.*/_refresh", None).await.unwrap();
        for (index, _) in places_of(t, cluster).await {
            let count = elastic.count(&index).await.unwrap();
            counts.insert(index, u64::try_from(count).unwrap());
        }
    }
    say(format!("{version}: {counts:?}, router: at most {:.0} MiB", router.memory().1));
    assert!(counts.len() == 5 && counts.values().all(|count| *count > 0), "{counts:?}");
    assert!(counts.contains_key(&format!("messages.t.{LARGE}.g1")), "{counts:?}");
    assert_eq!(counts.values().sum::<u64>(), told.stored, "{counts:?}");
    for outcome in ["done", "superseded", "refused", "unsent", "unknown"] {
        let label = format!("outcome=\"{outcome}\"");
        let counted = router.counter("searchcell_router_operations_total", &label).await;
        assert_eq!(counted, told.operations.get(outcome).copied().unwrap_or(0), "{outcome}: {told:?}");
    }
    assert!(router.terminate().await.1, "it ends with code 0");
}

/// One client's journey; what it says is added to `told`.
async fn one_client(
    t: &Scenario,
    router: &Router,
    (client, line): (&str, &str),
    documents: u64,
    told: &mut Told,
) {
    let (number, prefix) = (documents.to_string(), format!("{client}{line}"));
    let arguments = [client, line, &router.url, "messages", &number, &prefix];
    let output = shell::run(t.env.repository.join("e2e/clients/run"), &arguments, None, LIMIT).await.unwrap();
    if output.code == 3 {
        skipped(&format!("from here on: client {client} of line {line}: {}", output.stderr.trim()));
        return;
    }
    let out = output.ok(&format!("client {client} of line {line}"));
    let said: Value = serde_json::from_str(out.lines().last().unwrap_or_default()).unwrap();
    say(said.to_string());
    assert_eq!(said["documents"], json!(documents), "{said}");
    assert_eq!(said["version"].as_str().unwrap().split('.').next(), Some(line), "{said}");
    let errors = said["errors"].as_object().unwrap();
    assert_eq!(errors.get("400 strict_dynamic_mapping_exception"), Some(&json!(5)), "{said}");
    assert!(errors.contains_key("409 version_conflict_engine_exception") && errors.len() == 2, "{said}");
    told.stored += said["stored"].as_u64().unwrap();
    for (outcome, number) in said["operations"].as_object().unwrap() {
        *told.operations.entry(outcome.clone()).or_default() += number.as_u64().unwrap();
    }
}
