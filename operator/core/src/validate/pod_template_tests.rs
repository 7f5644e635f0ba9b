//! One test per rule of a pod template.

use searchcell_crds::Reason;
use serde_json::{Value, json};

use super::test_support::{assert_one, cell_problems, good_cell, with};

fn problems(template: Value) -> Vec<super::Problem> {
    cell_problems(with(good_cell(), "/spec/nodes/data/podTemplate", template))
}

fn container(field: &str, value: Value) -> Value {
    json!({"spec": {"containers": [{"name": "elasticsearch", field: value}]}})
}

macro_rules! refused {
    ($($test:ident: $template:expr => $path:literal, $part:literal;)+) => {
        $(#[test] fn $test() {
            let path = concat!("spec.nodes.data.podTemplate.", $path);
            assert_one(&problems($template), path, Reason::ReservedPodField, $part);
        })+
    };
}

refused! {
    image: container("image", json!("x")) => "spec.containers[elasticsearch].image", "spec.image";
    command: container("command", json!(["sh"])) => "spec.containers[elasticsearch].command", "settings";
    args: container("args", json!(["-v"])) => "spec.containers[elasticsearch].args", "settings";
    ports: container("ports", json!([{"containerPort": 1}])) => "spec.containers[elasticsearch].ports", "remove";
    resources: container("resources", json!({})) => "spec.containers[elasticsearch].resources", "resources of the role";
    env_from: container("envFrom", json!([])) => "spec.containers[elasticsearch].envFrom", "env";
    readiness_probe: container("readinessProbe", json!({})) => "spec.containers[elasticsearch].readinessProbe", "operator";
    startup_probe: container("startupProbe", json!({})) => "spec.containers[elasticsearch].startupProbe", "operator";
    liveness_probe: container("livenessProbe", json!({})) => "spec.containers[elasticsearch].livenessProbe", "killed";
    env_of_ours: container("env", json!([{"name": "POD_NAME", "value": "x"}])) => "spec.containers[elasticsearch].env[POD_NAME]", "remove";
    env_java_opts: container("env", json!([{"name": "ES_JAVA_OPTS", "value": "-Xmx1g"}])) => "spec.containers[elasticsearch].env[ES_JAVA_OPTS]", "jvmOptions";
    env_that_is_a_setting: container("env", json!([{"name": "node.roles", "value": "data"}])) => "spec.containers[elasticsearch].env[node.roles]", "settings";
    env_that_is_a_setting_in_disguise: container("env", json!([{"name": "ES_SETTING_NODE_ROLES", "value": "data"}]))
        => "spec.containers[elasticsearch].env[ES_SETTING_NODE_ROLES]", "settings";
    mount_over_config: container("volumeMounts", json!([{"name": "x", "mountPath": "/usr/share/elasticsearch/config"}]))
        => "spec.containers[elasticsearch].volumeMounts[/usr/share/elasticsearch/config]", "another path";
    mount_over_all: container("volumeMounts", json!([{"name": "x", "mountPath": "/usr//share/"}]))
        => "spec.containers[elasticsearch].volumeMounts[/usr//share/]", "another path";
    mount_over_the_settings: container("volumeMounts", json!([{"name": "x", "mountPath": "/usr/share/elasticsearch/config/elasticsearch.yml"}]))
        => "spec.containers[elasticsearch].volumeMounts[/usr/share/elasticsearch/config/elasticsearch.yml]", "another path";
    mount_in_disguise: container("volumeMounts", json!([{"name": "x", "mountPath": "/opt/../tmp"}]))
        => "spec.containers[elasticsearch].volumeMounts[/opt/../tmp]", "another path";
    mount_of_our_volume: container("volumeMounts", json!([{"name": "data", "mountPath": "/x"}]))
        => "spec.containers[elasticsearch].volumeMounts[/x].name", "your own";
    privileged: container("securityContext", json!({"privileged": true})) => "spec.containers[elasticsearch].securityContext.privileged", "restricted";
    capability: container("securityContext", json!({"capabilities": {"add": ["IPC_LOCK"]}}))
        => "spec.containers[elasticsearch].securityContext.capabilities", "restricted";
    init_container_of_ours: json!({"spec": {"initContainers": [{"name": "configure", "image": "x"}]}}) => "spec.initContainers[configure]", "another name";
    init_container_named_like_ours: json!({"spec": {"initContainers": [{"name": "elasticsearch", "image": "x"}]}}) => "spec.initContainers[elasticsearch]", "another name";
    sidecar_named_like_ours: json!({"spec": {"containers": [{"name": "configure", "image": "x"}]}}) => "spec.containers[configure]", "another name";
    sidecar_privileged: json!({"spec": {"initContainers": [{"name": "sysctl", "image": "x", "securityContext": {"runAsUser": 0}}]}})
        => "spec.initContainers[sysctl].securityContext.runAsUser", "restricted";
    sidecar_host_port: json!({"spec": {"containers": [{"name": "s", "image": "x", "ports": [{"containerPort": 1, "hostPort": 1}]}]}})
        => "spec.containers[s].ports.hostPort", "restricted";
    sidecar_port_of_ours: json!({"spec": {"containers": [{"name": "s", "image": "x", "ports": [{"containerPort": 9200}]}]}})
        => "spec.containers[s].ports.containerPort", "another port";
    sidecar_with_the_data: json!({"spec": {"containers": [{"name": "s", "image": "x", "volumeMounts": [{"name": "data", "mountPath": "/d"}]}]}})
        => "spec.containers[s].volumeMounts[/d].name", "your own";
    volume_of_ours: json!({"spec": {"volumes": [{"name": "config", "emptyDir": {}}]}}) => "spec.volumes[config]", "another name";
    host_path: json!({"spec": {"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}}) => "spec.volumes[h].hostPath", "restricted";
    label_of_ours: json!({"metadata": {"labels": {"searchcell.dev/zone": "x"}}}) => "metadata.labels[\"searchcell.dev/zone\"]", "another key";
    recommended_label: json!({"metadata": {"labels": {"app.kubernetes.io/name": "x"}}}) => "metadata.labels[\"app.kubernetes.io/name\"]", "another key";
    annotation_of_ours: json!({"metadata": {"annotations": {"searchcell.dev/elasticsearch.yml": "x"}}})
        => "metadata.annotations[\"searchcell.dev/elasticsearch.yml\"]", "another key";
    name: json!({"metadata": {"name": "x"}}) => "metadata.name", "labels and annotations";
    restart_policy: json!({"spec": {"restartPolicy": "Never"}}) => "spec.restartPolicy", "remove";
    service_account_token: json!({"spec": {"automountServiceAccountToken": true}}) => "spec.automountServiceAccountToken", "remove";
    host_network: json!({"spec": {"hostNetwork": true}}) => "spec.hostNetwork", "remove";
    host_pid: json!({"spec": {"hostPID": true}}) => "spec.hostPID", "remove";
    host_ipc: json!({"spec": {"hostIPC": true}}) => "spec.hostIPC", "remove";
    host_users: json!({"spec": {"hostUsers": true}}) => "spec.hostUsers", "false";
    node_name: json!({"spec": {"nodeName": "x"}}) => "spec.nodeName", "remove";
    hostname: json!({"spec": {"hostname": "x"}}) => "spec.hostname", "remove";
    subdomain: json!({"spec": {"subdomain": "x"}}) => "spec.subdomain", "remove";
    root: json!({"spec": {"securityContext": {"runAsUser": 0}}}) => "spec.securityContext.runAsUser", "restricted";
    node_affinity: json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}}})
        => "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution", "nodeSelector";
    zone_by_selector: json!({"spec": {"nodeSelector": {"topology.kubernetes.io/zone": "x"}}})
        => "spec.nodeSelector[\"topology.kubernetes.io/zone\"]", "spec.zones";
}

macro_rules! invalid {
    ($($test:ident: $template:expr => $path:literal, $part:literal;)+) => {
        $(#[test] fn $test() {
            let path = concat!("spec.nodes.data.podTemplate", $path);
            assert_one(&problems($template), path, Reason::InvalidSpec, $part);
        })+
    };
}

invalid! {
    unknown_field: json!({"spec": {"tolerations": [{"kye": "x"}]}}) => ".spec.tolerations[0].kye", "no field";
    unknown_top_level_field: json!({"status": {}}) => ".status", "no field";
    directive: json!({"spec": {"affinity": {"$patch": "delete"}}}) => ".spec.affinity.$patch", "no field";
    wrong_type: json!({"spec": {"priorityClassName": 7}}) => "", "not a pod template";
    null: json!({"spec": {"affinity": null}}) => ".spec.affinity", "null";
    container_without_name: json!({"spec": {"containers": [{"image": "x"}]}}) => ".spec.containers[0]", "no name";
    container_twice: json!({"spec": {"containers": [{"name": "s", "image": "x"}, {"name": "s", "image": "y"}]}}) => ".spec.containers[1]", "repeats";
    grace_too_short: json!({"spec": {"terminationGracePeriodSeconds": 0}}) => ".spec.terminationGracePeriodSeconds", "30 to 3600";
}

#[test]
fn what_is_a_users_own_is_accepted() {
    for template in [
        json!({"metadata": {"labels": {"team": "search"}, "annotations": {"example.com/a": "b"}}}),
        json!({"spec": {"priorityClassName": "high", "serviceAccountName": "es", "schedulerName": "x",
            "imagePullSecrets": [{"name": "r"}], "hostUsers": false, "terminationGracePeriodSeconds": 300,
            "nodeSelector": {"disk": "ssd"}, "runtimeClassName": "gvisor",
            "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
            "securityContext": {"runAsUser": 2000, "fsGroup": 2000}}}),
        json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}}]}}}}),
        json!({"spec": {"volumes": [{"name": "synonyms", "configMap": {"name": "s"}}],
            "containers": [{"name": "elasticsearch", "env": [{"name": "TZ", "value": "UTC"}], "imagePullPolicy": "Always",
                "volumeMounts": [{"name": "synonyms", "mountPath": "/usr/share/elasticsearch/config/synonyms"}]}]}}),
        json!({"spec": {"containers": [{"name": "logs", "image": "shipper:1", "resources": {"requests": {"cpu": 1}},
            "volumeMounts": [{"name": "logs", "mountPath": "/logs"}], "ports": [{"containerPort": 2020}]}],
            "initContainers": [{"name": "plugins", "image": "p:1", "envFrom": [{"configMapRef": {"name": "c"}}]}]}}),
    ] {
        assert_eq!(problems(template.clone()), [], "{template}");
    }
}
