//! How many requests were offered, admitted and completed, counted without a shared cache line.

use crossbeam_utils::CachePadded;

use crate::lane::LANES;
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Striped counters of a pod. They only grow; whoever needs a rate remembers what he saw before.
#[derive(Debug)]
pub(crate) struct Meter {
    lanes: [CachePadded<Lane>; LANES],
}

#[derive(Debug)]
struct Lane {
    offered: AtomicU64,
    admitted: AtomicU64,
    completed: AtomicU64,
    /// The value of `offered` at which somebody has to add up all lanes.
    checkpoint: AtomicU64,
}

impl Meter {
    pub(crate) fn new() -> Self {
        let lane = |_| {
            CachePadded::new(Lane {
                offered: AtomicU64::new(0),
                admitted: AtomicU64::new(0),
                completed: AtomicU64::new(0),
                checkpoint: AtomicU64::new(u64::MAX),
            })
        };
        Self { lanes: std::array::from_fn(lane) }
    }

    /// Counts a request that arrived. True: the lane has reached its checkpoint.
    pub(crate) fn offer(&self, lane: usize) -> bool {
        let lane = &self.lanes[lane];
        lane.offered.fetch_add(1, Relaxed) + 1 >= lane.checkpoint.load(Relaxed)
    }

    /// Counts a request that was let through.
    pub(crate) fn admit(&self, lane: usize) {
        self.lanes[lane].admitted.fetch_add(1, Relaxed);
    }

    /// Counts a request that is over.
    pub(crate) fn complete(&self, lane: usize) {
        self.lanes[lane].completed.fetch_add(1, Relaxed);
    }

    pub(crate) fn offered(&self) -> u64 {
        self.lanes.iter().map(|l| l.offered.load(Relaxed)).sum()
    }

    pub(crate) fn admitted(&self) -> u64 {
        self.lanes.iter().map(|l| l.admitted.load(Relaxed)).sum()
    }

    /// Requests admitted and not completed.
    pub(crate) fn in_flight(&self) -> u64 {
        // Completions first: one that arrives in between cannot make the difference negative.
        let completed: u64 = self.lanes.iter().map(|l| l.completed.load(Relaxed)).sum();
        self.admitted().saturating_sub(completed)
    }

    /// Every lane may take its share of `remaining` requests before it has to look again.
    pub(crate) fn arm(&self, remaining: u64) {
        for lane in 0..LANES {
            self.arm_lane(lane, remaining);
        }
    }

    /// The same for one lane. With a single busy thread the look falls on exactly the request after `remaining`:
    /// the shares get smaller until each is one request.
    pub(crate) fn arm_lane(&self, lane: usize, remaining: u64) {
        let share = (remaining / LANES as u64).max(1);
        let lane = &self.lanes[lane];
        lane.checkpoint.store(lane.offered.load(Relaxed).saturating_add(share), Relaxed);
    }

    /// No lane has to look.
    pub(crate) fn disarm(&self) {
        for lane in &self.lanes {
            lane.checkpoint.store(u64::MAX, Relaxed);
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_single_thread_looks_at_exactly_the_request_after_the_remaining() {
        let meter = Meter::new();
        let allowed = 400;
        meter.arm(allowed);
        let mut looks = 0;
        for n in 1..=allowed + 1 {
            if meter.offer(3) {
                looks += 1;
                if n <= allowed {
                    meter.arm_lane(3, allowed - n);
                } else {
                    assert!(looks < 64, "{looks} looks at {allowed} requests");
                    return;
                }
            }
        }
        panic!("the request over the limit was not looked at");
    }

    #[test]
    fn requests_in_flight_are_admitted_ones_without_completed_ones_over_all_lanes() {
        let meter = Meter::new();
        for lane in 0..LANES {
            meter.admit(lane);
        }
        meter.complete(0);
        assert_eq!(meter.in_flight(), LANES as u64 - 1);
    }
}
