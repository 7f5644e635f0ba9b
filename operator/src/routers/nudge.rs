//! Brings a new table to the pods of its routers at once: the kubelet looks at a pod's volumes when the pod changes, and
//! else about once a minute. Effects: writes one annotation.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use searchcell_core::inject::routers::RouterPod;
use searchcell_core::names::ANNOTATION_ROUTES_GENERATION;
use searchcell_core::step::{Kind, Target};
use serde_json::json;

use super::{AT_ONCE, Routers, Told};
use crate::kube_io::requests::{Failed, merge};

impl Routers {
    /// Tells the kubelets of tables that they have not been told of.
    pub(super) async fn nudge(&self, pods: &[RouterPod], told: &mut Told) {
        let there: BTreeSet<&String> = pods.iter().map(|pod| &pod.uid).collect();
        told.generations.retain(|uid, _| there.contains(uid));
        let published = self.published_for(pods);
        let none = BTreeMap::new();
        let news = pods.iter().filter_map(|pod| {
            let generation = pod.news(published.get(&pod.namespace).unwrap_or(&none))?;
            let is_known = told.generations.get(&pod.uid).is_some_and(|known| *known >= generation);
            (!is_known).then_some((pod, generation))
        });
        let news: Vec<(&RouterPod, i64)> = news.collect();
        let outcomes = futures::stream::iter(news).map(|(pod, generation)| async move {
            // A new leader does it, if this one leads no longer.
            if !self.leadership.holds() {
                return None;
            }
            let outcome = self.annotate(pod, generation).await;
            (self.on_request)("nudge", outcome.as_ref().map_or_else(Failed::outcome, |()| "success"));
            match outcome {
                Ok(()) => Some((pod.uid.clone(), generation)),
                // Gone, or another one.
                Err(Failed::NotFound(_) | Failed::Conflict(_)) => None,
                Err(error) => {
                    let (namespace, name) = (&pod.namespace, &pod.name);
                    tracing::warn!(
                        namespace,
                        name,
                        ?error,
                        "a new table comes to a router only after a minute"
                    );
                    // Not again every moment: the kubelet comes by itself.
                    matches!(error, Failed::Refused(_)).then(|| (pod.uid.clone(), generation))
                }
            }
        });
        let done: Vec<Option<(String, i64)>> = outcomes.buffer_unordered(AT_ONCE).collect().await;
        told.generations.extend(done.into_iter().flatten());
    }

    async fn annotate(&self, pod: &RouterPod, generation: i64) -> Result<(), Failed> {
        let target = Target {
            // The kind is in the type of the call.
            kind: Kind::ConfigMap,
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            resource_version: None,
        };
        let annotations = json!({"annotations": {ANNOTATION_ROUTES_GENERATION: generation.to_string()}});
        merge::<Pod>(&self.client, &pod.namespace, &target, annotations, json!({})).await
    }
}
