//! Concurrency: what is in flight, counted in one word.

use super::law::Taken;
use crate::Tick;
use crate::sync::{AtomicU64, Ordering};

/// The parameter of the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Concurrency {
    limit: u64,
}

impl Concurrency {
    /// At most `limit` in flight.
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit: limit.max(1) }
    }

    pub(crate) fn limit(self) -> u64 {
        self.limit
    }

    /// Whether a request would pass. When one of those in flight will end nobody knows, so the instant is `now`: the
    /// one lower bound that is true.
    pub(crate) fn judge(self, now: Tick, cost: u32, word: &AtomicU64) -> Result<(), Tick> {
        self.passes(now, cost, word.load(Ordering::Relaxed)).map(|_| ())
    }

    /// Takes a permit.
    #[inline]
    pub(crate) fn take(self, now: Tick, cost: u32, word: &AtomicU64) -> Result<Taken, Tick> {
        let mut before = word.load(Ordering::Relaxed);
        loop {
            let after = self.passes(now, cost, before)?;
            match word.compare_exchange_weak(before, after, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Ok(Taken::new(before, after)),
                Err(current) => before = current,
            }
        }
    }

    /// Gives `amount` back.
    #[allow(clippy::unused_self)] // the same shape as the other algorithms'
    pub(crate) fn give_back(self, amount: u32, word: &AtomicU64) {
        let mut before = word.load(Ordering::Relaxed);
        loop {
            let after = before.saturating_sub(u64::from(amount));
            match word.compare_exchange_weak(before, after, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return,
                Err(current) => before = current,
            }
        }
    }

    #[inline]
    fn passes(self, now: Tick, cost: u32, word: u64) -> Result<u64, Tick> {
        let cost = u64::from(cost);
        if cost > self.limit {
            return Err(Tick::NEVER);
        }
        let after = word.saturating_add(cost);
        if after <= self.limit { Ok(after) } else { Err(now) }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn so_much_is_in_flight_and_no_more_until_something_comes_back() {
        let limit = Concurrency::new(3);
        let (word, now) = (AtomicU64::new(0), Tick::from_nanos(7));
        limit.take(now, 1, &word).unwrap();
        limit.take(now, 2, &word).unwrap();
        assert_eq!(limit.take(now, 1, &word).unwrap_err(), now);
        limit.give_back(2, &word);
        limit.take(now, 2, &word).unwrap();
        assert_eq!(limit.judge(now, 4, &word), Err(Tick::NEVER));
    }

    #[test]
    fn a_lowered_limit_admits_nobody_until_enough_have_ended() {
        let (high, low) = (Concurrency::new(5), Concurrency::new(2));
        let (word, now) = (AtomicU64::new(0), Tick::from_nanos(7));
        for _ in 0..5 {
            high.take(now, 1, &word).unwrap();
        }
        for _ in 0..3 {
            assert!(low.judge(now, 1, &word).is_err());
            low.give_back(1, &word);
        }
        assert!(low.judge(now, 1, &word).is_err());
        low.give_back(1, &word);
        low.take(now, 1, &word).unwrap();
    }
}
