//! Limits by key: all rules are judged first, then all spend or none.

mod key;
mod law;
mod rule;
mod sliding_window;
mod table;
mod token_bucket;

use arrayvec::ArrayVec;
use tidegate_policy::report::LimitStatus;
use tidegate_policy::{KeyPart, Limit, Mode, PolicyDocument, PriorityClass};

pub(crate) use token_bucket::{Taken as TakenToken, TokenBucket};

use crate::{Facts, Refusal, Tick};
use key::Key;
use rule::LimitRule;
use table::{Place, Receipt};

const MAX: usize = PolicyDocument::MAX_LIMITS;

/// All limits of a pod.
#[derive(Debug)]
pub(crate) struct Limits {
    rules: Box<[LimitRule]>,
    /// What keys are made of, each kind once: rules that count by the same parts share one hash.
    keys: Box<[Box<[KeyPart]>]>,
    seed: u64,
}

/// A request that all enforced rules would let pass, with what was found out about it.
#[derive(Debug)]
pub(crate) struct Judged {
    keys: ArrayVec<Key, MAX>,
    /// Of each rule: where its key is, and whether a rule in shadow mode would refuse it.
    rules: ArrayVec<JudgedRule, MAX>,
}

#[derive(Debug, Clone, Copy)]
struct JudgedRule {
    place: Option<Place>,
    shadow: Option<Tick>,
}

/// The rule that decides, and when it would let pass.
#[derive(Debug, Clone, Copy)]
struct Refused {
    rule: usize,
    place: Option<Place>,
    until: Tick,
}

impl Limits {
    /// The limits of a document that validates: what is beyond [`PolicyDocument::MAX_LIMITS`] rules is not judged.
    pub(crate) fn new(limits: &[Limit], seed: u64) -> Self {
        Self::build(limits, seed, LimitRule::new)
    }

    /// The limits of the next document. Rules with the same identity keep their counters.
    pub(crate) fn succeed(&self, limits: &[Limit], now: Tick) -> Self {
        Self::build(limits, self.seed, |limit, key| {
            let before = self.rules.iter().find(|rule| rule.is_identified_by(limit));
            before.map_or_else(|| LimitRule::new(limit, key), |rule| rule.succeed(limit, key, now))
        })
    }

    fn build(limits: &[Limit], seed: u64, rule: impl Fn(&Limit, usize) -> LimitRule) -> Self {
        let mut keys: Vec<Box<[KeyPart]>> = Vec::new();
        let rules = limits.iter().take(MAX).map(|limit| {
            let known = keys.iter().position(|parts| **parts == *limit.key);
            let key = known.unwrap_or_else(|| {
                keys.push(limit.key.as_slice().into());
                keys.len() - 1
            });
            rule(limit, key)
        });
        Self { rules: rules.collect(), keys: keys.into(), seed }
    }

    /// Judges by all rules and spends nothing. Of several that refuse the one with the longest wait decides.
    pub(crate) fn judge(
        &self,
        now: Tick,
        class: PriorityClass,
        facts: &Facts<'_>,
    ) -> Result<Judged, Refusal> {
        let keys: ArrayVec<Key, MAX> =
            self.keys.iter().map(|parts| Key::of(parts, self.seed, facts)).collect();
        let mut rules = ArrayVec::new();
        let mut refused: Option<Refused> = None;
        for (i, rule) in self.rules.iter().enumerate() {
            let place = rule.find(keys[rule.key]);
            let until = rule.judge(now, place).err();
            if let (Some(until), Mode::Enforce) = (until, rule.mode) {
                refused = Some(longer(refused, Refused { rule: i, place, until }));
            }
            rules.push(JudgedRule { place, shadow: until });
        }
        refused.map_or(Ok(Judged { keys, rules }), |refused| Err(self.refuse(now, class, refused)))
    }

    /// Spends on all rules that let the request pass. When another request was faster on one of them, everything
    /// is given back. Ok: what the rules in shadow mode would have done.
    pub(crate) fn commit(
        &self,
        now: Tick,
        class: PriorityClass,
        mut judged: Judged,
    ) -> Result<Option<Refusal>, Refusal> {
        let mut receipts: ArrayVec<Option<Receipt>, MAX> = ArrayVec::new();
        for (i, rule) in self.rules.iter().enumerate() {
            let JudgedRule { place, shadow } = judged.rules[i];
            if shadow.is_some() {
                receipts.push(None);
                continue;
            }
            match rule.take(now, judged.keys[rule.key], place) {
                Ok(receipt) => receipts.push(Some(receipt)),
                Err(until) if rule.mode == Mode::Shadow => {
                    judged.rules[i].shadow = Some(until);
                    receipts.push(None);
                }
                Err(until) => {
                    self.give_back(&judged.keys, &receipts);
                    return Err(self.refuse(now, class, Refused { rule: i, place, until }));
                }
            }
        }
        Ok(self.shadow(now, class, &judged.rules))
    }

    /// State of every rule.
    pub(crate) fn status(&self) -> Vec<LimitStatus> {
        self.rules.iter().map(LimitRule::status).collect()
    }

    /// Makes room for keys ahead of need.
    pub(crate) fn grow_ahead(&self) {
        self.rules.iter().for_each(LimitRule::grow_ahead);
    }

    fn give_back(&self, keys: &[Key], receipts: &[Option<Receipt>]) {
        for (rule, receipt) in self.rules.iter().zip(receipts) {
            if let Some(receipt) = receipt {
                rule.give_back(keys[rule.key], *receipt);
            }
        }
    }

    #[cold]
    fn refuse(&self, now: Tick, class: PriorityClass, refused: Refused) -> Refusal {
        let rule = &self.rules[refused.rule];
        rule.count_refusal();
        rule.refusal(now, class, refused.place, refused.until)
    }

    /// Counts what rules in shadow mode would have refused of a request that passes.
    fn shadow(&self, now: Tick, class: PriorityClass, judged: &[JudgedRule]) -> Option<Refusal> {
        let mut refused: Option<Refused> = None;
        for (rule, &JudgedRule { place, shadow }) in judged.iter().enumerate() {
            if let Some(until) = shadow {
                self.rules[rule].count_refusal();
                refused = Some(longer(refused, Refused { rule, place, until }));
            }
        }
        refused.map(|r| self.rules[r.rule].refusal(now, class, r.place, r.until))
    }
}

fn longer(one: Option<Refused>, other: Refused) -> Refused {
    one.filter(|one| one.until >= other.until).unwrap_or(other)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
