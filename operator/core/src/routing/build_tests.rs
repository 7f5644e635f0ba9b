//! What holds for every table that is built.

use proptest::prelude::*;
use searchcell_crds::IdScope;

use super::*;
use crate::names::{dedicated_index, pool_index};
use crate::routing::{MAX_ENCODED_BYTES, decode, encode, slot_of};

fn located(name: String, cell: &str, cluster: &str) -> Located {
    Located { name, cluster: ClusterKey::new("search", cell, cluster), is_secure: true }
}

fn input(pool: i32, tenants: &[String]) -> TableInput {
    let cluster = |i: i32| if i % 2 == 0 { "a" } else { "b" };
    TableInput {
        namespace: "search".into(),
        collection: "messages".into(),
        tenant: TenantRules { field: "guild_id".into(), fan_out: false, id_scope: IdScope::Tenant },
        versioning: Versioning::External,
        pool: (pool > 0).then(|| {
            (0..pool).map(|i| Some(located(pool_index("messages", i, 1), "guilds", cluster(i)))).collect()
        }),
        dedicated: (tenants.iter())
            .map(|tenant| (tenant.clone(), Some(located(dedicated_index("messages", tenant, 1), "bfg", "a"))))
            .collect(),
    }
}

fn name<'a>(table: &'a Table, tenant: &str) -> Option<&'a str> {
    let (index, _) = table.index(table.lookup(tenant)?.read?)?;
    Some(&index.name)
}

#[test]
fn a_dedicated_tenant_is_in_its_own_index_and_all_others_are_in_the_pool() {
    let table = build_table(&input(12, &["42".into()]), 7).unwrap();
    table.check().unwrap();
    let (index, cluster) = table.index(table.lookup("42").unwrap().read.unwrap()).unwrap();
    assert_eq!((index.name.as_str(), index.routed), ("messages.t.42.g1", false));
    assert_eq!((cluster.name.as_str(), cluster.cell.as_str()), ("bfg-a", "bfg"));
    assert_eq!(cluster.nodes, "bfg-a-http.search.svc:9200");
    assert_eq!(cluster.endpoint, "https://bfg-a.search.svc:9200");
    assert_eq!(cluster.credential_secret.as_deref(), Some("bfg-router"));
    assert_eq!(cluster.ca_config_map.as_deref(), Some("bfg-http-ca-public"));
    let (index, _) = table.index(table.lookup("43").unwrap().read.unwrap()).unwrap();
    assert!(index.name.starts_with("messages.p0") && index.routed);
    assert_eq!(table.clusters.len(), 3);
}

#[test]
fn who_has_lost_an_index_is_nowhere_and_the_others_stay_where_they_are() {
    let whole = build_table(&input(12, &["42".into()]), 7).unwrap();
    let mut input = input(12, &["42".into()]);
    input.pool.as_mut().unwrap()[3] = None;
    input.dedicated.insert("42".into(), None);
    let table = build_table(&input, 8).unwrap();
    table.check().unwrap();
    assert!(table.lookup("42").unwrap().is_nowhere(), "and not in the pool");
    assert!(!table.names("messages.p003.g1", "guilds-b") && !table.names("messages.t.42.g1", "bfg-a"));
    let lost = |slot: u16| (4_096..5_462).contains(&slot);
    for tenant in (0..1_000).map(|n: u32| n.to_string()).filter(|tenant| tenant != "42") {
        let expected = name(&whole, &tenant).filter(|_| !lost(slot_of(&tenant)));
        assert_eq!(name(&table, &tenant), expected, "{tenant}");
    }
}

#[test]
fn without_a_pool_other_tenants_have_no_place() {
    let table = build_table(&input(0, &["42".into()]), 7).unwrap();
    assert_eq!((name(&table, "42"), name(&table, "43")), (Some("messages.t.42.g1"), None));
}

#[test]
fn numbers_of_tables_ascend_also_when_nobody_remembers_the_last() {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    assert_eq!(next_generation(None, now), 1_800_000_000);
    assert_eq!(next_generation(Some(5), now), 1_800_000_000);
    assert_eq!(next_generation(Some(1_800_000_000), now), 1_800_000_001);
    assert_eq!(next_generation(Some(1_900_000_000), now), 1_900_000_001);
}

#[test]
fn a_pool_without_a_slot_for_each_index_is_refused() {
    let mut input = input(1, &[]);
    input.pool = Some(Vec::new());
    assert_eq!(build_table(&input, 1), Err(BuildError::PoolSize(0)));
}

#[test]
fn ten_thousand_indices_and_twenty_thousand_overrides_fit() {
    // twenty thousand tenants, all of them in indices of their own, and a pool beside them: more than is promised
    let tenants: Vec<String> =
        (0..20_000_u64).map(|n| (81_384_788_765_712_384 + n * 7_919_311).to_string()).collect();
    let table = build_table(&input(1_000, &tenants), 1_795_212_345).unwrap();
    let bytes = encode(&table).unwrap();
    assert!(bytes.len() < MAX_ENCODED_BYTES, "{}", bytes.len());
    assert_eq!(decode(&bytes).unwrap(), table);
}

#[test]
fn a_table_of_a_newer_format_is_refused_and_unknown_members_are_not() {
    let table = build_table(&input(2, &[]), 1).unwrap();
    let mut json = serde_json::to_value(&table).unwrap();
    json["later"] = serde_json::json!({"a": 1});
    assert_eq!(decode(json.to_string().as_bytes()).unwrap(), table);
    json["schemaVersion"] = serde_json::json!(SCHEMA_VERSION + 1);
    let refused = decode(json.to_string().as_bytes()).unwrap_err().to_string();
    assert!(refused.contains("use a newer one"), "{refused}");
}

#[test]
fn a_table_that_points_nowhere_is_refused() {
    let mut table = build_table(&input(2, &[]), 1).unwrap();
    table.indices.pop();
    let refused = decode(&serde_json::to_vec(&table).unwrap()).unwrap_err().to_string();
    assert!(refused.contains("position 1"), "{refused}");
}

proptest! {
    /// Every tenant has exactly one place; the shares of a pool differ by at most one slot; the same input gives the
    /// same bytes.
    #[test]
    fn laws(pool in 1..1_000_i32, tenants in proptest::collection::vec("[a-zA-Z0-9é_-]{1,24}", 0..20)) {
        let input = input(pool, &tenants);
        let table = build_table(&input, 9).unwrap();
        prop_assert_eq!(table.check(), Ok(()));
        let bytes = encode(&table).unwrap();
        prop_assert_eq!(&bytes, &encode(&build_table(&input, 9).unwrap()).unwrap());
        prop_assert_eq!(&decode(&bytes).unwrap(), &table);
        for tenant in &tenants {
            let expected = dedicated_index("messages", tenant, 1);
            prop_assert_eq!(name(&table, tenant), Some(expected.as_str()));
            let expected = u64::from(slot_of(tenant)) * u64::try_from(pool).unwrap() / u64::from(SLOTS);
            let at = table.slots.partition_point(|range| range.from <= slot_of(tenant)) - 1;
            prop_assert_eq!(u64::try_from(at).unwrap(), expected);
        }
        let starts = table.slots.iter().map(|range| i32::from(range.from)).chain([i32::from(SLOTS)]);
        let starts: Vec<i32> = starts.collect();
        let shares: Vec<i32> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
    }
}
