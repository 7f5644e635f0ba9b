//! Carries out what was decided of messages, and keeps those from being delivered again that nothing was decided of
//! yet. Effects: network, counts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::header::HeaderMap;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::{AckKind, PublishMessage};
use async_nats::{HeaderName, HeaderValue, Subject};
use tokio::sync::mpsc::error::SendError;
use tokio::time::{Instant, sleep, timeout_at};

use super::acks::Ack;
use super::link::{AGAIN, AGAIN_MAX, Link};
use crate::source::{Decision, Hold, Letter, Settle};

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
        let (decision, hold) = match decision {
            Decision::Ack => {
                let ack = Ack { number: self.number, reply: self.reply.clone(), hold };
                match self.link.acks.send(ack) {
                    Ok(()) => return,
                    // Nobody tells of them together any more.
                    Err(SendError(ack)) => (Decision::Ack, ack.hold),
                }
            }
            decision => (decision, hold),
        };
        // Without a runtime the process is about to end, and the queue delivers the message again.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let became = self.carry_out(decision).await;
                let count = self.link.held.remove(self.number);
                self.link.meters.settled(self.link.lane.name(), became, count);
                drop(hold);
            });
        }
    }
}

impl Handle {
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
        if self.link.tell(std::slice::from_ref(&self.reply), &kind.into()).await {
            became
        } else {
            "unconfirmed"
        }
    }

    /// Publishes a copy, for as long as it takes; then the original is done.
    async fn publish(&self, subject: &str, letter: &Letter, became: &'static str) -> (AckKind, &'static str) {
        let mut pause = AGAIN;
        loop {
            if let Some(connected) = self.link.working() {
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
                let count = link.held.remove(number);
                link.meters.settled(link.lane.name(), "retried", count);
            }
        }
        connected.client.flush().await.ok();
    };
    timeout_at(until, all).await.ok();
}
