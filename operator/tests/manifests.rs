//! What is installed: the operator's pod is confined, its flags exist, and each of its rights has a reason beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

use clap::Parser;
use searchcell_core::names::{ANNOTATION_INJECT_ROUTER, LABEL_ROUTER_INJECTION};
use searchcell_operator::settings::Cli;
use searchcell_operator::webhook::{PATH, SERVICE, WEBHOOK};
use serde::Deserialize;
use serde_json::{Value, json};

fn base(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/base").join(file)
}

fn documents(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(base(file)).unwrap();
    serde_yaml::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap()).collect()
}

#[test]
fn the_operators_pod_is_restricted_and_cannot_write() {
    let deployment = documents("deployment.yaml").remove(0);
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert!(pod["securityContext"]["runAsUser"].as_i64().unwrap() > 0);
    assert_eq!(pod["securityContext"]["seccompProfile"], json!({"type": "RuntimeDefault"}));
    for field in ["hostNetwork", "hostPID", "hostIPC", "volumes", "initContainers"] {
        assert!(pod[field].is_null(), "{field}");
    }
    let containers = pod["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    assert_eq!(
        containers[0]["securityContext"],
        json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
    );
    assert!(containers[0]["command"].is_null(), "the image's own entry point");
    let arguments =
        containers[0]["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap());
    Cli::try_parse_from(std::iter::once("searchcell").chain(arguments)).unwrap();

    let namespace = documents("namespace.yaml").remove(0);
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    assert_eq!(documents("service-account.yaml")[0]["automountServiceAccountToken"], false);
}

#[test]
fn the_webhook_keeps_no_pod_from_starting_and_is_called_for_those_that_ask_alone() {
    let objects = documents("webhook.yaml");
    let kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
    let webhooks = kind("MutatingWebhookConfiguration")["webhooks"].as_array().unwrap();
    assert_eq!(webhooks.len(), 1);
    let webhook = &webhooks[0];
    assert_eq!(webhook["name"], WEBHOOK);
    assert_eq!((&webhook["failurePolicy"], &webhook["sideEffects"]), (&json!("Ignore"), &json!("None")));
    let opted_in = json!({"matchLabels": {LABEL_ROUTER_INJECTION: "enabled"}});
    assert_eq!(webhook["namespaceSelector"], opted_in);
    let condition = webhook["matchConditions"][0]["expression"].as_str().unwrap();
    assert!(condition.contains(&format!("'{ANNOTATION_INJECT_ROUTER}' in object.metadata.annotations")));
    let client = &webhook["clientConfig"];
    assert!(client["caBundle"].is_null(), "it is the operator's own field");
    assert_eq!((&client["service"]["name"], &client["service"]["path"]), (&json!(SERVICE), &json!(PATH)));
    let service = kind("Service");
    assert_eq!(service["metadata"]["name"], SERVICE);
    let target = &service["spec"]["ports"][0]["targetPort"];
    let deployment = documents("deployment.yaml").remove(0);
    let ports = deployment["spec"]["template"]["spec"]["containers"][0]["ports"].as_array().unwrap();
    assert!(ports.iter().any(|port| port["name"] == *target && port["containerPort"] == 9443));
    let rules = &kind("ClusterRole")["rules"];
    assert_eq!(rules[0]["resourceNames"], json!(["searchcell-operator"]), "no other webhook of the cluster");
    assert_eq!(rules.as_array().unwrap().len(), 1);
}

#[test]
fn the_image_has_no_shell_and_an_unprivileged_user() {
    let text = std::fs::read_to_string(base("../../Dockerfile")).unwrap();
    let last = text.rsplit("\nFROM ").next().unwrap();
    assert!(last.starts_with("gcr.io/distroless/static-") && last.contains("\nUSER 65532:65532\n"), "{last}");
    assert!(!last.contains("\nRUN "), "nothing in it could run");
}

#[test]
fn every_right_is_narrow_and_has_its_reason() {
    for file in ["cluster-role.yaml", "lease-role.yaml", "webhook.yaml"] {
        for role in documents(file).iter().filter(|object| object["kind"].as_str().unwrap().ends_with("Role"))
        {
            for rule in role["rules"].as_array().unwrap() {
                let text = rule.to_string();
                assert!(!text.contains('*'), "{text}");
                for resource in
                    ["\"nodes\"", "\"roles\"", "\"customresourcedefinitions\"", "pods/exec", "\"namespaces\""]
                {
                    assert!(!text.contains(resource), "{resource}: {text}");
                }
                // Rules of their own, so that their reasons are their own.
                for (resource, verbs) in [
                    ("pods", json!(["list", "watch", "patch", "delete"])),
                    ("secrets", json!(["get", "list", "watch", "create", "update"])),
                ] {
                    if rule["resources"].as_array().unwrap().contains(&json!(resource)) {
                        assert_eq!(rule["resources"], json!([resource]));
                        assert_eq!(rule["verbs"], verbs, "{resource}");
                    }
                }
            }
        }
        let text = std::fs::read_to_string(base(file)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let mut uncommented = Vec::new();
        for (number, _) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("- apiGroups:")) {
            if !lines[number - 1].starts_with('#') {
                uncommented.push(format!("{file}:{}", number + 1));
            }
        }
        assert_eq!(uncommented, Vec::<String>::new(), "rules without a reason");
    }
}
