//! One AdmissionReview: a pod comes in, an answer goes out. It always admits the pod. No effects but reading the caches.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, SerializePatchError};
use kube::core::response::StatusSummary;
use searchcell_core::inject::{Verdict, asked_by, collections, inject};
use tokio::sync::watch;

use crate::ports::KubeApi;

/// Why there is no answer. The API server admits the pod then, too.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The caches are not complete: what is not in them may be there.
    #[error("the operator has not read all placements yet")]
    NotSynced,
    /// It is no AdmissionReview of a pod.
    #[error("the body is no AdmissionReview of a pod: {0}")]
    Body(serde_json::Error),
    /// It has no request.
    #[error("the AdmissionReview has no request with a pod")]
    Empty,
    /// The patch cannot be written.
    #[error("the patch cannot be written: {0}")]
    Patch(serde_json::Error),
    /// The patch cannot be written.
    #[error(transparent)]
    Serialize(#[from] SerializePatchError),
}

/// Hears what became of each pod, from a closed set.
pub type OnVerdict = dyn Fn(&'static str) + Send + Sync;

/// Answers reviews.
pub struct Reviewer<K> {
    kube: Arc<K>,
    image: String,
    synced: watch::Receiver<bool>,
    on_verdict: Arc<OnVerdict>,
}

impl<K: KubeApi> Reviewer<K> {
    /// Puts this image into pods; what is known of collections comes from the caches, once they are `synced`.
    pub fn new(
        kube: Arc<K>,
        image: String,
        synced: watch::Receiver<bool>,
        on_verdict: Arc<OnVerdict>,
    ) -> Self {
        Self { kube, image, synced, on_verdict }
    }

    /// The answer to a body, as a body.
    pub fn answer(&self, body: &[u8]) -> Result<Vec<u8>, ReviewError> {
        let answer = self.review(body);
        if let Err(error) = &answer {
            tracing::warn!(%error, "a pod was not looked at: it is admitted as it is");
            (self.on_verdict)("error");
        }
        answer
    }

    fn review(&self, body: &[u8]) -> Result<Vec<u8>, ReviewError> {
        if !*self.synced.borrow() {
            return Err(ReviewError::NotSynced);
        }
        let review: AdmissionReview<Pod> = serde_json::from_slice(body).map_err(ReviewError::Body)?;
        let request: AdmissionRequest<Pod> = review.try_into().map_err(|_| ReviewError::Empty)?;
        let pod = request.object.as_ref().ok_or(ReviewError::Empty)?;
        let namespace = request.namespace.clone().unwrap_or_default();
        let mut answer = AdmissionResponse::from(&request);
        // Else it is serialised as a failure, which nobody reads in an answer that admits.
        answer.result.status = Some(StatusSummary::Success);
        let name = pod.metadata.name.as_deref().or(pod.metadata.generate_name.as_deref()).unwrap_or_default();
        let verdict = verdict(self.kube.as_ref(), &namespace, pod, &self.image);
        (self.on_verdict)(match &verdict {
            Verdict::NotAsked => "not_asked",
            Verdict::Present => "present",
            Verdict::Inject(_) => "injected",
            Verdict::Refused(_) => "refused",
        });
        match verdict {
            Verdict::NotAsked | Verdict::Present => {}
            Verdict::Inject(operations) => {
                let patch = serde_json::to_value(operations).and_then(serde_json::from_value);
                answer = answer.with_patch(patch.map_err(ReviewError::Patch)?)?;
                tracing::info!(namespace, pod = name, "a router is put into a pod");
            }
            Verdict::Refused(refusal) => {
                tracing::warn!(namespace, pod = name, %refusal, "a pod is admitted without a router");
                answer.warnings = Some(vec![format!("no router: {refusal}")]);
            }
        }
        serde_json::to_vec(&answer.into_review()).map_err(ReviewError::Patch)
    }
}

/// What becomes of a pod of a namespace, by what the caches know.
pub fn verdict<K: KubeApi + ?Sized>(kube: &K, namespace: &str, pod: &Pod, image: &str) -> Verdict {
    let asked = asked_by(&pod.metadata);
    let mut placements = kube.placements(namespace);
    // Tables of other collections need not be read.
    placements.retain(|placement| asked.contains(&placement.spec.collection));
    inject(pod, &collections(&placements, |collection| kube.table(namespace, collection)), image)
}
