use proptest::prelude::*;

use super::*;

fn second(n: u64) -> Tick {
    Tick::from_nanos(n * 1_000_000_000)
}

fn part(value: f64, tripped: bool) -> Part {
    Part { pressure: of_tier(Some((value, 100.0)), f64::from(tripped)), tripped }
}

#[test]
fn it_rises_from_eighty_percent_of_the_ceiling_to_the_ceiling() {
    let at = |value, grip| of_tier(Some((value, 100.0)), grip);
    let near = |pressure: f64, expected: f64| assert!((pressure - expected).abs() < 1e-9, "{pressure}");
    for (value, calm, shedding) in
        [(0.0, 0.0, 0.5), (80.0, 0.0, 0.5), (84.0, 0.2, 0.5), (95.0, 0.5, 0.75), (500.0, 0.5, 1.0)]
    {
        near(at(value, 0.0), calm);
        near(at(value, 1.0), shedding);
        near(at(value, 0.5), calm.max(0.25));
    }
}

#[test]
fn a_tier_that_sheds_presses_even_when_its_value_is_low_or_gone() {
    assert!(of_tier(Some((1.0, 100.0)), 1.0) >= SHEDDING);
    assert!(of_tier(None, 1.0) >= SHEDDING);
    assert!(of_tier(None, 0.0) <= 0.0);
    assert!(of_tier(Some((0.0, 0.0)), 0.0) <= SHEDDING, "a ceiling of zero is no number");
}

#[test]
fn calm_tiers_do_not_talk_a_tripped_one_down() {
    let parts = [part(200.0, true), part(0.0, false), part(0.0, false)];
    let mut fusion = Fusion::new(false, second(0));
    assert!((softmax(&parts)[0] - 0.576).abs() < 1e-3, "the plain mean of 1, 0 and 0");
    assert!((fusion.score(&parts) - 1.0).abs() < 1e-9);
    (1..100).for_each(|n| fusion.tick(second(n), &[part(0.0, false); 3]));
    assert!((fusion.score(&parts) - 1.0).abs() < 1e-9);
}

#[test]
fn weights_move_by_three_tenths_of_the_way_and_only_on_ticks() {
    let calm = [part(0.0, false); 3];
    let pressed = [part(95.0, false), part(0.0, false), part(0.0, false)];
    let mut fusion = Fusion::new(false, second(0));
    fusion.tick(second(1), &calm);
    let target = softmax(&pressed)[0];
    let expected = |before: f64| before + 0.3 * (target - before);
    for _ in 0..10 {
        assert!((fusion.weights(&pressed)[0] - expected(1.0 / 3.0)).abs() < 1e-9, "asking moves nothing");
    }
    fusion.tick(second(2), &pressed);
    fusion.tick(second(2), &pressed);
    assert!((fusion.weights(&pressed)[0] - expected(expected(1.0 / 3.0))).abs() < 1e-9);
}

#[test]
fn one_tier_alone_is_the_score() {
    let mut fusion = Fusion::new(false, second(0));
    for (n, value) in [(1, 84.0), (2, 95.0), (3, 20.0)] {
        fusion.tick(second(n), &[part(value, false)]);
        assert!((fusion.score(&[part(value, false)]) - part(value, false).pressure).abs() < 1e-9);
    }
}

fn any_parts() -> impl Strategy<Value = Vec<(f64, bool)>> {
    proptest::collection::vec((0.0f64..300.0, any::<bool>()), 3)
}

proptest! {
    #[test]
    fn the_score_is_monotone_in_every_tier_and_never_below_one_that_sheds(
        history in proptest::collection::vec(any_parts(), 0..200), tiers in any_parts(),
        count in 1usize..4, which in 0usize..3, rise in 0.0f64..100.0, calibrated in any::<bool>(),
    ) {
        let parts = |tiers: &[(f64, bool)]| -> Vec<Part> {
            tiers.iter().take(count).map(|&(value, tripped)| part(value, tripped)).collect()
        };
        let mut fusion = Fusion::new(calibrated, second(0));
        for (n, tiers) in history.iter().enumerate() {
            fusion.tick(second(n as u64 + 1), &parts(tiers));
        }
        let score = |tiers: &[(f64, bool)]| fusion.score(&parts(tiers));
        let before = score(&tiers);
        prop_assert!((0.0..=1.0).contains(&before));
        for part in parts(&tiers).iter().filter(|part| part.tripped) {
            prop_assert!(before >= part.pressure && before >= SHEDDING);
        }
        let mut risen = tiers.clone();
        let which = which % count;
        risen[which].0 += rise;
        prop_assert!(score(&risen) >= before - 1e-12, "{before} fell to {}", score(&risen));
        risen[which].1 = true;
        prop_assert!(score(&risen) >= before - 1e-12);
        let weights: f64 = fusion.weights(&parts(&tiers)).iter().sum();
        prop_assert!((weights - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_tiers_own_pressure_rises_with_its_value_and_with_its_grip(
        value in 0.0f64..300.0, rise in 0.0f64..100.0, grip in 0.0f64..=1.0, tighter in 0.0f64..1.0,
    ) {
        let at = |value, grip| of_tier(Some((value, 100.0)), grip);
        prop_assert!(at(value + rise, grip) >= at(value, grip));
        prop_assert!(at(value, (grip + tighter).min(1.0)) >= at(value, grip));
    }
}
