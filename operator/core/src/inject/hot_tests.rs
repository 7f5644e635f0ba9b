use serde_json::{Value, json};

use super::*;

fn pod(namespace: &str, collections: Option<&[&str]>) -> RouterPod {
    RouterPod {
        namespace: namespace.to_owned(),
        collections: collections.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        ..RouterPod::default()
    }
}

fn rate(tenant: &str, documents: f64, hot: bool) -> Value {
    json!({"collection": "messages", "tenant": tenant, "documentsPerSecond": documents,
        "bytesPerSecond": documents * 512.0, "share": 0.5, "hot": hot, "secondsSince": null,
        "destinations": [{"cluster": "guilds-a", "index": "messages.p001.g1"}],
        "action": {"lane": hot, "laneName": null, "documentsPerSecond": null}})
}

fn reading(tenants: &[Value]) -> HotReading {
    serde_json::from_value(json!({"documentsPerSecond": 1.0, "thresholds": {}, "tenants": tenants})).unwrap()
}

fn key(namespace: &str, tenant: &str) -> TenantKey {
    let own = str::to_owned;
    TenantKey { namespace: own(namespace), collection: own("messages"), tenant: own(tenant) }
}

fn hot(tenants: &[(&str, &str, f64)]) -> BTreeMap<TenantKey, HotTenant> {
    let of = |documents| HotTenant { documents, routers: 1, hot_in: 1, ..HotTenant::default() };
    tenants.iter().map(|(namespace, tenant, documents)| (key(namespace, tenant), of(*documents))).collect()
}

fn told(memory: &mut HotMemory, hot: &BTreeMap<TenantKey, HotTenant>, seconds: u64) -> Vec<String> {
    let name = |key: &TenantKey, _: &HotTenant| Some(format!("{}/{}", key.namespace, key.tenant));
    memory.news(hot, Duration::from_secs(seconds), name)
}

fn placement(name: &str, collection: &str, rest: Value) -> IndexPlacement {
    let mut spec = json!({"cell": "guilds", "collection": collection, "tenant": {"field": "guild"}});
    spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    serde_json::from_value(json!({"apiVersion": "searchcell.dev/v1alpha1", "kind": "IndexPlacement",
        "metadata": {"name": name, "namespace": "search"}, "spec": spec}))
    .unwrap()
}

fn cell(name: &str) -> SearchCell {
    let node = json!({"count": 3, "perZone": 1, "storage": {"size": "1Gi"}});
    serde_json::from_value(json!({"apiVersion": "searchcell.dev/v1alpha1", "kind": "SearchCell",
        "metadata": {"name": name, "namespace": "search"}, "spec": {"version": "9.5.3", "zones": [{"name": "a"}],
            "clusters": [{"name": "a"}], "nodes": {"master": node, "data": node}}}))
    .unwrap()
}

#[test]
fn what_routers_say_is_summed_by_namespace() {
    let (one, two) = (pod("search", None), pod("search", Some(&["messages"])));
    let (far, other) = (pod("far", None), pod("search", Some(&["audit"])));
    let readings = [
        (&one, reading(&[rate("big", 6_000.0, true), rate("small", 10.0, false)])),
        (&two, reading(&[rate("big", 3_000.0, false), rate("big", 3_000.0, true)])),
        (&far, reading(&[rate("big", 7_000.0, true)])),
        (&other, reading(&[rate("big", 9_000.0, true)])),
    ];
    let hot = hot_tenants(&readings);
    assert_eq!(hot.keys().collect::<Vec<_>>(), [&key("far", "big"), &key("search", "big")]);
    let big = &hot[&key("search", "big")];
    assert_eq!(
        (big.documents, big.bytes),
        (9_000.0, 9_000.0 * 512.0),
        "each router once, of its own collections"
    );
    assert_eq!((big.routers, big.hot_in), (2, 1));
    assert_eq!(big.clusters.iter().collect::<Vec<_>>(), ["guilds-a"]);
}

#[test]
fn what_cannot_be_a_tenant_is_passed_over() {
    let pod = pod("search", None);
    let mut tenants = vec![rate("", 1.0, true), rate(&"x".repeat(129), 1.0, true), rate("huge", 1e300, true)];
    tenants.push(rate("less", -5.0, true));
    let mut collection = rate("big", 1.0, true);
    collection["collection"] = json!("c".repeat(41));
    tenants.push(collection);
    let hot = hot_tenants(&[(&pod, reading(&tenants))]);
    assert_eq!(hot.keys().map(|key| key.tenant.as_str()).collect::<Vec<_>>(), ["huge", "less"]);
    assert_eq!((hot[&key("search", "huge")].documents, hot[&key("search", "less")].documents), (1e12, 0.0));
    let many: Vec<Value> = (0..1_000).map(|number| rate(&format!("t{number}"), 1.0, true)).collect();
    assert_eq!(hot_tenants(&[(&pod, reading(&many))]).len(), 128);
}

#[test]
fn each_is_told_of_once_and_again_when_it_was_not_hot_or_after_an_hour() {
    let mut memory = HotMemory::default();
    let big = hot(&[("search", "big", 6_000.0)]);
    let none = BTreeMap::new();
    assert_eq!(told(&mut memory, &big, 60), ["search/big"]);
    for minute in 2..61 {
        // Every third reading fails.
        let now = if minute % 3 == 0 { &none } else { &big };
        assert!(told(&mut memory, now, minute * 60).is_empty(), "{minute}");
    }
    assert_eq!(told(&mut memory, &big, 61 * 60), ["search/big"], "an hour after it was told");
    assert!(told(&mut memory, &big, 62 * 60).is_empty());
    assert!(told(&mut memory, &none, 71 * 60).is_empty());
    assert!(told(&mut memory, &big, 71 * 60 + 59).is_empty(), "not hot for less than ten minutes");
    assert!(told(&mut memory, &none, 82 * 60).is_empty());
    assert!(memory.told.is_empty(), "nothing is remembered for ever");
    assert_eq!(told(&mut memory, &big, 83 * 60), ["search/big"]);
}

#[test]
fn few_at_once_those_that_write_most_and_no_namespace_before_the_others() {
    let mut memory = HotMemory::default();
    let names: Vec<String> = (0..6).map(|number| format!("t{number}")).collect();
    let mut tenants: Vec<(&str, &str, f64)> = names
        .iter()
        .zip(1..)
        .map(|(name, number)| ("many", name.as_str(), 1_000.0 * f64::from(number)))
        .collect();
    tenants.push(("few", "big", 10.0));
    let all = hot(&tenants);
    let mut first = told(&mut memory, &all, 0);
    assert_eq!(
        first[..2].iter().collect::<BTreeSet<_>>(),
        ["few/big".to_owned(), "many/t5".to_owned()].iter().collect()
    );
    assert_eq!(first.split_off(2), ["many/t4", "many/t3", "many/t2"]);
    assert_eq!(told(&mut memory, &all, 60), ["many/t1", "many/t0"], "the others the next time");
    assert!(told(&mut memory, &all, 120).is_empty());
    let namespaces: Vec<String> = (0..40).map(|number| format!("n{number:02}")).collect();
    let everywhere: Vec<(&str, &str, f64)> =
        namespaces.iter().map(|name| (name.as_str(), "big", 1.0)).collect();
    let everywhere = hot(&everywhere);
    assert_eq!(told(&mut memory, &everywhere, 180).len(), 32);
    assert_eq!(told(&mut memory, &everywhere, 240).len(), 8);
}

#[test]
fn of_whom_nothing_can_be_told_takes_no_place_and_is_asked_for_again() {
    let mut memory = HotMemory::default();
    let names: Vec<String> = (0..9).map(|number| format!("t{number}")).collect();
    let tenants: Vec<(&str, &str, f64)> = names.iter().map(|name| ("search", name.as_str(), 1.0)).collect();
    let last = |key: &TenantKey, _: &HotTenant| (key.tenant == "t8").then_some(());
    assert_eq!(memory.news(&hot(&tenants), Duration::ZERO, last).len(), 1);
    assert_eq!(told(&mut memory, &hot(&tenants), 60).len(), 4, "when there is something");
}

#[test]
fn a_tenant_is_told_of_on_the_object_that_a_person_changes() {
    let dedicated = json!({"dedicated": {"tenants": [{"id": "big", "expectedDocuments": 5}]}});
    let placements = [
        placement("elsewhere", "audit", json!({"pool": {"indices": 1}})),
        placement("own", "messages", dedicated),
        placement("pool", "messages", json!({"pool": {"indices": 4}})),
    ];
    let cells = [cell("bfg"), cell("guilds")];
    let tenant = HotTenant {
        documents: 12_000.4,
        bytes: 6.1 * 1_048_576.0,
        routers: 3,
        hot_in: 2,
        clusters: ["guilds-a".to_owned()].into(),
    };
    let text = |name: &str| {
        let key = key("search", name);
        let about = about(&key, &tenant, &placements, &cells).unwrap();
        (about.text(&key, &tenant), about.is_warning(), about)
    };
    let (says, is_warning, found) = text("81384788765712384");
    assert_eq!((found, is_warning), (About::Pool(&placements[2]), true));
    assert!(
        says.starts_with(
            "tenant \"81384788765712384\" of collection \"messages\" writes 12000 documents/s and 6.1 MiB/s through 3 \
             routers, and is hot in 2 of them. "
        ) && says.contains("spec.dedicated.tenants[].id"),
        "{says}"
    );
    let (says, is_warning, found) = text("big");
    assert_eq!((found, is_warning), (About::Dedicated(&placements[1]), false));
    assert!(says.contains("an index of its own"), "{says}");
    let (says, ..) = text("a\n\u{202e}b");
    assert!(says.starts_with(r#"tenant "a\n\u{202e}b" of"#), "{says}");

    let key = key("search", "lost");
    let found = about(&key, &tenant, &placements[..2], &cells).unwrap();
    assert_eq!((found, found.is_warning()), (About::Collection(&placements[1]), true));
    assert!(found.text(&key, &tenant).contains("It has no index"));
    let found = about(&key, &tenant, &placements[..1], &cells);
    assert_eq!(found, Some(About::Cell(&cells[1])));
    assert!(found.unwrap().text(&key, &tenant).contains("No IndexPlacement"));
    assert_eq!(about(&key, &tenant, &placements[..1], &cells[..1]), None);
}

#[test]
fn sizes_are_for_people() {
    let sizes = [0.4, 1_023.0, 1_536.0, 3.0 * 1_048_576.0, 2.5e12].map(size);
    assert_eq!(sizes, ["0 bytes", "1023 bytes", "1.5 KiB", "3.0 MiB", "2328.3 GiB"]);
}
