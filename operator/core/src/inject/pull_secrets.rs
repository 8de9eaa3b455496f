//! Secrets by which the kubelet pulls the sidecar's image, where its registry asks for them.

use serde_json::json;

use super::patch::PatchBuilder;
use super::{Plan, Skip};

/// Adds those that the pod does not name yet. They have to be in the pod's namespace; one that is not there does not stop
/// the pod: the kubelet pulls without it and says so in an Event.
pub(super) fn add(plan: &Plan<'_>, patch: &mut PatchBuilder<'_>) -> Result<(), Skip> {
    let own = plan.pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    let own: Vec<_> = own.map(|secret| secret.name.as_str()).collect();
    let missing = plan.settings.pull_secrets.iter().filter(|name| !own.contains(&name.as_str()));
    let missing: Vec<_> = missing.map(|name| json!({"name": name})).collect();
    if missing.is_empty() { Ok(()) } else { patch.append(["spec", "imagePullSecrets"], missing) }
}
