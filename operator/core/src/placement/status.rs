//! The status of an IndexPlacement, from Elasticsearch's routing table and not from the spec. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use searchcell_crds::conditions::{DEGRADED, READY, SHARD_PRESSURE, find};
use searchcell_crds::{
    Forecast, IndexPlacementStatus, LargestShard, PlacementCandidate, PlacementCluster, PlacementTenant,
    Problem as IndexProblem, Reason, ShardCounts,
};

use super::candidates::candidates;
use super::guard::ShardLimits;
use super::pooled::{Pool, Pooled};
use super::record::{next_record, recorded};
use super::{Copies, Found, PlacementSnapshot, guard, verify};
use crate::domain::{ValidIndex, ValidPlacement};
use crate::names::{ClusterKey, dedicated_index};
use crate::snapshot::Reading;
use crate::status::{Conditions, join, some_of, two_significant_digits};
use crate::step::{Outcome, Plan};
use crate::validate::Problem;

/// Problems of single indices that status lists.
const MOST_PROBLEMS: usize = 16;

/// The status after a pass.
pub fn placement_status(
    snapshot: &PlacementSnapshot,
    valid: Result<&ValidPlacement, &[Problem]>,
    plan: &Plan,
    outcomes: &[Outcome],
    now: Timestamp,
) -> IndexPlacementStatus {
    let mut previous = snapshot.placement.status.clone().unwrap_or_default();
    if snapshot.goes_with_volumes() {
        // A cell of the same name starts empty, and so does this placement on it.
        previous =
            IndexPlacementStatus { conditions: previous.conditions, ..IndexPlacementStatus::default() };
    }
    let meta = &snapshot.placement.metadata;
    let generation = meta.generation;
    let owned = snapshot.owned_indices();
    let zones = snapshot.cell.as_ref().map_or(1, |cell| cell.spec.active_zones().count());
    let checked: Vec<(Found<'_>, Copies)> =
        owned.iter().map(|found| (*found, verify(found.facts, found.elastic, zones, now))).collect();
    let sum = checked.iter().fold(Copies::default(), |sum, (_, copies)| sum.plus(*copies));
    let unread = unread_clusters(snapshot);
    let record = recorded(snapshot);
    // Gone is what was there; it may also be on a cluster that was not read.
    let (gone, missing): (Vec<String>, Vec<String>) = match valid {
        Ok(valid) => {
            let absent =
                valid.indices.iter().filter(|index| !owned.iter().any(|found| found.name == index.name));
            // A tenant that has documents in the pool is served there, by another placement.
            let pool = Pool::of(snapshot);
            let absent = absent.filter(|index| !matches!(pool.has(index), Pooled::Some));
            let (gone, missing): (Vec<_>, Vec<_>) =
                absent.partition(|index| record.get(index.name.as_str()).is_some_and(|at| at.seen));
            let names =
                |indices: Vec<&ValidIndex>| indices.into_iter().map(|index| index.name.clone()).collect();
            (if unread.is_empty() { names(gone) } else { Vec::new() }, names(missing))
        }
        Err(_) => Default::default(),
    };

    // What was said of indices before their cluster stopped to answer is not forgotten.
    let is_unseen = |problem: &&IndexProblem| !owned.iter().any(|found| found.name == problem.index);
    let before = previous.problems.iter().filter(|_| !unread.is_empty());
    let remembered: Vec<IndexProblem> = before.filter(is_unseen).cloned().collect();
    let mut conditions = Conditions::new(generation, now);
    let previous_total = previous.indices.unwrap_or(0);
    let named = |wrong: fn(&Copies) -> bool| -> Vec<String> {
        checked.iter().filter(|(_, copies)| wrong(copies)).map(|(found, _)| found.name.to_owned()).collect()
    };
    let published = snapshot.table.as_ref().and_then(|published| published.table.as_ref());
    let unpublished = owned.iter().find(|found| !snapshot.is_published(found));
    let unpublished = unpublished.filter(|_| meta.deletion_timestamp.is_none()).map(|found| {
        format!(
            "the routing table of the collection does not hold this placement yet: {} is missing",
            found.name
        )
    });
    let red = named(Copies::has_lost_primaries);
    let starting = named(|copies| copies.primaries_unstarted > 0);
    if meta.deletion_timestamp.is_some() {
        conditions.set(READY, false, Reason::Deleting, "the placement is being deleted");
    } else if !unread.is_empty() && (previous_total > 0 || owned.is_empty()) {
        let texts = unread.iter().map(|(cluster, why)| format!("cluster {cluster} cannot be read: {why}"));
        let reason = if previous_total > 0 { Reason::Unreachable } else { Reason::CellNotReady };
        conditions.set(READY, false, reason, join(texts));
    } else if let (Err(problems), true) = (&valid, owned.is_empty()) {
        let reason = problems.first().map_or(Reason::InvalidSpec, |problem| problem.reason);
        conditions.set(READY, false, reason, "no index has been created");
    } else if !gone.is_empty() {
        conditions.set(READY, false, Reason::IndexMissing, format!("indices are gone: {}", some_of(&gone)));
    } else if !missing.is_empty() {
        conditions.set(
            READY,
            false,
            Reason::Progressing,
            format!("indices are not created yet: {}", some_of(&missing)),
        );
    } else if let (true, Some(hold)) = (owned.is_empty(), plan.holds.first()) {
        conditions.set(READY, false, hold.reason, "no index has been created");
    } else if !red.is_empty() {
        conditions.set(
            READY,
            false,
            Reason::PrimariesUnassigned,
            format!("primaries are not started: {}", some_of(&red)),
        );
    } else if !starting.is_empty() {
        let message = format!("primaries are being started: {}", some_of(&starting));
        conditions.set(READY, false, Reason::Progressing, message);
    } else if let Some(waiting) = &unpublished {
        conditions.set(READY, false, Reason::TableNotReady, waiting.clone());
    } else {
        let notices =
            valid.iter().flat_map(|valid| valid.notices.iter().map(|notice| format!("notice {notice}")));
        let texts = ["every shard has a started primary".to_owned()].into_iter().chain(notices);
        conditions.set(READY, true, Reason::Serving, join(texts));
    }
    // Indices of clusters that were not read are there all the same.
    let has_indices = !checked.is_empty() || previous_total > 0;
    set_degraded(&mut conditions, &checked, &unread, has_indices);
    let is_blind = !unread.is_empty() || owned.iter().any(|found| found.elastic.counts.is_none());
    let large = guard::large(&owned, Some(&previous), snapshot.limits);
    let growth = guard::sample(&previous, measured(&owned).filter(|_| !is_blind), now);
    let forecast = match growth == previous.growth {
        true => previous.forecast.clone(),
        false => guard::forecast(&growth, snapshot.limits),
    };
    let candidates = candidates(snapshot, &owned, &large, &previous, is_blind);
    set_pressure(
        &mut conditions,
        snapshot.limits,
        &large,
        &candidates,
        forecast.as_ref(),
        find(&previous.conditions, SHARD_PRESSURE).filter(|_| is_blind),
    );
    let initializing = sum.wanted - sum.started - sum.lost;
    let under_way = if meta.deletion_timestamp.is_some() {
        Some((Reason::Deleting, "indices go as spec.deletionPolicy says".to_owned()))
    } else if let Some(waiting) = &unpublished {
        Some((Reason::TableNotReady, waiting.clone()))
    } else if initializing > 0 {
        Some((Reason::Progressing, "copies of shards are being made".to_owned()))
    } else {
        None
    };
    conditions.progress(valid.as_ref().err().copied().unwrap_or_default(), plan, outcomes, under_way);

    IndexPlacementStatus {
        observed_generation: generation,
        conditions: conditions.finish(&previous.conditions),
        // A number that was once told is remembered: the next one is higher, also when the table is gone.
        table_generation: published
            .filter(|_| unpublished.is_none() && !owned.is_empty())
            .map(|table| table.generation)
            .max(previous.table_generation),
        // What was not read is as it was.
        indices: previous.indices.filter(|_| !unread.is_empty()).or(Some(count(owned.len()))),
        shards: previous.shards.clone().filter(|_| !unread.is_empty()).or(Some(ShardCounts {
            primaries: sum.primaries,
            copies: sum.wanted,
            started: sum.started,
            misplaced: sum.misplaced,
            unassigned: sum.unassigned,
            summary: format!("{}/{}", sum.started, sum.wanted),
        })),
        documents: documents(&owned).or(previous.documents),
        largest_shard: largest_shard(&owned).or(previous.largest_shard.clone()),
        growth,
        forecast,
        clusters: clusters(snapshot, &owned, &unread, &previous),
        assignments: next_record(snapshot, valid.ok(), &owned, plan),
        tenants: valid
            .ok()
            .map(|valid| tenants(valid, &owned, &previous.tenants))
            .unwrap_or(previous.tenants),
        problems: problems(&checked, &gone, &large, remembered, snapshot.limits),
        candidates,
    }
}

/// Clusters of the cell that were not read, with the reason.
fn unread_clusters(snapshot: &PlacementSnapshot) -> BTreeMap<String, String> {
    let clusters = snapshot.cell.iter().flat_map(|cell| &cell.spec.clusters);
    clusters
        .filter_map(|cluster| match snapshot.elastic.get(&cluster.name) {
            Some(Reading::Known(_)) => None,
            Some(Reading::Unavailable(why)) => Some((cluster.name.clone(), why.clone())),
            None => Some((cluster.name.clone(), "it has not been read yet".to_owned())),
        })
        .collect()
}

/// What Elasticsearch says of one of the copies that have no node.
fn explained(checked: &[(Found<'_>, Copies)]) -> String {
    let lost = checked.iter().filter(|(_, copies)| copies.lost > 0);
    let told = lost.filter_map(|(found, _)| found.elastic.unassigned.as_ref());
    told.map(|told| format!("; of {}, Elasticsearch says: {}", told.index, told.explanation))
        .next()
        .unwrap_or_default()
}

fn set_degraded(
    conditions: &mut Conditions,
    checked: &[(Found<'_>, Copies)],
    unread: &BTreeMap<String, String>,
    has_indices: bool,
) {
    let named = |wrong: fn(&Copies) -> bool| -> Vec<String> {
        checked.iter().filter(|(_, copies)| wrong(copies)).map(|(found, _)| found.name.to_owned()).collect()
    };
    let unassigned = named(|copies| copies.lost > 0);
    let misplaced = named(|copies| copies.misplaced > 0);
    if !unread.is_empty() && has_indices {
        let names: Vec<String> = unread.keys().cloned().collect();
        conditions.set(
            DEGRADED,
            true,
            Reason::ClusterUnavailable,
            format!("clusters cannot be read: {}", some_of(&names)),
        );
    } else if !unassigned.is_empty() {
        conditions.set(
            DEGRADED,
            true,
            Reason::CopiesUnassigned,
            format!("copies have no node: {}{}", some_of(&unassigned), explained(checked)),
        );
    } else if !misplaced.is_empty() {
        conditions.set(
            DEGRADED,
            true,
            Reason::CopiesShareZone,
            format!("copies share a zone: {}", some_of(&misplaced)),
        );
    } else {
        conditions.set(
            DEGRADED,
            false,
            Reason::FullRedundancy,
            "no copy is missing, and none shares a zone that it should not",
        );
    }
}

/// What is not measured now is as it was said before.
fn set_pressure(
    conditions: &mut Conditions,
    limits: ShardLimits,
    large: &[(&str, Reason)],
    candidates: &[PlacementCandidate],
    forecast: Option<&Forecast>,
    before: Option<&Condition>,
) {
    let growing = forecast.filter(|forecast| guard::is_near(forecast)).map(|_| Reason::ShardGrowing);
    let worst = large.first().map(|(_, reason)| *reason);
    let reason = worst.into_iter().chain(growing).max_by_key(|reason| guard::rank(*reason));
    let known = before.and_then(|before| Reason::all().iter().find(|known| known.as_str() == before.reason));
    match (reason, known) {
        (reason, Some(known)) if reason.is_none_or(|reason| guard::rank(reason) <= guard::rank(*known)) => {
            let message = before.map(|before| before.message.clone()).unwrap_or_default();
            conditions.set(SHARD_PRESSURE, true, *known, message);
        }
        (Some(reason), _) => {
            let names: Vec<String> =
                (large.iter()).filter(|(_, of)| *of == reason).map(|(name, _)| (*name).to_owned()).collect();
            let of = if names.is_empty() { String::new() } else { format!(": {}", some_of(&names)) };
            let mut tenants: Vec<String> = candidates.iter().map(|tenant| tenant.id.clone()).collect();
            tenants.sort();
            let relief = match tenants.as_slice() {
                [] => String::new(),
                _ => format!("; give an index of its own (spec.dedicated) to {}", some_of(&tenants)),
            };
            let advice = guard::advice(reason, limits);
            conditions.set(SHARD_PRESSURE, true, reason, format!("{advice}{of}{relief}"));
        }
        (None, _) => {}
    }
}

/// Documents and bytes of the largest shards.
fn measured(owned: &[Found<'_>]) -> Option<(i64, i64)> {
    let counts = owned.iter().filter_map(|found| found.elastic.counts.as_ref()?.get(found.name));
    counts
        .map(|counts| (counts.largest_shard_documents, counts.largest_shard_bytes))
        .reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)))
}

fn documents(owned: &[Found<'_>]) -> Option<i64> {
    let counts: Vec<i64> = owned
        .iter()
        .filter_map(|found| Some(found.elastic.counts.as_ref()?.get(found.name)?.documents))
        .collect();
    (!counts.is_empty()).then(|| two_significant_digits(counts.iter().sum()))
}

fn largest_shard(owned: &[Found<'_>]) -> Option<LargestShard> {
    let shards = owned.iter().filter_map(|found| {
        let counts = found.elastic.counts.as_ref()?.get(found.name)?;
        Some(LargestShard {
            index: found.name.to_owned(),
            documents: two_significant_digits(counts.largest_shard_documents),
            bytes: two_significant_digits(counts.largest_shard_bytes),
        })
    });
    // Rounded before they are compared, and the first name among equals: it does not flap between even shards.
    shards.max_by(|a, b| (a.documents, a.bytes, &b.index).cmp(&(b.documents, b.bytes, &a.index)))
}

/// A cluster that was not read keeps what was known of it.
fn clusters(
    snapshot: &PlacementSnapshot,
    owned: &[Found<'_>],
    unread: &BTreeMap<String, String>,
    previous: &IndexPlacementStatus,
) -> Vec<PlacementCluster> {
    let (namespace, _) = snapshot.id();
    let full_name = |cluster: &str| ClusterKey::new(namespace, &snapshot.placement.spec.cell, cluster).name();
    let mut by_name: BTreeMap<String, i32> = BTreeMap::new();
    for found in owned {
        *by_name.entry(full_name(found.cluster)).or_default() += 1;
    }
    let of_this_cell: Vec<String> = (snapshot.cell.iter())
        .flat_map(|cell| &cell.spec.clusters)
        .map(|cluster| full_name(&cluster.name))
        .collect();
    for known in &previous.clusters {
        let was_not_read = unread.keys().any(|cluster| full_name(cluster) == known.name);
        if was_not_read || !of_this_cell.contains(&known.name) {
            by_name.insert(known.name.clone(), known.indices);
        }
    }
    by_name.into_iter().map(|(name, indices)| PlacementCluster { name, indices }).collect()
}

/// Tenants whose index exists, or existed; those included that the spec does not name any more and whose index is still
/// there.
fn tenants(
    valid: &ValidPlacement,
    owned: &[Found<'_>],
    previous: &[PlacementTenant],
) -> Vec<PlacementTenant> {
    let is_kept = |known: &&PlacementTenant| {
        let name = dedicated_index(&valid.collection, &known.id, 1);
        !valid.indices.iter().any(|index| index.name == name) && owned.iter().any(|found| found.name == name)
    };
    let kept = previous.iter().filter(is_kept).cloned();
    (valid.indices.iter())
        .filter_map(|index| {
            let id = index.tenant.clone()?;
            match owned.iter().find(|found| found.name == index.name) {
                Some(found) => Some(PlacementTenant { id, shards: found.facts.primaries }),
                None => previous.iter().find(|known| known.id == id).cloned(),
            }
        })
        .chain(kept)
        .collect()
}

fn problems(
    checked: &[(Found<'_>, Copies)],
    gone: &[String],
    large: &[(&str, Reason)],
    remembered: Vec<IndexProblem>,
    limits: ShardLimits,
) -> Vec<IndexProblem> {
    let is_missing = |problem: &IndexProblem| problem.reason == Reason::IndexMissing.as_str();
    let rank = |problem: &IndexProblem| if is_missing(problem) { 0 } else { 4 };
    let mut problems: Vec<(u8, IndexProblem)> =
        remembered.into_iter().map(|problem| (rank(&problem), problem)).collect();
    let mut add = |rank: u8, index: &str, reason: Reason, message: &str| {
        let problem = IndexProblem {
            index: index.to_owned(),
            reason: reason.as_str().to_owned(),
            message: message.to_owned(),
        };
        problems.push((rank, problem));
    };
    for index in gone {
        add(0, index, Reason::IndexMissing, "the index does not exist");
    }
    for (found, copies) in checked {
        if copies.has_lost_primaries() {
            add(
                1,
                found.name,
                Reason::PrimariesUnassigned,
                "a primary is not started: its documents cannot be written or searched",
            );
        } else if copies.misplaced > 0 {
            add(
                2,
                found.name,
                Reason::CopiesShareZone,
                "copies of a shard share a zone: losing it loses more copies than it should",
            );
        } else if copies.lost > 0 {
            let told = found.elastic.unassigned.as_ref().filter(|told| told.index == found.name);
            let message = told.map_or_else(
                || "copies have no node: waiting for data nodes in the zones that lack one".to_owned(),
                |told| format!("copies have no node; Elasticsearch says: {}", told.explanation),
            );
            add(3, found.name, Reason::CopiesUnassigned, &message);
        }
    }
    for (index, reason) in large {
        let advice = guard::advice(*reason, limits);
        add(if *reason == Reason::ShardFull { 1 } else { 4 }, index, *reason, &advice);
    }
    problems.sort_by(|a, b| (a.0, &a.1.index).cmp(&(b.0, &b.1.index)));
    problems.into_iter().map(|(_, problem)| problem).take(MOST_PROBLEMS).collect()
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
