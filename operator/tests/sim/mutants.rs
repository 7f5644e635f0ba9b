//! Deliberate bugs are injected from outside: through the ports, or, here, by deciding otherwise than the core does. Each has
//! to be caught by a named invariant, else the simulation looks away from something.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use searchcell_core::build;
use searchcell_core::domain::{ValidCell, ValidPlacement};
use searchcell_core::names::{ANNOTATION_CLUSTER_UUID, LABEL_CLUSTER, LABEL_ROLE, dedicated_index};
use searchcell_core::placement::{self, PlacementSnapshot};
use searchcell_core::plan;
use searchcell_core::routing::{self, TableSnapshot};
use searchcell_core::security::keystore::{SEED, SecureSource, Wanted};
use searchcell_core::security::order::{CredentialOrder, Order};
use searchcell_core::snapshot::{CellSnapshot, Reading, annotation, label};
use searchcell_core::status;
use searchcell_core::step::{Action, Kind as ObjectKind, Object, Outcome, Plan, Step, Target};
use searchcell_core::validate::Problem;
use searchcell_crds::{
    ClusterPlacement, DeletionPolicy, IndexPlacementStatus, PlacementAssignment, SearchCellStatus,
};
use searchcell_operator::decide::Decide;

use crate::bugs::Bug;
use crate::{backups, keystore, removal, rolling, scaling, secure, tenants};

/// The core with a bug.
pub struct Mutant(pub Bug);

impl Mutant {
    fn is(&self, bug: Bug) -> bool {
        self.0 == bug
    }
}

fn step(cluster: &str, action: Action) -> Step {
    Step { cluster: Some(cluster.to_owned()), action, why: "a deliberate bug".to_owned() }
}

fn target(kind: ObjectKind, meta: &ObjectMeta) -> Target {
    Target {
        kind,
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: None,
    }
}

/// Credentials that somebody waits for, in place of those that would stand by.
fn made_when_needed(snapshot: &CellSnapshot, step: Step) -> Vec<Step> {
    let Action::Secure(order) = &step.action else { return vec![step] };
    let Order::Standby(standby) = order.as_ref() else { return vec![step] };
    let cell = snapshot.cell.metadata.name.as_deref().unwrap_or_default();
    (standby.make.iter())
        .map(|(role, username)| (format!("{cell}-{role}"), username.clone()))
        .filter(|(name, _)| !snapshot.objects.secrets.iter().any(|secret| secret.name() == name))
        .map(|(name, username)| {
            let metadata = ObjectMeta { name: Some(name), ..standby.metadata.clone() };
            let order = Order::Credential(CredentialOrder { metadata, username, standby: None });
            Step { action: Action::Secure(Box::new(order)), ..step.clone() }
        })
        .collect()
}

impl Decide for Mutant {
    fn plan_cell(&self, cell: &ValidCell, snapshot: &CellSnapshot, now: Timestamp) -> Plan {
        let (mut cell, mut snapshot) = (cell.clone(), snapshot.clone());
        if self.is(Bug::SuspendIgnored) {
            (cell.suspend, snapshot.cell.spec.suspend) = (false, false);
        }
        if self.is(Bug::SecretsAreProof) {
            snapshot.served = secure::as_mounted(&snapshot);
        }
        if self.is(Bug::NeverRestarts) {
            snapshot.restarts_nodes = false;
        }
        if self.is(Bug::ZonesAreSpared) {
            rolling::third_copies(&mut snapshot);
        }
        if self.is(Bug::NothingIsSaved) {
            backups::all_saved(&mut snapshot, now);
        }
        if self.is(Bug::AllClustersAtOnce) {
            cell.max_unavailable_clusters = 64;
        }
        if self.is(Bug::VersionsAreEqual) {
            rolling::one_version(&mut snapshot);
        }
        if self.is(Bug::CopiesAreStarted) {
            rolling::all_started(&mut snapshot);
        }
        if self.is(Bug::NodesAreEmpty) {
            scaling::all_empty(&mut snapshot);
        }
        if self.is(Bug::MastersAreVoteless) {
            scaling::nobody_votes(&mut snapshot);
        }
        if self.is(Bug::NobodyIsMissing) {
            rolling::all_ready(&mut snapshot);
        }
        if self.is(Bug::IndicesOverlooked) {
            removal::overlook(&mut snapshot);
        }
        let mut plan = plan::plan_cell(&cell, &snapshot, now);
        let is_map = |target: &Target| target.kind == ObjectKind::ConfigMap;
        match self.0 {
            Bug::MapIsKept => {
                plan.steps.retain(|s| !matches!(&s.action, Action::Delete { target } if is_map(target)))
            }
            Bug::ClaimsUnmarked => plan.steps.retain(|s| !matches!(s.action, Action::AnnotateClaim { .. })),
            Bug::Unfenced => {
                plan.steps.retain(|s| !matches!(&s.action, Action::Create(Object::NetworkPolicy(_))))
            }
            Bug::NeverReloads => plan.steps.retain(|s| !matches!(s.action, Action::ReloadKeystore(_))),
            Bug::KeystoreWhole => {
                for s in &mut plan.steps {
                    let Action::Secure(order) = &mut s.action else { continue };
                    let (Order::Keystore(order), Some(SecureSource::Read(entries))) =
                        (order.as_mut(), snapshot.secure_settings.get(keystore::SECRET))
                    else {
                        continue;
                    };
                    order.keep.retain(|name| name == SEED);
                    order.take = (entries.iter())
                        .map(|(name, entry)| {
                            let secret = keystore::SECRET.to_owned();
                            (name.clone(), Wanted { secret, entry: entry.clone() })
                        })
                        .collect();
                }
            }
            Bug::NobodyStandsBy => {
                let steps = std::mem::take(&mut plan.steps);
                plan.steps = steps.into_iter().flat_map(|s| made_when_needed(&snapshot, s)).collect();
            }
            Bug::RestartsTogether | Bug::RestartsUpdated => {
                rolling::restart_more(&cell, &snapshot, &mut plan, self.0);
            }
            Bug::IndicesOverlooked => removal::unasked(&mut plan),
            Bug::VolumesUnrecorded => {
                for claim in removal::claims_of_removed(&snapshot) {
                    let of = label(&claim.metadata, LABEL_CLUSTER).unwrap_or_default();
                    let target = target(ObjectKind::PersistentVolumeClaim, &claim.metadata);
                    plan.steps.push(step(of, Action::Delete { target }));
                }
            }
            Bug::DrainIsForgotten => scaling::forget(&mut plan),
            Bug::VotesStayTaken => {
                plan.steps.retain(|s| !matches!(s.action, Action::ClearVotingExclusions));
            }
            Bug::NobodyIsTold => {
                plan.steps.retain(|s| !matches!(s.action, Action::AnnounceRestart { .. }));
            }
            Bug::TalesStay => plan.steps.retain(|s| !matches!(s.action, Action::WithdrawRestart { .. })),
            Bug::RestartsUnrecorded => {
                let begun = rolling::as_if_recorded(&snapshot, &plan);
                plan.steps
                    .extend(begun.into_iter().flat_map(|begun| plan::plan_cell(&cell, &begun, now).steps));
            }
            Bug::OperationStays => plan.operations.retain(|_, operation| operation.is_some()),
            Bug::NoAwareness => plan.steps.retain(|s| !matches!(s.action, Action::PutSettings(_))),
            Bug::RemovesClusters => {
                for set in &snapshot.objects.stateful_sets {
                    let of = label(&set.metadata, LABEL_CLUSTER).unwrap_or_default();
                    if !cell.clusters.iter().any(|cluster| cluster.name == of) {
                        let target = target(ObjectKind::StatefulSet, &set.metadata);
                        plan.steps.push(step(of, Action::Delete { target }));
                    }
                }
            }
            Bug::MapGoesEarly => {
                for map in &snapshot.objects.config_maps {
                    let target = target(ObjectKind::ConfigMap, &map.metadata);
                    plan.steps.push(step(&cell.clusters[0].name, Action::Delete { target }));
                }
            }
            Bug::OneClaimIsEnough => {
                let recorded =
                    snapshot.cell.status.iter().flat_map(|status| &status.clusters).any(|c| c.uuid.is_some());
                let marked = |claim: &PersistentVolumeClaim| {
                    label(&claim.metadata, LABEL_ROLE) == Some("master")
                        && annotation(&claim.metadata, ANNOTATION_CLUSTER_UUID).is_some()
                };
                if let (true, Some(map)) = (recorded, snapshot.objects.config_maps.first()) {
                    let one = snapshot.objects.claims.iter().any(marked);
                    let action = Action::Delete { target: target(ObjectKind::ConfigMap, &map.metadata) };
                    let first =
                        plan.steps.iter().position(|s| matches!(s.action, Action::AnnotateClaim { .. }));
                    if one {
                        plan.steps.insert(0, step(&cell.clusters[0].name, action));
                    } else if let Some(first) = first {
                        plan.steps.truncate(first + 1);
                    }
                }
            }
            Bug::ReplacesNodes => {
                for set in &snapshot.objects.stateful_sets {
                    let of = label(&set.metadata, LABEL_CLUSTER).unwrap_or_default();
                    let pod = format!("{}-0", set.metadata.name.as_deref().unwrap_or_default());
                    if snapshot.elastic(of).is_some_and(|facts| !facts.nodes.contains_key(&pod)) {
                        let target = target(ObjectKind::StatefulSet, &set.metadata);
                        plan.steps.push(step(of, Action::Delete { target }));
                    }
                }
            }
            Bug::TemplateRewritten => {
                for set in &snapshot.objects.stateful_sets {
                    let target = target(ObjectKind::StatefulSet, &set.metadata);
                    let mut set = set.clone();
                    (set.metadata.managed_fields, set.metadata.resource_version, set.status) =
                        (None, None, None);
                    let template = &mut set.spec.get_or_insert_default().template;
                    let annotations =
                        template.metadata.get_or_insert_default().annotations.get_or_insert_default();
                    annotations.insert("rendered-by".to_owned(), "this build".to_owned());
                    let object = Object::StatefulSet(Box::new(set));
                    plan.steps.push(step(&cell.clusters[0].name, Action::Apply { object, target }));
                }
            }
            Bug::ReplicasDip => {
                let mut dips = Vec::new();
                for s in &plan.steps {
                    let (Action::ReleaseReplicas { target }, Some(cluster)) = (&s.action, &s.cluster) else {
                        continue;
                    };
                    if let Some(one) = build::ingest_deployment(&cell, &cell.key(cluster), Some(1)) {
                        let target = Target { resource_version: None, ..target.clone() };
                        let object = Object::Deployment(Box::new(one));
                        dips.push(step(cluster, Action::Apply { object, target }));
                    }
                }
                plan.steps.extend(dips);
            }
            Bug::BootstrapsAgain => {
                let forgetful = CellSnapshot {
                    cell: searchcell_crds::SearchCell { status: None, ..snapshot.cell.clone() },
                    objects: Default::default(),
                    elastic: Default::default(),
                    placements: Vec::new(),
                    served: Default::default(),
                    supplied: Default::default(),
                    secure_settings: Default::default(),
                    lifetimes: Default::default(),
                    restarts_nodes: true,
                    disruptions: Vec::new(),
                    most_disruptions: snapshot.most_disruptions,
                    operator_namespace: snapshot.operator_namespace.clone(),
                };
                let lost =
                    snapshot.cell.status.iter().flat_map(|status| &status.clusters).any(|c| c.uuid.is_some())
                        && snapshot.elastic.values().all(|reading| reading.known().is_none())
                        && snapshot.objects.config_maps.is_empty();
                if lost {
                    let anew = plan::plan_cell(&cell, &forgetful, now).steps;
                    for s in anew {
                        if let Action::Bootstrap(map) = s.action {
                            let create = Action::Create(Object::ConfigMap(map));
                            plan.steps.push(Step { action: create, ..s });
                        }
                    }
                }
            }
            _ => {}
        }
        plan
    }

    fn plan_cell_deletion(&self, snapshot: &CellSnapshot, now: Timestamp) -> Plan {
        let mut snapshot = snapshot.clone();
        if self.is(Bug::PolicyIgnored) {
            snapshot.cell.spec.deletion_policy = DeletionPolicy::Delete;
        }
        let mut plan = plan::plan_deletion(&snapshot, now);
        if self.is(Bug::FinalizerWaits) && snapshot.elastic.values().any(|reading| reading.known().is_none())
        {
            plan.steps.retain(|s| !matches!(s.action, Action::RemoveFinalizer));
        }
        plan
    }

    fn cell_status(
        &self,
        snapshot: &CellSnapshot,
        valid: Result<&ValidCell, &[Problem]>,
        plan: &Plan,
        outcomes: &[Outcome],
        now: Timestamp,
    ) -> SearchCellStatus {
        let mut status = status::cell_status(snapshot, valid, plan, outcomes, now);
        match self.0 {
            Bug::StatusAlways => {
                if let Some(condition) = status.conditions.first_mut() {
                    condition.message = format!("looked at {now}");
                }
            }
            Bug::GenerationAhead => status.observed_generation = status.observed_generation.map(|g| g + 1),
            Bug::UuidForgotten => {
                for cluster in &mut status.clusters {
                    if snapshot.elastic(&cluster.name).is_none() {
                        cluster.uuid = None;
                    }
                }
            }
            _ => {}
        }
        status
    }

    fn plan_placement(&self, valid: &ValidPlacement, snapshot: &PlacementSnapshot, now: Timestamp) -> Plan {
        let mut uncounted = snapshot.clone();
        let recorded = |tenant: &str| {
            let name = dedicated_index(tenants::COLLECTION, tenant, 1);
            let status = snapshot.placement.status.iter().flat_map(|status| &status.assignments);
            status.into_iter().any(|at| at.pending.contains(&name))
        };
        for (tenant, counted) in &mut uncounted.pooled {
            if self.is(Bug::CountsNobody) || self.is(Bug::CountsOnce) && recorded(tenant) {
                *counted = Reading::Known(0);
            }
        }
        let mut plan = placement::plan_placement(valid, &uncounted, now);
        if self.is(Bug::IndexUnmarked) {
            for s in &mut plan.steps {
                if let Action::CreateIndex { body, .. } = &mut s.action {
                    body["mappings"]["_meta"] = serde_json::json!({});
                }
            }
        }
        match self.0 {
            Bug::LeavesSettings => {
                plan.steps.retain(|s| !matches!(s.action, Action::PutIndexSettings { .. }));
            }
            Bug::MarksNoMapping => plan.steps.retain(|s| !matches!(s.action, Action::PutMapping { .. })),
            _ => {}
        }
        if self.is(Bug::CreatesUnrecorded) {
            for (name, cluster) in std::mem::take(&mut plan.assign) {
                if let Some(index) = valid.indices.iter().find(|index| index.name == name) {
                    let body = build::index_body(valid, index, valid.replicas.unwrap_or(0));
                    plan.steps.push(step(&cluster, Action::CreateIndex { name, body }));
                }
            }
        }
        plan
    }

    fn plan_table(&self, snapshot: &TableSnapshot, now: Timestamp) -> Plan {
        let mut snapshot = snapshot.clone();
        for status in snapshot.placements.iter_mut().filter_map(|placement| placement.status.as_mut()) {
            if self.is(Bug::NumbersByClock) {
                status.table_generation = None;
            }
            if self.is(Bug::NamesTheUnborn) {
                status.assignments.iter_mut().for_each(|at| at.indices.append(&mut at.pending));
            }
        }
        if self.is(Bug::NumbersByClock)
            && let Some(published) = &mut snapshot.published
        {
            published.metadata.annotations = None;
            if let Some(table) = &mut published.table {
                table.generation = table.generation.min(0);
            }
        }
        routing::plan_table(&snapshot, now)
    }

    fn placement_status(
        &self,
        snapshot: &PlacementSnapshot,
        valid: Result<&ValidPlacement, &[Problem]>,
        plan: &Plan,
        outcomes: &[Outcome],
        now: Timestamp,
    ) -> IndexPlacementStatus {
        let mut status = placement::placement_status(snapshot, valid, plan, outcomes, now);
        if self.is(Bug::ForgetsPlaces) {
            let clusters = snapshot.cell.iter().flat_map(|cell| &cell.spec.clusters);
            let open: Vec<String> = clusters
                .filter(|cluster| cluster.placement() == ClusterPlacement::Open)
                .map(|cluster| format!("{}-{}", snapshot.placement.spec.cell, cluster.name))
                .collect();
            let mut names: Vec<String> = (status.assignments.drain(..))
                .flat_map(|at| at.indices.into_iter().chain(at.pending))
                .collect();
            names.sort();
            for (n, cluster) in open.iter().enumerate() {
                let indices = names.iter().skip(n).step_by(open.len()).cloned().collect();
                let cluster = cluster.clone();
                status.assignments.push(PlacementAssignment {
                    cluster,
                    indices,
                    ..PlacementAssignment::default()
                });
            }
        }
        status
    }
}
