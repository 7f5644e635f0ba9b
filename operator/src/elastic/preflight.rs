//! What Elasticsearch is asked before its nodes change their version: what it calls deprecated, and which snapshots there are.
//! No effects.

use std::collections::BTreeMap;

use jiff::Timestamp;
use searchcell_core::snapshot::Asked;
use serde::Deserialize;
use serde_json::Value;

use crate::ports::SearchError;

/// What is deprecated; builds without the paid-for parts of Elasticsearch do not have it.
pub const DEPRECATIONS: &str = "/_migration/deprecations";
/// The newest snapshots of all repositories, and no more of them than it takes.
pub const SNAPSHOTS: &str = "/_snapshot/_all/_all?ignore_unavailable=true&index_details=false&sort=start_time&order=desc&size=50\
    &filter_path=snapshots.state,snapshots.indices,snapshots.end_time_in_millis";
/// Longest message of one deprecation.
const LONGEST: usize = 200;

/// An API that this build does not have is an answer, too.
pub fn asked<T>(answer: Result<T, SearchError>) -> Result<Asked<T>, SearchError> {
    match answer {
        Ok(answer) => Ok(Asked::Known(answer)),
        Err(SearchError::NotAvailable(_)) => Ok(Asked::NotAvailable),
        Err(error) => Err(error),
    }
}

/// What is critical, each with the index or template that it is about. The answer is a map of lists, or of maps of lists by name:
/// which of them there are differs from version to version.
pub fn critical(answer: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for about in answer.as_object().into_iter().flat_map(|sections| sections.values()) {
        match about {
            Value::Array(issues) => found.extend(issues.iter().filter_map(|issue| message(None, issue))),
            Value::Object(named) => {
                for (name, issues) in named {
                    let issues = issues.as_array().into_iter().flatten();
                    found.extend(issues.filter_map(|issue| message(Some(name), issue)));
                }
            }
            _ => {}
        }
    }
    found.sort();
    found.dedup();
    found
}

fn message(about: Option<&str>, issue: &Value) -> Option<String> {
    let is_later = issue["resolve_during_rolling_upgrade"].as_bool() == Some(true);
    if issue["level"].as_str() != Some("critical") || is_later {
        return None;
    }
    let message: String = issue["message"].as_str().unwrap_or("(no message)").chars().take(LONGEST).collect();
    Some(about.map_or_else(|| message.clone(), |about| format!("{about}: {message}")))
}

/// `GET _snapshot/<repositories>/<snapshots>`.
#[derive(Debug, Default, Deserialize)]
pub struct Snapshots {
    #[serde(default)]
    snapshots: Vec<Snapshot>,
}

#[derive(Debug, Deserialize)]
struct Snapshot {
    #[serde(default)]
    state: String,
    #[serde(default)]
    indices: Vec<String>,
    #[serde(default)]
    end_time_in_millis: i64,
}

impl Snapshots {
    /// By name of the index, when the newest that has it whole was complete.
    pub fn newest(self) -> BTreeMap<String, Timestamp> {
        let mut newest = BTreeMap::new();
        for snapshot in self.snapshots.into_iter().filter(|snapshot| snapshot.state == "SUCCESS") {
            let Ok(at) = Timestamp::from_millisecond(snapshot.end_time_in_millis) else { continue };
            for index in snapshot.indices {
                let known = newest.entry(index).or_insert(at);
                *known = at.max(*known);
            }
        }
        newest
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_critical_is_told_with_what_it_is_about() {
        let issue = |level: &str, message: &str| json!({"level": level, "message": message, "url": "https://x", "details": "y"});
        let answer = json!({
            "cluster_settings": [issue("critical", "a setting is gone"), issue("warning", "another will go")],
            "node_settings": [],
            "index_settings": {"old": [issue("critical", "too old")], "new": [issue("warning", "soon")]},
            "templates": {"t": [{"level": "critical", "message": "later", "resolve_during_rolling_upgrade": true}]},
            "ml_settings": [],
        });
        assert_eq!(critical(&answer), ["a setting is gone", "old: too old"]);
        assert_eq!(critical(&json!({})), [] as [&str; 0]);
    }

    #[test]
    fn only_whole_snapshots_count_and_the_newest_of_an_index() {
        let snapshot = |state: &str, at: i64, indices: &[&str]| json!({"state": state, "end_time_in_millis": at, "indices": indices});
        let answer = json!({"snapshots": [
            snapshot("IN_PROGRESS", 0, &["a", "b"]), snapshot("PARTIAL", 4_000, &["a"]),
            snapshot("SUCCESS", 3_000, &["a"]), snapshot("SUCCESS", 2_000, &["a", "b"]), snapshot("FAILED", 5_000, &["b"]),
        ]});
        let newest = serde_json::from_value::<Snapshots>(answer).unwrap().newest();
        let at = |name: &str| newest[name].as_millisecond();
        assert_eq!((newest.len(), at("a"), at("b")), (2, 3_000, 2_000));
        assert!(serde_json::from_value::<Snapshots>(json!({})).unwrap().newest().is_empty(), "no repository");
    }
}
