//! What users read about a policy: conditions and counts, from the index and the sidecars' reports.

mod ancestors;
mod conditions;
mod limits;
mod notice;
mod rotate;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;
use tidegate_crds::{CircuitBreakerPolicyStatus, PodCounts, RateLimitPolicyStatus, TierCounts};
use tidegate_policy::report::{BreakerState, Report, TierName};

pub use notice::{Notice, NoticeType, after_report, after_status};

use crate::index::{Index, NamespaceIndex, Verdict};
use crate::key::{PodKey, PolicyKey, PolicyKind};
use crate::pod::{PodFacts, Sidecar};

/// The last report of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct PodReport {
    /// Uid of the pod that sent it. A report of a pod that had the same name before says nothing.
    pub uid: String,
    /// What it said.
    pub report: Report,
}

/// The last report of each pod.
pub type Reports = BTreeMap<PodKey, PodReport>;

/// Whether no status of a policy can differ between these two reports of one pod.
pub fn counts_the_same(before: &Report, after: &Report) -> bool {
    let breaker = |report: &Report| {
        report.status.breaker.as_ref().map(|breaker| (breaker.policy.clone(), breaker.state))
    };
    let shedding = |report: &Report| -> Vec<_> {
        let tiers = report.status.tiers.iter().filter(|tier| tier.shedding);
        tiers.map(|tier| (tier.policy.clone(), tier.tier)).collect()
    };
    before.revision == after.revision
        && before.refused == after.refused
        && breaker(before) == breaker(after)
        && shedding(before) == shedding(after)
}

/// The status of a policy. Serialises to the value of the object's `status` field.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum PolicyStatus {
    /// Of a `RateLimitPolicy`.
    RateLimit(RateLimitPolicyStatus),
    /// Of a `CircuitBreakerPolicy`.
    CircuitBreaker(CircuitBreakerPolicyStatus),
}

impl PolicyStatus {
    /// Its conditions.
    pub fn conditions(&self) -> &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition] {
        match self {
            Self::RateLimit(status) => &status.conditions,
            Self::CircuitBreaker(status) => &status.conditions,
        }
    }

    /// Whether the difference to `written` must not wait for the next regular write: a condition has another
    /// status or reason, or the status is about another generation.
    pub fn is_urgent_after(&self, written: Option<&Self>) -> bool {
        let essence = |status: &Self| -> Vec<_> {
            let conditions = status.conditions().iter();
            conditions
                .map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone(), c.observed_generation))
                .collect()
        };
        written.is_none_or(|written| essence(written) != essence(self))
    }
}

/// What is counted over the pods of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Tally {
    pods: PodCounts,
    tripped: TierCounts,
    open: i32,
    /// Sidecars that have not reported, or not for long.
    silent: i32,
    /// Sidecars that refused their document, and what the first of them said.
    refused: i32,
    refusal: Option<String>,
    /// Pods that a Service or an `InferencePool` reaches around their sidecar, and the first such, with what to do.
    bypassed: i32,
    bypass: Option<String>,
}

impl Index {
    /// The status of a policy at `now`; `None` when the index does not know the policy. A condition whose status is
    /// what the object says already keeps its time of transition.
    pub fn status(&self, policy: &PolicyKey, reports: &Reports, now: &Time) -> Option<PolicyStatus> {
        let namespace = self.namespace(&policy.namespace)?;
        let stored = namespace.policies.get(&(policy.kind, policy.name.clone()))?;
        let image = self.home().map(|home| home.sidecar_image.as_str());
        let tally = tally(namespace, policy, reports, image, |_| true);
        let rotate = rotate::command(namespace, policy, self.namespace_is_injected(&policy.namespace), image);
        let view = conditions::View {
            policy,
            namespace,
            stored,
            tally: &tally,
            rotate: rotate.as_deref(),
            unavailable: self.unavailable(),
            home: self.home(),
            object: None,
        };
        let conditions = conditions::of(&view, &stored.facts.conditions, now);
        let ancestors = ancestors::of(&view, &conditions, reports, now);
        let enforced = Some(format!("{}/{}", tally.pods.programmed, tally.pods.matched));
        let observed_generation = stored.facts.generation;
        Some(match policy.kind {
            PolicyKind::RateLimitPolicy => PolicyStatus::RateLimit(RateLimitPolicyStatus {
                observed_generation,
                conditions,
                ancestors,
                enforced,
                limits: limits::of(&view, reports),
                pods: tally.pods,
                tiers_tripped: tally.tripped,
                rotate,
            }),
            PolicyKind::CircuitBreakerPolicy => PolicyStatus::CircuitBreaker(CircuitBreakerPolicyStatus {
                observed_generation,
                conditions,
                ancestors,
                enforced,
                pods: tally.pods,
                breakers_open: tally.open,
                rotate,
            }),
        })
    }
}

/// Of the pods that `counts`; `image` is that of the sidecars that are injected now.
fn tally(
    namespace: &NamespaceIndex,
    policy: &PolicyKey,
    reports: &Reports,
    image: Option<&str>,
    counts: impl Fn(&PodFacts) -> bool,
) -> Tally {
    let mut tally = Tally::default();
    let pods = namespace.pods_of(policy).filter(|(_, pod, _)| !pod.finished && counts(pod));
    for (name, pod, verdict) in pods {
        tally.pods.matched += 1;
        if pod.sidecar != Sidecar::Injected {
            tally.pods.uninjected += 1;
            continue;
        }
        tally.pods.injected += 1;
        tally.pods.old_sidecar += i32::from(image.is_some_and(|image| pod.has_older_sidecar_than(image)));
        if let Some(service) = namespace.bypass_of(pod) {
            tally.bypassed += 1;
            tally.bypass.get_or_insert_with(|| format!("{}: {}", service.front(), service.remedy()));
        }
        tally.count(policy, verdict, report_of(reports, policy, name, pod));
    }
    tally
}

/// What the pod's sidecar has said last. A pod that had the name before says nothing.
fn report_of<'a>(reports: &'a Reports, policy: &PolicyKey, name: &str, pod: &PodFacts) -> Option<&'a Report> {
    let key = PodKey::new(policy.namespace.as_str(), name);
    reports.get(&key).filter(|report| report.uid == pod.uid).map(|report| &report.report)
}

impl Tally {
    fn count(&mut self, policy: &PolicyKey, verdict: &Verdict, report: Option<&Report>) {
        let Some(report) = report else {
            self.pods.out_of_date += 1;
            self.silent += 1;
            return;
        };
        if report.revision == verdict.document.revision {
            self.pods.programmed += 1;
        } else {
            self.pods.out_of_date += 1;
            if let Some(refused) = &report.refused
                && refused.revision == verdict.document.revision
            {
                self.refused += 1;
                self.refusal.get_or_insert_with(|| refused.message.clone());
            }
        }
        self.count_states(policy, report);
    }

    fn count_states(&mut self, policy: &PolicyKey, report: &Report) {
        let name = policy.to_string();
        let shedding = report.status.tiers.iter().filter(|tier| tier.policy == name && tier.shedding);
        let mut any = false;
        for tier in shedding {
            let count = match tier.tier {
                TierName::Qps => &mut self.tripped.qps,
                TierName::GpuMemory => &mut self.tripped.gpu_memory,
                TierName::Latency => &mut self.tripped.latency,
            };
            *count += 1;
            any = true;
        }
        self.tripped.any += i32::from(any);
        let breaker = report.status.breaker.as_ref().filter(|breaker| breaker.policy == name);
        self.open += i32::from(breaker.is_some_and(|breaker| breaker.state != BreakerState::Closed));
    }
}

#[cfg(test)]
mod tests;
