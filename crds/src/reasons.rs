//! The closed list of reasons that conditions, problems and events carry. No effects.

/// Defines the enum of reasons, its names, its list and the meaning of each from one table.
macro_rules! reasons {
    ($($name:ident => $meaning:literal,)+) => {
        /// Why a condition is as it is. The list is closed: every reason is documented.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = $meaning] $name,)+
        }

        impl Reason {
            /// The reason as it is written in conditions.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// Every reason, in the order of the documentation.
            pub fn all() -> &'static [Self] {
                &[$(Self::$name,)+]
            }

            /// What the reason means and what a user can do about it, in one line.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)+ }
            }
        }
    };
}

reasons! {
    // Before the first pass, and while all is well.
    Pending => "The operator has not looked at this generation yet. Wait.",
    Serving => "All is well: it serves as asked for.",
    FullRedundancy => "Every copy of every shard is started and in the zone it should be in.",
    // Work in progress, or waiting: Reconciling.
    Progressing => "Objects are being created or changed. Wait.",
    Forming => "A cluster forms for the first time: its masters have not elected a leader yet. Wait.",
    RollingOut => "Nodes restart, one step at a time; the status of the rollout says how far.",
    Soaking => "A cluster that has changed stays settled for spec.rollout.soak before the next one follows. Wait.",
    AnotherCluster => "Nodes of another cluster of the cell restart first. Wait.",
    AnotherCell => "Nodes of other cells restart first: as many clusters as the operator's --max-disrupted-clusters allows. Wait; if one does not go on, look at the cell that the message names.",
    Regressed => "A cluster that has changed already is not well: the others do not follow. Look at what the message names, or correct the spec.",
    ZoneNotSpared => "With spec.rollout.unit Zone the data nodes of a zone restart together, and the message says why they may not now. Wait, or set it to Auto.",
    ShardsSettled => "A node goes only while no copy of a shard is made or moved, and all that were there are back. Wait.",
    CopiesElsewhere => "A node restarts only when each of its shards has a started copy elsewhere. Give the indices that the message names a replica, or add CopiesElsewhere to spec.rollout.waive.",
    DeprecationsResolved => "Elasticsearch itself names what keeps it from the next major version. Resolve what the message names, or add DeprecationsResolved to spec.rollout.waive.",
    RecentSnapshot => "Before nodes change their version, every index is in a successful snapshot of the last 24 hours: there is no other way back. Take one, or add RecentSnapshot to spec.rollout.waive.",
    NoLeftovers => "Something that keeps shards off nodes, or masters from voting, is left of something else. Take back what the message names, or add NoLeftovers to spec.rollout.waive.",
    DiskFree => "The disk of a data node is fuller than Elasticsearch's low watermark: its copies would not come back to it. Make room, or add DiskFree to spec.rollout.waive.",
    Scaling => "Nodes are added or removed. Wait.",
    Removing => "A cluster that left spec.clusters is empty, and goes. Wait; put back, it stays or comes back.",
    Draining => "Shards move off nodes that are to be removed. Wait; if nothing moves, the message of the hold says where to look.",
    Migrating => "Documents move to other indices. Wait; the router serves meanwhile.",
    Held => "A gate is shut; status.clusters[].holds names it and what it waits for.",
    AwaitingApproval => "A rollout waits for the annotation searchcell.dev/approve-rollout with the id in status.rollout.id.",
    Suspended => "spec.suspend is true: nothing is changed. Set it to false to go on.",
    Deleting => "The object is being deleted, and what belongs to it goes as its deletionPolicy says.",
    CellNotFound => "spec.cell names no SearchCell of this namespace. Create it, or name another.",
    CellNotReady => "The cell has no cluster that can take or serve the indices yet. Wait, or look at the cell.",
    NoOpenCluster => "Every cluster of the cell is Closed or drains. Set the placement of one to Open, or add a cluster.",
    NoCapacity => "No Open cluster of the cell has room: indices, shards or disks would exceed what it carries with one zone lost. Add a cluster or nodes, or raise the limits.",
    KubernetesError => "A request to Kubernetes failed; it is repeated. The message has the error.",
    ElasticsearchError => "A request to Elasticsearch failed; it is repeated. The message has the error.",
    RotatingCertificates => "A certificate authority is rotated: both are trusted until every node shows a new certificate. Wait.",
    LoadingKeystore => "Nodes are to load what changed in their keystore; the message names those that have not. Wait.",
    // Not serving: Ready is False.
    Unreachable => "A cluster does not answer. Look at its pods and their events.",
    NoMaster => "A cluster has no elected master. Look at its master nodes.",
    PrimariesUnassigned => "Shards have no started primary: their documents are neither searched nor written. Look at status.problems.",
    IndexMissing => "An index that was created is gone. Restore it from a snapshot, or delete the placement.",
    TableNotReady => "The routing table of the collection does not hold this placement yet. Wait.",
    // Less redundancy: Degraded is True.
    CopiesUnassigned => "Copies of shards have no node. Wait for their nodes, or add capacity.",
    CopiesShareZone => "Copies of a shard share a zone that should be apart. Wait for the missing zone, or add capacity.",
    NodesMissing => "Nodes are not ready or have not joined. Look at their pods and their events.",
    ZoneMissing => "A zone has no ready node. Look at the Kubernetes nodes of that zone.",
    Unschedulable => "Pods fit on no Kubernetes node. Look at their events, then add nodes or lower the requests.",
    PodsFailing => "Pods cannot start or keep ending. Look at their logs and events.",
    MapCountTooLow => "vm.max_map_count of a Kubernetes node is below what Elasticsearch needs. Raise it to 262144 or more, or set node.store.allow_mmap: false.",
    ClusterUnavailable => "Some clusters do not serve; the others do. Look at status.clusters.",
    MastersShareNode => "Master-eligible nodes share a Kubernetes node. Add nodes to the zone.",
    // Routers and their pods: events only.
    RouterMissing => "A pod that asks for a router runs without one; the message says why. Put right what it names, and delete the pod.",
    RouterOutdated => "A pod's router has no access to a cell that its collection has come to. Delete the pod: the next one has.",
    HotTenant => "A tenant writes far more than others: the event says how much, and through how many routers. Give it an index of its own: name it in spec.dedicated.tenants of an IndexPlacement.",
    // Nothing moves before the spec changes: Stalled.
    InvalidSpec => "The spec breaks rules; the message lists every problem with its path. What runs is left alone.",
    NotSupportedYet => "The spec asks for something that this version of the operator does not do. The message names it and what to write instead.",
    NeedsMigration => "The change cannot be made in place. Take it back, or make the migration that the message names.",
    UnsupportedVersion => "This version of Elasticsearch, or the step to it, is not supported. Choose one that the message names.",
    IndexTooOld => "Indices were created by a version so old that the new one does not open them. Reindex them, block them for writing, or delete them.",
    ForwardOnly => "A node has joined with a higher version: there is no way back. Set spec.version to at least that version.",
    ReservedSetting => "A setting belongs to the operator. Remove it from the spec; the message names it.",
    ReservedPodField => "A field of a pod template belongs to the operator. Remove it from the spec; the message names it.",
    NotEmpty => "A cluster that left spec.clusters still has what the message names, and goes on as it is. Take that away, or put the cluster back.",
    NameConflict => "An object of the name that is needed belongs to another owner. Rename or remove it; it is not adopted.",
    PoolConflict => "The collection has another pool in this namespace. Delete one of the two placements.",
    TenantConflict => "A tenant is in two dedicated placements of the collection. Take it out of one.",
    CollectionMismatch => "Placements of the collection differ in tenant or versioning. Make them the same.",
    TooManyCopies => "There are more copies of a shard than data nodes that can hold them. Lower spec.replicas or add data nodes.",
    UnevenCopies => "The copies of a shard do not spread evenly over the zones. Set spec.replicas so that copies and primary are at most the zones, or a multiple of them.",
    ShardTooLarge => "More documents are expected of one shard than 90 % of what Lucene stores. Use more shards.",
    TableTooLarge => "The routing table of the collection exceeds 900 KiB. Use fewer dedicated tenants.",
    ForeignIndex => "An index of the name that is needed is not marked as belonging to this placement. Rename or remove it; it is not adopted.",
    ForeignVolume => "A volume claim carries the UUID of another cluster or is older than the cell. Remove it, or name the cluster otherwise.",
    StorageClassFixed => "The storage class does not let volumes grow. Set the old size, or use a class that does.",
    InvalidCertificate => "A Secret of spec.security.certificates cannot be used; the message says why. Nodes keep what they have. Put a good certificate there.",
    InvalidSecret => "A Secret of the cell was changed so that it cannot be used. Delete it: it is made anew.",
    InvalidSecureSettings => "A Secret of spec.secureSettings cannot be used; the message says why. Nodes keep what they have. Correct the Secret or the list.",
    KeystoreRefused => "Nodes refuse what changed in their keystore; the message has Elasticsearch's reason. Correct the Secret: one that restarts may not start.",
    // Notices: nothing is refused.
    SecurityDisabled => "spec.security.mode is Disabled: no encryption, no users, a NetworkPolicy alone. Make a new cell without it, and move the tenants.",
    NoZoneQuorum => "Fewer than 3 masters, or 3 in fewer than 3 zones: the loss of one zone can stop the cluster.",
    ShardLarge => "A shard has, or is expected to have, more than 200 million documents or 50 GB. Plan for more shards.",
    ShardGrowing => "At its pace a shard is past 1 billion documents, or what Lucene stores, within two weeks; status.forecast says when. Plan for more shards now.",
    ShardVeryLarge => "A shard has, or is expected to have, more than 1 billion documents. Use more shards.",
    ShardAlmostFull => "A shard holds more than 90 % of the documents that Lucene stores, deleted ones included. Migrate to more shards now.",
    ShardFull => "A shard holds as many documents as Lucene stores: Elasticsearch refuses to add any. Delete documents, or migrate to more shards.",
}
