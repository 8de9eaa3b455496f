//! Netflix' `WindowedLimit`: samples are gathered for a second, and at least ten of them, before a limit moves.

use std::time::Duration;

/// Shortest and longest window.
const WINDOW: Duration = Duration::from_secs(1);
/// Fewest samples of a window.
const SAMPLES: u32 = 10;

/// What a window saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// Mean latency in seconds.
    pub(super) latency: f64,
    /// Most requests in flight.
    pub(super) in_flight: usize,
    /// Something failed or timed out.
    pub(super) dropped: bool,
}

/// The window that is open.
#[derive(Debug, Default)]
pub(super) struct Window {
    next: Duration,
    count: u32,
    sum: f64,
    in_flight: usize,
    dropped: bool,
}

impl Window {
    /// Adds a sample; the window's when this one closes it.
    pub(super) fn add(
        &mut self,
        now: Duration,
        latency: Duration,
        in_flight: usize,
        dropped: bool,
    ) -> Option<Sample> {
        self.count += 1;
        self.sum += latency.as_secs_f64();
        self.in_flight = self.in_flight.max(in_flight);
        self.dropped |= dropped;
        if now < self.next || self.count < SAMPLES {
            return None;
        }
        let sample = Sample {
            latency: self.sum / f64::from(self.count),
            in_flight: self.in_flight,
            dropped: self.dropped,
        };
        *self = Self { next: now + WINDOW, ..Self::default() };
        Some(sample)
    }
}
