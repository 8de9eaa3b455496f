//! What decisions do to requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_policy::PolicyDocument;

use crate::support::{Engine, InProcess, Proxy, Response, ok, until};

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A document with these parts.
pub(crate) fn document(revision: &str, parts: &Value) -> PolicyDocument {
    let mut document = serde_json::to_value(PolicyDocument::default()).unwrap();
    document["revision"] = revision.into();
    for (name, part) in parts.as_object().unwrap() {
        document[name] = part.clone();
    }
    PolicyDocument::from_json(document.to_string().as_bytes()).unwrap()
}

/// So many requests an hour by the header x-api-key.
fn limit(requests: u64, mode: &str) -> Value {
    json!({"limits": [{
        "policy": "shop/llama", "name": "per-user", "mode": mode, "key": [{"header": "x-api-key"}],
        "algorithm": {"tokenBucket": {"burst": requests}}, "limit": requests, "windowMillis": 3_600_000,
    }]})
}

pub(crate) fn code(response: &Response) -> String {
    let body: Value = serde_json::from_slice(&response.body).unwrap();
    body["error"]["code"].as_str().unwrap().to_owned()
}

/// Answers with the request's first line, and counts.
fn counting() -> (Engine, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let engine = Engine::answering(move |request| {
        count.fetch_add(1, Ordering::SeqCst);
        ok(request.head.lines().next().unwrap())
    });
    (engine, requests)
}

#[test]
fn a_request_over_its_limit_is_429_with_its_rule_and_never_reaches_the_engine() {
    let (engine, requests) = counting();
    let proxy = Proxy::with_document(engine.address, &document("1", &limit(2, "Enforce")));
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: one\r\n\r\n");
        assert_eq!(client.response().status, 200);
    }
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: one\r\n\r\n");
    let refused = client.response();
    assert_eq!((refused.status, code(&refused).as_str()), (429, "limit"));
    assert_eq!(refused.header("x-tidegate-reason"), Some("limit; policy=shop/llama; rule=per-user"));
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    let millis: u64 = refused.header("retry-after-ms").unwrap().parse().unwrap();
    assert_eq!(seconds, millis.div_ceil(1000));
    assert!((1_700_000..=1_800_000).contains(&millis), "{millis}");
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: two\r\n\r\n");
    assert_eq!(client.response().status, 200, "another key, on the same connection");
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    let refused = r#"tidegate_requests_total{decision="refused",cause="limit",priority="medium"}"#;
    assert_eq!(proxy.metric(refused), 1);
    assert_eq!(proxy.metric(r#"tidegate_requests_total{decision="admitted",cause="",priority="medium"}"#), 3);
}

#[test]
fn a_refused_request_s_body_does_not_spoil_the_connection() {
    let (engine, _) = counting();
    let proxy = Proxy::with_document(engine.address, &document("1", &limit(1, "Enforce")));
    assert_eq!(proxy.ask(GET).status, 200);
    let mut client = proxy.connect();
    for body in ["GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "x".repeat(100_000)] {
        client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        assert_eq!(client.response().status, 429);
        client.send(&format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        ));
        assert_eq!(client.response().status, 429);
    }
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: other\r\n\r\n");
    assert_eq!(client.response().text(), "GET / HTTP/1.1");
}

#[test]
fn a_refused_upload_is_told_so_before_it_is_sent_whole() {
    let (engine, _) = counting();
    let proxy = Proxy::with_document(engine.address, &document("1", &limit(1, "Enforce")));
    assert_eq!(proxy.ask(GET).status, 200);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    client.send(&"x".repeat(100_000));
    let response = client.response();
    assert_eq!((response.status, response.header("connection")), (429, Some("close")));
}

#[test]
fn a_refused_request_that_expects_100_is_not_told_to_go_on() {
    let (engine, _) = counting();
    let proxy = Proxy::with_document(engine.address, &document("1", &limit(1, "Enforce")));
    assert_eq!(proxy.ask(GET).status, 200);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.response().status, 429);
    assert!(client.rest().is_empty());
}

#[test]
fn a_refused_upgrade_never_reaches_the_engine() {
    let (engine, requests) = counting();
    let proxy = Proxy::with_document(engine.address, &document("1", &limit(1, "Enforce")));
    assert_eq!(proxy.ask(GET).status, 200);
    let response =
        proxy.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(response.status, 429);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[test]
fn shadow_mode_counts_and_lets_pass() {
    let (engine, requests) = counting();
    let proxy = Proxy::with_document(engine.address, &document("1", &limit(1, "Shadow")));
    for _ in 0..3 {
        assert_eq!(proxy.ask(GET).status, 200);
    }
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    let shadow = r#"tidegate_requests_total{decision="shadow_refused",cause="limit",priority="medium"}"#;
    assert_eq!(proxy.metric(shadow), 2);
}

#[test]
fn unlimited_paths_are_exact_and_carry_no_body() {
    let (engine, _) = counting();
    let proxy = Proxy::with_document(engine.address, &document("1", &limit(1, "Enforce")));
    assert_eq!(proxy.ask(GET).status, 200);
    for path in ["/metrics", "/health", "/health?verbose"] {
        assert_eq!(proxy.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).status, 200, "{path}");
    }
    for request in [
        "GET /metrics/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET //metrics HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /%6detrics HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
        "GET /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        assert_eq!(proxy.ask(request).status, 429, "{request:?}");
    }
    assert_eq!(proxy.metric(r#"tidegate_requests_total{decision="unlimited",cause="",priority=""}"#), 3);
}

#[test]
fn a_policy_change_under_load_drops_no_request() {
    let (engine, _) = counting();
    let proxy = InProcess::with_document(engine.address, &document("0", &limit(1_000_000, "Enforce")));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = proxy.connect();
                    let mut answered = 0;
                    while !done.load(Ordering::Relaxed) {
                        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
                        assert_eq!(client.response().status, 200);
                        answered += 1;
                    }
                    answered
                })
            })
            .collect();
        for revision in 0..200 {
            let parts = if revision % 2 == 0 { json!({}) } else { limit(1_000_000 + revision, "Enforce") };
            proxy.swap(&document(&revision.to_string(), &parts));
            std::thread::sleep(Duration::from_millis(2));
        }
        done.store(true, Ordering::Relaxed);
        let answered: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(answered > 0);
    });
    proxy.settled();
    until("every ticket came back", || {
        proxy.shared.engine.load().snapshot(proxy.shared.clock.now()).in_flight == 0
    });
}

#[test]
fn every_way_a_request_can_end_gives_its_ticket_back() {
    let engine = Engine::new(|_, mut peer| {
        while let Some(request) = peer.request() {
            if request.head.starts_with("GET /ok") {
                peer.send(&ok("fine"));
            } else if request.head.starts_with("GET /break") {
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc");
                return;
            } else if request.head.starts_with("GET /stream") {
                peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
            } else if request.head.starts_with("GET /close") {
                return;
            }
        }
    });
    let proxy = Proxy::with_document(engine.address, &document("1", &limit(1000, "Enforce")));
    for path in ["/ok", "/break", "/close", "/stream", "/silent"] {
        let mut client = proxy.connect();
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        match path {
            "/ok" => assert_eq!(client.response().status, 200),
            "/close" => assert_eq!(client.response().status, 502),
            "/stream" | "/break" => assert!(client.read_to("abc").contains("200 OK")),
            _ => until("it is in flight", || proxy.in_flight() > 0),
        }
    }
    until("every ticket came back", || proxy.status()["inFlight"] == 0);
    proxy.settled();
}

#[test]
fn an_event_stream_tells_in_its_head_what_is_left() {
    let engine = Engine::answering(|_| {
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-ratelimit-remaining-requests: 99\r\n\
         transfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n0\r\n\r\n"
            .to_owned()
    });
    let mut parts = limit(3, "Enforce");
    parts["rateLimitHeaders"] = "Always".into();
    let proxy = Proxy::with_document(engine.address, &document("1", &parts));
    let answer = proxy.ask(GET);
    assert_eq!(answer.text(), "data: 1\n\n");
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("2"), "ours in place of the engine's");
    assert!(answer.header("ratelimit").unwrap().starts_with("\"per-user\";r=2;t="));
}
