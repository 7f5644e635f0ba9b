//! Whether a certificate that a user supplied can be traced to its authority. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use searchcell_core::security::Supplied;

use super::parse;
use super::sealed::Sealed;

/// Reads a supplied Secret.
pub fn read(secret: &Sealed, now: Timestamp) -> Supplied {
    let facts = parse::facts(secret);
    let untrusted = untrusted(secret, now);
    Supplied::Read { facts: Box::new(facts), untrusted }
}

/// Why `ca.crt` does not vouch for `tls.crt`, when both are there.
fn untrusted(secret: &Sealed, now: Timestamp) -> Option<String> {
    let (chain, authorities) = (secret.bytes("tls.crt")?, secret.bytes("ca.crt")?);
    let chain: Vec<CertificateDer<'_>> =
        CertificateDer::pem_slice_iter(chain).filter_map(Result::ok).collect();
    let (leaf, between) = chain.split_first()?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(authorities).filter_map(Result::ok));
    if roots.is_empty() {
        return Some("it has no certificate of an authority".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build() else {
        return Some("it cannot be used".to_owned());
    };
    // Names are checked by the plan, which knows those that matter: here they only have to be something.
    let name = ServerName::try_from("name.invalid").ok()?;
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(now.as_second()).ok()?));
    use rustls::CertificateError as Reason;
    match verifier.verify_server_cert(leaf, between, &name, &[], at) {
        Ok(_) => None,
        Err(rustls::Error::InvalidCertificate(reason)) => match reason {
            Reason::NotValidForName | Reason::NotValidForNameContext { .. } => None,
            // Said by the plan in better words.
            Reason::Expired | Reason::ExpiredContext { .. } => None,
            Reason::NotValidYet | Reason::NotValidYetContext { .. } => None,
            Reason::UnknownIssuer => Some("the issuer of tls.crt is not in it".to_owned()),
            Reason::BadSignature => Some("the signature of tls.crt is not its".to_owned()),
            _ => Some("tls.crt does not fit its use".to_owned()),
        },
        Err(_) => Some("tls.crt cannot be checked".to_owned()),
    }
}
