//! How the tests talk to a cluster: plainly, or with TLS, names checked, as a user of its cell. What they
//! trust and who they are is read again every few seconds, as a client does that mounts it: what fails while
//! certificates and passwords rotate is a failure, for nothing is tried again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::Api;
use kube::api::DynamicObject;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::Env;
use crate::objects::resource;

/// How long what was read is good for.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// The way to a cluster, as it was read last.
pub struct Access {
    target: Target,
    last: Mutex<Option<(Instant, Arc<Way>)>>,
}

enum Target {
    Address(String),
    Service { namespace: String, service: String, user: String },
}

/// How to talk to a cluster now.
pub struct Way {
    /// Scheme and host.
    pub base: String,
    /// Keeps no connection.
    pub client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Who asks.
    pub authorization: Option<HeaderValue>,
}

impl Access {
    /// To an address, plainly.
    pub fn address(base: &str) -> Self {
        Self { target: Target::Address(base.to_owned()), last: Mutex::default() }
    }

    /// To a Service; where its cell has security, as the user of the Secret `<cell>-<user>`.
    pub fn service(namespace: &str, service: &str, user: &str) -> Self {
        let [namespace, service, user] = [namespace, service, user].map(str::to_owned);
        Self { target: Target::Service { namespace, service, user }, last: Mutex::default() }
    }

    /// The way, as it is now.
    pub async fn way(&self) -> Result<Arc<Way>, String> {
        let mut last = self.last.lock().await;
        if let Some((at, way)) = last.as_ref()
            && (at.elapsed() < GOOD_FOR || matches!(self.target, Target::Address(_)))
        {
            return Ok(way.clone());
        }
        let found = match &self.target {
            Target::Address(base) => {
                Some(Way { base: base.clone(), client: client(None)?, authorization: None })
            }
            Target::Service { namespace, service, user } => to_service(namespace, service, user).await?,
        };
        let way = match (found, last.as_ref()) {
            (Some(way), _) => way,
            // Who has mounted a Secret that is gone keeps what it had.
            (None, Some((_, way))) => return Ok(way.clone()),
            (None, None) => return Err("there is no credential yet".to_owned()),
        };
        let way = Arc::new(way);
        *last = Some((Instant::now(), way.clone()));
        Ok(way)
    }
}

/// Absent: the Secret of the credential is gone for now.
async fn to_service(namespace: &str, service: &str, user: &str) -> Result<Option<Way>, String> {
    let host = format!("{service}.{namespace}.svc.cluster.local:9200");
    let Some((cell, kube)) = secured(namespace, service).await? else {
        return Ok(Some(Way { base: format!("http://{host}"), client: client(None)?, authorization: None }));
    };
    let name = format!("{cell}-http-ca-public");
    let map = Api::<ConfigMap>::namespaced(kube.clone(), namespace).get(&name).await;
    let map = map.map_err(|error| format!("ConfigMap {name}: {error}"))?;
    let trust = map.data.and_then(|mut data| data.remove("ca.crt")).ok_or("no ca.crt is published")?;
    let name = format!("{cell}-{user}");
    let secret = Api::<Secret>::namespaced(kube, namespace).get_opt(&name).await;
    let Some(secret) = secret.map_err(|error| format!("Secret {name}: {error}"))? else { return Ok(None) };
    let data = secret.data.unwrap_or_default();
    let text = |key: &str| {
        let bytes = data.get(key).ok_or_else(|| format!("Secret {name} has no {key}"))?;
        String::from_utf8(bytes.0.clone()).map_err(|_| format!("{key} of Secret {name} is no text"))
    };
    let authorization = basic(&text("username")?, &text("password")?)?;
    Ok(Some(Way {
        base: format!("https://{host}"),
        client: client(Some(&trust))?,
        authorization: Some(authorization),
    }))
}

/// The cell of a Service, when it has security.
async fn secured(namespace: &str, service: &str) -> Result<Option<(String, kube::Client)>, String> {
    let Ok(env) = Env::current() else { return Ok(None) };
    let kube = env.client.clone();
    let services = Api::<Service>::namespaced(kube.clone(), namespace);
    let found = services.get_opt(service).await.map_err(|error| format!("Service {service}: {error}"))?;
    let cell = found.and_then(|found| found.metadata.labels?.remove("searchcell.dev/cell"));
    let Some(cell) = cell else { return Ok(None) };
    let cells: Api<DynamicObject> = Api::namespaced_with(kube.clone(), namespace, &resource("searchcells"));
    let object = cells.get_opt(&cell).await.map_err(|error| format!("SearchCell {cell}: {error}"))?;
    let disabled = |object: &DynamicObject| {
        object.data.pointer("/spec/security/mode").and_then(Value::as_str) == Some("Disabled")
    };
    Ok(object.filter(|object| !disabled(object)).map(|_| (cell, kube)))
}

fn client(trust: Option<&str>) -> Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in trust.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes())) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(Duration::from_secs(5)));
    connector.set_nodelay(true);
    connector.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
}

fn basic(username: &str, password: &str) -> Result<HeaderValue, String> {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    let mut value = HeaderValue::from_str(&format!("Basic {pair}")).map_err(|error| error.to_string())?;
    value.set_sensitive(true);
    Ok(value)
}
