//! Do the sidecars run, are they as new as the operator, and are they connected to it?

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::Finding;
use super::operator::Operator;
use crate::cluster::{Cluster, Inventory};
use crate::pod_row::PodRow;
use crate::sidecars::{self, container, is_alive};
use crate::status::pod_rows;

const PART: &str = "sidecars";
/// Sidecars that are asked; all of a large cluster would take minutes.
const SAMPLE: usize = 200;
/// Names in a message.
const SHOWN: usize = 5;

/// What is known about all pods.
pub(super) struct Seen {
    pub(super) inventory: Result<Inventory, String>,
}

pub(super) async fn look(cluster: &Cluster) -> Seen {
    let inventory = Inventory::read(cluster, None).await;
    Seen { inventory: inventory.map_err(|refused| refused.lines().collect::<Vec<_>>().join("; ")) }
}

pub(super) async fn check(cluster: &Cluster, seen: &Seen, operator: &Operator) -> Vec<Finding> {
    let inventory = match &seen.inventory {
        Ok(inventory) => inventory,
        Err(error) => return vec![Finding::unread(PART, "pods of all namespaces", error)],
    };
    let injected: Vec<&Pod> =
        inventory.pods.iter().filter(|pod| container(pod).is_some() && is_alive(pod)).collect();
    if injected.is_empty() {
        return vec![Finding::ok(PART, "no pod has one yet")];
    }
    let mut findings = vec![restarts(&injected), skew(&injected, operator)];
    let sample: Vec<Pod> = injected.iter().take(SAMPLE).map(|pod| Pod::clone(pod)).collect();
    let pages = sidecars::ask(cluster, &sample).await;
    let rows = pod_rows(inventory, &pages);
    let asked: Vec<_> =
        rows.iter().filter(|row| row.state.is_some() || row.sidecar.unreachable.is_some()).collect();
    findings.push(connections(&asked));
    findings.extend(refusals(&asked));
    findings.extend(missing(&rows));
    findings
}

fn restarts(injected: &[&Pod]) -> Finding {
    let troubled = |pod: &&&Pod| {
        let statuses = pod.status.as_ref().and_then(|status| status.init_container_statuses.as_deref());
        let sidecar = statuses.unwrap_or_default().iter().find(|one| one.name == "tidegate-sidecar");
        sidecar.is_some_and(|sidecar| sidecar.restart_count > 0 || !sidecar.ready)
    };
    let names: Vec<_> = injected.iter().filter(troubled).map(|pod| name(pod)).collect();
    if names.is_empty() {
        return Finding::ok(PART, format!("{} run, none was restarted", injected.len()));
    }
    let hint = "kubectl describe the pod: OOMKilled asks for sidecar.resources.limits.memory";
    Finding::warn(PART, format!("not ready, or restarted: {}", shown(&names)), hint)
}

fn skew(injected: &[&Pod], operator: &Operator) -> Finding {
    let Some(image) = &operator.sidecar_image else {
        return Finding::unread(PART, "what the operator injects", "it says no --sidecar-image");
    };
    let is_old = |pod: &&&Pod| container(pod).and_then(|one| one.image.as_ref()) != Some(image);
    let old: Vec<_> = injected.iter().filter(is_old).map(|pod| name(pod)).collect();
    if old.is_empty() {
        return Finding::ok(PART, format!("all are of {image}"));
    }
    let message = format!("{} of {} are not of {image}: {}", old.len(), injected.len(), shown(&old));
    Finding::warn(PART, message, "kubectl tidegate rotate -A")
}

fn connections(asked: &[&PodRow]) -> Finding {
    let silent: Vec<_> = asked.iter().filter(|row| row.state.is_none()).collect();
    if let (Some(first), true) = (silent.first(), silent.len() == asked.len()) {
        let error = first.sidecar.unreachable.as_deref().unwrap_or_default();
        return Finding::unread(PART, "their status (pods/proxy)", error);
    }
    let cut = |row: &&&PodRow| row.state.as_ref().is_some_and(|state| !state.operator_connected);
    let cut: Vec<_> = asked.iter().filter(cut).map(|row| format!("{}/{}", row.namespace, row.name)).collect();
    if cut.is_empty() {
        return Finding::ok(
            PART,
            format!("{} of {} asked are connected", asked.len() - silent.len(), asked.len()),
        );
    }
    let message = format!("{} of {} are cut off from the operator: {}", cut.len(), asked.len(), shown(&cut));
    let hint = "they keep their last policy. See network below; then kubectl logs POD -c tidegate-sidecar";
    Finding::fail(PART, message, hint)
}

fn refusals(asked: &[&PodRow]) -> Option<Finding> {
    let refused = asked.iter().filter(|row| row.state.as_ref().is_some_and(|state| state.refused.is_some()));
    let names: Vec<_> = refused.map(|row| format!("{}/{}", row.namespace, row.name)).collect();
    let hint = "they keep their last policy; kubectl tidegate status says why";
    (!names.is_empty())
        .then(|| Finding::fail(PART, format!("the newest policy is refused by {}", shown(&names)), hint))
}

fn missing(rows: &[PodRow]) -> Option<Finding> {
    let without = rows.iter().filter(|row| !row.sidecar.injected && row.sidecar.skipped.is_none());
    let names: Vec<_> = without.map(|row| format!("{}/{}", row.namespace, row.name)).collect();
    let hint = "kubectl tidegate explain POD says why; kubectl tidegate rotate -A gives them one";
    (!names.is_empty()).then(|| {
        let message = format!("{} pods that a policy selects have none: {}", names.len(), shown(&names));
        Finding::warn(PART, message, hint)
    })
}

fn name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

fn shown(names: &[String]) -> String {
    let more = names.len().saturating_sub(SHOWN);
    let text = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more == 0 { text } else { format!("{text} and {more} more") }
}
