//! A histogram with a bounded relative error that many threads record into without a lock.
//!
//! The buckets are those of `HdrHistogram` (Gil Tene, <https://hdrhistogram.org>) at two significant digits: linear
//! within a power of two, 128 of them to each, so that a bucket is at most 0.8 % wide.

use std::time::Duration;

use crate::lane::{LANES, Lane};
use crate::sync::{AtomicU32, Ordering::Relaxed};

/// Sub-buckets of a power of two.
const HALF: u64 = 128;
/// Largest value in microseconds: 38 hours. Longer ones count as this.
const MAX_MICROS: u64 = (1 << 37) - 1;
const BUCKETS: usize = index(MAX_MICROS) + 1;
/// Neighbouring latencies fall into neighbouring buckets, so two copies are enough to keep threads apart.
const STRIPES: usize = 2;
const _: () = assert!(STRIPES <= LANES && BUCKETS <= 1 << 16);

/// Latencies of the period that is running.
pub(crate) struct Histogram {
    stripes: [Box<[AtomicU32]>; STRIPES],
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Histogram").finish_non_exhaustive()
    }
}

/// The latencies of a stretch of time: how many there are in each bucket that has any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Latencies {
    /// By bucket, lowest first.
    counts: Vec<(u16, u64)>,
    count: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { stripes: std::array::from_fn(|_| (0..BUCKETS).map(|_| AtomicU32::new(0)).collect()) }
    }

    /// Counts one latency.
    pub(crate) fn record(&self, latency: Duration) {
        let bucket = index(micros(latency));
        self.stripes[Lane::of_this_thread().index() % STRIPES][bucket].fetch_add(1, Relaxed);
    }

    /// Takes all latencies out. One that is recorded meanwhile is in this result or in the next.
    pub(crate) fn drain(&self) -> Latencies {
        let take = |bucket: &AtomicU32| if bucket.load(Relaxed) > 0 { bucket.swap(0, Relaxed) } else { 0 };
        let sums = (0..BUCKETS).map(|i| self.stripes.iter().map(|stripe| u64::from(take(&stripe[i]))).sum());
        let counts: Vec<(u16, u64)> = (0u16..).zip(sums).filter(|&(_, n): &(u16, u64)| n > 0).collect();
        let count = counts.iter().map(|(_, n)| n).sum();
        Latencies { counts, count }
    }
}

impl Latencies {
    /// Number of latencies.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Adds so many latencies of one length.
    pub(crate) fn add(&mut self, latency: Duration, n: u64) {
        let one = Self { counts: vec![(index(micros(latency)) as u16, n)], count: n };
        self.merge(&one);
    }

    /// Adds the latencies of another stretch of time.
    pub(crate) fn merge(&mut self, other: &Self) {
        let (mut mine, mut theirs) = (self.counts.iter().peekable(), other.counts.iter().peekable());
        let mut merged = Vec::with_capacity(self.counts.len().max(other.counts.len()));
        while let Some(i) = mine.peek().into_iter().chain(theirs.peek()).map(|(i, _)| *i).min() {
            let both = [&mut mine, &mut theirs].map(|counts| counts.next_if(|(j, _)| *j == i));
            merged.push((i, both.into_iter().flatten().map(|(_, n)| n).sum()));
        }
        self.counts = merged;
        self.count += other.count;
    }

    /// The smallest latency that at least `share` of all do not exceed, in milliseconds, to 0.4 %. None of an empty
    /// period.
    pub(crate) fn percentile(&self, share: f64) -> Option<f64> {
        let rank = ((share * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        let (bucket, _) = self.counts.iter().find(|(_, n)| {
            seen += n;
            seen >= rank
        })?;
        Some(middle(usize::from(*bucket)) / 1000.0)
    }
}

/// Whole microseconds, as far as the buckets go.
fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(MAX_MICROS).min(MAX_MICROS)
}

/// The bucket of a value.
const fn index(micros: u64) -> usize {
    let shift = (micros | HALF).ilog2() - HALF.ilog2();
    (shift as u64 * HALF + (micros >> shift)) as usize
}

/// The middle of a bucket.
fn middle(index: usize) -> f64 {
    let index = index as u64;
    let shift = (index / HALF).saturating_sub(1);
    let low = (index - shift * HALF) << shift;
    low as f64 + ((1u64 << shift) - 1) as f64 / 2.0
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use hdrhistogram::Histogram as Reference;
    use proptest::prelude::*;

    #[test]
    fn every_value_lies_within_half_a_percent_of_the_middle_of_its_bucket() {
        let mut value = 1u64;
        while value < MAX_MICROS {
            let error = (middle(index(value)) - value as f64).abs() / value as f64;
            assert!(error <= 0.004, "{value} µs is off by {error}");
            value += value / 97 + 1;
        }
        assert_eq!(index(MAX_MICROS), BUCKETS - 1);
    }

    #[test]
    fn a_drained_period_leaves_nothing_behind() {
        let histogram = Histogram::new();
        histogram.record(Duration::from_millis(5));
        histogram.record(Duration::MAX);
        assert_eq!(histogram.drain().count(), 2);
        let rest = histogram.drain();
        assert_eq!((rest.count(), rest.percentile(0.99)), (0, None));
    }

    proptest! {
        #[test]
        fn merged_latencies_are_those_that_were_recorded_together(
            one in proptest::collection::vec(1u64..10_000_000, 0..50),
            other in proptest::collection::vec(1u64..10_000_000, 0..50),
        ) {
            let drained = |micros: &[u64]| {
                let histogram = Histogram::new();
                for m in micros {
                    histogram.record(Duration::from_micros(*m));
                }
                histogram.drain()
            };
            let mut merged = drained(&one);
            merged.merge(&drained(&other));
            prop_assert_eq!(&merged, &drained(&[one.clone(), other.clone()].concat()));
            let mut added = drained(&one);
            for m in &other {
                added.add(Duration::from_micros(*m), 1);
            }
            prop_assert_eq!(added, merged);
        }

        #[test]
        fn percentiles_agree_with_hdrhistogram(
            micros in proptest::collection::vec(1u64..100_000_000, 1..300),
            share in 0.01f64..1.0,
        ) {
            let ours = Histogram::new();
            let mut reference = Reference::<u64>::new(3).unwrap();
            for &m in &micros {
                ours.record(Duration::from_micros(m));
                reference.record(m).unwrap();
            }
            let ours = ours.drain().percentile(share).unwrap() * 1000.0;
            let reference = reference.value_at_quantile(share) as f64;
            prop_assert!((ours - reference).abs() <= reference * 0.01 + 1.0, "{ours} µs, not {reference}");
        }
    }
}
