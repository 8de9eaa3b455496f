//! How old the requests in flight are, counted without a lock or a clock.
//!
//! A hung engine completes nothing, so that its latencies look like silence. What shows it is the age of what it
//! still holds. Requests enter and leave a ring of time slots: each slot holds those that were admitted while it
//! was the newest. Only ticks move the ring on; a request remembers the number of its slot.
//!
//! Counters only grow, each written by one thread where threads have a stripe of their own. Who is in flight in a
//! slot is the difference of two sums. When a slot is used again, those who are still in it move to the ancient
//! ones by bookkeeping beside the counters. A request that leaves at that very moment may be booked off the slot
//! and not off the ancient ones: the slot is then one short and the ancient ones one over, the sum is right, and
//! one turn of the ring later both are.

use std::num::NonZeroU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::Tick;
use crate::lane::{LANES, Lane};
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Slots of the ring.
const SLOTS: usize = 32;
/// Slots that the threshold is divided into: a request counts as older than it at most an eighth late.
const RESOLUTION: u32 = 8;
/// A slot is never shorter: that is how often ticks come.
const SHORTEST: Duration = Duration::from_millis(100);

/// Requests in flight by age.
#[derive(Debug)]
pub(crate) struct Ages {
    /// Number of the newest slot.
    newest: CachePadded<AtomicU64>,
    stripes: [CachePadded<Stripe>; LANES],
    /// Never waited for by a request.
    ring: Mutex<Ring>,
}

#[derive(Debug)]
struct Stripe {
    entered: [AtomicU64; SLOTS],
    left: [AtomicU64; SLOTS],
    /// Those who left after their slot was used again.
    left_ancient: AtomicU64,
}

/// What only ticks know.
#[derive(Debug)]
struct Ring {
    /// When each slot became the newest.
    since: [Tick; SLOTS],
    /// What of the difference of a slot's sums belongs to requests of before, by slot.
    carried: [u64; SLOTS],
    /// Requests that ever became ancient, and since when the youngest of them is older.
    ancient: u64,
    ancient_before: Tick,
}

/// The slot of a request in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(NonZeroU64);

impl Ages {
    pub(crate) fn new(now: Tick) -> Self {
        let counters = || std::array::from_fn(|_| AtomicU64::new(0));
        let stripe = |_| {
            CachePadded::new(Stripe {
                entered: counters(),
                left: counters(),
                left_ancient: AtomicU64::new(0),
            })
        };
        // Slot numbers begin after a whole turn, so that no subtraction goes below zero.
        let ring = Ring { since: [now; SLOTS], carried: [0; SLOTS], ancient: 0, ancient_before: now };
        Self {
            newest: CachePadded::new(AtomicU64::new(SLOTS as u64)),
            stripes: std::array::from_fn(stripe),
            ring: Mutex::new(ring),
        }
    }

    /// A request begins to wait.
    pub(crate) fn enter(&self, lane: Lane) -> Slot {
        let newest = self.newest.load(Relaxed);
        lane.increment(&self.stripes[lane.index()].entered[slot(newest)]);
        Slot(NonZeroU64::new(newest).unwrap_or(NonZeroU64::MIN))
    }

    /// It waits no longer.
    pub(crate) fn leave(&self, lane: Lane, Slot(number): Slot) {
        let (stripe, number) = (&self.stripes[lane.index()], number.get());
        let reused = number + SLOTS as u64 <= self.newest.load(Relaxed);
        lane.increment(if reused { &stripe.left_ancient } else { &stripe.left[slot(number)] });
    }

    /// Moves the ring on when its newest slot is old enough for ages around `threshold`.
    pub(crate) fn tick(&self, now: Tick, threshold: Option<Duration>) {
        let mut ring = self.ring();
        let newest = self.newest.load(Relaxed);
        let width = (threshold.unwrap_or_default() / RESOLUTION).max(SHORTEST);
        if now.since(ring.since[slot(newest)]) < width {
            return;
        }
        let next = slot(newest + 1);
        let still_in_it = self.difference(next).wrapping_sub(ring.carried[next]);
        ring.carried[next] = ring.carried[next].wrapping_add(still_in_it);
        ring.ancient = ring.ancient.wrapping_add(still_in_it);
        ring.ancient_before = ring.since[slot(newest + 2)];
        ring.since[next] = now;
        self.newest.store(newest + 1, Relaxed);
    }

    /// Requests that wait for longer than `threshold`, with the least age they can have.
    pub(crate) fn older_than(&self, now: Tick, threshold: Duration) -> Vec<(Duration, u64)> {
        let ring = self.ring();
        let newest = self.newest.load(Relaxed);
        let ancient = self.stripes.iter().map(|stripe| stripe.left_ancient.load(Relaxed));
        let ancient = ancient.fold(ring.ancient, u64::wrapping_sub);
        let slots = (1..SLOTS as u64).map(|back| {
            let (number, after) = (newest - back, newest - back + 1);
            let waiting = self.difference(slot(number)).wrapping_sub(ring.carried[slot(number)]);
            (ring.since[slot(after)], waiting)
        });
        let all = slots.chain([(ring.ancient_before, ancient)]);
        let aged = all.map(|(before, waiting)| (now.since(before), waiting.cast_signed()));
        let old = aged.filter(|&(age, waiting)| age > threshold && waiting > 0);
        old.map(|(age, waiting)| (age, waiting.unsigned_abs())).collect()
    }

    /// Entered less left, of all who ever used this slot.
    fn difference(&self, slot: usize) -> u64 {
        let of = |stripe: &Stripe| {
            let left = stripe.left[slot].load(Relaxed);
            stripe.entered[slot].load(Relaxed).wrapping_sub(left)
        };
        self.stripes.iter().fold(0, |sum, stripe| sum.wrapping_add(of(stripe)))
    }

    /// A panic while it was held leaves a ring that is at worst one slot behind.
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slot(number: u64) -> usize {
    (number % SLOTS as u64) as usize
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn millis(n: u64) -> Tick {
        Tick::from_nanos(n * 1_000_000)
    }

    fn count(ages: &Ages, now: u64, threshold: u64) -> u64 {
        let old = ages.older_than(millis(now), Duration::from_millis(threshold));
        assert!(old.iter().all(|(age, _)| *age > Duration::from_millis(threshold)));
        old.iter().map(|(_, n)| n).sum()
    }

    #[test]
    fn what_an_engine_never_answers_grows_old_and_stays_counted() {
        let (ages, lane) = (Ages::new(millis(0)), Lane::of_this_thread());
        let places: Vec<_> = (0..50).map(|_| ages.enter(lane)).collect();
        for now in (0..200_000).step_by(100) {
            ages.tick(millis(now), Some(Duration::from_secs(1)));
            let expected = if now <= 1000 { 0 } else { 50 };
            assert!(count(&ages, now, 1000) <= expected, "at {now} ms");
            assert!(now < 1300 || count(&ages, now, 1000) == expected, "at {now} ms");
        }
        for place in places {
            ages.leave(lane, place);
        }
        assert_eq!(count(&ages, 200_000, 1000), 0);
    }

    #[test]
    fn no_request_is_lost_between_threads_while_the_ring_moves() {
        let ages = Ages::new(millis(0));
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let lane = Lane::of_this_thread();
                        let mut held = VecDeque::new();
                        for _ in 0..100_000 {
                            held.push_back(ages.enter(lane));
                            if held.len() > 100 {
                                held.drain(..50).for_each(|place| ages.leave(lane, place));
                            }
                        }
                        held.drain(..).for_each(|place| ages.leave(lane, place));
                    })
                })
                .collect();
            scope.spawn(|| {
                let mut now = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    now += 100;
                    ages.tick(millis(now), None);
                }
            });
            for worker in workers {
                worker.join().unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let now = ages.ring().since.iter().copied().max().unwrap_or_default();
        for turn in 0..2 * SLOTS as u32 + 2 {
            ages.tick(now + SHORTEST * (turn + 1), None);
        }
        let late = now + SHORTEST * 1000;
        assert_eq!(ages.older_than(late, Duration::ZERO), []);
    }

    proptest! {
        /// Never counts a request that is younger than the threshold, nor misses one that is a quarter older.
        #[test]
        fn ages_agree_with_a_list_of_requests(
            steps in proptest::collection::vec((1u64..400, 0u8..4), 1..400), threshold in 1u64..5000,
        ) {
            let (ages, lane) = (Ages::new(millis(0)), Lane::of_this_thread());
            let (mut list, mut now) = (VecDeque::new(), 0);
            for (gap, what) in steps {
                for _ in 0..gap.div_ceil(50) {
                    now += 50;
                    ages.tick(millis(now), Some(Duration::from_millis(threshold)));
                }
                match what {
                    0 => if let Some((_, place)) = list.pop_front() { ages.leave(lane, place) },
                    1 => if let Some((_, place)) = list.pop_back() { ages.leave(lane, place) },
                    _ => list.push_back((now, ages.enter(lane))),
                }
                let older = |than: u64| list.iter().filter(|(at, _)| now - at > than).count() as u64;
                let counted = count(&ages, now, threshold);
                prop_assert!(counted <= older(threshold), "{counted} of {}", older(threshold));
                let surely = older(threshold + threshold / 4 + 200);
                prop_assert!(counted >= surely, "{counted}, not {surely}");
            }
        }
    }
}
