//! The pod of a node. Pure.
//!
//! The whole configuration lies in annotations of the pod template, so that a template revision is complete: a pod
//! that is evicted in the middle of a rollout comes back exactly as it was.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapKeySelector, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction,
    ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements,
    SeccompProfile, SecurityContext, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::volumes::{self, NEW_CERTIFICATES, NEW_REALM, VOLUME_CERTIFICATES, VOLUME_REALM};
use super::{config, input_hash, merge, serving_role, stop, workloads};
use crate::domain::{ValidCell, ValidRole, ValidZone};
use crate::names::{
    ANNOTATION_ELASTICSEARCH_YML, ANNOTATION_INPUT_HASH, ANNOTATION_JVM_OPTIONS, ANNOTATION_KEYSTORE,
    ANNOTATION_RESTARTED_AT, ClusterKey, HTTP_PORT, INITIAL_MASTER_NODES, READINESS_PORT, Role,
    TRANSPORT_PORT,
};
use crate::security::keystore::{KEYSTORE_DIRECTORY, KEYSTORE_FILE};
use crate::security::leaf::SHARED;
use crate::security::{CERTIFICATES_DIRECTORY, REALM_DIRECTORY};

/// The container that runs Elasticsearch.
pub const CONTAINER: &str = "elasticsearch";
/// The init container that assembles the configuration folder.
pub const INIT_CONTAINER: &str = "configure";
/// Where the image has Elasticsearch.
pub const HOME: &str = "/usr/share/elasticsearch";
/// Variables that would go around what the operator sets.
pub const OWNED_ENV: [&str; 12] = [
    "POD_NAME",
    "POD_IP",
    "HOSTNAME",
    "HOME",
    "PATH",
    "ENV",
    "IFS",
    "PS4",
    "SHELLOPTS",
    "CDPATH",
    "LIBFFI_TMPDIR",
    "PROMPT_COMMAND",
];
/// Beginnings of such variables: of Elasticsearch and its image, of Java, of the shell, of the dynamic linker.
pub const OWNED_ENV_PREFIXES: [&str; 12] = [
    "ES_",
    "CLI_",
    "ELASTIC_",
    "KEYSTORE_",
    "JAVA_",
    "JDK_",
    "_JAVA_",
    "JVM_",
    "LD_",
    "BASH",
    "GCONV_",
    "GLIBC_",
];
/// Ports of the container.
pub const CONTAINER_PORTS: [(&str, i32); 3] =
    [("http", HTTP_PORT), ("transport", TRANSPORT_PORT), ("readiness", READINESS_PORT)];

/// Elasticsearch itself would refuse to start for the same reason, but only its log would say so.
const CONFIGURE: &str = "set -eu
maps=$(cat /proc/sys/vm/max_map_count)
if [ \"$maps\" -lt 262144 ] && ! grep -q '^node.store.allow_mmap: false$' /mnt/settings/elasticsearch.yml; then
  echo \"vm.max_map_count of this Kubernetes node is $maps, and Elasticsearch needs 262144: raise it, or set \
node.store.allow_mmap: false in spec.settings\" >/dev/termination-log
  exit 78
fi
cp -R /usr/share/elasticsearch/config/. /mnt/config/
mkdir -p /mnt/config/jvm.options.d
cp /mnt/settings/elasticsearch.yml /mnt/config/elasticsearch.yml
cp /mnt/settings/searchcell.options /mnt/config/jvm.options.d/searchcell.options
";

/// Files of the realm that are links into the directory where it is mounted.
const REALM_FILES: [&str; 3] = ["users", "users_roles", "roles.yml"];

/// Time to close shards and hand over; by custom a second or two.
const GRACE_SECONDS: i64 = 120;
const USER: i64 = 1000;

/// The template of the pods of one workload, with the user's template merged over it.
pub(super) fn template(
    cell: &ValidCell,
    key: &ClusterKey,
    role: Role,
    valid: &ValidRole,
    zone: Option<&ValidZone>,
) -> PodTemplateSpec {
    let mut annotations = BTreeMap::from([
        (ANNOTATION_INPUT_HASH.to_owned(), input_hash(cell, role, zone)),
        (ANNOTATION_ELASTICSEARCH_YML.to_owned(), config::elasticsearch_yml(cell, key, role, valid, zone)),
        (ANNOTATION_JVM_OPTIONS.to_owned(), config::jvm_options(valid)),
    ]);
    if let Some(keystore) = volumes::keystore(cell) {
        annotations.insert(ANNOTATION_KEYSTORE.to_owned(), keystore.to_owned());
    }
    if let Some(restarted_at) = &cell.restarted_at {
        annotations.insert(ANNOTATION_RESTARTED_AT.to_owned(), restarted_at.clone());
    }
    let ours = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(key.labels(Some(role), zone.map(|zone| zone.name.as_str()))),
            annotations: Some(annotations),
            ..Default::default()
        }),
        spec: Some(pod(cell, key, role, valid, zone)),
    };
    match &valid.pod_template {
        None => ours,
        Some(patch) => with_patch(&ours, patch).unwrap_or(ours),
    }
}

/// Validation has seen the patch: what it lets through can be read again as a template.
fn with_patch(ours: &PodTemplateSpec, patch: &serde_json::Value) -> Option<PodTemplateSpec> {
    let mut merged = serde_json::to_value(ours).ok()?;
    merge::merge(&mut merged, patch);
    let mut merged: PodTemplateSpec = serde_json::from_value(merged).ok()?;
    if let Some(spec) = &mut merged.spec {
        spec.init_containers.iter_mut().flatten().chain(&mut spec.containers).for_each(confine);
    }
    Some(merged)
}

/// What a user's container does not say itself is as tight as for the operator's own; the root of its image may be
/// writable, since it has no other folder.
fn confine(container: &mut Container) {
    let context = container.security_context.get_or_insert_default();
    context.allow_privilege_escalation.get_or_insert(false);
    context.capabilities.get_or_insert_default().drop.get_or_insert_with(|| vec!["ALL".into()]);
}

fn pod(
    cell: &ValidCell,
    key: &ClusterKey,
    role: Role,
    valid: &ValidRole,
    zone: Option<&ValidZone>,
) -> PodSpec {
    PodSpec {
        affinity: Some(workloads::affinity(cell, key, role, zone)),
        topology_spread_constraints: workloads::spread(cell, key, role),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        init_containers: Some(vec![configure(cell, role, valid)]),
        containers: vec![elasticsearch(cell, key, role, valid)],
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            fs_group: Some(USER),
            // Without it, every start walks over all files of the volume.
            fs_group_change_policy: Some("OnRootMismatch".into()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), ..Default::default() }),
            ..Default::default()
        }),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        volumes: Some(volumes::volumes(cell, key, role, zone)),
        ..Default::default()
    }
}

fn configure(cell: &ValidCell, role: Role, valid: &ValidRole) -> Container {
    let keystore = volumes::keystore(cell).is_some();
    let links = keystore.then_some(KEYSTORE_FILE).into_iter();
    let links: Vec<&str> = links.chain(REALM_FILES.into_iter().filter(|_| cell.is_secure)).collect();
    // When the Kubernetes node has restarted, the folder is as it was left, and nothing is copied through a link that
    // leads nowhere yet.
    let mut script = match links.as_slice() {
        [] => String::new(),
        links => format!("cd /mnt/config && rm -f {}\n", links.join(" ")),
    };
    script.push_str(CONFIGURE);
    if keystore {
        script.push_str(&keystore_script());
    }
    if cell.is_secure {
        script.push_str(&secure_script(role));
    }
    Container {
        name: INIT_CONTAINER.into(),
        image: Some(cell.image.clone()),
        env: cell.is_secure.then(|| vec![field("POD_NAME", "metadata.name")]),
        command: Some(vec!["bash".into(), "-c".into(), script]),
        // The same as the main container's: it costs nothing, and quotas ask for it.
        resources: resources(valid),
        security_context: Some(restricted()),
        volume_mounts: Some(volumes::mounts_of_init(cell)),
        ..Default::default()
    }
}

/// The keystore has to be where Elasticsearch looks for it, and in a mounted directory to be renewed: it is a link. Over
/// what the image may bring.
fn keystore_script() -> String {
    format!(
        "mkdir -p /mnt/config/{KEYSTORE_DIRECTORY}
rm -f /mnt/config/{KEYSTORE_FILE}
ln -s {KEYSTORE_DIRECTORY}/{KEYSTORE_FILE} /mnt/config/{KEYSTORE_FILE}
"
    )
}

/// Files of the realm have to be where Elasticsearch looks for them, and in a mounted directory to be renewed: they are
/// links. A node that was added a moment ago may be ahead of the files that its kubelet knows.
fn secure_script(role: Role) -> String {
    let node = if role == Role::Ingest { SHARED } else { "$POD_NAME" };
    format!(
        "mkdir -p /mnt/config/{CERTIFICATES_DIRECTORY} /mnt/config/{REALM_DIRECTORY}
for file in {}; do
  ln -sf {REALM_DIRECTORY}/$file /mnt/config/$file
done
for attempt in {{1..300}}; do
  if [ -s \"{NEW_CERTIFICATES}/{node}.http.key\" ] && [ -s \"{NEW_CERTIFICATES}/{node}.transport.key\" ] \\
    && [ -s {NEW_REALM}/users ]; then
    exit 0
  fi
  sleep 1
done
echo \"certificates of {node} or users are not mounted: see the Secrets of the volumes {VOLUME_CERTIFICATES} and {VOLUME_REALM}\" \\
  >/dev/termination-log
exit 78
",
        REALM_FILES.join(" ")
    )
}

fn elasticsearch(cell: &ValidCell, key: &ClusterKey, role: Role, valid: &ValidRole) -> Container {
    let mut env = vec![field("POD_NAME", "metadata.name"), field("POD_IP", "status.podIP")];
    if role == Role::Master {
        env.push(initial_master_nodes(key));
    }
    let has_readiness = cell.version.has_readiness_port();
    let ports = CONTAINER_PORTS.iter().filter(|(name, _)| has_readiness || *name != "readiness");
    Container {
        name: CONTAINER.into(),
        image: Some(cell.image.clone()),
        env: Some(env),
        ports: Some(ports.map(|(name, number)| port(name, *number)).collect()),
        readiness_probe: Some(readiness(has_readiness)),
        startup_probe: Some(startup()),
        lifecycle: stop::lifecycle(cell, role, role == serving_role(cell)),
        // What it says when it gives up is then part of the pod's status.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        resources: resources(valid),
        security_context: Some(restricted()),
        volume_mounts: Some(volumes::mounts(cell)),
        ..Default::default()
    }
}

/// The map is read at each start of the container. It is optional: once the cluster has formed, it is gone.
fn initial_master_nodes(key: &ClusterKey) -> EnvVar {
    EnvVar {
        name: INITIAL_MASTER_NODES.into(),
        value_from: Some(EnvVarSource {
            config_map_key_ref: Some(ConfigMapKeySelector {
                name: key.bootstrap_config_map(),
                key: INITIAL_MASTER_NODES.into(),
                optional: Some(true),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Ready is who has joined a cluster with an elected master. Colours are nobody's readiness: a yellow cluster serves.
fn readiness(has_readiness_port: bool) -> Probe {
    if has_readiness_port {
        return Probe {
            tcp_socket: Some(TCPSocketAction {
                port: IntOrString::String("readiness".into()),
                ..Default::default()
            }),
            period_seconds: Some(2),
            timeout_seconds: Some(2),
            ..Default::default()
        };
    }
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/_cluster/health?timeout=0s&master_timeout=2s".into()),
            port: IntOrString::String("http".into()),
            ..Default::default()
        }),
        period_seconds: Some(5),
        timeout_seconds: Some(4),
        ..Default::default()
    }
}

/// An hour: a node that opens many shards from a cold disk is slow, not broken. The port opens early in the start.
fn startup() -> Probe {
    Probe {
        tcp_socket: Some(TCPSocketAction {
            port: IntOrString::String("transport".into()),
            ..Default::default()
        }),
        period_seconds: Some(2),
        timeout_seconds: Some(2),
        failure_threshold: Some(1800),
        ..Default::default()
    }
}

fn resources(valid: &ValidRole) -> Option<ResourceRequirements> {
    let some = |amounts: &BTreeMap<_, _>| (!amounts.is_empty()).then(|| amounts.clone());
    let (requests, limits) = (some(&valid.requests), some(&valid.limits));
    (requests.is_some() || limits.is_some()).then(|| ResourceRequirements {
        requests,
        limits,
        ..Default::default()
    })
}

fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), ..Default::default() }),
        read_only_root_filesystem: Some(true),
        ..Default::default()
    }
}

fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: number,
        protocol: Some("TCP".into()),
        ..Default::default()
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource { field_ref: Some(field_selector(path)), ..Default::default() }),
        ..Default::default()
    }
}

pub(super) fn field_selector(path: &str) -> ObjectFieldSelector {
    ObjectFieldSelector { field_path: path.into(), ..Default::default() }
}
