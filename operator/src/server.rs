//! The HTTP server of the operator: metrics and probes. Effects: listens.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::report::Metrics;

/// What the endpoints tell.
#[derive(Clone)]
pub struct Shared {
    /// The numbers.
    pub metrics: Arc<Metrics>,
    /// Whether all caches have had their first list.
    pub synced: watch::Receiver<bool>,
}

/// Serves until `stop` is done.
pub async fn serve(
    listener: TcpListener,
    shared: Shared,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(shared)).with_graceful_shutdown(stop).await
}

/// The endpoints.
pub fn router(shared: Shared) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(shared)
}

/// Alive: the timers of the runtime run.
async fn livez() -> &'static str {
    tokio::time::sleep(Duration::from_millis(1)).await;
    "ok"
}

/// Ready: the caches are complete. Not leadership: a stand-by is as ready as the leader.
async fn readyz(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    if *shared.synced.borrow() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the caches are not complete yet")
    }
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    match shared.metrics.render() {
        Ok(text) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
            text,
        ),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], String::new()),
    }
}
