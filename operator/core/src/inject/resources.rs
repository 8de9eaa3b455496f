//! Resources of the injected containers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::SidecarResources;
use super::skip::all_containers;

/// A Guaranteed pod stays Guaranteed: the sidecar then has equal requests and limits. A pod that declares its
/// resources as a whole gets no others: ours could exceed its sum, and its class does not depend on them.
pub(super) fn of_sidecar(pod: &Pod, resources: &SidecarResources) -> Option<ResourceRequirements> {
    if pod.spec.as_ref().is_some_and(|spec| spec.resources.is_some()) {
        return None;
    }
    if is_guaranteed(pod) {
        let both = quantities(Some(&resources.guaranteed_cpu), &resources.memory_limit);
        return Some(ResourceRequirements {
            requests: Some(both.clone()),
            limits: Some(both),
            ..ResourceRequirements::default()
        });
    }
    Some(ResourceRequirements {
        requests: Some(quantities(Some(&resources.cpu_request), &resources.memory_request)),
        limits: Some(quantities(resources.cpu_limit.as_ref(), &resources.memory_limit)),
        ..ResourceRequirements::default()
    })
}

fn quantities(cpu: Option<&String>, memory: &str) -> BTreeMap<String, Quantity> {
    let cpu = cpu.map(|cpu| ("cpu".to_owned(), Quantity(cpu.clone())));
    cpu.into_iter().chain([("memory".to_owned(), Quantity(memory.to_owned()))]).collect()
}

/// Kubernetes' rule for the `QoS` class: every container, init containers too, limits both and requests as much.
fn is_guaranteed(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| all_containers(spec).all(container_is_guaranteed))
}

fn container_is_guaranteed(container: &Container) -> bool {
    let Some(resources) = &container.resources else { return false };
    ["cpu", "memory"].iter().all(|name| {
        let limit = resources.limits.as_ref().and_then(|limits| limits.get(*name));
        // A request that is left out equals the limit.
        let request = resources.requests.as_ref().and_then(|requests| requests.get(*name)).or(limit);
        limit.is_some() && limit == request
    })
}
