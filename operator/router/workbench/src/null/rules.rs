//! Faults: what goes wrong where, how often, and how. Pure.

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Only at this node, by its position; absent: at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<usize>,
    /// Only for this index, or for those that begin like this where it ends with `*`; absent: for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
    /// Only for indices whose primary is on this data node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_node: Option<usize>,
    /// In this share of cases, 0 to 1: of requests, or of items where the fault is of items.
    #[serde(default = "one")]
    pub share: f64,
    /// At most so often; absent: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// What: `"reject"`, `{"slow": {"millis": 50}}`.
    pub fault: Fault,
}

fn one() -> f64 {
    1.0
}

/// Whether what a request asks for is done although its client does not learn of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Applied {
    /// No.
    #[default]
    No,
    /// All of it.
    Yes,
    /// Each item with a chance of one half.
    Some,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Fault {
    /// No answer comes until the rule is gone; then the connection is closed.
    Hang {
        /// Whether it is done.
        #[serde(default)]
        applied: Applied,
    },
    /// The connection is closed without an answer.
    Cut {
        /// Whether it is done.
        #[serde(default)]
        applied: Applied,
    },
    /// The answer breaks off in its middle.
    Truncate {
        /// Whether it is done.
        #[serde(default)]
        applied: Applied,
    },
    /// The answer has one item less than there were operations. All of it is done.
    Miscount,
    /// The answer comes byte by byte. All of it is done.
    Drip {
        /// Bytes in a second.
        bytes_per_second: f64,
    },
    /// All is well, and late.
    Slow {
        /// By so many milliseconds.
        millis: u64,
    },
    /// 429 for the request: nothing is done.
    Reject,
    /// 503 for the request, because there is no master: nothing is done.
    NoMaster,
    /// 401 for the request: nothing is done.
    Unauthorized,
    /// 502 for the request, as a proxy answers that has lost Elasticsearch.
    Gateway {
        /// Whether it is done.
        #[serde(default)]
        applied: Applied,
    },
    /// 413 for a request with a larger body: nothing is done.
    MaxBytes {
        /// The most that is taken.
        bytes: usize,
    },
    /// 400 for a request in which this text is: nothing is done.
    PoisonRequest {
        /// The text.
        text: String,
    },
    /// 400 for an item in whose document this text is.
    PoisonItem {
        /// The text.
        text: String,
    },
    /// 429 for items: not done.
    RejectItems,
    /// An error for items.
    FailItems {
        /// HTTP status of the item.
        status: u16,
        /// `error.type`.
        kind: String,
        /// Whether they are done.
        #[serde(default)]
        applied: Applied,
    },
    /// 503 for items once so many milliseconds, or the request's `timeout`, are over: their primary is not there.
    Red {
        /// The former.
        after_millis: u64,
    },
    /// 403, or 429 as at the flood stage of a disk, for items: the index is read-only.
    ReadOnly {
        /// Which of the two.
        status: u16,
    },
    /// 404 for items: there is no such index.
    Missing,
}

impl Rule {
    /// A fault everywhere, always.
    pub fn new(fault: Fault) -> Self {
        Self { node: None, index: None, data_node: None, share: 1.0, times: None, fault }
    }

    /// The same for one index, or for those that begin like this where `index` ends with `*`.
    pub fn index(mut self, index: impl Into<String>) -> Self {
        self.index = Some(index.into());
        self
    }

    /// The same at one node.
    pub fn node(mut self, node: usize) -> Self {
        self.node = Some(node);
        self
    }

    /// The same for indices whose primary is on one data node.
    pub fn data_node(mut self, node: usize) -> Self {
        self.data_node = Some(node);
        self
    }

    /// The same in a share of cases.
    pub fn share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// The same at most so often.
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// Whether it is for an index.
    pub fn fits(&self, node: usize, index: &str, data_node: usize) -> bool {
        let name = self.index.as_deref().is_none_or(|wanted| match wanted.strip_suffix('*') {
            Some(beginning) => index.starts_with(beginning),
            None => index == wanted,
        });
        name && self.at(node) && self.data_node.is_none_or(|wanted| wanted == data_node)
    }

    /// Whether it is for a node.
    pub fn at(&self, node: usize) -> bool {
        self.node.is_none_or(|wanted| wanted == node)
    }

    /// Whether it strikes now; counted.
    pub fn strikes(&mut self, random: &mut Random) -> bool {
        if self.times == Some(0) || !random.chance(self.share) {
            return false;
        }
        if let Some(times) = &mut self.times {
            *times -= 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_written_as_json() {
        let text = r#"[{"fault": {"hang": {}}, "node": 1}, {"fault": {"red": {"afterMillis": 500}}, "dataNode": 17, "share": 0.5},
            {"fault": {"failItems": {"status": 500, "kind": "x", "applied": "some"}}, "index": "a*", "times": 3}]"#;
        let rules: Vec<Rule> = serde_json::from_str(text).unwrap();
        assert_eq!(rules[0], Rule::new(Fault::Hang { applied: Applied::No }).node(1));
        assert_eq!(rules[1], Rule::new(Fault::Red { after_millis: 500 }).data_node(17).share(0.5));
        let again: Vec<Rule> = serde_json::from_str(&serde_json::to_string(&rules).unwrap()).unwrap();
        assert_eq!(rules, again);
        assert_eq!(serde_json::from_str::<Rule>(r#"{"fault": "reject"}"#).unwrap(), Rule::new(Fault::Reject));
        for wrong in [r#"{"fault": "nonsense"}"#, r#"{"fault": "reject", "indx": "a"}"#] {
            assert!(serde_json::from_str::<Rule>(wrong).is_err());
        }
    }

    #[test]
    fn a_rule_is_for_what_it_names_and_as_often_as_it_says() {
        let mut rule = Rule::new(Fault::Missing).index("a.*").data_node(3).times(2);
        assert!(rule.fits(0, "a.p001", 3) && !rule.fits(0, "b.p001", 3) && !rule.fits(0, "a.p001", 4));
        assert!(!rule.clone().node(1).fits(0, "a.p001", 3));
        let mut random = Random::new(1);
        let struck = (0..10).filter(|_| rule.strikes(&mut random)).count();
        assert_eq!(struck, 2);
        let mut half = Rule::new(Fault::Missing).share(0.5);
        let struck = (0..1_000).filter(|_| half.strikes(&mut random)).count();
        assert!((400..600).contains(&struck), "{struck}");
    }
}
