//! Tests of the reader: what it asks for, and when it does not ask.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;

use searchcell_core::security::Served;
use searchcell_core::snapshot::{ElasticNode, OwnershipMark, ShardCopy, Shutdown};
use searchcell_core::step::Absence;

use super::*;
use crate::ports::SearchError;

#[derive(Default)]
struct Fake {
    version: AtomicI64,
    summaries: AtomicUsize,
    details: AtomicUsize,
    sizes: AtomicUsize,
    explained: AtomicUsize,
    counted: AtomicUsize,
    shutdowns: AtomicUsize,
    /// Records of nodes that go away.
    told: AtomicUsize,
    preflights: AtomicUsize,
    /// Nodes of the cluster, of version 9.5.3.
    nodes: AtomicUsize,
    /// Indices, each with a copy that has no node.
    lost: AtomicUsize,
    /// 0 answers, 1 refuses the connection, 2 hangs, 3 answers without sizes
    mode: AtomicUsize,
}

#[async_trait]
impl SearchApi for Fake {
    async fn summary(&self, cluster: &ClusterKey) -> Result<ClusterSummary, SearchError> {
        self.summaries.fetch_add(1, Ordering::SeqCst);
        let sick = cluster.cluster == "sick";
        match self.mode.load(Ordering::SeqCst) {
            1 => return Err(SearchError::Unreachable("connection refused".into())),
            2 if sick => std::future::pending().await,
            _ => {}
        }
        Ok(ClusterSummary {
            uuid: Some("u".into()),
            state_version: self.version.load(Ordering::SeqCst),
            state_uuid: "s".into(),
            master: Some("m".into()),
            ..ClusterSummary::default()
        })
    }
    async fn details(&self, _: &ClusterKey) -> Result<ClusterDetails, SearchError> {
        self.details.fetch_add(1, Ordering::SeqCst);
        let mark = OwnershipMark {
            namespace: "ns".into(),
            collection: "messages".into(),
            placement: "pool".into(),
            generation: 1,
            ..OwnershipMark::default()
        };
        let lost = ShardCopy {
            shard: 0,
            primary: false,
            state: ShardState::Unassigned,
            node: None,
            new_since: None,
        };
        let index = IndexFacts { mark: Some(mark), copies: vec![lost], ..IndexFacts::default() };
        let indices =
            (0..self.lost.load(Ordering::SeqCst)).map(|n| (format!("i{n:03}"), index.clone())).collect();
        let node =
            |n: usize| (format!("n{n}"), ElasticNode { version: "9.5.3".into(), ..ElasticNode::default() });
        let nodes = (0..self.nodes.load(Ordering::SeqCst)).map(node).collect();
        Ok(ClusterDetails { nodes, indices: Arc::new(indices), ..ClusterDetails::default() })
    }
    async fn sizes(&self, _: &ClusterKey) -> Result<ClusterSizes, SearchError> {
        self.sizes.fetch_add(1, Ordering::SeqCst);
        match self.mode.load(Ordering::SeqCst) {
            3 => Err(SearchError::Unreachable("not now".into())),
            _ => Ok(ClusterSizes::default()),
        }
    }
    async fn explain(
        &self,
        _: &ClusterKey,
        index: &str,
        shard: i32,
        primary: bool,
    ) -> Result<Option<Unassigned>, SearchError> {
        let asked = self.explained.fetch_add(1, Ordering::SeqCst);
        Ok(Some(Unassigned {
            index: index.to_owned(),
            shard,
            primary,
            deciders: [if asked < 3 { "disk_threshold" } else { "filter" }.to_owned()].into(),
            explanation: format!("said for the {asked}. time"),
        }))
    }
    async fn documents_of(
        &self,
        _: &ClusterKey,
        _: &str,
        _: &[String],
        _: bool,
    ) -> Result<BTreeMap<String, u64>, SearchError> {
        unreachable!()
    }

    async fn largest_tenants(
        &self,
        _: &ClusterKey,
        _: &str,
        _: &str,
    ) -> Result<Vec<(String, u64)>, SearchError> {
        match self.counted.fetch_add(1, Ordering::SeqCst) {
            0 => Err(SearchError::Unreachable("not now".into())),
            n => Ok(vec![("42".into(), n as u64)]),
        }
    }

    async fn served(&self, _cluster: &ClusterKey, _address: &str) -> Result<Served, SearchError> {
        unreachable!()
    }

    async fn reload_keystore(
        &self,
        _: &ClusterKey,
    ) -> Result<BTreeMap<String, crate::ports::NodeReload>, SearchError> {
        unreachable!()
    }

    async fn shutdowns(&self, _: &ClusterKey) -> Result<Shutdowns, SearchError> {
        self.shutdowns.fetch_add(1, Ordering::SeqCst);
        let record = || Shutdown { kind: "RESTART".into(), reason: "x".into() };
        let told = (0..self.told.load(Ordering::SeqCst)).map(|n| (n.to_string(), record()));
        Ok(Shutdowns::Known(told.collect()))
    }
    async fn deprecations(&self, _: &ClusterKey) -> Result<Asked<Vec<String>>, SearchError> {
        Ok(Asked::NotAvailable)
    }
    async fn snapshots(&self, _: &ClusterKey) -> Result<Asked<BTreeMap<String, Timestamp>>, SearchError> {
        match self.preflights.fetch_add(1, Ordering::SeqCst) {
            0 => Err(SearchError::Unreachable("not now".into())),
            _ => Ok(Asked::Known(BTreeMap::new())),
        }
    }
    async fn announce_restart(&self, _: &ClusterKey, _: &str, _: Absence) -> Result<(), SearchError> {
        Ok(())
    }
    async fn withdraw_restart(&self, _: &ClusterKey, _: &str) -> Result<(), SearchError> {
        Ok(())
    }
    async fn exclude_voter(&self, _: &ClusterKey, _: &str) -> Result<(), SearchError> {
        Ok(())
    }
    async fn clear_voting_exclusions(&self, _: &ClusterKey) -> Result<(), SearchError> {
        Ok(())
    }
    async fn put_settings(
        &self,
        _: &ClusterKey,
        _: &BTreeMap<String, Option<Value>>,
    ) -> Result<(), SearchError> {
        Ok(())
    }
    async fn create_index(&self, _: &ClusterKey, _: &str, _: &Value) -> Result<(), SearchError> {
        Ok(())
    }
    async fn put_mapping(&self, _: &ClusterKey, _: &[String], _: &Value) -> Result<(), SearchError> {
        Ok(())
    }
    async fn put_index_settings(
        &self,
        _: &ClusterKey,
        _: &[String],
        _: &BTreeMap<String, Option<Value>>,
    ) -> Result<(), SearchError> {
        Ok(())
    }
    async fn delete_index(&self, _: &ClusterKey, _: &str, _: &str) -> Result<(), SearchError> {
        Ok(())
    }
}

fn ask(cluster: &str, pods: &[&str]) -> Ask {
    Ask {
        restarts: false,
        version: "9.5.3".to_owned(),
        cluster: ClusterKey::new("ns", "cell", cluster),
        serving: pods.iter().map(|pod| (*pod).to_owned()).collect(),
    }
}

fn reader() -> (Arc<Fake>, ElasticReader<Fake>) {
    let fake = Arc::new(Fake::default());
    (Arc::clone(&fake), ElasticReader::new(fake, ReaderTuning::default()))
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_while_no_node_serves() {
    let (fake, reader) = reader();
    let (reading, retry) = reader.read(&ask("a", &[]), SECOND).await;
    assert_eq!(reading, Reading::Unavailable(NOT_SERVING.into()));
    assert_eq!((retry, fake.summaries.load(Ordering::SeqCst)), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn details_are_read_when_the_state_changed_and_every_ten_minutes() {
    let (fake, reader) = reader();
    let counts = || {
        let load = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        (load(&fake.summaries), load(&fake.details), load(&fake.sizes))
    };
    let a = ask("a", &["p"]);
    let first = reader.read(&a, SECOND).await.0;
    assert!(first.known().unwrap().counts.is_some());
    reader.read(&a, SECOND).await;
    assert_eq!(counts(), (1, 1, 1), "a fresh reading is not repeated");
    tokio::time::advance(SECOND).await;
    reader.read(&a, SECOND).await;
    assert_eq!(counts(), (2, 1, 1), "nothing changed: one small request");
    fake.version.store(2, Ordering::SeqCst);
    tokio::time::advance(SECOND).await;
    reader.read(&a, SECOND).await;
    assert_eq!(counts(), (3, 2, 1));
    reader.changed(&a.cluster).await;
    reader.read(&a, SECOND).await;
    assert_eq!(counts(), (4, 3, 1), "our own write makes the cache worthless");
    tokio::time::advance(Duration::from_secs(600)).await;
    reader.read(&a, SECOND).await;
    assert_eq!(counts(), (5, 4, 2));
}

#[tokio::test(start_paused = true)]
async fn what_speaks_against_a_version_is_asked_while_no_node_has_it() {
    let (fake, reader) = reader();
    fake.nodes.store(1, Ordering::SeqCst);
    let look = async |version: &str| {
        let ask = Ask { version: version.to_owned(), ..ask("a", &["p"]) };
        let reading = reader.read(&ask, SECOND).await.0;
        let preflight = reading.known().unwrap().preflight.clone();
        (fake.preflights.load(Ordering::SeqCst), preflight.deprecations, preflight.snapshots)
    };
    let whole = || (Asked::NotAvailable, Asked::Known(BTreeMap::new()));
    assert_eq!(look("9.5.3").await, (0, Asked::Unknown, Asked::Unknown), "nothing changes");
    // The reading is fresh, and another version is asked for.
    assert_eq!(look("9.5.4").await, (1, Asked::NotAvailable, Asked::Unknown), "an error is no answer");
    tokio::time::advance(SECOND).await;
    assert_eq!(look("9.5.4").await.0, 1, "not in each pass");
    tokio::time::advance(10 * SECOND).await;
    assert_eq!(look("9.5.4").await, (2, whole().0, whole().1));
    tokio::time::advance(29 * SECOND).await;
    assert_eq!(look("9.5.4").await, (2, whole().0, whole().1));
    tokio::time::advance(SECOND).await;
    assert_eq!(look("9.5.4").await, (3, whole().0, whole().1), "somebody may have taken a snapshot");
}

#[tokio::test(start_paused = true)]
async fn what_was_announced_is_asked_for_while_nodes_restart_and_as_long_as_there_is_something() {
    let (fake, reader) = reader();
    let look = async |restarts: bool, told: usize| {
        fake.told.store(told, Ordering::SeqCst);
        let ask = Ask { restarts, ..ask("a", &["p"]) };
        reader.read(&ask, SECOND).await;
        let asked = fake.shutdowns.load(Ordering::SeqCst);
        let reading = reader.read(&ask, SECOND).await.0;
        assert_eq!(fake.shutdowns.load(Ordering::SeqCst), asked, "a fresh reading is not repeated");
        tokio::time::advance(SECOND).await;
        let shutdowns = reading.known().unwrap().shutdowns.clone();
        let records = if let Shutdowns::Known(records) = shutdowns { Some(records.len()) } else { None };
        (asked, records)
    };
    assert_eq!(look(false, 0).await, (1, Some(0)), "an operator before this one may have left some");
    assert_eq!(look(false, 0).await, (1, None));
    assert_eq!(look(true, 1).await, (2, Some(1)));
    assert_eq!(look(false, 1).await, (3, Some(1)), "it has to be taken back");
    assert_eq!(look(false, 0).await, (4, Some(0)));
    assert_eq!(look(false, 0).await, (4, None));
    reader.changed(&ask("a", &[]).cluster).await;
    assert_eq!(look(false, 0).await, (5, Some(0)), "something was written");
    assert_eq!(look(false, 0).await, (5, None));
    // A node is evicted a moment after the cluster was read.
    reader.read(&ask("a", &["p"]), SECOND).await;
    let evicted = Ask { restarts: true, ..ask("a", &["p"]) };
    let reading = reader.read(&evicted, SECOND).await.0;
    assert_eq!(reading.known().unwrap().shutdowns, Shutdowns::Known(BTreeMap::new()));
    assert_eq!(fake.shutdowns.load(Ordering::SeqCst), 6);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_joins_has_its_disk_looked_at_soon() {
    let (fake, reader) = reader();
    let a = ask("a", &["p"]);
    let look = async |nodes: usize, version: i64| {
        fake.nodes.store(nodes, Ordering::SeqCst);
        fake.version.store(version, Ordering::SeqCst);
        tokio::time::advance(SECOND).await;
        reader.read(&a, SECOND).await;
        fake.sizes.load(Ordering::SeqCst)
    };
    assert_eq!((look(1, 1).await, look(1, 2).await), (1, 1));
    assert_eq!((look(2, 3).await, look(2, 4).await), (2, 2));
    assert_eq!((look(1, 5).await, look(2, 6).await), (2, 2), "it was looked at before");
    // Not more often than others when it cannot be looked at.
    fake.mode.store(3, Ordering::SeqCst);
    assert_eq!((look(3, 7).await, look(3, 8).await), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn sizes_that_were_not_read_are_absent_and_asked_for_again_soon() {
    let (fake, reader) = reader();
    fake.mode.store(3, Ordering::SeqCst);
    let a = ask("a", &["p"]);
    let disks = |reading: Reading<ElasticFacts>| reading.known().unwrap().disks.is_some();
    assert!(!disks(reader.read(&a, SECOND).await.0), "not empty: unknown");
    fake.mode.store(0, Ordering::SeqCst);
    tokio::time::advance(9 * SECOND).await;
    assert!(!disks(reader.read(&a, SECOND).await.0));
    tokio::time::advance(SECOND).await;
    assert!(disks(reader.read(&a, SECOND).await.0));
    fake.mode.store(3, Ordering::SeqCst);
    tokio::time::advance(300 * SECOND).await;
    assert!(disks(reader.read(&a, SECOND).await.0), "the older ones stay");
    assert_eq!(fake.sizes.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_opens_after_failures_and_a_new_pod_gets_a_chance() {
    let (fake, reader) = reader();
    fake.mode.store(1, Ordering::SeqCst);
    let one = ask("a", &["p"]);
    let unavailable = Reading::Unavailable("connection refused".into());
    assert_eq!(reader.read(&one, SECOND).await, (unavailable.clone(), Some(SECOND)));
    assert_eq!(reader.read(&one, SECOND).await, (unavailable.clone(), Some(SECOND)));
    assert_eq!(fake.summaries.load(Ordering::SeqCst), 1, "the breaker answers");
    tokio::time::advance(SECOND).await;
    assert_eq!(reader.read(&one, SECOND).await, (unavailable, Some(2 * SECOND)));
    fake.mode.store(0, Ordering::SeqCst);
    assert!(reader.read(&one, SECOND).await.0.known().is_none());
    let two = ask("a", &["p", "q"]);
    assert!(reader.read(&two, SECOND).await.0.known().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_hanging_cluster_costs_one_deadline_and_slows_nobody() {
    let (fake, reader) = reader();
    fake.mode.store(2, Ordering::SeqCst);
    let start = Instant::now();
    let readings = reader.read_all(vec![ask("sick", &["p"]), ask("well", &["p"])], SECOND).await;
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert!(readings.by_cluster["well"].known().is_some());
    assert_eq!(readings.by_cluster["sick"], Reading::Unavailable("it does not answer in time".into()));
    assert_eq!(readings.retry_after, Some(SECOND));
    let again = Instant::now();
    reader.read_all(vec![ask("sick", &["p"]), ask("well", &["p"])], SECOND).await;
    assert_eq!(again.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_copy_without_a_node_is_explained_once_a_minute_however_many_there_are() {
    for lost in [1, 200] {
        let (fake, reader) = reader();
        fake.lost.store(lost, Ordering::SeqCst);
        let mut said = Vec::new();
        for _ in 0..30 {
            let reading = reader.read(&ask("a", &["p"]), SECOND).await.0;
            said.push(reading.known().unwrap().unassigned.as_ref().unwrap().explanation.clone());
            tokio::time::advance(10 * SECOND).await;
        }
        assert_eq!(fake.explained.load(Ordering::SeqCst), 5);
        said.dedup();
        assert_eq!(said, ["said for the 0. time", "said for the 3. time"], "it changes when the reason does");
    }
}

/// At rest, for one cluster and one object that is looked at every half minute.
#[tokio::test(start_paused = true)]
async fn requests_at_rest_are_few_and_do_not_grow_with_indices() {
    for indices in [0, 1, 200] {
        let (fake, reader) = reader();
        fake.lost.store(indices, Ordering::SeqCst);
        for _ in 0..120 {
            reader.read(&ask("a", &["p"]), SECOND).await;
            tokio::time::advance(30 * SECOND).await;
        }
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        // In an hour: two a minute, and what is read again every five and every ten minutes.
        assert_eq!((count(&fake.summaries), count(&fake.sizes), count(&fake.details)), (120, 12, 6));
    }
}
