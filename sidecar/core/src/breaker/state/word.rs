//! The word of a breaker, unpacked: its generation and what its state needs, and what follows from the end of a call.

use std::time::Duration;

use tidegate_policy::report::BreakerState;

use super::{Moved, Permit, Timing, Verdict};
use crate::Tick;

pub(super) const NANOS_PER_MILLI: u64 = 1_000_000;
const GENERATION_BITS: u32 = 16;
const PAYLOAD_BITS: u32 = 46;
pub(super) const PAYLOAD: u64 = (1 << PAYLOAD_BITS) - 1;
const PROBE_BITS: u32 = 20;
pub(super) const PROBES: u64 = (1 << PROBE_BITS) - 1;

/// The word, unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Failures in a row.
    Closed { failures: u32 },
    /// Milliseconds of the clock at which it half-opens.
    Open { until: u64 },
    /// Probes that are out, and those that succeeded.
    HalfOpen { out: u64, succeeded: u64 },
    /// Failures in a row since the ramp began.
    Ramp { failures: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) generation: u16,
    pub(super) phase: Phase,
}

/// What the end of a call leads to.
pub(super) enum Settled {
    Word(Word),
    /// The last of the probes has succeeded.
    Recovered,
}

impl Phase {
    pub(super) fn open(now: Tick, duration: Duration) -> Self {
        let until = now + duration;
        Self::Open { until: until.as_nanos().div_ceil(NANOS_PER_MILLI) }
    }
}

impl Word {
    /// The same generation.
    pub(super) fn with(self, phase: Phase) -> Self {
        Self { phase, ..self }
    }

    /// The generation after this one.
    pub(super) fn next(self, phase: Phase) -> Self {
        Self { generation: self.generation.wrapping_add(1), phase }
    }

    /// Whether ended calls of its generation count.
    pub(super) fn counts(self) -> bool {
        matches!(self.phase, Phase::Closed { .. } | Phase::Ramp { .. })
    }

    /// What follows from the end of a call; None when it has no say.
    pub(super) fn settled(
        self,
        now: Tick,
        timing: Timing,
        permit: Permit,
        verdict: Verdict,
    ) -> Option<Settled> {
        if self.generation != permit.generation() {
            return None;
        }
        let opened = self.next(Phase::open(now, timing.open));
        let trips = |failures| timing.consecutive_failures.is_some_and(|count| failures >= count);
        let next = match (self.phase, verdict) {
            (Phase::Closed { failures: 1.. }, Verdict::Success) => self.with(Phase::Closed { failures: 0 }),
            (Phase::Ramp { failures: 1.. }, Verdict::Success) => self.with(Phase::Ramp { failures: 0 }),
            (Phase::Closed { failures }, Verdict::Failure) => match failures.saturating_add(1) {
                failures if trips(failures) => opened,
                failures => self.with(Phase::Closed { failures }),
            },
            (Phase::Ramp { failures }, Verdict::Failure) => match failures.saturating_add(1) {
                failures if trips(failures) => opened,
                failures => self.with(Phase::Ramp { failures }),
            },
            (Phase::HalfOpen { .. }, Verdict::Failure) if permit.is_probe() => opened,
            (Phase::HalfOpen { out, succeeded }, Verdict::Success) if permit.is_probe() => {
                let succeeded = succeeded + 1;
                if succeeded >= u64::from(timing.probes) {
                    return Some(Settled::Recovered);
                }
                self.with(Phase::HalfOpen { out: out.saturating_sub(1), succeeded })
            }
            (Phase::HalfOpen { out, succeeded }, Verdict::None) if permit.is_probe() => {
                self.with(Phase::HalfOpen { out: out.saturating_sub(1), succeeded })
            }
            _ => return None,
        };
        Some(Settled::Word(next))
    }

    pub(super) fn state(self) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } | Phase::Ramp { .. } => BreakerState::HalfOpen,
        }
    }

    pub(super) fn moved_to(self, next: Self) -> Option<Moved> {
        (self.state() != next.state()).then(|| Moved { from: self.state(), to: next.state() })
    }

    pub(super) fn pack(self) -> u64 {
        let (state, payload) = match self.phase {
            Phase::Closed { failures } => (0, u64::from(failures)),
            Phase::Open { until } => (1, until.min(PAYLOAD)),
            Phase::HalfOpen { out, succeeded } => (2, out.min(PROBES) << PROBE_BITS | succeeded.min(PROBES)),
            Phase::Ramp { failures } => (3, u64::from(failures)),
        };
        (state << GENERATION_BITS | u64::from(self.generation)) << PAYLOAD_BITS | payload
    }

    #[inline]
    pub(super) fn unpack(word: u64) -> Self {
        let payload = word & PAYLOAD;
        let generation = (word >> PAYLOAD_BITS) as u16;
        let phase = match word >> (PAYLOAD_BITS + GENERATION_BITS) {
            0 => Phase::Closed { failures: payload as u32 },
            1 => Phase::Open { until: payload },
            3 => Phase::Ramp { failures: payload as u32 },
            _ => Phase::HalfOpen { out: payload >> PROBE_BITS, succeeded: payload & PROBES },
        };
        Self { generation, phase }
    }
}
