//! Objects as they come over a watch, read one by one: what cannot be read does not take the others with it. Pure.
//!
//! Settings, mappings and pod templates are free-form to the API server, which takes thousands of levels where the
//! operator reads a hundred. Without this, one such object would fail every list, and its tenant would keep the
//! operator from all others.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use kube::runtime::watcher::Event;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An object, or the metadata of one that cannot be read and why not.
#[derive(Clone, Debug)]
pub struct Tolerant<T> {
    object: Result<T, String>,
    meta: ObjectMeta,
}

#[derive(Deserialize)]
struct OnlyMeta {
    metadata: Identity,
}

/// Without `managedFields`, which repeat the object's depth.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<Time>,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Tolerant<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Skips over what it keeps, however deep.
        let text = Box::<RawValue>::deserialize(deserializer)?;
        match serde_json::from_str(text.get()) {
            Ok(object) => Ok(Self { object: Ok(object), meta: ObjectMeta::default() }),
            Err(error) => {
                let OnlyMeta { metadata } = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
                let Identity { name, namespace, uid, resource_version, deletion_timestamp } = metadata;
                let meta = ObjectMeta {
                    name,
                    namespace,
                    uid,
                    resource_version,
                    deletion_timestamp,
                    ..ObjectMeta::default()
                };
                Ok(Self { object: Err(error.to_string()), meta })
            }
        }
    }
}

impl<T> Tolerant<T> {
    /// The object, if it can be read.
    pub fn readable(self) -> Option<T> {
        self.object.ok()
    }
}

impl<T: Resource> Resource for Tolerant<T> {
    type DynamicType = T::DynamicType;
    type Scope = T::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        T::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        T::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        T::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        T::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.object {
            Ok(object) => object.meta(),
            Err(_) => &self.meta,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.object {
            Ok(object) => object.meta_mut(),
            Err(_) => &mut self.meta,
        }
    }
}

/// The event with the object itself. Of one that cannot be read, what is `known` of it goes on, and can be deleted; what
/// is not known comes to be known when it can be read.
pub fn readable<T: Resource>(
    event: Event<Tolerant<T>>,
    known: impl Fn(&ObjectMeta) -> Option<T>,
    complain: impl Fn(&ObjectMeta, &str),
) -> Option<Event<T>> {
    let read = |Tolerant { object, meta }: Tolerant<T>| match object {
        Ok(object) => Some(object),
        Err(why) => {
            complain(&meta, &why);
            let mut object = known(&meta).filter(|object| object.meta().uid == meta.uid)?;
            let old = object.meta_mut();
            old.resource_version = meta.resource_version;
            old.deletion_timestamp = meta.deletion_timestamp;
            Some(object)
        }
    };
    Some(match event {
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
        Event::Apply(object) => Event::Apply(read(object)?),
        Event::InitApply(object) => Event::InitApply(read(object)?),
        Event::Delete(Tolerant { object, meta }) => Event::Delete(object.ok().or_else(|| known(&meta))?),
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use kube::api::{ObjectList, WatchEvent};
    use searchcell_crds::SearchCell;

    use super::*;

    fn cell(name: &str, levels: usize) -> String {
        let settings = format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        format!(
            r#"{{"apiVersion": "searchcell.dev/v1alpha1", "kind": "SearchCell",
                "metadata": {{"name": "{name}", "namespace": "ns", "uid": "u-{name}",
                    "managedFields": [{{"manager": "m", "fieldsV1": {settings}}}]}},
                "spec": {{"version": "9.5.3", "zones": [{{"name": "a"}}], "clusters": [{{"name": "a"}}], "settings": {settings},
                    "nodes": {{"master": {{"count": 1, "storage": {{"size": "1Gi"}}}}, "data": {{"perZone": 1, "storage": {{"size": "1Gi"}}}}}}}}}}"#
        )
    }

    #[test]
    fn one_object_that_cannot_be_read_hides_no_other() {
        let list = format!(
            r#"{{"apiVersion": "searchcell.dev/v1alpha1", "kind": "SearchCellList", "metadata": {{"resourceVersion": "7"}},
                "items": [{}, {}, {}]}}"#,
            cell("first", 3),
            cell("deep", 5000),
            cell("last", 3)
        );
        assert!(serde_json::from_str::<ObjectList<SearchCell>>(&list).is_err(), "or all this is for nothing");
        let list: ObjectList<Tolerant<SearchCell>> = serde_json::from_str(&list).unwrap();
        let names: Vec<_> = list.items.iter().map(|cell| cell.meta().name.clone().unwrap()).collect();
        assert_eq!(names, ["first", "deep", "last"]);
        let complaints = RefCell::new(Vec::new());
        let read: Vec<_> = (list.items.into_iter())
            .filter_map(|cell| {
                let complain = |meta: &ObjectMeta, why: &str| {
                    complaints.borrow_mut().push(format!("{} {why}", meta.uid.clone().unwrap()));
                };
                readable(Event::InitApply(cell), |_| None, complain)
            })
            .collect();
        assert_eq!(read.len(), 2);
        let complaints = complaints.into_inner();
        assert!(
            complaints.len() == 1 && complaints[0].starts_with("u-deep recursion limit"),
            "{complaints:?}"
        );
    }

    #[test]
    fn an_event_is_read_the_same_way_and_what_was_known_stays() {
        let event = format!(r#"{{"type": "MODIFIED", "object": {}}}"#, cell("deep", 5000));
        let WatchEvent::Modified(object) =
            serde_json::from_str::<WatchEvent<Tolerant<SearchCell>>>(&event).unwrap()
        else {
            panic!("another event")
        };
        let before: SearchCell = serde_json::from_str(&cell("deep", 1)).unwrap();
        let known = |_: &ObjectMeta| Some(before.clone());
        let Some(Event::Apply(kept)) = readable(Event::Apply(object.clone()), known, |_, _| {}) else {
            panic!("it goes on")
        };
        assert_eq!(kept.spec, before.spec);
        assert!(
            readable(Event::InitApply(object.clone()), |_| None, |_, _| {}).is_none(),
            "nothing is made up"
        );
        assert!(matches!(readable(Event::Delete(object), known, |_, _| {}), Some(Event::Delete(_))));
    }

    #[test]
    fn what_cannot_be_read_can_be_deleted_and_another_of_its_name_is_another() {
        let deep = cell("deep", 5000);
        let going = deep.replace(
            r#""uid": "#,
            r#""deletionTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "9", "uid": "#,
        );
        let before: SearchCell = serde_json::from_str(&cell("deep", 1)).unwrap();
        let going: Tolerant<SearchCell> = serde_json::from_str(&going).unwrap();
        let known = |_: &ObjectMeta| Some(before.clone());
        let Some(Event::Apply(kept)) = readable(Event::Apply(going), known, |_, _| {}) else {
            panic!("it goes")
        };
        assert!(kept.metadata.deletion_timestamp.is_some());
        assert_eq!(kept.metadata.resource_version.as_deref(), Some("9"));
        let another: Tolerant<SearchCell> = serde_json::from_str(&deep.replace("u-deep", "u-other")).unwrap();
        assert!(readable(Event::Apply(another), known, |_, _| {}).is_none());
    }
}
