//! Which image routers have: that of the operator itself, which holds both programs, unless a flag says otherwise.
//! Effects: one read from the API server.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};

use crate::kube_io::requests::{Failed, call};

/// Container of the operator in its pod, in the shipped manifests.
const CONTAINER: &str = "operator";
/// How long to wait before the API server is asked again.
const AGAIN: Duration = Duration::from_secs(5);

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The API server did not say.
    #[error("the operator's own pod cannot be read")]
    Request(Failed),
    /// There is no such pod.
    #[error(
        "there is no pod {0}/{1} with a container and an image: name the image of routers with --router-image"
    )]
    NoPod(String, String),
}

/// The image of the operator's own pod; asks until it is known.
pub async fn own_image(client: &Client, namespace: &str, pod: &str) -> String {
    loop {
        match image_of(client, namespace, pod).await {
            Ok(image) => return image,
            Err(error) => {
                tracing::warn!(%error, reason = ?error, "the image of routers is not known yet");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn image_of(client: &Client, namespace: &str, pod: &str) -> Result<String, ImageError> {
    // By `list`, which the operator may do anyway.
    let params = ListParams::default().fields(&format!("metadata.name={pod}"));
    let pods = call(Api::<Pod>::namespaced(client.clone(), namespace).list(&params)).await;
    let pods = pods.map_err(ImageError::Request)?.items;
    let containers = || pods.iter().filter_map(|pod| pod.spec.as_ref()).flat_map(|spec| &spec.containers);
    let found = containers().find(|container| container.name == CONTAINER).or_else(|| containers().next());
    found
        .and_then(|container| container.image.clone())
        .ok_or_else(|| ImageError::NoPod(namespace.to_owned(), pod.to_owned()))
}
