//! The command that gives a sidecar to the pods of a policy that have none.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::index::NamespaceIndex;
use crate::inject::INJECTION_NAMESPACE_LABEL;
use crate::key::{PolicyKey, Workload, WorkloadKind};
use crate::pod::{PodFacts, Sidecar};

/// More would not fit into a status that a person reads.
const MOST_WORKLOADS: usize = 16;

/// `None` when no pod misses a sidecar that a restart could give it. Only workloads that can be restarted are in it:
/// a Job or a pod of its own has to be created anew by whoever made it.
pub(super) fn command(namespace: &NamespaceIndex, policy: &PolicyKey, injected: bool) -> Option<String> {
    let missing = namespace
        .pods_of(policy)
        .map(|(_, pod, _)| pod)
        .filter(|pod| pod.sidecar == Sidecar::Missing && !pod.finished);
    let workloads: BTreeSet<&Workload> = missing.filter_map(restartable).collect();
    if workloads.is_empty() {
        return None;
    }
    let mut command = String::new();
    if !injected {
        let name = &policy.namespace;
        _ = write!(command, "kubectl label namespace {name} {INJECTION_NAMESPACE_LABEL}=enabled && ");
    }
    _ = write!(command, "kubectl -n {} rollout restart", policy.namespace);
    for workload in workloads.into_iter().take(MOST_WORKLOADS) {
        _ = write!(command, " {}/{}", workload.kind.as_str().to_lowercase(), workload.name);
    }
    Some(command)
}

fn restartable(pod: &PodFacts) -> Option<&Workload> {
    pod.owners.iter().find(|owner| {
        matches!(owner.kind, WorkloadKind::Deployment | WorkloadKind::StatefulSet | WorkloadKind::DaemonSet)
    })
}
