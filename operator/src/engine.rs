//! The loop's body, generic over the two seams: one pass over one object. Effects: only through the seams.
//!
//! The real operator and the simulation run exactly this code; see `cell` and `placement` for the passes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use searchcell_core::domain::{ValidCell, ValidPlacement};
use searchcell_core::placement::{PlacementSnapshot, ShardLimits};
use searchcell_core::routing::TableSnapshot;
use searchcell_core::security::Lifetimes;
use searchcell_core::snapshot::CellSnapshot;
use searchcell_core::step::{Outcome, Plan};
use searchcell_core::validate::Problem;
use searchcell_crds::{IndexPlacementStatus, SearchCellStatus};
use tracing::Instrument;

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::decide::{Core, Decide};
use crate::elastic::reader::{ElasticReader, ReaderTuning, shortest};
use crate::failure::Class;
use crate::leadership::Leadership;
use crate::ports::{KubeApi, SearchApi};
use crate::security::forge::Forge;

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// After this time, or when something changes.
    After(Duration),
    /// When something changes.
    OnChange,
}

/// What a pass is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A SearchCell: namespace, name.
    Cell(String, String),
    /// An IndexPlacement: namespace, name.
    Placement(String, String),
    /// The routing table of a collection: namespace, collection.
    Table(String, String),
}

/// Numbers that the loop runs by.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Readings of Elasticsearch may be this old in a pass.
    pub max_reading_age: Duration,
    /// So old where nothing is to be done, as far as is known: so the placements of a cell ask its clusters together, however
    /// many they are, and each still finds within a minute what changed.
    pub resting_reading_age: Duration,
    /// Clusters of one cell whose steps run at the same time.
    pub parallel_clusters: usize,
    /// After failures that may pass by themselves.
    pub backoff: Backoff,
    /// After conflicts: look again soon.
    pub conflict_backoff: Backoff,
    /// After failures that wait for a person.
    pub user_backoff: Backoff,
    /// An object with an invalid spec is looked at this often, so that its status stays true.
    pub invalid_every: Duration,
    /// How Elasticsearch is read.
    pub reader: ReaderTuning,
    /// From where on a shard is large.
    pub limits: ShardLimits,
    /// How long certificates live.
    pub lifetimes: Lifetimes,
    /// Whether nodes are restarted that do not run what the spec asks for.
    pub restarts_nodes: bool,
    /// Clusters of all cells whose nodes restart at a time.
    pub most_disruptions: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Self {
            max_reading_age: Duration::from_secs(1),
            resting_reading_age: Duration::from_secs(15),
            parallel_clusters: 8,
            backoff: Backoff { first: Duration::from_secs(1), longest: minutes(5) },
            conflict_backoff: Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(30) },
            user_backoff: Backoff { first: Duration::from_secs(10), longest: minutes(5) },
            invalid_every: minutes(1),
            reader: ReaderTuning::default(),
            limits: ShardLimits::default(),
            lifetimes: Lifetimes::default(),
            restarts_nodes: false,
            most_disruptions: 5,
        }
    }
}

/// A finished pass over a cell, for reports.
#[derive(Debug)]
pub struct CellPass<'a> {
    /// What was seen, the previous status included.
    pub snapshot: &'a CellSnapshot,
    /// The restricted spec, or its problems.
    pub valid: Result<&'a ValidCell, &'a [Problem]>,
    /// What was decided.
    pub plan: &'a Plan,
    /// What became of it, in the order of the plan's steps.
    pub outcomes: &'a [Outcome],
    /// What is reported.
    pub status: &'a SearchCellStatus,
    /// The worst failure of the pass.
    pub failed: Option<Class>,
    /// How long it took.
    pub took: Duration,
}

/// A finished pass over a placement, for reports.
#[derive(Debug)]
pub struct PlacementPass<'a> {
    /// What was seen, the previous status included.
    pub snapshot: &'a PlacementSnapshot,
    /// The restricted spec, or its problems.
    pub valid: Result<&'a ValidPlacement, &'a [Problem]>,
    /// What was decided.
    pub plan: &'a Plan,
    /// What became of it, in the order of the plan's steps.
    pub outcomes: &'a [Outcome],
    /// What is reported.
    pub status: &'a IndexPlacementStatus,
    /// The worst failure of the pass.
    pub failed: Option<Class>,
    /// How long it took.
    pub took: Duration,
}

/// A finished pass over a routing table, for reports.
#[derive(Debug)]
pub struct TablePass<'a> {
    /// What was seen.
    pub snapshot: &'a TableSnapshot,
    /// What was decided.
    pub plan: &'a Plan,
    /// What became of it.
    pub outcomes: &'a [Outcome],
    /// The worst failure of the pass.
    pub failed: Option<Class>,
    /// How long it took.
    pub took: Duration,
}

/// Hears of every finished pass: metrics, events and the log in the real operator, invariants in a simulation.
pub trait Observer: Send + Sync {
    /// A cell was passed over.
    fn cell(&self, _pass: &CellPass<'_>) {}
    /// A placement was passed over.
    fn placement(&self, _pass: &PlacementPass<'_>) {}
    /// A routing table was passed over.
    fn table(&self, _pass: &TablePass<'_>) {}
    /// An object is gone.
    fn gone(&self, _key: &Key) {}
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}

/// Passes over cells and placements.
pub struct Engine<K, E> {
    pub(crate) kube: Arc<K>,
    pub(crate) elastic: Arc<E>,
    pub(crate) reader: ElasticReader<E>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) leadership: Leadership,
    pub(crate) tuning: Tuning,
    pub(crate) forge: Forge,
    pub(crate) decide: Arc<dyn Decide>,
    pub(crate) observer: Arc<dyn Observer>,
    failures: Mutex<BTreeMap<Key, (Class, u32)>>,
    /// Number of the last table that was published, by its key.
    pub(crate) tables: Mutex<BTreeMap<Key, i64>>,
}

impl<K: KubeApi, E: SearchApi> Engine<K, E> {
    /// An engine that decides as the core does, and reports to nobody.
    pub fn new(
        kube: Arc<K>,
        elastic: Arc<E>,
        clock: Arc<dyn Clock>,
        leadership: Leadership,
        tuning: Tuning,
    ) -> Self {
        let reader = ElasticReader::new(Arc::clone(&elastic), tuning.reader);
        Self {
            kube,
            elastic,
            reader,
            clock,
            leadership,
            tuning,
            forge: Forge::default(),
            decide: Arc::new(Core),
            observer: Arc::new(Silent),
            failures: Mutex::default(),
            tables: Mutex::default(),
        }
    }

    /// Makes secrets otherwise.
    pub fn with_forge(mut self, forge: Forge) -> Self {
        self.forge = forge;
        self
    }

    /// Decides otherwise.
    pub fn with_decide(mut self, decide: Arc<dyn Decide>) -> Self {
        self.decide = decide;
        self
    }

    /// Reports to somebody.
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// One pass over whatever the key names.
    pub async fn pass(&self, key: &Key) -> Next {
        match key {
            Key::Cell(namespace, name) => {
                let span = tracing::error_span!("cell", namespace, name);
                self.pass_cell(namespace, name).instrument(span).await
            }
            Key::Placement(namespace, name) => {
                let span = tracing::error_span!("placement", namespace, name);
                self.pass_placement(namespace, name).instrument(span).await
            }
            Key::Table(namespace, collection) => {
                let span = tracing::error_span!("table", namespace, collection);
                self.pass_table(namespace, collection).instrument(span).await
            }
        }
    }

    /// When to look again: as the plan says, earlier when a breaker opens earlier, and after failures as their class
    /// says, ever more slowly.
    pub(crate) fn next(
        &self,
        key: &Key,
        failed: Option<Class>,
        wake_after: Duration,
        retry_after: Option<Duration>,
    ) -> Next {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(class) = failed else {
            failures.remove(key);
            drop(failures);
            let planned = (!wake_after.is_zero()).then_some(wake_after);
            return shortest(planned, retry_after).map_or(Next::OnChange, Next::After);
        };
        let count = match failures.get(key) {
            Some((before, count)) if *before == class => count.saturating_add(1),
            _ => 1,
        };
        failures.insert(key.clone(), (class, count));
        Next::After(match class {
            Class::Conflict => self.tuning.conflict_backoff.after(count),
            Class::Transient | Class::Fatal => self.tuning.backoff.after(count),
            Class::UserFixable => self.tuning.user_backoff.after(count),
        })
    }

    /// The object is gone: nothing is remembered of it.
    pub(crate) fn forget(&self, key: &Key) -> Next {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        if let Key::Cell(namespace, name) = key {
            self.reader.forget(namespace, name);
        }
        self.observer.gone(key);
        Next::OnChange
    }
}
