//! What is asked of the effect that makes keys, certificates, passwords and hashes. An order names the facts that it
//! was decided on; the effect looks at the live objects and refuses, with a conflict, when they are others. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Layer;
use super::keystore::Wanted;
use super::leaf::Leaf;
use crate::step::Target;

/// What is made anew.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// An authority, or the next stage of its rotation.
    Authority(AuthorityOrder),
    /// Certificates of the nodes of one workload.
    Certificates(CertificatesOrder),
    /// A user name with a password.
    Credential(CredentialOrder),
    /// The hash of a password that a person set.
    Hash {
        /// The Secret, exactly.
        target: Target,
        /// The user that it names, as observed.
        username: String,
    },
    /// Credentials that stand by.
    Standby(StandbyOrder),
    /// The file realm.
    Users(UsersOrder),
    /// The keystore of nodes.
    Keystore(KeystoreOrder),
}

impl Order {
    /// Name of the Secret that is written.
    pub fn name(&self) -> &str {
        match self {
            Order::Authority(order) => name_of(&order.metadata),
            Order::Certificates(order) => name_of(&order.metadata),
            Order::Credential(order) => name_of(&order.metadata),
            Order::Hash { target, .. } => &target.name,
            Order::Standby(order) => name_of(&order.metadata),
            Order::Users(order) => name_of(&order.metadata),
            Order::Keystore(order) => name_of(&order.metadata),
        }
    }

    /// Stable name for logs and metrics.
    pub fn step_name(&self) -> &'static str {
        match self {
            Order::Authority(_) => "RenewAuthority",
            Order::Certificates(_) => "IssueCertificates",
            Order::Credential(_) => "GenerateCredential",
            Order::Hash { .. } => "HashPassword",
            Order::Standby(_) => "RenewStandby",
            Order::Users(_) => "RenderUsers",
            Order::Keystore(_) => "RenderKeystore",
        }
    }
}

fn name_of(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// An authority, or the next stage of its rotation.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorityOrder {
    /// Of the Secret.
    pub metadata: ObjectMeta,
    /// The Secret that changes, exactly; absent: it is created.
    pub replaces: Option<Target>,
    /// What is done to it.
    pub change: AuthorityChange,
    /// Subject of a new authority; the effect adds something unique.
    pub subject: String,
    /// Labels of the nodes that the authority is for.
    pub selector: BTreeMap<String, String>,
    /// UIDs of the pods of these nodes, as observed. A change that rests on what nodes show is not made when there are
    /// others by now.
    pub pods: BTreeSet<String>,
}

/// What is done to an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityChange {
    /// It is made. With certificates (PEM) that nodes trust already, it begins as the next one.
    Found {
        /// Whom nodes and clients trust already; empty: nobody.
        trusted: String,
    },
    /// Another one is made, to be trusted beside it.
    Introduce {
        /// Value of the annotation that asked for it.
        asked: Option<String>,
    },
    /// The other one issues from now on; this one goes on being trusted.
    Switch,
    /// Only the one that issues is trusted.
    Finish,
}

/// Certificates of the nodes of one workload.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificatesOrder {
    /// Of the Secret.
    pub metadata: ObjectMeta,
    /// The Secret that changes, exactly; absent: it is created.
    pub replaces: Option<Target>,
    /// Made anew.
    pub issue: Vec<LeafOrder>,
    /// Keys of the Secret that stay as they are.
    pub keep: BTreeSet<String>,
    /// Whom nodes trust: PEM by key of the Secret.
    pub trust: BTreeMap<String, String>,
}

/// One certificate to be made, or taken from where a user supplied it.
#[derive(Clone, Debug, PartialEq)]
pub struct LeafOrder {
    /// Which.
    pub leaf: Leaf,
    /// From where.
    pub source: Source,
}

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Signed by the authority in a Secret.
    Authority {
        /// Name of the Secret.
        secret: String,
        /// Fingerprint of the authority.
        fingerprint: String,
    },
    /// Copied from a Secret of a user.
    Supplied {
        /// Name of the Secret.
        secret: String,
        /// Fingerprint of the certificate.
        fingerprint: String,
    },
}

/// A user name with a password.
#[derive(Clone, Debug, PartialEq)]
pub struct CredentialOrder {
    /// Of the Secret, which is created.
    pub metadata: ObjectMeta,
    /// The user that it names.
    pub username: String,
    /// The one that stands by for it; absent: there is none, and its password is made.
    pub standby: Option<Standby>,
}

/// A credential that stands by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standby {
    /// The Secret that has it.
    pub secret: String,
    /// Whose: the beginning of its keys there.
    pub role: String,
    /// Fingerprint of the hash, as observed.
    pub hash: String,
}

/// Credentials that stand by.
#[derive(Clone, Debug, PartialEq)]
pub struct StandbyOrder {
    /// Of the Secret.
    pub metadata: ObjectMeta,
    /// The Secret that changes, exactly; absent: it is created.
    pub replaces: Option<Target>,
    /// User names to make passwords for, by whose turn it will be.
    pub make: BTreeMap<String, String>,
    /// Whose stay as they are.
    pub keep: BTreeSet<String>,
}

/// The file realm.
#[derive(Clone, Debug, PartialEq)]
pub struct UsersOrder {
    /// Of the Secret.
    pub metadata: ObjectMeta,
    /// The Secret that changes, exactly; absent: it is created.
    pub replaces: Option<Target>,
    /// The users, in the order of the file.
    pub users: Vec<UserLine>,
    /// `users_roles`.
    pub users_roles: String,
    /// `roles.yml`.
    pub roles: String,
}

/// A user of the file realm, and where its hash is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserLine {
    /// User name.
    pub username: String,
    /// Secret that has the hash of the password; absent: it stays as the file has it.
    pub secret: Option<String>,
    /// In a Secret of those who stand by: whose.
    pub standby: Option<String>,
    /// Fingerprint of the hash, as observed.
    pub hash: String,
}

/// The keystore of nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct KeystoreOrder {
    /// Of the Secret.
    pub metadata: ObjectMeta,
    /// The Secret that changes, exactly; absent: it is created.
    pub replaces: Option<Target>,
    /// Entries that stay as the Secret has them.
    pub keep: BTreeSet<String>,
    /// Entries that are taken from Secrets of the user, as observed.
    pub take: BTreeMap<String, Wanted>,
    /// Nodes run with it: they are to be told.
    pub is_running: bool,
    /// UIDs of the cell's pods, as observed. What nobody has is not written over when there are others by now.
    pub pods: BTreeSet<String>,
}

/// A layer and where its certificates come from, in words for a person.
impl Source {
    /// Name of the Secret.
    pub fn secret(&self) -> &str {
        match self {
            Source::Authority { secret, .. } | Source::Supplied { secret, .. } => secret,
        }
    }
}

/// Which of the two pairs of files of a layer a key of a Secret is: `<node>.<layer>.crt` or `.key`.
pub fn layer_of(key: &str) -> Option<Layer> {
    let stem = key.strip_suffix(".crt").or_else(|| key.strip_suffix(".key"))?;
    Layer::ALL.into_iter().find(|layer| stem.ends_with(&format!(".{layer}")))
}
