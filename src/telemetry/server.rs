//! The port for metrics and probes.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;

use crate::telemetry::access::{Access, Refusal};

/// What a process reports of itself.
pub trait Reported: Send + Sync + 'static {
    /// Whether every cache was filled once.
    fn is_ready(&self) -> bool;

    /// All metrics in the OpenMetrics text format.
    fn encode(&self) -> String;
}

/// The state of the handlers.
#[derive(Clone)]
pub(super) struct Served {
    telemetry: Arc<dyn Reported>,
    access: Option<Arc<Access>>,
}

/// Serves `/healthz`, `/readyz` and `/metrics` until `shutdown`; the metrics to everybody, or as `access`
/// permits.
///
/// Healthy means that the process responds; ready means that every cache was filled. A standby is ready,
/// since it could take over.
pub async fn serve(
    listener: tokio::net::TcpListener,
    telemetry: Arc<dyn Reported>,
    access: Option<Access>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Served {
            telemetry,
            access: access.map(Arc::new),
        });
    axum::serve(listener, app)
        .with_graceful_shutdown(shutdown)
        .await
}

pub(super) async fn readyz(State(served): State<Served>) -> (StatusCode, &'static str) {
    if served.telemetry.is_ready() {
        (StatusCode::OK, "ok")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the caches are not filled yet: are the CRDs installed?",
        )
    }
}

pub(super) async fn metrics(
    State(served): State<Served>,
    headers: HeaderMap,
) -> Result<([(&'static str, &'static str); 1], String), Refusal> {
    if let Some(access) = &served.access {
        access.check(&headers).await?;
    }
    Ok((
        [(
            "content-type",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        served.telemetry.encode(),
    ))
}
