//! Tells pods what is wrong with their routers, each once: that they run without the one that they asked for, and that
//! theirs lacks the files of a cell. Effects: one read of a pod that is to be told why, and events.

use std::collections::BTreeSet;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::Api;
use kube::api::ListParams;
use searchcell_core::inject::collections;
use searchcell_core::inject::routers::{RouterPod, missing, outdated};
use searchcell_crds::Reason;

use super::{AT_ONCE, Routers, Told, Unrouted};
use crate::kube_io::requests::{Failed, call};
use crate::ports::KubeApi;
use crate::webhook::review::verdict;

impl Routers {
    /// Tells who runs without a router.
    pub(super) async fn tell_missing(&self, pods: &[RouterPod], unrouted: &[Unrouted], told: &mut Told) {
        let labelled = pods.iter().filter(|pod| self.injects && pod.is_without()).map(|pod| Unrouted {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
        });
        let without: Vec<Unrouted> = labelled.chain(unrouted.iter().cloned()).collect();
        let there: BTreeSet<&String> = without.iter().map(|pod| &pod.uid).collect();
        told.missing.retain(|uid, _| there.contains(uid));
        let new: Vec<&Unrouted> = without.iter().filter(|pod| !told.missing.contains_key(&pod.uid)).collect();
        let looks = futures::stream::iter(new).map(|pod| async move { (pod, self.why(pod).await) });
        let looked: Vec<(&Unrouted, Result<Option<String>, Failed>)> =
            looks.buffer_unordered(AT_ONCE).collect().await;
        for (pod, why) in looked {
            match why {
                Ok(why) => {
                    told.missing.insert(pod.uid.clone(), why.is_some());
                    if let Some(text) = why {
                        let (namespace, name) = (&pod.namespace, &pod.name);
                        tracing::warn!(namespace, name, text, "a pod runs without its router");
                        self.report.pod(
                            &reference(&pod.namespace, &pod.name, &pod.uid),
                            Reason::RouterMissing,
                            text,
                        );
                    }
                }
                Err(error) => tracing::debug!(?error, "a pod without a router could not be read yet"),
            }
        }
        let missing = told.missing.values().filter(|is_missing| **is_missing).count();
        self.metrics.routers_missing(i64::try_from(missing).unwrap_or(i64::MAX));
    }

    /// Why a pod has no router; `None`: it has one, or is gone.
    async fn why(&self, pod: &Unrouted) -> Result<Option<String>, Failed> {
        // By `list`, which the operator may do anyway.
        let params = ListParams::default().fields(&format!("metadata.name={}", pod.name));
        let found = call(Api::<Pod>::namespaced(self.client.clone(), &pod.namespace).list(&params)).await;
        (self.on_request)("list", found.as_ref().map_or_else(Failed::outcome, |_| "success"));
        let live = found?.items.into_iter().find(|live| live.metadata.uid.as_ref() == Some(&pod.uid));
        Ok(live.and_then(|live| missing(&verdict(self.kube.as_ref(), &pod.namespace, &live, ""))))
    }

    /// Tells whose router has no files of a cell that its collections have come to.
    pub(super) fn tell_outdated(&self, pods: &[RouterPod], told: &mut Told) {
        let there: BTreeSet<&String> = pods.iter().map(|pod| &pod.uid).collect();
        told.outdated.retain(|uid, _| there.contains(uid));
        let namespaces: BTreeSet<&String> =
            pods.iter().filter(|pod| pod.has_router).map(|pod| &pod.namespace).collect();
        for namespace in namespaces {
            let placements = self.kube.placements(namespace);
            let known = collections(&placements, |collection| self.kube.table(namespace, collection));
            for pod in pods.iter().filter(|pod| pod.namespace == *namespace) {
                let lacks = pod.lacks(&known);
                if lacks.is_empty() {
                    told.outdated.remove(&pod.uid);
                } else if told.outdated.get(&pod.uid) != Some(&lacks) {
                    let text = outdated(&lacks);
                    self.report.pod(&reference(namespace, &pod.name, &pod.uid), Reason::RouterOutdated, text);
                    told.outdated.insert(pod.uid.clone(), lacks);
                }
            }
        }
    }
}

fn reference(namespace: &str, name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}
