//! Retry advice that does not bring all refused requests back at one instant.

use std::time::Duration;

use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Least width of the interval over which the refused are spread.
const LEAST_SPREAD: Duration = Duration::from_millis(500);

/// Longest interval for what has lasted long.
const LONGEST_SPREAD: Duration = Duration::from_mins(5);

/// Spreads advice over an interval that begins with the lower bound.
#[derive(Debug)]
pub(crate) struct Spread {
    seed: u64,
    given: AtomicU64,
}

impl Spread {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, given: AtomicU64::new(0) }
    }

    /// Between `least` and half as much again, at least half a second wide; never less than `least`.
    pub(crate) fn over(&self, least: Duration) -> Duration {
        self.within(least, (least / 2).max(LEAST_SPREAD))
    }

    /// As [`Self::over`], but for what lasts already: up to twice as long as it has. Of whatever is met at a random instant of
    /// its life half lasts as long again (Gott, "Implications of the Copernican principle", Nature 1993).
    pub(crate) fn outlast(&self, least: Duration, lasts: Duration) -> Duration {
        let width = lasts.saturating_mul(2).min(LONGEST_SPREAD);
        self.within(least, width.max(least / 2).max(LEAST_SPREAD))
    }

    /// Between `least` and `width` later.
    pub(crate) fn within(&self, least: Duration, width: Duration) -> Duration {
        let n = self.given.fetch_add(1, Relaxed);
        let share = (split_mix(self.seed.wrapping_add(n)) >> 11) as f64 / (1u64 << 53) as f64;
        least + width.mul_f64(share)
    }
}

/// The finalizer of `SplitMix64` (Steele, Lea, Flood 2014).
pub(crate) fn split_mix(seed: u64) -> u64 {
    let z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn advice_is_never_below_the_bound_and_covers_the_whole_interval() {
        let spread = Spread::new(7);
        let least = Duration::from_secs(10);
        let advice: Vec<f64> = (0..1000).map(|_| spread.over(least).as_secs_f64()).collect();
        assert!(advice.iter().all(|a| (10.0..=15.0).contains(a)));
        for fifth in 0..5 {
            let from = 10.0 + f64::from(fifth);
            let inside = advice.iter().filter(|a| (from..from + 1.0).contains(*a)).count();
            assert!((120..280).contains(&inside), "{inside} of 1000 from {from} s on");
        }
    }

    #[test]
    fn what_has_lasted_for_long_is_spread_over_twice_as_long_again_within_bounds() {
        let spread = Spread::new(7);
        let longest = |lasts: u64| {
            let told = |_| spread.outlast(Duration::from_secs(10), Duration::from_secs(lasts)).as_secs_f64();
            (0..1000).map(told).fold(0.0, f64::max)
        };
        for (lasts, most) in [(0, 15.0), (20, 50.0), (100_000, 310.0)] {
            let told = longest(lasts);
            assert!((most - 0.02 * most..=most).contains(&told), "{told} after {lasts} s");
        }
    }
}
