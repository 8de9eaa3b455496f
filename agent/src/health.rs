//! `/healthz`, `/readyz` and `/metrics`.

use std::fmt::Write;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};

use crate::certificate::Certificate;
use crate::kubelet::Kubelet;
use crate::metrics::Metrics;
use crate::sampling::Samples;

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What health is made of.
#[derive(Clone)]
pub(crate) struct Health {
    pub(crate) sampling: Arc<JoinHandle<()>>,
    pub(crate) certificate: Arc<Certificate>,
    pub(crate) samples: Arc<Samples>,
    pub(crate) kubelet: Arc<Kubelet>,
    pub(crate) metrics: Arc<Metrics>,
}

/// The paths that the kubelet, Prometheus and people ask.
pub(crate) fn router(health: Health) -> Router {
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

/// A thread that hangs in the driver is alive: no restart would free it, and its readings grow old for all to see.
async fn alive(State(health): State<Health>) -> Response {
    if health.sampling.is_finished() {
        return (StatusCode::INTERNAL_SERVER_ERROR, "the NVML thread has ended\n").into_response();
    }
    "ok\n".into_response()
}

/// Ready means that sidecars can be answered. A missing NVML does not change that: the answer then says so, which is
/// more than a refused connection says.
async fn ready(State(health): State<Health>) -> Response {
    if health.certificate.is_there() {
        return format!("ok\n{}", nvml(&health)).into_response();
    }
    let dir = health.certificate.dir().display();
    let line = format!("no serving certificate in {dir} yet: the operator writes it\n{}", nvml(&health));
    (StatusCode::SERVICE_UNAVAILABLE, line).into_response()
}

/// One line on NVML and one on each device in trouble.
fn nvml(health: &Health) -> String {
    let readings = health.samples.lock();
    let mut text = match readings.driver() {
        None => "nvml: has not answered yet\n".to_owned(),
        Some(Err(error)) => format!("nvml: {error}\n"),
        Some(Ok(version)) => format!("nvml: driver {version}, {} devices\n", readings.devices().count()),
    };
    for (uuid, _, outcome) in readings.devices() {
        if let Err(error) = outcome {
            // Writing to a string does not fail.
            let _ok = writeln!(text, "{uuid}: {error}");
        }
    }
    text
}

async fn metrics(State(health): State<Health>) -> Response {
    let pods = health.kubelet.pods_with_devices();
    let text = health.metrics.encode(&health.samples.lock(), pods, Instant::now());
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
