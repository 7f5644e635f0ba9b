//! Reads a routing table: how many copies of each shard are started, and whether they are in different zones. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::snapshot::{ElasticFacts, IndexFacts, ShardState};

/// A new copy that has no node by then waits for more than its turn: a full disk, a filter, a limit.
const FRESH_FOR: SignedDuration = SignedDuration::from_secs(60);

/// Copies of the shards of one index, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Primary shards that ought to be.
    pub primaries: i32,
    /// Primary shards without a started primary, those of an index that is just being created included.
    pub primaries_unstarted: i32,
    /// Of these, the ones of an index that has only just been created.
    pub primaries_fresh: i32,
    /// Copies that ought to be, primaries included.
    pub wanted: i32,
    /// Copies that are started.
    pub started: i32,
    /// Started copies in a zone that has more than its share of the shard, or on a node without a zone.
    pub misplaced: i32,
    /// Copies without a node.
    pub unassigned: i32,
    /// Of these, the ones that wait for more than their first allocation.
    pub lost: i32,
}

impl Copies {
    /// True when every copy is started, and where it should be.
    pub fn is_whole(&self) -> bool {
        self.started == self.wanted && self.misplaced == 0
    }

    /// True when a primary that held documents is not started.
    pub fn has_lost_primaries(&self) -> bool {
        self.primaries_unstarted > self.primaries_fresh
    }

    /// The copies of both.
    pub fn plus(self, other: Copies) -> Copies {
        Copies {
            primaries: self.primaries + other.primaries,
            primaries_unstarted: self.primaries_unstarted + other.primaries_unstarted,
            primaries_fresh: self.primaries_fresh + other.primaries_fresh,
            wanted: self.wanted + other.wanted,
            started: self.started + other.started,
            misplaced: self.misplaced + other.misplaced,
            unassigned: self.unassigned + other.unassigned,
            lost: self.lost + other.lost,
        }
    }
}

/// Counts the copies of one index. `zones` is the number of zones that copies have to be spread over.
pub fn verify(index: &IndexFacts, elastic: &ElasticFacts, zones: usize, now: Timestamp) -> Copies {
    let copies_per_shard = index.replicas.saturating_add(1);
    let zones = i32::try_from(zones.max(1)).unwrap_or(i32::MAX);
    // Elasticsearch's own rule: no zone may hold more than ceil(copies / zones).
    let most_per_zone = copies_per_shard.saturating_add(zones - 1) / zones;

    // Where a zone is missing, a new copy may wait for ever.
    let there: BTreeSet<&str> = elastic
        .nodes
        .values()
        .filter(|node| node.is_data())
        .filter_map(|node| node.zone.as_deref())
        .collect();
    let zones_are_there = i32::try_from(there.len()).is_ok_and(|there| there >= zones);
    let mut by_zone: BTreeMap<(i32, Option<&str>), i32> = BTreeMap::new();
    let mut primary_started = 0;
    let mut result = Copies {
        primaries: index.primaries,
        wanted: index.primaries.saturating_mul(copies_per_shard),
        ..Copies::default()
    };
    for copy in &index.copies {
        let is_new = copy.new_since.is_some_and(|since| now.duration_since(since) < FRESH_FOR);
        let is_fresh = is_new && zones_are_there;
        if copy.state == ShardState::Unassigned {
            result.unassigned += 1;
            result.lost += i32::from(!is_fresh);
        }
        if !copy.state.is_started() {
            result.primaries_fresh += i32::from(copy.primary && is_fresh);
            continue;
        }
        result.started += 1;
        primary_started += i32::from(copy.primary);
        let node = copy.node.as_deref().and_then(|node| elastic.nodes.get(node));
        *by_zone.entry((copy.shard, node.and_then(|node| node.zone.as_deref()))).or_default() += 1;
    }
    result.primaries_unstarted = (index.primaries - primary_started).max(0);
    result.misplaced = by_zone
        .into_iter()
        .map(|((_, zone), count)| match zone {
            Some(_) => (count - most_per_zone).max(0),
            None => count,
        })
        .sum();
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{ElasticNode, ShardCopy};

    fn data_node(zone: &str) -> ElasticNode {
        let roles = vec!["data".to_owned()];
        ElasticNode { zone: Some(zone.to_owned()), roles, ..ElasticNode::default() }
    }

    fn elastic() -> ElasticFacts {
        let nodes = ["a", "b", "c"]
            .into_iter()
            .flat_map(|zone| (0..2).map(move |n| (zone, n)))
            .map(|(zone, n)| (format!("{zone}{n}"), data_node(zone)));
        ElasticFacts {
            nodes: nodes.chain([("x".to_owned(), ElasticNode::default())]).collect(),
            ..ElasticFacts::default()
        }
    }

    fn index(replicas: i32, copies: &[(Option<&str>, ShardState)]) -> IndexFacts {
        let copies = copies.iter().enumerate().map(|(n, (node, state))| ShardCopy {
            shard: 0,
            primary: n == 0,
            state: *state,
            node: node.map(str::to_owned),
            new_since: None,
        });
        IndexFacts { primaries: 1, replicas, copies: copies.collect(), ..IndexFacts::default() }
    }

    use ShardState::*;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    #[test]
    fn three_copies_in_three_zones_are_whole() {
        let copies = verify(
            &index(2, &[(Some("a0"), Started), (Some("b0"), Relocating), (Some("c1"), Started)]),
            &elastic(),
            3,
            NOW,
        );
        assert!(copies.is_whole(), "{copies:?}");
        assert_eq!((copies.wanted, copies.started, copies.primaries_unstarted), (3, 3, 0));
    }

    #[test]
    fn two_copies_in_one_zone_are_one_too_many() {
        let copies = verify(
            &index(2, &[(Some("a0"), Started), (Some("a1"), Started), (Some("c1"), Started)]),
            &elastic(),
            3,
            NOW,
        );
        assert_eq!(copies.misplaced, 1);
    }

    #[test]
    fn six_copies_may_share_zones_in_pairs() {
        let nodes = ["a0", "a1", "b0", "b1", "c0", "c1"].map(|node| (Some(node), Started));
        assert!(verify(&index(5, &nodes), &elastic(), 3, NOW).is_whole());
    }

    #[test]
    fn a_copy_on_a_node_without_a_zone_is_misplaced() {
        assert_eq!(verify(&index(0, &[(Some("x"), Started)]), &elastic(), 3, NOW).misplaced, 1);
    }

    #[test]
    fn unassigned_and_initializing_copies_are_not_started() {
        let copies = verify(
            &index(2, &[(None, Unassigned), (Some("b0"), Initializing), (Some("c1"), Started)]),
            &elastic(),
            3,
            NOW,
        );
        assert_eq!((copies.started, copies.unassigned, copies.primaries_unstarted), (1, 1, 1));
    }

    #[test]
    fn shards_missing_from_the_routing_table_are_missed() {
        let copies =
            verify(&IndexFacts { primaries: 4, replicas: 1, ..IndexFacts::default() }, &elastic(), 3, NOW);
        assert_eq!((copies.primaries_unstarted, copies.wanted, copies.started), (4, 8, 0));
    }

    /// A full disk leaves the copies of a new index without a node for ever, and Elasticsearch calls them new for ever.
    #[test]
    fn a_new_copy_is_not_missed_for_a_minute_and_then_it_is() {
        let mut index = index(2, &[(Some("a0"), Started), (None, Unassigned), (None, Unassigned)]);
        for copy in index.copies.iter_mut().skip(1) {
            copy.new_since = Some(NOW);
        }
        let lost = |seconds| verify(&index, &elastic(), 3, NOW + SignedDuration::from_secs(seconds)).lost;
        assert_eq!((lost(0), lost(59), lost(61)), (0, 0, 2));
    }
}
