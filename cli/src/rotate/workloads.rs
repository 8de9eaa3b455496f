//! The workloads that can roll, and how they do it.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use crate::cluster::Cluster;
use crate::refused::Refused;

/// Of one namespace or all.
pub(crate) struct Workloads {
    deployments: Vec<Deployment>,
    stateful_sets: Vec<StatefulSet>,
    daemon_sets: Vec<DaemonSet>,
}

/// What a restart does to the pods of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// So many are away at a time.
    Rolls(i32),
    /// New pods come only when old ones are deleted.
    OnDelete,
    /// Nothing happens before somebody resumes it.
    Paused,
}

impl Workloads {
    pub(super) async fn read(cluster: &Cluster, namespace: Option<&str>) -> Result<Self, Refused> {
        Ok(Self {
            deployments: cluster.list(namespace).await?,
            stateful_sets: cluster.list(namespace).await?,
            daemon_sets: cluster.list(namespace).await?,
        })
    }

    /// `None` for kinds that do not roll, and for what is not there.
    pub(super) fn way(&self, namespace: &str, kind: &str, name: &str) -> Option<Way> {
        let is = |object: &dyn Fn() -> (Option<String>, String)| {
            object() == (Some(namespace.to_owned()), name.to_owned())
        };
        match kind {
            "Deployment" => {
                self.deployments.iter().find(|one| is(&|| (one.namespace(), one.name_any()))).map(deployment)
            }
            "StatefulSet" => self
                .stateful_sets
                .iter()
                .find(|one| is(&|| (one.namespace(), one.name_any())))
                .map(stateful_set),
            "DaemonSet" => {
                self.daemon_sets.iter().find(|one| is(&|| (one.namespace(), one.name_any()))).map(daemon_set)
            }
            _ => None,
        }
    }
}

fn deployment(object: &Deployment) -> Way {
    let Some(spec) = &object.spec else { return Way::Rolls(1) };
    if spec.paused == Some(true) {
        return Way::Paused;
    }
    let replicas = spec.replicas.unwrap_or(1);
    let strategy = spec.strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
        return Way::Rolls(replicas);
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".to_owned());
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&quarter);
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&quarter);
    // As the controller does: a surge is rounded up, what is away down, and both may not be nothing.
    let away = scaled(unavailable, replicas, f64::floor);
    Way::Rolls(if away == 0 && scaled(surge, replicas, f64::ceil) == 0 { 1 } else { away })
}

fn stateful_set(object: &StatefulSet) -> Way {
    let strategy = object.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return Way::OnDelete;
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let away = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
    let replicas = object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    Way::Rolls(away.map_or(1, |away| scaled(away, replicas, f64::ceil).max(1)))
}

fn daemon_set(object: &DaemonSet) -> Way {
    let strategy = object.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return Way::OnDelete;
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let away = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
    let nodes = object.status.as_ref().map_or(1, |status| status.desired_number_scheduled);
    Way::Rolls(away.map_or(1, |away| scaled(away, nodes, f64::ceil)))
}

fn scaled(share: &IntOrString, of: i32, round: fn(f64) -> f64) -> i32 {
    match share {
        IntOrString::Int(count) => *count,
        IntOrString::String(text) => {
            let percent: f64 = text.trim_end_matches('%').parse().unwrap_or_default();
            round(percent * f64::from(of) / 100.0) as i32
        }
    }
}

/// Whether a rollout has come to its end.
pub(super) trait Rollout {
    fn is_rolled_out(&self) -> bool;
}

impl Rollout for Deployment {
    fn is_rolled_out(&self) -> bool {
        let wanted = self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let Some(status) = &self.status else { return false };
        let counts = [status.replicas, status.updated_replicas, status.available_replicas];
        status.observed_generation >= self.metadata.generation
            && counts.iter().all(|count| count.unwrap_or(0) == wanted)
    }
}

impl Rollout for StatefulSet {
    fn is_rolled_out(&self) -> bool {
        let wanted = self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let Some(status) = &self.status else { return false };
        status.observed_generation >= self.metadata.generation
            && status.current_revision == status.update_revision
            && status.available_replicas.unwrap_or(0) == wanted
    }
}

impl Rollout for DaemonSet {
    fn is_rolled_out(&self) -> bool {
        let Some(status) = &self.status else { return false };
        let counts = [status.updated_number_scheduled, status.number_available];
        status.observed_generation >= self.metadata.generation
            && counts.iter().all(|count| count.unwrap_or(0) == status.desired_number_scheduled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way_of_deployment(spec: &str) -> Way {
        deployment(&serde_saphyr::from_str(&format!("{{metadata: {{name: a}}, spec: {spec}}}")).unwrap())
    }

    #[test]
    fn a_deployment_takes_away_what_its_strategy_says() {
        let template = "selector: {}, template: {}";
        for (spec, expected) in [
            ("replicas: 1", Way::Rolls(0)),
            ("replicas: 8", Way::Rolls(2)),
            ("replicas: 3, strategy: {type: Recreate}", Way::Rolls(3)),
            ("replicas: 3, strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}", Way::Rolls(0)),
            ("replicas: 3, strategy: {rollingUpdate: {maxUnavailable: 10%, maxSurge: 0}}", Way::Rolls(1)),
            ("replicas: 3, paused: true", Way::Paused),
        ] {
            assert_eq!(way_of_deployment(&format!("{{{template}, {spec}}}")), expected, "{spec}");
        }
    }

    #[test]
    fn a_rollout_is_over_when_all_pods_are_new_and_available() {
        let of = |status: &str| -> Deployment {
            let spec = "spec: {replicas: 2, selector: {}, template: {}}";
            serde_saphyr::from_str(&format!("{{metadata: {{generation: 3}}, {spec}, status: {status}}}"))
                .unwrap()
        };
        let done = "{observedGeneration: 3, replicas: 2, updatedReplicas: 2, availableReplicas: 2}";
        assert!(of(done).is_rolled_out());
        assert!(!of(&done.replace("Generation: 3", "Generation: 2")).is_rolled_out());
        assert!(!of(&done.replace("updatedReplicas: 2", "updatedReplicas: 1")).is_rolled_out());
        assert!(
            !of(&done
                .replace("{observed", "{unavailableReplicas: 1, observed")
                .replace(" replicas: 2", " replicas: 3"))
            .is_rolled_out()
        );
    }
}
