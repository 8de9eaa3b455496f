//! The gradient that slows medium down: a token bucket whose rate and burst move with the pressure.
//!
//! Without pressure there is none. Under pressure p the rate is `base × (1 − 0.75 p) / p`: far above the base at
//! the first sign of pressure, a quarter above it at a half, which is as far as it goes before a tier trips, a
//! quarter of it at a ceiling, and never less than a trickle. The base is the rate that was admitted while nothing held it back, or the ceiling of requests per
//! second if that is lower; while a tier sheds, without the share that is reserved for high.
//!
//! Low draws from the same bucket, but only from the upper half of the burst: where low still passes, medium does.

use std::time::Duration;

use tidegate_policy::PriorityClass;

use crate::Tick;
use crate::limit::{TakenToken, TokenBucket};
use crate::sync::{AtomicF64, AtomicU64, Ordering::Relaxed};

/// Share of the base that is left at full pressure.
const LEFT_AT_FULL_PRESSURE: f64 = 0.25;
/// Requests per second that always pass.
const TRICKLE: f64 = 1.0;
/// Length of the samples of the admitted rate.
const SAMPLE: Duration = Duration::from_secs(1);
/// Weight of a new sample in the moving average.
const ALPHA: f64 = 0.2;

/// The bucket that requests draw from.
#[derive(Debug)]
pub(crate) struct Gradient {
    /// Nanoseconds for each token; 0: no limit.
    interval: AtomicU64,
    tolerance: AtomicU64,
    rate: AtomicF64,
    pressure: AtomicF64,
    demand: AtomicF64,
    word: AtomicU64,
    refused: AtomicU64,
}

/// A medium or low request over the gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slowed {
    /// Requests per second that the pressure leaves.
    pub(crate) rate: f64,
    /// Requests per second that were offered, of all classes.
    pub(crate) demand: f64,
    pub(crate) retry_after: Duration,
}

impl Gradient {
    pub(crate) fn new() -> Self {
        Self {
            interval: AtomicU64::new(0),
            tolerance: AtomicU64::new(0),
            rate: AtomicF64::new(0.0),
            pressure: AtomicF64::new(0.0),
            demand: AtomicF64::new(0.0),
            word: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Sets the limit to what `pressure` leaves of `base` requests per second. `demand` is what was offered, `score`
    /// the pressure as a whole, of which a part may act elsewhere.
    pub(crate) fn set(&self, score: f64, pressure: f64, base: f64, demand: f64) {
        self.pressure.store(score);
        self.demand.store(demand);
        if pressure <= 0.0 {
            self.interval.store(0, Relaxed);
            return;
        }
        let rate = rate(pressure, base);
        // A second's worth while the pressure is low, a quarter of that at full pressure.
        let bucket = TokenBucket::at_rate(rate, rate * (1.0 - (1.0 - LEFT_AT_FULL_PRESSURE) * pressure));
        self.rate.store(rate);
        self.tolerance.store(bucket.tolerance(), Relaxed);
        self.interval.store(bucket.interval(), Relaxed);
    }

    /// The one score.
    pub(crate) fn pressure(&self) -> f64 {
        self.pressure.load()
    }

    /// Nobody needs a token.
    #[inline]
    pub(crate) fn is_off(&self) -> bool {
        self.interval.load(Relaxed) == 0
    }

    /// Draws a token, if this class needs one: high never does.
    pub(crate) fn take(&self, now: Tick, class: PriorityClass) -> Result<Option<TakenToken>, Slowed> {
        let Some(bucket) = self.bucket(class) else { return Ok(None) };
        bucket.take(now, 1, &self.word).map(Some).map_err(|at| self.slowed(now, at))
    }

    /// Puts a token back.
    pub(crate) fn give_back(&self, class: PriorityClass, taken: TakenToken) {
        if let Some(bucket) = self.bucket(class) {
            bucket.give_back(taken, 1, &self.word);
        }
    }

    /// Requests refused so far.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    fn bucket(&self, class: PriorityClass) -> Option<TokenBucket> {
        let interval = self.interval.load(Relaxed);
        let bucket = || TokenBucket::from_parts(interval, self.tolerance.load(Relaxed));
        match class {
            PriorityClass::High => None,
            _ if interval == 0 => None,
            PriorityClass::Medium => Some(bucket()),
            PriorityClass::Low => Some(bucket().with_burst_share(2)),
        }
    }

    #[cold]
    fn slowed(&self, now: Tick, at: Tick) -> Slowed {
        self.refused.fetch_add(1, Relaxed);
        let rate = self.rate.load();
        Slowed { rate, demand: self.demand.load().max(rate), retry_after: at.since(now) }
    }
}

fn rate(pressure: f64, base: f64) -> f64 {
    (base * left(pressure)).max(TRICKLE)
}

/// The share of what was admitted without pressure that a pressure over 0 leaves.
pub(crate) fn left(pressure: f64) -> f64 {
    (1.0 - (1.0 - LEFT_AT_FULL_PRESSURE) * pressure) / pressure
}

/// The admitted rate while nothing held it back, and the offered rate.
#[derive(Debug, Clone)]
pub(crate) struct Throughput {
    start: Tick,
    before: Seen,
    average: Option<f64>,
    /// The highest of the average and the running sample, kept while something holds the rate back.
    recent: f64,
    demand: f64,
}

/// Requests since the beginning.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) offered: u64,
    pub(crate) admitted: u64,
    /// Refused by the gradient.
    pub(crate) slowed: u64,
}

impl Throughput {
    pub(crate) fn new(now: Tick, seen: Seen) -> Self {
        Self { start: now, before: seen, average: None, recent: 0.0, demand: 0.0 }
    }

    /// Takes note of all requests so far. `shedding`: a tier holds the rate back, as the gradient does when it
    /// refuses.
    pub(crate) fn tick(&mut self, now: Tick, seen: Seen, shedding: bool) {
        let elapsed = now.since(self.start);
        let per_second =
            |now: u64, before: u64| now.saturating_sub(before) as f64 / elapsed.max(SAMPLE).as_secs_f64();
        let free = !shedding && seen.slowed == self.before.slowed;
        let rate = per_second(seen.admitted, self.before.admitted);
        if free {
            self.recent = self.average.unwrap_or(0.0).max(rate);
        }
        if elapsed < SAMPLE {
            return;
        }
        // An idle second says nothing about what the engine can take.
        if free && rate > 0.0 {
            self.average = Some(self.average.map_or(rate, |average| average + ALPHA * (rate - average)));
        }
        self.demand = per_second(seen.offered, self.before.offered);
        (self.start, self.before) = (now, seen);
    }

    /// Requests offered in the last second.
    pub(crate) fn demand(&self) -> f64 {
        self.demand
    }

    /// The base of the gradient.
    pub(crate) fn base(&self, ceiling: Option<f64>, reserved: f64) -> f64 {
        let recent = if self.recent > 0.0 { self.recent } else { ceiling.unwrap_or(TRICKLE) };
        ceiling.map_or(recent, |ceiling| recent.min(ceiling)) * (1.0 - reserved)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use PriorityClass::{High, Low, Medium};
    use proptest::prelude::*;

    fn millis(n: u64) -> Tick {
        Tick::from_nanos(n * 1_000_000)
    }

    /// Requests of a class that pass in the ten seconds after the burst.
    fn passed(gradient: &Gradient, class: PriorityClass) -> usize {
        (1_000..11_000).filter(|ms| gradient.take(millis(*ms), class).is_ok()).count()
    }

    #[test]
    fn without_pressure_nothing_is_limited() {
        let gradient = Gradient::new();
        gradient.set(1.0, 1.0, 10.0, 0.0);
        gradient.set(0.0, 0.0, 10.0, 0.0);
        assert_eq!(passed(&gradient, Medium), 10_000);
    }

    #[test]
    fn at_full_pressure_a_quarter_of_the_base_passes_and_high_is_not_limited() {
        let gradient = Gradient::new();
        gradient.set(1.0, 1.0, 100.0, 0.0);
        let medium = passed(&gradient, Medium);
        assert!((250..=260).contains(&medium), "{medium} in 10 s");
        assert_eq!(passed(&gradient, High), 10_000);
    }

    #[test]
    fn a_trickle_always_passes() {
        let gradient = Gradient::new();
        gradient.set(1.0, 1.0, 0.0, 0.0);
        assert!((10..=11).contains(&passed(&gradient, Medium)));
    }

    fn seen(admitted: u64, slowed: u64) -> Seen {
        Seen { offered: admitted, admitted, slowed }
    }

    #[test]
    fn the_base_is_kept_while_the_rate_is_held_back() {
        let mut throughput = Throughput::new(millis(0), seen(0, 0));
        throughput.tick(millis(1000), seen(50, 0), false);
        assert!((throughput.base(None, 0.0) - 50.0).abs() < 1e-9);
        throughput.tick(millis(2000), seen(55, 0), true);
        assert!((throughput.base(None, 0.2) - 40.0).abs() < 1e-9);
        assert!((throughput.base(Some(30.0), 0.2) - 24.0).abs() < 1e-9);
        throughput.tick(millis(3000), seen(56, 9), false);
        assert!((throughput.base(None, 0.0) - 50.0).abs() < 1e-9, "requests were slowed");
    }

    #[test]
    fn a_burst_counts_in_the_base_before_its_second_is_over() {
        let mut throughput = Throughput::new(millis(0), seen(0, 0));
        throughput.tick(millis(1000), seen(2, 0), false);
        throughput.tick(millis(1200), seen(102, 0), false);
        assert!((throughput.base(Some(60.0), 0.0) - 60.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn the_rate_falls_as_the_pressure_rises(base in 0.0f64..1e6, p in 0.001f64..1.0, rise in 0.0f64..1.0) {
            let higher = (p + rise).min(1.0);
            prop_assert!(rate(higher, base) <= rate(p, base));
        }

        #[test]
        fn where_low_passes_medium_passes(
            p in 0.01f64..1.0, base in 1.0f64..1000.0,
            requests in proptest::collection::vec((0u64..50, any::<bool>()), 1..200),
        ) {
            let gradient = Gradient::new();
            gradient.set(p, p, base, 0.0);
            let mut now = 1000;
            for (gap, low) in requests {
                now += gap;
                let passes = |class| match gradient.take(millis(now), class) {
                    Ok(token) => {
                        if let Some(token) = token {
                            gradient.give_back(class, token);
                        }
                        true
                    }
                    Err(_) => false,
                };
                prop_assert!(!passes(Low) || passes(Medium));
                let _ = gradient.take(millis(now), if low { Low } else { Medium });
            }
        }
    }
}
