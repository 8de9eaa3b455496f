//! Run with `RUSTFLAGS="--cfg loom" cargo test -p tidegate-core --lib --release models`.

use loom::sync::Arc;
use loom::thread;
use tidegate_policy::PriorityClass::{High, Low, Medium};

use super::*;

#[test]
fn of_two_that_race_for_the_last_place_one_gets_it_and_it_comes_back() {
    loom::model(|| {
        let permits = Arc::new(Permits::new());
        permits.publish(Bounds { reserve: 1, common: 1, medium: 1, low: 1 });
        let other = {
            let permits = Arc::clone(&permits);
            thread::spawn(move || permits.take(Medium))
        };
        let mine = permits.take(Medium);
        let theirs = other.join().unwrap();
        assert!(mine.is_some() ^ theirs.is_some());
        assert_eq!(permits.in_use().total(), 1);
        permits.give_back(Pool::Common);
        assert_eq!(permits.in_use().total(), 0);
    });
}

#[test]
fn a_place_that_comes_back_while_others_are_taken_is_counted_once() {
    loom::model(|| {
        let permits = Arc::new(Permits::new());
        permits.publish(Bounds { reserve: 1, common: 2, medium: 2, low: 1 });
        let held = permits.take(Medium).unwrap();
        let other = {
            let permits = Arc::clone(&permits);
            thread::spawn(move || permits.give_back(held))
        };
        let reserve = permits.take(High);
        let common = permits.take(Medium);
        other.join().unwrap();
        assert_eq!((reserve, common), (Some(Pool::Reserve), Some(Pool::Common)));
        assert_eq!(permits.in_use(), InUse { reserve: 1, common: 1 });
    });
}

#[test]
fn a_publication_that_races_with_a_high_one_turned_away_leaves_low_out() {
    loom::model(|| {
        let permits = Arc::new(Permits::new());
        let bounds = Bounds { reserve: 1, common: 1, medium: 1, low: 1 };
        permits.publish(bounds);
        let (_, _) = (permits.take(High), permits.take(High));
        let other = {
            let permits = Arc::clone(&permits);
            thread::spawn(move || permits.publish(bounds))
        };
        assert_eq!(permits.take(High), None);
        other.join().unwrap();
        assert_eq!(permits.take(Low), None);
        assert_eq!(permits.bounds().low, 0);
    });
}
