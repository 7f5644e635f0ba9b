//! Runs the steps of a plan. Effects: writes, through the two seams.
//!
//! Steps run in order; those of different clusters may run at the same time, and a step that names no cluster waits
//! for all before it. After a failure the later steps of the same cluster, and all that name none, are skipped.
//! Leadership is asked for before every single write.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use searchcell_core::names::ClusterKey;
use searchcell_core::step::{Action, Outcome, Step};

use crate::elastic::reader::ElasticReader;
use crate::failure::{Class, Failure, StepError};
use crate::leadership::Leadership;
use crate::ports::{KubeApi, SearchApi};

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Executed {
    /// In the order of the steps.
    pub outcomes: Vec<Outcome>,
    /// The worst failure, conflicts and a lost lease included.
    pub worst: Option<Class>,
    /// True when the finalizer was taken away: the object is gone, there is nothing left to report to.
    pub released: bool,
}

/// Does a single step of its kind of object.
pub trait Perform: Sync {
    /// Does it, or says why not.
    fn perform(&self, step: &Step) -> impl Future<Output = Result<(), StepError>> + Send;
}

/// Runs all steps.
pub async fn run<P: Perform>(steps: &[Step], leadership: &Leadership, parallel: usize, doer: &P) -> Executed {
    let mut results: Vec<Option<Result<(), StepError>>> = steps.iter().map(|_| None).collect();
    let mut failed_clusters: Vec<&str> = Vec::new();
    let mut failed = false;
    let mut rest: &[Step] = steps;
    let mut offset = 0;
    while let Some(first) = rest.first() {
        let alone = first.cluster.is_none();
        let length = if alone { 1 } else { rest.iter().take_while(|step| step.cluster.is_some()).count() };
        let (segment, later) = rest.split_at(length);
        let mut lanes: BTreeMap<&str, Vec<(usize, &Step)>> = BTreeMap::new();
        for (index, step) in segment.iter().enumerate() {
            lanes
                .entry(step.cluster.as_deref().unwrap_or_default())
                .or_default()
                .push((offset + index, step));
        }
        lanes.retain(|cluster, _| if alone { !failed } else { !failed_clusters.contains(cluster) });
        let mut waiting: Vec<BoxFuture<'_, Lane<'_>>> = Vec::with_capacity(lanes.len());
        for (cluster, lane) in lanes {
            waiting.push(run_lane(cluster, lane, leadership, doer).boxed());
        }
        let mut running = futures::stream::iter(waiting).buffer_unordered(parallel.max(1));
        while let Some((cluster, lane)) = running.next().await {
            for (index, result) in lane {
                if result.is_err() {
                    failed = true;
                    failed_clusters.push(cluster);
                }
                if let Some(slot) = results.get_mut(index) {
                    *slot = Some(result);
                }
            }
        }
        if alone && failed {
            break;
        }
        offset += length;
        rest = later;
    }
    summarize(steps, results)
}

/// A cluster, and what became of its steps by their place in the plan.
type Lane<'a> = (&'a str, Vec<(usize, Result<(), StepError>)>);

async fn run_lane<'a, P: Perform>(
    cluster: &'a str,
    lane: Vec<(usize, &'a Step)>,
    leadership: &'a Leadership,
    doer: &'a P,
) -> Lane<'a> {
    let mut done = Vec::with_capacity(lane.len());
    for (index, step) in lane {
        let result = if leadership.holds() { doer.perform(step).await } else { Err(StepError::NotLeading) };
        let stop = result.is_err();
        log(step, &result);
        done.push((index, result));
        if stop {
            break;
        }
    }
    (cluster, done)
}

fn summarize(steps: &[Step], results: Vec<Option<Result<(), StepError>>>) -> Executed {
    let mut executed = Executed::default();
    for (step, result) in steps.iter().zip(results) {
        executed.outcomes.push(match result {
            None => Outcome::Skipped,
            Some(Ok(())) => {
                executed.released |= matches!(step.action, Action::RemoveFinalizer);
                Outcome::Done
            }
            Some(Err(error)) => {
                executed.worst = executed.worst.max(Some(error.class()));
                error.outcome()
            }
        });
    }
    executed
}

fn log(step: &Step, result: &Result<(), StepError>) {
    let (step_name, cluster) = (step.action.name(), step.cluster.as_deref().unwrap_or_default());
    match result {
        Ok(()) => {
            tracing::info!(step = step_name, object = subject(&step.action), cluster, why = step.why, "done")
        }
        Err(error) if error.class() == Class::Conflict => {
            tracing::debug!(step = step_name, object = subject(&step.action), cluster, %error, "looks again");
        }
        Err(error) => {
            tracing::warn!(step = step_name, object = subject(&step.action), cluster, %error, "failed");
        }
    }
}

fn subject(action: &Action) -> &str {
    match action {
        Action::Bootstrap(map) => map.metadata.name.as_deref().unwrap_or_default(),
        Action::Create(object) | Action::Apply { object, .. } | Action::ReplaceTemplate { object, .. } => {
            object.name()
        }
        Action::Scale { target, .. }
        | Action::ReleaseReplicas { target }
        | Action::AnnotateClaim { target, .. }
        | Action::GrowClaim { target, .. }
        | Action::RecreateAroundPods { target, .. }
        | Action::RestartNode { target }
        | Action::RemoveWorkload { target, .. }
        | Action::RemoveVolume { target }
        | Action::Delete { target } => &target.name,
        Action::CreateIndex { name, .. } | Action::DeleteIndex { name, .. } => name,
        Action::PutMapping { indices, .. } | Action::PutIndexSettings { indices, .. } => {
            indices.first().map(String::as_str).unwrap_or_default()
        }
        Action::Secure(order) => order.name(),
        Action::ReloadKeystore(reload) => &reload.target.name,
        Action::AddFinalizer
        | Action::RemoveFinalizer
        | Action::PutSettings(_)
        | Action::ClearVotingExclusions => "",
        Action::AnnounceRestart { name: node, .. }
        | Action::WithdrawRestart { id: node }
        | Action::ExcludeVoter { name: node } => node,
    }
}

/// The steps that mean the same for cells and placements: objects, settings and indices.
pub(crate) async fn common<K: KubeApi, E: SearchApi>(
    kube: &K,
    elastic: &E,
    reader: &ElasticReader<E>,
    owner: &Owner<'_>,
    step: &Step,
) -> Result<(), StepError> {
    let namespace = owner.namespace;
    let key = || {
        let cluster = step.cluster.as_deref().ok_or(StepError::Misplanned("a step names no cluster"))?;
        Ok::<_, StepError>(ClusterKey::new(namespace, owner.cell, cluster))
    };
    match &step.action {
        Action::Create(object) => kube.create(namespace, object, owner.uid).await?,
        Action::Apply { object, target } => kube.apply(namespace, object, target).await?,
        Action::Scale { target, replicas } => kube.scale(namespace, target, *replicas).await?,
        Action::ReleaseReplicas { target } => kube.release_replicas(namespace, target).await?,
        Action::AnnotateClaim { target, annotations } => {
            kube.annotate(namespace, target, annotations).await?
        }
        Action::GrowClaim { target, size } => kube.grow_claim(namespace, target, size).await?,
        Action::RecreateAroundPods { target, size } => {
            kube.recreate_around_pods(namespace, target, size).await?;
        }
        Action::ReplaceTemplate { object, target } => {
            kube.replace_template(namespace, object, target).await?;
        }
        Action::AnnounceRestart { id, absence, .. } => {
            let key = key()?;
            let result = elastic.announce_restart(&key, id, *absence).await;
            reader.changed(&key).await;
            result?;
        }
        Action::WithdrawRestart { id } => {
            let key = key()?;
            let result = elastic.withdraw_restart(&key, id).await;
            reader.changed(&key).await;
            result?;
        }
        Action::ExcludeVoter { name } => {
            let key = key()?;
            let result = elastic.exclude_voter(&key, name).await;
            reader.changed(&key).await;
            result?;
        }
        Action::ClearVotingExclusions => {
            let key = key()?;
            let result = elastic.clear_voting_exclusions(&key).await;
            reader.changed(&key).await;
            result?;
        }
        Action::RestartNode { target } => {
            let key = key()?;
            let result = kube.delete(namespace, target).await;
            reader.changed(&key).await;
            result?;
        }
        Action::Delete { target } => kube.delete(namespace, target).await?,
        Action::PutSettings(settings) => {
            let key = key()?;
            let result = elastic.put_settings(&key, settings).await;
            reader.changed(&key).await;
            result?;
        }
        Action::CreateIndex { name, body } => {
            let key = key()?;
            let result = elastic.create_index(&key, name, body).await;
            reader.changed(&key).await;
            result?;
        }
        Action::PutMapping { indices, body } => {
            let key = key()?;
            let result = elastic.put_mapping(&key, indices, body).await;
            reader.changed(&key).await;
            result?;
        }
        Action::PutIndexSettings { indices, settings } => {
            let key = key()?;
            let result = elastic.put_index_settings(&key, indices, settings).await;
            reader.changed(&key).await;
            result?;
        }
        Action::DeleteIndex { name, uuid } => {
            let key = key()?;
            let result = elastic.delete_index(&key, name, uuid).await;
            reader.changed(&key).await;
            result?;
        }
        Action::AddFinalizer
        | Action::RemoveFinalizer
        | Action::Bootstrap(_)
        | Action::Secure(_)
        | Action::RemoveWorkload { .. }
        | Action::RemoveVolume { .. }
        | Action::ReloadKeystore(_) => {
            return Err(StepError::Misplanned("a step does not belong to this kind of object"));
        }
    }
    Ok(())
}

/// The object that steps are done for.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) cell: &'a str,
    pub(crate) uid: &'a str,
}

#[cfg(test)]
#[path = "execute_tests.rs"]
mod tests;
