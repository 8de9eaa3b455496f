//! A pod learns about itself and about nobody else.

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::ResourceExt;
use kube::api::PostParams;
use serde_json::{Value, json};
use tidegate_e2e::harness::{Engine, Lab, in_namespace, tls};

/// A token like the one that the kubelet projects into a pod.
async fn token(lab: &Lab, pod: Option<&Pod>, audience: &str) -> anyhow::Result<String> {
    let mut spec = json!({"audiences": [audience], "expirationSeconds": 600});
    if let Some(pod) = pod {
        spec["boundObjectRef"] =
            json!({"kind": "Pod", "apiVersion": "v1", "name": pod.name_any(), "uid": pod.metadata.uid});
    }
    let request: TokenRequest = serde_json::from_value(json!({"metadata": {}, "spec": spec}))?;
    let accounts = lab.api::<ServiceAccount>();
    let answer = accounts.create_token_request("default", &PostParams::default(), &request).await?;
    Ok(answer.status.map(|status| status.token).unwrap_or_default())
}

/// The rules of the document that the operator sends to the bearer of a token.
async fn rules(lab: &Lab, token: &str) -> anyhow::Result<Vec<String>> {
    let line = tls::first_line(lab, "tidegate-operator", 8444, "/v1/policy", token).await?;
    let event: Value = serde_json::from_str(&line)?;
    let limits = event["document"]["limits"].as_array().cloned().unwrap_or_default();
    Ok(limits.iter().map(|limit| limit["name"].as_str().unwrap_or_default().to_owned()).collect())
}

fn policy(name: &str) -> String {
    format!(
        "{{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {{name: {name}}}, spec: {{
           selector: {{matchLabels: {{app: {name}}}}},
           limits: [{{name: rule-of-{name}, algorithm: TokenBucket, limit: 5, window: 1m}}]}}}}"
    )
}

#[tokio::test]
async fn a_pod_cannot_read_the_policy_of_another() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(&format!("{}\n---\n{}", policy("ann"), policy("bob"))).await?;
        let ann = lab.engine(&Engine::new("ann")).await?;
        let bob = lab.engine(&Engine::new("bob")).await?;
        lab.until_programmed(&ann[0]).await?;
        lab.until_programmed(&bob[0]).await?;
        assert_eq!(rules(lab, &token(lab, Some(&ann[0]), "tidegate").await?).await?, ["rule-of-ann"]);
        assert_eq!(rules(lab, &token(lab, Some(&bob[0]), "tidegate").await?).await?, ["rule-of-bob"]);
        for wrong in [
            token(lab, Some(&ann[0]), "tidegate-agent").await?,
            token(lab, None, "tidegate").await?,
            "not-a-token".to_owned(),
        ] {
            let status = tls::status(lab, "tidegate-operator", 8444, "/v1/policy", &wrong).await?;
            assert!(status == 401 || status == 403, "{status}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_cannot_read_the_gpu_of_another() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply_permissive_policy().await?;
        let ann = lab.engine(&Engine::new("ann").gpus(1)).await?;
        let bob = lab.engine(&Engine::new("bob")).await?;
        let gpus = async |pod: &Pod| {
            let token = token(lab, Some(pod), "tidegate-agent").await?;
            let report: Value = serde_json::from_str(
                &tls::first_line(lab, "tidegate-agent", 8445, "/v1/gpus", &token).await?,
            )?;
            anyhow::Ok(report["devices"].as_array().map(Vec::len))
        };
        assert_eq!(gpus(&ann[0]).await?, Some(1));
        assert_eq!(gpus(&bob[0]).await?, Some(0), "bob has no GPU and is told about none");
        for wrong in [token(lab, Some(&ann[0]), "tidegate").await?, token(lab, None, "tidegate-agent").await?]
        {
            let status = tls::status(lab, "tidegate-agent", 8445, "/v1/gpus", &wrong).await?;
            assert!(status == 401 || status == 403, "{status}");
        }
        Ok(())
    })
    .await
}
