//! The webhook that puts routers into pods: `review` answers the API server, `server` lets it in, `certificate` keeps
//! what both need to trust each other, `image` says which router it is. What a pod gets is decided in
//! `searchcell_core::inject`. Effects: listens; one Secret and one field of one MutatingWebhookConfiguration.

pub mod certificate;
pub mod image;
pub mod review;
pub mod server;

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::ports::KubeApi;
use certificate::Keeper;
use image::own_image;
use review::{OnVerdict, Reviewer};

/// Where the API server calls.
pub const PATH: &str = "/inject-router";
/// Service of the operator's pods for the API server, and Secret of its certificate.
pub const SERVICE: &str = "searchcell-operator-webhook";
/// Name of the webhook in its configuration.
pub const WEBHOOK: &str = "inject-router.searchcell.dev";

/// Where the image of routers is known from.
#[derive(Clone, Debug)]
pub enum Image {
    /// It was said.
    Given(String),
    /// It is that of this pod of this namespace.
    OfPod {
        /// Namespace.
        namespace: String,
        /// Name.
        pod: String,
    },
}

/// What the webhook needs besides its certificate.
pub struct Webhook<K> {
    /// Client.
    pub client: Client,
    /// What is known of collections.
    pub kube: Arc<K>,
    /// Whether it is complete.
    pub synced: watch::Receiver<bool>,
    /// Of routers.
    pub image: Image,
    /// Hears what became of each pod.
    pub on_verdict: Arc<OnVerdict>,
}

impl<K: KubeApi + 'static> Webhook<K> {
    /// Serves until `stop`, whoever leads, and keeps the certificate for as long as the answer's task runs.
    pub fn start(self, listener: TcpListener, keeper: Keeper, stop: watch::Receiver<bool>) -> JoinHandle<()> {
        let shown = Arc::clone(&keeper.shown);
        tokio::spawn(async move {
            let image = match self.image {
                Image::Given(image) => image,
                Image::OfPod { namespace, pod } => own_image(&self.client, &namespace, &pod).await,
            };
            tracing::info!(image, "pods that ask for a router get it");
            let reviewer = Arc::new(Reviewer::new(self.kube, image, self.synced, self.on_verdict));
            if let Err(error) = server::serve(listener, shown, reviewer, stop).await {
                tracing::error!(%error, "the webhook does not serve");
            }
        });
        tokio::spawn(keeper.run())
    }
}

/// The names by which the API server calls: those given, or that of the Service.
pub fn names(hosts: &[String], namespace: &str) -> BTreeSet<String> {
    match hosts {
        [] => BTreeSet::from([format!("{SERVICE}.{namespace}.svc")]),
        some => some.iter().cloned().collect(),
    }
}
