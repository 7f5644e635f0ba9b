//! How nodes and clients find each other, how many nodes may be disrupted, and the map of a first election. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{metadata, selector, serving_role};
use crate::domain::{IngestScale, ValidCell};
use crate::names::{ClusterKey, HTTP_PORT, INITIAL_MASTER_NODES, Role, TRANSPORT_PORT};

/// The Services of a cluster, sorted by name: `C` for clients, `C-http` for clients that balance by themselves,
/// `C-transport` for the nodes.
pub fn services(cell: &ValidCell, key: &ClusterKey) -> Vec<Service> {
    let serving = key.selector(Some(serving_role(cell)), None);
    let http = || port("http", HTTP_PORT);
    let mut services = vec![
        service(cell, key, key.name(), serving.clone(), http(), ServiceSpec::default()),
        service(cell, key, key.http_service(), serving, http(), headless()),
        service(
            cell,
            key,
            key.transport_service(),
            key.selector(None, None),
            port("transport", TRANSPORT_PORT),
            // Nodes have to find each other before any of them can be ready.
            ServiceSpec { publish_not_ready_addresses: Some(true), ..headless() },
        ),
    ];
    services.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    services
}

fn headless() -> ServiceSpec {
    ServiceSpec { cluster_ip: Some("None".into()), ..Default::default() }
}

fn port(name: &str, port: i32) -> ServicePort {
    ServicePort {
        name: Some(name.into()),
        port,
        protocol: Some("TCP".into()),
        target_port: Some(IntOrString::String(name.into())),
        ..Default::default()
    }
}

fn service(
    cell: &ValidCell,
    key: &ClusterKey,
    name: String,
    selector: BTreeMap<String, String>,
    port: ServicePort,
    base: ServiceSpec,
) -> Service {
    Service {
        metadata: metadata(cell, key, name, key.labels(None, None)),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            selector: Some(selector),
            ports: Some(vec![port]),
            ..base
        }),
        ..Default::default()
    }
}

/// One budget per role that can have more than one node: a budget over a single pod would only be in the way of a
/// drain of its Kubernetes node. Masters and data nodes may be evicted only while the cluster `is_whole`: a pod is
/// ready again before its shards are. Ingest nodes hold nothing, and may always go one at a time.
pub fn disruption_budgets(cell: &ValidCell, key: &ClusterKey, is_whole: bool) -> Vec<PodDisruptionBudget> {
    let zones = i32::try_from(cell.zones.len()).unwrap_or(i32::MAX);
    let most_nodes = |role| match role {
        Role::Master => cell.master_count,
        Role::Data => cell.data_per_zone.saturating_mul(zones),
        Role::Ingest => match cell.ingest {
            Some((IngestScale::Fixed(replicas), _)) => replicas,
            Some((IngestScale::Autoscaled { max, .. }, _)) => max,
            None => 0,
        },
    };
    let allowed = |role| i32::from(is_whole || role == Role::Ingest);
    let roles = Role::ALL.into_iter().filter(|role| most_nodes(*role) > 1);
    roles.map(|role| budget(cell, key, role, allowed(role))).collect()
}

fn budget(cell: &ValidCell, key: &ClusterKey, role: Role, max_unavailable: i32) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(cell, key, key.disruption_budget(role), key.labels(Some(role), None)),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(max_unavailable)),
            selector: Some(selector(key.selector(Some(role), None))),
            // A pod that is not ready protects nothing, and must not hold up the drain of a broken node.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The map that lets a cluster form, once. It is never marked immutable: kubelets go on serving immutable maps to
/// restarting containers after the map is deleted.
pub fn bootstrap_config_map(
    cell: &ValidCell,
    key: &ClusterKey,
    initial_master_nodes: &[String],
) -> ConfigMap {
    ConfigMap {
        metadata: metadata(cell, key, key.bootstrap_config_map(), key.labels(Some(Role::Master), None)),
        data: Some(BTreeMap::from([(INITIAL_MASTER_NODES.to_owned(), initial_master_nodes.join(","))])),
        ..Default::default()
    }
}
