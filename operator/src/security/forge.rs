//! Makes keys, certificates, passwords and hashes. Effects: randomness.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use searchcell_core::security::keystore::Format;
use searchcell_core::security::leaf::Leaf;
use time::OffsetDateTime;

use super::keystore;
use super::sealed::Hidden;

/// Letters of passwords: nothing that a shell, a URL or YAML reads otherwise.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// 192 bits.
const PASSWORD_LETTERS: usize = 32;

/// Why nothing was made. Says nothing of the material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForgeError {
    /// No randomness.
    #[error("the system gives no random numbers")]
    Randomness,
    /// A certificate was not made.
    #[error("a certificate for {0} cannot be made")]
    Certificate(String),
    /// The authority cannot be used.
    #[error("the key of authority {0} cannot be read")]
    Authority(String),
    /// A password was not hashed.
    #[error("a password cannot be hashed")]
    Hash,
    /// A keystore was not made.
    #[error("a keystore cannot be made")]
    Keystore,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// PEM.
    pub certificate: String,
    /// PKCS#8 PEM.
    pub key: Hidden,
}

/// Makes secrets.
#[derive(Debug)]
pub struct Forge {
    random: SystemRandom,
    /// Hashing takes so many doublings of time.
    cost: u32,
}

impl Default for Forge {
    fn default() -> Self {
        // What Elasticsearch's own tool takes.
        Self::with_cost(10)
    }
}

impl Forge {
    /// Hashes cost less: for simulations.
    pub fn with_cost(cost: u32) -> Self {
        Self { random: SystemRandom::new(), cost }
    }

    /// A self-signed authority. Its subject is like no other's, for that is how servers name whom they trust.
    pub fn authority(&self, subject: &str, lifetime: Duration, now: Timestamp) -> Result<Pair, ForgeError> {
        let problem = |_| ForgeError::Certificate(subject.to_owned());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(problem)?;
        let mut params = CertificateParams::default();
        let mut unique = [0; 4];
        self.random.fill(&mut unique).map_err(|_| ForgeError::Randomness)?;
        let unique: String = unique.iter().map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name.push(DnType::OrganizationName, "SearchCell");
        params.distinguished_name.push(DnType::CommonName, format!("{} {unique}", cut(subject, 54)));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        self.dates(&mut params, lifetime, now, None)?;
        let certificate = params.self_signed(&key).map_err(problem)?;
        Ok(Pair { certificate: certificate.pem(), key: Hidden::new(key.serialize_pem()) })
    }

    /// A certificate signed by an authority, which it does not outlive.
    pub fn leaf(
        &self,
        leaf: &Leaf,
        authority: &Signer,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Pair, ForgeError> {
        let problem = |_| ForgeError::Certificate(leaf.file.clone());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(problem)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "SearchCell");
        params.distinguished_name.push(DnType::CommonName, cut(&leaf.common_name, 63));
        params.subject_alt_names = alternative_names(&leaf.names).map_err(problem)?;
        params.is_ca = IsCa::NoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // On the transport layer, each node is a client of the others.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.dates(&mut params, lifetime, now, Some(authority.not_after))?;
        let certificate = params.signed_by(&key, &authority.issuer).map_err(problem)?;
        Ok(Pair { certificate: certificate.pem(), key: Hidden::new(key.serialize_pem()) })
    }

    /// A password.
    pub fn password(&self) -> Result<Hidden, ForgeError> {
        let mut bytes = zeroize::Zeroizing::new([0_u8; PASSWORD_LETTERS]);
        self.random.fill(bytes.as_mut()).map_err(|_| ForgeError::Randomness)?;
        // 64 letters: six bits each, none likelier than another.
        let letter = |byte: &u8| LETTERS.get(usize::from(byte & 63)).copied().map(char::from);
        Ok(Hidden::new(bytes.iter().filter_map(letter).collect()))
    }

    /// Hash of a password as the file realm takes it. Takes a good part of a tenth of a second, on purpose.
    pub async fn hash(&self, password: &Hidden) -> Result<Hidden, ForgeError> {
        let mut salt = [0; 16];
        self.random.fill(&mut salt).map_err(|_| ForgeError::Randomness)?;
        let (password, cost) = (password.clone(), self.cost);
        let work = move || bcrypt::hash_with_salt(password.reveal(), cost, salt);
        let hashed = if self.is_cheap() {
            work()
        } else {
            tokio::task::spawn_blocking(work).await.map_err(|_| ForgeError::Hash)?
        };
        let parts = hashed.map_err(|_| ForgeError::Hash)?;
        Ok(Hidden::new(parts.format_for_version(bcrypt::Version::TwoA)))
    }

    /// The files of a keystore, by key of their Secret. Takes a good part of a tenth of a second, too.
    pub async fn keystore(
        &self,
        entries: BTreeMap<String, ByteString>,
    ) -> Result<BTreeMap<String, ByteString>, ForgeError> {
        let random = self.random.clone();
        let cheap = self.is_cheap();
        let work = move || {
            let file = |format: Format| -> Result<(String, ByteString), ForgeError> {
                let file = keystore::render(format, &entries, &random, cheap)?;
                Ok((format.key().to_owned(), ByteString(file)))
            };
            Format::ALL.into_iter().map(file).collect()
        };
        if cheap {
            return work();
        }
        tokio::task::spawn_blocking(work).await.map_err(|_| ForgeError::Keystore)?
    }

    /// Cheap ones are for simulations, which have one thread.
    fn is_cheap(&self) -> bool {
        self.cost < 8
    }

    fn dates(
        &self,
        params: &mut CertificateParams,
        lifetime: Duration,
        now: Timestamp,
        latest: Option<Timestamp>,
    ) -> Result<(), ForgeError> {
        let dated = |at: Timestamp| OffsetDateTime::from_unix_timestamp(at.as_second());
        let problem = || ForgeError::Certificate("such a lifetime".to_owned());
        // Clocks of nodes are not quite the same. Of a short life, little is given away.
        let early = lifetime.min(Duration::from_secs(600)) / 10;
        let add = |by: Duration| {
            now.checked_add(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX))
                .map_err(|_| problem())
        };
        let until = add(lifetime)?;
        let until = latest.map_or(until, |latest| latest.min(until));
        let from =
            now.checked_sub(SignedDuration::try_from(early).unwrap_or_default()).map_err(|_| problem())?;
        params.not_before = dated(from).map_err(|_| problem())?;
        params.not_after = dated(until).map_err(|_| problem())?;
        let mut serial = [0; 16];
        self.random.fill(&mut serial).map_err(|_| ForgeError::Randomness)?;
        // Positive, and never shorter.
        serial[0] = (serial[0] & 0x3f) | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        Ok(())
    }
}

/// An authority that can sign.
pub struct Signer {
    issuer: Issuer<'static, KeyPair>,
    not_after: Timestamp,
}

impl Signer {
    /// Reads certificate and key.
    pub fn new(name: &str, certificate: &str, key: &str, not_after: Timestamp) -> Result<Self, ForgeError> {
        let problem = |_| ForgeError::Authority(name.to_owned());
        let key = KeyPair::from_pem(key).map_err(problem)?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(problem)?;
        Ok(Self { issuer, not_after })
    }
}

fn alternative_names(names: &BTreeSet<String>) -> Result<Vec<SanType>, rcgen::Error> {
    let name = |name: &String| match name.parse() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ok(SanType::DnsName(name.as_str().try_into()?)),
    };
    names.iter().map(name).collect()
}

/// Common names have at most 64 characters.
fn cut(text: &str, most: usize) -> &str {
    match text.char_indices().nth(most) {
        Some((end, _)) => text.get(..end).unwrap_or_default(),
        None => text,
    }
}
