//! The watch caches of an operator process, each as far behind as its events are.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use searchcell_core::names::LABEL_CELL;
use searchcell_core::snapshot::label;

use crate::objects::{K, Obj, Stored};
use crate::store::Store;

/// The watch caches of one operator process. Each kind lags behind on its own.
#[derive(Debug, Default)]
pub struct Cache {
    positions: BTreeMap<K, usize>,
    pub objects: BTreeMap<K, BTreeMap<String, Arc<Obj>>>,
    /// The Secrets once more, to be handed out as they are: every request to Elasticsearch looks at them.
    secrets: BTreeMap<String, Arc<Secret>>,
}

impl Cache {
    /// The first list of a process.
    pub fn listed(store: &Store) -> Self {
        let mut cache = Cache::default();
        for kind in K::ALL {
            cache.positions.insert(*kind, store.history(*kind).len());
            let kept =
                |(name, object): (&String, &Arc<Obj>)| Some((name.clone(), Arc::new(object.watched()?)));
            let objects = store.objects(*kind).filter_map(kept).collect();
            cache.objects.insert(*kind, objects);
        }
        let secrets = cache.objects.get(&K::Secret).into_iter().flatten();
        let shared =
            secrets.filter_map(|(name, object)| Some((name.clone(), Arc::new(Secret::of(object)?.clone()))));
        cache.secrets = shared.collect();
        cache
    }

    pub fn behind(&self, store: &Store, kind: K) -> usize {
        store.history(kind).len() - self.positions.get(&kind).copied().unwrap_or(0)
    }

    /// Delivers the next events of a kind. True when one of them wakes the operator.
    pub fn deliver(&mut self, store: &Store, kind: K, events: usize) -> bool {
        let position = self.positions.entry(kind).or_default();
        let objects = self.objects.entry(kind).or_default();
        let mut wakes = false;
        for event in store.history(kind).iter().skip(*position).take(events) {
            *position += 1;
            let before = match event.object.as_ref().and_then(|object| object.watched()) {
                Some(object) => {
                    wakes |= !objects.get(&event.name).is_some_and(|before| before.same(&object));
                    if let Some(secret) = Secret::of(&object) {
                        self.secrets.insert(event.name.clone(), Arc::new(secret.clone()));
                    }
                    objects.insert(event.name.clone(), Arc::new(object));
                    continue;
                }
                None => objects.remove(&event.name),
            };
            if kind == K::Secret {
                self.secrets.remove(&event.name);
            }
            wakes |= before.is_some();
        }
        wakes
    }

    /// Secrets of a cell.
    pub fn secrets(&self, cell: &str) -> Vec<Arc<Secret>> {
        let of_cell = |secret: &&Arc<Secret>| label(&secret.metadata, LABEL_CELL) == Some(cell);
        self.secrets.values().filter(of_cell).cloned().collect()
    }

    pub fn get<T: Stored>(&self, name: &str) -> Option<T> {
        T::of(self.objects.get(&T::KIND)?.get(name)?).cloned()
    }

    pub fn of_cell<T: Stored>(&self, cell: &str) -> Vec<T> {
        let objects =
            self.objects.get(&T::KIND).into_iter().flatten().filter_map(|(_, object)| T::of(object));
        objects.filter(|object| label(object.meta(), LABEL_CELL) == Some(cell)).cloned().collect()
    }
}
