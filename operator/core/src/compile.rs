//! From what a user writes to what a sidecar obeys, for one policy.
//!
//! This is the one judge of mistakes within one object: the webhook, the index and `kubectl tidegate` call it. The
//! CEL rules of the resources say most of it earlier, and in the same words.

mod circuit_breaker;
mod concurrency;
mod fallback;
mod identity;
mod problems;
mod rate_limit;
mod scalar;
mod stages;
mod target;

use std::collections::BTreeSet;

use kube::ResourceExt;
use tidegate_crds::{CircuitBreakerPolicy, RateLimitPolicy};
use tidegate_policy::{
    Breaker, Concurrency, Identity, Limit, PolicyDocument, Priority, Queue, RateLimitHeaders, Tiers,
};

pub use problems::{Problem, Problems};

use crate::key::{PolicyKey, PolicyKind};
use crate::merge::Part;
use crate::target::Target;

/// A policy that a sidecar can obey.
#[derive(Debug, Clone, PartialEq)]
pub struct CompiledPolicy {
    /// Its name.
    pub key: PolicyKey,
    /// The pods it acts on.
    pub target: Target,
    /// What it asks of them.
    pub parts: Parts,
}

/// What a policy contributes to the document of a pod.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parts {
    /// Taken whole from the policy that wins.
    pub tiers: Option<Tiers>,
    /// Taken whole from the policy that wins.
    pub identity: Option<Identity>,
    /// Taken whole from the policy that wins.
    pub priority: Option<Priority>,
    /// Added to those of other policies.
    pub limits: Vec<Limit>,
    /// Taken whole from the policy that wins.
    pub breaker: Option<Breaker>,
    /// Taken whole from the policy that wins.
    pub concurrency: Option<Concurrency>,
    /// Taken whole from the policy that wins.
    pub queue: Option<Queue>,
    /// Taken from the policy that wins.
    pub rate_limit_headers: Option<RateLimitHeaders>,
}

impl Parts {
    /// What of them is set.
    pub(crate) fn asked(&self) -> BTreeSet<Part> {
        [
            (self.tiers.is_some(), Part::Tiers),
            (self.identity.is_some(), Part::Identity),
            (self.priority.is_some(), Part::Priority),
            (self.breaker.is_some(), Part::Breaker),
            (self.concurrency.is_some(), Part::Concurrency),
            (self.queue.is_some(), Part::Queue),
            (self.rate_limit_headers.is_some(), Part::RateLimitHeaders),
            (!self.limits.is_empty(), Part::Limits),
        ]
        .into_iter()
        .filter_map(|(asked, part)| asked.then_some(part))
        .collect()
    }
}

/// Compiles a `RateLimitPolicy`. Every mistake is reported, with its field and what to write there.
pub fn rate_limit(policy: &RateLimitPolicy) -> Result<CompiledPolicy, Problems> {
    let key = key_of(PolicyKind::RateLimitPolicy, policy);
    let mut problems = Problems::default();
    let target = target::of_rate_limit(&policy.spec, &mut problems);
    let parts = rate_limit::parts(&key.to_string(), &policy.spec, &mut problems);
    finish(key, target, parts, problems)
}

/// Compiles a `CircuitBreakerPolicy`. Every mistake is reported, with its field and what to write there.
pub fn circuit_breaker(policy: &CircuitBreakerPolicy) -> Result<CompiledPolicy, Problems> {
    let key = key_of(PolicyKind::CircuitBreakerPolicy, policy);
    let mut problems = Problems::default();
    let target = target::of_circuit_breaker(&policy.spec, &mut problems);
    let parts = circuit_breaker::parts(&key.to_string(), &policy.spec, &mut problems);
    finish(key, target, parts, problems)
}

fn key_of(kind: PolicyKind, policy: &impl ResourceExt) -> PolicyKey {
    PolicyKey::new(kind, policy.namespace().unwrap_or_else(|| "default".to_owned()), policy.name_any())
}

fn finish(
    key: PolicyKey,
    target: Option<Target>,
    parts: Option<Parts>,
    mut problems: Problems,
) -> Result<CompiledPolicy, Problems> {
    match (target, parts) {
        (Some(target), Some(parts)) if problems.is_empty() => {
            judge_as_a_sidecar(&parts, &mut problems);
            if problems.is_empty() { Ok(CompiledPolicy { key, target, parts }) } else { Err(problems) }
        }
        _ => Err(problems),
    }
}

/// Nothing may reach a sidecar that it would refuse, even if a rule of the document has no counterpart above.
fn judge_as_a_sidecar(parts: &Parts, problems: &mut Problems) {
    let document = PolicyDocument {
        tiers: parts.tiers.clone(),
        identity: parts.identity.clone(),
        priority: parts.priority.clone().unwrap_or_default(),
        limits: parts.limits.clone(),
        breaker: parts.breaker.clone(),
        concurrency: parts.concurrency.clone(),
        queue: parts.queue.clone(),
        ..PolicyDocument::default()
    };
    if let Err(errors) = document.validate() {
        for error in errors.as_slice() {
            match field_of(error.path()) {
                Some(field) => problems.add(field, error.message()),
                None => problems.add("spec", error.to_string()),
            }
        }
    }
}

/// The field of a policy that a place of the document comes from, where there is one.
fn field_of(path: &str) -> Option<String> {
    const SAME: [&str; 3] = ["tiers.", "trip.", "halfOpen."];
    let path = path.strip_prefix("breaker.").unwrap_or(path);
    let same = SAME.iter().any(|section| path.starts_with(section));
    same.then(|| format!("spec.{}", path.trim_end_matches("Millis")))
}

#[cfg(test)]
mod tests;
