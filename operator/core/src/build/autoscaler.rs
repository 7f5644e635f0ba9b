//! The autoscaler of the ingest nodes. Pure.

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules,
    HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec, MetricSpec,
    MetricTarget,
};

use super::metadata;
use super::pod::CONTAINER;
use crate::domain::{IngestScale, ValidCell};
use crate::names::{ClusterKey, Role};

/// The autoscaler of the ingest nodes, where the cell asks for one.
pub fn autoscaler(cell: &ValidCell, key: &ClusterKey) -> Option<HorizontalPodAutoscaler> {
    let (IngestScale::Autoscaled { min, max, cpu_percent }, _) = cell.ingest.as_ref()? else {
        return None;
    };
    Some(HorizontalPodAutoscaler {
        metadata: metadata(cell, key, key.ingest(), key.labels(Some(Role::Ingest), None)),
        spec: HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".into()),
                kind: "Deployment".into(),
                name: key.ingest(),
            },
            min_replicas: Some(*min),
            max_replicas: *max,
            // Of our container alone: the sidecars of others neither hide its load nor break the reading.
            metrics: Some(vec![MetricSpec {
                type_: "ContainerResource".into(),
                container_resource: Some(ContainerResourceMetricSource {
                    container: CONTAINER.into(),
                    name: "cpu".into(),
                    target: MetricTarget {
                        type_: "Utilization".into(),
                        average_utilization: Some(*cpu_percent),
                        ..Default::default()
                    },
                }),
                ..Default::default()
            }]),
            behavior: Some(behavior()),
        },
        ..Default::default()
    })
}

/// Up at once, by up to half or by two nodes in each period; down by one node a minute, each of which is a change
/// of the cluster state. The stabilisation of scaling down is left to the default of the Kubernetes cluster (300 s).
fn behavior() -> HorizontalPodAutoscalerBehavior {
    let policy =
        |type_: &str, value, period_seconds| HPAScalingPolicy { type_: type_.into(), value, period_seconds };
    HorizontalPodAutoscalerBehavior {
        scale_up: Some(HPAScalingRules {
            stabilization_window_seconds: Some(0),
            select_policy: Some("Max".into()),
            policies: Some(vec![policy("Pods", 2, 15), policy("Percent", 50, 15)]),
            ..Default::default()
        }),
        scale_down: Some(HPAScalingRules {
            select_policy: Some("Max".into()),
            policies: Some(vec![policy("Pods", 1, 60)]),
            ..Default::default()
        }),
    }
}
