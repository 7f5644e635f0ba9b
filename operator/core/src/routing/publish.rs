//! What is published of a collection, and when: its table is made from what status records of all its placements, so
//! that it names only what has been seen. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use searchcell_crds::{GROUP, IndexPlacement, Reason, SearchCell, SecurityMode, VERSION};
use sha2::Digest;

use super::build::{Located, TableInput, build_table, next_generation};
use super::codec::{pack, to_json, unpack};
use super::table::{Table, TenantRules};
use crate::drift;
use crate::names::{
    ANNOTATION_TABLE_GENERATION, ClusterKey, FIELD_MANAGER, LABEL_COLLECTION, LABEL_MANAGED_BY, TABLE_KEY,
    dedicated_index, pool_number, routing_table,
};
use crate::placement::{Recorded, recorded_in};
use crate::snapshot::{annotation, label};
use crate::step::{Action, Hold, Kind, Object, Plan, Step};
use crate::validate::age;

/// Everything that one pass over a collection's table looks at.
#[derive(Clone, Debug, Default)]
pub struct TableSnapshot {
    /// Namespace of the collection.
    pub namespace: String,
    /// The collection.
    pub collection: String,
    /// All its placements.
    pub placements: Vec<IndexPlacement>,
    /// The cells that they name, as far as they are there.
    pub cells: BTreeMap<String, SearchCell>,
    /// What is published.
    pub published: Option<Published>,
    /// The number of the last table that this process has published: who deletes it at once leaves no other trace of it.
    pub last: Option<i64>,
}

/// The object that a table lies in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Published {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// The table; absent: it cannot be read.
    pub table: Option<Table>,
    /// SHA-256 of the table's JSON, which says more than the table: a reader ignores what it does not know.
    pub digest: [u8; 32],
    /// Cluster (`<cell>-<cluster>`) of every index that it names.
    places: BTreeMap<String, String>,
}

impl Published {
    /// Reads an object.
    pub fn read(map: &ConfigMap) -> Self {
        let bytes = map.binary_data.as_ref().and_then(|data| data.get(TABLE_KEY));
        let json = bytes.and_then(|bytes| unpack(&bytes.0).ok()).unwrap_or_default();
        let table = serde_json::from_slice::<Table>(&json).ok().filter(|table| table.check().is_ok());
        let named = table.iter().flat_map(|table| (0..).map_while(move |position| table.index(position)));
        let places = named.map(|(index, cluster)| (index.name.clone(), cluster.name.clone())).collect();
        Self { metadata: map.metadata.clone(), table, digest: sha2::Sha256::digest(&json).into(), places }
    }

    /// True when the table names the index on the cluster (`<cell>-<cluster>`).
    pub fn names(&self, index: &str, cluster: &str) -> bool {
        self.places.get(index).is_some_and(|place| place == cluster)
    }
}

/// Plans one pass over a table: at most one write.
pub fn plan_table(snapshot: &TableSnapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let step = match wanted(snapshot) {
        Ok(Some(input)) => publication(snapshot, &input, now),
        Ok(None) => Ok(None),
        Err(hold) => Err(hold),
    };
    match step {
        Ok(step) => plan.steps.extend(step),
        Err(hold) => plan.holds.push(hold),
    }
    plan
}

fn hold(reason: Reason, message: impl Into<String>) -> Hold {
    Hold { cluster: None, reason, message: message.into() }
}

fn name_of(placement: &IndexPlacement) -> &str {
    placement.metadata.name.as_deref().unwrap_or_default()
}

/// A placement that is there to stay, with what is recorded of its indices.
type Live<'a> = (&'a IndexPlacement, BTreeMap<&'a str, Recorded<'a>>);

/// What the table is to be made of. `None`: there is nothing to say, and nothing was said before.
fn wanted(snapshot: &TableSnapshot) -> Result<Option<TableInput>, Hold> {
    let mut live = Vec::new();
    for placement in snapshot.placements.iter().filter(|p| p.metadata.deletion_timestamp.is_none()) {
        // A status that is lost is not one that says nothing.
        let status =
            placement.status.as_ref().filter(|status| status.observed_generation.is_some_and(|g| g >= 0));
        let Some(status) = status else {
            let message = format!("placement {} has not been looked at yet", name_of(placement));
            return Err(hold(Reason::TableNotReady, message));
        };
        if snapshot.cells.get(&placement.spec.cell).is_some_and(|cell| cell.spec.suspend) {
            let message = format!("SearchCell {} is suspended: nothing is published", placement.spec.cell);
            return Err(hold(Reason::Suspended, message));
        }
        live.push((placement, recorded_in(status)));
    }
    // The older one is in force; one that was refused has no record.
    live.sort_by_key(|(placement, record)| (record.is_empty(), age(placement)));
    let published = snapshot.published.as_ref().and_then(|published| published.table.as_ref());
    let rules = |placement: &IndexPlacement| TenantRules {
        field: placement.spec.tenant.field.clone(),
        fan_out: placement.spec.tenant.fan_out,
        id_scope: placement.spec.tenant.id_scope,
    };
    let (tenant, versioning) = match (live.first(), published) {
        (Some((first, _)), _) => (rules(first), first.spec.versioning),
        (None, Some(table)) => (table.tenant.clone(), table.versioning),
        (None, None) => return Ok(None),
    };
    let pool = pool(snapshot, &live, published)?;
    let dedicated = dedicated(snapshot, &live, published)?;
    if pool.is_none() && dedicated.is_empty() && published.is_none() {
        return Ok(None);
    }
    let (namespace, collection) = (snapshot.namespace.clone(), snapshot.collection.clone());
    Ok(Some(TableInput { namespace, collection, tenant, versioning, pool, dedicated }))
}

/// The pool's indices in the order of their numbers, the lost ones as such. Absent as long as the first of them have
/// yet to be seen: the number of indices decides which slots are whose.
fn pool(
    snapshot: &TableSnapshot,
    live: &[Live<'_>],
    published: Option<&Table>,
) -> Result<Option<Vec<Option<Located>>>, Hold> {
    let Some((placement, record)) = live.iter().find(|(placement, _)| placement.spec.pool.is_some()) else {
        return Ok(None);
    };
    let mut indices: Vec<(i32, &str, Recorded<'_>)> = (record.iter())
        .filter_map(|(name, at)| Some((pool_number(&snapshot.collection, name)?, *name, *at)))
        .collect();
    indices.sort_by_key(|(number, _, _)| *number);
    let before = published.map_or(0, |table| table.slots.len());
    let asked = placement.spec.pool.as_ref().map_or(0, |pool| pool.indices);
    let is_whole = (0..).zip(&indices).all(|(n, (number, _, at))| *number == n && at.seen)
        && (i32::try_from(indices.len()) == Ok(asked) || before > 0 && indices.len() == before);
    if !is_whole || indices.is_empty() {
        if before == 0 {
            return Ok(None);
        }
        let message = format!(
            "it is not known where every index of the pool of placement {} is: the table stays as it is",
            name_of(placement)
        );
        return Err(hold(Reason::TableNotReady, message));
    }
    let located = |(_, name, at): &(i32, &str, Recorded<'_>)| located(snapshot, published, name, at);
    Ok(Some(indices.iter().map(located).collect::<Result<_, _>>()?))
}

/// Tenants with an index of their own. One whose index is on its way, or lost, is nowhere: what it wrote to the pool
/// meanwhile would be lost to it.
fn dedicated(
    snapshot: &TableSnapshot,
    live: &[Live<'_>],
    published: Option<&Table>,
) -> Result<BTreeMap<String, Option<Located>>, Hold> {
    let mut tenants = BTreeMap::new();
    for (placement, record) in live {
        let asked =
            placement.spec.dedicated.iter().flat_map(|dedicated| &dedicated.tenants).map(|tenant| &tenant.id);
        let status = placement.status.iter().flat_map(|status| &status.tenants).map(|tenant| &tenant.id);
        let ids: BTreeSet<&String> = asked.chain(status).collect();
        for id in ids {
            if tenants.contains_key(id) {
                continue;
            }
            let name = dedicated_index(&snapshot.collection, id, 1);
            match record.get(name.as_str()) {
                Some(at) => {
                    tenants.insert(id.clone(), located(snapshot, published, &name, at)?);
                }
                // Published once and not recorded now: status was lost. It is not known to be anywhere else.
                None => {
                    let before = published.and_then(|table| {
                        let (index, cluster) = table.index(table.overrides.get(id)?.to.read?)?;
                        let (_, cluster_name) = cluster.name.rsplit_once('-')?;
                        let cluster = ClusterKey::new(&snapshot.namespace, &cluster.cell, cluster_name);
                        Some((index.name.clone(), cluster))
                    });
                    if let Some((name, cluster)) = before {
                        let is_secure = is_secure(snapshot, published, &cluster)?;
                        tenants.insert(id.clone(), Some(Located { name, cluster, is_secure }));
                    }
                }
            }
        }
    }
    Ok(tenants)
}

/// Where an index is; `None`: nowhere, because it has not been seen there or has gone.
fn located(
    snapshot: &TableSnapshot,
    published: Option<&Table>,
    name: &str,
    at: &Recorded<'_>,
) -> Result<Option<Located>, Hold> {
    let Some((cell, cluster)) = at.cluster.rsplit_once('-').filter(|_| at.is_there()) else {
        return Ok(None);
    };
    let cluster = ClusterKey::new(&snapshot.namespace, cell, cluster);
    let is_secure = is_secure(snapshot, published, &cluster)?;
    Ok(Some(Located { name: name.to_owned(), cluster, is_secure }))
}

fn is_secure(
    snapshot: &TableSnapshot,
    published: Option<&Table>,
    cluster: &ClusterKey,
) -> Result<bool, Hold> {
    if let Some(cell) = snapshot.cells.get(&cluster.cell) {
        return Ok(cell.spec.security_mode() == SecurityMode::Managed);
    }
    let name = cluster.name();
    let before = published.and_then(|table| table.clusters.iter().find(|known| known.name == name));
    let missing =
        || hold(Reason::CellNotFound, format!("there is no SearchCell {} in this namespace", cluster.cell));
    before.map(|known| known.ca_config_map.is_some()).ok_or_else(missing)
}

/// The write that makes the published table the wanted one, if any is needed.
fn publication(snapshot: &TableSnapshot, input: &TableInput, now: Timestamp) -> Result<Option<Step>, Hold> {
    let name = routing_table(&snapshot.collection);
    let owners = owners(snapshot);
    let live = snapshot.published.as_ref();
    if live.is_some_and(|live| !is_ours(snapshot, live)) {
        let message = format!(
            "ConfigMap {name} is not of the operator and is not adopted: delete it, or rename the collection"
        );
        return Err(hold(Reason::NameConflict, message));
    }
    if owners.is_empty() || live.is_some_and(|live| live.metadata.deletion_timestamp.is_some()) {
        return Ok(None);
    }
    let table = |generation| {
        build_table(input, generation).map_err(|error| hold(Reason::TableNotReady, error.to_string()))
    };
    let json = |table: &Table| to_json(table).map_err(|error| hold(Reason::TableNotReady, error.to_string()));
    let current = live.and_then(|live| live.table.as_ref()).map(|table| table.generation);
    // Also when the object is gone, or was put back by a restore.
    let statuses =
        snapshot.placements.iter().filter_map(|placement| placement.status.as_ref()?.table_generation);
    let noted =
        live.and_then(|live| annotation(&live.metadata, ANNOTATION_TABLE_GENERATION)?.parse::<i64>().ok());
    let told = statuses.max().max(noted);
    let stays = match (current, live) {
        (Some(current), Some(live)) if Some(current) >= told => {
            let same = json(&table(current)?)?;
            (<[u8; 32]>::from(sha2::Sha256::digest(&same)) == live.digest).then_some((current, same))
        }
        _ => None,
    };
    let is_labelled = |live: &Published| {
        label(&live.metadata, LABEL_MANAGED_BY) == Some(FIELD_MANAGER)
            && label(&live.metadata, LABEL_COLLECTION) == Some(snapshot.collection.as_str())
            && live.metadata.owner_references.as_ref() == Some(&owners)
            && noted == current
    };
    let (generation, json, why) = match stays {
        Some(_) if live.is_some_and(is_labelled) => return Ok(None),
        Some((current, same)) => (current, same, "its labels, annotation or owners differ"),
        None => {
            let generation = next_generation(current.max(told).max(snapshot.last), now);
            (generation, json(&table(generation)?)?, "where tenants are has changed")
        }
    };
    let bytes = pack(&json).map_err(|error| {
        hold(
            Reason::TableTooLarge,
            format!("{error}: use fewer dedicated tenants, the former table stays in force"),
        )
    })?;
    let labels = [(LABEL_MANAGED_BY, FIELD_MANAGER), (LABEL_COLLECTION, snapshot.collection.as_str())];
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(snapshot.namespace.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            annotations: Some(BTreeMap::from([(
                ANNOTATION_TABLE_GENERATION.to_owned(),
                generation.to_string(),
            )])),
            owner_references: Some(owners),
            ..ObjectMeta::default()
        },
        binary_data: Some(BTreeMap::from([(TABLE_KEY.to_owned(), ByteString(bytes))])),
        ..ConfigMap::default()
    };
    let object = Object::ConfigMap(Box::new(map));
    let action = match live {
        None => Action::Create(object),
        Some(live) => {
            let mut target = drift::target(Kind::ConfigMap, &live.metadata);
            // A table that was published meanwhile is looked at first: its number is taken.
            target.resource_version.clone_from(&live.metadata.resource_version);
            Action::Apply { object, target }
        }
    };
    Ok(Some(Step { cluster: None, action, why: why.to_owned() }))
}

/// All placements of the collection, the oldest in control: the table goes when the last of them has gone.
fn owners(snapshot: &TableSnapshot) -> Vec<OwnerReference> {
    let mut placements: Vec<&IndexPlacement> = snapshot.placements.iter().collect();
    placements.sort_by_key(|placement| age(placement));
    let owner = |(n, placement): (usize, &IndexPlacement)| OwnerReference {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: "IndexPlacement".to_owned(),
        name: name_of(placement).to_owned(),
        uid: placement.metadata.uid.clone().unwrap_or_default(),
        controller: (n == 0).then_some(true),
        block_owner_deletion: None,
    };
    placements.into_iter().enumerate().map(owner).collect()
}

/// UID of the placement that controls the table.
pub fn controller_of(snapshot: &TableSnapshot) -> String {
    owners(snapshot).into_iter().next().map(|owner| owner.uid).unwrap_or_default()
}

/// Ours is what carries our label, or belongs to one of the placements.
fn is_ours(snapshot: &TableSnapshot, live: &Published) -> bool {
    let of_placement = |owner: &OwnerReference| {
        snapshot.placements.iter().any(|placement| placement.metadata.uid.as_ref() == Some(&owner.uid))
    };
    label(&live.metadata, LABEL_MANAGED_BY) == Some(FIELD_MANAGER)
        || live.metadata.owner_references.iter().flatten().any(of_placement)
}

#[cfg(test)]
#[path = "publish_tests.rs"]
mod tests;
