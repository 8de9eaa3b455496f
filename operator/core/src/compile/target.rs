//! Which pods a policy names.

use tidegate_crds::{
    CircuitBreakerPolicySpec, PodSelector, RateLimitPolicySpec, SelectorOperator, SelectorRequirement,
    TargetRef,
};

use super::problems::Problems;
use super::scalar::is_label;
use crate::key::{Front, FrontKind, Workload, WorkloadKind};
use crate::target::{Target, TargetObject};

pub(super) fn of_rate_limit(spec: &RateLimitPolicySpec, problems: &mut Problems) -> Option<Target> {
    if !spec.target_refs.is_empty() && spec.selector.is_some() {
        problems.add("spec", RateLimitPolicySpec::ONE_TARGET);
        return None;
    }
    target(&spec.target_refs, spec.selector.as_ref(), problems)
}

pub(super) fn of_circuit_breaker(spec: &CircuitBreakerPolicySpec, problems: &mut Problems) -> Option<Target> {
    let named = [spec.target_service.is_some(), !spec.target_refs.is_empty(), spec.selector.is_some()];
    if named.into_iter().filter(|named| *named).count() > 1 {
        problems.add("spec", CircuitBreakerPolicySpec::ONE_TARGET);
        return None;
    }
    match &spec.target_service {
        Some(service) if is_label(service, |first| first.is_ascii_lowercase()) => {
            let front = Front { kind: FrontKind::Service, name: service.clone() };
            Some(Target::Objects(vec![TargetObject::Front(front)]))
        }
        Some(service) => {
            let message = format!("{service:?} is {}", CircuitBreakerPolicySpec::SERVICE);
            problems.add("spec.targetService", message);
            None
        }
        None => target(&spec.target_refs, spec.selector.as_ref(), problems),
    }
}

fn target(
    references: &[TargetRef],
    selector: Option<&PodSelector>,
    problems: &mut Problems,
) -> Option<Target> {
    match selector {
        Some(selector) => checked_selector(selector, problems).map(Target::Selector),
        None if references.is_empty() => Some(Target::Namespace),
        None => {
            let objects: Vec<_> = references
                .iter()
                .enumerate()
                .map(|(i, reference)| problems.keep(format!("spec.targetRefs[{i}]"), object(reference)))
                .collect();
            objects.into_iter().collect::<Option<_>>().map(Target::Objects)
        }
    }
}

fn object(reference: &TargetRef) -> Result<TargetObject, String> {
    let TargetRef { group, kind, name } = reference;
    if let Some(kind) = FrontKind::parse(group, kind) {
        return Ok(TargetObject::Front(Front { kind, name: name.clone() }));
    }
    match WorkloadKind::parse(group, kind) {
        Some(kind) => Ok(TargetObject::Workload(Workload { kind, name: name.clone() })),
        None => Err(format!("{:?} is {}", format!("{group}/{kind}"), TargetRef::KINDS)),
    }
}

fn checked_selector(selector: &PodSelector, problems: &mut Problems) -> Option<PodSelector> {
    let mut valid = true;
    for (i, requirement) in selector.match_expressions.iter().enumerate() {
        let wants_values = matches!(requirement.operator, SelectorOperator::In | SelectorOperator::NotIn);
        if wants_values == requirement.values.is_empty() {
            problems.add(format!("spec.selector.matchExpressions[{i}]"), SelectorRequirement::VALUES);
            valid = false;
        }
    }
    valid.then(|| selector.clone())
}
