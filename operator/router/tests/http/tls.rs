//! Certificates, authorities and credentials that change while the router runs.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use searchcell_crds::Versioning;
use searchcell_router::run::Router;
use searchcell_router::settings::Settings;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::client::{self, Got};
use super::elastic::{self, Guard};
use super::journey;
use super::mount::Mount;

/// An authority; all have the same name, as one has that was made again.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key of a server, PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn server(&self, name: &str) -> Arc<ServerConfig> {
        let (certificate, key) = self.sign(name);
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        Arc::new(config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap())
    }

    fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        Arc::new(config.unwrap().with_root_certificates(roots).with_no_client_auth())
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Lets time pass for the router, while nothing is under way.
async fn later(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

const FILES_ARE_READ_AGAIN: Duration = Duration::from_secs(6);

async fn write(router: &Router) -> (u16, String) {
    let got =
        client::json(router.address, "PUT", "/messages/_doc/1?routing=5&timeout=400ms", "{\"n\":1}").await;
    (got.status, got.text)
}

#[tokio::test]
async fn authorities_and_credentials_of_a_cluster_are_taken_up_when_they_change() {
    let (first, second) = (Authority::new(), Authority::new());
    let tls = Arc::new(Mutex::new(first.server("127.0.0.1")));
    let basic = |pair: &str| Some(format!("Basic {}", STANDARD.encode(pair)));
    let guard =
        Guard { tls: Some(Arc::clone(&tls)), authorization: Arc::new(Mutex::new(basic("u:hunter1"))) };
    let address = elastic::start(guard.clone()).await;
    let mount = Mount::new("cluster-tls");
    mount.put("es/guilds/ca.crt", &second.pem);
    mount.put("es/guilds/username", "u");
    mount.put("es/guilds/password", "hunter1");
    let router =
        mount.router(&journey::table("https", address, "g1", "messages", Versioning::None), json!({})).await;

    // A wrong authority: not a byte of the password leaves, nothing is written, and it is said what to look at.
    let authorities = mount.path("es/guilds/ca.crt").display().to_string();
    let got = client::json(router.address, "GET", "/messages/_search?routing=5", "").await;
    let wanted = format!("its certificate is not of an authority in {authorities}");
    assert!(got.status == 503 && got.text.contains(&wanted) && !got.text.contains("hunter"), "{}", got.text);
    assert_eq!(write(&router).await.0, 429);

    mount.put("es/guilds/ca.crt", &first.pem);
    later(FILES_ARE_READ_AGAIN).await;
    assert_eq!(write(&router).await.0, 201);

    // The password is another one: refused, and taken up with its file.
    *guard.authorization.lock().unwrap() = basic("u:hunter2");
    let (status, text) = write(&router).await;
    assert!(status == 429 && text.contains("credential"), "{status} {text}");
    mount.put("es/guilds/password", "hunter2\n");
    later(FILES_ARE_READ_AGAIN).await;
    assert_eq!(write(&router).await.0, 200);

    // The authority is replaced by overlap: trust in both, then certificates of the new one.
    mount.put("es/guilds/ca.crt", format!("{}{}", first.pem, second.pem));
    later(FILES_ARE_READ_AGAIN).await;
    assert_eq!(write(&router).await.0, 200);
    *tls.lock().unwrap() = second.server("127.0.0.1");
    // Connections that are there already have the certificate that they were made with, and grow old.
    later(Duration::from_secs(31)).await;
    assert_eq!(write(&router).await.0, 200);

    // What is no certificate changes nothing.
    mount.put("es/guilds/ca.crt", "-----BEGIN CERTIFICATE-----\nx\n");
    later(FILES_ARE_READ_AGAIN).await;
    assert_eq!(write(&router).await.0, 200);

    // Whom nobody trusts any more is not talked to, although there is a connection.
    mount.put("es/guilds/ca.crt", &first.pem);
    later(FILES_ARE_READ_AGAIN).await;
    assert_eq!(write(&router).await.0, 429);

    *tls.lock().unwrap() = first.server("elsewhere");
    later(FILES_ARE_READ_AGAIN).await;
    let got = client::json(router.address, "GET", "/messages/_search?routing=5", "").await;
    assert!(got.text.contains("its certificate is not for 127.0.0.1"), "{}", got.text);
    std::fs::remove_file(mount.path("es/guilds/ca.crt")).unwrap();
    later(FILES_ARE_READ_AGAIN).await;
    let got = client::json(router.address, "GET", "/messages/_search?routing=5", "").await;
    assert!(got.text.contains("there is no ca.crt for guilds-a"), "{}", got.text);
    router.stop().await;
}

/// The front's answer to a client that trusts one authority; or why there is no connection.
async fn ask(router: &Router, trust: Arc<ClientConfig>) -> Result<Got, String> {
    let stream = TcpStream::connect(router.address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = TlsConnector::from(trust).connect(name, stream).await.map_err(|error| error.to_string())?;
    Ok(client::exchange(stream, "GET", "/", "", b"").await)
}

fn put_pair(mount: &Mount, (certificate, key): &(String, String)) {
    mount.put("front/tls.crt", certificate);
    mount.put("front/tls.key", key);
}

fn front(mount: &Mount) -> Value {
    json!({"tls": {"certificate": mount.path("front/tls.crt"), "key": mount.path("front/tls.key")}})
}

#[tokio::test]
async fn the_fronts_certificate_is_taken_up_when_it_changes() {
    let (first, second) = (Authority::new(), Authority::new());
    let (old, new) = (first.sign("127.0.0.1"), second.sign("127.0.0.1"));
    let address = elastic::start(Guard::default()).await;
    let mount = Mount::new("front-tls");
    put_pair(&mount, &old);
    let router = mount
        .router(
            &journey::table("http", address, "g1", "messages", Versioning::None),
            json!({"front": front(&mount)}),
        )
        .await;
    let a_minute = Duration::from_secs(61);
    assert_eq!(ask(&router, first.client()).await.unwrap().status, 200);
    let refused = ask(&router, second.client()).await.map(|got| got.status).unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");

    // A pair whose halves do not belong together stays away.
    mount.put("front/tls.crt", &new.0);
    later(a_minute).await;
    assert_eq!(ask(&router, first.client()).await.unwrap().status, 200);
    mount.put("front/tls.key", &new.1);
    later(a_minute).await;
    assert_eq!(ask(&router, second.client()).await.unwrap().status, 200);
    assert!(ask(&router, first.client()).await.is_err());

    mount.put("front/tls.crt", "nonsense");
    later(a_minute).await;
    assert_eq!(ask(&router, second.client()).await.unwrap().status, 200);
    router.stop().await;
}

#[tokio::test]
async fn a_front_without_a_certificate_that_can_be_used_does_not_start() {
    let authority = Authority::new();
    let (one, other) = (authority.sign("127.0.0.1"), authority.sign("127.0.0.1"));
    let mount = Mount::new("front-tls-wrong");
    mount.put("table", b"");
    let why = |certificate: &str, key: &str| {
        put_pair(&mount, &(certificate.to_owned(), key.to_owned()));
        let settings: Settings = serde_json::from_value(json!({
            "listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "front": front(&mount),
            "collections": [{"name": "messages", "table": mount.path("table")}]}))
        .unwrap();
        async move { Router::start(settings).await.map(|_| ()).unwrap_err().to_string() }
    };
    let in_file = |name: &str, said: &str| said.contains(&mount.path(name).display().to_string());
    let said = why(&one.0, &other.1).await;
    assert!(said.starts_with("certificate and key of the front"), "{said}");
    let said = why("nonsense", &one.1).await;
    assert!(in_file("front/tls.crt", &said) && said.contains("no certificate"), "{said}");
    let said = why(&one.0, "nonsense hunter2").await;
    assert!(in_file("front/tls.key", &said) && !said.contains("hunter"), "{said}");
    std::fs::remove_file(mount.path("front/tls.crt")).unwrap();
    let said = server_error(&mount.path("front")).await;
    assert!(in_file("front/tls.crt", &said), "{said}");
}

async fn server_error(directory: &Path) -> String {
    let files = json!({"certificate": directory.join("tls.crt"), "key": directory.join("tls.key")});
    let files = serde_json::from_value(files).unwrap();
    searchcell_router::front::server::tls(&files).map(|_| ()).unwrap_err().to_string()
}
