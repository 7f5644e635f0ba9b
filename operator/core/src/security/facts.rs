//! What may be known of a Secret: nothing that is secret. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::keystore::KeystoreFacts;

/// The public side of a Secret.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SecretFacts {
    /// Name, UID, resource version, labels, annotations, owner.
    pub metadata: ObjectMeta,
    /// Certificates by key (`*.crt`), in their order. Shared: every pass copies the facts.
    pub certificates: BTreeMap<String, Arc<Vec<CertificateFacts>>>,
    /// Fingerprint of the public key that belongs to each private key, by key (`*.key`).
    pub keys: BTreeMap<String, String>,
    /// Keys that do not hold what their names promise.
    pub unreadable: BTreeSet<String>,
    /// A user name with a password.
    pub credential: Option<CredentialFacts>,
    /// Credentials that stand by, by whose turn is next.
    pub standby: BTreeMap<String, CredentialFacts>,
    /// The file realm.
    pub users: Option<UsersFacts>,
    /// The keystore of nodes.
    pub keystore: Option<KeystoreFacts>,
}

impl SecretFacts {
    /// Its name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The first certificate under a key, when the private key of the same name belongs to it.
    pub fn pair(&self, name: &str) -> Option<&CertificateFacts> {
        let certificate = self.certificates.get(&format!("{name}.crt"))?.first()?;
        let key = self.keys.get(&format!("{name}.key"))?;
        (*key == certificate.public_key).then_some(certificate)
    }

    /// All certificates under a key.
    pub fn certificates(&self, key: &str) -> &[CertificateFacts] {
        self.certificates.get(key).map(|found| found.as_slice()).unwrap_or_default()
    }
}

/// The public side of a certificate, which is all of it.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateFacts {
    /// SHA-256 of the certificate.
    pub fingerprint: String,
    /// SHA-256 of its public key.
    pub public_key: String,
    /// Identifier of its key, by which certificates that it signed name it.
    pub key_id: Option<String>,
    /// Identifier of the key that signed it.
    pub signer: Option<String>,
    /// Subject, as servers list those whom they trust: upper-case hex of its DER.
    pub subject: String,
    /// DNS names and addresses that it is for.
    pub names: BTreeSet<String>,
    /// May sign others.
    pub is_authority: bool,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
    /// PEM.
    pub pem: String,
}

impl CertificateFacts {
    /// When it is to be renewed: well before two thirds of its life.
    pub fn renew_at(&self) -> Timestamp {
        let (from, until) = (self.not_before.as_second(), self.not_after.as_second());
        let life = until.saturating_sub(from).max(0);
        // Six tenths: what is left until two thirds is for carrying it out.
        let at = from.saturating_add(life / 10 * 6 + life % 10 * 6 / 10);
        Timestamp::from_second(at).unwrap_or(self.not_after)
    }

    /// True when it was signed by an authority, as far as the identifiers of their keys tell.
    pub fn is_signed_by(&self, authority: &CertificateFacts) -> bool {
        self.signer.is_some() && self.signer == authority.key_id
    }
}

/// The public side of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFacts {
    /// User name.
    pub username: String,
    /// Fingerprint of the hash of the password, when there is one and it is of the password that is there now.
    pub hash: Option<String>,
}

/// The public side of the file realm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsersFacts {
    /// User names with the fingerprints of their hashes, in the order of the file.
    pub users: Vec<(String, String)>,
    /// `users_roles`, as it is.
    pub users_roles: String,
    /// `roles.yml`, as it is.
    pub roles: String,
}

/// What a node shows to whoever connects to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Fingerprint of the certificate on port 9200.
    pub http: Option<String>,
    /// Fingerprint of the certificate on port 9300.
    pub transport: Option<String>,
    /// Subjects of the authorities whose certificates it asks for on port 9300.
    pub trusted: BTreeSet<String>,
}

/// A Secret that a user supplied for a layer, in the shape `tls.crt`, `tls.key`, `ca.crt`.
#[derive(Clone, Debug, PartialEq)]
pub enum Supplied {
    /// It was read. What is wrong with it, if anything, is for the plan to say.
    Read {
        /// Its facts.
        facts: Box<SecretFacts>,
        /// Why the certificate cannot be traced to `ca.crt`; absent: it can.
        untrusted: Option<String>,
    },
    /// There is no such Secret.
    Missing,
    /// It could not be read now.
    Unavailable(String),
}
