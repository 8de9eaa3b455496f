//! What a pod looks like with a sidecar: from the pod that is about to be created to a JSON patch.
//!
//! ```text
//! pod ──▶ skip? ──▶ ports ──▶ probes, preStop ──▶ containers, volumes, annotations ──▶ patch ──▶ check
//!           │                                                                                     │
//!           └──────────────── Outcome::Skipped { reason } ◀── does not apply, or is no pod ───────┘
//! ```
//!
//! Nothing here may break a pod: whatever goes wrong ends in [`Outcome::Skipped`], and the pod starts as its
//! owner wrote it (fail open). The patch holds additions and single replacements only, so that fields which
//! this version does not know stay as they are. Injecting twice changes nothing.

mod bounds;
mod claims;
mod companions;
mod containers;
mod drain;
mod interception;
mod mesh;
mod names;
mod patch;
mod ports;
mod probes;
mod pull_secrets;
mod resources;
mod settings;
mod skip;
mod snapshot;
mod volumes;

use json_patch::Patch;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use tidegate_policy::PolicyDocument;

pub use bounds::ContainerBounds;
pub use interception::Interception;
pub use names::{
    AGENT_AUDIENCE_FILE, ALLOW_BYPASS_ANNOTATION, API_KEYS_ANNOTATION, BY_NAME_ANNOTATION,
    CA_BUNDLE_ANNOTATION, CA_CONFIG_MAP, CA_CONFIG_MAP_KEY, CPU_LIMIT_ANNOTATION, CPU_REQUEST_ANNOTATION,
    GPU_CLAIMS_ANNOTATION, HTTP2_PORTS_ANNOTATION, INJECT_LABEL, INJECTED_ANNOTATION,
    INJECTION_NAMESPACE_LABEL, INTERCEPTION_ANNOTATION, JWKS_ANNOTATION, LOG_LEVEL_ANNOTATION,
    MEMORY_LIMIT_ANNOTATION, MEMORY_REQUEST_ANNOTATION, OPAQUE_PORTS_ANNOTATION, OPERATOR_AUDIENCE_FILE,
    PORTS_ANNOTATION, REDIRECT_CONTAINER, SIDECAR_CONTAINER, SKIPPED_ANNOTATION, SNAPSHOT_ANNOTATION,
    WARNING_ANNOTATION,
};
pub use ports::GuardedPorts;
pub use settings::{NamespaceFacts, SidecarResources, SidecarSettings, SidecarTracing};
pub use skip::{Skip, SkipReason};
pub use snapshot::{MAX_SNAPSHOT_BYTES, decode_snapshot, encode_snapshot};

use crate::service::ServiceFacts;
use interception::Way;
use patch::PatchBuilder;

/// One pod that is about to be created, and what is known around it.
#[derive(Debug, Clone, Copy)]
pub struct Admission<'a> {
    /// The pod as the API server sent it.
    pub pod: &'a Value,
    /// Its namespace.
    pub namespace: &'a NamespaceFacts,
    /// The CA bundle (PEM) that the sidecar trusts until it can read the `ConfigMap`.
    pub ca_bundle: Option<&'a str>,
    /// The document in force for this pod; the sidecar starts with it.
    pub policy: Option<&'a PolicyDocument>,
    /// Whether a policy selects the pod. A pod that asks by its own label is injected without one.
    pub selected: bool,
    /// The Services that lead to the pod.
    pub services: &'a [ServiceFacts],
    /// Whether Services of this cluster find the named ports of native sidecars (Kubernetes 1.32).
    pub sidecar_port_names: bool,
    /// Hexadecimal, not to be guessed: whoever knows it can make the pod drain.
    pub drain_token: &'a str,
}

/// What the webhook answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The pod gets a sidecar.
    Injected {
        /// To be applied to the pod.
        patch: Patch,
        /// What its owner should know, one sentence each.
        warnings: Vec<String>,
    },
    /// The pod stays as it is, but for an annotation that says why when it asked to be injected.
    Skipped {
        /// Why.
        skip: Skip,
        /// Empty, or the annotation.
        patch: Patch,
    },
}

/// Decides whether the pod gets a sidecar, and how.
pub fn inject(admission: &Admission<'_>, settings: &SidecarSettings) -> Outcome {
    match attempt(admission, settings) {
        Ok((patch, warnings)) => Outcome::Injected { patch, warnings },
        Err(skip) => {
            let patch = annotate_skip(admission.pod, &skip).unwrap_or_default();
            Outcome::Skipped { skip, patch }
        }
    }
}

fn attempt(admission: &Admission<'_>, settings: &SidecarSettings) -> Result<(Patch, Vec<String>), Skip> {
    let pod = patch::read_pod(admission.pod)?;
    skip::check(&pod, admission)?;
    let ports = GuardedPorts::of(&pod, settings)?;
    let way = interception::choose(&pod, admission, settings, &ports)?;
    let plan = Plan { pod: &pod, ports: &ports, way: &way, admission, settings };
    let mut patch = PatchBuilder::new(admission.pod);
    let mut warnings = Vec::new();
    interception::take_names(&plan, &mut patch);
    warnings.extend(mesh::ends_with_the_engine(&pod));
    let unlimited = probes::rewrite(&plan, &mut patch, &mut warnings);
    drain::add_pre_stop(&plan, &mut patch, &mut warnings);
    containers::add(&plan, &unlimited, &mut patch, &mut warnings)?;
    volumes::add(plan.pod, &mut patch)?;
    pull_secrets::add(&plan, &mut patch)?;
    // One line each, whatever names are in them.
    let warnings: Vec<_> = warnings.iter().map(|warning| warning.replace(char::is_control, " ")).collect();
    annotate(&plan, &warnings, &mut patch);
    let patch = patch.finish();
    patch::check(admission.pod, &patch)?;
    Ok((patch, warnings))
}

/// What every step of an injection reads.
struct Plan<'a> {
    pod: &'a Pod,
    ports: &'a GuardedPorts,
    way: &'a Way,
    admission: &'a Admission<'a>,
    settings: &'a SidecarSettings,
}

fn annotate(plan: &Plan<'_>, warnings: &[String], patch: &mut PatchBuilder<'_>) {
    let warning = (!warnings.is_empty()).then(|| warnings.join("; "));
    let snapshot = plan.admission.policy.and_then(encode_snapshot);
    patch.annotate(INJECTED_ANNOTATION, Some(plan.settings.version.clone()));
    let by_name: Vec<_> = plan.way.names().map(|moved| moved.guarded.to_string()).collect();
    patch.annotate(BY_NAME_ANNOTATION, (!by_name.is_empty()).then(|| by_name.join(",")));
    patch.annotate(SNAPSHOT_ANNOTATION, snapshot);
    patch.annotate(CA_BUNDLE_ANNOTATION, plan.admission.ca_bundle.map(str::to_owned));
    patch.annotate(WARNING_ANNOTATION, warning);
    patch.annotate(SKIPPED_ANNOTATION, None);
    patch.annotate(names::EVICTABLE_VOLUMES_ANNOTATION, Some(volumes::evictable(plan.pod)));
}

/// The annotation that says why there is no sidecar; nothing when nobody asked for one.
fn annotate_skip(pod: &Value, skip: &Skip) -> Option<Patch> {
    if !skip.reason.is_written_on_the_pod() {
        return None;
    }
    let mut patch = PatchBuilder::new(pod);
    patch.annotate(SKIPPED_ANNOTATION, Some(skip.reason.as_str().to_owned()));
    let patch = patch.finish();
    patch::check(pod, &patch).is_ok().then_some(patch)
}

#[cfg(test)]
mod tests;
