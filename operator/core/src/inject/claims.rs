//! GPUs that the pod has by dynamic resource allocation (DRA, `resource.k8s.io`).
//!
//! A claim can be given to several containers of a pod, and the driver then shows its devices to each of them. So the
//! sidecar gets the engine's claims and reads its own GPUs by NVML, without the node's agent: the kubelet tells the agent
//! of claims by names that NVML does not know.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ResourceClaim;

use super::names::GPU_CLAIMS_ANNOTATION;
use super::{Plan, Skip, SkipReason};

/// Written instead of names: no claim is a GPU's.
const NONE: &str = "none";

/// The claims of the containers that serve guarded ports, each once, or those of them that the pod's annotation names.
///
/// What a claim is for cannot be told here: its device class may not exist yet. A claim of something else costs the
/// sidecar a device that it does not look at; the annotation leaves it out.
pub(super) fn of_engine(plan: &Plan<'_>) -> Result<Vec<ResourceClaim>, Skip> {
    let containers = plan.ports.served_by(plan.pod).into_iter().map(|(_, container)| container);
    let resources = containers.filter_map(|container| container.resources.as_ref());
    let mut claims: Vec<ResourceClaim> = Vec::new();
    for claim in resources.flat_map(|resources| resources.claims.iter().flatten()) {
        if !claims.contains(claim) {
            claims.push(claim.clone());
        }
    }
    let annotations = plan.pod.metadata.annotations.as_ref();
    let Some(text) = annotations.and_then(|all| all.get(GPU_CLAIMS_ANNOTATION)) else { return Ok(claims) };
    if text.trim() == NONE {
        return Ok(Vec::new());
    }
    let names: BTreeSet<&str> = text.split(',').map(str::trim).collect();
    if let Some(name) = names.iter().find(|name| !claims.iter().any(|claim| claim.name == **name)) {
        let detail = format!(
            "annotation {GPU_CLAIMS_ANNOTATION}: no container with a guarded port has a claim {name:?} in resources.claims: write names of such claims, separated by commas, or {NONE}"
        );
        return Err(Skip::new(SkipReason::InvalidAnnotation, detail));
    }
    claims.retain(|claim| names.contains(claim.name.as_str()));
    Ok(claims)
}
