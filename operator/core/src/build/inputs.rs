//! The hash of what the *user* asked for, by which a workload tells whether its template is to be rendered anew. Pure.
//!
//! What the operator itself renders is not in it: a newer operator that renders differently restarts nobody. Neither
//! is what needs no restart (numbers of nodes, volumes, other zones).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::volumes::keystore;
use crate::domain::{ValidCell, ValidRole, ValidZone};
use crate::names::Role;
use crate::validate::quantity::Amount;

/// Hash of the user's inputs of one workload: the nodes of `role`, of `zone` where the role has zones.
pub fn input_hash(cell: &ValidCell, role: Role, zone: Option<&ValidZone>) -> String {
    cell.hashes.get(role, zone, || hash_inputs(cell, role, zone))
}

fn hash_inputs(cell: &ValidCell, role: Role, zone: Option<&ValidZone>) -> String {
    let nobody = ValidRole::default();
    let valid = cell.role(role).unwrap_or(&nobody);
    let mut inputs = json!({
        "role": role.as_str(),
        "version": cell.version.to_string(),
        "image": cell.image,
        "topologyKey": cell.topology_key,
        "zone": zone.map(|zone| zone.value.as_str()),
        // With the first ingest nodes, the data nodes hand their work over.
        "ingestElsewhere": role == Role::Data && cell.ingest.is_some(),
        "requests": amounts(&valid.requests),
        "limits": amounts(&valid.limits),
        "heap": valid.heap_bytes,
        "jvmOptions": valid.jvm_options,
        "settings": valid.settings,
        "podTemplate": valid.pod_template,
    });
    // Absent without security: the nodes of such cells were there before there was another kind.
    if let (true, Some(inputs)) = (cell.is_secure, inputs.as_object_mut()) {
        inputs.insert("security".to_owned(), json!("Managed"));
    }
    // Another Secret is another set of entries that only a restart loads.
    if let (Some(from), Some(inputs)) = (keystore(cell), inputs.as_object_mut()) {
        inputs.insert("keystore".to_owned(), json!(from));
    }
    if let (Some(restarted_at), Some(inputs)) = (&cell.restarted_at, inputs.as_object_mut()) {
        inputs.insert("restartedAt".to_owned(), json!(restarted_at));
    }
    hash(&inputs)
}

/// Names what a cell asks of all its nodes, in a few characters.
pub fn cell_hash(cell: &ValidCell) -> String {
    let zones = cell.zones.iter().map(Some);
    let sets =
        [Role::Master, Role::Data].into_iter().flat_map(|role| zones.clone().map(move |zone| (role, zone)));
    let hashes: Vec<String> =
        sets.chain([(Role::Ingest, None)]).map(|(role, zone)| input_hash(cell, role, zone)).collect();
    hash(&json!(hashes)).chars().take(8).collect()
}

/// The same amounts, however they are written.
fn amounts(amounts: &BTreeMap<String, Quantity>) -> BTreeMap<&str, String> {
    let canonical =
        |amount: &Quantity| Amount::of(amount).map_or_else(|| amount.0.clone(), Amount::canonical);
    amounts.iter().map(|(name, amount)| (name.as_str(), canonical(amount))).collect()
}

/// 32 hex digits of the SHA-256 of a JSON value; the order of keys does not count.
pub(super) fn hash(value: &Value) -> String {
    let digest = Sha256::digest(sorted(value).to_string().as_bytes());
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Keys in order, whether or not the JSON library keeps them as they were written.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, Value> = fields.iter().map(|(k, v)| (k, sorted(v))).collect();
            Value::Object(fields.into_iter().map(|(k, v)| (k.clone(), v)).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        scalar => scalar.clone(),
    }
}
