//! How to talk to each cluster, from the caches: what the nodes were told to show, and who the operator is. No effects.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use searchcell_core::names::{ClusterKey, LABEL_CLUSTER};
use searchcell_core::security::HTTP_TRUST;
use searchcell_core::security::users::User;
use searchcell_core::snapshot::label;
use searchcell_crds::SecurityMode;

use super::fanout::Caches;
use crate::security::access::{Access, Accesses};
use crate::security::parse::{PASSWORD, USERNAME};
use crate::security::sealed::{Credential, Hidden};

/// Reads the caches.
pub struct CachedAccess(pub Arc<Caches>);

impl Accesses for CachedAccess {
    fn access(&self, cluster: &ClusterKey) -> Access {
        let caches = &self.0;
        let Some(cell) = caches.cells.get(&cluster.namespace, "", &cluster.cell) else {
            return Access::NotYet("its cell is gone");
        };
        if cell.spec.security_mode() == SecurityMode::Disabled {
            return Access::Plain;
        }
        let uid = cell.metadata.uid.as_deref().unwrap_or_default();
        let secrets: Vec<Arc<Secret>> = (caches.secrets.shared(&cluster.namespace, &cluster.cell).into_iter())
            .filter(|secret| searchcell_core::snapshot::is_owned_by(&secret.metadata, uid))
            .collect();
        // What the nodes of this cluster have: each Secret of certificates has the whole bundle. While it changes, any
        // of them may be ahead.
        let mut trust = String::new();
        for secret in &secrets {
            let pem = (label(&secret.metadata, LABEL_CLUSTER) == Some(&cluster.cluster))
                .then(|| text(secret, HTTP_TRUST))
                .flatten();
            if let Some(pem) = pem.filter(|pem| !trust.contains(*pem)) {
                trust.push_str(pem);
            }
        }
        if trust.is_empty() {
            return Access::NotYet("its nodes have no certificates yet");
        }
        let name = User::Operator.secret(&cluster.cell);
        let own = secrets.iter().find(|secret| secret.metadata.name.as_ref() == Some(&name));
        let credential = own.and_then(|secret| {
            let password = Hidden::new(text(secret, PASSWORD)?.to_owned());
            Some(Credential { username: text(secret, USERNAME)?.to_owned(), password })
        });
        Access::Secured { trust, credential }
    }
}

fn text<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    std::str::from_utf8(&secret.data.as_ref()?.get(key)?.0).ok()
}
