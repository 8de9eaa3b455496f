//! What the index keeps of a pod.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::inject::{BY_NAME_ANNOTATION, INJECTED_ANNOTATION, SIDECAR_CONTAINER, SKIPPED_ANNOTATION};
use crate::key::{Workload, WorkloadKind};
use crate::service::ServiceFacts;

/// The label by which a Deployment tells the pods of its `ReplicaSet`s apart.
const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// The label by which a `LeaderWorkerSet` names itself on its pods, leaders and workers.
pub(crate) const LEADER_WORKER_SET_NAME: &str = "leaderworkerset.sigs.k8s.io/name";
/// Digits of the minutes since 1970 by which a `CronJob` tells its Jobs apart: from 1989 to 2160.
const MINUTES_DIGITS: usize = 8;

/// What of a pod decides which policies act on it and how it counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodFacts {
    /// Its uid; empty while it is being admitted.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The objects that made it, the nearest first.
    pub owners: Vec<Workload>,
    /// Whether it has a sidecar.
    pub sidecar: Sidecar,
    /// The image of its sidecar.
    pub sidecar_image: Option<String>,
    /// The ports whose names lead to its sidecar; none where traffic is redirected.
    pub by_name: BTreeSet<u16>,
    /// It has run to its end: nothing is left to protect.
    pub finished: bool,
}

/// Whether a pod has a sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Sidecar {
    /// It was created while nobody injected.
    #[default]
    Missing,
    /// It can't have one, for this reason.
    Skipped(String),
    /// It has one.
    Injected,
}

impl PodFacts {
    /// Reads them from the object.
    pub fn of(pod: &Pod) -> Self {
        let metadata = &pod.metadata;
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            labels: metadata.labels.clone().unwrap_or_default(),
            owners: owners(metadata),
            sidecar: sidecar(metadata),
            sidecar_image: sidecar_image(pod),
            by_name: by_name(metadata),
            finished: matches!(phase, Some("Succeeded" | "Failed")),
        }
    }
}

impl PodFacts {
    /// Whether its sidecar is another one than this.
    pub(crate) fn has_older_sidecar_than(&self, image: &str) -> bool {
        self.sidecar == Sidecar::Injected && self.sidecar_image.as_deref().is_some_and(|own| own != image)
    }

    /// Whether the clients of this Service go around the pod's sidecar.
    pub(crate) fn is_bypassed_by(&self, service: &ServiceFacts) -> bool {
        service.goes_around(|port| self.by_name.contains(&port))
    }
}

fn sidecar(metadata: &ObjectMeta) -> Sidecar {
    let annotation = |name| metadata.annotations.as_ref().and_then(|all| all.get(name));
    if annotation(INJECTED_ANNOTATION).is_some() {
        Sidecar::Injected
    } else if let Some(reason) = annotation(SKIPPED_ANNOTATION) {
        Sidecar::Skipped(reason.clone())
    } else {
        Sidecar::Missing
    }
}

fn sidecar_image(pod: &Pod) -> Option<String> {
    let containers = pod.spec.as_ref()?.init_containers.as_ref()?;
    containers.iter().find(|container| container.name == SIDECAR_CONTAINER)?.image.clone()
}

fn by_name(metadata: &ObjectMeta) -> BTreeSet<u16> {
    let annotation = metadata.annotations.as_ref().and_then(|all| all.get(BY_NAME_ANNOTATION));
    annotation.into_iter().flat_map(|ports| ports.split(',')).filter_map(|port| port.parse().ok()).collect()
}

fn owners(metadata: &ObjectMeta) -> Vec<Workload> {
    let references = metadata.owner_references.as_deref().unwrap_or_default();
    let Some(nearest) = references.iter().find_map(workload) else { return Vec::new() };
    let further = match nearest.kind {
        WorkloadKind::ReplicaSet => deployment(&nearest, metadata),
        WorkloadKind::Job => cron_job(&nearest),
        WorkloadKind::StatefulSet => leader_worker_set(metadata),
        _ => None,
    };
    std::iter::once(nearest).chain(further).collect()
}

fn workload(reference: &OwnerReference) -> Option<Workload> {
    let (group, _version) = reference.api_version.split_once('/')?;
    let kind = WorkloadKind::parse(group, &reference.kind)?;
    (reference.controller == Some(true)).then(|| Workload { kind, name: reference.name.clone() })
}

/// A Deployment names its `ReplicaSet`s `<deployment>-<pod-template-hash>`, so that nobody has to watch them.
fn deployment(owner: &Workload, metadata: &ObjectMeta) -> Option<Workload> {
    let hash = metadata.labels.as_ref()?.get(POD_TEMPLATE_HASH)?;
    let name = owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')?;
    Some(Workload { kind: WorkloadKind::Deployment, name: name.to_owned() })
}

/// A `CronJob` names its Jobs `<cronjob>-<minutes since 1970>`, so that a pod's is known while the Job itself is news.
fn cron_job(owner: &Workload) -> Option<Workload> {
    let (name, minutes) = owner.name.rsplit_once('-')?;
    let scheduled = minutes.len() == MINUTES_DIGITS && minutes.bytes().all(|byte| byte.is_ascii_digit());
    scheduled.then(|| Workload { kind: WorkloadKind::CronJob, name: name.to_owned() })
}

/// Between a worker and its `LeaderWorkerSet` there are a `StatefulSet`, a pod and another `StatefulSet`; the label says it.
fn leader_worker_set(metadata: &ObjectMeta) -> Option<Workload> {
    let name = metadata.labels.as_ref()?.get(LEADER_WORKER_SET_NAME)?;
    Some(Workload { kind: WorkloadKind::LeaderWorkerSet, name: name.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(yaml: &str) -> PodFacts {
        PodFacts::of(&serde_saphyr::from_str(yaml).unwrap())
    }

    fn owned_by(kind: &str, api_version: &str, name: &str, controller: bool, hash: &str) -> Vec<Workload> {
        facts(&format!(
            "metadata:
  name: p
  labels: {{pod-template-hash: {hash}}}
  ownerReferences:
  - {{apiVersion: {api_version}, kind: {kind}, name: {name}, uid: u, controller: {controller}}}"
        ))
        .owners
    }

    fn a(kind: WorkloadKind, name: &str) -> Workload {
        Workload { kind, name: name.to_owned() }
    }

    #[test]
    fn a_pod_of_a_replica_set_belongs_to_its_deployment_too() {
        assert_eq!(
            owned_by("ReplicaSet", "apps/v1", "llama-7b-5d4f", true, "5d4f"),
            [a(WorkloadKind::ReplicaSet, "llama-7b-5d4f"), a(WorkloadKind::Deployment, "llama-7b")]
        );
    }

    #[test]
    fn a_replica_set_of_its_own_has_no_deployment() {
        assert_eq!(
            owned_by("ReplicaSet", "apps/v1", "llama", true, "5d4f"),
            [a(WorkloadKind::ReplicaSet, "llama")]
        );
    }

    #[test]
    fn jobs_and_stateful_sets_own_their_pods_directly() {
        assert_eq!(owned_by("Job", "batch/v1", "batch", true, "x"), [a(WorkloadKind::Job, "batch")]);
        assert_eq!(
            owned_by("StatefulSet", "apps/v1", "llama", true, "x"),
            [a(WorkloadKind::StatefulSet, "llama")]
        );
    }

    #[test]
    fn a_scheduled_job_belongs_to_its_cron_job_and_one_by_hand_to_nobody() {
        assert_eq!(
            owned_by("Job", "batch/v1", "nightly-29385720", true, "x"),
            [a(WorkloadKind::Job, "nightly-29385720"), a(WorkloadKind::CronJob, "nightly")]
        );
        for by_hand in ["nightly", "nightly-1", "nightly-2938572x"] {
            assert_eq!(owned_by("Job", "batch/v1", by_hand, true, "x"), [a(WorkloadKind::Job, by_hand)]);
        }
    }

    #[test]
    fn leaders_and_workers_belong_to_their_leader_worker_set() {
        for set in ["llama", "llama-0"] {
            let pod = facts(&format!(
                "metadata:
  name: p
  labels: {{leaderworkerset.sigs.k8s.io/name: llama}}
  ownerReferences:
  - {{apiVersion: apps/v1, kind: StatefulSet, name: {set}, uid: u, controller: true}}"
            ));
            let owners = [a(WorkloadKind::StatefulSet, set), a(WorkloadKind::LeaderWorkerSet, "llama")];
            assert_eq!(pod.owners, owners);
        }
    }

    #[test]
    fn only_a_controller_of_a_known_kind_is_an_owner() {
        assert_eq!(owned_by("StatefulSet", "apps/v1", "llama", false, "x"), []);
        assert_eq!(owned_by("StatefulSet", "example.com/v1", "llama", true, "x"), []);
        assert_eq!(owned_by("Node", "v1", "n", true, "x"), []);
    }

    #[test]
    fn annotations_tell_whether_there_is_a_sidecar() {
        assert_eq!(facts("metadata: {name: p}").sidecar, Sidecar::Missing);
        assert_eq!(
            facts("metadata: {annotations: {tidegate.dev/injected: 0.1.0}}").sidecar,
            Sidecar::Injected
        );
        assert_eq!(
            facts("metadata: {annotations: {tidegate.dev/skipped: HostNetwork}}").sidecar,
            Sidecar::Skipped("HostNetwork".to_owned())
        );
    }

    #[test]
    fn a_pod_that_ran_to_its_end_is_finished() {
        assert!(facts("{metadata: {}, status: {phase: Succeeded}}").finished);
        assert!(facts("{metadata: {}, status: {phase: Failed}}").finished);
        assert!(!facts("{metadata: {}, status: {phase: Running}}").finished);
    }
}
