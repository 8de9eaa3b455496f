//! Which share of the calls in a trailing window was bad.

use std::time::Duration;

use crate::Tick;
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Sub-windows of a window; one more is kept, so that the whole window is always covered.
const PARTS: u64 = 16;
const SLOTS: usize = PARTS as usize + 1;
/// Bits of a word that count; the others say which sub-window the count belongs to.
const COUNT_BITS: u32 = 40;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// Calls, and bad ones among them. Between one window and a sixteenth more.
#[derive(Debug)]
pub(crate) struct RatioWindow {
    width: u64,
    slots: [Slot; SLOTS],
}

#[derive(Debug)]
struct Slot {
    calls: AtomicU64,
    bad: AtomicU64,
}

/// Counts of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) calls: u64,
    pub(crate) bad: u64,
}

impl Counts {
    /// Bad ÷ all; None of no calls.
    pub(crate) fn ratio(self) -> Option<f64> {
        (self.calls > 0).then(|| (self.bad as f64 / self.calls as f64).min(1.0))
    }
}

impl RatioWindow {
    pub(crate) fn new(length: Duration) -> Self {
        let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Self {
            width: length.div_ceil(PARTS).max(1),
            slots: std::array::from_fn(|_| Slot { calls: AtomicU64::new(0), bad: AtomicU64::new(0) }),
        }
    }

    /// Counts a call and returns the counts of the window with it.
    pub(crate) fn record(&self, now: Tick, bad: bool) -> Counts {
        let epoch = self.epoch(now);
        let slot = &self.slots[epoch as usize % SLOTS];
        add(&slot.calls, epoch, 1);
        if bad {
            add(&slot.bad, epoch, 1);
        }
        self.counts(now)
    }

    /// The counts at `now`.
    pub(crate) fn counts(&self, now: Tick) -> Counts {
        let epoch = self.epoch(now);
        let sum = |counter: fn(&Slot) -> &AtomicU64| {
            let count = |(i, slot)| count_at(counter(slot), latest(i, epoch));
            self.slots.iter().enumerate().map(count).sum()
        };
        Counts { bad: sum(|slot| &slot.bad), calls: sum(|slot| &slot.calls) }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for slot in &self.slots {
            slot.calls.store(0, Relaxed);
            slot.bad.store(0, Relaxed);
        }
    }

    /// The counts of this window in one of another length, each as young as it can be.
    pub(crate) fn resized(&self, length: Duration, now: Tick) -> Self {
        let new = Self::new(length);
        let epoch = self.epoch(now);
        for (i, slot) in self.slots.iter().enumerate() {
            let from = latest(i, epoch);
            // Epochs are counted from SLOTS on.
            let end = (from + 1)
                .saturating_sub(SLOTS as u64)
                .saturating_mul(self.width)
                .saturating_sub(1)
                .min(now.as_nanos());
            let into = new.epoch(Tick::from_nanos(end));
            if into + SLOTS as u64 > new.epoch(now) {
                let target = &new.slots[into as usize % SLOTS];
                add(&target.calls, into, count_at(&slot.calls, from));
                add(&target.bad, into, count_at(&slot.bad, from));
            }
        }
        new
    }

    /// The number of the running sub-window. Begins with `SLOTS`, so that every slot has an earlier one.
    fn epoch(&self, now: Tick) -> u64 {
        now.as_nanos() / self.width + SLOTS as u64
    }
}

/// The last epoch up to `epoch` that falls into slot `i`.
fn latest(i: usize, epoch: u64) -> u64 {
    epoch - (epoch + SLOTS as u64 - i as u64) % SLOTS as u64
}

fn stamp(epoch: u64) -> u64 {
    epoch << COUNT_BITS
}

fn count_at(word: &AtomicU64, epoch: u64) -> u64 {
    let word = word.load(Relaxed);
    if word & !COUNT == stamp(epoch) { word & COUNT } else { 0 }
}

/// Adds to a slot that may still hold an earlier sub-window. A call that meets the change of sub-windows counts in
/// one of both.
fn add(word: &AtomicU64, epoch: u64, n: u64) {
    let mut current = word.load(Relaxed);
    while current & !COUNT != stamp(epoch) {
        match word.compare_exchange_weak(current, stamp(epoch) | n, Relaxed, Relaxed) {
            Ok(_) => return,
            Err(now) => current = now,
        }
    }
    word.fetch_add(n, Relaxed);
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn millis(n: u64) -> Tick {
        Tick::from_nanos(n * 1_000_000)
    }

    #[test]
    fn counts_leave_after_the_window() {
        let window = RatioWindow::new(Duration::from_secs(16));
        window.record(millis(500), true);
        assert_eq!(window.record(millis(16_400), false), Counts { calls: 2, bad: 1 });
        assert_eq!(window.counts(millis(17_000)), Counts { calls: 1, bad: 0 });
        assert_eq!(window.counts(millis(60_000)).ratio(), None);
    }

    #[test]
    fn a_longer_window_keeps_the_counts_of_the_shorter() {
        let window = RatioWindow::new(Duration::from_secs(16));
        window.record(millis(20_000), true);
        window.record(millis(30_000), false);
        let longer = window.resized(Duration::from_mins(1), millis(30_000));
        assert_eq!(longer.counts(millis(75_000)), Counts { calls: 2, bad: 1 });
        let shorter = window.resized(Duration::from_secs(2), millis(30_000));
        assert_eq!(shorter.counts(millis(30_000)), Counts { calls: 1, bad: 0 });
    }

    proptest! {
        #[test]
        fn counts_lie_between_those_of_the_window_and_of_a_sixteenth_more(
            calls in proptest::collection::vec((0u64..2_000, any::<bool>()), 1..300),
        ) {
            let window = RatioWindow::new(Duration::from_secs(16));
            let mut log: Vec<u64> = Vec::new();
            let mut now = 0;
            for (gap, bad) in calls {
                now += gap;
                log.push(now);
                let counts = window.record(millis(now), bad);
                let inside = |length: u64| log.iter().filter(|&&t| t + length > now).count() as u64;
                prop_assert!((inside(16_000)..=inside(17_000)).contains(&counts.calls));
                prop_assert!(counts.bad <= counts.calls);
            }
        }
    }
}
