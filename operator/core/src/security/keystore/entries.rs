//! Names of secure settings: which ones nobody may give, and which ones a running node can load. Pure.

use crate::domain::EsVersion;
use crate::reserved;

/// Secure settings that Elasticsearch loads again on `POST _nodes/reload_secure_settings`; a star is one part of a name.
///
/// These are the ones that its reference marks "Secure, reloadable": clients of the snapshot repositories s3, gcs and
/// azure, notifications of Watcher, exporters of monitoring, credentials of remote clusters. Whole names on purpose:
/// Elasticsearch does not start with one that it does not know, so a slip of the pen must not reach a running cluster.
const RELOADABLE: [&str; 15] = [
    "s3.client.*.access_key",
    "s3.client.*.secret_key",
    "s3.client.*.session_token",
    "gcs.client.*.credentials_file",
    "azure.client.*.account",
    "azure.client.*.key",
    "azure.client.*.sas_token",
    "xpack.notification.email.account.*.smtp.secure_password",
    "xpack.notification.jira.account.*.secure_url",
    "xpack.notification.jira.account.*.secure_user",
    "xpack.notification.jira.account.*.secure_password",
    "xpack.notification.pagerduty.account.*.secure_service_api_key",
    "xpack.notification.slack.account.*.secure_url",
    "xpack.monitoring.exporters.*.auth.secure_password",
    REMOTE,
];
/// Of clusters that documents are searched in or followed from. Loaded by a running node since 8.14.
const REMOTE: &str = "cluster.remote.*.credentials";

/// Beginnings of names that are Elasticsearch's own affair, or the operator's.
const RESERVED: [&str; 4] = ["keystore", "bootstrap", "autoconfiguration", "elasticsearch"];
/// Longest name.
const MOST_LETTERS: usize = 253;

/// True when a node of this version loads the entry without a restart.
pub fn is_reloadable(name: &str, version: EsVersion) -> bool {
    let is_known = |pattern: &&str| {
        let (mut pattern, mut parts) = (pattern.split('.'), name.split('.'));
        loop {
            match (pattern.next(), parts.next()) {
                (None, None) => return true,
                (Some("*"), Some(part)) if !part.is_empty() => {}
                (Some(wanted), Some(part)) if wanted == part => {}
                _ => return false,
            }
        }
    };
    RELOADABLE
        .iter()
        .find(|pattern| is_known(pattern))
        .is_some_and(|pattern| *pattern != REMOTE || (version.major, version.minor) >= (8, 14))
}

/// Why a key of a Secret cannot be an entry, and what to do; absent: it can.
pub fn refusal(name: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let is_name = name.len() <= MOST_LETTERS
        && name.contains('.')
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.split('.').all(|part| !part.is_empty() && part.bytes().all(plain));
    if !is_name {
        return Some(
            "is not the name of a secure setting: name it like s3.client.default.access_key, or keep it in another Secret"
                .to_owned(),
        );
    }
    let first = name.split('.').next().unwrap_or_default();
    let why = if RESERVED.contains(&first) {
        Some("every keystore has its own")
    } else {
        reserved::cluster_setting(name)
    };
    why.map(|why| format!("belongs to the operator: remove it ({why})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_elasticsearch_loads_again_is_known_by_its_whole_name() {
        let v = |text: &str| text.parse::<EsVersion>().unwrap();
        for name in ["s3.client.default.access_key", "azure.client.b-1.key", "gcs.client.x.credentials_file"]
        {
            assert!(is_reloadable(name, v("7.17.29")), "{name}");
        }
        for name in [
            "s3.client.default.acces_key",
            "s3.client.access_key",
            "s3.client..access_key",
            "s3.client.a.b.access_key",
            "s3.client.default.access_key.x",
            "xpack.watcher.encryption_key",
            "xpack.http.ssl.keystore.secure_password",
        ] {
            assert!(!is_reloadable(name, v("9.5.3")), "{name}");
        }
        let remote = "cluster.remote.other.credentials";
        assert!(is_reloadable(remote, v("8.19.21")) && !is_reloadable(remote, v("8.13.4")));
    }

    #[test]
    fn nobody_gives_what_is_the_operators() {
        for name in [
            "keystore.seed",
            "bootstrap.password",
            "autoconfiguration.password_hash",
            "elasticsearch.keystore.v6",
            "xpack.security.transport.ssl.secure_key_passphrase",
            "xpack.security.authc.realms.ldap.l.secure_bind_password",
            "node.name",
            "discovery.seed_hosts",
        ] {
            assert!(refusal(name).unwrap().contains("belongs to the operator"), "{name}");
        }
        for name in
            ["README", "password", ".s3.x", "s3..x", "s3.x.", "S3.client", "a b.c", "s3/x.y", "", "-a.b"]
        {
            assert!(refusal(name).unwrap().contains("is not the name"), "{name}");
        }
        for name in
            ["s3.client.default.access_key", "xpack.watcher.encryption_key", "s3.client.My_1.secret_key"]
        {
            assert_eq!(refusal(name), None, "{name}");
        }
    }
}
