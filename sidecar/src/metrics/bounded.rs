//! A map that only grows, up to a bound, and is read without a lock.

use std::hash::{BuildHasher, Hash};
use std::sync::OnceLock;

/// Places that are looked at for one key. A table that is nearly full gives up on a key early, and it counts as one of
/// the others.
const PROBES: usize = 16;

/// Entries that find themselves by what they know of their key.
#[derive(Debug)]
pub(super) struct Bounded<T> {
    places: Box<[OnceLock<Box<T>>]>,
    /// Of this process alone, so that nobody can choose keys that share a place.
    hasher: std::hash::RandomState,
}

impl<T> Bounded<T> {
    /// Room for at most `most` entries.
    pub(super) fn new(most: usize) -> Self {
        let places = (0..most).map(|_| OnceLock::new()).collect();
        Self { places, hasher: std::hash::RandomState::new() }
    }

    /// The entry of `key`, which `is` it, made where there is none yet. None: there is no room.
    pub(super) fn entry(&self, key: impl Hash, is: impl Fn(&T) -> bool, make: impl Fn() -> T) -> Option<&T> {
        if self.places.is_empty() {
            return None;
        }
        let first = self.hasher.hash_one(key) as usize;
        (0..PROBES.min(self.places.len()))
            .map(|probe| {
                &**self.places[first.wrapping_add(probe) % self.places.len()].get_or_init(|| Box::new(make()))
            })
            .find(|entry| is(entry))
    }

    /// Every entry.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|place| place.get().map(Box::as_ref))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn threads_that_meet_at_a_new_key_find_one_entry_and_a_flood_of_keys_stays_within_the_bound() {
        let table: Bounded<(u32, AtomicU64)> = Bounded::new(64);
        let count = |key: u32| {
            let entry = table.entry(key, |entry| entry.0 == key, || (key, AtomicU64::new(0)));
            entry.map(|entry| entry.1.fetch_add(1, Ordering::Relaxed)).is_some()
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..20).for_each(|key| assert!(count(key))));
            }
        });
        let mut counted: Vec<_> = table.iter().map(|(key, n)| (*key, n.load(Ordering::Relaxed))).collect();
        counted.sort_unstable();
        assert_eq!(counted, (0..20).map(|key| (key, 4)).collect::<Vec<_>>());
        let refused = (100..10_000).filter(|key| !count(*key)).count();
        assert!(refused > 9_000);
        assert_eq!(table.iter().count(), 64);
        assert!((0..20).all(count), "who was there before the flood still is");
    }

    #[test]
    fn without_room_nothing_is_counted() {
        let table: Bounded<u32> = Bounded::new(0);
        assert!(table.entry(1, |_| true, || 1).is_none());
    }
}
