//! Security contexts in a pod template: pods stay within the Kubernetes pod security standard `restricted`. Pure.

use searchcell_crds::Reason;
use serde_json::{Map, Value};

use super::Problems;

/// Finds what a restricted pod may not ask for, in the security context of a pod or a container.
pub(super) fn check(path: &str, context: &Value, problems: &mut Problems) {
    let Some(fields) = context.as_object() else { return };
    for (name, value) in fields {
        if is_refused(name, value) {
            problems.add(
                Reason::ReservedPodField,
                format!("{path}.{name}"),
                "is not allowed with this value, because pods run restricted: remove it",
            );
        }
    }
}

fn is_refused(name: &str, value: &Value) -> bool {
    let is = |expected: bool| value == &Value::Bool(expected);
    match name {
        "privileged" | "allowPrivilegeEscalation" => is(true),
        "runAsNonRoot" => is(false),
        "runAsUser" => value.as_i64().is_none_or(|id| id <= 0),
        // The image lets its group, root, read what it needs; no right comes with that.
        "runAsGroup" | "fsGroup" => value.as_i64().is_none_or(|id| id < 0),
        "capabilities" => capabilities_are_refused(value),
        "seccompProfile" | "appArmorProfile" => value.get("type").is_none_or(|kind| kind == "Unconfined"),
        "procMount" => value != "Default",
        "seLinuxOptions" => value.as_object().is_none_or(selinux_is_refused),
        "fsGroupChangePolicy" | "seLinuxChangePolicy" | "readOnlyRootFilesystem" => false,
        "supplementalGroups" | "supplementalGroupsPolicy" => false,
        // sysctls and windowsOptions, and whatever Kubernetes comes to have.
        _ => true,
    }
}

/// Nothing may be added, and everything has to be dropped: a list of the user's takes the place of the operator's.
fn capabilities_are_refused(value: &Value) -> bool {
    let adds = value.get("add").is_some_and(|add| add.as_array().is_none_or(|add| !add.is_empty()));
    let keeps = value
        .get("drop")
        .is_some_and(|drop| !drop.as_array().is_some_and(|drop| drop.iter().any(|name| name == "ALL")));
    adds || keeps
}

/// Types of processes in containers. Others, `spc_t` above all, are of the host.
const CONTAINER_TYPES: [&str; 4] =
    ["container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

fn selinux_is_refused(options: &Map<String, Value>) -> bool {
    let is_of_containers = |kind: &Value| kind.as_str().is_some_and(|kind| CONTAINER_TYPES.contains(&kind));
    options.contains_key("user")
        || options.contains_key("role")
        || options.get("type").is_some_and(|kind| !is_of_containers(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn paths(context: Value) -> Vec<String> {
        let mut problems = Problems::default();
        check("s", &context, &mut problems);
        problems.sorted().into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn privileges_are_refused() {
        for (field, value) in [
            ("privileged", json!(true)),
            ("allowPrivilegeEscalation", json!(true)),
            ("runAsNonRoot", json!(false)),
            ("runAsUser", json!(0)),
            ("capabilities", json!({"add": ["SYS_ADMIN"]})),
            ("capabilities", json!({"drop": []})),
            ("capabilities", json!({"drop": ["NET_RAW"]})),
            ("seLinuxOptions", json!({"type": "spc_t"})),
            ("somethingNew", json!(true)),
            ("seccompProfile", json!({"type": "Unconfined"})),
            ("appArmorProfile", json!({"type": "Unconfined"})),
            ("procMount", json!("Unmasked")),
            ("seLinuxOptions", json!({"role": "x"})),
            ("sysctls", json!([{"name": "vm.max_map_count", "value": "1"}])),
            ("windowsOptions", json!({"hostProcess": true})),
        ] {
            assert_eq!(paths(json!({field: value})), [format!("s.{field}")]);
        }
    }

    #[test]
    fn a_stricter_or_different_identity_is_accepted() {
        let context = json!({"runAsUser": 2000, "runAsGroup": 0, "fsGroup": 2000, "runAsNonRoot": true,
            "capabilities": {"drop": ["ALL"]}, "privileged": false, "seccompProfile": {"type": "RuntimeDefault"}});
        assert_eq!(paths(context), Vec::<String>::new());
    }
}
