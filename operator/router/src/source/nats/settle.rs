//! Carries out what was decided of messages, and keeps those from being delivered again that nothing was decided of
//! yet. Effects: network, counts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::client::{Request, RequestErrorKind};
use async_nats::connection::State;
use async_nats::header::HeaderMap;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::{AckKind, PublishMessage};
use async_nats::{HeaderName, HeaderValue, Subject};
use tokio::time::{Instant, sleep, timeout_at};

use super::link::{Connected, Link};
use crate::source::{Decision, Hold, Letter, Settle};

/// First pause before the queue is told again; it doubles.
const AGAIN: Duration = Duration::from_millis(100);
/// Longest pause before the queue is told again.
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// How long the queue may take to say that it knows.
const KNOWS: Duration = Duration::from_secs(3);
/// How often a queue that is there is told of an acknowledgement that it does not confirm.
const TELLINGS: u32 = 8;
/// How long a message stays away whose copy cannot be published, since it is too large with what is added to it.
const TOO_LARGE: Duration = Duration::from_secs(60);

/// A message that was delivered.
pub struct Handle {
    /// Whom to tell.
    pub link: Arc<Link>,
    /// Its number among those that are held.
    pub number: u64,
    /// Where to tell.
    pub reply: Subject,
}

impl Settle for Handle {
    fn settle(self: Box<Self>, decision: Decision, hold: Option<Hold>) {
        // Without a runtime the process is about to end, and the queue delivers the message again.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let became = self.carry_out(decision).await;
                self.link.held.remove(self.number);
                self.link.meters.settled(self.link.lane.name(), became);
                drop(hold);
            });
        }
    }
}

impl Handle {
    // Nearly all of them are acknowledgements: what others need has memory of its own.
    async fn carry_out(&self, decision: Decision) -> &'static str {
        let (kind, became) = match decision {
            Decision::Ack => (AckKind::Ack, "acked"),
            Decision::Retry(after) => (nak(after), "retried"),
            Decision::Abandon => (nak(Duration::ZERO), "abandoned"),
            Decision::Park(letter) => {
                let parking = self.link.settings.parking.as_ref().map(|parking| parking.subject.as_str());
                Box::pin(self.publish(parking.unwrap_or_default(), &letter, "parked")).await
            }
            Decision::Dead(letter) => Box::pin(self.publish(&self.link.dead.subject, &letter, "dead")).await,
        };
        if self.tell(kind).await { became } else { "unconfirmed" }
    }

    /// Publishes a copy, for as long as it takes; then the original is done.
    async fn publish(&self, subject: &str, letter: &Letter, became: &'static str) -> (AckKind, &'static str) {
        let mut pause = AGAIN;
        loop {
            if let Some(connected) = self.connection() {
                let message =
                    PublishMessage::build().payload(letter.payload.clone()).headers(headers(letter));
                let published = match connected.context.send_publish(subject.to_owned(), message).await {
                    Ok(confirmed) => confirmed.await.map(|_| ()),
                    Err(error) => Err(error),
                };
                match published {
                    Ok(()) => return (AckKind::Ack, became),
                    Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                        tracing::error!(
                            subject,
                            "a copy of a message is too large for the queue: it stays there"
                        );
                        return (nak(TOO_LARGE), "retried");
                    }
                    Err(error) => {
                        tracing::warn!(subject, %error, "a copy of a message is not published: again");
                    }
                }
            }
            if self.link.closed.load(Ordering::Acquire) {
                return (nak(Duration::ZERO), "retried");
            }
            sleep(pause).await;
            pause = (pause * 2).min(AGAIN_MAX);
        }
    }

    /// Tells the queue, until it confirms. False: it never did, and may deliver the message again.
    async fn tell(&self, kind: AckKind) -> bool {
        let payload: bytes::Bytes = kind.into();
        let (mut pause, mut tellings) = (AGAIN, 0);
        while tellings < TELLINGS {
            if let Some(connected) = self.connection() {
                tellings += 1;
                let request = Request::new().payload(payload.clone()).timeout(Some(KNOWS));
                match connected.client.send_request(self.reply.clone(), request).await {
                    Ok(_) => return true,
                    // It is there, and its streams are not yet.
                    Err(error) if error.kind() == RequestErrorKind::NoResponders => {}
                    Err(_) => {}
                }
            }
            if self.link.closed.load(Ordering::Acquire) {
                return false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(AGAIN_MAX);
        }
        false
    }

    fn connection(&self) -> Option<Arc<Connected>> {
        self.link.connected().filter(|connected| connected.client.connection_state() == State::Connected)
    }
}

fn nak(after: Duration) -> AckKind {
    AckKind::Nak(Some(after).filter(|after| !after.is_zero()))
}

/// Of the original headers, those of NATS itself were for that message alone.
fn headers(letter: &Letter) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &letter.headers.0 {
        let own = name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("nats-"));
        if let (false, Ok(name), Ok(value)) = (own, name.parse::<HeaderName>(), value.parse::<HeaderValue>())
        {
            headers.append(name, value);
        }
    }
    headers.insert("Nats-Msg-Id", letter.id.as_str());
    headers
}

/// Extends the leases of what is held, for as long as it runs.
pub async fn extend(link: Arc<Link>) {
    loop {
        // Looked at often enough that each is extended before half of its time is over.
        let third = link.ack_wait() / 3;
        sleep(third / 4).await;
        let Some(connected) = link.connected() else { continue };
        if connected.client.connection_state() != State::Connected {
            continue;
        }
        for reply in link.held.due(third) {
            if connected.client.publish(reply, AckKind::Progress.into()).await.is_ok() {
                link.meters.extended.inc();
            }
        }
    }
}

/// Returns what is still held, as far as the time until `until` goes.
pub async fn return_all(link: &Link, until: Instant) {
    let Some(connected) = link.connected() else { return };
    let all = async {
        for (number, reply) in link.held.all() {
            if connected.client.publish(reply, nak(Duration::ZERO).into()).await.is_ok() {
                link.held.remove(number);
                link.meters.settled(link.lane.name(), "retried");
            }
        }
        connected.client.flush().await.ok();
    };
    timeout_at(until, all).await.ok();
}
