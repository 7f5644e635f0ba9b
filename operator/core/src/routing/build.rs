//! Builds the table of a collection from what exists. Pure, deterministic.

use std::collections::BTreeMap;

use jiff::Timestamp;
use searchcell_crds::Versioning;

use super::slots::{SLOTS, Slot};
use super::table::{
    Destination, Hash, Override, SCHEMA_VERSION, SlotRange, Table, TableCluster, TableIndex, TenantRules,
    Traffic,
};
use crate::names::{ClusterKey, HTTP_PORT, http_trust};
use crate::security::users::User;

/// An index that exists, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Name of the index.
    pub name: String,
    /// Its cluster.
    pub cluster: ClusterKey,
    /// Whether its cluster has TLS and users.
    pub is_secure: bool,
}

/// The indices of a pool, in the order of their numbers, every one of them: their count decides which slots are whose.
/// One that is lost is nowhere.
pub type Pool = Vec<Option<Located>>;

/// What a table is made of.
#[derive(Clone, Debug)]
pub struct TableInput {
    /// Namespace of the collection.
    pub namespace: String,
    /// The collection.
    pub collection: String,
    /// How a document's tenant and id are found.
    pub tenant: TenantRules,
    /// Who numbers the versions of documents.
    pub versioning: Versioning,
    /// Absent: only dedicated tenants have a place.
    pub pool: Option<Pool>,
    /// Tenants with an index of their own; one whose index is not there yet, or not any more, is nowhere.
    pub dedicated: BTreeMap<String, Option<Located>>,
}

/// Why there is no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A pool of no index, or of more indices than there are slots.
    #[error("a pool of {0} indices has no share of {SLOTS} slots each")]
    PoolSize(usize),
}

/// The number of a table that follows `previous`: the time in seconds, or one more than before where that is not more.
/// So numbers ascend also when nobody remembers the last one, as long as clocks do not go back by years of tables.
pub fn next_generation(previous: Option<i64>, now: Timestamp) -> i64 {
    previous.map_or(i64::MIN, |previous| previous.saturating_add(1)).max(now.as_second())
}

/// The table. `generation` is the caller's, so that equal inputs can be told from a new table.
pub fn build_table(input: &TableInput, generation: i64) -> Result<Table, BuildError> {
    let mut places = Places::default();
    let slots = match &input.pool {
        None => Vec::new(),
        Some(pool) => pool_slots(pool, &mut places)?,
    };
    let overrides = (input.dedicated.iter())
        .map(|(tenant, located)| {
            let to = places.destination(located.as_ref(), false);
            (tenant.clone(), Override { to, documents_per_second: None, lane: None })
        })
        .collect();
    Ok(Table {
        schema_version: SCHEMA_VERSION,
        generation,
        namespace: input.namespace.clone(),
        collection: input.collection.clone(),
        tenant: input.tenant.clone(),
        versioning: input.versioning,
        hash: Hash::default(),
        clusters: places.clusters,
        indices: places.indices,
        slots,
        overrides,
    })
}

/// Index `i` of `n` has the slots from `⌈i·S/n⌉` on: as even as can be, and the same for everybody who computes it.
fn pool_slots(pool: &Pool, places: &mut Places) -> Result<Vec<SlotRange>, BuildError> {
    let size = pool.len();
    let count = u64::try_from(size).ok().filter(|count| (1..=u64::from(SLOTS)).contains(count));
    let count = count.ok_or(BuildError::PoolSize(size))?;
    let from = |i: u64| Slot::try_from((i * u64::from(SLOTS)).div_ceil(count)).unwrap_or(Slot::MAX);
    Ok((0..count)
        .zip(pool)
        .map(|(i, located)| SlotRange { from: from(i), to: places.destination(located.as_ref(), true) })
        .collect())
}

/// Positions, in the order of first use.
#[derive(Default)]
struct Places {
    clusters: Vec<TableCluster>,
    known: BTreeMap<String, u32>,
    indices: Vec<TableIndex>,
}

impl Places {
    fn cluster(&mut self, located: &Located) -> u32 {
        let key = &located.cluster;
        let next = u32::try_from(self.clusters.len()).unwrap_or(u32::MAX);
        let clusters = &mut self.clusters;
        *self.known.entry(key.to_string()).or_insert_with(|| {
            clusters.push(TableCluster {
                name: key.name(),
                cell: key.cell.clone(),
                endpoint: key.endpoint(if located.is_secure { "https" } else { "http" }),
                nodes: format!("{}.{}.svc:{HTTP_PORT}", key.http_service(), key.namespace),
                credential_secret: located.is_secure.then(|| User::Router.secret(&key.cell)),
                ca_config_map: located.is_secure.then(|| http_trust(&key.cell)),
            });
            next
        })
    }

    fn destination(&mut self, located: Option<&Located>, routed: bool) -> Destination {
        located.map_or_else(Destination::nowhere, |located| Destination::only(self.index(located, routed)))
    }

    fn index(&mut self, located: &Located, routed: bool) -> u32 {
        let cluster = self.cluster(located);
        let position = u32::try_from(self.indices.len()).unwrap_or(u32::MAX);
        self.indices.push(TableIndex { name: located.name.clone(), cluster, routed, traffic: Traffic::Open });
        position
    }
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
