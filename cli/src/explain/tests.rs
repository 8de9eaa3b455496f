use super::*;
use crate::fake_api::FakeApi;

const POLICIES: &str = "/apis/tidegate.dev/v1alpha1/namespaces/inference/ratelimitpolicies";
const PODS: &str = "/api/v1/namespaces/inference/pods";
const STATUS: &str = "/api/v1/namespaces/inference/pods/llama-0:15121/proxy/throttle/status";

fn cluster() -> FakeApi {
    let api = FakeApi::default();
    api.put(
        POLICIES,
        "
metadata: {name: all, creationTimestamp: '2026-01-01T00:00:00Z'}
spec:
  tiers: {qps: {max: 5}}
  limits: [{name: per-user, key: [{header: x-user}], limit: 10, window: 1m}]
---
metadata: {name: llama, creationTimestamp: '2026-01-02T00:00:00Z'}
spec: {selector: {matchLabels: {app: llama}}, tiers: {qps: {max: 9}}}
---
metadata: {name: mistral}
spec: {targetRefs: [{group: apps, kind: Deployment, name: mistral}], tiers: {qps: {max: 9}}}
---
metadata: {name: wrong}
spec: {tiers: {latency: {max: 99999h}}}
",
    );
    api.put(
        PODS,
        "
metadata: {name: llama-0, labels: {app: llama}, annotations: {tidegate.dev/injected: 0.1.0}}
spec: {initContainers: [{name: tidegate-sidecar, image: 's:1'}], containers: [{name: engine}]}
---
metadata: {name: bare, labels: {app: bare}}
spec: {containers: [{name: engine, ports: [{containerPort: 8000}]}]}
",
    );
    api.put(
        "/api/v1/namespaces/inference/services",
        "{metadata: {name: llama}, spec: {selector: {app: llama}}}",
    );
    api
}

#[tokio::test]
async fn a_pod_is_explained_by_policies_in_their_order_and_rules_with_their_state() {
    let api = cluster();
    let first = report(&api.cluster(), "llama-0").await.unwrap();
    let revision = first.revision.clone();
    let page = serde_json::json!({
        "version": "0.1.0", "policySource": "stream", "operatorConnected": true, "draining": false,
        "revision": revision, "pressure": 0.0, "inFlight": 1,
        "tiers": [{
            "tier": "Qps", "policy": "inference/llama", "mode": "Enforce", "state": "Normal", "shedding": false,
            "value": 2.0, "threshold": 9.0, "unit": "requests/s", "pressure": 0.1,
        }],
        "limits": [{"policy": "inference/all", "name": "per-user", "mode": "Enforce", "keys": 4, "refused": 2}],
    });
    api.answer(&format!("GET {STATUS}"), 200, page);
    let report = report(&api.cluster(), "llama-0").await.unwrap();
    let expected = format!(
        "\
Pod inference/llama-0
  sidecar:   0.1.0
             from stream, connected to the operator
  obeys:     revision {revision}, the newest
  Services:  llama

Policies that act on it; where two decide the same, the upper one does:
  1. RateLimitPolicy llama
       selects it by labels of the pod: pods with app=llama, created 2026-01-02T00:00:00Z
       decides tiers
  2. RateLimitPolicy all
       selects it by every pod of the namespace: every pod of the namespace, created 2026-01-01T00:00:00Z
       decides limits
       lost tiers to RateLimitPolicy llama

Policies of the namespace that do not act on it:
  RateLimitPolicy mistral: it targets pods of Deployment mistral
  RateLimitPolicy wrong: it is invalid: "
    );
    let text = text(&report);
    assert!(text.starts_with(&expected), "{text}");
    let rules = "
RULE             POLICY            MODE      NOW
tier qps         inference/llama   Enforce   normal, 2.0 of 9.0 requests/s
limit per-user   inference/all     Enforce   4 keys, 2 refused
";
    assert!(text.ends_with(rules), "{text}");
}

#[tokio::test]
async fn a_pod_without_a_sidecar_is_told_why_by_the_webhook_s_own_code() {
    let api = cluster();
    let namespaces = "/api/v1/namespaces";
    for (labels, expected) in [
        ("{}", "NotRequested"),
        ("{tidegate.dev/injection: enabled}", "it was created before it could have one"),
        ("{tidegate.dev/injection: enabled, istio-injection: enabled}", "OtherMesh: Istio redirects"),
    ] {
        api.put(namespaces, &format!("{{metadata: {{name: inference, labels: {labels}}}}}"));
        let report = report(&api.cluster(), "bare").await.unwrap();
        let verdict = report.if_created_now.unwrap();
        assert!(
            verdict.starts_with(expected) || verdict.contains("kubectl label namespace inference"),
            "{verdict}"
        );
        assert_eq!(report.acting.len(), 1, "the default of the namespace");
        assert_eq!(report.rules.iter().map(|rule| &rule.state).collect::<Vec<_>>(), [&None, &None]);
    }
}

#[tokio::test]
async fn a_policy_of_a_pool_acts_on_the_pool_s_pods() {
    let api = cluster();
    let version = serde_json::json!({"groupVersion": "inference.networking.k8s.io/v1", "version": "v1"});
    let group = serde_json::json!({
        "name": "inference.networking.k8s.io", "versions": [version], "preferredVersion": version,
    });
    api.answer("GET /apis", 200, serde_json::json!({"groups": [group]}));
    api.put(
        "/apis/inference.networking.k8s.io/v1/namespaces/inference/inferencepools",
        "{apiVersion: inference.networking.k8s.io/v1, kind: InferencePool, metadata: {name: pool}, spec: {selector: {matchLabels: {app: llama}}, targetPorts: [{number: 8000}]}}",
    );
    api.put(
        POLICIES,
        "{metadata: {name: of-pool}, spec: {targetRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: pool}], tiers: {latency: {max: 8s}}}}",
    );
    let report = report(&api.cluster(), "llama-0").await.unwrap();
    let names: Vec<_> = report.acting.iter().map(|acting| acting.name.as_str()).collect();
    assert_eq!(names, ["llama", "of-pool", "all"]);
    assert_eq!(report.acting[1].target, "pods of InferencePool pool");
}

#[tokio::test]
async fn a_pod_that_is_not_there_is_an_error_with_a_hint() {
    let refused = report(&cluster().cluster(), "nobody").await.unwrap_err();
    assert_eq!(
        refused.lines().collect::<Vec<_>>(),
        ["pod inference/nobody: nobody not found: write its namespace with -n"]
    );
}
