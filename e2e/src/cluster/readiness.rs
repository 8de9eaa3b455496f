//! Waits for what a cluster needs before pods can run.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};

use crate::harness::eventually;

/// How long each may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// Until a node is Ready.
pub(super) async fn of_node(client: &Client, name: &str) -> anyhow::Result<()> {
    eventually(&format!("node {name} is Ready"), PATIENCE, async || node_is_ready(client, name).await).await
}

/// Until cluster DNS answers.
pub(super) async fn of_dns(client: &Client) -> anyhow::Result<()> {
    eventually("cluster DNS", PATIENCE, async || dns_is_available(client).await).await
}

/// Until kube-proxy runs on so many nodes.
pub(super) async fn of_service_proxy(client: &Client, nodes: usize) -> anyhow::Result<()> {
    let daemons: Api<DaemonSet> = Api::namespaced(client.clone(), "kube-system");
    eventually("kube-proxy on every node", PATIENCE, async || {
        let status = daemons.get("kube-proxy").await.map_err(|error| error.to_string())?.status;
        let ready = status.map_or(0, |status| status.number_ready);
        if usize::try_from(ready).is_ok_and(|ready| ready >= nodes) {
            Ok(())
        } else {
            Err(format!("on {ready}"))
        }
    })
    .await
}

async fn node_is_ready(client: &Client, name: &str) -> Result<(), String> {
    let node = Api::<Node>::all(client.clone()).get(name).await.map_err(|error| error.to_string())?;
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    match conditions.iter().find(|condition| condition.type_ == "Ready") {
        Some(ready) if ready.status == "True" => Ok(()),
        Some(ready) => Err(ready.message.clone().unwrap_or_default()),
        None => Err("the kubelet has not reported".to_owned()),
    }
}

async fn dns_is_available(client: &Client) -> Result<(), String> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "kube-system");
    let status =
        deployments.get("coredns").await.map_err(|error| error.to_string())?.status.unwrap_or_default();
    if status.available_replicas >= Some(1) { Ok(()) } else { Err(format!("{:?}", status.conditions)) }
}
