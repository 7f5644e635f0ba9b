//! Makes a StatefulSet anew around its pods, because its claim template cannot be changed. Effects: network.
//!
//! The new one has the live template to the letter, so that no pod is out of date because of it. When the operator
//! dies between the two requests, the next pass finds the StatefulSet missing and creates it: the pods are taken
//! over by their labels, and under `OnDelete` none restarts.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::PropagationPolicy;
use searchcell_core::step::Target;
use tokio::time::sleep;

use super::requests::{Failed, create_new, delete_with, get};

/// The garbage collector takes the owner off the pods before the StatefulSet goes.
const ATTEMPTS: u32 = 60;
const BETWEEN: Duration = Duration::from_millis(250);

/// Deletes without the pods, waits until it is gone, creates.
pub async fn recreate_around_pods(
    client: &Client,
    namespace: &str,
    target: &Target,
    size: &Quantity,
) -> Result<(), Failed> {
    let Some(live) = get::<StatefulSet>(client, namespace, &target.name).await? else {
        return Err(Failed::NotFound("it is gone".to_owned()));
    };
    if live.metadata.uid.as_deref() != Some(&target.uid) {
        return Err(Failed::Conflict("it was replaced".to_owned()));
    }
    let new = with_size(live, size);
    delete_with::<StatefulSet>(client, namespace, target, PropagationPolicy::Orphan).await?;
    for _ in 0..ATTEMPTS {
        match create_new(client, namespace, &new).await {
            Err(Failed::AlreadyExists) => sleep(BETWEEN).await,
            result => return result,
        }
    }
    Err(Failed::Unreachable(format!("StatefulSet {} does not go; its pods run on", target.name)))
}

/// The same StatefulSet as a new object, with claims of another size.
fn with_size(live: StatefulSet, size: &Quantity) -> StatefulSet {
    let ObjectMeta { name, labels, annotations, owner_references, .. } = live.metadata;
    let mut spec = live.spec.unwrap_or_default();
    for claim in spec.volume_claim_templates.iter_mut().flatten() {
        claim.status = None;
        let resources = claim.spec.get_or_insert_default().resources.get_or_insert_default();
        resources.requests.get_or_insert_default().insert("storage".to_owned(), size.clone());
    }
    StatefulSet {
        metadata: ObjectMeta { name, labels, annotations, owner_references, ..ObjectMeta::default() },
        spec: Some(spec),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_but_the_size_changes() {
        let live: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "s", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"},
                "annotations": {"searchcell.dev/input-hash": "h"}},
            "spec": {"replicas": 2, "selector": {}, "serviceName": "t", "template": {"metadata": {"labels": {"a": "b"}}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "status": {"phase": "Pending"},
                    "spec": {"resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "ssd"}}]},
            "status": {"replicas": 2},
        }))
        .unwrap();
        let new = with_size(live.clone(), &Quantity("2Gi".into()));
        assert_eq!(
            (new.metadata.uid.as_deref(), new.metadata.resource_version.as_deref(), &new.status),
            (None, None, &None)
        );
        assert_eq!(new.metadata.annotations, live.metadata.annotations);
        let (new, live) = (new.spec.unwrap(), live.spec.unwrap());
        assert_eq!((&new.template, new.replicas), (&live.template, live.replicas));
        let claim = serde_json::to_value(&new.volume_claim_templates.unwrap()[0].spec).unwrap();
        assert_eq!(claim, json!({"resources": {"requests": {"storage": "2Gi"}}, "storageClassName": "ssd"}));
    }
}
