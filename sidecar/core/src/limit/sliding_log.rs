//! The sliding window, as an exact log.
//!
//! A key has a slot for each request of its limit, which holds the instant until which it is taken. A request takes a
//! slot that is free by one compare-and-swap and holds it for the whole window, so of no slot two instants lie in one
//! trailing window, and all slots together never hold more than the limit. Which slot a request has does not matter,
//! so there is no order to keep between threads; the hint, where the next free one is most likely, may be wrong.

use std::time::Duration;

use super::law::Taken;
use crate::Tick;
use crate::sync::{AtomicU64, Ordering};

/// Where in a key's state the hint is, and where the slots begin.
const HINT: usize = 0;
const SLOTS: usize = 1;

/// No key has more slots, whatever a document says that does not validate.
const MOST: u64 = tidegate_policy::Limit::MOST_LOGGED;

/// The parameters of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlidingLog {
    limit: u64,
    /// Nanoseconds.
    window: u64,
}

impl SlidingLog {
    /// At most `limit` in any trailing `window`.
    pub(crate) fn new(limit: u64, window: Duration) -> Self {
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX).max(1);
        Self { limit: limit.clamp(1, MOST), window }
    }

    pub(crate) fn limit(self) -> u64 {
        self.limit
    }

    /// Words that one key needs: the hint and the slots.
    pub(crate) fn words(self) -> usize {
        self.limit as usize + 1
    }

    /// Whether a request would pass at `now`, else the first instant at which it would. Spends nothing.
    #[allow(clippy::unused_self)] // the same shape as the other algorithms'
    pub(crate) fn judge(self, now: Tick, state: &[AtomicU64]) -> Result<(), Tick> {
        let free = around(state).any(|(_, slot)| slot.load(Ordering::SeqCst) <= now.as_nanos());
        if free { Ok(()) } else { Err(free_at(state)) }
    }

    /// Writes a request down, or says when there will be room.
    pub(crate) fn take(self, now: Tick, state: &[AtomicU64]) -> Result<Taken, Tick> {
        let until = now.as_nanos().saturating_add(self.window);
        let taken = around(state).find(|(_, slot)| occupy(now, until, slot));
        let Some((number, _)) = taken else { return Err(free_at(state)) };
        state[HINT].store(number as u64 + 1, Ordering::Relaxed);
        Ok(Taken::new(number as u64, until))
    }

    /// Strikes a request out, unless its time is over. Its slot is free as of the instant at which it was taken, so
    /// not for a thread whose clock lies before that.
    pub(crate) fn give_back(self, taken: Taken, state: &[AtomicU64]) {
        if let Some(slot) = state.get(taken.before as usize) {
            let since = taken.after.get().saturating_sub(self.window);
            let _ = slot.compare_exchange(taken.after.get(), since, Ordering::SeqCst, Ordering::Relaxed);
        }
    }

    /// What counts at `now`.
    #[allow(clippy::unused_self)] // the same shape as the other algorithms'
    pub(crate) fn outstanding(self, now: Tick, state: &[AtomicU64]) -> u64 {
        let slots = state.iter().skip(SLOTS);
        slots.filter(|slot| slot.load(Ordering::SeqCst) > now.as_nanos()).count() as u64
    }

    /// When the first and the last of the slots that are taken at `now` are free.
    #[allow(clippy::unused_self)] // the same shape as the other algorithms'
    pub(crate) fn ends(self, now: Tick, state: &[AtomicU64]) -> (Option<Tick>, Option<Tick>) {
        let taken = || {
            let slots = state.iter().skip(SLOTS).map(|slot| slot.load(Ordering::SeqCst));
            slots.filter(|until| *until > now.as_nanos()).map(Tick::from_nanos)
        };
        (taken().min(), taken().max())
    }

    /// Writes the youngest of another log's requests into this empty one.
    pub(crate) fn convert(self, old: Self, from: &[AtomicU64], to: &[AtomicU64]) {
        let until = |slot: &AtomicU64| {
            let until = slot.load(Ordering::SeqCst);
            if until == 0 { 0 } else { until.saturating_sub(old.window).saturating_add(self.window) }
        };
        let mut all: Vec<u64> = from.iter().skip(SLOTS).map(until).collect();
        all.sort_unstable_by(|one, other| other.cmp(one));
        for (slot, until) in to.iter().skip(SLOTS).zip(all) {
            slot.store(until, Ordering::Relaxed);
        }
    }
}

/// All slots with their numbers, from the hint on.
fn around(state: &[AtomicU64]) -> impl Iterator<Item = (usize, &AtomicU64)> {
    let first = (state[HINT].load(Ordering::Relaxed) as usize).clamp(SLOTS, state.len());
    let from = |first, last| state.iter().enumerate().take(last).skip(first);
    from(first, state.len()).chain(from(SLOTS, first))
}

/// The instant at which the first slot is free.
#[cold]
fn free_at(state: &[AtomicU64]) -> Tick {
    let first = state.iter().skip(SLOTS).map(|slot| slot.load(Ordering::SeqCst)).min();
    Tick::from_nanos(first.unwrap_or(0))
}

fn occupy(now: Tick, until: u64, slot: &AtomicU64) -> bool {
    let before = slot.load(Ordering::SeqCst);
    before <= now.as_nanos()
        && slot.compare_exchange(before, until, Ordering::SeqCst, Ordering::Relaxed).is_ok()
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
