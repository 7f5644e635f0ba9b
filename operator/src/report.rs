//! What the operator tells of its passes: metrics, and events for transitions (never at rest). Effects: writes
//! events, from a task of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use searchcell_core::names::FIELD_MANAGER;
use searchcell_core::status::waits_for_a_person;
use searchcell_core::step::{Hold, Outcome, Plan};
use searchcell_crds::Reason;
use tokio::sync::mpsc;

use crate::engine::{CellPass, Key, Observer, PlacementPass, TablePass};
use crate::failure::Class;
use crate::routers::Census;
use crate::transitions::{Note, note, of_cell, of_placement};

type One = [(&'static str, &'static str); 1];
type Two = [(&'static str, &'static str); 2];
type Durations = Family<One, Histogram, fn() -> Histogram>;

/// All numbers, under the prefix `searchcell_`. Labels come from closed sets only.
pub struct Metrics {
    registry: Registry,
    reconciliations: Family<Two, Counter>,
    durations: Durations,
    steps: Family<Two, Counter>,
    holds: Family<One, Gauge>,
    clusters: Family<One, Gauge>,
    large_shards: Family<One, Gauge>,
    es_requests: Family<Two, Counter>,
    kube_requests: Family<Two, Counter>,
    injections: Family<One, Counter>,
    routers: Family<One, Gauge>,
    routers_missing: Gauge,
    router_generation_lag: Gauge,
    hot_tenants: Gauge,
    leader: Gauge,
    by_object: Mutex<BTreeMap<Key, Standing>>,
}

/// What one object adds to the gauges.
#[derive(Default)]
struct Standing {
    holds: Vec<&'static str>,
    clusters: Vec<&'static str>,
    large_shards: Vec<&'static str>,
}

fn buckets() -> Histogram {
    Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("searchcell");
        let reconciliations: Family<Two, Counter> = Family::default();
        let durations: Durations = Family::new_with_constructor(buckets);
        let steps: Family<Two, Counter> = Family::default();
        let holds: Family<One, Gauge> = Family::default();
        let clusters: Family<One, Gauge> = Family::default();
        let large_shards: Family<One, Gauge> = Family::default();
        let es_requests: Family<Two, Counter> = Family::default();
        let kube_requests: Family<Two, Counter> = Family::default();
        let injections: Family<One, Counter> = Family::default();
        let routers: Family<One, Gauge> = Family::default();
        let (routers_missing, router_generation_lag) = (Gauge::default(), Gauge::default());
        let (hot_tenants, leader) = (Gauge::default(), Gauge::default());
        registry.register("reconciliations", "Finished passes", reconciliations.clone());
        registry.register("reconcile_duration_seconds", "Time of a pass", durations.clone());
        registry.register("steps", "Steps of plans by what became of them", steps.clone());
        registry.register("holds", "What is not done yet, by reason", holds.clone());
        registry.register("clusters", "Elasticsearch clusters by phase", clusters.clone());
        registry.register(
            "large_shards",
            "Indices with a shard that is past a limit of documents or bytes, by limit",
            large_shards.clone(),
        );
        registry.register("es_requests", "Requests to Elasticsearch", es_requests.clone());
        registry.register(
            "kube_requests",
            "Requests to the API server, watches excepted",
            kube_requests.clone(),
        );
        registry.register(
            "injections",
            "Pods that the webhook was asked about, by what became of them",
            injections.clone(),
        );
        registry.register("routers", "Routers by how far they are with their tables", routers.clone());
        registry.register(
            "routers_missing",
            "Pods that run without the router that they asked for",
            routers_missing.clone(),
        );
        registry.register(
            "router_generation_lag",
            "By how much the router that is furthest behind has an older table",
            router_generation_lag.clone(),
        );
        registry.register(
            "hot_tenants",
            "Tenants that are hot in at least one router, as of the last reading",
            hot_tenants.clone(),
        );
        registry.register("leader", "1 while this process may change things", leader.clone());
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the operator", build);
        Self {
            registry,
            reconciliations,
            durations,
            steps,
            holds,
            clusters,
            large_shards,
            es_requests,
            kube_requests,
            injections,
            routers,
            routers_missing,
            router_generation_lag,
            hot_tenants,
            leader,
            by_object: Mutex::default(),
        }
    }
}

impl Metrics {
    /// In the OpenMetrics text format.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// A request to Elasticsearch ended.
    pub fn es_request(&self, op: &'static str, outcome: &'static str) {
        self.es_requests.get_or_create(&[("op", op), ("outcome", outcome)]).inc();
    }

    /// A request to the API server ended.
    pub fn kube_request(&self, verb: &'static str, outcome: &'static str) {
        self.kube_requests.get_or_create(&[("verb", verb), ("outcome", outcome)]).inc();
    }

    /// The webhook was asked about a pod.
    pub fn injection(&self, outcome: &'static str) {
        self.injections.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Routers were asked what they have.
    pub fn routers(&self, census: Census) {
        for (state, count) in [
            ("current", census.current),
            ("draining", census.draining),
            ("behind", census.behind),
            ("unread", census.unread),
        ] {
            self.routers.get_or_create(&[("state", state)]).set(count);
        }
        self.router_generation_lag.set(census.lag);
    }

    /// How many pods run without their routers.
    pub fn routers_missing(&self, count: i64) {
        self.routers_missing.set(count);
    }

    /// Tenants that routers find hot.
    pub fn hot_tenants(&self, count: i64) {
        self.hot_tenants.set(count);
    }

    /// Whether this process may change things.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    fn pass(
        &self,
        controller: &'static str,
        failed: Option<Class>,
        seconds: f64,
        plan: &Plan,
        outcomes: &[Outcome],
    ) {
        let outcome = match failed {
            None => "success",
            Some(Class::Conflict) => "conflict",
            Some(Class::Transient | Class::Fatal) => "transient",
            Some(Class::UserFixable) => "user_fixable",
        };
        self.reconciliations.get_or_create(&[("controller", controller), ("outcome", outcome)]).inc();
        self.durations.get_or_create(&[("controller", controller)]).observe(seconds);
        for (step, outcome) in plan.steps.iter().zip(outcomes) {
            let outcome = match outcome {
                Outcome::Done => "done",
                Outcome::Skipped => "skipped",
                Outcome::Failed { .. } => "failed",
            };
            self.steps.get_or_create(&[("step", step.action.name()), ("outcome", outcome)]).inc();
        }
    }

    /// What an object adds to the gauge of large shards.
    fn large_shards_of(&self, key: &Key) -> Vec<&'static str> {
        let all = self.by_object.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(key).map(|standing| standing.large_shards.clone()).unwrap_or_default()
    }

    /// Gauges are sums over all objects.
    fn stand(&self, key: &Key, standing: Option<Standing>) {
        let mut all = self.by_object.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.remove(key).unwrap_or_default();
        let now = standing.unwrap_or_default();
        let add = |family: &Family<One, Gauge>, label: &'static str, values: &[&'static str], by: i64| {
            for value in values {
                family.get_or_create(&[(label, value)]).inc_by(by);
            }
        };
        add(&self.holds, "gate", &before.holds, -1);
        add(&self.clusters, "state", &before.clusters, -1);
        add(&self.large_shards, "limit", &before.large_shards, -1);
        add(&self.holds, "gate", &now.holds, 1);
        add(&self.clusters, "state", &now.clusters, 1);
        add(&self.large_shards, "limit", &now.large_shards, 1);
        if !now.holds.is_empty() || !now.clusters.is_empty() || !now.large_shards.is_empty() {
            all.insert(key.clone(), now);
        }
    }
}

fn gates(holds: &[Hold]) -> Vec<&'static str> {
    holds.iter().map(|hold| hold.reason.as_str()).collect()
}

/// Most objects and reasons whose last event is remembered.
const MOST_RECORDERS: usize = 2048;

/// A recorder makes events with the same reason about the same object one series, with the text of the first; so each
/// text has its own.
struct Recorders {
    client: Client,
    reporter: Reporter,
    /// The last text, by the UID of the object and the reason.
    last: HashMap<(Option<String>, String), (String, Recorder)>,
}

impl Recorders {
    fn of(&mut self, about: &ObjectReference, note: &Note) -> Recorder {
        let key = (about.uid.clone(), note.reason.clone());
        if let Some((text, recorder)) = self.last.get(&key)
            && *text == note.text
        {
            return recorder.clone();
        }
        if self.last.len() >= MOST_RECORDERS {
            self.last.clear();
        }
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        self.last.insert(key, (note.text.clone(), recorder.clone()));
        recorder
    }
}

/// Tells metrics and events of every pass.
pub struct Report {
    metrics: Arc<Metrics>,
    events: mpsc::Sender<(ObjectReference, Note)>,
}

impl Report {
    /// A report that publishes events with this client, from a task of its own.
    pub fn start(metrics: Arc<Metrics>, client: Client, instance: String) -> Self {
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(instance) };
        let (events, mut queue) = mpsc::channel::<(ObjectReference, Note)>(256);
        tokio::spawn(async move {
            let mut recorders = Recorders { client, reporter, last: HashMap::new() };
            while let Some((about, note)) = queue.recv().await {
                let recorder = recorders.of(&about, &note);
                let event = Event {
                    type_: if note.warning { EventType::Warning } else { EventType::Normal },
                    reason: note.reason.to_owned(),
                    note: Some(note.text),
                    action: note.action.to_owned(),
                    secondary: None,
                };
                if let Err(error) = recorder.publish(&event, &about).await {
                    tracing::debug!(%error, "an event was not written");
                }
            }
        });
        Self { metrics, events }
    }

    /// Says of an object that it cannot be read at all; nothing else is done about it.
    pub fn unreadable(&self, about: &ObjectReference, why: &str) {
        let name = |part: &Option<String>| part.clone().unwrap_or_default();
        let (kind, namespace, name) = (name(&about.kind), name(&about.namespace), name(&about.name));
        tracing::warn!(kind, namespace, name, why, "an object cannot be read and is passed over");
        let text = format!(
            "the object cannot be read ({why}) and is passed over; what was known of it goes on: flatten what is \
             nested, or remove it"
        );
        let note =
            Note { warning: true, reason: Reason::InvalidSpec.as_str().to_owned(), action: "Read", text };
        self.tell(about, vec![note]);
    }

    /// Tells a pod what is wrong with its router.
    pub fn pod(&self, about: &ObjectReference, reason: Reason, text: String) {
        let note = Note { warning: true, reason: reason.as_str().to_owned(), action: "Inject", text };
        self.tell(about, vec![note]);
    }

    /// Tells of a hot tenant, on the object that a person changes.
    pub fn hot_tenant(&self, about: &ObjectReference, warning: bool, text: String) {
        self.tell(about, vec![note(warning, Reason::HotTenant.as_str(), "ReadRouters", text)]);
    }

    /// Events are worth less than passes: when there are too many at once, some are not written.
    fn tell(&self, about: &ObjectReference, notes: Vec<Note>) {
        for note in notes {
            if self.events.try_send((about.clone(), note)).is_err() {
                tracing::debug!("an event was dropped");
            }
        }
    }
}

impl Observer for Report {
    fn cell(&self, pass: &CellPass<'_>) {
        let cell = &pass.snapshot.cell;
        self.metrics.pass("cell", pass.failed, pass.took.as_secs_f64(), pass.plan, pass.outcomes);
        let clusters = pass.status.clusters.iter().map(|cluster| phase(cluster.phase)).collect();
        let standing = Standing { holds: gates(&pass.plan.holds), clusters, ..Standing::default() };
        self.metrics.stand(&key_of(cell, Key::Cell), Some(standing));
        self.tell(&cell.object_ref(&()), of_cell(pass));
    }

    fn placement(&self, pass: &PlacementPass<'_>) {
        let placement = &pass.snapshot.placement;
        self.metrics.pass("placement", pass.failed, pass.took.as_secs_f64(), pass.plan, pass.outcomes);
        let key = key_of(placement, Key::Placement);
        // What cannot be measured now is as it was: no alarm ends because a cluster is out of reach.
        let large_shards = match pass.snapshot.large_shards() {
            Some(reasons) => reasons.into_iter().map(Reason::as_str).collect(),
            None => self.metrics.large_shards_of(&key),
        };
        let standing = Standing { holds: gates(&pass.plan.holds), large_shards, ..Standing::default() };
        self.metrics.stand(&key, Some(standing));
        self.tell(&placement.object_ref(&()), of_placement(pass));
    }

    fn table(&self, pass: &TablePass<'_>) {
        let snapshot = pass.snapshot;
        self.metrics.pass("table", pass.failed, pass.took.as_secs_f64(), pass.plan, pass.outcomes);
        let standing = Standing { holds: gates(&pass.plan.holds), ..Standing::default() };
        let key = Key::Table(snapshot.namespace.clone(), snapshot.collection.clone());
        self.metrics.stand(&key, Some(standing));
        // What waits for a person is told on the objects that a person wrote.
        for hold in pass.plan.holds.iter().filter(|hold| waits_for_a_person(hold.reason)) {
            for placement in &snapshot.placements {
                let note = Note {
                    warning: true,
                    reason: hold.reason.as_str().to_owned(),
                    action: "PublishTable",
                    text: hold.message.clone(),
                };
                self.tell(&placement.object_ref(&()), vec![note]);
            }
        }
    }

    fn gone(&self, key: &Key) {
        self.metrics.stand(key, None);
    }
}

fn key_of<T: Resource>(object: &T, key: fn(String, String) -> Key) -> Key {
    let meta = object.meta();
    key(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn phase(phase: searchcell_crds::ClusterPhase) -> &'static str {
    use searchcell_crds::ClusterPhase;
    match phase {
        ClusterPhase::Pending => "Pending",
        ClusterPhase::Forming => "Forming",
        ClusterPhase::Ready => "Ready",
        ClusterPhase::Rolling => "Rolling",
        ClusterPhase::Scaling => "Scaling",
        ClusterPhase::Degraded => "Degraded",
        ClusterPhase::Unavailable => "Unavailable",
        ClusterPhase::Deleting => "Deleting",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_the_documented_names() {
        let metrics = Metrics::default();
        metrics.es_request("summary", "success");
        metrics.kube_request("apply", "conflict");
        metrics.injection("refused");
        metrics.routers(Census { behind: 2, lag: 7, ..Census::default() });
        metrics.routers_missing(3);
        metrics.hot_tenants(2);
        metrics.set_leader(true);
        let plan = Plan::default();
        metrics.pass("cell", Some(Class::Conflict), 0.2, &plan, &[]);
        let key = Key::Cell("ns".into(), "guilds".into());
        let standing = || Standing {
            holds: vec!["Held"],
            clusters: vec!["Ready", "Ready"],
            large_shards: vec!["ShardLarge"],
        };
        metrics.stand(&key, Some(standing()));
        metrics.stand(&key, Some(standing()));
        let text = metrics.render().unwrap();
        for line in [
            "searchcell_es_requests_total{op=\"summary\",outcome=\"success\"} 1",
            "searchcell_kube_requests_total{verb=\"apply\",outcome=\"conflict\"} 1",
            "searchcell_injections_total{outcome=\"refused\"} 1",
            "searchcell_routers{state=\"behind\"} 2",
            "searchcell_routers{state=\"unread\"} 0",
            "searchcell_router_generation_lag 7",
            "searchcell_routers_missing 3",
            "searchcell_hot_tenants 2",
            "searchcell_reconciliations_total{controller=\"cell\",outcome=\"conflict\"} 1",
            "searchcell_reconcile_duration_seconds_count{controller=\"cell\"} 1",
            "searchcell_clusters{state=\"Ready\"} 2",
            "searchcell_holds{gate=\"Held\"} 1",
            "searchcell_large_shards{limit=\"ShardLarge\"} 1",
            "searchcell_leader 1",
            "searchcell_build_info{version=",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        metrics.stand(&key, None);
        assert!(metrics.render().unwrap().contains("searchcell_clusters{state=\"Ready\"} 0"));
    }
}
