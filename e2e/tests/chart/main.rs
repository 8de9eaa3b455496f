//! The chart, judged without a cluster: by helm, by kubeconform, by the rules of Pod Security, and against its pages.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod dashboard;
mod rights;
mod schemas;
mod security;
mod values;

use std::path::Path;

use serde_json::Value;
use tidegate_e2e::harness::release;

/// Everything optional, and every override.
const EVERYTHING: &[&str] = &[
    "operator.replicas=3",
    "operator.priorityClassName=critical",
    "agent.priorityClassName=critical",
    "agent.runtimeClassName=nvidia",
    "certificates.certManager.enabled=true",
    "networkPolicies.enabled=true",
    "networkPolicies.metricsFrom[0].namespaceSelector.matchLabels.team=monitoring",
    "monitoring.podMonitor.enabled=true",
    "monitoring.rules.enabled=true",
    "monitoring.dashboard.enabled=true",
    "monitoring.dashboard.annotations.folder=inference",
    "injection.failurePolicy=Fail",
    "image.registry=registry.internal:5000/mirror",
    "image.pullSecrets[0].name=mirror",
    "sidecar.pullSecrets[0].name=mirror",
];

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn page(path: &str) -> String {
    std::fs::read_to_string(workspace().join(path)).unwrap()
}

fn set<'a>(values: &[&'a str]) -> Vec<&'a str> {
    values.iter().flat_map(|value| ["--set", value]).collect()
}

/// The objects that the chart renders with these values.
async fn objects(values: &[&str]) -> Vec<Value> {
    let yaml = release::template(&set(values)).await.unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
    objects.into_iter().filter(|object| !object.is_null()).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// The pods of every workload, by its name.
fn pods(objects: &[Value]) -> Vec<(String, Value)> {
    let workloads =
        objects.iter().filter(|object| object["spec"]["template"]["spec"]["containers"].is_array());
    workloads
        .map(|object| {
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            let template = &object["spec"]["template"];
            (name, serde_json::json!({"metadata": template["metadata"], "spec": template["spec"]}))
        })
        .collect()
}

#[tokio::test]
async fn helm_finds_nothing_wrong_with_any_values() {
    for values in [&[][..], EVERYTHING, &["agent.enabled=false", "crds.install=false"]] {
        let said = release::lint(&set(values)).await.unwrap();
        assert!(said.contains("0 chart(s) failed") && !said.contains("WARNING"), "{values:?}: {said}");
    }
}

#[tokio::test]
async fn every_image_comes_from_the_registry_and_by_digest_where_one_is_given() {
    let digest = format!("image.digests.operator=sha256:{}", "a".repeat(64));
    let values: Vec<_> = EVERYTHING.iter().copied().chain([digest.as_str()]).collect();
    let objects = objects(&values).await;
    let mut images = Vec::new();
    for (name, pod) in pods(&objects) {
        assert_eq!(pod["spec"]["imagePullSecrets"][0]["name"], "mirror", "{name}");
        for container in pod["spec"]["containers"].as_array().unwrap() {
            images.push(container["image"].as_str().unwrap().to_owned());
            let arguments = container["args"].as_array().unwrap().iter().filter_map(Value::as_str);
            images
                .extend(arguments.filter_map(|one| one.strip_prefix("--sidecar-image=").map(str::to_owned)));
        }
    }
    assert_eq!(images.len(), 3, "{images:?}");
    assert!(
        images.iter().all(|image| image.starts_with("registry.internal:5000/mirror/tidegate-")),
        "{images:?}"
    );
    assert_eq!(images.iter().filter(|image| image.ends_with(&"a".repeat(64))).count(), 1, "{images:?}");
}

#[tokio::test]
async fn only_several_replicas_are_spread_and_have_a_disruption_budget() {
    let one = objects(&[]).await;
    assert_eq!(of_kind(&one, "PodDisruptionBudget").count(), 0, "it would keep a node from being drained");
    let three = objects(&["operator.replicas=3"]).await;
    let budget = of_kind(&three, "PodDisruptionBudget").next().unwrap();
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    let (_, operator) = pods(&three).into_iter().find(|(name, _)| name == "tidegate-operator").unwrap();
    let labels = &operator["metadata"]["labels"];
    for selector in
        [&budget["spec"]["selector"], &operator["spec"]["topologySpreadConstraints"][0]["labelSelector"]]
    {
        for (key, value) in selector["matchLabels"].as_object().unwrap() {
            assert_eq!(&labels[key], value, "the operator's own pods are meant");
        }
    }
}
