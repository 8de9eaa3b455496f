//! Latencies as they are measured on the way of the requests.

use std::time::Duration;

use tidegate_policy::{LatencySignal, LatencyTier, Ratio};

use crate::Tick;
use crate::ages::{Ages, Slot};
use crate::histogram::{Histogram, Latencies};
use crate::lane::Lane;
use crate::tiers::LatencySource;

/// What the tier of latency looks at, written to by every request.
#[derive(Debug)]
pub(super) struct LatencyMeter {
    signal: LatencySignal,
    percentile: Ratio,
    histogram: Histogram,
    ages: Ages,
}

impl LatencyMeter {
    pub(super) fn new(tier: &LatencyTier, now: Tick) -> Self {
        let LatencyTier { signal, percentile, .. } = *tier;
        Self { signal, percentile, histogram: Histogram::new(), ages: Ages::new(now) }
    }

    /// Whether it measures what this tier wants.
    pub(super) fn serves(&self, tier: &LatencyTier) -> bool {
        self.signal == tier.signal && self.percentile == tier.percentile
    }

    /// A request begins to wait. None: how long it waits in all says nothing about this signal.
    pub(super) fn enter(&self, lane: Lane) -> Option<Slot> {
        match self.signal {
            LatencySignal::TotalLatency | LatencySignal::TimeToFirstToken => Some(self.ages.enter(lane)),
            LatencySignal::TimePerOutputToken => None,
        }
    }

    /// The first byte of its answer is there.
    pub(super) fn first_byte(&self, lane: Lane, slot: &mut Option<Slot>) {
        if self.signal == LatencySignal::TimeToFirstToken {
            self.leave(lane, slot);
        }
    }

    /// It waits no longer.
    pub(super) fn leave(&self, lane: Lane, slot: &mut Option<Slot>) {
        if let Some(slot) = slot.take() {
            self.ages.leave(lane, slot);
        }
    }

    pub(super) fn record(&self, signal: LatencySignal, latency: Duration) {
        if self.signal == signal {
            self.histogram.record(latency);
        }
    }
}

impl LatencySource for LatencyMeter {
    fn drain(&self) -> Latencies {
        self.histogram.drain()
    }

    fn older_than(&self, now: Tick, threshold: Duration) -> Vec<(Duration, u64)> {
        self.ages.older_than(now, threshold)
    }

    fn tick(&self, now: Tick, threshold: Option<Duration>) {
        self.ages.tick(now, threshold);
    }
}
