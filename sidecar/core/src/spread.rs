//! Retry advice that does not bring all refused requests back at one instant.

use std::time::Duration;

use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Least width of the interval over which the refused are spread.
const LEAST_SPREAD: Duration = Duration::from_millis(500);

/// The end of the interval for what has lasted long.
const LONGEST: Duration = Duration::from_mins(5);

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

    /// As [`Self::over`], but for what lasts already and is not seen to end: between once and three times as long again as
    /// it has. Of whatever is met at a random instant of its life a half lasts as long again, and a quarter three times as
    /// long (Gott, "Implications of the Copernican principle", Nature 1993), so that it is over for two of three.
    pub(crate) fn outlast(&self, least: Duration, lasts: Duration) -> Duration {
        let lasts = lasts.min(LONGEST / 3);
        self.within(least.max(lasts), (lasts * 2).max(least / 2).max(LEAST_SPREAD))
    }

    /// As [`Self::over`], but for what comes back by degrees, and may relapse: over as long as the whole way back takes.
    pub(crate) fn recover(&self, least: Duration, way_back: Duration) -> Duration {
        self.within(least, way_back.max(least / 2).max(LEAST_SPREAD))
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
    fn what_has_lasted_for_long_is_awaited_for_as_long_again_up_to_three_times_within_bounds() {
        let spread = Spread::new(7);
        for (lasts, least, most) in
            [(0, 10.0, 15.0), (8, 10.0, 26.0), (20, 20.0, 60.0), (100_000, 100.0, 300.0)]
        {
            let told = |_| spread.outlast(Duration::from_secs(10), Duration::from_secs(lasts)).as_secs_f64();
            let told: Vec<f64> = (0..1000).map(told).collect();
            assert!(told.iter().all(|told| (least..=most).contains(told)), "after {lasts} s: {told:?}");
            let latest = told.into_iter().fold(0.0, f64::max);
            assert!(latest > 0.98 * most, "{latest} after {lasts} s");
        }
    }
}
