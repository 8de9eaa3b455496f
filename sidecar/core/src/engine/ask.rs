//! The way of one request through all rules.

use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::report::TierName;
use tidegate_policy::{Mode, PriorityClass};

use super::places::{Found, Seat, Taken, Waiting};
use super::{Engine, TierRules};
use crate::breaker::Call;
use crate::concurrency::Pool;
use crate::gate::Shed;
use crate::gradient::Slowed;
use crate::limit::{Held, Judged, Passed, TakenToken};
use crate::queue::Account;
use crate::ramp::Ramped;
use crate::{Cause, Decision, Facts, Refusal, Tick};

/// Least wait of a client that is refused by what is in flight: nobody knows when that ends, and to come again at once
/// would only be refused again.
const UNKNOWN_WAIT: Duration = Duration::from_millis(500);

/// All rules let the request pass.
pub(super) struct Leave {
    pub(super) call: Option<Call>,
    /// What the first of the rules in shadow mode would have answered.
    pub(super) shadow: Option<Refusal>,
    /// How long it has to wait for its turn.
    pub(super) wait: Duration,
    /// What it holds of the limits.
    pub(super) held: Held,
    /// Its place in flight.
    pub(super) pool: Option<Pool>,
    /// What it counted in the queue, if it has been there.
    pub(super) account: Option<Account>,
}

/// What becomes of a request that no rule refuses.
pub(super) enum Asked {
    Go(Leave),
    Wait(Waiting),
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
    /// Asks the breaker, the tiers and the limits, in that order, and then for a place in flight.
    /// `judged` knows where the limits have the request's keys.
    #[inline]
    pub(super) fn ask(
        &self,
        now: Tick,
        class: PriorityClass,
        facts: &Facts<'_>,
        judged: &mut Judged,
    ) -> Result<Asked, Refusal> {
        let mut shadow = None;
        let call = self.ask_breaker(now, class, facts, &mut shadow)?;
        match self.ask_rules(now, class, facts, judged, &mut shadow) {
            Ok(Seat::Taken(Taken { pool, account, passed: Passed { wait, held } })) => {
                Ok(Asked::Go(Leave { call, shadow, wait, held, pool, account }))
            }
            Ok(Seat::Queued(queued)) => Ok(Asked::Wait(Waiting::new(now, class, queued, call, shadow))),
            Err(refusal) => {
                if let (Some(breaker), Some(call)) = (&self.breaker, call) {
                    breaker.give_back(now, call);
                }
                Err(refusal)
            }
        }
    }

    /// The answer to a refused request.
    #[cold]
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

    /// Asks the tiers, the limits, and for a place in flight. What was taken comes back when a later one refuses. Without
    /// a place the request queues up with all that it was given.
    fn ask_rules(
        &self,
        now: Tick,
        class: PriorityClass,
        facts: &Facts<'_>,
        judged: &mut Judged,
        shadow: &mut Option<Refusal>,
    ) -> Result<Seat, Refusal> {
        let tokens = self.ask_tiers(now, class, shadow)?;
        let found = match self.limits.take(now, class, judged, shadow) {
            Ok(()) => self.find_place(class, shadow).inspect_err(|_| self.limits.give_back(judged)),
            Err(refusal) => Err(refusal),
        };
        match found {
            Ok(Found::Place(pool)) => {
                let passed = self.limits.pass(now, judged);
                Ok(Seat::Taken(Taken { pool, account: None, passed }))
            }
            Ok(Found::Queue(line)) => {
                let passed = self.limits.pass(now, judged);
                let judged = std::mem::replace(judged, Judged::new());
                self.queue_up(now, class, line, facts, Given { judged, tokens, passed })
            }
            Err(refusal) => {
                self.give_back(class, tokens);
                Err(refusal)
            }
        }
    }

    /// Takes the tokens that the tiers ask for, or carries their refusal out. In shadow mode it is noted.
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
