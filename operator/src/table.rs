//! One pass over the routing table of a collection: observe, plan, execute. It reads Kubernetes alone: the placements'
//! status says where indices are. Effects: through the seam to Kubernetes.

use std::sync::PoisonError;

use searchcell_core::names::ANNOTATION_TABLE_GENERATION;
use searchcell_core::routing::{TableSnapshot, controller_of};
use searchcell_core::snapshot::annotation;
use searchcell_core::step::{Action, Step};
use tokio::time::Instant;

use crate::engine::{Engine, Key, Next, TablePass};
use crate::execute::{Executed, Owner, Perform, common, run};
use crate::failure::{Failure, StepError};
use crate::ports::{KubeApi, SearchApi};

impl<K: KubeApi, E: SearchApi> Engine<K, E> {
    /// One pass over a table. Never fails.
    pub async fn pass_table(&self, namespace: &str, collection: &str) -> Next {
        let started = Instant::now();
        let key = Key::Table(namespace.to_owned(), collection.to_owned());
        let placements: Vec<_> = (self.kube.placements(namespace).into_iter())
            .filter(|placement| placement.spec.collection == collection)
            .collect();
        if placements.is_empty() {
            // The table goes with the last of its owners.
            return self.forget(&key);
        }
        let published = match self.kube.table(namespace, collection) {
            Some(published) => Some((*published).clone()),
            // It may be there without the labels by which it is watched.
            None => match self.kube.table_live(namespace, collection).await {
                Ok(published) => published,
                Err(error) => {
                    tracing::debug!(%error, "the table was not read");
                    return self.next(&key, Some(error.class()), std::time::Duration::ZERO, None);
                }
            },
        };
        let cells = (placements.iter())
            .filter_map(|placement| {
                let name = placement.spec.cell.clone();
                Some((name.clone(), self.kube.search_cell(namespace, &name)?))
            })
            .collect();
        let (namespace, collection) = (namespace.to_owned(), collection.to_owned());
        let last = self.tables.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        let snapshot = TableSnapshot { namespace, collection, placements, cells, published, last };
        let plan = self.decide.plan_table(&snapshot, self.clock.now());
        let controller = controller_of(&snapshot);
        let steps = TableSteps { engine: self, namespace: &snapshot.namespace, controller: &controller };
        let Executed { outcomes, worst: failed, .. } = run(&plan.steps, &self.leadership, 1, &steps).await;
        // Also when no answer came: it may be there.
        if let Some(generation) = plan.steps.iter().filter_map(generation).max() {
            let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
            tables.insert(key.clone(), generation);
        }
        let took = started.elapsed();
        let (plan, outcomes) = (&plan, outcomes.as_slice());
        self.observer.table(&TablePass { snapshot: &snapshot, plan, outcomes, failed, took });
        self.next(&key, failed, plan.wake_after, None)
    }
}

/// The number of the table that a step publishes.
fn generation(step: &Step) -> Option<i64> {
    let (Action::Create(object) | Action::Apply { object, .. }) = &step.action else { return None };
    annotation(object.metadata(), ANNOTATION_TABLE_GENERATION)?.parse().ok()
}

/// Does the one step of a table.
struct TableSteps<'a, K, E> {
    engine: &'a Engine<K, E>,
    namespace: &'a str,
    controller: &'a str,
}

impl<K: KubeApi, E: SearchApi> Perform for TableSteps<'_, K, E> {
    async fn perform(&self, step: &Step) -> Result<(), StepError> {
        let Engine { kube, elastic, reader, .. } = self.engine;
        let owner = Owner { namespace: self.namespace, cell: "", uid: self.controller };
        common(kube.as_ref(), elastic.as_ref(), reader, &owner, step).await
    }
}
