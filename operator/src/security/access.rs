//! How to talk to a cluster: plainly, or with TLS as a user. No effects.

use searchcell_core::names::ClusterKey;

use super::sealed::Credential;

/// How to talk to one cluster.
#[derive(Clone, Debug)]
pub enum Access {
    /// Plain HTTP, as nobody.
    Plain,
    /// HTTPS.
    Secured {
        /// Authorities that its certificates may be of, as PEM.
        trust: String,
        /// The operator's user; absent while its Secret is made anew.
        credential: Option<Credential>,
    },
    /// Not yet; why, for a person.
    NotYet(&'static str),
}

/// Knows how to talk to clusters.
pub trait Accesses: Send + Sync {
    /// How to talk to this one now.
    fn access(&self, cluster: &ClusterKey) -> Access;
}

/// Plain HTTP to everybody.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllPlain;

impl Accesses for AllPlain {
    fn access(&self, _cluster: &ClusterKey) -> Access {
        Access::Plain
    }
}
