//! The cases that a person would try.

use std::time::Instant;

use searchcell_core::placement::solver::{
    Cluster, ClusterId, Fleet, Index, Limits, Load, Obstacle, Readiness, Refusal, ZoneRoom, solve,
};
use searchcell_crds::{ClusterPlacement, Reason};

use crate::fleets::{Rng, cluster as random_cluster};

const TERABYTE: i64 = 1_000_000_000_000;

fn cluster() -> Cluster {
    Cluster {
        placement: ClusterPlacement::Open,
        readiness: Readiness::Ready,
        others: Load::default(),
        limits: Limits {
            indices: 3_000,
            shard_copies: 2_000,
            zones: vec![ZoneRoom { allowed: TERABYTE, others: 0 }; 3],
        },
    }
}

fn index(placement: &str) -> Index {
    Index {
        cell: "guilds".into(),
        placement: placement.into(),
        shards: 1,
        copies: 3,
        shard_documents: 0,
        shard_bytes: 0,
    }
}

/// A fleet of empty clusters, and a pool of so many indices.
fn fleet(clusters: &[&str], indices: usize) -> Fleet {
    let mut fleet = Fleet::default();
    for name in clusters {
        fleet.clusters.insert(ClusterId::new("guilds", *name), cluster());
    }
    add(&mut fleet, "messages", indices);
    fleet
}

fn add(fleet: &mut Fleet, placement: &str, indices: usize) {
    for n in 0..indices {
        fleet.indices.insert(format!("{placement}.p{n:03}.g1"), index(placement));
    }
}

fn edit(fleet: &mut Fleet, cluster: &str, change: impl FnOnce(&mut Cluster)) {
    change(fleet.clusters.get_mut(&ClusterId::new("guilds", cluster)).unwrap());
}

/// Solves, takes the solution over, and counts the indices of each cluster.
fn settle(fleet: &mut Fleet) -> Vec<usize> {
    fleet.previous = solve(fleet).assignment;
    fleet.clusters.keys().map(|id| fleet.previous.values().filter(|to| *to == id).count()).collect()
}

fn only_obstacle(fleet: &Fleet) -> Obstacle {
    let solution = solve(fleet);
    solution.unplaced.into_values().next().unwrap()
}

#[test]
fn a_pool_of_twelve_on_two_clusters_is_six_and_six_and_a_third_moves_nothing() {
    let mut fleet = fleet(&["a", "b"], 12);
    assert_eq!(settle(&mut fleet), [6, 6]);
    fleet.clusters.insert(ClusterId::new("guilds", "c"), cluster());
    assert_eq!(settle(&mut fleet), [6, 6, 0]);
    add(&mut fleet, "direct", 6);
    assert_eq!(settle(&mut fleet), [6, 6, 6], "what comes next prefers the empty one");
}

#[test]
fn nothing_new_lands_on_a_closed_cluster_and_what_is_there_stays() {
    let mut fleet = fleet(&["a", "b"], 4);
    settle(&mut fleet);
    edit(&mut fleet, "a", |cluster| cluster.placement = ClusterPlacement::Closed);
    add(&mut fleet, "direct", 3);
    assert_eq!(settle(&mut fleet), [2, 5]);
    edit(&mut fleet, "b", |cluster| cluster.placement = ClusterPlacement::Closed);
    add(&mut fleet, "more", 1);
    let obstacle = only_obstacle(&fleet);
    assert_eq!(
        (obstacle.reason(), obstacle.to_string()),
        (Reason::NoOpenCluster, "cluster a, b is Closed".into())
    );
}

#[test]
fn a_cluster_out_of_reach_keeps_what_it_has_and_gets_nothing() {
    let mut fleet = fleet(&["a", "b"], 4);
    settle(&mut fleet);
    edit(&mut fleet, "a", |cluster| cluster.readiness = Readiness::Unreachable("no answer".into()));
    add(&mut fleet, "direct", 2);
    assert_eq!(settle(&mut fleet), [2, 4]);
    edit(&mut fleet, "b", |cluster| cluster.placement = ClusterPlacement::Closed);
    add(&mut fleet, "more", 1);
    assert_eq!(only_obstacle(&fleet).reason(), Reason::CellNotReady);
}

#[test]
fn what_drains_moves_away_and_nothing_else() {
    let mut fleet = fleet(&["a", "b", "c"], 9);
    settle(&mut fleet);
    edit(&mut fleet, "b", |cluster| cluster.placement = ClusterPlacement::Drain);
    let solution = solve(&fleet);
    assert_eq!(solution.moves.len(), 3);
    assert!(solution.moves.values().all(|moved| moved.from.cluster == "b" && moved.to.cluster != "b"));
    assert_eq!(settle(&mut fleet).iter().max(), Some(&5));
}

#[test]
fn what_cannot_leave_stays_and_says_why() {
    let mut fleet = fleet(&["a"], 2);
    settle(&mut fleet);
    edit(&mut fleet, "a", |cluster| cluster.placement = ClusterPlacement::Drain);
    let solution = solve(&fleet);
    assert_eq!((solution.assignment.len(), solution.unplaced.len(), solution.moves.len()), (2, 2, 0));
}

#[test]
fn a_big_tenant_weighs_more_than_many_small_indices() {
    let mut fleet = fleet(&["a", "b"], 0);
    let big = Index { shards: 5, shard_documents: 1_000_000_000, ..index("bfg") };
    assert_eq!(big.units(), 75);
    fleet.indices.insert("messages.t.1.g1".into(), big);
    add(&mut fleet, "messages", 25);
    assert_eq!(settle(&mut fleet), [1, 25], "75 units each");
}

#[test]
fn indices_of_a_placement_are_kept_apart_where_load_is_equal() {
    let mut fleet = fleet(&["a", "b"], 1);
    let three_copies = Load { indices: 1, shard_copies: 3, units: 3 };
    edit(&mut fleet, "b", |cluster| cluster.others = three_copies);
    settle(&mut fleet);
    fleet.indices.insert("messages.p001.g1".into(), index("messages"));
    assert_eq!(settle(&mut fleet), [1, 1]);
}

#[test]
fn a_cluster_is_full_before_elasticsearch_refuses() {
    let mut fleet = fleet(&["a"], 700);
    assert_eq!(settle(&mut fleet), [600], "90 % of 2000 shards, three for each index");
    let obstacle = only_obstacle(&fleet);
    assert_eq!(obstacle.refusals.keys().collect::<Vec<_>>(), [&Refusal::Shards]);
    assert_eq!(obstacle.reason(), Reason::NoCapacity);
    edit(&mut fleet, "a", |cluster| cluster.limits.indices = 300);
    fleet.previous.clear();
    assert_eq!(settle(&mut fleet), [270]);
}

#[test]
fn disks_are_filled_up_to_the_watermark_with_one_zone_lost() {
    let sized = |copies| Index { copies, shard_bytes: 40_000_000_000, ..index("messages") };
    let placed = |copies: i64, zones: usize| {
        let mut fleet = fleet(&["a"], 0);
        let room = ZoneRoom { allowed: TERABYTE, others: 200_000_000_000 };
        edit(&mut fleet, "a", |cluster| cluster.limits.zones = vec![room; zones]);
        for n in 0..100 {
            fleet.indices.insert(format!("messages.p{n:03}.g1"), sized(copies));
        }
        settle(&mut fleet)[0]
    };
    assert_eq!(placed(3, 3), 20, "one copy in each zone, before and after");
    assert_eq!(placed(2, 3), 20, "the copy of the lost zone is made again in one of the others");
    assert_eq!(placed(1, 3), 40, "two zones share the copies");
    assert_eq!(placed(6, 3), 10);
    assert_eq!(placed(2, 1), 10, "one zone has all copies, and there is none to lose");
}

#[test]
fn a_busy_cluster_is_the_last_resort() {
    let mut fleet = fleet(&["a", "b"], 10);
    edit(&mut fleet, "a", |cluster| cluster.limits.zones[1].others = 800_000_000_000);
    edit(&mut fleet, "b", |cluster| cluster.others.units = 1_000);
    assert_eq!(settle(&mut fleet), [0, 10], "a zone of a is more than three quarters full");
}

#[test]
fn a_cell_without_clusters_says_so() {
    let obstacle = only_obstacle(&fleet(&[], 1));
    assert_eq!(
        (obstacle.reason(), obstacle.to_string().as_str()),
        (Reason::NoOpenCluster, "the cell has no cluster")
    );
}

#[test]
fn the_largest_fleet_takes_little_time() {
    let mut rng = Rng::new(7);
    let mut fleet = Fleet::default();
    for n in 0..64 {
        fleet.clusters.insert(ClusterId::new("guilds", format!("c{n}")), random_cluster(&mut rng));
    }
    add(&mut fleet, "messages", 10_000);
    let started = Instant::now();
    let solution = solve(&fleet);
    let took = started.elapsed();
    println!("10,000 indices on 64 clusters: {} placed in {took:?}", solution.assignment.len());
    assert_eq!(solution.assignment.len() + solution.unplaced.len(), 10_000);
    // Seconds below what would be felt, also where nothing is optimised.
    assert!(took.as_secs() < 20, "{took:?}");
}
