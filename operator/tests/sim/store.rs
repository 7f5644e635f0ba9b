//! The simulated API server's store: one global resource version, UIDs, generations, finalizers, and the watch
//! history that caches follow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::defaults;
use crate::fields::{FieldSets, Operation};
use crate::objects::{K, Obj, Stored};

/// The one namespace of the simulation.
pub const NAMESPACE: &str = "search";
/// Where the simulated operators run.
pub const OPERATOR_NAMESPACE: &str = "searchcell-system";

/// Simulated time zero: 2026-01-01T00:00:00Z.
const EPOCH: i64 = 1_767_225_600;

/// A moment of simulated time.
pub fn timestamp(ms: u64) -> Timestamp {
    Timestamp::from_second(EPOCH).unwrap() + SignedDuration::from_millis(ms as i64)
}

/// As the API server writes it: whole seconds.
pub fn api_time(ms: u64) -> Time {
    Time(Timestamp::from_second(EPOCH + (ms / 1000) as i64).unwrap())
}

/// One event of the watch of a kind.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    pub name: String,
    /// Absent: deleted.
    pub object: Option<Arc<Obj>>,
}

/// Everything that the API server knows.
#[derive(Debug, Default)]
pub struct Store {
    revision: u64,
    uids: u64,
    objects: BTreeMap<K, BTreeMap<String, Arc<Obj>>>,
    history: BTreeMap<K, Vec<WatchEvent>>,
    fields: BTreeMap<String, FieldSets>,
    live_uids: BTreeSet<String>,
}

impl Store {
    pub fn history(&self, kind: K) -> &[WatchEvent] {
        self.history.get(&kind).map_or(&[], Vec::as_slice)
    }

    pub fn objects(&self, kind: K) -> impl Iterator<Item = (&String, &Arc<Obj>)> {
        self.objects.get(&kind).into_iter().flatten()
    }

    pub fn all<T: Stored>(&self) -> impl Iterator<Item = &T> {
        self.objects(T::KIND).filter_map(|(_, object)| T::of(object))
    }

    /// All objects of a type, to look at while the store changes.
    pub fn shared<T: Stored>(&self) -> Vec<Arc<Obj>> {
        self.objects(T::KIND).map(|(_, object)| object.clone()).collect()
    }

    pub fn get<T: Stored>(&self, name: &str) -> Option<&T> {
        T::of(self.object(T::KIND, name)?)
    }

    pub fn object(&self, kind: K, name: &str) -> Option<&Arc<Obj>> {
        self.objects.get(&kind)?.get(name)
    }

    pub fn is_live(&self, uid: &str) -> bool {
        self.live_uids.contains(uid)
    }

    pub fn new_uid(&mut self) -> String {
        self.uids += 1;
        format!("uid-{:05}", self.uids)
    }

    /// POST. The existing object when the name is taken.
    pub fn create(&mut self, ms: u64, manager: &str, mut object: Obj) -> Result<Arc<Obj>, Arc<Obj>> {
        let kind = object.kind();
        let name = object.meta().name.clone().unwrap();
        if let Some(existing) = self.object(kind, &name) {
            return Err(existing.clone());
        }
        let sent = object.to_value();
        defaults::apply(&mut object);
        let uid = self.new_uid();
        let mut fields = FieldSets::default();
        fields.update(manager, Operation::Update, None, &sent);
        self.fields.insert(uid.clone(), fields);
        self.live_uids.insert(uid.clone());
        let meta = object.meta_mut();
        meta.namespace = Some(NAMESPACE.to_owned());
        meta.uid = Some(uid);
        meta.creation_timestamp = Some(api_time(ms));
        meta.generation = Some(1);
        meta.deletion_timestamp = None;
        Ok(self.put(object))
    }

    /// Changes an object as `manager`; nothing happens when nothing changes. False when there is none.
    pub fn update<T: Stored>(&mut self, manager: &str, name: &str, change: impl FnOnce(&mut T)) -> bool {
        let Some(stored) = self.object(T::KIND, name).cloned() else { return false };
        let Some(old) = T::of(&stored) else { return false };
        let mut new = old.clone();
        change(&mut new);
        if new == *old {
            return true;
        }
        if T::KIND == K::Deployment {
            let subresource = (manager == "kube-controller-manager").then_some("scale");
            let (old, new) = (old.clone().wrap().to_value(), new.clone().wrap().to_value());
            let uid = old["metadata"]["uid"].as_str().unwrap_or_default();
            self.fields.entry(uid.to_owned()).or_default().changed(manager, subresource, &old, &new);
        }
        if new.spec_differs(old) {
            new.meta_mut().generation = Some(old.meta().generation.unwrap_or(1) + 1);
        }
        self.put_or_remove(new.wrap());
        true
    }

    /// Server-side apply, forced, of an existing object.
    pub fn apply(&mut self, manager: &str, desired: &Obj) {
        let name = desired.meta().name.clone().unwrap();
        let old = self.object(desired.kind(), &name).unwrap().clone();
        let uid = old.meta().uid.clone().unwrap();
        let sets = self.fields.entry(uid).or_default();
        let merged = sets.apply(manager, &old.to_value(), &desired.to_value());
        let mut new = Obj::from_value(desired.kind(), merged);
        defaults::apply(&mut new);
        *new.meta_mut() = {
            let mut meta = new.meta().clone();
            let live = old.meta();
            (meta.uid, meta.resource_version) = (live.uid.clone(), live.resource_version.clone());
            meta.creation_timestamp = live.creation_timestamp.clone();
            (meta.generation, meta.managed_fields) = (live.generation, live.managed_fields.clone());
            meta
        };
        if new.spec_differs(&old) {
            new.meta_mut().generation = Some(old.meta().generation.unwrap_or(1) + 1);
        }
        self.put_or_remove(new);
    }

    /// Removes `path` from what a manager owns, by whichever operation; the value stays.
    pub fn release(&mut self, manager: &str, kind: K, name: &str, path: &[&str]) {
        let Some(object) = self.object(kind, name).cloned() else { return };
        let uid = object.meta().uid.clone().unwrap();
        self.fields.entry(uid).or_default().release(manager, path);
        self.put_or_remove((*object).clone());
    }

    /// DELETE: with finalizers the object lingers, and so do pods, until their kubelet lets them go.
    pub fn delete(&mut self, ms: u64, kind: K, name: &str) {
        let Some(object) = self.object(kind, name).cloned() else { return };
        let meta = object.meta();
        let lingers = kind == K::Pod || meta.finalizers.as_ref().is_some_and(|list| !list.is_empty());
        if !lingers {
            return self.remove(kind, name);
        }
        if meta.deletion_timestamp.is_none() {
            let mut marked = (*object).clone();
            marked.meta_mut().deletion_timestamp = Some(api_time(ms));
            if matches!(kind, K::Cell | K::Placement | K::StatefulSet | K::Deployment) {
                marked.meta_mut().generation = Some(meta.generation.unwrap_or(1) + 1);
            }
            self.put(marked);
        }
    }

    /// The object is gone.
    pub fn remove(&mut self, kind: K, name: &str) {
        let Some(gone) = self.objects.get_mut(&kind).and_then(|objects| objects.remove(name)) else { return };
        self.revision += 1;
        if let Some(uid) = &gone.meta().uid {
            self.live_uids.remove(uid);
            self.fields.remove(uid);
        }
        self.history.entry(kind).or_default().push(WatchEvent { name: name.to_owned(), object: None });
    }

    /// Who owns `spec.replicas`: for the invariants.
    pub fn owners_of(&self, uid: &str, path: &[&str]) -> Vec<String> {
        self.fields.get(uid).map(|sets| sets.owners(path)).unwrap_or_default()
    }

    fn put_or_remove(&mut self, object: Obj) {
        let meta = object.meta();
        let done = meta.deletion_timestamp.is_some()
            && object.kind() != K::Pod
            && meta.finalizers.as_ref().is_none_or(Vec::is_empty);
        if done {
            let name = meta.name.clone().unwrap();
            self.remove(object.kind(), &name);
        } else {
            let mut object = object;
            if object.meta().finalizers.as_ref().is_some_and(Vec::is_empty) {
                object.meta_mut().finalizers = None;
            }
            let unchanged = {
                let meta = object.meta();
                let old = self.object(object.kind(), meta.name.as_deref().unwrap());
                let fields =
                    meta.uid.as_ref().and_then(|uid| self.fields.get(uid)).map(FieldSets::managed_fields);
                let same_fields =
                    !matches!(object.kind(), K::Deployment | K::StatefulSet) || fields == meta.managed_fields;
                old.is_some_and(|old| **old == object) && same_fields
            };
            if !unchanged {
                self.put(object);
            }
        }
    }

    fn put(&mut self, mut object: Obj) -> Arc<Obj> {
        self.revision += 1;
        let (kind, name) = (object.kind(), object.meta().name.clone().unwrap());
        if matches!(kind, K::Deployment | K::StatefulSet) {
            let uid = object.meta().uid.clone().unwrap_or_default();
            object.meta_mut().managed_fields = self.fields.get(&uid).map(FieldSets::managed_fields);
        }
        object.meta_mut().resource_version = Some(self.revision.to_string());
        let object = Arc::new(object);
        self.objects.entry(kind).or_default().insert(name.clone(), object.clone());
        self.history.entry(kind).or_default().push(WatchEvent { name, object: Some(object.clone()) });
        object
    }
}
