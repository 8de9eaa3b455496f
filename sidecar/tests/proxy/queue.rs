//! Requests that wait for a place in flight.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tidegate_policy::PolicyDocument;

use crate::support::{Engine, Peer, Proxy, ok, until};

/// Two places, one of them for high, and a queue for one request.
fn document(timeout: u64) -> PolicyDocument {
    let mut document = serde_json::to_value(PolicyDocument::default()).unwrap();
    document["concurrency"] = json!({
        "policy": "shop/llama", "mode": "Enforce", "algorithm": "static", "initial": 2, "min": 2, "max": 2,
    });
    document["queue"] =
        json!({"policy": "shop/llama", "mode": "Enforce", "maxLength": 1, "timeoutMillis": timeout});
    PolicyDocument::from_json(document.to_string().as_bytes()).unwrap()
}

/// An engine that answers one request each time it is told to.
fn told() -> (Engine, mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel();
    let told = Arc::new(Mutex::new(told));
    let engine = Engine::answering(move |request| {
        told.lock().unwrap().recv().unwrap();
        ok(request.head.lines().next().unwrap())
    });
    (engine, tell)
}

fn post(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{{}}")
}

fn queued(proxy: &Proxy, requests: u64) {
    until("requests in the queue", || proxy.status()["queue"]["length"] == requests);
}

fn running(proxy: &Proxy) {
    until("a request holds a place", || proxy.status()["concurrency"]["inFlight"] == 1);
}

/// A request to `/first` that holds the place and one to `/second` that waits for it.
fn one_holds_and_one_waits(proxy: &Proxy) -> (Peer, Peer) {
    let (mut first, mut second) = (proxy.connect(), proxy.connect());
    first.send(&post("/first"));
    running(proxy);
    second.send(&post("/second"));
    queued(proxy, 1);
    (first, second)
}

#[test]
fn a_request_waits_for_its_place_and_is_served_with_its_body() {
    let (engine, tell) = told();
    let proxy = Proxy::with_document(engine.address, &document(60_000));
    let (mut first, mut second) = one_holds_and_one_waits(&proxy);
    until("its wait is visible", || proxy.status()["queue"]["oldestMillis"].as_u64() > Some(0));
    assert_eq!(proxy.metric("tidegate_queue_length{}"), 1);
    let full = proxy.ask(&post("/third"));
    assert_eq!(full.status, 503);
    assert_eq!(full.header("x-tidegate-reason"), Some("queue-full; policy=shop/llama; rule=queue"));
    assert!(full.header("retry-after-ms").is_some());
    tell.send(()).unwrap();
    assert_eq!(first.response().text(), "POST /first HTTP/1.1");
    tell.send(()).unwrap();
    assert_eq!(second.response().text(), "POST /second HTTP/1.1");
    assert_eq!(proxy.metric("tidegate_queue_wait_seconds_count"), 1);
    proxy.settled();
    assert_eq!(proxy.status()["concurrency"]["inFlight"], 0);
}

#[test]
fn a_client_that_leaves_gives_up_its_place_in_the_queue() {
    let (engine, tell) = told();
    let proxy = Proxy::with_document(engine.address, &document(3_600_000));
    // Nobody would be let go by the time that the queue has: only the client's leaving can empty it.
    let (mut first, second) = one_holds_and_one_waits(&proxy);
    drop(second);
    queued(&proxy, 0);
    tell.send(()).unwrap();
    assert_eq!(first.response().status, 200);
    proxy.settled();
    assert_eq!(proxy.status()["concurrency"]["inFlight"], 0);
}

#[test]
fn a_request_that_waited_in_vain_is_503_with_how_long() {
    let (engine, tell) = told();
    let proxy = Proxy::with_document(engine.address, &document(3000));
    let (mut first, mut second) = (proxy.connect(), proxy.connect());
    first.send(&post("/first"));
    running(&proxy);
    second.send(&post("/second"));
    let refused = second.response();
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("x-tidegate-reason"), Some("queue-timeout; policy=shop/llama; rule=queue"));
    tell.send(()).unwrap();
    assert_eq!(first.response().status, 200);
    proxy.settled();
}

#[test]
fn a_policy_without_a_limit_lets_go_who_waits() {
    let (engine, tell) = told();
    let proxy = Proxy::with_document(engine.address, &document(60_000));
    let (mut first, mut second) = one_holds_and_one_waits(&proxy);
    proxy.swap(&PolicyDocument { revision: "without".to_owned(), ..PolicyDocument::default() });
    until("both in flight", || proxy.status()["inFlight"] == 2);
    (0..2).for_each(|_| tell.send(()).unwrap());
    assert_eq!((first.response().status, second.response().status), (200, 200));
    proxy.settled();
    assert!(proxy.status()["queue"].is_null());
}

#[test]
fn nobody_waits_for_longer_than_its_client_does() {
    let (engine, tell) = told();
    let proxy = Proxy::with_document(engine.address, &document(3_600_000));
    let mut first = proxy.connect();
    first.send(&post("/first"));
    running(&proxy);
    for field in [
        "x-stainless-read-timeout: 0.5",
        "X-Stainless-Timeout: 1",
        "x-envoy-expected-rq-timeout-ms: 300",
        "Grpc-Timeout: 300m",
    ] {
        let request = post("/second").replacen("\r\n", &format!("\r\n{field}\r\n"), 1);
        let refused = proxy.ask(&request);
        let reason = refused.header("x-tidegate-reason");
        assert_eq!(
            (refused.status, reason),
            (503, Some("queue-timeout; policy=shop/llama; rule=queue")),
            "{field}"
        );
    }
    tell.send(()).unwrap();
    assert_eq!(first.response().status, 200);
    proxy.settled();
}

/// The same with room for ten, and a class for each value of x-priority.
fn by_class() -> serde_json::Value {
    let mut document = serde_json::to_value(document(3_600_000)).unwrap();
    document["queue"]["maxLength"] = json!(10);
    document["priority"] =
        json!({"from": [{"header": "x-priority"}], "default": "Medium", "highAllowedFrom": []});
    document
}

fn of_class(class: &str) -> String {
    post(&format!("/{class}")).replacen("\r\n", &format!("\r\nx-priority: {class}\r\n"), 1)
}

#[test]
fn a_higher_class_that_came_later_is_served_sooner() {
    let (engine, tell) = told();
    let document = PolicyDocument::from_json(by_class().to_string().as_bytes()).unwrap();
    let proxy = Proxy::with_document(engine.address, &document);
    let mut clients = [proxy.connect(), proxy.connect(), proxy.connect()];
    for (number, class) in ["medium", "low", "medium"].into_iter().enumerate() {
        clients[number].send(&of_class(class));
        if number == 0 { running(&proxy) } else { queued(&proxy, number as u64) }
    }
    tell.send(()).unwrap();
    assert_eq!(clients[0].response().text(), "POST /medium HTTP/1.1");
    tell.send(()).unwrap();
    assert_eq!(clients[2].response().text(), "POST /medium HTTP/1.1");
    queued(&proxy, 0);
    tell.send(()).unwrap();
    assert_eq!(clients[1].response().text(), "POST /low HTTP/1.1");
    proxy.settled();
}

#[test]
fn those_who_wait_last_are_refused_when_the_engine_slows() {
    let (engine, tell) = told();
    let slows_at = |millis: u64, revision: &str| {
        let mut document = by_class();
        document["revision"] = revision.into();
        document["tiers"] = json!({
            "policy": "shop/llama", "mode": "Enforce",
            "latency": {"signal": "TotalLatency", "percentile": 0.99, "periodMillis": 1000, "periods": 1,
                "minimumSamples": 1, "maxMillis": millis},
            "recovery": {"belowRatio": 0.8, "holdMillis": 60_000, "rampMillis": 60_000},
        });
        PolicyDocument::from_json(document.to_string().as_bytes()).unwrap()
    };
    let proxy = Proxy::with_document(engine.address, &slows_at(3_600_000, "fast"));
    let (mut holds, mut low, mut medium) = (proxy.connect(), proxy.connect(), proxy.connect());
    holds.send(&of_class("medium"));
    running(&proxy);
    medium.send(&of_class("medium"));
    queued(&proxy, 1);
    low.send(&of_class("low"));
    queued(&proxy, 2);
    // From now on the engine has not said a word for longer than the ceiling: nobody has to wait for an answer that shows it.
    proxy.swap(&slows_at(100, "slow"));
    let refused = low.response();
    let reason = refused.header("x-tidegate-reason");
    assert_eq!((refused.status, reason), (429, Some("latency-tier; policy=shop/llama; rule=tiers.latency")));
    queued(&proxy, 1);
    assert_eq!(proxy.status()["queue"]["evicted"], 1, "it had its place in the queue");
    (0..2).for_each(|_| tell.send(()).unwrap());
    assert_eq!((holds.response().status, medium.response().status), (200, 200));
    proxy.settled();
}
