//! Which parts of a pod template a user may give. Pure.
//!
//! What the operator owns is refused by name. In the pod and in the container `elasticsearch` only listed fields
//! are open, so that a field that Kubernetes gains tomorrow is not open by accident.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use searchcell_crds::{PodTemplate, Reason};
use serde_json::{Map, Value};

use super::{Problems, pod_security, pod_volumes};
use crate::build::merge::key_of;
use crate::build::pod::{CONTAINER, CONTAINER_PORTS, INIT_CONTAINER, OWNED_ENV, OWNED_ENV_PREFIXES};

/// Fields of the pod that a user may set.
const POD_FIELDS: &[&str] = &[
    "affinity",
    "containers",
    "dnsConfig",
    "hostAliases",
    "hostUsers",
    "imagePullSecrets",
    "initContainers",
    "nodeSelector",
    "preemptionPolicy",
    "priorityClassName",
    "readinessGates",
    "runtimeClassName",
    "schedulerName",
    "securityContext",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
];

/// Fields of the container `elasticsearch` that a user may set.
const CONTAINER_FIELDS: &[&str] = &[
    "name",
    "env",
    "imagePullPolicy",
    "lifecycle",
    "securityContext",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "volumeMounts",
];

/// Longest template, in bytes: it is part of every workload, beside the settings.
const MAX_TEMPLATE: usize = 64 << 10;
/// Annotations that used to loosen the confinement of containers, and still do on old kubelets.
const CONFINEMENT: [&str; 2] =
    ["container.apparmor.security.beta.kubernetes.io/", "container.seccomp.security.alpha.kubernetes.io/"];

/// What to write instead of a field that is refused.
fn instead(field: &str) -> &'static str {
    match field {
        "image" => ": set spec.image",
        "resources" => ": set resources of the role",
        "envFrom" => ": list the variables in env",
        "affinity.nodeAffinity" => ": use nodeSelector",
        "readinessProbe" | "startupProbe" | "livenessProbe" => {
            ": the operator watches the readiness of nodes, and a busy node must not be killed"
        }
        "args" | "command" | "workingDir" => ": use settings and jvmOptions of the role",
        _ => ": remove it",
    }
}

/// Finds everything in a pod template that cannot be merged over the operator's.
pub(super) fn check(path: &str, template: &PodTemplate, topology_key: &str, problems: &mut Problems) {
    let value = Value::Object(template.clone());
    if value.to_string().len() > MAX_TEMPLATE {
        problems.invalid(path, "exceeds 64 KiB: shorten it");
    }
    nulls(path, &value, problems);
    match serde_json::from_value::<PodTemplateSpec>(value.clone()).and_then(serde_json::to_value) {
        Ok(known) => unknown(path, &value, &known, problems),
        Err(error) => problems.invalid(path, format!("is not a pod template: correct it ({error})")),
    }
    keyed_lists(path, &value, problems);
    let mut check = Check { topology_key, problems };
    check.template(path, template);
}

/// Names of the variables that a template gives to Elasticsearch.
pub(super) fn variables(template: &PodTemplate) -> BTreeSet<&str> {
    let containers = template.get("spec").and_then(|spec| spec.get("containers")).unwrap_or(&Value::Null);
    (elements(containers, "name").into_iter())
        .filter(|(name, _)| *name == CONTAINER)
        .flat_map(|(_, container)| elements(container.get("env").unwrap_or(&Value::Null), "name"))
        .map(|(name, _)| name)
        .collect()
}

fn nulls(path: &str, value: &Value, problems: &mut Problems) {
    match value {
        Value::Null => {
            problems.invalid(path, "is null: remove it; what the operator sets cannot be taken away")
        }
        Value::Object(fields) => fields.iter().for_each(|(k, v)| nulls(&format!("{path}.{k}"), v, problems)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, v)| nulls(&format!("{path}[{i}]"), v, problems));
        }
        _ => {}
    }
}

/// Reading a template into its types and writing it again loses exactly the fields that no pod has.
fn unknown(path: &str, given: &Value, known: &Value, problems: &mut Problems) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                let path = format!("{path}.{name}");
                match known.get(name) {
                    Some(known) => unknown(&path, value, known, problems),
                    None => problems.invalid(path, "is no field of a pod template: remove it"),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (number, (given, known)) in given.iter().zip(known).enumerate() {
                unknown(&format!("{path}[{number}]"), given, known, problems);
            }
        }
        _ => {}
    }
}

/// Elements of lists that are merged need their key, once.
fn keyed_lists(path: &str, value: &Value, problems: &mut Problems) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                if let (Some(key), Value::Array(items)) = (key_of(name), value) {
                    let mut seen = BTreeSet::new();
                    for (number, item) in items.iter().enumerate() {
                        match item.get(key).map(Value::to_string) {
                            None => {
                                problems.invalid(format!("{path}[{number}]"), format!("has no {key}: add it"))
                            }
                            Some(id) if !seen.insert(id.clone()) => {
                                problems.invalid(
                                    format!("{path}[{number}]"),
                                    format!("repeats {key} {id}: remove it"),
                                );
                            }
                            Some(_) => {}
                        }
                    }
                }
                keyed_lists(&path, value, problems);
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                keyed_lists(&format!("{path}[{number}]"), item, problems);
            }
        }
        _ => {}
    }
}

struct Check<'a> {
    topology_key: &'a str,
    problems: &'a mut Problems,
}

impl Check<'_> {
    fn owned(&mut self, path: impl Into<String>, rest: &str) {
        self.problems.add(Reason::ReservedPodField, path, format!("belongs to the operator{rest}"));
    }

    fn template(&mut self, path: &str, template: &Map<String, Value>) {
        for (name, value) in template {
            let path = format!("{path}.{name}");
            match (name.as_str(), value) {
                ("metadata", Value::Object(fields)) => self.metadata(&path, fields),
                ("spec", Value::Object(fields)) => self.pod(&path, fields),
                _ => {} // no field of a template, or no object: reported already
            }
        }
    }

    fn metadata(&mut self, path: &str, fields: &Map<String, Value>) {
        for (name, value) in fields {
            let path = format!("{path}.{name}");
            match name.as_str() {
                "labels" | "annotations" => {
                    for key in value.as_object().into_iter().flat_map(Map::keys) {
                        if is_owned_key(key) {
                            self.owned(format!("{path}[{key:?}]"), ": choose another key");
                        } else if CONFINEMENT.iter().any(|start| key.starts_with(start)) {
                            self.owned(format!("{path}[{key:?}]"), ": pods run restricted, remove it");
                        }
                    }
                }
                _ => self.owned(path, ": only labels and annotations may be added"),
            }
        }
    }

    fn pod(&mut self, path: &str, fields: &Map<String, Value>) {
        for (name, value) in fields {
            let path = format!("{path}.{name}");
            if !POD_FIELDS.contains(&name.as_str()) {
                self.owned(path, instead(name));
                continue;
            }
            match name.as_str() {
                "affinity" => self.affinity(&path, value),
                "nodeSelector" if value.get(self.topology_key).is_some() => {
                    self.owned(format!("{path}[{:?}]", self.topology_key), ": set spec.zones");
                }
                "hostUsers" if value == &Value::Bool(true) => {
                    self.owned(path, ": set it to false or remove it");
                }
                "securityContext" => pod_security::check(&path, value, self.problems),
                "terminationGracePeriodSeconds" => self.grace(&path, value),
                "volumes" => pod_volumes::volumes(&path, value, self.problems),
                "containers" => self.containers(&path, value, CONTAINER, INIT_CONTAINER),
                "initContainers" => self.containers(&path, value, INIT_CONTAINER, CONTAINER),
                _ => {}
            }
        }
    }

    fn affinity(&mut self, path: &str, value: &Value) {
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        if value.get("nodeAffinity").is_some_and(|node| node.get(required).is_some()) {
            self.owned(format!("{path}.nodeAffinity.{required}"), instead("affinity.nodeAffinity"));
        }
    }

    fn grace(&mut self, path: &str, value: &Value) {
        // A node that is killed while it closes its shards has to recover them when it comes back.
        if !value.as_i64().is_some_and(|seconds| (30..=3600).contains(&seconds)) {
            self.problems
                .invalid(path, "must be from 30 to 3600 seconds: choose such a number, or remove it");
        }
    }

    /// `own` is the operator's container in this list, `other` the name of its container in the other list.
    fn containers(&mut self, path: &str, value: &Value, own: &str, other: &str) {
        for (id, container) in elements(value, "name") {
            let path = format!("{path}[{id}]");
            if id == other || id == INIT_CONTAINER {
                self.owned(path, ": give the container another name");
                continue;
            }
            if let Some(context) = container.get("securityContext") {
                pod_security::check(&format!("{path}.securityContext"), context, self.problems);
            }
            self.handlers(&path, container);
            if id == own {
                self.elasticsearch(&path, container);
            } else {
                self.sidecar(&path, container);
            }
        }
    }

    /// A kubelet asks with the reach of its host: never somebody else than the pod itself.
    fn handlers(&mut self, path: &str, container: &Value) {
        for handler in
            ["lifecycle/postStart", "lifecycle/preStop", "livenessProbe", "readinessProbe", "startupProbe"]
        {
            for kind in ["httpGet", "tcpSocket"] {
                if container.pointer(&format!("/{handler}/{kind}/host")).is_some() {
                    let handler = handler.replace('/', ".");
                    self.owned(
                        format!("{path}.{handler}.{kind}.host"),
                        ": remove it, the pod is asked itself",
                    );
                }
            }
        }
    }

    fn elasticsearch(&mut self, path: &str, container: &Value) {
        for name in container.as_object().into_iter().flat_map(Map::keys) {
            if !CONTAINER_FIELDS.contains(&name.as_str()) {
                self.owned(format!("{path}.{name}"), instead(name));
            }
        }
        for (id, _) in elements(container.get("env").unwrap_or(&Value::Null), "name") {
            let path = format!("{path}.env[{id}]");
            // The image reads variables with dots in their names, and ES_SETTING_*, as settings.
            if id.contains('.') || id.starts_with("ES_SETTING_") {
                self.owned(path, ": use settings of the role");
            } else if OWNED_ENV.contains(&id) || OWNED_ENV_PREFIXES.iter().any(|start| id.starts_with(start))
            {
                self.owned(path, ": use jvmOptions, heap or settings of the role, or remove it");
            }
        }
        pod_volumes::mounts_of_node(path, container, self.problems);
    }

    fn sidecar(&mut self, path: &str, container: &Value) {
        for port in container.get("ports").and_then(Value::as_array).into_iter().flatten() {
            if port.get("hostPort").is_some() {
                self.owned(format!("{path}.ports.hostPort"), ": remove it, because pods run restricted");
            }
            let number = port.get("containerPort").and_then(Value::as_i64);
            if number
                .is_some_and(|number| CONTAINER_PORTS.iter().any(|(_, owned)| i64::from(*owned) == number))
            {
                self.owned(
                    format!("{path}.ports.containerPort"),
                    ": Elasticsearch listens there, use another port",
                );
            }
        }
        pod_volumes::mounts_of_sidecar(path, container, self.problems);
    }
}

/// Labels and annotations of the operator.
fn is_owned_key(key: &str) -> bool {
    key.split_once('/')
        .is_some_and(|(prefix, _)| prefix == "searchcell.dev" || prefix.ends_with(".searchcell.dev"))
        || crate::names::ClusterKey::new("", "", "").labels(None, None).contains_key(key)
}

/// The elements of a list that have a textual key.
fn elements<'a>(list: &'a Value, key: &str) -> Vec<(&'a str, &'a Value)> {
    (list.as_array().into_iter().flatten())
        .filter_map(|item| Some((item.get(key)?.as_str()?, item)))
        .collect()
}
