//! What holds for every algorithm.

use proptest::prelude::*;
use tidegate_policy::{Cost, Mode};

use super::*;

const DAY: u64 = 24 * 3600 * 1_000_000_000;

fn limit(algorithm: Algorithm, limit: u64, window_millis: u64) -> Limit {
    Limit {
        policy: "a/b".to_owned(),
        name: "c".to_owned(),
        mode: Mode::Enforce,
        key: Vec::new(),
        algorithm,
        limit,
        window_millis: Some(Millis::new(window_millis).unwrap()),
        cost: Cost::TotalTokens,
        max_keys: None,
        when: Vec::new(),
        on_exhausted: tidegate_policy::OnExhausted::EndStream,
    }
}

/// All algorithms that say when to come again.
fn algorithm() -> impl Strategy<Value = Algorithm> {
    let wait = |millis| Some(Millis::new(millis).unwrap());
    prop_oneof![
        (1u64..20, proptest::option::of(0u64..20)).prop_map(|(burst, initial)| {
            Algorithm::TokenBucket { burst, initial: initial.map(|initial| initial.min(burst)) }
        }),
        (1u64..20).prop_map(|burst| Algorithm::LeakyBucket { burst, max_wait_millis: None }),
        (1u64..20, 1u64..3000)
            .prop_map(move |(burst, millis)| Algorithm::LeakyBucket { burst, max_wait_millis: wait(millis) }),
        (1u32..13).prop_map(|sub_windows| Algorithm::SlidingWindow { sub_windows }),
        Just(Algorithm::SlidingLog),
        Just(Algorithm::FixedWindow),
    ]
}

/// Times that stand still, pass, and jump by days.
fn gap() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(0u64), 6 => 0u64..200_000_000, 1 => 0u64..400 * DAY]
}

fn state(law: Law) -> Vec<AtomicU64> {
    (0..law.words()).map(|_| AtomicU64::new(0)).collect()
}

/// Costs of a log are one.
fn priced(algorithm: Algorithm, cost: u32) -> u32 {
    if algorithm == Algorithm::SlidingLog { 1 } else { cost }
}

proptest! {
    #[test]
    fn a_caller_that_waits_as_told_is_admitted_and_one_nanosecond_earlier_is_not(
        algorithm in algorithm(), most in 1u64..30, millis in 1u64..3000,
        steps in proptest::collection::vec((gap(), 1u32..8), 1..200),
    ) {
        let mut now = 1_000_000_000;
        let law = Law::new(&limit(algorithm, most, millis), Tick::from_nanos(now));
        let state = state(law);
        for (gap, cost) in steps {
            now += gap;
            let cost = priced(algorithm, cost);
            match law.take(Tick::from_nanos(now), cost, &state) {
                Ok(_) => {}
                Err(Tick::NEVER) => prop_assert!(law.judge(Tick::from_nanos(u64::MAX - 1), cost, &state).is_err()),
                Err(at) => {
                    prop_assert!(at > Tick::from_nanos(now));
                    let just_before = Tick::from_nanos(at.as_nanos() - 1);
                    prop_assert_eq!(law.judge(just_before, cost, &state), Err(at));
                    prop_assert_eq!(law.judge(at, cost, &state), Ok(()));
                }
            }
        }
    }

    #[test]
    fn a_request_given_back_at_once_leaves_every_later_verdict_as_it_was(
        algorithm in algorithm(), most in 1u64..30, millis in 1u64..3000,
        steps in proptest::collection::vec((gap(), 1u32..8, any::<bool>()), 1..200),
    ) {
        let mut now = 1_000_000_000;
        let law = Law::new(&limit(algorithm, most, millis), Tick::from_nanos(now));
        let (with, without) = (state(law), state(law));
        for (gap, cost, give_back) in steps {
            now += gap;
            let (at, cost) = (Tick::from_nanos(now), priced(algorithm, cost));
            let taken = law.take(at, cost, &with);
            if let (true, Ok(taken)) = (give_back, taken) {
                law.give_back(taken, cost, &with);
            } else {
                prop_assert_eq!(taken.map(|_| ()), law.take(at, cost, &without).map(|_| ()));
            }
        }
    }

    #[test]
    fn a_key_that_is_fresh_is_judged_as_one_never_seen(
        algorithm in algorithm(), most in 1u64..30, millis in 1u64..3000,
        steps in proptest::collection::vec((gap(), 1u32..8), 1..100),
    ) {
        let mut now = 1_000_000_000;
        let law = Law::new(&limit(algorithm, most, millis), Tick::from_nanos(now));
        let mut used = state(law);
        for (gap, cost) in steps {
            now += gap;
            let (at, cost) = (Tick::from_nanos(now), priced(algorithm, cost));
            if law.is_fresh(at, &used) {
                let new = state(law);
                prop_assert_eq!(law.judge(at, cost, &used), law.judge(at, cost, &new));
                prop_assert_eq!(law.judge_new(at, cost), law.judge(at, cost, &new));
                used = new;
            }
            let _ = law.take(at, cost, &used);
        }
    }
}

#[test]
fn no_extreme_of_any_field_overflows() {
    let bursts = [1, 1_000_000_000];
    let wait = |millis| Some(Millis::new(millis).unwrap());
    let mut algorithms = vec![Algorithm::SlidingLog, Algorithm::FixedWindow];
    algorithms.extend([1, 60].map(|sub_windows| Algorithm::SlidingWindow { sub_windows }));
    for burst in bursts {
        algorithms
            .extend([None, Some(0), Some(burst)].map(|initial| Algorithm::TokenBucket { burst, initial }));
        algorithms.extend(
            [None, wait(1), wait(Millis::MAX)]
                .map(|max_wait_millis| Algorithm::LeakyBucket { burst, max_wait_millis }),
        );
    }
    for algorithm in algorithms {
        for (most, millis) in [(1, 1), (1, Millis::MAX), (1_000_000_000, 1), (1_000_000_000, Millis::MAX)] {
            let law = Law::new(&limit(algorithm, most, millis), Tick::from_nanos(u64::MAX / 2));
            let state = state(law);
            for now in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX].map(Tick::from_nanos) {
                for cost in [1, 1_000_000, u32::MAX] {
                    let cost = priced(algorithm, cost);
                    let _ = law.judge(now, cost, &state);
                    let taken = law.take(now, cost, &state);
                    let charged = law.charge(now, cost, &state);
                    let _ = (law.outstanding(now, &state), law.is_fresh(now, &state));
                    law.give_back(charged, cost, &state);
                    if let Ok(taken) = taken {
                        let _ = law.wait(now, cost, taken);
                        law.give_back(taken, cost, &state);
                    }
                }
            }
        }
    }
}
