use tidegate_policy::report::TierState;
use tidegate_policy::{Factor, LearnedQps, Millis, Rate, Ratio};

use super::*;

fn recovery() -> Recovery {
    let hold_millis = Millis::new(3000).unwrap();
    Recovery { below_ratio: Ratio::new(0.9).unwrap(), hold_millis, ramp_millis: None }
}

fn config(max: Option<f64>, minimum_samples: Option<u32>) -> QpsTier {
    QpsTier {
        sample_interval_millis: Millis::new(1000).unwrap(),
        window_millis: Millis::new(10_000).unwrap(),
        learned: minimum_samples.map(|minimum_samples| LearnedQps {
            sigma: Factor::new(2.0).unwrap(),
            factor: Factor::new(1.5).unwrap(),
            floor: Rate::new(10.0).unwrap(),
            minimum_samples,
            minimum_requests: 0,
            growth_per_hour: None,
            seed: None,
        }),
        max: max.map(|max| Rate::new(max).unwrap()),
    }
}

/// So many requests, all served.
fn all(offered: u64) -> Counts {
    Counts { offered, admitted: offered, succeeded: offered }
}

/// A tier and the requests of each second, all served.
fn after(config: QpsTier, seconds: &[u64]) -> Qps {
    let mut tier = Qps::new(config, recovery(), second(0), all(0));
    let mut offered = 0;
    for (i, n) in seconds.iter().enumerate() {
        offered += n;
        tier.tick(second(i as u64 + 1), all(offered));
    }
    tier
}

fn second(n: u64) -> Tick {
    Tick::from_nanos(n * 1_000_000_000)
}

#[test]
fn the_ceiling_is_one_and_a_half_times_the_mean_and_two_deviations() {
    let tier = after(config(None, Some(4)), &[80, 120, 80, 120]);
    assert!((tier.ceiling().unwrap() - (100.0 + 2.0 * 20.0) * 1.5).abs() < 1e-9);
    assert_eq!(tier.standing().state, TierState::Normal);
}

#[test]
fn it_is_learning_and_trips_over_nothing_until_it_has_enough_samples() {
    let tier = after(config(None, Some(4)), &[1, 1, 100_000]);
    assert_eq!((tier.standing().state, tier.ceiling()), (TierState::Learning, None));
    let idle = after(config(None, Some(4)), &[0, 0, 0, 0, 0]);
    assert_eq!(idle.standing().state, TierState::Learning, "an idle engine teaches nothing");
}

#[test]
fn a_given_ceiling_holds_from_the_first_request_and_the_lower_of_both_after() {
    let learning = after(config(Some(50.0), Some(4)), &[51]);
    assert_eq!(learning.standing().state, TierState::Tripped);
    assert!(after(config(Some(50.0), Some(2)), &[4, 4]).ceiling() < Some(50.0));
    assert_eq!(after(config(Some(50.0), Some(2)), &[40, 40]).ceiling(), Some(50.0));
}

#[test]
fn a_tripped_sample_teaches_nothing() {
    let mut tier = after(config(None, Some(2)), &[20, 20]);
    let ceiling = tier.ceiling();
    for i in 0..5 {
        tier.taint();
        tier.tick(second(3 + i), all(40 + 500 * (i + 1)));
    }
    assert_eq!((tier.standing().state, tier.ceiling()), (TierState::Tripped, ceiling));
}

#[test]
fn a_burst_trips_without_waiting_for_the_end_of_the_sample() {
    let mut tier = after(config(Some(50.0), None), &[10]);
    let now = second(1) + Duration::from_millis(200);
    assert!(!tier.burst(now, all(60)), "50 requests are allowed");
    assert!(tier.burst(now, all(61)));
    let standing = tier.standing();
    assert_eq!(standing.state, TierState::Tripped);
    assert_eq!(standing.hysteresis.last().unwrap().reason, "51.0 requests/s over the ceiling of 50.0");
}

#[test]
fn a_sample_that_is_closed_late_does_not_trip_over_its_length() {
    let mut tier = after(config(Some(50.0), None), &[10]);
    assert!(!tier.burst(second(2) + Duration::from_millis(100), all(10 + 54)));
    tier.tick(second(2) + Duration::from_millis(100), all(10 + 54));
    assert_eq!(tier.standing().state, TierState::Normal);
}

#[test]
fn it_recovers_by_itself_after_the_hold_time() {
    let tier = after(config(Some(50.0), None), &[10, 90, 46, 44, 44, 44]);
    assert_eq!(tier.standing().state, TierState::Recovering, "46 is not below 90 % of 50");
    let tier = after(config(Some(50.0), None), &[10, 90, 46, 44, 44, 44, 44]);
    assert_eq!(tier.standing().state, TierState::Normal);
}

#[test]
fn other_parameters_act_on_what_was_learned() {
    let tier = after(config(None, Some(2)), &[40, 40, 40]);
    let lower = tier.succeed(config(Some(30.0), Some(2)), recovery());
    assert_eq!(lower.ceiling(), Some(30.0));
    let more = tier.succeed(config(None, Some(4)), recovery());
    assert_eq!(more.standing().state, TierState::Learning);
}

#[test]
fn only_what_was_served_teaches() {
    let mut tier = Qps::new(config(None, Some(2)), recovery(), second(0), all(0));
    for n in 1..=10 {
        tier.tick(second(n), Counts { offered: 100 * n, admitted: 20 * n, succeeded: 20 * n });
    }
    assert_eq!(tier.standing().baseline, Some(20.0), "100 a second came, 20 were served");
    tier.taint();
    tier.tick(second(11), Counts { offered: 1100, admitted: 1100, succeeded: 1100 });
    assert_eq!(tier.standing().baseline, Some(20.0), "some other tier was tripped");
}

#[test]
fn a_cap_below_one_request_in_a_sample_is_counted_over_a_longer_one() {
    let half = config(Some(0.5), None);
    let every_two_seconds = after(half, &[1, 0, 1, 0, 1, 0]);
    assert_eq!(every_two_seconds.standing().state, TierState::Normal);
    assert_eq!(after(half, &[1, 1]).standing().state, TierState::Tripped);
    let mut tier = after(half, &[]);
    assert!(!tier.burst(second(1), all(1)), "the first request is not too many");
    assert!(tier.burst(second(1), all(2)));
}

proptest::proptest! {
    /// Law: extremes of every field, and time that stands still or jumps, neither overflow nor panic, and the
    /// ceiling is a number over zero.
    #[test]
    fn no_field_and_no_jump_of_time_breaks_it(
        interval in 1u64..=Millis::MAX / 2, samples in 2u64..=3600, numbers in proptest::array::uniform4(1e-6f64..1000.0),
        max in 1e-6f64..1e9, seed in proptest::option::of(1e-6f64..1e9), minimum in 0u32..,
        steps in proptest::collection::vec((0u64..u64::MAX / 64, 0u64..1 << 40), 1..40),
    ) {
        let window = interval.saturating_mul(samples).min(Millis::MAX);
        let [sigma, factor, floor, growth] = numbers;
        let learned = LearnedQps {
            sigma: Factor::new(sigma).unwrap(),
            factor: Factor::new(factor).unwrap(),
            floor: Rate::new(floor).unwrap(),
            minimum_samples: 2,
            minimum_requests: minimum,
            growth_per_hour: Ratio::new(growth / 1000.0).ok(),
            seed: seed.map(|seed| Rate::new(seed).unwrap()),
        };
        let config = QpsTier {
            sample_interval_millis: Millis::new(interval).unwrap(),
            window_millis: Millis::new(window).unwrap(),
            learned: Some(learned),
            max: Rate::new(max).ok(),
        };
        let mut tier = Qps::new(config, recovery(), second(0), all(0));
        let (mut now, mut offered) = (0u64, 0);
        for (jump, n) in steps {
            now = now.saturating_add(jump);
            offered += n;
            tier.tick(Tick::from_nanos(now), all(offered));
            tier.tick(Tick::from_nanos(now), all(offered));
            tier.burst(Tick::from_nanos(now), all(offered));
            let ceiling = tier.ceiling().unwrap();
            proptest::prop_assert!(ceiling.is_finite() && ceiling > 0.0, "{ceiling}");
        }
    }
}

#[test]
fn refused_clients_that_come_again_and_again_do_not_press() {
    let mut tier = after(config(Some(50.0), None), &[10]);
    tier.tick(second(2), Counts { offered: 500, admitted: 20, succeeded: 20 });
    let standing = tier.standing();
    assert_eq!((standing.state, standing.value), (TierState::Tripped, Some(490.0)));
    assert!((standing.pressure() - 0.5).abs() < 1e-9, "the engine gets 10 requests of 50");
    tier.tick(second(3), Counts { offered: 1000, admitted: 70, succeeded: 70 });
    assert!((tier.standing().pressure() - 1.0).abs() < 1e-9, "the engine gets all that it can take");
}
