//! Budgets of tokens under calls of gRPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Request, Response};
use prost::Message as _;
use serde_json::json;
use tempfile::TempDir;

use crate::document;
use crate::inference::{
    Chunk, GENERATE, GenerateRequest, GenerateResponse, INFER, STREAM_INFER, SamplingParams,
    StreamInferResponse, framed, generated, packed, piece, prompt, with_head,
};
use crate::rpc::{Frames, call, client, collected, data, engine, frames, trailers, whole};
use crate::sidecar::Sidecar;
use crate::start;
use crate::support::DEADLINE;

const OK: &[(&str, &str)] = &[("grpc-status", "0")];
const HOUR: u64 = 3_600_000;

/// So many tokens for all together.
fn budget(limit: u64) -> (TempDir, String) {
    document::with(&json!({"limits": [{
        "policy": "shop/llama", "name": "tpm", "mode": "Enforce", "key": [], "cost": "totalTokens",
        "algorithm": "fixedWindow", "limit": limit, "windowMillis": 744 * HOUR,
    }]}))
}

fn answer(body: Frames) -> Response<Frames> {
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

fn field<'a>(headers: &'a http::HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// Answers as `answer` says, and refuses what has `x-fails`, which costs nothing.
fn engine_of<A, F>(reply: A) -> std::net::SocketAddr
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Frames>> + Send + 'static,
{
    engine(move |request: Request<Incoming>| {
        let reply = reply.clone();
        async move {
            assert_eq!(field(request.headers(), "grpc-accept-encoding"), "identity");
            if request.headers().contains_key("x-fails") {
                return answer(whole([trailers(&[("grpc-status", "3")])]));
            }
            reply(request).await
        }
    })
}

/// Waits until nothing is in flight, while the client of this thread goes on.
async fn settled(sidecar: &Sidecar) {
    until("nothing is in flight", || sidecar.metric("tidegate_in_flight") == Some(0.0)).await;
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !is() {
        assert!(start.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// The status of a call that the engine refuses, if it gets that far.
async fn passes(sidecar: &Sidecar, most: i64) -> bool {
    let mut request = call(INFER, whole([data(framed(&prompt(0, most)))]));
    request.headers_mut().insert("x-fails", "1".parse().unwrap());
    let response = client(sidecar.data).await.send_request(request).await.unwrap();
    let refused = field(response.headers(), "grpc-status") == "8";
    let (last, _) = collected(response).await;
    settled(sidecar).await;
    assert!(refused || field(&last, "grpc-status") == "3");
    !refused
}

/// How many tokens are left, to be found out at the price of none.
async fn left(sidecar: &Sidecar) -> i64 {
    let (mut low, mut high) = (0, 4096);
    while low + 1 < high {
        let middle = i64::midpoint(low, high);
        *(if passes(sidecar, middle).await { &mut low } else { &mut high }) = middle;
    }
    low
}

#[tokio::test]
async fn a_call_is_settled_by_what_its_answer_says_or_by_its_text() {
    for (said, costs) in [
        (&[("prompt_tokens", 90), ("completion_tokens", 7)][..], 97),
        (&[("completion_tokens", 7)], 107),
        (&[], 130),
    ] {
        let reply = framed(&generated(&"tide".repeat(30), said));
        let engine = engine_of(move |request| {
            let reply = reply.clone();
            async move {
                let _whole = request.into_body().collect().await;
                answer(whole([data(reply), trailers(OK)]))
            }
        });
        let (_file, path) = budget(1000);
        let sidecar = start(engine, &["--policy-file", &path]);
        let message = framed(&prompt(100, 800));
        let response =
            client(sidecar.data).await.send_request(call(INFER, whole([data(message)]))).await.unwrap();
        assert_eq!(field(&collected(response).await.0, "grpc-status"), "0");
        settled(&sidecar).await;
        assert_eq!(left(&sidecar).await, 1000 - costs, "{said:?}");
        let refused = call(INFER, whole([data(framed(&prompt(1000, 1)))]));
        let refused = client(sidecar.data).await.send_request(refused).await.unwrap();
        assert_eq!(field(refused.headers(), "grpc-status"), "8", "a prompt that is more than is left");
    }
}

#[tokio::test]
async fn a_packed_answer_is_counted_from_a_copy_and_one_that_cannot_be_read_costs_what_was_reserved() {
    let reply = generated(&"tide".repeat(30), &[]);
    for (encoding, message, costs) in [
        ("gzip", packed(&reply), 130),
        ("deflate", packed(&reply), 600),
        ("gzip", with_head(1, b"not packed"), 600),
    ] {
        let engine = engine_of(move |request| {
            let message = message.clone();
            async move {
                let _whole = request.into_body().collect().await;
                let mut response = answer(whole([data(message), trailers(OK)]));
                response.headers_mut().insert("grpc-encoding", encoding.parse().unwrap());
                response
            }
        });
        let (_file, path) = budget(1000);
        let sidecar = start(engine, &["--policy-file", &path]);
        let request = call(INFER, whole([data(framed(&prompt(100, 500)))]));
        let response = client(sidecar.data).await.send_request(request).await.unwrap();
        assert_eq!(field(&collected(response).await.0, "grpc-status"), "0");
        settled(&sidecar).await;
        assert_eq!(left(&sidecar).await, 1000 - costs, "{encoding}");
    }
}

/// An engine that generates a token with each message, until nobody takes them any more, which is told.
fn endless(message: Bytes, encoding: &'static str) -> (std::net::SocketAddr, Arc<AtomicBool>) {
    let stopped = Arc::new(AtomicBool::new(false));
    let stops = stopped.clone();
    let address = engine_of(move |_| {
        let (message, stops) = (message.clone(), stops.clone());
        async move {
            let (sender, body) = frames();
            tokio::spawn(async move {
                // Cut as no message ends.
                let (begin, end) = message.split_at(message.len() / 2);
                let (begin, end) = (Bytes::copy_from_slice(begin), Bytes::copy_from_slice(end));
                sender.send(data(begin.clone())).unwrap();
                let between = data([&end[..], &begin].concat()).into_data().unwrap();
                while sender.send(data(between.clone())).is_ok() {
                    tokio::time::sleep(std::time::Duration::from_micros(500)).await;
                }
                stops.store(true, Ordering::SeqCst);
            });
            let mut response = answer(body);
            response.headers_mut().insert("grpc-encoding", encoding.parse().unwrap());
            response
        }
    });
    (address, stopped)
}

/// The messages of a body, of which nothing is left over.
fn messages(mut body: &[u8]) -> Vec<(u8, &[u8])> {
    let mut all = Vec::new();
    while let Some(([flag, length @ ..], rest)) = body.split_first_chunk::<5>() {
        let (message, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        all.push((*flag, message));
        body = rest;
    }
    assert!(body.is_empty(), "{} bytes of a message that is not whole", body.len());
    all
}

#[tokio::test]
async fn a_call_ends_with_resource_exhausted_between_two_messages_when_the_tokens_run_out() {
    let token = GenerateResponse { chunk: Some(Chunk { token_ids: vec![70_000], prompt_tokens: 100 }) };
    let asked = GenerateRequest {
        text: "tide".repeat(100),
        sampling_params: Some(SamplingParams { max_tokens: Some(100) }),
    };
    for (path, request, message, encoding) in [
        (STREAM_INFER, framed(&prompt(100, 100)), framed(&piece("tide")), "identity"),
        (STREAM_INFER, framed(&prompt(100, 100)), packed(&piece("tide")), "gzip"),
        (GENERATE, framed(&asked), framed(&token), "identity"),
    ] {
        let (address, stopped) = endless(message.clone(), encoding);
        let (_file, file) = budget(400);
        let sidecar = start(address, &["--policy-file", &file]);
        let (sender, body) = frames();
        sender.send(data(request)).unwrap();
        let response = client(sidecar.data).await.send_request(call(path, body)).await.unwrap();
        let (last, received) = collected(response).await;
        assert_eq!(field(&last, "grpc-status"), "8", "{path} {last:?}");
        assert_eq!(
            field(&last, "grpc-message"),
            "limit \"tpm\" is exceeded: its tokens ran out before the answer was whole"
        );
        assert_eq!(field(&last, "x-tidegate-reason"), "limit; policy=shop/llama; rule=tpm");
        let received = messages(&received);
        assert!((300..340).contains(&received.len()), "{} messages of {path}", received.len());
        assert!(received.iter().all(|(_, message_of)| message[5..] == **message_of));
        settled(&sidecar).await;
        // Even though its client might still have something to say.
        until("the engine is told to stop", || stopped.load(Ordering::SeqCst)).await;
        assert!(!passes(&sidecar, 1).await, "there is a debt");
        sidecar.line("the end", |line| {
            line["decision"] == "ended"
                && line["message"].as_str().is_some_and(|m| m.contains("with a status"))
        });
    }
}

#[tokio::test]
async fn a_call_that_its_client_leaves_costs_what_was_generated() {
    let (address, _stopped) = endless(framed(&piece("tide")), "identity");
    let (_file, path) = budget(4000);
    let sidecar = start(address, &["--policy-file", &path]);
    let request = call(STREAM_INFER, whole([data(framed(&prompt(100, 3000)))]));
    let mut response = client(sidecar.data).await.send_request(request).await.unwrap();
    let mut received = Vec::new();
    while received.len() < 20 * framed(&piece("tide")).len() {
        received.extend_from_slice(&response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap());
    }
    drop(response);
    settled(&sidecar).await;
    let spent = 4000 - left(&sidecar).await - 100;
    assert!((20..3000).contains(&spent), "{spent}");
}

#[tokio::test]
async fn every_request_of_a_dialogue_costs_its_prompt() {
    let engine = engine_of(|request: Request<Incoming>| async move {
        let (sender, body) = frames();
        tokio::spawn(async move {
            let mut incoming = request.into_body();
            let mut pending = Vec::new();
            while let Some(Ok(frame)) = incoming.frame().await {
                pending.extend_from_slice(&frame.into_data().unwrap());
                let whole = pending
                    .get(1..5)
                    .map_or(usize::MAX, |length| 5 + u32::from_be_bytes(length.try_into().unwrap()) as usize);
                if pending.len() >= whole {
                    pending.drain(..whole);
                    let _ = sender.send(data(framed(&piece("tidetide"))));
                }
            }
            let _ = sender.send(trailers(OK));
        });
        answer(body)
    });
    let (_file, path) = budget(1000);
    let sidecar = start(engine, &["--policy-file", &path]);
    let (sender, body) = frames();
    // It hears from the engine before it says anything, and is not kept waiting for that.
    let mut response = client(sidecar.data).await.send_request(call(STREAM_INFER, body)).await.unwrap();
    for _ in 0..3 {
        sender.send(data(framed(&prompt(100, 10)))).unwrap();
        let got = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        let got = StreamInferResponse::decode(&got[5..]).unwrap();
        assert_eq!(got, piece("tidetide"), "one by one");
    }
    drop(sender);
    let last = response.body_mut().frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(field(&last, "grpc-status"), "0");
    settled(&sidecar).await;
    assert_eq!(left(&sidecar).await, 1000 - 3 * 102);
}

#[tokio::test]
async fn the_model_of_a_call_is_that_of_its_message() {
    let (_file, path) = document::with(&json!({"limits": [{
        "policy": "shop/llama", "name": "per-model", "mode": "Enforce", "key": ["model"],
        "algorithm": {"tokenBucket": {"burst": 1}}, "limit": 1, "windowMillis": HOUR,
    }]}));
    let engine = engine(async |_| answer(whole([trailers(OK)])));
    let sidecar = start(engine, &["--policy-file", &path]);
    let mut client = client(sidecar.data).await;
    for (model, status) in [("a", "0"), ("b", "0"), ("a", "8")] {
        let mut request = prompt(1, 1);
        request.model_name = model.to_owned();
        let response = client.send_request(call(INFER, whole([data(framed(&request))]))).await.unwrap();
        let refused = field(response.headers(), "grpc-status").to_owned();
        let last = collected(response).await.0;
        assert_eq!(refused + field(&last, "grpc-status"), status, "{model}");
    }
}
