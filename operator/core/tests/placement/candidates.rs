//! Tenants that outgrow the pool.

use std::collections::BTreeMap;
use std::sync::Arc;

use searchcell_core::placement::{ShardLimits, TenantsToCount, tenants_to_count};
use searchcell_core::snapshot::{IndexCounts, Reading};
use searchcell_crds::PlacementCandidate;
use searchcell_crds::conditions::find;

use super::world::{World, pool};

const INDEX: &str = "messages.p001.g1";

/// A pool of two, whose second index has so many documents.
fn world(documents: i64) -> World {
    let mut world = World::new(pool(2), &["a"]);
    world.create();
    world.0.limits = ShardLimits { documents: 1_000, bytes: 1 << 40 };
    let count = IndexCounts { documents, largest_shard_documents: documents, largest_shard_bytes: 1 };
    let other = ("messages.p000.g1".to_owned(), IndexCounts::default());
    world.facts("a").counts = Some(BTreeMap::from([other, (INDEX.to_owned(), count)]).into());
    world
}

fn named(world: &World) -> Vec<(String, i64)> {
    let named = |candidate: &PlacementCandidate| (candidate.id.clone(), candidate.documents);
    world.status().candidates.iter().map(named).collect()
}

#[test]
fn tenants_are_counted_only_where_a_shard_is_large() {
    assert_eq!(tenants_to_count(&world(900).0, &world(900).valid()), []);
    let large = world(2_000);
    let (cluster, field) = ("a".to_owned(), "guild_id".to_owned());
    let asked = [TenantsToCount { cluster, index: INDEX.to_owned(), field }];
    assert_eq!(tenants_to_count(&large.0, &large.valid()), asked);
    let mut of_many = world(2_000);
    of_many.0.placement.spec.tenant.fan_out = true;
    assert_eq!(tenants_to_count(&of_many.0, &of_many.valid()), [], "a document has many tenants");
}

#[test]
fn those_with_a_good_part_of_it_are_named_and_stay_named() {
    let mut world = world(2_000);
    assert_eq!(named(&world), [], "not counted");
    let counted = [("42", 1_234), ("77", 200), ("5", 199)];
    let counted = counted.map(|(tenant, count)| (tenant.to_owned(), count)).to_vec();
    world.0.largest.insert(INDEX.to_owned(), counted);
    let expected = [("42".to_owned(), 1_200), ("77".to_owned(), 200)];
    assert_eq!(named(&world), expected);
    let status = world.status();
    let told = find(&status.conditions, "ShardPressure").unwrap();
    assert!(told.message.contains("give an index of its own (spec.dedicated) to 42, 77"), "{told:?}");
    assert!(told.message.contains("more than 1000 documents"), "{told:?}");

    // Not counted now, or not read at all.
    world.0.placement.status = Some(status);
    world.0.largest.clear();
    assert_eq!(named(&world), expected);
    let facts = world.0.elastic.insert("a".into(), Reading::Unavailable("no answer".into()));
    assert_eq!(named(&world), expected);
    // Its tenant has left.
    world.0.elastic.insert("a".into(), facts.unwrap());
    Arc::make_mut(world.facts("a").counts.as_mut().unwrap())
        .get_mut(INDEX)
        .unwrap()
        .largest_shard_documents = 700;
    assert_eq!(named(&world), []);
}
