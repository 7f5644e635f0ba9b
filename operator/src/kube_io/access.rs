//! How to talk to each cluster, from the caches. No effects.

use std::sync::Arc;

use searchcell_core::names::ClusterKey;

use super::fanout::Caches;
use crate::security::access::{Access, Accesses, access_to};

/// Reads the caches.
pub struct CachedAccess(pub Arc<Caches>);

impl Accesses for CachedAccess {
    fn access(&self, cluster: &ClusterKey) -> Access {
        let cell = self.0.cells.get(&cluster.namespace, "", &cluster.cell);
        access_to(cluster, cell.as_ref(), &self.0.secrets.shared(&cluster.namespace, &cluster.cell))
    }
}
