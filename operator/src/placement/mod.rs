//! One pass over an IndexPlacement: observe, validate, plan, execute, status, publish. Effects: through the two
//! seams.

mod execute;
mod observe;

use searchcell_core::status::same_placement_status;
use searchcell_core::step::Plan;
use searchcell_crds::conditions::{READY, RECONCILING, STALLED, is_true};
use searchcell_crds::{IndexPlacement, IndexPlacementStatus};
use tokio::time::Instant;

use crate::elastic::reader::shortest;
use crate::engine::{Engine, Key, Next, PlacementPass};
use crate::execute::{Executed, run};
use crate::failure::{Class, Failure};
use crate::ports::{KubeApi, SearchApi};

use execute::PlacementSteps;
use observe::{count_pooled, count_tenants, observe};

/// As far as the last pass knew.
fn is_at_rest(placement: &IndexPlacement) -> bool {
    let meta = &placement.metadata;
    meta.deletion_timestamp.is_none()
        && placement.status.as_ref().is_some_and(|status| {
            status.observed_generation == meta.generation
                && is_true(&status.conditions, READY)
                && ![RECONCILING, STALLED].iter().any(|kind| is_true(&status.conditions, kind))
        })
}

impl<K: KubeApi, E: SearchApi> Engine<K, E> {
    /// One pass over a placement. Never fails: what went wrong is in the status and in when it looks again.
    pub async fn pass_placement(&self, namespace: &str, name: &str) -> Next {
        let started = Instant::now();
        let key = Key::Placement(namespace.to_owned(), name.to_owned());
        let Some((mut snapshot, mut retry_after)) =
            observe(self.kube.as_ref(), &self.reader, namespace, name, |placement| {
                match is_at_rest(placement) {
                    true => self.tuning.resting_reading_age,
                    false => self.tuning.max_reading_age,
                }
            })
            .await
        else {
            return self.forget(&key);
        };
        snapshot.limits = self.tuning.limits;
        let valid =
            self.decide.validate_placement(&snapshot.placement, snapshot.cell.as_ref(), &snapshot.siblings);
        let deleting = snapshot.placement.metadata.deletion_timestamp.is_some();
        if let (Ok(valid), false) = (&valid, deleting) {
            let (kube, elastic, age) =
                (self.kube.as_ref(), self.elastic.as_ref(), self.tuning.max_reading_age);
            let wait = count_pooled(kube, elastic, &self.reader, &mut snapshot, valid, age).await;
            retry_after = shortest(retry_after, wait);
            count_tenants(&self.reader, &mut snapshot, valid).await;
        }
        let placement = &snapshot.placement;
        let now = self.clock.now();

        let plan = match &valid {
            _ if deleting => self.decide.plan_placement_deletion(&snapshot, now),
            Ok(valid) => self.decide.plan_placement(valid, &snapshot, now),
            Err(_) => Plan { wake_after: self.tuning.invalid_every, ..Plan::default() },
        };

        let steps = PlacementSteps { engine: self, snapshot: &snapshot };
        let Executed { outcomes, worst: mut failed, released } =
            run(&plan.steps, &self.leadership, self.tuning.parallel_clusters, &steps).await;

        let valid = valid.as_ref().map_err(Vec::as_slice);
        let status = self.decide.placement_status(&snapshot, valid, &plan, &outcomes, self.clock.now());
        let same = same_placement_status(placement.status.as_ref(), &status);
        if !released && !same {
            failed = failed.max(self.publish_placement(placement, &status).await);
        }
        let took = started.elapsed();
        let (snapshot, plan, outcomes, status) = (&snapshot, &plan, outcomes.as_slice(), &status);
        self.observer.placement(&PlacementPass { snapshot, valid, plan, outcomes, status, failed, took });
        if released && failed.is_none() {
            return self.forget(&key);
        }
        self.next(&key, failed, plan.wake_after, retry_after)
    }

    async fn publish_placement(
        &self,
        placement: &IndexPlacement,
        status: &IndexPlacementStatus,
    ) -> Option<Class> {
        if !self.leadership.holds() {
            return Some(Class::Conflict);
        }
        let error = self.kube.publish_placement_status(placement, status).await.err()?;
        match error.class() {
            Class::Conflict => tracing::debug!(%error, "the status was not written"),
            _ => tracing::warn!(%error, "the status was not written"),
        }
        Some(error.class())
    }
}
