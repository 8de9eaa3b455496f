//! gRPC: calls as Triton and `KServe` v2 get them, over HTTP/2 on both sides.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{Request, Response};

use crate::document;
use crate::nobody::nobody;
use crate::rpc::{Frames, call, client, collected, data, engine, frames, trailers, whole};
use crate::sidecar::Sidecar;
use crate::start;
use crate::support::{self, DEADLINE};

const OK: &[(&str, &str)] = &[("grpc-status", "0"), ("x-served", "1")];
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

fn answer(body: Frames) -> Response<Frames> {
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

/// Sends back every message as it comes, then the status that `x-status` asks for.
async fn echo(request: Request<hyper::body::Incoming>) -> Response<Frames> {
    assert_eq!(request.headers()["te"], "trailers");
    if let Some(status) = request.headers().get("x-status") {
        let mut refused = answer(whole([]));
        refused.headers_mut().insert("grpc-status", status.clone());
        return refused;
    }
    let (sender, body) = frames();
    let path = request.uri().path().to_owned();
    tokio::spawn(async move {
        let mut incoming = request.into_body();
        while let Some(Ok(frame)) = incoming.frame().await {
            if let Ok(message) = frame.into_data() {
                let _ = sender.send(data(message));
            }
        }
        let _ = sender.send(trailers(OK));
    });
    let mut answer = answer(body);
    answer.headers_mut().insert("x-path", path.parse().unwrap());
    answer
}

fn field<'a>(headers: &'a http::HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_call_keeps_its_path_its_message_its_metadata_and_its_trailers() {
    let sidecar = start(engine(echo), &[]);
    let message: Vec<u8> = (0..300_000_u32).map(|i| (i.wrapping_mul(31) % 251) as u8).collect();
    let mut client = client(sidecar.data).await;
    for _ in 0..3 {
        let response = client.send_request(call(INFER, whole([data(message.clone())]))).await.unwrap();
        assert_eq!((response.status().as_u16(), field(response.headers(), "x-path")), (200, INFER));
        let (trailers, received) = collected(response).await;
        assert!(received == message);
        assert_eq!((field(&trailers, "grpc-status"), field(&trailers, "x-served")), ("0", "1"));
    }
    let admitted = r#"tidegate_requests_total{decision="admitted",cause="",priority="medium"}"#;
    assert_eq!(sidecar.metric(admitted), Some(3.0));
}

#[tokio::test]
async fn messages_of_a_bidirectional_stream_pass_one_by_one() {
    let sidecar = start(engine(echo), &[]);
    let (sender, body) = frames();
    sender.send(data("first")).unwrap();
    let mut response = client(sidecar.data).await.send_request(call(INFER, body)).await.unwrap();
    for message in ["first", "second", "third"] {
        let got = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(got, message);
        let next = if message == "first" { "second" } else { "third" };
        if message != "third" {
            sender.send(data(next)).unwrap();
        }
    }
    drop(sender);
    let last = response.body_mut().frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(field(&last, "grpc-status"), "0");
}

#[tokio::test]
async fn a_call_over_its_limit_is_resource_exhausted_and_says_when_to_come_again() {
    let (_file, path) = document::limit_of(1);
    let sidecar = start(engine(echo), &["--policy-file", &path]);
    let mut client = client(sidecar.data).await;
    let first = client.send_request(call(INFER, whole([data("x")]))).await.unwrap();
    assert_eq!(field(&collected(first).await.0, "grpc-status"), "0");
    let refused = client.send_request(call(INFER, whole([data("x".repeat(100_000))]))).await.unwrap();
    let headers = refused.headers().clone();
    assert_eq!((refused.status().as_u16(), field(&headers, "content-type")), (200, "application/grpc"));
    assert_eq!(field(&headers, "grpc-status"), "8");
    assert!(field(&headers, "grpc-message").contains("limit"), "{headers:?}");
    assert_eq!(field(&headers, "x-tidegate-reason"), "limit; policy=shop/llama; rule=per-user");
    let wait: u64 = field(&headers, "retry-after-ms").parse().unwrap();
    assert!((3_500_000..=3_600_000).contains(&wait), "{wait}");
    assert_eq!(field(&headers, "grpc-retry-pushback-ms"), "-1", "no call waits for an hour");
    assert_eq!(collected(refused).await, (http::HeaderMap::new(), Bytes::new()), "trailers-only");
}

#[tokio::test]
async fn a_call_waits_in_the_queue_for_as_long_as_its_grpc_timeout_says() {
    // Two places, one of them for high, and a queue that lets wait for an hour.
    let (_file, path) = document::with(&serde_json::json!({
        "concurrency": {"policy": "shop/llama", "mode": "Enforce", "algorithm": "static",
            "initial": 2, "min": 2, "max": 2},
        "queue": {"policy": "shop/llama", "mode": "Enforce", "maxLength": 10, "timeoutMillis": 3_600_000},
    }));
    let sidecar = start(engine(echo), &["--policy-file", &path]);
    let mut client = client(sidecar.data).await;
    let (sender, body) = frames();
    sender.send(data("first")).unwrap();
    let mut holds = client.send_request(call(INFER, body)).await.unwrap();
    assert_eq!(holds.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    let waiting = |timeout: &str| {
        let mut request = call(INFER, whole([data("x")]));
        request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
        client.clone().send_request(request)
    };
    let [hour, minute] = [waiting("1H"), waiting("600M")].map(tokio::spawn);
    for timeout in ["1S", "300m", "300000u", "99999999n"] {
        let refused = waiting(timeout).await.unwrap();
        assert_eq!(field(refused.headers(), "grpc-status"), "14", "{timeout}");
        let reason = field(refused.headers(), "x-tidegate-reason");
        assert_eq!(reason, "queue-timeout; policy=shop/llama; rule=queue", "{timeout}");
    }
    drop(sender);
    assert_eq!(field(&collected(holds).await.0, "grpc-status"), "0");
    for patient in [hour, minute] {
        let served = patient.await.unwrap().unwrap();
        assert_eq!(field(&collected(served).await.0, "grpc-status"), "0", "who waits for longer is served");
    }
}

#[tokio::test]
async fn a_call_of_a_client_that_nobody_knows_is_unauthenticated_where_a_policy_says_so() {
    let keys = serde_json::json!({"headers": ["authorization"], "required": true});
    let (_file, path) =
        document::with(&serde_json::json!({"identity": {"policy": "shop/llama", "apiKeys": keys}}));
    let secret = tempfile::tempdir().unwrap();
    std::fs::write(secret.path().join("acme"), "sk-0123456789abcdef\n").unwrap();
    let folder = secret.path().display().to_string();
    let sidecar = start(engine(echo), &["--policy-file", &path, "--api-keys", &folder]);
    let mut client = client(sidecar.data).await;
    for (key, status) in
        [("", "16"), ("Bearer sk-fedcba9876543210", "16"), ("Bearer sk-0123456789abcdef", "0")]
    {
        let mut request = call(INFER, whole([data("x")]));
        request.headers_mut().insert("authorization", key.parse().unwrap());
        let response = client.send_request(request).await.unwrap();
        let refused = field(response.headers(), "grpc-status").to_owned();
        assert_eq!(refused + field(&collected(response).await.0, "grpc-status"), status, "{key}");
    }
}

#[tokio::test]
async fn calls_that_fail_open_the_breaker_and_then_it_is_unavailable() {
    let (_file, path) = document::breaker();
    let sidecar = start(engine(echo), &["--policy-file", &path]);
    let mut client = client(sidecar.data).await;
    // Neither a mistake of the caller nor a full queue is a failure of the engine.
    for (status, reason) in [("3", ""), ("14", ""), ("13", ""), ("8", ""), ("2", ""), ("0", "breaker-open")] {
        let mut request = call(INFER, whole([]));
        request.headers_mut().insert("x-status", status.parse().unwrap());
        let response = client.send_request(request).await.unwrap();
        let expected = if reason.is_empty() { status } else { "14" };
        assert_eq!(field(response.headers(), "grpc-status"), expected);
        assert!(field(response.headers(), "x-tidegate-reason").starts_with(reason), "{status}");
    }
}

#[tokio::test]
async fn an_engine_that_is_not_there_or_speaks_http_1_is_unavailable() {
    let nobody = nobody();
    let http_1 = support::Engine::answering(|_| support::ok("")).address;
    for address in [nobody, http_1] {
        let sidecar = start(address, &[]);
        let response = client(sidecar.data).await.send_request(call(INFER, whole([]))).await.unwrap();
        assert_eq!(field(response.headers(), "grpc-status"), "14", "{address}");
        assert_eq!(field(response.headers(), "x-tidegate-reason"), "engine-failed");
    }
}

#[tokio::test]
async fn a_call_that_the_engine_breaks_off_ends_with_a_status() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let sidecar = start(listener.local_addr().unwrap(), &[]);
    let (close, closing) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let stream = tokio::net::TcpListener::from_std(listener).unwrap().accept().await.unwrap().0;
        let service = hyper::service::service_fn(async |_| {
            let (sender, body) = frames();
            sender.send(data("partial")).unwrap();
            // The stream is never ended.
            std::mem::forget(sender);
            Ok::<_, std::convert::Infallible>(answer(body))
        });
        let server = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
        tokio::select! {
            _ = server.serve_connection(hyper_util::rt::TokioIo::new(stream), service) => {}
            _ = closing => {}
        }
    });
    let mut response = client(sidecar.data).await.send_request(call(INFER, whole([]))).await.unwrap();
    assert_eq!(response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "partial");
    close.send(()).unwrap();
    let last = response.body_mut().frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(field(&last, "grpc-status"), "14");
}

#[tokio::test]
async fn a_caller_that_reads_nothing_holds_back_the_engine() {
    let (progress, mut sent) = tokio::sync::mpsc::unbounded_channel();
    let address = engine(move |_| {
        let (sender, body) = frames();
        let progress = progress.clone();
        tokio::spawn(async move {
            // Whoever takes a frame shows it by taking the next.
            for _ in 0..10_000 {
                if sender.send(data(vec![0; 16 * 1024])).is_err() {
                    return;
                }
            }
            let _ = progress.send(());
        });
        async move { answer(body) }
    });
    let sidecar = start(address, &[]);
    let mut caller = client(sidecar.data).await;
    let unread = caller.send_request(call(INFER, whole([]))).await.unwrap();
    tokio::time::timeout(DEADLINE, sent.recv()).await.unwrap();
    let before = resident(&sidecar);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = resident(&sidecar);
    assert!(
        after < before + (8 << 20) && after < 64 << 20,
        "{before} and then {after} bytes for a slow caller"
    );
    drop(unread);
}

/// Memory of the worker in bytes.
fn resident(sidecar: &Sidecar) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.workers()[0])).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn a_port_that_is_declared_http_2_gets_everything_that_comes_over_it() {
    let address = engine(async |request: Request<hyper::body::Incoming>| {
        let version = format!("{:?} {}", request.version(), request.uri().path());
        Response::new(whole([data(version)]))
    });
    let port = address.port().to_string();
    let sidecar = start(address, &["--http2", &port]);
    let request = Request::get("http://engine/v2/health").body(whole([])).unwrap();
    let response = client(sidecar.data).await.send_request(request).await.unwrap();
    assert_eq!(collected(response).await.1, "HTTP/2.0 /v2/health");
}

#[tokio::test]
async fn the_timeout_of_a_call_is_the_engine_s_and_not_its_caller_s() {
    let (_file, path) = document::with(&serde_json::json!({"breaker": {
        "policy": "shop/pay", "mode": "Enforce", "trip": {"consecutiveFailures": {"count": 1}},
        "openMillis": 3_600_000, "halfOpen": {"probes": 1}, "timeoutMillis": 10_000,
    }}));
    let late = engine(async |request: Request<hyper::body::Incoming>| {
        let all = request.into_body().collect().await.unwrap().to_bytes();
        answer(whole([data(all), trailers(OK)]))
    });
    let sidecar = start(late, &["--policy-file", &path]);
    let (sender, body) = frames();
    let slow = tokio::spawn(async move {
        for _ in 0..5 {
            // The pauses together are longer than the timeout, which is the engine's: long enough for a busy machine.
            tokio::time::sleep(Duration::from_millis(2200)).await;
            sender.send(data("ab")).unwrap();
        }
    });
    let response = client(sidecar.data).await.send_request(call(INFER, body)).await.unwrap();
    assert_eq!(collected(response).await.1, "ababababab");
    slow.await.unwrap();
}
