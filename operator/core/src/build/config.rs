//! `elasticsearch.yml` and the options of the Java virtual machine. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::pod::HOME;
use crate::domain::{ValidCell, ValidRole, ValidZone};
use crate::names::{ClusterKey, HTTP_PORT, READINESS_PORT, Role, TRANSPORT_PORT, ZONE_ATTRIBUTE};
use crate::security::leaf::SHARED;
use crate::security::{CERTIFICATES_DIRECTORY, Layer, TRANSPORT_TRUST};

const MIB: i64 = 1 << 20;

/// Elasticsearch's roles of the nodes of one of our roles.
pub(super) fn node_roles(cell: &ValidCell, role: Role) -> Vec<&'static str> {
    match role {
        Role::Master => vec!["master"],
        Role::Ingest => vec!["ingest"],
        Role::Data if cell.ingest.is_some() => vec!["data"],
        Role::Data => vec!["data", "ingest"],
    }
}

/// `elasticsearch.yml`, one setting per line, sorted. Every JSON value is a YAML value.
pub(super) fn elasticsearch_yml(
    cell: &ValidCell,
    key: &ClusterKey,
    role: Role,
    valid: &ValidRole,
    zone: Option<&ValidZone>,
) -> String {
    let mut settings: BTreeMap<String, Value> = valid.settings.clone();
    let mut set = |name: &str, value: Value| settings.insert(name.to_owned(), value);
    set("cluster.name", json!(key.name()));
    set("node.name", json!("${POD_NAME}"));
    set("node.roles", json!(node_roles(cell, role)));
    if let Some(zone) = zone {
        set(&format!("node.attr.{ZONE_ATTRIBUTE}"), json!(zone.name));
    }
    set("path.data", json!(format!("{HOME}/data")));
    set("path.logs", json!(format!("{HOME}/logs")));
    set("network.host", json!("0.0.0.0"));
    set("network.publish_host", json!("${POD_IP}"));
    set("http.port", json!(HTTP_PORT));
    set("transport.port", json!(TRANSPORT_PORT));
    set("discovery.seed_hosts", json!([key.transport_service()]));
    if cell.version.has_readiness_port() {
        set("readiness.port", json!(READINESS_PORT));
    }
    if cell.is_secure {
        security(role, &mut set);
    } else if cell.version.has_security_by_default() {
        set("xpack.security.enabled", json!(false));
        set("xpack.security.autoconfiguration.enabled", json!(false));
    }
    settings.iter().map(|(key, value)| format!("{}: {value}\n", yaml_key(key))).collect()
}

/// TLS on both layers and the file realm. Files have fixed names: Elasticsearch reloads them when their contents change.
fn security(role: Role, set: &mut impl FnMut(&str, Value) -> Option<Value>) {
    let node = if role == Role::Ingest { SHARED } else { "${POD_NAME}" };
    let file = |name: String| json!(format!("{CERTIFICATES_DIRECTORY}/{name}"));
    let mut xpack = |name: &str, value: Value| set(&format!("xpack.security.{name}"), value);
    xpack("enabled", json!(true));
    // It would make certificates and passwords of its own.
    xpack("autoconfiguration.enabled", json!(false));
    // The users that Elasticsearch comes with, `elastic` among them, have no password and get none.
    xpack("authc.reserved_realm.enabled", json!(false));
    xpack("authc.realms.file.searchcell.order", json!(-100));
    for layer in Layer::ALL {
        xpack(&format!("{layer}.ssl.enabled"), json!(true));
        xpack(&format!("{layer}.ssl.certificate"), file(format!("{node}.{layer}.crt")));
        xpack(&format!("{layer}.ssl.key"), file(format!("{node}.{layer}.key")));
    }
    xpack("transport.ssl.certificate_authorities", json!([file(TRANSPORT_TRUST.to_owned())]));
    xpack("transport.ssl.client_authentication", json!("required"));
    // Nodes find each other by address; the authority of their cluster is what makes them nodes of it.
    xpack("transport.ssl.verification_mode", json!("certificate"));
}

/// A key as it is where YAML allows it, else in quotes.
fn yaml_key(key: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if key.bytes().all(plain) && key.starts_with(|c: char| c.is_ascii_alphabetic()) {
        key.to_owned()
    } else {
        json!(key).to_string()
    }
}

/// `jvm.options.d/searchcell.options`. The user's options come last, and win.
pub(super) fn jvm_options(valid: &ValidRole) -> String {
    let mut lines: Vec<String> = [
        // Pods get their addresses one after another while a cluster forms or rolls: neither a name that was not
        // there yet nor an old address may be remembered for long. The first two are for Elasticsearch, which
        // turns them into the security properties of Java, the others for the time before it does.
        "-Des.networkaddress.cache.ttl=5",
        "-Des.networkaddress.cache.negative.ttl=1",
        "-Dsun.net.inetaddr.ttl=5",
        "-Dsun.net.inetaddr.negative.ttl=1",
    ]
    .map(str::to_owned)
    .to_vec();
    if let Some(bytes) = valid.heap_bytes {
        let size = if bytes % MIB == 0 { format!("{}m", bytes / MIB) } else { format!("{}k", bytes / 1024) };
        lines.push(format!("-Xms{size}"));
        lines.push(format!("-Xmx{size}"));
    }
    lines.extend(valid.jvm_options.iter().cloned());
    lines.iter().map(|line| format!("{line}\n")).collect()
}
