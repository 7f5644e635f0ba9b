//! Routing tables as they are published, read once for each version of their object. Pure but for the lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use searchcell_core::names::routing_table;
use searchcell_core::routing::Published;

/// Tables by namespace and collection.
#[derive(Debug, Default)]
pub struct Tables {
    known: Mutex<BTreeMap<(String, String), Arc<Published>>>,
}

impl Tables {
    /// The table of a collection, from the objects that carry its label: the one that has its name.
    pub fn of(&self, namespace: &str, collection: &str, maps: &[Arc<ConfigMap>]) -> Option<Arc<Published>> {
        let key = (namespace.to_owned(), collection.to_owned());
        let name = routing_table(collection);
        let map = maps.iter().find(|map| map.metadata.name.as_deref() == Some(name.as_str()));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(map) = map else {
            known.remove(&key);
            return None;
        };
        let version = |metadata: &ObjectMeta| (metadata.uid.clone(), metadata.resource_version.clone());
        if let Some(read) = known.get(&key)
            && version(&read.metadata) == version(&map.metadata)
        {
            return Some(Arc::clone(read));
        }
        let read = Arc::new(Published::read(map));
        known.insert(key, Arc::clone(&read));
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_once_for_each_version() {
        let map = |version: &str| {
            let mut map = ConfigMap::default();
            map.metadata.name = Some("routes-messages".into());
            (map.metadata.uid, map.metadata.resource_version) = (Some("u".into()), Some(version.into()));
            vec![Arc::new(map)]
        };
        let tables = Tables::default();
        let read = |maps: &[Arc<ConfigMap>]| tables.of("search", "messages", maps);
        let (first, again) = (read(&map("1")).unwrap(), read(&map("1")).unwrap());
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(read(&map("2")).unwrap().metadata.resource_version.as_deref(), Some("2"));
        assert!(tables.of("search", "direct", &map("1")).is_none());
        assert!(read(&[]).is_none());
    }
}
