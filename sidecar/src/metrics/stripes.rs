//! Counters that many threads write: each writes to a stripe of its own, and a scrape adds the stripes up.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// More threads than this share stripes, which costs time and nothing else.
pub(super) const STRIPES: usize = 16;

/// One `T` for each thread that has written: most pods have one such thread, and much to count.
#[derive(Debug)]
pub(super) struct Striped<T>([OnceLock<Box<CachePadded<T>>>; STRIPES]);

impl<T> Striped<T> {
    pub(super) fn new() -> Self {
        Self([const { OnceLock::new() }; STRIPES])
    }
}

impl<T: Default> Striped<T> {
    /// That of the calling thread.
    pub(super) fn mine(&self) -> &T {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
        }
        self.0[MINE.with(|mine| *mine)].get_or_init(Box::default)
    }
}

impl<T> Striped<T> {
    /// The counter that `read` finds in a stripe, over all stripes.
    pub(super) fn sum(&self, read: impl Fn(&T) -> &AtomicU64) -> u64 {
        self.0.iter().filter_map(OnceLock::get).map(|stripe| read(stripe).load(Ordering::Relaxed)).sum()
    }
}
