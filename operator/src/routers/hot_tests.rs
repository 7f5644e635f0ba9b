use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use kube::client::Body;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::*;
use crate::kube_io::cache::Feed;
use crate::kube_io::client::KubeIo;
use crate::kube_io::fanout::Caches;
use crate::leadership::Leadership;
use crate::report::{Metrics, Report};
use crate::routers::Census;

/// Longest time that anything is waited for, on a machine that has no time for it.
const LONG: Duration = Duration::from_secs(300);

/// An API server that takes events, and what it was sent.
fn kubernetes() -> (kube::Client, Arc<Mutex<Vec<Value>>>) {
    let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
    let log = Arc::clone(&seen);
    let service = tower::service_fn(move |request: Request<Body>| {
        let log = Arc::clone(&log);
        async move {
            let (parts, body) = request.into_parts();
            assert_eq!(
                (parts.method, parts.uri.path()),
                (Method::POST, "/apis/events.k8s.io/v1/namespaces/search/events")
            );
            let bytes = body.collect_bytes().await.unwrap();
            log.lock().unwrap().push(serde_json::from_slice(&bytes).unwrap());
            let response = Response::builder().status(201).body(Body::from(bytes.to_vec()));
            Ok::<_, std::convert::Infallible>(response.unwrap())
        }
    });
    (kube::Client::new(service, "default"), seen)
}

fn routers(client: &kube::Client) -> Routers {
    let (caches, metrics) = (Arc::new(Caches::default()), Arc::new(Metrics::default()));
    let kube = KubeIo::new(client.clone(), Arc::clone(&caches), "system".to_owned(), Arc::new(|_, _| {}));
    Routers {
        client: client.clone(),
        kube: Arc::new(kube),
        caches,
        namespaces: Vec::new(),
        injects: false,
        leadership: Leadership::always(),
        report: Arc::new(Report::start(Arc::clone(&metrics), client.clone(), "test".to_owned())),
        metrics,
        on_request: Arc::new(|_, _| {}),
    }
}

fn placement(name: &str, collection: &str) -> IndexPlacement {
    let spec = json!({"cell": "guilds", "collection": collection, "tenant": {"field": "guild"}, "pool": {"indices": 1}});
    serde_json::from_value(json!({"apiVersion": "searchcell.dev/v1alpha1", "kind": "IndexPlacement",
        "metadata": {"name": name, "namespace": "search", "uid": format!("uid-{name}")}, "spec": spec}))
    .unwrap()
}

/// A router that answers for as long as the test runs: at `/debug/hot` with this, or with an error. Each has an address of
/// its own, as the port is that of all.
fn router(number: u8, hot: Option<Value>) -> RouterPod {
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = format!("127.{}.{low}.{number}", high.max(1));
    let listener = TcpListener::bind((address.as_str(), 8081)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            let body = match (head.starts_with(b"GET /generation HTTP/1.1\r\n"), &hot) {
                (true, _) => json!({"collections": {"messages": {"applied": 1, "drained": 1}}}),
                (false, Some(hot)) if head.starts_with(b"GET /debug/hot HTTP/1.1\r\n") => hot.clone(),
                (false, _) => json!("an answer that is not as expected"),
            };
            let body = body.to_string();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    RouterPod {
        namespace: "search".to_owned(),
        name: format!("router-{number}"),
        address: Some(address),
        ..RouterPod::default()
    }
}

fn says(documents: f64, hot: bool) -> Value {
    json!({"documentsPerSecond": documents, "tenants": [{"collection": "messages", "tenant": "813",
        "documentsPerSecond": documents, "bytesPerSecond": 1_048_576.0, "share": 1.0, "hot": hot,
        "destinations": [{"cluster": "guilds-a", "index": "messages.p001.g1"}]}]})
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !is() {
        assert!(started.elapsed() < LONG, "this does not come true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_hot_tenant_is_told_of_once_on_the_pool_of_its_collection() {
    let (client, seen) = kubernetes();
    let routers = routers(&client);
    let mut feed = Feed::new(Arc::clone(&routers.caches.placements), None);
    for (name, collection) in [("audit", "audit"), ("guild-messages", "messages")] {
        feed.take(Event::Apply(placement(name, collection)));
    }
    let pods = [router(1, Some(says(6_000.0, true))), router(2, Some(says(2_000.0, false))), router(3, None)];
    let mut told = Told::default();
    for minute in 0..3 {
        let (census, readings) = routers.read(&pods).await;
        assert_eq!(census, Census { current: 3, ..Census::default() }, "whatever becomes of the hot tenants");
        assert_eq!(readings.len(), 2);
        routers.tell_hot(&readings, Duration::from_secs(60 * minute), &mut told);
    }
    // Events are written in their order: when this one is there, those before it are.
    let last = placement("last", "other").object_ref(&());
    routers.report.hot_tenant(&last, false, "the last".to_owned());
    until("the events are written", || seen.lock().unwrap().iter().any(|event| event["note"] == "the last"))
        .await;
    let events = seen.lock().unwrap().clone();
    assert_eq!(events.len(), 2, "{events:#?}");
    let event = &events[0];
    assert_eq!((&event["reason"], &event["type"]), (&json!("HotTenant"), &json!("Warning")));
    let regarding = &event["regarding"];
    assert_eq!(
        (&regarding["kind"], &regarding["name"]),
        (&json!("IndexPlacement"), &json!("guild-messages"))
    );
    assert_eq!(regarding["uid"], "uid-guild-messages");
    let note = event["note"].as_str().unwrap();
    assert!(
        note.starts_with(
            "tenant \"813\" of collection \"messages\" writes 8000 documents/s and 2.0 MiB/s through 2 routers, and is \
             hot in 1 of them. "
        ) && note.contains("spec.dedicated.tenants[].id"),
        "{note}"
    );
    assert!(routers.metrics.render().unwrap().contains("searchcell_hot_tenants 1"));
}
