//! The calls of a trailing time, in a ring of parts of it.

use std::time::Duration;

use super::Counts;
use crate::Tick;
use crate::divisor::Divisor;
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Sub-windows of a window; one more is kept, so that the whole window is always covered.
const PARTS: u64 = 16;
const SLOTS: usize = PARTS as usize + 1;
/// Bits of a word that count; the others say which sub-window the count belongs to.
const COUNT_BITS: u32 = 40;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// Calls, and bad ones among them. Between one window and a sixteenth more.
#[derive(Debug)]
pub(crate) struct TimeWindow {
    width: Divisor,
    slots: [Slot; SLOTS],
    /// The last sub-window with a bad call.
    last_bad: AtomicU64,
}

#[derive(Debug)]
struct Slot {
    calls: AtomicU64,
    bad: AtomicU64,
}

impl TimeWindow {
    pub(super) fn new(length: Duration) -> Self {
        let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Self {
            width: Divisor::new(length.div_ceil(PARTS)),
            slots: std::array::from_fn(|_| Slot { calls: AtomicU64::new(0), bad: AtomicU64::new(0) }),
            last_bad: AtomicU64::new(0),
        }
    }

    /// Counts a call. Some: the counts of the window with it, unless no call in it was bad.
    pub(super) fn record(&self, now: Tick, bad: bool) -> Option<Counts> {
        let epoch = self.epoch(now);
        let slot = &self.slots[epoch as usize % SLOTS];
        add(&slot.calls, epoch, 1);
        if bad {
            add(&slot.bad, epoch, 1);
            self.last_bad.fetch_max(epoch, Relaxed);
        }
        (self.last_bad.load(Relaxed) + SLOTS as u64 > epoch).then(|| self.counts(now))
    }

    /// The counts at `now`.
    pub(super) fn counts(&self, now: Tick) -> Counts {
        let epoch = self.epoch(now);
        let mut counts = Counts { calls: 0, bad: 0 };
        for age in 0..SLOTS as u64 {
            let slot = &self.slots[(epoch - age) as usize % SLOTS];
            // Bad ones first: one that arrives in between cannot make them more than all.
            counts.bad += count_at(&slot.bad, epoch - age);
            counts.calls += count_at(&slot.calls, epoch - age);
        }
        counts
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        for slot in &self.slots {
            slot.calls.store(0, Relaxed);
            slot.bad.store(0, Relaxed);
        }
    }

    /// The counts of this window in one of another length, each as young as it can be.
    pub(super) fn resized(&self, length: Duration, now: Tick) -> Self {
        let new = Self::new(length);
        let epoch = self.epoch(now);
        for (i, slot) in self.slots.iter().enumerate() {
            let from = latest(i, epoch);
            // Epochs are counted from SLOTS on.
            let end = (from + 1)
                .saturating_sub(SLOTS as u64)
                .saturating_mul(self.width.get())
                .saturating_sub(1)
                .min(now.as_nanos());
            let into = new.epoch(Tick::from_nanos(end));
            if into + SLOTS as u64 > new.epoch(now) {
                let target = &new.slots[into as usize % SLOTS];
                add(&target.calls, into, count_at(&slot.calls, from));
                let bad = count_at(&slot.bad, from);
                add(&target.bad, into, bad);
                new.last_bad.fetch_max(if bad > 0 { into } else { 0 }, Relaxed);
            }
        }
        new
    }

    /// The number of the running sub-window. Begins with `SLOTS`, so that every slot has an earlier one.
    fn epoch(&self, now: Tick) -> u64 {
        self.width.divide(now.as_nanos()).0 + SLOTS as u64
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
        let window = TimeWindow::new(Duration::from_secs(16));
        window.record(millis(500), true);
        assert_eq!(window.record(millis(16_400), false), Some(Counts { calls: 2, bad: 1 }));
        assert_eq!(window.counts(millis(17_000)), Counts { calls: 1, bad: 0 });
        assert_eq!(window.counts(millis(60_000)).ratio(), None);
        assert_eq!(window.record(millis(60_000), false), None, "no call was bad");
    }

    #[test]
    fn a_longer_window_keeps_the_counts_of_the_shorter() {
        let window = TimeWindow::new(Duration::from_secs(16));
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
            let window = TimeWindow::new(Duration::from_secs(16));
            let mut log: Vec<u64> = Vec::new();
            let mut now = 0;
            for (gap, bad) in calls {
                now += gap;
                log.push(now);
                let recorded = window.record(millis(now), bad);
                let counts = window.counts(millis(now));
                prop_assert_eq!(recorded.is_none(), counts.bad == 0);
                let inside = |length: u64| log.iter().filter(|&&t| t + length > now).count() as u64;
                prop_assert!((inside(16_000)..=inside(17_000)).contains(&counts.calls));
                prop_assert!(counts.bad <= counts.calls);
            }
        }
    }
}

/// Run with `RUSTFLAGS="--cfg loom" cargo test -p tidegate-core --lib --release models`.
#[cfg(test)]
#[cfg(loom)]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn calls_that_meet_where_a_new_part_of_the_window_begins_are_all_counted() {
        loom::model(|| {
            let word = Arc::new(AtomicU64::new(stamp(20) | 7));
            let other = {
                let word = Arc::clone(&word);
                thread::spawn(move || add(&word, 37, 1))
            };
            add(&word, 37, 2);
            other.join().unwrap();
            assert_eq!((count_at(&word, 37), count_at(&word, 20)), (3, 0), "and nothing of the part before");
        });
    }
}
