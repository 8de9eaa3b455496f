use proptest::prelude::*;
use tidegate_policy::Factor;

use super::*;
use crate::spread::split_mix;

fn learned(minimum_requests: u32, growth: Option<f64>, seed: Option<f64>) -> LearnedQps {
    LearnedQps {
        sigma: Factor::new(2.0).unwrap(),
        factor: Factor::new(1.5).unwrap(),
        floor: Rate::new(0.001).unwrap(),
        minimum_samples: 60,
        minimum_requests,
        growth_per_hour: growth.map(|growth| Ratio::new(growth).unwrap()),
        seed: seed.map(|seed| Rate::new(seed).unwrap()),
    }
}

fn baseline(config: LearnedQps) -> Baseline {
    Baseline::new(config, Duration::from_secs(1), Duration::from_mins(5))
}

/// Requests in each second of a Poisson process.
fn poisson(mean: f64, seed: u64) -> impl Iterator<Item = u64> {
    let uniform = (0u64..).map(move |n| {
        let bits = split_mix(seed.wrapping_mul(0xA5A5_A5A5).wrapping_add(n)) >> 11;
        (bits as f64 + 0.5) / (1u64 << 53) as f64
    });
    let arrivals = uniform.scan(0.0, move |at, share| {
        *at -= share.ln() / mean;
        Some(*at)
    });
    let mut arrivals = arrivals.peekable();
    (1u64..).map(move |end| {
        let mut n = 0;
        while arrivals.next_if(|at| *at < end as f64).is_some() {
            n += 1;
        }
        n
    })
}

#[test]
fn sparse_poisson_traffic_never_trips_by_chance_where_the_plain_formula_does_every_minute() {
    const HOURS: usize = 6;
    let mut plain_trips = 0;
    for (i, mean) in [0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0].into_iter().enumerate() {
        let mut ours = baseline(learned(0, Some(0.5), None));
        let mut past = VecDeque::new();
        for (second, n) in poisson(mean, i as u64 + 1).take(HOURS * 3600).enumerate() {
            let rate = n as f64;
            assert!(
                ours.ceiling().is_none_or(|ceiling| rate <= ceiling),
                "{rate} at {mean}/s, second {second}"
            );
            ours.learn(rate);
            if (mean - 0.5).abs() < 1e-9 && past.len() == 300 {
                let average = past.iter().sum::<f64>() / 300.0;
                let variance = past.iter().map(|rate: &f64| (rate - average).powi(2)).sum::<f64>() / 300.0;
                plain_trips += usize::from(rate > (average + 2.0 * variance.sqrt()) * 1.5);
            }
            past.push_back(rate);
            past.drain(..past.len().saturating_sub(300));
        }
    }
    let every = HOURS * 3600 / plain_trips;
    assert!((55..=110).contains(&every), "the plain formula trips on one second in {every}");
}

#[test]
fn an_idle_hour_keeps_the_ceiling_and_short_gaps_are_part_of_sparse_traffic() {
    let mut baseline = baseline(learned(0, None, None));
    (0..300).for_each(|_| baseline.learn(100.0));
    let (ceiling, average) = (baseline.ceiling(), baseline.average());
    (0..3600).for_each(|_| baseline.learn(0.0));
    assert_eq!((baseline.ceiling(), baseline.average()), (ceiling, average));
    baseline.learn(100.0);
    assert_eq!((baseline.ceiling(), baseline.average()), (ceiling, average));
    (0..150).for_each(|_| [0.0, 100.0].into_iter().for_each(|rate| baseline.learn(rate)));
    assert_eq!(baseline.average(), Some(50.0));
}

#[test]
fn the_ceiling_is_never_below_the_floor_nor_the_least_number_of_requests() {
    let mut baseline = baseline(learned(40, None, None));
    (0..100).for_each(|_| baseline.learn(1.0));
    assert_eq!(baseline.ceiling(), Some(40.0));
    let floor = LearnedQps { floor: Rate::new(70.0).unwrap(), ..learned(40, None, None) };
    assert_eq!(baseline.succeed(floor, Duration::from_secs(1), Duration::from_mins(5)).ceiling(), Some(70.0));
}

#[test]
fn a_new_pod_begins_with_the_average_of_its_siblings() {
    let mut seeded = baseline(learned(0, Some(0.5), Some(100.0)));
    let from_siblings = seeded.ceiling().unwrap();
    assert!((from_siblings - (100.0 + 2.0 * 10.0) * 1.5).abs() < 1e-9, "{from_siblings}");
    assert_eq!(seeded.average(), Some(100.0));
    (0..100).for_each(|_| seeded.learn(1000.0));
    let grown = seeded.ceiling().unwrap();
    assert!(grown < from_siblings * 1.02, "{grown}: growth is bounded from the first sample on");
    assert_eq!(baseline(learned(0, Some(0.5), None)).ceiling(), None);
}

#[test]
fn a_seed_outlives_the_document_that_brought_it() {
    let born = baseline(learned(0, Some(0.5), Some(100.0)));
    let (second, window) = (Duration::from_secs(1), Duration::from_mins(5));
    let same = born.succeed(learned(0, Some(0.5), None), second, window);
    assert_eq!(same.ceiling(), born.ceiling());
    let other = born.succeed(learned(500, Some(0.5), None), second, window);
    assert_eq!((other.average(), other.ceiling()), (Some(100.0), Some(500.0)));
    let given = born.succeed(learned(0, Some(0.5), Some(200.0)), second, window);
    assert_eq!(given.average(), Some(200.0));
}

proptest! {
    // Each case replays hours.
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Law: however its traffic goes, a ceiling that has seen a whole window grows and falls no faster than it may.
    #[test]
    fn the_ceiling_never_moves_faster_than_its_cap(
        stretches in proptest::collection::vec((0.0f64..100_000.0, 1usize..2000), 1..8), growth in 0.01f64..1.0,
    ) {
        let mut baseline = baseline(learned(0, Some(growth), None));
        (0..300).for_each(|_| baseline.learn(10.0));
        let mut past: VecDeque<f64> = VecDeque::new();
        for rate in stretches.iter().flat_map(|(rate, n)| std::iter::repeat_n(*rate, *n)) {
            past.push_back(baseline.ceiling().unwrap());
            baseline.learn(if rate < 5000.0 { 0.0 } else { rate });
            let now = baseline.ceiling().unwrap();
            for hours in [1.0 / HOUR, 0.1, 1.0] {
                let back = (hours * HOUR).round() as usize;
                if let Some(before) = past.len().checked_sub(back).map(|i| past[i]) {
                    let most = (1.0 + growth).powf(hours) * (1.0 + 1e-9);
                    // A gap of up to thirty samples counts when it ends.
                    let gap = (1.0 + growth).powf(31.0 / HOUR);
                    prop_assert!(now <= before * most * gap && now >= before / most / gap, "{before} to {now}");
                }
            }
        }
    }
}
