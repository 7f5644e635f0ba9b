//! Another pod template for a workload that is there. A patch would leave behind what an earlier one had: the whole template
//! is replaced. Effects: network.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use searchcell_core::step::{Object, Target};

use super::requests::{Failed, get, replace};

/// Reads the workload, and writes it with the template and the annotations of `object`. UID and resource version of the
/// target are preconditions.
pub async fn replace_template(
    client: &Client,
    namespace: &str,
    object: &Object,
    target: &Target,
) -> Result<(), Failed> {
    match object {
        Object::StatefulSet(new) => {
            let mut live = live::<StatefulSet>(client, namespace, target).await?;
            take_annotations(&mut live.metadata, &new.metadata);
            let template = new.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
            live.spec.get_or_insert_default().template = template;
            replace(client, namespace, &live).await
        }
        Object::Deployment(new) => {
            let mut live = live::<Deployment>(client, namespace, target).await?;
            take_annotations(&mut live.metadata, &new.metadata);
            let template = new.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
            live.spec.get_or_insert_default().template = template;
            replace(client, namespace, &live).await
        }
        other => Err(Failed::Refused(format!("a {} has no pod template", other.kind().as_str()))),
    }
}

async fn live<T: super::requests::Kindly>(
    client: &Client,
    namespace: &str,
    target: &Target,
) -> Result<T, Failed> {
    let live = get::<T>(client, namespace, &target.name).await?;
    let live = live.ok_or_else(|| Failed::NotFound("it is gone".to_owned()))?;
    let meta = live.meta();
    let same = meta.uid.as_deref() == Some(&target.uid)
        && (target.resource_version.is_none() || meta.resource_version == target.resource_version);
    if same { Ok(live) } else { Err(Failed::Conflict("it was replaced or changed".to_owned())) }
}

fn take_annotations(live: &mut ObjectMeta, new: &ObjectMeta) {
    live.annotations.get_or_insert_default().extend(new.annotations.clone().unwrap_or_default());
}
