//! The tier of latency.

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_policy::report::{LatencyEstimate, TierName, TierState};
use tidegate_policy::{LatencySignal, LatencyTier, LearnedLatency, Recovery};

use super::estimate::Estimate;
use super::hysteresis::{Hysteresis, Level, Phase};
use super::standing::Standing;
use crate::Tick;
use crate::histogram::Latencies;

/// Past periods that the learned ceiling looks at: beyond an hour of 10 s periods, and any minimum a policy can
/// ask for.
const REMEMBERED: usize = 1000;
/// How often latencies are taken out of the histogram.
const STEP: Duration = Duration::from_secs(1);

/// Where the latencies come from.
pub(crate) trait Source {
    /// Takes out all that were recorded since the last call.
    fn drain(&self) -> Latencies;
    /// Requests in flight that have waited for longer, with the least age they can have.
    fn older_than(&self, now: Tick, threshold: Duration) -> Vec<(Duration, u64)>;
    /// Moves the count of ages on, for ages around the threshold.
    fn tick(&self, now: Tick, threshold: Option<Duration>);
}

/// A percentile per period, against a ceiling that is learned, given or both.
#[derive(Debug, Clone)]
pub(crate) struct Latency {
    config: LatencyTier,
    recovery: Recovery,
    period_start: Tick,
    /// Latencies of the running period, up to `taken`.
    period: Latencies,
    taken: Tick,
    /// Some tier was tripped or recovering in this period.
    tripped: bool,
    estimate: Estimate,
    /// Percentiles of past periods in milliseconds, oldest first. Only those that were not over the ceiling,
    /// while the tier did not shed.
    learned: VecDeque<f64>,
    ceiling: Option<f64>,
    /// Bad periods in a row.
    bad: u32,
    /// The percentile of the last period, if that had enough samples.
    value: Option<f64>,
    /// The last period had too few.
    no_data: bool,
    /// Requests in flight older than the ceiling, at the end of the last period.
    overdue: u64,
    hysteresis: Hysteresis,
}

impl Latency {
    pub(crate) fn new(config: LatencyTier, recovery: Recovery, now: Tick) -> Self {
        let mut tier = Self {
            config,
            recovery,
            period_start: now,
            period: Latencies::default(),
            taken: now,
            tripped: false,
            estimate: Estimate::new(now),
            learned: VecDeque::new(),
            ceiling: None,
            bad: 0,
            value: None,
            no_data: false,
            overdue: 0,
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

    /// The running period teaches nothing.
    pub(crate) fn taint(&mut self) {
        self.tripped = true;
    }

    /// Closes the period if its time is over.
    pub(crate) fn tick(&mut self, now: Tick, source: &dyn Source) {
        source.tick(now, self.threshold());
        let is_over = now.since(self.period_start) >= self.config.period_millis.duration();
        if is_over || now.since(self.taken) >= STEP {
            let latencies = source.drain();
            self.period.merge(&latencies);
            self.estimate.take(now, &latencies);
            self.taken = now;
        }
        if is_over {
            self.close(now, source);
            self.period_start = now;
            self.tripped = false;
        }
        self.hysteresis.settle(now, self.recovery);
    }

    pub(crate) fn standing(&self) -> Standing<'_> {
        let learning = self.config.learned.is_some_and(|learned| !self.has_learned(&learned));
        let mut standing = Standing {
            value: self.value,
            threshold: self.ceiling,
            baseline: self.mean(),
            ..Standing::of_traffic(TierName::Latency, learning, &self.hysteresis, self.recovery)
        };
        if self.no_data && self.hysteresis.phase() == Phase::Normal && !learning {
            standing.state = TierState::NoData;
        }
        standing
    }

    pub(crate) fn estimate(&self) -> LatencyEstimate {
        self.estimate.read()
    }

    /// Requests in flight that were older than the ceiling at the end of the last period.
    pub(crate) fn overdue(&self) -> u64 {
        self.overdue
    }

    fn threshold(&self) -> Option<Duration> {
        let millis = self.ceiling?;
        Some(Duration::try_from_secs_f64(millis / 1000.0).unwrap_or(Duration::MAX))
    }

    /// Judges the period that is over. Requests in flight that are older than the ceiling already count among its
    /// latencies with the age they have: an engine that hangs completes nothing, and would pass for a quiet one.
    fn close(&mut self, now: Tick, source: &dyn Source) {
        let mut period = std::mem::take(&mut self.period);
        let overdue = self.threshold().map(|threshold| source.older_than(now, threshold));
        self.overdue = 0;
        for (age, n) in overdue.unwrap_or_default() {
            period.add(age, n);
            self.overdue += n;
        }
        let enough = period.count() >= u64::from(self.config.minimum_samples);
        let percentile = if enough { period.percentile(self.config.percentile.get()) } else { None };
        self.no_data = percentile.is_none();
        self.judge(now, percentile);
    }

    /// Takes the percentile of a period. None: too few samples for a verdict. While the tier sheds and nothing is
    /// overdue that counts as calm, since what it sheds may be all that there was.
    fn judge(&mut self, now: Tick, percentile: Option<f64>) {
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
            && !self.tripped
            && !self.hysteresis.holding()
            && level != Level::Over
        {
            self.learn(percentile);
        }
    }

    /// The level of a period that has a verdict.
    fn level(&self, percentile: Option<f64>) -> Option<Level> {
        match (percentile, self.ceiling) {
            (Some(percentile), Some(ceiling)) => Some(Level::of(percentile, ceiling, self.recovery)),
            (None, _) if !self.hysteresis.shedding() => None,
            (None, _) if self.overdue > 0 => Some(Level::Between),
            (Some(_), None) | (None, _) => Some(Level::Calm),
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
        let learned = learned.zip(self.mean()).map(|(learned, mean)| learned.factor.get() * mean);
        let max = self.config.max_millis.map(|max| max.get() as f64);
        learned.into_iter().chain(max).reduce(f64::min)
    }

    /// The mean of what was learned.
    fn mean(&self) -> Option<f64> {
        let n = self.learned.len();
        (n > 0).then(|| self.learned.iter().sum::<f64>() / n as f64)
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
