//! When those who found no place may come again.
//!
//! Nobody's place is kept, so what is told is a guess of when there will be room: the refused of a class are spread over
//! the time until as many places were given to it as there are who want one. Who is told to come later than he will
//! wait for leaves, and is not there to be refused again when the load is over.

use std::time::Duration;

use super::flow::Totals;
use crate::Tick;

/// How often the rates are looked at.
const STEP: Duration = Duration::from_millis(500);
/// Weight of a step in the rate at which places come free, in what each class is given of them, and in how many find
/// none.
const FREED_WEIGHT: f64 = 0.2;
const GIVEN_WEIGHT: f64 = 0.05;
const CROWD_WEIGHT: f64 = 0.2;
/// Requests for each place that is given while those who were told a time are away: their own, and those of others who
/// come anew meanwhile, or again before their time. To high nobody else comes first. Chosen on `make bench-quality`:
/// with four in place of two an engine has recovered sooner, and more are admitted when they come as told.
const RIVALS: [f64; 3] = [1.0, 4.0, 4.0];
/// Part of that time before which nobody is told to come. What there is for low the others leave: told an early time,
/// no one of it was admitted as told on `make bench-quality` while the load lasted. Some of medium have to be there when
/// the load is over, which nobody foresees.
const EARLIEST: [f64; 3] = [0.0, 0.1, 0.5];
/// Shortest and longest time to spread over, in seconds.
const SHORTEST: f64 = 0.5;
const LONGEST: f64 = 300.0;
/// For how long a request that waited in vain says that others would.
const REMEMBERED: Duration = Duration::from_secs(5);
/// Places in a second at least, for the division.
const LEAST_RATE: f64 = 0.01;

/// When those who found no place may come again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Advice {
    /// By class, when those who find none now may come, and for how long from then on.
    pub(crate) spread: [(Duration, Duration); 3],
    /// Places that come free in a second, if requests wait in vain for one. Else nobody knows how many it could be.
    pub(crate) per_second: Option<f64>,
}

/// The queue before the places.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Waits {
    /// Requests that wait.
    pub(crate) waiting: u64,
    /// Requests so far that have waited for as long as they may.
    pub(crate) in_vain: u64,
}

/// The rates at which places come free, are given, and are not found.
#[derive(Debug, Clone)]
pub(super) struct Freed {
    at: Tick,
    /// Everything up to then, and what had come free of it.
    before: Totals,
    came_free: u64,
    per_second: f64,
    /// By class.
    given: [f64; 3],
    crowd: [f64; 3],
    /// Requests that had waited in vain, and when there was the last one.
    in_vain: u64,
    last_in_vain: Option<Tick>,
}

impl Freed {
    pub(super) fn new(now: Tick, totals: Totals) -> Self {
        let came_free = totals.all_entered();
        Self {
            at: now,
            before: totals,
            came_free,
            per_second: 0.0,
            given: [0.0; 3],
            crowd: [0.0; 3],
            in_vain: 0,
            last_in_vain: None,
        }
    }

    /// Takes note of the places that came free so far.
    pub(super) fn tick(&mut self, now: Tick, totals: Totals, in_use: u32, queue: Waits) -> Advice {
        if now.since(self.at) >= STEP {
            self.step(now, totals, in_use);
        }
        if queue.in_vain != self.in_vain {
            (self.in_vain, self.last_in_vain) = (queue.in_vain, Some(now));
        }
        let in_vain = self.last_in_vain.is_some_and(|last| now.since(last) <= REMEMBERED);
        let least = Duration::from_secs_f64((1.0 / self.per_second.max(0.1)).clamp(0.01, 10.0));
        let mut left = self.per_second;
        let spread = std::array::from_fn(|class| {
            // What the classes above leave, if there is more of it than this one was given.
            let given = self.given[class].max(left).max(LEAST_RATE);
            left -= self.given[class];
            let all = (self.crowd[class] + queue.waiting as f64) / given * RIVALS[class];
            let all = all.clamp(SHORTEST, LONGEST);
            let earliest = EARLIEST[class] * all;
            (Duration::from_secs_f64(earliest).max(least), Duration::from_secs_f64(all - earliest))
        });
        Advice { spread, per_second: in_vain.then_some(self.per_second) }
    }

    fn step(&mut self, now: Tick, totals: Totals, in_use: u32) {
        let seconds = now.since(self.at).as_secs_f64();
        let freed = totals.all_entered().wrapping_sub(u64::from(in_use));
        let follow =
            |rate: &mut f64, count: u64, weight: f64| *rate += weight * (count as f64 / seconds - *rate);
        follow(&mut self.per_second, freed.saturating_sub(self.came_free), FREED_WEIGHT);
        let Totals { entered, refused, .. } = totals.since(self.before);
        for class in 0..3 {
            follow(&mut self.given[class], entered[class], GIVEN_WEIGHT);
            follow(&mut self.crowd[class], refused[class], CROWD_WEIGHT);
        }
        (self.at, self.before, self.came_free) = (now, totals, freed);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    /// What is told after ten minutes in which each class was given and refused so many in a second.
    fn after_ten_minutes(given: [u64; 3], refused: [u64; 3]) -> Advice {
        let mut freed = Freed::new(Tick::from_nanos(0), Totals::default());
        let nothing = Advice { spread: [(Duration::ZERO, Duration::ZERO); 3], per_second: None };
        (1..=600).fold(nothing, |_, second| {
            let totals = Totals {
                entered: given.map(|n| n * second),
                refused: refused.map(|n| n * second),
                ..Totals::default()
            };
            freed.tick(Tick::from_nanos(second * 1_000_000_000), totals, 0, Waits::default())
        })
    }

    /// The last instant that is told, by class.
    fn seconds(advice: Advice) -> [f64; 3] {
        advice.spread.map(|(earliest, width)| (earliest + width).as_secs_f64())
    }

    #[test]
    fn each_class_is_spread_over_the_time_in_which_it_is_given_as_many_places_as_it_wants() {
        let [high, medium, low] = seconds(after_ten_minutes([4, 2, 0], [0, 40, 40]));
        assert!(
            (high - SHORTEST - 1.0 / 6.0).abs() < 1e-3,
            "nobody of high was refused, and six a second leave: {high}"
        );
        assert!(
            (76.0..90.0).contains(&medium),
            "40 want two in a second, and others come meanwhile: {medium}"
        );
        assert!((low - LONGEST).abs() < 1e-9, "nothing is left for low: {low}");
    }

    #[test]
    fn those_for_whom_others_leave_nothing_are_told_no_early_time() {
        let [high, medium, low] =
            after_ten_minutes([4, 2, 0], [0, 40, 40]).spread.map(|(earliest, _)| earliest);
        assert_eq!(low, Duration::from_secs(150));
        assert!(high < Duration::from_secs(1) && medium > Duration::from_secs(7), "{high:?}, {medium:?}");
    }

    #[test]
    fn it_is_told_how_fast_places_come_free_only_while_somebody_waits_in_vain() {
        let mut freed = Freed::new(Tick::from_nanos(0), Totals::default());
        let mut at = |second: u64, in_vain: u64| {
            let totals = Totals { entered: [0, 3 * second, 0], ..Totals::default() };
            freed
                .tick(Tick::from_nanos(second * 1_000_000_000), totals, 0, Waits { waiting: 5, in_vain })
                .per_second
        };
        assert!((1..60).all(|second| at(second, 0).is_none()), "nobody has waited in vain");
        let rate = at(60, 1).unwrap();
        assert!((2.9..3.1).contains(&rate), "{rate}");
        assert!(at(65, 1).is_some() && at(66, 1).is_none(), "it says nothing any more after five seconds");
    }

    #[test]
    fn a_class_that_never_asked_is_told_by_what_those_above_leave() {
        let [_, medium, low] = seconds(after_ten_minutes([1, 0, 7], [0, 8, 8]));
        assert!((3.8..5.2).contains(&medium), "{medium}");
        assert!((3.8..5.2).contains(&low), "{low}");
    }
}
