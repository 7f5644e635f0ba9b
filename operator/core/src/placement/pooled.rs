//! Tenants that ask for an index of their own while the collection's pool may hold documents of theirs: whose are to be
//! counted, where, and what follows. Pure.
//!
//! An empty index in place of those documents would hide them. So an index is made for a tenant when none were counted,
//! the tenant was then taken out of the pool in the published table, and none were counted again.

use std::collections::BTreeMap;

use searchcell_crds::{IndexPlacement, Reason};

use super::PlacementSnapshot;
use super::plan::hold;
use super::record::{Recorded, recorded, recorded_in};
use crate::domain::{ValidIndex, ValidPlacement};
use crate::names::{ClusterKey, pool_number};
use crate::routing::{SLOTS, slot_of};
use crate::snapshot::Reading;
use crate::step::Hold;

/// Documents of tenants that are to be counted in one index of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolCount {
    /// Where the index is.
    pub cluster: ClusterKey,
    /// The index.
    pub index: String,
    /// The tenants whose slots it has.
    pub tenants: Vec<String>,
    /// The last count before an index is made: also what was written a moment ago.
    pub is_last: bool,
}

/// What is known of a tenant's documents in the pool.
pub(super) enum Pooled {
    /// There are none.
    None,
    /// There are some.
    Some,
    /// None were counted, and the table still sends the tenant there.
    StillSent,
    /// They could not be counted.
    Unknown(String),
}

/// The collection's pool, as a placement with dedicated tenants sees it.
pub(super) struct Pool<'a> {
    snapshot: &'a PlacementSnapshot,
    /// What is recorded of the placement's own indices.
    own: BTreeMap<&'a str, Recorded<'a>>,
    /// Number of indices that the slots are shared among.
    size: usize,
    /// Those that were there, by their numbers.
    indices: BTreeMap<i32, (&'a str, Recorded<'a>)>,
}

impl<'a> Pool<'a> {
    /// From the status of the placement that has the pool, in whatever cell.
    pub fn of(snapshot: &'a PlacementSnapshot) -> Self {
        let collection = &snapshot.placement.spec.collection;
        let with_pool = |other: &&IndexPlacement| {
            other.spec.collection == *collection
                && other.spec.pool.is_some()
                && other.status.as_ref().is_some_and(|status| !status.assignments.is_empty())
        };
        let status = snapshot.siblings.iter().find(with_pool).and_then(|other| other.status.as_ref());
        let all: BTreeMap<_, _> = (status.map(recorded_in).unwrap_or_default().into_iter())
            .filter_map(|(name, at)| Some((pool_number(collection, name)?, (name, at))))
            .collect();
        let published = snapshot.table.as_ref().and_then(|published| published.table.as_ref());
        let size = published.map(|table| table.slots.len()).filter(|size| *size > 0).unwrap_or(all.len());
        let indices = all.into_iter().filter(|(_, (_, at))| at.seen).collect();
        Self { snapshot, own: recorded(snapshot), size, indices }
    }

    /// The index that has the tenant's slot; `None`: it has never been there.
    fn home(&self, tenant: &str) -> Option<&(&'a str, Recorded<'a>)> {
        let number = usize::from(slot_of(tenant)) * self.size / usize::from(SLOTS);
        self.indices.get(&i32::try_from(number).ok()?)
    }

    /// True unless a published table takes the tenant out of the pool. Where none is, clients may have an older one.
    fn receives(&self, tenant: &str) -> bool {
        let table = self.snapshot.table.as_ref().and_then(|published| published.table.as_ref());
        table.is_none_or(|table| {
            !table.overrides.contains_key(tenant) && table.lookup(tenant).is_some_and(|to| !to.is_nowhere())
        })
    }

    /// What the pool has of the tenant of an index that is not there.
    pub fn has(&self, index: &ValidIndex) -> Pooled {
        let Some(tenant) = &index.tenant else { return Pooled::None };
        let at = self.own.get(index.name.as_str());
        // One that was there once took the tenant out of the pool then.
        if at.is_some_and(|at| at.seen) {
            return Pooled::None;
        }
        let Some((name, home)) = self.home(tenant) else { return Pooled::None };
        match self.snapshot.pooled.get(tenant) {
            _ if !home.is_there() => Pooled::Unknown(format!("index {name} of the pool is gone")),
            None => Pooled::Unknown(format!("index {name} has not been read yet")),
            Some(Reading::Unavailable(why)) => Pooled::Unknown(why.clone()),
            Some(Reading::Known(1..)) => Pooled::Some,
            Some(Reading::Known(_)) if at.is_some() && self.receives(tenant) => Pooled::StillSent,
            Some(Reading::Known(_)) => Pooled::None,
        }
    }
}

/// What is to be counted before indices of this placement are made.
pub fn to_count(snapshot: &PlacementSnapshot, valid: &ValidPlacement) -> Vec<PoolCount> {
    let pool = Pool::of(snapshot);
    let mut counts: Vec<PoolCount> = Vec::new();
    for index in &valid.indices {
        let at = pool.own.get(index.name.as_str());
        let Some(tenant) = index.tenant.as_ref().filter(|_| at.is_none_or(|at| !at.seen)) else { continue };
        let Some((name, home)) = pool.home(tenant).filter(|(_, home)| home.is_there()) else { continue };
        let Some((cell, cluster)) = home.cluster.rsplit_once('-') else { continue };
        let cluster = ClusterKey::new(&valid.namespace, cell, cluster);
        let is_last = at.is_some() && !pool.receives(tenant);
        let same = |known: &&mut PoolCount| {
            known.index == *name && known.cluster == cluster && known.is_last == is_last
        };
        match counts.iter_mut().find(same) {
            Some(known) => known.tenants.push(tenant.clone()),
            None => {
                let (index, tenants) = ((*name).to_owned(), vec![tenant.clone()]);
                counts.push(PoolCount { cluster, index, tenants, is_last });
            }
        }
    }
    counts
}

/// What is said of tenants whose index is not made because of what the pool holds of them.
pub(super) fn holds(missing: &[(&ValidIndex, Pooled)]) -> Vec<Hold> {
    let mut holds = Vec::new();
    for (index, pooled) in missing {
        let tenant = index.tenant.as_deref().unwrap_or_default();
        let (reason, text) = match pooled {
            Pooled::None => continue,
            Pooled::Some => (
                Reason::NeedsMigration,
                format!(
                    "tenant {tenant} has documents in the pool: an index of its own would begin empty and hide them, so \
                     {} is not created, and the tenant stays in the pool until its documents are migrated; take it out of \
                     spec.dedicated.tenants, or delete its documents",
                    index.name
                ),
            ),
            Pooled::StillSent => (
                Reason::TableNotReady,
                format!(
                    "index {} waits until the routing table sends tenant {tenant} to the pool no more",
                    index.name
                ),
            ),
            Pooled::Unknown(why) => (
                Reason::CellNotReady,
                format!(
                    "it is not known whether tenant {tenant} has documents in the pool, so {} is not created: {why}",
                    index.name
                ),
            ),
        };
        holds.push(hold(None, reason, text));
    }
    holds
}
