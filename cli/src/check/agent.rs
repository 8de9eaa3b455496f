//! Does every node with GPUs have a ready agent?

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::{Finding, installed};
use crate::cluster::{Cluster, is_missing, said};

const PART: &str = "agent";
const NAME: &str = "tidegate-agent";
/// Names in a message.
const SHOWN: usize = 5;

pub(super) async fn check(cluster: &Cluster) -> Vec<Finding> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let nodes = match nodes.list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(error) => return vec![Finding::unread(PART, "nodes", &said(&error))],
    };
    let with_gpus: BTreeSet<_> =
        nodes.iter().filter(|node| has_gpus(node)).map(ResourceExt::name_any).collect();
    match installed::<DaemonSet>(cluster).get(NAME).await {
        Ok(_) if with_gpus.is_empty() => {
            return vec![Finding::ok(PART, "no node offers nvidia.com GPUs")];
        }
        Ok(_) => {}
        Err(error) if is_missing(&error) && with_gpus.is_empty() => {
            return vec![Finding::ok(PART, "it is not installed, and no node offers nvidia.com GPUs")];
        }
        Err(error) if is_missing(&error) => {
            let message =
                format!("it is not installed, and {} nodes have GPUs: GPU tiers are stale", with_gpus.len());
            return vec![Finding::warn(PART, message, "helm upgrade with agent.enabled=true")];
        }
        Err(error) => return vec![Finding::unread(PART, "its DaemonSet", &said(&error))],
    }
    let selector = ListParams::default().labels("app.kubernetes.io/component=agent");
    match installed::<Pod>(cluster).list(&selector).await {
        Ok(pods) => vec![judge(&with_gpus, &pods.items, &cluster.install_namespace)],
        Err(error) => vec![Finding::unread(PART, "its pods", &said(&error))],
    }
}

/// By device plugin; MIG devices have names of their own.
fn has_gpus(node: &Node) -> bool {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let mut resources = allocatable.into_iter().flatten();
    resources.any(|(name, count)| name.starts_with("nvidia.com/") && count.0 != "0")
}

fn judge(with_gpus: &BTreeSet<String>, pods: &[Pod], namespace: &str) -> Finding {
    let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let ready: BTreeSet<_> = pods.iter().filter(|pod| is_ready(pod)).filter_map(node).collect();
    let without: Vec<_> = with_gpus.difference(&ready).map(String::as_str).collect();
    if without.is_empty() {
        return Finding::ok(PART, format!("ready on all {} nodes with GPUs", with_gpus.len()));
    }
    let names = without.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    Finding::fail(
        PART,
        format!("not ready on {} of {} nodes with GPUs: {names}", without.len(), with_gpus.len()),
        format!(
            "kubectl -n {namespace} logs daemonset/{NAME}; driverRoot, runtimeClassName and tolerations are values of the chart"
        ),
    )
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
