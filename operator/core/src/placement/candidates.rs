//! Tenants of a pool that have outgrown it: those with a good part of a shard that is past a limit. Pure.

use searchcell_crds::{IndexPlacementStatus, PlacementCandidate, Reason};

use super::{Found, PlacementSnapshot};
use crate::domain::ValidPlacement;
use crate::status::two_significant_digits;

/// A tenant is named when it has at least so many percent of a shard's documents: without it, the shard is well below.
const SHARE_PERCENT: u64 = 10;
/// Indices whose tenants are counted: the worst ones. It is the only question of the operator that reads a large shard.
const MOST_INDICES: usize = 4;
/// Tenants that status names.
const MOST_CANDIDATES: usize = 16;

/// An index whose tenants are to be counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantsToCount {
    /// Name of its cluster within the cell.
    pub cluster: String,
    /// Its name.
    pub index: String,
    /// The field that has a document's tenant.
    pub field: String,
}

/// Indices of the pool that are past a limit, the worst first. With `fanOut` a document has many tenants, and a count by
/// its field is none of copies.
pub fn tenants_to_count(snapshot: &PlacementSnapshot, valid: &ValidPlacement) -> Vec<TenantsToCount> {
    if !valid.is_pool || snapshot.placement.spec.tenant.fan_out {
        return Vec::new();
    }
    let owned = snapshot.owned_indices();
    let large = snapshot.large(&owned).into_iter();
    large
        .filter_map(|(index, _)| owned.iter().find(|found| found.name == index))
        .map(|found| TenantsToCount {
            cluster: found.cluster.to_owned(),
            index: found.name.to_owned(),
            field: valid.tenant_field.clone(),
        })
        .take(MOST_INDICES)
        .collect()
}

/// What status says of them. What was not counted anew is as it was.
pub(super) fn candidates(
    snapshot: &PlacementSnapshot,
    owned: &[Found<'_>],
    large: &[(&str, Reason)],
    previous: &IndexPlacementStatus,
    is_blind: bool,
) -> Vec<PlacementCandidate> {
    let mut named: Vec<PlacementCandidate> = Vec::new();
    for found in owned {
        let index = found.name;
        let is_large = large.iter().any(|(name, _)| *name == index);
        let documents =
            found.elastic.counts.as_ref().and_then(|counts| counts.get(index)).map(|c| c.documents);
        match (snapshot.largest.get(index), documents) {
            (Some(tenants), Some(documents)) if is_large => {
                let all = u64::try_from(documents).unwrap_or(0);
                let is_much = |count: u64| count > 0 && count >= all / 100 * SHARE_PERCENT;
                let tenants = tenants.iter().filter(|(_, count)| is_much(*count));
                named.extend(tenants.map(|(id, count)| PlacementCandidate {
                    id: id.clone(),
                    index: index.to_owned(),
                    documents: two_significant_digits(i64::try_from(*count).unwrap_or(i64::MAX)),
                }));
            }
            _ if is_large => named.extend(previous.candidates.iter().filter(|c| c.index == index).cloned()),
            _ => {}
        }
    }
    if is_blind {
        let unseen = |c: &&PlacementCandidate| !owned.iter().any(|found| found.name == c.index);
        named.extend(previous.candidates.iter().filter(unseen).cloned());
    }
    named.sort_by(|a, b| (b.documents, &a.id).cmp(&(a.documents, &b.id)));
    named.truncate(MOST_CANDIDATES);
    named
}
