//! What is dropped of an object before it is kept in memory, and whether two versions of it differ in anything that
//! matters. Pure.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{
    Affinity, ConfigMap, PersistentVolumeClaim, Pod, PodSpec, PodTemplateSpec, Secret, Service,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use kube::Resource;
use searchcell_core::drift;
use searchcell_core::names::FIELD_MANAGER;
use searchcell_crds::{IndexPlacement, SearchCell};

/// A kind that is kept in a cache.
pub trait Trim: Resource + Clone + PartialEq {
    /// Drops what no decision needs.
    fn trim(&mut self);

    /// True when nothing but the resource version differs.
    fn same(&self, other: &Self) -> bool {
        let (mut a, mut b) = (self.clone(), other.clone());
        a.meta_mut().resource_version = None;
        b.meta_mut().resource_version = None;
        a == b
    }
}

fn trim_meta<T: Resource>(object: &mut T) {
    object.meta_mut().managed_fields = None;
}

/// Annotations of other tools can be large: only those of the project are kept.
fn trim_annotations<T: Resource>(object: &mut T) {
    if let Some(annotations) = &mut object.meta_mut().annotations {
        annotations.retain(|key, _| key.starts_with("searchcell.dev/"));
    }
}

macro_rules! keeps_all_but_managed_fields {
    ($($kind:ty),+) => {$(
        impl Trim for $kind {
            fn trim(&mut self) {
                trim_meta(self);
            }
        }
    )+};
}

keeps_all_but_managed_fields!(SearchCell, IndexPlacement, Service, ConfigMap, NetworkPolicy, Secret);

impl Trim for StatefulSet {
    /// A live template is never compared with a rendered one: its hash is in an annotation.
    fn trim(&mut self) {
        trim_meta(self);
        if let Some(spec) = &mut self.spec {
            spec.template = PodTemplateSpec::default();
        }
    }
}

impl Trim for Deployment {
    /// Keeps of the managed fields whether *we* own `spec.replicas`: while an autoscaler is asked for, we must not. Of the template,
    /// on which Kubernetes nodes its pods may run: a zone may have to be left.
    fn trim(&mut self) {
        let owned = drift::owns_replicas(self);
        self.metadata.managed_fields = owned.then(|| {
            vec![ManagedFieldsEntry {
                manager: Some(FIELD_MANAGER.to_owned()),
                fields_v1: Some(FieldsV1(serde_json::json!({"f:spec": {"f:replicas": {}}}))),
                ..ManagedFieldsEntry::default()
            }]
        });
        if let Some(spec) = &mut self.spec {
            let affinity = spec.template.spec.take().and_then(|pod| pod.affinity?.node_affinity);
            let affinity = affinity.map(|node| Affinity { node_affinity: Some(node), ..Affinity::default() });
            let pod = affinity.map(|affinity| PodSpec { affinity: Some(affinity), ..PodSpec::default() });
            spec.template = PodTemplateSpec { spec: pod, ..PodTemplateSpec::default() };
        }
    }
}

impl Trim for PodDisruptionBudget {
    fn trim(&mut self) {
        trim_meta(self);
        self.status = None;
    }
}

impl Trim for HorizontalPodAutoscaler {
    fn trim(&mut self) {
        trim_meta(self);
        // Measured values change with every sample.
        if let Some(status) = &mut self.status {
            status.conditions = None;
            status.current_metrics = None;
            status.last_scale_time = None;
        }
    }
}

impl Trim for PersistentVolumeClaim {
    fn trim(&mut self) {
        trim_meta(self);
        trim_annotations(self);
    }
}

impl Trim for Pod {
    /// Where it is, whether it is ready, and why not.
    fn trim(&mut self) {
        trim_meta(self);
        trim_annotations(self);
        if let Some(spec) = self.spec.take() {
            self.spec = Some(PodSpec { node_name: spec.node_name, ..PodSpec::default() });
        }
        if let Some(status) = &mut self.status {
            for condition in status.conditions.iter_mut().flatten() {
                condition.last_probe_time = None;
            }
            let init = status.init_container_statuses.iter_mut().flatten();
            for container in init.chain(status.container_statuses.iter_mut().flatten()) {
                container.allocated_resources = None;
                container.resources = None;
                container.volume_mounts = None;
                container.user = None;
            }
            status.ephemeral_container_statuses = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_resource_version_alone_is_no_change() {
        let mut pod = Pod::default();
        pod.metadata.resource_version = Some("1".into());
        let mut other = pod.clone();
        other.metadata.resource_version = Some("2".into());
        assert!(pod.same(&other));
        other.metadata.uid = Some("u".into());
        assert!(!pod.same(&other));
    }

    #[test]
    fn a_deployment_keeps_whether_we_own_its_replicas() {
        let with = |manager: &str| -> Deployment {
            let mut deployment: Deployment = serde_json::from_value(serde_json::json!({
                "metadata": {"managedFields": [{"manager": manager, "operation": "Update",
                    "fieldsV1": {"f:spec": {"f:replicas": {}, "f:template": {}}}}]},
                "spec": {"selector": {}, "template": {"metadata": {"labels": {"a": "b"}}}}
            }))
            .unwrap();
            deployment.trim();
            deployment
        };
        assert!(drift::owns_replicas(&with(FIELD_MANAGER)));
        let other = with("kube-controller-manager");
        assert!(!drift::owns_replicas(&other));
        assert!(other.metadata.managed_fields.is_none());
        assert_eq!(other.spec.unwrap().template, PodTemplateSpec::default());
    }

    #[test]
    fn a_deployment_keeps_on_which_nodes_its_pods_may_run() {
        let affinity = serde_json::json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}});
        let mut deployment: Deployment = serde_json::from_value(serde_json::json!({
            "spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "elasticsearch"}],
                "affinity": {"nodeAffinity": affinity, "podAntiAffinity": {}}}}}
        }))
        .unwrap();
        deployment.trim();
        let kept = deployment.spec.unwrap().template.spec.unwrap();
        assert!(kept.containers.is_empty());
        let kept = serde_json::to_value(kept.affinity.unwrap()).unwrap();
        assert_eq!(kept, serde_json::json!({"nodeAffinity": affinity}));
    }

    #[test]
    fn a_pod_keeps_where_it_is_and_whether_it_is_ready() {
        let mut pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "managedFields": [{"manager": "kubelet"}],
                "annotations": {"searchcell.dev/input-hash": "h", "other": "large"}},
            "spec": {"nodeName": "n", "containers": [{"name": "elasticsearch"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}
        }))
        .unwrap();
        pod.trim();
        assert_eq!(pod.metadata.annotations.as_ref().unwrap().len(), 1);
        assert!(pod.metadata.managed_fields.is_none());
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!((spec.node_name.as_deref(), spec.containers.len()), (Some("n"), 0));
        assert!(searchcell_core::snapshot::is_ready(&pod));
    }
}
