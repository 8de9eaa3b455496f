//! Which share of the calls in a trailing window was bad: the calls of a time, or a number of them.

mod calls;
mod time;

use std::time::Duration;

use crate::Tick;
use calls::CallWindow;
use time::TimeWindow;

/// How much a window looks back at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Time(Duration),
    Calls(u32),
}

/// A window of either kind. It lives behind a pointer of its own, so that one is larger costs the other nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub(super) enum Window {
    Time(TimeWindow),
    Calls(CallWindow),
}

/// Counts of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) calls: u64,
    pub(super) bad: u64,
}

impl Counts {
    /// Bad ÷ all; None of no calls.
    pub(super) fn ratio(self) -> Option<f64> {
        (self.calls > 0).then(|| (self.bad as f64 / self.calls as f64).min(1.0))
    }
}

impl Window {
    pub(super) fn new(length: Length) -> Self {
        match length {
            Length::Time(length) => Self::Time(TimeWindow::new(length)),
            Length::Calls(calls) => Self::Calls(CallWindow::new(calls)),
        }
    }

    /// Counts a call. Some: the counts of the window with it, unless no call in it was bad.
    pub(super) fn record(&self, now: Tick, bad: bool) -> Option<Counts> {
        match self {
            Self::Time(window) => window.record(now, bad),
            Self::Calls(window) => window.record(bad),
        }
    }

    /// The counts at `now`.
    pub(super) fn counts(&self, now: Tick) -> Counts {
        match self {
            Self::Time(window) => window.counts(now),
            Self::Calls(window) => window.counts(),
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        match self {
            Self::Time(window) => window.clear(),
            Self::Calls(window) => window.clear(),
        }
    }

    /// What this window has counted, in one of another length. A window of calls begins anew: which of them came
    /// when is not known.
    pub(super) fn resized(&self, length: Length, now: Tick) -> Self {
        match (self, length) {
            (Self::Time(window), Length::Time(length)) => Self::Time(window.resized(length, now)),
            (_, length) => Self::new(length),
        }
    }
}
