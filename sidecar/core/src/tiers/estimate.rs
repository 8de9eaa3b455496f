//! Estimates of the 95th percentile of latency: exact over a minute, quick by a moving average, and both together.

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_policy::report::LatencyEstimate;

use crate::Tick;
use crate::histogram::Latencies;

const PERCENTILE: f64 = 0.95;
/// Length of a slice, and closed slices that make up a minute with the one that is running.
const SLICE: Duration = Duration::from_secs(10);
const CLOSED: usize = 5;
/// Weight of a new value in the moving average.
const ALPHA: f64 = 0.2;
/// Latencies that make a value of the moving average: fewer say little about a 95th percentile.
const ENOUGH: u64 = 40;
/// Weight of a new deviation in their mean, and the mean in the beginning as a share of the value.
const DEVIATION_WEIGHT: f64 = 0.05;
const FIRST_DEVIATION: f64 = 0.1;
/// The moving average swings by this share of the mean deviation without any drift: one and a half times its standard
/// deviation, which is 1.25 × √(α ÷ (2 − α)) of the mean deviation where the values are normal. See `docs/tiers.md`
/// for the errors that this leaves.
const SWING: f64 = 1.5 * 1.25 / 3.0;

/// The latencies of the last minute.
#[derive(Debug, Clone)]
pub(super) struct Estimate {
    closed: VecDeque<Latencies>,
    running: Latencies,
    slice_start: Tick,
    /// Latencies since the last value of the moving average.
    fresh: Latencies,
    average: Option<Average>,
}

/// The moving average of the percentile of each second.
#[derive(Debug, Clone, Copy)]
struct Average {
    value: f64,
    /// Mean deviation of a second from it (Jacobson 1988).
    deviation: f64,
}

impl Average {
    fn next(before: Option<Self>, fresh: f64) -> Self {
        let Some(Self { value, deviation }) = before else {
            return Self { value: fresh, deviation: FIRST_DEVIATION * fresh };
        };
        let off = fresh - value;
        Self { value: value + ALPHA * off, deviation: deviation + DEVIATION_WEIGHT * (off.abs() - deviation) }
    }

    /// The window, moved to the average by as much of the difference as chance does not explain (soft thresholding,
    /// Donoho and Johnstone 1994).
    fn correct(self, window: f64) -> f64 {
        let difference = self.value - window;
        let drift = (difference.abs() - SWING * self.deviation).max(0.0);
        window + drift.copysign(difference)
    }
}

impl Estimate {
    pub(super) fn new(now: Tick) -> Self {
        Self {
            closed: VecDeque::new(),
            running: Latencies::default(),
            slice_start: now,
            fresh: Latencies::default(),
            average: None,
        }
    }

    /// Takes the latencies since the last call, which is about a second ago.
    pub(super) fn take(&mut self, now: Tick, latencies: &Latencies) {
        self.running.merge(latencies);
        self.fresh.merge(latencies);
        if self.fresh.count() >= ENOUGH {
            let fresh = std::mem::take(&mut self.fresh).percentile(PERCENTILE);
            self.average = fresh.map(|fresh| Average::next(self.average, fresh)).or(self.average);
        }
        let slices = now.since(self.slice_start).as_nanos() / SLICE.as_nanos();
        // After a pause the slices that nobody closed are empty.
        for _ in 0..slices.min(CLOSED as u128 + 1) {
            self.closed.push_back(std::mem::take(&mut self.running));
        }
        let excess = self.closed.len().saturating_sub(CLOSED);
        self.closed.drain(..excess);
        if slices > 0 {
            self.slice_start = now;
        }
        if self.closed.iter().all(|slice| slice.count() == 0) && self.running.count() == 0 {
            self.average = None;
        }
    }

    pub(super) fn read(&self) -> LatencyEstimate {
        let mut minute = self.running.clone();
        self.closed.iter().for_each(|slice| minute.merge(slice));
        let window = minute.percentile(PERCENTILE);
        let correct = |window| self.average.map_or(window, |average| average.correct(window));
        LatencyEstimate {
            window_millis: window,
            moving_average_millis: self.average.map(|average| average.value),
            hybrid_millis: window.map(correct),
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
