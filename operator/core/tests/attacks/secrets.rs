//! Specs that are after keys, certificates and users of a cell with security.

use serde_json::{Value, json};

use super::pods::{node, sidecar, template};
use super::{Attack, On, attack, merged};

/// Secrets that no pod template may name.
const CLOSED: [&str; 8] = [
    "guilds-keystore-1",
    "guilds-http-ca",
    "guilds-a-transport-ca",
    "guilds-users",
    "guilds-operator",
    "guilds-a-data-a-certificates",
    "guilds-a-ingest-certificates",
    "guilds-former-master-b-certificates",
];

pub fn attacks() -> Vec<Attack> {
    let mut all = Vec::new();
    settings(&mut all);
    over_files(&mut all);
    from_volumes(&mut all);
    by_name(&mut all);
    supplied(&mut all);
    all
}

/// On a cell with security.
fn secure(name: &str, spec: Value, refused: &str) -> Attack {
    let spec = merged(spec, &json!({"security": {"mode": "Managed"}}));
    attack(On::Cell, &format!("with security, {name}"), spec, refused)
}

/// Around what `elasticsearch.yml` says of TLS and users.
fn settings(all: &mut Vec<Attack>) {
    for (key, value) in [
        ("xpack.security.enabled", json!(false)),
        ("xpack.security.http.ssl.enabled", json!(false)),
        ("xpack.security.http.ssl.key", json!("certificates/mine.key")),
        ("xpack.security.http.ssl.client_authentication", json!("none")),
        ("xpack.security.transport.ssl.verification_mode", json!("none")),
        ("xpack.security.transport.ssl.client_authentication", json!("none")),
        ("xpack.security.transport.ssl.certificate_authorities", json!(["extra/mine.crt"])),
        ("xpack.security.transport.ssl.trust_restrictions.path", json!("extra/trust.yml")),
        ("xpack.security.authc.reserved_realm.enabled", json!(true)),
        ("xpack.security.authc.anonymous.username", json!("guest")),
        ("xpack.security.authc.realms.file.searchcell.enabled", json!(false)),
        ("xpack.security.authc.realms.file.another.order", json!(-200)),
        ("xpack.security.authc.realms.jwt.mine.order", json!(-300)),
        ("xpack.security.autoconfiguration.enabled", json!(true)),
        ("xpack.security.enrollment.enabled", json!(true)),
        ("xpack.security.audit.enabled", json!(false)),
    ] {
        all.push(secure(&format!("setting {key}"), json!({"settings": {key: value}}), "spec.settings["));
        all.push(secure(
            &format!("cluster setting {key}"),
            json!({"clusterSettings": {key: value}}),
            "spec.clusterSettings[",
        ));
    }
}

/// Mounts over the files, however they are spelt, and volumes in the place of the operator's.
fn over_files(all: &mut Vec<Attack>) {
    for below in [
        "certificates",
        "certificates/",
        "./certificates",
        "/certificates//http-ca.crt",
        "analysis/../certificates",
        "certificates-of-mine",
        "realm",
        "realm/users",
        "users",
        "users/",
        "users_roles",
        "roles.yml",
        "role_mapping.yml",
        "service_tokens",
        "elasticsearch.keystore",
        "operator/settings.json",
    ] {
        let path = format!("/usr/share/elasticsearch/config/{below}");
        let spec = node(json!({"volumeMounts": [{"name": "mine", "mountPath": path}]}));
        all.push(secure(&format!("a mount over {below}"), spec, "volumeMounts["));
    }
    for name in ["searchcell-certificates", "searchcell-realm"] {
        let volume = json!({"name": name, "secret": {"secretName": "mine"}});
        let spec = template(json!({"spec": {"volumes": [volume]}}));
        all.push(secure(&format!("a volume in the place of {name}"), spec, &format!("volumes[{name}]")));
    }
    let synonyms =
        json!({"volumeMounts": [{"name": "mine", "mountPath": "/usr/share/elasticsearch/config/synonyms"}]});
    all.push(secure("synonyms of its own", node(synonyms), ""));
}

/// The operator's volumes in other containers, or elsewhere in the node's.
fn from_volumes(all: &mut Vec<Attack>) {
    for name in ["searchcell-certificates", "searchcell-realm", "config"] {
        let mount = json!({"name": name, "mountPath": "/x"});
        let mounts = json!({"volumeMounts": [mount]});
        all.push(secure(&format!("a sidecar with {name}"), sidecar(mounts.clone()), "volumeMounts["));
        all.push(secure(&format!("the node with {name} elsewhere"), node(mounts), "volumeMounts["));
        let init = json!({"name": "other", "image": "x", "volumeMounts": [mount]});
        let spec = template(json!({"spec": {"initContainers": [init]}}));
        all.push(secure(&format!("an init container with {name}"), spec, "volumeMounts["));
    }
    let script = json!({"name": "configure", "env": [{"name": "POD_NAME", "value": "../x"}]});
    let spec = template(json!({"spec": {"initContainers": [script]}}));
    all.push(secure("another name for the script", spec, "initContainers[configure]"));
    let name = node(json!({"env": [{"name": "POD_NAME", "value": "guilds-a-master-a-0"}]}));
    all.push(secure("another name for the node", name, "env["));
}

/// The operator's Secrets by their names.
fn by_name(all: &mut Vec<Attack>) {
    let volume =
        |source: Value| template(json!({"spec": {"volumes": [merged(json!({"name": "mine"}), &source)]}}));
    let variable = |name: &str| {
        let source = json!({"secretKeyRef": {"name": name, "key": "ca.key"}});
        json!({"env": [{"name": "MINE", "valueFrom": source}]})
    };
    for name in CLOSED {
        for (what, spec) in [
            ("a volume of", volume(json!({"secret": {"secretName": name}}))),
            ("a variable of", node(variable(name))),
            ("a sidecar's variable of", sidecar(variable(name))),
        ] {
            all.push(secure(&format!("{what} {name}"), spec, "is a Secret of the operator"));
        }
    }
    let closed = CLOSED[0];
    let init = merged(json!({"name": "other", "image": "x"}), &variable(closed));
    for (what, spec) in [
        ("a projected volume", volume(json!({"projected": {"sources": [{"secret": {"name": closed}}]}}))),
        (
            "the secret of a driver",
            volume(json!({"csi": {"driver": "x", "nodePublishSecretRef": {"name": closed}}})),
        ),
        ("all as variables", sidecar(json!({"envFrom": [{"secretRef": {"name": closed}}]}))),
        ("a secret to pull with", template(json!({"spec": {"imagePullSecrets": [{"name": closed}]}}))),
        ("an init container's variable", template(json!({"spec": {"initContainers": [init]}}))),
    ] {
        all.push(secure(&format!("{what} of {closed}"), spec, "is a Secret of the operator"));
    }
    for name in ["guilds-exporter", "mine"] {
        let spec = sidecar(json!({"envFrom": [{"secretRef": {"name": name}}]}));
        all.push(secure(&format!("a sidecar that has {name}"), spec, ""));
    }
}

/// Certificates from elsewhere.
fn supplied(all: &mut Vec<Attack>) {
    let from = |name: &str| json!({"security": {"certificates": {"http": {"secretName": name}, "transport": {"secretName": name}}}});
    for name in ["../x", "other/secret", "a%2fb", "a\nb", "Upper", "", "a..b", "-a", "guilds\u{202e}"] {
        all.push(secure(&format!("certificates from {name:?}"), from(name), "secretName"));
    }
    for name in CLOSED {
        all.push(secure(&format!("certificates from {name}"), from(name), "is a Secret of the operator"));
    }
    all.push(secure("certificates of its own", from("mine"), ""));
    secure_settings(all);
    let both = json!({"security": {"mode": "Disabled", "certificates": {"http": {"secretName": "mine"}}}});
    all.push(attack(On::Cell, "certificates without security", both, "spec.security.certificates"));
}

/// Entries of the keystore from Secrets that are not the user's to show, on cells with and without security.
fn secure_settings(all: &mut Vec<Attack>) {
    let from = |names: &[&str]| {
        let list: Vec<Value> = names.iter().map(|name| json!({"secretName": name})).collect();
        json!({"secureSettings": list})
    };
    for name in ["../x", "other/secret", "a\nb", "Upper", "", "guilds\u{202e}"] {
        let name_of = format!("secure settings from {name:?}");
        all.push(attack(On::Cell, &name_of, from(&[name]), "spec.secureSettings[0].secretName"));
    }
    for name in CLOSED {
        let name_of = format!("secure settings from {name}");
        all.push(attack(On::Cell, &name_of, from(&[name]), "is a Secret of the operator"));
    }
    all.push(attack(On::Cell, "a Secret twice", from(&["mine", "mine"]), "is there twice"));
    let many: Vec<String> = (0..17).map(|number| format!("mine-{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    all.push(attack(On::Cell, "many Secrets", from(&many), "more than 16"));
    all.push(attack(On::Cell, "secure settings of its own", from(&["mine"]), ""));
    let volume = json!([{"name": "mine", "secret": {"secretName": "guilds-keystore-1"}}]);
    let spec = merged(from(&["mine"]), &template(json!({"spec": {"volumes": volume}})));
    all.push(attack(On::Cell, "a keystore in another volume", spec, "is a Secret of the operator"));
}
