//! Which breaker of a pod is whose.

use std::num::NonZeroU64;
use std::sync::Arc;

use tidegate_policy::{KeyPart, Per};

use crate::Facts;
use crate::limit::{Hasher, Key};
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// The values that have a breaker of their own: the first so many that are admitted. A value keeps its place, so that a call
/// finds the breaker that let it pass; in front of few breakers a walk over their hashes is the fastest look-up.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    key: Vec<KeyPart>,
    hasher: Hasher,
    /// Hashes of the values from the front on; 0: free.
    owners: Arc<[AtomicU64]>,
}

/// Where a value's breaker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// From 1 on; 0 is the one that all values without an own one share.
    Place(usize),
    /// It has none, and one is free.
    Newcomer(Newcomer),
}

/// A value that has no breaker of its own and may claim one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Newcomer(NonZeroU64);

impl Groups {
    pub(super) fn new(per: &Per, seed: u64) -> Self {
        Self {
            key: per.key.clone(),
            hasher: Hasher::new(seed),
            owners: (0..per.max.max(1)).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Whether the next policy finds the same value in the same place.
    pub(super) fn serves(&self, per: &Per) -> bool {
        self.key == per.key && self.owners.len() == per.max.max(1) as usize
    }

    /// Where the breaker of a request is. Nothing is claimed: a request that a later rule refuses leaves no trace.
    pub(super) fn find(&self, facts: &Facts<'_>) -> Found {
        let key = Key::of(&self.key, &self.hasher, facts);
        // 0 means free. A value whose hash it is has the neighbour's.
        let hash = NonZeroU64::new(key.tag).unwrap_or(NonZeroU64::MIN);
        for (i, owner) in self.owners.iter().enumerate() {
            match owner.load(Relaxed) {
                0 => return Found::Newcomer(Newcomer(hash)),
                present if present == hash.get() => return Found::Place(i + 1),
                _ => {}
            }
        }
        Found::Place(0)
    }

    /// A place for a value that had none when it was looked for; 0 if others were faster and all are taken.
    pub(super) fn claim(&self, newcomer: Newcomer) -> usize {
        place_of(&self.owners, newcomer.0.get())
    }

    /// Values that have a breaker of their own.
    pub(super) fn taken(&self) -> usize {
        self.owners.iter().take_while(|owner| owner.load(Relaxed) != 0).count()
    }
}

fn place_of(owners: &[AtomicU64], hash: u64) -> usize {
    owners.iter().position(|owner| claims(owner, hash)).map_or(0, |i| i + 1)
}

/// Whether this place is the value's, or was free and is now.
fn claims(owner: &AtomicU64, hash: u64) -> bool {
    match owner.load(Relaxed) {
        0 => match owner.compare_exchange(0, hash, Relaxed, Relaxed) {
            Ok(_) => true,
            Err(winner) => winner == hash,
        },
        present => present == hash,
    }
}

#[cfg(test)]
#[cfg(loom)]
mod models {
    use loom::thread;

    use super::*;

    fn places(hashes: [u64; 2], owners: usize) -> [usize; 2] {
        let owners: Arc<[AtomicU64]> = (0..owners).map(|_| AtomicU64::new(0)).collect();
        let other = {
            let owners = Arc::clone(&owners);
            thread::spawn(move || place_of(&owners, hashes[1]))
        };
        let mine = place_of(&owners, hashes[0]);
        [mine, other.join().unwrap()]
    }

    #[test]
    fn two_of_one_group_that_come_first_at_once_share_its_breaker() {
        loom::model(|| assert_eq!(places([5, 5], 2), [1, 1]));
    }

    #[test]
    fn two_groups_that_come_first_at_once_have_a_breaker_each() {
        loom::model(|| {
            let places = places([5, 6], 2);
            assert!(places == [1, 2] || places == [2, 1], "{places:?}");
        });
    }

    #[test]
    fn of_two_groups_that_race_for_the_last_place_one_shares() {
        loom::model(|| {
            let places = places([5, 6], 1);
            assert!(places == [1, 0] || places == [0, 1], "{places:?}");
        });
    }
}
