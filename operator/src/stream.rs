//! The policy stream: each sidecar shows the token of its pod, gets the documents of that pod and of no other, and
//! reports back. The wire is described in `tidegate_policy::stream`.

mod events;
mod identity;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use kube::Client;
use serde::Deserialize;
use tidegate_operator_core::status;
use tidegate_policy::report::Report;
use tidegate_policy::stream::{REPORT_PATH, WATCH_PATH};

use crate::events::Events;
use crate::forward::{self, Forwarded};
use crate::metrics::{Metrics, Outcome};
use crate::shutdown::Shutdown;
use crate::world::World;

use identity::{Identities, Refusal};

/// A report counts tiers and limits, at most 64 of the latter.
const MAX_REPORT: usize = 256 << 10;
/// A replica sends few at a time.
const MAX_FORWARDED: usize = 64 * MAX_REPORT;
/// A sidecar has one stream, and for a moment two when it connects anew.
const MAX_STREAMS_PER_POD: usize = 4;

/// What the stream's handlers need.
#[derive(Clone)]
pub(crate) struct Streams {
    world: Arc<World>,
    identities: Identities,
    events: Events,
    metrics: Metrics,
    shutdown: Shutdown,
    /// Namespace and `ServiceAccount` of the replicas, which send on what sidecars told them.
    replicas: (String, String),
}

impl Streams {
    pub(crate) fn new(
        client: Client,
        world: Arc<World>,
        events: Events,
        metrics: Metrics,
        shutdown: Shutdown,
        replicas: (String, String),
    ) -> Self {
        let identities = Identities::new(client, metrics.clone());
        Self { world, identities, events, metrics, shutdown, replicas }
    }

    pub(crate) fn router(self) -> Router {
        Router::new()
            .route(WATCH_PATH, get(on_watch))
            .route(REPORT_PATH, post(on_report))
            .layer(DefaultBodyLimit::max(MAX_REPORT))
            .route(forward::PATH, post(on_forwarded).layer(DefaultBodyLimit::max(MAX_FORWARDED)))
            .with_state(self)
    }
}

#[derive(Debug, Deserialize)]
struct WatchQuery {
    #[serde(default)]
    revision: Option<String>,
}

async fn on_watch(
    State(streams): State<Streams>,
    Query(query): Query<WatchQuery>,
    headers: HeaderMap,
) -> Response {
    let identity = match streams.identities.of(&headers).await {
        Ok(identity) => identity,
        Err(refusal) => return refuse(&refusal),
    };
    if streams.world.streams_of(&identity.pod) >= MAX_STREAMS_PER_POD {
        let message = format!("pod {} has {MAX_STREAMS_PER_POD} streams: close one\n", identity.pod);
        return (StatusCode::TOO_MANY_REQUESTS, message).into_response();
    }
    tracing::debug!(pod = %identity.pod, revision = query.revision, "stream opened");
    let subscription = streams.world.subscribe(&identity.pod, identity.uid);
    let events = events::lines(subscription, query.revision, streams.metrics.clone(), streams.shutdown);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(events)).into_response()
}

async fn on_report(State(streams): State<Streams>, headers: HeaderMap, body: Bytes) -> Response {
    let identity = match streams.identities.of(&headers).await {
        Ok(identity) => identity,
        Err(refusal) => return refuse(&refusal),
    };
    let report: Report = match serde_json::from_slice(&body) {
        Ok(report) => report,
        Err(error) => {
            streams.count("bad_request");
            return (StatusCode::BAD_REQUEST, format!("this is not a report: {error}\n")).into_response();
        }
    };
    let Some(received) = streams.world.report(&identity.pod, &identity.uid, report) else {
        streams.count("unknown_pod");
        let message = format!("pod {} is not known yet: report again later\n", identity.pod);
        return (StatusCode::SERVICE_UNAVAILABLE, message).into_response();
    };
    streams.count("ok");
    for notice in status::after_report(&identity.pod, received.before.as_ref(), &received.after) {
        streams.events.publish(notice);
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn on_forwarded(State(streams): State<Streams>, headers: HeaderMap, body: Bytes) -> Response {
    let identity = match streams.identities.of(&headers).await {
        Ok(identity) => identity,
        Err(refusal) => return refuse(&refusal),
    };
    if (&identity.pod.namespace, &identity.account) != (&streams.replicas.0, &streams.replicas.1) {
        let message = format!("pod {} is no replica of the operator: send {REPORT_PATH}\n", identity.pod);
        return (StatusCode::FORBIDDEN, message).into_response();
    }
    match serde_json::from_slice::<Vec<Forwarded>>(&body) {
        Ok(reports) => {
            for forwarded in reports {
                let (pod, Forwarded { uid, report, .. }) = (forwarded.pod(), forwarded);
                // A pod that this replica does not know yet, or no more, has nothing to say.
                let known = streams.world.report_forwarded(&pod, &uid, report).is_some();
                streams.count(if known { "forwarded" } else { "unknown_pod" });
            }
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => {
            streams.count("bad_request");
            (StatusCode::BAD_REQUEST, format!("these are no reports: {error}\n")).into_response()
        }
    }
}

impl Streams {
    fn count(&self, outcome: &'static str) {
        self.metrics.reports.get_or_create(&Outcome { outcome }).inc();
    }
}

fn refuse(refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
        Refusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("{refusal}\n")).into_response()
}
