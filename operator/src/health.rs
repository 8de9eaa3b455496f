//! `/healthz`, `/readyz` and `/metrics`, in the clear.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;

use crate::certificates::Trust;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::world::World;

/// What decides about readiness.
#[derive(Clone)]
pub(crate) struct Health {
    pub(crate) world: Arc<World>,
    pub(crate) trust: watch::Receiver<Option<Trust>>,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: Shutdown,
}

impl Health {
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self)
    }

    /// What is missing; nothing when requests can be answered.
    fn missing(&self) -> Option<String> {
        if self.shutdown.is_leaving() {
            return Some("shutting down".to_owned());
        }
        if self.trust.borrow().is_none() {
            return Some("no certificate yet".to_owned());
        }
        let unsynced = self.world.unsynced();
        (!unsynced.is_empty()).then(|| format!("not listed yet: {}", unsynced.join(", ")))
    }
}

async fn readyz(State(health): State<Health>) -> Response {
    match health.missing() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")),
    }
    .into_response()
}

async fn metrics(State(health): State<Health>) -> Response {
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match health.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn get(health: &Health, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = health.clone().router().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }

    #[tokio::test]
    async fn not_ready_before_certificates_and_lists_and_when_leaving() {
        let (_trigger, shutdown) = crate::shutdown::channel();
        let (trust, receiver) = watch::channel(None);
        let world = Arc::new(World::default());
        let health = Health { world, trust: receiver, metrics: Metrics::default(), shutdown };
        let (status, text) = get(&health, "/readyz").await;
        assert_eq!((status, text.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "no certificate yet\n"));
        trust.send_replace(Some(Trust::default()));
        let (status, text) = get(&health, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.starts_with("not listed yet: ") && text.contains("EndpointSlice"), "{text}");
        assert_eq!(get(&health, "/healthz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn metrics_are_openmetrics_text() {
        let (_trigger, shutdown) = crate::shutdown::channel();
        let (_, trust) = watch::channel(None);
        let metrics = Metrics::default();
        let health = Health { world: Arc::default(), trust, metrics: metrics.clone(), shutdown };
        metrics.leader.set(1);
        let (_, text) = get(&health, "/metrics").await;
        assert!(text.contains("tidegate_leader 1\n") && text.ends_with("# EOF\n"), "{text}");
    }
}
