//! The certificate that the API server sees when it calls the webhook, and the authority that the webhook's
//! configuration trusts: what to do next about the one Secret that holds both. Pure.
//!
//! Keys of the Secret: those of an authority (`security::authority`), and `tls.crt` and `tls.key`. An authority is
//! rotated as those of cells are: the next one is trusted before it issues, the former one until nothing of it is shown.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::security::authority::{Authority, Decision, Evidence, decide};
use crate::security::order::AuthorityChange;
use crate::security::{Layer, SecretFacts};

/// File name, without its ending, of the certificate.
pub const CERTIFICATE: &str = "tls";

/// What the API server trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// There is no configuration of the webhook: nobody calls it.
    Nowhere,
    /// These authorities, PEM; empty: nobody.
    Bundle(String),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The authority is made, or its rotation goes on; why.
    Authority(AuthorityChange, &'static str),
    /// A certificate is signed.
    Issue,
    /// The API server is to trust these authorities, PEM.
    Publish(String),
    /// Nothing, until then.
    Rest(Timestamp),
}

/// Decides. `secret`: absent while there is none; `names`: those by which the API server calls.
pub fn next(
    secret: Option<&SecretFacts>,
    trusted: &Trusted,
    names: &BTreeSet<String>,
    now: Timestamp,
) -> Next {
    let authority = secret.map(Authority::of);
    let bundle = authority.as_ref().map(Authority::bundle).unwrap_or_default();
    let issuer = authority.as_ref().and_then(|authority| authority.issuer.as_ref());
    let shown = secret.and_then(|secret| secret.pair(CERTIFICATE));
    let good = shown.filter(|shown| {
        issuer.is_some_and(|issuer| shown.is_signed_by(issuer))
            && names.is_subset(&shown.names)
            && now < shown.renew_at()
    });
    let is_trusted = match trusted {
        Trusted::Nowhere => true,
        Trusted::Bundle(published) => *published == bundle,
    };
    let waiting = |is_so: bool| if is_so { Ok(()) } else { Err("the API server".to_owned()) };
    let decision = decide(
        authority.as_ref(),
        &Evidence {
            // Nobody mounts the bundle: the API server has it when it is written.
            layer: Layer::Transport,
            now,
            overlap: Duration::ZERO,
            trusted: waiting(is_trusted),
            served: waiting(good.is_some()),
            undisturbed: Ok(()),
            known: Vec::new(),
        },
    );
    match decision {
        Decision::Go(change, why) => Next::Authority(change, why),
        _ if !is_trusted => Next::Publish(bundle),
        _ if good.is_none() && issuer.is_some() => Next::Issue,
        Decision::Rest(at) => Next::Rest(good.map_or(at, |shown| shown.renew_at().min(at))),
        // Not reached while what it waits for is done above; looked at again soon rather than never.
        Decision::Wait(..) => Next::Rest(now),
    }
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
