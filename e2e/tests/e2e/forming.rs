//! A cell comes into being, and documents land in the right shards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use searchcell_e2e::elastic::in_different_zones;
use searchcell_e2e::objects::{annotation, items, label, number, pod_ready, text};
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Scenario, cells, run, say, shell, wait_for};
use serde_json::{Value, json};

/// The one big tenant: 3.5 billion documents in shards of at most one billion.
const BFG: &str = "81384788765712384";

/// 3 masters, 3 ingest and 3 data nodes; a pool of 8 indices and one big tenant; documents through the Service.
#[test]
fn cell_forms_and_documents_land_in_the_right_shards() {
    run("cell_forms_and_documents_land_in_the_right_shards", Level::Smoke, async |t| {
        let operator = t.start_operator().await;
        let cell = Cell::whole("guilds");
        whole_story(t, &cell).await;
        drop(operator);
    });
}

/// The same with the operator as users install it: its image, its manifests, its rights, restricted pods.
#[test]
fn the_deployed_image_does_the_same() {
    run("the_deployed_image_does_the_same", Level::Full, async |t| {
        // builds and loads the image, and applies the shipped manifests
        let script = t.env.repository.join("e2e/operator");
        let deployed = shell::run(&script, &["deploy"], None, Duration::from_secs(3600)).await.unwrap();
        if deployed.code == 3 {
            return searchcell_e2e::skipped("the_deployed_image_does_the_same: images cannot be loaded here");
        }
        deployed.ok("e2e/operator deploy");
        t.deploy_operator().await;
        whole_story(t, &Cell::whole("guilds")).await;
    });
}

/// Releases of every line that is supported, with security from the first one that can have it, and with a keystore, of
/// which each line has a format of its own; documents in and out.
#[test]
fn other_releases_form_as_well() {
    run("other_releases_form_as_well", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        for version in cells::OTHER_VERSIONS {
            // a node does not start with an entry that it does not know, so it has read it
            let (mode, entry) = match version.starts_with("7.") {
                true => ("Disabled", "reindex.ssl.secure_key_passphrase"),
                false => ("Managed", "cluster.remote.other.credentials"),
            };
            let entries = json!({entry: STANDARD.encode("a-value")});
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "entries"}, "data": entries,
            });
            t.apply(&secret).await;
            searchcell_e2e::scenario::image(t.env, version).await;
            let name = format!("of-{}", version.replace('.', "-"));
            let extra = json!({
                "version": version, "security": {"mode": mode}, "secureSettings": [{"secretName": "entries"}],
            });
            let cell = Cell { extra, ..Cell::mini(&name) };
            t.apply(&cell.object()).await;
            let pool = cells::placement("pool", &name, json!({"pool": {"indices": 1}}), 0);
            t.apply(&pool).await;
            let object = t.cell_ready(&cell).await;
            t.placement_ready("pool").await;
            assert_eq!(text(&object, "/status/version"), version);
            let elastic = t.elastic(&name, "a");
            let document = (
                "messages.p000.g1".to_owned(),
                "1".to_owned(),
                Some("1".to_owned()),
                json!({"guild_id": "1", "content": "x", "sent": 1}),
            );
            elastic.bulk(&[document]).await.unwrap();
            assert_eq!(elastic.count("messages.p000.g1").await, Ok(1), "{version}");
            for (plural, name) in [("indexplacements", "pool"), ("searchcells", name.as_str())] {
                t.objects.delete(plural, name).await.unwrap();
                t.gone_one(plural, name).await;
            }
        }
    });
}

async fn whole_story(t: &Scenario, cell: &Cell) {
    let began = std::time::Instant::now();
    t.apply(&cell.object()).await;
    // at the same time as the cell, as a user with one file does it
    t.apply(&cells::placement("guilds", &cell.name, json!({"pool": {"indices": 8}}), 2)).await;
    let big = json!({"dedicated": {"tenants": [{"id": BFG, "expectedDocuments": 3_500_000_000_i64}]}});
    t.apply(&cells::placement("big", &cell.name, big, 2)).await;
    let object = t.cell_ready(cell).await;
    say(format!("apply to Ready of {} nodes: {:.1} s", cell.nodes(), began.elapsed().as_secs_f64()));

    let uuid = one_uuid(t, cell, &object).await;
    every_pod_is_where_its_attribute_says(t, cell).await;
    awareness_is_forced(t, cell).await;
    placements_are_spread(t, cell).await;
    documents_are_found(t, cell).await;
    no_node_knows_initial_masters_again(t, cell, &uuid).await;
}

/// Status, Elasticsearch and every volume claim agree on one UUID.
async fn one_uuid(t: &Scenario, cell: &Cell, object: &Value) -> String {
    let uuid = text(object, "/status/clusters/0/uuid").to_owned();
    assert!(!uuid.is_empty(), "no UUID in status: {:#}", object["status"]);
    assert_eq!(t.elastic(&cell.name, "a").uuid().await.unwrap(), uuid);
    wait_for("the UUID on every volume claim", LIMIT, async || {
        let claims = t.objects.list("persistentvolumeclaims", "").await?;
        let uuids: BTreeSet<&str> =
            claims.iter().map(|claim| annotation(claim, "searchcell.dev/cluster-uuid")).collect();
        ensure(!claims.is_empty() && uuids == BTreeSet::from([uuid.as_str()]), || format!("{uuids:?}"))?;
        let owned = claims.iter().find(|claim| !items(claim, "/metadata/ownerReferences").is_empty());
        ensure(owned.is_none(), || format!("a volume claim has an owner: {owned:?}"))
    })
    .await;
    uuid
}

/// The zone of the Kubernetes node of each pod is the one that Elasticsearch believes in.
async fn every_pod_is_where_its_attribute_says(t: &Scenario, cell: &Cell) {
    let zone_of: BTreeMap<String, String> = (t.objects.list("nodes", "").await.unwrap().iter())
        .map(|node| {
            (text(node, "/metadata/name").to_owned(), label(node, "topology.kubernetes.io/zone").to_owned())
        })
        .collect();
    let nodes = t.elastic(&cell.name, "a").nodes().await.unwrap();
    let pods = t.objects.list("pods", &format!("searchcell.dev/cell={}", cell.name)).await.unwrap();
    assert_eq!(i32::try_from(nodes.len()).unwrap(), cell.nodes(), "{nodes:?}");
    assert_eq!(pods.len(), nodes.len(), "one pod for each Elasticsearch node");
    let mut by_role: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for pod in &pods {
        let (name, role) = (text(pod, "/metadata/name"), label(pod, "searchcell.dev/role"));
        assert!(pod_ready(pod), "{name} is not ready");
        let kubernetes = &zone_of[text(pod, "/spec/nodeName")];
        let node =
            nodes.get(name).unwrap_or_else(|| panic!("no Elasticsearch node is called {name}: {nodes:?}"));
        let roles: Vec<&str> = node.roles.iter().map(String::as_str).collect();
        assert!(node.roles.contains(role), "{name} has the roles {roles:?}");
        assert_eq!(
            role == "master",
            node.roles.contains("master"),
            "masters are dedicated: {name} {roles:?}"
        );
        if role != "ingest" {
            assert_eq!(&format!("zone-{}", node.zone), kubernetes, "{name}");
            assert_eq!(label(pod, "searchcell.dev/zone"), node.zone, "{name}");
        }
        *by_role.entry(role).or_default().entry(kubernetes).or_default() += 1;
    }
    for (role, zones) in by_role {
        assert_eq!(zones.len(), 3, "{role} nodes are in the zones {zones:?}");
    }
}

async fn awareness_is_forced(t: &Scenario, cell: &Cell) {
    let settings = t.elastic(&cell.name, "a").settings().await.unwrap();
    let value = |key: &str| match &settings.get(key) {
        Some(Value::String(value)) => value.split(',').map(str::to_owned).collect::<BTreeSet<_>>(),
        Some(Value::Array(values)) => values.iter().map(|value| value.as_str().unwrap().to_owned()).collect(),
        other => panic!("{key} is {other:?} in {settings:?}"),
    };
    let zones: BTreeSet<String> = cell.zones.iter().cloned().collect();
    assert_eq!(value("cluster.routing.allocation.awareness.attributes"), BTreeSet::from(["zone".to_owned()]));
    assert_eq!(value("cluster.routing.allocation.awareness.force.zone.values"), zones);
}

/// 8 indices of one shard and one of 4; three copies of each shard in three zones; status says the same.
async fn placements_are_spread(t: &Scenario, cell: &Cell) {
    let pool = t.placement_ready("guilds").await;
    let big = t.placement_ready("big").await;
    let copies = t.elastic(&cell.name, "a").copies("messages.").await.unwrap();
    in_different_zones(&copies, 3).unwrap_or_else(|wrong| panic!("{wrong}: {copies:#?}"));
    let mut shards: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for copy in &copies {
        shards.entry(&copy.index).or_default().insert(&copy.shard);
    }
    let found: BTreeMap<String, usize> =
        shards.iter().map(|(index, shards)| ((*index).to_owned(), shards.len())).collect();
    let mut expected: BTreeMap<String, usize> = (0..8).map(|n| (format!("messages.p{n:03}.g1"), 1)).collect();
    expected.insert(format!("messages.t.{BFG}.g1"), 4);
    assert_eq!(found, expected);

    for (placement, indices, primaries) in [(&pool, 8, 8), (&big, 1, 4)] {
        let status = &placement["status"];
        assert_eq!(number(status, "/indices"), indices, "{status:#}");
        let shards = json!({
            "primaries": primaries, "copies": primaries * 3, "started": primaries * 3,
            "misplaced": 0, "unassigned": 0, "summary": format!("{0}/{0}", primaries * 3),
        });
        assert_eq!(status["shards"], shards, "{status:#}");
        assert_eq!(status["clusters"], json!([{"name": format!("{}-a", cell.name), "indices": indices}]));
        assert!(items(status, "/problems").is_empty(), "{status:#}");
    }
    assert_eq!(big["status"]["tenants"], json!([{"id": BFG, "shards": 4}]));
}

/// Real documents, through the Service, routed by tenant in the pool; each is found by a search for its tenant.
async fn documents_are_found(t: &Scenario, cell: &Cell) {
    let elastic = t.elastic(&cell.name, "a");
    let mut documents = Vec::new();
    for n in 0..240_i64 {
        let tenant = format!("guild{}", n % 24);
        let index = format!("messages.p{:03}.g1", n % 8);
        let source = json!({"guild_id": tenant, "content": format!("hello number {n}"), "sent": n});
        documents.push((index, format!("{tenant}~{n}"), Some(tenant), source));
    }
    for n in 0..400_i64 {
        let source = json!({"guild_id": BFG, "content": format!("hello number {n}"), "sent": n});
        documents.push((format!("messages.t.{BFG}.g1"), format!("{BFG}~{n}"), None, source));
    }
    elastic.bulk(&documents).await.unwrap();
    let hits = async |index: &str, tenant: &str, routing: &str| {
        let path = format!("/{index}/_search?size=0&q=guild_id:{tenant}{routing}");
        elastic.get(&path).await.unwrap()["hits"]["total"]["value"].as_i64().unwrap()
    };
    assert_eq!(hits("messages.p*", "guild7", "&routing=guild7").await, 10);
    assert_eq!(hits("messages.t.*", BFG, "").await, 400);
    // a big tenant's documents are in all of its shards
    let shards = elastic.get(&format!("/messages.t.{BFG}.g1/_stats/docs?level=shards")).await.unwrap();
    for (shard, copies) in shards["indices"][format!("messages.t.{BFG}.g1")]["shards"].as_object().unwrap() {
        assert!(copies[0]["docs"]["count"].as_i64().unwrap() > 0, "shard {shard} is empty: {copies}");
    }
    // documents without their tenant as routing would be lost to searches for it: the pool refuses them
    let stray = ("messages.p000.g1".to_owned(), "stray".to_owned(), None, json!({"guild_id": "x"}));
    let refused = elastic.bulk(&[stray]).await.unwrap_err();
    assert!(refused.contains("routing"), "{refused}");
}

/// `cluster.initial_master_nodes` is in no ConfigMap any more, and a master that comes back does not get it.
async fn no_node_knows_initial_masters_again(t: &Scenario, cell: &Cell, uuid: &str) {
    wait_for("initial_master_nodes in no ConfigMap", LIMIT, async || {
        let maps = t.objects.list("configmaps", "").await?;
        let holder = maps.iter().find(|map| map.to_string().contains("initial_master_nodes"));
        ensure(holder.is_none(), || format!("{holder:?}"))
    })
    .await;
    let workloads = t.workloads("").await;
    let elastic = t.elastic(&cell.name, "a");
    let master = format!("{}-a-master-b-0", cell.name);
    let before = t.objects.expect("pods", &master).await;
    t.objects.delete("pods", &master).await.unwrap();
    wait_for(&format!("{master} back"), LIMIT, async || {
        let pod = t.objects.get("pods", &master).await?.ok_or("no pod")?;
        let new = pod["metadata"]["uid"] != before["metadata"]["uid"];
        ensure(new && pod_ready(&pod), || text(&pod, "/status/phase").to_owned())?;
        ensure(elastic.nodes().await?.contains_key(&master), || "it has not joined".to_owned())
    })
    .await;
    let settings = elastic.get(&format!("/_nodes/{master}/settings?flat_settings=true")).await.unwrap();
    let node = settings["nodes"].as_object().unwrap().values().next().expect("the node's settings");
    assert_eq!(text(node, "/name"), master);
    assert!(!node.to_string().contains("initial_master_nodes"), "{node:#}");
    assert_eq!(elastic.uuid().await.unwrap(), uuid);
    t.cell_ready(cell).await;
    assert_eq!(t.workloads("").await, workloads, "a pod that came back changed no workload");
}
