//! The objects that tests apply: small enough for a machine of two cores, else as a user writes them.

use serde_json::{Value, json};

/// Version of almost all tests.
pub const VERSION: &str = "9.5.3";
/// Those of the others; e2e/test reads this line, too.
pub const OTHER_VERSIONS: [&str; 4] = ["7.17.29", "8.19.0", "8.19.21", "9.1.0"];

/// Ingest nodes of a cell.
#[derive(Clone, Copy, Debug)]
pub enum Ingest {
    /// The data nodes take the requests.
    None,
    /// A fixed number.
    Fixed(i32),
    /// By CPU: fewest, most, target in percent.
    Auto(i32, i32, i32),
}

/// A SearchCell in the making. Zone `a` is the Kubernetes zone `zone-a`.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Name of the object.
    pub name: String,
    /// Names of the clusters.
    pub clusters: Vec<String>,
    /// Names of the zones.
    pub zones: Vec<String>,
    /// Masters of each cluster.
    pub masters: i32,
    /// Ingest nodes of each cluster.
    pub ingest: Ingest,
    /// Data nodes in each zone of each cluster.
    pub per_zone: i32,
    /// Retain or Delete.
    pub deletion_policy: &'static str,
    /// Merged over the spec.
    pub extra: Value,
}

impl Cell {
    /// One master and one data node, in one zone: for what is not about Elasticsearch.
    pub fn mini(name: &str) -> Self {
        Self { zones: vec!["a".to_owned()], ..Self::small(name) }
    }

    /// One master, and a data node in each of three zones.
    pub fn small(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            clusters: vec!["a".to_owned()],
            zones: ["a", "b", "c"].map(str::to_owned).to_vec(),
            masters: 1,
            ingest: Ingest::None,
            per_zone: 1,
            deletion_policy: "Delete",
            extra: json!({}),
        }
    }

    /// Three masters, three ingest nodes, three data nodes: the promise of the README.
    pub fn whole(name: &str) -> Self {
        Self { masters: 3, ingest: Ingest::Fixed(3), ..Self::small(name) }
    }

    /// Nodes of all clusters together (with the fewest ingest nodes).
    pub fn nodes(&self) -> i32 {
        let ingest = match self.ingest {
            Ingest::None => 0,
            Ingest::Fixed(nodes) | Ingest::Auto(nodes, ..) => nodes,
        };
        let each = self.masters + ingest + self.per_zone * i32::try_from(self.zones.len()).unwrap();
        each * i32::try_from(self.clusters.len()).unwrap()
    }

    /// The object.
    pub fn object(&self) -> Value {
        let node = |cpu: &str| {
            json!({
                "heap": "128Mi",
                "resources": {"requests": {"cpu": cpu, "memory": "512Mi"}, "limits": {"memory": "700Mi"}},
            })
        };
        let stored =
            |fields: Value| merged(merged(node("30m"), &json!({"storage": {"size": "1Gi"}})), &fields);
        let mut nodes = json!({
            "master": stored(json!({"count": self.masters})),
            "data": stored(json!({"perZone": self.per_zone})),
        });
        match self.ingest {
            Ingest::None => {}
            Ingest::Fixed(replicas) => nodes["ingest"] = merged(node("100m"), &json!({"replicas": replicas})),
            Ingest::Auto(fewest, most, target) => {
                let bounds = json!({"minReplicas": fewest, "maxReplicas": most, "targetCPUUtilizationPercentage": target});
                nodes["ingest"] = merged(node("100m"), &json!({"autoscaling": bounds}));
            }
        }
        let zone = |name: &String| json!({"name": name, "value": format!("zone-{name}")});
        let cluster = |name: &String| json!({"name": name});
        let spec = json!({
            "version": VERSION,
            "zones": self.zones.iter().map(zone).collect::<Vec<_>>(),
            "clusters": self.clusters.iter().map(cluster).collect::<Vec<_>>(),
            "nodes": nodes,
            "settings": {"node.store.allow_mmap": false},
            // Elasticsearch looks at the disk below its volume, and that of this computer may be rather full
            "clusterSettings": {
                "cluster.routing.allocation.disk.watermark.low": "1gb",
                "cluster.routing.allocation.disk.watermark.high": "500mb",
                "cluster.routing.allocation.disk.watermark.flood_stage": "300mb",
            },
            "deletionPolicy": self.deletion_policy,
        });
        json!({
            "apiVersion": "searchcell.dev/v1alpha1",
            "kind": "SearchCell",
            "metadata": {"name": self.name},
            "spec": merged(spec, &self.extra),
        })
    }
}

/// A placement of the collection `messages` on a cell, with its target (`pool` or `dedicated`).
pub fn placement(name: &str, cell: &str, target: Value, replicas: i32) -> Value {
    let mappings = json!({
        "dynamic": "strict",
        "properties": {
            "guild_id": {"type": "keyword"},
            "content": {"type": "text"},
            "sent": {"type": "long"},
        },
    });
    let spec = json!({
        "cell": cell,
        "collection": "messages",
        "tenant": {"field": "guild_id"},
        "replicas": replicas,
        "deletionPolicy": "Delete",
    });
    // a dedicated placement takes its mappings from the pool
    let index =
        if target.get("pool").is_some() { json!({"index": {"mappings": mappings}}) } else { json!({}) };
    json!({
        "apiVersion": "searchcell.dev/v1alpha1",
        "kind": "IndexPlacement",
        "metadata": {"name": name},
        "spec": merged(merged(spec, &index), &target),
    })
}

/// `base` with `patch` merged over it, as a JSON merge patch; lists are replaced.
pub fn merged(mut base: Value, patch: &Value) -> Value {
    if let (Value::Object(fields), Value::Object(changes)) = (&mut base, patch) {
        for (key, change) in changes {
            if change.is_null() {
                fields.remove(key);
            } else {
                let field = fields.remove(key).unwrap_or_else(|| json!({}));
                let field = if change.is_object() && field.is_object() {
                    merged(field, change)
                } else {
                    change.clone()
                };
                fields.insert(key.clone(), field);
            }
        }
        return base;
    }
    patch.clone()
}
