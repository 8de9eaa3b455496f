//! Pods that are reached by the name of their port, because nothing may redirect their traffic.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};
use tidegate_crds::RateLimitPolicy;
use tidegate_e2e::harness::{Engine, Lab, PATIENCE, eventually, in_namespace, pod_ip};

const ONE: &str = "{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {name: one}, spec: {
    limits: [{name: all, algorithm: TokenBucket, limit: 1, window: 1h, burst: 1}]}}";

async fn enforce_restricted(lab: &Lab) -> anyhow::Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace, "labels": {
        "tidegate.dev/injection": "enabled",
        "pod-security.kubernetes.io/enforce": "restricted",
    }}});
    lab.apply(&namespace.to_string()).await
}

/// The port to which Kubernetes sends the clients of a Service.
async fn port_behind(lab: &Lab, service: &str) -> anyhow::Result<i32> {
    let slices = lab.api::<EndpointSlice>();
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    eventually("a ready endpoint", PATIENCE, async || {
        let slices = slices.list(&of_service).await.map_err(|error| error.to_string())?;
        let ready = slices.items.iter().find(|slice| !slice.endpoints.is_empty());
        let ports = ready.and_then(|slice| slice.ports.as_ref());
        ports.and_then(|ports| ports.first()?.port).ok_or_else(|| format!("{slices:?}"))
    })
    .await
}

#[tokio::test]
async fn a_pod_of_a_restricted_namespace_is_guarded_by_the_name_of_its_port() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        enforce_restricted(lab).await?;
        lab.apply(ONE).await?;
        let pods = lab.engine(&Engine::new("llama").restricted()).await?;
        let init = pods[0].spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        assert_eq!(init.map(|container| container.name.as_str()).collect::<Vec<_>>(), ["tidegate-sidecar"]);
        lab.until_programmed(&pods[0]).await?;
        let url = format!("http://{}:{}", pod_ip(&pods[0])?, port_behind(lab, "llama").await?);
        assert_eq!(lab.http.get(&format!("{url}/v1/models")).await?.status, 200);
        assert_eq!(lab.http.get(&format!("{url}/v1/models")).await?.status, 429);
        assert_eq!(lab.http.get(&format!("{url}/health")).await?.status, 200);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_service_that_goes_around_the_sidecar_is_named() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        enforce_restricted(lab).await?;
        lab.apply(ONE).await?;
        let engine = Engine::new("llama").restricted();
        let pods = lab.engine(&engine).await?;
        lab.until_programmed(&pods[0]).await?;
        lab.apply(
            "{apiVersion: v1, kind: Service, metadata: {name: by-number}, spec: {selector: {app: llama}, \
             ports: [{port: 80, targetPort: 8000}]}}",
        )
        .await?;
        let policies = lab.api::<RateLimitPolicy>();
        eventually("the bypass in the status", PATIENCE, async || {
            let policy = policies.get("one").await.map_err(|error| error.to_string())?;
            let conditions = policy.status.map(|status| status.conditions).unwrap_or_default();
            let programmed = conditions.iter().find(|condition| condition.type_ == "Programmed");
            programmed
                .filter(|one| {
                    one.reason == "PartiallyProgrammed" && one.message.contains("Service by-number")
                })
                .map(|_| ())
                .ok_or_else(|| format!("{conditions:?}"))
        })
        .await?;
        let skipped = next_pod(lab, &engine).await?;
        assert_eq!(skipped, Some("Bypassed".to_owned()));
        Ok(())
    })
    .await
}

/// Why the next pod of an engine would get no sidecar.
async fn next_pod(lab: &Lab, engine: &Engine) -> anyhow::Result<Option<String>> {
    let template = serde_json::to_value(engine.deployment()?.spec.map(|spec| spec.template))?;
    let mut pod: Value = template;
    pod["metadata"]["name"] = json!("next");
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    let pod: Pod = lab.api::<Pod>().create(&parameters, &serde_json::from_value(pod)?).await?;
    Ok(pod.metadata.annotations.and_then(|all| all.get("tidegate.dev/skipped").cloned()))
}
