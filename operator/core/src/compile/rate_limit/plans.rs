//! A limit for each plan.

use tidegate_crds::{Plan, PlanSource, Plans};
use tidegate_policy::{self as document, Condition, Match, Subject};

use super::super::problems::Problems;
use super::super::scalar::{count, header, is_label, millis};
use super::{MOST_REQUESTS, key_part};

const FIELD: &str = "spec.plans";

/// What the limits of all plans have in common.
struct Common<'a> {
    policy: &'a str,
    mode: document::Mode,
    of: Subject,
    key: Vec<document::KeyPart>,
}

pub(super) fn limits(
    policy: &str,
    mode: document::Mode,
    spec: &Plans,
    problems: &mut Problems,
) -> Option<Vec<document::Limit>> {
    if spec.default.as_ref().is_some_and(|name| spec.plans.iter().all(|plan| plan.name != *name)) {
        problems.add(format!("{FIELD}.default"), Plans::DEFAULT);
    }
    let of = problems.keep(format!("{FIELD}.from"), subject(&spec.from));
    let key: Vec<_> = spec
        .key
        .iter()
        .enumerate()
        .map(|(i, part)| problems.keep(format!("{FIELD}.key[{i}]"), key_part(part)))
        .collect();
    let common = Common { policy, mode, of: of?, key: key.into_iter().collect::<Option<_>>()? };
    let limits: Vec<_> = (0..spec.plans.len()).map(|i| limit(&common, i, spec, problems)).collect();
    limits.into_iter().collect()
}

fn subject(spec: &PlanSource) -> Result<Subject, String> {
    match (&spec.header, &spec.jwt_claim) {
        (Some(name), None) => header(name).map(Subject::Header),
        (None, Some(claim)) => Ok(Subject::JwtClaim(claim.clone())),
        _ => Err(PlanSource::EXACTLY_ONE.to_owned()),
    }
}

/// The limit of one plan. The default one is for whoever has none of the others.
fn limit(common: &Common<'_>, i: usize, spec: &Plans, problems: &mut Problems) -> Option<document::Limit> {
    let (field, plan) = (format!("{FIELD}.plans[{i}]"), &spec.plans[i]);
    if !is_label(&plan.name, |first| first.is_ascii_alphanumeric()) {
        let message = format!("{:?} is {}", plan.name, tidegate_crds::Limit::NAME);
        problems.add(format!("{field}.name"), message);
    }
    let limit = problems.keep(format!("{field}.limit"), count(plan.limit, 1, MOST_REQUESTS));
    let burst = problems.keep(format!("{field}.burst"), count(burst(plan), 1, MOST_REQUESTS));
    let window = problems.keep(format!("{field}.window"), millis(&plan.window));
    Some(document::Limit {
        policy: common.policy.to_owned(),
        name: format!("plan-{}", plan.name),
        mode: common.mode,
        key: common.key.clone(),
        when: conditions(&common.of, plan, spec),
        algorithm: document::Algorithm::TokenBucket { burst: burst?, initial: None },
        limit: limit?,
        window_millis: Some(window?),
        cost: document::Cost::Requests,
        max_keys: None,
        on_exhausted: document::OnExhausted::EndStream,
    })
}

fn burst(plan: &Plan) -> i64 {
    plan.burst.unwrap_or(plan.limit)
}

fn conditions(of: &Subject, plan: &Plan, spec: &Plans) -> Vec<Condition> {
    let is = if spec.default.as_ref() == Some(&plan.name) {
        let others = spec.plans.iter().map(|plan| &plan.name).filter(|name| **name != plan.name);
        Match::NotIn(others.cloned().collect())
    } else {
        Match::In(vec![plan.name.clone()])
    };
    // A plan that is alone and the default is everybody's.
    let all = matches!(&is, Match::NotIn(others) if others.is_empty());
    if all { Vec::new() } else { vec![Condition { of: of.clone(), is }] }
}
