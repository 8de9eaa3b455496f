//! What became of a policy at each object that it is attached to.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use tidegate_crds::{AncestorRef, PolicyAncestorStatus};

use super::conditions::{self, View};
use super::{Reports, tally};
use crate::target::{Target, TargetObject};

/// As in `status.ancestors` of every policy.
const CONTROLLER: &str = "tidegate.dev/operator";
/// The Gateway API's bound.
const MOST: usize = 16;

/// One for each target, about its pods alone; of a policy for a whole namespace the namespace. A selector is no object.
pub(super) fn of(
    view: &View<'_>,
    conditions: &[Condition],
    reports: &Reports,
    now: &Time,
) -> Vec<PolicyAncestorStatus> {
    let ancestor = |ancestor_ref, conditions| PolicyAncestorStatus {
        ancestor_ref,
        controller_name: CONTROLLER.to_owned(),
        conditions,
    };
    match view.stored.compiled().map(|policy| &policy.target) {
        Some(Target::Namespace) => {
            let namespace = AncestorRef {
                group: String::new(),
                kind: "Namespace".to_owned(),
                namespace: None,
                name: view.policy.namespace.clone(),
            };
            vec![ancestor(namespace, conditions.to_vec())]
        }
        Some(Target::Objects(objects)) => {
            let of_object = |object| {
                let reference = reference(object, &view.policy.namespace);
                let conditions = at(view, object, &reference, reports, now);
                ancestor(reference, conditions)
            };
            objects.iter().take(MOST).map(of_object).collect()
        }
        Some(Target::Selector(_)) | None => Vec::new(),
    }
}

fn at(
    view: &View<'_>,
    object: &TargetObject,
    reference: &AncestorRef,
    reports: &Reports,
    now: &Time,
) -> Vec<Condition> {
    let counts = |pod: &_| object.selects(pod, view.namespace.services()).is_some();
    let image = view.home.map(|home| home.sidecar_image.as_str());
    let tally = tally(view.namespace, view.policy, reports, image, counts);
    let mut before = view.stored.facts.ancestors.iter();
    let before = before.find(|ancestor| ancestor.ancestor_ref == *reference);
    let before = before.map(|ancestor| ancestor.conditions.as_slice()).unwrap_or_default();
    conditions::of(&View { tally: &tally, object: Some(object), ..*view }, before, now)
}

fn reference(object: &TargetObject, namespace: &str) -> AncestorRef {
    let (group, kind, name) = match object {
        TargetObject::Front(front) => (front.kind.group(), front.kind.as_str(), &front.name),
        TargetObject::Workload(workload) => (workload.kind.group(), workload.kind.as_str(), &workload.name),
    };
    AncestorRef {
        group: group.to_owned(),
        kind: kind.to_owned(),
        namespace: Some(namespace.to_owned()),
        name: name.clone(),
    }
}
