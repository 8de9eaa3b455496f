use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn nanos(n: u64) -> Tick {
    Tick::from_nanos(n)
}

fn ring(window: SlidingWindow) -> Vec<AtomicU64> {
    (0..window.words()).map(|_| AtomicU64::new(0)).collect()
}

/// A window as it is, or with a word for each of its sub-windows, as under large limits.
fn window(limit: u64, length: Duration, sub_windows: u32, alone: bool) -> SlidingWindow {
    let window = SlidingWindow::new(limit, length, sub_windows);
    assert_eq!(window.in_word, 2);
    let length = length.as_nanos() as u64;
    let ring = Ring::new(limit, length, sub_windows);
    if alone { SlidingWindow::of(limit, length, Ring { in_word: 1, bits: 31, ..ring }) } else { window }
}

/// The exact log that the ring stands for: no trailing window may ever hold more than the limit.
struct Log {
    window: u64,
    limit: usize,
    admitted: VecDeque<u64>,
}

impl Log {
    fn admit(&mut self, now: u64) {
        self.admitted.push_back(now);
        self.admitted.retain(|&t| t + self.window > now);
        assert!(self.admitted.len() <= self.limit, "{} in the window before {now} ns", self.admitted.len());
    }
}

#[test]
fn a_window_admits_its_limit_and_no_more() {
    let window = SlidingWindow::new(3, Duration::from_mins(1), 10);
    let ring = ring(window);
    let now = nanos(61_000_000_000);
    for _ in 0..3 {
        window.take(now, 1, &ring).unwrap();
    }
    // 61 s lies in the sub-window from 60 s to 66 s, which is in the ring until 126 s.
    assert_eq!(window.take(now, 1, &ring).unwrap_err(), nanos(126_000_000_000));
    assert_eq!(window.outstanding(now, &ring), 3);
    assert_eq!(window.outstanding(nanos(126_000_000_000), &ring), 0);
}

#[test]
fn a_thread_whose_clock_lies_behind_judges_at_the_time_of_the_others() {
    let window = SlidingWindow::new(2, Duration::from_secs(1), 1);
    let ring = ring(window);
    window.take(nanos(2_999_999_999), 1, &ring).unwrap();
    window.take(nanos(3_000_000_001), 1, &ring).unwrap();
    assert!(window.take(nanos(2_999_999_999), 1, &ring).is_err());
    assert!(window.take(nanos(3_500_000_000), 1, &ring).is_err());
}

#[test]
fn sub_windows_are_never_shorter_than_a_millisecond() {
    assert_eq!(SlidingWindow::new(1, Duration::from_millis(10), 60).counted, 11);
    assert_eq!(SlidingWindow::new(1, Duration::from_millis(1), 60).counted, 2);
}

#[test]
fn the_largest_limits_are_counted_and_not_cut() {
    for limit in [536_870_912, 1_000_000_000] {
        let window = SlidingWindow::new(limit, Duration::from_secs(1), 10);
        let ring = ring(window);
        assert_eq!(window.limit(), limit);
        window.take(nanos(1), limit as u32, &ring).unwrap();
        assert!(window.take(nanos(1), 1, &ring).is_err());
        window.charge(nanos(1), u32::MAX, &ring);
        assert!(window.outstanding(nanos(1), &ring) > limit);
    }
}

#[test]
fn a_window_of_another_shape_forgets_nothing() {
    let old = SlidingWindow::new(10, Duration::from_mins(1), 10);
    let new = SlidingWindow::new(5, Duration::from_secs(30), 6);
    let (from, to) = (ring(old), ring(new));
    for second in [1, 40, 58, 59] {
        old.take(nanos(second * 1_000_000_000), 1, &from).unwrap();
    }
    let now = nanos(60_000_000_000);
    new.convert(old, now, &from, &to);
    assert_eq!(new.outstanding(now, &to), 3, "what is younger than 30 s counts on");
    assert_eq!(new.outstanding(nanos(95_000_000_000), &to), 0);
}

proptest! {
    #[test]
    fn in_any_trailing_window_at_most_the_limit_passes(
        limit in 1u64..20, millis in 1u64..2000, parts in 1u32..20, alone in any::<bool>(),
        gaps in proptest::collection::vec(0u64..400_000_000, 1..400),
    ) {
        let window = window(limit, Duration::from_millis(millis), parts, alone);
        let ring = ring(window);
        let mut log = Log { window: millis * 1_000_000, limit: limit as usize, admitted: VecDeque::new() };
        let mut now = 0;
        for gap in gaps {
            now += gap;
            if window.take(nanos(now), 1, &ring).is_ok() {
                log.admit(now);
            }
        }
    }

    #[test]
    fn no_request_is_refused_that_a_window_longer_by_one_part_would_admit(
        limit in 1u64..20, parts in 1u32..20, alone in any::<bool>(),
        gaps in proptest::collection::vec(0u64..400_000_000, 1..400),
    ) {
        let length = 1_000_000_000u64;
        let window = window(limit, Duration::from_nanos(length), parts, alone);
        let ring = ring(window);
        let longer = length + length.div_ceil(u64::from(parts)) + u64::from(parts);
        let (mut now, mut admitted) = (0, Vec::<u64>::new());
        for gap in gaps {
            now += gap;
            if window.take(nanos(now), 1, &ring).is_ok() {
                admitted.push(now);
            } else {
                let inside = admitted.iter().filter(|&&t| t + longer > now).count();
                prop_assert!(inside >= limit as usize, "refused with {} of {}", inside, limit);
            }
        }
    }

    #[test]
    fn one_nanosecond_before_its_retry_after_a_request_is_refused_and_then_it_passes(
        limit in 1u64..20, millis in 1u64..2000, parts in 1u32..20, alone in any::<bool>(),
        gaps in proptest::collection::vec(0u64..100_000_000, 1..300),
    ) {
        let window = window(limit, Duration::from_millis(millis), parts, alone);
        let ring = ring(window);
        let mut now = 0;
        for gap in gaps {
            now += gap;
            if let Err(at) = window.take(nanos(now), 1, &ring) {
                prop_assert!(at > nanos(now));
                prop_assert_eq!(window.judge(nanos(at.as_nanos() - 1), 1, &ring), Err(at));
                prop_assert_eq!(window.judge(at, 1, &ring), Ok(()));
            }
        }
    }

    #[test]
    fn what_was_given_back_was_never_taken(
        gaps in proptest::collection::vec((0u64..300_000_000, any::<bool>()), 1..200),
        parts in 1u32..8, alone in any::<bool>(),
    ) {
        let window = window(4, Duration::from_secs(1), parts, alone);
        let (with, without) = (ring(window), ring(window));
        let mut now = 0;
        for (gap, give_back) in gaps {
            now += gap;
            let taken = window.take(nanos(now), 1, &with);
            if let (true, Ok(taken)) = (give_back, taken) {
                window.give_back(taken, 1, &with);
                prop_assert!(window.judge(nanos(now), 1, &without).is_ok());
            } else {
                prop_assert_eq!(taken.map(|_| ()), window.take(nanos(now), 1, &without).map(|_| ()));
            }
        }
    }
}
