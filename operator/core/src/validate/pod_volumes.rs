//! Volumes and mounts in a pod template: of kinds that restricted pods may have, and none over or into what the operator
//! mounts. Pure.

use searchcell_crds::Reason;
use serde_json::Value;

use super::Problems;
use crate::build::pod::HOME;
use crate::build::volumes::{OWNED_MOUNTS, OWNED_VOLUMES, VOLUME_LOGS};

/// Kinds of volumes that the pod security standard `restricted` allows.
const KINDS: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
/// Volume claims of nodes begin so.
const NODE_CLAIMS: &str = "data-";
/// Sources of projected volumes that are credentials of the pod's ServiceAccount: nodes need none.
const CREDENTIALS: [&str; 2] = ["serviceAccountToken", "podCertificate"];
/// Folders below the configuration folder that are free. Beside them lies what the operator and Elasticsearch put there
/// (settings, keys, users, roles), so that a name which is free today may not be tomorrow.
const FREE_CONFIG: [&str; 6] =
    ["analysis", "extra", "hunspell", "ingest-geoip", "ingest-user-agent", "synonyms"];

/// Checks the list `volumes` of a pod.
pub(super) fn volumes(path: &str, value: &Value, problems: &mut Problems) {
    let mut owned = |path: String, rest: &str| problems.add(Reason::ReservedPodField, path, rest);
    for volume in value.as_array().into_iter().flatten() {
        let Some(id) = volume.get("name").and_then(Value::as_str) else { continue };
        let path = format!("{path}[{id}]");
        if OWNED_VOLUMES.contains(&id) {
            owned(path.clone(), "belongs to the operator: give the volume another name");
        }
        let kinds = volume.as_object().into_iter().flat_map(|fields| fields.keys());
        for kind in kinds.filter(|kind| *kind != "name" && !KINDS.contains(&kind.as_str())) {
            owned(
                format!("{path}.{kind}"),
                "is not allowed, because pods run restricted: use a configMap, a secret or a persistentVolumeClaim",
            );
        }
        let claim = volume.pointer("/persistentVolumeClaim/claimName").and_then(Value::as_str);
        if claim.is_some_and(|name| name.starts_with(NODE_CLAIMS)) {
            owned(
                format!("{path}.persistentVolumeClaim.claimName"),
                "may be the volume of a node, whose files nobody else may touch: name a claim that does not begin with data-",
            );
        }
        let sources = volume.pointer("/projected/sources").and_then(Value::as_array);
        for (number, source) in sources.into_iter().flatten().enumerate() {
            for kind in CREDENTIALS.into_iter().filter(|kind| source.get(kind).is_some()) {
                owned(
                    format!("{path}.projected.sources[{number}].{kind}"),
                    "is not allowed: nodes of Elasticsearch get no credentials for the API server; remove it",
                );
            }
        }
    }
}

/// Checks the mounts of the container that runs Elasticsearch.
pub(super) fn mounts_of_node(path: &str, container: &Value, problems: &mut Problems) {
    for (id, path, mount) in mounts(path, container) {
        if is_owned_mount(id) {
            let message = "belongs to the operator: mount the volume at another path; below config, only \
                           analysis, extra, hunspell, ingest-geoip, ingest-user-agent and synonyms are free";
            problems.add(Reason::ReservedPodField, &path, message);
        }
        mount_of_own_volume(&path, mount, &OWNED_VOLUMES, problems);
    }
    devices(path, container, problems);
}

/// Checks the mounts of another container: it may read the logs, and nothing else of a node. Configuration is more than
/// settings: keys and users are in it.
pub(super) fn mounts_of_sidecar(path: &str, container: &Value, problems: &mut Problems) {
    let closed: Vec<&str> = OWNED_VOLUMES.into_iter().filter(|name| *name != VOLUME_LOGS).collect();
    for (_, path, mount) in mounts(path, container) {
        mount_of_own_volume(&path, mount, &closed, problems);
    }
    devices(path, container, problems);
}

fn mounts<'a>(path: &str, container: &'a Value) -> Vec<(&'a str, String, &'a Value)> {
    let list = container.get("volumeMounts").and_then(Value::as_array);
    (list.into_iter().flatten())
        .filter_map(|mount| {
            let id = mount.get("mountPath")?.as_str()?;
            Some((id, format!("{path}.volumeMounts[{id}]"), mount))
        })
        .collect()
}

fn mount_of_own_volume(path: &str, mount: &Value, closed: &[&str], problems: &mut Problems) {
    let text = |field: &str| mount.get(field).and_then(Value::as_str).unwrap_or_default();
    if closed.contains(&text("name")) {
        problems.add(
            Reason::ReservedPodField,
            format!("{path}.name"),
            "belongs to the operator: mount a volume of your own; other containers may have logs",
        );
    }
    for field in ["subPath", "subPathExpr"] {
        if text(field).starts_with('/') || text(field).split('/').any(|part| part == "..") {
            problems
                .invalid(format!("{path}.{field}"), "leads out of the volume: write a path below its root");
        }
    }
    if !["", "None"].contains(&text("mountPropagation")) {
        problems.add(
            Reason::ReservedPodField,
            format!("{path}.mountPropagation"),
            "is not allowed, because pods run restricted: remove it",
        );
    }
}

fn devices(path: &str, container: &Value, problems: &mut Problems) {
    let list = container.get("volumeDevices").and_then(Value::as_array);
    for device in list.into_iter().flatten() {
        let name = device.get("name").and_then(Value::as_str).unwrap_or_default();
        if OWNED_VOLUMES.contains(&name) {
            let message = "belongs to the operator: use a volume of your own";
            problems.add(Reason::ReservedPodField, format!("{path}.volumeDevices[{name}]"), message);
        }
    }
}

/// A mount there would hide one of the operator's, or a file that the operator or the image brings.
pub(super) fn is_owned_mount(path: &str) -> bool {
    let parts = parts(path);
    if !path.starts_with('/') || parts.contains(&"..") {
        return true;
    }
    let home = self::parts(HOME);
    let is_above = |owned: &str| is_below(&self::parts(owned), &parts);
    if OWNED_MOUNTS.iter().any(|owned| is_above(owned)) {
        return true;
    }
    let Some(below) = parts.get(home.len()..).filter(|_| is_below(&parts, &home)) else { return false };
    match below.first() {
        Some(&"config") => !below.get(1).is_some_and(|folder| FREE_CONFIG.contains(folder)),
        Some(folder) => ["data", "logs", "jdk", "lib", "bin", "modules"].contains(folder),
        None => true,
    }
}

fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect()
}

/// Whether `long` is `short`, or lies below it.
fn is_below(long: &[&str], short: &[&str]) -> bool {
    long.len() >= short.len() && long.iter().zip(short).all(|(a, b)| a == b)
}
