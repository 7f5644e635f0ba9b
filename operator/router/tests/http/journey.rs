//! What a client does in a day: writes, reads, searches, and what it may not do.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use percent_encoding::NON_ALPHANUMERIC;
use searchcell_core::names::ClusterKey;
use searchcell_core::routing::{Located, Table, TableInput, TenantRules, build_table, encode};
use searchcell_crds::{IdScope, Versioning};
use searchcell_router::run::Router;
use searchcell_router::settings::Settings;
use serde_json::{Value, json};

use super::client::{json, send};

/// A table of a pool of three indices on the Elasticsearch at `address`.
pub fn table(
    scheme: &str,
    address: SocketAddr,
    run: &str,
    collection: &str,
    versioning: Versioning,
) -> Table {
    let located = |number: u32| Located {
        name: format!("{collection}.p{number:03}.{run}"),
        cluster: ClusterKey::new("ns", "guilds", "a"),
        is_secure: scheme == "https",
    };
    let input = TableInput {
        namespace: "ns".into(),
        collection: collection.into(),
        tenant: TenantRules { field: "guild_id".into(), fan_out: false, id_scope: IdScope::Tenant },
        versioning,
        pool: Some((0..3).map(located).map(Some).collect()),
        dedicated: BTreeMap::new(),
    };
    let mut table = build_table(&input, 7).unwrap();
    table.clusters[0].endpoint = format!("{scheme}://{address}");
    table.clusters[0].nodes = address.to_string();
    table
}

struct Day {
    root: PathBuf,
    router: Router,
    to: SocketAddr,
}

impl Day {
    async fn begin(address: SocketAddr) -> Self {
        let run = format!("g{}", std::process::id() % 1_000 + u32::from(address.port()) * 1_000);
        let root = std::env::temp_dir().join(format!("searchcell-router-http-{run}"));
        std::fs::create_dir_all(&root).unwrap();
        for (collection, versioning) in [("messages", Versioning::None), ("numbered", Versioning::External)] {
            let table = table("http", address, &run, collection, versioning);
            std::fs::write(root.join(collection), encode(&table).unwrap()).unwrap();
            for number in 0..3 {
                let body = json!({"settings": {"number_of_shards": 1, "number_of_replicas": 0},
                    "mappings": {"_routing": {"required": true}, "properties": {"n": {"type": "long"}, "guild_id": {"type": "keyword"}}}});
                let path = format!("/{collection}.p{number:03}.{run}?wait_for_active_shards=1");
                let made = json(address, "PUT", &path, &body.to_string()).await;
                assert_eq!(made.status, 200, "{}", made.text);
            }
        }
        let file = |name: &str| root.join(name).display().to_string();
        let settings: Settings = serde_json::from_value(json!({
            "listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "stateDirectory": root,
            "collections": [{"name": "messages", "table": file("messages")}, {"name": "numbered", "table": file("numbered")}]}))
        .unwrap();
        let router = Router::start(settings).await.unwrap();
        let to = router.address;
        for _ in 0..500 {
            if json(router.admin, "GET", "/readyz", "").await.status == 200 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        Self { root, router, to }
    }

    async fn bulk(&self, path: &str, lines: &[String]) -> Value {
        let body = lines.join("\n") + "\n";
        let got =
            send(self.to, "POST", path, "content-type: application/x-ndjson\r\n", body.as_bytes()).await;
        assert_eq!(got.status, 200, "{}", got.text);
        got.body
    }
}

pub async fn all(address: SocketAddr) {
    let day = Day::begin(address).await;
    handshake(&day).await;
    write_and_read(&day).await;
    ids_of_tenants_never_meet(&day).await;
    what_is_wrong_is_told_item_by_item(&day).await;
    external_versions(&day).await;
    searches(&day).await;
    packed_and_shaped(&day).await;
    inside(&day).await;
    std::fs::remove_dir_all(&day.root).ok();
    day.router.stop().await;
}

async fn handshake(day: &Day) {
    let headers = "accept: application/vnd.elasticsearch+json; compatible-with=8\r\n";
    let got = send(day.to, "GET", "/", headers, b"").await;
    assert!(got.head.contains("x-elastic-product: elasticsearch"), "{}", got.head);
    assert!(got.head.contains("application/vnd.elasticsearch+json;compatible-with=8"), "{}", got.head);
    assert!(got.body["version"]["number"].is_string());
    let head = send(day.to, "HEAD", "/", "", b"").await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert_eq!(json(day.to, "GET", "/_cluster/health", "").await.body["status"], "green");
}

async fn write_and_read(day: &Day) {
    let lines: Vec<String> = (0..200)
        .flat_map(|n| {
            [format!("{{\"index\":{{\"_id\":\"{n}\"}}}}"), format!("{{\"guild_id\":{},\"n\":{n}}}", n % 10)]
        })
        .collect();
    let body = day.bulk("/messages/_bulk?refresh=true", &lines).await;
    assert_eq!(body["errors"], false, "{body}");
    for (n, item) in body["items"].as_array().unwrap().iter().enumerate() {
        let item = &item["index"];
        assert_eq!((&item["_index"], &item["_id"]), (&json!("messages"), &json!(n.to_string())));
        assert_eq!((&item["status"], &item["result"]), (&json!(201), &json!("created")));
    }
    let got = json(day.to, "GET", "/messages/_doc/15?routing=5", "").await;
    assert_eq!((got.status, &got.body["_source"]["n"], &got.body["_id"]), (200, &json!(15), &json!("15")));
    assert_eq!(got.body["_index"], "messages");
    for (path, status) in [
        ("/messages/_doc/15?routing=6", 404),
        ("/messages/_doc/15", 400),
        ("/messages/_doc/5~15?routing=6", 404),
        ("/messages/_doc/..%2f5~15?routing=6", 404),
        ("/other/_doc/15?routing=5", 404),
        ("/messages.p000.g1/_doc/15?routing=5", 404),
        ("/messages,other/_doc/15?routing=5", 404),
        ("/_all/_doc/15?routing=5", 404),
    ] {
        assert_eq!(json(day.to, "GET", path, "").await.status, status, "{path}");
    }
    let made =
        json(day.to, "PUT", "/messages/_doc/one?refresh", "{\n  \"guild_id\": \"x/y\",\n  \"n\": 1\n}").await;
    assert_eq!((made.status, &made.body["result"]), (201, &json!("created")), "{}", made.text);
    assert_eq!(json(day.to, "PUT", "/messages/_create/one?routing=x%2Fy", "{\"n\":2}").await.status, 409);
    assert_eq!(json(day.to, "HEAD", "/messages/_doc/one?routing=x%2Fy", "").await.status, 200);
    let gone = json(day.to, "DELETE", "/messages/_doc/one?routing=x%2Fy", "").await;
    assert_eq!((gone.status, &gone.body["result"]), (200, &json!("deleted")));
    let again = json(day.to, "DELETE", "/messages/_doc/one?routing=x%2Fy", "").await;
    assert_eq!((again.status, &again.body["result"]), (404, &json!("not_found")));
    let minted = json(day.to, "POST", "/messages/_doc?routing=5", "{\"n\":9}").await;
    let id = minted.body["_id"].as_str().unwrap();
    let got = json(day.to, "GET", &format!("/messages/_doc/{id}?routing=5"), "").await;
    assert_eq!(got.body["_source"]["n"], 9);
    json(day.to, "DELETE", &format!("/messages/_doc/{id}?routing=5&refresh=true"), "").await;
}

/// Tenants and ids that would be stored as one if they were only put together.
async fn ids_of_tenants_never_meet(day: &Day) {
    let pairs =
        [("a", "b~c"), ("a~b", "c"), ("a%7Eb", "c"), ("a%b", "c"), ("a%25b", "c"), ("~", "~"), ("%", "%7E")];
    let path = |(tenant, id): &(&str, &str)| {
        let encode = |text: &str| percent_encoding::utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        format!("/messages/_doc/{}?refresh=true&routing={}", encode(id), encode(tenant))
    };
    for (n, pair) in pairs.iter().enumerate() {
        let made = json(day.to, "PUT", &path(pair), &json!({"n": n}).to_string()).await;
        assert_eq!((made.status, &made.body["_id"]), (201, &json!(pair.1)), "{pair:?}: {}", made.text);
    }
    for (n, pair) in pairs.iter().enumerate() {
        let got = json(day.to, "GET", &path(pair).replace("refresh=true&", ""), "").await;
        assert_eq!((&got.body["_source"]["n"], &got.body["_id"]), (&json!(n), &json!(pair.1)), "{pair:?}");
        let found = path(pair).split_once("routing=").unwrap().1.to_owned();
        let found = json(day.to, "GET", &format!("/messages/_search?routing={found}"), "").await.body;
        let ids: Vec<&Value> =
            found["hits"]["hits"].as_array().unwrap().iter().map(|hit| &hit["_id"]).collect();
        assert_eq!(ids, [&json!(pair.1)], "{pair:?}");
        assert_eq!(json(day.to, "DELETE", &path(pair), "").await.body["result"], "deleted");
    }
}

async fn what_is_wrong_is_told_item_by_item(day: &Day) {
    let lines = [
        "{\"update\":{\"_id\":\"1\",\"routing\":\"1\"}}",
        "{\"doc\":{}}",
        "{\"index\":{\"_id\":\"a\"}}",
        "{\"n\":1}",
        "{\"index\":{\"_index\":\"other\",\"_id\":\"b\"}}",
        "{\"guild_id\":1}",
        "{\"create\":{\"_id\":\"1\"}}",
        "{\"guild_id\":1}",
        "{\"delete\":{\"_id\":\"1\"}}",
        "{\"index\":{\"_id\":\"c\",\"routing\":\"1\"}}",
        "{\"n\":\"no number\"",
        "{\"index\":{\"_id\":\"ok\"}}",
        "{\"guild_id\":1,\"n\":3}",
        "{\"delete\":{\"_id\":\"ok\",\"routing\":1}}",
    ]
    .map(str::to_owned);
    let body = day.bulk("/messages/_bulk", &lines).await;
    let statuses: Vec<u64> = (body["items"].as_array().unwrap().iter())
        .map(|item| item.as_object().unwrap().values().next().unwrap()["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [400, 400, 404, 409, 400, 400, 201, 200], "{body}");
    let reason = body["items"][3]["create"]["error"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("[1]: version conflict"), "{reason}");
    for (path, body) in [
        ("/messages/_bulk?pipeline=p", "{\"delete\":{}}\n"),
        ("/messages/_bulk?nonsense=1", "{\"delete\":{}}\n"),
        ("/messages/_bulk", ""),
        ("/messages/_bulk", "{\"index\":{}}\n"),
        ("/messages/_bulk", "nonsense\n"),
        ("/messages/_update/1", "{}"),
    ] {
        let got = json(day.to, "POST", path, body).await;
        assert_eq!((got.status, &got.body["status"]), (400, &json!(400)), "{path} {body}");
    }
}

async fn external_versions(day: &Day) {
    let write = |version: i64| async move {
        let lines = [
            format!(
                "{{\"index\":{{\"_id\":\"1\",\"routing\":\"g\",\"version\":{version},\"version_type\":\"external\"}}}}"
            ),
            format!("{{\"n\":{version}}}"),
        ];
        day.bulk("/numbered/_bulk", &lines).await["items"][0]["index"].clone()
    };
    for (version, status) in [(5, 201), (4, 409), (5, 409), (9, 200), (7, 409)] {
        assert_eq!(write(version).await["status"], status, "{version}");
    }
    let got = json(day.to, "GET", "/numbered/_doc/1?routing=g", "").await;
    assert_eq!((&got.body["_version"], &got.body["_source"]["n"]), (&json!(9), &json!(9)));
    let without = json(day.to, "PUT", "/numbered/_doc/1?routing=g", "{}").await;
    assert!(without.status == 400 && without.text.contains("[version] is required"), "{}", without.text);
}

async fn searches(day: &Day) {
    let got =
        json(day.to, "POST", "/messages/_search?routing=5", "{\"query\":{\"match_all\":{}},\"size\":50}")
            .await;
    assert_eq!((got.status, &got.body["hits"]["total"]["value"]), (200, &json!(20)), "{}", got.text);
    for hit in got.body["hits"]["hits"].as_array().unwrap() {
        let id: u64 = hit["_id"].as_str().unwrap().parse().unwrap();
        assert!(id % 10 == 5 && hit["_index"] == "messages" && hit["_source"]["guild_id"] == 5, "{hit}");
    }
    assert_eq!(json(day.to, "GET", "/messages/_count?routing=5", "").await.body["count"], 20);
    assert_eq!(json(day.to, "POST", "/messages/_search", "{}").await.status, 400);
    let lookup = "{\"query\":{\"terms\":{\"a\":{\"index\":\"x\",\"id\":\"1\",\"path\":\"a\"}}}}";
    for (path, body) in [
        ("/messages/_search?routing=5", lookup),
        ("/messages/_search?routing=5&scroll=1m", "{}"),
        ("/messages/_search?routing=5", "{\"pit\":{\"id\":\"x\"}}"),
    ] {
        assert_eq!(json(day.to, "POST", path, body).await.status, 400, "{path} {body}");
    }
    let many = "{\"index\":\"messages\",\"routing\":\"5\"}\n{\"size\":1}\n{\"index\":[\"messages\"]}\n{}\n{\"index\":[\"messages\",\"x\"],\"routing\":\"5\"}\n{}\n{\"routing\":\"5\"}\n{\"knn\":{}}\n";
    let got = json(day.to, "POST", "/messages/_msearch", many).await;
    let statuses: Vec<&Value> =
        got.body["responses"].as_array().unwrap().iter().map(|one| &one["status"]).collect();
    assert_eq!(statuses, [200, 400, 400, 400], "{}", got.text);
}

async fn packed_and_shaped(day: &Day) {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(b"{\"index\":{\"_id\":\"gz\",\"routing\":\"z\"}}\n{\"n\":1}\n").unwrap();
    let headers = "content-type: application/vnd.elasticsearch+x-ndjson; compatible-with=9\r\ncontent-encoding: gzip\r\n";
    let path = "/messages/_bulk?filter_path=errors,items.*.status&pretty";
    let got = send(day.to, "POST", path, headers, &packer.finish().unwrap()).await;
    assert_eq!(got.body, json!({"errors": false, "items": [{"index": {"status": 201}}]}), "{}", got.text);
    assert!(got.text.contains("\n  \"errors\""));
}

async fn inside(day: &Day) {
    let admin = day.router.admin;
    let generations = json(admin, "GET", "/generation", "").await.body;
    assert_eq!(generations["collections"]["messages"], json!({"applied": 7, "drained": 7}));
    let metrics = json(admin, "GET", "/metrics", "").await.text;
    let line = "searchcell_router_operations_total{cluster=\"guilds-a\",outcome=\"done\"}";
    assert!(metrics.contains(line), "{metrics}");
    assert!(
        json(admin, "GET", "/debug/destinations", "").await.body["guilds-a"].as_array().unwrap().len() >= 3
    );
    assert_eq!(json(admin, "GET", "/debug/table", "").await.body["messages"]["generation"], 7);
    assert_eq!(json(admin, "GET", "/livez", "").await.status, 200);
    assert_eq!(day.router.app.core.budget().used(), 0);
}
