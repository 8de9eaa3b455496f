//! The way of one request through all rules.

use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::report::TierName;
use tidegate_policy::{Mode, PriorityClass};

use super::places::{Asking, Found, queue_cost};
use super::{Engine, TierRules};
use crate::breaker::Call;
use crate::concurrency::Pool;
use crate::gate::Shed;
use crate::gradient::Slowed;
use crate::lane::Lane;
use crate::limit::{Judged, Passed, TakenToken};
use crate::queue::Account;
use crate::ramp::Ramped;
use crate::{Cause, Decision, Facts, Refusal, Tick};

/// Least wait of a client that is refused by what is in flight: nobody knows when that ends, and to come again at once
/// would only be refused again.
const UNKNOWN_WAIT: Duration = Duration::from_millis(500);

/// What a request leaves the rules with.
pub(super) struct Leave {
    pub(super) call: Option<Call>,
    /// What the first of the rules in shadow mode would have answered.
    pub(super) shadow: Option<Refusal>,
    /// What it holds of the limits, and how long it has to wait for its turn.
    pub(super) passed: Passed,
    /// Its place in flight.
    pub(super) pool: Option<Pool>,
    /// What it counted in the queue, if it has been there.
    pub(super) account: Option<Box<Account>>,
}

/// What a request has been given on its way.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) judged: Judged,
    /// By the tiers.
    pub(super) tokens: Tokens,
    /// By the limits.
    pub(super) passed: Passed,
}

/// What the tiers' buckets gave, to put it back when a later rule refuses.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tokens {
    ramp: Option<TakenToken>,
    gradient: Option<TakenToken>,
}

impl Engine {
    /// Asks the breaker, the tiers and the limits, in that order, and then for a place in flight. What was taken comes
    /// back when a later one refuses. `judged` has the request's keys.
    ///
    /// The way of a request that passes is one function, whose answer is written where it belongs: all others leave it
    /// for one of their own.
    #[inline]
    pub(super) fn ask(
        &self,
        now: Tick,
        lane: Lane,
        class: PriorityClass,
        facts: &Facts<'_>,
        judged: &mut Judged,
    ) -> Decision {
        let mut shadow = None;
        let call = match self.ask_breaker(now, class, facts, &mut shadow) {
            Ok(call) => call,
            Err(refusal) => return self.refuse(refusal),
        };
        let tokens = match self.ask_tiers(now, class, &mut shadow) {
            Ok(tokens) => tokens,
            Err(refusal) => return self.turn_away(now, class, call, Tokens::default(), refusal),
        };
        if let Err(refusal) = self.limits.take(now, class, facts, judged, &mut shadow) {
            return self.turn_away(now, class, call, tokens, refusal);
        }
        let pool = match self.find_place(class, &mut shadow) {
            Ok(Found::Place(pool)) => pool,
            Ok(Found::Queue(queue)) => {
                let asking =
                    Asking { now, class, line: queue, cost: queue_cost(&facts.tokens), call, shadow };
                return self.queue_up(asking, facts, self.given(now, judged, tokens));
            }
            Err(refusal) => {
                self.limits.give_back(judged);
                return self.turn_away(now, class, call, tokens, refusal);
            }
        };
        let passed = self.limits.pass(now, judged);
        let leave = Leave { call, shadow, passed, pool, account: None };
        Decision::Admit(self.let_in(now, lane, class, leave, facts.tokens))
    }

    /// What a request takes along that has to queue up.
    #[cold]
    #[inline(never)]
    fn given(&self, now: Tick, judged: &mut Judged, tokens: Tokens) -> Box<Given> {
        let passed = self.limits.pass(now, judged);
        Box::new(Given { judged: std::mem::replace(judged, Judged::new()), tokens, passed })
    }

    /// Puts back what the breaker and the tiers gave, and refuses.
    #[cold]
    #[inline(never)]
    fn turn_away(
        &self,
        now: Tick,
        class: PriorityClass,
        call: Option<Call>,
        tokens: Tokens,
        refusal: Refusal,
    ) -> Decision {
        self.give_back(class, tokens);
        if let (Some(breaker), Some(call)) = (&self.breaker, call) {
            breaker.give_back(now, call);
        }
        self.refuse(refusal)
    }

    /// The answer to a refused request.
    #[cold]
    #[inline(never)]
    pub(super) fn refuse(&self, mut refusal: Refusal) -> Decision {
        if refusal.retry_after.is_zero() {
            refusal.retry_after = self.spread.over(UNKNOWN_WAIT);
        }
        let falls_back =
            || self.breaker.as_ref().is_some_and(|breaker| breaker.policy().falls_back_when_open());
        if refusal.cause == Cause::Breaker && falls_back() {
            Decision::Fallback(refusal)
        } else {
            Decision::Refuse(refusal)
        }
    }

    #[inline]
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

    /// Takes the tokens that the tiers ask for, or carries their refusal out. In shadow mode it is noted.
    #[inline]
    fn ask_tiers(
        &self,
        now: Tick,
        class: PriorityClass,
        shadow: &mut Option<Refusal>,
    ) -> Result<Tokens, Refusal> {
        let Some(tiers) = &self.tiers else { return Ok(Tokens::default()) };
        match self.take(now, class, tiers) {
            Ok(tokens) => Ok(tokens),
            Err(refusal) if tiers.mode == Mode::Enforce => Err(refusal),
            Err(refusal) => {
                shadow.get_or_insert(refusal);
                Ok(Tokens::default())
            }
        }
    }

    /// The refusal of the tier that sheds, if any does.
    pub(super) fn shed_now(&self, now: Tick, class: PriorityClass) -> Option<Refusal> {
        let shed = self.gate.shed(now)?;
        self.tiers.as_ref().map(|tiers| self.shed(tiers, class, shed))
    }

    #[inline]
    fn take(&self, now: Tick, class: PriorityClass, tiers: &TierRules) -> Result<Tokens, Refusal> {
        if class == PriorityClass::Low
            && let Some(shed) = self.gate.shed(now)
        {
            return Err(self.shed(tiers, class, shed));
        }
        let ramp = match class {
            PriorityClass::Low => self.ramp.take(now).map_err(|ramped| self.ramped(tiers, class, ramped))?,
            PriorityClass::Medium | PriorityClass::High => None,
        };
        match self.gradient.take(now, class) {
            Ok(gradient) => Ok(Tokens { ramp, gradient }),
            Err(slowed) => {
                self.give_back(class, Tokens { ramp, gradient: None });
                Err(self.slowed(tiers, class, slowed))
            }
        }
    }

    /// Puts them back.
    pub(super) fn give_back(&self, class: PriorityClass, tokens: Tokens) {
        if let Some(token) = tokens.gradient {
            self.gradient.give_back(class, token);
        }
        if let Some(token) = tokens.ramp {
            self.ramp.give_back(token);
        }
    }

    #[cold]
    fn ramped(&self, tiers: &TierRules, class: PriorityClass, ramped: Ramped) -> Refusal {
        self.shed(tiers, class, self.gate.letting_in(ramped.tier, ramped.retry_after))
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
