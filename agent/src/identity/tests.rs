use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::*;

const TOKEN: &str = "head.claims.signature";

/// An API server that answers every `TokenReview` with one status, or with an error.
struct FakeApi {
    asked: AtomicUsize,
    answer: Mutex<Result<Value, u16>>,
    last: Mutex<Option<Value>>,
}

impl FakeApi {
    fn answering(status: Value) -> Arc<Self> {
        Arc::new(Self { asked: AtomicUsize::new(0), answer: Mutex::new(Ok(status)), last: Mutex::new(None) })
    }

    fn set(&self, answer: Result<Value, u16>) {
        *self.answer.lock().expect("an answer") = answer;
    }

    fn reviewer(self: &Arc<Self>) -> Reviewer {
        let api = Arc::clone(self);
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let api = Arc::clone(&api);
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        let client = kube::Client::new(service, "default");
        Reviewer::new(client, "tidegate-agent", "node-a", Arc::new(Metrics::new()))
    }

    async fn answer(&self, request: http::Request<kube::client::Body>) -> http::Response<kube::client::Body> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        assert_eq!(request.uri().path(), "/apis/authentication.k8s.io/v1/tokenreviews");
        let bytes = request.into_body().collect_bytes().await.expect("a body");
        *self.last.lock().expect("a request") = Some(serde_json::from_slice(&bytes).expect("JSON"));
        let (code, body) = match self.answer.lock().expect("an answer").clone() {
            Ok(status) => (201, review(&status)),
            Err(code) => {
                (code, json!({"kind": "Status", "status": "Failure", "code": code, "message": "busy"}))
            }
        };
        let body = kube::client::Body::from(body.to_string().into_bytes());
        http::Response::builder().status(code).body(body).expect("a response")
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn review(status: &Value) -> Value {
    json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {},
        "status": status,
    })
}

fn accepted(node: &str) -> Value {
    json!({
        "authenticated": true,
        "audiences": ["tidegate-agent"],
        "user": {
            "username": "system:serviceaccount:inference:llama",
            "extra": {
                "authentication.kubernetes.io/pod-name": ["llama-0"],
                "authentication.kubernetes.io/pod-uid": ["u-1"],
                "authentication.kubernetes.io/node-name": [node],
            },
        },
    })
}

fn without(mut status: Value, pointer: &str, key: &str) -> Value {
    let object = status.pointer_mut(pointer).and_then(Value::as_object_mut).expect("an object");
    object.remove(key).expect("a member");
    status
}

fn llama() -> PodName {
    PodName { namespace: "inference".to_owned(), name: "llama-0".to_owned() }
}

fn grow_old(reviewer: &Reviewer, by: Duration) {
    for known in reviewer.lock().values_mut() {
        known.reviewed = known.reviewed.checked_sub(by).expect("an instant in the past");
    }
}

#[tokio::test]
async fn a_token_of_a_pod_of_this_node_names_the_pod_and_is_reviewed_once() {
    let api = FakeApi::answering(accepted("node-a"));
    let reviewer = api.reviewer();
    for _ in 0..5 {
        assert_eq!(reviewer.pod_of(TOKEN).await, Ok(llama()));
    }
    assert_eq!(api.asked(), 1);
    let asked = api.last.lock().expect("a request").clone().expect("a request");
    assert_eq!(asked["spec"], json!({"token": TOKEN, "audiences": ["tidegate-agent"]}));
    grow_old(&reviewer, FRESH * 2);
    assert_eq!(reviewer.pod_of(TOKEN).await, Ok(llama()));
    assert_eq!(api.asked(), 2);
}

#[tokio::test]
async fn everybody_else_is_refused_with_the_reason() {
    let user = "/user/extra";
    let cases = [
        (json!({"authenticated": false, "error": "token expired"}), 401, "token expired"),
        (json!({}), 401, "unknown or expired"),
        (without(accepted("node-a"), "", "audiences"), 401, "not of audience tidegate-agent"),
        (
            without(accepted("node-a"), user, "authentication.kubernetes.io/pod-name"),
            403,
            "\"system:serviceaccount:inference:llama\" is not bound to a pod",
        ),
        (accepted("node-b"), 403, "of a pod on node node-b; this agent answers the pods of node node-a"),
        (
            without(accepted("node-a"), user, "authentication.kubernetes.io/node-name"),
            403,
            "Kubernetes 1.30 or newer",
        ),
    ];
    for (status, code, expected) in cases {
        let reviewer = FakeApi::answering(status.clone()).reviewer();
        let denial = reviewer.pod_of(TOKEN).await.expect_err("a denial");
        let got = match &denial {
            Denial::Unauthenticated(_) => 401,
            Denial::Forbidden(_) => 403,
            Denial::Failed(_) => 503,
        };
        assert_eq!(got, code, "{status}: {denial}");
        assert!(denial.to_string().contains(expected), "{status}: {denial}");
    }
}

#[tokio::test]
async fn garbage_never_reaches_the_api_server() {
    let api = FakeApi::answering(accepted("node-a"));
    let reviewer = api.reviewer();
    let long = format!("a.{}.c", "b".repeat(LONGEST_TOKEN));
    for garbage in ["", "password", "a.b", long.as_str()] {
        assert!(matches!(reviewer.pod_of(garbage).await, Err(Denial::Unauthenticated(_))), "{garbage}");
    }
    assert_eq!(api.asked(), 0);
}

#[tokio::test]
async fn an_outage_of_the_api_server_keeps_known_tokens_for_ten_minutes_and_lets_no_new_one_in() {
    let api = FakeApi::answering(accepted("node-a"));
    let reviewer = api.reviewer();
    reviewer.pod_of(TOKEN).await.expect("accepted");
    api.set(Err(503));
    grow_old(&reviewer, FRESH * 2);
    assert_eq!(reviewer.pod_of(TOKEN).await, Ok(llama()));
    assert!(matches!(reviewer.pod_of("another.token.here").await, Err(Denial::Failed(_))));
    grow_old(&reviewer, STALE);
    assert!(matches!(reviewer.pod_of(TOKEN).await, Err(Denial::Failed(_))));
}

#[tokio::test]
async fn a_token_that_is_denied_later_is_forgotten() {
    let api = FakeApi::answering(accepted("node-a"));
    let reviewer = api.reviewer();
    reviewer.pod_of(TOKEN).await.expect("accepted");
    api.set(Ok(json!({"authenticated": false})));
    grow_old(&reviewer, FRESH * 2);
    assert!(matches!(reviewer.pod_of(TOKEN).await, Err(Denial::Unauthenticated(_))));
    api.set(Err(503));
    assert!(matches!(reviewer.pod_of(TOKEN).await, Err(Denial::Failed(_))));
}

#[tokio::test]
async fn no_number_of_tokens_fills_the_memory() {
    let reviewer = FakeApi::answering(accepted("node-a")).reviewer();
    for number in 0..=MOST {
        reviewer.pod_of(&format!("token.{number}.s")).await.expect("accepted");
    }
    assert_eq!(reviewer.lock().len(), MOST);
    assert!(!reviewer.lock().contains_key("token.0.s"), "the oldest goes first");
}
