//! The admission webhooks: `POST /mutate` injects, `POST /validate` judges policies.
//!
//! Both fail open: whatever goes wrong here leaves a pod as its owner wrote it, or lets a policy through that the
//! index and the sidecar judge again. Only a body that is no `AdmissionReview` is answered with 400.

mod fresh;
mod mutate;
mod review;
mod validate;
mod version;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use axum::routing::post;
use kube::Client;
use tidegate_operator_core::inject::SidecarSettings;
use tokio::sync::watch;

use crate::certificates::Trust;
use crate::metrics::{Metrics, Review};
use crate::world::World;

use fresh::Fresh;
use review::{Reviewed, answer};
use version::ApiServer;

/// An API server takes objects of up to 1.5 MiB; a review can hold two and their managed fields.
const MAX_BODY: usize = 8 << 20;

/// What both webhooks need.
#[derive(Clone)]
pub(crate) struct Webhook {
    world: Arc<World>,
    settings: Arc<SidecarSettings>,
    trust: watch::Receiver<Option<Trust>>,
    fresh: Fresh,
    api_server: ApiServer,
    metrics: Metrics,
}

impl Webhook {
    pub(crate) fn new(
        client: Client,
        world: Arc<World>,
        settings: SidecarSettings,
        trust: watch::Receiver<Option<Trust>>,
        metrics: Metrics,
    ) -> Self {
        let fresh = Fresh::new(client.clone(), Arc::clone(&world));
        Self {
            world,
            settings: Arc::new(settings),
            trust,
            fresh,
            api_server: ApiServer::new(client),
            metrics,
        }
    }

    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/mutate", post(on_mutate))
            .route("/validate", post(on_validate))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(self)
    }

    fn count(&self, webhook: &'static str, reviewed: &Reviewed) {
        let outcome = match reviewed {
            Ok(response) if response.allowed => "allowed",
            Ok(_) => "denied",
            Err(_) => "bad_request",
        };
        self.metrics.reviews.get_or_create(&Review { webhook, outcome }).inc();
    }
}

async fn on_mutate(State(webhook): State<Webhook>, body: Bytes) -> Response {
    let reviewed = match review::parse(&body) {
        Ok(request) => Ok(webhook.mutate(&request).await),
        Err(error) => Err(error),
    };
    webhook.count("mutate", &reviewed);
    answer(reviewed)
}

async fn on_validate(State(webhook): State<Webhook>, body: Bytes) -> Response {
    let reviewed = review::parse(&body).map(|request| validate::validate(&request));
    webhook.count("validate", &reviewed);
    answer(reviewed)
}
