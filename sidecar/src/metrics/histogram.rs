//! Histograms that many threads write.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, MetricEncoder};

use super::stripes::Striped;

/// `N` buckets, and one without bound. The bounds are the caller's, always the same.
#[derive(Debug)]
pub(super) struct Histogram<const N: usize> {
    counts: [AtomicU64; N],
    beyond: AtomicU64,
    sum_nanos: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        Self { counts, beyond: AtomicU64::default(), sum_nanos: AtomicU64::default() }
    }
}

impl<const N: usize> Histogram<N> {
    /// `bounds` are upper bounds in milliseconds, each of them included in its bucket.
    pub(super) fn observe(&self, bounds: &[u64; N], value: Duration) {
        let nanos = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        let bucket = bounds.partition_point(|bound| bound.saturating_mul(1_000_000) < nanos);
        self.counts.get(bucket).unwrap_or(&self.beyond).fetch_add(1, Ordering::Relaxed);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

/// The histogram that `read` finds in each stripe, over all stripes.
pub(super) fn sum<T, const N: usize>(
    stripes: &Striped<T>,
    read: impl Fn(&T) -> &Histogram<N>,
    bounds: &[u64; N],
) -> Summed {
    let mut buckets: Vec<(f64, u64)> = bounds.iter().map(|millis| (*millis as f64 / 1e3, 0)).collect();
    for (i, bucket) in buckets.iter_mut().enumerate() {
        bucket.1 = stripes.sum(|stripe| &read(stripe).counts[i]);
    }
    buckets.push((f64::INFINITY, stripes.sum(|stripe| &read(stripe).beyond)));
    let count = buckets.iter().map(|bucket| bucket.1).sum();
    Summed { buckets, count, sum: stripes.sum(|stripe| &read(stripe).sum_nanos) as f64 / 1e9 }
}

/// What all threads observed, in seconds.
pub(super) struct Summed {
    buckets: Vec<(f64, u64)>,
    pub(super) count: u64,
    sum: f64,
}

impl Summed {
    pub(super) fn write<L: EncodeLabelSet>(&self, metric: &mut MetricEncoder<'_>) -> fmt::Result {
        metric.encode_histogram::<L>(self.sum, self.count, &self.buckets, None)
    }
}
