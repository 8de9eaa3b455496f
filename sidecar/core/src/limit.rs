//! Limits by key: all rules spend or none.
//!
//! Each rule spends in its turn. When one refuses, what was spent is given back, and the rules behind it are only
//! judged: a refusal costs more than a pass, which runs through each rule once.
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
mod rule;
mod sliding_log;
mod sliding_window;
mod table;
mod token_bucket;

use std::sync::Arc;
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

use crate::{Facts, Refusal, Rule, Tick, Tokens};
use rule::note;
use table::Receipt;

const MAX: usize = PolicyDocument::MAX_LIMITS;

/// All limits of a pod.
#[derive(Debug)]
pub(crate) struct Limits {
    rules: Box<[LimitRule]>,
    /// What keys are made of, each kind once: rules that count by the same parts share one hash.
    keys: Box<[Box<[KeyPart]>]>,
    hasher: Hasher,
    /// Rules whose keys are far apart in memory: it is sent for before anything else is asked.
    early: Box<[usize]>,
    /// Some rule lets wait, so that a request may have to.
    paced: bool,
    /// Rules that have something to give back or to settle when a request ends.
    held: Box<[usize]>,
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

/// What became of a request at one rule.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// It has spent.
    Spent(Receipt),
    /// The rule is not for it.
    Spared,
    /// The rule, which is in shadow mode, would refuse it until then.
    Refused(Tick),
}

impl Judged {
    #[inline]
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
        let paced = rules.iter().any(LimitRule::is_paced);
        let those = |wanted: fn(&LimitRule) -> bool| {
            rules
                .iter()
                .enumerate()
                .filter(move |(_, rule)| wanted(rule))
                .map(|(i, _)| i)
                .collect::<Box<[usize]>>()
        };
        let (held, early) = (those(LimitRule::is_held), those(|rule| !rule.is_together()));
        // What is sent for alone is there no sooner.
        let early = if early.len() > 1 { early } else { Box::default() };
        Self { rules, keys: keys.into(), hasher, early, paced, held }
    }

    /// Makes the request's keys, and has the memory of all sent at once.
    #[inline]
    pub(crate) fn find(&self, facts: &Facts<'_>, judged: &mut Judged) {
        judged.tokens = facts.tokens;
        for parts in &self.keys {
            // Rules that count all requests together look for no key.
            let none = parts.is_empty();
            judged.keys.push(if none {
                Key { place: 0, tag: 0 }
            } else {
                Key::of(parts, &self.hasher, facts)
            });
        }
        for i in &self.early {
            let rule = &self.rules[*i];
            rule.send_for(judged.keys[rule.key]);
        }
    }

    /// Spends on all rules, or on none: what was spent before one refuses is given back. Of several that refuse the
    /// one with the longest wait decides. `shadow`: what the rules in shadow mode would have done, if nobody before
    /// them would have.
    #[inline]
    pub(crate) fn take(
        &self,
        now: Tick,
        class: PriorityClass,
        facts: &Facts<'_>,
        judged: &mut Judged,
        shadow: &mut Option<Refusal>,
    ) -> Result<(), Refusal> {
        let mut shadowed = false;
        for (i, rule) in self.rules.iter().enumerate() {
            judged.steps.push(Step::Spared);
            if !rule.is_for(facts) {
                continue;
            }
            let cost = rule.price.of_estimate(&judged.tokens);
            let step = &mut judged.steps[i];
            let refused = if rule.is_together() {
                note(rule.take_together(now, cost), step)
            } else {
                rule.take_by_key(now, judged.keys[rule.key], cost, step)
            };
            let Some(until) = refused else { continue };
            *step = Step::Refused(until);
            if rule.mode == Mode::Enforce {
                return Err(self.undo(now, class, facts, judged, Refused { rule: i, until }));
            }
            shadowed = true;
        }
        if shadowed {
            self.shadow(now, class, judged, shadow);
        }
        Ok(())
    }

    /// Notes what a request that has spent on all rules holds of them. Returns how long it has to wait for its turn.
    #[inline(always)]
    #[allow(clippy::inline_always)] // seldom more than one thing, noted where it is kept
    pub(crate) fn pass(&self, now: Tick, judged: &Judged, held: &mut Held) -> Duration {
        if !self.paced {
            for rule in &self.held {
                self.hold(*rule, judged, held);
            }
            return Duration::ZERO;
        }
        self.pass_in_turn(now, judged, held)
    }

    /// The same where a request may have to wait.
    #[inline(never)]
    fn pass_in_turn(&self, now: Tick, judged: &Judged, held: &mut Held) -> Duration {
        let wait = self.wait(now, judged);
        // One that waits may leave before its turn, and then holds nothing any more.
        if wait > Duration::ZERO {
            (0..self.rules.len()).for_each(|rule| self.hold(rule, judged, held));
        } else {
            self.held.iter().for_each(|rule| self.hold(*rule, judged, held));
        }
        wait
    }

    /// One rule has refused: gives back what was spent before, and asks the rules behind it how long they would have
    /// the request wait.
    #[cold]
    #[inline(never)]
    fn undo(
        &self,
        now: Tick,
        class: PriorityClass,
        facts: &Facts<'_>,
        judged: &Judged,
        refused: Refused,
    ) -> Refusal {
        self.give_back(judged);
        let asks = |i: &usize| self.rules[*i].mode == Mode::Enforce && self.rules[*i].is_for(facts);
        let rest = (refused.rule + 1..self.rules.len()).filter(asks);
        let longest = rest.fold(refused, |longest, i| {
            let rule = &self.rules[i];
            let cost = rule.price.of_estimate(&judged.tokens);
            match rule.judge(now, cost, rule.find(judged.keys[rule.key])) {
                Err(until) if until > longest.until => Refused { rule: i, until },
                _ => longest,
            }
        });
        self.rules[longest.rule].count_refusal();
        self.refusal(now, class, judged, longest)
    }

    /// The request has ended. `used` is what it really used, if anybody knows.
    pub(crate) fn complete(&self, now: Tick, held: Held, used: Option<&Tokens>) {
        held.release(|hold| {
            let rule = &self.rules[hold.rule as usize];
            rule.settle(now, hold, used.map(|used| rule.price.of(used)));
        });
    }

    /// The rule that ends a stream which has used so many tokens, if one does.
    pub(crate) fn exhausted(&self, now: Tick, held: &Held, used: &Tokens) -> Option<Arc<Rule>> {
        let ends = |hold: &&Hold| {
            let rule = &self.rules[hold.rule as usize];
            rule.is_exhausted(now, hold, rule.price.of(used))
        };
        let rule = &self.rules[held.iter().find(ends)?.rule as usize];
        rule.count_refusal();
        Some(rule.name())
    }

    /// The request did not take place: all that it holds is given back.
    pub(crate) fn cancel(&self, held: Held) {
        held.release(|hold| self.rules[hold.rule as usize].give_back(hold.key, hold.receipt, hold.cost));
    }

    /// State of every rule.
    pub(crate) fn status(&self, now: Tick) -> Vec<LimitStatus> {
        self.rules.iter().map(|rule| rule.status(now)).collect()
    }

    /// Makes room for keys ahead of need.
    pub(crate) fn grow_ahead(&self) {
        self.rules.iter().for_each(LimitRule::grow_ahead);
    }

    /// How long the request has to wait for its turn.
    #[cold]
    fn wait(&self, now: Tick, judged: &Judged) -> Duration {
        let waits = self.rules.iter().zip(&judged.steps).map(|(rule, step)| match step {
            Step::Spent(receipt) => rule.wait(now, rule.price.of_estimate(&judged.tokens), *receipt),
            Step::Spared | Step::Refused(_) => Duration::ZERO,
        });
        waits.max().unwrap_or_default()
    }

    /// Notes what the request holds of a rule.
    #[inline(always)]
    #[allow(clippy::inline_always)] // as above
    fn hold(&self, i: usize, judged: &Judged, held: &mut Held) {
        let rule = &self.rules[i];
        if let Step::Spent(receipt) = judged.steps[i] {
            let cost = rule.price.of_estimate(&judged.tokens);
            held.push(Hold { rule: i as u32, key: judged.keys[rule.key], receipt, cost });
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

    /// Counts what rules in shadow mode would have refused of a request that passes.
    #[cold]
    fn shadow(&self, now: Tick, class: PriorityClass, judged: &Judged, shadow: &mut Option<Refusal>) {
        let mut refused: Option<Refused> = None;
        for (rule, step) in judged.steps.iter().enumerate() {
            if let Step::Refused(until) = *step {
                self.rules[rule].count_refusal();
                let longer = refused.is_none_or(|before| until > before.until);
                refused = if longer { Some(Refused { rule, until }) } else { refused };
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

#[cfg(test)]
#[cfg(loom)]
mod models;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
