//! What the users of the file realm may do. Pure.

use serde_json::json;

use super::users::User;

/// Names that indices of placements have, whatever their collection: a file reaches nodes minutes after it changed, and a
/// new collection would be closed to routers until then.
const MANAGED: &str = r"/[a-z][a-z0-9-]*\.(p[0-9]+|t\.[a-z0-9-]+)\.g[0-9]+/";

/// `roles.yml`: the least that works. `docs/operations/security.md` says which call needs what.
pub fn roles() -> String {
    let roles = [
        (
            User::Operator,
            json!([
                "monitor",
                "cluster:admin/settings/update",
                "cluster:admin/nodes/reload_secure_settings",
                "cluster:admin/shutdown/*",
                "cluster:admin/voting_config/*",
                "cluster:admin/xpack/deprecation/*",
                "monitor_snapshot",
            ]),
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
            json!([{"names": [MANAGED], "privileges": ["read", "write", "indices:admin/refresh*"]}]),
        ),
        (User::Exporter, json!(["monitor"]), json!([{"names": ["*"], "privileges": ["monitor"]}])),
    ];
    let role = |(user, cluster, indices): &(User, serde_json::Value, serde_json::Value)| {
        format!("{}:\n  cluster: {cluster}\n  indices: {indices}\n", user.role())
    };
    roles.iter().map(role).collect()
}
