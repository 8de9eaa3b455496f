//! The tier of requests per second.

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_policy::report::TierName;
use tidegate_policy::{LearnedQps, QpsTier, Recovery};

use super::hysteresis::{Hysteresis, Level};
use super::standing::Standing;
use crate::Tick;

/// Offered requests, sampled, against a ceiling that is learned, given or both.
#[derive(Debug, Clone)]
pub(crate) struct Qps {
    config: QpsTier,
    recovery: Recovery,
    /// Rates of past samples, oldest first. Only what was offered while nothing was wrong: samples in which the
    /// tier sheds or trips would teach it that too much is normal, and idle ones that anything is too much.
    learned: VecDeque<f64>,
    /// The ceiling in force; None while there is neither a learned nor a given one.
    ceiling: Option<f64>,
    sample: OpenSample,
    value: Option<f64>,
    hysteresis: Hysteresis,
}

/// The sample that is running.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenSample {
    pub(crate) start: Tick,
    /// All requests offered before it.
    pub(crate) offered_before: u64,
}

/// How many requests the running sample may still take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Allowance {
    pub(crate) sample_start: Tick,
    pub(crate) offered_before: u64,
    pub(crate) ceiling: f64,
    pub(crate) interval: Duration,
}

impl Allowance {
    /// Requests that may come before the tier trips; None when it has tripped over `offered` requests.
    ///
    /// A sample that is closed late may take as much more as it is longer.
    pub(crate) fn remaining(&self, now: Tick, offered: u64) -> Option<u64> {
        let length = now.since(self.sample_start).max(self.interval).as_secs_f64();
        let allowed = (self.ceiling * length) as u64;
        allowed.checked_sub(offered.saturating_sub(self.offered_before))
    }
}

impl Qps {
    pub(crate) fn new(config: QpsTier, recovery: Recovery, now: Tick, offered: u64) -> Self {
        let mut tier = Self {
            config,
            recovery,
            learned: VecDeque::new(),
            ceiling: None,
            sample: OpenSample { start: now, offered_before: offered },
            value: None,
            hysteresis: Hysteresis::default(),
        };
        tier.ceiling = tier.lower_ceiling();
        tier
    }

    /// The tier with other parameters and what this one has learned.
    pub(crate) fn succeed(&self, config: QpsTier, recovery: Recovery) -> Self {
        let mut tier = Self { config, recovery, ..self.clone() };
        tier.forget_old();
        tier.ceiling = tier.lower_ceiling();
        tier
    }

    /// Closes the running sample if its time is over. `offered`: all requests so far.
    pub(crate) fn tick(&mut self, now: Tick, offered: u64) {
        let elapsed = now.since(self.sample.start);
        if elapsed < self.config.sample_interval_millis.duration() {
            return;
        }
        let rate = offered.saturating_sub(self.sample.offered_before) as f64 / elapsed.as_secs_f64();
        self.sample = OpenSample { start: now, offered_before: offered };
        self.value = Some(rate);
        let shed_before = self.hysteresis.shedding();
        let ceiling = self.ceiling.unwrap_or(f64::INFINITY);
        let level = Level::of(rate, ceiling, self.recovery);
        self.hysteresis.update(now, level, self.recovery, || reason(rate, ceiling));
        if !shed_before && !self.hysteresis.shedding() && rate > 0.0 {
            self.learned.push_back(rate);
            self.forget_old();
            self.ceiling = self.lower_ceiling();
        }
    }

    /// Trips inside a sample when it has taken all that it may. True if it did.
    pub(crate) fn burst(&mut self, now: Tick, offered: u64) -> bool {
        let Some(allowance) = self.allowance() else { return false };
        if allowance.remaining(now, offered).is_some() {
            return false;
        }
        let length = now.since(self.sample.start).max(allowance.interval);
        let rate = offered.saturating_sub(self.sample.offered_before) as f64 / length.as_secs_f64();
        self.value = Some(rate);
        self.hysteresis.update(now, Level::Over, self.recovery, || reason(rate, allowance.ceiling));
        true
    }

    /// What the running sample may take, when there is a ceiling.
    pub(crate) fn allowance(&self) -> Option<Allowance> {
        let OpenSample { start, offered_before } = self.sample;
        let interval = self.config.sample_interval_millis.duration();
        self.ceiling.map(|ceiling| Allowance { sample_start: start, offered_before, ceiling, interval })
    }

    pub(crate) fn ceiling(&self) -> Option<f64> {
        self.ceiling
    }

    pub(crate) fn standing(&self) -> Standing<'_> {
        let learning = self.config.learned.is_some_and(|learned| !self.has_learned(&learned));
        Standing::of_traffic(
            TierName::Qps,
            learning,
            self.value,
            self.ceiling,
            &self.hysteresis,
            self.recovery,
        )
    }

    fn has_learned(&self, learned: &LearnedQps) -> bool {
        self.learned.len() >= learned.minimum_samples.max(1) as usize
    }

    /// The lower of the learned and the given ceiling.
    fn lower_ceiling(&self) -> Option<f64> {
        let learned = self.config.learned.filter(|learned| self.has_learned(learned));
        let learned = learned.map(|learned| learned_ceiling(&learned, &self.learned));
        let max = self.config.max.map(tidegate_policy::Rate::get);
        learned.into_iter().chain(max).reduce(f64::min)
    }

    fn forget_old(&mut self) {
        let room = self.config.window_millis.get() / self.config.sample_interval_millis.get();
        while self.learned.len() as u64 > room.max(1) {
            self.learned.pop_front();
        }
    }
}

/// (Moving average + sigma × standard deviation) × factor, never below the floor.
fn learned_ceiling(learned: &LearnedQps, samples: &VecDeque<f64>) -> f64 {
    let n = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / n;
    let variance = samples.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / n;
    let ceiling = (mean + learned.sigma.get() * variance.sqrt()) * learned.factor.get();
    ceiling.max(learned.floor.get())
}

fn reason(rate: f64, ceiling: f64) -> String {
    format!("{rate:.1} requests/s over the ceiling of {ceiling:.1}")
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use tidegate_policy::report::TierState;
    use tidegate_policy::{Factor, Millis, Rate, Ratio};

    fn recovery() -> Recovery {
        Recovery { below_ratio: Ratio::new(0.9).unwrap(), hold_millis: Millis::new(3000).unwrap() }
    }

    fn config(max: Option<f64>, minimum_samples: Option<u32>) -> QpsTier {
        QpsTier {
            sample_interval_millis: Millis::new(1000).unwrap(),
            window_millis: Millis::new(10_000).unwrap(),
            learned: minimum_samples.map(|minimum_samples| LearnedQps {
                sigma: Factor::new(2.0).unwrap(),
                factor: Factor::new(1.5).unwrap(),
                floor: Rate::new(10.0).unwrap(),
                minimum_samples,
            }),
            max: max.map(|max| Rate::new(max).unwrap()),
        }
    }

    /// A tier and the requests of each second.
    fn after(config: QpsTier, seconds: &[u64]) -> Qps {
        let mut tier = Qps::new(config, recovery(), second(0), 0);
        let mut offered = 0;
        for (i, n) in seconds.iter().enumerate() {
            offered += n;
            tier.tick(second(i as u64 + 1), offered);
        }
        tier
    }

    fn second(n: u64) -> Tick {
        Tick::from_nanos(n * 1_000_000_000)
    }

    #[test]
    fn the_ceiling_is_one_and_a_half_times_the_mean_and_two_deviations() {
        let tier = after(config(None, Some(4)), &[80, 120, 80, 120]);
        assert!((tier.ceiling().unwrap() - (100.0 + 2.0 * 20.0) * 1.5).abs() < 1e-9);
        assert_eq!(tier.standing().state, TierState::Normal);
    }

    #[test]
    fn it_is_learning_and_trips_over_nothing_until_it_has_enough_samples() {
        let tier = after(config(None, Some(4)), &[1, 1, 100_000]);
        assert_eq!((tier.standing().state, tier.ceiling()), (TierState::Learning, None));
        let idle = after(config(None, Some(4)), &[0, 0, 0, 0, 0]);
        assert_eq!(idle.standing().state, TierState::Learning, "an idle engine teaches nothing");
    }

    #[test]
    fn a_given_ceiling_holds_from_the_first_request_and_the_lower_of_both_after() {
        let learning = after(config(Some(50.0), Some(4)), &[51]);
        assert_eq!(learning.standing().state, TierState::Tripped);
        assert_eq!(after(config(Some(50.0), Some(2)), &[4, 4]).ceiling(), Some(10.0), "the floor");
        assert_eq!(after(config(Some(50.0), Some(2)), &[40, 40]).ceiling(), Some(50.0));
    }

    #[test]
    fn a_tripped_sample_teaches_nothing() {
        let mut tier = after(config(None, Some(2)), &[20, 20]);
        let ceiling = tier.ceiling();
        for i in 0..5 {
            tier.tick(second(3 + i), 40 + 500 * (i + 1));
        }
        assert_eq!((tier.standing().state, tier.ceiling()), (TierState::Tripped, ceiling));
    }

    #[test]
    fn a_burst_trips_without_waiting_for_the_end_of_the_sample() {
        let mut tier = after(config(Some(50.0), None), &[10]);
        let now = second(1) + Duration::from_millis(200);
        assert!(!tier.burst(now, 60), "50 requests are allowed");
        assert!(tier.burst(now, 61));
        let standing = tier.standing();
        assert_eq!(standing.state, TierState::Tripped);
        assert_eq!(standing.hysteresis.last().unwrap().reason, "51.0 requests/s over the ceiling of 50.0");
    }

    #[test]
    fn a_sample_that_is_closed_late_does_not_trip_over_its_length() {
        let mut tier = after(config(Some(50.0), None), &[10]);
        assert!(!tier.burst(second(2) + Duration::from_millis(100), 10 + 54));
        tier.tick(second(2) + Duration::from_millis(100), 10 + 54);
        assert_eq!(tier.standing().state, TierState::Normal);
    }

    #[test]
    fn it_recovers_by_itself_after_the_hold_time() {
        let tier = after(config(Some(50.0), None), &[10, 90, 46, 44, 44, 44]);
        assert_eq!(tier.standing().state, TierState::Recovering, "46 is not below 90 % of 50");
        let tier = after(config(Some(50.0), None), &[10, 90, 46, 44, 44, 44, 44]);
        assert_eq!(tier.standing().state, TierState::Normal);
    }

    #[test]
    fn other_parameters_act_on_what_was_learned() {
        let tier = after(config(None, Some(2)), &[40, 40, 40]);
        let lower = tier.succeed(config(Some(30.0), Some(2)), recovery());
        assert_eq!(lower.ceiling(), Some(30.0));
        let more = tier.succeed(config(None, Some(4)), recovery());
        assert_eq!(more.standing().state, TierState::Learning);
    }
}
