//! Strategic merge of a partial pod template over a generated one, as Kubernetes merges patches. Pure.
//!
//! Objects are merged field by field; lists whose elements have a name are merged element by element; every other
//! list, and every scalar, is replaced. Directives (`$patch`) and deletion by null do not exist here: validation
//! refuses them, because what the operator generated is not the user's to remove.

use serde_json::Value;

/// The field that identifies the elements of a list, by the name of the list; absent: the list is replaced.
pub fn key_of(list: &str) -> Option<&'static str> {
    match list {
        "containers" | "initContainers" | "volumes" | "env" | "imagePullSecrets" | "resourceClaims" => {
            Some("name")
        }
        "volumeMounts" => Some("mountPath"),
        "volumeDevices" => Some("devicePath"),
        "ports" => Some("containerPort"),
        "hostAliases" => Some("ip"),
        "topologySpreadConstraints" => Some("topologyKey"),
        _ => None,
    }
}

/// Lays `patch` over `base`.
pub fn merge(base: &mut Value, patch: &Value) {
    merge_field("", base, patch);
}

fn merge_field(name: &str, base: &mut Value, patch: &Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (name, value) in patch {
                match base.get_mut(name) {
                    Some(old) => merge_field(name, old, value),
                    None => {
                        base.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(base), Value::Array(patch)) if key_of(name).is_some() => {
            let key = key_of(name).unwrap_or_default();
            for element in patch {
                let same = |old: &&mut Value| old.get(key).is_some() && old.get(key) == element.get(key);
                match base.iter_mut().find(same) {
                    Some(old) => merge_field("", old, element),
                    None => base.push(element.clone()),
                }
            }
        }
        (base, patch) => *base = patch.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(mut base: Value, patch: Value) -> Value {
        merge(&mut base, &patch);
        base
    }

    #[test]
    fn objects_are_merged_field_by_field() {
        assert_eq!(
            merged(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"c": 3, "d": 4}})),
            json!({"a": {"b": 1, "c": 3, "d": 4}})
        );
    }

    #[test]
    fn containers_are_merged_by_name_and_new_ones_follow() {
        let base = json!({"containers": [{"name": "elasticsearch", "image": "i", "env": [{"name": "A", "value": "1"}]}]});
        let patch = json!({"containers": [
            {"name": "sidecar", "image": "s"},
            {"name": "elasticsearch", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}]},
        ]});
        assert_eq!(
            merged(base, patch),
            json!({"containers": [
                {"name": "elasticsearch", "image": "i",
                 "env": [{"name": "A", "value": "3"}, {"name": "B", "value": "2"}]},
                {"name": "sidecar", "image": "s"},
            ]})
        );
    }

    #[test]
    fn mounts_are_merged_by_path_and_constraints_by_key() {
        assert_eq!(
            merged(
                json!({"volumeMounts": [{"name": "a", "mountPath": "/a"}]}),
                json!({"volumeMounts": [{"name": "a", "mountPath": "/b"}, {"mountPath": "/a", "readOnly": true}]})
            ),
            json!({"volumeMounts": [{"name": "a", "mountPath": "/a", "readOnly": true}, {"name": "a", "mountPath": "/b"}]})
        );
        assert_eq!(
            merged(
                json!({"topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1}]}),
                json!({"topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 2}]})
            ),
            json!({"topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 2}]})
        );
    }

    #[test]
    fn other_lists_are_replaced() {
        assert_eq!(
            merged(
                json!({"tolerations": [{"key": "a"}], "args": ["x"]}),
                json!({"tolerations": [{"key": "b"}]})
            ),
            json!({"tolerations": [{"key": "b"}], "args": ["x"]})
        );
    }

    #[test]
    fn an_empty_patch_changes_nothing() {
        let base = json!({"spec": {"containers": [{"name": "a"}], "x": [1]}});
        assert_eq!(merged(base.clone(), json!({})), base);
        assert_eq!(merged(base.clone(), json!({"spec": {}})), base);
        assert_eq!(merged(base.clone(), base.clone()), base);
    }
}
