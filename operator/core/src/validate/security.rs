//! The rules of `spec.security` and `spec.secureSettings`, and which Secrets a spec may name. Pure.

use std::collections::BTreeSet;

use searchcell_crds::{Reason, SearchCellSpec, SecurityMode};
use serde_json::Value;

use super::{Problems, is_dns_label};
use crate::domain::{EsVersion, ValidKeystore};
use crate::names::Role;
use crate::security::is_operators_alone;
use crate::security::keystore::MOST_SECRETS;

/// Whether the mode fits the version, Secrets have names, and none of them is the operator's. `cell`: the cell's name.
pub(super) fn check(cell: &str, spec: &SearchCellSpec, version: Option<EsVersion>, problems: &mut Problems) {
    let is_secure = spec.security_mode() == SecurityMode::Managed;
    if let (true, Some(version)) = (is_secure, version.filter(|version| !version.has_managed_security())) {
        problems.add(
            Reason::UnsupportedVersion,
            "spec.security.mode",
            format!(
                "is Managed, also where it is absent, and {version} does not support that: choose spec.version 8.2.0 or \
                 later, or set spec.security.mode: Disabled"
            ),
        );
    }
    secure_settings(cell, spec, problems);
    if is_secure || !spec.secure_settings.is_empty() {
        templates(cell, spec, problems);
    }
    let certificates = spec.security.as_ref().and_then(|security| security.certificates.as_ref());
    let Some(certificates) = certificates else { return };
    let path = "spec.security.certificates";
    if !is_secure {
        problems.invalid(path, "needs spec.security.mode: Managed: remove one of the two");
    }
    for (layer, from) in [("http", &certificates.http), ("transport", &certificates.transport)] {
        let Some(from) = from else { continue };
        let path = format!("{path}.{layer}.secretName");
        secret_name(cell, path, &from.secret_name, problems);
    }
}

/// A Secret of the user.
fn secret_name(cell: &str, path: String, name: &str, problems: &mut Problems) {
    let is_name =
        name.len() <= 253 && !name.is_empty() && name.split('.').all(|part| is_dns_label(part, 253));
    if !is_name {
        problems
            .invalid(path, "is not the name of a Secret: write lower-case letters, digits, dashes and dots");
    } else if is_operators_alone(cell, name) {
        problems.invalid(path, "is a Secret of the operator: name one of yours");
    }
}

/// The Secrets of `spec.secureSettings`.
fn secure_settings(cell: &str, spec: &SearchCellSpec, problems: &mut Problems) {
    let list = &spec.secure_settings;
    if list.len() > MOST_SECRETS {
        let text = format!("has more than {MOST_SECRETS} Secrets: put entries together in fewer");
        problems.invalid("spec.secureSettings", text);
    }
    let mut names = BTreeSet::new();
    for (number, from) in list.iter().enumerate() {
        let path = format!("spec.secureSettings[{number}].secretName");
        if !names.insert(&from.secret_name) {
            problems.invalid(&path, "is there twice: name each Secret once");
        }
        secret_name(cell, path, &from.secret_name, problems);
    }
}

/// What the spec says of the keystore.
pub(super) fn keystore(spec: &SearchCellSpec) -> Option<ValidKeystore> {
    let secrets: Vec<String> = spec.secure_settings.iter().map(|from| from.secret_name.clone()).collect();
    (!secrets.is_empty()).then(|| ValidKeystore { secrets, ..ValidKeystore::default() })
}

/// Secrets that pod templates name. Who could mount those of the nodes elsewhere would go around the rule that other
/// containers see nothing of a node but its logs.
fn templates(cell: &str, spec: &SearchCellSpec, problems: &mut Problems) {
    let nodes = &spec.nodes;
    let ingest = nodes.ingest.as_ref().map(|ingest| (Role::Ingest, &ingest.options));
    let roles =
        [(Role::Master, &nodes.master.options), (Role::Data, &nodes.data.options)].into_iter().chain(ingest);
    for (role, options) in roles {
        for (field, value) in options.pod_template.iter().flatten() {
            let path = format!("spec.nodes.{role}.podTemplate.{field}");
            secrets(cell, &path, value, false, problems);
        }
    }
}

/// Looks everywhere, so that a field that Kubernetes gains tomorrow is looked at. `is_secret`: the field is about one.
fn secrets(cell: &str, path: &str, value: &Value, is_secret: bool, problems: &mut Problems) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let path = format!("{path}.{field}");
                let names_one = field == "secretName" || (field == "name" && is_secret);
                match value {
                    Value::String(name) if names_one && is_operators_alone(cell, name) => problems.add(
                        Reason::ReservedPodField,
                        path,
                        format!(
                            "is a Secret of the operator or its nodes alone: name another; clients have {cell}-router and \
                             {cell}-exporter"
                        ),
                    ),
                    value => {
                        let is_secret = field.to_ascii_lowercase().contains("secret");
                        secrets(cell, &path, value, is_secret, problems);
                    }
                }
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                let id = item.get("name").and_then(Value::as_str).filter(|_| !is_secret);
                let id = id.map_or_else(|| number.to_string(), str::to_owned);
                secrets(cell, &format!("{path}[{id}]"), item, is_secret, problems);
            }
        }
        _ => {}
    }
}
