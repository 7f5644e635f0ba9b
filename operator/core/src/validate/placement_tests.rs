//! One test per rule of an IndexPlacement: a good one, broken in one place.

use searchcell_crds::Reason;
use serde_json::{Value, json};

use super::test_support::{
    assert_one, cell, good_cell, good_dedicated, good_pool, placement, placement_problems, with,
};
use super::validate_placement;
use crate::domain::ValidPlacement;

macro_rules! refused {
    ($($test:ident: $good:ident, $pointer:literal = $value:tt => $reason:ident at $path:literal, $part:literal;)+) => {
        $(#[test] fn $test() {
            let problems = placement_problems(with($good(), $pointer, json!($value)), &[]);
            assert_one(&problems, $path, Reason::$reason, $part);
        })+
    };
}

refused! {
    cell_name: good_pool, "/spec/cell" = "Cell" => InvalidSpec at "spec.cell", "name one";
    collection: good_pool, "/spec/collection" = "_messages" => InvalidSpec at "spec.collection", "lower-case letter";
    collection_too_long: good_pool, "/spec/collection" = "m1234567890123456789012345678901234567890" => InvalidSpec at "spec.collection", "39";
    tenant_field_nested: good_pool, "/spec/tenant/field" = "guild.id" => InvalidSpec at "spec.tenant.field", "top-level";
    tenant_field_reserved: good_pool, "/spec/tenant/field" = "searchcell_deleted" => InvalidSpec at "spec.tenant.field", "searchcell_deleted";
    fan_out_with_ids_of_the_collection: good_pool, "/spec/tenant" = {"field": "user", "fanOut": true, "idScope": "Collection"}
        => InvalidSpec at "spec.tenant.idScope", "Tenant";
    neither_pool_nor_dedicated: good_pool, "/spec/pool" = null => InvalidSpec at "spec", "exactly one";
    both_pool_and_dedicated: good_dedicated, "/spec/pool" = {"indices": 1} => InvalidSpec at "spec", "exactly one";
    pool_without_indices: good_pool, "/spec/pool/indices" = 0 => InvalidSpec at "spec.pool.indices", "1 to 1000";
    pool_of_too_many: good_pool, "/spec/pool/indices" = 1001 => InvalidSpec at "spec.pool.indices", "1 to 1000";
    replicas_negative: good_pool, "/spec/replicas" = (-1) => InvalidSpec at "spec.replicas", "0 to 15";
    no_tenants: good_dedicated, "/spec/dedicated/tenants" = [] => InvalidSpec at "spec.dedicated.tenants", "1 to 256";
    tenant_twice: good_dedicated, "/spec/dedicated/tenants/-" = {"id": "81384788765712384", "expectedDocuments": 1}
        => InvalidSpec at "spec.dedicated.tenants[\"81384788765712384\"].id", "twice";
    tenant_empty: good_dedicated, "/spec/dedicated/tenants/0/id" = "" => InvalidSpec at "spec.dedicated.tenants[\"\"].id", "1 to 128";
    documents_zero: good_dedicated, "/spec/dedicated/tenants/0/expectedDocuments" = 0
        => InvalidSpec at "spec.dedicated.tenants[\"81384788765712384\"].expectedDocuments", "at least 1";
    shards_zero: good_dedicated, "/spec/dedicated/tenants/0/shards" = 0
        => InvalidSpec at "spec.dedicated.tenants[\"81384788765712384\"].shards", "1 to 1024";
    shards_too_many: good_dedicated, "/spec/dedicated/tenants/0/shards" = 1025
        => InvalidSpec at "spec.dedicated.tenants[\"81384788765712384\"].shards", "1 to 1024";
    documents_need_too_many_shards: good_dedicated, "/spec/dedicated/tenants/0/expectedDocuments" = 1_024_000_000_001_i64
        => InvalidSpec at "spec.dedicated.tenants[\"81384788765712384\"].expectedDocuments", "raise maxDocumentsPerShard";
    documents_per_shard_zero: good_dedicated, "/spec/dedicated/maxDocumentsPerShard" = 0
        => InvalidSpec at "spec.dedicated.maxDocumentsPerShard", "from 1 to";
    shard_above_90_percent_of_lucene: good_dedicated, "/spec/dedicated/tenants/0" = {"id": "1", "expectedDocuments": 1_932_735_168, "shards": 1}
        => ShardTooLarge at "spec.dedicated.tenants[\"1\"].expectedDocuments", "raise shards";
    index_shards: good_pool, "/spec/index/settings/index.number_of_shards" = 2
        => ReservedSetting at "spec.index.settings[\"index.number_of_shards\"]", "pool or dedicated";
    index_replicas: good_pool, "/spec/index/settings/number_of_replicas" = 2
        => ReservedSetting at "spec.index.settings[\"index.number_of_replicas\"]", "spec.replicas";
    index_auto_expand: good_pool, "/spec/index/settings/index" = {"auto_expand_replicas": "0-1"}
        => ReservedSetting at "spec.index.settings[\"index.auto_expand_replicas\"]", "spec.replicas";
    index_allocation_filter: good_pool, "/spec/index/settings/index.routing.allocation.require._name" = "x"
        => ReservedSetting at "spec.index.settings[\"index.routing.allocation.require._name\"]", "remove it";
    index_routing: good_pool, "/spec/index/settings/index.routing_partition_size" = 2
        => ReservedSetting at "spec.index.settings[\"index.routing_partition_size\"]", "remove it";
    index_setting_null: good_pool, "/spec/index/settings" = {"codec": null} => InvalidSpec at "spec.index.settings[\"index.codec\"]", "null";
    mapping_routing: good_pool, "/spec/index/mappings/_routing" = {"required": false} => ReservedSetting at "spec.index.mappings._routing", "remove";
    mapping_meta: good_pool, "/spec/index/mappings/_meta" = {"searchcell": {}} => ReservedSetting at "spec.index.mappings._meta.searchcell", "remove";
    mapping_deleted: good_pool, "/spec/index/mappings/properties/searchcell_deleted" = {"type": "boolean"}
        => ReservedSetting at "spec.index.mappings.properties[\"searchcell_deleted\"]", "otherwise";
    mapping_deleted_runtime: good_pool, "/spec/index/mappings/runtime" = {"searchcell_deleted": {"type": "boolean"}}
        => ReservedSetting at "spec.index.mappings.runtime[\"searchcell_deleted\"]", "otherwise";
    mapping_tenant_text: good_pool, "/spec/index/mappings/properties/guild_id" = {"type": "text"}
        => InvalidSpec at "spec.index.mappings.properties[\"guild_id\"].type", "keyword or long";
    mapping_tenant_object: good_pool, "/spec/index/mappings/properties/guild_id" = {"properties": {}}
        => InvalidSpec at "spec.index.mappings.properties[\"guild_id\"].type", "keyword or long";
    mapping_tenant_nested: good_pool, "/spec/index/mappings/properties/guild_id.raw" = {"type": "long"}
        => ReservedSetting at "spec.index.mappings.properties[\"guild_id.raw\"]", "tenant field";
    mapping_tenant_runtime: good_pool, "/spec/index/mappings/runtime" = {"guild_id": {"type": "long"}}
        => ReservedSetting at "spec.index.mappings.runtime[\"guild_id\"]", "tenant field";
    mapping_properties_no_object: good_pool, "/spec/index/mappings/properties" = [] => InvalidSpec at "spec.index.mappings.properties", "no object";
}

fn valid(value: Value, siblings: &[Value]) -> ValidPlacement {
    let siblings: Vec<_> = siblings.iter().cloned().map(placement).collect();
    validate_placement(&placement(value), Some(&cell(good_cell())), &siblings).unwrap()
}

#[test]
fn a_cell_that_is_missing_is_named() {
    let problems = validate_placement(&placement(good_pool()), None, &[]).unwrap_err();
    assert_one(&problems, "spec.cell", Reason::CellNotFound, "create \"guild-messages\"");
}

#[test]
fn copies_must_fit_the_data_nodes() {
    // Three zones with one node each: three copies fit, six would be even and do not.
    let problems = placement_problems(with(good_pool(), "/spec/replicas", json!(5)), &[]);
    assert_one(&problems, "spec.replicas", Reason::TooManyCopies, "3 data nodes");
}

#[test]
fn copies_must_be_at_most_the_zones_or_a_multiple() {
    let cell_of_six = cell(with(good_cell(), "/spec/nodes/data/perZone", json!(2)));
    let check = |replicas: i32| {
        let placement = placement(with(good_pool(), "/spec/replicas", json!(replicas)));
        validate_placement(&placement, Some(&cell_of_six), &[]).err().unwrap_or_default()
    };
    for replicas in [0, 1, 2, 5] {
        assert_eq!(check(replicas), [], "{replicas}");
    }
    for replicas in [3, 4] {
        assert_one(&check(replicas), "spec.replicas", Reason::UnevenCopies, "multiple of 3");
    }
}

#[test]
fn one_pool_per_collection_the_older_wins() {
    let older = with(good_pool(), "/metadata/name", json!("zzz"));
    let older = with(older, "/metadata/creationTimestamp", json!("2026-01-01T00:00:00Z"));
    let problems = placement_problems(good_pool(), std::slice::from_ref(&older));
    assert_one(&problems, "spec.pool", Reason::PoolConflict, "placement zzz");
    assert_eq!(placement_problems(older, &[good_pool()]), []);
}

#[test]
fn both_sides_of_a_conflict_are_told_and_the_older_stays_in_force() {
    let older = with(good_pool(), "/metadata/name", json!("zzz"));
    let older = placement(with(older, "/metadata/creationTimestamp", json!("2026-01-01T00:00:00Z")));
    let younger = with(good_pool(), "/spec/tenant/field", json!("user_id"));
    let cell = cell(good_cell());
    let valid = validate_placement(&older, Some(&cell), &[placement(younger)]).unwrap();
    let told = valid.notices.join("; ");
    assert!(told.contains("is refused: spec.pool") && told.contains("is refused: spec.tenant"), "{told}");
    assert!(validate_placement(&older, Some(&cell), &[]).unwrap().notices.is_empty());
}

#[test]
fn of_two_pools_of_one_second_the_first_by_name_wins() {
    let other = with(good_pool(), "/metadata/name", json!("aaa"));
    assert_one(
        &placement_problems(good_pool(), std::slice::from_ref(&other)),
        "spec.pool",
        Reason::PoolConflict,
        "aaa",
    );
    assert_eq!(placement_problems(other, &[good_pool()]), []);
}

#[test]
fn pools_of_other_collections_and_the_placement_itself_are_no_conflict() {
    let other = with(with(good_pool(), "/metadata/name", json!("aaa")), "/spec/collection", json!("files"));
    assert_eq!(placement_problems(good_pool(), &[other, good_pool()]), []);
}

#[test]
fn a_tenant_is_in_one_dedicated_placement_only() {
    let younger = with(good_dedicated(), "/metadata/creationTimestamp", json!("2026-02-01T00:00:00Z"));
    let younger = with(younger, "/metadata/name", json!("bfg2"));
    let problems = placement_problems(younger.clone(), &[good_dedicated()]);
    assert_one(
        &problems,
        "spec.dedicated.tenants[\"81384788765712384\"]",
        Reason::TenantConflict,
        "placement bfg",
    );
    assert_eq!(placement_problems(good_dedicated(), &[younger]), []);
}

#[test]
fn a_collection_has_one_tenant_field() {
    let value = with(good_dedicated(), "/spec/tenant/field", json!("user_id"));
    assert_one(
        &placement_problems(value, &[good_pool()]),
        "spec.tenant",
        Reason::CollectionMismatch,
        "placement pool",
    );
}

#[test]
fn a_collection_has_one_versioning() {
    let value = with(good_dedicated(), "/spec/versioning", json!("None"));
    assert_one(
        &placement_problems(value, &[good_pool()]),
        "spec.versioning",
        Reason::CollectionMismatch,
        "make them the same",
    );
}

#[test]
fn shards_follow_from_the_expected_documents() {
    let shards = |tenant: Value| {
        let value = with(good_dedicated(), "/spec/dedicated/tenants/0", tenant);
        valid(value, &[]).indices[0].shards
    };
    assert_eq!(shards(json!({"id": "1", "expectedDocuments": 1})), 1);
    assert_eq!(shards(json!({"id": "1", "expectedDocuments": 1_000_000_000})), 1);
    assert_eq!(shards(json!({"id": "1", "expectedDocuments": 1_000_000_001})), 2);
    assert_eq!(shards(json!({"id": "1", "expectedDocuments": 5_000_000_000_i64})), 5);
    assert_eq!(shards(json!({"id": "1", "expectedDocuments": 5_000_000_000_i64, "shards": 7})), 7);
    assert_eq!(shards(json!({"id": "1", "expectedDocuments": 1_932_735_167, "shards": 1})), 1);
}

#[test]
fn large_shards_are_noticed() {
    let notices = |documents: i64| {
        let tenant = json!({"id": "1", "expectedDocuments": documents, "shards": 1});
        valid(with(good_dedicated(), "/spec/dedicated/tenants/0", tenant), &[]).notices
    };
    assert_eq!(notices(200_000_000), Vec::<String>::new());
    assert!(notices(200_000_001)[0].contains("200 million"));
    assert!(notices(1_000_000_001)[0].contains("1 billion"));
}

#[test]
fn indices_are_named_and_sorted() {
    let pool = valid(good_pool(), &[]);
    let names: Vec<&str> = pool.indices.iter().map(|index| index.name.as_str()).collect();
    assert_eq!(names, ["messages.p000.g1", "messages.p001.g1", "messages.p002.g1", "messages.p003.g1"]);
    assert!(pool.is_pool && pool.indices.iter().all(|index| index.shards == 1 && index.tenant.is_none()));

    let tenants = json!([{"id": "9", "expectedDocuments": 1}, {"id": "1", "expectedDocuments": 1}]);
    let dedicated = valid(with(good_dedicated(), "/spec/dedicated/tenants", tenants), &[]);
    let names: Vec<&str> = dedicated.indices.iter().map(|index| index.name.as_str()).collect();
    assert_eq!(names, ["messages.t.1.g1", "messages.t.9.g1"]);
    assert_eq!(dedicated.indices[0].tenant.as_deref(), Some("1"));
}

#[test]
fn mappings_and_analysis_come_from_the_pool() {
    let dedicated = valid(good_dedicated(), &[good_pool()]);
    assert_eq!(json!(dedicated.settings), json!({"index.analysis.analyzer.a.type": "standard"}));
    assert_eq!(dedicated.mappings["properties"], json!({"content": {"type": "text"}}));

    let own = json!({"mappings": {"properties": {"x": {"type": "long"}}}, "settings": {"index.analysis.filter.f.type": "stop"}});
    let dedicated = valid(with(good_dedicated(), "/spec/index", own), &[good_pool()]);
    assert_eq!(json!(dedicated.settings), json!({"index.analysis.filter.f.type": "stop"}));
    assert_eq!(dedicated.mappings["properties"], json!({"x": {"type": "long"}}));
}

#[test]
fn what_is_wrong_with_the_pool_is_not_inherited() {
    let pool = with(good_pool(), "/spec/index/settings/index.number_of_shards", json!(2));
    assert!(valid(good_dedicated(), &[pool]).mappings.is_empty());
}

#[test]
fn supported_choices_are_accepted() {
    for (pointer, value) in [
        ("/spec/tenant/fanOut", json!(true)),
        ("/spec/replicas", json!(null)),
        ("/spec/replicas", json!(0)),
        ("/spec/index", json!(null)),
        ("/spec/index/mappings/properties/guild_id", json!({"type": "long"})),
        ("/spec/index/mappings/_meta", json!({"owner": "chat"})),
        ("/spec/deletionPolicy", json!("Delete")),
    ] {
        assert_eq!(
            placement_problems(with(good_pool(), pointer, value.clone()), &[]),
            [],
            "{pointer} {value}"
        );
    }
}
