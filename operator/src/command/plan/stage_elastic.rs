//! Elasticsearch in memory for the passes that a plan rehearses: it begins as what the real clusters said, and what is
//! written stays here. Effects: none but that documents of tenants are counted where they are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use searchcell_core::build::is_analysis;
use searchcell_core::flat::flatten;
use searchcell_core::names::ClusterKey;
use searchcell_core::security::Served;
use searchcell_core::snapshot::{
    Asked, ElasticFacts, IndexFacts, Reading, ShardCopy, ShardState, Shutdown, Shutdowns, Unassigned,
};
use searchcell_core::step::Absence;
use serde_json::{Map, Value};

use super::world::Counting;
use crate::ports::{ClusterDetails, ClusterSizes, ClusterSummary, NodeReload, SearchApi, SearchError};

/// Copies of each shard besides the primary.
const REPLICAS: &str = "index.number_of_replicas";
/// Primary shards.
const SHARDS: &str = "index.number_of_shards";

/// All clusters, as far as a rehearsal goes.
#[derive(Default)]
pub struct StageElastic {
    /// The real clusters; absent: nothing is counted.
    counting: Option<Counting>,
    clusters: Mutex<BTreeMap<ClusterKey, Reading<ElasticFacts>>>,
    writes: AtomicU64,
}

impl StageElastic {
    /// Begins with what the clusters said.
    pub fn new(clusters: BTreeMap<ClusterKey, Reading<ElasticFacts>>) -> Self {
        Self { counting: None, clusters: Mutex::new(clusters), writes: AtomicU64::new(0) }
    }

    /// Counts documents where they are.
    pub fn counting(self, counting: Counting) -> Self {
        Self { counting: Some(counting), ..self }
    }

    /// How often something was written.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    fn look<T>(
        &self,
        cluster: &ClusterKey,
        look: impl FnOnce(&mut ElasticFacts) -> Result<T, SearchError>,
    ) -> Result<T, SearchError> {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        match clusters.get_mut(cluster) {
            Some(Reading::Known(facts)) => look(facts),
            Some(Reading::Unavailable(why)) => Err(SearchError::Unreachable(why.clone())),
            None => Err(SearchError::Unreachable("it is not there yet".to_owned())),
        }
    }

    fn write(
        &self,
        cluster: &ClusterKey,
        write: impl FnOnce(&mut ElasticFacts) -> Result<(), SearchError>,
    ) -> Result<(), SearchError> {
        self.look(cluster, write)?;
        // What is refused would be refused for ever.
        self.writes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[async_trait]
impl SearchApi for StageElastic {
    async fn summary(&self, cluster: &ClusterKey) -> Result<ClusterSummary, SearchError> {
        self.look(cluster, |facts| {
            Ok(ClusterSummary {
                uuid: facts.uuid.clone(),
                state_version: i64::try_from(self.writes()).unwrap_or(i64::MAX),
                state_uuid: String::new(),
                master: facts.master.clone(),
                known_as: facts.known_as.clone(),
            })
        })
    }

    async fn details(&self, cluster: &ClusterKey) -> Result<ClusterDetails, SearchError> {
        self.look(cluster, |facts| {
            Ok(ClusterDetails {
                nodes: facts.nodes.clone(),
                settings: facts.settings.clone(),
                voting: facts.voting.clone(),
                no_votes: facts.no_votes.clone(),
                indices: facts.indices.clone(),
            })
        })
    }

    async fn sizes(&self, cluster: &ClusterKey) -> Result<ClusterSizes, SearchError> {
        let unread = || SearchError::Unreachable("its sizes were not read".to_owned());
        self.look(cluster, |facts| {
            Ok(ClusterSizes {
                counts: facts.counts.clone().ok_or_else(unread)?,
                disks: facts.disks.clone().ok_or_else(unread)?,
                loads: facts.loads.clone().unwrap_or_default(),
            })
        })
    }

    async fn explain(
        &self,
        cluster: &ClusterKey,
        index: &str,
        shard: i32,
        primary: bool,
    ) -> Result<Option<Unassigned>, SearchError> {
        let is_it =
            |known: &Unassigned| known.index == index && known.shard == shard && known.primary == primary;
        self.look(cluster, |facts| Ok(facts.unassigned.clone().filter(is_it)))
    }

    async fn documents_of(
        &self,
        cluster: &ClusterKey,
        index: &str,
        tenants: &[String],
        _is_last: bool,
    ) -> Result<BTreeMap<String, u64>, SearchError> {
        match &self.counting {
            Some(counting) => counting.documents_of(cluster, index, tenants).await,
            None => Err(SearchError::Unreachable("nobody counts documents".to_owned())),
        }
    }

    async fn largest_tenants(
        &self,
        _cluster: &ClusterKey,
        _index: &str,
        _field: &str,
    ) -> Result<Vec<(String, u64)>, SearchError> {
        Err(SearchError::NotAvailable("a plan names no candidates".to_owned()))
    }

    async fn served(&self, _cluster: &ClusterKey, _address: &str) -> Result<Served, SearchError> {
        Err(SearchError::Unreachable("a plan does not ask nodes what they show".to_owned()))
    }

    async fn reload_keystore(
        &self,
        cluster: &ClusterKey,
    ) -> Result<BTreeMap<String, NodeReload>, SearchError> {
        self.look(cluster, |facts| {
            Ok(facts.nodes.keys().map(|node| (node.clone(), NodeReload::default())).collect())
        })
    }

    async fn shutdowns(&self, cluster: &ClusterKey) -> Result<Shutdowns, SearchError> {
        self.look(cluster, |facts| Ok(facts.shutdowns.clone()))
    }

    async fn exclude_voter(&self, cluster: &ClusterKey, node: &str) -> Result<(), SearchError> {
        self.write(cluster, |facts| {
            if let Some(id) = facts.nodes.get(node).map(|node| node.id.clone()) {
                facts.voting.remove(&id);
            }
            facts.no_votes.insert(node.to_owned());
            Ok(())
        })
    }

    async fn clear_voting_exclusions(&self, cluster: &ClusterKey) -> Result<(), SearchError> {
        self.write(cluster, |facts| {
            facts.no_votes.clear();
            Ok(())
        })
    }

    async fn deprecations(&self, cluster: &ClusterKey) -> Result<Asked<Vec<String>>, SearchError> {
        self.look(cluster, |facts| Ok(facts.preflight.deprecations.clone()))
    }

    async fn snapshots(
        &self,
        cluster: &ClusterKey,
    ) -> Result<Asked<BTreeMap<String, Timestamp>>, SearchError> {
        self.look(cluster, |facts| Ok(facts.preflight.snapshots.clone()))
    }

    async fn announce_restart(
        &self,
        cluster: &ClusterKey,
        id: &str,
        absence: Absence,
    ) -> Result<(), SearchError> {
        self.write(cluster, |facts| {
            if let Shutdowns::Known(records) = &mut facts.shutdowns {
                let record = Shutdown { kind: "RESTART".to_owned(), reason: absence.reason().to_owned() };
                records.insert(id.to_owned(), record);
            }
            Ok(())
        })
    }

    async fn withdraw_restart(&self, cluster: &ClusterKey, id: &str) -> Result<(), SearchError> {
        self.write(cluster, |facts| {
            if let Shutdowns::Known(records) = &mut facts.shutdowns {
                records.remove(id);
            }
            Ok(())
        })
    }

    async fn put_settings(
        &self,
        cluster: &ClusterKey,
        settings: &BTreeMap<String, Option<Value>>,
    ) -> Result<(), SearchError> {
        self.write(cluster, |facts| {
            put(&mut facts.settings, settings);
            Ok(())
        })
    }

    async fn create_index(&self, cluster: &ClusterKey, name: &str, body: &Value) -> Result<(), SearchError> {
        let uuid = format!("plan-index-{}", self.writes());
        self.write(cluster, |facts| {
            if facts.indices.contains_key(name) {
                return Err(SearchError::IndexExists(name.to_owned()));
            }
            let body_settings = body.get("settings").and_then(Value::as_object).cloned().unwrap_or_default();
            let settings = flatten(&body_settings).0;
            let number = |of: &str| settings.get(of).and_then(Value::as_i64).unwrap_or_default();
            let mut index = IndexFacts {
                uuid,
                primaries: i32::try_from(number(SHARDS)).unwrap_or(i32::MAX),
                mark: body.get("mappings").and_then(Value::as_object).and_then(mark),
                settings: settings.into_iter().filter(|(name, _)| !is_analysis(name)).collect(),
                ..IndexFacts::default()
            };
            set_replicas(&mut index);
            Arc::make_mut(&mut facts.indices).insert(name.to_owned(), index);
            Ok(())
        })
    }

    async fn put_mapping(
        &self,
        cluster: &ClusterKey,
        indices: &[String],
        body: &Value,
    ) -> Result<(), SearchError> {
        let mark = body.as_object().and_then(mark);
        self.write(cluster, |facts| {
            for (_, index) in
                Arc::make_mut(&mut facts.indices).iter_mut().filter(|(name, _)| indices.contains(name))
            {
                index.mark.clone_from(&mark);
            }
            Ok(())
        })
    }

    async fn put_index_settings(
        &self,
        cluster: &ClusterKey,
        indices: &[String],
        settings: &BTreeMap<String, Option<Value>>,
    ) -> Result<(), SearchError> {
        self.write(cluster, |facts| {
            for (_, index) in
                Arc::make_mut(&mut facts.indices).iter_mut().filter(|(name, _)| indices.contains(name))
            {
                put(&mut index.settings, settings);
                if settings.contains_key(REPLICAS) {
                    set_replicas(index);
                }
            }
            Ok(())
        })
    }

    async fn delete_index(&self, cluster: &ClusterKey, name: &str, uuid: &str) -> Result<(), SearchError> {
        self.write(cluster, |facts| {
            Arc::make_mut(&mut facts.indices).retain(|of, index| of != name || index.uuid != uuid);
            Ok(())
        })
    }
}

fn put(settings: &mut BTreeMap<String, Value>, change: &BTreeMap<String, Option<Value>>) {
    for (name, value) in change {
        match value {
            Some(value) => settings.insert(name.clone(), value.clone()),
            None => settings.remove(name),
        };
    }
}

/// The mark of ownership in mappings.
fn mark(mappings: &Map<String, Value>) -> Option<searchcell_core::snapshot::OwnershipMark> {
    let mark = mappings.get("_meta")?.get("searchcell")?;
    serde_json::from_value(mark.clone()).ok()
}

/// As many copies as the settings say, all of them started: what it comes to when Elasticsearch has made them.
fn set_replicas(index: &mut IndexFacts) {
    let replicas = index.settings.get(REPLICAS).and_then(|value| match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_i64().and_then(|number| i32::try_from(number).ok()),
    });
    index.replicas = replicas.unwrap_or(1);
    let primaries = index.primaries;
    let copies = |shard: i32| {
        (0..=index.replicas).map(move |copy| ShardCopy {
            shard,
            primary: copy == 0,
            state: ShardState::Started,
            node: None,
            new_since: None,
        })
    };
    index.copies = (0..primaries).flat_map(copies).collect();
}
