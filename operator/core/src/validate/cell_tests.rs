//! One test per rule of a SearchCell: a good cell, broken in one place.

use searchcell_crds::{ClusterPlacement, Reason};
use serde_json::json;

use super::test_support::{assert_one, cell, cell_problems, good_cell, with};
use super::validate_cell;
use crate::domain::IngestScale;

macro_rules! refused {
    ($($test:ident: $pointer:literal = $value:tt => $reason:ident at $path:literal, $part:literal;)+) => {
        $(#[test] fn $test() {
            let problems = cell_problems(with(good_cell(), $pointer, json!($value)));
            assert_one(&problems, $path, Reason::$reason, $part);
        })+
    };
}

refused! {
    // Not in this version.
    cluster_drain: "/spec/clusters/1/placement" = "Drain" => NotSupportedYet at "spec.clusters[a].placement", "Closed";
    cluster_disposable: "/spec/clusters/1/disposable" = true => NotSupportedYet at "spec.clusters[a].disposable", "remove";
    rollout_canary: "/spec/rollout/canary" = "z" => InvalidSpec at "spec.rollout.canary", "name one";
    rollout_no_clusters: "/spec/rollout/maxUnavailableClusters" = 0 => InvalidSpec at "spec.rollout.maxUnavailableClusters", "1 to 64";
    rollout_soak: "/spec/rollout/soak" = "a minute" => InvalidSpec at "spec.rollout.soak", "90s";
    rollout_soak_too_long: "/spec/rollout/soak" = "25h" => InvalidSpec at "spec.rollout.soak", "24h";
    rollout_restarted_at: "/spec/rollout/restartedAt" = "" => InvalidSpec at "spec.rollout.restartedAt", "date";

    // Version, image, names.
    version_too_old: "/spec/version" = "7.16.3" => UnsupportedVersion at "spec.version", "7.17, 8 or 9";
    version_too_new: "/spec/version" = "10.0.0" => UnsupportedVersion at "spec.version", "7.17, 8 or 9";
    version_malformed: "/spec/version" = "9.5" => InvalidSpec at "spec.version", "x.y.z";
    image_with_scheme: "/spec/image" = "https://registry/es:1" => InvalidSpec at "spec.image", "scheme";
    image_with_space: "/spec/image" = "es 9" => InvalidSpec at "spec.image", "image";
    topology_key: "/spec/topologyKey" = "a b" => InvalidSpec at "spec.topologyKey", "label";
    cell_name: "/metadata/name" = "9cell" => InvalidSpec at "metadata.name", "DNS label";
    cell_name_with_dot: "/metadata/name" = "a.b" => InvalidSpec at "metadata.name", "DNS label";
    names_too_long: "/metadata/name" = "a23456789012345678901234567890123456789012" => InvalidSpec at "metadata.name", "43 characters";

    // Zones and clusters.
    no_zone: "/spec/zones" = [] => InvalidSpec at "spec.zones", "1 to 6";
    seven_zones: "/spec/zones" = [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}, {"name": "e"}, {"name": "f"}, {"name": "g"}]
        => InvalidSpec at "spec.zones", "1 to 6";
    zone_name: "/spec/zones/0" = {"name": "C", "value": "x"} => InvalidSpec at "spec.zones[C].name", "lower-case";
    zone_name_too_long: "/spec/zones/0/name" = "c23456789012345678901" => InvalidSpec at "spec.zones[c23456789012345678901].name", "20";
    zone_value: "/spec/zones/0/value" = "not a value" => InvalidSpec at "spec.zones[c].value", "label";
    zone_name_twice: "/spec/zones/0" = {"name": "a", "value": "other"} => InvalidSpec at "spec.zones[a].name", "twice";
    zone_value_twice: "/spec/zones/0/value" = "zone-a" => InvalidSpec at "spec.zones[a].value", "own";
    no_cluster: "/spec/clusters" = [] => InvalidSpec at "spec.clusters", "1 to 64";
    cluster_name_with_dash: "/spec/clusters/0/name" = "b-1" => InvalidSpec at "spec.clusters[b-1].name", "lower-case letter";
    cluster_name_begins_with_digit: "/spec/clusters/0/name" = "1b" => InvalidSpec at "spec.clusters[1b].name", "lower-case letter";
    cluster_named_like_a_role: "/spec/clusters/0/name" = "data" => InvalidSpec at "spec.clusters[data].name", "must not be";
    cluster_named_like_a_service: "/spec/clusters/0/name" = "http" => InvalidSpec at "spec.clusters[http].name", "must not be";
    cluster_twice: "/spec/clusters/0/name" = "a" => InvalidSpec at "spec.clusters[a].name", "twice";

    // Numbers of nodes.
    master_count_even: "/spec/nodes/master/count" = 2 => InvalidSpec at "spec.nodes.master.count", "1, 3 or 5";
    master_count_zero: "/spec/nodes/master/count" = 0 => InvalidSpec at "spec.nodes.master.count", "1, 3 or 5";
    data_per_zone_zero: "/spec/nodes/data/perZone" = 0 => InvalidSpec at "spec.nodes.data.perZone", "1 to 100";
    data_per_zone_many: "/spec/nodes/data/perZone" = 101 => InvalidSpec at "spec.nodes.data.perZone", "1 to 100";
    ingest_replicas_zero: "/spec/nodes/ingest/replicas" = 0 => InvalidSpec at "spec.nodes.ingest.replicas", "1 to 1000";
    ingest_neither: "/spec/nodes/ingest/replicas" = null => InvalidSpec at "spec.nodes.ingest", "exactly one";
    ingest_both: "/spec/nodes/ingest/autoscaling" = {"minReplicas": 1, "maxReplicas": 2, "targetCPUUtilizationPercentage": 70}
        => InvalidSpec at "spec.nodes.ingest", "exactly one";
    autoscaling_min_above_max: "/spec/nodes/ingest"
        = {"autoscaling": {"minReplicas": 3, "maxReplicas": 2, "targetCPUUtilizationPercentage": 70}, "resources": {"requests": {"cpu": 1}}}
        => InvalidSpec at "spec.nodes.ingest.autoscaling.minReplicas", "maxReplicas";
    autoscaling_percent: "/spec/nodes/ingest"
        = {"autoscaling": {"minReplicas": 1, "maxReplicas": 2, "targetCPUUtilizationPercentage": 0}, "resources": {"requests": {"cpu": 1}}}
        => InvalidSpec at "spec.nodes.ingest.autoscaling.targetCPUUtilizationPercentage", "1 to 100";
    autoscaling_without_request: "/spec/nodes/ingest"
        = {"autoscaling": {"minReplicas": 1, "maxReplicas": 2, "targetCPUUtilizationPercentage": 70}}
        => InvalidSpec at "spec.nodes.ingest.autoscaling", "resources.requests.cpu";

    // Sizes.
    storage_no_quantity: "/spec/nodes/data/storage/size" = "2TB" => InvalidSpec at "spec.nodes.data.storage.size", "100Gi";
    storage_zero: "/spec/nodes/master/storage/size" = "0" => InvalidSpec at "spec.nodes.master.storage.size", "64Mi to 1Pi";
    storage_huge: "/spec/nodes/data/storage/size" = "2Ei" => InvalidSpec at "spec.nodes.data.storage.size", "64Mi to 1Pi";
    storage_class: "/spec/nodes/data/storage/storageClassName" = "SSD" => InvalidSpec at "spec.nodes.data.storage.storageClassName", "StorageClass";
    request_no_quantity: "/spec/nodes/data/resources/requests/cpu" = "two" => InvalidSpec at "spec.nodes.data.resources.requests[\"cpu\"]", "cpu: \"2\"";
    limit_negative: "/spec/nodes/data/resources/limits/cpu" = "-1" => InvalidSpec at "spec.nodes.data.resources.limits[\"cpu\"]", "positive";
    resource_name: "/spec/nodes/data/resources/limits/a b" = "1" => InvalidSpec at "spec.nodes.data.resources.limits[\"a b\"]", "cpu or memory";
    request_above_limit: "/spec/nodes/data/resources/requests/memory" = "4097Mi" => InvalidSpec at "spec.nodes.data.resources.requests[\"memory\"]", "limit";
    heap_no_quantity: "/spec/nodes/data/heap" = "30g" => InvalidSpec at "spec.nodes.data.heap", "30Gi";
    heap_tiny: "/spec/nodes/data/heap" = "1Mi" => InvalidSpec at "spec.nodes.data.heap", "64Mi";
    heap_is_the_limit: "/spec/nodes/data/heap" = "4096Mi" => InvalidSpec at "spec.nodes.data.heap", "less than resources.limits.memory";

    // Options and settings.
    jvm_option_heap: "/spec/nodes/data/jvmOptions/-" = "-Xmx1g" => InvalidSpec at "spec.nodes.data.jvmOptions[1]", "set heap";
    jvm_option_line_break: "/spec/nodes/data/jvmOptions/0" = "-Da=b\n-Xmx1g" => InvalidSpec at "spec.nodes.data.jvmOptions[0]", "entry of its own";
    jvm_option_agent: "/spec/nodes/master/jvmOptions" = ["-javaagent:/a.jar"] => InvalidSpec at "spec.nodes.master.jvmOptions[0]", "remove";
    reserved_setting: "/spec/settings/cluster.name" = "x" => ReservedSetting at "spec.settings[\"cluster.name\"]", "remove it";
    reserved_setting_of_role: "/spec/nodes/data/settings/node" = {"roles": []} => ReservedSetting at "spec.nodes.data.settings[\"node.roles\"]", "spec.nodes.data";
    reserved_setting_of_ingest: "/spec/nodes/ingest/settings" = {"discovery.type": "single-node"} => ReservedSetting at "spec.nodes.ingest.settings[\"discovery.type\"]", "remove it";
    reserved_cluster_setting: "/spec/clusterSettings/cluster.routing.allocation" = {"awareness.attributes": "rack"}
        => ReservedSetting at "spec.clusterSettings[\"cluster.routing.allocation.awareness.attributes\"]", "by zone";
    setting_null: "/spec/settings" = {"a": {"b": [null]}} => InvalidSpec at "spec.settings[\"a.b\"]", "null";
    settings_too_long: "/spec/settings/a.b" = ["xxxxxxxxxxxxxxxx", [1]] => InvalidSpec at "spec.settings[\"a.b\"]", "list in a list";
    pod_template_reserved: "/spec/nodes/data/podTemplate/spec/hostNetwork" = true => ReservedPodField at "spec.nodes.data.podTemplate.spec.hostNetwork", "remove";
}

#[test]
fn settings_that_fit_no_annotation_are_refused() {
    let lines: Vec<String> = (0..20).map(|_| "x".repeat(10_000)).collect();
    let problems = cell_problems(with(good_cell(), "/spec/nodes/data/settings/a.b", json!(lines)));
    assert_one(&problems, "spec.nodes.data.settings", Reason::InvalidSpec, "128 KiB");
}

#[test]
fn too_many_jvm_options_are_refused() {
    let options: Vec<String> = (0..33).map(|i| format!("-Da{i}=1")).collect();
    let problems = cell_problems(with(good_cell(), "/spec/nodes/data/jvmOptions", json!(options)));
    assert_one(&problems, "spec.nodes.data.jvmOptions", Reason::InvalidSpec, "32");
}

#[test]
fn a_good_cell_is_read_completely() {
    let value = with(good_cell(), "/spec/clusters/1/placement", json!("Closed"));
    let valid = validate_cell(&cell(value)).unwrap();
    assert_eq!(valid.zone_names(), ["a", "b", "c"]);
    assert_eq!(valid.zones[0].value, "zone-a");
    assert_eq!(valid.zones[1].value, "b");
    let clusters: Vec<_> = valid.clusters.iter().map(|c| (c.name.as_str(), c.placement)).collect();
    assert_eq!(clusters, [("b", ClusterPlacement::Open), ("a", ClusterPlacement::Closed)]);
    assert_eq!(valid.image, "docker.elastic.co/elasticsearch/elasticsearch:9.5.3");
    assert_eq!(valid.data.heap_bytes, Some(2 << 30));
    assert_eq!(
        json!(valid.data.settings),
        json!({"indices.memory.index_buffer_size": "20%", "node.store.allow_mmap": false})
    );
    assert_eq!(json!(valid.master.settings), json!({"node.store.allow_mmap": false}));
    assert_eq!(json!(valid.cluster_settings), json!({"cluster.max_shards_per_node": 2000}));
    assert!(matches!(valid.ingest, Some((IngestScale::Fixed(3), _))));
}

#[test]
fn settings_of_a_role_win() {
    let value = with(good_cell(), "/spec/nodes/data/settings/node", json!({"store": {"allow_mmap": true}}));
    let valid = validate_cell(&cell(value)).unwrap();
    assert_eq!(valid.data.settings["node.store.allow_mmap"], json!(true));
}

#[test]
fn supported_choices_are_accepted() {
    for (pointer, value) in [
        ("/spec/version", json!("7.17.29")),
        ("/spec/version", json!("8.19.21")),
        ("/spec/suspend", json!(true)),
        ("/spec/deletionPolicy", json!("Delete")),
        ("/spec/rollout/soak", json!("1m")),
        ("/spec/rollout/soak", json!("24h")),
        ("/spec/rollout/unit", json!("Auto")),
        ("/spec/rollout/unit", json!("Node")),
        ("/spec/rollout/unit", json!("Zone")),
        ("/spec/rollout/canary", json!("a")),
        ("/spec/rollout/approval", json!("Manual")),
        ("/spec/rollout/restartedAt", json!("2026-11-21")),
        ("/spec/rollout/maxUnavailableClusters", json!(2)),
        ("/spec/zones/0/state", json!("Active")),
        ("/spec/clusters/0/disposable", json!(false)),
        ("/spec/nodes/ingest", json!(null)),
        ("/spec/nodes/master/count", json!(1)),
        ("/spec/nodes/data/resources/limits/memory", json!("64Gi")),
        ("/spec/nodes/data/podTemplate", json!({})),
        // More than compressed object pointers reach, and more than half of the limit: the user's decision.
        ("/spec/nodes/data/heap", json!("3900Mi")),
    ] {
        assert_eq!(cell_problems(with(good_cell(), pointer, value.clone())), [], "{pointer} {value}");
    }
}

#[test]
fn all_problems_come_at_once_sorted_by_path() {
    let mut value = with(good_cell(), "/spec/version", json!("6.0.0"));
    value = with(value, "/spec/nodes/master/count", json!(4));
    value = with(value, "/spec/secureSettings", json!([{"secretName": "S3"}]));
    let paths: Vec<String> = cell_problems(value).into_iter().map(|problem| problem.path).collect();
    assert_eq!(paths, ["spec.nodes.master.count", "spec.secureSettings[0].secretName", "spec.version"]);
}

#[test]
fn security_is_managed_unless_it_is_disabled() {
    for (security, is_secure) in [
        (json!(null), true),
        (json!({}), true),
        (json!({"mode": "Managed"}), true),
        (json!({"mode": "Disabled"}), false),
    ] {
        let value = with(good_cell(), "/spec/security", security.clone());
        assert_eq!(validate_cell(&cell(value)).unwrap().is_secure, is_secure, "{security}");
    }
}

#[test]
fn managed_security_needs_a_version_that_has_it() {
    for version in ["7.17.29", "8.0.1", "8.1.3"] {
        let value = with(with(good_cell(), "/spec/version", json!(version)), "/spec/security", json!({}));
        let problems = cell_problems(value);
        assert_one(
            &problems,
            "spec.security.mode",
            Reason::UnsupportedVersion,
            "set spec.security.mode: Disabled",
        );
        assert!(problems[0].message.contains(version));
    }
}

#[test]
fn certificates_of_a_user_need_security_and_a_name() {
    let certificates = json!({"http": {"secretName": "my.certificate-1"}});
    let value = with(good_cell(), "/spec/security", json!({"certificates": certificates}));
    assert_eq!(cell_problems(value), []);
    let value =
        with(good_cell(), "/spec/security", json!({"mode": "Disabled", "certificates": certificates}));
    assert_one(&cell_problems(value), "spec.security.certificates", Reason::InvalidSpec, "Managed");
    for name in ["", "../other", "Upper", "a/b"] {
        let value = json!({"certificates": {"transport": {"secretName": name}}});
        let problems = cell_problems(with(good_cell(), "/spec/security", value));
        assert_one(
            &problems,
            "spec.security.certificates.transport.secretName",
            Reason::InvalidSpec,
            "Secret",
        );
    }
}

#[test]
fn secrets_of_the_operator_are_named_by_nobody() {
    let template = json!({"spec": {
        "containers": [
            {"name": "elasticsearch", "env": [
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "guild-messages-http-ca", "key": "ca.key"}}},
                {"name": "MINE", "valueFrom": {"secretKeyRef": {"name": "guild-messages-admin", "key": "password"}}},
            ]},
            {"name": "exporter", "image": "x", "envFrom": [{"secretRef": {"name": "guild-messages-exporter"}}]},
        ],
        "volumes": [{"name": "guild-messages-users", "secret": {"secretName": "mine"}}],
    }});
    let value = with(good_cell(), "/spec/nodes/data/podTemplate", template);
    assert_eq!(cell_problems(value.clone()), [], "without security they are nobody's");
    let problems = cell_problems(with(value, "/spec/security", json!({})));
    let path =
        "spec.nodes.data.podTemplate.spec.containers[elasticsearch].env[KEY].valueFrom.secretKeyRef.name";
    assert_one(&problems, path, Reason::ReservedPodField, "guild-messages-exporter");
    let own = json!({"certificates": {"http": {"secretName": "guild-messages-a-transport-ca"}}});
    let path = "spec.security.certificates.http.secretName";
    assert_one(&cell_problems(with(good_cell(), "/spec/security", own)), path, Reason::InvalidSpec, "yours");
}
