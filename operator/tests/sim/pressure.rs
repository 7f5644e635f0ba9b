//! Shards that grow past every limit, seen through the loop: what the condition, the events and the metric say of each,
//! and how true the forecast is. The events are those that the API server is sent; the fake one only writes them down.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use kube::client::Body;
use searchcell_crds::Forecast;
use searchcell_crds::conditions::{SHARD_PRESSURE, find};
use searchcell_operator::engine::{Observer, PlacementPass};
use searchcell_operator::report::{Metrics, Report as Telling};
use serde_json::Value;

use crate::acts::Act;
use crate::driver::{self, Report};
use crate::rng::Rng;
use crate::scenario::{Expect, Kind, MACHINES_PER_ZONE, Scenario};
use crate::specs::{plain_cell, plain_pool};

/// Sizes are read every minute, and a placement is looked at twice in it.
const SEEN_WITHIN_S: u64 = 200;
const HOUR_S: u64 = 3_600;
/// By then the index is there, and its size was read once.
const MADE_S: u64 = 150;

/// What a pass saw of the one index, and what was told of it.
#[derive(Clone, Debug)]
struct Seen {
    /// Seconds, by the paused clock.
    at: u64,
    /// Documents and bytes; absent: they could not be measured.
    size: Option<(i64, i64)>,
    /// Reason of the condition; empty: there is none.
    condition: String,
    forecast: Option<Forecast>,
    /// Limits that the metric counts an index for.
    metric: Vec<String>,
}

/// An event as the API server gets it: reason and text.
type Told = (String, String);

struct Ears {
    metrics: Arc<Metrics>,
    report: Telling,
    seen: Arc<Mutex<Vec<Seen>>>,
    began: tokio::time::Instant,
}

impl Observer for Ears {
    fn placement(&self, pass: &PlacementPass<'_>) {
        self.report.placement(pass);
        let facts = pass.snapshot.elastic.values().filter_map(|reading| reading.known());
        let counts = facts.filter_map(|facts| facts.counts.as_ref()?.values().next()).next();
        let size = counts.map(|counts| (counts.largest_shard_documents, counts.largest_shard_bytes));
        let text = self.metrics.render().unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix("searchcell_large_shards{limit=\""));
        let metric = lines.filter_map(|line| line.strip_suffix("\"} 1")).map(str::to_owned).collect();
        let condition = find(&pass.status.conditions, SHARD_PRESSURE);
        self.seen.lock().unwrap().push(Seen {
            at: self.began.elapsed().as_secs(),
            size,
            condition: condition.map(|condition| condition.reason.clone()).unwrap_or_default(),
            forecast: pass.status.forecast.clone(),
            metric,
        });
    }
}

/// An API server for events alone.
fn events(told: Arc<Mutex<Vec<Told>>>) -> kube::Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let told = Arc::clone(&told);
        async move {
            let bytes = request.into_body().collect_bytes().await.unwrap();
            let event: Value = serde_json::from_slice(&bytes).unwrap();
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            told.lock().unwrap().push((text("reason"), text("note")));
            Ok::<_, Infallible>(Response::new(Body::from(bytes.to_vec())))
        }
    });
    kube::Client::new(service, "default")
}

/// One index on one node, which has so many documents from its first seconds on, and what becomes of it.
fn growth(documents: i64, later: Vec<(u64, Act)>) -> Scenario {
    let cell = plain_cell(&["a"], &["a"], 1);
    let placement = plain_pool(1);
    let mut acts = vec![
        (1, Act::CreateCell(Box::new(cell))),
        (2, Act::CreatePlacement("messages".to_owned(), Box::new(placement))),
    ];
    acts.extend((3..MADE_S).map(|second| (second, Act::Fill { documents, bytes: 1 })));
    Scenario {
        kind: Kind::Placing,
        zones: vec!["a".to_owned()],
        machines_per_zone: MACHINES_PER_ZONE,
        acts,
        expect: Expect::Ready,
        elastic_stays_down: false,
        rest: 60,
        later,
    }
}

/// Lets the index grow as the acts say; what was seen and told meanwhile.
fn grow(documents: i64, later: Vec<(u64, Act)>) -> (Report, Vec<Seen>, Vec<Told>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (seen, told) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<Mutex<Vec<Told>>>::default());
        let metrics = Arc::new(Metrics::default());
        let ears = Ears {
            report: Telling::start(Arc::clone(&metrics), events(Arc::clone(&told)), "sim".to_owned()),
            metrics,
            seen: Arc::clone(&seen),
            began: tokio::time::Instant::now(),
        };
        let report =
            driver::play(7, Rng::new(7), growth(documents, later), None, Arc::new(ears), |_| None).await;
        let (seen, told) = (seen.lock().unwrap().clone(), told.lock().unwrap().clone());
        (report, seen, told)
    })
}

/// Sizes by which the index is just below a limit, and at it: documents, bytes, and the limit that it is past then.
const SIZES: [(i64, i64, &str); 13] = [
    (199_999_999, 1, ""),
    (200_000_000, 1, "ShardLarge"),
    // It stays past a limit until it is well below it.
    (190_000_000, 1, "ShardLarge"),
    (0, 1, ""),
    (1, 49_999_999_999, ""),
    (1, 50_000_000_000, "ShardLarge"),
    (999_999_999, 1, "ShardLarge"),
    (1_000_000_000, 1, "ShardVeryLarge"),
    (1_932_735_166, 1, "ShardVeryLarge"),
    (1_932_735_167, 1, "ShardAlmostFull"),
    (2_147_483_518, 1, "ShardAlmostFull"),
    (2_147_483_519, 1, "ShardFull"),
    (0, 0, ""),
];

/// What is told of each size: by the condition and the metric at that size, and by an event for each limit that it comes
/// to be past.
pub fn every_limit_is_told() {
    let at = |n: usize| n as u64 * SEEN_WITHIN_S;
    let mut later: Vec<(u64, Act)> = (SIZES.iter().enumerate())
        .map(|(n, (documents, bytes, _))| (at(n), Act::Fill { documents: *documents, bytes: *bytes }))
        .collect();
    later.push((at(SIZES.len()), Act::Documents(0)));
    let (report, seen, told) = grow(0, later);
    assert!(report.violation.is_none(), "{:?}", report.violation);
    for (documents, bytes, reason) in SIZES {
        let of_size = seen.iter().rfind(|seen| seen.size == Some((documents, bytes)));
        let of_size = of_size.unwrap_or_else(|| panic!("{documents} documents, {bytes} bytes: not seen"));
        let metric: Vec<&str> = of_size.metric.iter().map(String::as_str).collect();
        let expected: Vec<&str> = Some(reason).filter(|reason| !reason.is_empty()).into_iter().collect();
        assert_eq!((of_size.condition.as_str(), metric), (reason, expected), "{of_size:?}");
    }
    let mut expected: Vec<&str> = SIZES.iter().map(|(_, _, reason)| *reason).collect();
    expected.dedup();
    expected.retain(|reason| !reason.is_empty());
    let about_size: Vec<&Told> = told.iter().filter(|(reason, _)| reason.starts_with("Shard")).collect();
    let reasons: Vec<&str> = about_size.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(reasons, expected, "{told:#?}");
    assert!(about_size.iter().all(|(_, text)| text.contains("messages.p000.g1")), "{about_size:#?}");
}

/// A shard past a limit on a cluster that is then out of reach, and comes back: what is said of it stays, in the metric as
/// in the condition, and it is no news when it is measured again.
pub fn what_cannot_be_measured_stays_told() {
    let large = Act::Fill { documents: 300_000_000, bytes: 1 };
    let cut = Act::CutElastic("a".to_owned());
    let at = |n: u64| n * SEEN_WITHIN_S;
    let later = vec![(at(0), large), (at(1), cut), (at(3), Act::Steady), (at(4), Act::Documents(0))];
    let (report, seen, told) = grow(0, later);
    assert!(report.violation.is_none(), "{:?}", report.violation);
    let past = seen.iter().position(|seen| seen.condition == "ShardLarge").unwrap();
    let since = &seen[past..];
    let blind = since.iter().filter(|seen| seen.size.is_none()).count();
    assert!(blind >= 3 && since.last().unwrap().size.is_some(), "{since:#?}");
    for seen in since {
        let says = (seen.condition.as_str(), seen.metric.join(" "));
        assert_eq!(says, ("ShardLarge", "ShardLarge".to_owned()), "{seen:?}");
    }
    assert_eq!(told.iter().filter(|(reason, _)| reason == "ShardLarge").count(), 1, "{told:#?}");
}

/// A steady growth over two days, towards a limit that is more than ten days away: what is forecast on the second day is
/// within a tenth of the truth. Answers the largest error, as a part of the time that is left.
pub fn a_steady_growth_is_forecast(from: i64, a_day: i64, limit: i64, reason: &str) -> f64 {
    let later = (0..=48)
        .map(|hour| (hour * HOUR_S, Act::Fill { documents: from + a_day * hour as i64 / 24, bytes: 1 }));
    let (report, seen, told) = grow(from, later.collect());
    assert!(report.violation.is_none(), "{:?}", report.violation);
    let documents = |seen: &Seen| seen.size.map_or(0, |(documents, _)| documents);
    let grows = seen.iter().find(|seen| documents(seen) > from).unwrap().at;
    let (mut worst, mut checked): (f64, u32) = (0.0, 0);
    for seen in seen.iter().filter(|seen| seen.at > grows + 24 * HOUR_S) {
        let truth = (limit - documents(seen)) as f64 / a_day as f64;
        assert!(truth > 10.0, "it is told in whole days: {truth}");
        let forecast = seen.forecast.as_ref().unwrap_or_else(|| panic!("nothing is forecast: {seen:?}"));
        assert_eq!(forecast.reason, reason, "{seen:?}");
        let error = (forecast.days as f64 - truth).abs() / truth;
        assert!(error <= 0.1, "{truth:.2} days are left: {seen:?}");
        (worst, checked) = (worst.max(error), checked + 1);
        let is_near = reason != "ShardLarge" && forecast.days <= 14;
        assert_eq!(seen.condition == "ShardGrowing", is_near, "{seen:?}");
    }
    assert!(checked > 2_000, "{checked} passes");
    let warned = told.iter().any(|(warning, _)| warning == "ShardGrowing");
    assert_eq!(warned, seen.iter().any(|seen| seen.condition == "ShardGrowing"), "{told:#?}");
    worst
}
