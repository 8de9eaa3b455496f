//! The breaker: what opens it, and what answers meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::decisions::{GET, code, document};
use crate::nobody::nobody;
use crate::support::{Engine, InProcess, Proxy, ok};

/// Opens after two failures in a row, for an hour.
pub(crate) fn breaker(more: &Value) -> Value {
    let mut breaker = json!({
        "policy": "shop/pay", "mode": "Enforce", "trip": {"consecutiveFailures": {"count": 2}},
        "openMillis": 3_600_000, "halfOpen": {"probes": 1},
    });
    for (name, part) in more.as_object().unwrap() {
        breaker[name] = part.clone();
    }
    json!({ "breaker": breaker })
}

#[test]
fn failures_of_the_engine_open_the_breaker_and_then_it_is_503() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let engine = Engine::answering(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\noops".to_owned()
    });
    let proxy = Proxy::with_document(engine.address, &document("1", &breaker(&json!({}))));
    for _ in 0..2 {
        let failed = proxy.ask(GET);
        assert_eq!((failed.status, failed.text()), (500, "oops"), "the engine's own answer is passed on");
    }
    let refused = proxy.ask(GET);
    assert_eq!((refused.status, code(&refused).as_str()), (503, "breaker-open"));
    assert_eq!(
        refused.header("x-tidegate-reason"),
        Some("breaker-open; policy=shop/pay; rule=trip.consecutiveFailures")
    );
    assert!(refused.header("retry-after").is_some());
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    assert_eq!(proxy.metric(r#"tidegate_breaker_state{state="open"}"#), 1);
}

#[test]
fn no_request_waits_for_a_hook_though_nobody_is_ever_told() {
    // The data path alone: nothing here tells hooks, so whoever waited for one would wait for ever.
    let hooks = json!([{"name": "pager", "url": "http://127.0.0.1:9/", "mode": "Sync", "on": ["Opened"]}]);
    let parts = breaker(&json!({ "hooks": hooks }));
    let proxy = InProcess::with_document(nobody(), &document("1", &parts));
    assert_eq!([0; 3].map(|_| proxy.ask(GET).status), [502, 502, 503]);
}

#[test]
fn an_engine_whose_queue_is_full_has_not_failed() {
    let answers = AtomicUsize::new(0);
    let engine = Engine::answering(move |_| {
        let status = ["503 Full", "429 Later", "503 Full", "500 Oops", "503 Full"];
        let status = status[answers.fetch_add(1, Ordering::SeqCst) % status.len()];
        format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")
    });
    let proxy = Proxy::with_document(engine.address, &document("1", &breaker(&json!({}))));
    assert_eq!([0; 5].map(|_| proxy.ask(GET).status), [503, 429, 503, 500, 503]);
    proxy.settled();
    let breaker = &proxy.status()["breaker"];
    assert_eq!((&breaker["state"], &breaker["consecutiveFailures"]), (&json!("Closed"), &json!(1)));
}

#[test]
fn an_engine_that_cannot_be_reached_opens_the_breaker() {
    let nobody = nobody();
    let proxy = Proxy::with_document(nobody, &document("1", &breaker(&json!({}))));
    assert_eq!([0; 3].map(|_| proxy.ask(GET).status), [502, 502, 503]);
}

#[test]
fn a_head_that_comes_too_late_is_504_and_a_failure() {
    let engine = Engine::new(|_, mut peer| {
        peer.request();
        peer.rest();
    });
    let parts = breaker(&json!({"timeoutMillis": 100}));
    let proxy = Proxy::with_document(engine.address, &document("1", &parts));
    for _ in 0..2 {
        let late = proxy.ask(GET);
        assert_eq!((late.status, code(&late).as_str()), (504, "engine-timeout"));
    }
    assert_eq!(proxy.ask(GET).status, 503);
    proxy.settled();
}

#[test]
fn the_timeout_is_the_engine_s_and_not_the_upload_s() {
    let engine = Engine::answering(|request| ok(std::str::from_utf8(&request.body).unwrap()));
    let parts = breaker(&json!({"timeoutMillis": 10_000}));
    let proxy = Proxy::with_document(engine.address, &document("1", &parts));
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    for _ in 0..5 {
        // A slow client: the pauses together are longer than the timeout, which a busy machine keeps.
        std::thread::sleep(Duration::from_millis(2200));
        client.send("ab");
    }
    assert_eq!(client.response().text(), "ababababab");
}

#[test]
fn an_open_breaker_sends_the_same_request_to_its_fallback_once() {
    let fallback_fails = Arc::new(AtomicBool::new(false));
    let fails = fallback_fails.clone();
    let engine = Engine::answering(move |request| {
        if request.head.starts_with("POST /fallback/pay?from=breaker HTTP/1.1")
            && !fails.load(Ordering::SeqCst)
        {
            ok(&format!("fallback for {}", String::from_utf8_lossy(&request.body)))
        } else {
            "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n".to_owned()
        }
    });
    let parts = breaker(&json!({"fallback": {"path": "/fallback/pay?from=breaker"}}));
    let proxy = Proxy::with_document(engine.address, &document("1", &parts));
    let mut client = proxy.connect();
    let pay = "POST /pay HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\norder";
    let mut answers = (0..3).map(|_| {
        client.send(pay);
        client.response()
    });
    let [first, second, third] = [(); 3].map(|()| answers.next().unwrap());
    assert_eq!([first.status, second.status, third.status], [500, 500, 200]);
    assert_eq!(third.text(), "fallback for order");
    assert_eq!(
        third.header("x-tidegate-reason"),
        Some("breaker-open; policy=shop/pay; rule=trip.consecutiveFailures")
    );
    drop(answers);
    fallback_fails.store(true, Ordering::SeqCst);
    let refused = proxy.ask(pay);
    assert_eq!((refused.status, code(&refused).as_str()), (503, "breaker-open"));
    let fallbacks = r#"tidegate_requests_total{decision="fallback",cause="breaker-open",priority="medium"}"#;
    assert_eq!(proxy.metric(fallbacks), 2);
}
