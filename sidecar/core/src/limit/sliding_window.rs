//! The sliding window, as a ring of sub-windows.
//!
//! A window of `n` sub-windows is counted in a ring of `n + 1`: the one that runs and the `n` before it. Any
//! trailing window that ends in the running one lies within them, so as long as all of them together hold at most
//! `limit`, no trailing window holds more. The price is that a request counts for up to one sub-window longer
//! than the window.

use std::time::Duration;

use super::law::Taken;
use super::round::{COUNT, COUNT_BITS, ROUND, is_later};
use crate::Tick;
use crate::divisor::Divisor;
use crate::sync::{AtomicU64, Ordering, in_total_order};

/// Shorter sub-windows would be finer than clocks of several threads agree, and wear out the round numbers.
const SHORTEST: Duration = Duration::from_millis(1);

/// Attempts of a request that others keep out of a place that none of them takes.
const PATIENCE: usize = if cfg!(loom) { 2 } else { 64 };

/// The parameters of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlidingWindow {
    limit: u64,
    /// Length of a sub-window in nanoseconds, rounded up.
    width: Divisor,
    /// Sub-windows in the ring, one more than in the window.
    slots: Divisor,
}

/// The running sub-window: how often the ring went round, and the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    round: u64,
    slot: u64,
}

impl SlidingWindow {
    /// At most `limit` requests in any trailing `window`. Sub-windows shorter than a millisecond are joined.
    pub(crate) fn new(limit: u64, window: Duration, sub_windows: u32) -> Self {
        let longest_ring = u64::try_from(window.as_nanos() / SHORTEST.as_nanos()).unwrap_or(u64::MAX);
        let parts = u64::from(sub_windows).min(longest_ring).max(1);
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        let width = Divisor::new(window.div_ceil(parts));
        Self { limit: limit.clamp(1, COUNT / 2), width, slots: Divisor::new(parts + 1) }
    }

    pub(crate) fn limit(self) -> u64 {
        self.limit
    }

    /// Words that one key needs.
    pub(crate) fn words(self) -> usize {
        self.slots.get() as usize
    }

    /// Whether counts of the other are counts of this one.
    pub(crate) fn same_ring(self, other: Self) -> bool {
        (self.width, self.slots) == (other.width, other.slots)
    }

    /// Whether a request would pass at `now`, else the first instant at which it would. Spends nothing.
    pub(crate) fn judge(self, now: Tick, cost: u32, ring: &[AtomicU64]) -> Result<(), Tick> {
        self.judge_from(self.position(now), now, u64::from(cost), ring).map(|_| ())
    }

    /// Counts a request, or says when there will be room.
    ///
    /// The request is counted first and the ring added up afterwards: of two that race for the last place at
    /// least one sees the other, so both can never pass. Both may see each other, give back and try again; who has had
    /// no luck for long is refused, and may come again at once.
    pub(crate) fn take(self, now: Tick, cost: u32, ring: &[AtomicU64]) -> Result<Taken, Tick> {
        let cost = u64::from(cost);
        let mut position = self.judge_from(self.position(now), now, cost, ring)?;
        for _ in 0..PATIENCE {
            let slot = &ring[position.slot as usize];
            if let Some(sum) = count(slot, position.round, cost) {
                in_total_order();
                if self.survey(position, ring).is_ok_and(|others| others + sum <= self.limit) {
                    return Ok(Taken { before: position.slot, after: position.round });
                }
                uncount(slot, position.round, cost);
            }
            position = self.judge_from(position, now, cost, ring)?;
        }
        Err(now + Duration::from_nanos(1))
    }

    /// Takes `amount` of the count back, unless its sub-window is gone already.
    #[allow(clippy::unused_self)] // the same shape as the other algorithms'
    pub(crate) fn give_back(self, taken: Taken, amount: u32, ring: &[AtomicU64]) {
        uncount(&ring[taken.before as usize], taken.after, u64::from(amount));
    }

    /// Counts `amount` in the running sub-window, whether there is room or not.
    pub(crate) fn charge(self, now: Tick, amount: u32, ring: &[AtomicU64]) -> Taken {
        loop {
            let (position, _) = self.newest(self.position(now), ring);
            let slot = &ring[position.slot as usize];
            let room = COUNT - count_at(slot, position.round);
            if count(slot, position.round, u64::from(amount).min(room)).is_some() {
                return Taken { before: position.slot, after: position.round };
            }
        }
    }

    /// Requests that count at `now`.
    pub(crate) fn outstanding(self, now: Tick, ring: &[AtomicU64]) -> u64 {
        self.newest(self.position(now), ring).1
    }

    /// Moves the counts of a ring of another shape into this empty one. Each is taken for as young as it can be,
    /// so that none is forgotten early.
    pub(crate) fn convert(self, old: Self, now: Tick, from: &[AtomicU64], to: &[AtomicU64]) {
        let (position, _) = old.newest(old.position(now), from);
        for age in 0..old.slots.get() {
            let slot = old.back(position, age);
            let count = count_at(&from[slot.slot as usize], slot.round);
            let end = (old.epoch(position, now) + 1 - age).saturating_mul(old.width.get()) - 1;
            let new = self.position(Tick::from_nanos(end.min(now.as_nanos())));
            if count > 0 && self.age(new, self.position(now)) < self.slots.get() {
                let target = &to[new.slot as usize];
                let before = count_at(target, new.round);
                target.store(new.round << COUNT_BITS | (before + count).min(COUNT), Ordering::Relaxed);
            }
        }
    }

    /// The sub-window that runs at `now`. The first is in round 1, so that every slot has one before it.
    fn position(self, now: Tick) -> Position {
        let (epoch, _) = self.width.divide(now.as_nanos());
        let (round, slot) = self.slots.divide(epoch);
        Position { round: (round + 1) & ROUND, slot }
    }

    /// The sub-window `age` before another, less than one round.
    fn back(self, from: Position, age: u64) -> Position {
        if age <= from.slot {
            Position { round: from.round, slot: from.slot - age }
        } else {
            Position { round: from.round.wrapping_sub(1) & ROUND, slot: from.slot + self.slots.get() - age }
        }
    }

    fn age(self, of: Position, at: Position) -> u64 {
        ((at.round.wrapping_sub(of.round) & ROUND) * self.slots.get() + at.slot).saturating_sub(of.slot)
    }

    /// The number of a sub-window since the origin of time. `position` is near `now`.
    fn epoch(self, position: Position, now: Tick) -> u64 {
        self.width.divide(now.as_nanos()).0 + self.age(self.position(now), position)
    }

    /// The sub-window to judge in, or when there will be room.
    fn judge_from(self, own: Position, now: Tick, cost: u64, ring: &[AtomicU64]) -> Result<Position, Tick> {
        if cost > self.limit {
            return Err(Tick::NEVER);
        }
        let (position, sum) = self.newest(own, ring);
        if sum + cost <= self.limit { Ok(position) } else { Err(self.free_at(position, now, cost, ring)) }
    }

    /// The newest sub-window that anybody counted in, if that is after `own`, and the sum of the ring there: a
    /// thread whose clock lies behind another's judges at the other's time, so that time never goes back for a
    /// key.
    fn newest(self, own: Position, ring: &[AtomicU64]) -> (Position, u64) {
        let mut position = own;
        loop {
            match self.survey(position, ring) {
                Ok(others) => {
                    let sum = others + count_at(&ring[position.slot as usize], position.round);
                    return (position, sum);
                }
                Err(newer) => position = newer,
            }
        }
    }

    /// Counts of all other sub-windows that a trailing window which ends in `position` can touch; or a newer
    /// sub-window, if somebody has counted in one.
    #[allow(clippy::unused_self)] // reads as the others do
    fn survey(self, position: Position, ring: &[AtomicU64]) -> Result<u64, Position> {
        let before = position.round.wrapping_sub(1) & ROUND;
        let own = position.slot as usize;
        let mut sum = 0;
        for (slot, word) in ring.iter().enumerate() {
            let word = word.load(Ordering::SeqCst);
            let (round, expected) = (word >> COUNT_BITS, if slot > own { before } else { position.round });
            if round == expected {
                sum += if slot == own { 0 } else { word & COUNT };
            } else if is_later(round, expected) && word & COUNT > 0 {
                return Err(Position { round, slot: slot as u64 });
            }
        }
        Ok(sum)
    }

    /// The instant at which so many sub-windows have left the ring that the request has room.
    fn free_at(self, position: Position, now: Tick, cost: u64, ring: &[AtomicU64]) -> Tick {
        let mut left = self.newest(position, ring).1;
        let mut age = self.slots.get() - 1;
        loop {
            let slot = self.back(position, age);
            left = left.saturating_sub(count_at(&ring[slot.slot as usize], slot.round));
            if left + cost <= self.limit || age == 0 {
                let free = self.epoch(position, now) + self.slots.get() - age;
                return Tick::from_nanos(free.saturating_mul(self.width.get()));
            }
            age -= 1;
        }
    }
}

/// The count of a slot, if it belongs to this round.
fn count_at(word: &AtomicU64, round: u64) -> u64 {
    let word = word.load(Ordering::SeqCst);
    if word >> COUNT_BITS == round { word & COUNT } else { 0 }
}

/// Adds to a slot in its round and returns the count with it. None when the slot is in a later round already, or so
/// full that it could count no more.
fn count(slot: &AtomicU64, round: u64, cost: u64) -> Option<u64> {
    let mut word = slot.load(Ordering::Relaxed);
    loop {
        let counted_in = word >> COUNT_BITS;
        let counted = word & COUNT;
        if is_later(counted_in, round) && counted > 0 {
            return None;
        }
        let sum = if counted_in == round { counted } else { 0 } + cost;
        if sum > COUNT {
            return None;
        }
        match slot.compare_exchange_weak(word, round << COUNT_BITS | sum, Ordering::SeqCst, Ordering::Relaxed)
        {
            Ok(_) => return Some(sum),
            Err(current) => word = current,
        }
    }
}

/// Takes from a slot what was added to it in this round.
fn uncount(slot: &AtomicU64, round: u64, amount: u64) {
    let mut word = slot.load(Ordering::Relaxed);
    while word >> COUNT_BITS == round {
        let rest = word - (word & COUNT).min(amount);
        match slot.compare_exchange_weak(word, rest, Ordering::SeqCst, Ordering::Relaxed) {
            Ok(_) => return,
            Err(current) => word = current,
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
