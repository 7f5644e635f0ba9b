//! The watches: each kind into its cache, each change that matters into the queue. Effects: reads from the API server.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use searchcell_core::names::{FIELD_MANAGER, LABEL_CELL, LABEL_COLLECTION, LABEL_MANAGED_BY};
use searchcell_core::snapshot::label;
use searchcell_crds::{IndexPlacement, SearchCell};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::engine::Key;
use crate::kube_io::cache::{Cache, Change, Feed};
use crate::kube_io::queue::Queue;
use crate::kube_io::tolerant::{Tolerant, readable};
use crate::kube_io::trim::Trim;

/// Caches of every kind that the operator looks at.
pub struct Caches {
    /// The cells; the group is empty.
    pub cells: Arc<Cache<SearchCell>>,
    /// The placements; the group is empty.
    pub placements: Arc<Cache<IndexPlacement>>,
    /// By cell, as all below.
    pub stateful_sets: Arc<Cache<StatefulSet>>,
    /// Of ingest nodes.
    pub deployments: Arc<Cache<Deployment>>,
    /// Of ingest nodes.
    pub autoscalers: Arc<Cache<HorizontalPodAutoscaler>>,
    /// Discovery and client Services.
    pub services: Arc<Cache<Service>>,
    /// Bootstrap maps, and what clients trust.
    pub config_maps: Arc<Cache<ConfigMap>>,
    /// Routing tables, by collection.
    pub tables: Arc<Cache<ConfigMap>>,
    /// One per role.
    pub budgets: Arc<Cache<PodDisruptionBudget>>,
    /// One per cluster.
    pub network_policies: Arc<Cache<NetworkPolicy>>,
    /// Volumes.
    pub claims: Arc<Cache<PersistentVolumeClaim>>,
    /// Pods, trimmed.
    pub pods: Arc<Cache<Pod>>,
    /// Of authorities, nodes and users.
    pub secrets: Arc<Cache<Secret>>,
}

impl Default for Caches {
    fn default() -> Self {
        Self {
            cells: Arc::new(Cache::new(alone)),
            placements: Arc::new(Cache::new(alone)),
            stateful_sets: Arc::new(Cache::new(cell_of)),
            deployments: Arc::new(Cache::new(cell_of)),
            autoscalers: Arc::new(Cache::new(cell_of)),
            services: Arc::new(Cache::new(cell_of)),
            config_maps: Arc::new(Cache::new(cell_of)),
            tables: Arc::new(Cache::new(collection_of)),
            budgets: Arc::new(Cache::new(cell_of)),
            network_policies: Arc::new(Cache::new(cell_of)),
            claims: Arc::new(Cache::new(cell_of)),
            pods: Arc::new(Cache::new(cell_of)),
            secrets: Arc::new(Cache::new(cell_of)),
        }
    }
}

fn alone<T>(_: &T) -> Option<String> {
    Some(String::new())
}

fn cell_of<T: Resource>(object: &T) -> Option<String> {
    label(object.meta(), LABEL_CELL).map(str::to_owned)
}

fn collection_of(map: &ConfigMap) -> Option<String> {
    label(&map.metadata, LABEL_COLLECTION).map(str::to_owned)
}

/// Labels of all that the operator makes.
pub(super) fn ours() -> String {
    format!("{LABEL_MANAGED_BY}={FIELD_MANAGER}")
}

/// Labels of its ConfigMaps but for routing tables.
pub(super) fn maps_of_cells() -> String {
    format!("{},!{LABEL_COLLECTION}", ours())
}

/// Labels of routing tables.
pub(super) fn tables() -> String {
    format!("{},{LABEL_COLLECTION}", ours())
}

/// Hears of objects that cannot be read: which, and why.
pub type OnUnreadable = dyn Fn(&ObjectReference, &str) + Send + Sync;

/// What is asked of the API server, one by one: everything, or each namespace.
pub fn scopes(namespaces: &[String]) -> Vec<Option<String>> {
    match namespaces {
        [] => vec![None],
        some => some.iter().cloned().map(Some).collect(),
    }
}

/// Runs all watches until dropped. `synced` becomes true when every cache has had its first list.
pub struct Watches {
    tasks: JoinSet<()>,
    synced: watch::Receiver<bool>,
}

impl Watches {
    /// Starts them. No namespaces: all of them.
    pub fn start(
        client: &Client,
        namespaces: &[String],
        caches: &Arc<Caches>,
        queue: &Arc<Queue<Key>>,
        on_unreadable: &Arc<OnUnreadable>,
    ) -> Self {
        let scopes = scopes(namespaces);
        let (ready, synced) = watch::channel(false);
        // How many caches wait for their first list: `spawn` itself counts them.
        let pending = Arc::new(AtomicUsize::new(0));
        let mut starter =
            Starter { client, pending, ready: Arc::new(ready), on_unreadable, tasks: JoinSet::new() };
        for scope in &scopes {
            let owned = watcher::Config::default().labels(&ours());
            let any = watcher::Config::default();
            let on_cell = wake_for_cell(caches, queue);
            starter.spawn(scope, any.clone(), &caches.cells, on_cell);
            starter.spawn(scope, any, &caches.placements, wake_for_placement(caches, queue));
            starter.spawn(scope, owned.clone(), &caches.stateful_sets, wake_owner(queue));
            starter.spawn(scope, owned.clone(), &caches.deployments, wake_owner(queue));
            starter.spawn(scope, owned.clone(), &caches.autoscalers, wake_owner(queue));
            starter.spawn(scope, owned.clone(), &caches.services, wake_owner(queue));
            // Tables are large, and kept once.
            let maps = watcher::Config::default().labels(&maps_of_cells());
            starter.spawn(scope, maps, &caches.config_maps, wake_owner(queue));
            let tables = watcher::Config::default().labels(&tables());
            starter.spawn(scope, tables, &caches.tables, wake_for_table(caches, queue));
            starter.spawn(scope, owned.clone(), &caches.budgets, wake_owner(queue));
            starter.spawn(scope, owned.clone(), &caches.network_policies, wake_owner(queue));
            starter.spawn(scope, owned.clone(), &caches.claims, wake_owner(queue));
            starter.spawn(scope, owned.clone(), &caches.pods, wake_owner(queue));
            starter.spawn(scope, owned, &caches.secrets, wake_owner(queue));
        }
        Self { tasks: starter.tasks, synced }
    }

    /// Whether every cache has had its first list.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.clone()
    }

    /// Comes back when a watch ended, which none does by itself.
    pub async fn ended(&mut self) {
        self.tasks.join_next().await;
    }
}

struct Starter<'a> {
    client: &'a Client,
    pending: Arc<AtomicUsize>,
    ready: Arc<watch::Sender<bool>>,
    on_unreadable: &'a Arc<OnUnreadable>,
    tasks: JoinSet<()>,
}

impl Starter<'_> {
    fn spawn<T>(
        &mut self,
        scope: &Option<String>,
        config: watcher::Config,
        cache: &Arc<Cache<T>>,
        wake: impl Fn(&Change<T>) + Send + Sync + 'static,
    ) where
        T: Trim + Resource<Scope = NamespaceResourceScope> + DeserializeOwned + Debug + Send + Sync + 'static,
        T::DynamicType: Default,
    {
        let api: Api<Tolerant<T>> = match scope {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let kind = T::kind(&T::DynamicType::default()).into_owned();
        let mut feed = Feed::new(Arc::clone(cache), scope.clone());
        let (known, on_unreadable) = (Arc::clone(cache), Arc::clone(self.on_unreadable));
        let (pending, ready) = (Arc::clone(&self.pending), Arc::clone(&self.ready));
        pending.fetch_add(1, Ordering::SeqCst);
        self.tasks.spawn(async move {
            let mut first = true;
            let events = watcher(api, config).default_backoff();
            tokio::pin!(events);
            while let Some(event) = events.next().await {
                let event = match event {
                    Ok(event) => event,
                    Err(error) => {
                        tracing::warn!(kind, %error, "a watch failed and is repeated");
                        continue;
                    }
                };
                let complain =
                    |meta: &ObjectMeta, why: &str| on_unreadable(&reference::<T>(meta), told(&kind, why));
                let Some(event) = readable(event, |meta| known.named(meta), complain) else { continue };
                let (changes, complete) = feed.take(event.modify(Trim::trim));
                for change in &changes {
                    let same = match (&change.before, &change.now) {
                        (Some(before), Some(now)) => before.same(now),
                        _ => false,
                    };
                    if !same {
                        wake(change);
                    }
                }
                if complete && first {
                    first = false;
                    if pending.fetch_sub(1, Ordering::SeqCst) == 1 {
                        ready.send_replace(true);
                    }
                }
            }
        });
    }
}

/// Why an object cannot be read. Reasons may repeat what they stumble over, which in a Secret is secret.
pub(super) fn told<'a>(kind: &str, why: &'a str) -> &'a str {
    if kind == "Secret" { "it has not the shape of a Secret" } else { why }
}

pub(super) fn reference<T: Resource<DynamicType: Default>>(meta: &ObjectMeta) -> ObjectReference {
    let kind = T::DynamicType::default();
    ObjectReference {
        api_version: Some(T::api_version(&kind).into_owned()),
        kind: Some(T::kind(&kind).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// A labelled object concerns its cell, before and after.
fn wake_owner<T: Resource>(queue: &Arc<Queue<Key>>) -> impl Fn(&Change<T>) + Send + Sync + 'static {
    let queue = Arc::clone(queue);
    move |change| {
        for object in [&change.before, &change.now].into_iter().flatten() {
            if let (Some(namespace), Some(cell)) = (&object.meta().namespace, cell_of(object.as_ref())) {
                queue.wake(Key::Cell(namespace.clone(), cell));
            }
        }
    }
}

/// A cell concerns itself and the placements that name it.
fn wake_for_cell(
    caches: &Arc<Caches>,
    queue: &Arc<Queue<Key>>,
) -> impl Fn(&Change<SearchCell>) + Send + Sync + 'static {
    let (placements, queue) = (Arc::clone(&caches.placements), Arc::clone(queue));
    move |change| {
        let Some(cell) = change.now.as_ref().or(change.before.as_ref()) else { return };
        let (Some(namespace), Some(name)) = (&cell.metadata.namespace, &cell.metadata.name) else { return };
        queue.wake(Key::Cell(namespace.clone(), name.clone()));
        for placement in placements.group(namespace, "") {
            if placement.spec.cell == *name {
                queue.wake(Key::Table(namespace.clone(), placement.spec.collection.clone()));
                queue.wake(Key::Placement(namespace.clone(), placement.metadata.name.unwrap_or_default()));
            }
        }
    }
}

/// A table concerns itself and the placements of its collection, which tell its number.
fn wake_for_table(
    caches: &Arc<Caches>,
    queue: &Arc<Queue<Key>>,
) -> impl Fn(&Change<ConfigMap>) + Send + Sync + 'static {
    let (placements, queue) = (Arc::clone(&caches.placements), Arc::clone(queue));
    move |change| {
        for map in [&change.before, &change.now].into_iter().flatten() {
            let (Some(namespace), Some(collection)) = (&map.metadata.namespace, collection_of(map)) else {
                continue;
            };
            for placement in placements.group(namespace, "") {
                if placement.spec.collection == collection {
                    let name = placement.metadata.name.unwrap_or_default();
                    queue.wake(Key::Placement(namespace.clone(), name));
                }
            }
            queue.wake(Key::Table(namespace.clone(), collection));
        }
    }
}

/// A placement concerns itself, its cell and the table of its collection; its spec concerns the other placements of its collection.
fn wake_for_placement(
    caches: &Arc<Caches>,
    queue: &Arc<Queue<Key>>,
) -> impl Fn(&Change<IndexPlacement>) + Send + Sync + 'static {
    let (placements, queue) = (Arc::clone(&caches.placements), Arc::clone(queue));
    move |change| {
        let Some(placement) = change.now.as_ref().or(change.before.as_ref()) else { return };
        let Some(namespace) = &placement.metadata.namespace else { return };
        let own = placement.metadata.name.clone().unwrap_or_default();
        queue.wake(Key::Placement(namespace.clone(), own.clone()));
        for placement in [&change.before, &change.now].into_iter().flatten() {
            queue.wake(Key::Cell(namespace.clone(), placement.spec.cell.clone()));
            queue.wake(Key::Table(namespace.clone(), placement.spec.collection.clone()));
        }
        let spec_changed = match (&change.before, &change.now) {
            (Some(before), Some(now)) => {
                before.spec != now.spec
                    || before.metadata.deletion_timestamp != now.metadata.deletion_timestamp
                    || before.metadata.uid != now.metadata.uid
            }
            _ => true,
        };
        if spec_changed {
            for sibling in placements.group(namespace, "") {
                let name = sibling.metadata.name.unwrap_or_default();
                if sibling.spec.collection == placement.spec.collection && name != own {
                    queue.wake(Key::Placement(namespace.clone(), name));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_secret_is_told() {
        let broken = r#"{"metadata": {"name": "a"}, "data": "aHVudGVyMg=="}"#;
        let why = serde_json::from_str::<Secret>(broken).unwrap_err().to_string();
        assert!(why.contains("aHVudGVyMg"), "or this is for nothing: {why}");
        let secret = Secret::kind(&());
        assert!(!told(&secret, &why).contains("aHVudGVyMg"));
        assert_eq!(told(&Service::kind(&()), &why), why);
    }
}
