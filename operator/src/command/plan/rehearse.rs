//! The operator's own passes, rehearsed: the same engine, the same decisions, on a Kubernetes and an Elasticsearch in
//! memory, again and again until nothing more comes. What a pass does, holds and waits for is noted. No effects but those
//! of the stage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use searchcell_core::domain::{ValidCell, ValidIndex, ValidPlacement};
use searchcell_core::names::OWNED_SETTINGS;
use searchcell_core::plan::{setting_text, wanted_settings};
use searchcell_core::routing::Published;
use searchcell_core::security::Lifetimes;
use searchcell_core::snapshot::{CellObjects, CellSnapshot};
use searchcell_core::step::{Outcome, Plan};
use searchcell_core::validate::Problem;

use super::describe::{self, View};
use super::script::{Group, Line, Verb};
use super::stage_elastic::StageElastic;
use super::stage_kube::StageKube;
use crate::clock::Clock;
use crate::engine::{CellPass, Engine, Key, Observer, PlacementPass, TablePass, Tuning};
use crate::leadership::Leadership;
use crate::security::forge::Forge;

/// More passes than any object needs: each makes sixty-four indices at most.
const MOST_ROUNDS: usize = 1_000;
/// What is made is thrown away: hashes need not be hard to guess from.
const CHEAP: u32 = 4;

/// Time stands still.
struct Now(Timestamp);

impl Clock for Now {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// What was noted of one object.
#[derive(Clone, Debug, Default)]
struct Noted {
    /// Of all passes.
    done: Group,
    /// Of the last pass.
    left: Vec<Line>,
    /// What is published before the first pass.
    table: Option<Option<Published>>,
}

/// Hears of passes.
pub struct Notes {
    stage: Arc<StageKube>,
    noted: Mutex<BTreeMap<Key, Noted>>,
}

/// Passes on a stage.
pub struct Rehearsal {
    kube: Arc<StageKube>,
    elastic: Arc<StageElastic>,
    engine: Engine<StageKube, StageElastic>,
    notes: Arc<Notes>,
}

impl Rehearsal {
    /// A rehearsal on this stage, all of it at this moment.
    pub fn new(kube: StageKube, elastic: StageElastic, lifetimes: Lifetimes, now: Timestamp) -> Self {
        let (kube, elastic) = (Arc::new(kube), Arc::new(elastic));
        let notes = Arc::new(Notes { stage: Arc::clone(&kube), noted: Mutex::default() });
        let observer: Arc<dyn Observer> = notes.clone();
        // A reading costs nothing here.
        let (max_reading_age, resting_reading_age) = Default::default();
        let tuning = Tuning { max_reading_age, resting_reading_age, lifetimes, ..Tuning::default() };
        let engine = Engine::new(
            Arc::clone(&kube),
            Arc::clone(&elastic),
            Arc::new(Now(now)),
            Leadership::always(),
            tuning,
        );
        let engine = engine.with_forge(Forge::with_cost(CHEAP)).with_observer(observer);
        Self { kube, elastic, engine, notes }
    }

    /// Kubernetes, as far as the rehearsal goes.
    pub fn kube(&self) -> &StageKube {
        &self.kube
    }

    /// Notes a line about an object before its passes.
    pub fn note(&self, key: &Key, line: Line) {
        self.notes.change(key, |noted| noted.done.add(line));
    }

    /// Passes over these objects until nothing more comes. False: it never came to an end.
    pub async fn run(&self, keys: &[Key]) -> bool {
        for _ in 0..MOST_ROUNDS {
            let before = (self.kube.writes(), self.elastic.writes());
            for key in keys {
                self.engine.pass(key).await;
            }
            if before == (self.kube.writes(), self.elastic.writes()) {
                return true;
            }
        }
        false
    }

    /// What would be done about an object, and what stands in the way.
    pub fn group(&self, key: &Key) -> Group {
        let noted = self.notes.of(key);
        let mut group = noted.done;
        noted.left.into_iter().for_each(|line| group.add(line));
        group
    }

    /// What would be done about an object.
    pub fn done(&self, key: &Key) -> Group {
        self.notes.of(key).done
    }
}

impl Notes {
    fn of(&self, key: &Key) -> Noted {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.get(key).cloned().unwrap_or_default()
    }

    fn change(&self, key: &Key, change: impl FnOnce(&mut Noted)) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        change(noted.entry(key.clone()).or_default());
    }

    /// Steps that were done, and what of the plan was not.
    fn take(&self, key: &Key, plan: &Plan, outcomes: &[Outcome], view: &View<'_>, more: Vec<Line>) {
        let mut left: Vec<Line> = plan.holds.iter().map(describe::hold).collect();
        self.change(key, |noted| {
            for (step, outcome) in plan.steps.iter().zip(outcomes) {
                match outcome {
                    Outcome::Done => noted.done.add(describe::step(step, view)),
                    Outcome::Failed { reason, message } => {
                        left.push(describe::waiting(*reason, step.cluster.as_deref(), message));
                    }
                    Outcome::Skipped => {}
                }
            }
            left.extend(more);
            noted.left = left;
        });
    }
}

impl Observer for Notes {
    fn cell(&self, pass: &CellPass<'_>) {
        let meta = &pass.snapshot.cell.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = meta.name.as_deref().unwrap_or_default();
        let view = View {
            namespace,
            cell: name,
            own: &format!("SearchCell {name}"),
            objects: &pass.snapshot.objects,
            elastic: &pass.snapshot.elastic,
            secret_keys: &|secret| self.stage.secret_keys(namespace, secret),
        };
        let more = match pass.valid {
            Ok(valid) => unformed(valid, pass.snapshot, pass.plan),
            Err(problems) => refused(problems),
        };
        let key = Key::Cell(namespace.to_owned(), name.to_owned());
        self.take(&key, pass.plan, pass.outcomes, &view, more);
    }

    fn placement(&self, pass: &PlacementPass<'_>) {
        let placement = &pass.snapshot.placement;
        let namespace = placement.metadata.namespace.as_deref().unwrap_or_default();
        let name = placement.metadata.name.as_deref().unwrap_or_default();
        let view = View {
            namespace,
            cell: &placement.spec.cell,
            own: &format!("IndexPlacement {name}"),
            objects: &CellObjects::default(),
            elastic: &pass.snapshot.elastic,
            secret_keys: &|_| Vec::new(),
        };
        let more = match pass.valid {
            Ok(valid) => not_created(valid, pass),
            Err(problems) => refused(problems),
        };
        let key = Key::Placement(namespace.to_owned(), name.to_owned());
        self.take(&key, pass.plan, pass.outcomes, &view, more);
    }

    fn table(&self, pass: &TablePass<'_>) {
        let snapshot = pass.snapshot;
        let key = Key::Table(snapshot.namespace.clone(), snapshot.collection.clone());
        let mut left: Vec<Line> = pass.plan.holds.iter().map(describe::hold).collect();
        self.change(&key, |noted| {
            // What it comes to in the end is compared with what is published now.
            let before = noted.table.get_or_insert_with(|| snapshot.published.clone());
            for (step, outcome) in pass.plan.steps.iter().zip(pass.outcomes) {
                match (outcome, describe::table(step, before.as_ref())) {
                    (Outcome::Done, Some(line)) => noted.done.set(line),
                    (Outcome::Failed { reason, message }, _) => {
                        left.push(describe::waiting(*reason, None, message));
                    }
                    _ => {}
                }
            }
            noted.left = left;
        });
    }
}

fn refused(problems: &[Problem]) -> Vec<Line> {
    problems.iter().map(describe::problem).collect()
}

/// Clusters of which Elasticsearch says nothing: what it decides comes later.
fn unformed(valid: &ValidCell, snapshot: &CellSnapshot, plan: &Plan) -> Vec<Line> {
    let is_held = |cluster: &str| {
        let of_it = |of: &Option<String>| of.as_deref().is_none_or(|of| of == cluster);
        plan.holds.iter().any(|hold| of_it(&hold.cluster) && describe::hold(hold).verb == Verb::Hold)
    };
    let has_formed = |cluster: &str| {
        let known = snapshot.cell.status.iter().flat_map(|status| &status.clusters);
        known.into_iter().any(|known| known.name == cluster && known.uuid.is_some())
    };
    let clusters = valid.clusters.iter().map(|cluster| cluster.name.as_str());
    let unread = clusters.filter(|cluster| snapshot.elastic(cluster).is_none() && !is_held(cluster));
    let line = |cluster: &str| {
        let subject = format!("settings of cluster {}", valid.key(cluster).name());
        if has_formed(cluster) {
            let more = "none of its nodes can be asked what they are; compared when one is ready";
            return Line::new(Verb::Later, subject, more);
        }
        let settings = wanted_settings(valid);
        let settings = settings
            .iter()
            .filter(|(name, _)| *name != OWNED_SETTINGS)
            .map(|(name, value)| format!("+ {name}: {}", setting_text(value)));
        Line::new(Verb::Later, subject, "when its nodes have started and formed it").with(settings.collect())
    };
    unread.map(line).collect()
}

/// Indices that are asked for and wait for something.
fn not_created(valid: &ValidPlacement, pass: &PlacementPass<'_>) -> Vec<Line> {
    let there: BTreeSet<&String> = (pass.snapshot.elastic.values())
        .filter_map(|reading| reading.known())
        .flat_map(|facts| facts.indices.keys())
        .collect();
    // In a later pass of this rehearsal.
    let is_planned = !pass.plan.assign.is_empty() || !pass.plan.steps.is_empty();
    let waits = pass.plan.holds.iter().map(describe::hold).any(|line| line.verb == Verb::Later);
    if is_planned || !waits {
        return Vec::new();
    }
    let line = |index: &ValidIndex| {
        let more = describe::counted(i64::from(index.shards), "primary shard");
        Line::new(Verb::Later, format!("create index {}", index.name), more)
    };
    valid.indices.iter().filter(|index| !there.contains(&index.name)).map(line).collect()
}
