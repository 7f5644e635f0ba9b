//! The nodes of each role: how many, with what volume, memory, options and settings. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use searchcell_crds::{IngestNodes, NodeOptions, SearchCellSpec, Settings, Storage};
use serde_json::Value;

use super::quantity::Amount;
use super::{Problems, jvm, pod_template, settings};
use crate::domain::{IngestScale, ValidRole, ValidStorage};
use crate::names::Role;

const MIB: i64 = 1 << 20;
const TIB: i64 = 1 << 40;
/// Less than this, Elasticsearch does not start.
const MIN_HEAP: i64 = 64 * MIB;
const MAX_HEAP: i64 = TIB;
const MIN_VOLUME: i64 = 64 * MIB;
const MAX_VOLUME: i64 = 1024 * TIB;
const MAX_JVM_OPTIONS: usize = 32;
const MAX_RESOURCES: usize = 8;
/// Settings travel as an annotation of pods; all annotations of an object have 256 KiB together.
const MAX_SETTINGS: usize = 128 << 10;
/// Variables of every node that settings may name.
const FREE_VARIABLES: [&str; 2] = ["POD_NAME", "POD_IP"];

/// The settings of one role. `common` are those for all nodes.
pub(super) fn role(
    role: Role,
    options: &NodeOptions,
    volume: Option<&Storage>,
    spec: &SearchCellSpec,
    common: &BTreeMap<String, Value>,
    problems: &mut Problems,
) -> ValidRole {
    let path = format!("spec.nodes.{role}");
    let (requests, limits) = resources(&path, options, problems);
    let heap_bytes = options.heap.as_ref().and_then(|heap| heap_bytes(&path, heap, &limits, problems));

    if options.jvm_options.len() > MAX_JVM_OPTIONS {
        problems.invalid(format!("{path}.jvmOptions"), "has more than 32 options: remove some");
    }
    for (number, option) in options.jvm_options.iter().enumerate() {
        if let Some(message) = jvm::problem(option) {
            problems.invalid(format!("{path}.jvmOptions[{number}]"), message);
        }
    }

    let mut all_settings = common.clone();
    let own = settings::of_cluster(&format!("{path}.settings"), &options.settings, problems);
    all_settings.extend(own.clone());
    if settings::length(&own) <= MAX_SETTINGS && settings::length(&all_settings) > MAX_SETTINGS {
        problems
            .invalid(format!("{path}.settings"), "exceed 128 KiB together with spec.settings: shorten them");
    }
    let pod_template = options.pod_template.as_ref().filter(|template| !template.is_empty());
    if let Some(template) = pod_template {
        let path = format!("{path}.podTemplate");
        pod_template::check(&path, template, &spec.topology_key, problems);
    }
    let mut variables = pod_template.map(pod_template::variables).unwrap_or_default();
    variables.extend(FREE_VARIABLES);
    variable_references(role, &own, &all_settings, &variables, problems);

    ValidRole {
        requests,
        limits,
        heap_bytes,
        jvm_options: options.jvm_options.clone(),
        settings: all_settings,
        pod_template: pod_template.map(|template: &Settings| Value::Object(template.clone())),
        storage: volume.map(|volume| storage(&format!("{path}.storage"), volume, problems)),
    }
}

fn variable_references(
    role: Role,
    own: &BTreeMap<String, Value>,
    all: &BTreeMap<String, Value>,
    known: &BTreeSet<&str>,
    problems: &mut Problems,
) {
    for (key, name) in settings::references(all, known) {
        let path = if own.contains_key(key) {
            format!("spec.nodes.{role}.settings")
        } else {
            "spec.settings".into()
        };
        problems.invalid(
            format!("{path}[{key:?}]"),
            format!(
                "names the variable {name:?}, which the {role} nodes are not given: add it to env of the container \
                 elasticsearch in spec.nodes.{role}.podTemplate, or write the value itself"
            ),
        );
    }
}

/// How many ingest nodes there are.
pub(super) fn ingest_scale(ingest: &IngestNodes, problems: &mut Problems) -> IngestScale {
    let path = "spec.nodes.ingest";
    let count = |field: &str, count: i32, problems: &mut Problems| {
        if !(1..=1000).contains(&count) {
            problems.invalid(format!("{path}.{field}"), "must be from 1 to 1000: choose such a number");
        }
    };
    match (ingest.replicas, &ingest.autoscaling) {
        (Some(replicas), None) => {
            count("replicas", replicas, problems);
            IngestScale::Fixed(replicas)
        }
        (None, Some(auto)) => {
            let (min, max) = (auto.min_replicas, auto.max_replicas);
            count("autoscaling.minReplicas", min, problems);
            count("autoscaling.maxReplicas", max, problems);
            if min > max {
                problems.invalid(
                    format!("{path}.autoscaling.minReplicas"),
                    "exceeds maxReplicas: lower it or raise maxReplicas",
                );
            }
            let cpu_percent = auto.target_cpu_utilization_percentage;
            if !(1..=100).contains(&cpu_percent) {
                problems.invalid(
                    format!("{path}.autoscaling.targetCPUUtilizationPercentage"),
                    "must be from 1 to 100: choose such a number, for example 70",
                );
            }
            if !ingest.options.resources.as_ref().is_some_and(|r| r.requests.contains_key("cpu")) {
                problems.invalid(
                    format!("{path}.autoscaling"),
                    "needs resources.requests.cpu, of which it takes its percentage: add it, or use replicas",
                );
            }
            IngestScale::Autoscaled { min, max, cpu_percent }
        }
        (replicas, _) => {
            problems.invalid(path, "needs exactly one of replicas and autoscaling: remove one or add one");
            IngestScale::Fixed(replicas.unwrap_or(1))
        }
    }
}

type Amounts = BTreeMap<String, Quantity>;

fn resources(path: &str, options: &NodeOptions, problems: &mut Problems) -> (Amounts, Amounts) {
    let Some(resources) = &options.resources else {
        return Default::default();
    };
    for (kind, amounts) in [("requests", &resources.requests), ("limits", &resources.limits)] {
        let path = format!("{path}.resources.{kind}");
        if amounts.len() > MAX_RESOURCES {
            problems.invalid(&path, "names more than 8 resources: remove some");
        }
        for (name, amount) in amounts {
            if !super::is_label_key(name) {
                problems.invalid(
                    format!("{path}[{name:?}]"),
                    "is not the name of a resource: write cpu or memory",
                );
            }
            if !Amount::of(amount).is_some_and(|amount| amount.is_positive() && amount.units().is_some()) {
                let message = "is not a positive quantity: write it like cpu: \"2\" or memory: 4Gi";
                problems.invalid(format!("{path}[{name:?}]"), message);
            }
        }
    }
    for (name, request) in &resources.requests {
        let limit = resources.limits.get(name).and_then(Amount::of);
        if let (Some(request), Some(limit)) = (Amount::of(request), limit)
            && request > limit
        {
            problems.invalid(
                format!("{path}.resources.requests[{name:?}]"),
                "exceeds the limit: lower the request or raise the limit",
            );
        }
    }
    (resources.requests.clone(), resources.limits.clone())
}

fn heap_bytes(path: &str, heap: &Quantity, limits: &Amounts, problems: &mut Problems) -> Option<i64> {
    let path = format!("{path}.heap");
    let Some(bytes) = Amount::of(heap).and_then(Amount::units) else {
        problems.invalid(path, "is not a quantity: write it like 30Gi");
        return None;
    };
    if !(MIN_HEAP..=MAX_HEAP).contains(&bytes) {
        problems.invalid(&path, "must be from 64Mi to 1Ti: choose such a size, or remove it");
    }
    // More than half of the limit is unwise (Lucene lives off the page cache), and still the user's decision.
    if limits.get("memory").and_then(Amount::of).and_then(Amount::units).is_some_and(|limit| bytes >= limit) {
        problems.invalid(
            path,
            "must be less than resources.limits.memory, by custom half of it: lower heap or raise the limit",
        );
    }
    Some(bytes)
}

fn storage(path: &str, storage: &Storage, problems: &mut Problems) -> ValidStorage {
    let bytes = Amount::of(&storage.size).and_then(Amount::units);
    if !bytes.is_some_and(|bytes| (MIN_VOLUME..=MAX_VOLUME).contains(&bytes)) {
        problems.invalid(format!("{path}.size"), "must be a quantity from 64Mi to 1Pi: write it like 100Gi");
    }
    if let Some(class) = &storage.storage_class_name
        && !(class.len() <= 253 && class.split('.').all(|part| super::is_dns_label(part, 253)))
    {
        problems.invalid(
            format!("{path}.storageClassName"),
            "is not the name of a StorageClass: name one, or remove it to have the default class",
        );
    }
    ValidStorage { size: storage.size.clone(), storage_class_name: storage.storage_class_name.clone() }
}
