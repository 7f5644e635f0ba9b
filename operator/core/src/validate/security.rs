//! The rules of `spec.security`, and of what must not go around it. Pure.

use searchcell_crds::{Reason, SearchCellSpec, SecurityMode};
use serde_json::Value;

use super::{Problems, is_dns_label};
use crate::build::pod::{CONTAINER, HOME};
use crate::domain::EsVersion;
use crate::names::Role;
use crate::security::{CERTIFICATES_DIRECTORY, REALM_DIRECTORY};

/// Files and directories below the configuration directory that say who may do what.
const GUARDED: [&str; 7] = [
    CERTIFICATES_DIRECTORY,
    REALM_DIRECTORY,
    "users",
    "users_roles",
    "roles.yml",
    "role_mapping.yml",
    "service_tokens",
];

/// Whether the mode fits the version, Secrets have names, and no mount hides what makes nodes secure.
pub(super) fn check(spec: &SearchCellSpec, version: Option<EsVersion>, problems: &mut Problems) {
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
    if is_secure {
        mounts(spec, problems);
    }
    let certificates = spec.security.as_ref().and_then(|security| security.certificates.as_ref());
    let Some(certificates) = certificates else { return };
    let path = "spec.security.certificates";
    if !is_secure {
        problems.invalid(path, "needs spec.security.mode: Managed: remove one of the two");
    }
    for (layer, from) in [("http", &certificates.http), ("transport", &certificates.transport)] {
        let Some(from) = from else { continue };
        let is_name = from.secret_name.len() <= 253
            && !from.secret_name.is_empty()
            && from.secret_name.split('.').all(|part| is_dns_label(part, 253));
        if !is_name {
            problems.invalid(
                format!("{path}.{layer}.secretName"),
                "is not the name of a Secret: write lower-case letters, digits, dashes and dots",
            );
        }
    }
}

/// Mounts of the container that would hide a guarded file.
fn mounts(spec: &SearchCellSpec, problems: &mut Problems) {
    let nodes = &spec.nodes;
    let ingest = nodes.ingest.as_ref().map(|ingest| (Role::Ingest, &ingest.options));
    let roles =
        [(Role::Master, &nodes.master.options), (Role::Data, &nodes.data.options)].into_iter().chain(ingest);
    for (role, options) in roles {
        let Some(template) =
            options.pod_template.as_ref().and_then(|template| serde_json::to_value(template).ok())
        else {
            continue;
        };
        let containers = template.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
        let ours =
            containers.filter(|container| container.get("name").and_then(Value::as_str) == Some(CONTAINER));
        for mount in ours.flat_map(|container| container.get("volumeMounts")?.as_array()).flatten() {
            let path = mount.get("mountPath").and_then(Value::as_str).unwrap_or_default();
            if is_guarded(path) {
                problems.add(
                    Reason::ReservedPodField,
                    format!(
                        "spec.nodes.{role}.podTemplate.spec.containers[{CONTAINER}].volumeMounts[{path}]"
                    ),
                    "would hide certificates or users, which the operator mounts: mount it elsewhere",
                );
            }
        }
    }
}

fn is_guarded(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    GUARDED.iter().any(|below| {
        let guarded = format!("{HOME}/config/{below}");
        parts.iter().copied().eq(guarded.split('/').filter(|part| !part.is_empty()))
            || format!("/{}", parts.join("/")).starts_with(&format!("{guarded}/"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_hides_a_guarded_path() {
        let config = format!("{HOME}/config");
        for below in ["users", "users/", "./users", "/certificates//http-ca.crt", "realm", "roles.yml"] {
            assert!(is_guarded(&format!("{config}/{below}")), "{below}");
        }
        for below in ["synonyms", "users.txt", "certificates-of-mine/a"] {
            assert!(!is_guarded(&format!("{config}/{below}")), "{below}");
        }
    }
}
