//! Tells the queue of messages that are done: while it confirms some, others gather, and are told of together.
//! Effects: network, counts.

use std::sync::Arc;

use async_nats::Subject;
use async_nats::jetstream::message::AckKind;
use tokio::sync::mpsc::UnboundedReceiver;

use super::link::Link;
use crate::source::Hold;

/// Most messages that are told of together.
const TOGETHER: usize = 8_192;

/// A message that is done.
pub struct Ack {
    /// Its number among those that are held.
    pub number: u64,
    /// Where to tell.
    pub reply: Subject,
    /// What it holds until the queue knows.
    pub hold: Option<Hold>,
}

/// Tells of what is done, for as long as it runs.
pub async fn run(link: Arc<Link>, mut acks: UnboundedReceiver<Ack>) {
    let (mut batch, mut replies) = (Vec::new(), Vec::new());
    let said = AckKind::Ack.into();
    while acks.recv_many(&mut batch, TOGETHER).await > 0 {
        replies.extend(batch.iter().map(|ack| ack.reply.clone()));
        let became = if link.tell(&replies, &said).await { "acked" } else { "unconfirmed" };
        // Those that were returned meanwhile are counted as that.
        let count = link.held.remove_all(batch.iter().map(|ack| ack.number));
        link.meters.settled(link.lane.name(), became, count);
        batch.clear();
        replies.clear();
    }
}
