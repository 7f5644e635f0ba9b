//! Persistent cluster settings as desired state: computed afresh, compared, and only names that are ours or the
//! user's are ever touched. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Draft;
use crate::domain::ValidCell;
use crate::names::{ClusterKey, OWNED_SETTINGS, ZONE_ATTRIBUTE};
use crate::snapshot::ElasticFacts;
use crate::step::Action;

/// All persistent settings that a cluster of the cell ought to have: forced awareness over every zone, the user's,
/// and the record of which names these are.
pub fn wanted_settings(cell: &ValidCell) -> BTreeMap<String, Value> {
    let mut wanted = cell.cluster_settings.clone();
    let awareness = "cluster.routing.allocation.awareness";
    wanted.insert(format!("{awareness}.attributes"), Value::from(ZONE_ATTRIBUTE));
    wanted.insert(
        format!("{awareness}.force.{ZONE_ATTRIBUTE}.values"),
        Value::from(cell.zone_names().join(",")),
    );
    let owned: Vec<&str> = wanted.keys().map(String::as_str).collect();
    let owned = owned.join(",");
    wanted.insert(OWNED_SETTINGS.to_owned(), Value::from(owned));
    wanted
}

/// A setting's value the way Elasticsearch compares it: everything is text, a list is joined by commas.
pub fn setting_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.split(',').map(str::trim).collect::<Vec<_>>().join(","),
        Value::Array(items) => items.iter().map(setting_text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Adds a setting, and its name to the record of names that are ours.
fn own(wanted: &mut BTreeMap<String, Value>, name: String, value: Value) {
    wanted.insert(name, value);
    wanted.remove(OWNED_SETTINGS);
    let owned: Vec<&str> = wanted.keys().map(String::as_str).collect();
    let owned = Value::from(owned.join(","));
    wanted.insert(OWNED_SETTINGS.to_owned(), owned);
}

/// Whether a setting that is in force is the operator's or the user's, by the record of names.
pub(super) fn is_owned(facts: &ElasticFacts, name: &str) -> bool {
    let owned = facts.settings.get(OWNED_SETTINGS).map(setting_text).unwrap_or_default();
    owned.split(',').any(|owned| owned == name)
}

/// `temporary`: what an operation asks for while it lasts.
pub(super) fn plan_settings(
    cell: &ValidCell,
    key: &ClusterKey,
    facts: &ElasticFacts,
    temporary: Option<(String, Value)>,
    draft: &mut Draft,
) {
    if facts.master.is_none() {
        return;
    }
    let mut wanted = wanted_settings(cell);
    if let Some((name, value)) = temporary {
        own(&mut wanted, name, value);
    }
    let mut change: BTreeMap<String, Option<Value>> = (wanted.iter())
        .filter(|(name, value)| facts.settings.get(*name).map(setting_text) != Some(setting_text(value)))
        .map(|(name, value)| (name.clone(), Some(value.clone())))
        .collect();
    // What we set earlier, and do not want any more, goes back to its default.
    let owned = facts.settings.get(OWNED_SETTINGS).map(setting_text).unwrap_or_default();
    let owned: BTreeSet<&str> = owned.split(',').filter(|name| !name.is_empty()).collect();
    for name in owned {
        if !wanted.contains_key(name) && facts.settings.contains_key(name) {
            change.insert(name.to_owned(), None);
        }
    }
    if !change.is_empty() {
        let names: Vec<&str> = change.keys().map(String::as_str).collect();
        draft.step(
            &key.cluster,
            format!("cluster settings differ: {}", names.join(", ")),
            Action::PutSettings(change),
        );
    }
}
