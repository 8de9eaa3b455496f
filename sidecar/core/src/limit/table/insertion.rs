//! How a key gets a place.

use super::generation::Generation;
use super::{EMPTY, KEPT, LATCHES, LEAVING, PATIENCE, Place, SECOND, Table, tag_of};
use crate::Tick;
use crate::limit::key::Key;
use crate::limit::law::Law;
use crate::sync::{Ordering, in_total_order};

/// What a look for a key has found.
enum Scan {
    Found(Place),
    /// Not found, but a key that is being put out may be it.
    SomebodyLeaves,
    Absent,
}

impl Table {
    /// Where a key may be: a generation, and how far its hash is turned to pick the bucket there. First where there is
    /// memory already.
    fn probes(&self) -> impl Iterator<Item = (usize, u32)> + Clone {
        let (made, last) = (self.made().min(self.last + 1), self.last);
        (0..made).rev().chain(made..=last).map(|g| (g, 0)).chain([(last, SECOND)])
    }

    /// A place for a key that has none; None when all is full or somebody is in the way.
    pub(super) fn insert(&self, law: &Law, now: Tick, key: Key) -> Option<Place> {
        // One insertion at a time for a key: it must not get two places.
        let latch = &self.latches[key.place as usize & (LATCHES - 1)];
        for _ in 0..PATIENCE {
            if latch.compare_exchange(false, true, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                let place = self.insert_latched(law, now, key);
                latch.store(false, Ordering::SeqCst);
                return place;
            }
            wait_a_moment();
        }
        None
    }

    fn insert_latched(&self, law: &Law, now: Tick, key: Key) -> Option<Place> {
        // A key that is being put out may stay after all, so nobody may be about to leave.
        let mut patience = PATIENCE;
        let found = loop {
            match self.scan(key) {
                Scan::Found(place) => break Some(place),
                Scan::Absent => break None,
                Scan::SomebodyLeaves => patience = patience.checked_sub(1)?,
            }
            wait_a_moment();
        };
        if found.is_some() {
            return found;
        }
        let long_whole = Tick::from_nanos(now.since(Tick::from_duration(KEPT)).as_nanos() as u64);
        // Where there is room at all, then where somebody could go.
        self.probes()
            .find_map(|probe| self.settle_in(law, long_whole, probe, key))
            .or_else(|| self.probes().find_map(|probe| self.settle_in(law, now, probe, key)))
    }

    /// Takes a way of one bucket whose key could be forgotten already at `whole`, else an empty one, so that memory
    /// grows with the keys that are in use and not with those that ever came.
    fn settle_in(&self, law: &Law, whole: Tick, (g, turn): (usize, u32), key: Key) -> Option<Place> {
        let generation = self.generation_or_new(g);
        let mut ways = generation.ways(key, turn);
        let forgotten = ways.clone().find(|&way| replace(law, whole, generation, way, key));
        let way = forgotten.or_else(|| ways.find(|&way| self.occupy(generation, way, key)))?;
        Some(Place::new(g, way))
    }

    /// Looks for a key where it may be, and for keys that are being put out there.
    fn scan(&self, key: Key) -> Scan {
        let tag = tag_of(key);
        let mut leaving = false;
        for (g, turn) in self.probes() {
            let Some(generation) = self.generations[g].get() else { continue };
            for way in generation.ways(key, turn) {
                let known = generation.tag(way).load(Ordering::SeqCst);
                if known == tag {
                    return Scan::Found(Place::new(g, way));
                }
                leaving |= known == LEAVING;
            }
        }
        if leaving { Scan::SomebodyLeaves } else { Scan::Absent }
    }

    fn occupy(&self, generation: &Generation, way: u32, key: Key) -> bool {
        let tag = generation.tag(way);
        let won = tag.compare_exchange(EMPTY, tag_of(key), Ordering::SeqCst, Ordering::Relaxed).is_ok();
        if won {
            self.keys.fetch_add(1, Ordering::Relaxed);
        }
        won
    }
}

fn replace(law: &Law, whole: Tick, generation: &Generation, way: u32, key: Key) -> bool {
    let Some((tag, state)) = generation.entry(way) else { return false };
    let old = tag.load(Ordering::SeqCst);
    if old == EMPTY || old == LEAVING || !law.is_fresh(whole, state) {
        return false;
    }
    if tag.compare_exchange(old, LEAVING, Ordering::SeqCst, Ordering::Relaxed).is_err() {
        return false;
    }
    in_total_order();
    let fresh = law.is_fresh(whole, state);
    tag.store(if fresh { tag_of(key) } else { old }, Ordering::SeqCst);
    fresh
}

fn wait_a_moment() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    std::hint::spin_loop();
}
