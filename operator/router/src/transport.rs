//! What the flow needs of the world: one request to one cluster. Implemented by HTTP, and by simulations.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// One bulk of exactly one destination.
#[derive(Clone, Debug)]
pub struct Bulk {
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// Name of the index.
    pub index: Arc<str>,
    /// Lines as Elasticsearch takes them, without `_index`.
    pub body: Bytes,
    /// Operations in it.
    pub items: usize,
    /// How long its answer is waited for.
    pub timeout: Duration,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// An answer, whole as far as HTTP can tell.
    Answered {
        /// HTTP status.
        status: u16,
        /// Body.
        body: Bytes,
    },
    /// Proven: not one byte of the request reached Elasticsearch. Text for people.
    NotSent(String),
    /// Sent, perhaps in part, and there is no whole answer. Text for people.
    Lost(String),
}

/// Carries bulks to clusters.
pub trait Transport: Send + Sync + 'static {
    /// Sends a bulk. Ends by itself, at its timeout at the latest.
    fn bulk(&self, bulk: Bulk) -> impl Future<Output = Reply> + Send;
}
