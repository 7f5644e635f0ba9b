//! Chooses a cluster for each index that has none. Pure, deterministic, moves nothing.

use std::collections::BTreeMap;

use crate::domain::ValidIndex;

/// A cluster that may take new indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Cluster name within the cell.
    pub cluster: String,
    /// Shard copies of managed indices that it holds.
    pub load: i64,
}

/// Index name → cluster name.
pub type Assignment = BTreeMap<String, String>;

/// Assigns every index of `missing` to the least loaded candidate at its turn. Empty when there is no candidate.
pub fn assign(missing: &[ValidIndex], copies: i32, candidates: &[Candidate]) -> Assignment {
    let mut load: BTreeMap<&str, i64> =
        candidates.iter().map(|candidate| (candidate.cluster.as_str(), candidate.load)).collect();
    let mut order: Vec<&ValidIndex> = missing.iter().collect();
    order.sort();
    let mut assignment = Assignment::new();
    for index in order {
        let Some((cluster, load)) = load.iter_mut().min_by_key(|(cluster, load)| (**load, **cluster)) else {
            break;
        };
        *load = load.saturating_add(i64::from(index.shards) * i64::from(copies));
        assignment.insert(index.name.clone(), (*cluster).to_owned());
    }
    assignment
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index(number: i32) -> ValidIndex {
        ValidIndex {
            name: crate::names::pool_index("messages", number, 1),
            shards: 1,
            generation: 1,
            tenant: None,
        }
    }

    fn count(assignment: &Assignment, cluster: &str) -> usize {
        assignment.values().filter(|assigned| *assigned == cluster).count()
    }

    #[test]
    fn a_pool_is_split_evenly_over_empty_clusters() {
        let candidates = ["b", "a"].map(|cluster| Candidate { cluster: cluster.to_owned(), load: 0 });
        let missing: Vec<_> = (0..12).map(index).collect();
        let assignment = assign(&missing, 3, &candidates);
        assert_eq!((count(&assignment, "a"), count(&assignment, "b")), (6, 6));
    }

    #[test]
    fn the_emptier_cluster_is_filled_first() {
        let candidates =
            [("a", 30), ("b", 0)].map(|(cluster, load)| Candidate { cluster: cluster.to_owned(), load });
        let missing: Vec<_> = (0..12).map(index).collect();
        let assignment = assign(&missing, 3, &candidates);
        assert_eq!((count(&assignment, "a"), count(&assignment, "b")), (1, 11));
    }

    #[test]
    fn without_a_candidate_nothing_is_assigned() {
        assert!(assign(&[index(0)], 1, &[]).is_empty());
    }

    proptest! {
        /// Every index gets exactly one candidate, the answer depends on no order, and equal clusters end up at most
        /// one index apart.
        #[test]
        fn laws(indices in 0..200i32, clusters in 1..9usize, copies in 1..4i32, seed in any::<u64>()) {
            let mut missing: Vec<_> = (0..indices).map(index).collect();
            let mut candidates: Vec<_> =
                (0..clusters).map(|n| Candidate { cluster: format!("c{n}"), load: 0 }).collect();
            let first = assign(&missing, copies, &candidates);
            let by = seed as usize % missing.len().max(1);
            missing.rotate_left(by);
            candidates.reverse();
            prop_assert_eq!(&first, &assign(&missing, copies, &candidates));
            prop_assert_eq!(first.len(), missing.len());
            let counts: Vec<usize> = candidates.iter().map(|c| count(&first, &c.cluster)).collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }
    }
}
