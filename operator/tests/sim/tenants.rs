//! Documents of tenants, written by a client that follows the published table, and what an index of their own must not
//! do to them.

use k8s_openapi::api::core::v1::ConfigMap;
use searchcell_core::names::{dedicated_index, pool_number, routing_table};
use searchcell_core::routing::Published;
use searchcell_core::snapshot::ShardState;
use searchcell_crds::IndexPlacement;

use crate::elastic::Cluster;
use crate::world::World;

/// No index is made for a tenant that has documents in the pool: they would be hidden.
pub const NOTHING_IS_HIDDEN: &str = "no_index_hides_documents";

/// The one collection with tenants of which an index of their own is asked.
pub const COLLECTION: &str = "messages";
/// Those tenants.
pub const TENANTS: [&str; 2] = ["42", "81384788765712384"];

/// A client writes a document of a tenant, where the table says; nowhere, and it waits.
pub fn write(world: &mut World, tenant: &str) {
    let place = world.store.get::<ConfigMap>(&routing_table(COLLECTION)).and_then(|map| {
        let table = Published::read(map).table?;
        let (index, cluster) = table.index(*table.lookup(tenant)?.writes().first()?)?;
        Some((index.name.clone(), cluster.name.clone()))
    });
    let Some((index, cluster)) = place.filter(|(index, _)| pool_number(COLLECTION, index).is_some()) else {
        return;
    };
    let clusters = world.elastic.clusters.values_mut();
    let mut clusters =
        clusters.filter(|found| found.master.is_some() && found.identity.replace('/', "-") == cluster);
    let Some(found) = clusters.next().and_then(|cluster| cluster.indices.get_mut(&index)) else { return };
    if found.copies.iter().any(|copy| copy.primary && copy.state == ShardState::Started) {
        *found.tenants.entry(tenant.to_owned()).or_default() += 1;
        found.documents += 1;
        world.note(format!("a document of {tenant} is in {index}"));
    }
}

/// True when the pool has documents of the tenant, on a cluster that lives.
pub fn is_in_pool(world: &World, tenant: &str) -> bool {
    let has = |cluster: &Cluster| {
        cluster.indices.values().any(|index| index.tenants.get(tenant).is_some_and(|count| *count > 0))
    };
    world.elastic.clusters.values().filter(|cluster| cluster.master.is_some()).any(has)
}

/// The tenant of an index of its own that hides documents.
pub fn hidden(world: &World, index: &str) -> Option<&'static str> {
    TENANTS.into_iter().find(|id| dedicated_index(COLLECTION, id, 1) == index && is_in_pool(world, id))
}

/// Tenants of a placement that stay in the pool, because they have documents there.
pub fn staying(world: &World, placement: &IndexPlacement) -> Vec<String> {
    let tenants = placement.spec.dedicated.iter().flat_map(|dedicated| &dedicated.tenants);
    tenants.map(|tenant| tenant.id.clone()).filter(|id| is_in_pool(world, id)).collect()
}
