//! The way back of low priority: from a trickle to everything.
//!
//! When a tier recovers, what it had shed must not come back at one instant: the engine would be where it was. So
//! low priority draws from a bucket whose rate grows with the share `x` of the ramp that is over, as
//! `base × x / (1 − x)`: nothing but a trickle that probes the engine at first, the rate that passed before the
//! trip half-way, and no limit at the end.

use std::time::Duration;

use tidegate_policy::report::TierName;

use crate::Tick;
use crate::limit::{TakenToken, TokenBucket};
use crate::sync::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Requests per second that probe the engine from the first instant on.
const TRICKLE: f64 = 1.0;
/// Seconds of the rate that may come at once.
const BURST_SECONDS: f64 = 0.25;

/// The bucket that low priority draws from.
#[derive(Debug)]
pub(crate) struct Ramp {
    /// Nanoseconds for each token; 0: no limit.
    interval: AtomicU64,
    tolerance: AtomicU64,
    /// The tier that lets go the slowest, by its number.
    tier: AtomicU32,
    word: AtomicU64,
}

/// A low request over the ramp.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ramped {
    pub(crate) tier: TierName,
    pub(crate) retry_after: Duration,
}

impl Ramp {
    pub(crate) fn new() -> Self {
        Self {
            interval: AtomicU64::new(0),
            tolerance: AtomicU64::new(0),
            tier: AtomicU32::new(0),
            word: AtomicU64::new(0),
        }
    }

    /// Sets the rate to what the tier with the firmest `grip` leaves of `base` requests per second; no limit when
    /// there is none.
    pub(crate) fn set(&self, firmest: Option<(TierName, f64)>, base: f64) {
        let Some((tier, grip)) = firmest.filter(|(_, grip)| *grip > 0.0) else {
            self.interval.store(0, Relaxed);
            return;
        };
        let rate = (base * (1.0 - grip) / grip).max(TRICKLE);
        let bucket = TokenBucket::at_rate(rate, rate * BURST_SECONDS);
        self.tier.store(number(tier), Relaxed);
        self.tolerance.store(bucket.tolerance(), Relaxed);
        self.interval.store(bucket.interval(), Relaxed);
    }

    /// Draws a token, if one is needed.
    pub(crate) fn take(&self, now: Tick) -> Result<Option<TakenToken>, Ramped> {
        let Some(bucket) = self.bucket() else { return Ok(None) };
        bucket.take(now, 1, &self.word).map(Some).map_err(|at| self.ramped(now, at))
    }

    /// Puts a token back.
    pub(crate) fn give_back(&self, taken: TakenToken) {
        if let Some(bucket) = self.bucket() {
            bucket.give_back(taken, 1, &self.word);
        }
    }

    fn bucket(&self) -> Option<TokenBucket> {
        let interval = self.interval.load(Relaxed);
        (interval > 0).then(|| TokenBucket::from_parts(interval, self.tolerance.load(Relaxed)))
    }

    #[cold]
    fn ramped(&self, now: Tick, at: Tick) -> Ramped {
        let tier = match self.tier.load(Relaxed) {
            0 => TierName::Qps,
            1 => TierName::GpuMemory,
            _ => TierName::Latency,
        };
        Ramped { tier, retry_after: at.since(now) }
    }
}

const fn number(tier: TierName) -> u32 {
    match tier {
        TierName::Qps => 0,
        TierName::GpuMemory => 1,
        TierName::Latency => 2,
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn millis(n: u64) -> Tick {
        Tick::from_nanos(n * 1_000_000)
    }

    /// Requests that pass in each second of a ramp of ten, of a hundred a second that come.
    fn ramp(base: f64) -> Vec<usize> {
        let ramp = Ramp::new();
        let second = |s: u64| {
            let asked = (0..100).filter(|n| {
                let now = millis(1000 + s * 1000 + n * 10);
                ramp.set(Some((TierName::Latency, 1.0 - (s * 100 + n) as f64 / 1000.0)), base);
                ramp.take(now).is_ok()
            });
            asked.count()
        };
        (0..10).map(second).collect()
    }

    #[test]
    fn it_begins_with_a_trickle_and_ends_without_a_limit() {
        let passed = ramp(20.0);
        assert!((1..=4).contains(&passed[0]), "{passed:?}");
        assert!((15..=25).contains(&passed[4]), "{passed:?}");
        assert_eq!(passed[9], 100, "{passed:?}");
        assert!(passed.is_sorted(), "{passed:?}");
        assert_eq!(ramp(0.0).iter().sum::<usize>(), 10, "a trickle passes whatever the base");
    }

    #[test]
    fn a_token_that_is_put_back_is_there_again_and_no_tier_means_no_limit() {
        let ramp = Ramp::new();
        assert_eq!(ramp.take(millis(1000)).unwrap().map(drop), None);
        ramp.set(Some((TierName::Qps, 1.0)), 10.0);
        let taken = ramp.take(millis(1000)).unwrap().unwrap();
        let refused = ramp.take(millis(1000)).unwrap_err();
        assert_eq!((refused.tier, refused.retry_after), (TierName::Qps, Duration::from_secs(1)));
        ramp.give_back(taken);
        assert!(ramp.take(millis(1000)).is_ok());
        ramp.set(None, 10.0);
        assert!((0..1000).all(|_| ramp.take(millis(1000)).is_ok()));
    }
}
