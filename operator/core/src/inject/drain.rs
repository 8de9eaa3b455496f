//! Holding the engine's SIGTERM until the pod has drained. A native sidecar is stopped after the engine, and
//! engines abort their requests on SIGTERM, so the engine itself must wait.

use serde_json::json;

use super::Plan;
use super::companions::{drains_itself, knative_drains};
use super::patch::PatchBuilder;

/// Left between the end of the drain and the end of the grace period, for the engine's own shutdown.
const RESERVE_SECONDS: i64 = 5;
/// What Kubernetes takes when a pod says nothing.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// Gives each container with a guarded port a preStop hook that the sidecar holds; keeps what is there.
pub(super) fn add_pre_stop(plan: &Plan<'_>, patch: &mut PatchBuilder<'_>, warnings: &mut Vec<String>) {
    let containers = plan.ports.served_by(plan.pod);
    for (index, container) in containers.into_iter().filter(|(_, container)| !drains_itself(container)) {
        let index = index.to_string();
        let lifecycle = ["spec", "containers", &index, "lifecycle"];
        let hook = json!({"httpGet": {
            "port": plan.settings.admin_port,
            "path": format!("/drain/{}", plan.admission.drain_token),
            "scheme": "HTTP",
        }});
        match &container.lifecycle {
            Some(own) if own.pre_stop.is_some() && knative_drains(plan.pod) => {}
            Some(own) if own.pre_stop.is_some() => warnings.push(format!(
                "container {} keeps its own preStop: requests in flight when it ends are cut off",
                container.name
            )),
            Some(_) => patch.add(lifecycle.into_iter().chain(["preStop"]), hook),
            None => patch.add(lifecycle, json!({"preStop": hook})),
        }
    }
}

/// When a drain gives up, as the sidecar's flag takes it: 5 s before the grace period ends, at least 1 s.
pub(super) fn deadline(plan: &Plan<'_>) -> String {
    let grace = plan.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    format!("{}s", (grace.unwrap_or(DEFAULT_GRACE_SECONDS) - RESERVE_SECONDS).max(1))
}
