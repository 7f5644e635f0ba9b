//! The real inside of a router between a queue and Elasticsearch that fails: what was published is what is there.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use searchcell_core::routing::Override;
use searchcell_crds::Versioning;
use searchcell_router::flow::limits::Limits;
use searchcell_router::source::nats::Lane;
use serde_json::json;

use super::elastic::{Weather, World};
use super::harness::{
    Inside, Queue, cluster_of, documents, empty, limits, table, take, until, weather, world,
};

async fn publish<Q: Queue>(queue: &Q, operation: u64, tenant: &str, id: &str, version: Option<i64>) {
    let payload = json!({"operation": operation, "guild_id": tenant}).to_string();
    let version = version.map(|version| version.to_string());
    let mut headers = vec![("Searchcell-Id", id)];
    headers.extend(version.as_deref().map(|version| ("Searchcell-Version", version)));
    queue.publish(&payload, &headers).await;
}

/// Publishes versions of few documents, out of order and some twice; what has to be there in the end.
async fn versions<Q: Queue>(queue: &Q, from: u64, count: u64, oracle: &mut BTreeMap<String, i64>) {
    for number in from..from + count {
        let (tenant, id) = ((number % 9).to_string(), format!("d{}", number % 40));
        let version = i64::try_from(number * 7 % 50 + 1).unwrap();
        publish(queue, number, &tenant, &id, Some(version)).await;
        if number % 5 == 0 {
            publish(queue, number, &tenant, &id, Some(version)).await;
        }
        let known = oracle.entry(format!("{tenant}~{id}")).or_default();
        *known = version.max(*known);
    }
}

fn faults(world: &Mutex<World>) {
    let bad = Weather {
        refused: 10,
        lost_before: 10,
        lost_after: 10,
        truncated: 10,
        miscounted: 5,
        rejected: 10,
        partly_rejected: 20,
        no_master: 10,
        ..Weather::default()
    };
    weather(world, "guilds-a", bad);
    weather(world, "guilds-b", Weather { read_only: 40, partly_rejected: 30, gateway: 10, ..bad });
}

pub async fn under_faults_exactly_what_was_published_is_there<Q: Queue>(queue: Q) {
    let (world, mut oracle) = (world(), BTreeMap::new());
    faults(&world);
    let inside = Inside::start(&queue, &world, &table(Versioning::External, false), limits(), true);
    versions(&queue, 1, 200, &mut oracle).await;
    until("something has to wait", || async { queue.left(Lane::Parked).await > 0 }).await;
    versions(&queue, 201, 100, &mut oracle).await;
    world.lock().unwrap().weather.clear();
    empty(&queue).await;
    assert_eq!(documents(&world), oracle);
    assert!(queue.dead().await.is_empty(), "{:?}", queue.dead().await);
    inside.stop().await;
}

/// Payload, headers, and the type of error that it is dead with.
type Bad = (&'static str, &'static [(&'static str, &'static str)], &'static str);

pub async fn poison_is_a_dead_letter_and_its_neighbours_are_written<Q: Queue>(queue: Q) {
    let world = world();
    let inside = Inside::start(&queue, &world, &table(Versioning::External, false), limits(), true);
    let bad: [Bad; 7] = [
        (
            "{\"operation\":1}",
            &[("Searchcell-Id", "a"), ("Searchcell-Version", "1")],
            "routing_missing_exception",
        ),
        ("{\"operation\":", &[("Searchcell-Version", "1")], "document_parsing_exception"),
        ("", &[("Searchcell-Tenant", "1"), ("Searchcell-Version", "1")], "parse_exception"),
        ("{}", &[("Searchcell-Tenant", "1"), ("Searchcell-Version", "one")], "illegal_argument_exception"),
        ("{}", &[("Searchcell-Tenant", "1")], "illegal_argument_exception"),
        ("{}", &[("Searchcell-Collection", "nobody")], "index_not_found_exception"),
        (
            "{\"operation\":2,\"poison\":\"request\"}",
            &[("Searchcell-Tenant", "1"), ("Searchcell-Id", "b"), ("Searchcell-Version", "1")],
            "illegal_argument_exception",
        ),
    ];
    for (position, (payload, headers, _)) in bad.iter().enumerate() {
        publish(&queue, 100 + position as u64, "1", &format!("good{position}"), Some(1)).await;
        queue.publish(payload, headers).await;
    }
    empty(&queue).await;
    let dead = queue.dead().await;
    assert_eq!(dead.len(), bad.len());
    for (payload, _, kind) in bad {
        let letter = dead
            .iter()
            .find(|letter| letter.payload == payload && letter.headers["Searchcell-Dead-Type"] == kind);
        let letter = letter.unwrap_or_else(|| panic!("{payload} {kind}: {dead:?}"));
        assert!(!letter.headers["Searchcell-Dead-Reason"].is_empty());
        assert!(letter.headers["Searchcell-Sequence"].parse::<u64>().unwrap() > 0);
        if payload.contains("poison") {
            assert!(letter.headers["Searchcell-Dead-Index"].starts_with("messages.p"));
            assert_eq!(letter.headers["Searchcell-Dead-Tenant"], "1");
        }
    }
    assert_eq!(documents(&world).len(), 7);
    if let Some(meters) = queue.meters() {
        assert_eq!((meters.count("queue", "dead"), meters.count("queue", "acked")), (7, 7));
    }
    inside.stop().await;
}

/// Tenants of each of the two clusters.
fn tenants(table: &searchcell_core::routing::Table) -> (String, String) {
    let on = |cluster: &str| {
        let all = (0..1_000).map(|tenant: u32| tenant.to_string());
        all.into_iter().find(|tenant| cluster_of(table, tenant) == cluster).unwrap()
    };
    (on("guilds-a"), on("guilds-b"))
}

pub async fn what_a_blocked_destination_gets_waits_and_the_others_go_on<Q: Queue>(queue: Q) {
    for parks in [true, false] {
        let world = world();
        let table = table(Versioning::External, false);
        let (sick, well) = tenants(&table);
        weather(&world, "guilds-a", Weather { read_only: 100, ..Weather::default() });
        let inside = Inside::start(&queue, &world, &table, limits(), parks);
        for number in 1..=30 {
            publish(&queue, number, &sick, &format!("s{number}"), Some(1)).await;
            publish(&queue, 100 + number, &well, &format!("w{number}"), Some(1)).await;
        }
        until("the others are written", || async { documents(&world).len() == 30 }).await;
        let lane = if parks { Lane::Parked } else { Lane::Main };
        until("the rest waits", || async { queue.left(lane).await == 30 }).await;
        assert!(documents(&world).keys().all(|id| id.starts_with(&format!("{well}~"))));
        let waits = || async { inside.core.views().await["guilds-a"].iter().all(|view| view.waiting == 0) };
        until("nothing of it is in the flow, where it would keep its table in use", waits).await;
        world.lock().unwrap().weather.clear();
        empty(&queue).await;
        assert_eq!(documents(&world).len(), 60);
        inside.stop().await;
    }
    assert!(queue.dead().await.is_empty());
}

pub async fn a_tenant_over_its_limit_waits_and_the_others_go_on<Q: Queue>(queue: Q) {
    for parks in [true, false] {
        let world = world();
        let mut table = table(Versioning::External, false);
        let (loud, quiet) = tenants(&table);
        let to = table.lookup(&loud).unwrap().clone();
        table.overrides.insert(loud.clone(), Override { to, documents_per_second: Some(1), lane: None });
        let inside = Inside::start(&queue, &world, &table, limits(), parks);
        for number in 1..=120 {
            publish(&queue, number, &loud, &format!("l{number}"), Some(1)).await;
            publish(&queue, 200 + number, &quiet, &format!("q{number}"), Some(1)).await;
        }
        let written = |tenant: &str| {
            let prefix = format!("{tenant}~");
            documents(&world).keys().filter(|id| id.starts_with(&prefix)).count()
        };
        until("the others are written", || async { written(&quiet) == 120 }).await;
        assert!(written(&loud) < 120, "two minutes' worth are there at once");
        table.overrides.clear();
        table.generation += 1;
        assert!(inside.directory.apply("messages", table));
        empty(&queue).await;
        assert_eq!((written(&loud), written(&quiet)), (120, 120));
        inside.stop().await;
    }
    assert!(queue.dead().await.is_empty());
}

pub async fn what_waits_goes_where_the_next_table_says_and_keeps_no_table_in_use<Q: Queue>(queue: Q) {
    let world = world();
    let mut table = table(Versioning::External, false);
    let (sick, _) = tenants(&table);
    weather(&world, "guilds-a", Weather { missing: 100, ..Weather::default() });
    let inside = Inside::start(&queue, &world, &table, limits(), true);
    for number in 1..=20 {
        publish(&queue, number, &sick, &format!("d{number}"), Some(1)).await;
    }
    until("all of it waits", || async { queue.left(Lane::Parked).await == 20 }).await;
    // The indices are on the other cluster now, of which nothing was asked before.
    let other = table.indices.iter().find(|index| index.cluster != table.indices[0].cluster).unwrap().cluster;
    table.indices.iter_mut().for_each(|index| index.cluster = other);
    table.generation += 1;
    assert!(inside.directory.apply("messages", table.clone()));
    let drained = || async { inside.directory.generations()["messages"].drained == table.generation };
    until("nothing is in flight by the former table", drained).await;
    empty(&queue).await;
    let clusters: Vec<String> =
        world.lock().unwrap().documents.keys().map(|(cluster, ..)| cluster.to_string()).collect();
    assert_eq!(clusters, ["guilds-b"; 20]);
    inside.stop().await;
}

pub async fn a_router_that_stops_acknowledges_or_returns_everything<Q: Queue>(queue: Q) {
    let (world, mut oracle) = (world(), BTreeMap::new());
    let table = table(Versioning::External, false);
    weather(&world, "guilds-a", Weather { rejected: 70, ..Weather::default() });
    versions(&queue, 1, 200, &mut oracle).await;
    let inside = Inside::start(&queue, &world, &table, limits(), true);
    until("something is written", || async { !documents(&world).is_empty() }).await;
    let started = tokio::time::Instant::now();
    inside.stop().await;
    assert!(started.elapsed() < Duration::from_secs(40));
    let written = documents(&world).len();
    world.lock().unwrap().weather.clear();
    // Whatever is left is there for the next one, which needs not wait for a lease.
    let inside = Inside::start(&queue, &world, &table, limits(), true);
    empty(&queue).await;
    assert_eq!(documents(&world), oracle);
    assert!(written <= oracle.len());
    inside.stop().await;
}

pub async fn a_queue_that_dies_in_the_middle_loses_nothing<Q: Queue>(mut queue: Q) {
    let (world, mut oracle) = (world(), BTreeMap::new());
    let inside = Inside::start(&queue, &world, &table(Versioning::External, false), limits(), true);
    for round in 0..3 {
        versions(&queue, 1 + round * 100, 100, &mut oracle).await;
        queue.restart().await;
    }
    empty(&queue).await;
    assert_eq!(documents(&world), oracle);
    assert!(queue.dead().await.is_empty());
    until("it is said to be well", || async { inside.meters.not_ready().is_none() }).await;
    inside.stop().await;
}

pub async fn each_participant_has_a_copy_before_the_message_is_acknowledged<Q: Queue>(queue: Q) {
    let world = world();
    let table = table(Versioning::None, true);
    let (sick, well) = tenants(&table);
    weather(&world, "guilds-a", Weather { read_only: 100, ..Weather::default() });
    let inside = Inside::start(&queue, &world, &table, limits(), true);
    for number in 1..=10_u64 {
        let payload = json!({"operation": number, "guild_id": [sick, well]}).to_string();
        queue.publish(&payload, &[]).await;
    }
    until("one half is written", || async { documents(&world).len() == 10 }).await;
    until("the other half is parked", || async { queue.left(Lane::Parked).await == 10 }).await;
    world.lock().unwrap().weather.clear();
    empty(&queue).await;
    assert_eq!(documents(&world).len(), 20);
    // Two copies of each, and none of them twice, although nobody numbers versions.
    assert!(world.lock().unwrap().applied.values().all(|times| *times == 2));
    assert!(queue.dead().await.is_empty());
    inside.stop().await;
}

pub async fn a_message_without_an_id_is_written_once_however_often_it_comes<Q: Queue>(queue: Q) {
    let world = world();
    let table = table(Versioning::None, false);
    for number in 1..=30_u64 {
        queue.publish(&json!({"operation": number, "guild_id": number % 7}).to_string(), &[]).await;
    }
    // A router that wrote it all, and died before it could say so.
    let mut source = queue.source(Lane::Main);
    let first = take(&mut source, 100, 30).await;
    first.into_iter().for_each(|delivery| std::mem::forget(delivery.token));
    drop(source);
    for round in 0..2 {
        let inside = Inside::start(&queue, &world, &table, limits(), true);
        if round == 0 {
            until("some are written", || async { documents(&world).len() > 3 }).await;
        } else {
            empty(&queue).await;
        }
        inside.stop().await;
    }
    assert_eq!(documents(&world).len(), 30);
    assert!(world.lock().unwrap().applied.values().all(|times| *times == 1));
}

pub async fn an_outcome_that_nobody_knows_is_said_and_not_tried_again<Q: Queue>(queue: Q) {
    let world = world();
    let lost = Weather { lost_after: 100, ..Weather::default() };
    weather(&world, "guilds-a", lost);
    weather(&world, "guilds-b", lost);
    let inside = Inside::start(&queue, &world, &table(Versioning::None, false), limits(), true);
    for number in 1..=20 {
        publish(&queue, number, &(number % 7).to_string(), &format!("d{number}"), None).await;
    }
    empty(&queue).await;
    let dead = queue.dead().await;
    assert_eq!(dead.len(), 20);
    assert!(dead.iter().all(|letter| letter.headers["Searchcell-Dead-Type"] == "outcome_unknown"));
    assert!(world.lock().unwrap().sent.values().all(|times| *times == 1));
    inside.stop().await;
}

pub async fn memory_is_bounded_while_nothing_can_be_written<Q: Queue>(queue: Q) {
    let world = world();
    let nothing = Weather { hangs: 100, ..Weather::default() };
    weather(&world, "guilds-a", nothing);
    weather(&world, "guilds-b", nothing);
    let small = Limits { budget: 2 << 20, hold: Duration::from_secs(3_600), ..limits() };
    let inside = Inside::start(&queue, &world, &table(Versioning::External, false), small, false);
    let text = "x".repeat(20_000);
    for number in 1..=300_u64 {
        let payload = json!({"operation": number, "guild_id": number % 9, "text": text}).to_string();
        let id = format!("d{number}");
        queue.publish(&payload, &[("Searchcell-Id", &id), ("Searchcell-Version", "1")]).await;
    }
    // Several bulks have timed out by then.
    for _ in 0..80 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(inside.core.budget().used() <= 2 << 20);
    }
    // 6 MB were offered to 2 MiB.
    assert!(inside.core.budget().used() > 0 && queue.left(Lane::Main).await > 0);
    world.lock().unwrap().weather.clear();
    empty(&queue).await;
    assert_eq!(documents(&world).len(), 300);
    assert!(queue.dead().await.is_empty());
    inside.stop().await;
}
