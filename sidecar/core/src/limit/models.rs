//! Two rules at once, whose states race. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p tidegate-core --lib --release models`.

use std::time::Duration;

use loom::sync::Arc;
use loom::thread;

use super::concurrency::Concurrency;
use super::fixed_window::FixedWindow;
use super::sliding_log::SlidingLog;
use super::sliding_window::SlidingWindow;
use super::*;
use crate::sync::{AtomicU64, Ordering, in_total_order};

fn now() -> Tick {
    Tick::from_nanos(5_000_000_000)
}

/// Takes from both or from none, as `Limits::take` does.
fn take_both(permits: Concurrency, bucket: TokenBucket, words: &[AtomicU64; 2]) -> bool {
    if permits.take(now(), 1, &words[0]).is_err() {
        return false;
    }
    if bucket.take(now(), 1, &words[1]).is_ok() {
        return true;
    }
    permits.give_back(1, &words[0]);
    false
}

#[test]
fn of_two_requests_for_the_last_token_one_passes_and_the_permit_of_the_other_comes_back() {
    loom::model(|| {
        let permits = Concurrency::new(2);
        let bucket = TokenBucket::new(1, Duration::from_secs(1), 1);
        let words = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let other = {
            let words = Arc::clone(&words);
            thread::spawn(move || take_both(permits, bucket, &words))
        };
        let one = take_both(permits, bucket, &words);
        let other = other.join().unwrap();
        assert!(one != other, "the token is there for one of them");
        assert_eq!(words[0].load(Ordering::SeqCst), 1, "and so is the permit");
    });
}

/// A permit for one, and a token for one: there is room for exactly one request. Somebody else takes the permit and gives
/// it back, since his own second rule refuses him.
#[test]
fn a_spurious_refusal_needs_somebody_who_takes_and_gives_back_meanwhile() {
    loom::model(|| {
        let permits = Concurrency::new(1);
        let bucket = TokenBucket::new(1, Duration::from_secs(1), 1);
        let words = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let [began, ended] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let other = {
            let (words, began, ended) = (Arc::clone(&words), Arc::clone(&began), Arc::clone(&ended));
            thread::spawn(move || {
                began.store(1, Ordering::SeqCst);
                in_total_order();
                if permits.take(now(), 1, &words[0]).is_ok() {
                    permits.give_back(1, &words[0]);
                }
                ended.store(1, Ordering::SeqCst);
            })
        };
        let before = ended.load(Ordering::SeqCst);
        let passed = take_both(permits, bucket, &words);
        in_total_order();
        let overlapped = before == 0 && began.load(Ordering::SeqCst) == 1;
        assert!(passed || overlapped, "refused though nobody was there");
        other.join().unwrap();
        let left = u64::from(passed);
        assert_eq!(words[0].load(Ordering::SeqCst), left, "what was given back is there again");
        assert!(passed || take_both(permits, bucket, &words), "afterwards nothing is in the way");
    });
}

#[test]
fn two_requests_for_the_last_place_of_a_fixed_window_do_not_both_get_it() {
    // The second of them in the same window, and in the next.
    for (later, both) in [(0, false), (1_000_000_000, true)] {
        loom::model(move || {
            let window = FixedWindow::new(2, Duration::from_secs(1));
            let word = Arc::new(AtomicU64::new(0));
            window.take(now(), 1, &word).unwrap();
            let other = {
                let word = Arc::clone(&word);
                thread::spawn(move || window.take(now(), 1, &word).is_ok())
            };
            let later = Tick::from_nanos(now().as_nanos() + later);
            let one = window.take(later, 1, &word).is_ok();
            let other = other.join().unwrap();
            assert_eq!(one && other, both);
            // One that comes after the window has turned counts in the new one, or it was there before.
            assert!((1..=2).contains(&window.outstanding(later, &word)));
        });
    }
}

#[test]
fn two_requests_for_the_last_place_of_a_log_do_not_both_get_it() {
    loom::model(|| {
        let log = SlidingLog::new(2, Duration::from_secs(1));
        let state: Arc<[AtomicU64; 3]> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        log.take(now(), &*state).unwrap();
        let other = {
            let state = Arc::clone(&state);
            thread::spawn(move || log.take(now(), &*state).is_ok())
        };
        let one = log.take(now(), &*state).is_ok();
        let other = other.join().unwrap();
        assert!(one != other);
        assert_eq!(log.outstanding(now(), &*state), 2);
    });
}

#[test]
fn a_request_of_a_fixed_window_that_is_given_back_while_others_come_is_counted_no_more() {
    loom::model(|| {
        let window = FixedWindow::new(3, Duration::from_secs(1));
        let word = Arc::new(AtomicU64::new(0));
        let first = window.take(now(), 1, &word).unwrap();
        let other = {
            let word = Arc::clone(&word);
            thread::spawn(move || {
                window.take(now(), 1, &word).unwrap();
                window.charge(now(), 1, &word);
            })
        };
        window.give_back(first, 1, &word);
        other.join().unwrap();
        assert_eq!(window.outstanding(now(), &word), 2);
    });
}

#[test]
fn a_place_of_a_log_that_is_given_back_while_another_comes_is_never_taken_from_him() {
    loom::model(|| {
        let log = SlidingLog::new(1, Duration::from_secs(1));
        let state: Arc<[AtomicU64; 2]> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        let first = log.take(now(), &*state).unwrap();
        let later = Tick::from_nanos(now().as_nanos() + 1_000_000_000);
        let other = {
            let state = Arc::clone(&state);
            thread::spawn(move || log.take(later, &*state).is_ok())
        };
        log.give_back(first, &*state);
        // Refused by the one who gave it back meanwhile, or it holds the place.
        let passed = other.join().unwrap();
        assert_eq!(log.outstanding(later, &*state), u64::from(passed));
        assert!(passed || log.take(later, &*state).is_ok(), "afterwards nothing is in the way");
    });
}

#[test]
fn a_request_of_a_ring_that_is_given_back_while_another_comes_is_counted_no_more() {
    loom::model(|| {
        let window = SlidingWindow::new(2, Duration::from_secs(1), 1);
        let ring: Arc<[AtomicU64; 2]> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        let first = window.take(now(), 1, &*ring).unwrap();
        let other = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || window.take(now(), 1, &*ring).unwrap())
        };
        window.give_back(first, 1, &*ring);
        other.join().unwrap();
        assert!(window.take(now(), 1, &*ring).is_ok());
        assert!(window.take(now(), 1, &*ring).is_err());
    });
}

/// Two requests for the only place of a window, the second of them a part of the window later.
fn race_in_a_ring(begin: Tick) {
    loom::model(move || {
        let window = SlidingWindow::new(1, Duration::from_secs(1), 1);
        let ring: Arc<[AtomicU64; 2]> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        let other = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || window.take(begin, 1, &*ring).is_ok())
        };
        let later = Tick::from_nanos(begin.as_nanos() + 1_000_000_000);
        let one = window.take(later, 1, &*ring).is_ok();
        let other = other.join().unwrap();
        assert!(!(one && other));
    });
}

#[test]
fn two_requests_for_the_last_place_of_a_ring_do_not_both_get_it() {
    // Both parts in one word, and the second in the next.
    race_in_a_ring(Tick::from_nanos(4_000_000_000));
    race_in_a_ring(now());
}

#[test]
fn a_refund_and_a_debt_at_once_are_both_counted() {
    loom::model(|| {
        let bucket = TokenBucket::new(10, Duration::from_secs(1), 10);
        let word = Arc::new(AtomicU64::new(0));
        let taken = bucket.take(now(), 6, &word).unwrap();
        let other = {
            let word = Arc::clone(&word);
            thread::spawn(move || {
                bucket.charge(now(), 3, &word);
            })
        };
        bucket.give_back(taken, 4, &word);
        other.join().unwrap();
        assert_eq!(bucket.outstanding(now(), &word), 5);
    });
}
