//! From a valid cell to the complete desired objects. Pure, infallible, deterministic: the same input gives the same
//! objects to the letter, so that a pass at rest writes nothing.

mod access;
mod autoscaler;
mod config;
mod index;
mod inputs;
pub(crate) mod merge;
mod network;
pub(crate) mod pod;
mod stop;
pub(crate) mod volumes;
mod workloads;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use searchcell_crds::{GROUP, SearchCell, VERSION};

pub use access::network_policy;
pub use autoscaler::autoscaler;
pub use index::{
    DELETED_FIELD, index_body, index_inputs, index_mappings, index_mark, index_settings, is_analysis,
};
pub use inputs::{cell_hash, input_hash};
pub use network::{bootstrap_config_map, disruption_budgets, services};
pub use workloads::{ingest_deployment, stateful_set};

use crate::domain::ValidCell;
use crate::names::{ClusterKey, Role};

/// Points from an object to the SearchCell that it belongs to, so that it goes with the cell.
pub fn owner_reference(cell: &ValidCell) -> OwnerReference {
    OwnerReference {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: "SearchCell".into(),
        name: cell.name.clone(),
        uid: cell.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Metadata of a Secret or ConfigMap of the cell, valid or not.
pub(crate) fn secret_metadata(
    cell: &SearchCell,
    name: String,
    labels: BTreeMap<String, String>,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: cell.metadata.namespace.clone(),
        labels: Some(labels),
        owner_references: Some(vec![OwnerReference {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: "SearchCell".into(),
            name: cell.metadata.name.clone().unwrap_or_default(),
            uid: cell.metadata.uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..Default::default()
    }
}

/// The role that takes clients' requests: the ingest nodes, or the data nodes where there are none.
fn serving_role(cell: &ValidCell) -> Role {
    if cell.ingest.is_some() { Role::Ingest } else { Role::Data }
}

fn metadata(
    cell: &ValidCell,
    key: &ClusterKey,
    name: String,
    labels: BTreeMap<String, String>,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(key.namespace.clone()),
        labels: Some(labels),
        owner_references: Some(vec![owner_reference(cell)]),
        ..Default::default()
    }
}

fn selector(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), ..Default::default() }
}
