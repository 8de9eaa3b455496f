//! The fixed window: a count for each window, and the windows follow one another.
//!
//! One word holds the number of the window and what counts in it.

use std::time::Duration;

use super::law::Taken;
use super::round::{COUNT, COUNT_BITS, ROUND, is_later};
use crate::Tick;
use crate::divisor::Divisor;
use crate::sync::{AtomicU64, Ordering};

/// The parameters of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FixedWindow {
    limit: u64,
    /// Length in nanoseconds.
    width: Divisor,
}

impl FixedWindow {
    /// At most `limit` in each window of this length.
    pub(crate) fn new(limit: u64, window: Duration) -> Self {
        let width = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        Self { limit: limit.clamp(1, COUNT), width: Divisor::new(width) }
    }

    pub(crate) fn limit(self) -> u64 {
        self.limit
    }

    /// Whether counts of the other are counts of this one.
    pub(crate) fn same_windows(self, other: Self) -> bool {
        self.width == other.width
    }

    /// Whether a request would pass at `now`, else the first instant at which it would. Spends nothing.
    pub(crate) fn judge(self, now: Tick, cost: u32, word: &AtomicU64) -> Result<(), Tick> {
        self.passes(now, cost, word.load(Ordering::Relaxed)).map(|_| ())
    }

    /// Counts a request, or says when the next window begins.
    pub(crate) fn take(self, now: Tick, cost: u32, word: &AtomicU64) -> Result<Taken, Tick> {
        let mut before = word.load(Ordering::Relaxed);
        loop {
            let after = self.passes(now, cost, before)?;
            match word.compare_exchange_weak(before, after, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Ok(Taken { before: 0, after: after >> COUNT_BITS }),
                Err(current) => before = current,
            }
        }
    }

    /// Takes `amount` of what was counted back, unless its window is over.
    #[allow(clippy::unused_self)] // the same shape as the other algorithms'
    pub(crate) fn give_back(self, taken: Taken, amount: u32, word: &AtomicU64) {
        let mut before = word.load(Ordering::Relaxed);
        while before >> COUNT_BITS == taken.after {
            let after = before - (before & COUNT).min(u64::from(amount));
            match word.compare_exchange_weak(before, after, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return,
                Err(current) => before = current,
            }
        }
    }

    /// Counts `amount` in the window that runs, whether there is room or not.
    pub(crate) fn charge(self, now: Tick, amount: u32, word: &AtomicU64) -> Taken {
        let mut before = word.load(Ordering::Relaxed);
        loop {
            let (number, count) = self.running(now, before);
            let after = number << COUNT_BITS | (count + u64::from(amount)).min(COUNT);
            match word.compare_exchange_weak(before, after, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Taken { before: 0, after: number },
                Err(current) => before = current,
            }
        }
    }

    /// What counts at `now`.
    pub(crate) fn outstanding(self, now: Tick, word: &AtomicU64) -> u64 {
        self.running(now, word.load(Ordering::SeqCst)).1
    }

    /// The word of a window with this length from that of one with another: what counted in the running one counts.
    pub(crate) fn convert(self, old: Self, now: Tick, word: u64) -> u64 {
        self.number(now) << COUNT_BITS | old.running(now, word).1
    }

    /// The word with the request counted in it, or when there will be room.
    fn passes(self, now: Tick, cost: u32, word: u64) -> Result<u64, Tick> {
        let (number, count) = self.running(now, word);
        let cost = u64::from(cost);
        if cost > self.limit {
            Err(Tick::NEVER)
        } else if count + cost <= self.limit {
            Ok(number << COUNT_BITS | (count + cost))
        } else {
            let (running, _) = self.width.divide(now.as_nanos());
            let ahead = number.wrapping_sub(self.number(now)) & ROUND;
            Err(Tick::from_nanos((running + ahead + 1).saturating_mul(self.width.get())))
        }
    }

    /// The window that runs and what counts in it. A thread whose clock lies behind another's judges at the other's
    /// time.
    fn running(self, now: Tick, word: u64) -> (u64, u64) {
        let (own, counted_in) = (self.number(now), word >> COUNT_BITS);
        let count = word & COUNT;
        if counted_in == own || (is_later(counted_in, own) && count > 0) {
            (counted_in, count)
        } else {
            (own, 0)
        }
    }

    /// The first window is number 1, so that no word of zeroes is a window's.
    fn number(self, now: Tick) -> u64 {
        (self.width.divide(now.as_nanos()).0 + 1) & ROUND
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
