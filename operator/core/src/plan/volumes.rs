//! Plans growing volumes: the claims first, then the StatefulSet, whose claim template is immutable, is made anew
//! around its pods. Pure.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use searchcell_crds::Reason;

use super::Draft;
use crate::domain::{ValidCell, ValidZone};
use crate::drift::{self, Live};
use crate::names::{ClusterKey, Role};
use crate::snapshot::CellObjects;
use crate::step::{Action, Kind};
use crate::validate::quantity::Amount;

/// How the volumes of a StatefulSet compare with what the spec asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Volumes {
    /// As asked for, as far as the claim template says.
    Same,
    /// More is asked for.
    Grow,
    /// Less, or of another class: that needs other volumes.
    Other,
}

pub(super) fn compare(cell: &ValidCell, role: Role, live: &StatefulSet) -> Volumes {
    let Some(wanted) = cell.role(role).and_then(|valid| valid.storage.as_ref()) else { return Volumes::Same };
    let Some(claim) =
        live.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_ref()?.first()?.spec.as_ref())
    else {
        return Volumes::Same;
    };
    let size = claim.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get("storage"));
    let (size, asked) = (size.and_then(Amount::of), Amount::of(&wanted.size));
    if claim.storage_class_name != wanted.storage_class_name || asked < size {
        Volumes::Other
    } else if asked > size {
        Volumes::Grow
    } else {
        Volumes::Same
    }
}

/// Grows every claim of a StatefulSet, and when all of them ask for the new size, its template.
pub(super) fn plan_growth(
    cell: &ValidCell,
    key: &ClusterKey,
    objects: &CellObjects,
    (role, zone): (Role, &ValidZone),
    draft: &mut Draft,
) {
    let name = key.stateful_set(role, &zone.name);
    let Live::Ours(live) = drift::find(&objects.stateful_sets, |o| &o.metadata, &name, &cell.uid) else {
        return;
    };
    let Some(wanted) = cell.role(role).and_then(|valid| valid.storage.as_ref()) else { return };
    let prefix = format!("data-{name}-");
    let claims = objects.claims.iter().filter(|claim| {
        let ordinal = claim.metadata.name.as_deref().and_then(|name| name.strip_prefix(&prefix));
        ordinal.is_some_and(|ordinal| ordinal.parse::<u32>().is_ok())
            && claim.metadata.deletion_timestamp.is_none()
    });
    let too_small: Vec<&PersistentVolumeClaim> = claims
        .filter(|claim| requested(claim).is_some_and(|size| Some(size) < Amount::of(&wanted.size)))
        .collect();
    for claim in &too_small {
        let target = drift::target(Kind::PersistentVolumeClaim, &claim.metadata);
        let why = format!("the volume grows to {}", wanted.size.0);
        draft.step(&key.cluster, why, Action::GrowClaim { target, size: wanted.size.clone() });
    }
    if too_small.is_empty() && compare(cell, role, live) == Volumes::Grow {
        let target = drift::exact_target(Kind::StatefulSet, &live.metadata);
        let why = "its claim template cannot be changed: it is made anew around its pods";
        draft.step(&key.cluster, why, Action::RecreateAroundPods { target, size: wanted.size.clone() });
    }
    if objects.claims.iter().any(|claim| is_growing(claim, &prefix)) {
        draft.hold(&key.cluster, Reason::Scaling, format!("volumes of {name} are growing"));
    }
}

fn requested(claim: &PersistentVolumeClaim) -> Option<Amount> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage").and_then(Amount::of)
}

/// True while a bound volume is smaller than its claim asks for.
fn is_growing(claim: &PersistentVolumeClaim, prefix: &str) -> bool {
    let capacity: Option<&Quantity> =
        claim.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage"));
    claim.metadata.name.as_deref().is_some_and(|name| name.starts_with(prefix))
        && capacity.and_then(Amount::of).is_some_and(|capacity| Some(capacity) < requested(claim))
}
