//! Whether a cluster may take another version at all: the step itself, and what its indices allow, before any node is touched.
//! Pure.

use searchcell_crds::Reason;
use serde_json::Value;

use super::preflight;
use super::roll::Scope;
use crate::domain::upgrade;
use crate::identity::highest_version;
use crate::plan::settings::setting_text;
use crate::snapshot::IndexFacts;
use crate::status::some_of;
use crate::step::Hold;

/// What stands between the nodes of a cluster and the version that the spec asks for.
pub(super) fn hindrance(scope: &Scope<'_>) -> Option<Hold> {
    let Scope { cell, key, objects, elastic, .. } = *scope;
    let highest = highest_version(objects, elastic);
    let hold =
        |reason: Reason, message: String| Some(Hold { cluster: Some(key.cluster.clone()), reason, message });
    // The oldest that runs has to get along with the newest as well as the one that has gone furthest.
    let running =
        elastic.and_then(|facts| facts.nodes.values().filter_map(|node| node.version.parse().ok()).min());
    for from in running.into_iter().chain(highest) {
        if let Err(message) = upgrade::may_follow(from, cell.version) {
            return hold(Reason::UnsupportedVersion, message);
        }
    }
    let too_old = |index: &IndexFacts| {
        let created = index.settings.get("index.version.created").map(setting_text);
        let created = created.and_then(|id| id.parse().ok());
        created.is_some_and(|created| !upgrade::opens(cell.version, created, is_read_only(index)))
    };
    let indices = elastic.map(|facts| &facts.indices);
    let old = indices.into_iter().flat_map(|indices| indices.iter()).filter(|(_, index)| too_old(index));
    let old: Vec<String> = old.map(|(name, _)| name.clone()).collect();
    if old.is_empty() {
        return preflight::hindrance(scope, highest);
    }
    let (version, names) = (cell.version, some_of(&old));
    let advice = "reindex them, make them read-only for good with POST /<index>/_block/write, or delete them";
    hold(Reason::IndexTooOld, format!("{version} does not open indices as old as {names}: {advice}"))
}

/// Elasticsearch has checked that nobody writes to it any more.
fn is_read_only(index: &IndexFacts) -> bool {
    let is_set =
        |name: &str| index.settings.get(name).is_some_and(|value: &Value| setting_text(value) == "true");
    is_set("index.verified_read_only") && (is_set("index.blocks.write") || is_set("index.blocks.read_only"))
}
