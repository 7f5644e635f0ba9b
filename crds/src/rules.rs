//! The rules that the schemas carry in CEL, each at its place, with its message. No effects.

/// Why a change or a value is refused, in the words of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The value is not valid.
    Invalid,
    /// The change is not allowed.
    Forbidden,
}

/// One rule in CEL.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Where the rule stands: property names joined by dots, `[]` for the items of a list; empty: the object.
    pub path: &'static str,
    /// Field below the path that the message is about, with a dot in front; empty: the path itself.
    pub field: &'static str,
    /// The expression; true accepts.
    pub rule: &'static str,
    /// What is wrong and what to do about it.
    pub message: &'static str,
    /// How the API server words it.
    pub refusal: Refusal,
}

const fn invalid(path: &'static str, rule: &'static str, message: &'static str) -> Rule {
    Rule { path, field: "", rule, message, refusal: Refusal::Invalid }
}

const fn forbidden(
    path: &'static str,
    field: &'static str,
    rule: &'static str,
    message: &'static str,
) -> Rule {
    Rule { path, field, rule, message, refusal: Refusal::Forbidden }
}

/// Where rules for every role stand.
pub const ROLES: [&str; 3] = ["spec.nodes.master", "spec.nodes.ingest", "spec.nodes.data"];

/// Rules of the nodes of every role; their path is below the role.
pub const ROLE_RULES: &[Rule] = &[
    invalid(
        "heap",
        "isQuantity(string(self)) && quantity(string(self)).isGreaterThan(quantity('0'))",
        "heap must be a positive quantity: write it like 30Gi",
    ),
    invalid(
        "",
        "!has(self.heap) || !has(self.resources) || !has(self.resources.limits) || !('memory' in self.resources.limits) || !isQuantity(string(self.heap)) || !isQuantity(string(self.resources.limits['memory'])) || quantity(string(self.heap)).isLessThan(quantity(string(self.resources.limits['memory'])))",
        "heap must be less than resources.limits.memory: lower heap or raise the limit",
    ),
    invalid(
        "resources.requests",
        "self.all(name, isQuantity(string(self[name])) && quantity(string(self[name])).isGreaterThan(quantity('0')))",
        "resources.requests must be positive quantities: write them like cpu: \"2\" or memory: 4Gi",
    ),
    invalid(
        "resources.limits",
        "self.all(name, isQuantity(string(self[name])) && quantity(string(self[name])).isGreaterThan(quantity('0')))",
        "resources.limits must be positive quantities: write them like cpu: \"2\" or memory: 4Gi",
    ),
    invalid(
        "resources",
        "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || !isQuantity(string(self.requests[name])) || !isQuantity(string(self.limits[name])) || quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)",
        "resources.requests must not exceed resources.limits: lower the request or raise the limit",
    ),
    invalid(
        "jvmOptions",
        "self.all(option, option.matches('^([0-9]+(-[0-9]*)?:)?-[ -~]+$'))",
        "jvmOptions must be options of the Java virtual machine, one in each entry: begin each with a dash",
    ),
    invalid(
        "jvmOptions",
        "self.all(option, !option.contains('-Xms') && !option.contains('-Xmx'))",
        "jvmOptions must not set the size of the heap (-Xms, -Xmx): set heap instead",
    ),
];

/// Where rules for every volume stand.
pub const VOLUMES: [&str; 2] = ["spec.nodes.master.storage", "spec.nodes.data.storage"];

/// Rules of every volume; their path is below the volume.
pub const VOLUME_RULES: &[Rule] = &[
    invalid(
        "size",
        "isQuantity(string(self)) && quantity(string(self)).isGreaterThan(quantity('0'))",
        "storage.size must be a positive quantity: write it like 100Gi",
    ),
    // That a size may not shrink is the operator's to say: it knows the volumes, and the schema only the old spec. A
    // size that the class refused to grow to must be possible to take back.
    forbidden(
        "",
        ".storageClassName",
        "(has(self.storageClassName) ? self.storageClassName : '') == (has(oldSelf.storageClassName) ? oldSelf.storageClassName : '')",
        "storage.storageClassName is immutable: set it back, or move the placements to a new cell with the other class",
    ),
    invalid(
        "storageClassName",
        "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
        "storage.storageClassName must be the name of a StorageClass: lower-case letters, digits, dashes and dots",
    ),
];

/// Rules of SearchCell.
pub const SEARCH_CELL: &[Rule] = &[
    invalid(
        "",
        "size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name must be a DNS label that begins with a letter (lower-case letters, digits, dashes): create the cell under such a name",
    ),
    invalid(
        "",
        "self.spec.clusters.all(c, self.spec.zones.all(z, size(self.metadata.name) + size(c.name) + size(z.name) + 9 <= 52))",
        "metadata.name, the longest spec.clusters[].name and the longest spec.zones[].name must have at most 43 characters together: choose shorter names",
    ),
    invalid(
        "spec.version",
        "self.matches('^(0|[1-9][0-9]{0,3})[.](0|[1-9][0-9]{0,3})[.](0|[1-9][0-9]{0,3})$')",
        "version must be x.y.z: write a released version of Elasticsearch, like 9.5.3",
    ),
    invalid(
        "spec.image",
        "self.matches('^[A-Za-z0-9][-A-Za-z0-9._/:@]*$') && !self.contains('://')",
        "image must be an image reference without a scheme: write it like registry.example/elasticsearch:9.5.3",
    ),
    invalid(
        "spec.topologyKey",
        "self.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",
        "topologyKey must be a label of Kubernetes nodes: write it like topology.kubernetes.io/zone",
    ),
    forbidden(
        "spec",
        ".topologyKey",
        "self.topologyKey == oldSelf.topologyKey",
        "topologyKey is immutable: set it back, or move the placements to a new cell",
    ),
    invalid(
        "spec.zones[].name",
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        "zones[].name must be lower-case letters, digits and dashes, with no dash at either end: rename the zone and give the label value as value",
    ),
    invalid(
        "spec.zones[].value",
        "self.matches('^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",
        "zones[].value must be a label value: letters, digits, dashes, dots and underscores, with a letter or digit at either end",
    ),
    forbidden(
        "spec.zones",
        "",
        "self.all(z, oldSelf.all(o, o.name != z.name || (has(o.value) ? o.value : o.name) == (has(z.value) ? z.value : z.name)))",
        "zones[].value is immutable: set it back, add a zone with the new value, and set the state of this one to Retiring",
    ),
    invalid(
        "spec.zones",
        "self.all(z, self.filter(y, (has(y.value) ? y.value : y.name) == (has(z.value) ? z.value : z.name)).size() == 1)",
        "zones[].value must differ between zones: give each zone a label value of its own",
    ),
    invalid(
        "spec.zones",
        "self.exists(z, !has(z.state) || z.state == 'Active')",
        "zones must have one that is Active: keep a zone, or delete the cell",
    ),
    forbidden(
        "spec.zones",
        "",
        "oldSelf.all(o, (has(o.state) && o.state == 'Retiring') || self.exists(z, z.name == o.name))",
        "zones must not lose one that is Active: put it back with state Retiring, and take it off the list when it is empty",
    ),
    invalid(
        "spec.clusters[].name",
        "self.matches('^[a-z][a-z0-9]{0,14}$')",
        "clusters[].name must be a lower-case letter followed by at most 14 letters and digits: choose such a name",
    ),
    invalid(
        "spec.clusters[].name",
        "!(self in ['master', 'ingest', 'data', 'transport', 'http', 'bootstrap'])",
        "clusters[].name must not be master, ingest, data, transport, http or bootstrap: choose another name",
    ),
    invalid(
        "spec.nodes.master.count",
        "self in [1, 3, 5]",
        "nodes.master.count must be 1, 3 or 5: an even number of masters survives no more failures than one fewer",
    ),
    invalid(
        "spec.nodes.ingest",
        "has(self.replicas) != has(self.autoscaling)",
        "nodes.ingest must have exactly one of replicas and autoscaling: remove one or add one",
    ),
    invalid(
        "spec.nodes.ingest",
        "!has(self.autoscaling) || (has(self.resources) && has(self.resources.requests) && 'cpu' in self.resources.requests)",
        "nodes.ingest.autoscaling needs nodes.ingest.resources.requests.cpu: add it, or use replicas",
    ),
    invalid(
        "spec.nodes.ingest.autoscaling",
        "self.minReplicas <= self.maxReplicas",
        "autoscaling.minReplicas must not exceed autoscaling.maxReplicas: lower the one or raise the other",
    ),
    invalid(
        "spec.secureSettings[].secretName",
        "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
        "secureSettings[].secretName must be the name of a Secret: lower-case letters, digits, dashes and dots",
    ),
    forbidden(
        "spec",
        ".security.mode",
        "(has(self.security) && has(self.security.mode) ? self.security.mode : 'Managed') == (has(oldSelf.security) && has(oldSelf.security.mode) ? oldSelf.security.mode : 'Managed')",
        "security.mode is immutable, and Managed where it is absent: set it back, or make a new cell and move the placements",
    ),
    invalid(
        "spec.security",
        "!has(self.certificates) || !has(self.mode) || self.mode == 'Managed'",
        "security.certificates needs security.mode Managed: remove one of the two",
    ),
    invalid(
        "spec.security.certificates.http.secretName",
        "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
        "security.certificates.http.secretName must be the name of a Secret: lower-case letters, digits, dashes and dots",
    ),
    invalid(
        "spec.security.certificates.transport.secretName",
        "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
        "security.certificates.transport.secretName must be the name of a Secret: lower-case letters, digits, dashes and dots",
    ),
    Rule {
        path: "spec",
        field: ".rollout.canary",
        rule: "!has(self.rollout) || !has(self.rollout.canary) || self.clusters.exists(c, c.name == self.rollout.canary)",
        message: "rollout.canary must name a cluster of spec.clusters: name one, or remove it",
        refusal: Refusal::Invalid,
    },
    invalid(
        "spec.rollout.soak",
        "self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && duration(self) <= duration('24h')",
        "rollout.soak must be a duration from 0s to 24h: write it like 90s or 1h30m",
    ),
];

/// Rules of IndexPlacement.
pub const INDEX_PLACEMENT: &[Rule] = &[
    invalid(
        "spec.cell",
        "self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "cell must be the name of a SearchCell: lower-case letters, digits and dashes, beginning with a letter",
    ),
    invalid(
        "spec.collection",
        "self.matches('^[a-z][a-z0-9-]{0,39}$')",
        "collection must be a lower-case letter followed by at most 39 letters, digits and dashes: choose such a name",
    ),
    forbidden(
        "spec.collection",
        "",
        "self == oldSelf",
        "collection is immutable: set it back, or make another placement for the other collection",
    ),
    forbidden(
        "spec.tenant",
        "",
        "self == oldSelf",
        "tenant is immutable: set it back, or index into a new collection",
    ),
    invalid(
        "spec.tenant.field",
        "self.matches('^[A-Za-z@][A-Za-z0-9_@-]*$') && self != 'searchcell_deleted'",
        "tenant.field must be a top-level field of the document: letters, digits, dashes and underscores, no dots, not searchcell_deleted",
    ),
    invalid(
        "spec.tenant",
        "!self.fanOut || self.idScope == 'Tenant'",
        "tenant.fanOut needs tenant.idScope Tenant: set idScope to Tenant, or fanOut to false",
    ),
    forbidden(
        "spec",
        ".versioning",
        "self.versioning == oldSelf.versioning",
        "versioning is immutable: set it back, or index into a new collection",
    ),
    invalid(
        "spec",
        "has(self.pool) != has(self.dedicated)",
        "spec must have exactly one of pool and dedicated: remove one or add one",
    ),
    forbidden(
        "spec",
        "",
        "has(self.pool) == has(oldSelf.pool)",
        "spec keeps pool or dedicated for good: set it back, and make another placement for the other kind",
    ),
    invalid(
        "spec.dedicated.tenants[].id",
        "size(bytes(self)) <= 128",
        "tenants[].id must have at most 128 bytes: use a shorter tenant",
    ),
    invalid(
        "spec.dedicated.tenants[]",
        "!has(self.shards) || self.expectedDocuments <= self.shards * 1932735167",
        "tenants[].expectedDocuments must be at most 1932735167 for each of tenants[].shards: raise shards, or remove it to have it computed",
    ),
    invalid(
        "spec.dedicated",
        "self.tenants.all(t, has(t.shards) || t.expectedDocuments <= self.maxDocumentsPerShard * 1024)",
        "tenants[].expectedDocuments must be at most 1024 times maxDocumentsPerShard: an index has at most 1024 shards; raise maxDocumentsPerShard",
    ),
];
