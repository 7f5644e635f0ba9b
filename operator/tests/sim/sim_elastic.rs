//! `SearchApi` on the simulated clusters: reached through the client Service, by a ready node, or not at all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use searchcell_core::names::ClusterKey;
use searchcell_core::security::Served;
use searchcell_core::security::users::User;
use searchcell_core::snapshot::{
    Asked, IndexCounts, NodeDisk, NodeLoad, OwnershipMark, ShardState, Shutdown, Shutdowns, Unassigned,
    is_ready,
};
use searchcell_core::step::Absence;
use searchcell_operator::ports::{
    ClusterDetails, ClusterSizes, ClusterSummary, KubeApi, NodeReload, SearchApi, SearchError,
};
use searchcell_operator::security::access::access_to;
use searchcell_operator::security::parse;
use searchcell_operator::security::sealed::Sealed;
use serde_json::Value;

use crate::backups;
use crate::bugs::Bug;
use crate::calls::{Line, NoAnswer, Peer};
use crate::elastic::Cluster;
use crate::invariants;
use crate::placed;
use crate::secure::{Client, Loaded};
use crate::shards::{Copy, Index};
use crate::sim_kube::SimKube;
use crate::world::{Container, World, lock};

pub struct SimElastic {
    pub line: Line,
    pub bug: Option<Bug>,
    kube: Arc<SimKube>,
    /// The user that worked last, with the hash of its password, by `<cell>/<cluster>`.
    worked: Mutex<BTreeMap<String, (String, String)>>,
    /// Whether the last reading of a cluster succeeded, by `<cell>/<cluster>`.
    readings: Mutex<BTreeMap<String, bool>>,
}

impl From<NoAnswer> for SearchError {
    fn from(no_answer: NoAnswer) -> Self {
        match no_answer {
            NoAnswer::Unreachable(why) => SearchError::Unreachable(why.to_owned()),
            NoAnswer::Refused(why) => SearchError::Refused(why.to_owned()),
        }
    }
}

fn identity(key: &ClusterKey) -> String {
    format!("{}/{}", key.cell, key.cluster)
}

/// The process that answers behind the client Service.
fn serving<'a>(world: &'a World, key: &ClusterKey) -> Result<&'a Container, SearchError> {
    let refused = |why: &str| SearchError::Unreachable(format!("{}: {why}", key.name()));
    let service = world.store.get::<Service>(&key.name()).ok_or_else(|| refused("no such host"))?;
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
    let selected = |pod: &&Pod| {
        let labels = pod.metadata.labels.as_ref();
        is_ready(pod) && selector.iter().all(|(k, v)| labels.is_some_and(|labels| labels.get(k) == Some(v)))
    };
    let mut serving = (world.store.all::<Pod>().filter(selected))
        .filter_map(|pod| world.containers.get(pod.metadata.name.as_deref()?))
        .filter(|container| container.member_of.is_some());
    serving.next().ok_or_else(|| refused("connection refused"))
}

/// The UUID of the cluster that answers behind the client Service.
fn reach(world: &World, key: &ClusterKey) -> Result<String, SearchError> {
    let refused = |why: &str| SearchError::Unreachable(format!("{}: {why}", key.name()));
    let uuid = serving(world, key)?.member_of.clone().ok_or_else(|| refused("connection refused"))?;
    if !world.elastic.has_master(Some(&uuid)) {
        return Err(refused("master_not_discovered_exception"));
    }
    Ok(uuid)
}

fn cluster<'a>(world: &'a mut World, key: &ClusterKey) -> Result<&'a mut Cluster, SearchError> {
    let uuid = reach(world, key)?;
    world.elastic.clusters.get_mut(&uuid).ok_or_else(|| SearchError::Unreachable("gone".to_owned()))
}

impl SimElastic {
    pub fn new(line: Line, kube: Arc<SimKube>, bug: Option<Bug>) -> Self {
        SimElastic { line, bug, kube, worked: Mutex::default(), readings: Mutex::default() }
    }

    /// As the caches have it now.
    fn client(&self, key: &ClusterKey) -> Client {
        let cell = self.kube.search_cell(&key.namespace, &key.cell);
        let secrets = self.kube.cache.lock().unwrap().secrets(&key.cell);
        let access = access_to(key, cell.as_ref(), &secrets);
        let name = User::Operator.secret(&key.cell);
        let own =
            secrets.iter().find(|secret| secret.metadata.name.as_ref() == Some(&name)).and_then(|secret| {
                let credential = parse::facts(&Sealed(Secret::clone(secret))).credential?;
                Some((credential.username, credential.hash?))
            });
        Client::new(&access, own, self.worked.lock().unwrap().get(&identity(key)).cloned())
    }

    /// Connects as the operator does; remembers as whom.
    fn admit(&self, world: &World, key: &ClusterKey, client: &Client) -> Result<Option<String>, SearchError> {
        let node = serving(world, key)?;
        let user = client.connect(node.secure.as_ref())?;
        if let Some(user) = user.clone() {
            self.worked.lock().unwrap().insert(identity(key), user);
        }
        Ok(user.map(|(name, _)| name))
    }

    async fn read<R: Send>(
        &self,
        key: &ClusterKey,
        view: impl FnOnce(&Cluster) -> R + Send,
    ) -> Result<R, SearchError> {
        let client = self.client(key);
        let read = self
            .line
            .call(Peer::Elastic(identity(key)), false, |world| {
                self.admit(world, key, &client)?;
                cluster(world, key).map(|c| view(c))
            })
            .await;
        read.unwrap_or_else(|no_answer| Err(no_answer.into()))
    }

    fn record(&self, key: &ClusterKey, known: bool) {
        self.readings.lock().unwrap().insert(identity(key), known);
    }

    async fn write<R: Send>(
        &self,
        key: &ClusterKey,
        what: String,
        effect: impl FnOnce(&mut World) -> Result<R, SearchError> + Send,
    ) -> Result<R, SearchError> {
        let readings = self.readings.lock().unwrap().clone();
        let client = self.client(key);
        let id = self.line.id;
        let pass = self.line.pass.lock().unwrap().clone();
        let answer = self.line.call(Peer::Elastic(identity(key)), true, move |world| {
            invariants::on_elastic_write(world, &pass, key, &what, &readings);
            let answer = self.admit(world, key, &client).and_then(|_| effect(world));
            let error = answer.as_ref().err().map(|error| format!(": {error}")).unwrap_or_default();
            world.note(format!("operator {id}: {}: {what}{error}", key.name()));
            answer
        });
        answer.await.unwrap_or_else(|no_answer| Err(no_answer.into()))
    }

    async fn create_on(&self, key: &ClusterKey, name: &str, body: &Value) -> Result<(), SearchError> {
        self.write(key, format!("create index {name}"), |world| {
            world.serial += 1;
            let now = world.ms;
            let index_uuid = format!("index-{:04}", world.serial);
            let found = cluster(world, key)?;
            if found.indices.contains_key(name) {
                return Err(SearchError::IndexExists(name.to_owned()));
            }
            let number = |setting: &str| setting_of(body, setting).unwrap_or(1);
            let (primaries, replicas) = (number("number_of_shards"), number("number_of_replicas"));
            let mark: Option<OwnershipMark> = body
                .pointer("/mappings/_meta/searchcell")
                .and_then(|mark| serde_json::from_value(mark.clone()).ok());
            let mut index = Index::new(index_uuid, primaries, replicas, mark.clone(), now);
            let settings = body.get("settings").and_then(Value::as_object).into_iter().flatten();
            let own = settings.filter(|(name, _)| !name.starts_with("index.number_of_"));
            index.settings = own.map(|(name, value)| (name.clone(), value.clone())).collect();
            found.indices.insert(name.to_owned(), index);
            found.version += 1;
            placed::on_index_created(world, key, name, mark.as_ref());
            Ok(())
        })
        .await
    }
}

/// A number of the index settings, in whichever of the two shapes it was written.
fn setting_of(body: &Value, name: &str) -> Option<i32> {
    let settings = body.get("settings")?;
    let value = [
        settings.get(format!("index.{name}")),
        settings.get(name),
        settings.get("index").and_then(|index| index.get(name)),
    ];
    let value = value.into_iter().flatten().next()?;
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).map(|number| number as i32)
}

/// Indices to be changed together: one that is not there keeps all as they are.
fn all_of<'a>(cluster: &'a mut Cluster, names: &[String]) -> Result<Vec<&'a mut Index>, SearchError> {
    if let Some(missing) = names.iter().find(|name| !cluster.indices.contains_key(*name)) {
        return Err(SearchError::Refused(format!("no such index [{missing}]")));
    }
    Ok(cluster.indices.iter_mut().filter(|(name, _)| names.contains(name)).map(|(_, index)| index).collect())
}

#[async_trait]
impl SearchApi for SimElastic {
    async fn summary(&self, key: &ClusterKey) -> Result<ClusterSummary, SearchError> {
        let summary = self.read(key, |cluster| ClusterSummary {
            uuid: Some(cluster.uuid.clone()),
            state_version: cluster.version,
            state_uuid: format!("{}-{}", cluster.uuid, cluster.version),
            master: cluster.master.clone(),
            known_as: None,
        });
        let summary = summary.await.map(|summary| ClusterSummary {
            known_as: self.worked.lock().unwrap().get(&identity(key)).map(|(name, _)| name.clone()),
            ..summary
        });
        self.record(key, summary.is_ok());
        summary
    }

    async fn details(&self, key: &ClusterKey) -> Result<ClusterDetails, SearchError> {
        let details = self
            .read(key, |cluster| ClusterDetails {
                nodes: cluster.members.clone(),
                settings: cluster.settings.clone(),
                voting: cluster.voting.clone(),
                no_votes: cluster.no_votes.clone(),
                indices: Arc::new(
                    cluster.indices.iter().map(|(name, index)| (name.clone(), index.facts())).collect(),
                ),
            })
            .await;
        self.record(key, details.is_ok());
        if let Ok(details) = &details {
            let nodes = details.nodes.keys().cloned().collect();
            self.line.pass.lock().unwrap().members.insert(identity(key), nodes);
        }
        let broken = self.bug == Some(Bug::UnavailableIsEmpty) && details.is_err();
        if broken {
            let uuid = lock(&self.line.world).elastic.of_identity(&identity(key)).next().cloned();
            let Some(cluster) = uuid else { return details };
            // A failed shard query, read as "no shards".
            let Cluster { members: nodes, settings, voting, no_votes, .. } = cluster;
            return Ok(ClusterDetails { nodes, settings, voting, no_votes, indices: Arc::default() });
        }
        details
    }

    async fn sizes(&self, key: &ClusterKey) -> Result<ClusterSizes, SearchError> {
        self.read(key, |cluster| {
            let counts = |index: &Index| IndexCounts {
                documents: index.documents,
                largest_shard_documents: index.documents / i64::from(index.primaries.max(1)),
                largest_shard_bytes: index.bytes / i64::from(index.primaries.max(1)),
            };
            let disk = NodeDisk { total: 1 << 40, available: 1 << 39, shards: 1 << 30 };
            let load = NodeLoad { cpu_percent: 30, heap_percent: 50 };
            ClusterSizes {
                counts: Arc::new(
                    cluster.indices.iter().map(|(name, index)| (name.clone(), counts(index))).collect(),
                ),
                disks: cluster.members.keys().map(|name| (name.clone(), disk)).collect(),
                loads: cluster.members.keys().map(|name| (name.clone(), load)).collect(),
            }
        })
        .await
    }

    async fn explain(
        &self,
        key: &ClusterKey,
        index: &str,
        shard: i32,
        primary: bool,
    ) -> Result<Option<Unassigned>, SearchError> {
        self.read(key, |cluster| {
            let found = cluster.indices.get(index)?;
            let lost = |copy: &&Copy| {
                (copy.shard, copy.primary, copy.state) == (shard, primary, ShardState::Unassigned)
            };
            found.copies.iter().find(lost)?;
            Some(Unassigned {
                index: index.to_owned(),
                shard,
                primary,
                deciders: ["simulation".to_owned()].into(),
                explanation: "no node takes it".to_owned(),
            })
        })
        .await
    }

    async fn documents_of(
        &self,
        key: &ClusterKey,
        index: &str,
        tenants: &[String],
        _is_last: bool,
    ) -> Result<BTreeMap<String, u64>, SearchError> {
        let counted = self.read(key, |cluster| {
            let found = cluster.indices.get(index)?;
            let lost = found.copies.iter().any(|copy| copy.primary && copy.state != ShardState::Started);
            let of = |tenant: &String| (tenant.clone(), found.tenants.get(tenant).copied().unwrap_or(0));
            (!lost).then(|| tenants.iter().map(of).collect())
        });
        counted.await?.ok_or_else(|| SearchError::Unreachable("all shards failed".to_owned()))
    }

    async fn largest_tenants(
        &self,
        key: &ClusterKey,
        index: &str,
        _field: &str,
    ) -> Result<Vec<(String, u64)>, SearchError> {
        let mut largest = self
            .read(key, |cluster| {
                let found = cluster.indices.get(index);
                let tenants = found.into_iter().flat_map(|found| &found.tenants);
                tenants.map(|(tenant, documents)| (tenant.clone(), *documents)).collect::<Vec<_>>()
            })
            .await?;
        largest.sort_by_key(|(_, documents)| std::cmp::Reverse(*documents));
        Ok(largest)
    }

    async fn served(&self, key: &ClusterKey, address: &str) -> Result<Served, SearchError> {
        let read = self.line.call(Peer::Elastic(identity(key)), false, |world| {
            let node = world.containers.values().find(|container| container.pod_uid == address);
            let shown = node.and_then(|node| node.secure.as_ref()).map(Loaded::served);
            shown.ok_or_else(|| SearchError::Unreachable("port 9300 does not answer".to_owned()))
        });
        read.await.unwrap_or_else(|no_answer| Err(no_answer.into()))
    }

    async fn reload_keystore(&self, key: &ClusterKey) -> Result<BTreeMap<String, NodeReload>, SearchError> {
        self.write(key, "reload keystore".to_owned(), |world| {
            let uuid = reach(world, key)?;
            Ok(crate::keystore::reload(world, &uuid))
        })
        .await
    }

    async fn shutdowns(&self, key: &ClusterKey) -> Result<Shutdowns, SearchError> {
        self.read(key, |cluster| cluster.shutdowns.clone().map_or(Shutdowns::NotAvailable, Shutdowns::Known))
            .await
    }

    async fn deprecations(&self, key: &ClusterKey) -> Result<Asked<Vec<String>>, SearchError> {
        self.read(key, |_| Asked::Known(Vec::new())).await
    }

    async fn snapshots(&self, key: &ClusterKey) -> Result<Asked<BTreeMap<String, Timestamp>>, SearchError> {
        self.read(key, |cluster| Asked::Known(backups::snapshots(cluster))).await
    }

    async fn announce_restart(
        &self,
        key: &ClusterKey,
        id: &str,
        absence: Absence,
    ) -> Result<(), SearchError> {
        self.write(key, format!("announce restart {id}"), |world| {
            let cluster = cluster(world, key)?;
            let records = cluster.shutdowns.as_mut();
            let records = records.ok_or_else(|| SearchError::NotAvailable("no handler found".to_owned()))?;
            let record = Shutdown { kind: "RESTART".to_owned(), reason: absence.reason().to_owned() };
            records.insert(id.to_owned(), record);
            cluster.version += 1;
            Ok(())
        })
        .await
    }

    async fn withdraw_restart(&self, key: &ClusterKey, id: &str) -> Result<(), SearchError> {
        self.write(key, format!("withdraw restart {id}"), |world| {
            let cluster = cluster(world, key)?;
            cluster.shutdowns.iter_mut().for_each(|records| {
                records.remove(id);
            });
            cluster.version += 1;
            Ok(())
        })
        .await
    }

    async fn exclude_voter(&self, key: &ClusterKey, node: &str) -> Result<(), SearchError> {
        self.write(key, format!("exclude {node} from voting"), |world| {
            let cluster = cluster(world, key)?;
            cluster.no_votes.insert(node.to_owned());
            cluster.version += 1;
            Ok(())
        })
        .await
    }

    async fn clear_voting_exclusions(&self, key: &ClusterKey) -> Result<(), SearchError> {
        self.write(key, "clear voting exclusions".to_owned(), |world| {
            let cluster = cluster(world, key)?;
            cluster.no_votes.clear();
            cluster.version += 1;
            Ok(())
        })
        .await
    }

    async fn put_settings(
        &self,
        key: &ClusterKey,
        settings: &BTreeMap<String, Option<Value>>,
    ) -> Result<(), SearchError> {
        self.write(key, format!("put settings {settings:?}"), |world| {
            let cluster = cluster(world, key)?;
            for (name, value) in settings {
                match value {
                    Some(value) => cluster.settings.insert(name.clone(), value.clone()),
                    None => cluster.settings.remove(name),
                };
            }
            cluster.version += 1;
            Ok(())
        })
        .await
    }

    async fn create_index(&self, key: &ClusterKey, name: &str, body: &Value) -> Result<(), SearchError> {
        let answer = self.create_on(key, name, body).await;
        // It had its effect, and the network loses what Elasticsearch says of it.
        if self.bug == Some(Bug::RepeatsElsewhere) && answer.is_ok() {
            let other = {
                let world = lock(&self.line.world);
                let others = world.elastic.clusters.values().filter_map(|c| c.identity.split_once('/'));
                others
                    .filter(|(cell, _)| *cell == key.cell)
                    .map(|(_, c)| c.to_owned())
                    .find(|c| *c != key.cluster)
            };
            if let Some(other) = other {
                return self.create_on(&ClusterKey::new(&key.namespace, &key.cell, other), name, body).await;
            }
        }
        answer
    }

    async fn put_mapping(
        &self,
        key: &ClusterKey,
        indices: &[String],
        body: &Value,
    ) -> Result<(), SearchError> {
        self.write(key, format!("put mapping of {indices:?}"), |world| {
            let cluster = cluster(world, key)?;
            for index in all_of(cluster, indices)? {
                let mark = body.pointer("/_meta/searchcell").cloned().unwrap_or_default();
                index.mark = serde_json::from_value(mark).ok();
            }
            cluster.version += 1;
            Ok(())
        })
        .await
    }

    async fn put_index_settings(
        &self,
        key: &ClusterKey,
        indices: &[String],
        settings: &BTreeMap<String, Option<Value>>,
    ) -> Result<(), SearchError> {
        self.write(key, format!("put settings of {indices:?}: {settings:?}"), |world| {
            let now = world.ms;
            let cluster = cluster(world, key)?;
            for index in all_of(cluster, indices)? {
                for (name, value) in settings {
                    match value {
                        Some(replicas) if name == "index.number_of_replicas" => {
                            index.set_replicas(replicas.as_i64().unwrap() as i32, now);
                        }
                        Some(value) => drop(index.settings.insert(name.clone(), value.clone())),
                        None => drop(index.settings.remove(name)),
                    }
                }
            }
            cluster.version += 1;
            Ok(())
        })
        .await
    }

    async fn delete_index(&self, key: &ClusterKey, name: &str, uuid: &str) -> Result<(), SearchError> {
        self.write(key, format!("delete index {name}"), |world| {
            let cluster = cluster(world, key)?;
            if cluster.indices.get(name).is_some_and(|index| index.uuid == uuid) {
                let index = cluster.indices.remove(name);
                cluster.version += 1;
                placed::on_index_deleted(world, name, index.as_ref());
            }
            Ok(())
        })
        .await
    }
}
