//! Limits by key: all rules are judged first, then all spend or none.

mod hash;
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
use hash::Hasher;
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
    hasher: Hasher,
}

/// What was found out about a request, from the first look to the last token. Kept by the caller and filled in
/// place, since it is large and mostly empty.
#[derive(Debug)]
pub(crate) struct Judged {
    keys: ArrayVec<Key, MAX>,
    steps: ArrayVec<Step, MAX>,
}

/// How far a request has come with one rule.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The rule would let it pass. Where its key is.
    Passes(Option<Place>),
    /// It has spent.
    Spent(Receipt),
    /// The rule would refuse it until then. Of a request that goes on only rules in shadow mode.
    Refused(Tick),
}

impl Judged {
    pub(crate) fn new() -> Self {
        Self { keys: ArrayVec::new(), steps: ArrayVec::new() }
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
    pub(crate) fn new(limits: &[Limit], seed: u64) -> Self {
        Self::build(limits, Hasher::new(seed), LimitRule::new)
    }

    /// The limits of the next document. Rules with the same identity keep their counters.
    pub(crate) fn succeed(&self, limits: &[Limit], now: Tick) -> Self {
        Self::build(limits, self.hasher, |limit, key| {
            let before = self.rules.iter().find(|rule| rule.is_identified_by(limit));
            before.map_or_else(|| LimitRule::new(limit, key), |rule| rule.succeed(limit, key, now))
        })
    }

    fn build(limits: &[Limit], hasher: Hasher, rule: impl Fn(&Limit, usize) -> LimitRule) -> Self {
        let mut keys: Vec<Box<[KeyPart]>> = Vec::new();
        let rules = limits.iter().take(MAX).map(|limit| {
            let known = keys.iter().position(|parts| **parts == *limit.key);
            let key = known.unwrap_or_else(|| {
                keys.push(limit.key.as_slice().into());
                keys.len() - 1
            });
            rule(limit, key)
        });
        Self { rules: rules.collect(), keys: keys.into(), hasher }
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
            judged.keys.push(Key::of(parts, self.hasher, facts));
        }
        let mut refused: Option<Refused> = None;
        for (i, rule) in self.rules.iter().enumerate() {
            let place = rule.find(judged.keys[rule.key]);
            judged.steps.push(match rule.judge(now, place) {
                Ok(()) => Step::Passes(place),
                Err(until) => {
                    if rule.mode == Mode::Enforce {
                        refused = Some(longer(refused, Refused { rule: i, until }));
                    }
                    Step::Refused(until)
                }
            });
        }
        refused.map_or(Ok(()), |refused| Err(self.refuse(now, class, &judged.keys, refused)))
    }

    /// Spends on all rules that let the request pass. When another request was faster on one of them, everything
    /// is given back. Ok: what the rules in shadow mode would have done.
    pub(crate) fn commit(
        &self,
        now: Tick,
        class: PriorityClass,
        judged: &mut Judged,
    ) -> Result<Option<Refusal>, Refusal> {
        let mut shadowed = false;
        for (i, rule) in self.rules.iter().enumerate() {
            if let Step::Passes(place) = judged.steps[i] {
                judged.steps[i] = match rule.take(now, judged.keys[rule.key], place) {
                    Ok(receipt) => Step::Spent(receipt),
                    Err(until) if rule.mode == Mode::Shadow => Step::Refused(until),
                    Err(until) => {
                        self.give_back(judged);
                        return Err(self.refuse(now, class, &judged.keys, Refused { rule: i, until }));
                    }
                };
            }
            shadowed |= matches!(judged.steps[i], Step::Refused(_));
        }
        Ok(if shadowed { self.shadow(now, class, judged) } else { None })
    }

    /// State of every rule.
    pub(crate) fn status(&self) -> Vec<LimitStatus> {
        self.rules.iter().map(LimitRule::status).collect()
    }

    /// Makes room for keys ahead of need.
    pub(crate) fn grow_ahead(&self) {
        self.rules.iter().for_each(LimitRule::grow_ahead);
    }

    #[cold]
    fn give_back(&self, judged: &Judged) {
        for (rule, step) in self.rules.iter().zip(&judged.steps) {
            if let Step::Spent(receipt) = step {
                rule.give_back(judged.keys[rule.key], *receipt);
            }
        }
    }

    #[cold]
    fn refuse(&self, now: Tick, class: PriorityClass, keys: &[Key], refused: Refused) -> Refusal {
        let rule = &self.rules[refused.rule];
        rule.count_refusal();
        rule.refusal(now, class, keys[rule.key], refused.until)
    }

    /// Counts what rules in shadow mode would have refused of a request that passes.
    #[cold]
    fn shadow(&self, now: Tick, class: PriorityClass, judged: &Judged) -> Option<Refusal> {
        let mut refused: Option<Refused> = None;
        for (rule, step) in judged.steps.iter().enumerate() {
            if let Step::Refused(until) = *step {
                self.rules[rule].count_refusal();
                refused = Some(longer(refused, Refused { rule, until }));
            }
        }
        let Refused { rule, until } = refused?;
        let rule = &self.rules[rule];
        Some(rule.refusal(now, class, judged.keys[rule.key], until))
    }
}

fn longer(one: Option<Refused>, other: Refused) -> Refused {
    one.filter(|one| one.until >= other.until).unwrap_or(other)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
