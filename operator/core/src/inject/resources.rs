//! Resources of the injected containers.
//!
//! A quota or a bound of the namespace refuses a pod in which one container lacks what it asks for. The webhook does not
//! read them: where every container of a pod has a request or a limit, its namespace may ask for it, and ours have it too.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::names::{
    CPU_LIMIT_ANNOTATION, CPU_REQUEST_ANNOTATION, MEMORY_LIMIT_ANNOTATION, MEMORY_REQUEST_ANNOTATION,
};
use super::skip::all_containers;
use super::{SidecarResources, Skip, SkipReason};

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
) -> Result<Option<ResourceRequirements>, Skip> {
    if pod.spec.as_ref().is_some_and(|spec| spec.resources.is_some()) {
        return Ok(None);
    }
    let resources = annotated(pod, resources)?;
    if is_guaranteed(pod) {
        let mut both = quantities(Some(&resources.guaranteed_cpu), &resources.memory_limit);
        ephemeral(pod, Kind::Limit, EPHEMERAL_LIMIT, &mut both);
        return Ok(Some(requirements(both.clone(), both)));
    }
    let cpu_limit = resources
        .cpu_limit
        .or_else(|| everybody_has(pod, Kind::Limit, "cpu").then_some(resources.guaranteed_cpu));
    let mut requests = quantities(Some(&resources.cpu_request), &resources.memory_request);
    let mut limits = quantities(cpu_limit.as_ref(), &resources.memory_limit);
    ephemeral(pod, Kind::Request, EPHEMERAL_REQUEST, &mut requests);
    ephemeral(pod, Kind::Limit, EPHEMERAL_LIMIT, &mut limits);
    Ok(Some(requirements(requests, limits)))
}

fn requirements(requests: Quantities, limits: Quantities) -> ResourceRequirements {
    ResourceRequirements { requests: Some(requests), limits: Some(limits), ..ResourceRequirements::default() }
}

/// The cluster's settings, with what the pod's own annotations say. In a pod of class Guaranteed requests and limits are
/// the limits.
fn annotated(pod: &Pod, resources: &SidecarResources) -> Result<SidecarResources, Skip> {
    let mut resources = resources.clone();
    let own = |name: &str| -> Result<Option<String>, Skip> {
        let Some(text) = pod.metadata.annotations.as_ref().and_then(|all| all.get(name)) else {
            return Ok(None);
        };
        if is_quantity(text) {
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
    Ok(resources)
}

/// Digits with one point at most and one of the suffixes that fit CPU and memory. The API server judges the rest.
fn is_quantity(text: &str) -> bool {
    const SUFFIXES: [&str; 8] = ["", "m", "k", "M", "G", "Ki", "Mi", "Gi"];
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    SUFFIXES.contains(&suffix)
        && number.bytes().filter(|byte| *byte == b'.').count() <= 1
        && number.bytes().any(|byte| byte.is_ascii_digit() && byte != b'0')
}

fn quantities(cpu: Option<&String>, memory: &str) -> Quantities {
    let cpu = cpu.map(|cpu| ("cpu".to_owned(), Quantity(cpu.clone())));
    cpu.into_iter().chain([("memory".to_owned(), Quantity(memory.to_owned()))]).collect()
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
