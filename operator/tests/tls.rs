//! Certificates, keys, passwords and hashes as they are really made, shown by a TLS server of this process: whom the
//! operator's client believes, as whom it asks, and what a look at a node's port sees.
//!
//! `SEARCHCELL_TLS_FILES=folder` writes what the nodes of a cell would mount, to be tried with a real Elasticsearch.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::expect_used)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use searchcell_core::names::ClusterKey;
use searchcell_core::security::Layer;
use searchcell_core::security::Supplied;
use searchcell_core::security::leaf::Leaf;
use searchcell_operator::elastic::client::ElasticHttp;
use searchcell_operator::ports::SearchApi;
use searchcell_operator::security::access::{Access, Accesses};
use searchcell_operator::security::forge::{Forge, Pair, Signer};
use searchcell_operator::security::sealed::{Credential, Hidden, Sealed};
use searchcell_operator::security::{parse, supplied};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const DAY: Duration = Duration::from_secs(86_400);

fn leaf(names: &[&str]) -> Leaf {
    let names: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    Leaf { file: "n.http".into(), layer: Layer::Http, common_name: "n".into(), names }
}

fn issue(forge: &Forge, authority: &Pair, names: &[&str], lifetime: Duration) -> Pair {
    let facts = &parse::certificates(authority.certificate.as_bytes()).unwrap()[0];
    let signer = Signer::new("ca", &authority.certificate, authority.key.reveal(), facts.not_after).unwrap();
    forge.leaf(&leaf(names), &signer, lifetime, Timestamp::now()).unwrap()
}

fn secret(entries: &[(&str, &str)]) -> Sealed {
    let data =
        entries.iter().map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec()))).collect();
    Sealed(Secret { data: Some(data), ..Secret::default() })
}

#[test]
fn what_is_made_is_what_was_asked_for() {
    let forge = Forge::default();
    let now = Timestamp::now();
    let authority = forge.authority("guilds HTTP", 10 * DAY, now).unwrap();
    let pair = issue(&forge, &authority, &["localhost", "127.0.0.1", "guilds-a.search.svc"], 90 * DAY);
    let facts = parse::facts(&secret(&[
        ("ca.crt", &authority.certificate),
        ("ca.key", authority.key.reveal()),
        ("n.http.crt", &pair.certificate),
        ("n.http.key", pair.key.reveal()),
        ("other.crt", "nonsense"),
    ]));
    let (ca, found) = (facts.pair("ca").unwrap(), facts.pair("n.http").unwrap());
    assert!(found.is_signed_by(ca) && ca.is_authority && !found.is_authority);
    assert!(found.names.contains("127.0.0.1") && found.names.contains("guilds-a.search.svc"));
    // It does not outlive who signed it.
    assert_eq!(found.not_after, ca.not_after);
    assert!(found.not_before < now && facts.unreadable.contains("other.crt"));
    // Two authorities of a name are told apart by whoever lists them.
    let other = forge.authority("guilds HTTP", 10 * DAY, now).unwrap();
    let other = &parse::certificates(other.certificate.as_bytes()).unwrap()[0];
    assert!(other.subject != ca.subject && other.key_id != ca.key_id);
    let swapped = parse::facts(&secret(&[("ca.crt", &pair.certificate), ("ca.key", authority.key.reveal())]));
    assert!(swapped.pair("ca").is_none());
}

#[tokio::test]
async fn passwords_are_hashed_as_the_file_realm_reads_them() {
    let forge = Forge::with_cost(4);
    let (one, two) = (forge.password().unwrap(), forge.password().unwrap());
    assert!(one != two && one.reveal().len() == 32);
    let hash = forge.hash(&one).await.unwrap();
    assert!(hash.reveal().starts_with("$2a$04$"));
    assert!(
        bcrypt::verify(one.reveal(), hash.reveal()).unwrap()
            && !bcrypt::verify(two.reveal(), hash.reveal()).unwrap()
    );
    let mut entries = vec![("username", "u"), ("password", one.reveal()), ("hash", hash.reveal())];
    let digest = parse::digest_of("u", one.reveal());
    entries.push(("hash-of", &digest));
    assert!(parse::facts(&secret(&entries)).credential.unwrap().hash.is_some());
    // Somebody set another password: the hash is of none any more.
    entries[1].1 = two.reveal();
    assert!(parse::facts(&secret(&entries)).credential.unwrap().hash.is_none());
}

#[test]
fn a_supplied_certificate_is_traced_to_its_authority() {
    let forge = Forge::default();
    let (mine, other) = (
        forge.authority("a", DAY, Timestamp::now()).unwrap(),
        forge.authority("b", DAY, Timestamp::now()).unwrap(),
    );
    let pair = issue(&forge, &mine, &["x.y"], DAY);
    let read = |ca: &Pair| {
        let entries = [
            ("tls.crt", pair.certificate.as_str()),
            ("tls.key", pair.key.reveal()),
            ("ca.crt", &ca.certificate),
        ];
        match supplied::read(&secret(&entries), Timestamp::now()) {
            Supplied::Read { untrusted, .. } => untrusted,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(read(&mine), None);
    assert!(read(&other).unwrap().contains("issuer"));
}

struct Fixed(Access);

impl Accesses for Fixed {
    fn access(&self, _: &ClusterKey) -> Access {
        self.0.clone()
    }
}

/// Answers every request as a cluster does, to these users; says which there were.
async fn server(pair: &Pair, known: &'static [&'static str]) -> (u16, Arc<Mutex<Vec<String>>>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(chain(pair), key(pair)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = seen.clone();
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, log) = (acceptor.clone(), log.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                        return;
                    }
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                let user = head
                    .lines()
                    .find_map(|line| line.strip_prefix("authorization: Basic "))
                    .unwrap_or_default();
                log.lock().unwrap().push(user.to_owned());
                let (status, body) = if known.contains(&user) {
                    (
                        200,
                        r#"{"cluster_uuid":"u","version":1,"state_uuid":"s","master_node":"m","nodes":{"m":{"name":"m"}}}"#,
                    )
                } else {
                    (401, r#"{"error":{"type":"security_exception","reason":"unable to authenticate user"}}"#)
                };
                let text = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (port, seen)
}

fn chain(pair: &Pair) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).map(Result::unwrap).collect()
}

fn key(pair: &Pair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pair.key.reveal().as_bytes()).unwrap()
}

fn user(name: &str) -> Credential {
    Credential { username: name.to_owned(), password: Hidden::new("secret".to_owned()) }
}

fn client(port: u16, host: &'static str, trust: &Pair, credential: &str) -> ElasticHttp {
    let access = Access::Secured { trust: trust.certificate.clone(), credential: Some(user(credential)) };
    let locate = Box::new(move |_: &ClusterKey, scheme: &str| format!("{scheme}://{host}:{port}"));
    ElasticHttp::with_locate(locate, Arc::new(Fixed(access)), Arc::new(|_, _| {})).unwrap()
}

fn cluster() -> ClusterKey {
    ClusterKey::new("search", "guilds", "a")
}

#[tokio::test]
async fn the_client_believes_the_cells_authority_and_checks_names() {
    let forge = Forge::default();
    let authority = forge.authority("guilds HTTP", DAY, Timestamp::now()).unwrap();
    let other = forge.authority("guilds HTTP", DAY, Timestamp::now()).unwrap();
    // base64 of one:secret
    let (port, seen) = server(&issue(&forge, &authority, &["localhost"], DAY), &["b25lOnNlY3JldA=="]).await;

    let summary = client(port, "localhost", &authority, "one").summary(&cluster()).await.unwrap();
    assert_eq!((summary.known_as.as_deref(), summary.uuid.as_deref()), (Some("one"), Some("u")));

    let error = client(port, "localhost", &other, "one").summary(&cluster()).await.unwrap_err().to_string();
    assert_eq!(error, "its certificate is not one that the operator trusts");
    let error =
        client(port, "127.0.0.1", &authority, "one").summary(&cluster()).await.unwrap_err().to_string();
    assert_eq!(error, "its certificate is not one that the operator trusts");
    // Who was not believed heard nothing.
    assert_eq!(seen.lock().unwrap().len(), 1);

    let error = client(port, "localhost", &authority, "two").summary(&cluster()).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}

/// A proxy that tunnels every connection to one port, whatever the name; and which names it was asked for.
async fn proxy(to: u16) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let log = log.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    assert!(from.read_buf(&mut head).await.unwrap() > 0);
                }
                let head = String::from_utf8(head).unwrap();
                log.lock().unwrap().push(head.lines().next().unwrap().to_owned());
                from.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let mut to = tokio::net::TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    (address, asked)
}

/// Where a cluster is reached through a tunnel, its name and its authority are verified as ever.
#[tokio::test]
async fn a_tunnel_does_not_take_the_place_of_the_name() {
    let forge = Forge::default();
    let authority = forge.authority("guilds HTTP", DAY, Timestamp::now()).unwrap();
    let other = forge.authority("guilds HTTP", DAY, Timestamp::now()).unwrap();
    let (port, seen) =
        server(&issue(&forge, &authority, &["guilds-a.search.svc"], DAY), &["b25lOnNlY3JldA=="]).await;
    let (proxy, asked) = proxy(port).await;
    let client = |trust: &Pair| {
        let access = Access::Secured { trust: trust.certificate.clone(), credential: Some(user("one")) };
        let client = ElasticHttp::new(Arc::new(Fixed(access)), Arc::new(|_, _| {})).unwrap();
        client.through(proxy.parse().unwrap())
    };
    let summary = client(&authority).summary(&cluster()).await.unwrap();
    assert_eq!(summary.known_as.as_deref(), Some("one"));
    for (cluster, trust) in [(ClusterKey::new("search", "guilds", "b"), &authority), (cluster(), &other)] {
        let error = client(trust).summary(&cluster).await.unwrap_err().to_string();
        assert_eq!(error, "its certificate is not one that the operator trusts", "{cluster}");
    }
    assert_eq!(seen.lock().unwrap().len(), 1);
    let asked = asked.lock().unwrap();
    assert!(asked[0].starts_with("CONNECT guilds-a.search.svc:9200 "), "{asked:?}");
    assert!(asked[1].starts_with("CONNECT guilds-b.search.svc:9200 "), "{asked:?}");
}

/// While nodes learn of a new user one after another, the one that was known before does.
#[tokio::test]
async fn a_node_that_does_not_know_the_new_user_is_asked_as_the_former_one() {
    struct Turning(Mutex<Access>);
    impl Accesses for Turning {
        fn access(&self, _: &ClusterKey) -> Access {
            self.0.lock().unwrap().clone()
        }
    }
    let forge = Forge::default();
    let authority = forge.authority("guilds HTTP", DAY, Timestamp::now()).unwrap();
    let (port, seen) = server(&issue(&forge, &authority, &["localhost"], DAY), &["b25lOnNlY3JldA=="]).await;
    let access = |credential| Access::Secured { trust: authority.certificate.clone(), credential };
    let accesses = Arc::new(Turning(Mutex::new(access(Some(user("one"))))));
    let locate = Box::new(move |_: &ClusterKey, scheme: &str| format!("{scheme}://localhost:{port}"));
    let elastic = ElasticHttp::with_locate(locate, accesses.clone(), Arc::new(|_, _| {})).unwrap();
    elastic.summary(&cluster()).await.unwrap();
    for next in [None, Some(user("two"))] {
        *accesses.0.lock().unwrap() = access(next);
        assert_eq!(elastic.summary(&cluster()).await.unwrap().known_as.as_deref(), Some("one"));
    }
    assert_eq!(seen.lock().unwrap().len(), 4);
}

/// A node as others see it, on the two ports that nodes have; only where nobody else listens on them.
#[tokio::test]
async fn a_look_at_a_node_sees_what_it_shows_and_whom_it_trusts() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let forge = Forge::default();
    let authorities: Vec<Pair> =
        (0..2).map(|_| forge.authority("guilds-a transport", DAY, Timestamp::now()).unwrap()).collect();
    let pair = issue(&forge, &authorities[0], &["n"], DAY);
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        roots.add(chain(authority)[0].clone()).unwrap();
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let strict = ServerConfig::builder().with_client_cert_verifier(verifier);
    let strict = strict.with_single_cert(chain(&pair), key(&pair)).unwrap();
    let open =
        ServerConfig::builder().with_no_client_auth().with_single_cert(chain(&pair), key(&pair)).unwrap();
    for (port, config) in [(9300, strict), (9200, open)] {
        let Ok(listener) = TcpListener::bind(("127.99.93.1", port)).await else { return };
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = acceptor.accept(stream).await;
            }
        });
    }
    let served = searchcell_operator::security::handshake::served("127.99.93.1").await.unwrap();
    let facts = |pair: &Pair| parse::certificates(pair.certificate.as_bytes()).unwrap().remove(0);
    assert_eq!(served.http, Some(facts(&pair).fingerprint));
    assert_eq!(served.transport, served.http);
    assert_eq!(served.trusted, authorities.iter().map(|one| facts(one).subject).collect());
    let error = searchcell_operator::security::handshake::served("127.99.93.2").await.unwrap_err();
    assert!(error.contains("does not answer"), "{error}");
}

/// With a real Elasticsearch on 127.0.0.1, ports 9200 and 9300, whose directory of certificates is
/// `SEARCHCELL_TLS_FILES`: first the files are written, then, once it runs, its authority is rotated by overlap.
#[tokio::test]
#[ignore = "needs a node that is about to start: see the head of this file"]
async fn a_real_elasticsearch_shows_what_lies_in_its_files() {
    let folder =
        std::path::PathBuf::from(std::env::var_os("SEARCHCELL_TLS_FILES").expect("SEARCHCELL_TLS_FILES"));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let forge = Forge::default();
    let now = Timestamp::now();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    let put = |pair: &Pair, layer: Layer| {
        write(&format!("n0.{layer}.crt"), &pair.certificate);
        write(&format!("n0.{layer}.key"), pair.key.reveal());
    };
    let names = ["localhost", "127.0.0.1", "n0"];
    let http = forge.authority("test HTTP", DAY, now).unwrap();
    let former = forge.authority("test transport", DAY, now).unwrap();
    write("http-ca.crt", &http.certificate);
    write("transport-ca.crt", &former.certificate);
    put(&issue(&forge, &http, &names, DAY), Layer::Http);
    put(&issue(&forge, &former, &names, DAY), Layer::Transport);
    let mut users = String::new();
    for user in
        ["searchcell-operator-1", "searchcell-router-1", "searchcell-exporter-1", "searchcell-admin-1"]
    {
        let hash = forge.hash(&Hidden::new("secret".to_owned())).await.unwrap();
        users.push_str(&format!("{user}:{}\n", hash.reveal()));
    }
    write("users", &users);
    write("roles.yml", &searchcell_core::security::roles::roles());

    let facts = |pair: &Pair| parse::certificates(pair.certificate.as_bytes()).unwrap().remove(0);
    let until = async |what: &str, holds: &dyn Fn(&searchcell_core::security::Served) -> bool| {
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_secs(120) {
            match searchcell_operator::security::handshake::served("127.0.0.1").await {
                Ok(served) if holds(&served) => {
                    return println!("{what} after {:.1} s", began.elapsed().as_secs_f64());
                }
                _ => tokio::time::sleep(Duration::from_millis(250)).await,
            }
        }
        panic!("{what}: not within two minutes");
    };
    until("it trusts the first authority", &|served| served.trusted == [facts(&former).subject].into()).await;
    let elastic = client(9200, "localhost", &http, "searchcell-operator-1");
    let began = std::time::Instant::now();
    while elastic.summary(&cluster()).await.is_err() && began.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(elastic.summary(&cluster()).await.unwrap().known_as.as_deref(), Some("searchcell-operator-1"));
    elastic.details(&cluster()).await.unwrap();
    elastic.sizes(&cluster()).await.unwrap();
    // The operator's role is enough for it.
    let said = elastic.reload_keystore(&cluster()).await.unwrap();
    assert!(said.values().all(|node| node.error.is_none()), "{said:?}");
    let settings = [("cluster.metadata.searchcell.settings".to_owned(), Some(serde_json::json!("x")))].into();
    elastic.put_settings(&cluster(), &settings).await.unwrap();
    elastic.create_index(&cluster(), "messages.p000.g1", &serde_json::json!({})).await.unwrap();
    assert!(elastic.create_index(&cluster(), "other", &serde_json::json!({})).await.is_err());
    let uuid = elastic.details(&cluster()).await.unwrap().indices["messages.p000.g1"].uuid.clone();
    elastic.delete_index(&cluster(), "messages.p000.g1", &uuid).await.unwrap();

    let next = forge.authority("test transport", DAY, now).unwrap();
    write("transport-ca.crt", &format!("{}{}", former.certificate, next.certificate));
    let both = [facts(&former).subject, facts(&next).subject].into();
    until("it trusts both", &|served| served.trusted == both).await;
    let leaf = issue(&forge, &next, &names, DAY);
    put(&leaf, Layer::Transport);
    until("it shows the new certificate", &|served| served.transport == Some(facts(&leaf).fingerprint)).await;
    write("transport-ca.crt", &next.certificate);
    until("it trusts the next alone", &|served| served.trusted == [facts(&next).subject].into()).await;
}
