//! What is counted, per operation and not per bulk. Effects: counters in memory.

use std::sync::{Arc, Mutex};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::flow::limits::Tally;
use crate::source::meters::QueueMeters;

/// Labels of what is counted per cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PerCluster {
    /// Name of the cluster.
    pub cluster: String,
}

/// Labels of what is counted per cluster and outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PerOutcome {
    /// Name of the cluster.
    pub cluster: String,
    /// `done`, `superseded`, `refused`, `unsent` or `unknown`.
    pub outcome: &'static str,
}

/// Labels of what is counted per cluster and class of failure.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PerClass {
    /// Name of the cluster.
    pub cluster: String,
    /// Class of the failure.
    pub class: &'static str,
}

/// Labels of what is counted per kind of request and status.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PerRequest {
    /// Kind of request: `bulk`, `document`, `search` …
    pub kind: &'static str,
    /// HTTP status.
    pub status: u16,
}

/// Labels of what is counted per reason to wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PerWait {
    /// `paused`, `nowhere`, `fenced`, `limit` or `behind`.
    pub reason: &'static str,
}

/// Everything that is counted.
pub struct Meters {
    registry: Mutex<Registry>,
    operations: Family<PerOutcome, Counter>,
    retries: Family<PerClass, Counter>,
    bulks: Family<PerCluster, Counter>,
    bulk_operations: Histogram,
    bulk_bytes: Histogram,
    in_flight: Family<PerCluster, Gauge>,
    allowed: Family<PerCluster, Gauge>,
    held_bytes: Family<PerCluster, Gauge>,
    /// Requests of clients.
    pub requests: Family<PerRequest, Counter>,
    /// Bytes in flight.
    pub budget_used: Gauge,
    /// Bytes that may be in flight.
    pub budget_limit: Gauge,
    /// Requests refused because the budget was used up.
    pub overloaded: Counter,
    /// Tables that could not be read, since the start.
    pub table_errors: Counter,
    /// Of queues.
    pub queues: Arc<QueueMeters>,
    /// Tenants that are hot. Who they are is at `/debug/hot`: names of tenants are nothing for metrics.
    pub hot_tenants: Gauge,
    /// Whether tenants whom a migration moves have to wait.
    pub fenced: Gauge,
    /// Operations that could not go at once.
    pub delayed: Family<PerWait, Counter>,
}

impl Default for Meters {
    fn default() -> Self {
        let doublings = |count| (0..count).map(|exponent| f64::from(1_u32 << exponent)).collect::<Vec<_>>();
        let meters = Self {
            registry: Mutex::new(Registry::with_prefix("searchcell_router")),
            operations: Family::default(),
            retries: Family::default(),
            bulks: Family::default(),
            bulk_operations: Histogram::new(doublings(13)),
            bulk_bytes: Histogram::new(doublings(13).into_iter().map(|size| size * 1024.0)),
            in_flight: Family::default(),
            allowed: Family::default(),
            held_bytes: Family::default(),
            requests: Family::default(),
            budget_used: Gauge::default(),
            budget_limit: Gauge::default(),
            overloaded: Counter::default(),
            table_errors: Counter::default(),
            queues: Arc::default(),
            hot_tenants: Gauge::default(),
            fenced: Gauge::default(),
            delayed: Family::default(),
        };
        if let Ok(mut registry) = meters.registry.lock() {
            let r = &mut *registry;
            r.register(
                "operations",
                "Operations answered, by what became of them",
                meters.operations.clone(),
            );
            r.register("retries", "Operations sent again, by why", meters.retries.clone());
            r.register("bulks", "Bulks sent", meters.bulks.clone());
            r.register("bulk_operations", "Operations of a bulk", meters.bulk_operations.clone());
            r.register("bulk_bytes", "Size of a bulk in bytes", meters.bulk_bytes.clone());
            r.register("bulks_in_flight", "Bulks on their way", meters.in_flight.clone());
            r.register("bulks_allowed", "Bulks that may be on their way", meters.allowed.clone());
            r.register("held_bytes", "Bytes of the budget held", meters.held_bytes.clone());
            r.register("requests", "Requests of clients", meters.requests.clone());
            r.register("budget_used_bytes", "Bytes in flight", meters.budget_used.clone());
            r.register("budget_limit_bytes", "Bytes that may be in flight", meters.budget_limit.clone());
            r.register("overloaded", "Requests refused for lack of budget", meters.overloaded.clone());
            r.register("hot_tenants", "Tenants that are hot", meters.hot_tenants.clone());
            r.register("fenced", "Whether tenants whom a migration moves wait", meters.fenced.clone());
            r.register("delayed_operations", "Operations that had to wait, by why", meters.delayed.clone());
            r.register("table_errors", "Tables that could not be used", meters.table_errors.clone());
            meters.queues.register(r);
        }
        meters
    }
}

impl Meters {
    /// Counts what happened in a cluster; `(bulks in flight, allowed)` and the bytes held are as of now.
    pub fn record(&self, cluster: &str, tally: &Tally, concurrency: (usize, usize), held: usize) {
        let outcomes = [
            ("done", tally.done),
            ("superseded", tally.superseded),
            ("refused", tally.refused),
            ("unsent", tally.unsent),
            ("unknown", tally.unknown),
        ];
        for (outcome, count) in outcomes.into_iter().filter(|(_, count)| *count > 0) {
            self.operations.get_or_create(&PerOutcome { cluster: cluster.to_owned(), outcome }).inc_by(count);
        }
        for (class, count) in &tally.again {
            let labels = PerClass { cluster: cluster.to_owned(), class: class.name() };
            self.retries.get_or_create(&labels).inc_by(*count);
        }
        let labels = PerCluster { cluster: cluster.to_owned() };
        for (operations, bytes) in &tally.bulks {
            self.bulks.get_or_create(&labels).inc();
            self.bulk_operations.observe(*operations as f64);
            self.bulk_bytes.observe(*bytes as f64);
        }
        self.in_flight.get_or_create(&labels).set(signed(concurrency.0));
        self.allowed.get_or_create(&labels).set(signed(concurrency.1));
        self.held_bytes.get_or_create(&labels).set(signed(held));
    }

    /// Operations answered with an outcome, over all clusters that are named.
    pub fn answered(&self, clusters: &[&str], outcome: &'static str) -> u64 {
        let count = |cluster: &&str| {
            let labels = PerOutcome { cluster: (*cluster).to_owned(), outcome };
            self.operations.get_or_create(&labels).get()
        };
        clusters.iter().map(count).sum()
    }

    /// All of it in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Ok(registry) = self.registry.lock() {
            prometheus_client::encoding::text::encode(&mut text, &registry).ok();
        }
        text
    }
}

/// A number for a gauge.
pub fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
