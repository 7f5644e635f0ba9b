//! The port for operators of the router: metrics, probes, generations, what waits. Effects: listens.

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

use crate::front::App;
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
            "/generation" => json(json!({"collections": self.app.directory.generations()})),
            "/debug/destinations" => json(json!(self.app.core.views().await)),
            "/debug/table" => {
                let routes = self.app.directory.current();
                let tables: serde_json::Map<String, serde_json::Value> =
                    routes.iter().map(|(name, route)| (name.clone(), json!(route.table))).collect();
                json(tables.into())
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "here are /livez, /readyz, /metrics, /generation, /debug/destinations, /debug/table",
            ),
        };
        let response = Response::builder().status(status).header(header::CONTENT_TYPE, media);
        response.body(Full::new(body.into())).unwrap_or_default()
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
