//! What is secret is in Secrets and nowhere else: the logs of operators and nodes, the objects of the namespace, the
//! audit log and what the tests print are searched for it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;

use crate::audit::AuditLog;
use crate::objects::{Objects, items, text};
use crate::shell;

/// Kinds whose objects are searched.
const KINDS: [&str; 12] = [
    "searchcells",
    "indexplacements",
    "statefulsets",
    "deployments",
    "replicasets",
    "pods",
    "services",
    "configmaps",
    "networkpolicies",
    "persistentvolumeclaims",
    "leases",
    "events",
];

/// What must not be seen, with a name for it that may.
#[derive(Clone, Debug, Default)]
pub struct Material(BTreeMap<String, String>);

impl Material {
    /// Adds what the Secrets of a namespace's cells have now.
    pub async fn remember(&mut self, objects: &Objects) -> Result<(), String> {
        for secret in objects.list("secrets", "searchcell.dev/cell").await? {
            let name = text(&secret, "/metadata/name");
            for (key, value) in secret["data"].as_object().into_iter().flatten() {
                let bytes =
                    base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default());
                let Ok(Ok(plain)) = bytes.map(String::from_utf8) else { continue };
                let mut parts = match name.contains("-keystore-") {
                    // entries, whatever they are called
                    true => vec![plain],
                    false => parts(key, &plain),
                };
                if !parts.is_empty() {
                    // as the API has it
                    parts.extend(value.as_str().map(str::to_owned));
                }
                for part in parts {
                    self.0.insert(part, format!("{key} of Secret {name}"));
                }
            }
        }
        Ok(())
    }

    /// How much it is.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names of what is found in a text, as it is or as base64.
    fn found_in(&self, text: &str) -> Vec<&str> {
        let is_in = |part: &str| {
            text.contains(part)
                || text.contains(base64::engine::general_purpose::STANDARD.encode(part).trim_end_matches('='))
        };
        self.0.iter().filter(|(part, _)| is_in(part)).map(|(_, name)| name.as_str()).collect()
    }

    /// Searches the files of `folder`, the objects of the namespace, the logs of its pods, the audit log and what was
    /// printed; what was found, and where.
    pub async fn search(
        &self,
        objects: &Objects,
        namespace: &str,
        folder: &Path,
        log: Option<&AuditLog>,
    ) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        let mut look = |place: String, text: &str| {
            found.extend(self.found_in(text).into_iter().map(|name| format!("{name} in {place}")));
        };
        for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let bytes = std::fs::read(file.path()).unwrap_or_default();
            look(file.file_name().to_string_lossy().into_owned(), &String::from_utf8_lossy(&bytes));
        }
        let mut pods = Vec::new();
        for kind in KINDS {
            for object in objects.list(kind, "").await? {
                let name = text(&object, "/metadata/name").to_owned();
                look(format!("{kind}/{name}"), &object.to_string());
                if kind == "pods" && is_ours(&object) {
                    pods.push(name);
                }
            }
        }
        for pod in pods {
            let arguments = ["logs", "-n", namespace, &pod, "--all-containers"];
            let output = shell::kubectl(&arguments, None, Duration::from_secs(60)).await;
            look(format!("the log of {pod}"), &output.stdout);
        }
        if let Some(log) = log {
            look("the audit log".to_owned(), &log.lines_with(namespace));
        }
        look("what was printed".to_owned(), &crate::PRINTED.lock().unwrap());
        Ok(found)
    }
}

fn is_ours(pod: &Value) -> bool {
    !items(pod, "/spec/containers").is_empty()
        && text(pod, "/metadata/labels/app.kubernetes.io~1managed-by") == "searchcell-operator"
}

/// What of a value has to stay hidden, in pieces that a line can have.
fn parts(key: &str, value: &str) -> Vec<String> {
    let last = key.rsplit('.').next().unwrap_or_default();
    let parts: Vec<&str> = match last {
        "password" | "hash" => vec![value],
        // each line of a private key, but for what all of them begin and end with
        "key" => value.lines().filter(|line| line.len() > 40 && !line.starts_with('-')).skip(1).collect(),
        "users" => value.lines().filter_map(|line| line.split_once(':')).map(|(_, hash)| hash).collect(),
        _ => Vec::new(),
    };
    parts.into_iter().filter(|part| part.len() >= 16).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_found_in_plain_and_in_base64() {
        let key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg0000000000000000\n\
            1111111111111111111111111111111111111111111111111111111111111111\n-----END PRIVATE KEY-----\n";
        let mut material = Material::default();
        for (name, value) in [
            ("router.password", "0123456789abcdefghij"),
            ("a.key", key),
            ("ca.crt", "0000000000000000000000"),
        ] {
            for part in parts(name, value) {
                material.0.insert(part, name.to_owned());
            }
        }
        assert_eq!(material.len(), 2);
        assert_eq!(material.found_in("as router:0123456789abcdefghij at once"), ["router.password"]);
        assert_eq!(material.found_in("x MDEyMzQ1Njc4OWFiY2RlZmdoaWo= x"), ["router.password"]);
        assert_eq!(material.found_in(&format!("{{\"k\": {key:?}}}")), ["a.key"]);
        assert!(
            material
                .found_in("0000000000000000000000 MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg")
                .is_empty()
        );
    }
}
