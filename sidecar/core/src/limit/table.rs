//! The states of many keys: found without a lock, bounded, and never taken from a key that is in use.
//!
//! Keys live in buckets of [`WAYS`]. There are generations of buckets, each eight times the one before; a key goes into
//! the first that has room, so a pod with few keys touches little memory; in the last generation it has a second
//! bucket to choose. A key may take the place of one whose state says no more than that of a key
//! never seen; nobody else is ever put out. As long as there is room, that state must have said so for a while, so
//! that keys in use stay where they are. When all is full, new keys share one overflow state until room comes back.
//!
//! A state can change hands while a thread holds it. So whoever has spent looks at the tag once more: if it is
//! another, it gives back and starts anew. Whoever puts a key out marks the tag first and looks at the state once
//! more: if somebody has spent, it leaves the key where it is. One of both always sees the other.

use std::sync::OnceLock;
use std::time::Duration;

use tidegate_policy::Limit;

use super::key::Key;
use super::law::{Law, Taken};
use super::quota::Left;
use crate::Tick;
use crate::sync::{AtomicBool, AtomicU64, Ordering, in_total_order};

/// Keys in a bucket: their tags fill one cache line.
const WAYS: usize = if cfg!(loom) { 1 } else { 8 };
/// How often there can be made more room.
const GENERATIONS: usize = Limit::GENERATIONS;
/// Keys that are inserted at the same time wait for each other only if they share a latch.
const LATCHES: usize = if cfg!(loom) { 1 } else { 64 };
/// Attempts before a key that others keep moving is judged by the overflow.
const PATIENCE: usize = if cfg!(loom) { 2 } else { 64 };

/// How long a key is kept that could be forgotten, while there is room.
const KEPT: Duration = Duration::from_secs(10);

const EMPTY: u64 = 0;
const LEAVING: u64 = u64::MAX;

/// The states of all keys of one rule.
pub(crate) struct Table {
    words: usize,
    /// Buckets of each generation; the first that has none ends them.
    buckets: [u32; GENERATIONS],
    /// Generations that have buckets.
    last: usize,
    generations: [OnceLock<Generation>; GENERATIONS],
    latches: Box<[AtomicBool]>,
    keys: AtomicU64,
    overflow: Box<[AtomicU64]>,
}

/// Where a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    generation: u8,
    way: u32,
}

/// A spent request, to be given back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receipt {
    place: Option<Place>,
    taken: Taken,
}

impl Receipt {
    pub(crate) fn taken(self) -> Taken {
        self.taken
    }
}

/// What a look for a key has found.
enum Scan {
    Found(Place),
    /// Not found, but a key that is being put out may be it.
    SomebodyLeaves,
    Absent,
}

struct Generation {
    buckets: Box<[Tags]>,
    states: Box<[AtomicU64]>,
}

/// The tags of one bucket, on a cache line of their own.
#[repr(align(64))]
struct Tags([AtomicU64; WAYS]);

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("keys", &self.keys()).finish_non_exhaustive()
    }
}

fn zeroes(n: usize) -> Box<[AtomicU64]> {
    (0..n).map(|_| AtomicU64::new(0)).collect()
}

/// Two values mark ways without a key.
fn tag_of(key: Key) -> u64 {
    if key.tag == EMPTY || key.tag == LEAVING { 1 } else { key.tag }
}

impl Generation {
    fn new(buckets: usize, words: usize) -> Self {
        let empty = |_| Tags(std::array::from_fn(|_| AtomicU64::new(EMPTY)));
        Self { buckets: (0..buckets).map(empty).collect(), states: zeroes(buckets * WAYS * words) }
    }

    fn bucket(&self, key: Key, turn: u32) -> usize {
        key.place.rotate_right(turn) as usize & (self.buckets.len() - 1)
    }

    fn tag(&self, way: u32) -> &AtomicU64 {
        &self.buckets[way as usize / WAYS].0[way as usize % WAYS]
    }
}

impl Table {
    /// A table of so many buckets, each a power of two, in its generations.
    pub(crate) fn new(law: Law, buckets: [u32; GENERATIONS]) -> Self {
        let buckets = if cfg!(loom) { std::array::from_fn(|g| u32::from(g == 0)) } else { buckets };
        let table = Self {
            words: law.words(),
            last: buckets.iter().take_while(|buckets| **buckets > 0).count().saturating_sub(1),
            buckets,
            generations: std::array::from_fn(|_| OnceLock::new()),
            latches: (0..LATCHES).map(|_| AtomicBool::new(false)).collect(),
            keys: AtomicU64::new(0),
            overflow: zeroes(law.words()),
        };
        table.generation_or_new(0);
        table
    }

    /// Whether it has this shape.
    pub(crate) fn has(&self, buckets: [u32; GENERATIONS]) -> bool {
        self.buckets == buckets
    }

    /// Keys that have a state of their own.
    pub(crate) fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// The place of a key that is known.
    pub(crate) fn find(&self, key: Key) -> Option<Place> {
        match self.scan(key) {
            Scan::Found(place) => Some(place),
            Scan::SomebodyLeaves | Scan::Absent => None,
        }
    }

    /// Whether a request on the key at `place` would pass.
    pub(crate) fn judge(&self, law: Law, now: Tick, cost: u32, place: Option<Place>) -> Result<(), Tick> {
        match place.and_then(|place| self.state(place)) {
            Some(state) => law.judge(now, cost, state),
            None => law.judge_new(now, cost),
        }
    }

    /// What counts against the limit of the key at `place`.
    pub(crate) fn outstanding(&self, law: Law, now: Tick, place: Option<Place>) -> u64 {
        law.outstanding(now, place.and_then(|place| self.state(place)).unwrap_or(&self.overflow))
    }

    /// What is left of the key at `place`.
    pub(crate) fn left(&self, law: Law, now: Tick, place: Option<Place>) -> Left {
        law.left(now, place.and_then(|place| self.state(place)).unwrap_or(&self.overflow))
    }

    /// Spends on a key. `hint` is where it was found.
    pub(crate) fn take(
        &self,
        law: Law,
        now: Tick,
        key: Key,
        cost: u32,
        hint: Option<Place>,
    ) -> Result<Receipt, Tick> {
        self.spend(law, now, key, cost, hint, |state| law.take(now, cost, state))
    }

    /// Judges by the state that all requests without one of their own share.
    pub(crate) fn judge_together(&self, law: Law, now: Tick, cost: u32) -> Result<(), Tick> {
        law.judge(now, cost, &self.overflow)
    }

    /// Spends on that state.
    pub(crate) fn take_together(&self, law: Law, now: Tick, cost: u32) -> Result<Receipt, Tick> {
        law.take(now, cost, &self.overflow).map(|taken| Receipt { place: None, taken })
    }

    /// Charges that state.
    pub(crate) fn charge_together(&self, law: Law, now: Tick, amount: u32) {
        law.charge(now, amount, &self.overflow);
    }

    /// Charges a key for what it has used beyond what it took, whether that is there or not.
    pub(crate) fn charge(&self, law: Law, now: Tick, key: Key, amount: u32) {
        // It is always there to be charged.
        let _ = self.spend(law, now, key, amount, None, |state| Ok(law.charge(now, amount, state)));
    }

    fn spend(
        &self,
        law: Law,
        now: Tick,
        key: Key,
        cost: u32,
        mut hint: Option<Place>,
        take: impl Fn(&[AtomicU64]) -> Result<Taken, Tick>,
    ) -> Result<Receipt, Tick> {
        for _ in 0..PATIENCE {
            let Some(place) = hint.take().or_else(|| self.find(key)).or_else(|| self.insert(law, now, key))
            else {
                break;
            };
            let Some((tag, state)) = self.tag(place).zip(self.state(place)) else { break };
            let verdict = take(state);
            in_total_order();
            if tag.load(Ordering::SeqCst) == tag_of(key) {
                return verdict.map(|taken| Receipt { place: Some(place), taken });
            }
            if let Ok(taken) = verdict {
                law.give_back(taken, cost, state);
            }
        }
        take(&self.overflow).map(|taken| Receipt { place: None, taken })
    }

    /// Undoes `amount` of a `take`. If the key has lost its place meanwhile, its state was that of a key never seen,
    /// and the next owner is not charged less than it spends.
    pub(crate) fn give_back(&self, law: Law, key: Key, receipt: Receipt, amount: u32) {
        match receipt.place {
            None => law.give_back(receipt.taken, amount, &self.overflow),
            Some(place) => {
                if let Some((tag, state)) = self.tag(place).zip(self.state(place))
                    && tag.load(Ordering::SeqCst) == tag_of(key)
                {
                    law.give_back(receipt.taken, amount, state);
                }
            }
        }
    }

    /// A table for another law of the same kind, with all states converted. Requests that pass meanwhile under
    /// the old law are not in it.
    pub(crate) fn converted(&self, old: Law, new: Law, buckets: [u32; GENERATIONS], now: Tick) -> Self {
        let table = Self::new(new, buckets);
        table.keys.store(self.keys(), Ordering::Relaxed);
        new.convert(old, now, &self.overflow, &table.overflow);
        for (g, from) in self.generations.iter().enumerate() {
            let Some(from) = from.get().filter(|_| table.buckets[g] == self.buckets[g]) else { break };
            let to = table.generation_or_new(g);
            for way in 0..(from.buckets.len() * WAYS) as u32 {
                let tag = from.tag(way).load(Ordering::SeqCst);
                if tag == EMPTY || tag == LEAVING {
                    continue;
                }
                let place = Place { generation: g as u8, way };
                if let Some((from, into)) = self.state(place).zip(table.state(place)) {
                    new.convert(old, now, from, into);
                    to.tag(way).store(tag, Ordering::SeqCst);
                }
            }
        }
        table
    }

    /// Makes room ahead of need, so that no request has to.
    pub(crate) fn grow_ahead(&self) {
        let made = self.generations.iter().take_while(|g| g.get().is_some()).count();
        let room: u64 = self.buckets[..made].iter().map(|buckets| u64::from(*buckets) * WAYS as u64).sum();
        if made <= self.last && self.keys() * 2 > room {
            self.generation_or_new(made);
        }
    }

    fn generation_or_new(&self, g: usize) -> &Generation {
        self.generations[g].get_or_init(|| Generation::new(self.buckets[g].max(1) as usize, self.words))
    }

    /// Where a key may be, in order: a generation, and how far its hash is turned to pick the bucket there.
    fn probes(&self) -> impl Iterator<Item = (usize, u32)> + Clone {
        let last = self.last;
        (0..last + 2).map(move |n| if n <= last { (n, 0) } else { (last, 32) })
    }

    fn tag(&self, place: Place) -> Option<&AtomicU64> {
        Some(self.generations[place.generation as usize].get()?.tag(place.way))
    }

    fn state(&self, place: Place) -> Option<&[AtomicU64]> {
        let start = place.way as usize * self.words;
        self.generations[place.generation as usize].get()?.states.get(start..start + self.words)
    }

    /// A place for a key that has none; None when all is full or somebody is in the way.
    fn insert(&self, law: Law, now: Tick, key: Key) -> Option<Place> {
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

    fn insert_latched(&self, law: Law, now: Tick, key: Key) -> Option<Place> {
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

    /// Takes an empty way of one bucket, or one whose key could be forgotten already at `whole`.
    fn settle_in(&self, law: Law, whole: Tick, (g, turn): (usize, u32), key: Key) -> Option<Place> {
        let generation = self.generation_or_new(g);
        let bucket = generation.bucket(key, turn) * WAYS;
        let mut ways = bucket as u32..(bucket + WAYS) as u32;
        let empty = ways.clone().find(|&way| self.occupy(generation, way, key));
        let way = empty.or_else(|| ways.find(|&way| self.replace(law, whole, g, way, key)))?;
        Some(Place { generation: g as u8, way })
    }

    /// Looks for a key where it may be, and for keys that are being put out there.
    fn scan(&self, key: Key) -> Scan {
        let tag = tag_of(key);
        let mut leaving = false;
        for (g, turn) in self.probes() {
            let Some(generation) = self.generations[g].get() else { break };
            let bucket = generation.bucket(key, turn);
            for (way, known) in generation.buckets[bucket].0.iter().enumerate() {
                let known = known.load(Ordering::SeqCst);
                if known == tag {
                    return Scan::Found(Place { generation: g as u8, way: (bucket * WAYS + way) as u32 });
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

    fn replace(&self, law: Law, whole: Tick, g: usize, way: u32, key: Key) -> bool {
        let place = Place { generation: g as u8, way };
        let Some((tag, state)) = self.tag(place).zip(self.state(place)) else { return false };
        let old = tag.load(Ordering::SeqCst);
        if old == LEAVING || !law.is_fresh(whole, state) {
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
}

fn wait_a_moment() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    std::hint::spin_loop();
}

#[cfg(test)]
#[cfg(loom)]
mod models;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
