//! From the policies that select a pod to the one document it obeys (GEP-713).
//!
//! The more specific target wins: the pod's own labels, then its workload, then a Service, then the namespace. Equal
//! ones: the oldest, then by name. Tiers, identity, priority and breaker come whole from the winner; limits add up, the most
//! specific policy's first. Whoever loses is told what and to whom.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::jiff::Timestamp;
use sha2::{Digest, Sha256};
use tidegate_policy::PolicyDocument;

use crate::compile::CompiledPolicy;
use crate::key::PolicyKey;
use crate::target::Specificity;

/// Length of a revision, before it is written in hexadecimal: enough that two documents of one cluster never share
/// one.
const REVISION_BYTES: usize = 8;

/// A policy that selects the pod.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The policy.
    pub policy: &'a CompiledPolicy,
    /// How specifically it selects the pod.
    pub specificity: Specificity,
    /// When it was created.
    pub created: Option<Timestamp>,
}

impl Candidate<'_> {
    /// Less: it goes before the other.
    pub(crate) fn precedence(&self, other: &Self) -> Ordering {
        (other.specificity.cmp(&self.specificity))
            .then_with(|| self.created.cmp(&other.created))
            .then_with(|| self.policy.key.cmp(&other.policy.key))
    }
}

/// The document, and what did not get into it.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// What the pod obeys.
    pub document: PolicyDocument,
    /// What policies asked for in vain.
    pub losses: Vec<Loss>,
}

/// Something that a policy asked for and that another one decides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loss {
    /// The policy that lost.
    pub policy: PolicyKey,
    /// What it lost.
    pub part: Part,
    /// Who decides instead.
    pub winner: PolicyKey,
}

/// What a policy can lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The tiers, to a policy that goes before.
    Tiers,
    /// Whose tokens are believed, to a policy that goes before.
    Identity,
    /// The priority classes, to a policy that goes before.
    Priority,
    /// The breaker, to a policy that goes before.
    Breaker,
    /// The limit of requests in flight, to a policy that goes before.
    Concurrency,
    /// The queue, to a policy that goes before.
    Queue,
    /// Which answers tell what is left, to a policy that goes before.
    RateLimitHeaders,
    /// All its limits: together with those of the policies before it they are more than a sidecar judges, or has
    /// memory for.
    Limits,
}

impl Part {
    /// As in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tiers => "tiers",
            Self::Identity => "identity",
            Self::Priority => "priority",
            Self::Breaker => "breaker",
            Self::Concurrency => "concurrency",
            Self::Queue => "queue",
            Self::RateLimitHeaders => "rateLimitHeaders",
            Self::Limits => "limits",
        }
    }
}

/// Merges the policies that select one pod, in any order.
pub fn merge(mut candidates: Vec<Candidate<'_>>) -> Merged {
    candidates.sort_by(Candidate::precedence);
    let mut merge = Merge::default();
    for candidate in &candidates {
        merge.add(candidate.policy);
    }
    merge.finish()
}

/// The document under construction.
#[derive(Default)]
struct Merge<'a> {
    document: PolicyDocument,
    /// Who decides each part; of the limits, who added some last.
    decided: BTreeMap<Part, &'a PolicyKey>,
    losses: Vec<Loss>,
}

impl<'a> Merge<'a> {
    fn add(&mut self, policy: &'a CompiledPolicy) {
        let parts = &policy.parts;
        if let Some(tiers) = &parts.tiers
            && self.wins(Part::Tiers, &policy.key)
        {
            self.document.tiers = Some(tiers.clone());
        }
        if let Some(identity) = &parts.identity
            && self.wins(Part::Identity, &policy.key)
        {
            self.document.identity = Some(identity.clone());
        }
        if let Some(priority) = &parts.priority
            && self.wins(Part::Priority, &policy.key)
        {
            self.document.priority = priority.clone();
        }
        if let Some(breaker) = &parts.breaker
            && self.wins(Part::Breaker, &policy.key)
        {
            self.document.breaker = Some(breaker.clone());
        }
        if let Some(concurrency) = &parts.concurrency
            && self.wins(Part::Concurrency, &policy.key)
        {
            self.document.concurrency = Some(concurrency.clone());
        }
        if let Some(queue) = &parts.queue
            && self.wins(Part::Queue, &policy.key)
        {
            self.document.queue = Some(queue.clone());
        }
        if let Some(headers) = parts.rate_limit_headers
            && self.wins(Part::RateLimitHeaders, &policy.key)
        {
            self.document.rate_limit_headers = Some(headers);
        }
        self.add_limits(policy);
    }

    fn wins(&mut self, part: Part, policy: &'a PolicyKey) -> bool {
        let winner = *self.decided.entry(part).or_insert(policy);
        if winner != policy {
            self.losses.push(Loss { policy: policy.clone(), part, winner: winner.clone() });
        }
        winner == policy
    }

    /// Half of a policy's limits would be worse than none of them, because nobody could tell which half.
    fn add_limits(&mut self, policy: &'a CompiledPolicy) {
        let limits = &policy.parts.limits;
        if limits.is_empty() {
            return;
        }
        let fits = self.document.limits.len() + limits.len() <= PolicyDocument::MAX_LIMITS
            && self.document.limit_memory_with(limits) <= PolicyDocument::LIMIT_MEMORY_BYTES;
        if fits {
            self.decided.insert(Part::Limits, &policy.key);
            self.document.limits.extend_from_slice(limits);
        } else {
            self.wins(Part::Limits, &policy.key);
        }
    }

    fn finish(mut self) -> Merged {
        if self.document != PolicyDocument::default() {
            self.document.revision = revision(&self.document);
        }
        Merged { document: self.document, losses: self.losses }
    }
}

/// Names a document by its content, so that equal revisions are equal documents, whichever operator compiled them.
fn revision(document: &PolicyDocument) -> String {
    let unnamed = PolicyDocument { revision: String::new(), ..document.clone() };
    // Strings, numbers and lists in declared order: this cannot fail, and is the same everywhere.
    let json = serde_json::to_vec(&unnamed).unwrap_or_default();
    Sha256::digest(json).iter().take(REVISION_BYTES).fold(String::new(), |mut digits, byte| {
        _ = write!(digits, "{byte:02x}");
        digits
    })
}

#[cfg(test)]
mod tests;
