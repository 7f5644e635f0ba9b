//! Snapshots of clusters, and what must be true of them: there is one before nodes change their version.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use searchcell_core::names::{LABEL_CELL, LABEL_CLUSTER};
use searchcell_core::snapshot::{Asked, CellSnapshot, Reading, label};

use crate::elastic::Cluster;
use crate::store::api_time;
use crate::world::World;

/// The first node of a cluster with indices changes its version only when there is a snapshot of them.
pub const SAVED_FIRST: &str = "versions_change_after_a_snapshot";

/// How long it may take until the operator can know of something.
const NEWS_MS: u64 = 20_000;

/// When the newest snapshot of each index was complete.
pub fn snapshots(cluster: &Cluster) -> BTreeMap<String, Timestamp> {
    let taken = |saved: &u64| cluster.indices.keys().map(|name| (name.clone(), api_time(*saved).0)).collect();
    cluster.saved.as_ref().map(taken).unwrap_or_default()
}

/// Somebody takes snapshots all the time, or nobody does.
pub fn set(world: &mut World, back_up: bool) {
    world.nobody_backs_up = !back_up;
}

/// What time alone changes.
pub fn tick(world: &mut World) {
    let (ms, back_up) = (world.ms, !world.nobody_backs_up);
    for cluster in world.elastic.clusters.values_mut() {
        if back_up {
            (cluster.saved, cluster.unsaved_since) = (Some(ms), None);
        } else if cluster.saved.is_none() && !cluster.indices.is_empty() {
            cluster.unsaved_since.get_or_insert(ms);
        }
    }
}

/// An operator writes the template of a StatefulSet.
pub fn on_template(world: &mut World, before: &StatefulSet, after: &StatefulSet) {
    let (Some(image), meta) = (image(after), &after.metadata) else { return };
    let (Some(cell), Some(cluster)) = (label(meta, LABEL_CELL), label(meta, LABEL_CLUSTER)) else { return };
    let is_sibling = |set: &&StatefulSet| {
        label(&set.metadata, LABEL_CELL) == Some(cell)
            && label(&set.metadata, LABEL_CLUSTER) == Some(cluster)
            && set.metadata.name != meta.name
    };
    let has_begun =
        world.store.all::<StatefulSet>().filter(is_sibling).any(|set| self::image(set) == Some(image));
    if self::image(before) == Some(image) || has_begun {
        return;
    }
    let version = image.rsplit(':').next().unwrap_or_default();
    let identity = format!("{cell}/{cluster}");
    let unsaved = world.elastic.of_identity(&identity).any(|live| {
        live.unsaved_since.is_some_and(|since| since + NEWS_MS < world.ms)
            && !live.members.is_empty()
            && live.members.values().all(|member| member.version != version)
    });
    if unsaved {
        world.violated(SAVED_FIRST, format!("{identity} changes to {version}, and has no snapshot"));
    }
}

fn image(set: &StatefulSet) -> Option<&str> {
    let pod = set.spec.as_ref()?.template.spec.as_ref()?;
    pod.containers.iter().find(|container| container.name == "elasticsearch")?.image.as_deref()
}

/// A deliberate bug: whatever is there is in a snapshot.
pub fn all_saved(snapshot: &mut CellSnapshot, now: Timestamp) {
    for reading in snapshot.elastic.values_mut() {
        let Reading::Known(facts) = reading else { continue };
        let names = facts.indices.keys().cloned();
        facts.preflight.snapshots = Asked::Known(names.map(|name| (name, now)).collect());
    }
}
