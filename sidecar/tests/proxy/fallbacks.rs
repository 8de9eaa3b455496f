//! What answers in place of the engine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::breaker::breaker;
use crate::decisions::{code, document};
use crate::nobody::nobody;
use crate::support::{Engine, Proxy, ok, until};

const FAILED: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\noops";

fn proxy(engine: SocketAddr, on: &[&str], to: &[Value]) -> Proxy {
    let parts = breaker(&json!({"fallbacks": {"on": on, "to": to}}));
    Proxy::with_document(engine, &document("1", &parts))
}

fn post(body: &str, fields: &str) -> String {
    format!(
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn url(engine: &Engine) -> String {
    format!("http://{}", engine.address)
}

/// Fails until it is told not to.
fn failing() -> (Engine, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let engine = Engine::answering(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        FAILED.to_owned()
    });
    (engine, requests)
}

/// Answers with what it got.
fn echo() -> Engine {
    Engine::answering(|request| {
        let marked = request.header("x-tidegate-fallback").unwrap_or_default();
        let credentials = request.header("authorization").unwrap_or_default();
        let line = request.head.lines().next().unwrap();
        ok(&format!("{line}|{marked}|{credentials}|{}", String::from_utf8_lossy(&request.body)))
    })
}

fn open(proxy: &Proxy) {
    for _ in 0..2 {
        assert_eq!(proxy.ask(&post("{}", "")).status, 500);
    }
}

#[test]
fn while_it_is_open_another_server_answers_without_the_client_s_credentials() {
    let ((engine, requests), other) = (failing(), echo());
    let proxy = proxy(engine.address, &["Open"], &[json!({"send": {"url": url(&other)}})]);
    open(&proxy);
    let mut client = proxy.connect();
    for body in ["{\"a\":1}", "{\"a\":2}"] {
        client.send(&post(body, "Authorization: Bearer a\r\n"));
        let answer = client.response();
        assert_eq!(answer.text(), format!("POST /v1/completions HTTP/1.1|1||{body}"));
        assert_eq!(answer.header("x-tidegate-fallback"), Some("url"));
        let reason = "breaker-open; policy=shop/pay; rule=trip.consecutiveFailures";
        assert_eq!(answer.header("x-tidegate-reason"), Some(reason));
    }
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    assert_eq!(proxy.metric(r#"tidegate_fallbacks_total{kind="url",outcome="answered"}"#), 2);
}

#[test]
fn a_service_gets_the_credentials_another_path_and_another_model() {
    let ((engine, _), other) = (failing(), echo());
    let to = json!({"send": {"url": url(&other), "inCluster": true, "path": "/v2?x=1", "model": "small"}});
    let proxy = proxy(engine.address, &["Open"], &[to]);
    open(&proxy);
    let answer = proxy.ask(&post(r#"{"model": "large", "n": 1.0}"#, "Authorization: Bearer a\r\n"));
    let expected = r#"POST /v2?x=1 HTTP/1.1|1|Bearer a|{"model": "small", "n": 1.0}"#;
    assert_eq!((answer.text(), answer.header("x-tidegate-fallback")), (expected, Some("service")));
}

#[test]
fn a_large_body_goes_on_as_it_comes_and_is_not_rewritten() {
    let ((engine, _), other) = (failing(), echo());
    let large = format!(r#"{{"model": "large", "prompt": "{}"}}"#, "x".repeat(300_000));
    let rewriting = proxy(engine.address, &["Open"], &[json!({"send": {"model": "small"}})]);
    open(&rewriting);
    let refused = rewriting.ask(&post(&large, ""));
    assert_eq!((refused.status, code(&refused).as_str()), (503, "breaker-open"));
    let reason = refused.header("x-tidegate-reason").unwrap();
    assert!(reason.ends_with("; fallback=body-too-large"), "{reason}");
    let passing = proxy(engine.address, &["Open"], &[json!({"send": {"url": url(&other)}})]);
    open(&passing);
    let answer = passing.ask(&post(&large, ""));
    assert!(answer.text().ends_with(&large), "{} bytes", answer.body.len());
}

#[test]
fn another_model_of_the_same_engine_answers_while_it_is_open() {
    let engine = Engine::answering(|request| {
        let body = String::from_utf8_lossy(&request.body);
        if body.contains("small") { ok(&body) } else { FAILED.to_owned() }
    });
    let proxy = proxy(engine.address, &["Open"], &[json!({"send": {"model": "small"}})]);
    open(&proxy);
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nc\r\n{\"model\":\"a\"\r\n1\r\n}\r\n0\r\n\r\n";
    let answer = proxy.ask(chunked);
    assert_eq!(
        (answer.text(), answer.header("x-tidegate-fallback")),
        (r#"{"model":"small"}"#, Some("model"))
    );
    let unnamed = proxy.ask(&post("{}", ""));
    let reason = unnamed.header("x-tidegate-reason").unwrap();
    assert!(unnamed.status == 503 && reason.ends_with("; fallback=no-model-in-body"), "{reason}");
}

#[test]
fn they_are_tried_in_their_order_and_a_static_answer_is_as_it_is_written() {
    let ((engine, _), (broken, asked)) = (failing(), failing());
    let to = [
        json!({"send": {"url": format!("http://{}", nobody())}}),
        json!({"send": {"url": url(&broken)}}),
        json!({"path": "/fallback"}),
        json!({"static": {"status": 429, "contentType": "text/plain", "body": "busy {{\"x\"}}"}}),
    ];
    let proxy = proxy(engine.address, &["Open"], &to);
    open(&proxy);
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send(&post("{}", ""));
        let answer = client.response();
        assert_eq!((answer.status, answer.text()), (429, "busy {{\"x\"}}"));
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        assert_eq!(answer.header("x-tidegate-fallback"), Some("static"));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    for kind in ["url", "path"] {
        let failed = format!(r#"tidegate_fallbacks_total{{kind="{kind}",outcome="failed"}}"#);
        assert_eq!(proxy.metric(&failed), if kind == "url" { 4 } else { 2 });
    }
}

#[test]
fn what_comes_from_another_sidecar_s_fallback_is_not_sent_on() {
    let ((engine, _), other) = (failing(), echo());
    let proxy = proxy(engine.address, &["Open"], &[json!({"send": {"url": url(&other)}})]);
    open(&proxy);
    let refused = proxy.ask(&post("{}", "X-Tidegate-Fallback: 1\r\n"));
    assert_eq!(refused.status, 503);
    assert!(refused.header("x-tidegate-reason").unwrap().ends_with("; fallback=loop"));
}

#[test]
fn only_what_the_policy_names_is_answered_by_something_else() {
    let (engine, _) = failing();
    let answer = json!({"static": {"status": 200, "contentType": "text/plain", "body": "calm"}});
    let only_open = proxy(engine.address, &["Open"], std::slice::from_ref(&answer));
    assert_eq!(only_open.ask(&post("{}", "")).status, 500);
    let only_failures = proxy(engine.address, &["Failure"], std::slice::from_ref(&answer));
    for _ in 0..2 {
        let replaced = only_failures.ask(&post("{}", ""));
        assert_eq!((replaced.text(), replaced.header("x-tidegate-reason")), ("calm", Some("engine-failed")));
    }
    assert_eq!(only_failures.ask(&post("{}", "")).status, 503, "it has opened, and then nothing answers");
    let unreachable = proxy(nobody(), &["ConnectFailure"], &[answer]);
    assert_eq!(unreachable.ask(&post("{}", "")).text(), "calm");
}

#[test]
fn a_post_that_the_engine_may_have_worked_on_is_never_sent_to_it_again() {
    let ((engine, requests), other) = (failing(), echo());
    let to = [
        json!({"path": "/again"}),
        json!({"send": {"model": "small"}}),
        json!({"send": {"url": url(&other), "inCluster": true}}),
    ];
    let proxy = proxy(engine.address, &["Failure"], &to);
    let answer = proxy.ask(&post(r#"{"model":"large"}"#, ""));
    assert_eq!(answer.text(), r#"POST /v1/completions HTTP/1.1|1||{"model":"large"}"#);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    assert_eq!(proxy.metric(r#"tidegate_fallbacks_total{kind="path",outcome="skipped"}"#), 1);
}

#[test]
fn an_engine_that_is_late_is_replaced_before_its_head_and_never_behind_it() {
    let silent = Engine::new(|_, mut peer| {
        peer.request();
        peer.rest();
    });
    let stalling = Engine::new(|_, mut peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        peer.rest();
    });
    let parts = |timeout: u64| {
        breaker(&json!({"timeoutMillis": timeout, "fallbacks": {"on": ["Timeout"], "to": [
            {"static": {"status": 200, "contentType": "text/plain", "body": "calm"}}]}}))
    };
    let replaced = Proxy::with_document(silent.address, &document("1", &parts(150))).ask(&post("{}", ""));
    assert_eq!((replaced.text(), replaced.header("x-tidegate-reason")), ("calm", Some("engine-timeout")));
    // Time enough for the head, on a busy machine too.
    let cut = Proxy::with_document(stalling.address, &document("1", &parts(10_000))).ask(&post("{}", ""));
    assert!(cut.status == 200 && cut.text().contains("engine-timeout"), "{}", cut.text());
}

#[test]
fn a_failure_that_nothing_replaces_is_passed_on_as_it_came() {
    let (engine, _) = failing();
    let proxy =
        proxy(engine.address, &["Failure"], &[json!({"send": {"url": format!("http://{}", nobody())}})]);
    let answer = proxy.ask(&post("{}", ""));
    assert_eq!((answer.status, answer.text(), answer.header("x-tidegate-fallback")), (500, "oops", None));
}

/// Answers each question with the number of its answer until it breaks.
fn breaking(kind: &'static str, end: &'static str) -> (Engine, Arc<AtomicBool>) {
    let (broken, answers) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    let breaks = broken.clone();
    let engine = Engine::answering(move |_| {
        if breaks.load(Ordering::SeqCst) {
            return FAILED.to_owned();
        }
        let body = format!("data: {}\n\n{end}", answers.fetch_add(1, Ordering::SeqCst));
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
    });
    (engine, broken)
}

fn cache() -> Value {
    cache_for(60_000)
}

fn cache_for(millis: u64) -> Value {
    json!({"cache": {"ttlMillis": millis, "maxEntries": 10, "maxBytes": 1 << 20}})
}

#[test]
fn the_last_answer_to_the_same_question_of_the_same_tenant_is_given_again() {
    let (engine, broken) = breaking("text/event-stream", "data: [DONE]\n\n");
    let proxy = proxy(engine.address, &["Open"], &[cache()]);
    let ask = |key: &str, body: &str| proxy.ask(&post(body, &format!("X-Api-Key: {key}\r\n")));
    let first = ask("one", "{\"q\":1}");
    assert_eq!(first.text(), "data: 0\n\ndata: [DONE]\n\n");
    proxy.settled();
    broken.store(true, Ordering::SeqCst);
    open(&proxy);
    let again = ask("one", "{\"q\":1}");
    assert_eq!((again.status, again.text()), (200, first.text()));
    assert_eq!(again.header("content-type"), Some("text/event-stream"));
    assert_eq!(again.header("x-tidegate-fallback"), Some("cache"));
    let age: u64 = again.header("age").unwrap().parse().unwrap();
    assert!(age <= 60, "{age} s");
    for (key, body) in [("two", "{\"q\":1}"), ("one", "{\"q\":2}")] {
        let refused = ask(key, body);
        assert_eq!(refused.status, 503, "{key} {body}");
        assert!(refused.header("x-tidegate-reason").unwrap().ends_with("; fallback=not-cached"));
    }
}

#[test]
fn a_header_that_is_stripped_still_tells_tenants_apart() {
    let (engine, broken) = breaking("text/plain", "");
    let mut parts = breaker(&json!({"fallbacks": {"to": [cache()]}}));
    parts["priority"] = json!({"from": [{"header": "x-tenant"}], "default": "Medium", "highAllowedFrom": [],
        "stripHeaders": true});
    let proxy = Proxy::with_document(engine.address, &document("1", &parts));
    let ask = |tenant: &str| proxy.ask(&post("{}", &format!("X-Tenant: {tenant}\r\n")));
    assert_eq!(ask("one").status, 200);
    proxy.settled();
    broken.store(true, Ordering::SeqCst);
    open(&proxy);
    assert_eq!((ask("one").status, ask("two").status), (200, 503));
}

#[test]
fn a_stream_that_did_not_come_to_its_end_is_never_given_again() {
    let (engine, broken) = breaking("text/event-stream", "");
    let proxy = proxy(engine.address, &["Open"], &[cache()]);
    assert_eq!(proxy.ask(&post("{}", "")).text(), "data: 0\n\n");
    proxy.settled();
    broken.store(true, Ordering::SeqCst);
    open(&proxy);
    assert_eq!(proxy.ask(&post("{}", "")).status, 503);
}

#[test]
fn an_answer_is_given_again_until_its_time_is_over() {
    let (engine, broken) = breaking("text/plain", "");
    let proxy = proxy(engine.address, &["Open"], &[cache_for(3000)]);
    let asked = Instant::now();
    assert_eq!(proxy.ask(&post("{}", "")).text(), "data: 0\n\n");
    proxy.settled();
    broken.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(proxy.ask(&post("[]", "")).status, 500);
    }
    // On a machine that stands still its time may be over already; whatever is given again is younger than it may be.
    until("it is refused", || {
        let answer = proxy.ask(&post("{}", ""));
        if answer.status == 200 {
            assert_eq!((answer.text(), answer.header("x-tidegate-fallback")), ("data: 0\n\n", Some("cache")));
            assert!(answer.header("age").unwrap().parse::<u64>().unwrap() <= 3);
            return false;
        }
        assert_eq!(answer.status, 503);
        assert!(answer.header("x-tidegate-reason").unwrap().ends_with("; fallback=not-cached"));
        true
    });
    assert!(asked.elapsed() >= Duration::from_secs(3), "given up early, after {:?}", asked.elapsed());
}

#[test]
fn only_as_many_answers_are_kept_as_the_policy_says() {
    let (engine, broken) = breaking("text/plain", "");
    let two = json!({"cache": {"ttlMillis": 3_600_000, "maxEntries": 2, "maxBytes": 1 << 20}});
    let proxy = proxy(engine.address, &["Open"], &[two]);
    let question = |number: u32| post(&number.to_string(), "");
    for number in 0..4 {
        assert_eq!(proxy.ask(&question(number)).status, 200);
        proxy.settled();
    }
    broken.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(proxy.ask(&post("[]", "")).status, 500);
    }
    let again = [0, 1, 2, 3].map(|number| proxy.ask(&question(number)).status);
    assert_eq!(again, [503, 503, 200, 200], "the last two are kept");
}
