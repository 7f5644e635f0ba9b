//! What the binary does besides running the operator.

pub mod plan;
pub mod status;
pub mod table;

/// Why a command does not get what it reads from the API server.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no cluster to ask.
    #[error("no configuration for Kubernetes: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// The API server says no.
    #[error("{what} of namespace {namespace}: {source}")]
    Kube {
        /// What was asked for.
        what: String,
        /// Its namespace.
        namespace: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

impl ReadError {
    fn new(what: &str, namespace: &str, source: kube::Error) -> Self {
        Self::Kube { what: what.to_owned(), namespace: namespace.to_owned(), source: Box::new(source) }
    }
}
