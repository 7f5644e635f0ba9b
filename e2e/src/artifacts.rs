//! The evidence of a failure, in one folder: logs, events, objects, and what Elasticsearch says about itself.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::Method;

use crate::objects::{items, text};
use crate::{Elastic, Env, shell};

/// Kinds that are written down, one file each.
const KINDS: [&str; 15] = [
    "searchcells",
    "indexplacements",
    "statefulsets",
    "deployments",
    "replicasets",
    "horizontalpodautoscalers",
    "poddisruptionbudgets",
    "networkpolicies",
    "pods",
    "services",
    "endpointslices",
    "configmaps",
    "persistentvolumeclaims",
    "leases",
    "events",
];

/// What Elasticsearch is asked.
const QUESTIONS: [(&str, &str); 8] = [
    ("health", "/_cluster/health?level=shards&timeout=5s"),
    ("nodes", "/_cat/nodes?v&h=name,id,ip,node.role,master,version,uptime,heap.percent,attr.zone"),
    ("nodeattrs", "/_cat/nodeattrs?v"),
    ("shards", "/_cat/shards?v&h=index,shard,prirep,state,docs,node,unassigned.reason"),
    ("explain", "/_cluster/allocation/explain?include_yes_decisions=false"),
    ("settings", "/_cluster/settings?flat_settings=true"),
    ("pending", "/_cluster/pending_tasks"),
    ("state", "/_cluster/state?pretty"),
];

/// Writes everything about a namespace into `folder`. Never fails: what cannot be had is missing.
pub async fn collect(env: &Env, namespace: &str, folder: &Path) {
    let _ = std::fs::create_dir_all(folder);
    let limit = Duration::from_secs(30);
    let kubectl = async |arguments: &[&str], file: &str| {
        let output = shell::kubectl(arguments, None, limit).await;
        let _ = std::fs::write(folder.join(file), output.stdout + &output.stderr);
    };
    for kind in KINDS {
        kubectl(&["get", kind, "-n", namespace, "-o", "yaml"], &format!("{kind}.yaml")).await;
    }
    let events = ["get", "events", "-n", namespace, "--sort-by=.lastTimestamp"];
    kubectl(&events, "events.txt").await;
    kubectl(&["get", "searchcells,indexplacements", "-n", namespace, "-o", "wide"], "overview.txt").await;
    kubectl(&["get", "pods", "-n", namespace, "-o", "wide"], "pods.txt").await;
    kubectl(&["describe", "pods", "-n", namespace], "pods-described.txt").await;
    kubectl(&["get", "nodes", "-o", "yaml"], "nodes.yaml").await;
    kubectl(
        &["logs", "-n", crate::operator::SYSTEM_NAMESPACE, "deployment/searchcell-operator"],
        "operator-deployed.log",
    )
    .await;

    let pods = shell::kubectl(&["get", "pods", "-n", namespace, "-o", "name"], None, limit).await;
    for pod in pods.stdout.lines() {
        let name = pod.trim_start_matches("pod/");
        let mut arguments = vec!["logs", "-n", namespace, pod, "--all-containers", "--prefix", "--tail=5000"];
        kubectl(&arguments, &format!("pod-{name}.log")).await;
        arguments.push("--previous");
        let previous = shell::kubectl(&arguments, None, limit).await;
        if previous.code == 0 {
            let _ = std::fs::write(folder.join(format!("pod-{name}.previous.log")), previous.stdout);
        }
    }
    elasticsearch(env, namespace, folder).await;

    let components = folder.join("components").display().to_string();
    let _ = shell::run(env.cluster_script(), &["logs", &components], None, Duration::from_secs(60)).await;
}

async fn elasticsearch(env: &Env, namespace: &str, folder: &Path) {
    let objects = crate::objects::Objects::new(env.client.clone(), namespace);
    for cell in objects.list("searchcells", "").await.unwrap_or_default() {
        for cluster in items(&cell, "/spec/clusters") {
            let service = format!("{}-{}", text(&cell, "/metadata/name"), text(cluster, "/name"));
            let elastic = Elastic::new(namespace, &service);
            for (name, path) in QUESTIONS {
                let limit = Duration::from_secs(8);
                let answer = elastic.request(Method::GET, path, "", Bytes::new(), limit).await;
                let (answer, unreachable) = match answer {
                    Ok((status, body)) => (format!("{status}\n{}", String::from_utf8_lossy(&body)), false),
                    Err(error) => (error, true),
                };
                let _ = std::fs::write(folder.join(format!("elasticsearch-{service}-{name}.txt")), answer);
                if unreachable {
                    break;
                }
            }
        }
    }
}
