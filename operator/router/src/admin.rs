//! The port for operators of the router: metrics, probes, generations, what waits. Effects: listens.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::front::App;
use crate::hot::sketch::Rate;
use crate::meters::signed;

/// Connections at once.
const CONNECTIONS: usize = 32;

/// What the port tells.
#[derive(Clone)]
pub struct Admin {
    /// Everything.
    pub app: Arc<App>,
    /// Collections that are configured.
    pub collections: Arc<Vec<String>>,
    /// Whether the router is stopping: then it is not ready.
    pub stopping: watch::Receiver<bool>,
}

impl Admin {
    /// Serves for as long as it runs.
    pub async fn serve(self, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            let admin = self.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let admin = admin.clone();
                    async move { Ok::<_, std::convert::Infallible>(admin.answer(request.uri().path()).await) }
                });
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
                drop(place);
            });
        }
    }

    /// What is at a path.
    pub async fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let json = |value: serde_json::Value| (StatusCode::OK, "application/json", value.to_string());
        let text = |status, text: &str| (status, "text/plain; charset=utf-8", text.to_owned());
        let (status, media, body) = match path {
            // Alive whatever becomes of the clusters: a restart helps none of them.
            "/livez" => text(StatusCode::OK, "ok"),
            "/readyz" => match self.not_ready() {
                None => text(StatusCode::OK, "ok"),
                Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, &why),
            },
            "/metrics" => {
                let (meters, budget) = (&self.app.meters, self.app.core.budget());
                meters.budget_used.set(signed(budget.used()));
                meters.budget_limit.set(signed(budget.limit()));
                let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                (StatusCode::OK, media, meters.text())
            }
            "/generation" => json(self.generation()),
            "/debug/hot" => json(self.hot()),
            "/debug/destinations" => json(json!(self.app.core.views().await)),
            "/debug/table" => {
                let routes = self.app.directory.current();
                let tables: serde_json::Map<String, serde_json::Value> =
                    routes.iter().map(|(name, route)| (name.clone(), json!(route.table))).collect();
                json(tables.into())
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "here are /livez, /readyz, /metrics, /generation, /debug/destinations, /debug/hot, \
                 /debug/table",
            ),
        };
        let response = Response::builder().status(status).header(header::CONTENT_TYPE, media);
        response.body(Full::new(body.into())).unwrap_or_default()
    }

    /// Whoever reads this is taken for the operator: it knows then what the router does.
    fn generation(&self) -> serde_json::Value {
        let heard = self.app.fence.read(Instant::now());
        if heard.fenced {
            self.app.directory.look_again();
        }
        let seconds = heard.since.as_secs();
        let collections = self.app.directory.generations();
        json!({"collections": collections, "fenced": heard.fenced, "secondsSinceRead": seconds})
    }

    fn hot(&self) -> serde_json::Value {
        let (report, marks, rules) = (self.app.hot.report(), self.app.hot.marks(), self.app.hot.rules());
        let routes = self.app.directory.current();
        let now = Instant::now();
        let rounded = |number: f64| (number * 10.0).round() / 10.0;
        let tenant = |rate: &Rate| {
            let route = routes.get(&*rate.collection);
            let says = route.and_then(|route| route.table.overrides.get(&rate.tenant));
            let mark = marks.get(rate.key);
            let limit = says.and_then(|says| says.documents_per_second);
            let limit = limit.or_else(|| mark?.limit.map(NonZeroU32::get));
            let lane = says.and_then(|says| says.lane.as_deref());
            let to = route.and_then(|route| route.table.lookup(&rate.tenant)).map(|to| to.writes());
            let place = |position: &u32| {
                let place = route?.place(*position)?;
                Some(json!({"cluster": *place.cluster, "index": *place.index}))
            };
            json!({
                "collection": *rate.collection,
                "tenant": rate.tenant,
                "documentsPerSecond": rounded(rate.documents),
                "bytesPerSecond": rounded(rate.bytes),
                "share": if report.documents > 0.0 { rate.documents / report.documents } else { 0.0 },
                "destinations": to.unwrap_or_default().iter().filter_map(place).collect::<Vec<_>>(),
                "hot": mark.is_some(),
                "secondsSince": mark.map(|mark| now.saturating_duration_since(mark.since).as_secs()),
                "action": {"lane": mark.is_some() || lane.is_some(), "laneName": lane, "documentsPerSecond": limit},
            })
        };
        json!({
            "documentsPerSecond": rounded(report.documents),
            "bytesPerSecond": rounded(report.bytes),
            "thresholds": {
                "documentsPerSecond": rules.documents_per_second,
                "bytesPerSecond": rules.bytes_per_second,
                "limit": rules.limit,
                "coolDownSeconds": rules.cool_down.as_secs(),
            },
            "tenants": report.tenants.iter().map(tenant).collect::<Vec<_>>(),
        })
    }

    fn not_ready(&self) -> Option<String> {
        if *self.stopping.borrow() {
            return Some("the router is stopping".to_owned());
        }
        let routes = self.app.directory.current();
        match self.collections.iter().find(|collection| !routes.contains_key(*collection)) {
            Some(missing) => Some(format!("there is no table for {missing}")),
            None => self.app.meters.queues.not_ready(),
        }
    }
}
