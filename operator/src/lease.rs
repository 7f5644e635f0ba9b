//! Leader election on a Lease: one of several operators writes. Effects: reads and writes the Lease.
//!
//! Expiry is judged by this process's own monotonic clock since it last *saw the Lease change*; clocks of other
//! nodes are never compared. Every write carries the resource version, so that of two challengers one loses.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, PostParams};
use kube::{Client, Resource};
use searchcell_core::names::FIELD_MANAGER;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::clock::Clock;
use crate::leadership::Leadership;

/// How the Lease is kept.
#[derive(Clone, Copy, Debug)]
pub struct LeaseTuning {
    /// Without a change for this long, others take over.
    pub duration: Duration,
    /// The leader writes only until this long after its last renewal: earlier than others take over.
    pub deadline: Duration,
    /// Time between renewals.
    pub renew: Duration,
    /// Time between looks and tries.
    pub retry: Duration,
}

impl Default for LeaseTuning {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(30),
            deadline: Duration::from_secs(24),
            renew: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// The Lease as this process saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Who holds it; `None`: it was released.
    pub holder: Option<String>,
    /// How long it lasts without a change.
    pub duration: Duration,
    /// When this process first saw it as it is now.
    pub changed_at: Instant,
}

/// What to do about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// There is none.
    Create,
    /// It is ours.
    Renew,
    /// It was released, or its holder is silent for too long.
    TakeOver,
    /// Somebody else holds it.
    Wait,
}

/// Decides what to do. Pure.
pub fn decide(observed: Option<&Observed>, me: &str, now: Instant) -> Decision {
    let Some(observed) = observed else { return Decision::Create };
    match observed.holder.as_deref() {
        None | Some("") => Decision::TakeOver,
        Some(holder) if holder == me => Decision::Renew,
        Some(_) if now.saturating_duration_since(observed.changed_at) >= observed.duration => {
            Decision::TakeOver
        }
        Some(_) => Decision::Wait,
    }
}

/// One contender.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    me: String,
    tuning: LeaseTuning,
    leadership: Leadership,
    clock: Box<dyn Clock>,
    seen: Option<(Lease, Instant)>,
}

impl Elector {
    /// A contender for the Lease of that name. `me` is different in every process.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        me: String,
        tuning: LeaseTuning,
        leadership: Leadership,
        clock: Box<dyn Clock>,
    ) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, name: name.to_owned(), me, tuning, leadership, clock, seen: None }
    }

    /// Contends until it leads, then keeps the Lease until it is lost (then it returns true: the process ought to
    /// end) or `stop` is done (then the Lease is released). `leading` is told once.
    pub async fn run(mut self, stop: impl Future<Output = ()>, leading: oneshot::Sender<()>) -> bool {
        let mut leading = Some(leading);
        tokio::pin!(stop);
        loop {
            let wait = match self.turn().await {
                Ok(true) => {
                    if let Some(leading) = leading.take() {
                        tracing::info!(lease = self.name, me = self.me, "leads");
                        let _ = leading.send(());
                    }
                    self.tuning.renew
                }
                Ok(false) => self.tuning.retry,
                Err(error) => {
                    tracing::warn!(lease = self.name, %error, "the lease was not kept");
                    self.tuning.retry
                }
            };
            if leading.is_none() && !self.leadership.holds() {
                tracing::error!(lease = self.name, "leadership was lost");
                return true;
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = &mut stop => {
                    self.release().await;
                    return false;
                }
            }
        }
    }

    /// One look and, where that is due, one write. True: it leads now.
    async fn turn(&mut self) -> Result<bool, String> {
        let live = match timeout(self.tuning.renew, self.api.get_opt(&self.name)).await {
            Ok(Ok(live)) => live,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("the API server does not answer in time".to_owned()),
        };
        // Not from when it was asked for: a slow answer may be younger than the question by much.
        self.see(live, Instant::now());
        let decision = decide(self.observed().as_ref(), &self.me, Instant::now());
        let lease = match decision {
            Decision::Wait => {
                self.leadership.give_up();
                return Ok(false);
            }
            Decision::Create | Decision::Renew | Decision::TakeOver => self.next(decision),
        };
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let write = async {
            match decision {
                Decision::Create => self.api.create(&params, &lease).await,
                _ => self.api.replace(&self.name, &params, &lease).await,
            }
        };
        // Leadership counts from before the request was sent: others count from after they saw its effect.
        let sent_at = Instant::now();
        match timeout(self.tuning.renew, write).await {
            Ok(Ok(written)) => {
                self.see(Some(written), Instant::now());
                self.leadership.extend(sent_at + self.tuning.deadline);
                Ok(true)
            }
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_already_exists() => {
                Ok(false)
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the API server does not answer in time".to_owned()),
        }
    }

    fn see(&mut self, live: Option<Lease>, at: Instant) {
        let unchanged = matches!((&live, &self.seen), (Some(live), Some((seen, _)))
            if live.metadata.uid == seen.metadata.uid
                && live.metadata.resource_version == seen.metadata.resource_version);
        if !unchanged {
            self.seen = live.map(|lease| (lease, at));
        }
    }

    fn observed(&self) -> Option<Observed> {
        let (lease, changed_at) = self.seen.as_ref()?;
        let spec = lease.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|n| u64::try_from(n).ok());
        Some(Observed {
            holder: spec.and_then(|spec| spec.holder_identity.clone()),
            duration: seconds.map_or(self.tuning.duration, Duration::from_secs),
            changed_at: *changed_at,
        })
    }

    fn next(&self, decision: Decision) -> Lease {
        let now = MicroTime(self.clock.now());
        let mut lease = self.seen.as_ref().map(|(lease, _)| lease.clone()).unwrap_or_default();
        lease.meta_mut().name = Some(self.name.clone());
        lease.meta_mut().managed_fields = None;
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if decision != Decision::Renew {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions =
                Some(spec.lease_transitions.map_or(0, |transitions| transitions.saturating_add(1)));
        }
        spec.holder_identity = Some(self.me.clone());
        spec.lease_duration_seconds = i32::try_from(self.tuning.duration.as_secs()).ok();
        spec.renew_time = Some(now);
        lease
    }

    /// Lets the next one lead at once. Nothing may be written any more.
    async fn release(&mut self) {
        self.leadership.give_up();
        let ours = self.observed().is_some_and(|observed| observed.holder.as_deref() == Some(&self.me));
        if !ours {
            return;
        }
        let mut lease = self.next(Decision::Renew);
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
        }
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match timeout(Duration::from_secs(3), self.api.replace(&self.name, &params, &lease)).await {
            Ok(Ok(_)) => tracing::info!(lease = self.name, "released"),
            Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "not released"),
            Err(_) => tracing::warn!(lease = self.name, "not released in time"),
        }
    }
}

/// A name for this process that no other has: the pod's name, or the host's, and something random.
pub fn identity(base: &str) -> String {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one((std::process::id(), Timestamp::now().as_nanosecond()));
    format!("{base}_{random:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(holder: Option<&str>, changed_at: Instant) -> Observed {
        Observed { holder: holder.map(str::to_owned), duration: Duration::from_secs(30), changed_at }
    }

    #[tokio::test(start_paused = true)]
    async fn who_leads() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(decide(None, "me", now), Decision::Create);
        assert_eq!(decide(Some(&observed(None, now)), "me", now), Decision::TakeOver);
        assert_eq!(decide(Some(&observed(Some(""), now)), "me", now), Decision::TakeOver);
        assert_eq!(decide(Some(&observed(Some("me"), now)), "me", later(600)), Decision::Renew);
        assert_eq!(decide(Some(&observed(Some("other"), now)), "me", later(29)), Decision::Wait);
        assert_eq!(decide(Some(&observed(Some("other"), now)), "me", later(30)), Decision::TakeOver);
    }

    #[test]
    fn two_processes_of_one_host_have_two_names() {
        assert_ne!(identity("host"), identity("host"));
    }

    #[test]
    fn the_leader_stops_writing_before_others_take_over() {
        let tuning = LeaseTuning::default();
        assert!(tuning.deadline < tuning.duration && tuning.renew * 2 < tuning.deadline);
    }
}
