use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::{Value, json};
use tidegate_crds::definitions;
use tidegate_operator_core::compile;

use super::*;
use crate::fake_api::FakeApi;

const INSTALLED: &str = "/api/v1/namespaces/tidegate-system/pods";
const GUARDED: &str = "/api/v1/namespaces/inference/pods";
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";

fn authority(last_year: i32) -> String {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(last_year, 1, 1);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

/// A trial pod as the webhook gives it back.
fn injected() -> Value {
    json!({
        "metadata": {"name": "tidegate-check", "annotations": {"tidegate.dev/injected": "0.1.0"}},
        "spec": {"initContainers": [{"name": "tidegate-sidecar"}], "containers": []},
    })
}

fn configuration(bundle: &str) -> Value {
    let bundle = serde_json::to_value(k8s_openapi::ByteString(bundle.as_bytes().to_vec())).unwrap();
    json!({
        "metadata": {"name": "tidegate"},
        "webhooks": [{
            "name": "a.tidegate.dev", "clientConfig": {"caBundle": bundle},
            "admissionReviewVersions": ["v1"], "sideEffects": "None",
        }],
    })
}

fn configure(api: &FakeApi, bundle: &str) {
    for kind in ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"] {
        let call = format!("GET {CONFIGURATIONS}/{kind}s/tidegate");
        api.answer(&call, 200, configuration(bundle));
    }
}

fn installation(api: &FakeApi) {
    for definition in definitions() {
        let name = definition.metadata.name.clone().unwrap();
        let mut definition = serde_json::to_value(definition).unwrap();
        definition["status"] = json!({
            "conditions": [{"type": "Established", "status": "True"}],
            "acceptedNames": {"kind": "X", "plural": "x"}, "storedVersions": ["v1alpha1"],
        });
        let path = format!("GET /apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        api.answer(&path, 200, definition);
    }
    let apps = "/apis/apps/v1/namespaces/tidegate-system";
    let version = env!("CARGO_PKG_VERSION");
    api.put(
        &format!("{apps}/deployments"),
        &format!(
            "{{metadata: {{name: tidegate-operator, labels: {{app.kubernetes.io/version: {version}}}}}, spec: {{replicas: 1, selector: {{}}, template: {{spec: {{containers: [{{name: operator, args: ['--sidecar-image=s:1']}}]}}}}}}, status: {{readyReplicas: 1}}}}"
        ),
    );
    api.put(
        &format!("{apps}/daemonsets"),
        "{metadata: {name: tidegate-agent}, spec: {selector: {}, template: {}}}",
    );
    let now = k8s_openapi::jiff::Timestamp::now();
    api.put(
        "/apis/coordination.k8s.io/v1/namespaces/tidegate-system/leases",
        &format!("{{metadata: {{name: tidegate-operator}}, spec: {{holderIdentity: op-1, leaseDurationSeconds: 15, renewTime: '{now}'}}}}"),
    );
}

/// An installation with nothing wrong.
fn sound() -> FakeApi {
    let api = FakeApi::default();
    installation(&api);
    configure(&api, &authority(2199));
    api.put(
        INSTALLED,
        "{metadata: {name: op-1, labels: {app.kubernetes.io/component: operator}}, spec: {containers: []}, status: {podIP: 10.1.0.9}}",
    );
    let metrics = "tidegate_certificate_expiry_timestamp_seconds{certificate=\"serving\"} 7226582400\n";
    api.answer(&format!("GET {INSTALLED}/op-1:8080/proxy/metrics"), 200, json!(metrics));
    api.put("/api/v1/namespaces", "{metadata: {name: inference, labels: {tidegate.dev/injection: enabled}}}");
    api.put(
        "/api/v1/namespaces",
        "{metadata: {name: tidegate-system, labels: {kubernetes.io/metadata.name: tidegate-system}}}",
    );
    api.put("/api/v1/nodes", "{metadata: {name: n1}}");
    api.answer(&format!("POST {GUARDED}"), 201, injected());
    let policies = "/apis/tidegate.dev/v1alpha1/namespaces/inference/ratelimitpolicies";
    let denied = "admission webhook \"policies.tidegate.dev\" denied the request: spec.tiers.latency.max";
    api.fail(&format!("POST {policies}"), 400, denied);
    api.put(
        policies,
        "{metadata: {name: all}, spec: {limits: [{name: a, key: [{header: x}], limit: 1, window: 1s}]}}",
    );
    api.put(
        GUARDED,
        "{metadata: {name: llama-0, annotations: {tidegate.dev/injected: 0.1.0}}, spec: {initContainers: [{name: tidegate-sidecar, image: 's:1'}], containers: []}, status: {initContainerStatuses: [{name: tidegate-sidecar, ready: true, restartCount: 0, image: s, imageID: s}]}}",
    );
    sidecar(&api, true);
    api
}

fn sidecar(api: &FakeApi, connected: bool) {
    let page = json!({
        "version": "0.1.0", "policySource": "stream", "operatorConnected": connected, "draining": false,
        "revision": "r", "pressure": 0.0, "inFlight": 0, "tiers": [], "limits": [],
    });
    api.answer(&format!("GET {GUARDED}/llama-0:15121/proxy/throttle/status"), 200, page);
}

async fn worst(api: &FakeApi) -> Vec<(Verdict, &'static str, String)> {
    let report = report(&api.cluster()).await;
    let bad = report.findings.into_iter().filter(|finding| finding.verdict != Verdict::Ok);
    bad.map(|finding| {
        assert!(finding.hint.is_some_and(|hint| !hint.is_empty()), "{}", finding.message);
        (finding.verdict, finding.part, finding.message)
    })
    .collect()
}

#[tokio::test]
async fn a_sound_installation_is_ok_line_by_line() {
    let report = report(&sound().cluster()).await;
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "\
ok    crds          ratelimitpolicies.tidegate.dev serves v1alpha1
ok    crds          circuitbreakerpolicies.tidegate.dev serves v1alpha1
ok    operator      1 of 1 replicas are ready
ok    operator      op-1 leads
ok    operator      version {version}, and this kubectl-tidegate is {version}
ok    certificates  the authority that the API server trusts lasts until 2199-01-01T00:00:00Z
ok    certificates  the serving certificate of op-1 lasts until 2199-01-01T00:00:00Z
ok    webhooks      a pod of inference gets a sidecar of version 0.1.0
ok    webhooks      an invalid policy is refused with what to write instead
ok    agent         no node offers nvidia.com GPUs
ok    sidecars      1 run, none was restarted
ok    sidecars      all are of s:1
ok    sidecars      1 of 1 asked are connected
ok    network       no NetworkPolicy cuts a sidecar off from the operator

14 ok, 0 warn, 0 fail"
    );
    assert_eq!(text(&report), expected);
    assert_eq!(report.verdict, Verdict::Ok);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(
        json["findings"][0],
        json!({
            "part": "crds", "verdict": "ok", "message": "ratelimitpolicies.tidegate.dev serves v1alpha1",
        })
    );
}

#[tokio::test]
async fn nothing_is_created_but_as_a_dry_run() {
    let api = sound();
    report(&api.cluster()).await;
    let writes = api.writes();
    assert_eq!(writes.len(), 2);
    assert!(
        writes.iter().all(|(call, _)| call.starts_with("POST ") && call.contains("dryRun=All")),
        "{writes:?}"
    );
}

#[test]
fn the_trial_policy_is_one_that_only_the_operator_refuses() {
    let policy = serde_json::from_value(webhooks::trial_policy()).unwrap();
    assert!(compile::rate_limit(&policy).unwrap_err().to_string().contains("spec.tiers.latency.max"));
}

#[tokio::test]
async fn a_webhook_that_nobody_answers_fails() {
    let api = sound();
    let mut bare = injected();
    bare["spec"]["initContainers"] = json!([]);
    bare["metadata"]["annotations"] = json!({});
    api.answer(&format!("POST {GUARDED}"), 201, bare);
    let policies = "/apis/tidegate.dev/v1alpha1/namespaces/inference/ratelimitpolicies";
    api.answer(&format!("POST {policies}"), 201, webhooks::trial_policy());
    let no_answer = "a pod of inference gets no sidecar: nobody answered".to_owned();
    let passed = "an invalid policy is not refused: nobody answered".to_owned();
    assert_eq!(
        worst(&api).await,
        [(Verdict::Fail, "webhooks", no_answer), (Verdict::Warn, "webhooks", passed)]
    );
}

#[tokio::test]
async fn authorities_and_certificates_that_end_are_told_before_they_do() {
    let api = sound();
    configure(&api, &authority(2021));
    let metrics = "tidegate_certificate_expiry_timestamp_seconds{certificate=\"serving\"} 1600000000\n";
    api.answer(&format!("GET {INSTALLED}/op-1:8080/proxy/metrics"), 200, json!(metrics));
    let ended = |what: &str, at: &str| (Verdict::Fail, "certificates", format!("{what} ended at {at}"));
    assert_eq!(
        worst(&api).await,
        [
            ended("the authority that the API server trusts", "2021-01-01T00:00:00Z"),
            ended("the serving certificate of op-1", "2020-09-13T12:26:40Z"),
        ]
    );
    configure(&api, "");
    assert!(worst(&api).await[0].2.starts_with("the webhooks name no authority"));
}

#[tokio::test]
async fn a_network_policy_that_cuts_the_stream_is_named_with_the_rule_to_add() {
    let api = sound();
    api.put(
        "/apis/networking.k8s.io/v1/namespaces/inference/networkpolicies",
        "{metadata: {name: closed}, spec: {podSelector: {}, policyTypes: [Egress]}}",
    );
    sidecar(&api, false);
    let report = report(&api.cluster()).await;
    assert_eq!(report.verdict, Verdict::Fail);
    let text = text(&report);
    assert!(
        text.contains("fail  sidecars      1 of 1 are cut off from the operator: inference/llama-0"),
        "{text}"
    );
    let cut =
        "fail  network       egress of pods of inference to the operator is cut by NetworkPolicy closed";
    assert!(text.contains(cut), "{text}");
    assert!(
        text.contains("kubernetes.io/metadata.name: tidegate-system") && text.contains("port: 8444"),
        "{text}"
    );
}

#[tokio::test]
async fn nodes_with_gpus_need_an_agent() {
    let api = sound();
    api.put(
        "/api/v1/nodes",
        "{metadata: {name: gpu-1}, status: {allocatable: {nvidia.com/mig-1g.10gb: '7'}}}",
    );
    assert_eq!(
        worst(&api).await,
        [(Verdict::Fail, "agent", "not ready on 1 of 1 nodes with GPUs: gpu-1".to_owned())]
    );
}

#[tokio::test]
async fn old_sidecars_and_older_resources_are_warned_of() {
    let api = sound();
    api.put(
        GUARDED,
        "{metadata: {name: old-0}, spec: {initContainers: [{name: tidegate-sidecar, image: 's:0'}], containers: []}}",
    );
    let name = "ratelimitpolicies.tidegate.dev";
    let mut definition = serde_json::to_value(&definitions()[0]).unwrap();
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    definition.pointer_mut(spec).unwrap().as_object_mut().unwrap().remove("queue");
    api.answer(
        &format!("GET /apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"),
        200,
        definition,
    );
    let found = worst(&api).await;
    assert!(
        found[0].2.starts_with(
            "ratelimitpolicies.tidegate.dev is older than this kubectl-tidegate: it lacks spec.queue"
        ),
        "{found:?}"
    );
    assert!(
        found.contains(&(Verdict::Warn, "sidecars", "1 of 2 are not of s:1: inference/old-0".to_owned())),
        "{found:?}"
    );
}

#[tokio::test]
async fn nothing_installed_fails_and_says_how_to_install() {
    let found = worst(&FakeApi::default()).await;
    let fails: Vec<_> =
        found.iter().filter(|(verdict, _, _)| *verdict == Verdict::Fail).map(|(_, part, _)| *part).collect();
    assert!(fails.starts_with(&["crds", "crds", "operator"]), "{found:?}");
}

#[tokio::test]
async fn what_may_not_be_read_is_said_and_does_not_fail() {
    let api = sound();
    api.fail("GET /api/v1/nodes", 403, "nodes is forbidden");
    let expected = "nodes cannot be read: nodes is forbidden".to_owned();
    assert_eq!(worst(&api).await, [(Verdict::Warn, "agent", expected)]);
}
