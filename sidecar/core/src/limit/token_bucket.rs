//! The token bucket, as the generic cell rate algorithm (ITU-T I.371) on one word.
//!
//! The word is the theoretical arrival time: the instant at which the bucket would be full again. It lies in the
//! past of a full bucket; every request moves it on by the time that one token takes to come back.

use std::time::Duration;

use crate::Tick;
use crate::sync::{AtomicU64, Ordering};

/// The parameters of a bucket, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenBucket {
    /// Time in which one token comes back, rounded up: the rate is never over the limit, and below it by less
    /// than one nanosecond for each token.
    interval: u64,
    /// How far the theoretical arrival time may lie ahead of a request that passes.
    tolerance: u64,
}

/// What a request took, to give it back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    before: u64,
    after: u64,
}

impl TokenBucket {
    /// `limit` requests in `window` on average, `burst` at once. Zeroes count as ones.
    pub(crate) fn new(limit: u64, window: Duration, burst: u64) -> Self {
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        let interval = window.div_ceil(limit.max(1)).max(1);
        // A bucket that takes more than 292 years to fill is cut to that.
        let tolerance = interval.saturating_mul(burst.max(1) - 1).min(u64::MAX / 2);
        Self { interval, tolerance }
    }

    /// A bucket of `burst` tokens that come back at `rate` a second.
    pub(crate) fn at_rate(rate: f64, burst: f64) -> Self {
        let interval = ((1e9 / rate.max(1e-9)).ceil() as u64).max(1);
        Self { interval, tolerance: (interval as f64 * (burst.max(1.0) - 1.0)) as u64 }
    }

    /// The same rate with a share of the burst.
    pub(crate) fn with_burst_share(self, divisor: u64) -> Self {
        Self { interval: self.interval, tolerance: self.tolerance / divisor }
    }

    pub(crate) fn interval(self) -> u64 {
        self.interval
    }

    pub(crate) fn tolerance(self) -> u64 {
        self.tolerance
    }

    /// Tokens of a full bucket.
    pub(crate) fn size(self) -> u64 {
        self.tolerance / self.interval + 1
    }

    /// Puts the two numbers together again.
    pub(crate) fn from_parts(interval: u64, tolerance: u64) -> Self {
        Self { interval, tolerance }
    }

    /// Whether a request would pass at `now`, else the first instant at which it would. Spends nothing.
    pub(crate) fn judge(self, now: Tick, word: &AtomicU64) -> Result<(), Tick> {
        self.passes(now, word.load(Ordering::Relaxed))
    }

    /// Takes a token, or says when there will be one.
    pub(crate) fn take(self, now: Tick, word: &AtomicU64) -> Result<Taken, Tick> {
        let mut before = word.load(Ordering::Relaxed);
        loop {
            self.passes(now, before)?;
            let after = before.max(now.as_nanos()).saturating_add(self.interval);
            match word.compare_exchange_weak(before, after, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Ok(Taken { before, after }),
                Err(current) => before = current,
            }
        }
    }

    /// Gives a token back. Exact when nobody took one since, or when all who did found the bucket not full; when
    /// the bucket was full again meanwhile, there is nothing to give back.
    pub(crate) fn give_back(self, taken: Taken, word: &AtomicU64) {
        let mut current = word.load(Ordering::Relaxed);
        loop {
            let restored = if current == taken.after {
                taken.before
            } else if current > taken.after && (current - taken.after).is_multiple_of(self.interval) {
                current - self.interval
            } else {
                return;
            };
            match word.compare_exchange_weak(current, restored, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => current = now,
            }
        }
    }

    /// Whether the word says no more than that of a key never seen.
    pub(crate) fn is_fresh(now: Tick, word: &AtomicU64) -> bool {
        word.load(Ordering::SeqCst) <= now.as_nanos()
    }

    /// Requests that are not yet paid back.
    pub(crate) fn outstanding(self, now: Tick, word: &AtomicU64) -> u64 {
        word.load(Ordering::Relaxed).saturating_sub(now.as_nanos()).div_ceil(self.interval)
    }

    /// The word of a bucket with these parameters from that of one with other parameters: as many requests are
    /// outstanding as before.
    pub(crate) fn convert(self, old: Self, now: Tick, word: u64) -> u64 {
        let debt = u128::from(word.saturating_sub(now.as_nanos()));
        let debt = debt * u128::from(self.interval) / u128::from(old.interval);
        let full = self.tolerance.saturating_add(self.interval);
        now.as_nanos().saturating_add(u64::try_from(debt).unwrap_or(u64::MAX).min(full))
    }

    fn passes(self, now: Tick, word: u64) -> Result<(), Tick> {
        let ahead = word.saturating_sub(now.as_nanos());
        if ahead <= self.tolerance { Ok(()) } else { Err(Tick::from_nanos(word - self.tolerance)) }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
