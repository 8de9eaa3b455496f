//! Which stripe of a striped counter a thread writes to.
//!
//! The choice has no influence on any verdict: readers always add all stripes up. It only keeps two threads from
//! writing to one cache line.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Number of stripes. More threads than that share some.
pub(crate) const LANES: usize = 8;

static NEXT: AtomicUsize = AtomicUsize::new(0);

std::thread_local! {
    static LANE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// The stripe of the calling thread, below [`LANES`].
pub(crate) fn lane() -> usize {
    LANE.with(|lane| {
        if lane.get() == usize::MAX {
            lane.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        lane.get() % LANES
    })
}
