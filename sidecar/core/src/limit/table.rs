//! The states of many keys: found without a lock, bounded, and never taken from a key that is in use.
//!
//! Keys live in buckets of [`WAYS`], each at home in one way of its bucket, where the search for it begins. There are
//! up to three generations of buckets: a pod with few keys touches little memory, and one with many finds nearly all of
//! them in the last, where it looks first. The memory of the last is the system's until a key comes to lie there. A key
//! that finds no room in a generation has a second bucket to choose in the last one.
//!
//! Of many keys each misses the processor's caches. There a key's tag and its state lie side by side, so that to find a
//! key is to have its state: in one cache line, for all algorithms but the exact log and windows of very many parts. Few
//! keys are in the caches anyway, but each may be hot, and a line that one thread writes to has to be fetched anew by
//! all others that only read in it. So in the first two generations tags lie by themselves, and whoever looks for a key
//! in vain, or finds it behind others, touches no state but its own; in the first each state has a line of its own.
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

use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::time::Duration;

use tidegate_policy::Limit;

use super::key::Key;
use super::law::{Law, Taken};
use super::quota::Left;
use crate::Tick;
use crate::sync::{AtomicBool, AtomicU64, Ordering, in_total_order};
use generation::{Entry, Generation, Layout, zeroes};

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

/// No key has been here.
const EMPTY: u64 = 0;
/// No key is here any more.
const VACANT: u64 = 1;
const LEAVING: u64 = u64::MAX;

/// The states of all keys of one rule.
pub(crate) struct Table {
    generations: [OnceLock<Generation>; GENERATIONS],
    /// Words of a key's state.
    words: usize,
    /// Buckets of each generation; the first that has none ends them.
    buckets: [u32; GENERATIONS],
    /// Number of the last generation that has buckets.
    last: usize,
    latches: Box<[AtomicBool]>,
    keys: AtomicU64,
    overflow: Box<[AtomicU64]>,
}

/// Where a key is: the number of its generation above that of its way, and a one below, so that none is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(NonZeroU32);

impl Place {
    /// Above it lies the number of the generation.
    const WAYS_END: u32 = 30;

    #[inline]
    fn new(generation: usize, way: u32) -> Self {
        Self(NonZeroU32::MIN | (generation as u32) << Self::WAYS_END | way << 1)
    }

    #[inline]
    fn generation(self) -> usize {
        (self.0.get() >> Self::WAYS_END) as usize
    }

    #[inline]
    fn way(self) -> u32 {
        (self.0.get() & ((1 << Self::WAYS_END) - 1)) >> 1
    }
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

/// Three values mark ways without a key.
#[inline]
fn tag_of(key: Key) -> u64 {
    // They are neighbours where numbers wrap around, so that one comparison tells them from all others.
    if key.tag.wrapping_sub(LEAVING) <= VACANT.wrapping_sub(LEAVING) { VACANT + 1 } else { key.tag }
}

impl Table {
    /// A table of so many buckets in its generations.
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
        let place = |(g, entry): (usize, Entry<'_>)| Place::new(g, entry.way);
        self.look(key).map(place).or_else(|| {
            let entry = self.generations[self.last].get()?.find(key, SECOND)?;
            Some(place((self.last, entry)))
        })
    }

    /// A key in the first bucket that it may be in, of any generation. Most are in the last, and at home there.
    #[inline(always)]
    #[allow(clippy::inline_always)] // what it finds is used at once
    fn look(&self, key: Key) -> Option<(usize, Entry<'_>)> {
        let mut g = GENERATIONS;
        while g > 0 {
            g -= 1;
            let Some(generation) = self.generations[g].get() else { continue };
            let entry = match generation.at_home(key) {
                Some(home) if home.is_of(key) => return Some((g, home)),
                Some(home) if home.known != EMPTY => generation.find(key, 0),
                _ => None,
            };
            if let Some(entry) = entry {
                return Some((g, entry));
            }
        }
        None
    }

    /// Has the memory sent where a key is likely to be. Nothing waits for it.
    #[inline]
    pub(crate) fn send_for(&self, key: Key) {
        // The few keys of the first are at hand anyway.
        if let Some(generation) = self.generations[1..].iter().rev().find_map(OnceLock::get) {
            generation.send_for(key);
        }
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

    /// Spends on a key.
    #[inline(always)]
    #[allow(clippy::inline_always)] // what it gives is written once, where it is kept
    pub(crate) fn take(&self, law: &Law, now: Tick, key: Key, cost: u32) -> Result<Receipt, Tick> {
        let Some((g, entry)) = self.look(key) else { return self.take_elsewhere(law, now, key, cost) };
        let verdict = law.attempt(now, cost, entry.state).result();
        in_total_order();
        if entry.tag.load(Ordering::SeqCst) != entry.known {
            return self.take_again(law, now, key, cost, (verdict, entry.state));
        }
        let place = Some(Place::new(g, entry.way));
        verdict.map(|taken| Receipt { place, taken })
    }

    /// Spends on a key whose place is not its own any more, and undoes what was spent there.
    #[cold]
    #[inline(never)]
    fn take_again(
        &self,
        law: &Law,
        now: Tick,
        key: Key,
        cost: u32,
        (verdict, state): (Result<Taken, Tick>, &[AtomicU64]),
    ) -> Result<Receipt, Tick> {
        if let Ok(taken) = verdict {
            law.give_back(taken, cost, state);
        }
        self.take_elsewhere(law, now, key, cost)
    }

    /// Spends on a key that is not where it is looked for first.
    #[cold]
    #[inline(never)]
    fn take_elsewhere(&self, law: &Law, now: Tick, key: Key, cost: u32) -> Result<Receipt, Tick> {
        self.spend(law, now, key, cost, |state| law.take(now, cost, state))
    }

    /// Spends on the state that all requests without one of their own share.
    #[inline(always)]
    #[allow(clippy::inline_always)] // no more than the law
    pub(crate) fn take_together(&self, law: &Law, now: Tick, cost: u32) -> Result<Receipt, Tick> {
        law.attempt(now, cost, &self.overflow).result().map(|taken| Receipt { place: None, taken })
    }

    /// Judges by the state that all requests without one of their own share.
    #[inline]
    pub(crate) fn judge_together(&self, law: &Law, now: Tick, cost: u32) -> Result<(), Tick> {
        law.judge(now, cost, &self.overflow)
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

    /// Spends on a key that is not known, or was put out a moment ago, or is in its second bucket.
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
            let Some((tag, state)) = self.entry(place) else { break };
            let entry = Entry { way: place.way(), tag, known: tag_of(key), state };
            if let Some(verdict) = spend_at(law, cost, place.generation(), &entry, &take) {
                return verdict;
            }
        }
        take(&self.overflow).map(|taken| Receipt { place: None, taken })
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
                let Some((tag, state)) = from.entry(way) else { break };
                let tag = tag.load(Ordering::SeqCst);
                let Some((to_tag, to_state)) = to.entry(way).filter(|_| tag != EMPTY) else { continue };
                if tag == LEAVING {
                    // What lies behind it must be found all the same.
                    to_tag.store(VACANT, Ordering::SeqCst);
                } else {
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
        let layout = match g {
            0 => Layout::apart(self.words),
            1 => Layout::aside(self.words),
            _ => Layout::beside(self.words),
        };
        self.generations[g].get_or_init(|| Generation::new(self.buckets[g].max(1), layout))
    }

    #[inline]
    fn entry(&self, place: Place) -> Option<(&AtomicU64, &[AtomicU64])> {
        self.generations[place.generation()].get()?.entry(place.way())
    }
}

/// Spends where a key was found. None: it was not the key's any more, and nothing is spent.
#[inline]
fn spend_at(
    law: &Law,
    cost: u32,
    generation: usize,
    entry: &Entry<'_>,
    take: impl Fn(&[AtomicU64]) -> Result<Taken, Tick>,
) -> Option<Result<Receipt, Tick>> {
    let verdict = take(entry.state);
    in_total_order();
    if entry.tag.load(Ordering::SeqCst) == entry.known {
        let place = Some(Place::new(generation, entry.way));
        return Some(verdict.map(|taken| Receipt { place, taken }));
    }
    if let Ok(taken) = verdict {
        law.give_back(taken, cost, entry.state);
    }
    None
}

#[cfg(test)]
#[cfg(loom)]
mod models;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
