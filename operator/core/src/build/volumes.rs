//! Volumes of the pods of nodes, and where containers have them. Pure.

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource, KeyToPath, SecretVolumeSource,
    Volume, VolumeMount,
};

use super::pod::{HOME, field_selector};
use crate::domain::{ValidCell, ValidZone};
use crate::names::{ANNOTATION_ELASTICSEARCH_YML, ANNOTATION_JVM_OPTIONS, ClusterKey, Role};
use crate::security::keystore::{Format, KEYSTORE_DIRECTORY, KEYSTORE_FILE};
use crate::security::leaf::certificates_secret;
use crate::security::users::users_secret;
use crate::security::{CERTIFICATES_DIRECTORY, REALM_DIRECTORY};

/// Volume: index files and cluster state; a claim, or for ingest nodes an empty folder.
pub const VOLUME_DATA: &str = "data";
/// Volume: the configuration folder, writable, because Elasticsearch makes a keystore there when it finds none.
const VOLUME_CONFIG: &str = "config";
/// Volume: what the annotations of the pod say.
pub const VOLUME_SETTINGS: &str = "settings";
/// Volume: what Elasticsearch logs to files.
pub const VOLUME_LOGS: &str = "logs";
const VOLUME_TMP: &str = "tmp";
/// Volume: certificates of the workload's nodes, and whom they trust.
pub(super) const VOLUME_CERTIFICATES: &str = "searchcell-certificates";
/// Volume: the users of the file realm.
pub(super) const VOLUME_REALM: &str = "searchcell-realm";
/// Volume: the keystore.
const VOLUME_KEYSTORE: &str = "searchcell-keystore";
/// All volumes of the operator.
pub const OWNED_VOLUMES: [&str; 8] = [
    VOLUME_DATA,
    VOLUME_CONFIG,
    VOLUME_SETTINGS,
    VOLUME_LOGS,
    VOLUME_TMP,
    VOLUME_CERTIFICATES,
    VOLUME_REALM,
    VOLUME_KEYSTORE,
];
/// Where the container has them.
pub const OWNED_MOUNTS: [&str; 4] = [
    "/usr/share/elasticsearch/config",
    "/usr/share/elasticsearch/data",
    "/usr/share/elasticsearch/logs",
    "/tmp",
];

/// Where the init container sees the volumes `config` and `settings`; the main container does not.
const NEW_CONFIG: &str = "/mnt/config";
const NEW_SETTINGS: &str = "/mnt/settings";
pub(super) const NEW_CERTIFICATES: &str = "/mnt/certificates";
pub(super) const NEW_REALM: &str = "/mnt/realm";
/// The group of the pods may read what they mount, nobody else.
const SECRET_MODE: i32 = 0o440;

/// Mounts of the container that runs Elasticsearch. Directories, not single files: those would never be renewed.
pub(super) fn mounts(cell: &ValidCell) -> Vec<VolumeMount> {
    let own = [VOLUME_CONFIG, VOLUME_DATA, VOLUME_LOGS, VOLUME_TMP].into_iter().zip(OWNED_MOUNTS);
    let mut mounts: Vec<VolumeMount> = own.map(|(name, path)| mount(name, path)).collect();
    if cell.is_secure {
        for (name, directory) in
            [(VOLUME_CERTIFICATES, CERTIFICATES_DIRECTORY), (VOLUME_REALM, REALM_DIRECTORY)]
        {
            let path = format!("{HOME}/config/{directory}");
            mounts.push(VolumeMount { read_only: Some(true), ..mount(name, &path) });
        }
    }
    if keystore(cell).is_some() {
        let path = format!("{HOME}/config/{KEYSTORE_DIRECTORY}");
        mounts.push(VolumeMount { read_only: Some(true), ..mount(VOLUME_KEYSTORE, &path) });
    }
    mounts
}

/// The Secret that nodes of the cell have their keystore from.
pub(super) fn keystore(cell: &ValidCell) -> Option<&str> {
    cell.keystore.as_ref()?.from.as_deref()
}

/// Mounts of the container that assembles the configuration folder.
pub(super) fn mounts_of_init(cell: &ValidCell) -> Vec<VolumeMount> {
    let read_only = |name: &str, path: &str| VolumeMount { read_only: Some(true), ..mount(name, path) };
    let mut mounts = vec![mount(VOLUME_CONFIG, NEW_CONFIG), read_only(VOLUME_SETTINGS, NEW_SETTINGS)];
    if cell.is_secure {
        mounts.push(read_only(VOLUME_CERTIFICATES, NEW_CERTIFICATES));
        mounts.push(read_only(VOLUME_REALM, NEW_REALM));
    }
    mounts
}

/// Volumes of the pod, without the claim of nodes that have one.
pub(super) fn volumes(
    cell: &ValidCell,
    key: &ClusterKey,
    role: Role,
    zone: Option<&ValidZone>,
) -> Vec<Volume> {
    let empty = |name: &str| Volume {
        name: name.into(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Default::default()
    };
    let file = |path: &str, annotation: &str| DownwardAPIVolumeFile {
        path: path.into(),
        field_ref: Some(field_selector(&format!("metadata.annotations['{annotation}']"))),
        ..Default::default()
    };
    let settings = Volume {
        name: VOLUME_SETTINGS.into(),
        downward_api: Some(DownwardAPIVolumeSource {
            items: Some(vec![
                file("elasticsearch.yml", ANNOTATION_ELASTICSEARCH_YML),
                file("searchcell.options", ANNOTATION_JVM_OPTIONS),
            ]),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut volumes = vec![empty(VOLUME_CONFIG), settings, empty(VOLUME_LOGS), empty(VOLUME_TMP)];
    if role == Role::Ingest {
        // They hold no shards: their data folder has nothing but a node id, which may be another one each time.
        volumes.push(empty(VOLUME_DATA));
    }
    if cell.is_secure {
        let secret = |name: &str, secret: String| Volume {
            name: name.into(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret),
                default_mode: Some(SECRET_MODE),
                ..Default::default()
            }),
            ..Default::default()
        };
        let workload = zone.map_or_else(|| key.ingest(), |zone| key.stateful_set(role, &zone.name));
        volumes.push(secret(VOLUME_CERTIFICATES, certificates_secret(&workload)));
        volumes.push(secret(VOLUME_REALM, users_secret(&cell.name)));
    }
    if let Some(name) = keystore(cell) {
        // One file of several: entries, and files for other versions of Elasticsearch, stay where they are.
        let item = KeyToPath {
            key: Format::of(cell.version).key().into(),
            path: KEYSTORE_FILE.into(),
            ..Default::default()
        };
        volumes.push(Volume {
            name: VOLUME_KEYSTORE.into(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(name.to_owned()),
                default_mode: Some(SECRET_MODE),
                items: Some(vec![item]),
                ..Default::default()
            }),
            ..Default::default()
        });
    }
    volumes
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.into(), mount_path: path.into(), ..Default::default() }
}
