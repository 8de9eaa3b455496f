use std::time::Duration;

use tidegate_policy::report::TierState;
use tidegate_policy::{Factor, Millis, Ratio};

use super::*;

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
    let hold_millis = Millis::new(10_000).unwrap();
    Recovery { below_ratio: Ratio::new(0.9).unwrap(), hold_millis, ramp_millis: None }
}

/// A tier with a clock; each period is told as its latencies: how many, of how many milliseconds.
struct Run {
    tier: Latency,
    now: Tick,
}

/// Latencies that were recorded, and the ages of requests in flight.
#[derive(Default)]
struct Given {
    histogram: std::cell::RefCell<Latencies>,
    waiting: Vec<(Duration, u64)>,
}

impl Source for Given {
    fn drain(&self) -> Latencies {
        self.histogram.take()
    }

    fn older_than(&self, _: Tick, threshold: Duration) -> Vec<(Duration, u64)> {
        self.waiting.iter().copied().filter(|(age, _)| *age > threshold).collect()
    }

    fn tick(&self, _: Tick, _: Option<Duration>) {}
}

impl Run {
    fn new(config: LatencyTier) -> Self {
        Self { tier: Latency::new(config, recovery(), Tick::default()), now: Tick::default() }
    }

    fn period(&mut self, count: u64, millis: u64) -> TierState {
        self.period_with(count, millis, Vec::new())
    }

    fn period_with(&mut self, count: u64, millis: u64, waiting: Vec<(Duration, u64)>) -> TierState {
        let given = Given { waiting, ..Given::default() };
        if count > 0 {
            given.histogram.borrow_mut().add(Duration::from_millis(millis), count);
        }
        self.now = self.now + Duration::from_secs(10);
        self.tier.tick(self.now, &given);
        self.tier.standing().state
    }

    fn wait(&mut self, millis: u64) -> TierState {
        self.now = self.now + Duration::from_millis(millis);
        self.tier.tick(self.now, &Given::default());
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
    assert_eq!(run.period(0, 0), TierState::NoData);
    assert!(!run.tier.standing().shedding());
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
    assert_eq!(run.period(0, 0), TierState::NoData);
    assert_eq!(run.period(20, 9000), TierState::Normal);
}

#[test]
fn an_engine_that_hangs_trips_by_what_it_still_holds() {
    let mut run = Run::new(config(None, Some(8000)));
    assert_eq!(run.period(20, 100), TierState::Normal);
    let hung = vec![(Duration::from_secs(9), 15), (Duration::from_secs(3), 100)];
    assert_eq!(run.period_with(0, 0, hung.clone()), TierState::Normal);
    assert_eq!(run.period_with(0, 0, hung.clone()), TierState::Normal);
    assert_eq!(run.period_with(0, 0, hung.clone()), TierState::Tripped);
    assert_eq!((run.tier.overdue(), run.tier.standing().value.is_some()), (15, true));
    assert_eq!(run.period_with(0, 0, vec![(Duration::from_secs(9), 3)]), TierState::Tripped, "no calm");
    assert_eq!(run.period(0, 0), TierState::Recovering, "all gone");
}

#[test]
fn a_few_old_requests_among_many_quick_ones_count_as_the_few_they_are() {
    let mut run = Run::new(config(None, Some(8000)));
    let one_slow = vec![(Duration::from_mins(1), 1)];
    (0..10).for_each(|_| assert_eq!(run.period_with(1000, 100, one_slow.clone()), TierState::Normal));
    let one_alone = (0..10).map(|_| run.period_with(0, 0, one_slow.clone()));
    assert!(one_alone.into_iter().all(|state| state == TierState::NoData), "one request is no verdict");
}

#[test]
fn a_period_without_enough_samples_says_so() {
    let mut run = Run::new(config(None, Some(8000)));
    assert_eq!(run.tier.standing().state, TierState::Normal);
    assert_eq!(run.period(9, 100), TierState::NoData);
    assert_eq!(run.period(10, 100), TierState::Normal);
}

#[test]
fn a_period_in_which_another_tier_was_tripped_teaches_nothing() {
    let mut run = Run::new(config(Some(1), None));
    run.period(20, 100);
    let learned = run.tier.standing().baseline;
    run.tier.taint();
    run.period(20, 150);
    assert_eq!(run.tier.standing().baseline, learned);
    run.period(20, 150);
    assert_ne!(run.tier.standing().baseline, learned);
}

proptest::proptest! {
    /// Law: extremes of every field, and time that stands still or jumps, neither overflow nor panic.
    #[test]
    fn no_field_and_no_jump_of_time_breaks_it(
        period in 1u64..=Millis::MAX, periods in 1u32.., minimum in 1u32.., factor in 1e-6f64..1000.0,
        max in proptest::option::of(1u64..=Millis::MAX), percentile in 1e-6f64..=1.0,
        steps in proptest::collection::vec((0u64..u64::MAX / 64, 0u64..1 << 32, 0u64..u64::MAX), 1..40),
    ) {
        let config = LatencyTier {
            percentile: Ratio::new(percentile).unwrap(),
            period_millis: Millis::new(period).unwrap(),
            periods,
            minimum_samples: minimum,
            learned: Some(LearnedLatency { factor: Factor::new(factor).unwrap(), minimum_periods: 1 }),
            ..config(None, max)
        };
        let mut tier = Latency::new(config, recovery(), Tick::default());
        let mut now = 0u64;
        for (jump, n, nanos) in steps {
            now = now.saturating_add(jump);
            let latency = Duration::from_nanos(nanos);
            let given = Given { waiting: vec![(latency, n)], ..Given::default() };
            given.histogram.borrow_mut().add(latency, n);
            tier.tick(Tick::from_nanos(now), &given);
            tier.tick(Tick::from_nanos(now), &given);
            let pressure = tier.standing().pressure();
            proptest::prop_assert!((0.0..=1.0).contains(&pressure));
        }
    }
}
