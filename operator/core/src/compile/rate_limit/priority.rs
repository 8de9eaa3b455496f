//! Who has which priority.

use tidegate_crds::{self as crd, Claimant};
use tidegate_policy as document;

use super::super::problems::{Problems, optional};
use super::super::scalar::{header, ratio_or_none};

pub(super) fn priority(spec: &crd::Priority, problems: &mut Problems) -> Option<document::Priority> {
    let from: Vec<_> = spec
        .from
        .iter()
        .enumerate()
        .map(|(i, source)| {
            let named = [source.header.is_some(), source.jwt_claim.is_some(), source.source.is_some()];
            if named.into_iter().filter(|named| *named).count() != 1 {
                problems.add(format!("spec.priority.from[{i}]"), crd::PrioritySource::EXACTLY_ONE);
            }
            let header = optional(source.header.as_ref(), |name| {
                problems.keep(format!("spec.priority.from[{i}].header"), header(name))
            });
            let map = source.map.iter().map(|(value, priority)| (value.clone(), class(*priority))).collect();
            Some(document::PrioritySource {
                header: header?,
                jwt_claim: source.jwt_claim.clone(),
                service_tier: source.source == Some(crd::PriorityFrom::ServiceTier),
                map,
                number: source.number.as_ref().map(number),
            })
        })
        .collect();
    let reserved = problems.keep("spec.priority.reserved.high", ratio_or_none(&spec.reserved.high));
    if matches!(reserved, Some(Some(share)) if share.get() >= 1.0) {
        problems.add("spec.priority.reserved.high", crd::Reserved::ALL);
    }
    let claimants: Vec<_> = spec
        .high_allowed_from
        .iter()
        .enumerate()
        .map(|(i, spec)| claimant(&format!("spec.priority.highAllowedFrom[{i}]"), spec, problems))
        .collect();
    Some(document::Priority {
        from: from.into_iter().collect::<Option<_>>()?,
        default: class(spec.default),
        reserved_high: reserved?,
        high_allowed_from: claimants.into_iter().collect::<Option<_>>()?,
        strip_headers: spec.strip_headers == crd::StripHeaders::Enabled,
    })
}

fn number(spec: &crd::PriorityNumber) -> document::Number {
    let better = match spec.better {
        crd::Better::Lower => document::Better::Lower,
        crd::Better::Higher => document::Better::Higher,
    };
    document::Number { better, high: spec.high, medium: spec.medium }
}

const fn class(class: crd::PriorityClass) -> document::PriorityClass {
    match class {
        crd::PriorityClass::High => document::PriorityClass::High,
        crd::PriorityClass::Medium => document::PriorityClass::Medium,
        crd::PriorityClass::Low => document::PriorityClass::Low,
    }
}

fn claimant(field: &str, spec: &Claimant, problems: &mut Problems) -> Option<document::Claimant> {
    if spec.cidr.is_none() && spec.header.is_none() {
        problems.add(field, Claimant::NOBODY);
        return None;
    }
    let name = optional(spec.header.as_ref(), |claimed| {
        problems.keep(format!("{field}.header.name"), header(&claimed.name))
    });
    let claimant = document::Claimant {
        cidr: spec.cidr.clone(),
        header: name?,
        value: spec.header.as_ref().and_then(|claimed| claimed.value.clone()),
    };
    if let Some(cidr) = &claimant.cidr
        && claimant.block().is_none()
    {
        let message = format!("{cidr:?} is not an address block: write one such as 10.0.0.0/8 or fd00::/8");
        problems.add(format!("{field}.cidr"), message);
        return None;
    }
    Some(claimant)
}
