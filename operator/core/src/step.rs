//! The closed vocabulary of what the operator may do: a reader of this file knows every effect there is. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use searchcell_crds::{Operation, Reason};
use serde_json::Value;

use crate::security::order::Order;

/// A Kubernetes object that the operator makes.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// Discovery and client Services.
    Service(Box<Service>),
    /// The bootstrap map.
    ConfigMap(Box<ConfigMap>),
    /// One per role.
    PodDisruptionBudget(Box<PodDisruptionBudget>),
    /// One per cluster.
    NetworkPolicy(Box<NetworkPolicy>),
    /// Masters and data nodes of one zone.
    StatefulSet(Box<StatefulSet>),
    /// Ingest nodes.
    Deployment(Box<Deployment>),
    /// Of the ingest Deployment.
    HorizontalPodAutoscaler(Box<HorizontalPodAutoscaler>),
}

impl Object {
    /// Kind of the object.
    pub fn kind(&self) -> Kind {
        match self {
            Object::Service(_) => Kind::Service,
            Object::ConfigMap(_) => Kind::ConfigMap,
            Object::PodDisruptionBudget(_) => Kind::PodDisruptionBudget,
            Object::NetworkPolicy(_) => Kind::NetworkPolicy,
            Object::StatefulSet(_) => Kind::StatefulSet,
            Object::Deployment(_) => Kind::Deployment,
            Object::HorizontalPodAutoscaler(_) => Kind::HorizontalPodAutoscaler,
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Object::Service(o) => &o.metadata,
            Object::ConfigMap(o) => &o.metadata,
            Object::PodDisruptionBudget(o) => &o.metadata,
            Object::NetworkPolicy(o) => &o.metadata,
            Object::StatefulSet(o) => &o.metadata,
            Object::Deployment(o) => &o.metadata,
            Object::HorizontalPodAutoscaler(o) => &o.metadata,
        }
    }

    /// Its metadata, to change.
    pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Object::Service(o) => &mut o.metadata,
            Object::ConfigMap(o) => &mut o.metadata,
            Object::PodDisruptionBudget(o) => &mut o.metadata,
            Object::NetworkPolicy(o) => &mut o.metadata,
            Object::StatefulSet(o) => &mut o.metadata,
            Object::Deployment(o) => &mut o.metadata,
            Object::HorizontalPodAutoscaler(o) => &mut o.metadata,
        }
    }

    /// Its name; every object that the operator builds has one.
    pub fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }
}

/// Kinds of objects that the operator creates, changes or deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// core/v1
    Service,
    /// core/v1
    ConfigMap,
    /// policy/v1
    PodDisruptionBudget,
    /// networking.k8s.io/v1
    NetworkPolicy,
    /// apps/v1
    StatefulSet,
    /// apps/v1
    Deployment,
    /// autoscaling/v2
    HorizontalPodAutoscaler,
    /// core/v1; created by StatefulSets, annotated and deleted by the operator
    PersistentVolumeClaim,
    /// core/v1; made by StatefulSets and Deployments, only ever deleted by [`Action::RestartNode`]
    Pod,
    /// core/v1; only ever written by an [`Order`]
    Secret,
}

impl Kind {
    /// As Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Service => "Service",
            Kind::ConfigMap => "ConfigMap",
            Kind::PodDisruptionBudget => "PodDisruptionBudget",
            Kind::NetworkPolicy => "NetworkPolicy",
            Kind::StatefulSet => "StatefulSet",
            Kind::Deployment => "Deployment",
            Kind::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Kind::PersistentVolumeClaim => "PersistentVolumeClaim",
            Kind::Pod => "Pod",
            Kind::Secret => "Secret",
        }
    }
}

/// An existing object, exactly: an effect on it fails when it was replaced (UID) or changed (resource version)
/// in the meantime.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Kind.
    pub kind: Kind,
    /// Name, in the namespace of the cell.
    pub name: String,
    /// UID as observed.
    pub uid: String,
    /// Resource version as observed, where a change in between matters.
    pub resource_version: Option<String>,
}

/// One idempotent effect. A step that has no `cluster` concerns the whole object.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Cluster it belongs to: when a step fails, later steps of the same cluster are not run in this pass.
    pub cluster: Option<String>,
    /// What is done.
    pub action: Action,
    /// Why, for a person; becomes the note of an event for steps that disturb something.
    pub why: String,
}

/// Why a node is away for a while, as Elasticsearch is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// The operator restarts it.
    Restart,
    /// Somebody else takes its pod down: a drain, an eviction, a person.
    Eviction,
}

impl Absence {
    /// The reason in the record of the node shutdown API. By it the operator knows its own records; it touches no others.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Restart => "searchcell: the node restarts",
            Self::Eviction => "searchcell: the node is evicted",
        }
    }

    /// Whether a record with this reason is the operator's own.
    pub fn is_own(reason: &str) -> bool {
        [Self::Restart, Self::Eviction].iter().any(|absence| absence.reason() == reason)
    }
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Puts the finalizer on the object itself.
    AddFinalizer,
    /// Takes it away; the object goes.
    RemoveFinalizer,
    /// Creates the map that lets a cluster form. Before it does, claims and the cell are read *live*: it refuses
    /// (with a conflict) when either carries a UUID, or when the map's cluster was observed wrongly.
    Bootstrap(Box<ConfigMap>),
    /// Creates an object that was not there. An object of that name that is not ours is reported, not adopted.
    Create(Object),
    /// Server-side apply of an object that differs; the target's UID is a precondition.
    Apply {
        /// The whole object as it ought to be.
        object: Object,
        /// What it replaces.
        target: Target,
    },
    /// Sets `spec.replicas` of a workload, and nothing else of it.
    Scale {
        /// The workload, with its resource version.
        target: Target,
        /// New number.
        replicas: i32,
    },
    /// Takes `spec.replicas` out of what our field manager owns, leaving its value alone.
    ReleaseReplicas {
        /// The Deployment.
        target: Target,
    },
    /// Writes annotations on a volume claim.
    AnnotateClaim {
        /// The claim.
        target: Target,
        /// Annotations to set.
        annotations: BTreeMap<String, String>,
    },
    /// Asks for a bigger volume.
    GrowClaim {
        /// The claim.
        target: Target,
        /// New size.
        size: Quantity,
    },
    /// Deletes a StatefulSet without its pods and makes it anew as it was, with a claim template of another size. The
    /// new one takes the pods over; no pod restarts.
    RecreateAroundPods {
        /// The StatefulSet, with its resource version.
        target: Target,
        /// New size.
        size: Quantity,
    },
    /// Puts another pod template, and the mark of what it was made from, into a workload, and changes nothing else of it.
    ReplaceTemplate {
        /// The workload as it would be made anew.
        object: Object,
        /// The workload, with its resource version.
        target: Target,
    },
    /// Tells Elasticsearch that a node restarts: until it is back, its copies are not made anew elsewhere.
    AnnounceRestart {
        /// Persistent id of the node.
        id: String,
        /// Its name.
        name: String,
        /// Who takes its pod down.
        absence: Absence,
    },
    /// Takes such a record back: the node has returned, or does not restart.
    WithdrawRestart {
        /// Persistent id of the node.
        id: String,
    },
    /// Tells Elasticsearch not to count on the vote of a master that goes away.
    ExcludeVoter {
        /// Name of the node.
        name: String,
    },
    /// All masters vote again.
    ClearVotingExclusions,
    /// Deletes the pod of a node, with its UID as a precondition: it comes back with the present template.
    RestartNode {
        /// The pod.
        target: Target,
    },
    /// Deletes an object, with its UID (and resource version, if given) as a precondition.
    Delete {
        /// The object.
        target: Target,
    },
    /// Deletes a workload of a cluster that left the spec. Before it does, the cell, the placements and, if `asks`, Elasticsearch are
    /// asked *live*: it refuses (with a conflict) when the cluster is asked for again, or has anything to lose.
    RemoveWorkload {
        /// The workload.
        target: Target,
        /// Whether Elasticsearch has to say that it is empty; else it has just said so, has lost nodes since, or has never formed.
        asks: bool,
    },
    /// Deletes a volume of such a cluster. Before it does, status and pods are read *live*: it refuses (with a conflict) when its
    /// deletion is not recorded, or nodes are there.
    RemoveVolume {
        /// The claim.
        target: Target,
    },
    /// Makes keys, certificates, passwords or hashes, and writes them into a Secret. Before it does, the live Secrets
    /// that the order rests on are read: it refuses (with a conflict) when they are not as observed.
    Secure(Box<Order>),
    /// Has the nodes of a cluster load their keystore again, and records on its Secret what they said.
    ReloadKeystore(Box<Reload>),
    /// Changes persistent cluster settings; `None` resets one.
    PutSettings(BTreeMap<String, Option<Value>>),
    /// Creates an index.
    CreateIndex {
        /// Name.
        name: String,
        /// Settings and mappings.
        body: Value,
    },
    /// Adds to the mappings of indices, and writes their marks: all of them, or none.
    PutMapping {
        /// Their names.
        indices: Vec<String>,
        /// Mappings.
        body: Value,
    },
    /// Changes settings of indices; `None` resets one. All of them, or none.
    PutIndexSettings {
        /// Their names.
        indices: Vec<String>,
        /// By name, `index.` in front.
        settings: BTreeMap<String, Option<Value>>,
    },
    /// Deletes an index of ours, when it still has this UUID.
    DeleteIndex {
        /// Name.
        name: String,
        /// UUID as observed.
        uuid: String,
    },
}

impl Action {
    /// Stable name for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Action::AddFinalizer => "AddFinalizer",
            Action::RemoveFinalizer => "RemoveFinalizer",
            Action::Bootstrap(_) => "Bootstrap",
            Action::Create(_) => "Create",
            Action::Apply { .. } => "Apply",
            Action::Scale { .. } => "Scale",
            Action::ReleaseReplicas { .. } => "ReleaseReplicas",
            Action::AnnotateClaim { .. } => "AnnotateClaim",
            Action::GrowClaim { .. } => "GrowClaim",
            Action::RecreateAroundPods { .. } => "RecreateAroundPods",
            Action::ReplaceTemplate { .. } => "ReplaceTemplate",
            Action::AnnounceRestart { .. } => "AnnounceRestart",
            Action::WithdrawRestart { .. } => "WithdrawRestart",
            Action::ExcludeVoter { .. } => "ExcludeVoter",
            Action::ClearVotingExclusions => "ClearVotingExclusions",
            Action::RestartNode { .. } => "RestartNode",
            Action::Delete { .. } => "Delete",
            Action::RemoveWorkload { .. } => "RemoveWorkload",
            Action::RemoveVolume { .. } => "RemoveVolume",
            Action::Secure(order) => order.step_name(),
            Action::ReloadKeystore(_) => "ReloadKeystore",
            Action::PutSettings(_) => "PutSettings",
            Action::CreateIndex { .. } => "CreateIndex",
            Action::PutMapping { .. } => "PutMapping",
            Action::PutIndexSettings { .. } => "PutIndexSettings",
            Action::DeleteIndex { .. } => "DeleteIndex",
        }
    }
}

/// What nodes are to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// The Secret that has it, whatever its resource version: the contents count.
    pub target: Target,
    /// Its contents as observed, by which the record tells them from others.
    pub revision: String,
    /// How often these contents were tried before.
    pub tries: u32,
    /// Nodes that have to load it, with the SHA-256 of the file that each of them is to have by now.
    pub nodes: BTreeMap<String, String>,
}

/// Something the operator would do, and why it does not do it yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hold {
    /// Cluster it concerns; absent: all of it.
    pub cluster: Option<String>,
    /// Reason from the closed list; decides whether it waits for the cluster (Reconciling) or for the user
    /// (Stalled).
    pub reason: Reason,
    /// For a person, with the next valid action. No counters, no times.
    pub message: String,
}

/// What one pass decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// In the order of the spec's clusters.
    pub holds: Vec<Hold>,
    /// Clusters that were found for indices in this pass, by index name. Recorded in status before anything is created.
    pub assign: BTreeMap<String, String>,
    /// Clusters of which it is known what is under way: an operation, which status records before it begins, or none.
    pub operations: BTreeMap<String, Option<Operation>>,
    /// When to look again even if nothing changes.
    pub wake_after: Duration,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// Not tried, because an earlier step of the same cluster failed or leadership was lost.
    Skipped,
    /// Tried and refused or failed.
    Failed {
        /// Reason from the closed list.
        reason: Reason,
        /// For a person.
        message: String,
    },
}
