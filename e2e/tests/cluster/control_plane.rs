//! What stays when the operator or the whole installation goes.

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use tidegate_crds::RateLimitPolicy;
use tidegate_e2e::harness::{Engine, Lab, RELEASE_NAMESPACE, alone, eventually, release};

/// Waits for the end of the last replica too: one that is stopping still serves for a few seconds.
async fn scale_operator(lab: &Lab, replicas: i32) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(lab.client.clone(), RELEASE_NAMESPACE);
    let pods: Api<Pod> = Api::namespaced(lab.client.clone(), RELEASE_NAMESPACE);
    let scale = json!({"spec": {"replicas": replicas}});
    deployments.patch("tidegate-operator", &PatchParams::default(), &Patch::Merge(&scale)).await?;
    let selector = ListParams::default().labels("app.kubernetes.io/component=operator");
    eventually(&format!("{replicas} ready operators"), Duration::from_mins(1), async || {
        let status = deployments.get("tidegate-operator").await.map_err(|error| error.to_string())?.status;
        let running = pods.list(&selector).await.map_err(|error| error.to_string())?.items.len();
        let ready = status.unwrap_or_default().ready_replicas.unwrap_or(0);
        if (ready, i32::try_from(running)) == (replicas, Ok(replicas)) {
            Ok(())
        } else {
            Err(format!("{ready} of {running}"))
        }
    })
    .await
}

const LIMIT: &str =
    "{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {name: limit}, spec: {
    limits: [{name: all, key: [{header: x-user}], algorithm: TokenBucket, limit: 2, window: 1h, burst: 2}]}}";

async fn limit_holds(lab: &Lab, pod: &Pod, user: &str) -> anyhow::Result<()> {
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(lab.complete(pod, &[("x-user", user)]).await?.status.as_u16());
    }
    anyhow::ensure!(codes == [200, 200, 429], "{codes:?} instead of two passing");
    Ok(())
}

fn injected(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.init_containers.as_ref().is_some_and(|list| !list.is_empty()))
}

async fn without_operator(lab: &Lab, guarded: &Pod) -> anyhow::Result<()> {
    limit_holds(lab, guarded, "ann").await?;
    lab.kill_worker(guarded)?;
    eventually("the last document after a crash", Duration::from_secs(10), async || {
        match lab.status(guarded).await {
            Ok(status) if status.limits.len() == 1 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    limit_holds(lab, guarded, "bob").await?;
    let late = lab.engine(&Engine::new("late")).await?;
    anyhow::ensure!(!injected(&late[0]), "injected by nobody");
    anyhow::ensure!(lab.complete(&late[0], &[]).await?.status == 200, "the late pod does not serve");
    Ok(())
}

#[tokio::test]
async fn without_the_operator_limits_hold_and_new_pods_start_and_are_reported_later() -> anyhow::Result<()> {
    alone(async |lab| {
        lab.apply(LIMIT).await?;
        let guarded = lab.engine(&Engine::new("guarded")).await?;
        lab.until_programmed(&guarded[0]).await?;
        scale_operator(lab, 0).await?;
        // Whatever came out, the other tests need the operator.
        let outcome = without_operator(lab, &guarded[0]).await;
        scale_operator(lab, 1).await?;
        outcome?;
        let policies = lab.api::<RateLimitPolicy>();
        eventually("the late pod in the policy's status", Duration::from_secs(30), async || {
            let status =
                policies.get("limit").await.map_err(|error| error.to_string())?.status.ok_or("no status")?;
            let command_is_there =
                status.rotate.as_deref().is_some_and(|command| command.contains("rollout restart"));
            if (status.pods.uninjected, status.pods.injected) == (1, 1) && command_is_there {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await
    })
    .await
}

#[tokio::test]
async fn uninstalling_the_chart_leaves_running_pods_serving() -> anyhow::Result<()> {
    alone(async |lab| {
        lab.apply(LIMIT).await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        lab.until_programmed(&pods[0]).await?;
        release::uninstall().await?;
        let outcome = async {
            limit_holds(lab, &pods[0], "ann").await?;
            let late = lab.engine(&Engine::new("late")).await?;
            anyhow::ensure!(!injected(&late[0]), "injected by nobody");
            lab.api::<RateLimitPolicy>().get("limit").await.context("policies outlive the chart")?;
            anyhow::Ok(())
        };
        // Whatever came out, the other tests need the chart.
        let outcome = outcome.await;
        release::install().await?;
        outcome
    })
    .await
}
