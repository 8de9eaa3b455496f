//! The states of a breaker in one word, moved by compare-and-swap along the legal transitions only.
//!
//! ```text
//!   Closed ──trip──▶ Open ──its time is over──▶ HalfOpen: probes ──enough succeed──▶ ramp ──its time is over──▶ Closed
//!                     ▲                                      │                        │
//!                     └────────────── one fails ─────────────┴───────── trip ─────────┘
//! ```
//!
//! Probes show that the engine answers one request, not that it can take all of those that waited for it. So the
//! ramp lets 10 %, then 25 %, then 50 % of the requests pass, each for a third of its time: every step is about
//! twice the one before, and what trips a closed breaker trips one in its ramp. To the outside both are `HalfOpen`.
//!
//! A generation begins when it opens, half-opens and when the ramp begins. A call belongs to the generation that let
//! it pass and has no say in another: what was sent before the breaker opened cannot close it, nor reopen it. Calls
//! of the ramp still count after it.

mod word;

use std::num::NonZeroU32;
use std::time::Duration;

use tidegate_policy::report::BreakerState;

use crate::Tick;
use crate::spread::split_mix;
use crate::sync::{AtomicU64, Ordering};
use word::{NANOS_PER_MILLI, Phase, Settled, Word};

/// Shares of the ramp's steps, of 2⁶⁴: 10 %, 25 %, 50 %.
const RAMP: [u64; 3] = [u64::MAX / 10, u64::MAX / 4, u64::MAX / 2];
/// Where a ramp is.
struct Step {
    /// Of 2⁶⁴.
    share: u64,
    /// Time until it is over.
    left: Duration,
}

/// Leave to call the engine: the generation that gave it, whether it is a probe, which has to come back, whether a ramp
/// let it pass, and a one, so that none is zero. One number, since every request in flight has some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Permit(NonZeroU32);

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Open for so long.
    Open(Duration),
    /// Half-open, with all probes out.
    ProbesOut,
    /// Not among the share that the ramp lets pass; it ends after so long.
    Ramp(Duration),
}

/// What a call says about the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Success,
    Failure,
    /// Nothing: the call never happened, nobody waited for it, or the engine was busy and said so.
    None,
}

/// What moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) from: BreakerState,
    pub(crate) to: BreakerState,
}

/// The state of one breaker.
#[derive(Debug)]
pub(crate) struct State {
    word: AtomicU64,
    /// When the last ramp began, in nanoseconds of the clock. Written before the word says so.
    ramp_began: AtomicU64,
    /// Requests that ramps have let pass, and that did not come back without a verdict.
    ramp_passed: AtomicU64,
    opened: AtomicU64,
    half_opened: AtomicU64,
    reopened: AtomicU64,
    closed: AtomicU64,
}

/// The parameters that transitions depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) open: Duration,
    pub(crate) probes: u32,
    pub(crate) consecutive_failures: Option<u32>,
    /// Zero: it closes at once.
    pub(crate) ramp: Duration,
    /// Of the draws which requests of a ramp pass.
    pub(crate) seed: u64,
}

impl Permit {
    const PROBE: u32 = 2;
    const RAMPED: u32 = 4;
    /// Bits below the generation.
    const MARKS: u32 = 3;

    #[inline]
    const fn new(generation: u16, mark: u32) -> Self {
        match NonZeroU32::new((generation as u32) << Self::MARKS | mark | 1) {
            Some(number) => Self(number),
            None => Self(NonZeroU32::MIN),
        }
    }

    #[inline]
    const fn generation(self) -> u16 {
        (self.0.get() >> Self::MARKS) as u16
    }

    /// Whether it is a probe, of whatever generation.
    #[inline]
    pub(crate) const fn is_probe(self) -> bool {
        self.0.get() & Self::PROBE > 0
    }

    const fn is_ramped(self) -> bool {
        self.0.get() & Self::RAMPED > 0
    }
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(Word { generation: 0, phase: Phase::Closed { failures: 0 } }.pack()),
            ramp_began: AtomicU64::new(0),
            ramp_passed: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            half_opened: AtomicU64::new(0),
            reopened: AtomicU64::new(0),
            closed: AtomicU64::new(0),
        }
    }

    /// Leave for one call of a closed breaker.
    #[inline]
    pub(crate) fn closed(&self) -> Option<Permit> {
        let word = self.load();
        matches!(word.phase, Phase::Closed { .. }).then(|| Permit::new(word.generation, 0))
    }

    /// Leave for one call, if there is. An open breaker half-opens here when its time is over.
    #[inline]
    pub(crate) fn admit(&self, now: Tick, timing: Timing) -> Result<Permit, Denied> {
        let word = self.load();
        match word.phase {
            Phase::Closed { .. } => Ok(Permit::new(word.generation, 0)),
            Phase::Open { .. } | Phase::HalfOpen { .. } | Phase::Ramp { .. } => {
                self.admit_unless_closed(now, timing, word)
            }
        }
    }

    #[cold]
    fn admit_unless_closed(&self, now: Tick, timing: Timing, mut word: Word) -> Result<Permit, Denied> {
        loop {
            let next = match word.phase {
                Phase::Closed { .. } => return Ok(Permit::new(word.generation, 0)),
                Phase::Open { until } if now.as_nanos() < until.saturating_mul(NANOS_PER_MILLI) => {
                    let left = until.saturating_mul(NANOS_PER_MILLI) - now.as_nanos();
                    return Err(Denied::Open(Duration::from_nanos(left)));
                }
                Phase::Open { .. } => word.next(Phase::HalfOpen { out: 1, succeeded: 0 }),
                Phase::Ramp { failures } => match self.step(now, timing) {
                    None => word.with(Phase::Closed { failures }),
                    Some(step) if self.is_let_pass(now, step.share, timing.seed) => {
                        self.ramp_passed.fetch_add(1, Ordering::Relaxed);
                        return Ok(Permit::new(word.generation, Permit::RAMPED));
                    }
                    Some(step) => return Err(Denied::Ramp(step.left)),
                },
                Phase::HalfOpen { succeeded, .. } if succeeded >= u64::from(timing.probes) => {
                    self.recovered(now, timing, word)
                }
                Phase::HalfOpen { out, succeeded } if out + succeeded < u64::from(timing.probes) => {
                    word.with(Phase::HalfOpen { out: out + 1, succeeded })
                }
                Phase::HalfOpen { .. } => return Err(Denied::ProbesOut),
            };
            match self.swap(word, next) {
                Ok(()) if matches!(next.phase, Phase::HalfOpen { .. }) => {
                    return Ok(Permit::new(next.generation, Permit::PROBE));
                }
                Ok(()) => word = next,
                Err(current) => word = current,
            }
        }
    }

    /// Takes a permit back with what the call said. Some: the breaker moved because of it.
    pub(crate) fn settle(
        &self,
        now: Tick,
        timing: Timing,
        permit: Permit,
        verdict: Verdict,
    ) -> Option<Moved> {
        if verdict == Verdict::None && permit.is_ramped() {
            self.ramp_passed.fetch_sub(1, Ordering::Relaxed);
        }
        let mut word = self.load();
        loop {
            let next = match word.settled(now, timing, permit, verdict)? {
                Settled::Word(next) => next,
                Settled::Recovered => self.recovered(now, timing, word),
            };
            match self.swap(word, next) {
                Ok(()) => return word.moved_to(next),
                Err(current) => word = current,
            }
        }
    }

    /// Opens, if calls of the permit's generation still count.
    pub(crate) fn trip(&self, now: Tick, timing: Timing, permit: Permit) -> Option<Moved> {
        self.open_if(now, timing, |word| word.generation == permit.generation() && word.counts())
    }

    /// Opens whatever call it was: for what is seen of the engine as a whole.
    pub(crate) fn trip_now(&self, now: Tick, timing: Timing) -> Option<Moved> {
        self.open_if(now, timing, |word| !matches!(word.phase, Phase::Open { .. }))
    }

    /// Ends a ramp whose time is over, so that the state is true without requests too.
    pub(crate) fn tick(&self, now: Tick, timing: Timing) {
        let word = self.load();
        if let Phase::Ramp { failures } = word.phase
            && self.step(now, timing).is_none()
        {
            // Somebody else may have moved it meanwhile; the next tick looks again.
            let _ = self.swap(word, word.with(Phase::Closed { failures }));
        }
    }

    fn open_if(&self, now: Tick, timing: Timing, may: impl Fn(Word) -> bool) -> Option<Moved> {
        let mut word = self.load();
        loop {
            if !may(word) {
                return None;
            }
            let next = word.next(Phase::open(now, timing.open));
            match self.swap(word, next) {
                Ok(()) => return word.moved_to(next),
                Err(current) => word = current,
            }
        }
    }

    /// Enough probes have succeeded: the ramp begins, or it closes where there is none.
    fn recovered(&self, now: Tick, timing: Timing, word: Word) -> Word {
        if timing.ramp.is_zero() {
            return word.next(Phase::Closed { failures: 0 });
        }
        // Of several that come here at once one will win; what the others have written is as good.
        self.ramp_began.fetch_max(now.as_nanos(), Ordering::Relaxed);
        word.next(Phase::Ramp { failures: 0 })
    }

    /// Where the ramp is at `now`; None: over.
    fn step(&self, now: Tick, timing: Timing) -> Option<Step> {
        let began = Tick::from_nanos(self.ramp_began.load(Ordering::Relaxed));
        let elapsed = now.since(began);
        let left = timing.ramp.checked_sub(elapsed).filter(|left| !left.is_zero())?;
        let share = match elapsed.as_nanos() * 3 / timing.ramp.as_nanos() {
            0 => RAMP[0],
            1 => RAMP[1],
            _ => RAMP[2],
        };
        Some(Step { share, left })
    }

    /// Whether the next request is among the share: drawn from the instant and from how many have passed, so that one
    /// that is refused leaves the draws of all others as they were, and no client can know when to come. Of those that
    /// come at one instant all are refused after the first that is.
    fn is_let_pass(&self, now: Tick, share: u64, seed: u64) -> bool {
        let passed = self.ramp_passed.load(Ordering::Relaxed);
        split_mix(split_mix(seed ^ now.as_nanos()).wrapping_add(passed)) <= share
    }

    /// Whether the permit's generation is the present one and its calls count, in windows as in a row.
    pub(crate) fn counts(&self, permit: Permit) -> bool {
        let word = self.load();
        word.generation == permit.generation() && word.counts()
    }

    /// Whether the permit is a probe of the present generation.
    pub(crate) fn probes(&self, permit: Permit) -> bool {
        permit.is_probe() && self.load().generation == permit.generation()
    }

    /// Whether probes decide about it.
    pub(crate) fn is_probed(&self) -> bool {
        matches!(self.load().phase, Phase::HalfOpen { .. })
    }

    pub(crate) fn state(&self) -> BreakerState {
        self.load().state()
    }

    /// Failures in a row, while closed or in the ramp.
    pub(crate) fn consecutive_failures(&self) -> u32 {
        match self.load().phase {
            Phase::Closed { failures } | Phase::Ramp { failures } => failures,
            Phase::Open { .. } | Phase::HalfOpen { .. } => 0,
        }
    }

    /// Time until it half-opens, while open.
    pub(crate) fn half_opens_in(&self, now: Tick) -> Option<Duration> {
        match self.load().phase {
            Phase::Open { until } => Some(Tick::from_nanos(until.saturating_mul(NANOS_PER_MILLI)).since(now)),
            Phase::Closed { .. } | Phase::HalfOpen { .. } | Phase::Ramp { .. } => None,
        }
    }

    /// Transitions so far, by from and to.
    pub(crate) fn transitions(&self) -> [(Moved, u64); 4] {
        use BreakerState::{Closed, HalfOpen, Open};
        [
            (Closed, Open, &self.opened),
            (Open, HalfOpen, &self.half_opened),
            (HalfOpen, Open, &self.reopened),
            (HalfOpen, Closed, &self.closed),
        ]
        .map(|(from, to, count)| (Moved { from, to }, count.load(Ordering::Relaxed)))
    }

    #[inline]
    fn load(&self) -> Word {
        Word::unpack(self.word.load(Ordering::Acquire))
    }

    fn swap(&self, from: Word, to: Word) -> Result<(), Word> {
        self.word
            .compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Acquire)
            .map_err(Word::unpack)?;
        if let Some(moved) = from.moved_to(to) {
            self.counter(moved).fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn counter(&self, moved: Moved) -> &AtomicU64 {
        match (moved.from, moved.to) {
            (BreakerState::Closed, _) => &self.opened,
            (BreakerState::Open, _) => &self.half_opened,
            (BreakerState::HalfOpen, BreakerState::Open) => &self.reopened,
            (BreakerState::HalfOpen, _) => &self.closed,
        }
    }
}

#[cfg(test)]
#[cfg(loom)]
mod models;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
