//! The watches of pods that concern routers: those with the label of routers, and, in namespaces with cells, those that
//! ask for a router and have not the label. Of the latter, only metadata crosses the wire. Effects: reads from the API
//! server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Error, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use searchcell_core::inject::routers::RouterPod;
use searchcell_core::names::{ANNOTATION_INJECT_ROUTER, LABEL_CLUSTER, LABEL_ROUTER};
use searchcell_core::snapshot::annotation;
use tokio::task::{AbortHandle, JoinSet};

/// A pod that asks for a router, runs, and has not the label of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unrouted {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

/// What one watch has, by UID.
struct Listing<V> {
    there: BTreeMap<String, V>,
    listed: BTreeMap<String, V>,
}

impl<V> Default for Listing<V> {
    fn default() -> Self {
        Self { there: BTreeMap::new(), listed: BTreeMap::new() }
    }
}

impl<V> Listing<V> {
    fn take<O: Resource>(&mut self, event: Event<O>, read: impl Fn(&O) -> Option<V>) {
        let uid = |object: &O| object.meta().uid.clone().unwrap_or_default();
        let put = |map: &mut BTreeMap<String, V>, object: O| match read(&object) {
            Some(value) => map.insert(uid(&object), value),
            None => map.remove(&uid(&object)),
        };
        match event {
            Event::Apply(object) => {
                put(&mut self.there, object);
            }
            Event::Delete(object) => {
                self.there.remove(&uid(&object));
            }
            Event::Init => self.listed = BTreeMap::new(),
            Event::InitApply(object) => {
                put(&mut self.listed, object);
            }
            Event::InitDone => self.there = std::mem::take(&mut self.listed),
        }
    }
}

/// By watch: a namespace, or all.
type Listings<V> = Mutex<BTreeMap<Option<String>, Listing<V>>>;

/// What the watches have.
#[derive(Default)]
pub(super) struct Watched {
    routers: Listings<RouterPod>,
    unrouted: Listings<Unrouted>,
}

impl Watched {
    /// Pods with the label of routers.
    pub(super) fn routers(&self) -> Vec<RouterPod> {
        all(&self.routers)
    }

    /// Pods that ask for a router, run, and have not the label.
    pub(super) fn unrouted(&self) -> Vec<Unrouted> {
        all(&self.unrouted)
    }
}

fn all<V: Clone>(listings: &Listings<V>) -> Vec<V> {
    let listings = listings.lock().unwrap_or_else(PoisonError::into_inner);
    listings.values().flat_map(|listing| listing.there.values()).cloned().collect()
}

/// Runs the watches until dropped.
pub(super) struct Watches {
    tasks: JoinSet<()>,
    followed: BTreeMap<String, AbortHandle>,
}

impl Watches {
    /// Watches the pods of routers. No namespaces: all of them.
    pub(super) fn start(client: &Client, namespaces: &[String], watched: &Arc<Watched>) -> Self {
        let scopes: Vec<Option<String>> = match namespaces {
            [] => vec![None],
            some => some.iter().cloned().map(Some).collect(),
        };
        let mut tasks = JoinSet::new();
        for scope in scopes {
            let api: Api<Pod> = match &scope {
                Some(namespace) => Api::namespaced(client.clone(), namespace),
                None => Api::all(client.clone()),
            };
            let events = watcher(api, Config::default().labels(&format!("{LABEL_ROUTER}=true")));
            let watched = Arc::clone(watched);
            tasks.spawn(async move { keep(events, &watched.routers, scope, RouterPod::of).await });
        }
        Self { tasks, followed: BTreeMap::new() }
    }

    /// Watches, in these namespaces and no others, who asks for a router and has not the label.
    pub(super) fn follow(&mut self, client: &Client, namespaces: &BTreeSet<String>, watched: &Arc<Watched>) {
        self.followed.retain(|namespace, task| {
            let stays = namespaces.contains(namespace);
            if !stays {
                task.abort();
                let mut all = watched.unrouted.lock().unwrap_or_else(PoisonError::into_inner);
                all.remove(&Some(namespace.clone()));
            }
            stays
        });
        for namespace in namespaces {
            if self.followed.contains_key(namespace) {
                continue;
            }
            // Nodes of cells never ask. The phase is chosen by the API server, so that metadata is enough.
            let config = Config::default()
                .labels(&format!("!{LABEL_ROUTER},!{LABEL_CLUSTER}"))
                .fields("status.phase=Running");
            let events =
                watcher(Api::<PartialObjectMeta<Pod>>::namespaced(client.clone(), namespace), config);
            let (watched, scope) = (Arc::clone(watched), Some(namespace.clone()));
            let task =
                self.tasks.spawn(async move { keep(events, &watched.unrouted, scope, unrouted).await });
            self.followed.insert(namespace.clone(), task);
        }
    }

    /// Comes back when a watch ended by itself, which none does.
    pub(super) async fn ended(&mut self) {
        loop {
            match self.tasks.join_next().await {
                Some(Err(error)) if error.is_cancelled() => {}
                _ => return,
            }
        }
    }
}

async fn keep<O, V>(
    events: impl Stream<Item = Result<Event<O>, Error>> + Send,
    listings: &Listings<V>,
    scope: Option<String>,
    read: impl Fn(&O) -> Option<V>,
) where
    O: Resource<DynamicType = ()> + Clone,
{
    let events = events.default_backoff();
    tokio::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                let mut all = listings.lock().unwrap_or_else(PoisonError::into_inner);
                all.entry(scope.clone()).or_default().take(event, &read);
            }
            Err(error) => tracing::warn!(%error, "a watch of routers' pods failed and is repeated"),
        }
    }
}

fn unrouted<O: Resource>(pod: &O) -> Option<Unrouted> {
    let meta = pod.meta();
    annotation(meta, ANNOTATION_INJECT_ROUTER)?;
    if meta.deletion_timestamp.is_some() {
        return None;
    }
    Some(Unrouted { namespace: meta.namespace.clone()?, name: meta.name.clone()?, uid: meta.uid.clone()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, annotated: bool) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.uid = Some(uid.to_owned());
        pod.metadata.name = Some(uid.to_owned());
        pod.metadata.namespace = Some("search".to_owned());
        if annotated {
            let asks = (ANNOTATION_INJECT_ROUTER.to_owned(), "messages".to_owned());
            pod.metadata.annotations = Some([asks].into());
        }
        pod
    }

    #[test]
    fn only_who_asks_is_kept_and_a_new_list_forgets_who_is_gone() {
        let mut listing = Listing::default();
        let mut take = |event| {
            listing.take(event, unrouted);
            listing.there.keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(take(Event::Apply(pod("a", true))), ["a"]);
        assert_eq!(take(Event::Apply(pod("b", false))), ["a"]);
        assert_eq!(take(Event::Init), ["a"], "until the list is complete");
        assert_eq!(take(Event::InitApply(pod("c", true))), ["a"]);
        assert_eq!(take(Event::InitDone), ["c"]);
        assert!(take(Event::Apply(pod("c", false))).is_empty(), "it asks no more");
        assert_eq!(take(Event::Apply(pod("d", true))), ["d"]);
        assert!(take(Event::Delete(pod("d", true))).is_empty());
    }
}
