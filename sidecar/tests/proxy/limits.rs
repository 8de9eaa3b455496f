//! Limits that last as long as a request, or hold it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_policy::PolicyDocument;

use crate::support::{Engine, Proxy, ok, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const HOUR: u64 = 3_600_000;

/// One limit for all requests together.
fn limited(algorithm: &Value, limit: u64, window_millis: Option<u64>) -> PolicyDocument {
    let mut rule = json!({"policy": "shop/llama", "name": "all", "mode": "Enforce", "key": [],
        "algorithm": algorithm, "limit": limit});
    if let Some(window) = window_millis {
        rule["windowMillis"] = window.into();
    }
    let mut document = serde_json::to_value(PolicyDocument::default()).unwrap();
    document["limits"] = json!([rule]);
    PolicyDocument::from_json(document.to_string().as_bytes()).unwrap()
}

/// Counts requests, and keeps them while it is told to.
fn counting(hold: &Arc<AtomicBool>) -> (Engine, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let (count, hold) = (requests.clone(), hold.clone());
    let engine = Engine::answering(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        until("the engine may answer", || !hold.load(Ordering::SeqCst));
        ok("done")
    });
    (engine, requests)
}

#[test]
fn a_paced_request_reaches_the_engine_when_it_is_its_turn() {
    let (engine, requests) = counting(&Arc::default());
    let paced = json!({"leakyBucket": {"burst": 10, "maxWaitMillis": 60_000}});
    let proxy = Proxy::with_document(engine.address, &limited(&paced, 4, Some(1000)));
    let start = Instant::now();
    let waiting: Vec<_> = (0..4).map(|_| proxy.connect()).collect();
    let answered = waiting.into_iter().map(|mut client| {
        client.send(GET);
        std::thread::spawn(move || (client.response().status, start.elapsed()))
    });
    let mut answered: Vec<_> = answered.collect::<Vec<_>>().into_iter().map(|t| t.join().unwrap()).collect();
    answered.sort_by_key(|(_, elapsed)| *elapsed);
    for (n, (status, elapsed)) in answered.into_iter().enumerate() {
        assert_eq!(status, 200);
        assert!(elapsed >= Duration::from_millis(250) * n as u32, "number {n} was let go after {elapsed:?}");
    }
    assert_eq!(requests.load(Ordering::SeqCst), 4);
}

#[test]
fn a_paced_request_waits_for_its_turn_and_one_that_leaves_gives_it_back() {
    let (engine, requests) = counting(&Arc::default());
    // One an hour; nobody waits for two.
    let paced = json!({"leakyBucket": {"burst": 10, "maxWaitMillis": HOUR + HOUR / 2}});
    let proxy = Proxy::with_document(engine.address, &limited(&paced, 1, Some(HOUR)));
    assert_eq!(proxy.ask(GET).status, 200);
    for _ in 0..3 {
        let mut client = proxy.connect();
        client.send(GET);
        until("it waits", || proxy.in_flight() == 1);
        drop(client);
        proxy.settled();
    }
    let mut client = proxy.connect();
    client.send(GET);
    until("it waits", || proxy.in_flight() == 1);
    assert_eq!(proxy.ask(GET).status, 429, "who would wait longer is refused");
    assert_eq!(requests.load(Ordering::SeqCst), 1, "and none of them was sent");
}

#[test]
fn a_permit_is_held_until_the_response_has_ended_or_its_client_has_left() {
    let hold = Arc::new(AtomicBool::new(true));
    let (engine, requests) = counting(&hold);
    let proxy = Proxy::with_document(engine.address, &limited(&json!("concurrency"), 1, None));
    let mut leaves = proxy.connect();
    leaves.send(GET);
    until("it is in flight", || requests.load(Ordering::SeqCst) == 1);
    let refused = proxy.ask(GET);
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    drop(leaves);
    proxy.settled();
    let mut stays = proxy.connect();
    stays.send(GET);
    until("it is in flight", || requests.load(Ordering::SeqCst) == 2);
    assert_eq!(proxy.ask(GET).status, 429);
    hold.store(false, Ordering::SeqCst);
    assert_eq!(stays.response().status, 200);
    proxy.settled();
    assert_eq!(proxy.ask(GET).status, 200);
}

#[test]
fn a_key_can_be_the_method() {
    let (engine, _) = counting(&Arc::default());
    let mut document = serde_json::to_value(limited(&json!("fixedWindow"), 1, Some(31 * 24 * HOUR))).unwrap();
    document["limits"][0]["key"] = json!(["method"]);
    let document = PolicyDocument::from_json(document.to_string().as_bytes()).unwrap();
    let proxy = Proxy::with_document(engine.address, &document);
    for (method, status) in [("GET", 200), ("GET", 429), ("PUT", 200), ("PUT", 429)] {
        assert_eq!(proxy.ask(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).status, status, "{method}");
    }
}
