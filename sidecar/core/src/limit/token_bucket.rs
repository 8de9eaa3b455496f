//! The token bucket, as the generic cell rate algorithm (ITU-T I.371) on one word, and its mirror, the leaky bucket.
//!
//! The word is the theoretical arrival time: the instant at which the bucket would be full again. It lies in the
//! past of a full bucket; every request moves it on by the time that its tokens take to come back.
//!
//! A leaky bucket that polices decides the same: what it holds is what the token bucket lacks. One that paces takes a
//! request that finds something in the bucket too, and tells it to wait until all of that has leaked out.

use std::time::Duration;

use super::law::Taken;
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
    /// The theoretical arrival time of a key never seen. In the past, or the bucket would be full from its first
    /// instant on.
    origin: u64,
    /// Requests wait for their turn.
    paced: bool,
}

impl TokenBucket {
    /// `limit` requests in `window` on average, `burst` at once. Zeroes count as ones.
    pub(crate) fn new(limit: u64, window: Duration, burst: u64) -> Self {
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        let interval = window.div_ceil(limit.max(1)).max(1);
        // A bucket that takes more than 292 years to fill is cut to that.
        let tolerance = interval.saturating_mul(burst.max(1) - 1).min(u64::MAX / 2);
        Self { interval, tolerance, origin: 0, paced: false }
    }

    /// The bucket with `initial` of its tokens at `born`, and all of them as many intervals later as it lacks.
    pub(crate) fn filled(self, initial: u64, born: Tick) -> Self {
        let lacks = self.size().saturating_sub(initial);
        Self { origin: born.as_nanos().saturating_add(self.interval.saturating_mul(lacks)), ..self }
    }

    /// The bucket as a queue, in which nobody waits longer than `longest`.
    pub(crate) fn paced(self, longest: Duration) -> Self {
        let longest = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        Self { tolerance: self.tolerance.min(longest), paced: true, ..self }
    }

    /// A bucket of `burst` tokens that come back at `rate` a second.
    pub(crate) fn at_rate(rate: f64, burst: f64) -> Self {
        let interval = ((1e9 / rate.max(1e-9)).ceil() as u64).max(1);
        Self::from_parts(interval, (interval as f64 * (burst.max(1.0) - 1.0)) as u64)
    }

    /// The same rate with a share of the burst.
    pub(crate) fn with_burst_share(self, divisor: u64) -> Self {
        Self { tolerance: self.tolerance / divisor, ..self }
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
        Self { interval, tolerance, origin: 0, paced: false }
    }

    /// Whether a request would pass at `now`, else the first instant at which it would. Spends nothing.
    pub(crate) fn judge(self, now: Tick, cost: u32, word: &AtomicU64) -> Result<(), Tick> {
        self.passes(now, cost, word.load(Ordering::Relaxed))
    }

    /// The same for a key never seen.
    pub(crate) fn judge_new(self, now: Tick, cost: u32) -> Result<(), Tick> {
        self.passes(now, cost, 0)
    }

    /// Takes `cost` tokens, or says when they will be there.
    #[inline]
    pub(crate) fn take(self, now: Tick, cost: u32, word: &AtomicU64) -> Result<Taken, Tick> {
        // Most take one, and nothing has to be multiplied.
        if cost == 1 {
            return self.take_for(now, (0, self.interval), word);
        }
        self.take_for(now, (self.time_for(cost.saturating_sub(1)), self.time_for(cost)), word)
    }

    /// Takes tokens that come back in `time`, those but one of them in `others`.
    #[inline]
    fn take_for(self, now: Tick, (others, time): (u64, u64), word: &AtomicU64) -> Result<Taken, Tick> {
        let mut before = word.load(Ordering::Relaxed);
        loop {
            self.passes_for(now, others, before)?;
            let after = before.max(self.origin).max(now.as_nanos()).saturating_add(time);
            match word.compare_exchange_weak(before, after, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Ok(Taken::new(before, after)),
                Err(current) => before = current,
            }
        }
    }

    /// Gives `amount` of the tokens back, which are no more than were taken. Exact as long as the bucket was not full
    /// since: when it was, it has run over, and there is nothing to give back.
    pub(crate) fn give_back(self, taken: Taken, amount: u32, word: &AtomicU64) {
        let amount = self.time_for(amount);
        let mut current = word.load(Ordering::Relaxed);
        loop {
            // Whoever takes or gives back moves the word by whole intervals, unless it finds the bucket full.
            if !current.abs_diff(taken.after.get()).is_multiple_of(self.interval) {
                return;
            }
            let restored = current.saturating_sub(amount);
            let restored = if current == taken.after.get() { restored.max(taken.before) } else { restored };
            match word.compare_exchange_weak(current, restored, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => current = now,
            }
        }
    }

    /// Takes `amount` tokens whether they are there or not: what is missing is debt.
    pub(crate) fn charge(self, now: Tick, amount: u32, word: &AtomicU64) -> Taken {
        let amount = self.time_for(amount);
        let mut before = word.load(Ordering::Relaxed);
        loop {
            let after = before.max(self.origin).max(now.as_nanos()).saturating_add(amount);
            match word.compare_exchange_weak(before, after, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Taken::new(before, after),
                Err(current) => before = current,
            }
        }
    }

    /// How long a request that took `cost` at `now` has to wait for its turn.
    pub(crate) fn wait(self, now: Tick, cost: u32, taken: Taken) -> Duration {
        if self.paced {
            Tick::from_nanos(taken.after.get().saturating_sub(self.time_for(cost))).since(now)
        } else {
            Duration::ZERO
        }
    }

    /// Whether the word says no more than that of a key never seen.
    pub(crate) fn is_fresh(self, now: Tick, word: &AtomicU64) -> bool {
        word.load(Ordering::SeqCst) <= now.as_nanos().max(self.origin)
    }

    /// Tokens that are not there.
    pub(crate) fn outstanding(self, now: Tick, word: &AtomicU64) -> u64 {
        let full_at = word.load(Ordering::Relaxed).max(self.origin);
        full_at.saturating_sub(now.as_nanos()).div_ceil(self.interval)
    }

    /// The word of a bucket with these parameters from that of one with other parameters: as many tokens are missing
    /// as before.
    pub(crate) fn convert(self, old: Self, now: Tick, word: u64) -> u64 {
        let debt = u128::from(word.saturating_sub(now.as_nanos()));
        let debt = debt * u128::from(self.interval) / u128::from(old.interval);
        let full = self.tolerance.saturating_add(self.interval);
        now.as_nanos().saturating_add(u64::try_from(debt).unwrap_or(u64::MAX).min(full))
    }

    #[inline]
    fn time_for(self, tokens: u32) -> u64 {
        self.interval.saturating_mul(u64::from(tokens))
    }

    #[inline]
    fn passes(self, now: Tick, cost: u32, word: u64) -> Result<(), Tick> {
        self.passes_for(now, self.time_for(cost.saturating_sub(1)), word)
    }

    #[inline]
    fn passes_for(self, now: Tick, others: u64, word: u64) -> Result<(), Tick> {
        let Some(tolerance) = self.tolerance.checked_sub(others) else { return Err(Tick::NEVER) };
        let full_at = word.max(self.origin);
        let ahead = full_at.saturating_sub(now.as_nanos());
        if ahead <= tolerance { Ok(()) } else { Err(Tick::from_nanos(full_at - tolerance)) }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
