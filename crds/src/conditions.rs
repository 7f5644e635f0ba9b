//! Condition types, the closed list of reasons, and how conditions are built, merged and compared. No effects.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::{Schema, SchemaGenerator, json_schema};

pub use crate::reasons::Reason;

/// Every cluster has an elected master and serves; every managed shard has a started primary.
pub const READY: &str = "Ready";
/// Serving with less redundancy than asked for.
pub const DEGRADED: &str = "Degraded";
/// Work is in progress, or waits for the cluster, an approval or the end of a suspension; present only while true.
pub const RECONCILING: &str = "Reconciling";
/// Nothing moves on before the spec changes; present only while true.
pub const STALLED: &str = "Stalled";

/// Shards are, or will soon be, larger than is good for them; present only while true, on an IndexPlacement.
pub const SHARD_PRESSURE: &str = "ShardPressure";

/// Every condition type, in the order in which status lists them, each with its meaning.
pub const TYPES: [(&str, &str); 5] = [
    (
        READY,
        "Every cluster has an elected master and serves, and every managed shard has a started primary. It stays True during a healthy rolling restart.",
    ),
    (
        DEGRADED,
        "It serves with less redundancy than asked for: copies unassigned or sharing a zone, nodes or a zone missing.",
    ),
    (
        RECONCILING,
        "Work is in progress, or waits for the cluster, an approval or the end of a suspension. Present only while True.",
    ),
    (STALLED, "Nothing moves on before the spec changes. Present only while True."),
    (
        SHARD_PRESSURE,
        "Shards are larger than is good for them, or will be within two weeks. Nothing is refused yet; plan for more shards. Present only while True, and only on an IndexPlacement.",
    ),
];

/// Longest message of a condition, in bytes.
pub const MAX_MESSAGE: usize = 32_768;

/// The three values of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// It is not known.
    Unknown,
}

impl ConditionStatus {
    /// The value as Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// One condition, as of now. A message that is too long for the API is cut at a character boundary.
pub fn condition(
    type_: &str,
    status: ConditionStatus,
    reason: Reason,
    message: impl Into<String>,
    observed_generation: Option<i64>,
    now: &Time,
) -> Condition {
    let mut message = message.into();
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
    }
    Condition {
        type_: type_.to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.as_str().to_owned(),
        message,
        observed_generation,
        last_transition_time: now.clone(),
    }
}

/// The condition of one type, if it is there.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of one type is there and True.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// The conditions to write: the desired ones in the order of [`TYPES`], each with the transition time of the previous
/// one of its type and status. Previous ones of our types that are not desired go; those of other types stay.
///
/// Write the result with a merge patch or a replacement of the status, never with server-side apply: the conditions of
/// a new object come from the schema's default and belong to nobody, so an apply would leave `Reconciling` in place.
pub fn merge(previous: &[Condition], desired: Vec<Condition>) -> Vec<Condition> {
    let mut merged: Vec<Condition> = desired
        .into_iter()
        .map(|mut condition| {
            if let Some(old) = find(previous, &condition.type_)
                && old.status == condition.status
            {
                condition.last_transition_time = old.last_transition_time.clone();
            }
            condition
        })
        .collect();
    for old in previous {
        if rank(&old.type_) == TYPES.len() && find(&merged, &old.type_).is_none() {
            merged.push(old.clone());
        }
    }
    merged.sort_by(|a, b| rank(&a.type_).cmp(&rank(&b.type_)).then_with(|| a.type_.cmp(&b.type_)));
    merged
}

/// Whether two lists say the same, whatever their order and their transition times.
pub fn same(a: &[Condition], b: &[Condition]) -> bool {
    a.len() == b.len()
        && a.iter().all(|left| {
            find(b, &left.type_).is_some_and(|right| {
                left.status == right.status
                    && left.reason == right.reason
                    && left.message == right.message
                    && left.observed_generation == right.observed_generation
            })
        })
}

fn rank(type_: &str) -> usize {
    TYPES.iter().position(|(known, _)| *known == type_).unwrap_or(TYPES.len())
}

/// Schema of a list of conditions, keyed by type.
pub fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One condition.",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {"type": "string", "maxLength": 316, "description": "Type of the condition: Ready, Degraded, Reconciling, Stalled or ShardPressure."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it is so: True, False or Unknown."},
                "reason": {"type": "string", "minLength": 1, "maxLength": 1024, "description": "Why it is so, in one word from the list of reasons."},
                "message": {"type": "string", "maxLength": MAX_MESSAGE, "description": "Why it is so, and what to do about it."},
                "observedGeneration": {"type": "integer", "format": "int64", "description": "Generation of the spec that the condition describes; -1 before the first pass."},
                "lastTransitionTime": {"type": "string", "format": "date-time", "description": "When status last changed from one value to another."}
            }
        }
    })
}
