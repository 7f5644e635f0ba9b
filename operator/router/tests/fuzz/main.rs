//! The parser of bulks against another one that is simple and slow: for the same bytes, the same operations, or a
//! refusal from both. What is then sent is read once more by the parser of an Elasticsearch that is none of ours.
//!
//! `SEARCHCELL_FUZZ` says how many inputs (100,000); `SEARCHCELL_FUZZ_FROM` is the number of the first: an input is
//! made from its number alone, and whatever fails names it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod inputs;
mod reference;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use searchcell_crds::Versioning;
use searchcell_router::flow::answer::{Answer, Answers, Ticket};
use searchcell_router::front::bulk::{self, Action, Verb, Word};
use searchcell_router::front::ingress::Ingress;
use searchcell_router::front::plan::{Plan, Request};
use searchcell_router::hot::Hot;
use searchcell_router::ids::{self, Minter};
use searchcell_router::routes::{Route, Routes};
use searchcell_router::settings::HotTenants;
use searchcell_workbench::null;
use searchcell_workbench::table::{COLLECTION, Pool};
use tokio::time::Instant;

use self::reference::{Operation, Value};

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn both_parsers_agree() {
    let (count, from) = (number("SEARCHCELL_FUZZ", 100_000), number("SEARCHCELL_FUZZ_FROM", 0));
    let routes = routes();
    let minter = Minter::new([7; 5]);
    let next = AtomicU64::new(from);
    let seen = [const { AtomicU64::new(0) }; 5];
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(8) {
            scope.spawn(|| {
                let mut sum = [0; 5];
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= from + count {
                        break;
                    }
                    let input = inputs::input(number);
                    let result = catch_unwind(AssertUnwindSafe(|| compare(&input, &routes, &minter)));
                    match result {
                        Ok(counts) => sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count),
                        Err(panic) => {
                            eprintln!(
                                "SEARCHCELL_FUZZ_FROM={number} SEARCHCELL_FUZZ=1 is this input: {:?}",
                                String::from_utf8_lossy(&input)
                            );
                            std::panic::resume_unwind(panic);
                        }
                    }
                }
                seen.iter().zip(sum).for_each(|(seen, sum)| {
                    seen.fetch_add(sum, Ordering::Relaxed);
                });
            });
        }
    });
    let [taken, refused, operations, sent, fields] = seen.map(|seen| seen.into_inner());
    println!(
        "{taken} bodies of {operations} operations taken ({sent} sent), {refused} refused, {fields} fields found"
    );
    // Inputs that all fail in their first byte would say nothing.
    if count >= 1_000 {
        assert!(taken > count / 5 && refused > count / 5 && sent > count / 10 && fields > count / 10);
    }
}

fn routes() -> Routes {
    let pool = Pool::new(&[([127, 0, 0, 1], 9200).into()], 5, Versioning::None);
    [(COLLECTION.to_owned(), Arc::new(Route::new(pool.table(1))))].into()
}

/// Bodies taken, bodies refused, operations, operations sent, fields found.
fn compare(body: &[u8], routes: &Routes, minter: &Minter) -> [u64; 5] {
    let (ours, theirs) = (bulk::parse(body), reference::parse(body));
    let (ours, theirs) = match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (Err(error), Err(_)) => {
            assert!(!error.to_string().is_empty());
            return [0, 1, 0, 0, 0];
        }
        (ours, theirs) => panic!("one takes it: {ours:?}\n{theirs:?}"),
    };
    assert_eq!(ours.len(), theirs.len());
    let mut fields = 0;
    for (ours, theirs) in ours.iter().zip(&theirs) {
        same(ours, theirs);
        if let Some(document) = ours.document {
            fields += field(document);
        }
    }
    let operations = ours.len() as u64;
    [1, 0, operations, sent(ours, routes, minter), fields]
}

fn same(ours: &Action<'_>, theirs: &Operation) {
    let mut known: BTreeMap<&str, Value> = BTreeMap::new();
    let meta = &ours.meta;
    let words = [
        ("_index", &meta.index),
        ("_id", &meta.id),
        ("routing", &meta.routing),
        ("version_type", &meta.version_type),
        ("pipeline", &meta.pipeline),
    ];
    known.extend(
        words
            .into_iter()
            .filter_map(|(name, word)| word.as_ref().map(|Word(text)| (name, Value::Text(text.to_string())))),
    );
    let numbers =
        [("version", meta.version), ("if_seq_no", meta.if_seq_no), ("if_primary_term", meta.if_primary_term)];
    known.extend(numbers.into_iter().filter_map(|(name, number)| number.map(|is| (name, Value::Number(is)))));
    let flags = [("require_alias", meta.require_alias), ("require_data_stream", meta.require_data_stream)];
    known.extend(flags.into_iter().filter_map(|(name, flag)| flag.map(|is| (name, Value::Flag(is)))));
    let noted = [
        ("dynamic_templates", meta.dynamic_templates),
        ("retry_on_conflict", meta.retry_on_conflict),
        ("_source", meta.source),
    ];
    known.extend(noted.into_iter().filter_map(|(name, is)| is.map(|_| (name, Value::Noted))));
    let theirs_known: BTreeMap<&str, Value> =
        theirs.meta.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    assert_eq!((ours.verb.name(), known), (theirs.verb.as_str(), theirs_known));
    assert_eq!(ours.document, theirs.document.as_deref());
}

/// A field of a document is found by both, or by none.
fn field(document: &[u8]) -> u64 {
    let ours = bulk::field(document, "guild_id");
    // What is not text Elasticsearch refuses; nobody here has to say what is in it.
    if std::str::from_utf8(document).is_err() {
        return 0;
    }
    match (ours, reference::field(document, "guild_id")) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours.map(|raw| raw.get().to_owned()), theirs);
            u64::from(theirs.is_some())
        }
        (Err(_), Err(())) => 0,
        (ours, theirs) => panic!("one takes it: {ours:?} {theirs:?}"),
    }
}

/// Whom nobody tells anything.
struct Nobody;

impl Answers for Nobody {
    fn answer(&self, _slot: u32, _answer: Answer) {}
}

/// What would be sent has exactly these operations, each with its own document.
fn sent(actions: Vec<Action<'_>>, routes: &Routes, minter: &Minter) -> u64 {
    type Line = (String, String, Option<Vec<u8>>);
    let request = Request {
        routes,
        index: Some(COLLECTION),
        routing: None,
        may_write: &|_| true,
        minter,
        now: SystemTime::UNIX_EPOCH,
    };
    // Where two carriage returns end a line, the first is the document's, and white space: on the way out, it is taken for
    // the line's.
    let text = |document: &[u8]| document.strip_suffix(b"\r").unwrap_or(document).to_vec();
    let documents: Vec<Option<Vec<u8>>> = actions.iter().map(|one| one.document.map(text)).collect();
    let routings: Vec<Option<String>> =
        actions.iter().map(|one| one.meta.routing.as_ref().map(|Word(text)| text.to_string())).collect();
    let hot = Hot::new(HotTenants::default());
    let mut ingress = Ingress::new(&hot, false, Instant::now(), None);
    let plan = Plan::new(actions, &request, &mut ingress);
    let mut wanted: Vec<Line> = Vec::new();
    for ((asked, document), routing) in plan.asked.iter().zip(documents).zip(routings) {
        let Ok(copies) = &asked.copies else { continue };
        assert_eq!((copies.len(), asked.verb == Verb::Update), (1, false));
        let tenant = routing.unwrap_or_else(|| {
            // What is not text elsewhere in it is Elasticsearch's to refuse.
            let text = String::from_utf8_lossy(document.as_deref().unwrap());
            let raw = reference::field(text.as_bytes(), "guild_id").unwrap().unwrap();
            serde_json::from_str::<String>(&raw).unwrap_or(raw)
        });
        wanted.push((asked.verb.name().to_owned(), ids::stored(&tenant, &asked.id), document));
    }
    let mut found: Vec<Line> = Vec::new();
    let nobody: Arc<dyn Answers> = Arc::new(Nobody);
    let ticket = |slot| Some(Ticket::new(Arc::clone(&nobody), slot));
    for parcel in plan.parcels(ticket, Some(Instant::now()), Instant::now(), (1 << 20, 3)) {
        let body = parcel.segment.body();
        let lines = null::bulk::parse(&body, Some("i")).unwrap();
        assert_eq!(lines.len(), parcel.segment.len());
        for line in lines {
            let id = line.id.unwrap().into_owned();
            found.push((line.verb.to_owned(), id, line.document.map(<[u8]>::to_vec)));
        }
    }
    wanted.sort_unstable();
    found.sort_unstable();
    assert_eq!(wanted, found);
    found.len() as u64
}
