//! Which document each pod obeys. Synchronous and pure: watch events in, documents out.
//!
//! ```text
//!  Namespace ── labels                                      document_for(pod) ──▶ policy stream
//!  Pod ── labels, owners ─┐                                 document_for_new_pod ──▶ webhook
//!  Service ── selector ───┼─▶ candidates ─ merge ─▶ verdict
//!  policies ── target ────┘    (per pod)    (per set of     status(policy, reports) ──▶ API server
//!  workloads ── do they exist?               candidates)
//! ```
//!
//! Policies act within their own namespace, so each event touches one namespace and only that is computed anew;
//! pods under the same policies share one document. The order of events never matters for the result. Nothing an
//! object contains can stop the index: a policy that does not compile keeps its last good version in force.

mod custom;
mod namespace;
mod policy;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use tidegate_crds::{CircuitBreakerPolicy, RateLimitPolicy};
use tidegate_policy::PolicyDocument;

use crate::inject::INJECTION_NAMESPACE_LABEL;
use crate::key::{
    CustomKind, Front, FrontKind, PodKey, PolicyKey, PolicyKind, Unavailable, Workload, WorkloadKind,
};
use crate::pod::PodFacts;
use crate::service::ServiceFacts;

pub(crate) use namespace::{NamespaceIndex, PolicyId, Verdict};
pub(crate) use policy::StoredPolicy;

use policy::Observed;

/// Everything that the operator knows about pods and policies.
#[derive(Debug, Default)]
pub struct Index {
    namespaces: BTreeMap<String, NamespaceIndex>,
    /// The kinds whose objects cannot be known.
    unavailable: BTreeMap<CustomKind, Unavailable>,
    home: Option<Home>,
}

/// Where sidecars reach the operator, and which it injects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Namespace of its pods.
    pub namespace: String,
    /// Port of the policy stream at its pods.
    pub port: u16,
    /// Image of the sidecars that it injects.
    pub sidecar_image: String,
}

/// What an event changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Pods whose document is another one now; new ones and those that are gone included. What they obey is what
    /// [`Index::document_for`] says.
    pub pods: BTreeSet<PodKey>,
    /// Policies whose status may be another one now.
    pub policies: BTreeSet<PolicyKey>,
}

impl Changes {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.policies.is_empty()
    }

    /// Takes those of a later event in.
    pub fn extend(&mut self, later: Self) {
        self.pods.extend(later.pods);
        self.policies.extend(later.policies);
    }
}

/// Documents and their pods.
impl Index {
    /// An index that knows nothing. Until every kind has been reset once, its documents are incomplete and must not
    /// be given to anybody.
    pub fn new() -> Self {
        Self::default()
    }

    /// The document that a pod obeys. `None` while the index has not seen the pod: whoever asks has to wait, because
    /// "no policy" would be a wrong answer.
    pub fn document_for(&self, namespace: &str, pod: &str) -> Option<Arc<PolicyDocument>> {
        let verdict = self.namespaces.get(namespace)?.verdict(pod)?;
        Some(Arc::clone(&verdict.document))
    }

    /// The document that a pod will obey that is being created and may have no name yet. `None` when no policy
    /// selects it.
    pub fn document_for_new_pod(&self, namespace: &str, pod: &Pod) -> Option<Arc<PolicyDocument>> {
        let verdict = self.namespaces.get(namespace)?.judge(namespace, &PodFacts::of(pod));
        (!verdict.matches.is_empty()).then_some(verdict.document)
    }

    /// The Services that will lead to a pod that is being created.
    pub fn services_of_new_pod(&self, namespace: &str, pod: &Pod) -> Vec<ServiceFacts> {
        let pod = PodFacts::of(pod);
        self.namespaces
            .get(namespace)
            .into_iter()
            .flat_map(|index| index.services_of(&pod))
            .cloned()
            .collect()
    }

    /// The uid of the pod that has this name now, to tell it from one that had it before.
    pub fn uid_of(&self, namespace: &str, pod: &str) -> Option<&str> {
        self.namespaces.get(namespace)?.pods.get(pod).map(|facts| facts.uid.as_str())
    }

    /// Whether new pods of the namespace get a sidecar when a policy selects them.
    pub fn namespace_is_injected(&self, namespace: &str) -> bool {
        self.namespace_labels(namespace)
            .and_then(|labels| labels.get(INJECTION_NAMESPACE_LABEL))
            .is_some_and(|value| value == "enabled")
    }

    /// Namespaces whose new pods get a sidecar.
    pub fn injected_namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.keys().map(String::as_str).filter(|name| self.namespace_is_injected(name))
    }

    /// The labels of a namespace; `None` while the index has not seen it.
    pub fn namespace_labels(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(namespace)?.labels.as_ref()
    }

    /// Every policy that the index knows.
    pub fn policies(&self) -> impl Iterator<Item = PolicyKey> {
        self.namespaces.iter().flat_map(|(namespace, index)| {
            index.policies.keys().map(move |(kind, name)| PolicyKey::new(*kind, namespace, name))
        })
    }

    /// The policies that select a pod.
    pub fn policies_of(&self, namespace: &str, pod: &str) -> impl Iterator<Item = &PolicyKey> {
        let verdict = self.namespaces.get(namespace).and_then(|index| index.verdict(pod));
        verdict.into_iter().flat_map(|verdict| &verdict.matches)
    }

    /// Names the place of the operator, which sidecars that say nothing may not be able to reach, and the sidecar that it
    /// injects.
    pub fn set_home(&mut self, home: Home) {
        self.home = Some(home);
    }

    pub(crate) const fn home(&self) -> Option<&Home> {
        self.home.as_ref()
    }

    /// The kinds whose objects cannot be known.
    pub(crate) const fn unavailable(&self) -> &BTreeMap<CustomKind, Unavailable> {
        &self.unavailable
    }

    pub(crate) fn namespace(&self, namespace: &str) -> Option<&NamespaceIndex> {
        self.namespaces.get(namespace)
    }
}

/// Watch events. `reset_*` is for the complete list with which a watch starts, `apply_*` and `delete_*` for what
/// follows.
impl Index {
    /// A namespace is there, with these labels.
    pub fn apply_namespace(&mut self, object: &Namespace) -> Changes {
        let labels = object.metadata.labels.clone().unwrap_or_default();
        self.edit(&object.name_any(), |namespace| namespace.set_labels(Some(labels)))
    }

    /// A namespace is gone. Its objects go by their own events.
    pub fn delete_namespace(&mut self, name: &str) -> Changes {
        self.edit(name, |namespace| namespace.set_labels(None))
    }

    /// These namespaces are all there are.
    pub fn reset_namespaces(&mut self, objects: &[Namespace]) -> Changes {
        let mut labels: BTreeMap<_, _> = objects
            .iter()
            .map(|object| (object.name_any(), object.metadata.labels.clone().unwrap_or_default()))
            .collect();
        self.edit_all(labels.keys().cloned().collect(), |name, namespace| {
            namespace.set_labels(labels.remove(name))
        })
    }

    /// A pod is there.
    pub fn apply_pod(&mut self, object: &Pod) -> Changes {
        self.edit(&namespace_of(object), |namespace| {
            namespace.put_pod(object.name_any(), PodFacts::of(object))
        })
    }

    /// A pod is gone.
    pub fn delete_pod(&mut self, namespace: &str, name: &str) -> Changes {
        self.edit(namespace, |index| index.remove_pod(name))
    }

    /// These pods are all there are.
    pub fn reset_pods(&mut self, objects: &[Pod]) -> Changes {
        let named = objects.iter().map(|pod| (namespace_of(pod), (pod.name_any(), PodFacts::of(pod))));
        self.reset(named, NamespaceIndex::replace_pods)
    }

    /// A Service is there.
    pub fn apply_service(&mut self, object: &Service) -> Changes {
        self.edit(&namespace_of(object), |namespace| namespace.put_service(ServiceFacts::of(object)))
    }

    /// A Service is gone.
    pub fn delete_service(&mut self, namespace: &str, name: &str) -> Changes {
        let front = Front { kind: FrontKind::Service, name: name.to_owned() };
        self.edit(namespace, |index| index.remove_service(&front))
    }

    /// These Services are all there are.
    pub fn reset_services(&mut self, objects: &[Service]) -> Changes {
        let named = objects.iter().map(|service| (namespace_of(service), ServiceFacts::of(service)));
        self.reset(named, |index, services| index.replace_services(FrontKind::Service, services))
    }

    /// A workload is there. Only its name is of interest: whether the target of a policy exists.
    pub fn apply_workload(&mut self, kind: WorkloadKind, metadata: &ObjectMeta) -> Changes {
        let (namespace, workload) = workload_of(kind, metadata);
        self.edit(&namespace, |index| index.put_workload(workload))
    }

    /// A workload is gone.
    pub fn delete_workload(&mut self, kind: WorkloadKind, namespace: &str, name: &str) -> Changes {
        self.edit(namespace, |index| index.remove_workload(&Workload { kind, name: name.to_owned() }))
    }

    /// These workloads are all there are of their kind.
    pub fn reset_workloads(&mut self, kind: WorkloadKind, objects: &[ObjectMeta]) -> Changes {
        let named = objects.iter().map(|metadata| workload_of(kind, metadata));
        self.reset(named, |index, workloads| index.replace_workloads(kind, workloads))
    }

    /// A policy is there. One that does not compile keeps its last good version in force, and its status says why.
    pub fn apply_rate_limit_policy(&mut self, object: &RateLimitPolicy) -> Changes {
        self.edit(&namespace_of(object), |index| index.put_policy(Observed::rate_limit(object)))
    }

    /// A policy is gone: its pods are free of it.
    pub fn delete_rate_limit_policy(&mut self, namespace: &str, name: &str) -> Changes {
        self.edit(namespace, |index| index.remove_policy(PolicyKind::RateLimitPolicy, name))
    }

    /// These policies are all there are.
    pub fn reset_rate_limit_policies(&mut self, objects: &[RateLimitPolicy]) -> Changes {
        let named = objects.iter().map(|policy| (namespace_of(policy), Observed::rate_limit(policy)));
        self.reset(named, |index, policies| index.replace_policies(PolicyKind::RateLimitPolicy, policies))
    }

    /// A policy is there. One that does not compile keeps its last good version in force, and its status says why.
    pub fn apply_circuit_breaker_policy(&mut self, object: &CircuitBreakerPolicy) -> Changes {
        self.edit(&namespace_of(object), |index| index.put_policy(Observed::circuit_breaker(object)))
    }

    /// A policy is gone: its pods are free of it.
    pub fn delete_circuit_breaker_policy(&mut self, namespace: &str, name: &str) -> Changes {
        self.edit(namespace, |index| index.remove_policy(PolicyKind::CircuitBreakerPolicy, name))
    }

    /// These policies are all there are.
    pub fn reset_circuit_breaker_policies(&mut self, objects: &[CircuitBreakerPolicy]) -> Changes {
        let named = objects.iter().map(|policy| (namespace_of(policy), Observed::circuit_breaker(policy)));
        self.reset(named, |index, policies| {
            index.replace_policies(PolicyKind::CircuitBreakerPolicy, policies)
        })
    }
}

/// What part of a namespace has to be computed anew after an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Nothing.
    Nothing,
    /// What policies say about themselves, while every pod obeys what it did.
    Status,
    /// One pod.
    Pod(String),
    /// A policy and the pods that it selects or selected.
    Policy(PolicyId, BTreeSet<String>),
    /// Everything.
    Namespace,
}

impl Index {
    fn edit(&mut self, name: &str, edit: impl FnOnce(&mut NamespaceIndex) -> Scope) -> Changes {
        let namespace = self.namespaces.entry(name.to_owned()).or_default();
        let scope = edit(namespace);
        let changes = namespace.compute(name, &scope);
        if namespace.is_empty() {
            self.namespaces.remove(name);
        }
        changes
    }

    /// Edits every namespace that the index knows and those that are mentioned.
    fn edit_all(
        &mut self,
        mut mentioned: BTreeSet<String>,
        mut edit: impl FnMut(&str, &mut NamespaceIndex) -> Scope,
    ) -> Changes {
        mentioned.extend(self.namespaces.keys().cloned());
        let mut changes = Changes::default();
        for name in &mentioned {
            changes.extend(self.edit(name, |namespace| edit(name, namespace)));
        }
        changes
    }

    fn reset<T>(
        &mut self,
        objects: impl Iterator<Item = (String, T)>,
        replace: impl Fn(&mut NamespaceIndex, Vec<T>) -> Scope,
    ) -> Changes {
        let mut by_namespace = BTreeMap::<String, Vec<T>>::new();
        for (namespace, object) in objects {
            by_namespace.entry(namespace).or_default().push(object);
        }
        self.edit_all(by_namespace.keys().cloned().collect(), |name, namespace| {
            replace(namespace, by_namespace.remove(name).unwrap_or_default())
        })
    }
}

fn namespace_of(object: &impl ResourceExt) -> String {
    object.namespace().unwrap_or_else(|| "default".to_owned())
}

fn workload_of(kind: WorkloadKind, metadata: &ObjectMeta) -> (String, Workload) {
    let namespace = metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
    (namespace, Workload { kind, name: metadata.name.clone().unwrap_or_default() })
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
