//! A policy as the index keeps it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tidegate_crds::{CircuitBreakerPolicy, PolicyAncestorStatus, RateLimitPolicy};

use crate::compile::{self, CompiledPolicy, Problems};
use crate::key::PolicyKind;

/// A policy as it was read from the API server.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) kind: PolicyKind,
    pub(crate) name: String,
    pub(crate) facts: PolicyFacts,
    pub(crate) compiled: Result<CompiledPolicy, Problems>,
}

/// What is known about a policy besides what it asks for.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct PolicyFacts {
    pub(crate) generation: Option<i64>,
    pub(crate) created: Option<Timestamp>,
    /// What its status says now; conditions keep their time of transition.
    pub(crate) conditions: Vec<Condition>,
    /// The same about each object that it is attached to.
    pub(crate) ancestors: Vec<PolicyAncestorStatus>,
}

impl Observed {
    pub(crate) fn rate_limit(policy: &RateLimitPolicy) -> Self {
        let said = policy.status.as_ref().map(|status| (status.conditions.clone(), status.ancestors.clone()));
        Self {
            kind: PolicyKind::RateLimitPolicy,
            name: policy.name_any(),
            facts: PolicyFacts::of(policy, said),
            compiled: compile::rate_limit(policy),
        }
    }

    pub(crate) fn circuit_breaker(policy: &CircuitBreakerPolicy) -> Self {
        let said = policy.status.as_ref().map(|status| (status.conditions.clone(), status.ancestors.clone()));
        Self {
            kind: PolicyKind::CircuitBreakerPolicy,
            name: policy.name_any(),
            facts: PolicyFacts::of(policy, said),
            compiled: compile::circuit_breaker(policy),
        }
    }
}

impl PolicyFacts {
    fn of(policy: &impl ResourceExt, said: Option<(Vec<Condition>, Vec<PolicyAncestorStatus>)>) -> Self {
        let meta = policy.meta();
        let (conditions, ancestors) = said.unwrap_or_default();
        Self {
            generation: meta.generation,
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            conditions,
            ancestors,
        }
    }
}

/// A policy in the index.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredPolicy {
    pub(crate) facts: PolicyFacts,
    /// The newest version that compiled, with its generation.
    pub(crate) in_force: Option<(CompiledPolicy, Option<i64>)>,
    /// Why the newest version did not.
    pub(crate) problems: Option<Problems>,
}

impl StoredPolicy {
    /// The policy as observed; what was in force stays so when that does not compile.
    pub(crate) fn succeed(before: Option<Self>, observed: Observed) -> Self {
        let generation = observed.facts.generation;
        match observed.compiled {
            Ok(compiled) => {
                Self { facts: observed.facts, in_force: Some((compiled, generation)), problems: None }
            }
            Err(problems) => Self {
                facts: observed.facts,
                in_force: before.and_then(|before| before.in_force),
                problems: Some(problems),
            },
        }
    }

    /// Whether the two differ at most in what their status says.
    pub(crate) fn asks_the_same_as(&self, other: &Self) -> bool {
        let asks = |policy: &Self| (policy.facts.generation, policy.facts.created);
        asks(self) == asks(other) && self.in_force == other.in_force && self.problems == other.problems
    }

    pub(crate) fn compiled(&self) -> Option<&CompiledPolicy> {
        self.in_force.as_ref().map(|(compiled, _)| compiled)
    }
}
