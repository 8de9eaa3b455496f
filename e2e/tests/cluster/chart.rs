//! The chart's life under load: upgraded, rolled back, and its injection taken out of the cluster.

use std::path::Path;

use anyhow::Context;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tidegate_crds::{PodCounts, RateLimitPolicy};
use tidegate_e2e::cluster::images;
use tidegate_e2e::harness::{Client, Engine, Lab, PATIENCE, Traffic, alone, eventually, release};

use crate::cli::printed;

/// The policy of every pod; its limit tells which version of it a pod obeys.
fn policy(limit: u64, more: &str) -> String {
    format!(
        "{{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {{name: all}}, spec: {{{more}
            limits: [{{name: all, algorithm: TokenBucket, limit: {limit}, window: 1s}}]}}}}"
    )
}

async fn until_obeyed(lab: &Lab, pods: &[Pod], limit: u64) -> anyhow::Result<()> {
    for pod in pods {
        lab.until(pod, "the last policy", |status| status.limits.iter().any(|one| one.size == limit)).await?;
    }
    Ok(())
}

/// Waits for what the operator counts and for the command that it gives.
async fn until_counted(lab: &Lab, old: i32, rotate: Option<&str>) -> anyhow::Result<()> {
    let policies = lab.api::<RateLimitPolicy>();
    let expected =
        PodCounts { matched: 2, injected: 2, programmed: 2, old_sidecar: old, ..PodCounts::default() };
    eventually("the sidecars in the policy's status", PATIENCE, async || {
        let policy = policies.get("all").await.map_err(|error| error.to_string())?;
        let status = policy.status.ok_or("no status")?;
        let is_newest = status.observed_generation == policy.metadata.generation;
        if is_newest && status.pods == expected && status.rotate.as_deref() == rotate {
            Ok(())
        } else {
            Err(format!("{:?} {:?}", status.pods, status.rotate))
        }
    })
    .await
}

/// Image of the sidecar of a pod, if it has one.
fn sidecar(pod: &Pod) -> Option<&str> {
    let containers = pod.spec.as_ref()?.init_containers.as_deref().unwrap_or_default();
    containers.iter().find(|container| container.name == "tidegate-sidecar")?.image.as_deref()
}

/// The sidecar that a pod would get now.
async fn injected_now(lab: &Lab) -> anyhow::Result<String> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "would-be"},
        "spec": {"containers": [{
            "name": "engine", "image": "tidegate.local/none:0", "ports": [{"containerPort": 8000}],
        }]},
    }))?;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let pod = lab.api::<Pod>().create(&dry_run, &pod).await?;
    sidecar(&pod).map(str::to_owned).context("no sidecar would be injected")
}

/// The API server may ask the operator of before for as long as that is ending.
async fn until_injected(lab: &Lab, image: &str) -> anyhow::Result<()> {
    eventually("the sidecar that is injected", PATIENCE, async || match injected_now(lab).await {
        Ok(injected) if injected == image => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
}

/// The chart as its next version might be: the custom resources know one field more.
fn next_chart(folder: &Path) -> anyhow::Result<()> {
    copy(Path::new(release::CHART), folder)?;
    for entry in std::fs::read_dir(folder.join("crds-generated"))? {
        let path = entry?.path();
        let mut definition: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path)?)?;
        let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        let fields = definition.pointer_mut(spec).context("the fields of the spec")?;
        fields["owner"] = json!({"type": "string", "maxLength": 63});
        std::fs::write(path, definition.to_string())?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        // Through links: what they lead to lies beside the chart.
        if entry.path().is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The field that only the next version knows.
async fn owner(lab: &Lab) -> anyhow::Result<Option<String>> {
    let resource = ApiResource::erase::<RateLimitPolicy>(&());
    let api = Api::<DynamicObject>::namespaced_with(lab.client.clone(), &lab.namespace, &resource);
    Ok(api.get("all").await?.data.pointer("/spec/owner").and_then(Value::as_str).map(str::to_owned))
}

async fn upgrade_and_rollback(lab: &Lab, engine: &Engine) -> anyhow::Result<()> {
    let pods = lab.ready_pods(&engine.selector(), 2).await?;
    let before = injected_now(lab).await?;
    let folder = tempfile::tempdir()?;
    next_chart(folder.path())?;
    let tag = format!("image.tag={}", images::NEXT);
    release::upgrade(folder.path(), &[&tag, "sidecar.logLevel=info"]).await?;

    let rotate = format!("kubectl tidegate rotate --namespace {}", lab.namespace);
    until_counted(lab, 2, Some(&rotate)).await?;
    let told = printed(lab, &["status"]).await?;
    anyhow::ensure!(told.contains("2 of 2 pods have an old sidecar") && told.contains(&rotate), "{told}");
    // The old sidecars obey the new operator, and the new field is kept.
    lab.apply(&policy(900_000, "owner: ann,")).await?;
    until_obeyed(lab, &pods, 900_000).await?;
    anyhow::ensure!(owner(lab).await?.as_deref() == Some("ann"), "the new field was dropped");

    let next = before.replace(images::VERSION, images::NEXT);
    until_injected(lab, &next).await?;
    // What the command says is what is run.
    printed(lab, &["rotate", "--timeout", "240"]).await?;
    let pods = lab.ready_pods(&engine.selector(), 2).await?;
    anyhow::ensure!(pods.iter().all(|pod| sidecar(pod) == Some(&next)), "not all have {next}");
    until_counted(lab, 0, None).await?;

    release::rollback().await?;
    until_injected(lab, &before).await?;
    until_counted(lab, 2, Some(&rotate)).await?;
    lab.apply(&policy(800_000, "")).await?;
    until_obeyed(lab, &pods, 800_000).await?;
    anyhow::ensure!(owner(lab).await?.is_none(), "the older definition keeps a field that it does not know");
    until_counted(lab, 2, Some(&rotate)).await
}

/// Does `work` to two engines under load, and puts the chart back. Every request has to be answered well.
async fn without_loss(
    lab: &Lab,
    what: &str,
    work: impl AsyncFnOnce(&Engine) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    lab.apply(&policy(1_000_000, "")).await?;
    let engine = Engine::new("llama").replicas(2);
    let pods = lab.engine(&engine).await?;
    until_obeyed(lab, &pods, 1_000_000).await?;
    let url = lab.service_url("llama").await?;
    let traffic = Traffic::start(&url, &[Client { priority: "medium", rate: 40.0 }]);
    let outcome = work(&engine).await;
    let tally = traffic.stop().await;
    // Whatever came out, the other tests need the chart as it was.
    release::install().await?;
    outcome?;
    let tally = tally?;
    println!("{} requests during {what}", tally.all("medium"));
    anyhow::ensure!(tally.lost.is_empty(), "{:?}", tally.lost);
    anyhow::ensure!(tally.of("medium", 200) == tally.all("medium"), "{tally:?}");
    Ok(())
}

#[tokio::test]
async fn an_upgrade_and_a_rollback_of_the_chart_lose_no_request_and_list_old_sidecars() -> anyhow::Result<()>
{
    alone(async |lab| {
        let what = "the upgrade, the rotation and the rollback";
        without_loss(lab, what, async |engine| upgrade_and_rollback(lab, engine).await).await
    })
    .await
}

async fn clean(lab: &Lab, engine: &Engine) -> anyhow::Result<()> {
    let planned = printed(lab, &["cleanup", "--restart", "--dry-run", "-o", "yaml"]).await?;
    let planned: Value = serde_saphyr::from_str(&planned)?;
    lab.ready_pods(&engine.selector(), 2).await?;
    let text = printed(lab, &["cleanup", "--restart", "--timeout", "240", "-o", "json"]).await?;
    let report: Value = serde_json::from_str(&text)?;
    for (report, done) in [(&planned, Value::Null), (&report, Value::Bool(true))] {
        let steps = report["steps"].as_array().context("steps")?;
        let step = |action: &str, kind: &str, name: &str| {
            steps.iter().any(|step| {
                (&step["action"], &step["kind"], &step["name"])
                    == (&json!(action), &json!(kind), &json!(name))
                    && step["done"] == done
            })
        };
        let is_whole = step("Delete", "MutatingWebhookConfiguration", "tidegate")
            && step("Delete", "ValidatingWebhookConfiguration", "tidegate")
            && step("Unlabel", "Namespace", &lab.namespace)
            && step("Restart", "Deployment", engine.name())
            && step("Delete", "ConfigMap", "tidegate-ca");
        anyhow::ensure!(is_whole, "{report}");
    }
    let pods = lab.ready_pods(&engine.selector(), 2).await?;
    anyhow::ensure!(pods.iter().all(|pod| sidecar(pod).is_none()), "a pod has a sidecar");
    let namespace = Api::<Namespace>::all(lab.client.clone()).get(&lab.namespace).await?;
    anyhow::ensure!(!namespace.labels().contains_key("tidegate.dev/injection"), "the label is there");
    let mutating = Api::<MutatingWebhookConfiguration>::all(lab.client.clone()).get_opt("tidegate").await?;
    let validating =
        Api::<ValidatingWebhookConfiguration>::all(lab.client.clone()).get_opt("tidegate").await?;
    anyhow::ensure!(mutating.is_none() && validating.is_none(), "a webhook is there");
    anyhow::ensure!(lab.api::<ConfigMap>().get_opt("tidegate-ca").await?.is_none(), "the CA bundle is there");
    lab.api::<RateLimitPolicy>().get("all").await.context("policies stay")?;
    Ok(())
}

#[tokio::test]
async fn cleanup_takes_every_sidecar_out_of_the_cluster_and_loses_no_request() -> anyhow::Result<()> {
    alone(async |lab| without_loss(lab, "the cleanup", async |engine| clean(lab, engine).await).await).await
}
