//! The way of one request through all rules.

use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::report::TierName;
use tidegate_policy::{Mode, PriorityClass};

use super::line::Line;
use super::places::Found;
use super::{Engine, Ticket, TierRules};
use crate::breaker::{Breaker, Call};
use crate::concurrency::Pool;
use crate::gate::Shed;
use crate::gradient::Slowed;
use crate::lane::Lane;
use crate::limit::{Held, Judged, TakenToken};
use crate::ramp::Ramped;
use crate::{Admission, Cause, Decision, Facts, Refusal, Tick};

/// Least wait of a client that is refused by what is in flight: nobody knows when that ends, and to come again at once
/// would only be refused again.
const UNKNOWN_WAIT: Duration = Duration::from_millis(500);

/// What a request has been given on its way.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) judged: Judged,
    /// By the tiers.
    pub(super) tokens: Tokens,
    /// By the limits.
    pub(super) held: Held,
    /// How long it has to wait for its turn.
    pub(super) wait: Duration,
}

/// What the tiers' buckets gave, to put it back when a later rule refuses.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tokens {
    ramp: Option<TakenToken>,
    gradient: Option<TakenToken>,
}

/// Where a request goes no further.
struct Stop<'a> {
    /// What the tiers gave.
    tokens: Tokens,
    why: Why<'a>,
}

enum Why<'a> {
    Refused(Refusal),
    /// It finds no place in flight, and may wait for one.
    Queues(&'a Arc<Line>),
}

impl Engine {
    /// Judges a request. `judged` has its keys.
    ///
    /// The admission is put together where the answer lies, of pieces that were in registers until then: nothing is
    /// moved.
    #[inline]
    pub(super) fn ask(
        &self,
        now: Tick,
        lane: Lane,
        class: PriorityClass,
        facts: &Facts<'_>,
        judged: &mut Judged,
    ) -> Decision {
        let (mut call, mut shadow) = (None, None);
        let pool = match self.ask_all(now, class, facts, judged, (&mut call, &mut shadow)) {
            Ok(pool) => pool,
            Err(stop) => return self.stop(now, facts, judged, (class, call, shadow), stop),
        };
        let mut held = Held::default();
        let wait = self.limits.pass(now, judged, &mut held);
        let (admitted, slot) = self.let_in(now, lane, (class, facts.tokens, wait), &mut call);
        let ticket = Ticket { admitted, call, held, slot, failed: false, pool, begun: false, account: None };
        Decision::Admit(Admission { ticket, class, wait, shadow })
    }

    /// Asks the breaker, the tiers and the limits, in that order, and then for a place in flight.
    #[inline(always)]
    #[allow(clippy::inline_always)] // what it gives stays in registers
    fn ask_all(
        &self,
        now: Tick,
        class: PriorityClass,
        facts: &Facts<'_>,
        judged: &mut Judged,
        (call, shadow): (&mut Option<Call>, &mut Option<Refusal>),
    ) -> Result<Option<Pool>, Stop<'_>> {
        let refused = |tokens: Tokens| move |refusal: Refusal| Stop { tokens, why: Why::Refused(refusal) };
        if let Some(breaker) = &self.breaker {
            *call = breaker.admit_at_once();
            if call.is_none() {
                *call = self
                    .ask_breaker(now, class, facts, breaker, shadow)
                    .map_err(refused(Tokens::default()))?;
            }
        }
        let tokens = if self.holds_nobody_back(class) {
            Tokens::default()
        } else {
            self.ask_tiers(now, class, shadow).map_err(refused(Tokens::default()))?
        };
        self.limits.take(now, class, facts, judged, shadow).map_err(refused(tokens))?;
        match self.find_place(class, shadow) {
            Ok(Found::Place(pool)) => Ok(pool),
            Ok(Found::Queue(queue)) => Err(Stop { tokens, why: Why::Queues(queue) }),
            Err(refusal) => {
                self.limits.give_back(judged);
                Err(Stop { tokens, why: Why::Refused(refusal) })
            }
        }
    }

    /// A request goes no further: it queues up, or what the breaker and the tiers gave comes back.
    #[cold]
    #[inline(never)]
    fn stop(
        &self,
        now: Tick,
        facts: &Facts<'_>,
        judged: &mut Judged,
        (class, call, shadow): (PriorityClass, Option<Call>, Option<Refusal>),
        stop: Stop<'_>,
    ) -> Decision {
        match stop.why {
            Why::Queues(line) => {
                let mut admission = Admission { shadow, ..Admission::of(class) };
                admission.ticket.call = call;
                self.queue_up(now, facts, line, admission, self.given(now, judged, stop.tokens))
            }
            Why::Refused(refusal) => {
                self.give_back(class, stop.tokens);
                if let (Some(breaker), Some(call)) = (&self.breaker, call) {
                    breaker.give_back(now, call);
                }
                self.refuse(refusal)
            }
        }
    }

    /// What a request takes along that has to queue up.
    fn given(&self, now: Tick, judged: &mut Judged, tokens: Tokens) -> Box<Given> {
        let mut held = Held::default();
        let wait = self.limits.pass(now, judged, &mut held);
        Box::new(Given { judged: std::mem::replace(judged, Judged::new()), tokens, wait, held })
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

    #[inline(never)]
    fn ask_breaker(
        &self,
        now: Tick,
        class: PriorityClass,
        facts: &Facts<'_>,
        breaker: &Breaker,
        shadow: &mut Option<Refusal>,
    ) -> Result<Option<Call>, Refusal> {
        match breaker.admit(now, class, facts, &self.spread) {
            Ok(call) => Ok(Some(call)),
            Err(refusal) if breaker.enforced() => Err(refusal),
            Err(refusal) => {
                *shadow = Some(refusal);
                Ok(None)
            }
        }
    }

    /// The tiers have nothing to say to this class.
    #[inline]
    fn holds_nobody_back(&self, class: PriorityClass) -> bool {
        self.tiers.is_none()
            || match class {
                PriorityClass::High => true,
                PriorityClass::Medium => self.gradient.is_off(),
                PriorityClass::Low => false,
            }
    }

    /// Takes the tokens that the tiers ask for, or carries their refusal out. In shadow mode it is noted.
    #[inline(never)]
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

    /// The refusal of a request that waited when `tier` shed its class. A tier that has recovered meanwhile does not bring
    /// it back, nor does one that trips by the document in force and not by that of the request. None: this one has no
    /// tiers.
    pub(super) fn shed_by(&self, now: Tick, class: PriorityClass, tier: TierName) -> Option<Refusal> {
        let tiers = self.tiers.as_ref()?;
        let shed = self.gate.shed(now).unwrap_or_else(|| self.gate.letting_in(tier, Duration::ZERO));
        Some(self.shed(tiers, class, shed))
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
            retry_after: match shed.way_back {
                Some(way_back) => self.spread.recover(shed.countdown, way_back),
                None => self.spread.outlast(shed.countdown, shed.lasts),
            },
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
