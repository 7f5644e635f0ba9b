//! Who may reach the nodes of a cluster: one NetworkPolicy for all of them. Pure.
//!
//! Transport is for the nodes of the same cluster, HTTP for the cell, for routers, and for namespaces that an
//! administrator has labelled; the operator may reach both. Everything else is dropped, on every port: a sidecar that
//! wants to be reached needs a policy of its owner's, because policies add up. Probes come from the Kubernetes node of
//! the pod, which no policy can keep out. What nodes may reach is not restricted: snapshots and remote clusters are
//! anywhere.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{metadata, selector};
use crate::domain::ValidCell;
use crate::names::{
    ClusterKey, HTTP_PORT, LABEL_APP, LABEL_CELL, LABEL_NAMESPACE_NAME, LABEL_ROUTER, OPERATOR_APP,
    TRANSPORT_PORT, http_access_label,
};

/// The policy of a cluster. `operator_namespace` is where the operator's pods run.
pub fn network_policy(cell: &ValidCell, key: &ClusterKey, operator_namespace: &str) -> NetworkPolicy {
    let transport = vec![pods(key.selector(None, None)), operator(operator_namespace)];
    let http = vec![
        pods(labels(LABEL_CELL, &key.cell)),
        pods(labels(LABEL_ROUTER, "true")),
        namespaces(labels(&http_access_label(&key.namespace), "true")),
        operator(operator_namespace),
    ];
    NetworkPolicy {
        metadata: metadata(cell, key, key.network_policy(), key.labels(None, None)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(key.selector(None, None))),
            policy_types: Some(vec!["Ingress".into()]),
            ingress: Some(vec![allow(transport, TRANSPORT_PORT), allow(http, HTTP_PORT)]),
            ..Default::default()
        }),
    }
}

fn labels(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}

/// Pods of the cell's own namespace: who may make pods there is trusted with the cell anyway.
fn pods(labels: BTreeMap<String, String>) -> NetworkPolicyPeer {
    NetworkPolicyPeer { pod_selector: Some(selector(labels)), ..Default::default() }
}

/// All pods of namespaces. Only who administers the Kubernetes cluster labels namespaces.
fn namespaces(labels: BTreeMap<String, String>) -> NetworkPolicyPeer {
    NetworkPolicyPeer { namespace_selector: Some(selector(labels)), ..Default::default() }
}

/// The operator's pods, in their namespace only: anybody may put its label on a pod of their own.
fn operator(namespace: &str) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(selector(labels(LABEL_NAMESPACE_NAME, namespace))),
        pod_selector: Some(selector(labels(LABEL_APP, OPERATOR_APP))),
        ..Default::default()
    }
}

fn allow(from: Vec<NetworkPolicyPeer>, port: i32) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        from: Some(from),
        ports: Some(vec![NetworkPolicyPort {
            protocol: Some("TCP".into()),
            port: Some(IntOrString::Int(port)),
            ..Default::default()
        }]),
    }
}
