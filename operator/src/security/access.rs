//! How to talk to a cluster: plainly, or with TLS as a user. No effects.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use searchcell_core::names::{ClusterKey, LABEL_CLUSTER};
use searchcell_core::security::HTTP_TRUST;
use searchcell_core::security::users::User;
use searchcell_core::snapshot::{is_owned_by, label};
use searchcell_crds::{SearchCell, SecurityMode};

use super::parse::{PASSWORD, USERNAME};
use super::sealed::{Credential, Hidden};

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

/// How to talk to a cluster, from its cell and the Secrets of that.
pub fn access_to(cluster: &ClusterKey, cell: Option<&SearchCell>, secrets: &[Arc<Secret>]) -> Access {
    let Some(cell) = cell else { return Access::NotYet("its cell is gone") };
    if cell.spec.security_mode() == SecurityMode::Disabled {
        return Access::Plain;
    }
    let uid = cell.metadata.uid.as_deref().unwrap_or_default();
    let ours = || secrets.iter().filter(|secret| is_owned_by(&secret.metadata, uid));
    // What the nodes of this cluster have: each Secret of certificates has the whole bundle. While it changes, any of
    // them may be ahead.
    let mut trust = String::new();
    for secret in ours().filter(|secret| label(&secret.metadata, LABEL_CLUSTER) == Some(&cluster.cluster)) {
        if let Some(pem) = text(secret, HTTP_TRUST).filter(|pem| !trust.contains(*pem)) {
            trust.push_str(pem);
        }
    }
    if trust.is_empty() {
        return Access::NotYet("its nodes have no certificates yet");
    }
    let name = User::Operator.secret(&cluster.cell);
    let own = ours().find(|secret| secret.metadata.name.as_ref() == Some(&name));
    let credential = own.and_then(|secret| {
        let password = Hidden::new(text(secret, PASSWORD)?.to_owned());
        Some(Credential { username: text(secret, USERNAME)?.to_owned(), password })
    });
    Access::Secured { trust, credential }
}

fn text<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    std::str::from_utf8(&secret.data.as_ref()?.get(key)?.0).ok()
}

/// Plain HTTP to everybody.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllPlain;

impl Accesses for AllPlain {
    fn access(&self, _cluster: &ClusterKey) -> Access {
        Access::Plain
    }
}
