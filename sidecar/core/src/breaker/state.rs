//! The states of a breaker in one word, moved by compare-and-swap along the legal transitions only.
//!
//! ```text
//!   Closed ──trip──▶ Open ──its time is over──▶ HalfOpen ──enough probes succeed──▶ Closed
//!                     ▲                            │
//!                     └──────── a probe fails ─────┘
//! ```
//!
//! Every transition begins a new generation. A call belongs to the generation that let it pass and has no say in
//! another: what was sent before the breaker opened cannot close it, nor reopen it.

use std::time::Duration;

use tidegate_policy::report::BreakerState;

use crate::Tick;
use crate::sync::{AtomicU64, Ordering};

const NANOS_PER_MILLI: u64 = 1_000_000;
const GENERATION_BITS: u32 = 16;
const PAYLOAD_BITS: u32 = 46;
const PAYLOAD: u64 = (1 << PAYLOAD_BITS) - 1;
const PROBE_BITS: u32 = 20;
const PROBES: u64 = (1 << PROBE_BITS) - 1;

/// The word, unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Failures in a row.
    Closed { failures: u32 },
    /// Milliseconds of the clock at which it half-opens.
    Open { until: u64 },
    /// Probes that are out, and those that succeeded.
    HalfOpen { out: u64, succeeded: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word {
    generation: u16,
    phase: Phase,
}

/// Leave to call the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Permit {
    generation: u16,
    /// Whether it is a probe, which has to come back.
    probe: bool,
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Open for so long.
    Open(Duration),
    /// Half-open, with all probes out.
    ProbesOut,
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
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(Word { generation: 0, phase: Phase::Closed { failures: 0 } }.pack()),
            opened: AtomicU64::new(0),
            half_opened: AtomicU64::new(0),
            reopened: AtomicU64::new(0),
            closed: AtomicU64::new(0),
        }
    }

    /// Leave for one call, if there is. An open breaker half-opens here when its time is over.
    pub(crate) fn admit(&self, now: Tick, timing: Timing) -> Result<Permit, Denied> {
        let mut word = self.load();
        loop {
            let next = match word.phase {
                Phase::Closed { .. } => return Ok(Permit { generation: word.generation, probe: false }),
                Phase::Open { until } if now.as_nanos() < until.saturating_mul(NANOS_PER_MILLI) => {
                    let left = until.saturating_mul(NANOS_PER_MILLI) - now.as_nanos();
                    return Err(Denied::Open(Duration::from_nanos(left)));
                }
                Phase::Open { .. } => word.next(Phase::HalfOpen { out: 1, succeeded: 0 }),
                Phase::HalfOpen { succeeded, .. } if succeeded >= u64::from(timing.probes) => {
                    word.next(Phase::Closed { failures: 0 })
                }
                Phase::HalfOpen { out, succeeded } if out + succeeded < u64::from(timing.probes) => {
                    word.with(Phase::HalfOpen { out: out + 1, succeeded })
                }
                Phase::HalfOpen { .. } => return Err(Denied::ProbesOut),
            };
            match self.swap(word, next) {
                Ok(()) if matches!(next.phase, Phase::HalfOpen { .. }) => {
                    return Ok(Permit { generation: next.generation, probe: true });
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
        let mut word = self.load();
        loop {
            let next = word.settled(now, timing, permit, verdict)?;
            match self.swap(word, next) {
                Ok(()) => return word.moved_to(next),
                Err(current) => word = current,
            }
        }
    }

    /// Opens, if the breaker is still closed in the permit's generation.
    pub(crate) fn trip(&self, now: Tick, timing: Timing, permit: Permit) -> Option<Moved> {
        let mut word = self.load();
        loop {
            if word.generation != permit.generation || !matches!(word.phase, Phase::Closed { .. }) {
                return None;
            }
            let next = word.next(Phase::open(now, timing.open));
            match self.swap(word, next) {
                Ok(()) => return word.moved_to(next),
                Err(current) => word = current,
            }
        }
    }

    /// Whether the permit's generation is the present one and closed, so that windows may count its call.
    pub(crate) fn counts(&self, permit: Permit) -> bool {
        let word = self.load();
        word.generation == permit.generation && matches!(word.phase, Phase::Closed { .. })
    }

    /// Whether the permit is a probe of the present generation.
    pub(crate) fn probes(&self, permit: Permit) -> bool {
        permit.probe && self.load().generation == permit.generation
    }

    pub(crate) fn state(&self) -> BreakerState {
        self.load().state()
    }

    /// Failures in a row, while closed.
    pub(crate) fn consecutive_failures(&self) -> u32 {
        match self.load().phase {
            Phase::Closed { failures } => failures,
            Phase::Open { .. } | Phase::HalfOpen { .. } => 0,
        }
    }

    /// Time until it half-opens, while open.
    pub(crate) fn half_opens_in(&self, now: Tick) -> Option<Duration> {
        match self.load().phase {
            Phase::Open { until } => Some(Tick::from_nanos(until.saturating_mul(NANOS_PER_MILLI)).since(now)),
            Phase::Closed { .. } | Phase::HalfOpen { .. } => None,
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

impl Phase {
    fn open(now: Tick, duration: Duration) -> Self {
        let until = now + duration;
        Self::Open { until: until.as_nanos().div_ceil(NANOS_PER_MILLI) }
    }
}

impl Word {
    /// The same generation.
    fn with(self, phase: Phase) -> Self {
        Self { phase, ..self }
    }

    /// The generation after this one.
    fn next(self, phase: Phase) -> Self {
        Self { generation: self.generation.wrapping_add(1), phase }
    }

    /// The word after a call has ended; None when it has no say.
    fn settled(self, now: Tick, timing: Timing, permit: Permit, verdict: Verdict) -> Option<Self> {
        if self.generation != permit.generation {
            return None;
        }
        match (self.phase, verdict) {
            (Phase::Closed { failures: 1.. }, Verdict::Success) => {
                Some(self.with(Phase::Closed { failures: 0 }))
            }
            (Phase::Closed { failures }, Verdict::Failure) => {
                let failures = failures.saturating_add(1);
                match timing.consecutive_failures {
                    Some(count) if failures >= count => Some(self.next(Phase::open(now, timing.open))),
                    _ => Some(self.with(Phase::Closed { failures })),
                }
            }
            (Phase::HalfOpen { .. }, Verdict::Failure) if permit.probe => {
                Some(self.next(Phase::open(now, timing.open)))
            }
            (Phase::HalfOpen { out, succeeded }, Verdict::Success) if permit.probe => {
                let succeeded = succeeded + 1;
                Some(if succeeded >= u64::from(timing.probes) {
                    self.next(Phase::Closed { failures: 0 })
                } else {
                    self.with(Phase::HalfOpen { out: out.saturating_sub(1), succeeded })
                })
            }
            (Phase::HalfOpen { out, succeeded }, Verdict::None) if permit.probe => {
                Some(self.with(Phase::HalfOpen { out: out.saturating_sub(1), succeeded }))
            }
            _ => None,
        }
    }

    fn state(self) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    fn moved_to(self, next: Self) -> Option<Moved> {
        (self.generation != next.generation).then(|| Moved { from: self.state(), to: next.state() })
    }

    fn pack(self) -> u64 {
        let (state, payload) = match self.phase {
            Phase::Closed { failures } => (0, u64::from(failures)),
            Phase::Open { until } => (1, until.min(PAYLOAD)),
            Phase::HalfOpen { out, succeeded } => (2, out.min(PROBES) << PROBE_BITS | succeeded.min(PROBES)),
        };
        (state << GENERATION_BITS | u64::from(self.generation)) << PAYLOAD_BITS | payload
    }

    fn unpack(word: u64) -> Self {
        let payload = word & PAYLOAD;
        let generation = (word >> PAYLOAD_BITS) as u16;
        let phase = match word >> (PAYLOAD_BITS + GENERATION_BITS) {
            0 => Phase::Closed { failures: payload as u32 },
            1 => Phase::Open { until: payload },
            _ => Phase::HalfOpen { out: payload >> PROBE_BITS, succeeded: payload & PROBES },
        };
        Self { generation, phase }
    }
}

#[cfg(test)]
#[cfg(loom)]
mod models;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
