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
/// How much of the difference to the moving average corrects the window. See `docs/tiers.md` for the errors that
/// this leaves.
const CORRECTION: f64 = 0.15;

/// The latencies of the last minute.
#[derive(Debug, Clone)]
pub(super) struct Estimate {
    closed: VecDeque<Latencies>,
    running: Latencies,
    slice_start: Tick,
    /// Latencies since the last value of the moving average.
    fresh: Latencies,
    moving_average: Option<f64>,
}

impl Estimate {
    pub(super) fn new(now: Tick) -> Self {
        Self {
            closed: VecDeque::new(),
            running: Latencies::default(),
            slice_start: now,
            fresh: Latencies::default(),
            moving_average: None,
        }
    }

    /// Takes the latencies since the last call, which is about a second ago.
    pub(super) fn take(&mut self, now: Tick, latencies: &Latencies) {
        self.running.merge(latencies);
        self.fresh.merge(latencies);
        if self.fresh.count() >= ENOUGH {
            let fresh = std::mem::take(&mut self.fresh).percentile(PERCENTILE);
            self.moving_average = match (self.moving_average, fresh) {
                (Some(average), Some(fresh)) => Some(average + ALPHA * (fresh - average)),
                (average, fresh) => fresh.or(average),
            };
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
            self.moving_average = None;
        }
    }

    pub(super) fn read(&self) -> LatencyEstimate {
        let mut minute = self.running.clone();
        self.closed.iter().for_each(|slice| minute.merge(slice));
        let window = minute.percentile(PERCENTILE);
        let hybrid = match (window, self.moving_average) {
            (Some(window), Some(average)) => Some(window + CORRECTION * (average - window)),
            (window, _) => window,
        };
        LatencyEstimate {
            window_millis: window,
            moving_average_millis: self.moving_average,
            hybrid_millis: hybrid,
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
