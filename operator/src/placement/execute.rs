//! Steps of a placement. Effects: writes, through the two seams.

use searchcell_core::placement::PlacementSnapshot;
use searchcell_core::step::{Action, Step};

use crate::engine::Engine;
use crate::execute::{Owner, Perform, common};
use crate::failure::StepError;
use crate::ports::{KubeApi, SearchApi};

/// Does the steps of one placement.
pub(crate) struct PlacementSteps<'a, K, E> {
    pub(crate) engine: &'a Engine<K, E>,
    pub(crate) snapshot: &'a PlacementSnapshot,
}

impl<K: KubeApi, E: SearchApi> Perform for PlacementSteps<'_, K, E> {
    async fn perform(&self, step: &Step) -> Result<(), StepError> {
        let Engine { kube, elastic, reader, .. } = self.engine;
        let placement = &self.snapshot.placement;
        let owner = Owner {
            namespace: placement.metadata.namespace.as_deref().unwrap_or_default(),
            cell: &placement.spec.cell,
            uid: placement.metadata.uid.as_deref().unwrap_or_default(),
        };
        match &step.action {
            Action::AddFinalizer => kube.set_placement_finalizer(placement, true).await?,
            Action::RemoveFinalizer => kube.set_placement_finalizer(placement, false).await?,
            Action::Bootstrap(_) => {
                return Err(StepError::Misplanned("a placement does not bootstrap clusters"));
            }
            _ => common(kube.as_ref(), elastic.as_ref(), reader, &owner, step).await?,
        }
        Ok(())
    }
}
