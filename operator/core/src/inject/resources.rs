//! Resources of the injected containers.
//!
//! A quota of the namespace refuses a pod in which one container lacks what it asks for. The webhook does not read
//! quotas: where every container of a pod has a request or a limit, its namespace may ask for it, and ours have it too.
//! Bounds of the namespace on each container are known, and ours keep within.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::names::{
    CPU_LIMIT_ANNOTATION, CPU_REQUEST_ANNOTATION, MEMORY_LIMIT_ANNOTATION, MEMORY_REQUEST_ANNOTATION,
};
use super::skip::all_containers;
use super::{ContainerBounds, SidecarResources, Skip, SkipReason};
use crate::quantity::billionths;

const EPHEMERAL: &str = "ephemeral-storage";
/// Log files of a container, of which the kubelet keeps 50 MiB, and little else: what is stored is in a volume.
const EPHEMERAL_REQUEST: &str = "64Mi";
const EPHEMERAL_LIMIT: &str = "256Mi";

type Quantities = BTreeMap<String, Quantity>;

/// A Guaranteed pod stays Guaranteed: the sidecar then has equal requests and limits. A pod that declares its
/// resources as a whole gets no others: ours could exceed its sum, and its class does not depend on them.
pub(super) fn of_sidecar(
    pod: &Pod,
    resources: &SidecarResources,
    bounds: &ContainerBounds,
) -> Result<Option<ResourceRequirements>, Skip> {
    if pod.spec.as_ref().is_some_and(|spec| spec.resources.is_some()) {
        return Ok(None);
    }
    let SidecarResources { cpu_request, cpu_limit, memory_request, memory_limit, guaranteed_cpu } =
        annotated(pod, resources)?;
    if is_guaranteed(pod) {
        let memory = bounds.memory().within(memory_limit);
        let mut both = quantities(Some(bounds.cpu().within(guaranteed_cpu)), memory);
        ephemeral(pod, Kind::Limit, EPHEMERAL_LIMIT, &mut both);
        return Ok(Some(requirements(both.clone(), both)));
    }
    let asked = everybody_has(pod, Kind::Limit, "cpu") || bounds.cpu().ask_for_a_limit();
    let cpu_limit = cpu_limit.or_else(|| asked.then_some(guaranteed_cpu));
    let cpu_limit = cpu_limit.map(|limit| bounds.cpu().within(limit));
    let cpu_request = bounds.cpu().request_for(bounds.cpu().within(cpu_request), cpu_limit.as_deref());
    let memory_limit = bounds.memory().within(memory_limit);
    let memory_request = bounds.memory().within(memory_request);
    let memory_request = bounds.memory().request_for(memory_request, Some(&memory_limit));
    let mut requests = quantities(Some(cpu_request), memory_request);
    let mut limits = quantities(cpu_limit, memory_limit);
    ephemeral(pod, Kind::Request, EPHEMERAL_REQUEST, &mut requests);
    ephemeral(pod, Kind::Limit, EPHEMERAL_LIMIT, &mut limits);
    Ok(Some(requirements(requests, limits)))
}

fn requirements(requests: Quantities, limits: Quantities) -> ResourceRequirements {
    ResourceRequirements { requests: Some(requests), limits: Some(limits), ..ResourceRequirements::default() }
}

/// The cluster's settings, with what the pod's own annotations say. In a pod of class Guaranteed requests and limits are
/// the limits. What the API server would refuse is no reason to lose the pod, but the sidecar.
fn annotated(pod: &Pod, resources: &SidecarResources) -> Result<SidecarResources, Skip> {
    let mut resources = resources.clone();
    let own = |name: &str| -> Result<Option<String>, Skip> {
        let Some(text) = pod.metadata.annotations.as_ref().and_then(|all| all.get(name)) else {
            return Ok(None);
        };
        if billionths(text).is_some() {
            return Ok(Some(text.clone()));
        }
        let detail = format!("annotation {name} is {text:?}: write a quantity such as \"250m\" or \"64Mi\"");
        Err(Skip::new(SkipReason::InvalidAnnotation, detail))
    };
    if let Some(limit) = own(CPU_LIMIT_ANNOTATION)? {
        resources.guaranteed_cpu.clone_from(&limit);
        resources.cpu_limit = Some(limit);
    }
    for (name, field) in [
        (CPU_REQUEST_ANNOTATION, &mut resources.cpu_request),
        (MEMORY_REQUEST_ANNOTATION, &mut resources.memory_request),
        (MEMORY_LIMIT_ANNOTATION, &mut resources.memory_limit),
    ] {
        if let Some(quantity) = own(name)? {
            *field = quantity;
        }
    }
    is_below(
        "cpu",
        &resources.cpu_request,
        resources.cpu_limit.as_ref().unwrap_or(&resources.guaranteed_cpu),
    )?;
    is_below("memory", &resources.memory_request, &resources.memory_limit)?;
    Ok(resources)
}

fn is_below(what: &str, request: &str, limit: &str) -> Result<(), Skip> {
    if billionths(request) <= billionths(limit) {
        return Ok(());
    }
    let detail = format!(
        "the sidecar would request {request} of {what} with a limit of {limit}: annotate the pod tidegate.dev/{what}-limit too"
    );
    Err(Skip::new(SkipReason::InvalidAnnotation, detail))
}

fn quantities(cpu: Option<String>, memory: String) -> Quantities {
    let cpu = cpu.map(|cpu| ("cpu".to_owned(), Quantity(cpu)));
    cpu.into_iter().chain([("memory".to_owned(), Quantity(memory))]).collect()
}

/// Kinds of bounds on a resource.
#[derive(Clone, Copy)]
enum Kind {
    Request,
    Limit,
}

fn ephemeral(pod: &Pod, kind: Kind, quantity: &str, quantities: &mut Quantities) {
    if everybody_has(pod, kind, EPHEMERAL) {
        quantities.insert(EPHEMERAL.to_owned(), Quantity(quantity.to_owned()));
    }
}

fn everybody_has(pod: &Pod, kind: Kind, name: &str) -> bool {
    pod.spec.as_ref().is_some_and(|spec| all_containers(spec).all(|container| has(container, kind, name)))
}

/// A request that is left out equals the limit.
fn has(container: &Container, kind: Kind, name: &str) -> bool {
    let Some(resources) = &container.resources else { return false };
    let named = |of: &Option<Quantities>| of.as_ref().is_some_and(|all| all.contains_key(name));
    match kind {
        Kind::Request => named(&resources.requests) || named(&resources.limits),
        Kind::Limit => named(&resources.limits),
    }
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
