//! Faults of Kubernetes nodes. Node `n` of the local cluster is the only one of zone `n`.

use std::time::Duration;

use crate::{Env, say, shell, skipped};

/// `cluster node VERB N [PROCESS]`; false where this kind of cluster cannot do it.
pub async fn node(env: &Env, verb: &str, n: usize, process: Option<&str>) -> bool {
    machine(env, verb, &n.to_string(), process).await
}

/// The same for a process of the control plane: kill, start, stop, cont.
pub async fn control_plane(env: &Env, verb: &str, process: &str) -> bool {
    machine(env, verb, "cp", Some(process)).await
}

async fn machine(env: &Env, verb: &str, name: &str, process: Option<&str>) -> bool {
    let mut arguments = vec!["node", verb, name];
    arguments.extend(process);
    say(format!("node {verb} {name} {}", process.unwrap_or_default()));
    let output = shell::run(env.cluster_script(), &arguments, None, Duration::from_secs(120)).await.unwrap();
    if output.code == 3 {
        skipped(&format!("from here on: {}", output.stderr.trim()));
        return false;
    }
    output.ok(&format!("cluster {}", arguments.join(" ")));
    true
}
