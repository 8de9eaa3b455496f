//! The control port, by which a test or a demo tells the engine what to do wrong.

use std::time::Instant;

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{
    api::Api,
    faults::{Fail, Faults, For, GpuMemory, Slow},
};

/// The routes of the control port.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/fail", post(fail))
        .route("/hang", post(hang))
        .route("/slow", post(slow))
        .route("/oom", post(out_of_memory))
        .route("/gpu-memory", post(gpu_memory))
        .route("/reset", post(reset))
        .route("/state", get(state))
        .with_state(api)
}

async fn fail(State(api): State<Api>, body: Bytes) -> Response {
    with(&body, |fail: Fail| {
        if !(0.0..=1.0).contains(&fail.ratio) || !(400..=599).contains(&fail.status) {
            return Err("write a ratio of 0 to 1 and a status of 400 to 599");
        }
        api.driver.with_faults(|faults| faults.fail(Instant::now(), fail));
        Ok(())
    })
}

async fn hang(State(api): State<Api>, body: Bytes) -> Response {
    with(&body, |duration: For| {
        api.driver.with_faults(|faults| faults.hang(Instant::now(), &duration));
        Ok(())
    })
}

async fn slow(State(api): State<Api>, body: Bytes) -> Response {
    with(&body, |slow: Slow| {
        if !(slow.factor > 0.0 && slow.factor <= 1e4) {
            return Err("write a factor above 0 and at most 10000");
        }
        api.driver.with_faults(|faults| faults.slow(Instant::now(), &slow));
        Ok(())
    })
}

async fn out_of_memory(State(api): State<Api>, body: Bytes) -> Response {
    with(&body, |duration: For| {
        api.driver.with_faults(|faults| faults.run_out_of_memory(Instant::now(), &duration));
        api.driver.fail_all();
        Ok(())
    })
}

async fn gpu_memory(State(api): State<Api>, body: Bytes) -> Response {
    with(&body, |memory: GpuMemory| {
        if memory.fraction.is_some_and(|fraction| !(0.0..=1.0).contains(&fraction)) {
            return Err("write a fraction of 0 to 1");
        }
        api.driver.with_faults(|faults| faults.set_gpu_memory(memory));
        Ok(())
    })
}

async fn reset(State(api): State<Api>) -> StatusCode {
    api.driver.with_faults(|faults| *faults = Faults::default());
    StatusCode::NO_CONTENT
}

async fn state(State(api): State<Api>) -> Response {
    let state = api.driver.with_model(|model| {
        json!({"running": model.running(), "waiting": model.waiting(), "kvUsage": model.kv_usage(),
            "preemptions": model.preemptions()})
    });
    Json(state).into_response()
}

/// Reads the body (an empty one is `{}`) and applies it; a mistake is answered with what to write.
fn with<T: DeserializeOwned>(body: &[u8], apply: impl FnOnce(T) -> Result<(), &'static str>) -> Response {
    let body = if body.is_empty() { b"{}" } else { body };
    let applied = serde_json::from_slice(body)
        .map_err(|error| error.to_string())
        .and_then(|order| apply(order).map_err(ToOwned::to_owned));
    match applied {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(message) => (StatusCode::BAD_REQUEST, message + "\n").into_response(),
    }
}
