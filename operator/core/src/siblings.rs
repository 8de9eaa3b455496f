//! What a new pod is given of what pods like it have learned.
//!
//! A learned ceiling of requests per second takes minutes to learn. A pod that is added to a busy workload, or takes
//! another's place in a rollout, begins with the average of its siblings instead. It is written into the snapshot of
//! admission alone: the document that the stream brings has no seed, and a sidecar keeps the one it was born with.

use k8s_openapi::api::core::v1::Pod;
use tidegate_policy::report::{Report, TierName};
use tidegate_policy::{PolicyDocument, Rate};

use crate::index::Index;
use crate::key::PodKey;
use crate::pod::PodFacts;
use crate::status::Reports;

impl Index {
    /// Writes into the document of a pod that is being created what requests per second are normal for the other pods
    /// of its workload: the median of what they have learned under the same policy. Nothing where none of them has.
    ///
    /// The revision stays: it names what the policies ask for, and that is the same for all pods.
    pub fn seed(&self, namespace: &str, pod: &Pod, reports: &Reports, document: &mut PolicyDocument) {
        let Some(tiers) = &mut document.tiers else { return };
        let Some(learned) = tiers.qps.as_mut().and_then(|qps| qps.learned.as_mut()) else { return };
        let siblings = self.siblings(namespace, pod);
        let theirs = siblings.filter_map(|(name, uid)| {
            let report = reports.get(&PodKey::new(namespace, name)).filter(|report| report.uid == uid)?;
            baseline(&report.report, &tiers.policy)
        });
        learned.seed = median(theirs.collect()).and_then(|median| Rate::new(median).ok());
    }

    /// Names and uids of the pods that the workload of this one has made.
    fn siblings(&self, namespace: &str, pod: &Pod) -> impl Iterator<Item = (&str, &str)> {
        let workload = PodFacts::of(pod).owners.pop();
        let pods = self.namespace(namespace).into_iter().flat_map(|namespace| &namespace.pods);
        pods.filter(move |(_, facts)| workload.is_some() && facts.owners.last() == workload.as_ref())
            .map(|(name, facts)| (name.as_str(), facts.uid.as_str()))
    }
}

/// The average that a pod has learned under a policy.
fn baseline(report: &Report, policy: &str) -> Option<f64> {
    let mut tiers = report.status.tiers.iter();
    tiers.find(|tier| tier.tier == TierName::Qps && tier.policy == policy)?.baseline
}

/// The middle one, of two in the middle the lower one.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests;
