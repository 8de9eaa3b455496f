use std::time::Duration;

use proptest::prelude::*;
use tidegate_policy::{Condition, Cost, HeaderName, KeyPart, Limit, Match, Millis, PriorityClass, Subject};

use super::*;
use crate::Tokens;
use crate::limit::Judged;
use crate::testing::Request;

const START: u64 = 5_000_000_000;

fn limit(algorithm: Algorithm, limit: u64, keyed: bool) -> Limit {
    let key = KeyPart::Header(HeaderName::new("x-api-key").unwrap());
    Limit {
        policy: "inference/llama".to_owned(),
        name: "told".to_owned(),
        mode: Mode::Enforce,
        key: if keyed { vec![key] } else { Vec::new() },
        algorithm,
        limit,
        window_millis: (algorithm != Algorithm::Concurrency).then(|| Millis::new(1000).unwrap()),
        cost: Cost::Requests,
        max_keys: None,
        when: Vec::new(),
        on_exhausted: tidegate_policy::OnExhausted::EndStream,
    }
}

fn passes(limits: &Limits, now: Tick) -> bool {
    let (request, class) = (Request::from("10.0.0.1").with("x-api-key", "ann"), PriorityClass::Medium);
    let mut judged = Judged::new();
    limits.find(&request.facts(), &mut judged);
    // What is in flight stays in flight.
    limits.take(now, class, &request.facts(), &mut judged, &mut None).is_ok()
}

/// Limits after requests with these pauses before them, and when the last one came.
fn after(limit: &Limit, pauses: &[u64]) -> (Limits, Tick) {
    let limits = Limits::new(std::slice::from_ref(limit), 7, Tick::from_nanos(START));
    let mut now = START;
    for pause in pauses {
        now += pause;
        passes(&limits, Tick::from_nanos(now));
    }
    (limits, Tick::from_nanos(now))
}

/// How many requests pass one after another, in no time.
fn pass_at_once(limits: &Limits, now: Tick) -> u64 {
    (0..200).take_while(|_| passes(limits, now)).count() as u64
}

fn only_quota(limits: &Limits, now: Tick) -> (u64, Option<Duration>, Option<Duration>) {
    let request = Request::from("10.0.0.1").with("x-api-key", "ann");
    let keys = limits.quota_keys(&request.facts());
    let quotas: Vec<_> = limits.quotas(now, &keys).collect();
    let [quota] = quotas[..] else { panic!("one rule, one quota") };
    (quota.remaining, quota.more_in, quota.whole_in)
}

fn algorithms() -> impl Strategy<Value = Algorithm> {
    prop_oneof![
        (1..30u64, proptest::option::of(0..30u64)).prop_map(|(burst, initial)| Algorithm::TokenBucket {
            burst,
            initial: initial.map(|initial| initial.min(burst)),
        }),
        (1..30u64).prop_map(|burst| Algorithm::LeakyBucket { burst, max_wait_millis: None }),
        (1..30u64, 1..3000u64).prop_map(|(burst, wait)| Algorithm::LeakyBucket {
            burst,
            max_wait_millis: Millis::new(wait).ok(),
        }),
        (1..20u32).prop_map(|sub_windows| Algorithm::SlidingWindow { sub_windows }),
        Just(Algorithm::SlidingLog),
        Just(Algorithm::FixedWindow),
        Just(Algorithm::Concurrency),
    ]
}

proptest! {
    #[test]
    fn as_many_requests_as_are_told_to_remain_pass_and_not_one_more(
        algorithm in algorithms(), most in 1..30u64, keyed: bool,
        pauses in proptest::collection::vec(0..400_000_000u64, 0..40), later in 0..1_500_000_000u64,
    ) {
        let (limits, last) = after(&limit(algorithm, most, keyed), &pauses);
        let now = last + Duration::from_nanos(later);
        let (remaining, ..) = only_quota(&limits, now);
        prop_assert_eq!(pass_at_once(&limits, now), remaining);
    }

    #[test]
    fn one_nanosecond_before_more_is_told_there_is_no_more_and_then_there_is(
        algorithm in algorithms(), most in 1..30u64, keyed: bool,
        pauses in proptest::collection::vec(0..400_000_000u64, 0..40), later in 0..1_500_000_000u64,
    ) {
        let limit = limit(algorithm, most, keyed);
        let state = || after(&limit, &pauses);
        let (limits, last) = state();
        let now = last + Duration::from_nanos(later);
        let (remaining, more, whole) = only_quota(&limits, now);
        let size = pass_at_once(&after(&limit, &[]).0, Tick::from_nanos(u64::MAX / 4));
        if let Some(more) = more {
            let before = more.saturating_sub(Duration::from_nanos(1));
            prop_assert!(pass_at_once(&state().0, now + before) <= remaining);
            prop_assert!(pass_at_once(&state().0, now + more) > remaining);
        } else if algorithm != Algorithm::Concurrency {
            prop_assert_eq!(remaining, size, "nothing more to come");
        }
        if let Some(whole) = whole {
            prop_assert_eq!(pass_at_once(&state().0, now + whole), size);
            let before = now + whole.saturating_sub(Duration::from_nanos(1));
            prop_assert!(whole.is_zero() || pass_at_once(&state().0, before) < size);
        }
    }
}

#[test]
fn what_is_in_flight_is_told_without_a_time() {
    let (limits, now) = after(&limit(Algorithm::Concurrency, 5, true), &[0, 0]);
    assert_eq!(only_quota(&limits, now), (3, None, None));
}

#[test]
fn a_limit_in_shadow_is_not_told_and_every_other_says_what_it_counts() {
    let tokens = Limit {
        name: "tpm".to_owned(),
        cost: Cost::TotalTokens,
        ..limit(Algorithm::FixedWindow, 1000, true)
    };
    let of_others = Condition {
        of: Subject::Header(HeaderName::new("x-api-key").unwrap()),
        is: Match::NotIn(vec!["ann".to_owned()]),
    };
    let all = [
        Limit { mode: Mode::Shadow, name: "shadow".to_owned(), ..limit(Algorithm::FixedWindow, 1, false) },
        limit(Algorithm::FixedWindow, 9, false),
        Limit {
            name: "of-others".to_owned(),
            when: vec![of_others],
            ..limit(Algorithm::SlidingLog, 3, true)
        },
        Limit { name: "busy".to_owned(), ..limit(Algorithm::Concurrency, 4, true) },
        tokens,
    ];
    let now = Tick::from_nanos(START);
    let limits = Limits::new(&all, 7, now);
    let estimate = Tokens { input: 30, cached: 0, output: 70 };
    let request = Request::from("10.0.0.1").with("x-api-key", "ann").estimated(estimate);
    let mut judged = Judged::new();
    limits.find(&request.facts(), &mut judged);
    limits.take(now, PriorityClass::Medium, &request.facts(), &mut judged, &mut None).unwrap();
    let keys = limits.quota_keys(&request.facts());
    let mut told: Vec<_> = limits
        .quotas(now, &keys)
        .map(|quota| {
            (quota.rule.name.as_str(), quota.unit, quota.limit, quota.remaining, quota.key.is_some())
        })
        .collect();
    told.sort_by_key(|(name, ..)| *name);
    assert_eq!(
        told,
        [
            ("busy", QuotaUnit::InFlight, 4, 3, true),
            ("told", QuotaUnit::Requests, 9, 8, false),
            ("tpm", QuotaUnit::Tokens, 1000, 900, true),
        ]
    );
}
