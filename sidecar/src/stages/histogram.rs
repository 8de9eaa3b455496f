//! How many of the times in a histogram that the engine keeps were over a threshold since it was read last.

use std::time::Duration;

use tidegate_core::{Engine, StageReading, Tick};

use super::of;

/// What one reading of the engine's metrics tells of one stage: the upper bounds of its buckets in seconds, and how
/// many times are up to each, in any order. Several histograms of one stage add up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told(Vec<(f64, f64)>);

impl Told {
    /// One bucket of one histogram.
    pub fn bucket(&mut self, bound: f64, count: f64) {
        match self.0.iter_mut().find(|(other, _)| other.to_bits() == bound.to_bits()) {
            Some((_, sum)) => *sum += count,
            None => self.0.push((bound, count)),
        }
    }

    /// All times, and those over the threshold. Within a bucket times are taken to be spread evenly, as Prometheus'
    /// `histogram_quantile` does; of those beyond the last bound nobody knows more than that.
    fn over(&self, threshold: Duration) -> Option<Counts> {
        let threshold = threshold.as_secs_f64();
        let all = self.0.iter().find(|(bound, _)| bound.is_infinite())?.1;
        let finite = || self.0.iter().filter(|(bound, _)| bound.is_finite());
        let below = finite().filter(|(bound, _)| *bound <= threshold).max_by(|a, b| a.0.total_cmp(&b.0));
        let above = finite().filter(|(bound, _)| *bound > threshold).min_by(|a, b| a.0.total_cmp(&b.0));
        let (from, within) = below.copied().unwrap_or_default();
        let within = match above {
            Some((to, up_to)) => within + (up_to - within).max(0.0) * (threshold - from) / (to - from),
            None => all,
        };
        Some(Counts { all: all.round(), over: (all - within).max(0.0).round() })
    }
}

/// Since the engine started.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Counts {
    all: f64,
    over: f64,
}

/// The last readings.
#[derive(Debug, Default)]
pub struct Histograms(Vec<Last>);

#[derive(Debug)]
struct Last {
    stage: String,
    threshold: Duration,
    counts: Counts,
}

impl Histograms {
    /// Tells the decision engine what is new of each stage that `told` knows.
    pub fn look(&mut self, engine: &Engine, now: Tick, told: impl Fn(&str) -> Told) {
        let mut next = Vec::new();
        for (i, breaker) in of(engine).iter().enumerate() {
            let (stage, Some(threshold)) = (breaker.stage.as_str(), breaker.over_millis) else { continue };
            let threshold = threshold.duration();
            let Some(counts) = told(stage).over(threshold) else { continue };
            let before = self.0.iter().find(|last| last.stage == stage && last.threshold == threshold);
            engine.observe_stage(now, i, since(before.map(|last| last.counts), counts));
            next.push(Last { stage: stage.to_owned(), threshold, counts });
        }
        self.0 = next;
    }
}

/// What came between two readings. What was before the first is not known to be recent; counts that fall began anew with
/// the engine.
fn since(before: Option<Counts>, now: Counts) -> StageReading {
    let before = match before {
        None => now,
        Some(before) if now.all < before.all => Counts { all: 0.0, over: 0.0 },
        Some(before) => before,
    };
    let times = now.all - before.all;
    StageReading::Counted { times: times as u64, over: (now.over - before.over).clamp(0.0, times) as u64 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: [f64; 5] = [0.1, 0.5, 0.8, 1.0, 5.0];

    fn told(times: &[f64]) -> Told {
        let mut told = Told::default();
        for bound in BOUNDS.into_iter().chain([f64::INFINITY]) {
            told.bucket(bound, times.iter().filter(|time| **time <= bound).count() as f64);
        }
        told
    }

    fn counts(all: f64, over: f64) -> Counts {
        Counts { all, over }
    }

    #[test]
    fn a_threshold_between_bounds_splits_its_bucket_evenly() {
        let told = told(&[0.6, 0.65, 0.7, 0.75, 2.0]);
        assert_eq!(told.over(Duration::from_millis(500)), Some(counts(5.0, 5.0)));
        assert_eq!(told.over(Duration::from_millis(650)), Some(counts(5.0, 3.0)));
        assert_eq!(told.over(Duration::from_millis(800)), Some(counts(5.0, 1.0)));
        assert_eq!(Told::default().over(Duration::ZERO), None, "no histogram is no zero");
    }

    #[test]
    fn what_is_beyond_the_last_bound_is_over_it_and_over_no_more() {
        let told = told(&[100.0]);
        assert_eq!(told.over(Duration::from_millis(4999)), Some(counts(1.0, 1.0)));
        assert_eq!(told.over(Duration::from_secs(5)), Some(counts(1.0, 0.0)));
    }

    #[test]
    fn histograms_of_several_models_add_up() {
        let mut both = told(&[0.6, 2.0]);
        for (bound, count) in told(&[0.7, 3.0]).0 {
            both.bucket(bound, count);
        }
        assert_eq!(both, told(&[0.6, 2.0, 0.7, 3.0]));
    }

    #[test]
    fn only_what_came_since_counts() {
        let read = |times, over| StageReading::Counted { times, over };
        assert_eq!(since(None, counts(9.0, 9.0)), read(0, 0));
        assert_eq!(since(Some(counts(9.0, 9.0)), counts(12.0, 10.0)), read(3, 1));
        assert_eq!(since(Some(counts(9.0, 9.0)), counts(2.0, 1.0)), read(2, 1), "the engine began anew");
    }

    proptest! {
        /// Oracle: the times themselves, at the bounds of the buckets.
        #[test]
        fn at_a_bound_the_counts_are_exact(
            times in proptest::collection::vec(0.0..10.0f64, 0..50),
            bound in proptest::sample::select(&BOUNDS[..]),
        ) {
            let over = times.iter().filter(|time| **time > bound).count() as f64;
            let expected = if bound < 5.0 { over } else { 0.0 };
            let read = told(&times).over(Duration::from_secs_f64(bound)).unwrap();
            prop_assert_eq!(read, counts(times.len() as f64, expected));
        }
    }
}
