//! The way of one request through all rules.

use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::report::TierName;
use tidegate_policy::{Mode, PriorityClass};

use super::{Engine, TierRules};
use crate::breaker::{Breaker, Call};
use crate::gate::Shed;
use crate::gradient::Slowed;
use crate::limit::{Held, Judged, Passed, TakenToken};
use crate::{Cause, Decision, Facts, Refusal, Tick};

/// All rules let the request pass.
pub(super) struct Leave {
    pub(super) call: Option<Call>,
    /// What the first of the rules in shadow mode would have answered.
    pub(super) shadow: Option<Refusal>,
    /// How long it has to wait for its turn.
    pub(super) wait: Duration,
    /// What it holds of the limits.
    pub(super) held: Held,
}

impl Engine {
    /// Asks the breaker, the tiers and the limits, in that order.
    pub(super) fn ask(&self, now: Tick, class: PriorityClass, facts: &Facts<'_>) -> Result<Leave, Refusal> {
        let mut shadow = None;
        let call = self.ask_breaker(now, class, facts, &mut shadow)?;
        match (self.ask_rules(now, class, facts, &mut shadow), &self.breaker, call) {
            (Ok(Passed { wait, held, .. }), _, call) => Ok(Leave { call, shadow, wait, held }),
            (Err(refusal), Some(breaker), Some(call)) => {
                breaker.give_back(now, call);
                Err(refusal)
            }
            (Err(refusal), _, _) => Err(refusal),
        }
    }

    /// The answer to a refused request.
    #[cold]
    pub(super) fn refuse(&self, refusal: Refusal) -> Decision {
        let fallback = self.breaker.as_ref().and_then(Breaker::fallback);
        match fallback {
            Some(path) if refusal.cause == Cause::Breaker => Decision::Fallback(path.clone(), refusal),
            _ => Decision::Refuse(refusal),
        }
    }

    fn ask_breaker(
        &self,
        now: Tick,
        class: PriorityClass,
        facts: &Facts<'_>,
        shadow: &mut Option<Refusal>,
    ) -> Result<Option<Call>, Refusal> {
        let Some(breaker) = &self.breaker else { return Ok(None) };
        match breaker.admit(now, class, facts, &self.spread) {
            Ok(call) => Ok(Some(call)),
            Err(refusal) if breaker.enforced() => Err(refusal),
            Err(refusal) => {
                *shadow = Some(refusal);
                Ok(None)
            }
        }
    }

    /// Judges by tiers and limits first, then takes a token of the gradient and those of the limits.
    fn ask_rules(
        &self,
        now: Tick,
        class: PriorityClass,
        facts: &Facts<'_>,
        shadow: &mut Option<Refusal>,
    ) -> Result<Passed, Refusal> {
        let slowed = self.enforce(self.ask_tiers(now, class), shadow)?;
        let mut judged = Judged::new();
        self.limits.judge(now, class, facts, &mut judged)?;
        let token = if slowed { None } else { self.enter(now, class, shadow)? };
        match self.limits.commit(now, class, &mut judged) {
            Ok(mut passed) => {
                if shadow.is_none() {
                    *shadow = passed.shadow.take();
                }
                Ok(passed)
            }
            Err(refusal) => {
                if let Some(token) = token {
                    self.gradient.give_back(class, token);
                }
                Err(refusal)
            }
        }
    }

    /// Carries a refusal by the tiers out, or notes it in shadow mode. Ok: whether there was one.
    fn enforce(&self, judged: Result<(), Refusal>, shadow: &mut Option<Refusal>) -> Result<bool, Refusal> {
        let Err(refusal) = judged else { return Ok(false) };
        if self.tiers.as_ref().is_some_and(|tiers| tiers.mode == Mode::Enforce) {
            return Err(refusal);
        }
        shadow.get_or_insert(refusal);
        Ok(true)
    }

    fn ask_tiers(&self, now: Tick, class: PriorityClass) -> Result<(), Refusal> {
        let Some(tiers) = &self.tiers else { return Ok(()) };
        if class == PriorityClass::Low
            && let Some(shed) = self.gate.shed(now)
        {
            return Err(self.shed(tiers, class, shed));
        }
        self.gradient.judge(now, class).map_err(|slowed| self.slowed(tiers, class, slowed))
    }

    /// Takes a token of the gradient.
    fn enter(
        &self,
        now: Tick,
        class: PriorityClass,
        shadow: &mut Option<Refusal>,
    ) -> Result<Option<TakenToken>, Refusal> {
        let Some(tiers) = &self.tiers else { return Ok(None) };
        match self.gradient.take(now, class) {
            Ok(token) => Ok(token),
            Err(slowed) => self.enforce(Err(self.slowed(tiers, class, slowed)), shadow).map(|_| None),
        }
    }

    #[cold]
    fn shed(&self, tiers: &TierRules, class: PriorityClass, shed: Shed) -> Refusal {
        let rule = match shed.tier {
            TierName::Qps => &tiers.qps,
            TierName::GpuMemory => &tiers.gpu_memory,
            TierName::Latency => &tiers.latency,
        };
        Refusal {
            cause: Cause::Tier(shed.tier),
            rule: Arc::clone(rule),
            class,
            observed: shed.value,
            limit: shed.threshold,
            retry_after: self.spread.over(shed.countdown),
        }
    }

    #[cold]
    fn slowed(&self, tiers: &TierRules, class: PriorityClass, slowed: Slowed) -> Refusal {
        Refusal {
            cause: Cause::Pressure,
            rule: Arc::clone(&tiers.priority),
            class,
            observed: slowed.demand,
            limit: slowed.rate,
            retry_after: self.spread.over(slowed.retry_after),
        }
    }
}
