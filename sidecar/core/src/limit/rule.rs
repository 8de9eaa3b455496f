//! One limit with its counters.

use std::mem::discriminant;
use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::report::LimitStatus;
use tidegate_policy::{Algorithm, Cost, KeyPart, Limit, Millis, Mode, OnExhausted, PriorityClass};

use super::Step;
use super::condition::Conditions;
use super::cost::Price;
use super::held::Hold;
use super::key::Key;
use super::law::Law;
use super::quota::Left;
use super::table::{Place, Receipt, Table};
use crate::sync::{AtomicU64, Ordering::Relaxed};
use crate::{Cause, Facts, Refusal, Rule, Tick};

/// A rule in force.
#[derive(Debug)]
pub(crate) struct LimitRule {
    pub(crate) mode: Mode,
    /// Index of what its keys are made of.
    pub(crate) key: usize,
    rule: Arc<Rule>,
    parts: Vec<KeyPart>,
    /// The requests that it is for, when not all.
    when: Option<Box<Conditions>>,
    /// It counts all requests together: there is no key to look for, nor one that could be put out.
    together: bool,
    algorithm: Algorithm,
    cost: Cost,
    on_exhausted: OnExhausted,
    pub(crate) price: Price,
    law: Law,
    /// What the policy says: so much in a window.
    told: (u64, Option<Duration>),
    /// When it came into force.
    born: Tick,
    table: Arc<Table>,
    refused: Arc<AtomicU64>,
}

impl LimitRule {
    pub(crate) fn new(limit: &Limit, key: usize, now: Tick) -> Self {
        let law = Law::new(limit, now);
        Self {
            mode: limit.mode,
            key,
            rule: Arc::new(Rule { policy: limit.policy.clone(), name: limit.name.clone() }),
            parts: limit.key.clone(),
            when: when(limit),
            together: limit.key.is_empty(),
            algorithm: limit.algorithm,
            cost: limit.cost,
            on_exhausted: limit.on_exhausted,
            price: Price::new(limit.cost),
            law,
            told: told(limit),
            born: now,
            table: Arc::new(Table::new(law, limit.buckets())),
            refused: Arc::new(AtomicU64::new(0)),
        }
    }

    /// The rule with new parameters and the counters of this one.
    pub(crate) fn succeed(&self, limit: &Limit, key: usize, now: Tick) -> Self {
        let law = Law::new(limit, self.born);
        let table = if law.reads(self.law) && self.table.has(limit.buckets()) {
            Arc::clone(&self.table)
        } else {
            Arc::new(self.table.converted(self.law, law, limit.buckets(), now))
        };
        Self {
            mode: limit.mode,
            key,
            rule: Arc::clone(&self.rule),
            parts: limit.key.clone(),
            when: when(limit),
            together: limit.key.is_empty(),
            algorithm: limit.algorithm,
            cost: limit.cost,
            on_exhausted: limit.on_exhausted,
            price: Price::new(limit.cost),
            law,
            told: told(limit),
            born: self.born,
            table,
            refused: Arc::clone(&self.refused),
        }
    }

    /// Whether the limit is this rule, perhaps with other numbers.
    pub(crate) fn is_identified_by(&self, limit: &Limit) -> bool {
        self.rule.policy == limit.policy
            && self.rule.name == limit.name
            && self.parts == limit.key
            && discriminant(&self.algorithm) == discriminant(&limit.algorithm)
            && discriminant(&self.cost) == discriminant(&limit.cost)
    }

    /// The same rule, for keys that are made of something else than facts.
    pub(crate) fn keyed_by_caller(self) -> Self {
        Self { together: false, ..self }
    }

    /// Whether it judges this request at all.
    #[inline]
    pub(crate) fn is_for(&self, facts: &Facts<'_>) -> bool {
        self.when.as_ref().is_none_or(|when| when.hold(facts))
    }

    pub(crate) fn find(&self, key: Key) -> Option<Place> {
        if self.together { None } else { self.table.find(key) }
    }

    pub(crate) fn judge(&self, now: Tick, cost: u32, place: Option<Place>) -> Result<(), Tick> {
        if self.together {
            return self.table.judge_together(&self.law, now, cost);
        }
        self.table.judge(&self.law, now, cost, place)
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // what it gives is written once, where it is kept
    pub(crate) fn take(&self, now: Tick, key: Key, cost: u32) -> Result<Receipt, Tick> {
        if self.together { self.take_together(now, cost) } else { self.table.take(&self.law, now, key, cost) }
    }

    /// Spends where all requests count together, which takes a few instructions.
    #[inline(always)]
    #[allow(clippy::inline_always)] // as above
    pub(super) fn take_together(&self, now: Tick, cost: u32) -> Result<Receipt, Tick> {
        self.table.take_together(&self.law, now, cost)
    }

    /// Spends on a key, and notes it in `step`. In a function of its own, so that whoever asks one rule after another
    /// keeps his registers. Some: it refuses until then, and nothing is noted.
    #[inline(never)]
    pub(super) fn take_by_key(&self, now: Tick, key: Key, cost: u32, step: &mut Step) -> Option<Tick> {
        note(self.table.take(&self.law, now, key, cost), step)
    }

    /// Has the memory of a key sent. Nothing waits for it.
    #[inline]
    pub(crate) fn send_for(&self, key: Key) {
        self.table.send_for(key);
    }

    /// Gives `amount` of what was taken back.
    pub(crate) fn give_back(&self, key: Key, receipt: Receipt, amount: u32) {
        self.table.give_back(&self.law, key, receipt, amount);
    }

    /// Whether a request that ends has something to give back or to settle.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.law, Law::Concurrency(_)) || !self.cost.is_requests()
    }

    /// Whether a request that passes may have to wait for its turn.
    pub(crate) fn is_paced(&self) -> bool {
        matches!(self.algorithm, Algorithm::LeakyBucket { max_wait_millis: Some(_), .. })
    }

    /// The request has ended. `used` is what it really used, if anybody knows.
    pub(crate) fn settle(&self, now: Tick, hold: &Hold, used: Option<u32>) {
        if matches!(self.law, Law::Concurrency(_)) {
            self.give_back(hold.key, hold.receipt, hold.cost);
        } else if let Some(used) = used {
            if used < hold.cost {
                self.give_back(hold.key, hold.receipt, hold.cost - used);
            } else if used > hold.cost {
                self.charge(now, hold.key, used - hold.cost);
            }
        }
    }

    /// Whether a stream that has cost `used` so far has to end: that is more than it holds, and what is missing is not
    /// there.
    pub(crate) fn is_exhausted(&self, now: Tick, hold: &Hold, used: u32) -> bool {
        let ends =
            self.mode == Mode::Enforce && self.on_exhausted.is_end_stream() && !self.cost.is_requests();
        let missing = used.saturating_sub(hold.cost);
        ends && missing > 0 && self.judge(now, missing, self.find(hold.key)).is_err()
    }

    /// Its name.
    pub(crate) fn name(&self) -> Arc<Rule> {
        Arc::clone(&self.rule)
    }

    fn charge(&self, now: Tick, key: Key, amount: u32) {
        if self.together {
            self.table.charge_together(&self.law, now, amount);
        } else {
            self.table.charge(&self.law, now, key, amount);
        }
    }

    /// How long a request that has spent has to wait for its turn.
    pub(crate) fn wait(&self, now: Tick, cost: u32, receipt: Receipt) -> Duration {
        match self.mode {
            Mode::Enforce => self.law.wait(now, cost, receipt.taken()),
            Mode::Shadow => Duration::ZERO,
        }
    }

    pub(crate) fn count_refusal(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// What counts for a key, and what may.
    pub(crate) fn load(&self, now: Tick, key: Key) -> (u64, u64) {
        (self.table.outstanding(&self.law, now, self.find(key)), self.law.size())
    }

    /// What is left of a key.
    pub(crate) fn left(&self, now: Tick, key: Key) -> Left {
        self.table.left(&self.law, now, self.find(key))
    }

    /// Its name.
    pub(crate) fn rule(&self) -> &Rule {
        &self.rule
    }

    /// How it counts.
    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether every request counts one.
    pub(crate) fn counts_requests(&self) -> bool {
        self.cost.is_requests()
    }

    /// What the policy says: so much in a window.
    pub(crate) fn told(&self) -> (u64, Option<Duration>) {
        self.told
    }

    /// Whether it counts all requests together.
    #[inline]
    pub(crate) fn is_together(&self) -> bool {
        self.together
    }

    /// The refusal that names this rule. Observed is what counts already and the request itself, against what may
    /// count at once: the bucket's size, the window's limit or the permits.
    pub(crate) fn refusal(
        &self,
        now: Tick,
        class: PriorityClass,
        key: Key,
        cost: u32,
        until: Tick,
    ) -> Refusal {
        let (outstanding, limit) = self.load(now, key);
        Refusal {
            cause: Cause::Limit,
            rule: Arc::clone(&self.rule),
            class,
            observed: outstanding as f64 + f64::from(cost),
            limit: limit as f64,
            retry_after: if until == Tick::NEVER { Duration::MAX } else { until.since(now) },
        }
    }

    pub(crate) fn status(&self, now: Tick) -> LimitStatus {
        let size = self.law.size();
        let left = || size.saturating_sub(self.table.outstanding(&self.law, now, None));
        LimitStatus {
            policy: self.rule.policy.clone(),
            name: self.rule.name.clone(),
            mode: self.mode,
            keys: if self.together { 1 } else { self.table.keys() },
            refused: self.refused.load(Relaxed),
            size,
            remaining: self.together.then(left),
        }
    }

    pub(crate) fn grow_ahead(&self) {
        self.table.grow_ahead();
    }
}

/// Notes what was spent. Some: nothing was, and is refused until then.
#[inline(always)]
#[allow(clippy::inline_always)] // two moves
pub(super) fn note(result: Result<Receipt, Tick>, step: &mut Step) -> Option<Tick> {
    match result {
        Ok(receipt) => {
            *step = Step::Spent(receipt);
            None
        }
        Err(until) => Some(until),
    }
}

fn told(limit: &Limit) -> (u64, Option<Duration>) {
    (limit.limit, limit.window_millis.map(Millis::duration))
}

fn when(limit: &Limit) -> Option<Box<Conditions>> {
    (!limit.when.is_empty()).then(|| Box::new(Conditions::new(&limit.when)))
}
