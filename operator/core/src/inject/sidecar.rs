//! The container of the router, its volumes and its configuration. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, HTTPGetAction,
    KeyToPath, Probe, ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecretProjection,
    SecurityContext, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::names::{HTTP_PORT, ROUTER_ADMIN_PORT, ROUTER_CONTAINER, TABLE_KEY, http_trust, routing_table};
use crate::security::users::User;

const TABLES: &str = "searchcell-router-tables";
pub(super) const ACCESS: &str = "searchcell-router-access";
const STATE: &str = "searchcell-router-state";
const NO_TOKEN: &str = "searchcell-router-no-token";
/// Names of the volumes that a router adds to a pod.
pub const VOLUMES: [&str; 4] = [TABLES, ACCESS, STATE, NO_TOKEN];

const TABLES_AT: &str = "/etc/searchcell/tables";
const ACCESS_AT: &str = "/etc/searchcell/elasticsearch";
const STATE_AT: &str = "/var/lib/searchcell";
/// Where Kubernetes mounts the pod's token into every container that has nothing there.
const TOKEN_AT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Environment variable with the router's configuration.
pub const CONFIGURATION: &str = "SEARCHCELL_ROUTER_CONFIG_YAML";

/// What the router needs beside its budget.
const BESIDE_BUDGET_MIB: u32 = 64;
/// How long the operator may be silent, which reads every router once a minute, before writes wait of tenants whom a
/// migration moves. A new leader and some readings that fail are no reason yet.
const FENCE_AFTER: &str = "5m";
/// So that a moment of fragmentation does not end it.
const MARGIN_MIB: u32 = 64;
/// Largest body, as Elasticsearch has it.
const MOST_REQUEST_MIB: u32 = 100;
/// User and group of the operator's image.
const USER: i64 = 65_532;
/// For everybody: the files belong to root, and are mounted into this container only.
const READ_ONLY: i32 = 0o444;

/// A router beside an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecar {
    /// What it routes.
    pub collections: BTreeSet<String>,
    /// SearchCells whose clusters it talks to.
    pub cells: BTreeSet<String>,
    /// MiB that may be in flight.
    pub budget_mib: u32,
    /// Seconds that the pod has to end.
    pub grace: i64,
    /// The highest generation of its tables; absent: none is published yet.
    pub generation: Option<i64>,
}

impl Sidecar {
    /// The configuration, as the router reads it (`docs/reference/router.md`).
    pub fn configuration(&self) -> Value {
        let table = |collection: &String| {
            let path = format!("{TABLES_AT}/{}", table_path(collection));
            json!({"name": collection, "table": path})
        };
        let request = MOST_REQUEST_MIB.min(self.budget_mib / 2);
        json!({
            // Plain HTTP without users, for the pod alone.
            "listen": format!("127.0.0.1:{HTTP_PORT}"),
            "admin": format!("0.0.0.0:{ROUTER_ADMIN_PORT}"),
            "collections": self.collections.iter().map(table).collect::<Vec<_>>(),
            "stateDirectory": STATE_AT,
            "elasticsearch": {"directory": ACCESS_AT},
            "limits": {
                "budget": format!("{}Mi", self.budget_mib),
                "maxRequest": format!("{request}Mi"),
                // The application ends first, and what is left of the pod's time is the router's.
                "grace": format!("{}s", self.grace.saturating_sub(5).clamp(1, 25)),
            },
            "fence": {"after": FENCE_AFTER},
        })
    }

    /// The container: an init container that goes on, so that it starts before the application and stops after it.
    pub fn container(&self, image: &str) -> Container {
        let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
            name: name.to_owned(),
            mount_path: path.to_owned(),
            read_only: read_only.then_some(true),
            ..VolumeMount::default()
        };
        Container {
            name: ROUTER_CONTAINER.to_owned(),
            image: Some(image.to_owned()),
            image_pull_policy: Some("IfNotPresent".to_owned()),
            command: Some(vec!["/usr/local/bin/router".to_owned()]),
            restart_policy: Some("Always".to_owned()),
            env: Some(vec![EnvVar {
                name: CONFIGURATION.to_owned(),
                // JSON is YAML.
                value: Some(self.configuration().to_string()),
                ..EnvVar::default()
            }]),
            ports: Some(vec![ContainerPort {
                name: Some("router-admin".to_owned()),
                container_port: ROUTER_ADMIN_PORT,
                protocol: Some("TCP".to_owned()),
                ..ContainerPort::default()
            }]),
            // What follows waits for the router to listen, not for a table: it may take long to come.
            startup_probe: Some(probe("/livez", 1, 60)),
            liveness_probe: Some(probe("/livez", 10, 6)),
            readiness_probe: Some(probe("/readyz", 5, 1)),
            resources: Some(self.resources()),
            security_context: Some(restricted()),
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            volume_mounts: Some(vec![
                mount(TABLES, TABLES_AT, true),
                mount(ACCESS, ACCESS_AT, true),
                mount(STATE, STATE_AT, false),
                mount(NO_TOKEN, TOKEN_AT, true),
            ]),
            ..Container::default()
        }
    }

    fn resources(&self) -> ResourceRequirements {
        let of = |amounts: &[(&str, String)]| -> Option<BTreeMap<String, Quantity>> {
            let amounts = amounts.iter().map(|(name, amount)| ((*name).to_owned(), Quantity(amount.clone())));
            Some(amounts.collect())
        };
        let most = self.budget_mib.saturating_add(BESIDE_BUDGET_MIB).saturating_add(MARGIN_MIB);
        ResourceRequirements {
            requests: of(&[("cpu", "50m".to_owned()), ("memory", "64Mi".to_owned())]),
            limits: of(&[("memory", format!("{most}Mi"))]),
            ..ResourceRequirements::default()
        }
    }

    /// Its volumes, in the order of [`VOLUMES`]. What is mounted may come later than the pod, or not at all: a cell
    /// without security has no credential.
    pub fn volumes(&self) -> Vec<Volume> {
        let tables = self
            .collections
            .iter()
            .map(|collection| config_map(routing_table(collection), &[(TABLE_KEY, table_path(collection))]));
        let access = self.cells.iter().flat_map(|cell| {
            let at = |file: &str| format!("{cell}/{file}");
            let credential = [("username", at("username")), ("password", at("password"))];
            [
                config_map(http_trust(cell), &[("ca.crt", at("ca.crt"))]),
                secret(User::Router.secret(cell), &credential),
            ]
        });
        let empty = |name: &str, limit: &str| Volume {
            name: name.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(Quantity(limit.to_owned())),
                ..EmptyDirVolumeSource::default()
            }),
            ..Volume::default()
        };
        vec![
            projected(TABLES, tables.collect()),
            projected(ACCESS, access.collect()),
            // Every table twice, while one replaces the other.
            empty(STATE, "256Mi"),
            empty(NO_TOKEN, "1Mi"),
        ]
    }
}

fn table_path(collection: &str) -> String {
    format!("{collection}/{TABLE_KEY}")
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(ROUTER_ADMIN_PORT),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(3),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// What the Pod Security Standard `restricted` asks for.
fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..SecurityContext::default()
    }
}

fn projected(name: &str, sources: Vec<VolumeProjection>) -> Volume {
    let projected = ProjectedVolumeSource { default_mode: Some(READ_ONLY), sources: Some(sources) };
    Volume { name: name.to_owned(), projected: Some(projected), ..Volume::default() }
}

fn items(files: &[(&str, String)]) -> Option<Vec<KeyToPath>> {
    let item =
        |(key, path): &(&str, String)| KeyToPath { key: (*key).to_owned(), path: path.clone(), mode: None };
    Some(files.iter().map(item).collect())
}

fn config_map(name: String, files: &[(&str, String)]) -> VolumeProjection {
    let source = ConfigMapProjection { name, items: items(files), optional: Some(true) };
    VolumeProjection { config_map: Some(source), ..VolumeProjection::default() }
}

fn secret(name: String, files: &[(&str, String)]) -> VolumeProjection {
    let source = SecretProjection { name, items: items(files), optional: Some(true) };
    VolumeProjection { secret: Some(source), ..VolumeProjection::default() }
}
