use super::*;
use crate::fake_api::FakeApi;

fn pod(name: &str, labels: &str, owner: &str, image: Option<&str>) -> String {
    let sidecar = image.map_or(String::new(), |image| {
        format!("initContainers: [{{name: tidegate-sidecar, image: '{image}'}}], ")
    });
    let owners = if owner.is_empty() { String::new() } else { format!("ownerReferences: [{owner}], ") };
    format!(
        "{{metadata: {{name: {name}, {owners}labels: {{{labels}}}}}, spec: {{{sidecar}containers: [{{name: engine, ports: [{{containerPort: 8000}}]}}]}}}}"
    )
}

fn owner(api_version: &str, kind: &str, name: &str) -> String {
    format!("{{apiVersion: {api_version}, kind: {kind}, name: {name}, uid: u, controller: true}}")
}

fn cluster() -> FakeApi {
    let api = FakeApi::default();
    api.put(
        "/apis/apps/v1/namespaces/tidegate-system/deployments",
        "{metadata: {name: tidegate-operator}, spec: {selector: {}, template: {spec: {containers: [{name: o, args: [--namespace=t, '--sidecar-image=r/s:2']}]}}}}",
    );
    api.put("/api/v1/namespaces", "{metadata: {name: inference, labels: {tidegate.dev/injection: enabled}}}");
    api.put(
        "/apis/tidegate.dev/v1alpha1/namespaces/inference/ratelimitpolicies",
        "{metadata: {name: all}, spec: {tiers: {qps: {max: 5}}}}",
    );
    let apps = "/apis/apps/v1/namespaces/inference";
    let replicas = |name, replicas| {
        format!(
            "{{metadata: {{name: {name}}}, spec: {{replicas: {replicas}, selector: {{}}, template: {{}}}}}}"
        )
    };
    api.put(&format!("{apps}/deployments"), &replicas("llama", 8));
    api.put(&format!("{apps}/deployments"), &replicas("tight", 8));
    api.put(
        &format!("{apps}/statefulsets"),
        "{metadata: {name: manual}, spec: {selector: {}, serviceName: m, template: {}, updateStrategy: {type: OnDelete}}}",
    );
    let pods = "/api/v1/namespaces/inference/pods";
    let hashed = |app: &str| format!("app: {app}, pod-template-hash: h");
    for (name, labels, owner, image) in [
        ("llama-h-0", hashed("llama"), owner("apps/v1", "ReplicaSet", "llama-h"), Some("r/s:1")),
        ("llama-h-1", hashed("llama"), owner("apps/v1", "ReplicaSet", "llama-h"), None),
        ("tight-h-0", hashed("tight"), owner("apps/v1", "ReplicaSet", "tight-h"), Some("r/s:1")),
        ("manual-0", "app: manual".to_owned(), owner("apps/v1", "StatefulSet", "manual"), Some("r/s:1")),
        ("batch-x", "app: batch".to_owned(), owner("batch/v1", "Job", "batch"), Some("r/s:1")),
        (
            "lws-0",
            "app: lws".to_owned(),
            owner("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "lws"),
            Some("r/s:1"),
        ),
        ("lonely", "app: lonely".to_owned(), String::new(), Some("r/s:1")),
        ("fresh", "app: fresh".to_owned(), String::new(), Some("r/s:2")),
        ("out", "app: out, tidegate.dev/inject: disabled".to_owned(), String::new(), None),
    ] {
        api.put(pods, &pod(name, &labels, &owner, image));
    }
    api.put(
        "/apis/policy/v1/namespaces/inference/poddisruptionbudgets",
        "{metadata: {name: keep-tight}, spec: {selector: {matchLabels: {app: tight}}}, status: {disruptionsAllowed: 1, currentHealthy: 8, desiredHealthy: 7, expectedPods: 8}}",
    );
    api
}

#[tokio::test]
async fn workloads_are_restarted_others_evicted_and_what_must_stay_is_left_with_the_reason() {
    let steps = plan(&cluster().cluster(), false).await.unwrap();
    let lines: Vec<_> = steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "restart inference/deployment llama (1 with an old sidecar, 1 without)",
            "not now inference/tight: its rolling update takes away 2 at a time, and PodDisruptionBudget keep-tight allows 1 now (1 with an old sidecar, 0 without)",
            "leave   inference/batch-x: a Job's pod would lose its work; it ends by itself (1 with an old sidecar, 0 without)",
            "leave   inference/lonely: nothing would create it anew: delete and create it (1 with an old sidecar, 0 without)",
            "evict   inference/pod lws-0 (1 with an old sidecar, 0 without)",
            "evict   inference/pod manual-0 (1 with an old sidecar, 0 without)",
        ]
    );
}

fn within(patience: Duration) -> Manner {
    Manner { dry_run: false, patience, output: Output::Table }
}

#[tokio::test]
async fn programs_are_told_every_step_with_its_reason_and_what_came_of_it() {
    let api = cluster();
    let cluster = api.cluster();
    let steps = plan(&cluster, false).await.unwrap();
    for dry_run in [true, false] {
        let manner = Manner { dry_run, patience: Duration::ZERO, output: Output::Json };
        let report = carry_out_all(&cluster, &steps, manner).await.unwrap();
        assert!(!report.is_done(), "one step was postponed");
        let json = print::form(Output::Json, &report, String::new).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let yaml = print::form(Output::Yaml, &report, String::new).unwrap();
        assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&yaml).unwrap(), json);
        let told = json["steps"].as_array().unwrap();
        let actions: Vec<_> = told.iter().map(|step| step["action"].as_str().unwrap()).collect();
        assert_eq!(actions, ["Restart", "Postpone", "Leave", "Leave", "Evict", "Evict"]);
        assert_eq!((&told[0]["kind"], &told[0]["name"]), (&"Deployment".into(), &"llama".into()));
        assert_eq!(told[0]["pods"].as_array().unwrap().len(), 2);
        let done = if dry_run { serde_json::Value::Null } else { true.into() };
        assert_eq!((&told[0]["done"], &told[4]["done"]), (&done, &done));
        assert_eq!((&told[1]["done"], &told[2]["done"]), (&false.into(), &serde_json::Value::Null));
        assert!(told[1]["reason"].as_str().unwrap().contains("PodDisruptionBudget keep-tight"));
    }
}

fn step(name: &str, action: Action) -> Step {
    Step { namespace: "inference".to_owned(), name: name.to_owned(), action, pods: Vec::new() }
}

#[tokio::test]
async fn a_restart_is_that_of_kubectl_and_an_eviction_asks_the_budgets() {
    let api = cluster();
    let cluster = api.cluster();
    let restart = step("llama", Action::Restart("Deployment"));
    assert_eq!(carry_out(&cluster, &restart, within(Duration::ZERO)).await.unwrap(), Some(true));
    let evict = step("lws-0", Action::Evict);
    assert_eq!(carry_out(&cluster, &evict, within(Duration::from_secs(1))).await.unwrap(), Some(true));
    let writes = api.writes();
    let calls: Vec<_> = writes.iter().map(|(call, _)| call.split('?').next().unwrap()).collect();
    assert_eq!(
        calls,
        [
            "PATCH /apis/apps/v1/namespaces/inference/deployments/llama",
            "POST /api/v1/namespaces/inference/pods/lws-0/eviction",
        ]
    );
    let annotations = &writes[0].1["spec"]["template"]["metadata"]["annotations"];
    assert!(annotations["kube.kubernetes.io/restartedAt"].is_string(), "{annotations}");
}

#[tokio::test]
async fn an_eviction_that_a_budget_forbids_is_given_up_and_told() {
    let api = cluster();
    let call = "POST /api/v1/namespaces/inference/pods/lws-0/eviction";
    api.fail(call, 429, "Cannot evict pod as it would violate the pod's disruption budget.");
    let evict = step("lws-0", Action::Evict);
    assert_eq!(
        carry_out(&api.cluster(), &evict, within(Duration::from_millis(20))).await.unwrap(),
        Some(false)
    );
}

#[tokio::test]
async fn without_an_operator_nothing_is_known_to_be_old() {
    let refused = plan(&FakeApi::default().cluster(), false).await.unwrap_err();
    let line = refused.lines().next().unwrap();
    assert!(
        line.starts_with("Deployment tidegate-system/tidegate-operator: ")
            && line.ends_with("--install-namespace"),
        "{line}"
    );
}
