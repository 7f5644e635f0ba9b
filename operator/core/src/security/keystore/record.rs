//! What was found out when the nodes of a cluster were told to load their keystore again: an annotation of the Secret
//! that has it, so that it is asked once for each change, whichever process asks. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// First of an annotation's name; the cluster's name follows.
const PREFIX: &str = "searchcell.dev/keystore-loaded-";
/// After a try that some nodes did not take part in, the next one; then twice as long, and so on.
const FIRST: Duration = Duration::from_secs(60);
/// Longest wait for nodes that have not the new file yet.
const LONGEST_FOR_FILES: Duration = Duration::from_secs(300);
/// Longest wait after an error: somebody has to do something.
const LONGEST_AFTER_ERRORS: Duration = Duration::from_secs(3600);
/// Nodes whose own words are kept.
const MOST_WORDS: usize = 4;

/// What became of the last try.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Of which contents: [`super::KeystoreFacts::revision`].
    pub revision: String,
    /// When.
    pub at: Timestamp,
    /// How often these contents were tried.
    pub tries: u32,
    /// Nodes that did not answer, or that have not the new file yet.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub waiting: BTreeSet<String>,
    /// Nodes that refused, and Elasticsearch's reason of the first few.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, String>,
}

impl Record {
    /// Name of the annotation.
    pub fn annotation(cluster: &str) -> String {
        format!("{PREFIX}{cluster}")
    }

    /// Reads it. What cannot be read is as good as not there.
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Its text.
    pub fn text(&self) -> String {
        let mut short = self.clone();
        for why in short.refused.values_mut().skip(MOST_WORDS) {
            why.clear();
        }
        serde_json::to_string(&short).unwrap_or_default()
    }

    /// Nodes of `nodes` that have not loaded it.
    pub fn left(&self, nodes: &BTreeSet<String>) -> BTreeSet<String> {
        self.waiting.iter().chain(self.refused.keys()).filter(|node| nodes.contains(*node)).cloned().collect()
    }

    /// When it is worth another try.
    pub fn again_at(&self) -> Timestamp {
        let longest = if self.refused.is_empty() { LONGEST_FOR_FILES } else { LONGEST_AFTER_ERRORS };
        let wait = FIRST.saturating_mul(1 << self.tries.saturating_sub(1).min(6)).min(longest);
        let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        self.at.checked_add(wait).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tries: u32) -> Record {
        let waiting = BTreeSet::from(["n1".to_owned()]);
        Record { revision: "r".into(), at: Timestamp::UNIX_EPOCH, tries, waiting, refused: BTreeMap::new() }
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let mut written = record(2);
        written.refused.insert("n2".into(), "unknown secure setting [a.b]".into());
        assert_eq!(Record::read(&written.text()), Some(written));
        assert_eq!(Record::read("{"), None);
    }

    #[test]
    fn tries_become_rare() {
        let seconds = |record: Record| record.again_at().as_second();
        assert_eq!([1, 2, 3, 9].map(|tries| seconds(record(tries))), [60, 120, 240, 300]);
        let refused = |tries| {
            let refused = BTreeMap::from([("n".to_owned(), "no".to_owned())]);
            seconds(Record { refused, ..record(tries) })
        };
        assert_eq!([1, 4, 60].map(refused), [60, 480, 3600]);
    }

    #[test]
    fn who_is_gone_is_not_waited_for() {
        assert_eq!(record(1).left(&BTreeSet::from(["n2".to_owned()])), BTreeSet::new());
    }
}
