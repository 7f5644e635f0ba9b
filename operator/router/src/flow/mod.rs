//! The flow of operations from their sources to their destinations. `README.md` of this package explains it.
//!
//! [`Core::submit`] → an owner per group of clusters ([`owner`]) → a line of destinations per cluster ([`cluster`]) →
//! what waits per destination ([`destination`]) → one bulk of one destination → [`reply`], with [`quick`] → [`classify`] → an
//! [`answer`] for each operation, exactly once.

pub mod aimd;
pub mod answer;
pub mod budget;
pub mod classify;
pub mod cluster;
pub mod destination;
pub mod judge;
pub mod lane;
pub mod limits;
pub mod owner;
pub mod quick;
pub mod reply;
pub mod segment;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use xxhash_rust::xxh3::xxh3_64;

use self::budget::{Budget, Lease};
use self::cluster::View;
use self::limits::Limits;
use self::owner::{Message, Owner, Parcel};
use crate::meters::Meters;
use crate::transport::Transport;

/// All owners.
pub struct Core {
    owners: Vec<mpsc::UnboundedSender<Message>>,
    budget: Arc<Budget>,
}

impl Core {
    /// Starts so many owners. `timeout`: of one bulk; `seed`: of the randomness in pauses.
    pub fn start<T: Transport>(
        transport: Arc<T>,
        limits: Limits,
        meters: Arc<Meters>,
        owners: usize,
        timeout: Duration,
        seed: u64,
    ) -> Self {
        let budget = Budget::new(limits.budget);
        let limits = Arc::new(limits);
        let owners = (0_u64..)
            .take(owners.max(1))
            .filter_map(|number| {
                let (transport, limits, meters) =
                    (Arc::clone(&transport), Arc::clone(&limits), Arc::clone(&meters));
                Some(Owner::start(transport, limits, meters, budget.take(0)?, timeout, seed ^ number))
            })
            .collect();
        Self { owners, budget }
    }

    /// The budget that everything in flight is counted against.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Takes operations, each of which will be answered exactly once. `lease` holds at least the sum of their costs.
    pub fn submit(&self, parcels: Vec<Parcel>, mut lease: Lease) {
        let count = u64::try_from(self.owners.len()).unwrap_or(1).max(1);
        let mut parts: BTreeMap<u64, Vec<Parcel>> = BTreeMap::new();
        for parcel in parcels {
            parts.entry(xxh3_64(parcel.cluster.as_bytes()) % count).or_default().push(parcel);
        }
        for (number, parcels) in parts {
            let cost = parcels.iter().map(|parcel| parcel.segment.cost()).sum();
            let part = lease.split(cost);
            let owner = usize::try_from(number).ok().and_then(|number| self.owners.get(number));
            // An owner that is gone leaves the tickets, and they answer for themselves.
            if let Some(owner) = owner {
                owner.send(Message::Offer(parcels, part)).ok();
            }
        }
    }

    /// What all destinations look like, by cluster.
    pub async fn views(&self) -> BTreeMap<String, Vec<View>> {
        let mut all = BTreeMap::new();
        for owner in &self.owners {
            let (told, answer) = oneshot::channel();
            if owner.send(Message::Look(told)).is_ok() {
                all.extend(answer.await.unwrap_or_default());
            }
        }
        all
    }

    /// Ends what waits of tenants whom a migration moves, because nobody knows any more where it is to go.
    pub fn fence(&self) {
        for owner in &self.owners {
            owner.send(Message::Fence).ok();
        }
    }

    /// Waits until nothing is left, for at most `grace`; then what waits is answered as unsent.
    pub async fn stop(&self, grace: Duration) {
        let waits: Vec<_> = (self.owners.iter())
            .filter_map(|owner| {
                let (told, drained) = oneshot::channel();
                owner.send(Message::Drain(told)).ok().map(|()| drained)
            })
            .collect();
        let all = async {
            for drained in waits {
                drained.await.ok();
            }
        };
        if tokio::time::timeout(grace, all).await.is_err() {
            for owner in &self.owners {
                owner.send(Message::Stop).ok();
            }
        }
    }
}
