//! Every name, label, annotation and port that the operator gives to something. Pure.
//!
//! Nothing is truncated: the schema refuses a cell whose longest object name would not fit (see
//! [`MAX_STATEFUL_SET_NAME`]).

use std::collections::BTreeMap;
use std::fmt;

/// Field manager of every server-side apply, and `managed-by` of every object.
pub const FIELD_MANAGER: &str = "searchcell-operator";
/// Finalizer on both kinds; bounded in time, never dependent on a healthy Elasticsearch.
pub const FINALIZER: &str = "searchcell.dev/cleanup";

/// Label: name of the SearchCell.
pub const LABEL_CELL: &str = "searchcell.dev/cell";
/// Label: name of the cluster inside its cell.
pub const LABEL_CLUSTER: &str = "searchcell.dev/cluster";
/// Label: `master`, `ingest` or `data`.
pub const LABEL_ROLE: &str = "searchcell.dev/role";
/// Label: name of the zone in the SearchCell.
pub const LABEL_ZONE: &str = "searchcell.dev/zone";
/// Label of the pods of a router: `true`. In the namespace of a cell they reach its clusters over HTTP.
pub const LABEL_ROUTER: &str = "searchcell.dev/router";
/// Label of a namespace: with the value `enabled`, pods in it that ask for a router get one.
pub const LABEL_ROUTER_INJECTION: &str = "searchcell.dev/router-injection";
/// Label of a routing table: its collection.
pub const LABEL_COLLECTION: &str = "searchcell.dev/collection";
/// Label that Kubernetes puts on every namespace: its name.
pub const LABEL_NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// Recommended label that says what runs in a pod.
pub const LABEL_APP: &str = "app.kubernetes.io/name";
/// Value of [`LABEL_APP`] of the operator's own pods, in the shipped manifests.
pub const OPERATOR_APP: &str = "searchcell-operator";
/// Recommended label that says who manages an object; what the watches select by.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Annotation of a workload: hash of the user's inputs that its template was rendered from.
pub const ANNOTATION_INPUT_HASH: &str = "searchcell.dev/input-hash";
/// Annotation of a workload and of its pods: the Secret that they have their keystore from.
pub const ANNOTATION_KEYSTORE: &str = "searchcell.dev/keystore";
/// Annotation of a volume claim: UUID of the Elasticsearch cluster whose state is on the volume.
pub const ANNOTATION_CLUSTER_UUID: &str = "searchcell.dev/cluster-uuid";
/// Annotation of a volume claim: highest Elasticsearch version that joined its cluster.
pub const ANNOTATION_HIGHEST_VERSION: &str = "searchcell.dev/highest-version";
/// Annotation of a routing table's ConfigMap: the generation of the table in it, for people, and for when the table
/// itself cannot be read.
pub const ANNOTATION_TABLE_GENERATION: &str = "searchcell.dev/table-generation";
/// Annotation of a pod: the collections, with commas between them, that it wants a router for.
pub const ANNOTATION_INJECT_ROUTER: &str = "searchcell.dev/inject-router";
/// Annotation of a pod: bytes that its router may have in flight, for example `512Mi`.
pub const ANNOTATION_ROUTER_BUDGET: &str = "searchcell.dev/router-budget";
/// Annotation of a router's pod: the highest generation of its tables. When it changes, the kubelet brings new tables at
/// once.
pub const ANNOTATION_ROUTES_GENERATION: &str = "searchcell.dev/routes-generation";
/// Annotation by which a user lets a rollout begin: its value is the rollout's id.
pub const ANNOTATION_APPROVE: &str = "searchcell.dev/approve-rollout";
/// Pod template annotation: `spec.rollout.restartedAt`.
pub const ANNOTATION_RESTARTED_AT: &str = "searchcell.dev/restarted-at";
/// Pod template annotation whose value becomes `elasticsearch.yml`.
pub const ANNOTATION_ELASTICSEARCH_YML: &str = "searchcell.dev/elasticsearch.yml";
/// Pod template annotation whose value becomes `jvm.options.d/searchcell.options`.
pub const ANNOTATION_JVM_OPTIONS: &str = "searchcell.dev/jvm.options";

/// Elasticsearch's HTTP port.
pub const HTTP_PORT: i32 = 9200;
/// Port of a router for metrics, probes and generations.
pub const ROUTER_ADMIN_PORT: i32 = 8081;
/// Container of a router that was injected.
pub const ROUTER_CONTAINER: &str = "searchcell-router";
/// Elasticsearch's transport port.
pub const TRANSPORT_PORT: i32 = 9300;
/// Port that Elasticsearch opens while the node is a member of a cluster (`readiness.port`).
pub const READINESS_PORT: i32 = 8080;

/// Key of the bootstrap ConfigMap: a comma-separated list of node names.
pub const INITIAL_MASTER_NODES: &str = "cluster.initial_master_nodes";
/// Elasticsearch's attribute that carries the zone: `node.attr.zone`.
pub const ZONE_ATTRIBUTE: &str = "zone";
/// Persistent setting in which the operator records the names of the cluster settings that it owns.
pub const OWNED_SETTINGS: &str = "cluster.metadata.searchcell.settings";

/// Label of a StatefulSet's pod: the revision of the template that it was made from. Kubernetes' own.
pub const LABEL_REVISION: &str = "controller-revision-hash";

/// Longest name of a StatefulSet: a pod's name has to fit the label `controller-revision-hash`, 63 bytes
/// with a dash and ten characters of hash.
pub const MAX_STATEFUL_SET_NAME: usize = 52;

/// What a node does. Nodes are dedicated: exactly one role each (data nodes also coordinate and ingest where a
/// cell has no ingest nodes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Master-eligible nodes: a StatefulSet per zone.
    Master,
    /// Stateless ingest and coordinating nodes: a Deployment.
    Ingest,
    /// Nodes that hold shards: a StatefulSet per zone.
    Data,
}

impl Role {
    /// The roles in the order in which they are created.
    pub const ALL: [Role; 3] = [Role::Master, Role::Data, Role::Ingest];

    /// Value of [`LABEL_ROLE`] and part of object names.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Master => "master",
            Role::Ingest => "ingest",
            Role::Data => "data",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Identifies one Elasticsearch cluster of one cell, and names its objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterKey {
    /// Namespace of the SearchCell.
    pub namespace: String,
    /// Name of the SearchCell.
    pub cell: String,
    /// Name of the cluster in `spec.clusters`.
    pub cluster: String,
}

impl ClusterKey {
    /// A key from its three parts.
    pub fn new(namespace: impl Into<String>, cell: impl Into<String>, cluster: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), cell: cell.into(), cluster: cluster.into() }
    }

    /// `<cell>-<cluster>`: Elasticsearch's `cluster.name`, the client Service, prefix of everything else.
    pub fn name(&self) -> String {
        format!("{}-{}", self.cell, self.cluster)
    }

    /// StatefulSet of `role` in `zone`.
    pub fn stateful_set(&self, role: Role, zone: &str) -> String {
        format!("{}-{}-{}", self.name(), role, zone)
    }

    /// Pod (and Elasticsearch node name) number `ordinal` of a StatefulSet.
    pub fn pod(&self, role: Role, zone: &str, ordinal: i32) -> String {
        format!("{}-{}", self.stateful_set(role, zone), ordinal)
    }

    /// Deployment and HorizontalPodAutoscaler of the ingest nodes.
    pub fn ingest(&self) -> String {
        format!("{}-ingest", self.name())
    }

    /// Headless Service for discovery, port 9300, not-ready addresses published.
    pub fn transport_service(&self) -> String {
        format!("{}-transport", self.name())
    }

    /// Headless Service of the nodes that take HTTP requests, port 9200.
    pub fn http_service(&self) -> String {
        format!("{}-http", self.name())
    }

    /// ConfigMap that exists only while the cluster has never formed.
    pub fn bootstrap_config_map(&self) -> String {
        format!("{}-bootstrap", self.name())
    }

    /// Secret of the authority of the transport layer.
    pub fn transport_authority(&self) -> String {
        format!("{}-transport-ca", self.name())
    }

    /// PodDisruptionBudget of a role.
    pub fn disruption_budget(&self, role: Role) -> String {
        format!("{}-{}", self.name(), role)
    }

    /// NetworkPolicy of all nodes of the cluster.
    pub fn network_policy(&self) -> String {
        self.name()
    }

    /// Where clients reach the cluster.
    pub fn endpoint(&self, scheme: &str) -> String {
        format!("{scheme}://{}.{}.svc:{HTTP_PORT}", self.name(), self.namespace)
    }

    /// Labels that selectors use: identity only, never a version.
    pub fn selector(&self, role: Option<Role>, zone: Option<&str>) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([
            (LABEL_CELL.to_owned(), self.cell.clone()),
            (LABEL_CLUSTER.to_owned(), self.cluster.clone()),
        ]);
        if let Some(role) = role {
            labels.insert(LABEL_ROLE.to_owned(), role.as_str().to_owned());
        }
        if let Some(zone) = zone {
            labels.insert(LABEL_ZONE.to_owned(), zone.to_owned());
        }
        labels
    }

    /// All labels of an object.
    pub fn labels(&self, role: Option<Role>, zone: Option<&str>) -> BTreeMap<String, String> {
        let mut labels = self.selector(role, zone);
        let mut add =
            |key: &str, value: &str| labels.insert(format!("app.kubernetes.io/{key}"), value.to_owned());
        add("name", "elasticsearch");
        add("instance", &self.name());
        add("component", role.map_or("cluster", Role::as_str));
        add("part-of", &self.cell);
        add("managed-by", FIELD_MANAGER);
        labels
    }
}

impl fmt::Display for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name())
    }
}

/// Secret of a cell's authority of the HTTP layer; nothing mounts it.
pub fn http_authority(cell: &str) -> String {
    format!("{cell}-http-ca")
}

/// ConfigMap with the authorities of the HTTP layer that clients of a cell trust, under `ca.crt`.
pub fn http_trust(cell: &str) -> String {
    format!("{cell}-http-ca-public")
}

/// Labels of what belongs to a cell as a whole.
pub fn cell_labels(cell: &str) -> BTreeMap<String, String> {
    let labels = [
        (LABEL_CELL, cell),
        ("app.kubernetes.io/name", "elasticsearch"),
        ("app.kubernetes.io/instance", cell),
        ("app.kubernetes.io/component", "security"),
        ("app.kubernetes.io/part-of", cell),
        (LABEL_MANAGED_BY, FIELD_MANAGER),
    ];
    labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Label by which a namespace is let in to all cells of the namespace `cells`, over HTTP: with the value `true`.
pub fn http_access_label(cells: &str) -> String {
    format!("http-access.searchcell.dev/{cells}")
}

/// Key of a routing table in its ConfigMap.
pub const TABLE_KEY: &str = "table.json.gz";

/// ConfigMap of the routing table of a collection.
pub fn routing_table(collection: &str) -> String {
    format!("routes-{collection}")
}

/// The number of an index of a collection's pool, from its name.
pub fn pool_number(collection: &str, index: &str) -> Option<i32> {
    let (number, generation) = index.strip_prefix(collection)?.strip_prefix(".p")?.split_once(".g")?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (is_number(number) && is_number(generation)).then(|| number.parse().ok())?
}

/// Name of a pool index: `<collection>.p<nnn>.g<generation>`.
pub fn pool_index(collection: &str, number: i32, generation: i32) -> String {
    format!("{collection}.p{number:03}.g{generation}")
}

/// Name of a dedicated index: `<collection>.t.<key>.g<generation>`. The key is the tenant when that is a legal
/// part of an index name as it stands, else `h-` and 32 hex digits of its SHA-256.
pub fn dedicated_index(collection: &str, tenant: &str, generation: i32) -> String {
    format!("{collection}.t.{}.g{generation}", tenant_key(tenant))
}

fn tenant_key(tenant: &str) -> String {
    let plain = (1..=40).contains(&tenant.len())
        && tenant.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if plain {
        return tenant.to_owned();
    }
    use sha2::Digest;
    let digest = sha2::Sha256::digest(tenant.as_bytes());
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("h-{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_after_cell_cluster_role_and_zone() {
        let key = ClusterKey::new("search", "guild-messages", "a");
        assert_eq!(key.stateful_set(Role::Data, "b"), "guild-messages-a-data-b");
        assert_eq!(key.pod(Role::Master, "c", 0), "guild-messages-a-master-c-0");
        assert_eq!(key.endpoint("https"), "https://guild-messages-a.search.svc:9200");
    }

    #[test]
    fn a_tenant_that_is_no_legal_index_name_is_hashed() {
        assert_eq!(dedicated_index("messages", "81384788765712384", 1), "messages.t.81384788765712384.g1");
        assert_eq!(
            dedicated_index("messages", "Guild/1", 2),
            format!("messages.t.{}.g2", tenant_key("Guild/1"))
        );
        assert_eq!(tenant_key("Guild/1").len(), 34);
        assert_ne!(tenant_key("Guild/1"), tenant_key("guild/1"));
    }

    #[test]
    fn pool_indices_have_three_digits() {
        assert_eq!(pool_index("messages", 17, 1), "messages.p017.g1");
        assert_eq!(pool_number("messages", "messages.p017.g1"), Some(17));
        for other in
            ["messages.t.17.g1", "direct.p017.g1", "messages.p.g1", "messages.p1x.g1", "messages.p017"]
        {
            assert_eq!(pool_number("messages", other), None, "{other}");
        }
    }
}
