//! `GET /v1/gpus`: the GPUs of the pod that asks.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tidegate_gpu::{GpuReport, REPORT_PATH};

use crate::identity::{Denial, Reviewer};
use crate::kubelet::{Kubelet, Trouble};
use crate::metrics::Metrics;
use crate::sampling::Samples;

/// What answers are made of.
pub(crate) struct Answers {
    pub(crate) reviewer: Reviewer,
    pub(crate) kubelet: Arc<Kubelet>,
    pub(crate) samples: Arc<Samples>,
    pub(crate) metrics: Arc<Metrics>,
}

/// The paths that sidecars ask.
pub(crate) fn router(answers: Answers) -> Router {
    Router::new().route(REPORT_PATH, get(answer)).with_state(Arc::new(answers))
}

async fn answer(State(answers): State<Arc<Answers>>, headers: HeaderMap) -> Response {
    let response = match answers.report(&headers).await {
        Ok(report) => Json(report).into_response(),
        Err(refusal) => refusal.into_response(),
    };
    answers.metrics.answer(response.status().as_u16());
    response
}

impl Answers {
    /// The pod is known by its token alone, so that it can only ever ask about itself.
    async fn report(&self, headers: &HeaderMap) -> Result<GpuReport, Refusal> {
        let token = bearer(headers).ok_or_else(Refusal::no_token)?;
        let pod = self.reviewer.pod_of(token).await?;
        let devices = self.kubelet.devices_of(&pod).await?;
        Ok(self.samples.lock().report(&devices, Instant::now()))
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A status with one line that says why.
struct Refusal {
    status: StatusCode,
    line: String,
}

impl Refusal {
    fn no_token() -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            line: "a bearer token is needed: a projected token of this pod's service account".to_owned(),
        }
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        let status = match denial {
            Denial::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Denial::Forbidden(_) => StatusCode::FORBIDDEN,
            Denial::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self { status, line: denial.to_string() }
    }
}

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Self {
        let status = match trouble {
            Trouble::NotListed { .. } => StatusCode::NOT_FOUND,
            Trouble::Silent(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self { status, line: trouble.to_string() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        tracing::debug!(status = self.status.as_u16(), "refused: {}", self.line);
        let mut response = (self.status, format!("{}\n", self.line)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
