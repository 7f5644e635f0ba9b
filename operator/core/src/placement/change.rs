//! What of existing indices is changed in place: copies, added fields, settings that Elasticsearch takes at any time. What
//! is fixed when an index is made is held. Pure.
//!
//! Settings are compared with what the index has, so that a change behind the operator's back is put right, too. Mappings
//! are compared by the hash in the mark of ownership: they are in the state of a cluster once for every index, too big to
//! be read. The mark is written with the mappings, in one request that Elasticsearch does as a whole or not at all.

use std::collections::BTreeMap;

use searchcell_crds::Reason;
use serde_json::{Value, json};

use super::Found;
use super::plan::{hold, step};
use crate::build;
use crate::domain::{ValidIndex, ValidPlacement};
use crate::plan::setting_text;
use crate::reserved::{is_fixed_at_creation, is_misplacing};
use crate::snapshot::OwnershipMark;
use crate::status::some_of;
use crate::step::{Action, Hold, Step};

/// Names of indices are in the path of a request, of which Elasticsearch takes up to 4 KiB.
const MOST_NAMES: usize = 3_000;
const REPLICAS: &str = "index.number_of_replicas";

/// Settings to change; `None`: back to the default.
type Settings = BTreeMap<String, Option<Value>>;

/// What is to be changed, gathered so that equal changes of one cluster are one request.
#[derive(Default)]
pub(super) struct Changes {
    marks: Vec<(Place, OwnershipMark)>,
    settings: Vec<(Place, Settings)>,
}

/// Indices of a cluster.
struct Place {
    cluster: String,
    names: Vec<String>,
}

impl Changes {
    /// Compares an index with what is asked of it.
    pub(super) fn compare(
        &mut self,
        placement: &ValidPlacement,
        index: &ValidIndex,
        found: &Found<'_>,
    ) -> Result<(), Hold> {
        let Some(old) = found.mark() else { return Ok(()) };
        let wanted = build::index_settings(placement);
        let live = &found.facts.settings;
        let mark = build::index_mark(placement, index, old.replicas);
        let mut change: Settings = (wanted.iter())
            .filter(|(name, value)| live.get(*name).map(setting_text) != Some(setting_text(value)))
            .filter(|(name, _)| !build::is_analysis(name))
            .map(|(name, value)| (name.clone(), Some(value.clone())))
            .collect();
        // What was set for the spec, and is not asked for any more, goes back to its default; and so does what would
        // keep copies from where awareness puts them.
        let gone = old.settings.iter().filter(|name| !wanted.contains_key(*name) && live.contains_key(*name));
        let misplacing = live.iter().filter(|(name, value)| is_misplacing(name, &setting_text(value)));
        change.extend(gone.chain(misplacing.map(|(name, _)| name)).map(|name| (name.clone(), None)));

        let differs = mark.inputs != old.inputs;
        let mut fixed: Vec<String> =
            change.keys().filter(|name| is_fixed_at_creation(name)).cloned().collect();
        if differs && mark.analysis != old.analysis {
            fixed.push("index.analysis".to_owned());
        }
        if !fixed.is_empty() {
            let message = format!(
                "settings are fixed when an index is made, and differ from the spec: {}; it would take new indices and a \
                 migration of all documents: set them back",
                some_of(&fixed)
            );
            return Err(hold(None, Reason::NeedsMigration, message));
        }
        let replicas = placement.replicas.or(old.replicas).unwrap_or(found.facts.replicas);
        if replicas != found.facts.replicas {
            change.insert(REPLICAS.to_owned(), Some(json!(replicas)));
        }
        if differs {
            // A name stays known until its setting is gone.
            let mut mark = mark;
            let known = old.settings.iter().filter(|name| live.contains_key(*name)).cloned();
            mark.settings.extend(known);
            add(&mut self.marks, found, mark);
        }
        if !change.is_empty() {
            add(&mut self.settings, found, change);
        }
        Ok(())
    }

    /// True when everything is as asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.settings.is_empty()
    }

    /// Mappings first: when Elasticsearch refuses them, nothing else of that cluster is changed.
    pub(super) fn steps(self, placement: &ValidPlacement) -> Vec<Step> {
        let mappings = self.marks.into_iter().map(|(place, mark)| {
            let why = format!("mappings or settings of {} are not those of the spec", some_of(&place.names));
            let body = Value::Object(build::index_mappings(placement, &mark));
            step(Some(&place.cluster), &why, Action::PutMapping { indices: place.names, body })
        });
        let settings = self.settings.into_iter().map(|(place, settings)| {
            let names: Vec<&str> = settings.keys().map(String::as_str).collect();
            let why = format!(
                "settings of {} are not those of the spec: {}",
                some_of(&place.names),
                names.join(", ")
            );
            step(Some(&place.cluster), &why, Action::PutIndexSettings { indices: place.names, settings })
        });
        mappings.chain(settings).collect()
    }
}

/// To the last request of the same kind on the same cluster, while its path has room.
fn add<T: PartialEq>(requests: &mut Vec<(Place, T)>, found: &Found<'_>, change: T) {
    let room = |place: &Place| place.names.iter().map(|name| name.len() + 1).sum::<usize>() < MOST_NAMES;
    let same = requests.iter_mut().rfind(|(place, other)| place.cluster == found.cluster && *other == change);
    match same.filter(|(place, _)| room(place)) {
        Some((place, _)) => place.names.push(found.name.to_owned()),
        None => {
            let place = Place { cluster: found.cluster.to_owned(), names: vec![found.name.to_owned()] };
            requests.push((place, change));
        }
    }
}
