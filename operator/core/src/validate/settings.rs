//! Settings of nodes, clusters and indices: flat, usable, and none that belongs to the operator. Pure.
//!
//! They are a tenant's words in files that Elasticsearch reads at its start: nothing in them may hide from a reader,
//! bring in a variable of the environment, or name a file of the operator's.

use std::collections::{BTreeMap, BTreeSet};

use searchcell_crds::{Reason, Settings};
use serde_json::{Map, Value};

use super::Problems;
use super::pod_volumes::is_owned_mount;
use crate::flat::flatten;
use crate::reserved;

/// Longest settings of one object together, in bytes.
const MAX_SETTINGS: usize = 128 << 10;
/// Where files of analysis have to be, below the configuration folder: beside them lie certificates, users and keys,
/// and an analyzer tells what it has read.
const ANALYSIS_FOLDER: &str = "analysis/";

/// Settings of `elasticsearch.yml` or of the cluster settings API.
pub(super) fn of_cluster(
    path: &str,
    settings: &Settings,
    problems: &mut Problems,
) -> BTreeMap<String, Value> {
    let flat = usable(path, settings, problems, reserved::cluster_setting);
    for (key, value) in &flat {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !key.bytes().all(plain) {
            problems.invalid(
                at(path, key),
                "is not the name of a setting: write letters, digits, dashes and underscores, joined by dots",
            );
        }
        if texts(value).any(|text| text.contains(is_hidden)) {
            problems.invalid(
                at(path, key),
                "has a control character, a line break or a character that cannot be seen: remove it",
            );
        }
        let is_repo = key == "path.repo" || key.starts_with("path.repo.");
        if is_repo && texts(value).any(is_owned_mount) {
            problems.invalid(
                at(path, key),
                "must name folders outside of what the operator mounts, as absolute paths without ..: mount a volume \
                 of your own elsewhere, and name that",
            );
        }
    }
    flat
}

/// Variables of the environment that settings of a node name (`${NAME}`) and the node does not have, or that are none
/// of the user's affair. A node whose settings name one that is not there does not start.
pub(super) fn references<'a>(
    settings: &'a BTreeMap<String, Value>,
    known: &BTreeSet<&str>,
) -> impl Iterator<Item = (&'a str, String)> {
    settings.iter().filter_map(move |(key, value)| {
        let unknown = texts(value).flat_map(variables).find(|name| !known.contains(name))?;
        Some((key.as_str(), unknown.to_owned()))
    })
}

/// What stands between `${` and the next `}`; without an end, a name that no variable has.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split("${").skip(1).map(|rest| rest.split_once('}').map_or("", |(name, _)| name))
}

/// The texts of a flat value.
fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let (one, many) = match value {
        Value::Array(items) => (None, items.as_slice()),
        value => (value.as_str(), [].as_slice()),
    };
    one.into_iter().chain(many.iter().filter_map(Value::as_str))
}

/// Control characters, line breaks of YAML, marks that reorder or hide text.
pub(super) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
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
    let flat = usable(path, &with_prefix, problems, reserved::index_setting);
    for (key, value) in flat.iter().filter(|(key, _)| key.starts_with("index.analysis.")) {
        let name = key.rsplit('.').next().unwrap_or_default();
        let is_file = name.ends_with("_path") || ["user_dictionary", "rules_files"].contains(&name);
        // Folders of hunspell are named by the language.
        let is_folder = ["locale", "language", "lang"].contains(&name);
        if is_file && !texts(value).all(is_analysis_file) {
            problems.invalid(
                at(path, key),
                "must name a file below analysis/ of the configuration folder: mount a volume of your own at \
                 /usr/share/elasticsearch/config/analysis, and write analysis/<name>",
            );
        } else if is_folder && texts(value).any(|text| text.contains(['/', '\\']) || text.contains("..")) {
            problems.invalid(at(path, key), "is not the name of a language: write it like en_US");
        }
    }
    flat
}

/// `rules_files` has several, each behind a script and a colon: `Latn:analysis/latin.rbbi`.
fn is_analysis_file(text: &str) -> bool {
    text.split(',').all(|part| {
        let path = part.rsplit(':').next().unwrap_or_default().trim();
        let name = path.strip_prefix(ANALYSIS_FOLDER);
        name.is_some_and(|name| !name.is_empty())
            && !path.contains('\\')
            && !path.contains(is_hidden)
            && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
    })
}

fn usable(
    path: &str,
    settings: &Settings,
    problems: &mut Problems,
    reserved: fn(&str) -> Option<&'static str>,
) -> BTreeMap<String, Value> {
    let (flat, unusable) = flatten(settings);
    if length(&flat) > MAX_SETTINGS {
        problems.invalid(path, "exceed 128 KiB: shorten them");
    }
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

/// How long settings are in a file, roughly.
pub(super) fn length(settings: &BTreeMap<String, Value>) -> usize {
    settings.iter().map(|(key, value)| key.len() + value.to_string().len()).sum()
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
