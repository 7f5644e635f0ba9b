//! What is counted of queues, per message. Effects: counters in memory.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Labels of what is counted per queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PerSource {
    /// `queue`, or `parking`.
    pub source: &'static str,
}

/// Labels of messages that are settled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PerDecision {
    /// `queue`, or `parking`.
    pub source: &'static str,
    /// `acked`, `retried`, `parked`, `dead`, `abandoned`, or `unconfirmed`: the queue was told, and never said so.
    pub decision: &'static str,
}

/// Everything that is counted of queues.
#[derive(Debug)]
pub struct QueueMeters {
    received: Family<PerSource, Counter>,
    settled: Family<PerDecision, Counter>,
    held: Family<PerSource, Gauge>,
    behind: Family<PerSource, Gauge>,
    lag: Family<PerSource, Gauge>,
    /// Leases that were extended.
    pub extended: Counter,
    /// Seconds from when a message was published to when all of it was in Elasticsearch.
    pub latency: Histogram,
    trouble: Mutex<Vec<(&'static str, String)>>,
}

impl Default for QueueMeters {
    fn default() -> Self {
        let bounds = (0..17).map(|exponent| 0.01 * f64::from(1_u32 << exponent));
        Self {
            received: Family::default(),
            settled: Family::default(),
            held: Family::default(),
            behind: Family::default(),
            lag: Family::default(),
            extended: Counter::default(),
            latency: Histogram::new(bounds),
            trouble: Mutex::default(),
        }
    }
}

impl QueueMeters {
    /// Makes them known.
    pub fn register(&self, r: &mut Registry) {
        r.register("messages_received", "Messages delivered by a queue", self.received.clone());
        r.register(
            "messages_settled",
            "Messages by what the queue knows became of them",
            self.settled.clone(),
        );
        r.register("messages_held", "Messages whose decision the queue does not know", self.held.clone());
        r.register("messages_pending", "Messages of the queue not yet delivered", self.behind.clone());
        r.register("queue_lag_seconds", "Age of the oldest message of the last pull", self.lag.clone());
        r.register("leases_extended", "Leases of messages extended", self.extended.clone());
        let help = "From a message's publication to its acknowledgement by Elasticsearch";
        r.register("message_latency_seconds", help, self.latency.clone());
    }

    /// Messages came; of the last pull: what the oldest one is, and how many are behind it.
    pub fn received(
        &self,
        source: &'static str,
        count: usize,
        oldest: Option<SystemTime>,
        behind: Option<u64>,
    ) {
        let labels = PerSource { source };
        self.received.get_or_create(&labels).inc_by(u64::try_from(count).unwrap_or_default());
        let age = oldest.and_then(|oldest| SystemTime::now().duration_since(oldest).ok());
        let seconds = |age: Duration| i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        self.lag.get_or_create(&labels).set(age.map_or(0, seconds));
        if let Some(behind) = behind.or((count == 0).then_some(0)) {
            self.behind.get_or_create(&labels).set(i64::try_from(behind).unwrap_or(i64::MAX));
        }
    }

    /// So many messages are held now.
    pub fn held(&self, source: &'static str, count: usize) {
        self.held.get_or_create(&PerSource { source }).set(crate::meters::signed(count));
    }

    /// The queue knows what became of a message.
    pub fn settled(&self, source: &'static str, decision: &'static str, count: usize) {
        self.settled.get_or_create(&PerDecision { source, decision }).inc_by(count as u64);
    }

    /// How many messages ended so.
    pub fn count(&self, source: &'static str, decision: &'static str) -> u64 {
        self.settled.get_or_create(&PerDecision { source, decision }).get()
    }

    /// What is wrong with a queue; absent: nothing is. True: that is news.
    pub fn trouble(&self, source: &'static str, what: Option<String>) -> bool {
        let Ok(mut trouble) = self.trouble.lock() else { return false };
        let before =
            trouble.iter().position(|(known, _)| *known == source).map(|at| trouble.swap_remove(at).1);
        let news = before != what;
        trouble.extend(what.map(|what| (source, what)));
        news
    }

    /// Why the router cannot read its queues; absent: it can.
    pub fn not_ready(&self) -> Option<String> {
        self.trouble.lock().ok().and_then(|trouble| trouble.first().map(|(_, what)| what.clone()))
    }
}
