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
/// Shortest and longest time to spread over, in seconds.
const SHORTEST: f64 = 0.5;
const LONGEST: f64 = 300.0;
/// Places in a second at least, for the division.
const LEAST_RATE: f64 = 0.01;

/// When those who found no place may come again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Advice {
    /// Time until the next place comes free, about.
    pub(crate) least: Duration,
    /// By class, the time until as many were given to it as there are who want one.
    pub(crate) spread: [Duration; 3],
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
}

impl Freed {
    pub(super) fn new(now: Tick, totals: Totals) -> Self {
        let came_free = totals.all_entered();
        Self { at: now, before: totals, came_free, per_second: 0.0, given: [0.0; 3], crowd: [0.0; 3] }
    }

    /// Takes note of the places that came free so far.
    pub(super) fn tick(&mut self, now: Tick, totals: Totals, in_use: u32, waiting: u64) -> Advice {
        if now.since(self.at) >= STEP {
            self.step(now, totals, in_use);
        }
        let least = 1.0 / self.per_second.max(0.1);
        let mut left = self.per_second;
        let spread = std::array::from_fn(|class| {
            // What the classes above leave, if there is more of it than this one was given.
            let given = self.given[class].max(left).max(LEAST_RATE);
            left -= self.given[class];
            let all = (self.crowd[class] + waiting as f64) / given * RIVALS[class];
            Duration::from_secs_f64(all.clamp(SHORTEST, LONGEST))
        });
        Advice { least: Duration::from_secs_f64(least.clamp(0.01, 10.0)), spread }
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
        (1..=600).fold(Advice { least: Duration::ZERO, spread: [Duration::ZERO; 3] }, |_, second| {
            let totals = Totals {
                entered: given.map(|n| n * second),
                refused: refused.map(|n| n * second),
                ..Totals::default()
            };
            freed.tick(Tick::from_nanos(second * 1_000_000_000), totals, 0, 0)
        })
    }

    fn seconds(advice: Advice) -> [f64; 3] {
        advice.spread.map(|spread| spread.as_secs_f64())
    }

    #[test]
    fn each_class_is_spread_over_the_time_in_which_it_is_given_as_many_places_as_it_wants() {
        let [high, medium, low] = seconds(after_ten_minutes([4, 2, 0], [0, 40, 40]));
        assert!((high - SHORTEST).abs() < 1e-9, "nobody of high was refused: {high}");
        assert!(
            (76.0..90.0).contains(&medium),
            "40 want two in a second, and others come meanwhile: {medium}"
        );
        assert!((low - LONGEST).abs() < 1e-9, "nothing is left for low: {low}");
    }

    #[test]
    fn a_class_that_never_asked_is_told_by_what_those_above_leave() {
        let [_, medium, low] = seconds(after_ten_minutes([1, 0, 7], [0, 8, 8]));
        assert!((3.8..5.2).contains(&medium), "{medium}");
        assert!((3.8..5.2).contains(&low), "{low}");
    }
}
