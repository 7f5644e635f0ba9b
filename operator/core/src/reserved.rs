//! Settings of Elasticsearch that belong to the operator, each with what to write instead. Pure.
//!
//! Everything that says who a node is, where it listens, whom it finds, where its data lies, or where shards may
//! be: with any of these set by hand, a gate of the operator would look at something else than what runs.

/// Which settings a rule is about.
enum Match {
    /// This key, and everything below it.
    Tree(&'static str),
    /// This key alone.
    Key(&'static str),
}

use Match::{Key, Tree};

const COORDINATES: &str = "the operator wires the nodes of a cluster together";
const ADDRESSES: &str = "the operator sets addresses and ports";
const ROLES: &str = "roles follow from spec.nodes.master, spec.nodes.ingest and spec.nodes.data";
const FILES: &str = "the operator mounts the volumes; path.repo is free";
const ALLOCATION: &str = "the operator decides where copies may be, by zone";
const SECURITY: &str = "see spec.security";
const CHECKS: &str = "the checks of Elasticsearch at its start stay on; bootstrap.memory_lock is free";

/// Settings of nodes and of clusters.
const CLUSTER: &[(Match, &str)] = &[
    (Key("cluster.name"), "it is the name of the cell, a dash and the name of the cluster"),
    (Tree("cluster.initial_master_nodes"), COORDINATES),
    (Tree("cluster.initial_cluster_manager_nodes"), COORDINATES),
    (Tree("discovery"), COORDINATES),
    (Key("node.name"), "it is the name of the pod"),
    (Key("node.id.seed"), "every node needs an id of its own"),
    (Key("node.pidfile"), FILES),
    (Key("node.portsfile"), FILES),
    (Key("pidfile"), FILES),
    (Tree("node.roles"), ROLES),
    // The way to write roles before 7.9; Elasticsearch refuses to start with both.
    (Key("node.master"), ROLES),
    (Key("node.data"), ROLES),
    (Key("node.ingest"), ROLES),
    (Key("node.ml"), ROLES),
    (Key("node.transform"), ROLES),
    (Key("node.voting_only"), ROLES),
    (Key("node.remote_cluster_client"), ROLES),
    (Tree("node.attr.zone"), "it follows from spec.zones"),
    (Tree("path"), FILES),
    (Tree("network"), ADDRESSES),
    (Key("http.port"), ADDRESSES),
    (Tree("http.host"), ADDRESSES),
    (Tree("http.bind_host"), ADDRESSES),
    (Tree("http.publish_host"), ADDRESSES),
    (Key("http.publish_port"), ADDRESSES),
    (Key("http.enabled"), ADDRESSES),
    (Tree("http.type"), ADDRESSES),
    (Tree("transport.type"), ADDRESSES),
    (Tree("remote_cluster"), ADDRESSES),
    (Tree("remote_cluster_server"), ADDRESSES),
    (Tree("transport.profiles"), ADDRESSES),
    (Key("transport.port"), ADDRESSES),
    (Tree("transport.tcp.port"), ADDRESSES),
    (Tree("transport.host"), ADDRESSES),
    (Tree("transport.bind_host"), ADDRESSES),
    (Tree("transport.publish_host"), ADDRESSES),
    (Key("transport.publish_port"), ADDRESSES),
    (Tree("readiness"), "the operator watches the readiness of nodes at its own port"),
    (Tree("xpack.security"), SECURITY),
    (Tree("bootstrap"), CHECKS),
    (Tree("cluster.routing.allocation.awareness"), ALLOCATION),
    (Tree("cluster.routing.allocation.exclude"), ALLOCATION),
    (Tree("cluster.routing.allocation.include"), ALLOCATION),
    (Tree("cluster.routing.allocation.require"), ALLOCATION),
    (Key("cluster.routing.allocation.enable"), ALLOCATION),
    (Tree("cluster.metadata.searchcell"), "the operator keeps its own notes there"),
];

/// Exceptions from [`CLUSTER`]: repositories of snapshots and locked memory are a user's own affair.
const FREE: &[&str] = &["path.repo", "bootstrap.memory_lock"];

const SHARDS: &str = "the number of shards follows from pool or dedicated";
const COPIES: &str = "set spec.replicas instead";
const ROUTING: &str = "the operator decides where copies and documents may be";
const IDENTITY: &str = "Elasticsearch sets it itself";
const FOLDERS: &str = "the operator decides where indices lie";

/// Settings of indices.
const INDEX: &[(Match, &str)] = &[
    (Key("index.number_of_shards"), SHARDS),
    (Key("index.number_of_routing_shards"), SHARDS),
    (Key("index.number_of_replicas"), COPIES),
    (Key("index.auto_expand_replicas"), COPIES),
    (Tree("index.routing"), ROUTING),
    (Tree("index.routing_partition_size"), ROUTING),
    (Tree("index.routing_path"), ROUTING),
    (Tree("index.allocation"), ROUTING),
    (Tree("index.data_path"), FOLDERS),
    (Tree("index.uuid"), IDENTITY),
    (Tree("index.version"), IDENTITY),
    (Tree("index.creation_date"), IDENTITY),
    (Tree("index.provided_name"), IDENTITY),
];

/// Settings of indices that are fixed when an index is made. Others that Elasticsearch does not change in place it
/// refuses by name.
const FIXED: &[Match] = &[
    Tree("index.analysis"),
    Tree("index.similarity"),
    Tree("index.sort"),
    Tree("index.store"),
    Key("index.codec"),
    Key("index.mode"),
    Key("index.load_fixed_bitset_filters_eagerly"),
    Key("index.soft_deletes.enabled"),
    Key("index.shard.check_on_startup"),
    Key("index.mapping.coerce"),
    Key("index.mapping.ignore_malformed"),
    Key("index.mapping.source.mode"),
    Key("index.queries.cache.enabled"),
    Key("index.query.parse.allow_unmapped_fields"),
    Key("index.percolator.map_unmapped_fields_as_text"),
];

/// Settings of indices that keep copies from where awareness puts them, or change how many there are. Nobody but the
/// operator has them set; what Elasticsearch itself sets is left alone.
const MISPLACING: &[Match] =
    &[Tree("index.routing.allocation"), Tree("index.routing.rebalance"), Key("index.auto_expand_replicas")];
const SET_BY_ELASTICSEARCH: &[Match] = &[
    Key("index.routing.allocation.include._tier_preference"),
    Tree("index.routing.allocation.initial_recovery"),
];

/// True for a flat key of an index, `index.` in front, that changes only with another index.
pub fn is_fixed_at_creation(key: &str) -> bool {
    FIXED.iter().any(|rule| covers(rule, key))
}

/// True for a setting of an index that somebody set and that is not to be there.
pub fn is_misplacing(key: &str, value: &str) -> bool {
    MISPLACING.iter().any(|rule| covers(rule, key))
        && !SET_BY_ELASTICSEARCH.iter().any(|rule| covers(rule, key))
        && !(key == "index.auto_expand_replicas" && value == "false")
}

/// Why a flat key of `settings` or `clusterSettings` belongs to the operator; absent: it is the user's.
pub fn cluster_setting(key: &str) -> Option<&'static str> {
    if FREE.iter().any(|free| covers(&Tree(free), key)) {
        return None;
    }
    reason(CLUSTER, key)
}

/// Why a flat key of an index, `index.` in front, belongs to the operator; absent: it is the user's.
pub fn index_setting(key: &str) -> Option<&'static str> {
    reason(INDEX, key)
}

fn reason(table: &[(Match, &'static str)], key: &str) -> Option<&'static str> {
    table.iter().find(|(rule, _)| covers(rule, key)).map(|(_, why)| *why)
}

fn covers(rule: &Match, key: &str) -> bool {
    match rule {
        Key(name) => *name == key,
        Tree(name) => key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_sets_is_reserved() {
        for key in [
            "cluster.name",
            "node.name",
            "node.roles",
            "node.roles.0",
            "node.attr.zone",
            "node.master",
            "path.data",
            "path.logs",
            "network.host",
            "network.publish_host",
            "http.port",
            "transport.port",
            "discovery.type",
            "discovery.seed_hosts.0",
            "cluster.initial_master_nodes",
            "readiness.port",
            "node.pidfile",
            "node.id.seed",
            "transport.type",
            "remote_cluster.port",
            "remote_cluster_server.enabled",
            "xpack.security.enabled",
            "bootstrap.system_call_filter",
            "cluster.routing.allocation.awareness.attributes",
            "cluster.routing.allocation.awareness.force.zone.values",
            "cluster.routing.allocation.exclude._name",
            "cluster.routing.allocation.include.zone",
            "cluster.routing.allocation.require._ip",
            "cluster.routing.allocation.enable",
            "cluster.metadata.searchcell.settings",
        ] {
            assert!(cluster_setting(key).is_some(), "{key}");
        }
    }

    #[test]
    fn everything_else_is_the_users() {
        for key in [
            "node.attr.disk",
            "node.attr.zones",
            "node.store.allow_mmap",
            "path.repo",
            "bootstrap.memory_lock",
            "indices.memory.index_buffer_size",
            "cluster.max_shards_per_node",
            "cluster.routing.allocation.disk.watermark.low",
            "cluster.routing.allocation.node_concurrent_recoveries",
            "cluster.routing.rebalance.enable",
            "cluster.metadata.note",
            "cluster.remote.other.seeds",
            "http.max_content_length",
            "transport.compress",
        ] {
            assert_eq!(cluster_setting(key), None, "{key}");
        }
    }

    #[test]
    fn what_changes_in_place_and_what_is_put_right() {
        for key in
            ["index.codec", "index.analysis.analyzer.a.type", "index.sort.field", "index.mapping.coerce"]
        {
            assert!(is_fixed_at_creation(key), "{key}");
        }
        for key in ["index.refresh_interval", "index.gc_deletes", "index.mapping.total_fields.limit"] {
            assert!(!is_fixed_at_creation(key), "{key}");
        }
        assert!(is_misplacing("index.routing.allocation.exclude._name", "x"));
        assert!(is_misplacing("index.auto_expand_replicas", "0-1"));
        assert!(!is_misplacing("index.auto_expand_replicas", "false"));
        assert!(!is_misplacing("index.routing.allocation.include._tier_preference", "data_content"));
        assert!(!is_misplacing("index.refresh_interval", "1s"));
    }

    #[test]
    fn settings_of_indices() {
        for key in [
            "index.number_of_shards",
            "index.number_of_replicas",
            "index.auto_expand_replicas",
            "index.routing.allocation.require._name",
            "index.routing.allocation.total_shards_per_node",
            "index.routing_partition_size",
            "index.number_of_routing_shards",
            "index.data_path",
        ] {
            assert!(index_setting(key).is_some(), "{key}");
        }
        for key in
            ["index.codec", "index.gc_deletes", "index.refresh_interval", "index.analysis.analyzer.a.type"]
        {
            assert_eq!(index_setting(key), None, "{key}");
        }
    }
}
