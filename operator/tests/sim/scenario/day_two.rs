//! Stories of nodes that restart, come and go.

use searchcell_crds::DeletionPolicy;

use super::Story;
use crate::acts::{Act, Edit};

impl Story<'_> {
    /// Settings change once or several times, in the middle of everything else; some are set back.
    pub(super) fn rolling(&mut self) {
        self.faults(0, 5);
        let mut at = self.rng.range(90, 300);
        if self.rng.chance(30) {
            // Until somebody sees why nothing goes on.
            self.at(0, Act::BackUp(false));
            let seen = at + self.rng.range(30, 900);
            self.at(seen, Act::BackUp(true));
        }
        for _ in 0..self.rng.range(1, 4) {
            let value = self.rng.range(1, 3) as i64;
            let version = ["9.5.4", "9.5.5", "9.6.0"][self.rng.below(3) as usize];
            let edit = match self.rng.below(6) {
                4 | 5 => Edit::Version(version.to_owned()),
                0 => Edit::RoleSetting("master".to_owned(), value),
                1 => Edit::RoleSetting("data".to_owned(), value),
                2 => Edit::RoleSetting("ingest".to_owned(), value),
                _ => Edit::NodeSetting(value),
            };
            self.edit(at, edit);
            self.trouble(at);
            at += self.rng.range(5, 300);
        }
    }

    /// A few faults after something was asked for, each with its end.
    fn trouble(&mut self, at: u64) {
        for _ in 0..self.rng.range(0, 3) {
            let fault = at + self.rng.range(1, 200);
            let act = match self.rng.below(6) {
                0 => Act::Evict,
                1 => Act::KillContainer,
                2 => Act::Crash { after: self.rng.below(6), with_effect: self.rng.chance(50) },
                3 => Act::Flaky { refuse: 20, lose: 20, slow: 20, stale: 60 },
                4 => Act::SecondLeader,
                _ => Act::NodeOff,
            };
            self.at(fault, act);
            let end = fault + self.rng.range(10, 90);
            self.at(end, Act::AllOn);
            self.at(end, Act::Steady);
            self.at(end, Act::EndSecondLeader);
        }
    }

    /// More nodes and fewer, sometimes taken back halfway, sometimes while nodes restart.
    pub(super) fn scaling(&mut self) {
        self.faults(0, 4);
        if self.rng.chance(50) {
            self.edit(2, Edit::Policy(DeletionPolicy::Delete));
        }
        let mut at = self.rng.range(90, 300);
        for _ in 0..self.rng.range(2, 6) {
            let masters = 3 + 2 * self.rng.below(2) as i32;
            let per_zone = self.rng.range(1, 3) as i32;
            self.edit(at, Edit::Nodes(per_zone, masters));
            if self.rng.chance(20) {
                let value = self.rng.range(1, 3) as i64;
                let soon = at + self.rng.range(1, 100);
                self.edit(soon, Edit::RoleSetting("data".to_owned(), value));
            }
            self.trouble(at);
            at += self.rng.range(5, 300);
        }
        // Two copies find places in two zones.
        let is_scarce = self.placed.as_ref().is_none_or(|(_, placed)| placed.replicas == Some(1));
        if is_scarce && self.rng.chance(60) {
            let zone = self.spec.zones[self.rng.below(3) as usize].name.clone();
            let first = self.rng.range(90, 600);
            self.edit(first, Edit::Retire(zone.clone(), true));
            let later = first + self.rng.range(5, 400);
            match self.rng.below(3) {
                0 => self.edit(later, Edit::Retire(zone, false)),
                1 => self.edit(later, Edit::DropZone(zone)),
                _ => {}
            }
        }
    }

    pub(super) fn ingest(&mut self) {
        self.faults(0, 3);
        let mut at = 30;
        for turn in 0..self.rng.range(2, 4) {
            at += self.rng.range(10, 80);
            let replicas = self.rng.range(2, 3) as i32;
            if turn % 2 == 0 {
                self.edit(at, Edit::IngestAutoscaled(replicas, 5));
            } else {
                self.edit(at, Edit::IngestFixed(replicas));
            }
            let load = self.rng.range(0, 6) as i32;
            self.at(at + 12, Act::Load(load));
        }
        if self.rng.chance(50) {
            at += self.rng.range(20, 200);
            self.edit(at, Edit::IngestGone);
            if self.rng.chance(50) {
                // Before data nodes have taken over, or after.
                at += self.rng.range(5, 300);
                self.edit(at, Edit::IngestFixed(2));
            }
        }
    }
}
