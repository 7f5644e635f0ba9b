//! One pass over a SearchCell: observe, validate, plan, execute, status, publish. Effects: through the two seams.

mod execute;
mod observe;

use searchcell_core::status::same_cell_status;
use searchcell_crds::SearchCellStatus;
use tokio::time::Instant;

use crate::engine::{CellPass, Engine, Key, Next};
use crate::execute::{Executed, run};
use crate::failure::{Class, Failure};
use crate::ports::{KubeApi, SearchApi};

use execute::CellSteps;
pub(crate) use observe::asks;
use observe::observe;

impl<K: KubeApi, E: SearchApi> Engine<K, E> {
    /// One pass over a cell. Never fails: what went wrong is in the status and in when it looks again.
    pub async fn pass_cell(&self, namespace: &str, name: &str) -> Next {
        let started = Instant::now();
        let key = Key::Cell(namespace.to_owned(), name.to_owned());
        let now = self.clock.now();
        let Some((snapshot, retry_after)) = observe(self, namespace, name, now).await else {
            return self.forget(&key);
        };
        let cell = &snapshot.cell;
        let deleting = cell.metadata.deletion_timestamp.is_some();
        let now = self.clock.now();

        let valid = self.decide.validate_cell(cell);
        let plan = match &valid {
            _ if deleting => self.decide.plan_cell_deletion(&snapshot, now),
            Ok(valid) => self.decide.plan_cell(valid, &snapshot, now),
            Err(_) => self.decide.plan_invalid_cell(&snapshot, now, self.tuning.invalid_every),
        };

        let steps = CellSteps::new(self, &snapshot);
        let Executed { outcomes, worst: mut failed, released } =
            run(&plan.steps, &self.leadership, self.tuning.parallel_clusters, &steps).await;

        let valid = valid.as_ref().map_err(Vec::as_slice);
        let status = self.decide.cell_status(&snapshot, valid, &plan, &outcomes, self.clock.now());
        let same = same_cell_status(cell.status.as_ref(), &status);
        if !released && !same {
            failed = failed.max(self.publish_cell(cell, &status).await);
        }
        let took = started.elapsed();
        let (snapshot, plan, outcomes, status) = (&snapshot, &plan, outcomes.as_slice(), &status);
        self.observer.cell(&CellPass { snapshot, valid, plan, outcomes, status, failed, took });
        if released && failed.is_none() {
            return self.forget(&key);
        }
        self.next(&key, failed, plan.wake_after, retry_after)
    }

    async fn publish_cell(
        &self,
        cell: &searchcell_crds::SearchCell,
        status: &SearchCellStatus,
    ) -> Option<Class> {
        if !self.leadership.holds() {
            return Some(Class::Conflict);
        }
        let error = self.kube.publish_cell_status(cell, status).await.err()?;
        match error.class() {
            Class::Conflict => tracing::debug!(%error, "the status was not written"),
            _ => tracing::warn!(%error, "the status was not written"),
        }
        Some(error.class())
    }
}
