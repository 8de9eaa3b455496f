//! The golden pods of injection, as inputs and as the webhook makes them, shown to the API server: Pod Security, quotas and
//! the validation of pods are its own.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{LimitRange, Namespace, Pod, ResourceQuota, ServiceAccount};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tidegate_e2e::cluster::binaries;

use tidegate_e2e::apiserver::ApiServer;

fn folder() -> PathBuf {
    binaries::workspace().join("operator/core/tests/golden")
}

fn read(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join(file)).unwrap();
    text.split("\n---\n").map(|object| serde_saphyr::from_str(object).unwrap()).collect()
}

fn names() -> Vec<String> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> =
        files.filter_map(|name| Some(name.to_str()?.strip_suffix(".in.yaml")?.to_owned())).collect();
    names.sort();
    names
}

/// The pod's namespace with its labels and bounds, made once.
async fn surround(server: &ApiServer, namespace: &str, objects: &[Value]) {
    let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind);
    let labels = of_kind("Namespace").map_or(json!({}), |object| object["metadata"]["labels"].clone());
    let object =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}});
    let manager = PatchParams::apply("test").force();
    Api::<Namespace>::all(server.client.clone())
        .patch(namespace, &manager, &Patch::Apply(object))
        .await
        .unwrap();
    // No controller makes it here, and the API server admits no pod without one.
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let accounts: Api<ServiceAccount> = Api::namespaced(server.client.clone(), namespace);
    accounts.patch("default", &manager, &Patch::Apply(account)).await.unwrap();
    if let Some(range) = of_kind("LimitRange") {
        let ranges: Api<LimitRange> = Api::namespaced(server.client.clone(), namespace);
        ranges.patch("metered", &manager, &Patch::Apply(range)).await.unwrap();
    }
    if let Some(quota) = of_kind("ResourceQuota") {
        let quotas: Api<ResourceQuota> = Api::namespaced(server.client.clone(), namespace);
        quotas.patch("metered", &manager, &Patch::Apply(quota)).await.unwrap();
        let hard = &quota["spec"]["hard"];
        let used: Value = hard.as_object().unwrap().keys().map(|name| (name.clone(), json!("0"))).collect();
        let status = json!({"status": {"hard": hard, "used": used}});
        quotas.patch_status("metered", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }
}

/// What the API server would keep, or why it refuses.
async fn admitted(server: &ApiServer, namespace: &str, pod: &Value) -> Result<Value, String> {
    let api: Api<DynamicObject> =
        Api::namespaced_with(server.client.clone(), namespace, &ApiResource::erase::<Pod>(&()));
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let object: DynamicObject = serde_json::from_value(pod.clone()).unwrap();
    let kept = api.create(&params, &object).await.map_err(|error| error.to_string())?;
    Ok(kept.data["spec"].clone())
}

fn containers<'a>(spec: &'a Value, lists: &[&str]) -> Vec<&'a Value> {
    lists.iter().flat_map(|list| spec[*list].as_array().into_iter().flatten()).collect()
}

/// Nothing that the API server adds to pods reaches what is injected: no token of the pod's own.
fn has_no_api_token(container: &Value) -> bool {
    let mounts = container["volumeMounts"].as_array().unwrap();
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    mounts.iter().any(|mount| mount["mountPath"] == token && mount["name"] == "tidegate-no-token")
        && !mounts.iter().any(|mount| mount["name"].as_str().unwrap().starts_with("kube-api-access"))
}

#[tokio::test]
async fn every_golden_pod_is_admitted_by_a_real_api_server_before_and_after_injection() {
    let server = ApiServer::start().await.unwrap();
    let (mut refused, mut injected) = (Vec::new(), 0);
    for name in names() {
        let objects = read(&format!("{name}.in.yaml"));
        let pod = &objects[0];
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or("inference");
        surround(&server, namespace, &objects).await;
        if let Err(error) = admitted(&server, namespace, pod).await {
            refused.push(format!("{name}, as it was: {error}"));
        }
        match admitted(&server, namespace, &read(&format!("{name}.out.yaml"))[0]).await {
            Ok(spec) => {
                let ours: Vec<_> = containers(&spec, &["initContainers"])
                    .into_iter()
                    .filter(|container| container["name"].as_str().unwrap().starts_with("tidegate-"))
                    .collect();
                assert!(ours.iter().all(|container| has_no_api_token(container)), "{name}: {ours:?}");
                injected += usize::from(!ours.is_empty());
            }
            Err(error) => refused.push(format!("{name}, injected: {error}")),
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
    assert!(injected > 30, "{injected}");
}
