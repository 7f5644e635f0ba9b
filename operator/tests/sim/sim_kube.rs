//! `KubeApi` on the simulated API server: stale caches, preconditions, conflicts, and what the invariants want to
//! know of every write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use searchcell_core::drift;
use searchcell_core::names::{
    ClusterKey, FIELD_MANAGER, FINALIZER, LABEL_CELL, LABEL_CLUSTER, LABEL_COLLECTION, LABEL_ROLE,
    routing_table,
};
use searchcell_core::plan::Disruption;
use searchcell_core::routing::Published;
use searchcell_core::snapshot::{CellObjects, is_owned_by, label};
use searchcell_core::step::{Kind, Object, Target};
use searchcell_crds::{IndexPlacement, IndexPlacementStatus, SearchCell, SearchCellStatus};
use searchcell_operator::engine::Key;
use searchcell_operator::ports::{KubeApi, KubeError};
use searchcell_operator::security::parse::Parsed;
use searchcell_operator::security::sealed::Sealed;

use crate::bugs::Bug;
use crate::cache::Cache;
use crate::calls::{Line, NoAnswer, Pass, Peer};
use crate::invariants;
use crate::objects::{K, Obj, Stored};
use crate::placed;
use crate::rolling;
use crate::secure;
use crate::store::{NAMESPACE, OPERATOR_NAMESPACE};
use crate::world::{World, lock};

impl From<NoAnswer> for KubeError {
    fn from(no_answer: NoAnswer) -> Self {
        match no_answer {
            NoAnswer::Unreachable(why) => KubeError::Unreachable(why.to_owned()),
            NoAnswer::Refused(why) => KubeError::Refused(why.to_owned()),
        }
    }
}

pub struct SimKube {
    pub line: Line,
    pub cache: Mutex<Cache>,
    pub bug: Option<Bug>,
    parsed: Parsed,
}

impl SimKube {
    pub fn new(line: Line, bug: Option<Bug>) -> Self {
        let cache = Mutex::new(Cache::listed(&lock(&line.world).store));
        SimKube { line, cache, bug, parsed: Parsed::default() }
    }

    /// The cells and placements that the caches know.
    pub fn keys(&self) -> Vec<Key> {
        let cache = self.cache.lock().unwrap();
        let names =
            |kind: K| cache.objects.get(&kind).into_iter().flat_map(|objects| objects.keys().cloned());
        let placements = cache.objects.get(&K::Placement).into_iter().flatten();
        let placements = placements.filter_map(|(_, object)| IndexPlacement::of(object));
        (names(K::Cell).map(|name| Key::Cell(NAMESPACE.to_owned(), name)))
            .chain(names(K::Placement).map(|name| Key::Placement(NAMESPACE.to_owned(), name)))
            .chain(
                placements
                    .map(|placement| Key::Table(NAMESPACE.to_owned(), placement.spec.collection.clone())),
            )
            .collect()
    }

    /// A pass over a cell, or over a placement of it, begins; it knows what its caches know now.
    pub fn begin_pass(&self, key: &Key) {
        let cache = self.cache.lock().unwrap();
        let suspended = |cell: &str| cache.get::<SearchCell>(cell).is_some_and(|cell| cell.spec.suspend);
        let leaves = |meta: &ObjectMeta| meta.deletion_timestamp.is_some();
        let suspended = match key {
            Key::Cell(_, name) => {
                suspended(name) && !cache.get::<SearchCell>(name).is_some_and(|cell| leaves(&cell.metadata))
            }
            Key::Table(_, collection) => {
                let placements = cache.objects.get(&K::Placement).into_iter().flatten();
                (placements.filter_map(|(_, object)| IndexPlacement::of(object)))
                    .filter(|placement| placement.spec.collection == *collection)
                    .any(|placement| suspended(&placement.spec.cell) && !leaves(&placement.metadata))
            }
            Key::Placement(_, name) => (cache.get::<IndexPlacement>(name))
                .is_some_and(|placement| suspended(&placement.spec.cell) && !leaves(&placement.metadata)),
        };
        let mut pass = self.line.pass.lock().unwrap();
        *pass = Pass { suspended, members: std::mem::take(&mut pass.members), ..Pass::default() };
    }

    async fn write(
        &self,
        what: String,
        effect: impl FnOnce(&mut World, &Pass) -> Result<(), KubeError> + Send,
    ) -> Result<(), KubeError> {
        let mut pass = self.line.pass.lock().unwrap().clone();
        pass.claims_of_masters = self.claims_of_masters(&pass.members);
        let id = self.line.id;
        let answer = self.line.call(Peer::ApiServer, true, move |world| {
            let answer = effect(world, &pass);
            let text = match &answer {
                Ok(()) => format!("operator {id}: {what}"),
                Err(error) => format!("operator {id}: {what}: {error}"),
            };
            world.note(text);
            answer
        });
        answer.await.unwrap_or_else(|no_answer| Err(no_answer.into()))
    }

    /// The claims of masters that were members when Elasticsearch was read last, as the caches have them.
    fn claims_of_masters(&self, members: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<(String, String)> {
        let cache = self.cache.lock().unwrap();
        let claims = cache.objects.get(&K::Claim).into_iter().flatten().map(|(_, object)| object.meta());
        let of_member = |meta: &&ObjectMeta| {
            let (cell, cluster) = (label(meta, LABEL_CELL), label(meta, LABEL_CLUSTER));
            let identity = format!("{}/{}", cell.unwrap_or_default(), cluster.unwrap_or_default());
            let pod = meta.name.as_deref().and_then(|name| name.strip_prefix("data-"));
            let is_master = label(meta, LABEL_ROLE) == Some("master");
            is_master
                && pod.is_some_and(|pod| members.get(&identity).is_some_and(|nodes| nodes.contains(pod)))
        };
        claims.filter(of_member).filter_map(|meta| Some((meta.name.clone()?, meta.uid.clone()?))).collect()
    }

    fn strips_preconditions(&self) -> bool {
        self.bug == Some(Bug::NoPreconditions)
    }
}

/// The object that a target means, or the conflict.
fn check(world: &mut World, target: &Target, stripped: bool) -> Result<Option<Arc<Obj>>, KubeError> {
    let Some(live) = world.store.object(target.kind.into(), &target.name).cloned() else { return Ok(None) };
    let meta = live.meta();
    let same = meta.uid.as_deref() == Some(&target.uid)
        && target.resource_version.is_none() | (meta.resource_version == target.resource_version);
    if !same && !stripped {
        return Err(KubeError::Conflict(format!(
            "{} {} was replaced or changed",
            target.kind.as_str(),
            target.name
        )));
    }
    if !same {
        let name = format!("{} {}", target.kind.as_str(), target.name);
        world.violated(invariants::ACTS_ON_WHAT_IT_SAW, format!("{name} is not what was observed any more"));
    }
    Ok(Some(live))
}

fn annotate(live: &mut ObjectMeta, new: &ObjectMeta) {
    live.annotations.get_or_insert_default().extend(new.annotations.clone().unwrap_or_default());
}

fn gone(target: &Target) -> KubeError {
    KubeError::Conflict(format!("{} {} is gone", target.kind.as_str(), target.name))
}

#[async_trait]
impl KubeApi for SimKube {
    fn search_cell(&self, _namespace: &str, name: &str) -> Option<SearchCell> {
        self.cache.lock().unwrap().get(name)
    }

    fn placements(&self, _namespace: &str) -> Vec<IndexPlacement> {
        let cache = self.cache.lock().unwrap();
        let all = cache.objects.get(&K::Placement).into_iter().flatten();
        all.filter_map(|(_, object)| IndexPlacement::of(object)).cloned().collect()
    }

    fn operator_namespace(&self) -> &str {
        OPERATOR_NAMESPACE
    }

    fn disruptions(&self) -> Vec<Disruption> {
        let cache = self.cache.lock().unwrap();
        let all = cache.objects.get(&K::Cell).into_iter().flatten();
        all.filter_map(|(_, object)| SearchCell::of(object)).flat_map(Disruption::of_cell).collect()
    }

    fn cell_objects(&self, _namespace: &str, cell: &str) -> CellObjects {
        let cache = self.cache.lock().unwrap();
        CellObjects {
            stateful_sets: cache.of_cell(cell),
            deployments: cache.of_cell(cell),
            autoscalers: cache.of_cell(cell),
            services: cache.of_cell(cell),
            config_maps: cache.of_cell(cell),
            budgets: cache.of_cell(cell),
            network_policies: cache.of_cell(cell),
            claims: cache.of_cell(cell),
            pods: cache.of_cell(cell),
            secrets: self.parsed.facts_of(NAMESPACE, cell, &cache.secrets(cell)),
        }
    }

    fn table(&self, _namespace: &str, collection: &str) -> Option<Arc<Published>> {
        let map = self.cache.lock().unwrap().get::<ConfigMap>(&routing_table(collection))?;
        (label(&map.metadata, LABEL_COLLECTION) == Some(collection)).then(|| Arc::new(Published::read(&map)))
    }

    async fn table_live(&self, _namespace: &str, collection: &str) -> Result<Option<Published>, KubeError> {
        let name = routing_table(collection);
        let read = self
            .line
            .call(Peer::ApiServer, false, |world| world.store.get::<ConfigMap>(&name).map(Published::read));
        Ok(read.await?)
    }

    async fn search_cell_live(&self, _namespace: &str, name: &str) -> Result<Option<SearchCell>, KubeError> {
        let blind = self.bug == Some(Bug::NoLiveCheck);
        if blind {
            return Ok(self.cache.lock().unwrap().get(name));
        }
        // The executor asks here whether a restart is recorded, and would stop them.
        let unrecorded = [Bug::RestartsUnrecorded, Bug::RestartsTogether, Bug::RestartsUpdated];
        let lies = self.bug.is_some_and(|bug| unrecorded.contains(&bug));
        let read = self.line.call(Peer::ApiServer, false, |world| {
            let cell = world.store.get::<SearchCell>(name).cloned();
            if lies { cell.map(|cell| rolling::with_all_recorded(world, cell)) } else { cell }
        });
        let read = read.await?;
        self.line.pass.lock().unwrap().cell_read_live = true;
        Ok(read)
    }

    async fn disruptions_live(&self) -> Result<Vec<Disruption>, KubeError> {
        let read = self.line.call(Peer::ApiServer, false, |world| {
            world.store.all::<SearchCell>().flat_map(Disruption::of_cell).collect()
        });
        Ok(read.await?)
    }

    async fn placements_live(&self, _namespace: &str) -> Result<Vec<IndexPlacement>, KubeError> {
        let read = self
            .line
            .call(Peer::ApiServer, false, |world| world.store.all::<IndexPlacement>().cloned().collect());
        Ok(read.await?)
    }

    async fn claims_live(&self, cluster: &ClusterKey) -> Result<Vec<PersistentVolumeClaim>, KubeError> {
        let ours = |claim: &PersistentVolumeClaim| {
            label(&claim.metadata, LABEL_CELL) == Some(&cluster.cell)
                && label(&claim.metadata, LABEL_CLUSTER) == Some(&cluster.cluster)
        };
        if self.bug == Some(Bug::NoLiveCheck) {
            let cached = self.cache.lock().unwrap().of_cell::<PersistentVolumeClaim>(&cluster.cell);
            return Ok(cached.into_iter().filter(ours).collect());
        }
        let read = self.line.call(Peer::ApiServer, false, |world| {
            world
                .store
                .all::<PersistentVolumeClaim>()
                .filter(|claim| ours(claim))
                .cloned()
                .collect::<Vec<_>>()
        });
        let read = read.await?;
        self.line.pass.lock().unwrap().claims_read_live.insert(cluster.cluster.clone());
        Ok(read)
    }

    async fn create(&self, _namespace: &str, object: &Object, owner_uid: &str) -> Result<(), KubeError> {
        let (kind, name) = (object.kind(), object.name().to_owned());
        let adopts = self.bug == Some(Bug::AdoptsForeign);
        self.write(format!("create {} {name}", kind.as_str()), |world, pass| {
            match world.store.create(world.ms, FIELD_MANAGER, Obj::from(object)) {
                Ok(created) => {
                    invariants::on_change(world, pass, None, Some(&created));
                    Ok(())
                }
                Err(existing) if is_owned_by(existing.meta(), owner_uid) => {
                    Err(KubeError::Conflict(format!("{} {name} is there already", kind.as_str())))
                }
                Err(existing) if adopts => {
                    world.store.apply(FIELD_MANAGER, &Obj::from(object));
                    invariants::on_change(world, pass, Some(&existing), Some(&existing));
                    Ok(())
                }
                Err(_) => Err(KubeError::NotOurs { kind: kind.as_str(), name: name.clone() }),
            }
        })
        .await
    }

    async fn apply(&self, _namespace: &str, object: &Object, target: &Target) -> Result<(), KubeError> {
        let stripped = self.strips_preconditions();
        self.write(format!("apply {} {}", target.kind.as_str(), target.name), |world, pass| {
            let Some(old) = check(world, target, stripped)? else { return Err(gone(target)) };
            world.store.apply(FIELD_MANAGER, &Obj::from(object));
            let new = world.store.object(target.kind.into(), &target.name).cloned();
            invariants::on_change(world, pass, Some(&old), new.as_ref());
            Ok(())
        })
        .await
    }

    async fn scale(&self, _namespace: &str, target: &Target, replicas: i32) -> Result<(), KubeError> {
        let stripped = self.strips_preconditions();
        self.write(format!("scale {} {} to {replicas}", target.kind.as_str(), target.name), |world, pass| {
            let Some(old) = check(world, target, stripped)? else { return Err(gone(target)) };
            match target.kind {
                Kind::StatefulSet => world.store.update::<StatefulSet>(FIELD_MANAGER, &target.name, |set| {
                    set.spec.get_or_insert_default().replicas = Some(replicas);
                }),
                _ => world.store.update::<Deployment>(FIELD_MANAGER, &target.name, |deployment| {
                    deployment.spec.get_or_insert_default().replicas = Some(replicas);
                }),
            };
            let new = world.store.object(target.kind.into(), &target.name).cloned();
            invariants::on_change(world, pass, Some(&old), new.as_ref());
            Ok(())
        })
        .await
    }

    async fn release_replicas(&self, _namespace: &str, target: &Target) -> Result<(), KubeError> {
        let stripped = self.strips_preconditions();
        self.write(format!("release replicas of {}", target.name), |world, pass| {
            let Some(old) = check(world, target, stripped)? else { return Err(gone(target)) };
            world.store.release(FIELD_MANAGER, target.kind.into(), &target.name, &["spec", "replicas"]);
            let new = world.store.object(target.kind.into(), &target.name).cloned();
            invariants::on_change(world, pass, Some(&old), new.as_ref());
            Ok(())
        })
        .await
    }

    async fn annotate(
        &self,
        _namespace: &str,
        target: &Target,
        annotations: &BTreeMap<String, String>,
    ) -> Result<(), KubeError> {
        let stripped = self.strips_preconditions();
        self.write(
            format!("annotate {} {} {annotations:?}", target.kind.as_str(), target.name),
            |world, pass| {
                let Some(old) = check(world, target, stripped)? else { return Err(gone(target)) };
                world.store.update::<PersistentVolumeClaim>(FIELD_MANAGER, &target.name, |claim| {
                    claim.metadata.annotations.get_or_insert_default().extend(annotations.clone());
                });
                let new = world.store.object(target.kind.into(), &target.name).cloned();
                invariants::on_change(world, pass, Some(&old), new.as_ref());
                Ok(())
            },
        )
        .await
    }

    async fn grow_claim(&self, _namespace: &str, target: &Target, size: &Quantity) -> Result<(), KubeError> {
        let stripped = self.strips_preconditions();
        self.write(format!("grow {} to {}", target.name, size.0), |world, pass| {
            let Some(old) = check(world, target, stripped)? else { return Err(gone(target)) };
            world.store.update::<PersistentVolumeClaim>(FIELD_MANAGER, &target.name, |claim| {
                let resources = claim.spec.get_or_insert_default().resources.get_or_insert_default();
                resources.requests.get_or_insert_default().insert("storage".to_owned(), size.clone());
            });
            let new = world.store.object(target.kind.into(), &target.name).cloned();
            invariants::on_change(world, pass, Some(&old), new.as_ref());
            Ok(())
        })
        .await
    }

    /// In one go, and the StatefulSet keeps its identity here: what matters is that its template stays.
    async fn recreate_around_pods(
        &self,
        _namespace: &str,
        target: &Target,
        size: &Quantity,
    ) -> Result<(), KubeError> {
        let stripped = self.strips_preconditions();
        self.write(format!("recreate {} with {}", target.name, size.0), |world, pass| {
            let Some(old) = check(world, target, stripped)? else { return Err(gone(target)) };
            world.store.update::<StatefulSet>(FIELD_MANAGER, &target.name, |set| {
                for claim in set.spec.iter_mut().flat_map(|spec| &mut spec.volume_claim_templates).flatten() {
                    let resources = claim.spec.get_or_insert_default().resources.get_or_insert_default();
                    resources.requests.get_or_insert_default().insert("storage".to_owned(), size.clone());
                }
            });
            let new = world.store.object(target.kind.into(), &target.name).cloned();
            invariants::on_change(world, pass, Some(&old), new.as_ref());
            Ok(())
        })
        .await
    }

    async fn replace_template(
        &self,
        _namespace: &str,
        object: &Object,
        target: &Target,
    ) -> Result<(), KubeError> {
        let stripped = self.strips_preconditions();
        self.write(format!("template of {} {}", target.kind.as_str(), target.name), |world, pass| {
            let Some(old) = check(world, target, stripped)? else { return Err(gone(target)) };
            match object {
                Object::StatefulSet(new) => {
                    world.store.update::<StatefulSet>(FIELD_MANAGER, &target.name, |set| {
                        annotate(&mut set.metadata, &new.metadata);
                        let template = new.spec.as_ref().map(|spec| spec.template.clone());
                        set.spec.get_or_insert_default().template = template.unwrap_or_default();
                    });
                }
                Object::Deployment(new) => {
                    world.store.update::<Deployment>(FIELD_MANAGER, &target.name, |deployment| {
                        annotate(&mut deployment.metadata, &new.metadata);
                        let template = new.spec.as_ref().map(|spec| spec.template.clone());
                        deployment.spec.get_or_insert_default().template = template.unwrap_or_default();
                    });
                }
                _ => return Err(KubeError::Refused("it has no template".to_owned())),
            }
            let new = world.store.object(target.kind.into(), &target.name).cloned();
            invariants::on_change(world, pass, Some(&old), new.as_ref());
            Ok(())
        })
        .await
    }

    async fn delete(&self, _namespace: &str, target: &Target) -> Result<(), KubeError> {
        let stripped = self.strips_preconditions();
        self.write(format!("delete {} {}", target.kind.as_str(), target.name), |world, pass| {
            let Some(old) = check(world, target, stripped)? else { return Ok(()) };
            if let Some(pod) = Pod::of(&old) {
                rolling::on_restart(world, pod);
            }
            invariants::on_change(world, pass, Some(&old), None);
            world.store.delete(world.ms, target.kind.into(), &target.name);
            Ok(())
        })
        .await
    }

    async fn pods_live(
        &self,
        _namespace: &str,
        selector: &BTreeMap<String, String>,
    ) -> Result<BTreeSet<String>, KubeError> {
        let has = |pod: &&Pod| selector.iter().all(|(key, value)| label(&pod.metadata, key) == Some(value));
        let read = self.line.call(Peer::ApiServer, false, |world| {
            world.store.all::<Pod>().filter(has).filter_map(|pod| pod.metadata.uid.clone()).collect()
        });
        Ok(read.await?)
    }

    async fn secret_live(&self, _namespace: &str, name: &str) -> Result<Option<Sealed>, KubeError> {
        let read = self.line.call(Peer::ApiServer, false, |world| world.store.get::<Secret>(name).cloned());
        Ok(read.await?.map(Sealed))
    }

    async fn create_secret(
        &self,
        _namespace: &str,
        secret: &Sealed,
        owner_uid: &str,
    ) -> Result<(), KubeError> {
        let name = secret.name().to_owned();
        self.write(format!("create Secret {name}"), |world, pass| {
            match world.store.create(world.ms, FIELD_MANAGER, Obj::Secret(secret.0.clone())) {
                Ok(created) => {
                    invariants::on_change(world, pass, None, Some(&created));
                    secure::is_made(world, secret);
                    Ok(())
                }
                Err(existing) if is_owned_by(existing.meta(), owner_uid) => {
                    Err(KubeError::Conflict(format!("Secret {name} is there already")))
                }
                Err(_) => Err(KubeError::NotOurs { kind: "Secret", name: name.clone() }),
            }
        })
        .await
    }

    async fn replace_secret(&self, _namespace: &str, secret: &Sealed) -> Result<(), KubeError> {
        let name = secret.name().to_owned();
        let stripped = self.strips_preconditions();
        let target = drift::exact_target(Kind::Secret, &secret.0.metadata);
        self.write(format!("replace Secret {name}"), |world, pass| {
            let Some(old) = check(world, &target, stripped)? else { return Err(gone(&target)) };
            world.store.update::<Secret>(FIELD_MANAGER, &name, |stored| *stored = secret.0.clone());
            let new = world.store.object(K::Secret, &name).cloned();
            invariants::on_change(world, pass, Some(&old), new.as_ref());
            Ok(())
        })
        .await
    }

    async fn set_cell_finalizer(&self, cell: &SearchCell, present: bool) -> Result<(), KubeError> {
        self.set_finalizer::<SearchCell>(cell, present).await
    }

    async fn set_placement_finalizer(
        &self,
        placement: &IndexPlacement,
        present: bool,
    ) -> Result<(), KubeError> {
        self.set_finalizer::<IndexPlacement>(placement, present).await
    }

    async fn publish_cell_status(
        &self,
        cell: &SearchCell,
        status: &SearchCellStatus,
    ) -> Result<(), KubeError> {
        let name = cell.metadata.name.clone().unwrap_or_default();
        let stripped = self.strips_preconditions();
        self.write(format!("status of cell {name}: {}", conditions(&status.conditions)), |world, _| {
            revision_matches::<SearchCell>(world, cell, stripped)?;
            invariants::on_cell_status(world, &name, status);
            world.store.update::<SearchCell>(FIELD_MANAGER, &name, |cell| cell.status = Some(status.clone()));
            Ok(())
        })
        .await
    }

    async fn publish_placement_status(
        &self,
        placement: &IndexPlacement,
        status: &IndexPlacementStatus,
    ) -> Result<(), KubeError> {
        let name = placement.metadata.name.clone().unwrap_or_default();
        let stripped = self.strips_preconditions();
        self.write(format!("status of placement {name}: {}", conditions(&status.conditions)), |world, _| {
            revision_matches::<IndexPlacement>(world, placement, stripped)?;
            placed::on_placement_status(world, &name, status);
            world.store.update::<IndexPlacement>(FIELD_MANAGER, &name, |p| p.status = Some(status.clone()));
            Ok(())
        })
        .await
    }
}

fn conditions(list: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]) -> String {
    list.iter()
        .map(|c| format!("{}={}({}: {})", c.type_, c.status, c.reason, c.message))
        .collect::<Vec<_>>()
        .join(" ")
}

fn revision_matches<T: Stored>(world: &mut World, seen: &T, stripped: bool) -> Result<(), KubeError> {
    let name = seen.meta().name.clone().unwrap_or_default();
    let Some(live) = world.store.get::<T>(&name) else {
        return Err(KubeError::Conflict(format!("{} {name} is gone", T::KIND)));
    };
    let same =
        live.meta().uid == seen.meta().uid && live.meta().resource_version == seen.meta().resource_version;
    if !same && !stripped {
        return Err(KubeError::Conflict(format!("{} {name} was changed", T::KIND)));
    }
    if !same {
        world.violated(invariants::ACTS_ON_WHAT_IT_SAW, format!("{} {name} was changed since", T::KIND));
    }
    Ok(())
}

impl SimKube {
    async fn set_finalizer<T: Stored>(&self, seen: &T, present: bool) -> Result<(), KubeError> {
        let name = seen.meta().name.clone().unwrap_or_default();
        let stripped = self.strips_preconditions();
        let verb = if present { "add" } else { "remove" };
        self.write(format!("{verb} finalizer of {} {name}", T::KIND), |world, _| {
            revision_matches::<T>(world, seen, stripped)?;
            if present && seen.meta().deletion_timestamp.is_some() {
                return Err(KubeError::Refused(
                    "no new finalizers can be added while it is being deleted".to_owned(),
                ));
            }
            world.store.update::<T>(FIELD_MANAGER, &name, |object| {
                let list = object.meta_mut().finalizers.get_or_insert_default();
                list.retain(|finalizer| finalizer != FINALIZER);
                if present {
                    list.push(FINALIZER.to_owned());
                }
            });
            Ok(())
        })
        .await
    }
}
