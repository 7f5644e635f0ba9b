//! One message in the flow: gathers the answers to all of its copies, and decides when it has the last. Effects:
//! decides, counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::Token;
use super::fate::{self, Dead, Fate, Meaning};
use super::letter::{self, Meant, Original, Where};
use super::meters::QueueMeters;
use super::settings::HeaderNames;
use crate::flow::answer::{Answer, Answers, Why};
use crate::front::plan::Target;

/// First pause before a message comes back; it doubles with each delivery.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause before a message comes back.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What a queue's messages have in common.
pub struct Rules {
    /// Names of headers.
    pub names: HeaderNames,
    /// Whether messages can be parked.
    pub parks: bool,
    /// Whether the queue keeps returned messages back for the time that it is told.
    pub delays: bool,
    /// Numbers.
    pub meters: Arc<QueueMeters>,
    /// Messages that came and had to wait on.
    pub waited: AtomicU64,
}

impl Rules {
    /// Acknowledges a message.
    pub fn ack(&self, token: Token, original: &Original) {
        let latency = SystemTime::now().duration_since(original.published).unwrap_or_default();
        self.meters.latency.observe(latency.as_secs_f64());
        token.ack();
    }

    /// A message that nothing is wrong with comes back later: from where it is parked, or from the queue.
    pub fn later(&self, token: Token, original: &Original, meant: &Meant, why: &str) {
        self.waited.fetch_add(1, Ordering::Relaxed);
        if self.parks {
            token.park(letter::parked(original, meant, &self.names, why));
        } else {
            self.back(token, original.attempt);
        }
    }

    /// A message comes back from the queue, after a pause that grows with each delivery.
    pub fn back(&self, token: Token, attempt: u64) {
        let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
        let pause = PAUSE.saturating_mul(1 << doublings).min(PAUSE_MAX);
        if self.delays {
            return token.retry(pause);
        }
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            token.retry(Duration::ZERO);
        });
    }

    /// A message is dead.
    pub fn dead(&self, token: Token, original: &Original, meant: &Meant, dead: &Dead, to: Option<&Where>) {
        // At the level of detail: somebody may publish nothing else.
        tracing::debug!(stream = %original.origin.0, sequence = original.origin.1, status = dead.status,
            kind = dead.kind, "a message cannot be written, and is a dead letter");
        token.dead(letter::dead(original, meant, &self.names, dead, to));
    }
}

/// A message in the flow.
pub struct Message {
    rules: Arc<Rules>,
    original: Original,
    meant: Meant,
    targets: Vec<Target>,
    state: Mutex<State>,
}

struct State {
    token: Option<Token>,
    open: usize,
    meanings: Vec<Meaning>,
}

impl Message {
    /// Waits for an answer to each of its copies, by their position in `targets`; there is at least one.
    pub fn new(
        rules: Arc<Rules>,
        original: Original,
        meant: Meant,
        targets: Vec<Target>,
        token: Token,
    ) -> Self {
        // Of a copy whose answer never comes nobody could say more than that.
        let lost = |target: &Target| fate::meaning(&Answer::Unknown(Why::Stopping), target.repeatable);
        let meanings: Vec<Meaning> = targets.iter().map(lost).collect();
        let state = Mutex::new(State { token: Some(token), open: targets.len(), meanings });
        Self { rules, original, meant, targets, state }
    }

    fn decide(&self, token: Token, meanings: &[Meaning]) {
        let (rules, original) = (&self.rules, &self.original);
        let open = || self.targets.iter().zip(meanings).filter(|(_, meaning)| **meaning != Meaning::Done);
        let mut meant = self.meant.clone();
        let later = match fate::of(meanings, original.rounds) {
            Fate::Done => return rules.ack(token, original),
            Fate::Dead(position, dead) => return self.dead(token, position, &dead, meanings),
            Fate::Return => None,
            Fate::Later(why) => Some(why),
        };
        let part = open().count() < self.targets.len();
        if part && self.targets.iter().any(|target| !target.repeatable) {
            // What is written already must not be written again: the copy is for the tenants that are left.
            let written = |tenant: &str| {
                let mut all = self.targets.iter().zip(meanings);
                all.any(|(target, meaning)| target.tenant == tenant && *meaning == Meaning::Done)
            };
            if !rules.parks || open().any(|(target, _)| written(&target.tenant)) {
                let dead = Dead {
                    status: 503,
                    kind: "partly_applied".to_owned(),
                    reason: format!(
                        "written for some tenants, and not for others: {}",
                        later.as_deref().unwrap_or("the router is stopping")
                    ),
                };
                let position = meanings.iter().position(|meaning| *meaning != Meaning::Done);
                return self.dead(token, position.unwrap_or_default(), &dead, meanings);
            }
            meant.tenants = Some(self.tenants(meanings));
            return rules.later(token, original, &meant, later.as_deref().unwrap_or("stopping"));
        }
        match later {
            Some(why) => rules.later(token, original, &meant, &why),
            None => token.retry(Duration::ZERO),
        }
    }

    fn dead(&self, token: Token, position: usize, dead: &Dead, meanings: &[Meaning]) {
        let to = self.targets.get(position).map(|target| Where {
            cluster: target.cluster.to_string(),
            index: target.index.to_string(),
            tenants: self.tenants(meanings),
        });
        self.rules.dead(token, &self.original, &self.meant, dead, to.as_ref());
    }

    /// Tenants whose copies are not written, each once.
    fn tenants(&self, meanings: &[Meaning]) -> String {
        let mut tenants: Vec<&str> = Vec::new();
        for (target, meaning) in self.targets.iter().zip(meanings) {
            if *meaning != Meaning::Done && !tenants.contains(&target.tenant.as_str()) {
                tenants.push(&target.tenant);
            }
        }
        tenants.join(",")
    }
}

impl Answers for Message {
    fn answer(&self, slot: u32, answer: Answer) {
        let position = usize::try_from(slot).unwrap_or(usize::MAX);
        let Ok(mut state) = self.state.lock() else { return };
        if let (Some(meaning), Some(target)) = (state.meanings.get_mut(position), self.targets.get(position))
        {
            *meaning = fate::meaning(&answer, target.repeatable);
        }
        state.open = state.open.saturating_sub(1);
        if state.open == 0
            && let Some(token) = state.token.take()
        {
            let meanings = std::mem::take(&mut state.meanings);
            drop(state);
            self.decide(token, &meanings);
        }
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
