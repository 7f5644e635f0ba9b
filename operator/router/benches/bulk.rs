//! What a document of about 500 bytes costs in the router, without the network: from the body of a `_bulk` to bulks
//! of one destination, and from Elasticsearch's answer to the client's. Beside it, in the same run, what the usual
//! way costs: each line into a value, `_index` put in, all of it written out again into one mixed bulk.
//!
//! CPU time of the thread, so that others on the machine matter little; the two take turns; ratios are told with
//! their spread. `cargo bench -p searchcell-router`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::SystemTime;

use searchcell_core::names::ClusterKey;
use searchcell_core::routing::{Located, TableInput, TenantRules, build_table};
use searchcell_crds::{IdScope, Versioning};
use searchcell_router::flow::answer::{Answer, Ticket};
use searchcell_router::flow::reply;
use searchcell_router::front::bulk;
use searchcell_router::front::ingress::Ingress;
use searchcell_router::front::pending::Pending;
use searchcell_router::front::plan::{Plan, Request};
use searchcell_router::front::render;
use searchcell_router::hot::Hot;
use searchcell_router::ids::Minter;
use searchcell_router::routes::{Route, Routes};
use searchcell_router::settings::HotTenants;
use serde_json::Value;
use tokio::time::Instant;

const DOCUMENTS: usize = 2_000;
const RUNS: usize = 9;
const REPEATS: u64 = 10;

/// Nanoseconds that this thread has had of a processor.
fn cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn routes(indices: u32) -> Routes {
    let located = |number: u32| Located {
        name: format!("messages.p{number:03}.g1"),
        cluster: ClusterKey::new("search", "guilds", "a"),
        is_secure: false,
    };
    let input = TableInput {
        namespace: "search".into(),
        collection: "messages".into(),
        tenant: TenantRules { field: "guild_id".into(), fan_out: false, id_scope: IdScope::Tenant },
        versioning: Versioning::External,
        pool: Some((0..indices).map(located).map(Some).collect()),
        dedicated: BTreeMap::new(),
    };
    [("messages".to_owned(), Arc::new(Route::new(build_table(&input, 1).unwrap())))].into()
}

/// A bulk of messages of a chat; `routed`: whether the action line names the tenant, or only the document does.
fn body(routed: bool) -> Vec<u8> {
    let mut out = String::new();
    for n in 0..DOCUMENTS {
        let tenant = 81_384_788_765_712_384 + (n as u64 * 7_919 % 613) * 4_194_304;
        let id = 1_100_000_000_000_000_000_u64 + n as u64 * 4_194_304;
        let routing = if routed { format!(",\"routing\":\"{tenant}\"") } else { String::new() };
        out.push_str(&format!("{{\"index\":{{\"_id\":\"{id}\"{routing},\"version\":{}}}}}\n", n + 1));
        out.push_str(&format!(
            "{{\"id\":\"{id}\",\"channel_id\":\"{}\",\"guild_id\":\"{tenant}\",\"author\":{{\"id\":\"{}\",\"name\":\"somebody\",\"bot\":false}},\"content\":\"{}\",\"timestamp\":\"2026-11-22T06:41:34.120Z\",\"edited\":null,\"mentions\":[],\"embeds\":[]}}\n",
            id ^ 77, id ^ 99, "grüße aus dem Chat, that is what people write 🙂 ".repeat(5)
        ));
    }
    out.into_bytes()
}

/// What Elasticsearch answers, filtered as the router asks for.
fn answer() -> Vec<u8> {
    let item = "{\"index\":{\"_version\":7,\"result\":\"created\",\"_shards\":{\"total\":3,\"successful\":3,\"failed\":0},\"_seq_no\":123456,\"_primary_term\":2,\"status\":201}}";
    format!("{{\"items\":[{}]}}", vec![item; DOCUMENTS].join(",")).into_bytes()
}

fn ours(body: &[u8], answer: &[u8], routes: &Routes, minter: &Minter, hot: &Hot) -> usize {
    let request = Request {
        routes,
        index: Some("messages"),
        routing: None,
        may_write: &|_| true,
        minter,
        now: SystemTime::UNIX_EPOCH,
    };
    let mut ingress = Ingress::new(hot, false, Instant::now(), None);
    let plan = Plan::of(bulk::read(body).unwrap(), &request, &mut ingress).unwrap();
    drop(ingress);
    assert_eq!(plan.copies(), DOCUMENTS);
    let pending = Arc::new(Pending::new(plan.copies()));
    let ticket = |slot| Some(Ticket::new(Arc::clone(&pending) as _, slot));
    let parcels = plan.parcels(ticket, Some(Instant::now()), Instant::now(), (1 << 20, 2_000));
    let mut answers = reply::items(answer, DOCUMENTS).unwrap().into_iter();
    let mut slots = 0_u32;
    for parcel in parcels {
        black_box(parcel.segment.body());
        for mut item in parcel.segment.into_items() {
            if let (Some(ticket), Some(Ok(done))) = (item.ticket.take(), answers.next().map(|item| item.said))
            {
                ticket.answer(Answer::Done(done));
                slots += 1;
            }
        }
    }
    black_box(slots);
    let answers: Vec<Option<Answer>> = futures_now(async { pending.all().await });
    render::bulk(&plan.asked, &answers, 1).0.len()
}

/// Runs what is ready.
fn futures_now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("an answer is missing"),
    }
}

fn peer(body: &[u8], answer: &[u8]) -> usize {
    let mut out = Vec::with_capacity(body.len());
    let mut lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    while let (Some(action), Some(document)) = (lines.next(), lines.next()) {
        let mut action: Value = serde_json::from_slice(action).unwrap();
        let document: Value = serde_json::from_slice(document).unwrap();
        let tenant: u64 = document["guild_id"].as_str().unwrap().parse().unwrap();
        let meta = action["index"].as_object_mut().unwrap();
        meta.insert("_index".into(), format!("messages-{}", tenant % 64).into());
        meta.insert("routing".into(), tenant.to_string().into());
        serde_json::to_writer(&mut out, &action).unwrap();
        out.push(b'\n');
        serde_json::to_writer(&mut out, &document).unwrap();
        out.push(b'\n');
    }
    let answer: Value = serde_json::from_slice(answer).unwrap();
    out.len() + answer.to_string().len()
}

fn main() {
    let minter = Minter::new([1; 5]);
    let hot = Hot::new(HotTenants::default());
    let answer = answer();
    println!(
        "CPU per document in ns, and how many times as much the peer takes: min / median / max of {RUNS} runs"
    );
    for (name, routed, indices) in [
        ("routing in the action, 64 indices", true, 64),
        ("tenant in the document, 64", false, 64),
        ("tenant in the document, 2000", false, 2_000),
    ] {
        let (body, routes) = (body(routed), routes(indices));
        let mut costs = Vec::new();
        for _ in 0..RUNS {
            let start = cpu();
            for _ in 0..REPEATS {
                black_box(ours(&body, &answer, &routes, &minter, &hot));
            }
            let middle = cpu();
            for _ in 0..REPEATS {
                black_box(peer(&body, &answer));
            }
            let end = cpu();
            let per = |nanos: u64| nanos as f64 / (REPEATS * DOCUMENTS as u64) as f64;
            costs.push((per(middle - start), per(end - middle)));
        }
        let spread = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            (values[0], values[RUNS / 2], values[RUNS - 1])
        };
        let (a, b, c) = spread(costs.iter().map(|(ours, _)| *ours).collect());
        let (x, y, z) = spread(costs.iter().map(|(ours, peer)| peer / ours).collect());
        println!("{name}: {a:.0} / {b:.0} / {c:.0} ns; {x:.1} / {y:.1} / {z:.1} times");
    }
}
