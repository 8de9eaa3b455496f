//! The fixed window: a count for each window, and the windows follow one another.
//!
//! One word holds the number of the window and what counts in it, so that counts of past windows need no clearing. The
//! count has no more bits than its limit needs: the numbers wrap around, and those of short windows should not within
//! the life of a key.

use std::time::Duration;

use super::law::Taken;
use crate::Tick;
use crate::divisor::Divisor;
use crate::sync::{AtomicU64, Ordering};

/// Most bits that count; the others are the window's number.
const MOST_BITS: u32 = 30;
/// Bits of a count beyond those of the limit, for what is settled beyond it.
const SPARE_BITS: u32 = 10;

/// The parameters of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FixedWindow {
    limit: u64,
    /// Length in nanoseconds.
    width: Divisor,
    /// Bits that count.
    bits: u32,
}

impl FixedWindow {
    /// At most `limit` in each window of this length.
    pub(crate) fn new(limit: u64, window: Duration) -> Self {
        let width = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        let limit = limit.clamp(1, (1 << MOST_BITS) - 1);
        let bits = (u64::BITS - limit.leading_zeros() + SPARE_BITS).min(MOST_BITS);
        Self { limit, width: Divisor::new(width), bits }
    }

    pub(crate) fn limit(self) -> u64 {
        self.limit
    }

    /// Whether counts of the other are counts of this one.
    pub(crate) fn same_windows(self, other: Self) -> bool {
        (self.width, self.bits) == (other.width, other.bits)
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
                Ok(_) => return Ok(Taken::new(after >> self.bits, 1)),
                Err(current) => before = current,
            }
        }
    }

    /// Takes `amount` of what was counted back, unless its window is over.
    pub(crate) fn give_back(self, taken: Taken, amount: u32, word: &AtomicU64) {
        let mut before = word.load(Ordering::Relaxed);
        while before >> self.bits == taken.before {
            let after = before - (before & self.most()).min(u64::from(amount));
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
            let after = number << self.bits | (count + u64::from(amount)).min(self.most());
            match word.compare_exchange_weak(before, after, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Taken::new(number, 1),
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
        self.number(now) << self.bits | old.running(now, word).1.min(self.most())
    }

    /// The word with the request counted in it, or when there will be room.
    #[inline]
    fn passes(self, now: Tick, cost: u32, word: u64) -> Result<u64, Tick> {
        let (number, count) = self.running(now, word);
        let cost = u64::from(cost);
        if cost > self.limit {
            Err(Tick::NEVER)
        } else if count + cost <= self.limit {
            Ok(number << self.bits | (count + cost))
        } else {
            let (running, _) = self.width.divide(now.as_nanos());
            let ahead = number.wrapping_sub(self.number(now)) & self.numbers();
            Err(Tick::from_nanos((running + ahead + 1).saturating_mul(self.width.get())))
        }
    }

    /// The window that runs and what counts in it. A thread whose clock lies behind another's judges at the other's
    /// time.
    #[inline]
    fn running(self, now: Tick, word: u64) -> (u64, u64) {
        let (own, counted_in) = (self.number(now), word >> self.bits);
        let count = word & self.most();
        if counted_in == own || (self.is_later(counted_in, own) && count > 0) {
            (counted_in, count)
        } else {
            (own, 0)
        }
    }

    /// The first window is number 1, so that no word of zeroes is a window's.
    fn number(self, now: Tick) -> u64 {
        (self.width.divide(now.as_nanos()).0 + 1) & self.numbers()
    }

    /// Whether a window comes after another. Only a thread whose clock lies behind another's meets one that does; a key
    /// that was not asked for since the numbers wrapped around may seem to have one, if what lies between is not far
    /// less than a whole turn.
    fn is_later(self, number: u64, than: u64) -> bool {
        (1..=self.numbers() / 16).contains(&(number.wrapping_sub(than) & self.numbers()))
    }

    /// The largest count.
    fn most(self) -> u64 {
        (1 << self.bits) - 1
    }

    /// The largest number of a window.
    fn numbers(self) -> u64 {
        u64::MAX >> self.bits
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
