//! A connection to NATS, and the consumer that is read through it: made when it is absent, refused when it would lose
//! messages. Effects: network, reads files.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::client::Request;
use async_nats::connection::State;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, pull};
use async_nats::jetstream::context::GetStreamByNameErrorKind;
use async_nats::jetstream::stream::ConsumerErrorKind;
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{Client, ConnectOptions, ServerAddr, Subject};
use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::sleep;

use super::acks::Ack;
use super::{Lane, SUBJECTS};
use crate::sealed::Hidden;
use crate::source::SourceError;
use crate::source::held::Held;
use crate::source::meters::QueueMeters;
use crate::source::settings::{DeadLetter, SourceSettings, overlaps};

/// How long a connection, and each request on it, may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest pause before a connection is tried again.
const RECONNECT: Duration = Duration::from_secs(4);
/// First pause before the queue is told again; it doubles.
pub const AGAIN: Duration = Duration::from_millis(100);
/// Longest pause before the queue is told again.
pub const AGAIN_MAX: Duration = Duration::from_secs(5);
/// How long the queue may take to say that it knows.
const KNOWS: Duration = Duration::from_secs(3);
/// How often a queue that is there is told of something that it does not confirm.
const TELLINGS: u32 = 8;

/// What works.
pub struct Connected {
    /// The connection.
    pub client: Client,
    /// JetStream on it.
    pub context: Context,
    /// What is read.
    pub consumer: Consumer<pull::Config>,
    /// Bytes of the largest message that can be there, as the queue counts them.
    pub largest: usize,
    inbox: Mutex<String>,
}

impl Connected {
    /// Where pulls are answered.
    pub fn inbox(&self) -> String {
        self.inbox.lock().map(|inbox| inbox.clone()).unwrap_or_default()
    }

    /// Tells the queue once, and whether it confirms that it knows. It does not while its streams are still to come.
    ///
    /// It takes what comes on one connection in order, so that it has taken all when it confirms the last one.
    async fn tell(&self, replies: &[Subject], said: &Bytes) -> bool {
        let Some((last, others)) = replies.split_last() else { return true };
        let statistics = self.client.statistics();
        let connects = statistics.connects.load(Ordering::Acquire);
        for reply in others {
            if self.client.publish(reply.clone(), said.clone()).await.is_err() {
                return false;
            }
        }
        let request = Request::new().payload(said.clone()).timeout(Some(KNOWS));
        let confirmed = self.client.send_request(last.clone(), request).await.is_ok();
        // What was told on a connection that broke may be lost, although the last one was told on the next.
        confirmed && statistics.connects.load(Ordering::Acquire) == connects
    }
}

/// What a reader and those share who settle its messages.
pub struct Link {
    /// How to connect, and what to read.
    pub settings: SourceSettings,
    /// Where dead letters go.
    pub dead: DeadLetter,
    /// What is read.
    pub lane: Lane,
    /// Numbers.
    pub meters: Arc<QueueMeters>,
    /// Messages that the queue does not know the decision of, by the subject that it is told at.
    pub held: Held<Subject>,
    /// Takes messages that are done, to tell of them together.
    pub acks: UnboundedSender<Ack>,
    /// Whether nothing is to be told any more.
    pub closed: AtomicBool,
    ack_wait: AtomicU64,
    connected: Mutex<Option<Arc<Connected>>>,
}

impl Link {
    /// Not connected yet.
    pub fn new(
        settings: SourceSettings,
        dead: DeadLetter,
        lane: Lane,
        meters: Arc<QueueMeters>,
        acks: UnboundedSender<Ack>,
    ) -> Self {
        let ack_wait = AtomicU64::new(millis(settings.nats.ack_wait));
        let (held, closed, connected) = (Held::default(), AtomicBool::new(false), Mutex::default());
        Self { settings, dead, lane, meters, held, acks, closed, ack_wait, connected }
    }

    /// What works, as far as is known.
    pub fn connected(&self) -> Option<Arc<Connected>> {
        self.connected.lock().ok().and_then(|connected| connected.clone())
    }

    /// The same, unless its connection is broken.
    pub fn working(&self) -> Option<Arc<Connected>> {
        self.connected().filter(|connected| connected.client.connection_state() == State::Connected)
    }

    /// Tells the queue the same of one message or several, until it has confirmed; while there is no connection, that is
    /// waited for. False: it never did.
    pub async fn tell(&self, replies: &[Subject], said: &Bytes) -> bool {
        let (mut pause, mut tellings) = (AGAIN, 0);
        while tellings < TELLINGS {
            if let Some(connected) = self.working() {
                tellings += 1;
                if connected.tell(replies, said).await {
                    return true;
                }
            }
            if self.closed.load(Ordering::Acquire) {
                return false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(AGAIN_MAX);
        }
        false
    }

    /// Forgets it.
    pub fn disconnect(&self) {
        if let Ok(mut connected) = self.connected.lock() {
            *connected = None;
        }
    }

    /// How long the queue waits for a message that is held.
    pub fn ack_wait(&self) -> Duration {
        Duration::from_millis(self.ack_wait.load(Ordering::Relaxed))
    }

    /// A new place for the answers to pulls.
    pub fn new_inbox(&self, client: &Client) -> String {
        let new = client.new_inbox();
        if let Some(connected) = self.connected()
            && let Ok(mut inbox) = connected.inbox.lock()
        {
            inbox.clone_from(&new);
        }
        new
    }

    /// Connects, and sees to it that the consumer is as it has to be.
    pub async fn connect(&self) -> Result<Arc<Connected>, SourceError> {
        let client = self.open().await?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(TIMEOUT);
        let consumer = self.consumer(&context).await?;
        let config = &consumer.cached_info().config;
        self.ack_wait.store(millis(config.ack_wait).max(1), Ordering::Relaxed);
        let largest = client.max_payload().saturating_add(SUBJECTS);
        let inbox = Mutex::default();
        let connected = Arc::new(Connected { client, context, consumer, largest, inbox });
        if let Ok(mut known) = self.connected.lock() {
            *known = Some(Arc::clone(&connected));
        }
        Ok(connected)
    }

    async fn open(&self) -> Result<Client, SourceError> {
        let nats = &self.settings.nats;
        // Only the first one counts: the library takes the one of the process.
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut options = ConnectOptions::new()
            .name("searchcell-router")
            .connection_timeout(TIMEOUT)
            .request_timeout(Some(TIMEOUT))
            .reconnect_delay_callback(|tries| {
                let tries = u32::try_from(tries).unwrap_or(u32::MAX).min(16);
                Duration::from_millis(50).saturating_mul(1 << tries).min(RECONNECT)
            });
        if let Some(path) = &nats.ca_file {
            // Read here as well, since the library takes a file without certificates for one that trusts nobody.
            read(path, "source.nats.caFile")?;
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        if let Some(path) = &nats.credentials_file {
            let text = read(path, "source.nats.credentialsFile")?;
            options = options.credentials(text.reveal()).map_err(|_| {
                SourceError::Misconfigured(format!(
                    "source.nats.credentialsFile: {} has no credentials as nsc writes them",
                    path.display()
                ))
            })?;
        }
        if let (Some(user), Some(password)) = (&nats.user_file, &nats.password_file) {
            let user = read(user, "source.nats.userFile")?.reveal().trim_end().to_owned();
            let password = read(password, "source.nats.passwordFile")?;
            options = options.user_and_password(user, password.reveal().trim_end().to_owned());
        }
        if let Some(path) = &nats.token_file {
            options = options.token(read(path, "source.nats.tokenFile")?.reveal().trim_end().to_owned());
        }
        let servers: Result<Vec<ServerAddr>, _> = nats.servers.iter().map(|server| server.parse()).collect();
        let servers = servers.map_err(|_| {
            SourceError::Misconfigured("source.nats.servers: one of them is no address".to_owned())
        })?;
        options.connect(servers).await.map_err(|error| SourceError::Unavailable(text(&error)))
    }

    async fn consumer(&self, context: &Context) -> Result<Consumer<pull::Config>, SourceError> {
        let nats = &self.settings.nats;
        let parking = self.settings.parking.as_ref().map(|parking| &parking.subject);
        let mut homes = Vec::new();
        let targets = [("deadLetter.subject", Some(&self.dead.subject)), ("source.parking.subject", parking)];
        for (field, subject) in targets.into_iter().filter_map(|(field, subject)| Some((field, subject?))) {
            homes.push((field, subject, home(context, field, subject).await?));
        }
        let (name, stream, filter) = match (self.lane, parking) {
            (Lane::Parked, Some(subject)) => {
                let home = homes.iter().find(|(field, ..)| *field == "source.parking.subject");
                let stream = home.map(|(.., stream)| stream.clone()).unwrap_or_default();
                (format!("{}-parked", nats.consumer), stream, Some(subject.clone()))
            }
            _ => (nats.consumer.clone(), nats.stream.clone(), nats.subject.clone()),
        };
        let consumer = match context.get_consumer_from_stream::<pull::Config, _, _>(&name, &stream).await {
            Ok(consumer) => consumer,
            Err(error) if is(&error.kind(), ErrorCode::CONSUMER_NOT_FOUND) => {
                let config = pull::Config {
                    durable_name: Some(name.clone()),
                    ack_policy: AckPolicy::Explicit,
                    ack_wait: nats.ack_wait,
                    // The queue would drop messages silently: it is the router that gives up, with a dead letter.
                    max_deliver: -1,
                    max_ack_pending: i64::try_from(nats.max_ack_pending).unwrap_or(i64::MAX),
                    filter_subject: filter.clone().unwrap_or_default(),
                    ..pull::Config::default()
                };
                let made = context.create_consumer_on_stream(config, &stream).await;
                made.map_err(|error| refused(&error, &name, &stream))?
            }
            Err(error) => return Err(refused(&error, &name, &stream)),
        };
        self.check(&consumer, &name, filter.as_deref())?;
        if self.lane == Lane::Main {
            let config = &consumer.cached_info().config;
            let mut filters: Vec<&str> = config.filter_subjects.iter().map(String::as_str).collect();
            filters.extend(Some(config.filter_subject.as_str()).filter(|filter| !filter.is_empty()));
            for (field, subject, home) in &homes {
                let reads = filters.is_empty() || filters.iter().any(|filter| overlaps(filter, subject));
                if *home == stream && reads {
                    return Err(SourceError::Misconfigured(format!(
                        "{field}: consumer {name} reads [{subject}] itself: set source.nats.subject, or use another stream"
                    )));
                }
            }
        }
        Ok(consumer)
    }

    /// Whether a consumer loses nothing.
    fn check(
        &self,
        consumer: &Consumer<pull::Config>,
        name: &str,
        filter: Option<&str>,
    ) -> Result<(), SourceError> {
        let config = &consumer.cached_info().config;
        let wrong = if config.ack_policy != AckPolicy::Explicit {
            "its ack policy must be explicit".to_owned()
        } else if config.max_deliver > 0 {
            format!("its max_deliver is {}, after which messages are lost: it must be -1", config.max_deliver)
        } else if config.headers_only {
            "it delivers headers only".to_owned()
        } else if filter.is_some_and(|filter| {
            config.filter_subject != filter && config.filter_subjects.as_slice() != [filter.to_owned()]
        }) {
            format!(
                "it reads [{}], and source.nats.subject is [{}]",
                config.filter_subject,
                filter.unwrap_or_default()
            )
        } else {
            return Ok(());
        };
        Err(SourceError::Misconfigured(format!("consumer {name}: {wrong}; change it, or name another one")))
    }
}

/// The stream that a subject is in.
async fn home(context: &Context, field: &str, subject: &str) -> Result<String, SourceError> {
    context.stream_by_subject(subject).await.map_err(|error| match error.kind() {
        GetStreamByNameErrorKind::NotFound => SourceError::Misconfigured(format!(
            "{field}: no stream has [{subject}], so nothing would keep it: create one"
        )),
        _ => SourceError::Unavailable(text(&error)),
    })
}

fn is(kind: &ConsumerErrorKind, code: ErrorCode) -> bool {
    matches!(kind, ConsumerErrorKind::JetStream(error) if error.error_code() == code)
}

fn refused(error: &async_nats::jetstream::stream::ConsumerError, name: &str, stream: &str) -> SourceError {
    match error.kind() {
        ConsumerErrorKind::InvalidConsumerType => SourceError::Misconfigured(format!(
            "consumer {name} is a push consumer: name another one in source.nats.consumer"
        )),
        kind if is(&kind, ErrorCode::STREAM_NOT_FOUND) => {
            SourceError::Misconfigured(format!("source.nats.stream: there is no stream {stream}: create it"))
        }
        ConsumerErrorKind::JetStream(said) if said.code() < 500 => {
            SourceError::Misconfigured(format!("consumer {name}: {said}"))
        }
        _ => SourceError::Unavailable(text(error)),
    }
}

/// An error with what caused it.
pub fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    text
}

fn read(path: &Path, field: &str) -> Result<Hidden, SourceError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        SourceError::Misconfigured(format!("{field}: {} cannot be read: {}", path.display(), error.kind()))
    })?;
    Ok(Hidden::new(text))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
