//! The command that gives the newest sidecar to the pods of a policy that have none or an old one.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::index::NamespaceIndex;
use crate::inject::INJECTION_NAMESPACE_LABEL;
use crate::key::{PolicyKey, Workload, WorkloadKind};
use crate::pod::{PodFacts, Sidecar};

/// More would not fit into a status that a person reads.
const MOST_WORKLOADS: usize = 16;
/// The bound of the field in the schema: a longer one would cost the whole status.
const LONGEST: usize = 4096;

/// `None` when no pod misses the newest sidecar that a restart could give it. Old ones, of another `image`, protect their
/// pods: replacing them can wait for disruption budgets. Where a sidecar is missing only workloads that can be restarted are
/// in it: a Job or a pod of its own has to be created anew by whoever made it.
pub(super) fn command(
    namespace: &NamespaceIndex,
    policy: &PolicyKey,
    injected: bool,
    image: Option<&str>,
) -> Option<String> {
    let pods = || namespace.pods_of(policy).map(|(_, pod, _)| pod).filter(|pod| !pod.finished);
    if image.is_some_and(|image| pods().any(|pod| pod.has_older_sidecar_than(image))) {
        let label = (!injected && pods().any(|pod| pod.sidecar == Sidecar::Missing))
            .then(|| labelled(&policy.namespace));
        let rotate = format!("kubectl tidegate rotate --namespace {}", policy.namespace);
        return Some(label.into_iter().chain([rotate]).collect::<Vec<_>>().join(" && "));
    }
    let missing = pods().filter(|pod| pod.sidecar == Sidecar::Missing);
    let workloads: BTreeSet<&Workload> = missing.filter_map(restartable).collect();
    let most = workloads.len().min(MOST_WORKLOADS);
    let mut shortened =
        (1..=most).rev().map(|count| written(&policy.namespace, injected, workloads.iter().take(count)));
    shortened.find(|command| command.len() <= LONGEST)
}

fn labelled(namespace: &str) -> String {
    format!("kubectl label namespace {namespace} {INJECTION_NAMESPACE_LABEL}=enabled")
}

fn written<'a>(namespace: &str, injected: bool, workloads: impl Iterator<Item = &'a &'a Workload>) -> String {
    let (sets, others): (Vec<&Workload>, Vec<&Workload>) =
        workloads.copied().partition(|workload| workload.kind == WorkloadKind::LeaderWorkerSet);
    let mut commands = Vec::new();
    if !injected {
        commands.push(labelled(namespace));
    }
    if !others.is_empty() {
        let mut restart = format!("kubectl -n {namespace} rollout restart");
        for workload in others {
            _ = write!(restart, " {}/{}", workload.kind.as_str().to_lowercase(), workload.name);
        }
        commands.push(restart);
    }
    commands.extend(sets.into_iter().map(|set| roll(namespace, &set.name)));
    commands.join(" && ")
}

/// `rollout restart` does not know the kind; its own rolling update begins when its template changes.
fn roll(namespace: &str, leader_worker_set: &str) -> String {
    const TEMPLATE: &str = r#"'{"spec":{"leaderWorkerTemplate":{"workerTemplate":{"metadata":{"annotations":{"tidegate.dev/rotated":"'$(date +%s)'"}}}}}}'"#;
    format!(
        "kubectl -n {namespace} patch leaderworkersets.leaderworkerset.x-k8s.io {leader_worker_set} --type merge -p {TEMPLATE}"
    )
}

/// The outermost owner that can be restarted: what it made is not restarted behind its back.
fn restartable(pod: &PodFacts) -> Option<&Workload> {
    pod.owners.iter().rfind(|owner| {
        matches!(
            owner.kind,
            WorkloadKind::Deployment
                | WorkloadKind::StatefulSet
                | WorkloadKind::DaemonSet
                | WorkloadKind::LeaderWorkerSet
        )
    })
}
