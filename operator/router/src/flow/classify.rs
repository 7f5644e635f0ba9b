//! The one table from what Elasticsearch answers to what that means. Pure.

use super::answer::Block;

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The answer is the truth about the operation, for good.
    Final,
    /// Proven not to have been applied: may be sent again, whoever numbers versions.
    Again(Class),
    /// May have been applied: may be sent again only where versions make that harmless.
    Doubtful(Class),
    /// The destination takes no writes; not applied.
    Blocked(Block),
    /// The whole request was refused because of something in it: sent again in halves, a single item is refused.
    Halve,
    /// The whole request was too large: the same, and smaller requests from now on.
    TooLarge,
}

/// Kinds of failures, each with its own number of attempts and its own effect on others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Elasticsearch has too much to do: everybody sends less to this cluster.
    Rejected,
    /// The shard cannot take it now: this destination waits.
    Unavailable,
    /// An error inside Elasticsearch.
    Server,
    /// Sent, and the answer was lost, cut off, or not an answer.
    Lost,
    /// No node of the cluster could be reached; nothing was sent.
    Unreachable,
}

impl Class {
    /// Name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Class::Rejected => "rejected",
            Class::Unavailable => "unavailable",
            Class::Server => "server",
            Class::Lost => "lost",
            Class::Unreachable => "unreachable",
        }
    }

    /// How often an operation is sent that fails like this, the first time included. A client's operations end with
    /// their timeout besides; those of a queue are kept for as long as it is not they who are at fault.
    pub fn attempts(self, from_queue: bool) -> u8 {
        match self {
            Class::Rejected | Class::Unreachable | Class::Unavailable if from_queue => u8::MAX,
            Class::Rejected | Class::Unreachable => 30,
            Class::Unavailable => 20,
            Class::Lost => 8,
            Class::Server => 4,
        }
    }
}

const BLOCK: &str = "cluster_block_exception";
const MISSING: [&str; 2] = ["index_not_found_exception", "index_closed_exception"];

/// What the status and the error type of one item mean; no type: there is no error.
pub fn item(status: u16, kind: Option<&str>) -> Verdict {
    let Some(kind) = kind else {
        // Deleting what is not there is 404 without an error.
        return if matches!(status, 200..=299 | 404) {
            Verdict::Final
        } else {
            Verdict::Doubtful(Class::Server)
        };
    };
    match (status, kind) {
        // Of the cluster (no master, not recovered): it passes.
        (503, BLOCK) => Verdict::Again(Class::Unavailable),
        // Of the index. The flood stage answers 429, and is no congestion.
        (_, BLOCK) => Verdict::Blocked(Block::ReadOnly),
        (_, kind) if MISSING.contains(&kind) => Verdict::Blocked(Block::Missing),
        (401, _) | (403, "security_exception") => Verdict::Blocked(Block::Unauthorized),
        (429, _) => Verdict::Again(Class::Rejected),
        (502..=504, _) => Verdict::Doubtful(Class::Unavailable),
        (500.., _) => Verdict::Doubtful(Class::Server),
        (400..=499, _) => Verdict::Final,
        // An error with a status of success is none of Elasticsearch's.
        _ => Verdict::Doubtful(Class::Server),
    }
}

/// What the status of a whole request means that is not 200, with the error type where the body tells one.
pub fn request(status: u16, kind: Option<&str>) -> Verdict {
    match (status, kind) {
        (503, Some(BLOCK | "master_not_discovered_exception")) => Verdict::Again(Class::Unavailable),
        (403 | 429, Some(BLOCK)) => Verdict::Blocked(Block::ReadOnly),
        (_, Some(kind)) if MISSING.contains(&kind) => Verdict::Blocked(Block::Missing),
        (401 | 403, _) => Verdict::Blocked(Block::Unauthorized),
        (413, _) => Verdict::TooLarge,
        // Refused before any item was looked at.
        (429, _) => Verdict::Again(Class::Rejected),
        (400..=499, _) => Verdict::Halve,
        (502..=504, _) => Verdict::Doubtful(Class::Unavailable),
        (500.., _) => Verdict::Doubtful(Class::Server),
        _ => Verdict::Doubtful(Class::Lost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items() {
        let table = [
            (200, None, Verdict::Final),
            (201, None, Verdict::Final),
            (404, None, Verdict::Final),
            (500, None, Verdict::Doubtful(Class::Server)),
            (409, Some("version_conflict_engine_exception"), Verdict::Final),
            (400, Some("document_parsing_exception"), Verdict::Final),
            (400, Some("mapper_parsing_exception"), Verdict::Final),
            (400, Some("strict_dynamic_mapping_exception"), Verdict::Final),
            (400, Some("illegal_argument_exception"), Verdict::Final),
            (404, Some("document_missing_exception"), Verdict::Final),
            (429, Some("es_rejected_execution_exception"), Verdict::Again(Class::Rejected)),
            (429, Some("circuit_breaking_exception"), Verdict::Again(Class::Rejected)),
            (429, Some("cluster_block_exception"), Verdict::Blocked(Block::ReadOnly)),
            (403, Some("cluster_block_exception"), Verdict::Blocked(Block::ReadOnly)),
            (503, Some("cluster_block_exception"), Verdict::Again(Class::Unavailable)),
            (503, Some("unavailable_shards_exception"), Verdict::Doubtful(Class::Unavailable)),
            (503, Some("no_shard_available_action_exception"), Verdict::Doubtful(Class::Unavailable)),
            (504, Some("timeout_exception"), Verdict::Doubtful(Class::Unavailable)),
            (500, Some("i_o_exception"), Verdict::Doubtful(Class::Server)),
            (404, Some("index_not_found_exception"), Verdict::Blocked(Block::Missing)),
            (400, Some("index_closed_exception"), Verdict::Blocked(Block::Missing)),
            (401, Some("security_exception"), Verdict::Blocked(Block::Unauthorized)),
            (403, Some("security_exception"), Verdict::Blocked(Block::Unauthorized)),
            (200, Some("anything"), Verdict::Doubtful(Class::Server)),
        ];
        for (status, kind, verdict) in table {
            assert_eq!(item(status, kind), verdict, "{status} {kind:?}");
        }
    }

    #[test]
    fn requests() {
        let table = [
            (400, Some("illegal_argument_exception"), Verdict::Halve),
            (400, None, Verdict::Halve),
            (406, None, Verdict::Halve),
            (413, None, Verdict::TooLarge),
            (429, Some("es_rejected_execution_exception"), Verdict::Again(Class::Rejected)),
            (429, Some("circuit_breaking_exception"), Verdict::Again(Class::Rejected)),
            (429, None, Verdict::Again(Class::Rejected)),
            (401, Some("security_exception"), Verdict::Blocked(Block::Unauthorized)),
            (403, None, Verdict::Blocked(Block::Unauthorized)),
            (403, Some("cluster_block_exception"), Verdict::Blocked(Block::ReadOnly)),
            (404, Some("index_not_found_exception"), Verdict::Blocked(Block::Missing)),
            (503, Some("cluster_block_exception"), Verdict::Again(Class::Unavailable)),
            (503, Some("master_not_discovered_exception"), Verdict::Again(Class::Unavailable)),
            (503, None, Verdict::Doubtful(Class::Unavailable)),
            (502, None, Verdict::Doubtful(Class::Unavailable)),
            (500, None, Verdict::Doubtful(Class::Server)),
            (302, None, Verdict::Doubtful(Class::Lost)),
        ];
        for (status, kind, verdict) in table {
            assert_eq!(request(status, kind), verdict, "{status} {kind:?}");
        }
    }

    #[test]
    fn nothing_that_may_have_been_applied_is_ever_proven_unapplied() {
        for status in 100..600 {
            for kind in [None, Some("x"), Some("security_exception"), Some(BLOCK)] {
                let proven = |verdict| matches!(verdict, Verdict::Again(_));
                let allowed = status == 429 || (status == 503 && kind == Some(BLOCK));
                assert!(!proven(item(status, kind)) || allowed, "{status} {kind:?}");
                assert!(!proven(request(status, kind)) || allowed, "{status} {kind:?}");
            }
        }
    }
}
