//! An owner: a task that has whole clusters to itself, so that nothing of a cluster is shared. Effects: sends bulks
//! through the transport, answers tickets, counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::budget::Lease;
use super::cluster::{Cluster, Outgoing, View};
use super::limits::{Dice, Limits, Step, Tally};
use super::segment::Segment;
use crate::meters::Meters;
use crate::transport::{Bulk, Reply, Transport};

/// Messages that are handled before bulks are sent for them together.
const TOGETHER: usize = 64;

/// Operations of one destination.
#[derive(Debug)]
pub struct Parcel {
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// Name of the index.
    pub index: Arc<str>,
    /// The operations.
    pub segment: Segment,
}

/// What an owner is told.
pub enum Message {
    /// Operations, and their part of the budget.
    Offer(Vec<Parcel>, Lease),
    /// What came of a bulk.
    Came {
        /// Name of the cluster.
        cluster: Arc<str>,
        /// Number of the bulk.
        id: u64,
        /// What came.
        reply: Reply,
    },
    /// To tell what its clusters look like.
    Look(oneshot::Sender<BTreeMap<String, Vec<View>>>),
    /// That nothing more comes; to tell when nothing is left.
    Drain(oneshot::Sender<()>),
    /// To answer what waits of tenants whom a migration moves.
    Fence,
    /// To answer all that waits.
    Stop,
}

/// An owner of clusters.
pub struct Owner<T> {
    transport: Arc<T>,
    limits: Arc<Limits>,
    meters: Arc<Meters>,
    messages: mpsc::UnboundedReceiver<Message>,
    own: mpsc::WeakUnboundedSender<Message>,
    timeout: Duration,
    clusters: BTreeMap<Arc<str>, Cluster>,
    lease: Lease,
    dice: Dice,
    draining: Vec<oneshot::Sender<()>>,
    hurried: bool,
}

impl<T: Transport> Owner<T> {
    /// An owner; `lease` is an empty one of the budget that operations come with. `timeout`: of one bulk.
    pub fn start(
        transport: Arc<T>,
        limits: Arc<Limits>,
        meters: Arc<Meters>,
        lease: Lease,
        timeout: Duration,
        seed: u64,
    ) -> mpsc::UnboundedSender<Message> {
        // Unbounded, because what is in it is counted by the budget.
        let (sender, messages) = mpsc::unbounded_channel();
        let owner = Self {
            transport,
            limits,
            meters,
            messages,
            own: sender.downgrade(),
            timeout,
            clusters: BTreeMap::new(),
            lease,
            dice: Dice::new(seed),
            draining: Vec::new(),
            hurried: false,
        };
        tokio::spawn(owner.run());
        sender
    }

    async fn run(mut self) {
        let mut batch = Vec::with_capacity(TOGETHER);
        loop {
            let next = self.next();
            let timer = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                count = self.messages.recv_many(&mut batch, TOGETHER) => if count == 0 { return },
                () = timer => {}
            }
            let mut touched = BTreeSet::new();
            for message in batch.drain(..) {
                self.handle(message, &mut touched);
            }
            let now = Instant::now();
            let due = |cluster: &Cluster| cluster.next(now).is_some_and(|next| next <= now);
            touched.extend(self.clusters.iter().filter(|(_, c)| due(c)).map(|(name, _)| Arc::clone(name)));
            for name in touched {
                let outgoing = self.step(&name, |cluster, step| cluster.pump(step));
                self.send(&name, outgoing);
            }
            if !self.draining.is_empty() && self.clusters.values().all(Cluster::idle) {
                self.draining.drain(..).for_each(|told| {
                    told.send(()).ok();
                });
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        let now = Instant::now();
        self.clusters.values().filter_map(|cluster| cluster.next(now)).min()
    }

    fn handle(&mut self, message: Message, touched: &mut BTreeSet<Arc<str>>) {
        match message {
            Message::Offer(parcels, lease) => {
                self.lease.merge(lease);
                for parcel in parcels {
                    let Parcel { cluster, index, mut segment } = parcel;
                    segment.flush |= self.hurried;
                    self.step(&cluster, |cluster, step| cluster.offer(&index, segment, step));
                    touched.insert(cluster);
                }
            }
            Message::Came { cluster, id, reply } => {
                self.step(&cluster, |cluster, step| cluster.complete(id, reply, step));
                touched.insert(cluster);
            }
            Message::Look(told) => {
                let now = Instant::now();
                let views = |(name, cluster): (&Arc<str>, &Cluster)| (name.to_string(), cluster.views(now));
                told.send(self.clusters.iter().map(views).collect()).ok();
            }
            Message::Drain(told) => {
                self.draining.push(told);
                self.hurried = true;
                touched.extend(self.each(|cluster, step| cluster.hurry(step)));
            }
            Message::Fence => touched.extend(self.each(|cluster, step| cluster.fence(step))),
            Message::Stop => touched.extend(self.each(|cluster, step| cluster.stop(step))),
        }
    }

    fn each(&mut self, mut what: impl FnMut(&mut Cluster, &mut Step<'_>)) -> Vec<Arc<str>> {
        let names: Vec<Arc<str>> = self.clusters.keys().map(Arc::clone).collect();
        for name in &names {
            self.step(name, &mut what);
        }
        names
    }

    fn step<R>(&mut self, name: &Arc<str>, what: impl FnOnce(&mut Cluster, &mut Step<'_>) -> R) -> R {
        let limits = Arc::clone(&self.limits);
        let cluster = self.clusters.entry(Arc::clone(name)).or_insert_with(|| Cluster::new(&limits));
        let mut tally = Tally::default();
        let mut step = Step { now: Instant::now(), limits: &limits, dice: &mut self.dice, tally: &mut tally };
        let result = what(cluster, &mut step);
        self.lease.give_back(tally.freed);
        self.meters.record(name, &tally, cluster.concurrency(), cluster.cost());
        result
    }

    fn send(&self, name: &Arc<str>, outgoing: Vec<Outgoing>) {
        for Outgoing { id, index, body, items } in outgoing {
            // None: nobody is left who could be told, so nobody sends either.
            let Some(owner) = self.own.upgrade() else { return };
            let mut promise = Promise { owner, cluster: Arc::clone(name), id, kept: false };
            let bulk = Bulk { cluster: Arc::clone(name), index, body, items, timeout: self.timeout };
            let transport = Arc::clone(&self.transport);
            tokio::spawn(async move {
                let reply = transport.bulk(bulk).await;
                promise.keep(reply);
            });
        }
    }
}

/// That an owner learns what came of a bulk, whatever happens to the task that carries it.
struct Promise {
    owner: mpsc::UnboundedSender<Message>,
    cluster: Arc<str>,
    id: u64,
    kept: bool,
}

impl Promise {
    fn keep(&mut self, reply: Reply) {
        if !std::mem::replace(&mut self.kept, true) {
            let cluster = Arc::clone(&self.cluster);
            self.owner.send(Message::Came { cluster, id: self.id, reply }).ok();
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.keep(Reply::Lost("the request was given up".to_owned()));
    }
}
