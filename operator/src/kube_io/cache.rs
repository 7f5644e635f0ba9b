//! One kind's objects as its watch has them, found by namespace and group (the cell for labelled objects). Pure but
//! for the lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::watcher::Event;

/// Namespace and group.
pub type Slot = (String, String);

/// What an event changed.
#[derive(Clone, Debug)]
pub struct Change<T> {
    /// The object before, if it was there.
    pub before: Option<Arc<T>>,
    /// The object now, if it is there.
    pub now: Option<Arc<T>>,
}

/// Objects of one kind.
pub struct Cache<T> {
    group: fn(&T) -> Option<String>,
    objects: RwLock<BTreeMap<Slot, BTreeMap<String, Arc<T>>>>,
}

impl<T: Resource + Clone> Cache<T> {
    /// An empty cache; objects without a group are left out.
    pub fn new(group: fn(&T) -> Option<String>) -> Self {
        Self { group, objects: RwLock::default() }
    }

    /// The objects of a group, in the order of their names.
    pub fn group(&self, namespace: &str, group: &str) -> Vec<T> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let slot = objects.get(&(namespace.to_owned(), group.to_owned()));
        slot.into_iter().flat_map(BTreeMap::values).map(|object| T::clone(object)).collect()
    }

    /// The objects of a group, in the order of their names, not copied.
    pub fn shared(&self, namespace: &str, group: &str) -> Vec<Arc<T>> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let slot = objects.get(&(namespace.to_owned(), group.to_owned()));
        slot.into_iter().flat_map(BTreeMap::values).map(Arc::clone).collect()
    }

    /// What is asked of every object, in the order of namespaces and names.
    pub fn map<R>(&self, ask: impl FnMut(&T) -> R) -> Vec<R> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.values().flat_map(BTreeMap::values).map(Arc::as_ref).map(ask).collect()
    }

    /// One object.
    pub fn get(&self, namespace: &str, group: &str, name: &str) -> Option<T> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.get(&(namespace.to_owned(), group.to_owned()))?.get(name).map(|object| T::clone(object))
    }

    /// One object, whatever its group.
    pub fn named(&self, meta: &ObjectMeta) -> Option<T> {
        let (namespace, name) = (meta.namespace.as_ref()?, meta.name.as_ref()?);
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let mut slots = objects.iter().filter(|((of, _), _)| of == namespace);
        slots.find_map(|(_, slot)| slot.get(name)).map(|object| T::clone(object))
    }

    /// Every namespace and group that has an object.
    pub fn slots(&self) -> Vec<Slot> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.values().map(BTreeMap::len).sum()
    }

    /// True without objects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn place(&self, object: &T) -> Option<(Slot, String)> {
        let meta = object.meta();
        let slot = (meta.namespace.clone()?, (self.group)(object)?);
        Some((slot, meta.name.clone()?))
    }

    fn insert(&self, object: T) -> Vec<Change<T>> {
        let Some((slot, name)) = self.place(&object) else { return self.remove(&object) };
        let now = Arc::new(object);
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        let before = objects.entry(slot).or_default().insert(name, Arc::clone(&now));
        vec![Change { before, now: Some(now) }]
    }

    /// Found by name: the group may have changed.
    fn remove(&self, object: &T) -> Vec<Change<T>> {
        let (Some(namespace), Some(name)) = (&object.meta().namespace, &object.meta().name) else {
            return Vec::new();
        };
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        let mut changes = Vec::new();
        for ((of, _), slot) in objects.iter_mut() {
            if of == namespace
                && let Some(before) = slot.remove(name)
            {
                changes.push(Change { before: Some(before), now: None });
            }
        }
        objects.retain(|_, slot| !slot.is_empty());
        changes
    }

    fn replace(&self, namespace: Option<&str>, listed: Vec<T>) -> Vec<Change<T>> {
        let mut keep: BTreeSet<(String, String)> = BTreeSet::new();
        let mut changes = Vec::new();
        for object in listed {
            let meta: &ObjectMeta = object.meta();
            keep.insert((meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default()));
            changes.extend(self.insert(object));
        }
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        for ((of, _), slot) in objects.iter_mut() {
            if namespace.is_some_and(|namespace| namespace != of) {
                continue;
            }
            slot.retain(|name, object| {
                let kept = keep.contains(&(of.clone(), name.clone()));
                if !kept {
                    changes.push(Change { before: Some(Arc::clone(object)), now: None });
                }
                kept
            });
        }
        objects.retain(|_, slot| !slot.is_empty());
        changes
    }
}

/// Feeds a cache from one watch; one per watched namespace (`None`: all).
pub struct Feed<T> {
    cache: Arc<Cache<T>>,
    namespace: Option<String>,
    listed: Vec<T>,
}

impl<T: Resource + Clone> Feed<T> {
    /// A feed of a watch over one namespace, or all.
    pub fn new(cache: Arc<Cache<T>>, namespace: Option<String>) -> Self {
        Self { cache, namespace, listed: Vec::new() }
    }

    /// Takes an event in. The second part is true when the cache is complete as of now.
    pub fn take(&mut self, event: Event<T>) -> (Vec<Change<T>>, bool) {
        match event {
            Event::Apply(object) => (self.cache.insert(object), false),
            Event::Delete(object) => (self.cache.remove(&object), false),
            Event::Init => {
                self.listed = Vec::new();
                (Vec::new(), false)
            }
            Event::InitApply(object) => {
                self.listed.push(object);
                (Vec::new(), false)
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                (self.cache.replace(self.namespace.as_deref(), listed), true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap as Map;

    use k8s_openapi::api::core::v1::ConfigMap;
    use searchcell_core::names::LABEL_CELL;

    use super::*;

    fn group(map: &ConfigMap) -> Option<String> {
        map.metadata.labels.as_ref()?.get(LABEL_CELL).cloned()
    }

    fn map(namespace: &str, cell: &str, name: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.namespace = Some(namespace.into());
        map.metadata.name = Some(name.into());
        map.metadata.labels = Some(Map::from([(LABEL_CELL.into(), cell.into())]));
        map
    }

    fn names(cache: &Cache<ConfigMap>, namespace: &str, cell: &str) -> Vec<String> {
        cache.group(namespace, cell).into_iter().filter_map(|map| map.metadata.name).collect()
    }

    #[test]
    fn objects_are_found_by_cell() {
        let cache = Arc::new(Cache::new(group));
        let mut feed = Feed::new(Arc::clone(&cache), None);
        assert!(feed.take(Event::Apply(map("ns", "a", "x"))).0[0].before.is_none());
        feed.take(Event::Apply(map("ns", "b", "y")));
        feed.take(Event::Apply(map("other", "a", "z")));
        assert!(feed.take(Event::Apply(map("ns", "a", "x"))).0[0].before.is_some());
        assert_eq!((names(&cache, "ns", "a"), cache.len()), (vec!["x".to_owned()], 3));
        assert_eq!(
            cache.slots(),
            [("ns", "a"), ("ns", "b"), ("other", "a")].map(|(n, g)| (n.into(), g.into()))
        );
        feed.take(Event::Delete(map("ns", "a", "x")));
        assert!(names(&cache, "ns", "a").is_empty());
    }

    #[test]
    fn a_new_list_removes_what_it_lacks_and_says_so_and_only_in_its_namespace() {
        let cache = Arc::new(Cache::new(group));
        let mut one = Feed::new(Arc::clone(&cache), Some("one".into()));
        let mut two = Feed::new(Arc::clone(&cache), Some("two".into()));
        one.take(Event::Apply(map("one", "a", "x")));
        one.take(Event::Apply(map("one", "a", "y")));
        two.take(Event::Apply(map("two", "a", "z")));
        one.take(Event::Init);
        one.take(Event::InitApply(map("one", "a", "y")));
        let (changes, complete) = one.take(Event::InitDone);
        assert!(complete);
        let gone: Vec<_> = changes.iter().filter(|change| change.now.is_none()).collect();
        assert_eq!(gone.len(), 1);
        assert_eq!(gone[0].before.as_ref().unwrap().metadata.name.as_deref(), Some("x"));
        assert_eq!((names(&cache, "one", "a"), names(&cache, "two", "a").len()), (vec!["y".to_owned()], 1));
    }
}
