use serde_json::json;

use super::*;
use crate::fake_api::FakeApi;

const STATUS: &str = "/api/v1/namespaces/inference/pods/llama-0:15121/proxy/throttle/status";

fn page(refused: u64) -> serde_json::Value {
    json!({
        "version": "0.1.0", "policySource": "stream", "operatorConnected": true, "draining": false,
        "revision": "r", "pressure": 0.25, "inFlight": 7,
        "tiers": [{
            "tier": "Qps", "policy": "a/b", "mode": "Enforce", "state": "Normal", "shedding": false,
            "value": 12.5, "unit": "requests/s", "pressure": 0.1,
        }],
        "limits": [{"policy": "a/b", "name": "x", "mode": "Enforce", "keys": 4, "refused": refused}],
        "queue": {
            "policy": "a/b", "mode": "Enforce", "maxLength": 8, "length": 2, "oldestMillis": 1, "admitted": 0,
            "timedOut": 0, "evicted": 0, "refused": 0,
        },
        "breaker": {"policy": "a/c", "mode": "Enforce", "state": "HalfOpen", "consecutiveFailures": 0, "transitions": []},
    })
}

#[tokio::test]
async fn the_second_look_has_rates() {
    let api = FakeApi::default();
    let pod = |name| {
        format!(
            "{{metadata: {{name: {name}}}, spec: {{initContainers: [{{name: tidegate-sidecar}}], containers: []}}}}"
        )
    };
    api.put("/api/v1/namespaces/inference/pods", &pod("llama-0"));
    api.put("/api/v1/namespaces/inference/pods", &pod("silent"));
    api.answer(&format!("GET {STATUS}"), 200, page(10));
    let mut before = Before::new();
    let first = look_at(&api.cluster(), false, &mut before).await.unwrap();
    assert_eq!(first.pods[0].refused_by_limits_per_second, None);
    // Two seconds ago, as far as the second look knows.
    let name = ("inference".to_owned(), "llama-0".to_owned());
    let (_, when) = before[&name];
    before.insert(name, (10, when.checked_sub(Duration::from_secs(2)).unwrap()));
    api.answer(&format!("GET {STATUS}"), 200, page(30));
    let second = look_at(&api.cluster(), false, &mut before).await.unwrap();
    let text = text(&second);
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some("NAMESPACE   POD       REQ/S   IN FLIGHT   QUEUE   PRESSURE   LIMITED/S   TIERS        BREAKER")
    );
    let row: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(row[..6], ["inference", "llama-0", "12.5", "7", "2", "0.25"]);
    let rate: f64 = row[6].parse().unwrap();
    assert!((8.0..=10.0).contains(&rate), "20 in 2 s and what the test took: {rate}");
    assert_eq!(row[7..], ["qps=normal", "half-open"]);
    assert!(text.ends_with("! inference/silent: status not found"), "{text}");
}

#[tokio::test]
async fn each_look_is_a_line_of_json() {
    let look = Look { time: "t".to_owned(), pods: Vec::new() };
    assert_eq!(shown(&look, Output::Json).unwrap(), r#"{"time":"t","pods":[]}"#);
    assert_eq!(shown(&look, Output::Yaml).unwrap(), "---\ntime: t\npods: []");
    assert_eq!(shown(&look, Output::Table).unwrap(), "No pods with a sidecar.");
}
