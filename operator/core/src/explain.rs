//! Why a pod obeys what it obeys: the policies of its namespace, in the order in which they go, and what each of them
//! decides.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use tidegate_policy::PolicyDocument;

use crate::index::Index;
use crate::key::PolicyKey;
use crate::merge::{Loss, Part};
use crate::pod::Sidecar;
use crate::target::{Specificity, Target};

/// All policies of a pod's namespace, as they bear on the pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Whether the pod has a sidecar that could obey.
    pub sidecar: Sidecar,
    /// What the pod is to obey.
    pub document: Arc<PolicyDocument>,
    /// Policies that select the pod, the one that goes before all others first.
    pub acting: Vec<ActingPolicy>,
    /// Policies of the namespace that do not select it.
    pub others: Vec<OtherPolicy>,
    /// Services that lead to the pod, by name.
    pub services: Vec<String>,
}

/// A policy that selects the pod.
#[derive(Debug, Clone, PartialEq)]
pub struct ActingPolicy {
    /// Which one.
    pub policy: PolicyKey,
    /// By what it selects the pod.
    pub specificity: Specificity,
    /// What it targets.
    pub target: Target,
    /// When it was created: of two that select the pod equally, the older one goes before.
    pub created: Option<Timestamp>,
    /// What it decides on this pod.
    pub decides: BTreeSet<Part>,
    /// What it asks for in vain, and who decides instead.
    pub losses: Vec<Loss>,
    /// Why its newest version is not in force, while an older one is.
    pub problems: Option<String>,
}

/// A policy that does not select the pod.
#[derive(Debug, Clone, PartialEq)]
pub struct OtherPolicy {
    /// Which one.
    pub policy: PolicyKey,
    /// What it targets; none when no version of it was ever valid.
    pub target: Option<Target>,
    /// Why its newest version is not in force.
    pub problems: Option<String>,
}

impl Index {
    /// Explains what a pod obeys; `None` while the index has not seen the pod.
    pub fn explain(&self, namespace: &str, pod: &str) -> Option<Explanation> {
        let index = self.namespace(namespace)?;
        let (verdict, facts) = (index.verdict(pod)?, index.pods.get(pod)?);
        let acting = index.candidates_of(facts).into_iter().map(|candidate| {
            let key = &candidate.policy.key;
            let losses: Vec<_> = verdict.losses.iter().filter(|loss| loss.policy == *key).cloned().collect();
            let mut decides = candidate.policy.parts.asked();
            decides.retain(|part| losses.iter().all(|loss| loss.part != *part));
            ActingPolicy {
                policy: key.clone(),
                specificity: candidate.specificity,
                target: candidate.policy.target.clone(),
                created: candidate.created,
                decides,
                losses,
                problems: index.problems_of(key),
            }
        });
        let others = index.policies.iter().map(|((kind, name), stored)| OtherPolicy {
            policy: PolicyKey::new(*kind, namespace, name.as_str()),
            target: stored.compiled().map(|compiled| compiled.target.clone()),
            problems: stored.problems.as_ref().map(ToString::to_string),
        });
        Some(Explanation {
            sidecar: facts.sidecar.clone(),
            document: Arc::clone(&verdict.document),
            acting: acting.collect(),
            others: others.filter(|other| !verdict.matches.contains(&other.policy)).collect(),
            services: index.services_of(facts).map(|service| service.name.clone()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Pod, Service};
    use serde::de::DeserializeOwned;
    use tidegate_crds::RateLimitPolicy;

    use super::*;
    use crate::key::PolicyKind;

    fn parse<T: DeserializeOwned>(yaml: &str) -> T {
        serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
    }

    fn policy(name: &str, day: u8, spec: &str) -> RateLimitPolicy {
        parse(&format!(
            "{{metadata: {{name: {name}, namespace: ns, creationTimestamp: '2026-01-{day:02}T00:00:00Z'}}, spec: {spec}}}"
        ))
    }

    fn key(name: &str) -> PolicyKey {
        PolicyKey::new(PolicyKind::RateLimitPolicy, "ns", name)
    }

    fn index() -> Index {
        let mut index = Index::new();
        index.apply_pod(&parse::<Pod>("metadata: {name: a, namespace: ns, labels: {app: llama}}"));
        index.apply_service(&parse::<Service>(
            "{metadata: {name: llama, namespace: ns}, spec: {selector: {app: llama}}}",
        ));
        let limit =
            |name| format!("limits: [{{name: {name}, key: [{{header: x-user}}], limit: 1, window: 1s}}]");
        let all = format!("{{tiers: {{qps: {{max: 1}}}}, {}}}", limit("all"));
        index.apply_rate_limit_policy(&policy("default", 1, &all));
        let mine = format!(
            "{{selector: {{matchLabels: {{app: llama}}}}, tiers: {{qps: {{max: 2}}}}, {}}}",
            limit("mine")
        );
        index.apply_rate_limit_policy(&policy("narrow", 2, &mine));
        let other = "{selector: {matchLabels: {app: other}}, tiers: {qps: {max: 3}}}";
        index.apply_rate_limit_policy(&policy("other", 1, other));
        index
    }

    #[test]
    fn the_policies_of_a_pod_stand_in_the_order_in_which_they_go_and_losers_say_to_whom() {
        let explanation = index().explain("ns", "a").unwrap();
        let [first, second] = explanation.acting.as_slice() else { panic!("{explanation:?}") };
        assert_eq!((&first.policy, first.specificity), (&key("narrow"), Specificity::Pod));
        assert_eq!(first.decides, BTreeSet::from([Part::Tiers, Part::Limits]));
        assert_eq!((&second.policy, second.specificity), (&key("default"), Specificity::Namespace));
        assert_eq!(second.decides, BTreeSet::from([Part::Limits]), "limits add up");
        let loss = Loss { policy: key("default"), part: Part::Tiers, winner: key("narrow") };
        assert_eq!(second.losses, [loss]);
        assert_eq!(explanation.others.iter().map(|other| &other.policy).collect::<Vec<_>>(), [&key("other")]);
        assert_eq!(explanation.services, ["llama"]);
        let names: Vec<_> = explanation.document.limits.iter().map(|limit| limit.name.as_str()).collect();
        assert_eq!(names, ["mine", "all"]);
    }

    #[test]
    fn a_policy_that_is_invalid_now_says_so_while_its_last_good_version_acts() {
        let mut index = index();
        index.apply_rate_limit_policy(&policy("narrow", 2, "{tiers: {latency: {max: 99999h}}}"));
        let explanation = index.explain("ns", "a").unwrap();
        assert!(explanation.acting[0].problems.as_ref().unwrap().contains("spec.tiers.latency.max"));
        assert_eq!(explanation.acting[0].decides, BTreeSet::from([Part::Tiers, Part::Limits]));
    }

    #[test]
    fn a_pod_that_was_never_seen_is_not_explained() {
        assert_eq!(index().explain("ns", "b"), None);
    }
}
