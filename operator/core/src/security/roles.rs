//! What the users of the file realm may do. Pure.

use std::collections::BTreeSet;

use searchcell_crds::IndexPlacement;
use serde_json::json;

use super::users::User;

/// Names that indices of placements have, whatever their collection.
const MANAGED: &str = r"/[a-z][a-z0-9-]*\.(p[0-9]+|t\.[a-z0-9-]+)\.g[0-9]+/";

/// `roles.yml`: the least that works. `docs/operations/security.md` says which call needs what.
pub fn roles(placements: &[IndexPlacement]) -> String {
    let routed = patterns(placements);
    let roles = [
        (
            User::Operator,
            json!(["monitor", "cluster:admin/settings/update", "cluster:admin/nodes/reload_secure_settings"]),
            json!([
                {"names": ["*"], "privileges": ["monitor", "view_index_metadata"]},
                {"names": [MANAGED], "privileges": [
                    "create_index", "delete_index", "indices:admin/mapping/put", "indices:admin/settings/update",
                    "indices:data/read/search", "indices:admin/refresh*",
                ]},
            ]),
        ),
        (
            User::Router,
            json!(["cluster:monitor/main"]),
            if routed.is_empty() {
                json!([])
            } else {
                json!([{"names": routed, "privileges": ["read", "write", "indices:admin/refresh*"]}])
            },
        ),
        (User::Exporter, json!(["monitor"]), json!([{"names": ["*"], "privileges": ["monitor"]}])),
    ];
    let role = |(user, cluster, indices): &(User, serde_json::Value, serde_json::Value)| {
        format!("{}:\n  cluster: {cluster}\n  indices: {indices}\n", user.role())
    };
    roles.iter().map(role).collect()
}

/// Names of the indices of the cell's placements, as patterns.
fn patterns(placements: &[IndexPlacement]) -> Vec<String> {
    // The schema says the same of collections; an object can be older than the schema.
    let is_plain = |name: &&str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let collections: BTreeSet<&str> =
        placements.iter().map(|placement| placement.spec.collection.as_str()).filter(is_plain).collect();
    collections.iter().flat_map(|name| [format!("{name}.p*"), format!("{name}.t.*")]).collect()
}
