//! The index of one namespace: what is known about its objects, and what follows for its pods.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tidegate_policy::PolicyDocument;

use super::policy::{Observed, StoredPolicy};
use super::{Changes, Scope};
use crate::key::{Front, FrontKind, PodKey, PolicyKey, PolicyKind, Workload, WorkloadKind};
use crate::merge::{Candidate, Loss, merge};
use crate::pod::PodFacts;
use crate::service::ServiceFacts;
use crate::target::{Services, Specificity, TargetObject};

/// A policy within its namespace.
pub(crate) type PolicyId = (PolicyKind, String);

#[derive(Debug, Default)]
pub(crate) struct NamespaceIndex {
    /// `None` while the namespace itself has not been seen.
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) pods: BTreeMap<String, PodFacts>,
    pub(crate) policies: BTreeMap<PolicyId, StoredPolicy>,
    services: Services,
    workloads: BTreeSet<Workload>,
    /// What follows for each pod from all of the above.
    verdicts: BTreeMap<String, Judged>,
    /// The pods of each policy that has any, by the same verdicts.
    selected: BTreeMap<PolicyKey, BTreeSet<String>>,
}

/// The verdict on one pod.
#[derive(Debug, Clone)]
struct Judged {
    uid: String,
    verdict: Arc<Verdict>,
}

/// What pods under the same policies have in common.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) document: Arc<PolicyDocument>,
    /// The policies that select the pod.
    pub(crate) matches: BTreeSet<PolicyKey>,
    /// What they asked for in vain.
    pub(crate) losses: Vec<Loss>,
}

/// The policies that select a pod, and how: pods with equal selections share a verdict.
type Selection<'a> = Vec<(&'a PolicyId, Specificity)>;

/// Edits. Each says what has to be computed anew.
impl NamespaceIndex {
    pub(super) fn set_labels(&mut self, labels: Option<BTreeMap<String, String>>) -> Scope {
        replace(&mut self.labels, labels, Scope::Status)
    }

    pub(super) fn put_pod(&mut self, name: String, facts: PodFacts) -> Scope {
        if self.pods.get(&name) == Some(&facts) {
            return Scope::Nothing;
        }
        self.pods.insert(name.clone(), facts);
        Scope::Pod(name)
    }

    pub(super) fn remove_pod(&mut self, name: &str) -> Scope {
        self.pods.remove(name).map_or(Scope::Nothing, |_| Scope::Pod(name.to_owned()))
    }

    pub(super) fn replace_pods(&mut self, pods: Vec<(String, PodFacts)>) -> Scope {
        replace(&mut self.pods, pods.into_iter().collect(), Scope::Namespace)
    }

    pub(super) fn put_service(&mut self, facts: ServiceFacts) -> Scope {
        let front = facts.front();
        if self.services.get(&front) == Some(&facts) {
            return Scope::Nothing;
        }
        self.services.insert(front, facts);
        Scope::Namespace
    }

    pub(super) fn remove_service(&mut self, front: &Front) -> Scope {
        self.services.remove(front).map_or(Scope::Nothing, |_| Scope::Namespace)
    }

    pub(super) fn replace_services(&mut self, kind: FrontKind, services: Vec<ServiceFacts>) -> Scope {
        let others = self.services.values().filter(|service| service.kind != kind).cloned();
        let all = others.chain(services).map(|facts| (facts.front(), facts)).collect();
        replace(&mut self.services, all, Scope::Namespace)
    }

    pub(super) fn put_workload(&mut self, workload: Workload) -> Scope {
        if self.workloads.insert(workload) { Scope::Status } else { Scope::Nothing }
    }

    pub(super) fn remove_workload(&mut self, workload: &Workload) -> Scope {
        if self.workloads.remove(workload) { Scope::Status } else { Scope::Nothing }
    }

    pub(super) fn replace_workloads(&mut self, kind: WorkloadKind, workloads: Vec<Workload>) -> Scope {
        let others = self.workloads.iter().filter(|workload| workload.kind != kind).cloned();
        let all = others.chain(workloads).collect();
        replace(&mut self.workloads, all, Scope::Status)
    }

    pub(super) fn put_policy(&mut self, observed: Observed) -> Scope {
        let id = (observed.kind, observed.name.clone());
        let before = self.policies.get(&id);
        let after = StoredPolicy::succeed(before.cloned(), observed);
        if before == Some(&after) {
            return Scope::Nothing;
        }
        let pods = if before.is_some_and(|before| before.asks_the_same_as(&after)) {
            // Each write of its status comes back here. Nobody obeys another document because of it.
            BTreeSet::new()
        } else {
            self.selected_by(before.into_iter().chain([&after]))
        };
        self.policies.insert(id.clone(), after);
        Scope::Policy(id, pods)
    }

    pub(super) fn remove_policy(&mut self, kind: PolicyKind, name: &str) -> Scope {
        let id = (kind, name.to_owned());
        let Some(before) = self.policies.remove(&id) else { return Scope::Nothing };
        let pods = self.selected_by(std::iter::once(&before));
        Scope::Policy(id, pods)
    }

    pub(super) fn replace_policies(&mut self, kind: PolicyKind, policies: Vec<Observed>) -> Scope {
        let before = self.policies.clone();
        self.policies.retain(|(other, _), _| *other != kind);
        for observed in policies {
            let id = (observed.kind, observed.name.clone());
            let policy = StoredPolicy::succeed(before.get(&id).cloned(), observed);
            self.policies.insert(id, policy);
        }
        if self.policies == before { Scope::Nothing } else { Scope::Namespace }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_none()
            && self.pods.is_empty()
            && self.policies.is_empty()
            && self.services.is_empty()
            && self.workloads.is_empty()
    }
}

fn replace<T: PartialEq>(place: &mut T, value: T, scope: Scope) -> Scope {
    if *place == value {
        return Scope::Nothing;
    }
    *place = value;
    scope
}

/// Questions.
impl NamespaceIndex {
    pub(crate) fn verdict(&self, pod: &str) -> Option<&Arc<Verdict>> {
        self.verdicts.get(pod).map(|judged| &judged.verdict)
    }

    /// The pods that a policy selects, with what is decided about them.
    pub(crate) fn pods_of<'a>(
        &'a self,
        policy: &'a PolicyKey,
    ) -> impl Iterator<Item = (&'a str, &'a PodFacts, &'a Verdict)> {
        let pod = |name: &'a String| {
            Some((name.as_str(), self.pods.get(name)?, self.verdicts.get(name)?.verdict.as_ref()))
        };
        self.selected.get(policy).into_iter().flatten().filter_map(pod)
    }

    /// What sends traffic to its pods.
    pub(crate) const fn services(&self) -> &Services {
        &self.services
    }

    /// The Services that lead to a pod.
    pub(crate) fn services_of(&self, pod: &PodFacts) -> impl Iterator<Item = &ServiceFacts> {
        self.services.values().filter(|service| service.selects(&pod.labels))
    }

    /// The first Service or pool whose clients go around the pod's sidecar.
    pub(crate) fn bypass_of(&self, pod: &PodFacts) -> Option<&ServiceFacts> {
        if pod.by_name.is_empty() {
            return None;
        }
        self.services_of(pod).find(|one| pod.is_bypassed_by(one))
    }

    /// Whether the target of a policy is there.
    pub(crate) fn exists(&self, object: &TargetObject) -> bool {
        match object {
            TargetObject::Front(front) => self.services.contains_key(front),
            TargetObject::Workload(workload) => self.workloads.contains(workload),
        }
    }

    /// What a pod obeys, whether it is in the index or not.
    pub(super) fn judge(&self, namespace: &str, pod: &PodFacts) -> Verdict {
        self.verdict_on(namespace, &self.selection(pod))
    }

    /// The policies that select a pod, the one that goes before all others first.
    pub(crate) fn candidates_of(&self, pod: &PodFacts) -> Vec<Candidate<'_>> {
        let mut candidates: Vec<_> =
            self.selection(pod).iter().filter_map(|selected| self.candidate(selected)).collect();
        candidates.sort_by(Candidate::precedence);
        candidates
    }

    /// Why the newest version of a policy is not in force.
    pub(crate) fn problems_of(&self, policy: &PolicyKey) -> Option<String> {
        let stored = self.policies.get(&(policy.kind, policy.name.clone()))?;
        stored.problems.as_ref().map(ToString::to_string)
    }

    fn candidate(&self, (id, specificity): &(&PolicyId, Specificity)) -> Option<Candidate<'_>> {
        let policy = self.policies.get(*id)?;
        let (specificity, created) = (*specificity, policy.facts.created);
        Some(Candidate { policy: policy.compiled()?, specificity, created })
    }

    fn selection(&self, pod: &PodFacts) -> Selection<'_> {
        let selects = |(id, policy): (_, &StoredPolicy)| {
            Some((id, policy.compiled()?.target.selects(pod, &self.services)?))
        };
        self.policies.iter().filter_map(selects).collect()
    }

    /// The pods that any of these policies selects.
    fn selected_by<'a>(&self, policies: impl Iterator<Item = &'a StoredPolicy>) -> BTreeSet<String> {
        let targets: Vec<_> = policies.filter_map(|policy| Some(&policy.compiled()?.target)).collect();
        let selects = |pod| targets.iter().any(|target| target.selects(pod, &self.services).is_some());
        self.pods.iter().filter(|(_, pod)| selects(pod)).map(|(name, _)| name.clone()).collect()
    }

    fn verdict_on(&self, namespace: &str, selection: &Selection<'_>) -> Verdict {
        let merged = merge(selection.iter().filter_map(|selected| self.candidate(selected)).collect());
        let key = |(id, _): &(&PolicyId, _)| PolicyKey::new(id.0, namespace, id.1.as_str());
        Verdict {
            document: Arc::new(merged.document),
            matches: selection.iter().map(key).collect(),
            losses: merged.losses,
        }
    }
}

/// Consequences.
impl NamespaceIndex {
    pub(super) fn compute(&mut self, namespace: &str, scope: &Scope) -> Changes {
        match scope {
            Scope::Nothing => Changes::default(),
            Scope::Pod(name) => self.compute_pods(namespace, &BTreeSet::from([name.clone()])),
            Scope::Status => Changes { policies: self.policy_keys(namespace), ..Changes::default() },
            Scope::Policy((kind, name), pods) => {
                let mut changes = self.compute_pods(namespace, pods);
                changes.policies.insert(PolicyKey::new(*kind, namespace, name.as_str()));
                changes
            }
            Scope::Namespace => {
                let all = self.pods.keys().chain(self.verdicts.keys()).cloned().collect();
                let mut changes = self.compute_pods(namespace, &all);
                changes.policies.extend(self.policy_keys(namespace));
                changes
            }
        }
    }

    fn policy_keys(&self, namespace: &str) -> BTreeSet<PolicyKey> {
        self.policies.keys().map(|(kind, name)| PolicyKey::new(*kind, namespace, name.as_str())).collect()
    }

    fn compute_pods(&mut self, namespace: &str, names: &BTreeSet<String>) -> Changes {
        let mut changes = Changes::default();
        for (name, after) in self.judge_all(namespace, names) {
            let before = self.verdicts.remove(name);
            if differs(before.as_ref(), after.as_ref()) {
                changes.pods.insert(PodKey::new(namespace, name));
            }
            for judged in before.iter().chain(after.as_ref()) {
                changes.policies.extend(judged.verdict.matches.iter().cloned());
            }
            self.note_selection(name, before.as_ref(), after.as_ref());
            if let Some(judged) = after {
                self.verdicts.insert(name.clone(), judged);
            }
        }
        changes
    }

    fn note_selection(&mut self, pod: &str, before: Option<&Judged>, after: Option<&Judged>) {
        let [before, after] = [before, after].map(|judged| judged.map(|judged| &judged.verdict.matches));
        if before == after {
            return;
        }
        for policy in before.into_iter().flatten() {
            if let Some(pods) = self.selected.get_mut(policy) {
                pods.remove(pod);
                if pods.is_empty() {
                    self.selected.remove(policy);
                }
            }
        }
        for policy in after.into_iter().flatten() {
            self.selected.entry(policy.clone()).or_default().insert(pod.to_owned());
        }
    }

    /// The new verdicts on these pods; `None` for one that is gone.
    fn judge_all<'a>(
        &self,
        namespace: &str,
        names: &'a BTreeSet<String>,
    ) -> Vec<(&'a String, Option<Judged>)> {
        let mut verdicts = HashMap::<Selection<'_>, Arc<Verdict>>::new();
        let judge = |name: &'a String| {
            let judged = self.pods.get(name).map(|pod| {
                let verdict = match verdicts.entry(self.selection(pod)) {
                    std::collections::hash_map::Entry::Occupied(known) => Arc::clone(known.get()),
                    std::collections::hash_map::Entry::Vacant(unknown) => {
                        let verdict = Arc::new(self.verdict_on(namespace, unknown.key()));
                        Arc::clone(unknown.insert(verdict))
                    }
                };
                Judged { uid: pod.uid.clone(), verdict }
            });
            (name, judged)
        };
        names.iter().map(judge).collect()
    }
}

fn differs(before: Option<&Judged>, after: Option<&Judged>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => {
            before.uid != after.uid || before.verdict.document != after.verdict.document
        }
        (None, None) => false,
        (None, Some(_)) | (Some(_), None) => true,
    }
}
