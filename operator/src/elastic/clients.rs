//! Connection pools and users: one pool for all clusters without TLS, and one for each set of authorities that are
//! trusted (a pool holds trust roots and buffers, and there are many clusters). A new set makes a new pool. No effects
//! of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use elasticsearch::Elasticsearch;
use elasticsearch::cert::{Certificate, CertificateValidation};
use elasticsearch::http::Url;
use elasticsearch::http::headers::{AUTHORIZATION, HeaderMap, HeaderValue};
use elasticsearch::http::transport::{BuildError, SingleNodeConnectionPool, TransportBuilder};
use searchcell_core::names::ClusterKey;
use zeroize::Zeroizing;

use crate::ports::SearchError;
use crate::security::access::{Access, Accesses};
use crate::security::parse::fingerprint;
use crate::security::sealed::Credential;

/// Pools that are kept for cells whose authorities changed a moment ago.
const MOST_POOLS: usize = 256;

/// All pools, and who the operator was on each cluster.
pub struct Clients {
    accesses: Arc<dyn Accesses>,
    /// What leads to secured clusters, where they cannot be reached directly.
    proxy: Option<Url>,
    plain: Elasticsearch,
    /// By fingerprint of the authorities.
    secured: Mutex<BTreeMap<String, Elasticsearch>>,
    /// The user that a cluster knew last. While a password rotates, nodes learn of the new one one after another.
    worked: Mutex<BTreeMap<ClusterKey, Credential>>,
}

/// How one request goes.
pub struct Way {
    /// Connection pool.
    pub client: Elasticsearch,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Users to try, in order.
    pub users: Vec<Credential>,
}

impl Clients {
    /// No secured pool yet.
    pub fn new(accesses: Arc<dyn Accesses>) -> Result<Self, BuildError> {
        let plain = pool(None, None)?;
        Ok(Self { accesses, proxy: None, plain, secured: Mutex::default(), worked: Mutex::default() })
    }

    /// Secured clusters are reached through a proxy that tunnels (CONNECT): names and authorities are verified as ever.
    pub fn through(mut self, proxy: Url) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// How a request to a cluster goes now.
    pub fn way(&self, cluster: &ClusterKey) -> Result<Way, SearchError> {
        match self.accesses.access(cluster) {
            Access::Plain => Ok(Way { client: self.plain.clone(), scheme: "http", users: Vec::new() }),
            Access::NotYet(why) => {
                // Whoever comes back under this name has passwords of its own.
                self.worked.lock().unwrap_or_else(PoisonError::into_inner).remove(cluster);
                Err(SearchError::Unreachable(why.to_owned()))
            }
            Access::Secured { trust, credential } => {
                let client = self.secured(&trust)?;
                let last = self.worked.lock().unwrap_or_else(PoisonError::into_inner).get(cluster).cloned();
                let mut users: Vec<Credential> = credential.into_iter().collect();
                users.extend(last.filter(|last| users.first() != Some(last)));
                if users.is_empty() {
                    return Err(SearchError::Unreachable("the operator has no user yet".to_owned()));
                }
                Ok(Way { client, scheme: "https", users })
            }
        }
    }

    /// A cluster knows this user.
    pub fn worked(&self, cluster: &ClusterKey, user: &Credential) {
        let mut worked = self.worked.lock().unwrap_or_else(PoisonError::into_inner);
        if worked.get(cluster) != Some(user) {
            worked.insert(cluster.clone(), user.clone());
        }
    }

    fn secured(&self, trust: &str) -> Result<Elasticsearch, SearchError> {
        let key = fingerprint(trust.as_bytes());
        let mut pools = self.secured.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = pools.get(&key) {
            return Ok(client.clone());
        }
        let client = pool(Some(trust), self.proxy.as_ref())
            .map_err(|_| SearchError::Unreachable("its authorities cannot be read".to_owned()))?;
        if pools.len() >= MOST_POOLS {
            // Those in use come back by themselves.
            pools.clear();
        }
        pools.insert(key, client.clone());
        Ok(client)
    }
}

fn pool(trust: Option<&str>, proxy: Option<&Url>) -> Result<Elasticsearch, BuildError> {
    // Never used: every request has an absolute URL.
    let nowhere =
        Url::parse("http://nowhere.invalid/").map_err(|_| BuildError::Config("no URL".to_owned()))?;
    let builder = TransportBuilder::new(SingleNodeConnectionPool::new(nowhere)).enable_meta_header(false);
    let mut builder = match proxy {
        Some(proxy) => builder.proxy(proxy.clone(), None, None),
        None => builder.disable_proxy(),
    };
    if let Some(trust) = trust {
        let authorities = Certificate::from_pem(trust.as_bytes())
            .map_err(|_| BuildError::Config("no certificates".to_owned()))?;
        // Chain and names are verified.
        builder = builder.cert_validation(CertificateValidation::Full(authorities));
    }
    Ok(Elasticsearch::new(builder.build()?))
}

/// The header that says who asks; libraries that print headers are told not to print it.
pub fn authorization(user: &Credential) -> Result<HeaderMap, SearchError> {
    let pair = Zeroizing::new(format!("{}:{}", user.username, user.password.reveal()));
    let text = Zeroizing::new(format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(pair.as_bytes())
    ));
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| SearchError::Refused("the operator's credential is not text".to_owned()))?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}
