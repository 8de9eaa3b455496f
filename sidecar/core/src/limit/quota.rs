//! What is left of a limit, for those who are told.

use std::time::Duration;

use tidegate_policy::{Algorithm, Mode};

use super::Limits;
use super::key::Key;
use super::law::Law;
use super::rule::LimitRule;
use crate::sync::AtomicU64;
use crate::{Facts, Rule, Tick};

/// What is left of one limit for one key. For others that spend on the key at the same time it is a promise to nobody.
#[derive(Debug, Clone, Copy)]
pub struct Quota<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// What it counts.
    pub unit: QuotaUnit,
    /// What it allows in one window, or in flight.
    pub limit: u64,
    /// The window. None of what is in flight.
    pub window: Option<Duration>,
    /// So many requests that count one would pass now, one after another.
    pub remaining: u64,
    /// When there is more than that. None: never, or nobody knows.
    pub more_in: Option<Duration>,
    /// When all of it is there again, if nobody spends. None: nobody knows.
    pub whole_in: Option<Duration>,
    /// Tells the keys of the rule apart. Not for the eyes of clients, who could find out from it how keys are hashed.
    /// None: it counts all requests together.
    pub key: Option<[u64; 2]>,
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaUnit {
    /// Requests in a window.
    Requests,
    /// Requests in flight.
    InFlight,
    /// Tokens in a window.
    Tokens,
}

/// The rules that are for a request and what it is counted by, kept to ask for its quotas later.
#[derive(Debug, Clone)]
pub struct QuotaKeys(Box<[(usize, Key)]>);

/// What is left at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) remaining: u64,
    /// The first instant at which there is more.
    pub(crate) more: Option<Tick>,
    /// The first instant at which all of it is there.
    pub(crate) whole: Option<Tick>,
}

impl Law {
    /// What is left of a key's state at `now`.
    pub(crate) fn left(&self, now: Tick, state: &[AtomicU64]) -> Left {
        let size = self.size();
        let free = size.saturating_sub(self.outstanding(now, state));
        match self {
            Self::Concurrency(_) => Left { remaining: free, more: None, whole: None },
            Self::SlidingLog(log) => {
                let (first, last) = log.ends(now, state);
                Left { remaining: free, more: first, whole: Some(last.unwrap_or(now)) }
            }
            Self::TokenBucket(_) | Self::SlidingWindow(_) | Self::FixedWindow(_) => {
                let passes_at = |cost: u64| match u32::try_from(cost) {
                    Ok(cost) => self.judge(now, cost, state).err().unwrap_or(now),
                    Err(_) => Tick::NEVER,
                };
                // A bucket that paces may have room for one more before a whole interval is over.
                let remaining = if passes_at(free + 1) == now { free + 1 } else { free };
                let more = Some(passes_at(remaining + 1)).filter(|more| *more != Tick::NEVER);
                Left { remaining, more, whole: Some(passes_at(size)) }
            }
        }
    }
}

impl LimitRule {
    fn quota(&self, now: Tick, key: Key) -> Quota<'_> {
        let left = self.left(now, key);
        let unit = match self.algorithm() {
            Algorithm::Concurrency => QuotaUnit::InFlight,
            _ if self.counts_requests() => QuotaUnit::Requests,
            _ => QuotaUnit::Tokens,
        };
        let (limit, window) = self.told();
        Quota {
            rule: self.rule(),
            unit,
            limit,
            window,
            remaining: left.remaining,
            more_in: left.more.map(|more| more.since(now)),
            whole_in: left.whole.map(|whole| whole.since(now)),
            key: (!self.is_together()).then_some([key.place, key.tag]),
        }
    }
}

impl Limits {
    /// What a request is counted by, under every limit that is enforced and for it.
    pub(crate) fn quota_keys(&self, facts: &Facts<'_>) -> QuotaKeys {
        let told = |rule: &LimitRule| rule.mode == Mode::Enforce && rule.is_for(facts);
        let rules = self.rules.iter().enumerate().filter(|(_, rule)| told(rule));
        QuotaKeys(rules.map(|(i, rule)| (i, Key::of(&self.keys[rule.key], &self.hasher, facts))).collect())
    }

    /// What is left of these limits. `keys` are theirs.
    pub(crate) fn quotas<'a>(
        &'a self,
        now: Tick,
        keys: &'a QuotaKeys,
    ) -> impl Iterator<Item = Quota<'a>> + use<'a> {
        keys.0.iter().filter_map(move |(rule, key)| Some(self.rules.get(*rule)?.quota(now, *key)))
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
