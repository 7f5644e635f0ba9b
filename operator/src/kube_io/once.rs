//! Fills the caches with one list of each kind, for a command that looks once and ends: it needs no right to watch, and a
//! list that fails says why at once. Effects: reads from the API server.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::cache::{Cache, Feed};
use super::client::words;
use super::fanout::{Caches, OnUnreadable, maps_of_cells, ours, reference, tables, told};
use super::tolerant::{Tolerant, readable};
use super::trim::Trim;

/// Objects of one answer.
const PAGE: u32 = 500;
/// Longest time that an answer may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why a kind could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The API server says no, or nothing.
    #[error("{kind} of namespace {namespace} cannot be listed: {}", words(.source))]
    Kube {
        /// Which kind.
        kind: String,
        /// Where.
        namespace: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// It takes too long.
    #[error("{kind} of namespace {namespace} cannot be listed: the API server does not answer in time")]
    Late {
        /// Which kind.
        kind: String,
        /// Where.
        namespace: String,
    },
}

/// Fills the caches with what a namespace has, by the same labels as the watches of the operator.
pub async fn fill(
    client: &Client,
    namespace: &str,
    caches: &Caches,
    on_unreadable: &OnUnreadable,
) -> Result<(), ListError> {
    let lists = Lists { client, namespace, on_unreadable };
    let (ours, maps, tables) = (ours(), maps_of_cells(), tables());
    futures::try_join!(
        lists.list(None, &caches.cells),
        lists.list(None, &caches.placements),
        lists.list(Some(&ours), &caches.stateful_sets),
        lists.list(Some(&ours), &caches.deployments),
        lists.list(Some(&ours), &caches.autoscalers),
        lists.list(Some(&ours), &caches.services),
        lists.list(Some(&maps), &caches.config_maps),
        lists.list(Some(&tables), &caches.tables),
        lists.list(Some(&ours), &caches.budgets),
        lists.list(Some(&ours), &caches.network_policies),
        lists.list(Some(&ours), &caches.claims),
        lists.list(Some(&ours), &caches.pods),
        lists.list(Some(&ours), &caches.secrets),
    )?;
    Ok(())
}

struct Lists<'a> {
    client: &'a Client,
    namespace: &'a str,
    on_unreadable: &'a OnUnreadable,
}

impl Lists<'_> {
    async fn list<T>(&self, labels: Option<&str>, cache: &Arc<Cache<T>>) -> Result<(), ListError>
    where
        T: Trim + Resource<Scope = NamespaceResourceScope> + DeserializeOwned + Debug,
        T::DynamicType: Default,
    {
        let kind = T::kind(&T::DynamicType::default()).into_owned();
        let namespace = self.namespace.to_owned();
        let api: Api<Tolerant<T>> = Api::namespaced(self.client.clone(), self.namespace);
        let mut feed = Feed::new(Arc::clone(cache), Some(namespace.clone()));
        let mut params = ListParams::default().limit(PAGE);
        params.label_selector = labels.map(str::to_owned);
        feed.take(Event::Init);
        loop {
            let page = match timeout(DEADLINE, api.list(&params)).await {
                Ok(Ok(page)) => page,
                Ok(Err(source)) => {
                    return Err(ListError::Kube { kind, namespace, source: Box::new(source) });
                }
                Err(_) => return Err(ListError::Late { kind, namespace }),
            };
            for object in page.items {
                let complain = |meta: &ObjectMeta, why: &str| {
                    (self.on_unreadable)(&reference::<T>(meta), told(&kind, why));
                };
                if let Some(event) = readable(Event::InitApply(object), |_| None, complain) {
                    feed.take(event.modify(Trim::trim));
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => break,
            }
        }
        feed.take(Event::InitDone);
        Ok(())
    }
}
