//! The searchcell.dev/v1alpha1 API: the two kinds, their conditions and their schemas. No effects.

pub mod common;
pub mod conditions;
pub mod crd;
pub mod generate;
pub mod index_placement;
mod nodes;
mod reasons;
pub mod rules;
pub mod search_cell;
mod search_cell_status;

pub use common::{DeletionPolicy, PodTemplate, Quantity, Resources, Settings};
pub use conditions::{ConditionStatus, Reason};
pub use index_placement::{
    Dedicated, DedicatedTenant, Forecast, IdScope, IndexOptions, IndexPlacement, IndexPlacementSpec,
    IndexPlacementStatus, LargestShard, PlacementAssignment, PlacementCandidate, PlacementCluster,
    PlacementTenant, Pool, Problem, ShardCounts, ShardSample, Tenant, Versioning,
};
pub use search_cell::{
    Approval, Autoscaling, Cluster, ClusterPlacement, DataNodes, IngestNodes, MasterNodes, NodeOptions,
    Nodes, Rollout, RolloutUnit, SearchCell, SearchCellSpec, SecureSettings, Security, SecurityMode, Storage,
    Waiver, Zone, ZoneState,
};
pub use search_cell_status::{
    ClusterPhase, ClusterStatus, Hold, NodeCounts, Operation, OperationKind, RolloutPhase, RolloutReason,
    RolloutStatus, SearchCellStatus, ZoneStatus,
};

/// API group of both kinds.
pub const GROUP: &str = "searchcell.dev";
/// API version of both kinds.
pub const VERSION: &str = "v1alpha1";
