//! A queue in memory, as simple as one can be that has leases.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use searchcell_router::source::held::Held;
use searchcell_router::source::meters::QueueMeters;
use searchcell_router::source::nats::Lane;
use searchcell_router::source::{
    Acknowledges, Capabilities, Credit, Decision, Delivery, Headers, Hold, Letter, Settle, Source,
    SourceError, Token,
};
use tokio::time::{Instant, sleep};

use super::harness::{ACK_WAIT, Copy, Queue};

#[derive(Default)]
struct State {
    sequence: u64,
    /// What is to be delivered, and from when on.
    ready: VecDeque<(Instant, Message)>,
    /// What is held, and until when.
    held: BTreeMap<u64, (Instant, Message)>,
}

#[derive(Clone)]
struct Message {
    sequence: u64,
    attempt: u64,
    payload: Bytes,
    headers: Headers,
    published: SystemTime,
}

#[derive(Default)]
struct Shared {
    lanes: [Mutex<State>; 2],
    dead: Mutex<Vec<Letter>>,
    refuses_copies: Mutex<bool>,
    away: Mutex<bool>,
}

#[derive(Clone, Default)]
pub struct Memory(Arc<Shared>);

impl Memory {
    pub async fn start(_: &str) -> Option<Self> {
        Some(Self::default())
    }
}

fn number(lane: Lane) -> usize {
    usize::from(lane == Lane::Parked)
}

impl Shared {
    fn put(&self, lane: usize, payload: Bytes, headers: Headers) {
        let mut state = self.lanes[lane].lock().unwrap();
        state.sequence += 1;
        let message =
            Message { sequence: state.sequence, attempt: 0, payload, headers, published: SystemTime::now() };
        state.ready.push_back((Instant::now(), message));
    }

    /// What is held is held no longer; it may have been delivered again meanwhile.
    fn take(&self, lane: usize, sequence: u64) -> Option<Message> {
        let mut state = self.lanes[lane].lock().unwrap();
        if let Some((_, message)) = state.held.remove(&sequence) {
            return Some(message);
        }
        let at = state.ready.iter().position(|(_, message)| message.sequence == sequence)?;
        state.ready.remove(at).map(|(_, message)| message)
    }

    fn give_back(&self, lane: usize, sequence: u64, after: Duration) {
        if let Some(message) = self.take(lane, sequence) {
            self.lanes[lane].lock().unwrap().ready.push_back((Instant::now() + after, message));
        }
    }

    fn is(&self, what: &Mutex<bool>) -> bool {
        *what.lock().unwrap()
    }
}

pub struct Reader {
    shared: Arc<Shared>,
    lane: usize,
    held: Arc<Held<u64>>,
    extending: tokio::task::JoinHandle<()>,
}

struct Handle {
    shared: Arc<Shared>,
    lane: usize,
    sequence: u64,
    number: u64,
    held: Arc<Held<u64>>,
}

impl Settle for Handle {
    fn settle(self: Box<Self>, decision: Decision, hold: Option<Hold>) {
        tokio::spawn(async move {
            let pause = Duration::from_millis(20);
            let copies = matches!(decision, Decision::Park(_) | Decision::Dead(_));
            while self.shared.is(&self.shared.away) || (copies && self.shared.is(&self.shared.refuses_copies))
            {
                sleep(pause).await;
            }
            match decision {
                Decision::Ack => drop(self.shared.take(self.lane, self.sequence)),
                Decision::Retry(after) => self.shared.give_back(self.lane, self.sequence, after),
                Decision::Abandon => self.shared.give_back(self.lane, self.sequence, Duration::ZERO),
                Decision::Park(letter) => {
                    self.shared.put(1, letter.payload, letter.headers);
                    self.shared.take(self.lane, self.sequence);
                }
                Decision::Dead(letter) => {
                    self.shared.dead.lock().unwrap().push(letter);
                    self.shared.take(self.lane, self.sequence);
                }
            }
            self.held.remove(self.number);
            drop(hold);
        });
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.extending.abort();
    }
}

impl Source for Reader {
    fn capabilities(&self) -> Capabilities {
        Capabilities { acknowledges: Acknowledges::Individually, delays: true, largest: 64 << 10 }
    }

    async fn poll(&mut self, credit: Credit) -> Result<Vec<Delivery>, SourceError> {
        tokio::task::yield_now().await;
        if self.shared.is(&self.shared.away) {
            return Err(SourceError::Unavailable("it is away".to_owned()));
        }
        let mut deliveries = Vec::new();
        {
            let mut state = self.shared.lanes[self.lane].lock().unwrap();
            let now = Instant::now();
            let over: Vec<u64> =
                state.held.iter().filter(|(_, (until, _))| *until <= now).map(|(at, _)| *at).collect();
            for sequence in over {
                let (_, message) = state.held.remove(&sequence).unwrap();
                state.ready.push_back((now, message));
            }
            let mut bytes = 0;
            while deliveries.len() < credit.messages {
                let Some(at) = state.ready.iter().position(|(from, _)| *from <= now) else { break };
                let cost = {
                    let (_, message) = &state.ready[at];
                    message.payload.len() + message.headers.bytes() + searchcell_router::source::OVERHEAD
                };
                if bytes + cost > credit.bytes {
                    break;
                }
                bytes += cost;
                let (_, mut message) = state.ready.remove(at).unwrap();
                message.attempt += 1;
                state.held.insert(message.sequence, (now + ACK_WAIT, message.clone()));
                let number = self.held.insert(message.sequence);
                let (shared, held) = (Arc::clone(&self.shared), Arc::clone(&self.held));
                let handle = Handle { shared, lane: self.lane, sequence: message.sequence, number, held };
                deliveries.push(Delivery {
                    payload: message.payload,
                    headers: message.headers,
                    stream: "memory".into(),
                    sequence: message.sequence,
                    attempt: message.attempt,
                    published: message.published,
                    behind: None,
                    token: Token::new(Box::new(handle)),
                });
            }
        }
        if deliveries.is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
        Ok(deliveries)
    }

    async fn close(&mut self, until: Instant) {
        self.held.empty(until).await;
        for (_, sequence) in self.held.all() {
            self.shared.give_back(self.lane, sequence, Duration::ZERO);
        }
        self.extending.abort();
    }
}

impl Queue for Memory {
    type Source = Reader;

    async fn publish(&self, payload: &str, headers: &[(&str, &str)]) {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).to_owned()));
        self.0.put(0, Bytes::from(payload.to_owned()), Headers(headers.collect()));
    }

    fn source(&self, lane: Lane) -> Reader {
        let held: Arc<Held<u64>> = Arc::default();
        let (shared, lane) = (Arc::clone(&self.0), number(lane));
        let extending = {
            let (shared, held) = (Arc::clone(&shared), Arc::clone(&held));
            tokio::spawn(async move {
                loop {
                    sleep(ACK_WAIT / 8).await;
                    for sequence in held.due(ACK_WAIT / 3) {
                        let mut state = shared.lanes[lane].lock().unwrap();
                        if let Some((until, _)) = state.held.get_mut(&sequence) {
                            *until = Instant::now() + ACK_WAIT;
                        }
                    }
                }
            })
        };
        Reader { shared, lane, held, extending }
    }

    async fn dead(&self) -> Vec<Copy> {
        let dead = self.0.dead.lock().unwrap();
        let copy = |letter: &Letter| Copy {
            payload: String::from_utf8(letter.payload.to_vec()).unwrap(),
            headers: letter.headers.0.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
        };
        dead.iter().map(copy).collect()
    }

    async fn left(&self, lane: Lane) -> usize {
        let state = self.0.lanes[number(lane)].lock().unwrap();
        state.ready.len() + state.held.len()
    }

    async fn takes_copies(&self, yes: bool) {
        *self.0.refuses_copies.lock().unwrap() = !yes;
    }

    async fn restart(&mut self) {
        *self.0.away.lock().unwrap() = true;
        sleep(Duration::from_millis(300)).await;
        *self.0.away.lock().unwrap() = false;
    }

    fn meters(&self) -> Option<Arc<QueueMeters>> {
        None
    }
}
