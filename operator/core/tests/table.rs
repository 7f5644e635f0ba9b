//! The routing table as its readers meet it: its schema, vectors that clients in any language check themselves against,
//! and the size that is promised.
//!
//! `UPDATE_GOLDEN=1 cargo test -p searchcell-core --test table` writes the schema and the vectors of lookups anew.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use searchcell_core::names::{ClusterKey, TABLE_KEY, dedicated_index, pool_index};
use searchcell_core::routing::{
    Destination, Located, MAX_ENCODED_BYTES, Override, Published, Table, TableInput, TenantRules, Traffic,
    build_table, decode, encode, slot_of,
};
use searchcell_crds::{IdScope, Versioning};
use sha2::Digest;

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn is_as_committed(path: &str, text: &str) {
    let path = file(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "{} is out of date: make generate", path.display());
}

fn located(name: String, cell: &str, cluster: &str) -> Option<Located> {
    Some(Located { name, cluster: ClusterKey::new("search", cell, cluster), is_secure: cell != "bfg" })
}

/// A pool of seven on two clusters, the fourth lost, and tenants of all sorts.
fn example() -> Table {
    let mut pool: Vec<Option<Located>> = (0..7)
        .map(|n| located(pool_index("messages", n, 1), "guild-messages", if n % 2 == 0 { "a" } else { "b" }))
        .collect();
    pool[3] = None;
    let own = |tenant: &str| (tenant.to_owned(), located(dedicated_index("messages", tenant, 1), "bfg", "a"));
    let input = TableInput {
        namespace: "search".into(),
        collection: "messages".into(),
        tenant: TenantRules { field: "guild_id".into(), fan_out: false, id_scope: IdScope::Tenant },
        versioning: Versioning::External,
        pool: Some(pool),
        dedicated: [own("81384788765712384"), own("Guild/1"), ("7".to_owned(), None)].into(),
    };
    let mut table = build_table(&input, 1_795_212_345).unwrap();
    // A tenant that is being moved: it is written to both, and read from the first.
    let to = Destination { read: Some(0), write: vec![0, 1] };
    let moving = Override { to, documents_per_second: Some(500), lane: Some("slow".into()) };
    table.overrides.insert("1144265263215943740".into(), moving);
    table.indices[1].traffic = Traffic::Paused;
    table.check().unwrap();
    table
}

#[test]
fn the_schema_is_published_and_fits() {
    let schema = schemars::schema_for!(Table);
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    is_as_committed("../../docs/reference/routing-table.schema.json", &text);
}

#[test]
fn clients_find_tenants_where_the_vectors_say() {
    let table = example();
    is_as_committed("tests/vectors/table.json", &(serde_json::to_string_pretty(&table).unwrap() + "\n"));
    let tenants = [
        "81384788765712384",
        "Guild/1",
        "7",
        "1144265263215943740",
        "",
        "0",
        "1",
        "42",
        "8",
        "9",
        "guild",
        "Guild",
        "é",
        "日本語",
        "with space",
        "null",
        "10",
        "11",
        "12",
        "13",
    ];
    let mut lines =
        "# tenant as JSON, tab, index that it is read from, tab, cluster; or: nowhere\n".to_owned();
    for tenant in tenants {
        let read = table.lookup(tenant).and_then(|to| to.read).and_then(|at| table.index(at));
        let place =
            read.map_or("nowhere".to_owned(), |(index, cluster)| format!("{}\t{}", index.name, cluster.name));
        lines += &format!("{}\t{place}\n", serde_json::to_string(tenant).unwrap());
    }
    assert!(lines.matches("nowhere").count() >= 3, "the vectors show it");
    is_as_committed("tests/vectors/lookups.tsv", &lines);
    assert_eq!(decode(&std::fs::read(file("tests/vectors/table.json")).unwrap()).unwrap(), table);
}

/// `e2e/slots.py`, which shares no code with this, prints the same.
#[test]
fn ten_thousand_tenants_are_where_another_program_finds_them() {
    let tenants = (0..10_000_u64).map(|n| (81_384_788_765_712_384 + n * 7_919_311).to_string());
    let lines: String = tenants.map(|tenant| format!("{tenant}\t{}\n", slot_of(&tenant))).collect();
    let digest: String =
        sha2::Sha256::digest(lines.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, "4da2ef1a854bb858f1487dfdf6ce11c4996b4e617aa2ffe51fa761beb86b3b72");
}

#[test]
fn ten_thousand_indices_and_twenty_thousand_overrides_are_published_and_read_back() {
    let cluster = |n: u64| format!("c{}", n % 40);
    let pool =
        (0..1_000).map(|n| located(pool_index("messages", n, 1), "guild-messages", &cluster(n as u64)));
    // As little alike as ids can be.
    let tenant = |n: u64| ((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1).to_string();
    let own = |n: u64| {
        (tenant(n), located(dedicated_index("messages", &tenant(n), 1), "bfg-messages", &cluster(n)))
    };
    let input = TableInput {
        namespace: "search".into(),
        collection: "messages".into(),
        tenant: TenantRules { field: "guild_id".into(), fan_out: false, id_scope: IdScope::Tenant },
        versioning: Versioning::External,
        pool: Some(pool.collect()),
        dedicated: (0..9_000).map(own).collect::<BTreeMap<_, _>>(),
    };
    let resident = resident();
    let started = Instant::now();
    let mut table = build_table(&input, 1_795_212_345).unwrap();
    // The others are moved within the pool.
    for n in 9_000..20_000 {
        let to = Destination { read: Some(n % 1_000), write: vec![n % 1_000, (n + 1) % 1_000] };
        table.overrides.insert(tenant(u64::from(n)), Override { to, documents_per_second: None, lane: None });
    }
    let built = started.elapsed();
    assert_eq!((table.indices.len(), table.overrides.len()), (10_000, 20_000));
    let bytes = encode(&table).unwrap();
    let encoded = started.elapsed();
    assert_eq!(decode(&bytes).unwrap(), table);
    let read_back = started.elapsed();
    let json = serde_json::to_vec(&table).unwrap().len();
    // As the API server stores it, in the object that the operator watches.
    let size = bytes.len();
    let binary_data = Some(BTreeMap::from([(TABLE_KEY.to_owned(), ByteString(bytes))]));
    let map = ConfigMap { binary_data, ..ConfigMap::default() };
    let stored = serde_json::to_vec(&map).unwrap().len();
    let published = Published::read(&map);
    assert_eq!(published.table.as_ref(), Some(&table));
    assert!(table.indices.iter().all(|index| {
        let cluster = &table.clusters[index.cluster as usize].name;
        published.names(&index.name, cluster)
    }));
    println!(
        "10,000 indices and 20,000 overrides: {size} bytes of {MAX_ENCODED_BYTES} ({json} of JSON, {stored} as an object), \
         built in {built:?}, encoded in {:?}, read back in {:?}, {} MiB more in memory with the table, its bytes, \
         its object and what the operator keeps of that",
        encoded - built,
        read_back - encoded,
        self::resident().saturating_sub(resident) >> 10
    );
    assert!(size < MAX_ENCODED_BYTES / 3 * 2, "{size}");
    // What a ConfigMap holds.
    assert!(stored < 1 << 20, "{stored}");
}

/// KiB of this process that are in memory; 0 where the system does not say.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or_default()
}
