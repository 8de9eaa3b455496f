//! What requests tell the algorithm as they go, counted without a shared cache line.

use std::time::Duration;

use crossbeam_utils::CachePadded;
use tidegate_policy::PriorityClass;

use crate::lane::{LANES, Lane};
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Striped counters of the requests that hold a place. They only grow, and may wrap around.
#[derive(Debug)]
pub(crate) struct Flow {
    lanes: [CachePadded<Counters>; LANES],
}

#[derive(Debug)]
struct Counters {
    /// By class.
    entered: [AtomicU64; 3],
    begun: AtomicU64,
    told: AtomicU64,
    samples: AtomicU64,
    nanos: AtomicU64,
    drops: AtomicU64,
    /// By class.
    refused: [AtomicU64; 3],
}

/// The sums of all lanes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    /// Requests that were let in, by class.
    pub(crate) entered: [u64; 3],
    /// Of those, the ones whose answer has begun, or that are over.
    pub(crate) begun: u64,
    /// Of those, the ones of which it was told when it happened.
    pub(crate) told: u64,
    /// Latencies taken,
    pub(crate) samples: u64,
    /// and their sum.
    pub(crate) nanos: u64,
    /// Requests that the engine turned away or did not answer in time.
    pub(crate) drops: u64,
    /// Requests that found no place, by class.
    pub(crate) refused: [u64; 3],
}

impl Flow {
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        let lane = |_| {
            CachePadded::new(Counters {
                entered: [zero(), zero(), zero()],
                begun: zero(),
                told: zero(),
                samples: zero(),
                nanos: zero(),
                drops: zero(),
                refused: [zero(), zero(), zero()],
            })
        };
        Self { lanes: std::array::from_fn(lane) }
    }

    /// A request was let in.
    pub(crate) fn enter(&self, lane: Lane, class: PriorityClass) {
        lane.increment(&self.lanes[lane.index()].entered[class_index(class)]);
    }

    /// Its answer has begun, now if `told`.
    pub(crate) fn begin(&self, lane: Lane, told: bool) {
        let counters = &self.lanes[lane.index()];
        lane.increment(&counters.begun);
        if told {
            lane.increment(&counters.told);
        }
    }

    /// A latency that the algorithm looks at.
    pub(crate) fn sample(&self, lane: Lane, latency: Duration) {
        let counters = &self.lanes[lane.index()];
        lane.add(&counters.nanos, u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        lane.increment(&counters.samples);
    }

    /// The engine turned a request away, or did not answer it in time.
    pub(crate) fn drop_one(&self, lane: Lane) {
        lane.increment(&self.lanes[lane.index()].drops);
    }

    /// A request found no place.
    pub(crate) fn refuse(&self, lane: Lane, class: PriorityClass) {
        lane.increment(&self.lanes[lane.index()].refused[class_index(class)]);
    }

    pub(crate) fn totals(&self) -> Totals {
        let sum = |counter: fn(&Counters) -> &AtomicU64| {
            self.lanes.iter().fold(0u64, |sum, lane| sum.wrapping_add(counter(lane).load(Relaxed)))
        };
        let by_class = |counter: fn(&Counters) -> &[AtomicU64; 3]| {
            let add = |sums: [u64; 3], lane: &CachePadded<Counters>| {
                let counts = counter(lane);
                std::array::from_fn(|i| sums[i].wrapping_add(counts[i].load(Relaxed)))
            };
            self.lanes.iter().fold([0; 3], add)
        };
        // What follows first: a request that comes in between is never begun before it entered.
        let told = sum(|c| &c.told);
        let begun = sum(|c| &c.begun);
        Totals {
            told,
            begun,
            entered: by_class(|c| &c.entered),
            samples: sum(|c| &c.samples),
            nanos: sum(|c| &c.nanos),
            drops: sum(|c| &c.drops),
            refused: by_class(|c| &c.refused),
        }
    }
}

impl Totals {
    /// What was added since.
    pub(crate) fn since(self, before: Self) -> Self {
        let each = |now: [u64; 3], before: [u64; 3]| std::array::from_fn(|i| now[i].wrapping_sub(before[i]));
        Self {
            entered: each(self.entered, before.entered),
            begun: self.begun.wrapping_sub(before.begun),
            told: self.told.wrapping_sub(before.told),
            samples: self.samples.wrapping_sub(before.samples),
            nanos: self.nanos.wrapping_sub(before.nanos),
            drops: self.drops.wrapping_sub(before.drops),
            refused: each(self.refused, before.refused),
        }
    }

    /// Requests that were let in.
    pub(crate) fn all_entered(self) -> u64 {
        self.entered.into_iter().fold(0, u64::wrapping_add)
    }

    /// Requests that found no place.
    pub(crate) fn all_refused(self) -> u64 {
        self.refused.into_iter().fold(0, u64::wrapping_add)
    }
}

/// Where a class stands in what is counted by class.
pub(crate) const fn class_index(class: PriorityClass) -> usize {
    match class {
        PriorityClass::High => 0,
        PriorityClass::Medium => 1,
        PriorityClass::Low => 2,
    }
}
