//! What a ServiceAccount is granted by the shipped manifests, and what it asked for by the API server's audit log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::audit::Request;
use crate::objects::{items, text};

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// API group; empty: core.
    pub group: String,
    /// Plural name, with the subresource: `searchcells/status`.
    pub resource: String,
    /// get, list, watch, create, update, patch, delete, deletecollection.
    pub verb: String,
}

impl Right {
    /// From its three parts.
    pub fn new(group: &str, resource: &str, verb: &str) -> Self {
        Self { group: group.to_owned(), resource: resource.to_owned(), verb: verb.to_owned() }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.group.is_empty() { "" } else { "." };
        write!(f, "{} {}{dot}{}", self.verb, self.resource, self.group)
    }
}

/// Everything that the Roles among the objects grant; wildcards are granted to nobody.
pub fn granted(objects: &[Value]) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for role in objects.iter().filter(|object| ["Role", "ClusterRole"].contains(&text(object, "/kind"))) {
        for rule in items(role, "/rules") {
            let words = |field: &str| -> Vec<String> {
                let words = items(rule, field).iter().filter_map(Value::as_str);
                words.map(str::to_owned).collect()
            };
            for group in words("/apiGroups") {
                for resource in words("/resources") {
                    for verb in words("/verbs") {
                        let right = Right::new(&group, &resource, &verb);
                        assert!(!right.to_string().contains('*'), "a wildcard in {role:#}");
                        rights.insert(right);
                    }
                }
            }
        }
    }
    rights
}

/// What was asked for and allowed, and how often.
pub fn used(requests: &[Request]) -> BTreeMap<Right, usize> {
    let mut rights = BTreeMap::new();
    for request in requests.iter().filter(|request| !request.resource.is_empty() && !request.forbidden) {
        *rights.entry(Right::new(&request.group, &request.resource, &request.verb)).or_default() += 1;
    }
    rights
}

/// What was asked for and refused for want of a right.
pub fn refused(requests: &[Request]) -> Vec<String> {
    let mut refused: Vec<String> = (requests.iter().filter(|request| request.forbidden))
        .map(|request| {
            let right = Right::new(&request.group, &request.resource, &request.verb);
            format!("{right} {}/{}", request.namespace, request.name)
        })
        .collect();
    refused.sort();
    refused.dedup();
    refused
}
