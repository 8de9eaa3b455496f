//! Which stripe of a striped counter a thread writes to.
//!
//! The choice has no influence on any verdict: readers always add all stripes up. It only keeps two threads from
//! writing to one cache line, and spares a thread that has a stripe of its own the locked instruction.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Number of stripes.
pub(crate) const LANES: usize = 16;
/// The stripe of all threads that found none of their own.
const SHARED: usize = LANES - 1;
/// What a thread has that was not asked yet.
const UNKNOWN: usize = usize::MAX;

/// The stripes that a living thread has for itself, a bit for each.
static TAKEN: AtomicU32 = AtomicU32::new(0);

std::thread_local! {
    static LANE: Cell<usize> = const { Cell::new(UNKNOWN) };
    /// Apart from the number, so that nobody who reads that has to ask whether it was dropped already.
    static OWNED: Owned = Owned(take());
}

/// A stripe until its thread ends. What it counted stays, and the next owner counts on.
struct Owned(usize);

impl Drop for Owned {
    fn drop(&mut self) {
        // What the thread may still do while it ends.
        LANE.set(SHARED);
        if self.0 != SHARED {
            // The next owner sees all that this one has written.
            TAKEN.fetch_and(!(1 << self.0), Ordering::Release);
        }
    }
}

/// A stripe that nobody has, or the shared one.
fn take() -> usize {
    let free = |taken: u32| Some(taken | (taken + 1)).filter(|_| taken.trailing_ones() < SHARED as u32);
    let taken = TAKEN.fetch_update(Ordering::Acquire, Ordering::Relaxed, free);
    taken.map_or(SHARED, |before| before.trailing_ones() as usize)
}

/// A stripe, held by the thread that asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lane(usize);

impl Lane {
    /// The stripe of the calling thread.
    #[inline]
    pub(crate) fn of_this_thread() -> Self {
        match LANE.get() {
            UNKNOWN => Self::first(),
            lane => Self(lane),
        }
    }

    #[cold]
    fn first() -> Self {
        // A thread that is ending has no stripe of its own any more.
        let lane = OWNED.try_with(|owned| owned.0).unwrap_or(SHARED);
        LANE.set(lane);
        Self(lane)
    }

    /// Its number, below [`LANES`].
    #[inline]
    pub(crate) fn index(self) -> usize {
        self.0 % LANES
    }

    /// Adds one to a counter of this stripe and returns the sum.
    #[inline]
    pub(crate) fn increment(self, counter: &AtomicU64) -> u64 {
        self.add(counter, 1)
    }

    /// Adds to a counter of this stripe, which may wrap around, and returns the sum.
    #[inline]
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
    fn a_stripe_comes_back_when_its_thread_ends() {
        let lane = || std::thread::spawn(|| Lane::of_this_thread().index()).join().unwrap();
        let own = (0..100 * LANES).filter(|_| lane() != SHARED).count();
        // Other tests have threads too, but none of them keeps a stripe for long.
        assert!(own > LANES, "{own} of {} threads had a stripe", 100 * LANES);
    }

    #[test]
    fn a_stripe_that_changes_hands_loses_no_count() {
        let meter = Meter::new();
        for _ in 0..3 * LANES {
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        (0..1000).for_each(|_| meter.admit(Lane::of_this_thread(), crate::Tokens::default()));
                    });
                }
            });
        }
        assert_eq!(meter.admitted(), 3 * LANES as u64 * 2000);
    }

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
