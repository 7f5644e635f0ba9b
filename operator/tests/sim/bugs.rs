//! The deliberate bugs, and what each of them breaks. No effects.

use crate::invariants as inv;
use crate::scenario::Kind;
use crate::{backups, keystore, placed, removal, rolling, scaling, secure, settled, tenants};

/// The bugs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A cluster that left the spec goes at once.
    RemovesClusters,
    /// A failed reading of details is taken for one without indices.
    UnavailableIsEmpty,
    /// The step that deletes the bootstrap map is left out.
    MapIsKept,
    /// The bootstrap map goes as soon as it is there.
    MapGoesEarly,
    /// The bootstrap map goes when the UUID is on one claim, whoever else has joined.
    OneClaimIsEnough,
    /// The answer of an index creation is lost, and the creation is repeated on another cluster.
    RepeatsElsewhere,
    /// A status that says the same is published all the same.
    StatusAlways,
    /// UIDs and resource versions are not checked.
    NoPreconditions,
    /// Cell and claims are taken from caches before a bootstrap.
    NoLiveCheck,
    /// The UUID is never written on claims.
    ClaimsUnmarked,
    /// Templates are rendered anew at every pass.
    TemplateRewritten,
    /// `suspend` is not looked at.
    SuspendIgnored,
    /// Volumes are deleted whatever the policy says.
    PolicyIgnored,
    /// An object of our name is taken over, whoever made it.
    AdoptsForeign,
    /// The hand-over to the autoscaler starts from one node.
    ReplicasDip,
    /// `observedGeneration` runs ahead.
    GenerationAhead,
    /// The finalizer waits until Elasticsearch answers.
    FinalizerWaits,
    /// The UUID leaves the status while Elasticsearch does not answer.
    UuidForgotten,
    /// Indices are made without the mark.
    IndexUnmarked,
    /// Indices are made before awareness is set.
    NoAwareness,
    /// A cluster is bootstrapped again when its map is missing.
    BootstrapsAgain,
    /// Nodes that Elasticsearch does not know are made anew: their StatefulSet is deleted.
    ReplacesNodes,
    /// What lies in a Secret is taken for what nodes have loaded.
    SecretsAreProof,
    /// Nobody stands by: a password is made when it is needed.
    NobodyStandsBy,
    /// No cluster gets its NetworkPolicy.
    Unfenced,
    /// An index is made in the pass that decides where it belongs.
    CreatesUnrecorded,
    /// A table is published with the time for a number, whatever the last one was.
    NumbersByClock,
    /// A table names indices that are about to be made.
    NamesTheUnborn,
    /// Settings of indices are compared, and left as they are.
    LeavesSettings,
    /// The mark is not written with new mappings.
    MarksNoMapping,
    /// Where indices belong is computed afresh from the clusters that are there now.
    ForgetsPlaces,
    /// Tenants are not looked for in the pool.
    CountsNobody,
    /// Tenants are not looked for again once the pool does not get them any more.
    CountsOnce,
    /// Nodes are never told to load their keystore again.
    NeverReloads,
    /// The keystore that nodes have is written over with all that is new.
    KeystoreWhole,
    /// All nodes that are behind restart at once.
    RestartsTogether,
    /// A node that runs what is asked for restarts with the one that does not.
    RestartsUpdated,
    /// Copies that are made or moved, or have no node, are taken for started ones.
    CopiesAreStarted,
    /// Nodes that are not ready are taken for members.
    NobodyIsMissing,
    /// Nothing ever restarts.
    NeverRestarts,
    /// What is under way stays in status.
    OperationStays,
    /// Whole zones restart whatever copies there are elsewhere.
    ZonesAreSpared,
    /// No cluster of a cell waits for another one.
    AllClustersAtOnce,
    /// Copies are waited for that no node of the newer version can take.
    VersionsAreEqual,
    /// Nodes that are to go are taken for empty.
    NodesAreEmpty,
    /// Masters that are to go are taken for ones without a vote.
    MastersAreVoteless,
    /// Nodes that were to go, and stay, get no shards any more.
    DrainIsForgotten,
    /// Nothing is told to Elasticsearch before masters go, and nothing is taken back.
    VotesStayTaken,
    /// Nodes restart without a word to Elasticsearch.
    NobodyIsTold,
    /// What Elasticsearch was told of nodes that went, it is not told that they are back.
    TalesStay,
    /// Nodes change their version whatever snapshots there are.
    NothingIsSaved,
    /// Nodes restart in the pass that decides it, before status says so.
    RestartsUnrecorded,
    /// A cluster that left the spec is taken for empty.
    IndicesOverlooked,
    /// Volumes of a removed cluster go as soon as its nodes have gone, before status says so.
    VolumesUnrecorded,
}

/// Name, bug, story in which it shows, the invariants of which one has to break.
pub const TABLE: &[(Bug, Kind, &[&str])] = &[
    (Bug::RemovesClusters, Kind::Removal, &[inv::REMOVAL_WAITS, removal::RECORDED]),
    (
        Bug::UnavailableIsEmpty,
        Kind::Faults,
        &[inv::READINGS_KNOWN, placed::INDEX_ONCE, placed::MISSING_IS_GONE],
    ),
    (Bug::MapIsKept, Kind::Faults, &[settled::NO_MAP_AT_REST]),
    (Bug::MapIsKept, Kind::LostMaster, &[inv::ONE_CLUSTER]),
    (Bug::MapGoesEarly, Kind::Faults, &[inv::RECORDED_FIRST]),
    (Bug::OneClaimIsEnough, Kind::Faults, &[inv::RECORDED_FIRST]),
    (Bug::RepeatsElsewhere, Kind::Removal, &[placed::INDEX_ONCE, inv::READINGS_KNOWN]),
    (Bug::StatusAlways, Kind::Faults, &[settled::REST_IS_SILENT]),
    (Bug::NoPreconditions, Kind::Edits, &[inv::ACTS_ON_WHAT_IT_SAW]),
    (Bug::NoLiveCheck, Kind::Restore, &[inv::CHECKED_LIVE, inv::MAP_STAYS_GONE]),
    (Bug::ClaimsUnmarked, Kind::Faults, &[settled::IDENTITY_ON_CLAIMS, settled::NO_MAP_AT_REST]),
    (Bug::TemplateRewritten, Kind::Faults, &[inv::TEMPLATES_FROZEN]),
    (Bug::SuspendIgnored, Kind::Suspension, &[inv::SUSPENDED]),
    (Bug::PolicyIgnored, Kind::Recreation, &[inv::VOLUMES_RETAINED]),
    (Bug::AdoptsForeign, Kind::Foreign, &[inv::FOREIGN]),
    (Bug::ReplicasDip, Kind::Ingest, &[inv::INGEST_MINIMUM]),
    (Bug::GenerationAhead, Kind::Faults, &[inv::GENERATIONS]),
    (Bug::FinalizerWaits, Kind::Deletion, &[settled::FINALIZERS_GO]),
    (Bug::UuidForgotten, Kind::Faults, &[inv::UUID_IS_FINAL]),
    (Bug::IndexUnmarked, Kind::Edits, &[placed::INDEX_MARKED]),
    (Bug::NoAwareness, Kind::Faults, &[settled::SETTINGS]),
    (Bug::BootstrapsAgain, Kind::LostMaster, &[inv::ONE_CLUSTER, inv::MAP_STAYS_GONE]),
    (Bug::ReplacesNodes, Kind::Stuck, &[inv::NOTHING_UNASKED]),
    (Bug::SecretsAreProof, Kind::Rotation, &[secure::NODES_TRUST]),
    (Bug::NobodyStandsBy, Kind::Rotation, &[secure::PASSWORDS_KNOWN]),
    (Bug::Unfenced, Kind::Faults, &[inv::FENCED]),
    (Bug::CreatesUnrecorded, Kind::Placing, &[placed::MADE_WHERE_RECORDED]),
    (Bug::NumbersByClock, Kind::Faults, &[placed::TABLES_ASCEND]),
    (Bug::NamesTheUnborn, Kind::Placing, &[placed::TABLES_ARE_TRUE]),
    (Bug::LeavesSettings, Kind::Edits, &[settled::INDICES_AS_ASKED, settled::CONVERGES]),
    (Bug::MarksNoMapping, Kind::Edits, &[settled::INDICES_AS_ASKED, settled::CONVERGES]),
    (Bug::ForgetsPlaces, Kind::Placing, &[placed::PLACES_STAY]),
    (Bug::CountsNobody, Kind::Dedicating, &[tenants::NOTHING_IS_HIDDEN]),
    (Bug::CountsOnce, Kind::Dedicating, &[tenants::NOTHING_IS_HIDDEN]),
    (Bug::NeverReloads, Kind::Keystore, &[keystore::LOADED]),
    (Bug::KeystoreWhole, Kind::Keystore, &[keystore::RESTART_ONLY]),
    (Bug::RestartsTogether, Kind::Rolling, &[rolling::ONE_AT_A_TIME, rolling::RESTART_HAS_REASON]),
    (Bug::RestartsUpdated, Kind::Rolling, &[rolling::RESTART_HAS_REASON]),
    (Bug::CopiesAreStarted, Kind::Rolling, &[rolling::SETTLED_FIRST, rolling::LAST_COPY]),
    (Bug::NobodyIsMissing, Kind::Rolling, &[rolling::ONE_AT_A_TIME, rolling::QUORUM]),
    (Bug::NeverRestarts, Kind::Rolling, &[rolling::ROLLED]),
    (Bug::OperationStays, Kind::Rolling, &[rolling::ROLLED]),
    (Bug::ZonesAreSpared, Kind::Rolling, &[rolling::ZONE_SPARED, rolling::LAST_COPY]),
    (Bug::AllClustersAtOnce, Kind::Rolling, &[rolling::ONE_AT_A_TIME]),
    (Bug::VersionsAreEqual, Kind::Rolling, &[rolling::ROLLED]),
    (Bug::NodesAreEmpty, Kind::Scaling, &[scaling::EMPTY_FIRST, scaling::VOLUME_NOT_NEEDED]),
    (Bug::MastersAreVoteless, Kind::Scaling, &[scaling::VOTELESS_FIRST]),
    (Bug::DrainIsForgotten, Kind::Scaling, &[scaling::NOTHING_LEFT]),
    (Bug::VotesStayTaken, Kind::Scaling, &[scaling::NOTHING_LEFT]),
    (Bug::NobodyIsTold, Kind::Rolling, &[rolling::ANNOUNCED]),
    (Bug::TalesStay, Kind::Rolling, &[rolling::NOTHING_LEFT, rolling::ROLLED]),
    (Bug::NothingIsSaved, Kind::Rolling, &[backups::SAVED_FIRST]),
    (Bug::RestartsUnrecorded, Kind::Rolling, &[rolling::RECORDED]),
    (Bug::IndicesOverlooked, Kind::Removal, &[removal::GOES_EMPTY]),
    (Bug::VolumesUnrecorded, Kind::Removal, &[removal::RECORDED]),
];
