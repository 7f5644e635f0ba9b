//! Runs one schedule: the operator's processes, the passage of time, the acts, and the wait for rest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use searchcell_operator::clock::Clock;
use searchcell_operator::engine::{Engine, Key, Next, Observer, Silent, Tuning};
use searchcell_operator::leadership::Leadership;
use searchcell_operator::security::forge::Forge;
use tokio::time::{Instant, sleep};

use crate::acts::{self, Act};
use crate::bugs::Bug;
use crate::calls::{Fate, Line};
use crate::invariants::Violation;
use crate::mutants::Mutant;
use crate::objects::K;
use crate::rng::Rng;
use crate::scenario::{Kind, Scenario};
use crate::settled;
use crate::sim_elastic::SimElastic;
use crate::sim_kube::SimKube;
use crate::store::timestamp;
use crate::world::{Network, Node, Shared, World, lock};

/// How long the world may take to come to rest after the last fault, in simulated seconds.
const PATIENCE_S: u64 = 3_600;
/// The same where every node of two clusters may have to restart, one after the other, with a soak after each.
const PATIENCE_ROLLING_S: u64 = 9_000;
/// Sizes are refreshed now and then: rest is asked for only after that.
const SIZES_EVERY: Duration = Duration::from_secs(60);
const QUIET_S: u64 = 130;
/// How long events are gathered, at most.
const DEBOUNCE_MS: u64 = 2_500;
/// Clients load a new authority, and nodes a new user, within these.
const OVERLAP: Duration = Duration::from_secs(120);
const GRACE: Duration = Duration::from_secs(100);
/// How long a process leads without renewing its lease.
const LEASE: Duration = Duration::from_secs(15);

/// What became of a schedule.
pub struct Report {
    pub kind: Kind,
    pub violation: Option<Violation>,
    pub tail: String,
    /// Simulated seconds.
    pub seconds: u64,
    /// Hash of everything that was written: equal for equal seeds.
    pub fingerprint: u64,
    /// Operator processes that died of a crash.
    pub deaths: usize,
    /// What a test of its own finds wrong at rest.
    pub wrong: Option<String>,
}

struct SimClock {
    world: Shared,
    skew: Arc<AtomicI64>,
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        timestamp(lock(&self.world).ms) + SignedDuration::from_secs(self.skew.load(Ordering::Relaxed))
    }
}

struct Process {
    engine: Engine<SimKube, SimElastic>,
    kube: Arc<SimKube>,
    fate: Arc<Fate>,
    leadership: Leadership,
    /// When each object is to be looked at again.
    due: BTreeMap<Key, u64>,
    dead: bool,
}

impl Process {
    fn new(
        world: &Shared,
        id: usize,
        skew: &Arc<AtomicI64>,
        bug: Option<Bug>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let fate = Arc::new(Fate::default());
        let line = Line { world: world.clone(), id, fate: fate.clone(), pass: Arc::default() };
        let kube = Arc::new(SimKube::new(line.clone(), bug));
        let elastic = Arc::new(SimElastic::new(line, kube.clone(), bug));
        let leadership = Leadership::none();
        let clock = Arc::new(SimClock { world: world.clone(), skew: skew.clone() });
        let mut tuning = Tuning::default();
        tuning.reader.sizes_every = SIZES_EVERY;
        tuning.lifetimes.overlap = OVERLAP;
        tuning.restarts_nodes = true;
        tuning.lifetimes.credential_grace = GRACE;
        let engine = Engine::new(kube.clone(), elastic, clock, leadership.clone(), tuning);
        let mut engine = engine.with_forge(Forge::with_cost(4)).with_observer(observer);
        if let Some(bug) = bug {
            engine = engine.with_decide(Arc::new(Mutant(bug)));
        }
        let mut process = Process { engine, kube, fate, leadership, due: BTreeMap::new(), dead: false };
        process.wake(true, 0);
        process
    }

    /// Cells are due, and with `all` placements too: those in the caches, and those that were in them.
    fn wake(&mut self, all: bool, at: u64) {
        for key in self.kube.keys() {
            self.due.entry(key).or_insert(u64::MAX);
        }
        let woken = self.due.iter_mut().filter(|(key, _)| all || matches!(key, Key::Cell(..)));
        woken.for_each(|(_, due)| *due = at.min(*due));
    }

    /// Watch events arrive: all of them, or as many as a bad day allows.
    fn deliver(&mut self) {
        let (arrived, all, at) = {
            let mut world = lock(&self.kube.line.world);
            if world.network.without_api.contains(&self.kube.line.id) {
                return;
            }
            let mut cache = self.kube.cache.lock().unwrap();
            let (mut arrived, mut all) = (false, false);
            for kind in K::ALL {
                let behind = cache.behind(&world.store, *kind);
                if behind == 0 {
                    continue;
                }
                let stale = world.network.stale;
                let events =
                    if world.rng.chance(stale) { world.rng.below(behind as u64) as usize } else { behind };
                let wakes = cache.deliver(&world.store, *kind, events);
                arrived |= wakes;
                all |= wakes && matches!(kind, K::Cell | K::Placement | K::ConfigMap);
            }
            // Events are gathered for a while.
            let at = world.ms + world.rng.below(DEBOUNCE_MS);
            (arrived, all, at)
        };
        if arrived {
            self.wake(all, at);
        }
    }

    async fn work(&mut self) {
        let now = lock(&self.kube.line.world).ms;
        let due: Vec<Key> =
            self.due.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
        for key in due {
            if !self.leadership.holds() || self.dead {
                return;
            }
            self.kube.begin_pass(&key);
            let next = tokio::select! {
                biased;
                () = self.fate.died.notified() => None,
                next = self.engine.pass(&key) => Some(next),
            };
            let now = lock(&self.kube.line.world).ms;
            match next {
                None => self.dead = true,
                Some(Next::After(wait)) => {
                    self.due.insert(key, now + wait.as_millis() as u64);
                }
                Some(Next::OnChange) => {
                    self.due.insert(key, u64::MAX);
                }
            }
        }
    }
}

struct Run {
    world: Shared,
    scenario: Scenario,
    processes: Vec<Process>,
    next_id: usize,
    skew: Arc<AtomicI64>,
    rng: Rng,
    bug: Option<Bug>,
    /// Hears of every pass.
    observer: Arc<dyn Observer>,
    /// What users are about to do: the first one may have to wait until a name is free, the others wait for it.
    users: VecDeque<Act>,
    /// A dead process is replaced at this time.
    replace_at: Option<u64>,
    deaths: usize,
}

/// Runs the schedule of a seed from its first second to its rest.
pub async fn run(seed: u64, kind: Option<Kind>, bug: Option<Bug>) -> Report {
    let mut rng = Rng::new(seed);
    let scenario = Scenario::new(&mut rng, kind);
    play(seed, rng, scenario, bug, Arc::new(Silent), |_| None).await
}

/// Runs a schedule from its first second to its rest, and asks what is wrong then.
pub async fn play(
    seed: u64,
    mut rng: Rng,
    scenario: Scenario,
    bug: Option<Bug>,
    observer: Arc<dyn Observer>,
    wrong: impl FnOnce(&World) -> Option<String>,
) -> Report {
    let mut world = World::new(rng.next());
    for zone in &scenario.zones {
        for number in 0..scenario.machines_per_zone {
            let node = Node { zone: zone.clone(), on: true, cordoned: false, since: 0, capacity: 8 };
            world.nodes.insert(format!("{zone}{number}"), node);
        }
    }
    world.note(format!(
        "seed {seed}: {:?}, {:?}, {} acts",
        scenario.kind,
        scenario.expect,
        scenario.acts.len()
    ));
    if scenario.kind == Kind::Rolling {
        // Longer than nodes take to come back, and than clusters soak.
        world.recovery_ms = 150_000;
    }
    let world = Arc::new(Mutex::new(world));
    let mut run = Run {
        world: world.clone(),
        scenario,
        processes: Vec::new(),
        next_id: 0,
        skew: Arc::default(),
        rng,
        bug,
        observer,
        users: VecDeque::new(),
        replace_at: None,
        deaths: 0,
    };
    run.start_process();
    let began = Instant::now();
    run.story().await;
    run.rest().await;
    run.later().await;
    let world = lock(&world);
    let fingerprint = world.log.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, write| {
        let bytes = write.ms.to_le_bytes().into_iter().chain(write.text.bytes());
        bytes.fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    });
    Report {
        kind: run.scenario.kind,
        violation: world.violation.clone(),
        tail: world.tail(if world.violation.is_some() { 120 } else { 0 }),
        seconds: began.elapsed().as_secs(),
        fingerprint,
        deaths: run.deaths,
        wrong: wrong(&world),
    }
}

impl Run {
    fn start_process(&mut self) {
        self.next_id += 1;
        let observer = Arc::clone(&self.observer);
        self.processes.push(Process::new(&self.world, self.next_id, &self.skew, self.bug, observer));
    }

    fn broken(&self) -> bool {
        lock(&self.world).violation.is_some()
    }

    /// One beat: time passes, the world moves, events arrive, processes work.
    async fn beat(&mut self, wait_ms: u64) {
        sleep(Duration::from_millis(wait_ms)).await;
        {
            let mut world = lock(&self.world);
            world.advance();
            let ms = world.ms;
            if self.processes.len() > 1 {
                world.contested_at = Some(ms);
            }
            if self.replace_at.is_some_and(|at| at <= ms) {
                self.replace_at = None;
                drop(world);
                self.start_process();
            }
        }
        for process in &mut self.processes {
            // The lease is an object of the API server: who cannot reach it loses it.
            let id = process.kube.line.id;
            if !lock(&self.world).network.without_api.contains(&id) {
                process.leadership.extend(Instant::now() + LEASE);
            }
            process.deliver();
        }
        futures::future::join_all(self.processes.iter_mut().map(Process::work)).await;
        let before = self.processes.len();
        self.processes.retain(|process| !process.dead);
        self.deaths += before - self.processes.len();
        if self.processes.is_empty() && before > 0 {
            let ms = lock(&self.world).ms;
            self.replace_at = Some(ms + self.rng.range(500, 20_000));
        }
    }

    async fn story(&mut self) {
        let acts = self.scenario.acts.clone();
        let mut second = 0;
        for (at, act) in acts {
            while second < at {
                let step = self.rng.range(400, 4_000);
                self.beat(step).await;
                if self.broken() {
                    return;
                }
                let elapsed = {
                    let world = lock(&self.world);
                    (world.ms - 3_600_000) / 1000
                };
                second = elapsed;
                self.users_try();
            }
            self.act(&act);
        }
    }

    /// Users do what they can; what has to wait is tried again at the next beat.
    fn users_try(&mut self) {
        while let Some(act) = self.users.front() {
            if !acts::perform(&mut lock(&self.world), act) {
                return;
            }
            self.users.pop_front();
        }
    }

    fn act(&mut self, act: &Act) {
        acts::announce(&mut lock(&self.world), act);
        if act.is_of_a_user() {
            self.users.push_back(act.clone());
            return self.users_try();
        }
        acts::perform(&mut lock(&self.world), act);
        match act {
            Act::CutApi => {
                let mut world = lock(&self.world);
                world.network.without_api.extend(self.processes.iter().map(|process| process.kube.line.id));
            }
            Act::Crash { after, with_effect } => {
                self.processes.iter().for_each(|process| process.fate.die_after(*after, *with_effect));
            }
            Act::SecondLeader => self.start_process(),
            Act::EndSecondLeader if self.processes.len() > 1 => {
                let gone = self.rng.below(self.processes.len() as u64) as usize;
                self.processes.remove(gone);
            }
            Act::ClockJump(seconds) => self.skew.store(*seconds, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Faults are over: the world must come to rest, and stay there.
    async fn rest(&mut self) {
        let (mut settled_for, mut logged) = (0, 0);
        let is_long =
            matches!(self.scenario.kind, Kind::Rolling | Kind::Scaling | Kind::Ingest | Kind::Keystore);
        let mut patience = if is_long { PATIENCE_ROLLING_S } else { PATIENCE_S };
        // What was noted by a clock that went ahead is due when the right one has caught up: sooner nobody could know that a
        // moment ahead of a clock is not that of a right one.
        patience += lock(&self.world).clock_ahead_s;
        let calm_at = {
            let mut world = lock(&self.world);
            world.network = Network::default();
            if self.scenario.elastic_stays_down {
                world.network.without_elastic =
                    ["a", "b"].map(|name| format!("{}/{name}", acts::CELL)).into();
            }
            world.note("--- calm".to_owned());
            acts::perform(&mut world, &Act::AllOn);
            (world.calm, world.history.undisturbed_since) = (true, Some(world.ms));
            world.ms
        };
        self.skew.store(0, Ordering::Relaxed);
        while self.processes.len() > 1 {
            self.processes.pop();
        }
        if self.processes.is_empty() {
            self.replace_at = Some(calm_at);
        }
        loop {
            let step = self.pause(settled_for > 0);
            self.beat(step).await;
            if self.broken() {
                return;
            }
            self.users_try();
            let mut world = lock(&self.world);
            let waits = self
                .users
                .front()
                .map(|act| (settled::FINALIZERS_GO, format!("a user still waits to do {act:?}")));
            let unsettled = waits.or_else(|| settled::unsettled(&world, self.scenario.expect));
            let moved = std::mem::replace(&mut logged, world.log.len()) != world.log.len();
            match unsettled {
                // What is held on purpose may be looked at too early: something is still on its way.
                None if moved => {
                    settled_for = 0;
                    if world.ms > calm_at + patience * 1000 {
                        return world.violated(settled::REST_IS_SILENT, "it never comes to rest");
                    }
                }
                None => settled_for += step,
                Some((invariant, why)) => {
                    settled_for = 0;
                    if world.ms > calm_at + patience * 1000 {
                        return world.violated(invariant, why);
                    }
                }
            }
            if settled_for > QUIET_S * 1000 {
                break;
            }
        }
        let (writes, until) = {
            let mut world = lock(&self.world);
            world.note("--- rest".to_owned());
            (world.operator_writes, world.ms + self.scenario.rest * 1000)
        };
        loop {
            let step = self.pause(true);
            self.beat(step).await;
            let mut world = lock(&self.world);
            if world.operator_writes != writes && self.scenario.kind != Kind::Foreign {
                // A name that is taken is tried again now and then: nobody can watch objects of others.
                world.violated(settled::REST_IS_SILENT, "the operator writes although nothing changes");
            }
            if let Some((invariant, why)) = settled::unsettled(&world, self.scenario.expect) {
                world.violated(invariant, why);
            }
            if world.violation.is_some() || world.ms > until {
                return;
            }
        }
    }

    /// What is to come when all is at rest.
    async fn later(&mut self) {
        let began = lock(&self.world).ms;
        for (second, act) in self.scenario.later.clone() {
            while lock(&self.world).ms < began + second * 1000 {
                let step = self.pause(true);
                self.beat(step).await;
                if self.broken() {
                    return;
                }
            }
            acts::perform(&mut lock(&self.world), &act);
        }
    }

    /// Until something is due; at rest nothing else happens.
    fn pause(&self, at_rest: bool) -> u64 {
        if !at_rest {
            return 2_000;
        }
        let now = lock(&self.world).ms;
        let due = self.processes.iter().flat_map(|process| process.due.values()).min().copied();
        due.map_or(60_000, |due| due.saturating_sub(now).clamp(500, 60_000))
    }
}
