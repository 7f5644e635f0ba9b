//! Managed fields: who owns which field of an object, and what a forced server-side apply makes of it. Lists are
//! atomic here, which is enough for what the operator applies.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use serde_json::{Map, Value, json};

/// How a manager came to own fields: the same manager's two operations are two owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

type Path = Vec<String>;
type Owner = (String, Operation, Option<String>);

/// The field sets of one object, by owner.
#[derive(Clone, Debug, Default)]
pub struct FieldSets(BTreeMap<Owner, BTreeSet<Path>>);

impl FieldSets {
    /// A POST: the sender owns all that it sent.
    pub fn update(&mut self, manager: &str, operation: Operation, subresource: Option<&str>, sent: &Value) {
        let owner = (manager.to_owned(), operation, subresource.map(str::to_owned));
        self.0.entry(owner).or_default().extend(leaves(sent));
    }

    /// An update: whoever changes a value takes it over.
    pub fn changed(&mut self, manager: &str, subresource: Option<&str>, old: &Value, new: &Value) {
        let changed: BTreeSet<Path> = (leaves(new).into_iter().chain(leaves(old)))
            .filter(|path| lookup(old, path) != lookup(new, path))
            .filter(|path| path.first().is_none_or(|first| first != "status"))
            .collect();
        if changed.is_empty() {
            return;
        }
        for set in self.0.values_mut() {
            set.retain(|path| !changed.contains(path));
        }
        let present = changed.into_iter().filter(|path| lookup(new, path).is_some());
        let owner = (manager.to_owned(), Operation::Update, subresource.map(str::to_owned));
        self.0.entry(owner).or_default().extend(present);
        self.0.retain(|_, set| !set.is_empty());
    }

    /// Forced server-side apply: takes over what it sends, and removes what it sent before, sends no more, and
    /// nobody else owns.
    pub fn apply(&mut self, manager: &str, live: &Value, sent: &Value) -> Value {
        let owner = (manager.to_owned(), Operation::Apply, None);
        let wanted: BTreeSet<Path> = leaves(sent).into_iter().collect();
        let before = self.0.remove(&owner).unwrap_or_default();
        let mut merged = live.clone();
        for path in before.difference(&wanted) {
            if !self.0.values().any(|set| set.contains(path)) {
                remove(&mut merged, path);
            }
        }
        for path in &wanted {
            let value = lookup(sent, path).cloned().unwrap_or(Value::Null);
            if lookup(live, path) != Some(&value) {
                for set in self.0.values_mut() {
                    set.remove(path);
                }
            }
            insert(&mut merged, path, value);
        }
        self.0.insert(owner, wanted);
        self.0.retain(|_, set| !set.is_empty());
        merged
    }

    /// A manager gives a field up, by whichever operation.
    pub fn release(&mut self, manager: &str, path: &[&str]) {
        let path: Path = path.iter().map(|&part| part.to_owned()).collect();
        for (_, set) in self.0.iter_mut().filter(|((name, _, _), _)| name == manager) {
            set.remove(&path);
        }
    }

    /// Managers that own a field.
    pub fn owners(&self, path: &[&str]) -> Vec<String> {
        let path: Path = path.iter().map(|&part| part.to_owned()).collect();
        self.0.iter().filter(|(_, set)| set.contains(&path)).map(|((name, _, _), _)| name.clone()).collect()
    }

    /// `metadata.managedFields`, cut down to the part that anybody here reads.
    pub fn managed_fields(&self) -> Vec<ManagedFieldsEntry> {
        let replicas: Path = vec!["spec".to_owned(), "replicas".to_owned()];
        self.0
            .iter()
            .map(|((manager, operation, subresource), set)| {
                let mut spec = Map::new();
                if set.contains(&replicas) {
                    spec.insert("f:replicas".to_owned(), json!({}));
                }
                if set.iter().any(|path| path.len() > 1 && path[1] == "template") {
                    spec.insert("f:template".to_owned(), json!({}));
                }
                ManagedFieldsEntry {
                    api_version: Some("apps/v1".to_owned()),
                    fields_type: Some("FieldsV1".to_owned()),
                    fields_v1: Some(FieldsV1(json!({"f:spec": spec}))),
                    manager: Some(manager.clone()),
                    operation: Some(format!("{operation:?}")),
                    subresource: subresource.clone(),
                    time: None,
                }
            })
            .collect()
    }
}

/// Paths of all values that are not objects with entries; `metadata` only as far as users own it.
fn leaves(value: &Value) -> Vec<Path> {
    fn walk(value: &Value, path: &mut Path, out: &mut Vec<Path>) {
        match value {
            Value::Null => {}
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    path.push(key.clone());
                    walk(value, path, out);
                    path.pop();
                }
            }
            _ => out.push(path.clone()),
        }
    }
    let mut out = Vec::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        match key.as_str() {
            "apiVersion" | "kind" | "status" => {}
            "metadata" => {
                for part in ["labels", "annotations", "ownerReferences"] {
                    walk(&value[part], &mut vec!["metadata".to_owned(), part.to_owned()], &mut out);
                }
            }
            _ => walk(value, &mut vec![key.clone()], &mut out),
        }
    }
    out
}

fn lookup<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

fn insert(target: &mut Value, path: &[String], value: Value) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut at = target;
    for key in parents {
        if !at[key].is_object() {
            at[key] = json!({});
        }
        at = &mut at[key];
    }
    at[last] = value;
}

fn remove(target: &mut Value, path: &[String]) {
    let Some((last, parents)) = path.split_last() else { return };
    let parent = parents.iter().try_fold(target, |value, key| value.get_mut(key));
    if let Some(Value::Object(map)) = parent {
        map.remove(last);
    }
}
