//! The states of many keys: found without a lock, bounded, and never taken from a key that is in use.
//!
//! A key's tag and its state lie side by side, so that to find a key is to have its state: in one cache line, for all
//! algorithms but the exact log and windows of very many parts. Keys live in buckets of [`WAYS`], each at home in one
//! line of its bucket, where the search for it begins.
//!
//! There are up to three generations of buckets: a pod with few keys touches little memory, and one with many finds
//! nearly all of them in the last, where it looks first. The memory of the last is the system's until a key comes to
//! lie there. A key that finds no room in a generation has a second bucket to choose in the last one.
//!
//! A key may take the place of one whose state says no more than that of a key never seen; nobody else is ever put
//! out. As long as there is room, that state must have said so for a while, so that keys in use stay where they are.
//! When all is full, new keys share one overflow state until room comes back.
//!
//! A state can change hands while a thread holds it. So whoever has spent looks at the tag once more: if it is
//! another, it gives back and starts anew. Whoever puts a key out marks the tag first and looks at the state once
//! more: if somebody has spent, it leaves the key where it is. One of both always sees the other.

mod generation;
mod insertion;

use std::sync::OnceLock;
use std::time::Duration;

use tidegate_policy::Limit;

use super::key::Key;
use super::law::{Law, Taken};
use super::quota::Left;
use crate::Tick;
use crate::sync::{AtomicBool, AtomicU64, Ordering, in_total_order};
use generation::{Generation, Layout, zeroes};

/// Keys in a bucket.
const WAYS: usize = if cfg!(loom) { 1 } else { Limit::BUCKET as usize };
/// How often there can be made more room.
const GENERATIONS: usize = Limit::GENERATIONS;
/// Keys that are inserted at the same time wait for each other only if they share a latch.
const LATCHES: usize = if cfg!(loom) { 1 } else { 64 };
/// Attempts before a key that others keep moving is judged by the overflow.
const PATIENCE: usize = if cfg!(loom) { 2 } else { 64 };

/// How long a key is kept that could be forgotten, while there is room.
const KEPT: Duration = Duration::from_secs(10);

/// How far a key's hash is turned to pick its second bucket.
const SECOND: u32 = 32;

const EMPTY: u64 = 0;
const LEAVING: u64 = u64::MAX;

/// The states of all keys of one rule.
pub(crate) struct Table {
    generations: [OnceLock<Generation>; GENERATIONS],
    layout: Layout,
    /// Buckets of each generation; the first that has none ends them.
    buckets: [u32; GENERATIONS],
    /// Number of the last generation that has buckets.
    last: usize,
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

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("keys", &self.keys()).finish_non_exhaustive()
    }
}

/// Two values mark ways without a key.
fn tag_of(key: Key) -> u64 {
    if key.tag == EMPTY || key.tag == LEAVING { 1 } else { key.tag }
}

impl Table {
    /// A table of so many buckets in its generations.
    pub(crate) fn new(law: Law, buckets: [u32; GENERATIONS]) -> Self {
        let buckets = if cfg!(loom) { std::array::from_fn(|g| u32::from(g == 0)) } else { buckets };
        let table = Self {
            layout: Layout::new(law.words()),
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
    #[inline]
    pub(crate) fn find(&self, key: Key) -> Option<Place> {
        for (g, generation) in self.generations.iter().enumerate().rev() {
            let Some(generation) = generation.get() else { continue };
            if let Some(way) = generation.find(self.layout, key, 0) {
                return Some(Place { generation: g as u8, way });
            }
        }
        let generation = self.generations[self.last].get()?;
        let way = generation.find(self.layout, key, SECOND)?;
        Some(Place { generation: self.last as u8, way })
    }

    /// Whether a request on the key at `place` would pass.
    pub(crate) fn judge(&self, law: &Law, now: Tick, cost: u32, place: Option<Place>) -> Result<(), Tick> {
        match place.and_then(|place| self.entry(place)) {
            Some((_, state)) => law.judge(now, cost, state),
            None => law.judge_new(now, cost),
        }
    }

    /// What counts against the limit of the key at `place`.
    pub(crate) fn outstanding(&self, law: &Law, now: Tick, place: Option<Place>) -> u64 {
        law.outstanding(now, self.state(place))
    }

    /// The state of the key at `place`, or that of all without one of their own.
    fn state(&self, place: Option<Place>) -> &[AtomicU64] {
        place.and_then(|place| self.entry(place)).map_or(&self.overflow, |(_, state)| state)
    }

    /// What is left of the key at `place`.
    pub(crate) fn left(&self, law: &Law, now: Tick, place: Option<Place>) -> Left {
        law.left(now, self.state(place))
    }

    /// Spends on a key. `hint` is where it was found.
    #[inline]
    pub(crate) fn take(
        &self,
        law: &Law,
        now: Tick,
        key: Key,
        cost: u32,
        hint: Option<Place>,
    ) -> Result<Receipt, Tick> {
        let take = |state: &[AtomicU64]| law.take(now, cost, state);
        if let Some(verdict) = hint.and_then(|place| self.spend_at(law, key, cost, place, take)) {
            return verdict;
        }
        self.spend(law, now, key, cost, take)
    }

    /// Judges by the state that all requests without one of their own share.
    #[inline]
    pub(crate) fn judge_together(&self, law: &Law, now: Tick, cost: u32) -> Result<(), Tick> {
        law.judge(now, cost, &self.overflow)
    }

    /// Spends on that state.
    #[inline]
    pub(crate) fn take_together(&self, law: &Law, now: Tick, cost: u32) -> Result<Receipt, Tick> {
        law.take(now, cost, &self.overflow).map(|taken| Receipt { place: None, taken })
    }

    /// Charges that state.
    pub(crate) fn charge_together(&self, law: &Law, now: Tick, amount: u32) {
        law.charge(now, amount, &self.overflow);
    }

    /// Charges a key for what it has used beyond what it took, whether that is there or not.
    pub(crate) fn charge(&self, law: &Law, now: Tick, key: Key, amount: u32) {
        // It is always there to be charged.
        let _ = self.spend(law, now, key, amount, |state| Ok(law.charge(now, amount, state)));
    }

    /// Spends on a key that is not known, or was put out a moment ago.
    #[cold]
    fn spend(
        &self,
        law: &Law,
        now: Tick,
        key: Key,
        cost: u32,
        take: impl Fn(&[AtomicU64]) -> Result<Taken, Tick>,
    ) -> Result<Receipt, Tick> {
        for _ in 0..PATIENCE {
            let Some(place) = self.find(key).or_else(|| self.insert(law, now, key)) else { break };
            if let Some(verdict) = self.spend_at(law, key, cost, place, &take) {
                return verdict;
            }
        }
        take(&self.overflow).map(|taken| Receipt { place: None, taken })
    }

    /// Spends at a place. None: it was not the key's any more, and nothing is spent.
    #[inline]
    fn spend_at(
        &self,
        law: &Law,
        key: Key,
        cost: u32,
        place: Place,
        take: impl Fn(&[AtomicU64]) -> Result<Taken, Tick>,
    ) -> Option<Result<Receipt, Tick>> {
        let (tag, state) = self.entry(place)?;
        let verdict = take(state);
        in_total_order();
        if tag.load(Ordering::SeqCst) == tag_of(key) {
            return Some(verdict.map(|taken| Receipt { place: Some(place), taken }));
        }
        if let Ok(taken) = verdict {
            law.give_back(taken, cost, state);
        }
        None
    }

    /// Undoes `amount` of a `take`. If the key has lost its place meanwhile, its state was that of a key never seen,
    /// and the next owner is not charged less than it spends.
    pub(crate) fn give_back(&self, law: &Law, key: Key, receipt: Receipt, amount: u32) {
        match receipt.place {
            None => law.give_back(receipt.taken, amount, &self.overflow),
            Some(place) => {
                if let Some((tag, state)) = self.entry(place)
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
            for way in 0..from.buckets * WAYS as u32 {
                let Some((tag, state)) = from.entry(self.layout, way) else { break };
                let tag = tag.load(Ordering::SeqCst);
                if tag == EMPTY || tag == LEAVING {
                    continue;
                }
                if let Some((to_tag, to_state)) = to.entry(table.layout, way) {
                    new.convert(old, now, state, to_state);
                    to_tag.store(tag, Ordering::SeqCst);
                }
            }
        }
        table
    }

    /// Makes room ahead of need, so that no request has to.
    pub(crate) fn grow_ahead(&self) {
        let made = self.made();
        let room: u64 = self.buckets[..made].iter().map(|buckets| u64::from(*buckets) * WAYS as u64).sum();
        if made <= self.last && self.keys() * 4 > room * 3 {
            self.generation_or_new(made);
        }
    }

    /// Generations that there are already.
    fn made(&self) -> usize {
        self.generations.iter().take_while(|g| g.get().is_some()).count()
    }

    fn generation_or_new(&self, g: usize) -> &Generation {
        self.generations[g].get_or_init(|| Generation::new(self.buckets[g].max(1), self.layout))
    }

    #[inline]
    fn entry(&self, place: Place) -> Option<(&AtomicU64, &[AtomicU64])> {
        self.generations[place.generation as usize].get()?.entry(self.layout, place.way)
    }
}

#[cfg(test)]
#[cfg(loom)]
mod models;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
