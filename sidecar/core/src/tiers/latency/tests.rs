use std::time::Duration;

use tidegate_policy::report::TierState;
use tidegate_policy::{Factor, Millis, Ratio};

use super::*;
use crate::histogram::Histogram;

fn config(learned: Option<u32>, max_millis: Option<u64>) -> LatencyTier {
    LatencyTier {
        signal: LatencySignal::TotalLatency,
        percentile: Ratio::new(0.99).unwrap(),
        period_millis: Millis::new(10_000).unwrap(),
        periods: 3,
        minimum_samples: 10,
        learned: learned
            .map(|minimum_periods| LearnedLatency { factor: Factor::new(1.8).unwrap(), minimum_periods }),
        max_millis: max_millis.map(|max| Millis::new(max).unwrap()),
    }
}

fn recovery() -> Recovery {
    Recovery { below_ratio: Ratio::new(0.9).unwrap(), hold_millis: Millis::new(10_000).unwrap() }
}

/// A tier with a clock; each period is told as its latencies: how many, of how many milliseconds.
struct Run {
    tier: Latency,
    now: Tick,
}

impl Run {
    fn new(config: LatencyTier) -> Self {
        Self { tier: Latency::new(config, recovery(), Tick::default()), now: Tick::default() }
    }

    fn period(&mut self, count: usize, millis: u64) -> TierState {
        let histogram = Histogram::new();
        (0..count).for_each(|_| histogram.record(Duration::from_millis(millis)));
        self.now = self.now + Duration::from_secs(10);
        self.tier.tick(self.now, || Some(histogram.drain()));
        self.tier.standing().state
    }

    fn wait(&mut self, millis: u64) -> TierState {
        self.now = self.now + Duration::from_millis(millis);
        self.tier.tick(self.now, || panic!("the period is not over"));
        self.tier.standing().state
    }
}

#[test]
fn it_trips_after_three_bad_periods_in_a_row_and_a_good_one_begins_anew() {
    let mut run = Run::new(config(None, Some(8000)));
    assert_eq!(run.period(20, 9000), TierState::Normal);
    assert_eq!(run.period(20, 9000), TierState::Normal);
    assert_eq!(run.period(20, 100), TierState::Normal);
    assert_eq!(run.period(20, 9000), TierState::Normal);
    assert_eq!(run.period(20, 9000), TierState::Normal);
    assert_eq!(run.period(20, 9000), TierState::Tripped);
    let reason = run.tier.standing().hysteresis.last().unwrap().reason.clone();
    assert!(reason.starts_with("P99 total latency of 9"), "{reason}");
    assert!(reason.ends_with("over the ceiling of 8000.0 ms in 3 periods"), "{reason}");
}

#[test]
fn a_period_with_too_few_samples_is_neither_bad_nor_good() {
    let mut run = Run::new(config(None, Some(8000)));
    run.period(20, 9000);
    run.period(9, 9000);
    assert_eq!(run.period(20, 9000), TierState::Normal);
    run.period(9, 100);
    assert_eq!(run.period(20, 9000), TierState::Tripped);
}

#[test]
fn the_learned_ceiling_is_a_factor_of_the_mean_of_past_periods() {
    let mut run = Run::new(config(Some(2), None));
    assert_eq!(run.period(20, 100), TierState::Learning);
    assert_eq!(run.tier.standing().threshold, None);
    assert_eq!(run.period(20, 300), TierState::Normal);
    let ceiling = run.tier.standing().threshold.unwrap();
    assert!((ceiling - 360.0).abs() < 3.0, "{ceiling}");
    for _ in 0..2 {
        run.period(20, 2000);
    }
    assert_eq!(run.tier.standing().threshold, Some(ceiling), "bad periods teach nothing");
    assert_eq!(run.period(20, 2000), TierState::Tripped);
    assert_eq!(run.tier.standing().threshold, Some(ceiling), "tripped ones neither");
}

#[test]
fn a_given_ceiling_holds_while_learning_and_the_lower_of_both_after() {
    let mut run = Run::new(config(Some(1), Some(500)));
    assert_eq!(run.tier.standing().threshold, Some(500.0));
    run.period(20, 100);
    assert!(run.tier.standing().threshold.unwrap() < 200.0);
}

#[test]
fn it_recovers_by_itself_when_nothing_comes_any_more() {
    let mut run = Run::new(config(None, Some(8000)));
    for _ in 0..3 {
        run.period(20, 9000);
    }
    assert_eq!(run.period(0, 0), TierState::Recovering);
    assert_eq!(run.tier.standing().value, None);
    assert_eq!(run.wait(9_900), TierState::Recovering);
    assert_eq!(run.period(0, 0), TierState::Normal);
}

#[test]
fn a_bad_period_while_recovering_trips_it_again_at_once() {
    let mut run = Run::new(config(None, Some(8000)));
    for _ in 0..3 {
        run.period(20, 9000);
    }
    run.period(20, 100);
    run.wait(5_000);
    run.now = run.now + Duration::from_millis(0);
    let mut bad = Run { tier: run.tier, now: run.now };
    bad.now = Tick::from_nanos(bad.now.as_nanos() - 5_000_000_000);
    assert_eq!(bad.period(20, 9000), TierState::Tripped);
}

#[test]
fn one_bad_period_after_recovery_does_not_trip() {
    let mut run = Run::new(config(None, Some(8000)));
    for _ in 0..3 {
        run.period(20, 9000);
    }
    run.period(0, 0);
    assert_eq!(run.period(0, 0), TierState::Normal);
    assert_eq!(run.period(20, 9000), TierState::Normal);
}
