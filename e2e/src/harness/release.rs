//! The chart, installed and removed as a user would: with helm.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::process::Command;
use tokio::sync::OnceCell;

use super::lab::RELEASE_NAMESPACE;
use super::lab::apply;
use super::wait::eventually;
use crate::cluster::{binaries, images, progress::Progress};

/// The simulated GPUs of every node and their device plugin.
const GPU_NODES: &str = include_str!("../../manifests/gpu-node.yaml");
/// The folder of the chart.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/tidegate");
/// Done once in a process, by whichever test comes first.
static READY: OnceCell<()> = OnceCell::const_new();

/// Makes the cluster what the tests expect: nodes with simulated GPUs, the chart installed.
pub(super) async fn ensure(client: &Client) -> anyhow::Result<()> {
    READY.get_or_try_init(|| prepare(client)).await.copied()
}

async fn prepare(client: &Client) -> anyhow::Result<()> {
    apply(client, None, GPU_NODES).await.context("simulated GPUs")?;
    let nodes: Api<Node> = Api::all(client.clone());
    eventually("an allocatable nvidia.com/gpu on a node", Duration::from_mins(3), async || {
        let list = nodes.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
        let allocatable = list.items.iter().filter_map(|node| node.status.as_ref()?.allocatable.as_ref());
        let found = allocatable.flatten().any(|(name, count)| name == "nvidia.com/gpu" && count.0 != "0");
        if found { Ok(()) } else { Err("none".to_owned()) }
    })
    .await?;
    // Last, so that the agents find the simulated driver at their start.
    install().await
}

/// `helm upgrade --install` of the chart with the images of this workspace, until everything is ready.
pub async fn install() -> anyhow::Result<()> {
    let values = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/values.yaml");
    let registry = format!("image.registry={}", images::PREFIX);
    let wait = ["--create-namespace", "--wait", "--timeout", "5m"];
    let values = ["--values", values, "--set", &registry];
    helm(&[&["upgrade", "--install", "tidegate", CHART], wait.as_slice(), values.as_slice()].concat())
        .await?;
    Ok(())
}

/// `helm upgrade` to the chart in a folder, with further values over those of the release, until everything is ready.
pub async fn upgrade(chart: &Path, values: &[&str]) -> anyhow::Result<()> {
    let chart = chart.to_str().context("a folder with a name in UTF-8")?;
    let values: Vec<_> = values.iter().flat_map(|value| ["--set", value]).collect();
    let upgrade = ["upgrade", "tidegate", chart, "--reuse-values", "--wait", "--timeout", "5m"];
    helm(&[upgrade.as_slice(), values.as_slice()].concat()).await?;
    Ok(())
}

/// `helm rollback` to the release before the last, until everything is ready.
pub async fn rollback() -> anyhow::Result<()> {
    helm(&["rollback", "tidegate", "--wait", "--timeout", "5m"]).await?;
    Ok(())
}

/// The plain manifests: what the chart renders with its own values.
pub async fn render() -> anyhow::Result<String> {
    let rendered = template(&[]).await?;
    Ok(format!(
        "# Generated from the chart by `make gen`. Apply after: kubectl create namespace {RELEASE_NAMESPACE}\n{rendered}"
    ))
}

/// What the chart renders with these arguments of helm beside its own values.
pub async fn template(arguments: &[&str]) -> anyhow::Result<String> {
    let version = ["--kube-version", binaries::KUBERNETES];
    helm(&[&["template", "tidegate", CHART], version.as_slice(), arguments].concat()).await
}

/// `helm lint`: what it says when it finds nothing wrong.
pub async fn lint(arguments: &[&str]) -> anyhow::Result<String> {
    helm(&[&["lint", CHART, "--strict"], arguments].concat()).await
}

/// `helm uninstall`, until everything is gone.
pub async fn uninstall() -> anyhow::Result<()> {
    helm(&["uninstall", "tidegate", "--wait", "--timeout", "3m"]).await?;
    Ok(())
}

/// Sets the number of the operator's replicas and waits until they are ready, and for the end of all others: one that is
/// stopping still serves for a few seconds.
pub async fn scale_operator(client: &Client, replicas: i32) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), RELEASE_NAMESPACE);
    let scale = json!({"spec": {"replicas": replicas}});
    deployments.patch("tidegate-operator", &PatchParams::default(), &Patch::Merge(&scale)).await?;
    eventually(&format!("{replicas} ready operators"), Duration::from_mins(3), async || {
        let status = deployments.get("tidegate-operator").await.map_err(|error| error.to_string())?.status;
        let running = operators(client).await.map_err(|error| format!("{error:#}"))?.len();
        let ready = status.unwrap_or_default().ready_replicas.unwrap_or(0);
        if (ready, i32::try_from(running)) == (replicas, Ok(replicas)) {
            Ok(())
        } else {
            Err(format!("{ready} of {running}"))
        }
    })
    .await
}

/// The pods of the operator.
pub async fn operators(client: &Client) -> anyhow::Result<Vec<Pod>> {
    component(client, "operator").await
}

/// The pods of the agent, one on each node with a GPU.
pub async fn agents(client: &Client) -> anyhow::Result<Vec<Pod>> {
    component(client, "agent").await
}

async fn component(client: &Client, name: &str) -> anyhow::Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), RELEASE_NAMESPACE);
    let selector = ListParams::default().labels(&format!("app.kubernetes.io/component={name}"));
    Ok(pods.list(&selector).await?.items)
}

/// Name of the operator's pod that holds the Lease.
pub async fn leader(client: &Client) -> anyhow::Result<String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), RELEASE_NAMESPACE);
    let holder = leases.get("tidegate-operator").await?.spec.and_then(|spec| spec.holder_identity);
    holder.filter(|holder| !holder.is_empty()).context("nobody holds the Lease")
}

/// What helm prints.
async fn helm(arguments: &[&str]) -> anyhow::Result<String> {
    let helm = binaries::helm(&Progress::start()).await?;
    let output = Command::new(helm).args(["--namespace", RELEASE_NAMESPACE]).args(arguments).output().await?;
    let text = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "helm {}: {text}", arguments.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}
