//! Operations, and a record of what was answered to each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use searchcell_router::flow::Core;
use searchcell_router::flow::answer::{Answer, Answers, Ticket};
use searchcell_router::flow::owner::Parcel;
use searchcell_router::flow::segment::{Item, Segment};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// What is asked of one operation.
#[derive(Clone, Debug)]
pub struct Operation {
    pub number: u64,
    pub cluster: String,
    pub index: String,
    pub id: String,
    pub delete: bool,
    pub version: Option<i64>,
    pub poison: Option<&'static str>,
    pub deadline: Option<Instant>,
    pub padding: usize,
    pub lane: Option<u64>,
    pub moves: bool,
}

/// Every operation that was accepted, and what was answered when.
#[derive(Default)]
pub struct Record {
    pub accepted: BTreeMap<u64, Operation>,
    pub answers: Mutex<BTreeMap<u64, (Answer, Instant)>>,
}

/// Answers of one request; slots are positions in it.
struct Request {
    record: Arc<Mutex<Record>>,
    numbers: Vec<u64>,
}

impl Answers for Request {
    fn answer(&self, slot: u32, answer: Answer) {
        let record = self.record.lock().unwrap();
        let number = self.numbers[slot as usize];
        let before = record.answers.lock().unwrap().insert(number, (answer.clone(), Instant::now()));
        assert!(before.is_none(), "operation {number} is answered twice: {before:?}, then {answer:?}");
    }
}

/// Offers operations as a front does; false: refused at the door, for lack of budget.
pub fn offer(core: &Core, record: &Arc<Mutex<Record>>, operations: Vec<Operation>) -> bool {
    let flush = operations.iter().any(|operation| operation.deadline.is_some());
    let numbers = operations.iter().map(|operation| operation.number).collect();
    let request: Arc<dyn Answers> = Arc::new(Request { record: Arc::clone(record), numbers });
    type Line = (String, String, Option<u64>);
    let mut groups: BTreeMap<Line, Vec<(u32, &Operation)>> = BTreeMap::new();
    for (slot, operation) in (0..).zip(&operations) {
        let key = (operation.cluster.clone(), operation.index.clone(), operation.lane);
        groups.entry(key).or_default().push((slot, operation));
    }
    let mut lines = Vec::new();
    let mut cost = 0;
    for (key, group) in groups {
        for (slot, operation) in group {
            let meta = |extra: &str| {
                let version = operation.version.map_or(String::new(), |version| {
                    format!(",\"version\":{version},\"version_type\":\"external\"")
                });
                format!("{{\"_id\":\"{}\"{version}{extra}}}", operation.id)
            };
            let (action, document) = if operation.delete {
                let routing = format!(",\"routing\":\"{}\"", operation.number);
                (format!("{{\"delete\":{}}}\n", meta(&routing)), None)
            } else {
                let poison = operation.poison.map_or(String::new(), |kind| format!(",\"poison\":\"{kind}\""));
                let padding = "x".repeat(operation.padding);
                let document = format!("{{\"operation\":{}{poison},\"p\":\"{padding}\"}}", operation.number);
                (format!("{{\"index\":{}}}\n", meta("")), Some(document))
            };
            cost += action.len() + document.as_ref().map_or(0, |text| text.len() + 1);
            cost += searchcell_router::flow::segment::OVERHEAD;
            lines.push((key.clone(), slot, operation, action, document));
        }
    }
    let Some(lease) = core.budget().take(cost) else { return false };
    record.lock().unwrap().accepted.extend(operations.iter().map(|o| (o.number, o.clone())));
    let mut builders = BTreeMap::new();
    for (key, slot, operation, action, document) in lines {
        let item = Item {
            ticket: Some(Ticket::new(Arc::clone(&request), slot)),
            deadline: operation.deadline,
            order: operation.version.is_none().then(|| xxh3_64(operation.id.as_bytes())),
            size: 0,
            repeatable: operation.version.is_some(),
            tries: 0,
            doubt: false,
            moves: operation.moves,
        };
        let builder = builders.entry(key).or_insert_with(|| Segment::builder(0, 0));
        builder.push(action.as_bytes(), document.as_ref().map(String::as_bytes), item);
    }
    let parcels = builders
        .into_iter()
        .map(|((cluster, index, lane), builder)| {
            let mut segment = builder.finish(Instant::now(), flush, Arc::new(()));
            segment.lane = lane;
            Parcel { cluster: cluster.into(), index: index.into(), segment }
        })
        .collect();
    core.submit(parcels, lease);
    true
}

/// Lets time pass until everything that was accepted has been answered.
pub async fn settle(core: &Core, record: &Arc<Mutex<Record>>, longest: Duration) {
    let started = Instant::now();
    while !settled(record) {
        if started.elapsed() >= longest {
            panic!("no answer after {longest:?}: {:#?}, {:#?}", open(record), core.views().await);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// By their number: paused time is over in no time, so this is asked thousands of times, of thousands of operations.
fn settled(record: &Mutex<Record>) -> bool {
    let record = record.lock().unwrap();
    let answered = record.answers.lock().unwrap().len();
    answered == record.accepted.len()
}

fn open(record: &Mutex<Record>) -> Vec<Operation> {
    let record = record.lock().unwrap();
    let answers = record.answers.lock().unwrap();
    record.accepted.values().filter(|o| !answers.contains_key(&o.number)).cloned().collect()
}
