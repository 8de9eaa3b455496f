//! Limits by key: all rules are judged first, then all spend or none.
//!
//! The rules stand in one order, whatever order they are written in: concurrency, whose permits come back whole;
//! leaky buckets; windows; token buckets. Tokens are taken last, so that they are seldom given back. Of several rules
//! that refuse the one with the longest wait decides, and of equals the first: a leaky bucket over a window over a
//! token bucket over concurrency, which knows of no wait.

mod concurrency;
mod condition;
mod cost;
mod fixed_window;
mod hash;
mod held;
mod key;
mod law;
mod quota;
mod round;
mod rule;
mod sliding_log;
mod sliding_window;
mod table;
mod token_bucket;

use std::time::Duration;

use arrayvec::ArrayVec;
use tidegate_policy::report::LimitStatus;
use tidegate_policy::{Algorithm, KeyPart, Limit, Mode, PolicyDocument, PriorityClass};

pub(crate) use hash::Hasher;
pub(crate) use held::{Held, Hold};
pub(crate) use key::Key;
pub(crate) use law::Taken as TakenToken;
pub use quota::{Quota, QuotaKeys, QuotaUnit};
pub(crate) use rule::LimitRule;
pub(crate) use token_bucket::TokenBucket;

use crate::{Facts, Refusal, Tick, Tokens};
use table::{Place, Receipt};

const MAX: usize = PolicyDocument::MAX_LIMITS;

/// All limits of a pod.
#[derive(Debug)]
pub(crate) struct Limits {
    rules: Box<[LimitRule]>,
    /// What keys are made of, each kind once: rules that count by the same parts share one hash.
    keys: Box<[Box<[KeyPart]>]>,
    hasher: Hasher,
    /// Some rule lets wait or has something to settle, so that there is more to a request than to have passed.
    lasting: bool,
}

/// All rules have let a request pass.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// How long it has to wait for its turn.
    pub(crate) wait: Duration,
    /// To be handed back with `complete` or `cancel`.
    pub(crate) held: Held,
}

/// What was found out about a request, from the first look to the last token. Kept by the caller and filled in
/// place, since it is large and mostly empty.
#[derive(Debug)]
pub(crate) struct Judged {
    keys: ArrayVec<Key, MAX>,
    steps: ArrayVec<Step, MAX>,
    /// What the request is estimated to use.
    tokens: Tokens,
}

/// How far a request has come with one rule.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The rule would let it pass. Where its key is.
    Passes(Option<Place>),
    /// It has spent.
    Spent(Receipt),
    /// The rule is not for it.
    Spared,
    /// The rule would refuse it until then. Of a request that goes on only rules in shadow mode.
    Refused(Tick),
}

impl Judged {
    pub(crate) fn new() -> Self {
        Self { keys: ArrayVec::new(), steps: ArrayVec::new(), tokens: Tokens::default() }
    }

    /// What the request is estimated to use.
    pub(crate) fn tokens(&self) -> Tokens {
        self.tokens
    }
}

/// The rule that decides, and when it would let pass.
#[derive(Debug, Clone, Copy)]
struct Refused {
    rule: usize,
    until: Tick,
}

impl Limits {
    /// The limits of a document that validates: what is beyond [`PolicyDocument::MAX_LIMITS`] rules is not judged.
    pub(crate) fn new(limits: &[Limit], seed: u64, now: Tick) -> Self {
        Self::build(limits, Hasher::new(seed), |limit, key| LimitRule::new(limit, key, now))
    }

    /// The limits of the next document. Rules with the same identity keep their counters.
    pub(crate) fn succeed(&self, limits: &[Limit], now: Tick) -> Self {
        Self::build(limits, self.hasher.clone(), |limit, key| {
            let before = self.rules.iter().find(|rule| rule.is_identified_by(limit));
            before.map_or_else(|| LimitRule::new(limit, key, now), |rule| rule.succeed(limit, key, now))
        })
    }

    fn build(limits: &[Limit], hasher: Hasher, rule: impl Fn(&Limit, usize) -> LimitRule) -> Self {
        let mut limits: Vec<&Limit> = limits.iter().take(MAX).collect();
        limits.sort_by_key(|limit| turn(limit.algorithm));
        let mut keys: Vec<Box<[KeyPart]>> = Vec::new();
        let rules = limits.into_iter().map(|limit| {
            let known = keys.iter().position(|parts| **parts == *limit.key);
            let key = known.unwrap_or_else(|| {
                keys.push(limit.key.as_slice().into());
                keys.len() - 1
            });
            rule(limit, key)
        });
        let rules: Box<[LimitRule]> = rules.collect();
        let lasting = rules.iter().any(|rule| rule.is_held() || rule.is_paced());
        Self { rules, keys: keys.into(), hasher, lasting }
    }

    /// Judges by all rules and spends nothing. Of several that refuse the one with the longest wait decides.
    pub(crate) fn judge(
        &self,
        now: Tick,
        class: PriorityClass,
        facts: &Facts<'_>,
        judged: &mut Judged,
    ) -> Result<(), Refusal> {
        for parts in &self.keys {
            judged.keys.push(Key::of(parts, &self.hasher, facts));
        }
        judged.tokens = facts.tokens;
        let mut refused: Option<Refused> = None;
        for (i, rule) in self.rules.iter().enumerate() {
            if !rule.is_for(facts) {
                judged.steps.push(Step::Spared);
                continue;
            }
            let place = rule.find(judged.keys[rule.key]);
            let cost = rule.price.of_estimate(&judged.tokens);
            judged.steps.push(match rule.judge(now, cost, place) {
                Ok(()) => Step::Passes(place),
                Err(until) => {
                    if rule.mode == Mode::Enforce {
                        refused = Some(longer(refused, Refused { rule: i, until }));
                    }
                    Step::Refused(until)
                }
            });
        }
        refused.map_or(Ok(()), |refused| Err(self.refuse(now, class, judged, refused)))
    }

    /// Spends on all rules that let the request pass. When another request was faster on one of them, everything
    /// is given back. `shadow`: what the rules in shadow mode would have done, if nobody before them would have.
    pub(crate) fn commit(
        &self,
        now: Tick,
        class: PriorityClass,
        judged: &mut Judged,
        shadow: &mut Option<Refusal>,
    ) -> Result<Passed, Refusal> {
        let mut shadowed = false;
        for (i, rule) in self.rules.iter().enumerate() {
            if let Step::Passes(place) = judged.steps[i] {
                let cost = rule.price.of_estimate(&judged.tokens);
                judged.steps[i] = match rule.take(now, judged.keys[rule.key], cost, place) {
                    Ok(receipt) => Step::Spent(receipt),
                    Err(until) if rule.mode == Mode::Shadow => Step::Refused(until),
                    Err(until) => {
                        self.give_back(judged);
                        return Err(self.refuse(now, class, judged, Refused { rule: i, until }));
                    }
                };
            }
            shadowed |= matches!(judged.steps[i], Step::Refused(_));
        }
        let mut passed = Passed::default();
        if self.lasting {
            self.hold(now, judged, &mut passed);
        }
        if shadowed {
            self.shadow(now, class, judged, shadow);
        }
        Ok(passed)
    }

    /// The request has ended. `used` is what it really used, if anybody knows.
    pub(crate) fn complete(&self, now: Tick, held: Held, used: Option<&Tokens>) {
        held.release(|hold| {
            let rule = &self.rules[hold.rule];
            rule.settle(now, &hold, used.map(|used| rule.price.of(used)));
        });
    }

    /// The request did not take place: all that it holds is given back.
    pub(crate) fn cancel(&self, held: Held) {
        held.release(|hold| self.rules[hold.rule].give_back(hold.key, hold.receipt, hold.cost));
    }

    /// State of every rule.
    pub(crate) fn status(&self, now: Tick) -> Vec<LimitStatus> {
        self.rules.iter().map(|rule| rule.status(now)).collect()
    }

    /// Makes room for keys ahead of need.
    pub(crate) fn grow_ahead(&self) {
        self.rules.iter().for_each(LimitRule::grow_ahead);
    }

    /// Notes how long the request has to wait, and what it holds meanwhile.
    fn hold(&self, now: Tick, judged: &Judged, passed: &mut Passed) {
        let spent = || {
            self.rules.iter().zip(&judged.steps).enumerate().filter_map(|(i, (rule, step))| match step {
                Step::Spent(receipt) => Some((i, rule, *receipt, rule.price.of_estimate(&judged.tokens))),
                Step::Passes(_) | Step::Spared | Step::Refused(_) => None,
            })
        };
        passed.wait =
            spent().map(|(_, rule, receipt, cost)| rule.wait(now, cost, receipt)).max().unwrap_or_default();
        // One that waits may leave before its turn, and then holds nothing any more.
        let all = passed.wait > Duration::ZERO;
        for (i, rule, receipt, cost) in spent().filter(|(_, rule, ..)| all || rule.is_held()) {
            passed.held.push(Hold { rule: i, key: judged.keys[rule.key], receipt, cost });
        }
    }

    /// Gives everything back that a request has spent.
    #[cold]
    pub(crate) fn give_back(&self, judged: &Judged) {
        for (rule, step) in self.rules.iter().zip(&judged.steps) {
            if let Step::Spent(receipt) = step {
                let cost = rule.price.of_estimate(&judged.tokens);
                rule.give_back(judged.keys[rule.key], *receipt, cost);
            }
        }
    }

    #[cold]
    fn refuse(&self, now: Tick, class: PriorityClass, judged: &Judged, refused: Refused) -> Refusal {
        let rule = &self.rules[refused.rule];
        rule.count_refusal();
        self.refusal(now, class, judged, refused)
    }

    /// Counts what rules in shadow mode would have refused of a request that passes.
    #[cold]
    fn shadow(&self, now: Tick, class: PriorityClass, judged: &Judged, shadow: &mut Option<Refusal>) {
        let mut refused: Option<Refused> = None;
        for (rule, step) in judged.steps.iter().enumerate() {
            if let Step::Refused(until) = *step {
                self.rules[rule].count_refusal();
                refused = Some(longer(refused, Refused { rule, until }));
            }
        }
        if let (Some(refused), None) = (refused, &shadow) {
            *shadow = Some(self.refusal(now, class, judged, refused));
        }
    }

    fn refusal(&self, now: Tick, class: PriorityClass, judged: &Judged, refused: Refused) -> Refusal {
        let rule = &self.rules[refused.rule];
        let cost = rule.price.of_estimate(&judged.tokens);
        rule.refusal(now, class, judged.keys[rule.key], cost, refused.until)
    }
}

/// The place of an algorithm in the order of the rules.
const fn turn(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::Concurrency => 0,
        Algorithm::LeakyBucket { .. } => 1,
        Algorithm::SlidingWindow { .. } | Algorithm::SlidingLog | Algorithm::FixedWindow => 2,
        Algorithm::TokenBucket { .. } => 3,
    }
}

fn longer(one: Option<Refused>, other: Refused) -> Refused {
    one.filter(|one| one.until >= other.until).unwrap_or(other)
}

#[cfg(test)]
#[cfg(loom)]
mod models;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
