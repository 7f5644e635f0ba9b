//! Stories of placements: what users change their minds about, where indices go, and tenants that get one of their own.

use searchcell_crds::{Dedicated, IndexPlacementSpec};

use super::Story;
use crate::acts::{Act, Change, Edit, Meddling};
use crate::specs::dedicated_tenants;
use crate::tenants::{COLLECTION, TENANTS};

impl Story<'_> {
    pub(super) fn edits(&mut self) {
        self.faults(0, 3);
        // Made again in another shape it would ask for a migration, and be held.
        let direct = IndexPlacementSpec { collection: "direct".to_owned(), ..self.placement() };
        for _ in 0..self.rng.range(1, 4) {
            let at = self.second();
            match self.rng.below(10) {
                0 => self.edit(at, Edit::AddCluster("x".to_owned())),
                1 => self.edit(at, Edit::DataPerZone(2)),
                2 => {
                    let value = self.rng.range(1000, 3000) as i64;
                    self.edit(at, Edit::ClusterSetting(value));
                }
                3 => {
                    self.edit(at, Edit::Invalid(true));
                    let until = at + self.rng.range(1, 60);
                    self.edit(until, Edit::Invalid(false));
                }
                4 => {
                    self.at(at, Act::CreatePlacement("direct".to_owned(), Box::new(direct.clone())));
                    if self.rng.chance(30) {
                        let later = at + self.rng.range(1, 90);
                        self.at(later, Act::DeletePlacement("direct".to_owned()));
                    }
                }
                5 => {
                    let cluster = self.spec.clusters[0].name.clone();
                    let remove = self.rng.chance(50);
                    self.at(at, Act::OpenUp { cluster, remove });
                }
                6 | 7 => self.change_in_place(at),
                8 => {
                    let meddling = match self.rng.below(3) {
                        0 if self.spec.zones.len() > 1 => Meddling::Replicas(self.rng.range(1, 2) as i32),
                        1 => Meddling::Filter,
                        _ => Meddling::Setting,
                    };
                    self.at(at + 60, Act::Meddle(meddling));
                }
                _ => {
                    let name = self.spec.clusters[0].name.clone();
                    self.edit(at, Edit::AddCluster("y".to_owned()));
                    self.edit(at + 10, Edit::CloseCluster(name));
                }
            }
        }
    }

    /// Copies, a setting and a field, which existing indices take over.
    fn change_in_place(&mut self, at: u64) {
        let name = || "messages".to_owned();
        for later in 0..self.rng.range(1, 3) {
            let change = match self.rng.below(4) {
                // Never without a copy: nodes lose their disks in these stories.
                0 | 1 if self.spec.zones.len() > 1 => Change::Replicas(self.rng.range(1, 2) as i32),
                2 => Change::Field(format!("field{}", self.rng.below(3))),
                _ => {
                    let seconds = self.rng.range(0, 30);
                    Change::Refresh((seconds > 5).then_some(seconds))
                }
            };
            self.at(at + 20 * later, Act::EditPlacement(name(), change));
        }
    }

    pub(super) fn placing(&mut self) {
        self.faults(0, 3);
        let others: Vec<String> = self.spec.clusters.iter().skip(1).map(|c| c.name.clone()).collect();
        let at = self.rng.range(60, 200);
        for _ in 0..self.rng.range(1, 3) {
            let one = self.rng.pick(&others).cloned().unwrap_or_default();
            let when = self.rng.range(at - 30, at + 30);
            let until = when + self.rng.range(5, 90);
            match self.rng.below(5) {
                // The first stays open, so that there is a place for everything in the end.
                0 => self.edit(when, Edit::CloseCluster(one)),
                1 => {
                    self.edit(when, Edit::DrainCluster(one.clone()));
                    self.edit(until, Edit::OpenCluster(one));
                }
                2 => {
                    self.at(when, Act::CutElastic(one));
                    self.at(until, Act::Steady);
                }
                3 => self.edit(when, Edit::AddCluster("x".to_owned())),
                _ => {
                    self.at(when, Act::SecondLeader);
                    self.at(until, Act::EndSecondLeader);
                }
            }
        }
        let direct = IndexPlacementSpec { collection: "direct".to_owned(), ..self.placement() };
        self.at(at, Act::CreatePlacement("direct".to_owned(), Box::new(direct)));
        for _ in 0..self.rng.range(0, 2) {
            let when = self.rng.range(at, at + 200);
            let collection = if self.rng.chance(50) { "messages" } else { "direct" }.to_owned();
            let delete = self.rng.chance(50);
            self.at(when, if delete { Act::DeleteTable(collection) } else { Act::EditTable(collection) });
        }
        if self.rng.chance(30) {
            // Nothing is on its way by then.
            self.at(700, Act::WipePlacement("direct".to_owned()));
        }
    }

    /// A client writes before, while and after an index of their own is asked for two tenants.
    pub(super) fn dedicating(&mut self) {
        self.faults(0, 3);
        let at = self.rng.range(120, 300);
        let dedicated = Dedicated { tenants: dedicated_tenants(), ..Dedicated::default() };
        let spec = IndexPlacementSpec { pool: None, dedicated: Some(dedicated), ..self.placement() };
        self.at(at, Act::CreatePlacement("big".to_owned(), Box::new(spec)));
        for tenant in TENANTS {
            if self.rng.chance(40) {
                self.at(at - 10, Act::Write(tenant.to_owned()));
            }
            for _ in 0..self.rng.below(12) {
                let when = self.rng.range(at - 5, at + 40);
                self.at(when, Act::Write(tenant.to_owned()));
            }
        }
        if self.rng.chance(20) {
            let when = self.rng.range(at, at + 60);
            self.at(when, Act::DeleteTable(COLLECTION.to_owned()));
        }
        if self.rng.chance(20) {
            let when = self.rng.range(at, at + 60);
            self.at(when, Act::WipePlacement("big".to_owned()));
        }
    }
}
