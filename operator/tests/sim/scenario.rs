//! From a seed to a schedule: a cell, what its users do with it, and what goes wrong meanwhile.

mod day_two;
mod placements;

use searchcell_crds::{Dedicated, DeletionPolicy, IndexPlacementSpec, Pool, SearchCellSpec, Tenant};

use crate::acts::{Act, CELL, Edit};
use crate::rng::Rng;
use crate::specs::{cell_spec, dedicated_tenants};

/// Where nothing else is said.
pub const MACHINES_PER_ZONE: u64 = 3;

/// What must come of it in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Cell and placements serve, in full.
    Ready,
    /// The operator holds, safely, and says so.
    Held,
    /// The cell is gone, whatever Elasticsearch does.
    Gone,
}

/// The kinds of story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Faults while a cell is created and serves.
    Faults,
    /// Users change their minds, under faults.
    Edits,
    /// A cluster leaves the spec while a placement is on it.
    Removal,
    /// Deleted and made again: on the volumes that were retained, or on none.
    Recreation,
    /// Claims are there before the cell that they come back to.
    Restore,
    /// Deleted while Elasticsearch is down.
    Deletion,
    /// Suspended for a while.
    Suspension,
    /// The only master loses its volume.
    LostMaster,
    /// Somebody else's object has a name that is needed.
    Foreign,
    /// Between a fixed number and the autoscaler, to and fro.
    Ingest,
    /// Pods that never come.
    Stuck,
    /// Authorities and passwords are rotated, under faults.
    Rotation,
    /// Indices find their places among several clusters: closed, draining, out of reach, added meanwhile.
    Placing,
    /// Secure settings change, under faults.
    Keystore,
    /// Tenants get an index of their own, and some of them have documents in the pool.
    Dedicating,
    /// Nodes restart since their settings change, under faults.
    Rolling,
    /// Nodes are added and taken away, under faults and in the middle of restarts.
    Scaling,
}

pub const KINDS: [(Kind, u64); 17] = [
    (Kind::Faults, 34),
    (Kind::Edits, 20),
    (Kind::Removal, 6),
    (Kind::Recreation, 10),
    (Kind::Restore, 7),
    (Kind::Deletion, 6),
    (Kind::Suspension, 5),
    (Kind::LostMaster, 3),
    (Kind::Foreign, 3),
    (Kind::Ingest, 6),
    (Kind::Stuck, 4),
    (Kind::Rotation, 8),
    (Kind::Placing, 14),
    (Kind::Keystore, 8),
    (Kind::Dedicating, 8),
    // Each takes an hour or two of simulated time.
    (Kind::Rolling, 6),
    (Kind::Scaling, 10),
];

#[derive(Clone, Debug)]
pub struct Scenario {
    pub kind: Kind,
    pub zones: Vec<String>,
    pub machines_per_zone: u64,
    /// Acts by second, in order.
    pub acts: Vec<(u64, Act)>,
    pub expect: Expect,
    /// Elasticsearch stays out of reach to the end.
    pub elastic_stays_down: bool,
    /// How long the rest is watched, in seconds.
    pub rest: u64,
    /// Acts by second of the rest, in order: nothing else happens between them.
    pub later: Vec<(u64, Act)>,
}

impl Scenario {
    pub fn new(rng: &mut Rng, kind: Option<Kind>) -> Self {
        let mut lot = rng.below(KINDS.iter().map(|(_, weight)| weight).sum());
        let drawn = KINDS.iter().find(|(_, weight)| {
            let hit = lot < *weight;
            lot = lot.saturating_sub(*weight);
            hit
        });
        let kind = kind.or(drawn.map(|(kind, _)| *kind)).unwrap_or(Kind::Faults);
        let mut story = Story::new(rng, kind);
        story.tell();
        story.finish()
    }
}

struct Story<'a> {
    rng: &'a mut Rng,
    kind: Kind,
    spec: SearchCellSpec,
    acts: Vec<(u64, Act)>,
    expect: Expect,
    elastic_stays_down: bool,
    /// When the placement is made, and what it is.
    placed: Option<(u64, IndexPlacementSpec)>,
}

impl<'a> Story<'a> {
    fn new(rng: &'a mut Rng, kind: Kind) -> Self {
        let spec = cell_spec(rng, kind);
        Story {
            rng,
            kind,
            spec,
            acts: Vec::new(),
            expect: Expect::Ready,
            elastic_stays_down: false,
            placed: None,
        }
    }

    fn at(&mut self, second: u64, act: Act) {
        self.acts.push((second, act));
    }

    fn edit(&mut self, second: u64, edit: Edit) {
        self.at(second, Act::EditCell(edit));
    }

    fn tell(&mut self) {
        let spec = Box::new(self.spec.clone());
        self.at(1, Act::CreateCell(spec));
        let after = self.rng.range(0, 60);
        let needed = matches!(self.kind, Kind::Removal | Kind::Dedicating);
        if self.rng.chance(70) || needed {
            let mut placement = self.placement();
            // With one copy besides the primary no zone may be spared: its nodes restart one by one.
            let has_zones = self.spec.zones.len() > 1;
            if has_zones && matches!(self.kind, Kind::Rolling | Kind::Scaling) && self.rng.chance(50) {
                placement.replicas = Some(1);
            }
            if self.kind == Kind::Dedicating {
                let indices = self.rng.range(1, 6) as i32;
                (placement.pool, placement.dedicated) = (Some(Pool { indices }), None);
            }
            self.placed = Some((1 + after, placement.clone()));
            self.at(1 + after, Act::CreatePlacement("messages".to_owned(), Box::new(placement)));
        }
        match self.kind {
            Kind::Faults => self.faults(3, 8),
            Kind::Edits => self.edits(),
            Kind::Removal => self.removal(),
            Kind::Recreation => self.recreation(),
            Kind::Restore => self.restore(),
            Kind::Deletion => self.deletion(),
            Kind::Suspension => self.suspension(),
            Kind::LostMaster => self.lost_master(),
            Kind::Foreign => self.foreign(),
            Kind::Ingest => self.ingest(),
            Kind::Rotation => {
                self.faults(0, 4);
                self.rotations();
            }
            Kind::Keystore => self.keystore(),
            Kind::Stuck => self.stuck(),
            Kind::Placing => self.placing(),
            Kind::Dedicating => self.dedicating(),
            Kind::Rolling => self.rolling(),
            Kind::Scaling => self.scaling(),
        }
    }

    fn placement(&mut self) -> IndexPlacementSpec {
        let mut spec = IndexPlacementSpec {
            cell: CELL.to_owned(),
            collection: "messages".to_owned(),
            tenant: Tenant { field: "guild_id".to_owned(), ..Tenant::default() },
            ..IndexPlacementSpec::default()
        };
        if self.rng.chance(75) {
            spec.pool = Some(Pool { indices: self.rng.range(1, 6) as i32 });
        } else {
            spec.dedicated = Some(Dedicated { tenants: dedicated_tenants(), ..Dedicated::default() });
        }
        if self.rng.chance(30) {
            spec.deletion_policy = DeletionPolicy::Delete;
        }
        spec
    }

    fn second(&mut self) -> u64 {
        self.rng.range(2, 140)
    }

    fn faults(&mut self, least: u64, most: u64) {
        for _ in 0..self.rng.range(least, most) {
            let at = self.second();
            let until = at + self.rng.range(5, 60);
            let cluster = self.spec.clusters[0].name.clone();
            let zone = self.rng.pick(&self.spec.zones).map(|zone| zone.name.clone()).unwrap_or_default();
            match self.rng.below(16) {
                0 => {
                    self.at(at, Act::NodeOff);
                    self.at(until, Act::AllOn);
                }
                1 => {
                    self.at(at, Act::ZoneOff(zone));
                    // Now and then for longer than pods are trusted.
                    let longer = if self.rng.chance(20) { 400 } else { 0 };
                    self.at(until + longer, Act::AllOn);
                }
                2 => self.at(at, Act::Evict),
                3 => self.at(at, Act::KillContainer),
                4 => self.at(at, Act::Cordon),
                5 => {
                    self.at(at, Act::CutElastic(cluster));
                    self.at(until, Act::Steady);
                }
                6 => {
                    self.at(at, Act::CutApi);
                    self.at(until, Act::Steady);
                }
                7..=9 => {
                    let (refuse, lose) = (self.rng.below(25), self.rng.below(25));
                    let (slow, stale) = (self.rng.below(30), self.rng.below(90));
                    self.at(at, Act::Flaky { refuse, lose, slow, stale });
                    self.at(until + 30, Act::Steady);
                }
                10 | 11 => {
                    let act = Act::Crash { after: self.rng.below(6), with_effect: self.rng.chance(50) };
                    self.at(at, act);
                }
                12 => {
                    self.at(at, Act::SecondLeader);
                    self.at(until, Act::EndSecondLeader);
                }
                13 => {
                    let jump = self.rng.range(0, 7_200) as i64 - 3_600;
                    self.at(at, Act::ClockJump(jump));
                }
                14 => self.at(at, Act::WipeStatus),
                _ => {
                    // A single master's volume is another story.
                    let masters = self.spec.nodes.master.count > 1 && self.rng.chance(50);
                    let role = if masters { "master" } else { "data" }.to_owned();
                    let act =
                        if self.rng.chance(50) { Act::LoseClaim { role } } else { Act::WipeVolume { role } };
                    self.at(at + 60, act);
                }
            }
        }
        let documents = self.rng.range(0, 4_000_000) as i64;
        self.at(100, Act::Documents(documents));
        if self.spec.security.is_none() {
            self.rotations();
        }
    }

    /// Persons rotate authorities and passwords, in the middle of everything else.
    fn rotations(&mut self) {
        let cluster = self.spec.clusters[0].name.clone();
        let authorities = [format!("{CELL}-{cluster}-transport-ca"), format!("{CELL}-http-ca")];
        for _ in 0..self.rng.range(0, 4) {
            let at = self.rng.range(20, 400);
            let authority = self.rng.pick(&authorities).cloned().unwrap_or_default();
            let user =
                self.rng.pick(&["operator", "router", "exporter", "admin"]).copied().unwrap_or("admin");
            let act = match self.rng.below(4) {
                0 | 1 => Act::RotateAuthority(authority),
                2 => Act::DeleteSecret(authority),
                _ => Act::DeleteSecret(format!("{CELL}-{user}")),
            };
            self.at(at, act);
        }
    }

    /// What a running node loads reaches it; the rest comes with a restart, and is put back by somebody now and then.
    fn keystore(&mut self) {
        self.faults(0, 4);
        let from = self.rng.range(0, 40);
        self.at(from, Act::WriteSecure("0".to_owned(), None));
        let mut at = from;
        for turn in 1..self.rng.range(2, 6) {
            at += self.rng.range(5, 150);
            match self.rng.below(4) {
                0 => self.at(at, Act::WriteSecure(turn.to_string(), Some(turn.to_string()))),
                1 => {
                    self.at(at, Act::RemoveSecure);
                    let until = at + self.rng.range(5, 60);
                    self.at(until, Act::WriteSecure(turn.to_string(), None));
                    at = until;
                }
                _ => self.at(at, Act::WriteSecure(turn.to_string(), None)),
            }
        }
        if self.rng.chance(50) {
            // There are nodes by then, and perhaps not all of them have restarted.
            let until = at.max(200) + self.rng.range(5, 400);
            self.at(until, Act::PutBack);
        }
    }

    fn removal(&mut self) {
        self.faults(0, 2);
        let at = self.rng.range(60, 320);
        match self.rng.below(5) {
            // Nothing ever lands there.
            0 | 1 => self.edit(1, Edit::CloseCluster("b".to_owned())),
            // It is emptied, if the indices go with the placement.
            2 | 3 => {
                let gone = at + self.rng.range(0, 200);
                self.at(gone, Act::DeletePlacement("messages".to_owned()));
            }
            _ => {}
        }
        self.edit(at, Edit::RemoveCluster("b".to_owned()));
        if self.rng.chance(60) {
            let policy = if self.rng.chance(70) { DeletionPolicy::Delete } else { DeletionPolicy::Retain };
            self.edit(at.saturating_sub(20), Edit::Policy(policy));
        }
        if self.rng.chance(70) {
            let back = at + self.rng.range(20, 400);
            self.edit(back, Edit::AddCluster("b".to_owned()));
        }
    }

    fn recreation(&mut self) {
        self.faults(0, 3);
        let policy = if self.rng.chance(50) { DeletionPolicy::Delete } else { DeletionPolicy::Retain };
        self.edit(2, Edit::Policy(policy));
        let at = self.rng.range(20, 150);
        self.at(at, Act::DeleteCell);
        let back = at + self.rng.range(0, 40);
        self.at(back, Act::CreateCell(Box::new(self.spec.clone())));
        // A cluster that formed and was deleted before its UUID was recorded comes back only by a person's word.
        self.at(back + 120, Act::AnnotateClaims);
        if let (DeletionPolicy::Delete, Some((_, placement))) = (policy, self.placed.clone()) {
            // The documents went with the volumes, and nobody makes empty indices in their place unasked.
            self.at(back + 121, Act::DeletePlacement("messages".to_owned()));
            self.at(back + 122, Act::CreatePlacement("messages".to_owned(), Box::new(placement)));
        }
    }

    fn restore(&mut self) {
        self.faults(0, 2);
        let at = self.rng.range(80, 150);
        self.at(at, Act::DeleteCell);
        let stripped = self.rng.chance(60);
        if stripped {
            self.at(at + 1, Act::StripClaims);
        }
        let back = at + 2 + self.rng.range(0, 20);
        self.at(back, Act::Flaky { refuse: 5, lose: 5, slow: 20, stale: 85 });
        self.at(back + 1, Act::CreateCell(Box::new(self.spec.clone())));
        self.at(back + 50, Act::Steady);
        if !stripped || self.rng.chance(70) {
            self.at(back + 60, Act::AnnotateClaims);
        } else {
            self.expect = Expect::Held;
        }
    }

    fn deletion(&mut self) {
        self.faults(0, 2);
        let policy = if self.rng.chance(50) { DeletionPolicy::Delete } else { DeletionPolicy::Retain };
        self.edit(3, Edit::Policy(policy));
        let at = self.rng.range(10, 150);
        for cluster in self.spec.clusters.clone() {
            self.at(at.saturating_sub(1), Act::CutElastic(cluster.name));
        }
        let placed = self.placed.as_ref().map_or(at, |(second, _)| at.max(second + 1));
        self.at(placed, Act::DeletePlacement("messages".to_owned()));
        self.at(at, Act::DeleteCell);
        (self.expect, self.elastic_stays_down) = (Expect::Gone, true);
    }

    fn suspension(&mut self) {
        self.faults(0, 3);
        let at = self.second();
        self.edit(at, Edit::Suspend(true));
        self.edit(at + 10, Edit::DataPerZone(2));
        self.edit(at + 15, Edit::AddCluster("x".to_owned()));
        let until = at + self.rng.range(60, 150);
        self.edit(until, Edit::Suspend(false));
    }

    fn lost_master(&mut self) {
        let at = self.rng.range(90, 140);
        let role = "master".to_owned();
        let act = if self.rng.chance(50) { Act::LoseClaim { role } } else { Act::WipeVolume { role } };
        self.at(at, act);
        self.at(at + 5, Act::Crash { after: 0, with_effect: false });
        if self.rng.chance(50) {
            self.at(at + 20, Act::WipeStatus);
        }
        self.expect = Expect::Held;
    }

    fn foreign(&mut self) {
        let cluster = self.spec.clusters[0].name.clone();
        let name = *self.rng.pick(&["", "-http", "-transport"]).unwrap_or(&"");
        self.acts.insert(0, (0, Act::Foreign(format!("{CELL}-{cluster}{name}"))));
        self.faults(0, 2);
        self.expect = Expect::Held;
    }

    fn stuck(&mut self) {
        self.faults(0, 3);
        let role = if self.rng.chance(50) { "master" } else { "data" }.to_owned();
        let zone = self.rng.pick(&self.spec.zones).map(|zone| zone.name.clone()).unwrap_or_default();
        let at = if self.rng.chance(70) { 0 } else { self.rng.range(20, 120) };
        self.at(at, Act::NeverStart { role, zone });
        self.expect = Expect::Held;
    }

    fn finish(self) -> Scenario {
        let Story { rng, kind, spec, mut acts, expect, elastic_stays_down, placed: _ } = self;
        acts.sort_by_key(|(second, _)| *second);
        let rest = if rng.chance(4) { 7_200 } else { 300 };
        let zones = spec.zones.iter().map(|zone| zone.name.clone()).collect();
        let machines_per_zone = MACHINES_PER_ZONE;
        Scenario { kind, zones, machines_per_zone, acts, expect, elastic_stays_down, rest, later: Vec::new() }
    }
}
