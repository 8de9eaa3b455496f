//! The engine's own port: OpenAI's endpoints, `/health`, `/metrics`, and the fallback that a breaker may use.

use std::{convert::Infallible, sync::Arc, time::Instant};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use serde_json::{Value, json};

use super::{
    driver::{Driver, Event, Generation},
    grpc,
    openai::{Answer, Endpoint, Request, error},
};

/// Largest body that is read.
const MAX_BODY: usize = 64 << 20;

/// What every handler needs.
#[derive(Debug, Clone)]
pub struct Api {
    /// The engine.
    pub driver: Arc<Driver>,
    /// The name under which it serves.
    pub model: Arc<str>,
}

/// The routes of the engine's port.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(|api, body| generate(api, Endpoint::Chat, body)))
        .route("/v1/completions", post(|api, body| generate(api, Endpoint::Text, body)))
        .route("/v1/models", get(models))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/fallback/{*path}", any(fallback))
        .route(grpc::SERVER_LIVE, post(grpc::server_live))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}

async fn generate(State(api): State<Api>, endpoint: Endpoint, body: Bytes) -> Response {
    api.driver.until_awake().await;
    let now = Instant::now();
    let (failure, exhausted) =
        api.driver.with_faults(|faults| (faults.next_failure(now), faults.is_out_of_memory(now)));
    if exhausted {
        return out_of_memory();
    }
    if let Some(status) = failure {
        return failed(status, "the engine was told to fail", "InternalServerError");
    }
    let request: Request = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return failed(400, &format!("body: {error}"), "BadRequestError"),
    };
    let prompt_tokens = request.prompt_tokens();
    match api.driver.submit(prompt_tokens, request.output_tokens()) {
        Err(long) => {
            let message = format!(
                "This model's maximum context length is {} tokens. However, you requested {} tokens.",
                long.limit, long.requested
            );
            failed(400, &message, "BadRequestError")
        }
        Ok(generation) => {
            let answer = Answer::new(endpoint, generation.id(), api.model.to_string(), prompt_tokens);
            if request.stream {
                stream(generation, answer, request.include_usage())
            } else {
                complete(generation, answer).await
            }
        }
    }
}

async fn complete(mut generation: Generation, answer: Answer) -> Response {
    let mut generated = 0;
    loop {
        match generation.next().await {
            Some(Event::Token { last }) => {
                generated += 1;
                if last {
                    return Json(answer.complete(generated)).into_response();
                }
            }
            Some(Event::OutOfMemory) | None => return out_of_memory(),
        }
    }
}

/// The head goes out at once, as vLLM's does; the first event follows with the first token.
fn stream(generation: Generation, answer: Answer, include_usage: bool) -> Response {
    let events = futures::stream::unfold(Some((generation, 0_u32)), move |state| {
        let answer = answer.clone();
        async move {
            let (mut generation, generated) = state?;
            let (text, last) = match generation.next().await? {
                Event::Token { last: false } => (sse(&answer.token(generated == 0, false)), false),
                Event::Token { last: true } => (end_of_stream(&answer, generated, include_usage), true),
                Event::OutOfMemory => (sse(&error("CUDA out of memory", "InternalServerError", 500)), true),
            };
            let rest = (!last).then_some((generation, generated + 1));
            Some((Ok::<_, Infallible>(Bytes::from(text)), rest))
        }
    });
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    ([content_type], Body::from_stream(events)).into_response()
}

fn end_of_stream(answer: &Answer, generated: u32, include_usage: bool) -> String {
    let mut text = sse(&answer.token(generated == 0, true));
    if include_usage {
        text += &sse(&answer.usage_chunk(generated + 1));
    }
    text + "data: [DONE]\n\n"
}

fn sse(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn failed(status: u16, message: &str, kind: &str) -> Response {
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (code, Json(error(message, kind, code.as_u16()))).into_response()
}

fn out_of_memory() -> Response {
    failed(500, "CUDA out of memory", "InternalServerError")
}

async fn models(State(api): State<Api>) -> Json<Value> {
    Json(
        json!({"object": "list", "data": [{"id": &*api.model, "object": "model", "owned_by": "tidegate-e2e"}]}),
    )
}

async fn health(State(api): State<Api>) -> StatusCode {
    if api.driver.with_faults(|faults| faults.is_out_of_memory(Instant::now())) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    StatusCode::OK
}

async fn metrics(State(api): State<Api>) -> Response {
    match api.driver.with_model(|model| api.driver.metrics.render(model)) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => failed(500, &error.to_string(), "InternalServerError"),
    }
}

/// A canned answer that costs the engine nothing, marked so that nobody takes it for the model's. It answers even
/// while the engine is told to fail or hang.
async fn fallback() -> Response {
    let body = json!({"id": "chatcmpl-fallback", "object": "chat.completion", "created": 0, "model": "fallback",
        "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "The model is busy. Please try again in a moment."}}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}});
    ([("x-engine-fallback", "true")], Json(body)).into_response()
}
