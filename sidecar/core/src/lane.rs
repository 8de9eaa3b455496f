//! Which stripe of a striped counter a thread writes to.
//!
//! The choice has no influence on any verdict: readers always add all stripes up. It only keeps two threads from
//! writing to one cache line, and spares a thread that has a stripe of its own the locked instruction.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Number of stripes.
pub(crate) const LANES: usize = 16;
/// The stripe of all threads that came after those with one of their own.
const SHARED: usize = LANES - 1;

static NEXT: AtomicUsize = AtomicUsize::new(0);

std::thread_local! {
    static LANE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// A stripe, held by the thread that asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lane(usize);

impl Lane {
    /// The stripe of the calling thread.
    pub(crate) fn of_this_thread() -> Self {
        LANE.with(|lane| {
            if lane.get() == usize::MAX {
                lane.set(NEXT.fetch_add(1, Ordering::Relaxed).min(SHARED));
            }
            Self(lane.get())
        })
    }

    /// Its number, below [`LANES`].
    pub(crate) fn index(self) -> usize {
        self.0
    }

    /// Adds one to a counter of this stripe and returns the sum.
    pub(crate) fn increment(self, counter: &AtomicU64) -> u64 {
        self.add(counter, 1)
    }

    /// Adds to a counter of this stripe, which may wrap around, and returns the sum.
    pub(crate) fn add(self, counter: &AtomicU64, more: u64) -> u64 {
        if self.0 == SHARED {
            return counter.fetch_add(more, Relaxed).wrapping_add(more);
        }
        // Nobody else writes to it, so that nothing can come between.
        let sum = counter.load(Relaxed).wrapping_add(more);
        counter.store(sum, Relaxed);
        sum
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::meter::Meter;

    #[test]
    fn no_count_is_lost_however_many_threads_there_are() {
        let meter = Meter::new();
        std::thread::scope(|scope| {
            for _ in 0..3 * LANES {
                scope.spawn(|| {
                    (0..10_000).for_each(|_| meter.admit(Lane::of_this_thread(), crate::Tokens::default()));
                });
            }
        });
        assert_eq!(meter.admitted(), 3 * LANES as u64 * 10_000);
    }
}
