//! Pods that finish, roll and go.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tidegate_e2e::cluster::images;
use tidegate_e2e::harness::{Client, Engine, PATIENCE, Traffic, eventually, in_namespace};

#[tokio::test]
async fn a_job_with_a_sidecar_completes() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply_permissive_policy().await?;
        let job: Job = serde_json::from_value(json!({
            "metadata": {"name": "batch"},
            "spec": {"backoffLimit": 0, "template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{
                    "name": "work",
                    "image": images::reference("tidegate-e2e"),
                    "command": ["/usr/local/bin/tidegate-e2e", "--version"],
                    "ports": [{"containerPort": 8000}],
                }],
            }}},
        }))?;
        let jobs = lab.api::<Job>();
        jobs.create(&PostParams::default(), &job).await?;
        eventually("a completed Job", PATIENCE, async || {
            let status =
                jobs.get("batch").await.map_err(|error| error.to_string())?.status.unwrap_or_default();
            if status.succeeded == Some(1) { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await?;
        let pods = lab.api::<Pod>().list(&ListParams::default().labels("job-name=batch")).await?;
        let spec = pods.items[0].spec.clone().expect("a spec");
        assert_eq!(
            spec.init_containers.map(|containers| containers.len()),
            Some(2),
            "the Job ran with its sidecar"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_rolling_update_under_load_loses_no_request() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply_permissive_policy().await?;
        let engine = Engine::new("llama").replicas(2);
        lab.engine(&engine).await?;
        let url = lab.service_url("llama").await?;
        let traffic = Traffic::start(&url, &[Client { priority: "medium", rate: 40.0 }]);
        let restart = json!({"spec": {"template": {"metadata": {"annotations": {"restarted": "once"}}}}});
        let deployments = lab.api::<Deployment>();
        deployments.patch("llama", &PatchParams::default(), &Patch::Strategic(&restart)).await?;
        eventually("the end of the roll-out", PATIENCE, async || {
            let deployment = deployments.get("llama").await.map_err(|error| error.to_string())?;
            let observed = deployment.status.as_ref().and_then(|status| status.observed_generation);
            let status = deployment.status.clone().unwrap_or_default();
            let updated = (status.updated_replicas, status.available_replicas, status.replicas);
            if observed == deployment.metadata.generation && updated == (Some(2), Some(2), Some(2)) {
                Ok(())
            } else {
                Err(format!("{updated:?}"))
            }
        })
        .await?;
        lab.ready_pods(&engine.selector(), 2).await?;
        let tally = traffic.stop().await?;
        println!("{} requests during the roll-out", tally.all("medium"));
        assert_eq!(tally.lost, Vec::<String>::new());
        assert_eq!(tally.of("medium", 200), tally.all("medium"), "{tally:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_crashed_worker_is_back_without_a_restart_of_the_container() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply_permissive_policy().await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        let pod = &pods[0];
        let name = pod.metadata.name.clone().unwrap_or_default();
        lab.kill_worker(pod)?;
        eventually("a counted restart of the worker", PATIENCE, async || {
            match lab.metric(pod, "tidegate_worker_restarts_total").await {
                Ok(restarts) if restarts >= 1.0 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        assert_eq!(lab.complete(pod, &[]).await?.status, 200);
        let status = lab.api::<Pod>().get(&name).await?.status.unwrap_or_default();
        let sidecars = status.init_container_statuses.unwrap_or_default();
        let restarts: i32 = sidecars.iter().map(|container| container.restart_count).sum();
        assert_eq!(restarts, 0);
        Ok(())
    })
    .await
}
