//! The driver for NATS JetStream: pulls through a durable consumer. Effects: network.
//!
//! A pull takes what is there, up to its credit, and ends; between two polls nothing is under way, so credit is never
//! exceeded. A queue that does not end a pull in its time has lost it: then the driver asks anew, under another name.

mod acks;
mod link;
mod settle;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull::BatchConfig;
use async_nats::{StatusCode, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use self::link::{Connected, Link};
use self::settle::Handle;
use super::meters::QueueMeters;
use super::settings::{DeadLetter, PARKING, QUEUE, SourceSettings};
use super::{Acknowledges, Capabilities, Credit, Delivery, Headers, OVERHEAD, Source, SourceError, Token};

/// How long a pull waits when there is nothing.
const EXPIRES: Duration = Duration::from_millis(500);
/// How long after that it is known to be lost.
const LOST_AFTER: Duration = Duration::from_secs(3);
/// Without a connection for so long, everything is made anew, with files read again.
const ANEW_AFTER: Duration = Duration::from_secs(10);
/// What the queue counts beside payload and headers: the subjects.
const SUBJECTS: usize = 4 << 10;
/// Most bytes of a message before the queue has said so: little, so that it is asked.
const LARGEST: usize = 64 << 10;
/// What is left of the time to close for returning what is still held.
const RETURNING: Duration = Duration::from_millis(500);

/// Most texts that are kept since messages have them in common.
const KNOWN: usize = 32;

/// Which of the two that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// What applications publish.
    Main,
    /// What the router has parked.
    Parked,
}

impl Lane {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Lane::Main => QUEUE,
            Lane::Parked => PARKING,
        }
    }
}

/// A reader of a consumer.
pub struct Nats {
    link: Arc<Link>,
    inbox: Option<Subscriber>,
    pull: Option<Pull>,
    gathered: Vec<Delivery>,
    known: Known,
    away_since: Option<Instant>,
    extending: tokio::task::JoinHandle<()>,
    telling: tokio::task::JoinHandle<()>,
}

/// A pull that is under way.
struct Pull {
    left: usize,
    lost_at: Instant,
}

impl Nats {
    /// A reader; connects when it is polled.
    pub fn new(settings: SourceSettings, dead: DeadLetter, lane: Lane, meters: Arc<QueueMeters>) -> Self {
        let (acks, done) = mpsc::unbounded_channel();
        let link = Arc::new(Link::new(settings, dead, lane, meters, acks));
        let extending = tokio::spawn(settle::extend(Arc::clone(&link)));
        let telling = tokio::spawn(acks::run(Arc::clone(&link), done));
        Self {
            link,
            inbox: None,
            pull: None,
            gathered: Vec::new(),
            known: Known::default(),
            away_since: None,
            extending,
            telling,
        }
    }

    /// A connection that works, made when there is none.
    async fn connected(&mut self) -> Result<Arc<Connected>, SourceError> {
        if let Some(connected) = self.link.connected() {
            if connected.client.connection_state() == State::Connected {
                self.away_since = None;
                return Ok(connected);
            }
            let since = *self.away_since.get_or_insert_with(Instant::now);
            if since.elapsed() < ANEW_AFTER {
                return Err(SourceError::Unavailable("there is no connection".to_owned()));
            }
            self.reset();
        }
        let connected = self.link.connect().await?;
        self.away_since = None;
        Ok(connected)
    }

    /// Forgets the connection: the next one reads files and checks the consumer again.
    fn reset(&mut self) {
        self.link.disconnect();
        self.inbox = None;
        self.pull = None;
        self.away_since = None;
    }

    async fn start(&mut self, connected: &Connected, credit: Credit) -> Result<(), SourceError> {
        let away = |error: &dyn std::error::Error| SourceError::Unavailable(link::text(error));
        let subject = match &self.inbox {
            Some(_) => connected.inbox(),
            None => {
                let subject = self.link.new_inbox(&connected.client);
                let subscribed = connected.client.subscribe(subject.clone()).await;
                self.inbox = Some(subscribed.map_err(|error| away(&error))?);
                subject
            }
        };
        // Each message costs more here than the queue counts.
        let spare = credit.bytes.saturating_sub(connected.largest) / OVERHEAD;
        let batch = credit.messages.min(spare).max(1);
        let request = BatchConfig {
            batch,
            expires: Some(EXPIRES),
            no_wait: true,
            max_bytes: credit.bytes.saturating_sub(batch.saturating_mul(OVERHEAD)),
            ..BatchConfig::default()
        };
        let sent = connected.consumer.request_batch(request, subject.into()).await;
        sent.map_err(|error| away(&error))?;
        self.pull = Some(Pull { left: batch, lost_at: Instant::now() + EXPIRES + LOST_AFTER });
        Ok(())
    }

    /// Takes what the pull brings until it ends.
    async fn gather(&mut self, connected: &Connected) -> Result<(), SourceError> {
        let mut context = connected.context.clone();
        while let (Some(pull), Some(inbox)) = (&mut self.pull, &mut self.inbox) {
            if pull.left == 0 {
                self.pull = None;
                break;
            }
            let Ok(Some(message)) = timeout_at(pull.lost_at, inbox.next()).await else {
                // Whatever still comes of it goes nowhere, and is delivered again.
                self.pull = None;
                self.inbox = None;
                return Err(SourceError::Unavailable("a pull was not answered".to_owned()));
            };
            match message.status.unwrap_or(StatusCode::OK) {
                StatusCode::OK => {
                    pull.left -= 1;
                    let message = Message { message, context };
                    match delivery(&message, &self.link, &mut self.known) {
                        Some(delivery) => self.gathered.push(delivery),
                        None => tracing::error!("a message has no reply subject of JetStream"),
                    }
                    context = message.context;
                }
                StatusCode::IDLE_HEARTBEAT => {}
                StatusCode::NOT_FOUND | StatusCode::TIMEOUT => self.pull = None,
                status => {
                    self.pull = None;
                    let said = message.description.unwrap_or_default().to_string();
                    // Its credit is used up; or another router asks, too.
                    let over =
                        ["MaxBytes", "MaxWaiting", "Batch Completed", "Leadership Change", "Server Shutdown"];
                    if over.iter().any(|over| said.contains(over)) {
                        break;
                    }
                    // The consumer is gone, or nobody is there.
                    self.reset();
                    return Err(SourceError::Unavailable(format!(
                        "a pull was answered with {status} {said}"
                    )));
                }
            }
        }
        Ok(())
    }
}

fn delivery(message: &Message, link: &Arc<Link>, known: &mut Known) -> Option<Delivery> {
    let info = message.info().ok()?;
    let (stream, sequence) = (known.text(info.stream), info.stream_sequence);
    let attempt = u64::try_from(info.delivered).unwrap_or(1);
    let (published, behind) = (info.published.into(), Some(info.pending));
    let reply = message.reply.clone()?;
    let mut headers = Headers::default();
    for (name, values) in message.headers.iter().flat_map(|headers| headers.iter()) {
        let name = known.text(name.as_ref());
        headers.0.extend(values.iter().map(|value| (Arc::clone(&name), value.as_str().to_owned())));
    }
    let number = link.held.insert(reply.clone());
    let handle = Handle { link: Arc::clone(link), number, reply };
    Some(Delivery {
        // What was read together is one buffer: a slice would keep it.
        payload: Bytes::copy_from_slice(&message.payload),
        headers,
        stream,
        sequence,
        attempt,
        published,
        behind,
        token: Token::new(Box::new(handle)),
    })
}

/// Texts that nearly all messages have, each kept once: the stream, and names of headers.
#[derive(Default)]
struct Known(Vec<Arc<str>>);

impl Known {
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.iter().find(|known| &***known == text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        // Somebody may make up names.
        if self.0.len() < KNOWN {
            self.0.push(Arc::clone(&new));
        }
        new
    }
}

impl Source for Nats {
    fn capabilities(&self) -> Capabilities {
        let largest = self.link.connected().map_or(LARGEST, |connected| connected.largest);
        Capabilities { acknowledges: Acknowledges::Individually, delays: true, largest }
    }

    async fn poll(&mut self, credit: Credit) -> Result<Vec<Delivery>, SourceError> {
        let connected = self.connected().await?;
        if credit.bytes < connected.largest.saturating_add(OVERHEAD) {
            // Known only now: the next credit is as large as it has to be.
            return Ok(Vec::new());
        }
        if self.pull.is_none() && self.gathered.is_empty() {
            self.start(&connected, credit).await?;
        }
        match self.gather(&connected).await {
            Err(error) if self.gathered.is_empty() => Err(error),
            // What came is handed on; what is wrong shows again.
            _ => Ok(std::mem::take(&mut self.gathered)),
        }
    }

    async fn close(&mut self, until: Instant) {
        if let Some(connected) = self.link.connected()
            && let Some(pull) = &mut self.pull
        {
            pull.lost_at = pull.lost_at.min(until);
            self.gather(&connected).await.ok();
        }
        self.inbox = None;
        // Nobody has begun with these: others can have them at once.
        self.gathered.drain(..).for_each(|delivery| delivery.token.retry(Duration::ZERO));
        self.link.held.empty(until.checked_sub(RETURNING).unwrap_or(until)).await;
        self.link.closed.store(true, Ordering::Release);
        settle::return_all(&self.link, until).await;
        self.extending.abort();
        self.telling.abort();
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.extending.abort();
        self.telling.abort();
    }
}
