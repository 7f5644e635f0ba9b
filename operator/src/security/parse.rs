//! What may be known of a Secret: certificates, which public keys its private keys belong to, and fingerprints of
//! hashes. Pure, but for a memory of what was parsed before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use searchcell_core::names::LABEL_CELL;
use searchcell_core::security::facts::{CertificateFacts, CredentialFacts, SecretFacts, UsersFacts};
use searchcell_core::security::keystore::{EntryDigest, EntryFacts, Format, KeystoreFacts};
use searchcell_core::snapshot::label;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

use super::sealed::Sealed;

/// Keys of the Secret of a credential.
pub const USERNAME: &str = "username";
/// The password.
pub const PASSWORD: &str = "password";
/// Its hash, as the file realm takes it.
pub const HASH: &str = "hash";
/// What the hash was made of: a digest of user name and password.
pub const HASHED: &str = "hash-of";
/// Keys of the Secret of the file realm.
pub const USERS: &str = "users";
/// Which users have which role.
pub const USERS_ROLES: &str = "users_roles";
/// What the roles may do.
pub const ROLES: &str = "roles.yml";

/// Most certificates of one file that are read.
const MOST_CERTIFICATES: usize = 64;

/// SHA-256, as hexadecimal digits.
pub fn fingerprint(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Subject of a certificate, or an authority that a server lists, as text that can be compared.
pub fn subject(der: &[u8]) -> String {
    hex(der)
}

/// What a hash is known to be made of.
pub fn digest_of(username: &str, password: &str) -> String {
    fingerprint(format!("{username}\n{password}").as_bytes())
}

/// Reads a Secret.
pub fn facts(secret: &Sealed) -> SecretFacts {
    let mut facts = SecretFacts { metadata: secret.0.metadata.clone(), ..SecretFacts::default() };
    facts.keystore = keystore(secret);
    if facts.keystore.is_some() {
        // Whatever its entries are called.
        return facts;
    }
    for (key, bytes) in secret.0.data.iter().flatten() {
        if key.ends_with(".crt") {
            match certificates(&bytes.0) {
                Some(found) => {
                    facts.certificates.insert(key.clone(), Arc::new(found));
                }
                None => {
                    facts.unreadable.insert(key.clone());
                }
            }
        } else if key.ends_with(".key") {
            match public_key_of(&bytes.0) {
                Some(public_key) => {
                    facts.keys.insert(key.clone(), public_key);
                }
                None => {
                    facts.unreadable.insert(key.clone());
                }
            }
        }
    }
    facts.credential = credential(secret, "");
    let roles = secret.0.data.iter().flat_map(|data| data.keys());
    let roles = roles.filter_map(|key| key.strip_suffix(&standby_key("", USERNAME)));
    facts.standby = roles
        .filter_map(|role| {
            let found = credential(secret, role)?;
            // One that is not of its own password could not be used.
            found.hash.is_some().then(|| (role.to_owned(), found))
        })
        .collect();
    facts.users = users(secret);
    facts
}

/// Certificates in PEM, in their order. Absent: there are none, or one of them cannot be read.
pub fn certificates(pem: &[u8]) -> Option<Vec<CertificateFacts>> {
    let mut found = Vec::new();
    for block in Pem::iter_from_buffer(pem).take(MOST_CERTIFICATES) {
        let block = block.ok()?;
        if block.label == "CERTIFICATE" {
            found.push(certificate(&block.contents)?);
        }
    }
    (!found.is_empty()).then_some(found)
}

/// Reads a certificate in DER.
pub fn certificate(der: &[u8]) -> Option<CertificateFacts> {
    let (rest, parsed) = X509Certificate::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let (mut key_id, mut signer, mut names) = (None, None, BTreeSet::new());
    for extension in parsed.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => key_id = Some(hex(id.0)),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                signer = id.key_identifier.as_ref().map(|id| hex(id.0));
            }
            ParsedExtension::SubjectAlternativeName(alternative) => {
                names.extend(alternative.general_names.iter().filter_map(name));
            }
            _ => {}
        }
    }
    let validity = parsed.validity();
    Some(CertificateFacts {
        fingerprint: fingerprint(der),
        public_key: fingerprint(&parsed.public_key().subject_public_key.data),
        key_id,
        signer,
        subject: subject(parsed.subject().as_raw()),
        names,
        is_authority: parsed.is_ca(),
        not_before: Timestamp::from_second(validity.not_before.timestamp()).ok()?,
        not_after: Timestamp::from_second(validity.not_after.timestamp()).ok()?,
        pem: encode("CERTIFICATE", der),
    })
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|octets| std::net::Ipv6Addr::from(octets).to_string()),
        },
        _ => None,
    }
}

/// PEM with one spelling, whatever it was read from.
fn encode(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

/// Fingerprint of the public key of a private key in PEM.
fn public_key_of(pem: &[u8]) -> Option<String> {
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    let key = PrivateKeyDer::from_pem_slice(pem).ok()?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).ok()?;
    let spki = key.public_key()?;
    let (_, parsed) = x509_parser::x509::SubjectPublicKeyInfo::from_der(spki.as_ref()).ok()?;
    Some(fingerprint(&parsed.subject_public_key.data))
}

/// Key of a Secret of those who stand by.
pub fn standby_key(role: &str, key: &str) -> String {
    format!("{role}.{key}")
}

/// `role`: whose, in a Secret of those who stand by; else empty.
fn credential(secret: &Sealed, role: &str) -> Option<CredentialFacts> {
    let key = |key: &str| if role.is_empty() { key.to_owned() } else { standby_key(role, key) };
    let (username, password) = (secret.text(&key(USERNAME))?, secret.text(&key(PASSWORD))?);
    let digest = digest_of(username, password);
    let is_of_this = secret.text(&key(HASHED)) == Some(digest.as_str());
    let hash = secret.bytes(&key(HASH)).filter(|_| is_of_this).map(fingerprint);
    Some(CredentialFacts { username: username.to_owned(), hash })
}

/// Lines of the file `users`: name and hash.
pub fn user_lines(file: &str) -> impl Iterator<Item = (&str, &str)> {
    file.lines().filter_map(|line| line.split_once(':'))
}

fn users(secret: &Sealed) -> Option<UsersFacts> {
    let text = |key: &str| secret.text(key).map(str::to_owned);
    let lines = secret.text(USERS)?;
    Some(UsersFacts {
        users: user_lines(lines)
            .map(|(name, hash)| (name.to_owned(), fingerprint(hash.as_bytes())))
            .collect(),
        users_roles: text(USERS_ROLES)?,
        roles: text(ROLES)?,
    })
}

/// The keystore of nodes, when it is one.
fn keystore(secret: &Sealed) -> Option<KeystoreFacts> {
    let file = |format: &Format| Some((*format, fingerprint(secret.bytes(format.key())?)));
    let files: BTreeMap<Format, String> = Format::ALL.iter().filter_map(file).collect();
    if files.is_empty() {
        return None;
    }
    let mut entries = secure_settings(secret);
    for format in Format::ALL {
        entries.remove(format.key());
    }
    Some(KeystoreFacts { entries, files })
}

/// What may be known of entries of a keystore: all of a Secret is some.
pub fn secure_settings(secret: &Sealed) -> BTreeMap<String, EntryFacts> {
    let data = secret.0.data.iter().flatten();
    data.map(|(name, value)| (name.clone(), entry(&value.0))).collect()
}

/// What may be known of one.
pub fn entry(value: &[u8]) -> EntryFacts {
    EntryFacts { length: value.len(), digest: EntryDigest::new(fingerprint(value)) }
}

/// Facts of Secrets by namespace and name, parsed once for each version of one.
#[derive(Debug, Default)]
pub struct Parsed {
    known: Mutex<BTreeMap<(String, String), Arc<SecretFacts>>>,
}

impl Parsed {
    /// Facts of the Secrets of a cell. Those that are gone are forgotten.
    pub fn facts_of(&self, namespace: &str, cell: &str, secrets: &[Arc<Secret>]) -> Vec<SecretFacts> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let names: BTreeSet<&str> = secrets.iter().filter_map(|o| o.metadata.name.as_deref()).collect();
        known.retain(|(of, name), facts| {
            of != namespace
                || label(&facts.metadata, LABEL_CELL) != Some(cell)
                || names.contains(name.as_str())
        });
        let version = |metadata: &ObjectMeta| (metadata.uid.clone(), metadata.resource_version.clone());
        let facts = secrets.iter().map(|secret| {
            let key = (namespace.to_owned(), secret.metadata.name.clone().unwrap_or_default());
            match known.get(&key) {
                Some(facts) if version(&facts.metadata) == version(&secret.metadata) => {
                    SecretFacts::clone(facts)
                }
                _ => {
                    let new = Arc::new(self::facts(&Sealed(Secret::clone(secret))));
                    known.insert(key, Arc::clone(&new));
                    SecretFacts::clone(&new)
                }
            }
        });
        facts.collect()
    }
}
