//! Which pods get a sidecar, and what they look like then.

use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::{Value, json};
use tidegate_e2e::harness::{Engine, Lab, engine_url, in_namespace};

fn init_containers(pod: &Pod) -> Vec<String> {
    let spec = pod.spec.clone().unwrap_or_default();
    spec.init_containers.unwrap_or_default().into_iter().map(|container| container.name).collect()
}

fn skipped(pod: &Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get("tidegate.dev/skipped").map(String::as_str)
}

/// What makes a pod different from the usual one.
type Change = dyn Fn(&mut Value);

/// A pod as the API server stores it after admission, without running it.
async fn admitted(lab: &Lab, name: &str, change: impl Fn(&mut Value)) -> anyhow::Result<Pod> {
    let mut pod = json!({
        "metadata": {"name": name, "labels": {}, "annotations": {}},
        "spec": {"containers": [{
            "name": "engine",
            "image": "tidegate.local/none:0",
            "ports": [{"containerPort": 8000}],
            "resources": {"requests": {"cpu": "10m"}},
        }]},
    });
    change(&mut pod);
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    Ok(lab.api::<Pod>().create(&parameters, &serde_json::from_value(pod)?).await?)
}

#[tokio::test]
async fn a_pod_that_a_policy_selects_gets_a_sidecar_and_becomes_ready() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply_permissive_policy().await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        assert_eq!(init_containers(&pods[0]), ["tidegate-redirect", "tidegate-sidecar"]);
        let answer = lab.complete(&pods[0], &[]).await?;
        assert_eq!(answer.status, 200, "{answer:?}");
        let admitted = r#"tidegate_requests_total{decision="admitted",cause="",priority="medium"}"#;
        assert!(lab.metric(&pods[0], admitted).await? >= 1.0, "the request did not pass through the sidecar");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn probes_and_metrics_pass_without_limits() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(
            "{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {name: one}, spec: {
              limits: [{name: all, algorithm: TokenBucket, limit: 1, window: 1h, burst: 1}]}}",
        )
        .await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        lab.until_programmed(&pods[0]).await?;
        let url = engine_url(&pods[0])?;
        for _ in 0..5 {
            assert_eq!(lab.http.get(&format!("{url}/health")).await?.status, 200);
            assert_eq!(lab.http.get(&format!("{url}/metrics")).await?.status, 200);
        }
        let passed = lab.complete(&pods[0], &[]).await?.status;
        assert_eq!((passed.as_u16(), lab.complete(&pods[0], &[]).await?.status.as_u16()), (200, 429));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn opted_out_and_host_network_pods_are_left_alone_and_say_why() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply_permissive_policy().await?;
        let opted_out =
            |pod: &mut Value| pod["metadata"]["labels"]["tidegate.dev/inject"] = json!("disabled");
        let host_network = |pod: &mut Value| pod["spec"]["hostNetwork"] = json!(true);
        let portless = |pod: &mut Value| pod["spec"]["containers"][0]["ports"] = json!([]);
        let meshed = |pod: &mut Value| {
            let proxy = json!({"name": "istio-proxy", "image": "tidegate.local/none:0"});
            pod["spec"]["containers"] = json!([pod["spec"]["containers"][0], proxy]);
        };
        let cases: [(&str, &Change); 4] = [
            ("OptedOut", &opted_out),
            ("HostNetwork", &host_network),
            ("NoPortToGuard", &portless),
            ("OtherMesh", &meshed),
        ];
        for (reason, change) in cases {
            let pod = admitted(lab, &reason.to_lowercase(), change).await?;
            assert_eq!(skipped(&pod), Some(reason));
            assert_eq!(init_containers(&pod), Vec::<String>::new());
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_guaranteed_pod_stays_guaranteed() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply_permissive_policy().await?;
        let resources =
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}});
        let pod =
            admitted(lab, "guaranteed", |pod| pod["spec"]["containers"][0]["resources"] = resources.clone())
                .await?;
        assert_eq!(init_containers(&pod).len(), 2);
        assert_eq!(pod.status.and_then(|status| status.qos_class).as_deref(), Some("Guaranteed"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_label_injects_where_the_namespace_does_not() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {}, labels: {{tidegate.dev/injection: disabled}}}}}}",
            lab.namespace
        ))
        .await?;
        let plain = admitted(lab, "plain", |_| ()).await?;
        assert_eq!(init_containers(&plain), Vec::<String>::new());
        let labelled = admitted(lab, "labelled", |pod| pod["metadata"]["labels"]["tidegate.dev/inject"] = json!("enabled"));
        assert_eq!(init_containers(&labelled.await?).len(), 2);
        Ok(())
    })
    .await
}
