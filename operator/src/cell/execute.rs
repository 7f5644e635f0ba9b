//! Steps of a cell, bootstrapping above all: nothing else can lose data. Effects: writes, through the two seams.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use searchcell_core::names::{ANNOTATION_CLUSTER_UUID, ClusterKey};
use searchcell_core::plan::{self, Disruption};
use searchcell_core::snapshot::{CellSnapshot, annotation};
use searchcell_core::step::{Absence, Action, Object, Step, Target};
use searchcell_crds::SearchCell;
use tokio::sync::OnceCell;

use crate::engine::Engine;
use crate::execute::{Owner, Perform, common};
use crate::failure::StepError;
use crate::ports::{KubeApi, KubeError, SearchApi};
use crate::security::orders::Orders;
use crate::security::reload::Reloads;

/// Does the steps of one cell.
pub(crate) struct CellSteps<'a, K, E> {
    pub(crate) engine: &'a Engine<K, E>,
    pub(crate) snapshot: &'a CellSnapshot,
    /// Clusters of all cells whose nodes restart, asked for at most once in a pass.
    disruptions: OnceCell<Vec<Disruption>>,
    /// The cell as the API server has it, asked for at most once in a pass.
    live: OnceCell<Option<SearchCell>>,
}

impl<K: KubeApi, E: SearchApi> Perform for CellSteps<'_, K, E> {
    async fn perform(&self, step: &Step) -> Result<(), StepError> {
        let Engine { kube, elastic, reader, .. } = self.engine;
        let cell = &self.snapshot.cell;
        let owner = owner(cell);
        match &step.action {
            Action::AddFinalizer => kube.set_cell_finalizer(cell, true).await?,
            Action::RemoveFinalizer => kube.set_cell_finalizer(cell, false).await?,
            Action::Bootstrap(map) => {
                let cluster =
                    step.cluster.as_deref().ok_or(StepError::Misplanned("a bootstrap names no cluster"))?;
                self.bootstrap(&ClusterKey::new(owner.namespace, owner.cell, cluster), &owner, map).await?;
            }
            Action::Secure(order) => {
                let orders = Orders {
                    kube: kube.as_ref(),
                    forge: &self.engine.forge,
                    leadership: &self.engine.leadership,
                    lifetimes: self.engine.tuning.lifetimes,
                    now: self.engine.clock.now(),
                    owner,
                };
                orders.carry_out(order).await?;
            }
            Action::ReloadKeystore(reload) => {
                let cluster = step.cluster.as_deref().ok_or(StepError::Misplanned("no cluster is named"))?;
                let reloads = Reloads {
                    kube: kube.as_ref(),
                    elastic: elastic.as_ref(),
                    leadership: &self.engine.leadership,
                    now: self.engine.clock.now(),
                    owner,
                };
                reloads.carry_out(&ClusterKey::new(owner.namespace, owner.cell, cluster), reload).await?;
            }
            Action::AnnounceRestart { absence: Absence::Restart, name: node, .. }
            | Action::RestartNode { target: Target { name: node, .. } } => {
                let cluster = step.cluster.as_deref().ok_or(StepError::Misplanned("no cluster is named"))?;
                let key = ClusterKey::new(owner.namespace, owner.cell, cluster);
                self.is_recorded(&key, &owner, node).await?;
                self.take_place(&key).await?;
                common(kube.as_ref(), elastic.as_ref(), reader, &owner, step).await?;
            }
            Action::RemoveWorkload { target, asks } => {
                let cluster = step.cluster.as_deref().ok_or(StepError::Misplanned("no cluster is named"))?;
                let key = ClusterKey::new(owner.namespace, owner.cell, cluster);
                self.may_remove(&key, &owner, *asks).await?;
                let result = kube.delete(owner.namespace, target).await;
                reader.changed(&key).await;
                result?;
            }
            Action::RemoveVolume { target } => {
                let cluster = step.cluster.as_deref().ok_or(StepError::Misplanned("no cluster is named"))?;
                let key = ClusterKey::new(owner.namespace, owner.cell, cluster);
                self.may_delete_volumes(&key, &owner).await?;
                kube.delete(owner.namespace, target).await?;
            }
            _ => common(kube.as_ref(), elastic.as_ref(), reader, &owner, step).await?,
        }
        Ok(())
    }
}

impl<'a, K: KubeApi, E: SearchApi> CellSteps<'a, K, E> {
    pub(crate) fn new(engine: &'a Engine<K, E>, snapshot: &'a CellSnapshot) -> Self {
        Self { engine, snapshot, disruptions: OnceCell::new(), live: OnceCell::new() }
    }

    /// Before a node goes: asks the API server itself whether its restart is recorded. A status that was seen may be older than the
    /// one in which this operator, or another one, has called it off.
    async fn is_recorded(&self, key: &ClusterKey, owner: &Owner<'_>, node: &String) -> Result<(), StepError> {
        let read = || self.engine.kube.search_cell_live(owner.namespace, owner.cell);
        let live = self.live.get_or_try_init(read).await?;
        let of = live.iter().flat_map(|cell| &cell.status).flat_map(|status| &status.clusters);
        let operation = of.filter(|of| of.name == key.cluster).find_map(|of| of.operation.as_ref());
        if operation.is_some_and(|operation| operation.nodes.contains(node)) {
            return Ok(());
        }
        Err(KubeError::Conflict(format!("status does not record any more that {node} restarts")).into())
    }

    /// Before a workload of a cluster goes that left the spec: asks the API server itself whether it is still to go and no placement
    /// has come to have indices there, and Elasticsearch whether it is empty.
    async fn may_remove(&self, key: &ClusterKey, owner: &Owner<'_>, asks: bool) -> Result<(), StepError> {
        let Engine { kube, elastic, leadership, .. } = self.engine;
        let conflict = |why: String| StepError::from(KubeError::Conflict(why));
        let cell = kube.search_cell_live(owner.namespace, owner.cell).await?;
        let cell = cell.filter(|cell| cell.metadata.uid.as_deref() == Some(owner.uid));
        let cell = cell.ok_or_else(|| conflict("the cell is gone".to_owned()))?;
        plan::may_remove(&cell, &key.cluster).map_err(|why| conflict(why.to_owned()))?;
        let placements = kube.placements_live(owner.namespace).await?;
        if let Some(placement) = plan::placed_on(&placements, key).first() {
            return Err(conflict(format!("placement {placement} has indices in cluster {}", key.cluster)));
        }
        if asks {
            let uuid = elastic.summary(key).await?.uuid;
            let known = self.snapshot.elastic(&key.cluster).and_then(|facts| facts.uuid.clone());
            if uuid.is_none() || uuid != known {
                return Err(conflict(format!("cluster {} is another one by now", key.cluster)));
            }
            let indices = elastic.details(key).await?.indices;
            if let Some(index) = plan::kept_indices(indices.keys()).first() {
                return Err(conflict(format!("cluster {} has index {index} by now", key.cluster)));
            }
        }
        // The answers took time.
        if leadership.holds() { Ok(()) } else { Err(StepError::NotLeading) }
    }

    /// Before a volume of such a cluster goes: asks the API server itself whether that is recorded, and no node is there.
    async fn may_delete_volumes(&self, key: &ClusterKey, owner: &Owner<'_>) -> Result<(), StepError> {
        let Engine { kube, leadership, .. } = self.engine;
        let conflict = |why: &str| StepError::from(KubeError::Conflict(why.to_owned()));
        let live = self.live.get_or_try_init(|| kube.search_cell_live(owner.namespace, owner.cell)).await?;
        let cell = live.iter().find(|cell| cell.metadata.uid.as_deref() == Some(owner.uid));
        if !cell.is_some_and(|cell| plan::may_delete_volumes(cell, &key.cluster)) {
            return Err(conflict("status does not record that the volumes go"));
        }
        let pods = kube.pods_live(owner.namespace, &key.selector(None, None)).await?;
        if !pods.is_empty() {
            return Err(conflict("nodes of the cluster are there"));
        }
        if leadership.holds() { Ok(()) } else { Err(StepError::NotLeading) }
    }

    /// Before the first node of a cluster goes: asks the API server itself which others have recorded a restart. It is
    /// called after the cluster has recorded its own, so that of two at least one sees the other.
    async fn take_place(&self, key: &ClusterKey) -> Result<(), StepError> {
        let has_begun = |known: &[Disruption]| Disruption::has_begun(known, key);
        if has_begun(&self.snapshot.disruptions) {
            return Ok(());
        }
        let live = self.disruptions.get_or_try_init(|| self.engine.kube.disruptions_live()).await?;
        // The answer took time.
        if !self.engine.leadership.holds() {
            return Err(StepError::NotLeading);
        }
        Disruption::room(live, key, self.snapshot.most_disruptions)
            .map_err(|why| KubeError::Conflict(why.to_owned()).into())
    }

    /// Creates the map that lets a cluster form, after asking the API server itself whether it ever formed.
    async fn bootstrap(&self, key: &ClusterKey, owner: &Owner<'_>, map: &ConfigMap) -> Result<(), StepError> {
        let kube = &self.engine.kube;
        let live = kube.search_cell_live(owner.namespace, owner.cell).await?;
        let claims = kube.claims_live(key).await?;
        if let Some(why) = refusal(key, owner.uid, live.as_ref(), &claims) {
            return Err(KubeError::Conflict(why.into_owned()).into());
        }
        // The two reads took time.
        if !self.engine.leadership.holds() {
            return Err(StepError::NotLeading);
        }
        let object = Object::ConfigMap(Box::new(map.clone()));
        Ok(kube.create(owner.namespace, &object, owner.uid).await?)
    }
}

fn owner(cell: &SearchCell) -> Owner<'_> {
    let meta = &cell.metadata;
    Owner {
        namespace: meta.namespace.as_deref().unwrap_or_default(),
        cell: meta.name.as_deref().unwrap_or_default(),
        uid: meta.uid.as_deref().unwrap_or_default(),
    }
}

/// Why a cluster must not be bootstrapped: somebody has a record of it, or what was observed is out of date.
fn refusal(
    key: &ClusterKey,
    observed_uid: &str,
    live: Option<&SearchCell>,
    claims: &[PersistentVolumeClaim],
) -> Option<Cow<'static, str>> {
    let Some(live) = live else { return Some("the cell is gone".into()) };
    if observed_uid.is_empty() || live.metadata.uid.as_deref() != Some(observed_uid) {
        return Some("the cell was replaced by another of its name".into());
    }
    if live.metadata.deletion_timestamp.is_some() {
        return Some("the cell is being deleted".into());
    }
    let recorded = (live.status.iter().flat_map(|status| &status.clusters))
        .any(|cluster| cluster.name == key.cluster && cluster.uuid.is_some());
    if recorded {
        return Some(
            format!("the status of cluster {} carries a UUID: it has formed before", key.cluster).into(),
        );
    }
    let created = live.metadata.creation_timestamp.as_ref();
    for claim in claims {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        if annotation(&claim.metadata, ANNOTATION_CLUSTER_UUID).is_some() {
            return Some(format!("volume claim {name} carries a UUID: its cluster has formed before").into());
        }
        let older = match (&claim.metadata.creation_timestamp, created) {
            (Some(claimed), Some(created)) => claimed.0 < created.0,
            // Without both times nobody can say that the volume is new.
            _ => true,
        };
        if older {
            return Some(format!("volume claim {name} is older than the cell: it may hold a cluster").into());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use searchcell_crds::{ClusterStatus, SearchCellStatus};

    use super::*;

    fn at(second: i64) -> Option<Time> {
        Some(Time(jiff::Timestamp::from_second(second).unwrap()))
    }

    fn cell() -> SearchCell {
        let mut cell = SearchCell::default();
        cell.metadata.uid = Some("uid".into());
        cell.metadata.creation_timestamp = at(100);
        cell
    }

    fn claim(created: i64, uuid: Option<&str>) -> PersistentVolumeClaim {
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.name = Some("data-guilds-a-data-a-0".into());
        claim.metadata.creation_timestamp = at(created);
        claim.metadata.annotations =
            uuid.map(|uuid| BTreeMap::from([(ANNOTATION_CLUSTER_UUID.to_owned(), uuid.to_owned())]));
        claim
    }

    fn refused(live: Option<&SearchCell>, claims: &[PersistentVolumeClaim]) -> Option<String> {
        refusal(&ClusterKey::new("ns", "guilds", "a"), "uid", live, claims).map(Cow::into_owned)
    }

    #[test]
    fn a_cluster_that_nobody_has_a_record_of_may_form() {
        assert_eq!(refused(Some(&cell()), &[claim(101, None), claim(100, None)]), None);
    }

    #[test]
    fn any_record_refuses() {
        assert!(refused(None, &[]).unwrap().contains("gone"));
        let mut other = cell();
        other.metadata.uid = Some("other".into());
        assert!(refused(Some(&other), &[]).unwrap().contains("replaced"));
        let mut deleted = cell();
        deleted.metadata.deletion_timestamp = at(200);
        assert!(refused(Some(&deleted), &[]).unwrap().contains("deleted"));
        let mut formed = cell();
        let cluster = ClusterStatus { name: "a".into(), uuid: Some("u".into()), ..Default::default() };
        formed.status = Some(SearchCellStatus { clusters: vec![cluster], ..Default::default() });
        assert!(refused(Some(&formed), &[]).unwrap().contains("status of cluster a"));
        assert!(refused(Some(&cell()), &[claim(101, Some("u"))]).unwrap().contains("carries a UUID"));
        assert!(refused(Some(&cell()), &[claim(99, None)]).unwrap().contains("older than the cell"));
        let mut dateless = claim(101, None);
        dateless.metadata.creation_timestamp = None;
        assert!(refused(Some(&cell()), &[dateless]).is_some());
    }
}
