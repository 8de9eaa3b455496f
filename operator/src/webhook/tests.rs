use axum::body::Body;
use base64::Engine;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{LimitRange, Pod};
use serde_json::{Value, json};
use tidegate_crds::RateLimitPolicy;
use tidegate_operator_core::inject::Interception;
use tidegate_operator_core::key::PodKey;
use tower::ServiceExt;

use super::*;
use crate::fake_api::FakeApi;
use crate::world::Feed;
use crate::world::testing::sync_everything;

const POLICIES: &str = "/apis/tidegate.dev/v1alpha1/namespaces/inference/ratelimitpolicies";

struct Bench {
    api: FakeApi,
    world: Arc<World>,
    metrics: Metrics,
    router: Router,
}

fn settings() -> SidecarSettings {
    SidecarSettings {
        version: "0.1.0".to_owned(),
        image: "sidecar:1".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        pull_secrets: Vec::new(),
        operator_url: "https://o:1".to_owned(),
        agent_url: None,
        log_level: "info".to_owned(),
        proxy_port: 15120,
        admin_port: 15121,
        interception: Interception::Auto,
        tracing: None,
        resources: tidegate_operator_core::inject::SidecarResources::default(),
    }
}

fn bench() -> Bench {
    let api = FakeApi::default();
    let world = Arc::new(World::default());
    let metrics = Metrics::default();
    let trust = Trust { bundle: Arc::from("PEM") };
    let (_, trust) = watch::channel(Some(trust));
    let namespace =
        json!({"metadata": {"name": "inference", "labels": {"tidegate.dev/injection": "enabled"}}});
    api.put("/api/v1/namespaces/inference", namespace);
    let router = Webhook::new(api.client(), Arc::clone(&world), settings(), trust, metrics.clone()).router();
    Bench { api, world, metrics, router }
}

fn policy(limit: i64) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "RateLimitPolicy",
        "metadata": {"name": "llama", "namespace": "inference"},
        "spec": {
            "targetRefs": [{"group": "apps", "kind": "Deployment", "name": "llama"}],
            "limits": [{"name": "per-user", "key": [{"header": "x-api-key"}], "algorithm": "TokenBucket", "limit": limit, "window": "1m"}],
        },
    })
}

fn pod(labels: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "llama-abc-", "namespace": "inference", "labels": labels,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "llama-abc", "uid": "u", "controller": true}],
        },
        "spec": {"containers": [{"name": "engine", "image": "e", "ports": [{"containerPort": 8000}], "future": 1}]},
    })
}

fn review(kind: (&str, &str), operation: &str, object: &Value) -> Value {
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "0c9a8d74", "kind": {"group": kind.0, "version": "v1", "kind": kind.1},
            "resource": {"group": kind.0, "version": "v1", "resource": "x"},
            "namespace": "inference", "operation": operation, "userInfo": {"username": "u"},
            "object": object, "oldObject": null, "dryRun": false, "options": {"kind": "CreateOptions"},
        },
    })
}

async fn post(router: &Router, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    let request = Request::post(path).header("content-type", "application/json").body(body.into()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (
        status,
        serde_json::from_slice(&bytes).unwrap_or(Value::from(String::from_utf8_lossy(&bytes).into_owned())),
    )
}

async fn mutate(bench: &Bench, object: &Value) -> Value {
    let (status, answer) =
        post(&bench.router, "/mutate", review(("", "Pod"), "CREATE", object).to_string()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["response"]["uid"], "0c9a8d74");
    assert_eq!(answer["response"]["allowed"], true);
    answer["response"].clone()
}

async fn validate(bench: &Bench, operation: &str, object: &Value) -> Value {
    let review = review(("tidegate.dev", "RateLimitPolicy"), operation, object);
    let (status, answer) = post(&bench.router, "/validate", review.to_string()).await;
    assert_eq!(status, StatusCode::OK);
    answer["response"].clone()
}

/// As the API server would.
fn patched(object: &Value, response: &Value) -> Value {
    let text = response["patch"].as_str().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&bytes).unwrap();
    let mut object = object.clone();
    json_patch::patch(&mut object, &patch).unwrap();
    object
}

#[tokio::test]
async fn a_pod_is_injected_by_a_policy_that_the_watch_has_not_brought_yet() {
    let bench = bench();
    bench.api.put(&format!("{POLICIES}/llama"), policy(60));
    let pod = pod(&json!({"pod-template-hash": "abc"}));
    let response = mutate(&bench, &pod).await;
    let patched = patched(&pod, &response);
    assert_eq!(patched["spec"]["initContainers"][1]["name"], "tidegate-sidecar");
    assert_eq!(patched["spec"]["containers"][0]["future"], 1);
    let annotations = &patched["metadata"]["annotations"];
    assert_eq!(annotations["tidegate.dev/ca-bundle"], "PEM");
    let snapshot = annotations["tidegate.dev/policy-snapshot"].as_str().unwrap();
    let json = tidegate_operator_core::inject::decode_snapshot(snapshot).unwrap();
    assert_eq!(tidegate_policy::PolicyDocument::from_json(&json).unwrap().limits.len(), 1);
}

#[tokio::test]
async fn a_new_pod_is_born_with_what_its_siblings_have_learned() {
    let bench = bench();
    sync_everything(&bench.world);
    let mut learned = policy(60);
    learned["spec"]["tiers"] = json!({"qps": {"learned": {}}});
    bench.world.feed(Feed::Apply(serde_json::from_value::<RateLimitPolicy>(learned).unwrap()));
    let new = pod(&json!({"pod-template-hash": "abc"}));
    let mut sibling = new.clone();
    sibling["metadata"]["name"] = json!("llama-abc-1");
    sibling["metadata"]["uid"] = json!("u1");
    bench.world.feed(Feed::Apply(serde_json::from_value::<Pod>(sibling).unwrap()));
    let tier = json!({
        "tier": "Qps", "policy": "inference/llama", "mode": "Enforce", "state": "Normal", "shedding": false,
        "unit": "requests/s", "pressure": 0.0, "baseline": 40.0,
    });
    let report = json!({
        "version": "0.1.0", "revision": "r",
        "status": {"revision": "r", "pressure": 0.0, "inFlight": 0, "tiers": [tier], "limits": []},
    });
    let key = PodKey::new("inference", "llama-abc-1");
    assert!(bench.world.report(&key, "u1", serde_json::from_value(report).unwrap()).is_some());
    let patched = patched(&new, &mutate(&bench, &new).await);
    let snapshot = patched["metadata"]["annotations"]["tidegate.dev/policy-snapshot"].as_str().unwrap();
    let json = tidegate_operator_core::inject::decode_snapshot(snapshot).unwrap();
    let document = tidegate_policy::PolicyDocument::from_json(&json).unwrap();
    let seed = document.tiers.unwrap().qps.unwrap().learned.unwrap().seed;
    assert_eq!(seed.map(tidegate_policy::Rate::get), Some(40.0));
}

#[tokio::test]
async fn a_pod_without_a_policy_is_left_alone_and_one_that_asks_is_not() {
    let bench = bench();
    let response = mutate(&bench, &pod(&json!({}))).await;
    assert_eq!((&response["patch"], &response["warnings"]), (&Value::Null, &Value::Null));
    let asking = pod(&json!({"tidegate.dev/inject": "enabled"}));
    let response = mutate(&bench, &asking).await;
    assert!(patched(&asking, &response)["metadata"]["annotations"]["tidegate.dev/injected"].is_string());
    let text = bench.metrics.encode().unwrap();
    assert!(text.contains(r#"tidegate_injections_total{outcome="skipped",reason="NoPolicy"} 1"#), "{text}");
    assert!(text.contains(r#"tidegate_injections_total{outcome="injected",reason=""} 1"#), "{text}");
}

#[tokio::test]
async fn in_a_namespace_with_a_limit_range_the_sidecar_keeps_within_it() {
    let bench = bench();
    sync_everything(&bench.world);
    let range = json!({
        "metadata": {"name": "containers", "namespace": "inference"},
        "spec": {"limits": [{"type": "Container", "min": {"cpu": "200m"}, "max": {"memory": "96Mi"}}]},
    });
    let range: LimitRange = serde_json::from_value(range).unwrap();
    bench.world.feed(Feed::Apply(range.clone()));
    let asking = pod(&json!({"tidegate.dev/inject": "enabled"}));
    let resources = async || {
        let patched = patched(&asking, &mutate(&bench, &asking).await);
        patched["spec"]["initContainers"][1]["resources"].clone()
    };
    let bound = json!({"requests": {"cpu": "200m", "memory": "32Mi"}, "limits": {"memory": "96Mi"}});
    assert_eq!(resources().await, bound);
    bench.world.feed(Feed::Delete(range));
    let free = json!({"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}});
    assert_eq!(resources().await, free);
}

#[tokio::test]
async fn a_pod_that_asked_in_vain_is_told_why() {
    let bench = bench();
    let mut asking = pod(&json!({"tidegate.dev/inject": "enabled"}));
    asking["spec"]["hostNetwork"] = json!(true);
    let response = mutate(&bench, &asking).await;
    assert_eq!(patched(&asking, &response)["metadata"]["annotations"]["tidegate.dev/skipped"], "HostNetwork");
    assert_eq!(
        response["warnings"][0],
        "tidegate: no sidecar: HostNetwork: hostNetwork is true: use the pod network"
    );
}

#[tokio::test]
async fn an_api_server_that_fails_does_not_stop_a_pod() {
    let bench = bench();
    bench.api.fail(Some(StatusCode::INTERNAL_SERVER_ERROR));
    let response = mutate(&bench, &pod(&json!({}))).await;
    assert_eq!(response["patch"], Value::Null);
}

#[tokio::test]
async fn what_is_no_new_pod_passes_untouched() {
    let bench = bench();
    for (kind, operation) in
        [(("", "Pod"), "UPDATE"), (("apps", "Deployment"), "CREATE"), (("", "Pod"), "DELETE")]
    {
        let review = review(kind, operation, &Value::Null).to_string();
        let (status, answer) = post(&bench.router, "/mutate", review).await;
        assert_eq!((status, &answer["response"]["allowed"]), (StatusCode::OK, &json!(true)));
    }
    let garbage = mutate(&bench, &json!({"metadata": 7})).await;
    assert_eq!(garbage["patch"], Value::Null);
}

#[tokio::test]
async fn bad_bodies_are_answered_with_400_and_one_line() {
    let bench = bench();
    let old = json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"}).to_string();
    let empty = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}).to_string();
    let broken =
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": 7}})
            .to_string();
    for body in [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "\u{0}".to_owned(),
        old,
        empty,
        broken,
    ] {
        for path in ["/mutate", "/validate"] {
            let (status, answer) = post(&bench.router, path, body.clone()).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
            assert_eq!(answer.as_str().unwrap().matches('\n').count(), 1, "{answer}");
        }
    }
}

#[tokio::test]
async fn a_body_without_end_is_refused() {
    let bench = bench();
    let (status, _) = post(&bench.router, "/mutate", vec![b' '; MAX_BODY + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_policy_with_a_mistake_is_refused_with_what_to_write() {
    let bench = bench();
    assert_eq!(validate(&bench, "CREATE", &policy(60)).await["allowed"], true);
    let mut bad = policy(60);
    bad["spec"]["limits"][0]["window"] = json!("ten minutes");
    let response = validate(&bench, "UPDATE", &bad).await;
    assert_eq!(response["allowed"], false);
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("spec.limits[0].window: "), "{message}");
    assert_eq!(response["status"]["code"], 422);
}

#[tokio::test]
async fn delete_is_never_refused() {
    let bench = bench();
    let mut bad = policy(60);
    bad["spec"]["limits"][0]["window"] = json!("ten minutes");
    assert_eq!(validate(&bench, "DELETE", &bad).await["allowed"], true);
    assert_eq!(validate(&bench, "DELETE", &Value::Null).await["allowed"], true);
}
