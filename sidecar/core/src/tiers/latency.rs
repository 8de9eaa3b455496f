//! The tier of latency.

use std::collections::VecDeque;

use tidegate_policy::report::TierName;
use tidegate_policy::{LatencySignal, LatencyTier, LearnedLatency, Recovery};

use super::hysteresis::{Hysteresis, Level};
use super::standing::Standing;
use crate::Tick;
use crate::histogram::Drained;

/// Past periods that the learned ceiling looks at: beyond an hour of 10 s periods, and any minimum a policy can
/// ask for.
const REMEMBERED: usize = 1000;

/// A percentile per period, against a ceiling that is learned, given or both.
#[derive(Debug, Clone)]
pub(crate) struct Latency {
    config: LatencyTier,
    recovery: Recovery,
    period_start: Tick,
    /// Percentiles of past periods in milliseconds, oldest first. Only those that were not over the ceiling,
    /// while the tier did not shed.
    learned: VecDeque<f64>,
    ceiling: Option<f64>,
    /// Bad periods in a row.
    bad: u32,
    /// The percentile of the last period, if that had enough samples.
    value: Option<f64>,
    hysteresis: Hysteresis,
}

impl Latency {
    pub(crate) fn new(config: LatencyTier, recovery: Recovery, now: Tick) -> Self {
        let mut tier = Self {
            config,
            recovery,
            period_start: now,
            learned: VecDeque::new(),
            ceiling: None,
            bad: 0,
            value: None,
            hysteresis: Hysteresis::default(),
        };
        tier.ceiling = tier.lower_ceiling();
        tier
    }

    /// The tier with other parameters and what this one has learned.
    pub(crate) fn succeed(&self, config: LatencyTier, recovery: Recovery) -> Self {
        let mut tier = Self { config, recovery, ..self.clone() };
        tier.ceiling = tier.lower_ceiling();
        tier
    }

    /// Whether both measure the same, so that what one has learned holds for the other.
    pub(crate) fn measures(&self, config: &LatencyTier) -> bool {
        self.config.signal == config.signal && self.config.percentile == config.percentile
    }

    /// Closes the period if its time is over. `drain` gives its latencies.
    pub(crate) fn tick(&mut self, now: Tick, drain: impl FnOnce() -> Option<Drained>) {
        if now.since(self.period_start) >= self.config.period_millis.duration() {
            self.period_start = now;
            let minimum = u64::from(self.config.minimum_samples);
            let latencies = drain().filter(|latencies| latencies.count() >= minimum);
            let share = self.config.percentile.get();
            self.close(now, latencies.and_then(|latencies| latencies.percentile(share)));
        }
        self.hysteresis.settle(now, self.recovery);
    }

    pub(crate) fn standing(&self) -> Standing<'_> {
        let learning = self.config.learned.is_some_and(|learned| !self.has_learned(&learned));
        Standing::of_traffic(
            TierName::Latency,
            learning,
            self.value,
            self.ceiling,
            &self.hysteresis,
            self.recovery,
        )
    }

    /// Takes the percentile of a period. None: too few samples for a verdict. While the tier sheds that counts as
    /// calm, since what it sheds may be all that there was.
    fn close(&mut self, now: Tick, percentile: Option<f64>) {
        self.value = percentile;
        let shed_before = self.hysteresis.shedding();
        let Some(level) = self.level(percentile) else { return };
        match (level, percentile) {
            (Level::Over, _) => self.bad = self.bad.saturating_add(1),
            (_, Some(_)) => self.bad = 0,
            (_, None) => {}
        }
        if shed_before || level != Level::Over || self.bad >= self.config.periods {
            let reason = self.reason(percentile);
            self.hysteresis.update(now, level, self.recovery, || reason);
        }
        if self.hysteresis.shedding() {
            self.bad = 0;
        }
        if let Some(percentile) = percentile
            && !shed_before
            && level != Level::Over
        {
            self.learn(percentile);
        }
    }

    /// The level of a period that has a verdict.
    fn level(&self, percentile: Option<f64>) -> Option<Level> {
        match (percentile, self.ceiling) {
            (Some(percentile), Some(ceiling)) => Some(Level::of(percentile, ceiling, self.recovery)),
            (Some(_), None) => Some(Level::Calm),
            (None, _) => self.hysteresis.shedding().then_some(Level::Calm),
        }
    }

    fn learn(&mut self, percentile: f64) {
        self.learned.push_back(percentile);
        if self.learned.len() > REMEMBERED {
            self.learned.pop_front();
        }
        self.ceiling = self.lower_ceiling();
    }

    fn has_learned(&self, learned: &LearnedLatency) -> bool {
        self.learned.len() >= learned.minimum_periods.max(1) as usize
    }

    /// The lower of the learned and the given ceiling.
    fn lower_ceiling(&self) -> Option<f64> {
        let learned = self.config.learned.filter(|learned| self.has_learned(learned));
        let mean = self.learned.iter().sum::<f64>() / self.learned.len().max(1) as f64;
        let max = self.config.max_millis.map(|max| max.get() as f64);
        learned.map(|learned| learned.factor.get() * mean).into_iter().chain(max).reduce(f64::min)
    }

    fn reason(&self, percentile: Option<f64>) -> String {
        let signal = match self.config.signal {
            LatencySignal::TotalLatency => "total latency",
            LatencySignal::TimeToFirstToken => "time to first token",
            LatencySignal::TimePerOutputToken => "time per output token",
        };
        format!(
            "P{} {signal} of {:.1} ms over the ceiling of {:.1} ms in {} periods",
            self.config.percentile.get() * 100.0,
            percentile.unwrap_or_default(),
            self.ceiling.unwrap_or_default(),
            self.config.periods
        )
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
