//! Routing tables of a pool over clusters. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use searchcell_core::names::ClusterKey;
use searchcell_core::routing::{Located, Table, TableInput, TenantRules, build_table};
use searchcell_crds::{IdScope, Versioning};

/// The collection of all work.
pub const COLLECTION: &str = "messages";

/// Where the indices of a pool are.
#[derive(Clone, Debug)]
pub struct Pool {
    /// For each cluster, where its nodes are: `host:port`.
    pub clusters: Vec<String>,
    /// Indices, which the clusters have in turns.
    pub indices: usize,
    /// Who numbers versions.
    pub versioning: Versioning,
}

impl Pool {
    /// Clusters of one node each.
    pub fn new(clusters: &[SocketAddr], indices: usize, versioning: Versioning) -> Self {
        Self { clusters: clusters.iter().map(SocketAddr::to_string).collect(), indices, versioning }
    }

    /// The table.
    pub fn table(&self, generation: i64) -> Table {
        let located = |number: usize| Located {
            name: format!("{COLLECTION}.p{number:04}.g1"),
            cluster: ClusterKey::new("search", "cell", cluster_name(number % self.clusters.len())),
            is_secure: false,
        };
        let input = TableInput {
            namespace: "search".into(),
            collection: COLLECTION.into(),
            tenant: TenantRules { field: "guild_id".into(), fan_out: false, id_scope: IdScope::Tenant },
            versioning: self.versioning,
            pool: Some((0..self.indices).map(located).map(Some).collect()),
            dedicated: BTreeMap::new(),
        };
        let mut table = build_table(&input, generation).unwrap();
        for cluster in &mut table.clusters {
            let number = (0..self.clusters.len()).find(|at| cluster.name.ends_with(&cluster_name(*at)));
            let nodes = &self.clusters[number.unwrap()];
            cluster.endpoint = format!("http://{nodes}");
            cluster.nodes = nodes.clone();
        }
        table
    }
}

/// Name of a cluster within its cell.
pub fn cluster_name(number: usize) -> String {
    format!("c{number:03}")
}

/// Where a tenant's documents are: cluster by position, and index.
pub fn place(table: &Table, tenant: &str) -> (usize, String) {
    let position = table.lookup(tenant).unwrap().writes()[0];
    let (index, cluster) = table.index(position).unwrap();
    let number = cluster.name.rsplit_once("-c").unwrap().1;
    (number.parse().unwrap(), index.name.clone())
}
