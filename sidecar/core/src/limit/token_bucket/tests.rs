use std::num::NonZeroU32;

use governor::clock::FakeRelativeClock;
use governor::{Quota, RateLimiter};
use proptest::prelude::*;

use super::*;

fn nanos(n: u64) -> Tick {
    Tick::from_nanos(n)
}

#[test]
fn a_burst_passes_at_once_and_then_one_request_each_interval() {
    let bucket = TokenBucket::new(10, Duration::from_secs(1), 5);
    let word = AtomicU64::new(0);
    let now = nanos(1_000_000_000);
    for _ in 0..5 {
        bucket.take(now, 1, &word).unwrap();
    }
    assert_eq!(bucket.take(now, 1, &word).unwrap_err(), nanos(1_100_000_000));
    bucket.take(nanos(1_100_000_000), 1, &word).unwrap();
    assert!(bucket.take(nanos(1_100_000_000), 1, &word).is_err());
}

#[test]
fn the_rate_is_never_over_the_limit_when_it_does_not_divide_the_window() {
    let bucket = TokenBucket::new(7, Duration::from_secs(1), 1);
    let word = AtomicU64::new(0);
    let passed = (0..1_000_000u64).filter(|i| bucket.take(nanos(i * 1000), 1, &word).is_ok()).count();
    assert_eq!(passed, 7);
}

#[test]
fn a_raised_limit_keeps_the_requests_outstanding_and_not_the_waiting_time() {
    let slow = TokenBucket::new(1, Duration::from_mins(1), 10);
    let fast = TokenBucket::new(600, Duration::from_mins(1), 10);
    let word = AtomicU64::new(0);
    let now = nanos(5_000_000_000);
    for _ in 0..10 {
        slow.take(now, 1, &word).unwrap();
    }
    let word = AtomicU64::new(fast.convert(slow, now, word.load(Ordering::Relaxed)));
    assert_eq!(fast.judge(now, 1, &word).unwrap_err().since(now), Duration::from_millis(100));
    assert_eq!(fast.outstanding(now, &word), 10);
}

#[test]
fn absurd_parameters_do_not_overflow() {
    let bucket = TokenBucket::new(1, Duration::from_hours(31 * 24), 1_000_000_000);
    let word = AtomicU64::new(0);
    for _ in 0..10_000 {
        let _ = bucket.take(nanos(u64::MAX / 2), 1, &word);
    }
    assert!(bucket.judge(nanos(u64::MAX), 1, &word).is_ok());
}

/// As many in the profile of the benchmarks; a tenth where nothing is optimised.
const EVENTS: u64 = if cfg!(debug_assertions) { 1_000_000 } else { 10_000_000 };

#[test]
fn millions_of_events_are_judged_as_by_governor() {
    let interval = Duration::from_nanos(333_333);
    let quota = Quota::with_period(interval).unwrap().allow_burst(NonZeroU32::new(7).unwrap());
    let clock = FakeRelativeClock::default();
    let theirs = RateLimiter::direct_with_clock(quota, clock.clone());
    let ours = TokenBucket { interval: 333_333, tolerance: 6 * 333_333, origin: 0, paced: false };
    let word = AtomicU64::new(0);
    let (mut now, mut passed) = (0, 0u64);
    for n in 0..EVENTS {
        // From bursts within a microsecond to pauses of two milliseconds.
        let gap = crate::spread::split_mix(n) % if n % 100 < 90 { 100_000 } else { 2_000_000 };
        now += gap;
        clock.advance(Duration::from_nanos(gap));
        let pass = ours.take(nanos(now), 1, &word).is_ok();
        assert_eq!(theirs.check().is_ok(), pass, "event {n} at {now} ns");
        passed += u64::from(pass);
    }
    assert!((EVENTS / 10..EVENTS).contains(&passed), "{passed} of {EVENTS}");
}

proptest! {
    #[test]
    fn in_any_time_no_more_passes_than_its_rate_and_the_burst(
        interval in 1u64..1_000_000_000, burst in 1u64..20,
        steps in proptest::collection::vec((0u64..2_000_000_000, 1u32..6), 1..100),
    ) {
        let bucket = TokenBucket { interval, tolerance: interval * (burst - 1), origin: 0, paced: false };
        let word = AtomicU64::new(0);
        let (mut now, mut log) = (0, Vec::new());
        for (gap, cost) in steps {
            now += gap;
            if bucket.take(nanos(now), cost, &word).is_ok() {
                log.push((now, u64::from(cost)));
            }
            let mut sum = 0;
            for (at, cost) in log.iter().rev() {
                sum += cost;
                prop_assert!(sum <= (now - at) / interval + burst, "{} since {}", sum, at);
            }
        }
    }

    /// What is settled counts as it was used, whatever was estimated.
    #[test]
    fn estimates_that_are_settled_leave_what_was_used(
        burst in 10u64..100,
        steps in proptest::collection::vec((0u64..3_000_000, 1u32..10, 0u32..20), 1..100),
    ) {
        // Never full again meanwhile: ten tokens an hour.
        let bucket = TokenBucket::new(10, Duration::from_hours(1), burst);
        let word = AtomicU64::new(0);
        let (mut now, mut used) = (1_000_000_000, 0);
        for (gap, estimate, real) in steps {
            now += gap;
            let Ok(taken) = bucket.take(nanos(now), estimate, &word) else { continue };
            now += gap;
            if real < estimate {
                bucket.give_back(taken, estimate - real, &word);
            } else {
                bucket.charge(nanos(now), real - estimate, &word);
            }
            used += u64::from(real);
            let outstanding = bucket.outstanding(nanos(now), &word);
            prop_assert!(outstanding <= used && outstanding + 1 >= used, "{} of {}", outstanding, used);
        }
    }

    #[test]
    fn one_nanosecond_before_its_retry_after_a_request_is_refused_and_then_it_passes(
        limit in 1u64..1000, window in 1u64..100_000, burst in 1u64..50,
        gaps in proptest::collection::vec(0u64..50_000_000, 1..200),
    ) {
        let bucket = TokenBucket::new(limit, Duration::from_millis(window), burst);
        let word = AtomicU64::new(0);
        let mut now = 0;
        for gap in gaps {
            now += gap;
            if let Err(at) = bucket.take(nanos(now), 1, &word) {
                prop_assert!(at > nanos(now));
                prop_assert_eq!(bucket.judge(nanos(at.as_nanos() - 1), 1, &word), Err(at));
                prop_assert_eq!(bucket.judge(at, 1, &word), Ok(()));
            }
        }
    }

    #[test]
    fn what_was_given_back_was_never_taken(
        burst in 1u64..20, gaps in proptest::collection::vec((0u64..300_000_000, any::<bool>()), 1..200),
    ) {
        let bucket = TokenBucket::new(10, Duration::from_secs(1), burst);
        let (with, without) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut now = 0;
        for (gap, give_back) in gaps {
            now += gap;
            let taken = bucket.take(nanos(now), 1, &with);
            if let (true, Ok(taken)) = (give_back, taken) {
                bucket.give_back(taken, 1, &with);
                prop_assert!(bucket.judge(nanos(now), 1, &without).is_ok());
            } else {
                prop_assert_eq!(taken.map(|_| ()), bucket.take(nanos(now), 1, &without).map(|_| ()));
            }
        }
    }

    /// Governor starts its time at zero with a word of its own; both must say the same to every request.
    #[test]
    fn verdicts_are_those_of_governor(
        interval_micros in 1u64..1_000_000, burst in 1u32..40,
        gaps in proptest::collection::vec(0u64..3_000_000, 1..300),
    ) {
        let quota = Quota::with_period(Duration::from_micros(interval_micros))
            .unwrap()
            .allow_burst(NonZeroU32::new(burst).unwrap());
        let clock = FakeRelativeClock::default();
        let theirs = RateLimiter::direct_with_clock(quota, clock.clone());
        let ours = TokenBucket::new(1, Duration::from_micros(interval_micros), u64::from(burst));
        let word = AtomicU64::new(0);
        let mut now = 0;
        for (i, gap) in gaps.into_iter().enumerate() {
            now += gap * 1000;
            clock.advance(Duration::from_micros(gap));
            prop_assert_eq!(
                theirs.check().is_ok(), ours.take(nanos(now), 1, &word).is_ok(), "request {} at {} ns", i, now
            );
        }
    }
}
