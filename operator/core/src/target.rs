//! Which pods a policy selects, and how specifically.

use std::collections::BTreeMap;

use tidegate_crds::{PodSelector, SelectorOperator, SelectorRequirement};

use crate::key::{CustomKind, Front, Workload};
use crate::pod::PodFacts;
use crate::service::ServiceFacts;

/// What a policy acts on, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Every pod of its namespace.
    Namespace,
    /// The pods with certain labels.
    Selector(PodSelector),
    /// The pods of these objects.
    Objects(Vec<TargetObject>),
}

/// An object whose pods a policy acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetObject {
    /// The pods that a Service or an `InferencePool` sends traffic to.
    Front(Front),
    /// The pods that a workload made.
    Workload(Workload),
}

impl std::fmt::Display for TargetObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Front(front) => front.fmt(f),
            Self::Workload(workload) => workload.fmt(f),
        }
    }
}

/// How narrowly a policy selects a pod (GEP-713: the more specific one wins). The greater wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Specificity {
    /// As every pod of the namespace.
    Namespace,
    /// As one behind a Service or in an `InferencePool`.
    Service,
    /// As one of a workload.
    Workload,
    /// By its own labels.
    Pod,
}

impl Specificity {
    /// As in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "every pod of the namespace",
            Self::Service => "a Service or an InferencePool",
            Self::Workload => "a workload",
            Self::Pod => "labels of the pod",
        }
    }
}

/// The Services of a namespace, and what is like them, by name.
pub type Services = BTreeMap<Front, ServiceFacts>;

impl Target {
    /// How specifically it selects the pods that it selects.
    pub fn specificity(&self) -> Specificity {
        let of_object = |object: &TargetObject| match object {
            TargetObject::Front(_) => Specificity::Service,
            TargetObject::Workload(_) => Specificity::Workload,
        };
        match self {
            Self::Namespace => Specificity::Namespace,
            Self::Selector(_) => Specificity::Pod,
            Self::Objects(objects) => objects.iter().map(of_object).max().unwrap_or(Specificity::Namespace),
        }
    }

    /// Whether and how specifically it selects the pod.
    pub fn selects(&self, pod: &PodFacts, services: &Services) -> Option<Specificity> {
        match self {
            Self::Namespace => Some(Specificity::Namespace),
            Self::Selector(selector) => matches(selector, &pod.labels).then_some(Specificity::Pod),
            Self::Objects(objects) => objects.iter().filter_map(|object| object.selects(pod, services)).max(),
        }
    }
}

impl TargetObject {
    /// Its kind, if that is one that a cluster has only where somebody has installed it.
    pub(crate) fn custom_kind(&self) -> Option<CustomKind> {
        let (group, kind) = match self {
            Self::Front(front) => (front.kind.group(), front.kind.as_str()),
            Self::Workload(workload) => (workload.kind.group(), workload.kind.as_str()),
        };
        CustomKind::ALL.into_iter().find(|known| (known.group(), known.as_str()) == (group, kind))
    }

    /// Whether and how specifically it selects the pod.
    pub(crate) fn selects(&self, pod: &PodFacts, services: &Services) -> Option<Specificity> {
        match self {
            Self::Front(front) => services.get(front)?.selects(&pod.labels).then_some(Specificity::Service),
            Self::Workload(workload) => pod.owners.contains(workload).then_some(Specificity::Workload),
        }
    }
}

pub(crate) fn has_labels(wanted: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn matches(selector: &PodSelector, labels: &BTreeMap<String, String>) -> bool {
    has_labels(&selector.match_labels, labels)
        && selector.match_expressions.iter().all(|requirement| meets(requirement, labels))
}

fn meets(requirement: &SelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    match requirement.operator {
        SelectorOperator::In => value.is_some_and(|value| requirement.values.contains(value)),
        SelectorOperator::NotIn => value.is_none_or(|value| !requirement.values.contains(value)),
        SelectorOperator::Exists => value.is_some(),
        SelectorOperator::DoesNotExist => value.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn selector(yaml: &str) -> PodSelector {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn selectors_read_labels_as_kubernetes_does() {
        let pod = labels(&[("app", "llama"), ("tier", "gpu")]);
        for (yaml, expected) in [
            ("{}", true),
            ("matchLabels: {app: llama}", true),
            ("matchLabels: {app: llama, zone: a}", false),
            ("matchExpressions: [{key: app, operator: In, values: [mistral, llama]}]", true),
            ("matchExpressions: [{key: app, operator: NotIn, values: [llama]}]", false),
            ("matchExpressions: [{key: zone, operator: NotIn, values: [a]}]", true),
            ("matchExpressions: [{key: tier, operator: Exists}]", true),
            ("matchExpressions: [{key: tier, operator: DoesNotExist}]", false),
            ("{matchLabels: {app: llama}, matchExpressions: [{key: zone, operator: Exists}]}", false),
        ] {
            assert_eq!(matches(&selector(yaml), &pod), expected, "{yaml}");
        }
    }
}
