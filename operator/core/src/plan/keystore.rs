//! Plans the keystores of a cell's nodes: what lies in the operator's Secrets, and which nodes are told to load it again.
//! What only a restart loads is left to the templates, which name these Secrets. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use searchcell_crds::Reason;

use super::security::{Upkeep, not_ours};
use crate::build;
use crate::domain::{EsVersion, ValidCell};
use crate::drift::{self, Live};
use crate::names::{LABEL_CLUSTER, cell_labels};
use crate::security::SecretFacts;
use crate::security::keystore::{self, ANNOTATION_SINCE, Format, KeystoreFacts, Record};
use crate::security::order::{KeystoreOrder, Order};
use crate::snapshot::{CellSnapshot, ElasticFacts, annotation, label};
use crate::step::{Action, Kind, Reload, Step};

/// Within this time every kubelet that can has brought a Secret's new contents to its pods: they look once a minute or
/// so, at most half a minute late, and what they look at is a moment old.
const KUBELETS: Duration = Duration::from_secs(120);
/// Entries that are named in the reason of a step.
const NAMED: usize = 4;

/// Plans the keystores of a cell. `cell`: resolved.
pub(super) fn plan_keystore(cell: &ValidCell, snapshot: &CellSnapshot, now: Timestamp, upkeep: &mut Upkeep) {
    let used = keystore::in_use(cell, &snapshot.objects);
    render(cell, snapshot, &used, upkeep);
    for (_, secret, facts) in keystore::existing(cell, &snapshot.objects) {
        if used.contains(secret.name()) {
            for cluster in &cell.clusters {
                reload(snapshot, &cluster.name, secret, facts, now, upkeep);
            }
        }
    }
}

/// Brings the operator's Secrets to what the user's Secrets say.
fn render(cell: &ValidCell, snapshot: &CellSnapshot, used: &BTreeSet<String>, upkeep: &mut Upkeep) {
    let Some(valid) = &cell.keystore else { return };
    let wanted = match keystore::wanted(&valid.secrets, &snapshot.secure_settings) {
        Ok(wanted) => wanted,
        Err(problems) => {
            let stays = if used.is_empty() {
                "no node gets a keystore before that"
            } else {
                "nodes keep what they have"
            };
            for (reason, problem) in problems {
                upkeep.hold(None, reason, format!("{problem}; {stays}"));
            }
            return;
        }
    };
    let names: BTreeSet<&String> = used.iter().chain(&valid.from).collect();
    for name in names {
        let secrets = &snapshot.objects.secrets;
        let live = match drift::find(secrets, |secret| &secret.metadata, name, &cell.uid) {
            Live::Missing => None,
            Live::Ours(secret) => Some(secret),
            Live::NotOurs => {
                not_ours(None, name, upkeep);
                continue;
            }
            Live::Terminating => continue,
        };
        if live.is_none() && valid.from.as_ref() != Some(name) {
            // Nobody knows what was in it.
            continue;
        }
        let has = live.and_then(|secret| secret.keystore.as_ref());
        let Some(contents) = keystore::contents(cell, name, has, &wanted, used) else { continue };
        if contents.is_there {
            continue;
        }
        let why = why(has, &contents);
        let order = KeystoreOrder {
            metadata: build::secret_metadata(&snapshot.cell, name.clone(), cell_labels(&cell.name)),
            replaces: live.map(|secret| drift::exact_target(Kind::Secret, &secret.metadata)),
            keep: contents.keep,
            take: contents.take,
            is_running: used.contains(name),
            pods: snapshot.objects.pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect(),
        };
        upkeep.order(None, Order::Keystore(order), why);
    }
}

fn why(has: Option<&KeystoreFacts>, contents: &keystore::Contents) -> String {
    let Some(has) = has else { return "nodes need a keystore".to_owned() };
    let removed = has
        .entries
        .keys()
        .filter(|name| !contents.keep.contains(*name) && !contents.take.contains_key(*name));
    let changed: BTreeSet<&String> = contents.take.keys().chain(removed).collect();
    if changed.is_empty() {
        return "its files are made anew".to_owned();
    }
    let names: Vec<&str> = changed.iter().take(NAMED).map(|name| name.as_str()).collect();
    let more = if changed.len() > NAMED { ", …" } else { "" };
    format!("entries change: {}{more}", names.join(", "))
}

/// Has the nodes of a cluster load a keystore that changed after they started: once, when every kubelet has brought it.
fn reload(
    snapshot: &CellSnapshot,
    cluster: &str,
    secret: &SecretFacts,
    facts: &KeystoreFacts,
    now: Timestamp,
    upkeep: &mut Upkeep,
) {
    let since = annotation(&secret.metadata, ANNOTATION_SINCE).and_then(|text| text.parse().ok());
    let Some(since) = since else { return };
    let nodes = nodes_with(snapshot, cluster, secret);
    let name = secret.name();
    let record = annotation(&secret.metadata, &Record::annotation(cluster)).and_then(Record::read);
    let record = record.filter(|record| record.revision == facts.revision());
    let (left, due_at, tries) = match &record {
        None => (nodes, due(since, plus(since, KUBELETS), now), 0),
        Some(record) => (record.left(&nodes), due(record.at, record.again_at(), now), record.tries),
    };
    if left.is_empty() {
        return;
    }
    let refused = record.iter().flat_map(|record| &record.refused).filter(|(node, _)| left.contains(*node));
    let refused: Vec<(&String, &String)> = refused.collect();
    match refused.iter().find(|(_, why)| !why.is_empty()).or(refused.first()) {
        Some((node, why)) => {
            let others = if refused.len() > 1 { " and others" } else { "" };
            upkeep.hold(
                Some(cluster),
                Reason::KeystoreRefused,
                format!(
                    "node {node}{others} refuses what changed in its keystore: {why}: correct the Secrets of \
                     spec.secureSettings; a node that restarts may not start before that"
                ),
            );
        }
        None => upkeep.hold(
            Some(cluster),
            Reason::LoadingKeystore,
            format!("what changed in Secret {name} is on its way: waiting for {}", some_of(&left)),
        ),
    }
    let members = snapshot.elastic(cluster).map(|facts| expected(facts, &left, secret));
    // Who is no member loads it when it starts, or is told when it is back.
    let Some(members) = members.filter(|members| !members.is_empty()) else { return };
    if now < due_at {
        return upkeep.wake(due_at);
    }
    let reload = Reload {
        target: drift::target(Kind::Secret, &secret.metadata),
        revision: facts.revision().to_owned(),
        tries,
        nodes: left
            .into_iter()
            .map(|node| (node.clone(), members.get(&node).cloned().unwrap_or_default()))
            .collect(),
    };
    let why = format!("Secret {name} changed after nodes had started");
    let action = Action::ReloadKeystore(Box::new(reload));
    upkeep.later.push(Step { cluster: Some(cluster.to_owned()), action, why });
}

/// Nodes that have their keystore from this Secret, when it changed while there were nodes. One that starts after it was
/// told to the others has it by then; before that it is told with them.
fn nodes_with(snapshot: &CellSnapshot, cluster: &str, secret: &SecretFacts) -> BTreeSet<String> {
    (snapshot.objects.pods.iter())
        .map(|pod| &pod.metadata)
        .filter(|meta| label(meta, LABEL_CLUSTER) == Some(cluster) && meta.deletion_timestamp.is_none())
        .filter(|meta| keystore::used_by(meta) == Some(secret.name()))
        .filter_map(|meta| meta.name.clone())
        .collect()
}

/// A time by the operator's clock, and some later. A clock that went back tells nothing: then it is now, and what
/// Elasticsearch says of the file it has read has to do.
fn due(at: Timestamp, later: Timestamp, now: Timestamp) -> Timestamp {
    if at > now { now } else { later }
}

/// The members among some nodes, with the SHA-256 of the file that each of them is to have.
fn expected(
    facts: &ElasticFacts,
    nodes: &BTreeSet<String>,
    secret: &SecretFacts,
) -> BTreeMap<String, String> {
    let files = secret.keystore.as_ref().map(|facts| &facts.files);
    let member = |node: &String| {
        let version = facts.nodes.get(node)?.version.parse::<EsVersion>().ok();
        let file = version.and_then(|version| files?.get(&Format::of(version)));
        Some((node.clone(), file.cloned().unwrap_or_default()))
    };
    nodes.iter().filter_map(member).collect()
}

fn plus(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn some_of(nodes: &BTreeSet<String>) -> String {
    let names: Vec<String> = nodes.iter().cloned().collect();
    crate::status::some_of(&names)
}
