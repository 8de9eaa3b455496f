//! The last calls, a bit for each.

use super::Counts;
use crate::sync::{AtomicU64, Ordering::Relaxed};

const BITS: usize = 64;

/// A ring of outcomes. A call that meets another in its place, a whole window later, counts as one of both.
#[derive(Debug)]
pub(crate) struct CallWindow {
    size: u64,
    /// Calls so far.
    met: AtomicU64,
    /// How many there were with the last bad one.
    last_bad: AtomicU64,
    bad: Box<[AtomicU64]>,
}

impl CallWindow {
    pub(super) fn new(calls: u32) -> Self {
        let size = calls.max(1) as usize;
        Self {
            size: size as u64,
            met: AtomicU64::new(0),
            last_bad: AtomicU64::new(0),
            bad: (0..size.div_ceil(BITS)).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Counts a call. Some: the counts of the window with it, unless no call in it was bad.
    pub(super) fn record(&self, bad: bool) -> Option<Counts> {
        let n = self.met.fetch_add(1, Relaxed);
        let place = (n % self.size) as usize;
        let (word, bit) = (&self.bad[place / BITS], 1 << (place % BITS));
        if bad {
            word.fetch_or(bit, Relaxed);
            self.last_bad.fetch_max(n + 1, Relaxed);
        } else if word.load(Relaxed) & bit != 0 {
            word.fetch_and(!bit, Relaxed);
        }
        let last_bad = self.last_bad.load(Relaxed);
        (last_bad > 0 && last_bad + self.size > n + 1).then(|| self.counts())
    }

    pub(super) fn counts(&self) -> Counts {
        let bad = self.bad.iter().map(|word| u64::from(word.load(Relaxed).count_ones())).sum();
        Counts { calls: self.met.load(Relaxed).min(self.size), bad }
    }

    pub(super) fn clear(&self) {
        self.met.store(0, Relaxed);
        self.last_bad.store(0, Relaxed);
        self.bad.iter().for_each(|word| word.store(0, Relaxed));
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Oracle: the outcomes themselves.
        #[test]
        fn counts_are_those_of_the_last_calls(
            size in 1u32..200,
            outcomes in proptest::collection::vec(proptest::bool::weighted(0.2), 1..600),
        ) {
            let window = CallWindow::new(size);
            for n in 1..=outcomes.len() {
                let recorded = window.record(outcomes[n - 1]);
                let last = &outcomes[n.saturating_sub(size as usize)..n];
                let bad = last.iter().filter(|bad| **bad).count() as u64;
                let counts = Counts { calls: last.len() as u64, bad };
                prop_assert_eq!(recorded, (bad > 0).then_some(counts));
                prop_assert_eq!(window.counts(), counts);
            }
        }
    }
}
