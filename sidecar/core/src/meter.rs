//! How many requests were offered, admitted and completed, counted without a shared cache line.

use crossbeam_utils::CachePadded;

use crate::Tokens;
use crate::lane::{LANES, Lane};
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Striped counters of a pod. They only grow; whoever needs a rate remembers what he saw before.
#[derive(Debug)]
pub(crate) struct Meter {
    lanes: [CachePadded<Counters>; LANES],
}

#[derive(Debug)]
struct Counters {
    offered: AtomicU64,
    admitted: AtomicU64,
    tokens: AtomicU64,
    succeeded: AtomicU64,
    completed: AtomicU64,
    /// The value of `offered` at which somebody has to add up all lanes.
    checkpoint: AtomicU64,
}

impl Meter {
    pub(crate) fn new() -> Self {
        let lane = |_| {
            CachePadded::new(Counters {
                offered: AtomicU64::new(0),
                admitted: AtomicU64::new(0),
                tokens: AtomicU64::new(0),
                succeeded: AtomicU64::new(0),
                completed: AtomicU64::new(0),
                checkpoint: AtomicU64::new(u64::MAX),
            })
        };
        Self { lanes: std::array::from_fn(lane) }
    }

    /// Counts a request that arrived. True: the lane has reached its checkpoint.
    pub(crate) fn offer(&self, lane: Lane) -> bool {
        let counters = &self.lanes[lane.index()];
        lane.increment(&counters.offered) >= counters.checkpoint.load(Relaxed)
    }

    /// Counts a request that was let through, and the room it will take in the engine's cache.
    pub(crate) fn admit(&self, lane: Lane, tokens: Tokens) {
        let counters = &self.lanes[lane.index()];
        lane.increment(&counters.admitted);
        let new = u64::from(tokens.input) + u64::from(tokens.output);
        if new > 0 {
            lane.add(&counters.tokens, new);
        }
    }

    /// Counts an admitted request that the engine answered with a success.
    pub(crate) fn succeed(&self, lane: Lane) {
        lane.increment(&self.lanes[lane.index()].succeeded);
    }

    /// Counts a request that is over.
    pub(crate) fn complete(&self, lane: Lane) {
        lane.increment(&self.lanes[lane.index()].completed);
    }

    pub(crate) fn offered(&self) -> u64 {
        self.lanes.iter().map(|l| l.offered.load(Relaxed)).sum()
    }

    pub(crate) fn admitted(&self) -> u64 {
        self.lanes.iter().map(|l| l.admitted.load(Relaxed)).sum()
    }

    /// Tokens of all admitted requests, as they were estimated, without those that the engine had in its cache.
    pub(crate) fn tokens(&self) -> u64 {
        self.lanes.iter().map(|l| l.tokens.load(Relaxed)).sum()
    }

    pub(crate) fn succeeded(&self) -> u64 {
        self.lanes.iter().map(|l| l.succeeded.load(Relaxed)).sum()
    }

    /// Requests admitted and not completed.
    pub(crate) fn in_flight(&self) -> u64 {
        // Completions first: one that arrives in between cannot make the difference negative.
        let completed: u64 = self.lanes.iter().map(|l| l.completed.load(Relaxed)).sum();
        self.admitted().saturating_sub(completed)
    }

    /// Every busy lane may take its share of `remaining` requests before it has to look again. One that never was
    /// busy looks at its first request: until then the others share without it.
    pub(crate) fn arm(&self, remaining: u64) {
        let share = self.share(remaining);
        for counters in &self.lanes {
            let offered = counters.offered.load(Relaxed);
            let checkpoint = if offered == 0 { 1 } else { offered.saturating_add(share) };
            counters.checkpoint.store(checkpoint, Relaxed);
        }
    }

    /// The same for one lane. With a single busy thread the look falls on exactly the request after `remaining`;
    /// with several the shares get smaller until each is one request.
    pub(crate) fn arm_lane(&self, lane: Lane, remaining: u64) {
        let counters = &self.lanes[lane.index()];
        let checkpoint = counters.offered.load(Relaxed).saturating_add(self.share(remaining));
        counters.checkpoint.store(checkpoint, Relaxed);
    }

    fn share(&self, remaining: u64) -> u64 {
        let busy = self.lanes.iter().filter(|counters| counters.offered.load(Relaxed) > 0).count() as u64;
        (remaining / busy.max(1)).max(1)
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
        let (meter, lane) = (Meter::new(), Lane::of_this_thread());
        let allowed = 400;
        meter.arm(allowed);
        let mut looks = 0;
        for n in 1..=allowed + 1 {
            if meter.offer(lane) {
                looks += 1;
                if n <= allowed {
                    meter.arm_lane(lane, allowed - n);
                } else {
                    assert!(looks <= 3, "{looks} looks at {allowed} requests");
                    return;
                }
            }
        }
        panic!("the request over the limit was not looked at");
    }

    #[test]
    fn requests_in_flight_are_admitted_ones_without_completed_ones() {
        let (meter, lane) = (Meter::new(), Lane::of_this_thread());
        (0..5).for_each(|_| meter.admit(lane, Tokens::default()));
        meter.complete(lane);
        assert_eq!(meter.in_flight(), 4);
    }
}
