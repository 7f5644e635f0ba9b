//! Compares what ought to be with what is: finds the live object of a name, tells ours from somebody else's, and
//! whether an apply would change anything. Pure.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

use crate::names::FIELD_MANAGER;
use crate::snapshot::is_owned_by;
use crate::step::{Kind, Target};

/// The live object of a name.
#[derive(Debug, PartialEq)]
pub enum Live<'a, T> {
    /// There is none (in the cache).
    Missing,
    /// There is one, and the SearchCell controls it.
    Ours(&'a T),
    /// There is one, and somebody else does: a former SearchCell of the same name, or a person.
    NotOurs,
    /// It is ours, and on its way out: wait until it is gone.
    Terminating,
}

impl<'a, T> Live<'a, T> {
    /// The object, when it is ours and there to stay.
    pub fn ours(&self) -> Option<&'a T> {
        match self {
            Live::Ours(object) => Some(object),
            _ => None,
        }
    }
}

/// Finds the object called `name` among observed ones.
pub fn find<'a, T>(
    objects: &'a [T],
    meta: impl Fn(&T) -> &ObjectMeta,
    name: &str,
    owner_uid: &str,
) -> Live<'a, T> {
    let Some(object) = objects.iter().find(|object| meta(object).name.as_deref() == Some(name)) else {
        return Live::Missing;
    };
    match meta(object) {
        meta if !is_owned_by(meta, owner_uid) => Live::NotOurs,
        meta if meta.deletion_timestamp.is_some() => Live::Terminating,
        _ => Live::Ours(object),
    }
}

/// A target that is replaced only if it is still the same object.
pub fn target(kind: Kind, meta: &ObjectMeta) -> Target {
    Target {
        kind,
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: None,
    }
}

/// A target that is changed only if nobody changed it since.
pub fn exact_target(kind: Kind, meta: &ObjectMeta) -> Target {
    Target { resource_version: meta.resource_version.clone(), ..target(kind, meta) }
}

/// True when applying `desired` would change `live`: something that we set is missing or different there. What the
/// API server defaulted, and what others added, does not count.
pub fn differs<T: Serialize>(desired: &T, live: &T) -> bool {
    match (serde_json::to_value(desired), serde_json::to_value(live)) {
        (Ok(desired), Ok(live)) => !is_subset(&desired, &live),
        // Objects of the API always serialise; if one did not, applying it again is the safe answer.
        _ => true,
    }
}

fn is_subset(desired: &Value, live: &Value) -> bool {
    match (desired, live) {
        (Value::Object(desired), Value::Object(live)) => {
            desired.iter().all(|(key, value)| match live.get(key) {
                Some(found) => is_subset(value, found),
                None => is_empty(value),
            })
        }
        (Value::Array(desired), Value::Array(live)) => {
            desired.len() == live.len()
                && desired.iter().zip(live).all(|(desired, live)| is_subset(desired, live))
        }
        _ => desired == live,
    }
}

/// The API server drops what is empty.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// True while our field manager owns `spec.replicas` of a Deployment, by whichever operation.
pub fn owns_replicas(deployment: &Deployment) -> bool {
    (deployment.metadata.managed_fields.iter().flatten())
        .filter(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
        .filter_map(|entry| entry.fields_v1.as_ref())
        .any(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_and_additions_of_others_are_no_drift() {
        let desired = json!({"spec": {"ports": [{"port": 9200}], "clusterIP": null, "selector": {}}});
        let live = json!({"spec": {"ports": [{"port": 9200, "protocol": "TCP"}], "type": "ClusterIP"}, "status": {}});
        assert!(!differs(&desired, &live));
    }

    #[test]
    fn a_changed_missing_or_surplus_entry_is_drift() {
        let desired = json!({"spec": {"ports": [{"port": 9200}]}});
        for live in [
            json!({"spec": {"ports": [{"port": 9201}]}}),
            json!({"spec": {"ports": []}}),
            json!({"spec": {"ports": [{"port": 9200}, {"port": 1}]}}),
            json!({"spec": {}}),
        ] {
            assert!(differs(&desired, &live), "{live}");
        }
    }

    #[test]
    fn ownership_of_replicas_is_read_from_managed_fields() {
        let with = |manager: &str, fields: Value| -> Deployment {
            serde_json::from_value(json!({"metadata": {"managedFields": [
                {"manager": manager, "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": fields}
            ]}}))
            .unwrap()
        };
        assert!(owns_replicas(&with(FIELD_MANAGER, json!({"f:spec": {"f:replicas": {}}}))));
        assert!(!owns_replicas(&with(FIELD_MANAGER, json!({"f:spec": {"f:template": {}}}))));
        assert!(!owns_replicas(&with("kube-controller-manager", json!({"f:spec": {"f:replicas": {}}}))));
    }
}
