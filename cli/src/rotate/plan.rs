//! What has to be done, and what must not.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt as _;
use kube::core::{Selector, SelectorExt as _};
use tidegate_operator_core::pod::PodFacts;

use super::workloads::{Way, Workloads};
use crate::cluster::Inventory;
use crate::sidecars::{container, is_alive};

/// What the plan is made from, besides pods and policies.
pub(crate) struct Sight<'a> {
    /// What the operator injects; none where no pod shall have a sidecar.
    pub(crate) image: Option<&'a str>,
    pub(crate) namespaces: BTreeMap<String, Namespace>,
    pub(crate) budgets: &'a [PodDisruptionBudget],
    pub(crate) workloads: &'a Workloads,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(super) namespace: String,
    /// Of the workload or of the pod.
    pub(super) name: String,
    pub(super) action: Action,
    /// Why, by pod.
    pub(super) pods: Vec<(String, Lack)>,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// A rolling restart of the workload, which is of this kind.
    Restart(&'static str),
    /// Of the pod; whatever made it makes another one.
    Evict,
    /// Nothing, for this reason.
    Leave(&'static str),
    /// Nothing now, for this reason.
    Postpone(String),
}

/// What is wrong with a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Its sidecar is of this image.
    Old(String),
    /// It has none, and would get one.
    Missing,
    /// It has one, and shall have none.
    Unwanted,
}

/// Steps in the order of their namespaces and workloads.
pub(crate) fn of(inventory: &Inventory, sight: &Sight<'_>) -> Vec<Step> {
    let mut steps = BTreeMap::<(String, String, String), (Step, Vec<&Pod>)>::new();
    for pod in inventory.pods.iter().filter(|pod| is_alive(pod) && pod.metadata.deletion_timestamp.is_none())
    {
        let Some(lack) = lack(pod, inventory, sight) else { continue };
        let (kind, name, action) = action(pod, sight);
        let namespace = pod.namespace().unwrap_or_default();
        let key = (namespace.clone(), kind, name.clone());
        let empty = || (Step { namespace, name, action, pods: Vec::new() }, Vec::new());
        let (step, pods) = steps.entry(key).or_insert_with(empty);
        step.pods.push((pod.name_any(), lack));
        pods.push(pod);
    }
    steps.into_values().map(|(step, pods)| within_budgets(step, &pods, sight)).collect()
}

fn lack(pod: &Pod, inventory: &Inventory, sight: &Sight<'_>) -> Option<Lack> {
    let Some(wanted) = sight.image else { return container(pod).map(|_| Lack::Unwanted) };
    if let Some(sidecar) = container(pod) {
        let image = sidecar.image.clone().unwrap_or_default();
        return (image != wanted).then_some(Lack::Old(image));
    }
    let namespace = sight.namespaces.get(&pod.namespace()?)?;
    crate::explain::would_be_injected(pod, &inventory.index, namespace).then_some(Lack::Missing)
}

/// What belongs to a pod: kind and name of what is done something to, and what.
fn action(pod: &Pod, sight: &Sight<'_>) -> (String, String, Action) {
    let namespace = pod.namespace().unwrap_or_default();
    let owners = PodFacts::of(pod).owners;
    let rolling = owners.iter().find_map(|owner| {
        let way = sight.workloads.way(&namespace, owner.kind.as_str(), &owner.name)?;
        Some((owner.kind.as_str(), owner.name.clone(), way))
    });
    if let Some((kind, name, way)) = rolling {
        match way {
            Way::Rolls(_) => return (kind.to_owned(), name, Action::Restart(kind)),
            Way::Paused => {
                let why = format!("{kind} {name} is paused: kubectl -n {namespace} rollout resume");
                return (kind.to_owned(), name, Action::Postpone(why));
            }
            Way::OnDelete => {}
        }
    }
    let of_pod = |action| ("Pod".to_owned(), pod.name_any(), action);
    let controlled = pod.owner_references().iter().any(|owner| owner.controller == Some(true));
    if owners.iter().any(|owner| owner.kind.as_str() == "Job") {
        return of_pod(Action::Leave("a Job's pod would lose its work; it ends by itself"));
    }
    of_pod(if controlled {
        Action::Evict
    } else {
        Action::Leave("nothing would create it anew: delete and create it")
    })
}

/// A rolling update does not ask `PodDisruptionBudgets`: what it would take away at a time must fit into them.
fn within_budgets(mut step: Step, pods: &[&Pod], sight: &Sight<'_>) -> Step {
    let Action::Restart(kind) = step.action else { return step };
    let Some(Way::Rolls(away)) = sight.workloads.way(&step.namespace, kind, &step.name) else { return step };
    let covers = |budget: &&PodDisruptionBudget| {
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.clone());
        let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
        budget.namespace().as_deref() == Some(step.namespace.as_str())
            && selector.is_some_and(|selector| pods.iter().any(|pod| selector.matches(pod.labels())))
    };
    let allowed =
        |budget: &PodDisruptionBudget| budget.status.as_ref().map_or(0, |status| status.disruptions_allowed);
    let tight = sight.budgets.iter().filter(covers).find(|budget| allowed(budget) < away);
    if let Some(budget) = tight {
        step.action = Action::Postpone(format!(
            "its rolling update takes away {away} at a time, and PodDisruptionBudget {} allows {} now",
            budget.name_any(),
            allowed(budget)
        ));
    }
    step
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = (&self.namespace, &self.name);
        match &self.action {
            Action::Restart(kind) => write!(f, "restart {namespace}/{} {name}", kind.to_lowercase()),
            Action::Evict => write!(f, "evict   {namespace}/pod {name}"),
            Action::Leave(why) => write!(f, "leave   {namespace}/{name}: {why}"),
            Action::Postpone(why) => write!(f, "not now {namespace}/{name}: {why}"),
        }?;
        let count = |is: fn(&Lack) -> bool| self.pods.iter().filter(|(_, lack)| is(lack)).count();
        match count(|lack| *lack == Lack::Unwanted) {
            0 => {
                let old = count(|lack| matches!(lack, Lack::Old(_)));
                write!(f, " ({old} with an old sidecar, {} without)", self.pods.len() - old)
            }
            unwanted => write!(f, " ({unwanted} with a sidecar)"),
        }
    }
}
