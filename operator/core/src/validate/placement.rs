//! The rules of an IndexPlacement, alone, against its cell, and against its siblings of the namespace. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use searchcell_crds::index_placement::{
    DEFAULT_MAX_DOCUMENTS_PER_SHARD, LUCENE_MAX_DOCUMENTS, MANY_DOCUMENTS, MAX_EXPECTED_DOCUMENTS_PER_SHARD,
    MAX_SHARDS, VERY_MANY_DOCUMENTS,
};
use searchcell_crds::{Dedicated, DedicatedTenant, IdScope, IndexPlacement, Reason, SearchCell, Settings};
use serde_json::Value;

use super::{Problem, Problems, index, is_cell_name, settings};
use crate::build::DELETED_FIELD;
use crate::domain::{ValidIndex, ValidPlacement};
use crate::names::{dedicated_index, pool_index};

/// The first generation of an index. Only a migration makes others.
const FIRST_GENERATION: i32 = 1;

/// Checks an IndexPlacement: either all that the operator needs, or everything that is wrong, sorted by path.
///
/// `siblings` are the placements of the namespace; the placement itself among them does no harm. Where two exclude
/// each other the older one wins, and only the younger is refused.
pub fn validate_placement(
    placement: &IndexPlacement,
    cell: Option<&SearchCell>,
    siblings: &[IndexPlacement],
) -> Result<ValidPlacement, Vec<Problem>> {
    let mut problems = Problems::default();
    let spec = &placement.spec;
    let siblings: Vec<&IndexPlacement> = siblings.iter().filter(|s| is_sibling(placement, s)).collect();

    identity(placement, &mut problems);
    against_siblings(placement, &siblings, &mut problems);
    if let Some(replicas) = spec.replicas
        && !(0..=15).contains(&replicas)
    {
        problems.invalid("spec.replicas", "must be from 0 to 15: choose such a number, or remove it");
    }
    match cell {
        Some(cell) => copies(spec.replicas, cell, &mut problems),
        None => problems.add(
            Reason::CellNotFound,
            "spec.cell",
            format!("names no SearchCell of this namespace: create {:?}, or name another", spec.cell),
        ),
    }

    let mut notices = refused_siblings(placement, &siblings);
    let indices = match (&spec.pool, &spec.dedicated) {
        (Some(pool), None) => pool_indices(&spec.collection, pool.indices, &mut problems),
        (None, Some(dedicated)) => {
            dedicated_indices(&spec.collection, dedicated, &mut problems, &mut notices)
        }
        _ => {
            problems.invalid("spec", "needs exactly one of pool and dedicated: remove one or add one");
            Vec::new()
        }
    };
    let (settings, mappings) = index_options(placement, &siblings, &mut problems);

    if !problems.is_empty() {
        return Err(problems.sorted());
    }
    Ok(ValidPlacement {
        namespace: placement.metadata.namespace.clone().unwrap_or_default(),
        name: placement.metadata.name.clone().unwrap_or_default(),
        uid: placement.metadata.uid.clone().unwrap_or_default(),
        cell: spec.cell.clone(),
        collection: spec.collection.clone(),
        tenant_field: spec.tenant.field.clone(),
        indices,
        is_pool: spec.pool.is_some(),
        replicas: spec.replicas,
        settings,
        mappings,
        deletion_policy: spec.deletion_policy,
        notices,
    })
}

/// Another placement of the same collection.
fn is_sibling(placement: &IndexPlacement, other: &IndexPlacement) -> bool {
    let (a, b) = (&placement.metadata, &other.metadata);
    a.namespace == b.namespace && a.name != b.name && placement.spec.collection == other.spec.collection
}

/// Older by creation, then by name. An object that was never created is the youngest.
fn is_older(other: &IndexPlacement, than: &IndexPlacement) -> bool {
    age(other) < age(than)
}

/// Sorts placements from the oldest to the youngest.
pub(crate) fn age(placement: &IndexPlacement) -> (bool, Option<Timestamp>, Option<String>) {
    let created = placement.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (created.is_none(), created, placement.metadata.name.clone())
}

fn name(placement: &IndexPlacement) -> &str {
    placement.metadata.name.as_deref().unwrap_or_default()
}

fn identity(placement: &IndexPlacement, problems: &mut Problems) {
    let spec = &placement.spec;
    if !is_cell_name(&spec.cell) {
        problems.invalid("spec.cell", "is not the name of a SearchCell: name one of this namespace");
    }
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let collection = spec.collection.as_str();
    if !((1..=40).contains(&collection.len())
        && collection.bytes().all(inside)
        && collection.starts_with(|c: char| c.is_ascii_lowercase()))
    {
        problems.invalid(
            "spec.collection",
            "must be a lower-case letter followed by at most 39 letters, digits and dashes: choose such a name",
        );
    }
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'@' | b'-');
    let field = spec.tenant.field.as_str();
    if !((1..=128).contains(&field.len())
        && field.bytes().all(inside)
        && field.starts_with(|c: char| c.is_ascii_alphabetic() || c == '@'))
        || field == DELETED_FIELD
    {
        problems.invalid(
            "spec.tenant.field",
            "must be a top-level field of the document: letters, digits, dashes and underscores, no dots, not \
             searchcell_deleted",
        );
    }
    if spec.tenant.fan_out && spec.tenant.id_scope != IdScope::Tenant {
        problems.invalid(
            "spec.tenant.idScope",
            "must be Tenant with fanOut: set it to Tenant, or fanOut to false",
        );
    }
}

fn against_siblings(placement: &IndexPlacement, siblings: &[&IndexPlacement], problems: &mut Problems) {
    let spec = &placement.spec;
    for older in siblings.iter().filter(|sibling| is_older(sibling, placement)) {
        let collection = &spec.collection;
        if spec.pool.is_some() && older.spec.pool.is_some() {
            let message = format!(
                "collection {collection} has a pool already, in placement {}: delete one of the two",
                name(older)
            );
            problems.add(Reason::PoolConflict, "spec.pool", message);
        }
        if spec.tenant != older.spec.tenant {
            let message = format!(
                "differs from that of placement {} of collection {collection}: make them the same",
                name(older)
            );
            problems.add(Reason::CollectionMismatch, "spec.tenant", message);
        }
        if spec.versioning != older.spec.versioning {
            let message = format!(
                "differs from that of placement {} of collection {collection}: make them the same",
                name(older)
            );
            problems.add(Reason::CollectionMismatch, "spec.versioning", message);
        }
        let theirs: BTreeSet<&str> =
            older.spec.dedicated.iter().flat_map(|d| &d.tenants).map(|tenant| tenant.id.as_str()).collect();
        for tenant in spec.dedicated.iter().flat_map(|dedicated| &dedicated.tenants) {
            if theirs.contains(tenant.id.as_str()) {
                let message =
                    format!("is in placement {} already: take it out of one of the two", name(older));
                problems.add(Reason::TenantConflict, tenant_path(&tenant.id), message);
            }
        }
    }
}

/// What younger placements are refused because of this one: both sides of a conflict are told of it.
fn refused_siblings(placement: &IndexPlacement, siblings: &[&IndexPlacement]) -> Vec<String> {
    let mut notices = Vec::new();
    for younger in siblings.iter().filter(|sibling| is_older(placement, sibling)) {
        let mut problems = Problems::default();
        against_siblings(younger, &[placement], &mut problems);
        let told = problems.sorted();
        notices.extend(told.iter().map(|problem| {
            format!(
                "this placement is in force, and the younger placement {} is refused: {problem}",
                name(younger)
            )
        }));
    }
    notices
}

/// What the user states must fit; what is computed at creation always does.
fn copies(replicas: Option<i32>, cell: &SearchCell, problems: &mut Problems) {
    let zones = i64::try_from(cell.spec.active_zones().count()).unwrap_or(i64::MAX).max(1);
    let nodes = zones * i64::from(cell.spec.nodes.data.per_zone);
    let Some(copies) = replicas.map(|replicas| i64::from(replicas) + 1) else { return };
    if copies > nodes {
        let message = format!(
            "makes {copies} copies of each shard, and the cell has {nodes} data nodes in each cluster: lower it or \
             add data nodes"
        );
        problems.add(Reason::TooManyCopies, "spec.replicas", message);
    }
    if copies > zones && copies % zones != 0 {
        let message = format!(
            "makes {copies} copies of each shard, which do not spread evenly over {zones} zones: have at most \
             {zones} copies, or a multiple of {zones}, the primary included"
        );
        problems.add(Reason::UnevenCopies, "spec.replicas", message);
    }
}

fn pool_indices(collection: &str, indices: i32, problems: &mut Problems) -> Vec<ValidIndex> {
    if !(1..=1000).contains(&indices) {
        problems.invalid("spec.pool.indices", "must be from 1 to 1000: choose such a number");
        return Vec::new();
    }
    (0..indices)
        .map(|number| ValidIndex {
            name: pool_index(collection, number, FIRST_GENERATION),
            shards: 1,
            generation: FIRST_GENERATION,
            tenant: None,
        })
        .collect()
}

fn dedicated_indices(
    collection: &str,
    dedicated: &Dedicated,
    problems: &mut Problems,
    notices: &mut Vec<String>,
) -> Vec<ValidIndex> {
    if !(1..=256).contains(&dedicated.tenants.len()) {
        problems.invalid("spec.dedicated.tenants", "must have 1 to 256 tenants: add or remove tenants");
    }
    let mut per_shard = dedicated.max_documents_per_shard;
    if !(1..=MAX_EXPECTED_DOCUMENTS_PER_SHARD).contains(&per_shard) {
        problems.invalid(
            "spec.dedicated.maxDocumentsPerShard",
            format!(
                "must be from 1 to {MAX_EXPECTED_DOCUMENTS_PER_SHARD}: choose such a number, or remove it"
            ),
        );
        // One problem, not one more for each tenant.
        per_shard = DEFAULT_MAX_DOCUMENTS_PER_SHARD;
    }
    let mut seen = BTreeSet::new();
    let mut indices = Vec::new();
    for tenant in &dedicated.tenants {
        let path = tenant_path(&tenant.id);
        if !(1..=128).contains(&tenant.id.len()) || tenant.id.chars().any(char::is_control) {
            problems.invalid(
                format!("{path}.id"),
                "must have 1 to 128 bytes and no control characters: correct it",
            );
        }
        if !seen.insert(tenant.id.as_str()) {
            problems.invalid(format!("{path}.id"), "is there twice: keep one of the two");
        }
        if let Some(shards) = shards(&path, tenant, per_shard, problems, notices) {
            indices.push(ValidIndex {
                name: dedicated_index(collection, &tenant.id, FIRST_GENERATION),
                shards,
                generation: FIRST_GENERATION,
                tenant: Some(tenant.id.clone()),
            });
        }
    }
    indices.sort();
    indices
}

fn shards(
    path: &str,
    tenant: &DedicatedTenant,
    per_shard: i64,
    problems: &mut Problems,
    notices: &mut Vec<String>,
) -> Option<i32> {
    if tenant.expected_documents < 1 {
        problems.invalid(format!("{path}.expectedDocuments"), "must be at least 1: write what you expect");
    }
    let shards = tenant.primary_shards(per_shard);
    if !(1..=MAX_SHARDS).contains(&shards) {
        let (field, action) = match tenant.shards {
            Some(_) => ("shards", "choose a number from 1 to 1024"),
            None => ("expectedDocuments", "raise maxDocumentsPerShard, an index has at most 1024 shards"),
        };
        problems.invalid(format!("{path}.{field}"), format!("makes {shards} shards: {action}"));
        return None;
    }
    let documents = tenant.expected_documents / shards + i64::from(tenant.expected_documents % shards != 0);
    if documents > MAX_EXPECTED_DOCUMENTS_PER_SHARD {
        let message = format!(
            "is {documents} for each of {shards} shards, more than 90 % of the {LUCENE_MAX_DOCUMENTS} that Lucene \
             stores: raise shards, or remove it to have it computed"
        );
        problems.add(Reason::ShardTooLarge, format!("{path}.expectedDocuments"), message);
    }
    for (limit, words) in [(VERY_MANY_DOCUMENTS, "1 billion"), (MANY_DOCUMENTS, "200 million")] {
        if documents > limit {
            notices.push(format!(
                "tenant {:?}: more than {words} documents are expected of each shard; plan for more shards",
                tenant.id
            ));
            break;
        }
    }
    i32::try_from(shards).ok()
}

fn tenant_path(id: &str) -> String {
    format!("spec.dedicated.tenants[{id:?}]")
}

/// Settings and mappings of the indices. A dedicated placement takes mappings and analysis from the pool of its
/// collection, unless it has its own.
fn index_options(
    placement: &IndexPlacement,
    siblings: &[&IndexPlacement],
    problems: &mut Problems,
) -> (BTreeMap<String, Value>, Settings) {
    let own = placement.spec.index.clone().unwrap_or_default();
    let mut flat = settings::of_index("spec.index.settings", &own.settings, problems);
    index::mappings("spec.index.mappings", &own.mappings, &placement.spec.tenant.field, problems);
    if placement.spec.pool.is_some() {
        return (flat, own.mappings);
    }
    let pools = siblings.iter().filter(|sibling| sibling.spec.pool.is_some());
    let Some(pool) =
        pools.reduce(|a, b| if is_older(b, a) { b } else { a }).and_then(|p| p.spec.index.as_ref())
    else {
        return (flat, own.mappings);
    };
    // What is wrong with the pool's options is the pool's problem; here they count only when nothing is.
    let mut theirs = Problems::default();
    let inherited = settings::of_index("", &pool.settings, &mut theirs);
    index::mappings("", &pool.mappings, &placement.spec.tenant.field, &mut theirs);
    if !theirs.is_empty() {
        return (flat, own.mappings);
    }
    let is_analysis = |key: &str| key.starts_with("index.analysis.");
    if !flat.keys().any(|key| is_analysis(key)) {
        flat.extend(inherited.into_iter().filter(|(key, _)| is_analysis(key)));
    }
    let mappings = if own.mappings.is_empty() { pool.mappings.clone() } else { own.mappings };
    (flat, mappings)
}
