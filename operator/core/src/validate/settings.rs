//! Settings of nodes, clusters and indices: flat, usable, and none that belongs to the operator. Pure.

use std::collections::BTreeMap;

use searchcell_crds::{Reason, Settings};
use serde_json::{Map, Value};

use super::Problems;
use crate::flat::flatten;
use crate::reserved;

/// Settings of `elasticsearch.yml` or of the cluster settings API.
pub(super) fn of_cluster(
    path: &str,
    settings: &Settings,
    problems: &mut Problems,
) -> BTreeMap<String, Value> {
    usable(path, settings, problems, reserved::cluster_setting)
}

/// Settings of an index. Elasticsearch reads `codec` as `index.codec`; so does this.
pub(super) fn of_index(path: &str, settings: &Settings, problems: &mut Problems) -> BTreeMap<String, Value> {
    let mut prefixed = Map::new();
    let mut rest = Map::new();
    for (key, value) in settings {
        let (target, key) = match key.strip_prefix("index.") {
            Some(key) => (&mut prefixed, key),
            None if key == "index" && value.is_object() => {
                prefixed.extend(value.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
                continue;
            }
            None => (&mut rest, key.as_str()),
        };
        target.insert(key.to_owned(), value.clone());
    }
    for (key, value) in rest {
        if prefixed.contains_key(&key) {
            problems.invalid(
                at(path, &format!("index.{key}")),
                "is given twice, with and without index. in front: keep one of the two",
            );
        }
        prefixed.insert(key, value);
    }
    let with_prefix = prefixed.into_iter().map(|(key, value)| (format!("index.{key}"), value)).collect();
    usable(path, &with_prefix, problems, reserved::index_setting)
}

fn usable(
    path: &str,
    settings: &Settings,
    problems: &mut Problems,
    reserved: fn(&str) -> Option<&'static str>,
) -> BTreeMap<String, Value> {
    let (flat, unusable) = flatten(settings);
    for bad in unusable {
        problems.invalid(at(path, &bad.key), bad.message);
    }
    for key in flat.keys() {
        if let Some(why) = reserved(key) {
            problems.add(
                Reason::ReservedSetting,
                at(path, key),
                format!("belongs to the operator: remove it ({why})"),
            );
        }
    }
    flat
}

fn at(path: &str, key: &str) -> String {
    format!("{path}[{key:?}]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_of_an_index_need_no_prefix() {
        let mut problems = Problems::default();
        let value = json!({"codec": "a", "index.gc_deletes": "1h", "index": {"refresh_interval": "1s"}});
        let flat = of_index("s", value.as_object().unwrap(), &mut problems);
        assert!(problems.is_empty());
        assert_eq!(
            json!(flat),
            json!({"index.codec": "a", "index.gc_deletes": "1h", "index.refresh_interval": "1s"})
        );
    }

    #[test]
    fn no_spelling_hides_a_reserved_key() {
        for value in [
            json!({"number_of_shards": 3}),
            json!({"index.number_of_shards": 3}),
            json!({"index": {"number_of_shards": 3}}),
            json!({"index": {"routing": {"allocation.include": {"_name": "x"}}}}),
            json!({"routing.allocation.require._ip": "x"}),
        ] {
            let mut problems = Problems::default();
            of_index("s", value.as_object().unwrap(), &mut problems);
            let problems = problems.sorted();
            assert_eq!(problems.len(), 1, "{value}");
            assert_eq!(problems[0].reason, Reason::ReservedSetting);
        }
        let mut problems = Problems::default();
        let value = json!({"node": {"attr": {"zone": "b"}}});
        of_cluster("spec.settings", value.as_object().unwrap(), &mut problems);
        assert_eq!(problems.sorted()[0].path, "spec.settings[\"node.attr.zone\"]");
    }

    #[test]
    fn the_same_setting_twice_is_refused() {
        let mut problems = Problems::default();
        let value = json!({"codec": "a", "index.codec": "b"});
        of_index("s", value.as_object().unwrap(), &mut problems);
        assert!(problems.sorted()[0].message.contains("twice"));
    }
}
