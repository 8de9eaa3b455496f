use super::*;
use crate::fake_api::FakeApi;

const POLICIES: &str = "/apis/tidegate.dev/v1alpha1/namespaces/inference/ratelimitpolicies";
const BREAKERS: &str = "/apis/tidegate.dev/v1alpha1/namespaces/inference/circuitbreakerpolicies";
const PODS: &str = "/api/v1/namespaces/inference/pods";

fn cluster() -> FakeApi {
    let api = FakeApi::default();
    api.put(
        POLICIES,
        "
metadata: {name: llama, generation: 1}
spec: {selector: {matchLabels: {app: llama}}, tiers: {qps: {max: 5}}}
status:
  observedGeneration: 1
  conditions:
  - {type: Accepted, status: 'True', reason: Accepted, message: ok, lastTransitionTime: '2026-01-01T00:00:00Z'}
  - {type: Programmed, status: 'False', reason: PartiallyProgrammed, message: 1 of 2 pods have no sidecar,
     lastTransitionTime: '2026-01-01T00:00:00Z'}
  pods: {matched: 2, injected: 1, programmed: 1, outOfDate: 0, uninjected: 1, oldSidecar: 1}
  tiersTripped: {qps: 1, gpuMemory: 0, latency: 1, any: 1}
",
    );
    api.put(
        BREAKERS,
        "{metadata: {name: fresh}, spec: {selector: {matchLabels: {app: none}}, failureThreshold: 5}}",
    );
    api.put(
        PODS,
        "
metadata: {name: llama-0, labels: {app: llama}, annotations: {tidegate.dev/injected: 0.1.0}}
spec:
  initContainers: [{name: tidegate-sidecar, image: 's:1', ports: [{name: tidegate-admin, containerPort: 15999}]}]
  containers: [{name: engine}]
---
metadata: {name: llama-1, labels: {app: llama}}
spec: {containers: [{name: engine}]}
---
metadata: {name: llama-2, labels: {app: llama}}
spec: {containers: [{name: engine}]}
status: {phase: Succeeded}
---
metadata: {name: other, labels: {app: other}}
spec: {containers: [{name: engine}]}
",
    );
    api
}

const STATUS: &str = "/api/v1/namespaces/inference/pods/llama-0:15999/proxy/throttle/status";

fn page() -> serde_json::Value {
    serde_json::json!({
        "version": "0.1.0", "policySource": "stream", "operatorConnected": true, "draining": false,
        "revision": "old", "pressure": 0.5, "inFlight": 3, "limits": [],
        "tiers": [{
            "tier": "Qps", "policy": "inference/llama", "mode": "Enforce", "state": "Tripped", "shedding": true,
            "value": 9.0, "threshold": 5.0, "unit": "requests/s", "pressure": 0.5,
            "lastTriggerReason": "9.0 requests/s over the ceiling of 5.0", "recoveryCountdownMillis": 4500,
        }],
    })
}

#[tokio::test]
async fn policies_stand_as_the_operator_judges_them_and_pods_as_their_sidecars_say() {
    let api = cluster();
    api.answer(&format!("GET {STATUS}"), 200, page());
    let report = report(&api.cluster(), false).await.unwrap();
    assert_eq!(
        text(&report),
        "\
NAMESPACE   POLICY                       ACCEPTED   IN FORCE   PODS   INJECTED   PROGRAMMED   OUT OF DATE   NOW
inference   ratelimitpolicy/llama        True       False      2      1          1            0             1 tripped
inference   circuitbreakerpolicy/fresh   Unknown    Unknown    -      -          -            -             -
! inference/llama: Programmed PartiallyProgrammed: 1 of 2 pods have no sidecar
! inference/fresh: the operator has not seen it: kubectl tidegate check

NAMESPACE   POD       SIDECAR   POLICY   OPERATOR    IN FLIGHT   PRESSURE   TIERS         BREAKER
inference   llama-0   0.1.0     older    connected   3           0.50       qps=tripped   -
inference   llama-1   none      -        -           -           -          -             -
! inference/llama-0: tier qps is tripped: 9.0 requests/s over the ceiling of 5.0; recovers in 4.5 s
"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["policies"][0]["pods"]["uninjected"], 1);
    assert_eq!(json["pods"][0]["state"]["tiers"][0]["value"], 9.0);
    assert_eq!(json["pods"][1]["sidecar"], serde_json::json!({"injected": false}));
}

#[tokio::test]
async fn what_is_in_force_in_part_or_by_old_sidecars_is_told_with_the_command_that_helps() {
    let api = FakeApi::default();
    for (name, reason, old) in
        [("part", "PartiallyProgrammed", 0), ("old", "Programmed", 1), ("new", "Programmed", 0)]
    {
        api.put(
            POLICIES,
            &format!(
                "
metadata: {{name: {name}, generation: 1}}
spec: {{selector: {{matchLabels: {{app: llama}}}}, priority: {{}}}}
status:
  conditions:
  - {{type: Accepted, status: 'True', reason: Accepted, message: ok, lastTransitionTime: '2026-01-01T00:00:00Z'}}
  - {{type: Programmed, status: 'True', reason: {reason}, message: to help {name}, lastTransitionTime: '2026-01-01T00:00:00Z'}}
  pods: {{matched: 2, injected: 2, programmed: 2, outOfDate: 0, uninjected: 0, oldSidecar: {old}}}
"
            ),
        );
    }
    let text = text(&report(&api.cluster(), false).await.unwrap());
    let told: Vec<_> = text.lines().filter(|line| line.starts_with('!')).collect();
    assert_eq!(
        told,
        [
            "! inference/old: Programmed Programmed: to help old",
            "! inference/part: Programmed PartiallyProgrammed: to help part",
        ]
    );
}

#[tokio::test]
async fn a_sidecar_that_does_not_answer_is_told_with_the_reason() {
    let api = cluster();
    api.fail(&format!("GET {STATUS}"), 403, "pods/proxy is forbidden");
    let report = report(&api.cluster(), true).await.unwrap();
    let text = text(&report);
    assert!(
        text.ends_with("! inference/llama-0: its sidecar did not answer: pods/proxy is forbidden\n"),
        "{text}"
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_that_names_it() {
    let api = cluster();
    api.fail(&format!("GET {PODS}"), 403, "pods is forbidden");
    let refused = report(&api.cluster(), false).await.unwrap_err();
    assert_eq!(refused.lines().collect::<Vec<_>>(), ["pods: pods is forbidden"]);
}
