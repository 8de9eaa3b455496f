//! Which requests a limit is for.

use tidegate_crds::{SelectorOperator, When, WhenSource};
use tidegate_policy::{Condition, Match, Subject};

use super::super::problems::Problems;
use super::super::scalar::header;

pub(super) fn when(field: &str, specs: &[When], problems: &mut Problems) -> Option<Vec<Condition>> {
    let conditions: Vec<_> = specs
        .iter()
        .enumerate()
        .map(|(i, spec)| problems.keep(format!("{field}.when[{i}]"), condition(spec)))
        .collect();
    conditions.into_iter().collect()
}

fn condition(spec: &When) -> Result<Condition, String> {
    let of = match (&spec.header, &spec.jwt_claim, spec.source) {
        (Some(name), None, None) => Subject::Header(header(name)?),
        (None, Some(claim), None) => Subject::JwtClaim(claim.clone()),
        (None, None, Some(WhenSource::Path)) => Subject::Path,
        (None, None, Some(WhenSource::Method)) => Subject::Method,
        _ => return Err(When::EXACTLY_ONE.to_owned()),
    };
    let is = match (spec.operator, &spec.values[..]) {
        (SelectorOperator::In, [_, ..]) => Match::In(spec.values.clone()),
        (SelectorOperator::NotIn, [_, ..]) => Match::NotIn(spec.values.clone()),
        (SelectorOperator::Exists, []) => Match::Exists,
        (SelectorOperator::DoesNotExist, []) => Match::DoesNotExist,
        _ => return Err(When::VALUES.to_owned()),
    };
    Ok(Condition { of, is })
}
