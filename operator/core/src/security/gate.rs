//! Keeps rotations of authorities and disruptions of nodes apart: neither begins, nor goes on, while the other is under
//! way. Pure.

use crate::plan::is_restart;
use searchcell_crds::{Reason, SearchCellStatus};

use super::{Authority, Layer, SecretFacts, Stage};
use crate::names::{ClusterKey, http_authority};
use crate::step::Hold;

/// The layer whose authority is being rotated, if one is that concerns the cluster.
pub fn rotation_in_flight(key: &ClusterKey, secrets: &[SecretFacts]) -> Option<Layer> {
    let moves = |name: &str| {
        (secrets.iter().filter(|secret| secret.name() == name))
            .any(|secret| Authority::of(secret).stage() != Stage::Steady)
    };
    if moves(&key.transport_authority()) {
        return Some(Layer::Transport);
    }
    moves(&http_authority(&key.cell)).then_some(Layer::Http)
}

/// What a change that takes nodes down asks before each of its disruptions.
pub fn disruption_may_start(key: &ClusterKey, secrets: &[SecretFacts]) -> Result<(), Hold> {
    match rotation_in_flight(key, secrets) {
        None => Ok(()),
        Some(layer) => Err(Hold {
            cluster: Some(key.cluster.clone()),
            reason: Reason::RotatingCertificates,
            message: format!("no node is taken down while the {layer} authority is rotated"),
        }),
    }
}

/// What a rotation asks before each of its stages: whether an operation takes nodes of these clusters down.
pub(crate) fn rotation_may_advance(
    status: Option<&SearchCellStatus>,
    clusters: &[&str],
) -> Result<(), String> {
    let disturbed = (status.iter().flat_map(|status| &status.clusters)).find(|cluster| {
        cluster.operation.as_ref().is_some_and(is_restart) && clusters.contains(&cluster.name.as_str())
    });
    match disturbed {
        None => Ok(()),
        Some(cluster) => Err(format!("nodes of cluster {} are taken down", cluster.name)),
    }
}
