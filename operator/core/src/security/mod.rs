//! Certificates, users and their rotation: everything that `spec.security.mode: Managed` means. Pure.
//!
//! Secrets come in as facts that are public (`facts`): fingerprints, names, lifetimes, who signed what. Nothing here
//! ever sees a private key, a password or a hash; what has to be made anew is asked for in orders (`order`), which an
//! effect carries out. `authority` is the life of a certificate authority, `leaf` says which certificate each node
//! needs, `users` who there is, `roles` what they may do, and `gate` keeps rotations and disruptions apart. `keystore` is
//! for cells without security, too.

pub mod authority;
pub mod facts;
pub mod gate;
pub mod keystore;
pub mod leaf;
pub mod order;
pub mod roles;
pub mod users;

use std::time::Duration;

use jiff::Timestamp;

pub use authority::{Authority, Stage};
pub use facts::{CertificateFacts, CredentialFacts, SecretFacts, Served, Supplied, UsersFacts};
pub use gate::{disruption_may_start, rotation_in_flight};

use crate::names::{ClusterKey, Role, http_authority};
use leaf::certificates_secret;
use users::{User, standby_secret, users_secret};

/// Directory of the certificates, below Elasticsearch's configuration directory.
pub const CERTIFICATES_DIRECTORY: &str = "certificates";
/// Directory of the file realm, below Elasticsearch's configuration directory.
pub const REALM_DIRECTORY: &str = "realm";
/// Key of a Secret of certificates: whom to trust on HTTP.
pub const HTTP_TRUST: &str = "http-ca.crt";
/// Key of a Secret of certificates: whom to trust on the transport layer.
pub const TRANSPORT_TRUST: &str = "transport-ca.crt";

/// Annotation of the Secret of an authority: any new value asks for a new authority.
pub const ANNOTATION_ROTATE: &str = "searchcell.dev/rotate";
/// Annotation of the Secret of an authority: the value of the other one that has been answered.
pub const ANNOTATION_ROTATED: &str = "searchcell.dev/rotated";
/// Annotation of the Secret of an authority: when the present stage of a rotation began. Of the file realm: when it
/// changed last.
pub const ANNOTATION_STAGE_SINCE: &str = "searchcell.dev/stage-since";

/// Whether a Secret of the cell's namespace is for its nodes or its operator alone: authorities, certificates, users,
/// keystores, and what the operator logs in with. Those of routers, exporters and administrators are for whoever needs them.
pub fn is_operators_alone(cell: &str, secret: &str) -> bool {
    let Some(rest) = secret.strip_prefix(cell).and_then(|rest| rest.strip_prefix('-')) else { return false };
    let of_cell =
        [http_authority(cell), users_secret(cell), standby_secret(cell), User::Operator.secret(cell)];
    // Of a cluster that may not be there any more, or not yet: their names have no dashes.
    let of_cluster = rest.split_once('-').is_some_and(|(cluster, rest)| {
        let key = ClusterKey::new("", "", cluster);
        let rest = format!("-{cluster}-{rest}");
        let of_zones = |role| {
            let certificates = certificates_secret("");
            (rest.strip_prefix(&key.stateful_set(role, "")))
                .is_some_and(|zone| zone.len() > certificates.len() && zone.ends_with(&certificates))
        };
        rest == key.transport_authority()
            || rest == certificates_secret(&key.ingest())
            || [Role::Master, Role::Data].into_iter().any(of_zones)
    });
    of_cell.iter().any(|own| own == secret) || of_cluster || keystore::slot_of(cell, secret).is_some()
}

/// A time as annotations have it.
pub fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// How long certificates live, and how long an overlap lasts for clients that nobody can ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of a node's certificate.
    pub certificate: Duration,
    /// Of an authority.
    pub authority: Duration,
    /// How long clients have to load a new authority of the HTTP layer before any node presents its certificates.
    pub overlap: Duration,
    /// How long the former user of a router, an exporter or the administrator stays valid after its successor was made.
    pub credential_grace: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        Self {
            certificate: days(90),
            authority: days(3650),
            overlap: Duration::from_secs(600),
            credential_grace: Duration::from_secs(900),
        }
    }
}

/// The two layers that are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// Between clients and nodes: one authority per cell; names are verified.
    Http,
    /// Between nodes: one authority per cluster, the unit of failure; both sides show a certificate.
    Transport,
}

impl Layer {
    /// Both.
    pub const ALL: [Layer; 2] = [Layer::Http, Layer::Transport];

    /// In names of files and objects.
    pub fn as_str(self) -> &'static str {
        match self {
            Layer::Http => "http",
            Layer::Transport => "transport",
        }
    }

    /// Key of the trusted authorities in a Secret of certificates.
    pub fn trust_file(self) -> &'static str {
        match self {
            Layer::Http => HTTP_TRUST,
            Layer::Transport => TRANSPORT_TRUST,
        }
    }
}

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_nodes_and_operator_are_theirs_alone() {
        for name in [
            "guilds-http-ca",
            "guilds-users",
            "guilds-standby",
            "guilds-operator",
            "guilds-a-transport-ca",
            "guilds-former-transport-ca",
            "guilds-a-ingest-certificates",
            "guilds-a-master-a-certificates",
            "guilds-a-data-rack-7-certificates",
            "guilds-keystore-1",
        ] {
            assert!(is_operators_alone("guilds", name), "{name}");
        }
        for name in [
            "guilds-admin",
            "guilds-router",
            "guilds-exporter",
            "guilds",
            "guilds-certificates",
            "guilds-keystore",
            "guilds-http-certificates",
            "guilds-a-data-certificates",
            "guildsx-http-ca",
            "other-http-ca",
            "",
        ] {
            assert!(!is_operators_alone("guilds", name), "{name}");
        }
    }
}
