//! The load generator, against servers whose behaviour is known.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, http::HeaderMap, response::IntoResponse, routing::post};
use tidegate_e2e::load::{self, Mix, Outcome, Spec, plan};
use tidegate_policy::PriorityClass;

async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

fn spec(address: SocketAddr, rate: f64, seconds: f64) -> Spec {
    let plan = plan::constant(rate, Duration::from_secs_f64(seconds), Mix::default(), 5, 5);
    Spec::new(&format!("http://{address}/v1/completions"), plan)
}

/// Serves high, refuses low with a reason, fails medium.
async fn by_priority(headers: HeaderMap) -> impl IntoResponse {
    match headers.get("x-priority").and_then(|value| value.to_str().ok()) {
        Some("high") => (axum::http::StatusCode::OK, HeaderMap::new(), "fine"),
        Some("low") => {
            let mut headers = HeaderMap::new();
            headers.insert("x-tidegate-reason", "qps-tier; policy=a/b; rule=tiers.qps".parse().unwrap());
            headers.insert("retry-after", "2".parse().unwrap());
            headers.insert("retry-after-ms", "1500".parse().unwrap());
            (axum::http::StatusCode::TOO_MANY_REQUESTS, headers, "no")
        }
        _ => (axum::http::StatusCode::BAD_GATEWAY, HeaderMap::new(), "broken"),
    }
}

#[tokio::test]
async fn every_answer_is_counted_by_priority_status_and_cause() {
    let address = serve(Router::new().route("/v1/completions", post(by_priority))).await;
    let report = load::run(spec(address, 200.0, 0.5)).await.unwrap();
    let counts = |class| report.counts(Some(class));
    assert_eq!(report.samples.len(), 100);
    assert_eq!(counts(PriorityClass::High).served, counts(PriorityClass::High).sent);
    assert_eq!(counts(PriorityClass::Low).refused, counts(PriorityClass::Low).sent);
    assert_eq!(counts(PriorityClass::Medium).failed, counts(PriorityClass::Medium).sent);
    assert_eq!(report.causes(None), [("qps-tier", counts(PriorityClass::Low).sent)].into());
    let refused = report.samples.iter().find(|sample| sample.refused()).unwrap();
    assert_eq!(refused.retry_after, Some(Duration::from_millis(1500)));
    assert!((28..=32).contains(&counts(PriorityClass::Low).sent), "{}", report.table());
}

#[tokio::test]
async fn latency_counts_from_the_planned_time_while_the_server_stalls() {
    let slow = || async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        "late"
    };
    let address = serve(Router::new().route("/v1/completions", post(slow))).await;
    let report = load::run(spec(address, 100.0, 0.5)).await.unwrap();
    assert_eq!(report.counts(None).served, 50, "answers are not waited for: {}", report.table());
    assert!(report.total(None).p50 >= Duration::from_secs(1));
    // One after the other they would leave over fifty seconds.
    let lateness = report.lateness();
    assert!(lateness.p50 < Duration::from_secs(10), "{lateness:?}");
}

#[tokio::test]
async fn each_request_has_its_time_by_the_plan() {
    let address = serve(Router::new().route("/v1/completions", post(|| async { "ok" }))).await;
    let report = load::run(spec(address, 300.0, 1.0)).await.unwrap();
    let mut times: Vec<Duration> = report.samples.iter().map(|sample| sample.at).collect();
    times.sort_unstable();
    assert_eq!(times.len(), 300);
    assert!(times[299].abs_diff(Duration::from_secs_f64(299.0 / 300.0)) < Duration::from_micros(1));
}

#[tokio::test]
async fn retry_after_is_honoured_only_when_asked() {
    let calls = Arc::new(AtomicUsize::new(0));
    let handler = |State(calls): State<Arc<AtomicUsize>>| async move {
        let mut headers = HeaderMap::new();
        headers.insert("x-tidegate-reason", "limit; policy=a/b; rule=r".parse().unwrap());
        headers.insert("retry-after-ms", "50".parse().unwrap());
        match calls.fetch_add(1, Ordering::Relaxed) {
            0 => (axum::http::StatusCode::TOO_MANY_REQUESTS, headers).into_response(),
            _ => "now".into_response(),
        }
    };
    let router = Router::new().route("/v1/completions", post(handler)).with_state(Arc::clone(&calls));
    let address = serve(router).await;
    let once = load::run(spec(address, 10.0, 0.1)).await.unwrap();
    assert!(once.samples[0].refused() && once.samples[0].attempts == 1);
    calls.store(0, Ordering::Relaxed);
    let again = load::run(Spec { retries: 1, ..spec(address, 10.0, 0.1) }).await.unwrap();
    assert!(again.samples[0].served() && again.samples[0].attempts == 2);
    assert!(again.samples[0].total >= Duration::from_millis(50));
}

#[tokio::test]
async fn an_answer_that_never_comes_and_a_server_that_is_not_there_are_lost_with_a_reason() {
    let never = || std::future::pending::<&'static str>();
    let address = serve(Router::new().route("/v1/completions", post(never))).await;
    let timeout = Duration::from_millis(50);
    let report = load::run(Spec { timeout, ..spec(address, 10.0, 0.1) }).await.unwrap();
    assert_eq!(report.samples[0].outcome, Outcome::Lost { error: "no answer within 0.05 s".to_owned() });
    // A port that no kernel gives away by itself.
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let report = load::run(spec(nobody, 10.0, 0.1)).await.unwrap();
    let losses = report.losses();
    assert!(losses.keys().next().unwrap().starts_with("cannot connect to"), "{losses:?}");
}
