//! What stays when the operator or the whole installation goes.

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use tidegate_crds::RateLimitPolicy;
use tidegate_e2e::harness::{Engine, Lab, PATIENCE, RELEASE_NAMESPACE, alone, eventually, release};

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
    eventually("the last document after a crash", PATIENCE, async || match lab.status(guarded).await {
        Ok(status) if status.limits.len() == 1 => Ok(()),
        other => Err(format!("{other:?}")),
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
        release::scale_operator(&lab.client, 0).await?;
        // Whatever came out, the other tests need the operator.
        let outcome = without_operator(lab, &guarded[0]).await;
        release::scale_operator(&lab.client, 1).await?;
        outcome?;
        let policies = lab.api::<RateLimitPolicy>();
        eventually("the late pod in the policy's status", PATIENCE, async || {
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

async fn counted(lab: &Lab, pods: i32) -> anyhow::Result<()> {
    let policies = lab.api::<RateLimitPolicy>();
    eventually("all pods in the policy's status", PATIENCE, async || {
        let policy = policies.get("limit").await.map_err(|error| error.to_string())?;
        let status = policy.status.ok_or("no status")?;
        let seen = (status.observed_generation, status.pods.programmed, status.pods.out_of_date);
        if seen == (policy.metadata.generation, pods, 0) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await
}

#[tokio::test]
async fn several_replicas_count_all_pods_and_outlive_their_leader() -> anyhow::Result<()> {
    alone(async |lab| {
        lab.apply(LIMIT).await?;
        release::scale_operator(&lab.client, 3).await?;
        let outcome = async {
            lab.engine(&Engine::new("llama").replicas(4)).await?;
            counted(lab, 4).await?;
            let operators: Api<Pod> = Api::namespaced(lab.client.clone(), RELEASE_NAMESPACE);
            let leader = release::leader(&lab.client).await?;
            operators.delete(&leader, &DeleteParams::default().grace_period(0)).await?;
            eventually("another leader", PATIENCE, async || match release::leader(&lab.client).await {
                Ok(next) if next != leader => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await?;
            lab.apply(&LIMIT.replace("limit: 2,", "limit: 3,")).await?;
            counted(lab, 4).await
        };
        // Whatever came out, the other tests expect one.
        let outcome = outcome.await;
        release::scale_operator(&lab.client, 1).await?;
        outcome
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
