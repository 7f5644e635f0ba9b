//! A real `nats-server`, of this test alone. Where it is not installed, tests say that they are skipped.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::{GetStreamByNameError, GetStreamByNameErrorKind};
use async_nats::jetstream::{self, Context, stream};
use searchcell_router::source::meters::QueueMeters;
use searchcell_router::source::nats::{Lane, Nats};
use searchcell_router::source::settings::{DeadLetter, SourceSettings};
use searchcell_router::source::{Credit, OVERHEAD, Source, SourceError};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::harness::{ACK_WAIT, Copy, LONG, Queue};

/// Bytes of the largest message that the server takes.
const LARGEST: usize = 64 << 10;

pub struct Server {
    child: Child,
    pub port: u16,
    directory: PathBuf,
}

impl Server {
    /// Absent: there is no `nats-server` here.
    pub async fn start(name: &str) -> Option<Self> {
        let found = ["/usr/sbin", "/usr/bin", "/usr/local/bin"].iter().map(PathBuf::from);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut all = std::env::split_paths(&path).chain(found).map(|folder| folder.join("nats-server"));
        let Some(program) = all.find(|program| program.is_file()) else {
            eprintln!("SKIPPED: {name}: nats-server is not installed (Debian's package nats-server)");
            return None;
        };
        let directory =
            std::env::temp_dir().join(format!("searchcell-router-nats-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        std::fs::write(directory.join("program"), program.display().to_string()).unwrap();
        configure(&directory, port, "");
        let child = run(&program, &directory.join("server.conf"));
        let server = Self { child, port, directory };
        server.up().await;
        Some(server)
    }

    async fn up(&self) {
        let started = Instant::now();
        while self.context().await.is_none() {
            assert!(started.elapsed() < LONG, "nats-server does not come up");
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn context(&self) -> Option<Context> {
        let client = async_nats::connect(format!("127.0.0.1:{}", self.port)).await.ok()?;
        let context = jetstream::new(client);
        // It answers as soon as it has its streams again.
        let known = context.stream_by_subject("nobody.has.this").await;
        let none = |error: &GetStreamByNameError| error.kind() == GetStreamByNameErrorKind::NotFound;
        known.as_ref().is_err_and(none).then_some(context)
    }

    /// Killed, without a chance to write anything down.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub async fn again(&mut self) {
        let program = std::fs::read_to_string(self.directory.join("program")).unwrap();
        self.child = run(&PathBuf::from(program), &self.directory.join("server.conf"));
        self.up().await;
    }
}

fn configure(directory: &Path, port: u16, more: &str) {
    let text = format!(
        "host: 127.0.0.1\nport: {port}\nmax_payload: {LARGEST}\njetstream {{store_dir: \"{}\"}}\n{more}\n",
        directory.join("store").display()
    );
    std::fs::write(directory.join("server.conf"), text).unwrap();
}

fn run(program: &PathBuf, file: &PathBuf) -> Child {
    let mut command = Command::new(program);
    command.arg("-c").arg(file).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

/// A server with a stream, one for what is parked, and one for dead letters.
pub struct Broker {
    pub server: Server,
    pub context: Context,
    meters: Arc<QueueMeters>,
}

async fn make(context: &Context, name: &str, subject: &str) {
    let config = stream::Config { name: name.into(), subjects: vec![subject.into()], ..Default::default() };
    context.create_stream(config).await.unwrap();
}

impl Broker {
    pub async fn start(name: &str) -> Option<Self> {
        let server = Server::start(name).await?;
        let context = server.context().await.unwrap();
        make(&context, "chat", "chat.>").await;
        make(&context, "parking", "parked.chat").await;
        make(&context, "dead", "dead.chat").await;
        Some(Self { server, context, meters: Arc::default() })
    }

    pub fn source_settings(&self) -> Value {
        json!({
            "nats": {"servers": [format!("nats://127.0.0.1:{}", self.server.port)], "stream": "chat",
                "consumer": "router", "subject": "chat.>", "ackWait": format!("{}s", ACK_WAIT.as_secs())},
            "parking": {"subject": "parked.chat"}})
    }

    fn reader(&self, settings: Value, lane: Lane) -> Nats {
        let settings: SourceSettings = serde_json::from_value(settings).unwrap();
        let dead = DeadLetter { subject: "dead.chat".into() };
        Nats::new(settings, dead, lane, Arc::clone(&self.meters))
    }

    async fn count(&self, stream: &str) -> usize {
        let info = self.context.get_stream(stream).await.unwrap().get_info().await.unwrap();
        usize::try_from(info.state.messages).unwrap()
    }
}

impl Queue for Broker {
    type Source = Nats;

    async fn publish(&self, payload: &str, headers: &[(&str, &str)]) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        let sent = self.context.publish_with_headers("chat.a", map, payload.to_owned().into()).await.unwrap();
        sent.await.unwrap();
    }

    fn source(&self, lane: Lane) -> Nats {
        self.reader(self.source_settings(), lane)
    }

    async fn dead(&self) -> Vec<Copy> {
        let Ok(stream) = self.context.get_stream("dead").await else { return Vec::new() };
        let state = stream.get_info().await.unwrap().state;
        let mut copies = Vec::new();
        for sequence in state.first_sequence.max(1)..=state.last_sequence {
            let message = stream.get_raw_message(sequence).await.unwrap();
            let each = message.headers.iter();
            let headers: BTreeMap<String, String> =
                each.map(|(name, values)| (name.to_string(), values[0].to_string())).collect();
            copies.push(Copy { payload: String::from_utf8(message.payload.to_vec()).unwrap(), headers });
        }
        copies
    }

    async fn left(&self, lane: Lane) -> usize {
        let (stream, consumer) = match lane {
            Lane::Main => ("chat", "router"),
            Lane::Parked => ("parking", "router-parked"),
        };
        let found = self.context.get_consumer_from_stream::<pull::Config, _, _>(consumer, stream).await;
        let Ok(consumer) = found else { return self.count(stream).await };
        let info = consumer.cached_info();
        usize::try_from(info.num_pending).unwrap() + info.num_ack_pending
    }

    async fn takes_copies(&self, yes: bool) {
        if yes {
            make(&self.context, "dead", "dead.chat").await;
        } else {
            self.context.delete_stream("dead").await.unwrap();
        }
    }

    async fn restart(&mut self) {
        self.server.kill();
        sleep(Duration::from_millis(500)).await;
        self.server.again().await;
        self.context = self.server.context().await.unwrap();
    }

    fn meters(&self) -> Option<Arc<QueueMeters>> {
        Some(Arc::clone(&self.meters))
    }
}

async fn why(mut source: Nats) -> SourceError {
    let credit = Credit { bytes: (1 << 20) + (8 << 10) + OVERHEAD, messages: 1 };
    source.poll(credit).await.expect_err("it should be refused")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_would_lose_messages_is_refused_with_what_to_change() {
    let Some(broker) = Broker::start("refused").await else { return };
    let consumer = |name: &str, change: fn(&mut pull::Config)| {
        let mut config = pull::Config { durable_name: Some(name.into()), ..Default::default() };
        config.ack_policy = AckPolicy::Explicit;
        config.filter_subject = "chat.>".into();
        change(&mut config);
        let context = broker.context.clone();
        async move { context.create_consumer_on_stream(config, "chat").await.unwrap() }
    };
    consumer("none", |config| config.ack_policy = AckPolicy::None).await;
    consumer("some", |config| config.max_deliver = 5).await;
    consumer("other", |config| config.filter_subject = "chat.b".into()).await;
    consumer("fine", |_| {}).await;
    let with = |field: &str, value: Value| {
        let mut settings = broker.source_settings();
        settings["nats"][field] = value;
        why(broker.reader(settings, Lane::Main))
    };
    let table = [
        (with("consumer", json!("none")).await, "consumer none: its ack policy must be explicit"),
        (with("consumer", json!("some")).await, "max_deliver is 5"),
        (with("consumer", json!("other")).await, "it reads [chat.b], and source.nats.subject is [chat.>]"),
        (with("stream", json!("gone")).await, "there is no stream gone"),
        (
            with("credentialsFile", json!("/nowhere")).await,
            "source.nats.credentialsFile: /nowhere cannot be read",
        ),
    ];
    for (error, expected) in table {
        assert!(matches!(error, SourceError::Misconfigured(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error} / {expected}");
    }
    let mut settings = broker.source_settings();
    settings["parking"]["subject"] = json!("nobody.has.this");
    let error = why(broker.reader(settings, Lane::Main)).await.to_string();
    assert!(error.contains("source.parking.subject: no stream has [nobody.has.this]"), "{error}");
    // A consumer that reads all of a stream reads its dead letters, too.
    make(&broker.context, "whole", "whole.>").await;
    let mut settings = broker.source_settings();
    settings["nats"] = json!({"servers": settings["nats"]["servers"], "stream": "whole", "consumer": "all"});
    settings["parking"]["subject"] = json!("whole.parked");
    let error = why(broker.reader(settings, Lane::Main)).await.to_string();
    assert!(error.contains("source.parking.subject: consumer all reads [whole.parked] itself"), "{error}");
    let mut settings = broker.source_settings();
    settings["nats"]["servers"] = json!(["nats://127.0.0.1:1"]);
    let error = why(broker.reader(settings, Lane::Main)).await;
    assert!(matches!(error, SourceError::Unavailable(_)), "{error}");
    let mut settings = broker.source_settings();
    settings["nats"]["consumer"] = json!("fine");
    let mut fine = broker.reader(settings, Lane::Main);
    broker.publish("{}", &[]).await;
    super::harness::take(&mut fine, 1, 1).await.remove(0).token.ack();
    fine.close(Instant::now() + LONG).await;
}

/// PEM files of an authority, and of a server that it answers for.
fn certificates(directory: &Path) -> PathBuf {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    std::fs::write(directory.join("tls.crt"), certificate.pem()).unwrap();
    std::fs::write(directory.join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(directory.join("ca.crt"), authority.pem()).unwrap();
    directory.join("ca.crt")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_and_authorities_are_files_and_are_read_again() {
    let Some(mut server) = Server::start("secured").await else { return };
    let directory = server.directory.clone();
    let authority = certificates(&directory);
    let token = directory.join("token");
    let tls = format!(
        "tls {{cert_file: \"{}\", key_file: \"{}\"}}",
        directory.join("tls.crt").display(),
        directory.join("tls.key").display()
    );
    let secure = |server: &mut Server, token: &str| {
        server.kill();
        configure(&directory, server.port, &format!("{tls}\nauthorization {{token: {token}}}"));
        let program = std::fs::read_to_string(directory.join("program")).unwrap();
        server.child = run(&PathBuf::from(program), &directory.join("server.conf"));
    };
    let settings: SourceSettings = serde_json::from_value(json!({
        "nats": {"servers": [format!("tls://127.0.0.1:{}", server.port)], "stream": "s", "consumer": "c",
            "tokenFile": token, "caFile": authority}}))
    .unwrap();
    let dead = DeadLetter { subject: "dead".into() };
    let mut source = Nats::new(settings, dead, Lane::Main, Arc::default());
    let mut said = async |expected: &str| {
        let credit = Credit { bytes: 1 << 20, messages: 1 };
        let started = Instant::now();
        loop {
            let error = source.poll(credit).await.expect_err("there is no stream").to_string();
            assert!(!error.contains("hunter"), "{error}");
            if error.contains(expected) {
                return;
            }
            assert!(started.elapsed() < LONG, "{error}");
            sleep(Duration::from_millis(50)).await;
        }
    };
    // Whoever is let in is told that there is no stream.
    let inside = "no stream has [dead]";
    std::fs::write(&token, "hunter2\n").unwrap();
    secure(&mut server, "hunter2");
    said(inside).await;
    secure(&mut server, "hunter3");
    said("authorization").await;
    std::fs::write(&token, "hunter3").unwrap();
    said(inside).await;
    // Another authority answers for the server now.
    let before = std::fs::read(&authority).unwrap();
    certificates(&directory);
    let after = std::fs::read(&authority).unwrap();
    std::fs::write(&authority, before).unwrap();
    secure(&mut server, "hunter3");
    said("certificate").await;
    std::fs::write(&authority, after).unwrap();
    said(inside).await;
}
