//! Requests that wait for a place in flight.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
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

/// The document of a sidecar's status.
fn status(proxy: &Proxy) -> Value {
    let shared = &proxy.shared;
    serde_json::to_value(shared.engine.load().snapshot(shared.clock.now())).unwrap()
}

fn queued(proxy: &Proxy, requests: u64) {
    until("requests in the queue", || status(proxy)["queue"]["length"] == requests);
}

fn running(proxy: &Proxy) {
    until("a request holds a place", || status(proxy)["concurrency"]["inFlight"] == 1);
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
    assert_eq!(status(&proxy)["concurrency"]["inFlight"], 0);
}

#[test]
fn a_client_that_leaves_gives_up_its_place_in_the_queue() {
    let (engine, tell) = told();
    let proxy = Proxy::with_document(engine.address, &document(60_000));
    let (mut first, second) = one_holds_and_one_waits(&proxy);
    drop(second);
    queued(&proxy, 0);
    tell.send(()).unwrap();
    assert_eq!(first.response().status, 200);
    proxy.settled();
    assert_eq!(status(&proxy)["concurrency"]["inFlight"], 0);
}

#[test]
fn a_request_that_waited_in_vain_is_503_with_how_long() {
    let (engine, tell) = told();
    let proxy = Proxy::with_document(engine.address, &document(50));
    let (mut first, mut second) = one_holds_and_one_waits(&proxy);
    until("the end of the wait", || {
        let shared = &proxy.shared;
        let turns = shared.engine.load().tick(shared.clock.now());
        shared.turns.call(&turns);
        !turns.is_empty()
    });
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
    proxy.swap(&PolicyDocument::default());
    let shared = &proxy.shared;
    shared.turns.call(&shared.engine.load().tick(shared.clock.now()));
    until("both in flight", || status(&proxy)["inFlight"] == 2);
    (0..2).for_each(|_| tell.send(()).unwrap());
    assert_eq!((first.response().status, second.response().status), (200, 200));
    proxy.settled();
    assert!(proxy.shared.engine.load().next_deadline().is_none());
}
