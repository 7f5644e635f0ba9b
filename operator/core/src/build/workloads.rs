//! StatefulSets of masters and data nodes, the Deployment of ingest nodes, and where their pods may be. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment, StatefulSet,
    StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolumeClaim,
    PersistentVolumeClaimSpec, PodAffinityTerm, PodAntiAffinity, TopologySpreadConstraint,
    VolumeResourceRequirements, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod;
use super::volumes::{VOLUME_DATA, keystore};
use super::{input_hash, metadata, selector};
use crate::domain::{ValidCell, ValidRole, ValidStorage, ValidZone};
use crate::names::{ANNOTATION_INPUT_HASH, ANNOTATION_KEYSTORE, ClusterKey, Role};

const HOSTNAME: &str = "kubernetes.io/hostname";
/// Earlier templates that Kubernetes keeps: one to look at is enough, nothing is rolled back with them.
const REVISIONS: i32 = 2;

/// The masters or data nodes of one zone.
pub fn stateful_set(
    cell: &ValidCell,
    key: &ClusterKey,
    role: Role,
    zone: &ValidZone,
    replicas: i32,
) -> StatefulSet {
    let nobody = ValidRole::default();
    let valid = cell.role(role).unwrap_or(&nobody);
    let (role_of_pods, zone_of_pods) = (Some(role), Some(zone.name.as_str()));
    let labels = key.labels(role_of_pods, zone_of_pods);
    let mut metadata = metadata(cell, key, key.stateful_set(role, &zone.name), labels.clone());
    metadata.annotations = Some(annotations(cell, role, Some(zone)));
    StatefulSet {
        metadata,
        spec: Some(StatefulSetSpec {
            replicas: Some(replicas),
            selector: selector(key.selector(role_of_pods, zone_of_pods)),
            service_name: Some(key.transport_service()),
            template: pod::template(cell, key, role, valid, Some(zone)),
            // The operator decides when a node restarts, and a forming cluster needs all its masters at once.
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".into()),
                ..Default::default()
            }),
            pod_management_policy: Some("Parallel".into()),
            // Volumes go when the operator has seen that nobody needs them, never by themselves.
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some("Retain".into()),
                when_scaled: Some("Retain".into()),
            }),
            revision_history_limit: Some(REVISIONS),
            volume_claim_templates: valid.storage.as_ref().map(|storage| vec![claim(labels, storage)]),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn claim(labels: BTreeMap<String, String>, storage: &ValidStorage) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some(VOLUME_DATA.into()), labels: Some(labels), ..Default::default() },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), storage.size.clone())])),
                ..Default::default()
            }),
            storage_class_name: storage.storage_class_name.clone(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The ingest nodes, where the cell has any. `replicas` is absent when somebody else owns the number.
pub fn ingest_deployment(cell: &ValidCell, key: &ClusterKey, replicas: Option<i32>) -> Option<Deployment> {
    let valid = cell.role(Role::Ingest)?;
    let role = Some(Role::Ingest);
    let mut metadata = metadata(cell, key, key.ingest(), key.labels(role, None));
    metadata.annotations = Some(annotations(cell, Role::Ingest, None));
    Some(Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas,
            selector: selector(key.selector(role, None)),
            template: pod::template(cell, key, Role::Ingest, valid, None),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            revision_history_limit: Some(REVISIONS),
            ..Default::default()
        }),
        ..Default::default()
    })
}

fn annotations(cell: &ValidCell, role: Role, zone: Option<&ValidZone>) -> BTreeMap<String, String> {
    let keystore = keystore(cell).map(|name| (ANNOTATION_KEYSTORE.to_owned(), name.to_owned()));
    let hash = (ANNOTATION_INPUT_HASH.to_owned(), input_hash(cell, role, zone));
    std::iter::once(hash).chain(keystore).collect()
}

/// Into the zone, or for ingest nodes into any of the zones; by preference not two of a kind on one Kubernetes node.
pub(super) fn affinity(cell: &ValidCell, key: &ClusterKey, role: Role, zone: Option<&ValidZone>) -> Affinity {
    let values = match zone {
        Some(zone) => vec![zone.value.clone()],
        None => cell.zones.iter().map(|zone| zone.value.clone()).collect(),
    };
    let in_zone = NodeSelectorRequirement {
        key: cell.topology_key.clone(),
        operator: "In".into(),
        values: Some(values),
    };
    let apart = WeightedPodAffinityTerm {
        weight: 100,
        pod_affinity_term: PodAffinityTerm {
            topology_key: HOSTNAME.into(),
            label_selector: Some(selector(key.selector(Some(role), None))),
            ..Default::default()
        },
    };
    Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: vec![NodeSelectorTerm {
                    match_expressions: Some(vec![in_zone]),
                    ..Default::default()
                }],
            }),
            ..Default::default()
        }),
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![apart]),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Ingest nodes spread over the zones. Not at any price: a lost zone must not keep the others from growing.
pub(super) fn spread(
    cell: &ValidCell,
    key: &ClusterKey,
    role: Role,
) -> Option<Vec<TopologySpreadConstraint>> {
    (role == Role::Ingest).then(|| {
        vec![TopologySpreadConstraint {
            topology_key: cell.topology_key.clone(),
            max_skew: 1,
            when_unsatisfiable: "ScheduleAnyway".into(),
            label_selector: Some(selector(key.selector(Some(role), None))),
            node_taints_policy: Some("Honor".into()),
            ..Default::default()
        }]
    })
}
