use proptest::prelude::*;

use super::*;

fn nanos(n: u64) -> Tick {
    Tick::from_nanos(n)
}

fn second(n: u64) -> Tick {
    nanos(n * 1_000_000_000)
}

#[test]
fn a_window_counts_from_its_beginning_and_the_next_one_anew() {
    let window = FixedWindow::new(3, Duration::from_mins(1));
    let word = AtomicU64::new(0);
    for _ in 0..3 {
        window.take(second(59), 1, &word).unwrap();
    }
    assert_eq!(window.take(second(59), 1, &word).unwrap_err(), second(60));
    assert_eq!(window.outstanding(second(59), &word), 3);
    assert_eq!(window.outstanding(second(60), &word), 0);
    for _ in 0..3 {
        window.take(second(60), 1, &word).unwrap();
    }
    assert_eq!(window.take(second(60), 1, &word).unwrap_err(), second(120));
}

#[test]
fn a_thread_whose_clock_lies_behind_counts_in_the_window_of_the_others() {
    let window = FixedWindow::new(1, Duration::from_mins(1));
    let word = AtomicU64::new(0);
    window.take(second(60), 1, &word).unwrap();
    assert_eq!(window.take(nanos(59_999_999_999), 1, &word).unwrap_err(), second(120));
}

#[test]
fn a_request_that_costs_more_than_the_limit_never_passes() {
    let window = FixedWindow::new(3, Duration::from_mins(1));
    assert_eq!(window.judge(second(1), 4, &AtomicU64::new(0)), Err(Tick::NEVER));
}

#[test]
fn what_was_used_beyond_the_estimate_counts_and_saturates() {
    let window = FixedWindow::new(10, Duration::from_mins(1));
    let word = AtomicU64::new(0);
    window.take(second(1), 4, &word).unwrap();
    window.charge(second(2), 20, &word);
    assert_eq!(window.outstanding(second(2), &word), 24);
    window.charge(second(2), u32::MAX, &word);
    assert_eq!(window.outstanding(second(2), &word), window.most());
    assert_eq!(window.outstanding(second(60), &word), 0);
}

#[test]
fn the_numbers_of_short_windows_do_not_come_again_within_the_life_of_a_key() {
    let day = 24 * 3600;
    let window = FixedWindow::new(1000, Duration::from_millis(1));
    let word = AtomicU64::new(0);
    window.charge(second(0), 1000, &word);
    for years in 1..500 {
        assert_eq!(window.outstanding(second(years * 365 * day), &word), 0);
    }
    // What a thread counted whose clock is ahead still counts.
    assert_eq!(window.judge(second(0), 1, &word), Err(nanos(1_000_000)));
}

#[test]
fn counts_of_another_limit_count_on_as_far_as_they_fit() {
    let (high, low) =
        (FixedWindow::new(1_000_000, Duration::from_mins(1)), FixedWindow::new(5, Duration::from_mins(1)));
    assert!(!low.same_windows(high));
    let word = AtomicU64::new(0);
    high.take(second(1), 900_000, &word).unwrap();
    let word = AtomicU64::new(low.convert(high, second(2), word.load(Ordering::Relaxed)));
    assert_eq!(low.outstanding(second(2), &word), low.most());
    assert_eq!(low.judge(second(2), 1, &word), Err(second(60)));
    assert_eq!(low.judge(second(60), 1, &word), Ok(()));
}

#[test]
fn a_window_of_another_length_counts_on() {
    let (old, new) =
        (FixedWindow::new(5, Duration::from_mins(1)), FixedWindow::new(5, Duration::from_mins(2)));
    let word = AtomicU64::new(0);
    for _ in 0..4 {
        old.take(second(70), 1, &word).unwrap();
    }
    let word = AtomicU64::new(new.convert(old, second(71), word.load(Ordering::Relaxed)));
    assert_eq!(new.outstanding(second(71), &word), 4);
    new.take(second(71), 1, &word).unwrap();
    assert_eq!(new.take(second(71), 1, &word).unwrap_err(), second(120));
}

proptest! {
    #[test]
    fn no_window_ever_holds_more_than_its_limit(
        limit in 1u64..20, millis in 1u64..2000,
        steps in proptest::collection::vec((0u64..400_000_000, 1u32..5), 1..400),
    ) {
        let window = FixedWindow::new(limit, Duration::from_millis(millis));
        let word = AtomicU64::new(0);
        let (mut now, mut running, mut sum) = (0, 0, 0);
        for (gap, cost) in steps {
            now += gap;
            if now / (millis * 1_000_000) != running {
                (running, sum) = (now / (millis * 1_000_000), 0);
            }
            let fits = sum + u64::from(cost) <= limit;
            prop_assert_eq!(window.take(nanos(now), cost, &word).is_ok(), fits);
            sum += if fits { u64::from(cost) } else { 0 };
        }
    }

    #[test]
    fn one_nanosecond_before_its_retry_after_a_request_is_refused_and_then_it_passes(
        limit in 1u64..20, millis in 1u64..2000,
        gaps in proptest::collection::vec(0u64..100_000_000, 1..300),
    ) {
        let window = FixedWindow::new(limit, Duration::from_millis(millis));
        let word = AtomicU64::new(0);
        let mut now = 0;
        for gap in gaps {
            now += gap;
            if let Err(at) = window.take(nanos(now), 1, &word) {
                prop_assert!(at > nanos(now));
                prop_assert_eq!(window.judge(nanos(at.as_nanos() - 1), 1, &word), Err(at));
                prop_assert_eq!(window.judge(at, 1, &word), Ok(()));
            }
        }
    }

    #[test]
    fn what_was_given_back_was_never_taken(
        steps in proptest::collection::vec((0u64..300_000_000, 1u32..4, any::<bool>()), 1..200),
    ) {
        let window = FixedWindow::new(7, Duration::from_secs(1));
        let (with, without) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut now = 0;
        for (gap, cost, give_back) in steps {
            now += gap;
            let taken = window.take(nanos(now), cost, &with);
            if let (true, Ok(taken)) = (give_back, taken) {
                window.give_back(taken, cost, &with);
            } else {
                prop_assert_eq!(taken.is_ok(), window.take(nanos(now), cost, &without).is_ok());
            }
        }
    }
}
