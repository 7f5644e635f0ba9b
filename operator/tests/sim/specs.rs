//! Specs of cells and placements that schedules begin with.

use std::collections::BTreeMap;

use searchcell_crds::{
    Cluster, DataNodes, DedicatedTenant, IndexPlacementSpec, IngestNodes, MasterNodes, NodeOptions, Nodes,
    Pool, Quantity, Resources, SearchCellSpec, SecureSettings, Security, SecurityMode, Storage, Tenant, Zone,
};

use crate::acts::CELL;
use crate::keystore;
use crate::rng::Rng;
use crate::scenario::Kind;
use crate::tenants::TENANTS;

/// A cell without security and ingest nodes, with a data node in each zone.
pub fn plain_cell(zones: &[&str], clusters: &[&str], masters: i32) -> SearchCellSpec {
    let storage = Storage { size: Quantity("10Gi".to_owned()), storage_class_name: None };
    let options = NodeOptions::default();
    let zone = |name: &&str| Zone { name: (*name).to_owned(), ..Zone::default() };
    let cluster = |name: &&str| Cluster { name: (*name).to_owned(), ..Cluster::default() };
    SearchCellSpec {
        version: "9.5.3".to_owned(),
        topology_key: "topology.kubernetes.io/zone".to_owned(),
        zones: zones.iter().map(zone).collect(),
        clusters: clusters.iter().map(cluster).collect(),
        nodes: Nodes {
            master: MasterNodes { count: masters, storage: storage.clone(), options: options.clone() },
            ingest: None,
            data: DataNodes { per_zone: 1, storage, options },
        },
        security: Some(Security { mode: Some(SecurityMode::Disabled), ..Security::default() }),
        ..SearchCellSpec::default()
    }
}

/// A pool on it.
pub fn plain_pool(indices: i32) -> IndexPlacementSpec {
    IndexPlacementSpec {
        cell: CELL.to_owned(),
        collection: "messages".to_owned(),
        tenant: Tenant { field: "guild_id".to_owned(), ..Tenant::default() },
        pool: Some(Pool { indices }),
        ..IndexPlacementSpec::default()
    }
}

/// Tenants that ask for an index of their own.
pub fn dedicated_tenants() -> Vec<DedicatedTenant> {
    let [small, big] = TENANTS;
    let tenant = |id: &str, expected_documents| DedicatedTenant {
        id: id.to_owned(),
        expected_documents,
        shards: None,
    };
    vec![tenant(big, 2_500_000_000), tenant(small, 10)]
}

/// A cell by chance, as its story needs it.
pub fn cell_spec(rng: &mut Rng, kind: Kind) -> SearchCellSpec {
    let whole = matches!(kind, Kind::Rolling | Kind::Scaling);
    let zones = if kind == Kind::Scaling || rng.chance(if whole { 93 } else { 85 }) { 3 } else { 1 };
    let clusters = match kind {
        Kind::Placing => 2 + usize::from(rng.chance(40)),
        Kind::Removal => 2,
        // Two might start with different entries: then there is nothing to put back.
        Kind::Keystore => 1,
        _ => 1 + usize::from(rng.chance(35)),
    };
    let cpu = BTreeMap::from([("cpu".to_owned(), Quantity("1".to_owned()))]);
    let options = NodeOptions {
        resources: Some(Resources { requests: cpu, limits: BTreeMap::new() }),
        ..NodeOptions::default()
    };
    let ingest = (kind == Kind::Ingest || rng.chance(25)).then(|| IngestNodes {
        replicas: Some(2),
        autoscaling: None,
        options: options.clone(),
    });
    let masters = if zones == 1 || kind == Kind::LostMaster || (!whole && rng.chance(10)) { 1 } else { 3 };
    // Without copies nothing restarts, but for the only node.
    let is_alone = zones == 1 && matches!(kind, Kind::Rolling | Kind::Ingest | Kind::Keystore);
    let per_zone = if is_alone || rng.chance(if whole { 60 } else { 80 }) { 1 } else { 2 };
    let secure = kind == Kind::Rotation || rng.chance(40);
    let names = ["a", "b", "c"];
    let plain = plain_cell(&names[..zones], &names[..clusters], masters);
    let master = MasterNodes { options: options.clone(), ..plain.nodes.master };
    let data = DataNodes { per_zone, options, ..plain.nodes.data };
    SearchCellSpec {
        nodes: Nodes { master, ingest, data },
        secure_settings: (kind == Kind::Keystore)
            .then(|| SecureSettings { secret_name: keystore::SECRET.to_owned() })
            .into_iter()
            .collect(),
        security: (!secure).then(|| Security { mode: Some(SecurityMode::Disabled), ..Security::default() }),
        ..plain
    }
}
