use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn nanos(n: u64) -> Tick {
    Tick::from_nanos(n)
}

fn state(log: SlidingLog) -> Vec<AtomicU64> {
    (0..log.words()).map(|_| AtomicU64::new(0)).collect()
}

#[test]
fn a_place_is_free_to_the_nanosecond() {
    let log = SlidingLog::new(2, Duration::from_secs(1));
    let state = state(log);
    log.take(nanos(100), &state).unwrap();
    log.take(nanos(200), &state).unwrap();
    assert_eq!(log.take(nanos(300), &state).unwrap_err(), nanos(1_000_000_100));
    log.take(nanos(1_000_000_100), &state).unwrap();
    assert_eq!(log.take(nanos(1_000_000_100), &state).unwrap_err(), nanos(1_000_000_200));
    assert_eq!(log.outstanding(nanos(1_000_000_150), &state), 2);
}

#[test]
fn a_key_takes_eight_bytes_for_each_of_its_limit_and_the_hint() {
    assert_eq!(SlidingLog::new(100, Duration::from_secs(1)).words(), 101);
}

#[test]
fn a_log_of_another_length_keeps_the_youngest() {
    let (old, new) =
        (SlidingLog::new(4, Duration::from_secs(10)), SlidingLog::new(2, Duration::from_secs(5)));
    let (from, to) = (state(old), state(new));
    for second in [1, 2, 3, 8] {
        old.take(nanos(second * 1_000_000_000), &from).unwrap();
    }
    new.convert(old, &from, &to);
    let now = nanos(8_500_000_000);
    assert_eq!(new.outstanding(now, &to), 1, "what is younger than 5 s counts on");
    new.take(now, &to).unwrap();
    assert_eq!(new.take(now, &to).unwrap_err(), nanos(13_000_000_000));
}

#[test]
fn threads_that_race_for_the_last_places_never_take_more() {
    let log = SlidingLog::new(50, Duration::from_secs(1));
    let state = state(log);
    let passed = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..1000 {
                    if log.take(nanos(n), &state).is_ok() {
                        passed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 50);
}

proptest! {
    /// The law and its converse: a request passes exactly when fewer than the limit have in the window before it.
    #[test]
    fn it_admits_exactly_what_fits_into_the_trailing_window(
        limit in 1u64..20, micros in 1u64..2_000_000,
        gaps in proptest::collection::vec(0u64..400_000_000, 1..400),
    ) {
        let log = SlidingLog::new(limit, Duration::from_micros(micros));
        let state = state(log);
        let mut admitted = VecDeque::new();
        let mut now = 0;
        for gap in gaps {
            now += gap;
            admitted.retain(|&t| t + micros * 1000 > now);
            let fits = admitted.len() < limit as usize;
            prop_assert_eq!(log.take(nanos(now), &state).is_ok(), fits);
            if fits {
                admitted.push_back(now);
            }
        }
    }

    #[test]
    fn one_nanosecond_before_its_retry_after_a_request_is_refused_and_then_it_passes(
        limit in 1u64..20, millis in 1u64..2000,
        gaps in proptest::collection::vec(0u64..100_000_000, 1..300),
    ) {
        let log = SlidingLog::new(limit, Duration::from_millis(millis));
        let state = state(log);
        let mut now = 0;
        for gap in gaps {
            now += gap;
            if let Err(at) = log.take(nanos(now), &state) {
                prop_assert!(at > nanos(now));
                prop_assert_eq!(log.judge(nanos(at.as_nanos() - 1), &state), Err(at));
                prop_assert_eq!(log.judge(at, &state), Ok(()));
            }
        }
    }

    #[test]
    fn what_was_given_back_was_never_taken(
        gaps in proptest::collection::vec((0u64..300_000_000, any::<bool>()), 1..200),
    ) {
        let log = SlidingLog::new(4, Duration::from_secs(1));
        let (with, without) = (state(log), state(log));
        let mut now = 0;
        for (gap, give_back) in gaps {
            now += gap;
            let taken = log.take(nanos(now), &with);
            if let (true, Ok(taken)) = (give_back, taken) {
                log.give_back(taken, &with);
                prop_assert!(log.judge(nanos(now), &without).is_ok());
            } else {
                prop_assert_eq!(taken.map(|_| ()), log.take(nanos(now), &without).map(|_| ()));
            }
        }
    }
}
