//! Plans from end to end but for the network: an API server that only answers, a stage, the passes of the operator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use http::{Method, Request, Response};
use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use kube::runtime::watcher::Event;
use searchcell_core::names::{ClusterKey, LABEL_CLUSTER, LABEL_ROLE};
use searchcell_core::snapshot::{ElasticFacts, ElasticNode, NodeDisk, Reading, label};
use serde_json::json;
use tower::Layer as _;

use super::*;
use crate::kube_io::cache::Feed;
use crate::kube_io::fanout::Caches;

const NAMESPACE: &str = "search";

/// An API server with these objects, by path; what is not a reading is counted.
fn api_server(objects: BTreeMap<String, Value>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let writes: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&writes);
    let service = tower::service_fn(move |request: Request<Body>| {
        let path = request.uri().path().to_owned();
        if request.method() != Method::GET {
            log.lock().unwrap().push(format!("{} {path}", request.method()));
        }
        let missing = json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound",
            "message": "not found"});
        let (code, body) = objects.get(&path).map_or((404, missing), |object| (200, object.clone()));
        let response = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
        async move { Ok::<_, tower::BoxError>(response.unwrap()) }
    });
    (Client::new(guard::ReadOnly.layer(service), "default"), writes)
}

/// A world in which plans are made one after another.
struct World {
    client: Client,
    writes: Arc<Mutex<Vec<String>>>,
    caches: Arc<Caches>,
    elastic: BTreeMap<ClusterKey, Reading<ElasticFacts>>,
}

impl World {
    fn new() -> Self {
        Self::with(BTreeMap::new())
    }

    fn with(objects: BTreeMap<String, Value>) -> Self {
        let (client, writes) = api_server(objects);
        Self { client, writes, caches: Arc::default(), elastic: BTreeMap::new() }
    }

    /// What a plan says of objects that the API server takes as they are. What it rehearses stays in the caches.
    async fn plan(&self, objects: &[&Value]) -> Script {
        let io = || {
            KubeIo::new(self.client.clone(), Arc::clone(&self.caches), "system".into(), Arc::new(|_, _| {}))
        };
        let namespaces = Namespaces { asked: None, default: NAMESPACE.into() };
        let text: String = objects.iter().map(|object| format!("---\n{object}\n")).collect();
        let wanted = file::objects("f", &text, &namespaces).unwrap();
        let cells = cells(&wanted, &io());
        let submitted: Vec<_> = wanted.iter().map(|wanted| (wanted, self.accepted(&io(), wanted))).collect();
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        let stage = StageKube::new(self.client.clone(), io(), Arc::clone(&self.caches), now);
        let elastic = StageElastic::new(self.elastic.clone());
        let rehearsal = Rehearsal::new(stage, elastic, Lifetimes::default(), now);
        let script = perform(&rehearsal, &submitted, &cells, Vec::new()).await.unwrap();
        assert!(self.writes.lock().unwrap().is_empty(), "{:?}", self.writes);
        script
    }

    fn accepted(&self, io: &KubeIo, wanted: &Wanted) -> Submitted {
        let live = match wanted.asked {
            Asked::Cell => io.search_cell(NAMESPACE, &wanted.name).map(|cell| json!(cell)),
            Asked::Placement => (io.placements(NAMESPACE).into_iter())
                .find(|placement| placement.metadata.name.as_deref() == Some(&wanted.name))
                .map(|placement| json!(placement)),
        };
        let mut then = Value::Object(wanted.object.clone());
        then["metadata"] = match &live {
            Some(live) => live["metadata"].clone(),
            None => {
                json!({"name": wanted.name, "namespace": NAMESPACE, "uid": format!("uid-{}", wanted.name),
                "creationTimestamp": "2026-11-21T12:00:00Z", "generation": 1})
            }
        };
        if let Some(live) = &live {
            then["status"] = live["status"].clone();
        }
        // Defaults.
        let then = match wanted.asked {
            Asked::Cell => json!(read::<SearchCell>(&then).unwrap()),
            Asked::Placement => json!(read::<IndexPlacement>(&then).unwrap()),
        };
        Submitted::Accepted { live, then }
    }

    /// Nodes start, and every cluster forms.
    fn start(&mut self, cell: &str) {
        let io =
            KubeIo::new(self.client.clone(), Arc::clone(&self.caches), "system".into(), Arc::new(|_, _| {}));
        let objects = io.cell_objects(NAMESPACE, cell);
        for set in &objects.stateful_sets {
            let cluster = label(&set.metadata, LABEL_CLUSTER).unwrap();
            let role = label(&set.metadata, LABEL_ROLE).unwrap();
            for ordinal in 0..set.spec.as_ref().unwrap().replicas.unwrap() {
                let name = format!("{}-{ordinal}", set.metadata.name.as_ref().unwrap());
                let pod: Pod = serde_json::from_value(json!({
                    "metadata": {"name": name, "namespace": NAMESPACE, "uid": format!("pod-{name}"),
                        "labels": set.metadata.labels},
                    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
                }))
                .unwrap();
                Feed::new(Arc::clone(&self.caches.pods), None).take(Event::Apply(pod));
                let key = ClusterKey::new(NAMESPACE, cell, cluster);
                let known = self.elastic.entry(key).or_insert_with(|| {
                    Reading::Known(ElasticFacts {
                        uuid: Some(format!("uuid-{cluster}")),
                        counts: Some(Arc::default()),
                        disks: Some(BTreeMap::new()),
                        ..ElasticFacts::default()
                    })
                });
                let Reading::Known(facts) = known else { panic!("it is known") };
                let zone = label(&set.metadata, searchcell_core::names::LABEL_ZONE).map(str::to_owned);
                let roles = vec![role.to_owned()];
                let node = ElasticNode { id: name.clone(), version: "9.5.3".into(), roles, zone };
                facts.nodes.insert(name.clone(), node);
                let disk = NodeDisk { total: 1 << 40, available: 1 << 40, shards: 0 };
                facts.disks.as_mut().unwrap().insert(name.clone(), disk);
                if role == "master" {
                    facts.master = Some(name);
                }
            }
        }
    }
}

fn cell(security: &str) -> Value {
    json!({
        "apiVersion": "searchcell.dev/v1alpha1", "kind": "SearchCell", "metadata": {"name": "guilds"},
        "spec": {
            "version": "9.5.3",
            "zones": [{"name": "a"}, {"name": "b"}, {"name": "c"}],
            "clusters": [{"name": "a"}],
            "nodes": {
                "master": {"count": 1, "storage": {"size": "1Gi"}},
                "data": {"perZone": 1, "storage": {"size": "1Gi"}},
            },
            "security": {"mode": security},
        },
    })
}

fn pool(indices: i32) -> Value {
    json!({
        "apiVersion": "searchcell.dev/v1alpha1", "kind": "IndexPlacement", "metadata": {"name": "messages"},
        "spec": {"cell": "guilds", "collection": "messages", "tenant": {"field": "guild_id"}, "replicas": 1,
            "pool": {"indices": indices}},
    })
}

fn lines(script: &Script, verb: Verb) -> Vec<String> {
    let all = script.groups.iter().flat_map(|(_, group)| group.lines());
    all.filter(|line| line.verb == verb).map(|line| format!("{}|{}", line.subject, line.more)).collect()
}

fn has(script: &Script, verb: Verb, beginning: &str) -> bool {
    lines(script, verb).iter().any(|line| line.starts_with(beginning))
}

#[tokio::test]
async fn a_new_cell_is_made_to_the_last_object_and_the_rest_comes_later() {
    let world = World::new();
    let script = world.plan(&[&cell("Managed"), &pool(2)]).await;
    for subject in [
        "SearchCell guilds",
        "Secret guilds-http-ca",
        "Secret guilds-standby",
        "ConfigMap guilds-a-bootstrap",
        "NetworkPolicy guilds-a",
        "StatefulSet guilds-a-master-a|1 node, volumes of 1Gi",
        "StatefulSet guilds-a-data-c",
        "IndexPlacement messages",
    ] {
        assert!(has(&script, Verb::Create, subject), "{subject}\n{}", script.text());
    }
    assert_eq!(lines(&script, Verb::Change), [""; 0], "what is made is not said to change");
    assert!(has(&script, Verb::Later, "settings of cluster guilds-a|when its nodes have started"));
    assert!(has(&script, Verb::Later, "create index messages.p001.g1|1 primary shard"));
    assert!(has(&script, Verb::Later, "|CellNotReady: "), "{}", script.text());
    let text = script.text();
    assert!(text.contains("keys: hash, hash-of, password, username"), "{text}");
    let parsed = crate::kube_io::access::CachedAccess(Arc::clone(&world.caches));
    let access =
        crate::security::access::Accesses::access(&parsed, &ClusterKey::new(NAMESPACE, "guilds", "a"));
    let crate::security::access::Access::Secured { credential: Some(credential), .. } = access else {
        panic!("{access:?}")
    };
    assert!(
        !text.contains(credential.password.reveal()) && !text.contains("BEGIN"),
        "nothing secret is told"
    );
}

#[tokio::test]
async fn what_came_true_is_nothing_to_do_and_changes_are_told_with_what_differs() {
    let mut world = World::new();
    let object = cell("Disabled");
    world.plan(&[&object]).await;
    world.start("guilds");
    let formed = world.plan(&[&object]).await;
    assert!(has(&formed, Verb::Change, "settings of cluster guilds-a"), "{}", formed.text());
    let Some(Reading::Known(facts)) = world.elastic.get_mut(&ClusterKey::new(NAMESPACE, "guilds", "a"))
    else {
        panic!("it is known")
    };
    let valid = searchcell_core::validate::validate_cell(&{
        let mut cell: SearchCell = serde_json::from_value(object.clone()).unwrap();
        (cell.metadata.namespace, cell.metadata.uid) = (Some(NAMESPACE.into()), Some("uid-guilds".into()));
        cell
    });
    facts.settings = searchcell_core::plan::wanted_settings(&valid.unwrap());
    let script = world.plan(&[&object]).await;
    assert!(script.is_empty(), "{}", script.text());

    let script = world.plan(&[&pool(2)]).await;
    let index = "index messages.p000.g1 on cluster guilds-a|1 primary shard, 1 replica";
    assert!(has(&script, Verb::Create, index), "{}", script.text());
    assert!(has(&script, Verb::Create, "routing table of messages"), "{}", script.text());
    assert!(script.text().contains("+ indices[\"messages.p001.g1\"]: guilds-a\n"), "{}", script.text());

    let mut more = object.clone();
    more["spec"]["nodes"]["data"]["perZone"] = json!(2);
    let script = world.plan(&[&more]).await;
    let text = script.text();
    assert!(text.contains("  change SearchCell guilds\n      - spec.nodes.data.perZone: 1\n"), "{text}");
    assert!(
        text.contains(
            "  change StatefulSet guilds-a-data-b\n      - spec.replicas: 1\n      + spec.replicas: 2\n"
        ),
        "{text}"
    );
}

#[tokio::test]
async fn what_is_held_and_what_is_refused_is_told() {
    let world = World::new();
    let script = world.plan(&[&pool(2)]).await;
    assert!(has(&script, Verb::Refuse, "|spec.cell names no SearchCell"), "{}", script.text());

    let mut suspended = cell("Disabled");
    suspended["spec"]["suspend"] = json!(true);
    let script = world.plan(&[&suspended]).await;
    assert!(has(&script, Verb::Hold, "|Suspended: "), "{}", script.text());

    let mut reserved = cell("Disabled");
    reserved["spec"]["settings"] = json!({"cluster.name": "mine"});
    let script = World::new().plan(&[&reserved]).await;
    assert!(has(&script, Verb::Refuse, "|spec.settings[\"cluster.name\"]"), "{}", script.text());
    assert!(!script.is_empty());
}

#[tokio::test]
async fn an_object_of_somebody_else_is_in_the_way() {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/services/guilds-a");
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "guilds-a", "namespace": NAMESPACE}});
    let world = World::with(BTreeMap::from([(path, service)]));
    let script = world.plan(&[&cell("Disabled")]).await;
    assert!(has(&script, Verb::Hold, "|NameConflict"), "{}", script.text());
    assert!(!has(&script, Verb::Create, "Service guilds-a|"), "{}", script.text());
}

#[tokio::test]
async fn what_the_api_server_refuses_is_told_and_what_is_there_stays() {
    let world = World::new();
    let wanted = file::objects(
        "f",
        &cell("Disabled").to_string(),
        &Namespaces { asked: None, default: NAMESPACE.into() },
    );
    let wanted = wanted.unwrap();
    let io = || KubeIo::new(world.client.clone(), Arc::clone(&world.caches), "s".into(), Arc::new(|_, _| {}));
    let now = "2026-11-21T12:00:00Z".parse().unwrap();
    let stage = StageKube::new(world.client.clone(), io(), Arc::clone(&world.caches), now);
    let rehearsal = Rehearsal::new(stage, StageElastic::default(), Lifetimes::default(), now);
    let refused = Submitted::Refused("spec.version: Invalid value".into());
    let submitted: Vec<_> = wanted.iter().map(|wanted| (wanted, refused.clone())).collect();
    let script = perform(&rehearsal, &submitted, &BTreeSet::new(), Vec::new()).await.unwrap();
    assert_eq!(lines(&script, Verb::Refuse), ["|spec.version: Invalid value"]);
    assert_eq!(script.text().lines().last(), Some("Plan: 1 refused."));
}
