//! One limit with its counters.

use std::mem::discriminant;
use std::sync::Arc;

use tidegate_policy::report::LimitStatus;
use tidegate_policy::{Algorithm, KeyPart, Limit, Mode, PriorityClass};

use super::key::Key;
use super::law::Law;
use super::table::{Place, Receipt, Table};
use crate::sync::{AtomicU64, Ordering::Relaxed};
use crate::{Cause, Refusal, Rule, Tick};

/// A rule in force.
#[derive(Debug)]
pub(crate) struct LimitRule {
    pub(crate) mode: Mode,
    /// Index of what its keys are made of.
    pub(crate) key: usize,
    rule: Arc<Rule>,
    parts: Vec<KeyPart>,
    algorithm: Algorithm,
    law: Law,
    table: Arc<Table>,
    refused: Arc<AtomicU64>,
}

impl LimitRule {
    pub(crate) fn new(limit: &Limit, key: usize) -> Self {
        let law = Law::new(limit);
        Self::with_state(limit, key, Arc::new(Table::new(law)), Arc::new(AtomicU64::new(0)))
    }

    /// The rule with new parameters and the counters of this one.
    pub(crate) fn succeed(&self, limit: &Limit, key: usize, now: Tick) -> Self {
        let law = Law::new(limit);
        let table = if law.reads(self.law) {
            Arc::clone(&self.table)
        } else {
            Arc::new(self.table.converted(self.law, law, now))
        };
        Self::with_state(limit, key, table, Arc::clone(&self.refused))
    }

    fn with_state(limit: &Limit, key: usize, table: Arc<Table>, refused: Arc<AtomicU64>) -> Self {
        Self {
            mode: limit.mode,
            key,
            rule: Arc::new(Rule { policy: limit.policy.clone(), name: limit.name.clone() }),
            parts: limit.key.clone(),
            algorithm: limit.algorithm,
            law: Law::new(limit),
            table,
            refused,
        }
    }

    /// Whether the limit is this rule, perhaps with other numbers.
    pub(crate) fn is_identified_by(&self, limit: &Limit) -> bool {
        self.rule.policy == limit.policy
            && self.rule.name == limit.name
            && self.parts == limit.key
            && discriminant(&self.algorithm) == discriminant(&limit.algorithm)
    }

    pub(crate) fn find(&self, key: Key) -> Option<Place> {
        self.table.find(key)
    }

    pub(crate) fn judge(&self, now: Tick, place: Option<Place>) -> Result<(), Tick> {
        self.table.judge(self.law, now, place)
    }

    pub(crate) fn take(&self, now: Tick, key: Key, place: Option<Place>) -> Result<Receipt, Tick> {
        self.table.take(self.law, now, key, place)
    }

    pub(crate) fn give_back(&self, key: Key, receipt: Receipt) {
        self.table.give_back(self.law, key, receipt);
    }

    pub(crate) fn count_refusal(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// The refusal that names this rule. Observed is what counts already and the request itself, against what may
    /// count at once: the bucket's size or the window's limit.
    pub(crate) fn refusal(&self, now: Tick, class: PriorityClass, key: Key, until: Tick) -> Refusal {
        Refusal {
            cause: Cause::Limit,
            rule: Arc::clone(&self.rule),
            class,
            observed: self.table.outstanding(self.law, now, self.table.find(key)) as f64 + 1.0,
            limit: self.law.size() as f64,
            retry_after: until.since(now),
        }
    }

    pub(crate) fn status(&self) -> LimitStatus {
        LimitStatus {
            policy: self.rule.policy.clone(),
            name: self.rule.name.clone(),
            mode: self.mode,
            keys: self.table.keys(),
            refused: self.refused.load(Relaxed),
        }
    }

    pub(crate) fn grow_ahead(&self) {
        self.table.grow_ahead();
    }
}
