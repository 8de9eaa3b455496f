//! The sliding window, as a ring of sub-windows.
//!
//! A window of `n` sub-windows is counted in a ring of `n + 1`: the one that runs and the `n` before it. Any
//! trailing window that ends in the running one lies within them, so as long as all of them together hold at most
//! `limit`, no trailing window holds more. The price is that a request counts for up to one sub-window longer
//! than the window.
//!
//! A word holds the count of one sub-window and the round of the ring that it belongs to, or those of two neighbours
//! with the round of both: where the counts are small enough that the numbers of rounds last for months, a key of up
//! to twelve sub-windows fits into one cache line. A word is begun anew for both at once, so a ring of pairs has one
//! or two sub-windows more than it counts.

use std::time::Duration;

use tidegate_policy::Ring;

use super::law::Taken;
use crate::Tick;
use crate::divisor::Divisor;
use crate::sync::{AtomicU64, Ordering, in_total_order};

/// Attempts of a request that others keep out of a place that none of them takes.
const PATIENCE: usize = if cfg!(loom) { 2 } else { 64 };

/// The parameters of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlidingWindow {
    limit: u64,
    /// Length of a sub-window in nanoseconds, rounded up.
    width: Divisor,
    /// Sub-windows in the ring.
    slots: Divisor,
    /// Sub-windows that count: those of the window, and one more.
    counted: u64,
    /// Of the oldest word, what still counts where the running sub-window is the first of its word, or the second.
    keep: [u64; 2],
    /// Sub-windows in a word: one or two.
    in_word: usize,
    /// Bits of a count.
    bits: u32,
    /// Where the number of the round lies in a word.
    stamp_at: u32,
    /// The largest count of a sub-window.
    most: u64,
    /// The words of one round: from the one without counts on, so many.
    span: u64,
    /// As far behind a word as one can be that comes after it.
    horizon: u64,
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
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        Self::of(limit, window, Ring::new(limit, window, sub_windows))
    }

    /// The same in a ring of this shape.
    fn of(limit: u64, window: u64, Ring { parts, in_word, bits }: Ring) -> Self {
        let slots = if in_word == 1 { parts + 1 } else { (parts + 2).next_multiple_of(2) };
        let (most, stamp_at) = ((1 << bits) - 1, bits * in_word as u32);
        // Of the oldest word nothing, its second sub-window, or all.
        let keep = match (in_word, slots - parts - 1) {
            (1, _) => [u64::MAX; 2],
            (_, 1) => [u64::MAX, !most],
            _ => [!most, 0],
        };
        Self {
            limit: limit.clamp(1, (1 << (bits - 1)) - 1),
            width: Divisor::new(window.div_ceil(parts)),
            slots: Divisor::new(slots),
            counted: parts + 1,
            keep,
            in_word: in_word as usize,
            bits,
            stamp_at,
            most,
            span: 1 << stamp_at,
            horizon: ((u64::MAX >> stamp_at) / 16 + 1) << stamp_at,
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Words that one key needs.
    pub(crate) fn words(&self) -> usize {
        self.slots.get() as usize / self.in_word
    }

    /// Whether counts of the other are counts of this one.
    pub(crate) fn same_ring(self, other: Self) -> bool {
        (self.width, self.slots, self.in_word, self.bits)
            == (other.width, other.slots, other.in_word, other.bits)
    }

    /// Whether a request would pass at `now`, else the first instant at which it would. Spends nothing.
    pub(crate) fn judge(&self, now: Tick, cost: u32, ring: &[AtomicU64]) -> Result<(), Tick> {
        self.judge_from(self.position(now), now, u64::from(cost), ring).map(|_| ())
    }

    /// Counts a request, or says when there will be room.
    ///
    /// The request is counted first and the ring added up afterwards: of two that race for the last place at
    /// least one sees the other, so both can never pass. Both may see each other, give back and try again; who has had
    /// no luck for long is refused, and may come again at once.
    #[inline]
    pub(crate) fn take(&self, now: Tick, cost: u32, ring: &[AtomicU64]) -> Result<Taken, Tick> {
        let cost = u64::from(cost);
        let mut position = self.position(now);
        if cost > self.limit {
            return Err(Tick::NEVER);
        }
        for _ in 0..PATIENCE {
            if self.count(position, cost, ring) {
                in_total_order();
                if self.survey(position, ring).is_ok_and(|sum| sum <= self.limit) {
                    return Ok(Taken::new(position.round, position.slot + 1));
                }
                self.uncount(position, cost, ring);
            }
            position = self.judge_from(position, now, cost, ring)?;
        }
        Err(now + Duration::from_nanos(1))
    }

    /// Takes `amount` of the count back, unless its sub-window is gone already.
    pub(crate) fn give_back(&self, taken: Taken, amount: u32, ring: &[AtomicU64]) {
        let position = Position { round: taken.before, slot: taken.after.get() - 1 };
        self.uncount(position, u64::from(amount), ring);
    }

    /// Counts `amount` in the running sub-window, whether there is room or not.
    pub(crate) fn charge(&self, now: Tick, amount: u32, ring: &[AtomicU64]) -> Taken {
        loop {
            let (position, _) = self.newest(self.position(now), ring);
            // More than a word can count changes no verdict: already that is over the limit.
            let room = self.most - self.count_at(position, ring);
            if self.count(position, u64::from(amount).min(room), ring) {
                return Taken::new(position.round, position.slot + 1);
            }
        }
    }

    /// Requests that count at `now`.
    pub(crate) fn outstanding(&self, now: Tick, ring: &[AtomicU64]) -> u64 {
        self.newest(self.position(now), ring).1
    }

    /// Moves the counts of a ring of another shape into this empty one. Each is taken for as young as it can be,
    /// so that none is forgotten early.
    pub(crate) fn convert(self, old: Self, now: Tick, from: &[AtomicU64], to: &[AtomicU64]) {
        let (position, _) = old.newest(old.position(now), from);
        // From the oldest on, as they came: a word that is begun anew forgets what was in it.
        for age in (0..old.counted).rev() {
            let slot = old.back(position, age);
            let count = old.count_at(slot, from);
            let end = (old.epoch(position, now) + 1).saturating_sub(age).saturating_mul(old.width.get());
            let new = self.position(Tick::from_nanos(end.saturating_sub(1).min(now.as_nanos())));
            if count > 0 && self.age(new, self.position(now)) < self.counted {
                let room = self.most - self.count_at(new, to);
                self.count(new, count.min(room), to);
            }
        }
    }

    /// The largest number of a round.
    #[inline]
    fn rounds(&self) -> u64 {
        u64::MAX >> self.stamp_at
    }

    /// The word of a sub-window, and where in it its count lies.
    #[inline]
    fn at(&self, slot: u64) -> (usize, u32) {
        if self.in_word == 1 {
            (slot as usize, 0)
        } else {
            (slot as usize / 2, (slot & 1) as u32 * self.bits)
        }
    }

    /// The sub-window that runs at `now`. The first is in round 1, so that every slot has one before it.
    #[inline]
    fn position(&self, now: Tick) -> Position {
        let (epoch, _) = self.width.divide(now.as_nanos());
        let (round, slot) = self.slots.divide(epoch);
        Position { round: (round + 1) & self.rounds(), slot }
    }

    /// The sub-window `age` before another, less than one round.
    fn back(&self, from: Position, age: u64) -> Position {
        if age <= from.slot {
            Position { round: from.round, slot: from.slot - age }
        } else {
            let round = from.round.wrapping_sub(1) & self.rounds();
            Position { round, slot: from.slot + self.slots.get() - age }
        }
    }

    fn age(&self, of: Position, at: Position) -> u64 {
        let rounds = at.round.wrapping_sub(of.round) & self.rounds();
        (rounds * self.slots.get() + at.slot).saturating_sub(of.slot)
    }

    /// The number of a sub-window since the origin of time. `position` is near `now`.
    fn epoch(&self, position: Position, now: Tick) -> u64 {
        self.width.divide(now.as_nanos()).0 + self.age(self.position(now), position)
    }

    /// The sub-window to judge in, or when there will be room.
    #[cold]
    fn judge_from(&self, own: Position, now: Tick, cost: u64, ring: &[AtomicU64]) -> Result<Position, Tick> {
        if cost > self.limit {
            return Err(Tick::NEVER);
        }
        let (position, sum) = self.newest(own, ring);
        if sum + cost <= self.limit { Ok(position) } else { Err(self.free_at(position, now, cost, ring)) }
    }

    /// The newest sub-window that anybody counted in, if that is after `own`, and the sum of the ring there: a
    /// thread whose clock lies behind another's judges at the other's time, so that time never goes back for a
    /// key.
    fn newest(&self, own: Position, ring: &[AtomicU64]) -> (Position, u64) {
        let mut position = own;
        loop {
            match self.survey(position, ring) {
                Ok(sum) => return (position, sum),
                Err(newer) => position = newer,
            }
        }
    }

    /// Counts of all sub-windows that a trailing window which ends in `position` can touch; or a newer sub-window, if
    /// somebody has counted in one.
    #[inline(always)]
    #[allow(clippy::inline_always)] // the heart of a window's verdict
    fn survey(&self, position: Position, ring: &[AtomicU64]) -> Result<u64, Position> {
        if self.in_word == 1 { self.survey_alone(position, ring) } else { self.survey_pairs(position, ring) }
    }

    /// The same of a ring with one sub-window in a word.
    #[inline(always)]
    #[allow(clippy::inline_always)] // as above
    fn survey_alone(&self, position: Position, ring: &[AtomicU64]) -> Result<u64, Position> {
        let (now, behind) = (position.round << self.stamp_at, position.slot as usize + 1);
        let Some((first, last)) = ring.split_at_checked(behind) else { return Ok(0) };
        let (mut sum, before) = (0, now.wrapping_sub(self.span));
        for (n, word) in first.iter().enumerate() {
            sum += self.packed(n, word, (now, self.span))?;
        }
        for (n, word) in last.iter().enumerate() {
            sum += self.packed(behind + n, word, (before, self.span))?;
        }
        Ok(sum)
    }

    /// The same of a ring with two.
    fn survey_pairs(&self, position: Position, ring: &[AtomicU64]) -> Result<u64, Position> {
        let (own, shift) = self.at(position.slot);
        let now = position.round << self.stamp_at;
        let before = now.wrapping_sub(self.span);
        let (first, rest) = ring.split_at(own);
        let Some((running, last)) = rest.split_first() else { return Ok(0) };
        // Of the running word nothing may have been counted after the running sub-window.
        let span = if shift == 0 { self.most + 1 } else { self.span };
        let mut sum = self.counts(own, running, (now, span))?;
        // The word after it is the oldest: at the end of the ring the first.
        let keep = self.keep[usize::from(shift > 0)];
        let (from, first, last) = match (last.split_first(), first.split_first()) {
            (Some((oldest, last)), _) => {
                sum += self.sum(self.packed(own + 1, oldest, (before, self.span))? & keep);
                (0, first, last)
            }
            (None, Some((oldest, first))) => {
                sum += self.sum(self.packed(0, oldest, (now, self.span))? & keep);
                (1, first, last)
            }
            (None, None) => (0, first, last),
        };
        for (n, word) in first.iter().enumerate() {
            sum += self.counts(from + n, word, (now, self.span))?;
        }
        for (n, word) in last.iter().enumerate() {
            sum += self.counts(own + 2 + n, word, (before, self.span))?;
        }
        Ok(sum)
    }

    #[inline]
    fn counts(&self, n: usize, word: &AtomicU64, round: (u64, u64)) -> Result<u64, Position> {
        self.packed(n, word, round).map(|counts| self.sum(counts))
    }

    /// What the `n`th word holds, if it lies in the `span` from `stamp` on. Nothing, if it is of an earlier round, and its
    /// last sub-window, if somebody has counted in it later.
    #[inline]
    fn packed(&self, n: usize, word: &AtomicU64, (stamp, span): (u64, u64)) -> Result<u64, Position> {
        let word = word.load(Ordering::SeqCst);
        let counts = word.wrapping_sub(stamp);
        if counts < span {
            Ok(counts)
        } else if self.is_later(counts, word) {
            Err(self.newest_of(n, word))
        } else {
            Ok(0)
        }
    }

    /// Both counts of a word.
    #[inline]
    fn sum(&self, counts: u64) -> u64 {
        (counts & self.most) + (counts >> self.bits)
    }

    /// Whether a word that lies so far behind a stamp comes after it, with something in it, as in a fixed window.
    #[inline]
    fn is_later(&self, behind: u64, word: u64) -> bool {
        behind < self.horizon && word & (self.span - 1) > 0
    }

    /// The last sub-window of a word that somebody counted in.
    #[cold]
    fn newest_of(&self, n: usize, word: u64) -> Position {
        let second = (word & (self.span - 1)) >> self.bits > 0;
        Position { round: word >> self.stamp_at, slot: (n * self.in_word) as u64 + u64::from(second) }
    }

    /// The instant at which so many sub-windows have left the ring that the request has room.
    fn free_at(&self, position: Position, now: Tick, cost: u64, ring: &[AtomicU64]) -> Tick {
        let mut left = self.newest(position, ring).1;
        let mut age = self.counted - 1;
        loop {
            left = left.saturating_sub(self.count_at(self.back(position, age), ring));
            if left + cost <= self.limit || age == 0 {
                let free = self.epoch(position, now) + self.counted - age;
                return Tick::from_nanos(free.saturating_mul(self.width.get()));
            }
            age -= 1;
        }
    }

    /// The count of a sub-window, if its word belongs to its round.
    fn count_at(&self, position: Position, ring: &[AtomicU64]) -> u64 {
        let (n, shift) = self.at(position.slot);
        let word = ring[n].load(Ordering::SeqCst);
        if word >> self.stamp_at == position.round { word >> shift & self.most } else { 0 }
    }

    /// Adds to a sub-window. False when its word is in a later round already, or so full that it could count no more.
    #[inline]
    fn count(&self, position: Position, cost: u64, ring: &[AtomicU64]) -> bool {
        let (n, shift) = self.at(position.slot);
        let stamp = position.round << self.stamp_at;
        let mut word = ring[n].load(Ordering::Relaxed);
        loop {
            let behind = word.wrapping_sub(stamp);
            let before = if behind < self.span { behind } else { 0 };
            if before != behind && self.is_later(behind, word) {
                return false;
            }
            if (before >> shift & self.most) + cost > self.most {
                return false;
            }
            let after = stamp + before + (cost << shift);
            match ring[n].compare_exchange_weak(word, after, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(current) => word = current,
            }
        }
    }

    /// Takes from a sub-window what was added to it in this round.
    fn uncount(&self, position: Position, amount: u64, ring: &[AtomicU64]) {
        let (n, shift) = self.at(position.slot);
        let mut word = ring[n].load(Ordering::Relaxed);
        while word >> self.stamp_at == position.round {
            let rest = word - ((word >> shift & self.most).min(amount) << shift);
            match ring[n].compare_exchange_weak(word, rest, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return,
                Err(current) => word = current,
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
