//! Plans the certificates of the nodes of one workload, and says whether its pods have all that they mount. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::layers::LayerPlan;
use super::security::{Scope, Upkeep, not_ours};
use crate::build;
use crate::domain::ValidCell;
use crate::drift::{self, Live};
use crate::names::{ClusterKey, http_trust};
use crate::security::Layer;
use crate::security::authority::bundle;
use crate::security::keystore::Format;
use crate::security::leaf::{Leaf, Workload};
use crate::security::order::{CertificatesOrder, LeafOrder, Order};
use crate::security::users;
use crate::snapshot::CellObjects;
use crate::step::Kind;

/// The Secret of one workload: whatever is missing, due or of another source is made anew, the rest stays.
pub(super) fn plan_certificates<'a>(
    scope: &Scope<'_>,
    key: &ClusterKey,
    objects: &CellObjects,
    workload: &Workload,
    layer: &impl Fn(Layer) -> &'a LayerPlan,
    upkeep: &mut Upkeep,
) {
    let name = workload.secret();
    let live = match drift::find(&objects.secrets, |secret| &secret.metadata, &name, scope.uid) {
        Live::Missing => None,
        Live::Ours(secret) => Some(secret),
        Live::NotOurs => return not_ours(Some(&key.cluster), &name, upkeep),
        Live::Terminating => return,
    };
    let mut issue = Vec::new();
    let mut keep = BTreeSet::new();
    let mut is_complete = true;
    for leaf in workload.leaves(key) {
        let plan = layer(leaf.layer);
        let has = live.is_some_and(|secret| secret.pair(&leaf.file).is_some());
        let good = match (&plan.source, live) {
            (Some((source, from)), Some(secret)) => leaf.is_good(secret, source, from, scope.now),
            _ => false,
        };
        match &plan.source {
            Some((source, _)) if !good => issue.push(LeafOrder { leaf, source: source.clone() }),
            _ if has => {
                if let Some(found) = live.and_then(|secret| secret.pair(&leaf.file)).filter(|_| good) {
                    upkeep.wake(found.renew_at());
                }
                keep.extend(files(&leaf));
            }
            _ => is_complete = false,
        }
    }
    // A Secret that lacks something serves nobody.
    if live.is_none() && (!is_complete || issue.is_empty()) {
        return;
    }
    let trust: BTreeMap<String, String> = (Layer::ALL.into_iter())
        .map(|of| (of.trust_file().to_owned(), bundle(&layer(of).trust)))
        .filter(|(_, pem)| !pem.is_empty())
        .collect();
    let has_trust =
        live.is_some_and(|secret| trust.iter().all(|(file, pem)| bundle(secret.certificates(file)) == *pem));
    let has_more = live.is_some_and(|secret| {
        let wanted = |file: &String| keep.contains(file) || trust.contains_key(file);
        secret.certificates.keys().chain(secret.keys.keys()).any(|file| !wanted(file))
    });
    if issue.is_empty() && has_trust && !has_more {
        return;
    }
    let why = match issue.as_slice() {
        [] if !has_trust => "whom nodes trust changes".to_owned(),
        [] => "nodes are gone".to_owned(),
        [first, ..] => format!(
            "certificates of {} nodes are missing, due, or of a former authority, {} first",
            workload.role, first.leaf.file
        ),
    };
    let labels = key.labels(Some(workload.role), workload.zone.as_deref());
    let order = CertificatesOrder {
        metadata: build::secret_metadata(&scope.snapshot.cell, name, labels),
        replaces: live.map(|secret| drift::exact_target(Kind::Secret, &secret.metadata)),
        issue,
        keep,
        trust,
    };
    upkeep.order(Some(&key.cluster), Order::Certificates(order), why);
}

fn files(leaf: &Leaf) -> [String; 2] {
    [format!("{}.crt", leaf.file), format!("{}.key", leaf.file)]
}

/// True when a workload has everything that its pods mount (a keystore, certificates of these nodes, and users), and
/// clients can know whom to trust: their ConfigMap may still be that of a former cell of this name, which is on its way out.
pub(super) fn is_equipped(cell: &ValidCell, objects: &CellObjects, workload: &str, nodes: &[String]) -> bool {
    let find = |name: &str| drift::find(&objects.secrets, |o| &o.metadata, name, &cell.uid).ours();
    let has_keystore = cell.keystore.as_ref().is_none_or(|keystore| {
        let secret = keystore.from.as_deref().and_then(find);
        let facts = secret.and_then(|secret| secret.keystore.as_ref());
        facts.is_some_and(|facts| facts.files.contains_key(&Format::of(cell.version)))
    });
    if !has_keystore || !cell.is_secure {
        return has_keystore;
    }
    let has_users = find(&users::users_secret(&cell.name)).is_some_and(|secret| secret.users.is_some());
    let certificates = find(&crate::security::leaf::certificates_secret(workload));
    let trust = drift::find(&objects.config_maps, |o| &o.metadata, &http_trust(&cell.name), &cell.uid).ours();
    has_users
        && trust.is_some()
        && certificates.is_some_and(|secret| {
            let has = |node: &String| {
                Layer::ALL.iter().all(|layer| secret.pair(&format!("{node}.{layer}")).is_some())
            };
            nodes.iter().all(has)
                && Layer::ALL.iter().all(|layer| !secret.certificates(layer.trust_file()).is_empty())
        })
}
