//! Credentials and trust for clusters, from mounted files, read again when they change. Effects: reads files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::Instant;

use crate::sealed::Hidden;

/// How old what is known of files may be. The kubelet needs longer to bring new ones.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// How to be let in by a cluster.
#[derive(Clone)]
pub struct Access {
    /// Value of the header `Authorization`; absent: none is sent.
    pub authorization: Option<Hidden>,
    /// For `https`; absent: there is no `ca.crt`, so nobody is trusted.
    pub trust: Option<Trust>,
    /// Changes whenever one of the files does: connections made with other files are not used any more.
    pub edition: u64,
}

/// Whom to trust.
#[derive(Clone)]
pub struct Trust {
    /// For connections.
    pub config: Arc<ClientConfig>,
    /// Where the authorities were read, for whoever has to put it right.
    pub file: Arc<Path>,
}

/// Why files cannot be used. Never says what is in them.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {error}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// There is no certificate in it.
    #[error("{0} has no certificate that can be used")]
    Authority(PathBuf),
}

/// Access to all clusters.
pub struct Accesses {
    directory: Option<PathBuf>,
    known: Mutex<HashMap<(String, String), (Instant, Access)>>,
}

impl Accesses {
    /// From a directory with one directory per cluster or per cell.
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, known: Mutex::default() }
    }

    /// Access to a cluster. When its files cannot be read now, as they were read last: while they are replaced, some
    /// may be missing.
    pub fn of(&self, cluster: &str, cell: &str) -> Result<Access, AccessError> {
        let key = (cluster.to_owned(), cell.to_owned());
        let now = Instant::now();
        let before = self.known.lock().ok().and_then(|known| known.get(&key).cloned());
        if let Some((read, access)) = &before
            && now.duration_since(*read) < FRESH_FOR
        {
            return Ok(access.clone());
        }
        let access = match (self.read(cluster, cell, before.as_ref().map(|(_, access)| access)), before) {
            (Ok(access), _) => access,
            (Err(error), Some((_, access))) => {
                tracing::warn!(cluster, %error, "the credential stays as it is");
                access
            }
            (Err(error), None) => return Err(error),
        };
        if let Ok(mut known) = self.known.lock() {
            known.insert(key, (now, access.clone()));
        }
        Ok(access)
    }

    fn read(&self, cluster: &str, cell: &str, before: Option<&Access>) -> Result<Access, AccessError> {
        let Some(root) = &self.directory else {
            return Ok(Access { authorization: None, trust: None, edition: 0 });
        };
        let own = root.join(cluster);
        let directory = if own.is_dir() { own } else { root.join(cell) };
        let username = optional(&directory.join("username"))?;
        let password = optional(&directory.join("password"))?;
        let key = optional(&directory.join("api-key"))?;
        let authorization = match (key, username, password) {
            (Some(key), _, _) => Some(format!("ApiKey {}", key.reveal().trim_end())),
            (None, Some(username), Some(password)) => {
                let pair = format!("{}:{}", username.reveal().trim_end(), password.reveal().trim_end());
                Some(format!("Basic {}", STANDARD.encode(Hidden::new(pair).reveal())))
            }
            _ => None,
        }
        .map(Hidden::new);
        let path = directory.join("ca.crt");
        let authorities = optional(&path)?;
        let text = |hidden: &Option<Hidden>| {
            hidden.as_ref().map(|hidden| hidden.reveal().to_owned()).unwrap_or_default()
        };
        let seen = Hidden::new(format!("{}\n{}", text(&authorization), text(&authorities)));
        let edition = xxhash_rust::xxh3::xxh3_64(seen.reveal().as_bytes());
        if let Some(before) = before.filter(|before| before.edition == edition) {
            return Ok(before.clone());
        }
        let trust = authorities.map(|pem| trust(pem.reveal(), &path)).transpose()?;
        Ok(Access { authorization, trust, edition })
    }
}

fn optional(path: &Path) -> Result<Option<Hidden>, AccessError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(Hidden::new(text))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(AccessError::Read { path: path.to_owned(), error: error.kind().to_string() }),
    }
}

fn trust(pem: &str, path: &Path) -> Result<Trust, AccessError> {
    let unusable = || AccessError::Authority(path.to_owned());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|_| unusable())?).map_err(|_| unusable())?;
    }
    if roots.is_empty() {
        return Err(unusable());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| unusable())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Trust { config: Arc::new(config), file: Arc::from(path) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn files_are_read_again_and_never_shown() {
        let root = std::env::temp_dir().join(format!("searchcell-router-access-{}", std::process::id()));
        let directory = root.join("guilds");
        std::fs::create_dir_all(&directory).unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
        write("username", "u\n");
        write("password", "hunter2\n");
        let accesses = Accesses::new(Some(root.clone()));
        let header = || {
            let access = accesses.of("guilds-a", "guilds").unwrap();
            (access.authorization.unwrap().reveal().to_owned(), access.edition)
        };
        let (first, edition) = header();
        assert_eq!(first, "Basic dTpodW50ZXIy");
        write("password", "new");
        assert_eq!(header().1, edition, "not at every request");
        tokio::time::sleep(FRESH_FOR).await;
        assert_ne!(header().1, edition);
        write("ca.crt", "-----BEGIN nothing");
        tokio::time::sleep(FRESH_FOR).await;
        assert_eq!(header().0, "Basic dTpuZXc=", "what cannot be used changes nothing");
        let error = Accesses::new(Some(root.clone())).of("guilds-a", "guilds").map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("ca.crt") && !error.to_string().contains("hunter"));
        write("api-key", "abc==");
        std::fs::remove_file(directory.join("ca.crt")).unwrap();
        tokio::time::sleep(FRESH_FOR).await;
        assert_eq!(header().0, "ApiKey abc==");
        std::fs::remove_dir_all(root).unwrap();
    }
}
