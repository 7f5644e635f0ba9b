//! Keystores as they are really made, read by a real Elasticsearch.
//!
//! `SEARCHCELL_KEYSTORE_CONFIG=folder` is the configuration folder of a node of version
//! `SEARCHCELL_KEYSTORE_VERSION` that is about to start, without security, on 127.0.0.1:9200: the test puts a keystore
//! there as a pod has it, waits for the node, changes the file as a kubelet does, and has the node load it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::expect_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use searchcell_core::domain::EsVersion;
use searchcell_core::names::ClusterKey;
use searchcell_core::security::keystore::{Format, KEYSTORE_DIRECTORY, KEYSTORE_FILE, SEED};
use searchcell_operator::elastic::client::ElasticHttp;
use searchcell_operator::ports::{NodeReload, SearchApi};
use searchcell_operator::security::access::AllPlain;
use searchcell_operator::security::forge::Forge;
use searchcell_operator::security::parse;
use searchcell_operator::security::sealed::Sealed;

const REMOTE: &str = "cluster.remote.other.credentials";

async fn files(entries: &[(&str, &[u8])]) -> BTreeMap<String, ByteString> {
    let mut all: BTreeMap<String, ByteString> =
        entries.iter().map(|(name, value)| ((*name).to_owned(), ByteString(value.to_vec()))).collect();
    all.insert(SEED.to_owned(), ByteString(b"0123456789abcdefghij".to_vec()));
    Forge::default().keystore(all).await.unwrap()
}

#[tokio::test]
async fn what_is_made_is_known_by_what_may_be_known() {
    let mut data = files(&[(REMOTE, b"hunter2")]).await;
    data.insert(REMOTE.to_owned(), ByteString(b"hunter2".to_vec()));
    data.insert(SEED.to_owned(), ByteString(b"0123456789abcdefghij".to_vec()));
    // Ends like a private key, and is none.
    data.insert("azure.client.default.key".to_owned(), ByteString(b"hunter3".to_vec()));
    let facts = parse::facts(&Sealed(Secret { data: Some(data), ..Secret::default() }));
    let keystore = facts.keystore.clone().unwrap();
    let names: Vec<&str> = keystore.entries.keys().map(String::as_str).collect();
    assert_eq!(names, ["azure.client.default.key", REMOTE, SEED]);
    assert_eq!(keystore.files.len(), Format::ALL.len());
    assert!(keystore.revision().len() == 16 && facts.unreadable.is_empty());
    assert_ne!(files(&[]).await, files(&[]).await);
    let text = format!("{facts:?}");
    assert!(!text.contains("hunter") && !text.contains(&parse::fingerprint(b"hunter2")), "{text}");
}

fn cluster() -> ClusterKey {
    ClusterKey::new("search", "guilds", "a")
}

/// A directory as kubelets keep it: what is seen are links to what is current.
struct Volume {
    folder: PathBuf,
    number: u32,
}

impl Volume {
    fn put(&mut self, file: &[u8]) {
        self.number += 1;
        let current = format!("..{}", self.number);
        std::fs::create_dir(self.folder.join(&current)).unwrap();
        std::fs::write(self.folder.join(&current).join(KEYSTORE_FILE), file).unwrap();
        let next = self.folder.join("..data_tmp");
        symlink(&current, &next).unwrap();
        std::fs::rename(next, self.folder.join("..data")).unwrap();
        let shown = self.folder.join(KEYSTORE_FILE);
        if !shown.exists() {
            symlink(format!("..data/{KEYSTORE_FILE}"), shown).unwrap();
        }
    }
}

async fn reload(elastic: &ElasticHttp) -> NodeReload {
    let said = elastic.reload_keystore(&cluster()).await.unwrap();
    println!("{said:?}");
    assert_eq!(said.len(), 1);
    said.into_values().next().unwrap()
}

#[tokio::test]
#[ignore = "needs a node that is about to start: see the head of this file"]
async fn a_real_elasticsearch_loads_what_is_made() {
    let config = std::env::var_os("SEARCHCELL_KEYSTORE_CONFIG").expect("SEARCHCELL_KEYSTORE_CONFIG");
    let version: EsVersion =
        std::env::var("SEARCHCELL_KEYSTORE_VERSION").expect("SEARCHCELL_KEYSTORE_VERSION").parse().unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Path::new(&config);
    let mut volume = Volume { folder: config.join(KEYSTORE_DIRECTORY), number: 0 };
    std::fs::create_dir_all(&volume.folder).unwrap();
    let file = |data: &BTreeMap<String, ByteString>| data[Format::of(version).key()].0.clone();
    let checks_names = version >= "8.14.0".parse().unwrap();
    let says_digest = version >= "9.3.0".parse().unwrap();

    let first = file(&files(&[]).await);
    volume.put(&first);
    let link = config.join(KEYSTORE_FILE);
    symlink(format!("{KEYSTORE_DIRECTORY}/{KEYSTORE_FILE}"), &link).unwrap();

    let locate = Box::new(|_: &ClusterKey, scheme: &str| format!("{scheme}://127.0.0.1:9200"));
    let elastic = ElasticHttp::with_locate(locate, Arc::new(AllPlain), Arc::new(|_, _| {})).unwrap();
    let began = Instant::now();
    while elastic.summary(&cluster()).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(180), "it does not start");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // It found a keystore of its own format with a seed, and left it where it is.
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink(), "the file was written anew");

    let digest = |file: &[u8]| says_digest.then(|| parse::fingerprint(file));
    assert_eq!(reload(&elastic).await, NodeReload { error: None, digest: digest(&first) });
    let second = file(&files(&[]).await);
    volume.put(&second);
    assert_eq!(reload(&elastic).await, NodeReload { error: None, digest: digest(&second) });

    // An entry that it does not know.
    volume.put(&file(&files(&[("no.such.setting", b"three")]).await));
    let said = reload(&elastic).await;
    if checks_names {
        assert!(said.error.unwrap().contains("unknown secure setting [no.such.setting]"));
    }
    // A file that breaks off.
    volume.put(&first[..first.len() / 2]);
    assert!(reload(&elastic).await.error.is_some());
    volume.put(&second);
    assert_eq!(reload(&elastic).await.error, None);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
}
