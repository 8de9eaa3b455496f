//! Run with `RUSTFLAGS="--cfg loom" cargo test -p tidegate-core --lib --release models`.

use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::*;
use crate::limit::token_bucket::TokenBucket;

const BUCKETS: [u32; GENERATIONS] = [1, 0, 0];
const ONE: Key = Key { place: 0, tag: 11 };
const TWO: Key = Key { place: 0, tag: 22 };

fn law() -> Law {
    Law::TokenBucket(TokenBucket::new(1, Duration::from_mins(1), 1))
}

#[test]
fn a_key_that_spends_while_another_wants_its_place_is_not_put_out() {
    loom::model(|| {
        let (law, now) = (law(), Tick::from_nanos(1));
        let table = Arc::new(Table::new(law, BUCKETS));
        table.insert(&law, now, ONE);
        let other = {
            let table = Arc::clone(&table);
            thread::spawn(move || table.insert(&law, now, TWO))
        };
        let receipt = table.take(&law, now, ONE, 1).unwrap();
        other.join().unwrap();
        match receipt.place {
            // It spent in its own place, so it still has it. The other may have had the place before, without
            // spending.
            Some(place) => {
                assert_eq!(table.find(ONE), Some(place));
                assert_eq!(table.find(TWO), None);
                assert!(table.take(&law, now, ONE, 1).is_err());
            }
            // It was put out before it spent, and judged by the overflow.
            None => assert!(law.judge(now, 1, &table.overflow).is_err()),
        }
    });
}

#[test]
fn two_requests_on_a_new_key_share_one_budget() {
    loom::model(|| {
        let (law, now) = (law(), Tick::from_nanos(1));
        let table = Arc::new(Table::new(law, BUCKETS));
        let passed = Arc::new(AtomicUsize::new(0));
        let other = {
            let (table, passed) = (Arc::clone(&table), Arc::clone(&passed));
            thread::spawn(move || {
                let receipt = table.take(&law, now, ONE, 1);
                passed.fetch_add(usize::from(receipt.is_ok_and(|r| r.place.is_some())), Ordering::SeqCst);
            })
        };
        let receipt = table.take(&law, now, ONE, 1);
        passed.fetch_add(usize::from(receipt.is_ok_and(|r| r.place.is_some())), Ordering::SeqCst);
        other.join().unwrap();
        assert_eq!(passed.load(Ordering::SeqCst), 1);
        assert_eq!(table.keys(), 1);
    });
}

#[test]
fn a_limit_that_is_raised_under_load_remembers_all_that_was_spent_before() {
    loom::model(|| {
        let now = Tick::from_nanos(1);
        let of = |burst| Law::TokenBucket(TokenBucket::new(burst, Duration::from_mins(1), burst));
        let (old, new) = (of(2), of(3));
        let table = Arc::new(Table::new(old, BUCKETS));
        table.take(&old, now, ONE, 1).unwrap();
        let other = {
            let table = Arc::clone(&table);
            thread::spawn(move || table.take(&old, now, ONE, 1).is_ok())
        };
        let raised = table.converted(old, new, BUCKETS, now);
        let meanwhile = other.join().unwrap();
        let passed = (0..3).filter(|_| raised.take(&new, now, ONE, 1).is_ok()).count();
        assert!(meanwhile, "the limit that was in force had one left");
        assert!((1..=2).contains(&passed), "one was spent before, and one more perhaps in time: {passed}");
    });
}
