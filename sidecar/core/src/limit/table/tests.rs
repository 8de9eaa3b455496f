use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tidegate_policy::{Algorithm, Cost, Millis, Mode};

use super::*;
use crate::limit::token_bucket::TokenBucket;
use crate::spread::split_mix;

/// Miri takes its time for each step, and finds in few what it would find in many.
const SMALLER: u64 = if cfg!(miri) { 1000 } else { 1 };
const BUCKETS: [u32; GENERATIONS] = if cfg!(miri) { [1, 1, 8] } else { [16, 512, 8832] };
const CAPACITY: u64 = if cfg!(miri) { 80 } else { 74_880 };
const RESIDENTS: u64 = if cfg!(miri) { 5 } else { 100 };

fn second(n: u64) -> Tick {
    Tick::from_nanos(n * 1_000_000_000)
}

fn bucket(limit: u64, burst: u64) -> Law {
    Law::TokenBucket(TokenBucket::new(limit, Duration::from_mins(1), burst))
}

/// Keys as a hash would give them.
fn key(n: u64) -> Key {
    Key { place: split_mix(2 * n), tag: split_mix(2 * n + 1) }
}

#[test]
fn every_key_has_a_budget_of_its_own() {
    let (law, now) = (bucket(2, 2), second(1));
    let table = Table::new(law, BUCKETS);
    let keys = 10_000 / SMALLER;
    for n in 0..keys {
        for _ in 0..2 {
            table.take(&law, now, key(n), 1).unwrap();
        }
    }
    assert_eq!(table.keys(), keys);
    for n in 0..keys {
        assert!(table.take(&law, now, key(n), 1).is_err());
    }
}

#[test]
fn a_flood_of_keys_neither_grows_without_end_nor_touches_the_budget_of_others() {
    let (law, now) = (bucket(1, 3), second(1));
    let table = Table::new(law, BUCKETS);
    for n in 0..RESIDENTS {
        table.take(&law, now, key(n), 1).unwrap();
        table.take(&law, now, key(n), 1).unwrap();
    }
    let mut admitted = 0u64;
    for n in RESIDENTS..300_000 / SMALLER {
        admitted += u64::from(table.take(&law, now, key(n), 1).is_ok());
    }
    assert!(table.keys() <= CAPACITY, "{} keys", table.keys());
    assert!(admitted <= CAPACITY + 3, "{admitted} strangers passed");
    assert!(admitted >= CAPACITY * 9 / 10, "only {admitted} strangers found room");
    for n in 0..RESIDENTS {
        assert!(table.take(&law, now, key(n), 1).is_ok(), "key {n} still has its third request");
        assert!(table.take(&law, now, key(n), 1).is_err(), "and no fourth");
    }
}

#[test]
fn keys_that_are_whole_again_make_room_for_new_ones() {
    let law = bucket(60, 1);
    let table = Table::new(law, BUCKETS);
    for n in 0..300_000 / SMALLER {
        let _ = table.take(&law, second(1), key(n), 1);
    }
    let full = table.keys();
    let strangers = 50_000 / SMALLER;
    let is_let_in = |n: &u64| table.take(&law, second(10), key(1_000_000 + n), 1).is_ok();
    let passed = (0..strangers).filter(is_let_in).count() as u64;
    assert!(passed * 500 > strangers * 499, "{passed} of {strangers}");
    assert_eq!(table.keys(), full);
}

#[test]
fn keys_in_use_stay_where_they_are_and_forgotten_ones_do_not_make_the_table_grow() {
    let law = bucket(60_000, 1);
    let table = Table::new(law, BUCKETS);
    for n in 0..50_000 / SMALLER {
        let now = Tick::from_nanos(n * 20_000_000);
        table.take(&law, now, key(1), 1).unwrap();
        table.take(&law, now, key(n + 2), 1).unwrap();
    }
    // Fifty strangers a second, each kept for ten seconds. With more than three quarters of the first two generations the
    // third would be made.
    assert!(table.keys() < 3000, "{} keys", table.keys());
    assert!(table.find(key(1)).is_some());
}

#[test]
fn a_table_converted_to_another_rate_remembers_every_key() {
    let (old, new) = (bucket(60, 5), bucket(600, 5));
    let table = Table::new(old, BUCKETS);
    let now = second(1);
    let mut spent = HashMap::new();
    for n in 0..5_000 / SMALLER {
        for _ in 0..n % 6 {
            if table.take(&old, now, key(n), 1).is_ok() {
                *spent.entry(n).or_insert(0) += 1;
            }
        }
    }
    let table = table.converted(old, new, BUCKETS, now);
    for n in 0..5_000 / SMALLER {
        let left = 5 - spent.get(&n).copied().unwrap_or(0);
        let passed = (0..6).filter(|_| table.take(&new, now, key(n), 1).is_ok()).count();
        assert_eq!(passed, left, "key {n}");
    }
}

#[test]
fn threads_that_share_a_key_never_spend_more_than_it_has() {
    let (budget, asked) = (1000 / SMALLER, 4_000 / SMALLER);
    let (law, now) = (bucket(1, budget), second(1));
    let table = Table::new(law, BUCKETS);
    let passed = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..asked {
                    if table.take(&law, now, key(n % 3), 1).is_ok() {
                        passed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 3 * budget);
}

#[test]
fn a_key_takes_what_the_document_is_judged_by_and_most_at_most_a_cache_line() {
    for (algorithm, limit) in [
        (Algorithm::TokenBucket { burst: 9, initial: None }, 100),
        (Algorithm::LeakyBucket { burst: 9, max_wait_millis: None }, 100),
        (Algorithm::FixedWindow, 100),
        (Algorithm::SlidingWindow { sub_windows: 1 }, 100),
        (Algorithm::SlidingWindow { sub_windows: 10 }, 100_000),
        (Algorithm::SlidingWindow { sub_windows: 12 }, 100),
        (Algorithm::SlidingWindow { sub_windows: 6 }, 1_000_000_000),
        (Algorithm::SlidingWindow { sub_windows: 60 }, 1_000_000_000),
        (Algorithm::SlidingLog, 100),
        (Algorithm::Concurrency, 100),
    ] {
        let limit = Limit {
            policy: "inference/llama".to_owned(),
            name: "user".to_owned(),
            mode: Mode::Enforce,
            key: Vec::new(),
            algorithm,
            limit,
            window_millis: Some(Millis::new(60_000).unwrap()),
            cost: Cost::Requests,
            max_keys: None,
            when: Vec::new(),
            on_exhausted: tidegate_policy::OnExhausted::EndStream,
        };
        let words = Law::new(&limit, second(0)).words();
        let taken = |layout: Layout| {
            let tag = if layout.tags == layout.stride { 0 } else { layout.tags };
            8 * (layout.stride + tag) as u64
        };
        let bytes = limit.key_bytes();
        assert_eq!(taken(Layout::beside(words)), bytes, "{algorithm:?}");
        assert!(taken(Layout::aside(words)) <= bytes, "{algorithm:?}");
        assert!(taken(Layout::apart(words)) <= bytes.max(64) + 8, "{algorithm:?}");
        let large = matches!(algorithm, Algorithm::SlidingLog | Algorithm::SlidingWindow { sub_windows: 60 });
        assert!(bytes <= 64 || large, "{algorithm:?}: {bytes}");
    }
}

#[test]
fn whoever_looks_for_one_of_few_keys_reads_no_line_that_somebody_spends_in() {
    let line = |word: &AtomicU64| std::ptr::from_ref(word).addr() / 64;
    for words in [1, 7, 8] {
        for (layout, apart) in [(Layout::apart(words), true), (Layout::aside(words), false)] {
            let generation = Generation::new(16, layout);
            let entries: Vec<_> = (0..128).map(|way| generation.entry(way).unwrap()).collect();
            let tags: HashSet<usize> = entries.iter().map(|(tag, _)| line(tag)).collect();
            let mut states = HashSet::new();
            for (_, state) in &entries {
                let lines: HashSet<usize> = state.iter().map(line).collect();
                assert!(tags.is_disjoint(&lines), "tags lie among states of {words} words");
                assert!(!apart || states.is_disjoint(&lines), "two states of {words} words share a line");
                states.extend(lines);
            }
        }
    }
}
