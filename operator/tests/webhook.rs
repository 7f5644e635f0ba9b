//! The webhook's server: a real handshake, real AdmissionReviews, and a certificate that changes while it serves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use jiff::Timestamp;
use kube::client::Body;
use kube::runtime::watcher::Event;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};
use searchcell_core::security::Layer;
use searchcell_core::security::leaf::Leaf;
use searchcell_crds::IndexPlacement;
use searchcell_operator::kube_io::cache::Feed;
use searchcell_operator::kube_io::client::KubeIo;
use searchcell_operator::kube_io::fanout::Caches;
use searchcell_operator::security::forge::{Forge, Pair, Signer};
use searchcell_operator::security::parse;
use searchcell_operator::webhook::review::Reviewer;
use searchcell_operator::webhook::server::{Shown, serve};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const HOST: &str = "searchcell-operator-webhook.searchcell-system.svc";
const DAY: Duration = Duration::from_secs(86_400);

/// An authority, and what it signed for the webhook.
fn made() -> (String, Arc<CertifiedKey>) {
    let forge = Forge::default();
    let authority = forge.authority("webhook", 10 * DAY, Timestamp::now()).unwrap();
    let until = parse::certificates(authority.certificate.as_bytes()).unwrap()[0].not_after;
    let signer = Signer::new("webhook", &authority.certificate, authority.key.reveal(), until).unwrap();
    let leaf = Leaf {
        file: "tls".to_owned(),
        layer: Layer::Http,
        common_name: "webhook".to_owned(),
        names: [HOST.to_owned()].into(),
    };
    let Pair { certificate, key } = forge.leaf(&leaf, &signer, DAY, Timestamp::now()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    (authority.certificate, Arc::new(CertifiedKey::new(chain, key)))
}

struct Webhook {
    address: SocketAddr,
    shown: Arc<Shown>,
    synced: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    verdicts: Arc<Mutex<BTreeMap<&'static str, u32>>>,
    task: tokio::task::JoinHandle<Result<(), rustls::Error>>,
}

/// One placement is known: of the collection `messages`, in the namespace `search`.
async fn webhook() -> Webhook {
    let caches = Arc::new(Caches::default());
    let placement: IndexPlacement = serde_json::from_value(json!({
        "apiVersion": "searchcell.dev/v1alpha1", "kind": "IndexPlacement",
        "metadata": {"name": "pool", "namespace": "search"},
        "spec": {"cell": "guilds", "collection": "messages", "tenant": {"field": "guild"}, "pool": {"indices": 1}},
    }))
    .unwrap();
    Feed::new(Arc::clone(&caches.placements), None).take(Event::Apply(placement));
    // It asks the API server for nothing.
    let nobody = tower::service_fn(|request: Request<Body>| async move {
        Err::<Response<Body>, _>(std::io::Error::other(request.uri().to_string()))
    });
    let client = kube::Client::new(nobody, "default");
    let kube = Arc::new(KubeIo::new(client, caches, "searchcell-system".to_owned(), Arc::new(|_, _| {})));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let verdicts: Arc<Mutex<BTreeMap<&'static str, u32>>> = Arc::default();
    let heard = Arc::clone(&verdicts);
    let on_verdict = Arc::new(move |verdict| *heard.lock().unwrap().entry(verdict).or_default() += 1);
    let (synced, is_synced) = watch::channel(true);
    let reviewer = Arc::new(Reviewer::new(kube, "operator:1".to_owned(), is_synced, on_verdict));
    let (stop, stopping) = watch::channel(false);
    let shown = Arc::new(Shown::default());
    let task = tokio::spawn(serve(listener, Arc::clone(&shown), reviewer, stopping));
    Webhook { address, shown, synced, stop, verdicts, task }
}

impl Webhook {
    /// Connects, as the API server does: by the name of the Service, trusting one authority.
    async fn connect(&self, authority: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(HOST).unwrap(), stream).await
    }
}

async fn post(stream: &mut TlsStream<TcpStream>, path: &str, body: &[u8]) -> (u16, Value) {
    let head = format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() >= length.parse().unwrap() {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return (status, serde_json::from_str(body).unwrap_or_else(|_| json!(body)));
            }
        }
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "{text}");
    }
}

fn review(annotation: &str) -> Vec<u8> {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5", "operation": "CREATE", "namespace": "search", "name": "",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "dryRun": false, "oldObject": null,
            "object": {"apiVersion": "v1", "kind": "Pod",
                "metadata": {"generateName": "indexer-", "annotations": {"searchcell.dev/inject-router": annotation}},
                "spec": {"containers": [{"name": "app", "image": "app:1"}]}},
        },
    })
    .to_string()
    .into_bytes()
}

#[tokio::test]
async fn a_review_is_answered_and_no_pod_is_refused() {
    let webhook = webhook().await;
    let (authority, certificate) = made();
    assert!(webhook.connect(&authority).await.is_err(), "it has no certificate yet");
    webhook.shown.show(certificate);
    let mut stream = webhook.connect(&authority).await.unwrap();

    let (status, answer) = post(&mut stream, "/inject-router", &review("messages")).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        (&answer["apiVersion"], &answer["kind"]),
        (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
    );
    let response = &answer["response"];
    assert_eq!((&response["uid"], &response["allowed"]), (&json!("705ab4f5"), &json!(true)));
    assert_eq!(response["patchType"], "JSONPatch");
    let patch: Vec<u8> = serde_json::from_value(response["patch"].clone()).unwrap();
    let patch: Value = serde_json::from_slice(&patch).unwrap();
    let container =
        patch.as_array().unwrap().iter().find(|step| step["path"] == "/spec/initContainers").unwrap();
    assert_eq!(container["value"][0]["image"], "operator:1");

    let (_, answer) = post(&mut stream, "/inject-router", &review("audit")).await;
    let response = &answer["response"];
    assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None));
    assert!(response["warnings"][0].as_str().unwrap().contains("collection \"audit\""), "{response}");

    let (status, answer) = post(&mut stream, "/inject-router", b"{}").await;
    assert_eq!(status, 400, "{answer}");
    assert_eq!(post(&mut stream, "/elsewhere", b"").await.0, 404);
    // It does not say that there is no such collection before it knows.
    webhook.synced.send_replace(false);
    assert_eq!(post(&mut stream, "/inject-router", &review("messages")).await.0, 503);
    let verdicts = webhook.verdicts.lock().unwrap().clone();
    assert_eq!(verdicts, BTreeMap::from([("injected", 1), ("refused", 1), ("error", 2)]));
}

#[tokio::test]
async fn another_certificate_needs_no_restart_and_breaks_no_connection() {
    let webhook = webhook().await;
    let ((former, certificate), (next, other)) = (made(), made());
    webhook.shown.show(certificate);
    let mut before = webhook.connect(&former).await.unwrap();
    assert_eq!(post(&mut before, "/inject-router", &review("messages")).await.0, 200);
    webhook.shown.show(other);
    assert_eq!(post(&mut before, "/inject-router", &review("messages")).await.0, 200);
    let mut after = webhook.connect(&next).await.unwrap();
    assert_eq!(post(&mut after, "/inject-router", &review("messages")).await.0, 200);
    assert!(webhook.connect(&former).await.is_err(), "who trusts the former alone is not let on");

    webhook.stop.send_replace(true);
    webhook.task.await.unwrap().unwrap();
    let mut rest = Vec::new();
    assert_eq!(before.read_to_end(&mut rest).await.unwrap_or_default(), 0, "it ends what is idle");
}
