//! The tier of requests per second.
//!
//! It trips over what is offered, since that is what its ceiling is for. What it presses medium with is what the
//! engine is given: clients that come again and again after a refusal offer many times what they want, and medium
//! would be held at a trickle by them, before an engine with nothing to do.

use std::time::Duration;

use tidegate_policy::report::TierName;
use tidegate_policy::{QpsTier, Rate, Recovery};

use super::baseline::Baseline;
use super::hysteresis::{Hysteresis, Level};
use super::standing::Standing;
use crate::Tick;

/// What is left, after each sample, of the rate that was let in before.
const ADMITTED_KEPT: f64 = 0.9;

/// Offered requests, sampled, against a ceiling that is learned, given or both.
#[derive(Debug, Clone)]
pub(crate) struct Qps {
    config: QpsTier,
    recovery: Recovery,
    baseline: Option<Baseline>,
    /// The ceiling in force; None while there is neither a learned nor a given one.
    ceiling: Option<f64>,
    sample: OpenSample,
    value: Option<f64>,
    /// Requests per second that were let in.
    admitted: Option<f64>,
    hysteresis: Hysteresis,
}

/// Requests since the beginning.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) offered: u64,
    pub(crate) admitted: u64,
    /// Admitted, and answered by the engine with a success.
    pub(crate) succeeded: u64,
}

/// The sample that is running.
#[derive(Debug, Clone, Copy)]
struct OpenSample {
    start: Tick,
    /// All requests before it.
    before: Counts,
    /// Some tier was tripped or recovering meanwhile.
    tripped: bool,
}

/// How many requests the running sample may still take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Allowance {
    sample_start: Tick,
    offered_before: u64,
    ceiling: f64,
    interval: Duration,
}

impl Allowance {
    /// Requests that may come before the tier trips; None when it has tripped over `offered` requests.
    ///
    /// A sample that is closed late may take as much more as it is longer.
    pub(crate) fn remaining(&self, now: Tick, offered: u64) -> Option<u64> {
        let length = now.since(self.sample_start).max(self.interval);
        allowed(self.ceiling, length).checked_sub(offered.saturating_sub(self.offered_before))
    }
}

/// Requests in `length` that are not over the ceiling. One is never too many.
fn allowed(ceiling: f64, length: Duration) -> u64 {
    ((ceiling * length.as_secs_f64()) as u64).max(1)
}

impl Qps {
    pub(crate) fn new(config: QpsTier, recovery: Recovery, now: Tick, counts: Counts) -> Self {
        let mut tier = Self {
            config,
            recovery,
            baseline: config.learned.map(|learned| Baseline::new(learned, interval(config), window(config))),
            ceiling: None,
            sample: OpenSample { start: now, before: counts, tripped: false },
            value: None,
            admitted: None,
            hysteresis: Hysteresis::default(),
        };
        tier.ceiling = tier.lower_ceiling();
        tier
    }

    /// The tier with other parameters and what this one has learned.
    pub(crate) fn succeed(&self, config: QpsTier, recovery: Recovery) -> Self {
        let (interval, window) = (interval(config), window(config));
        let baseline = config.learned.map(|learned| match &self.baseline {
            Some(before) => before.succeed(learned, interval, window),
            None => Baseline::new(learned, interval, window),
        });
        let mut tier = Self { config, recovery, baseline, ..self.clone() };
        tier.ceiling = tier.lower_ceiling();
        tier
    }

    /// The running sample teaches nothing.
    pub(crate) fn taint(&mut self) {
        self.sample.tripped = true;
    }

    /// Closes the running sample if its time is over. `counts`: all requests so far.
    pub(crate) fn tick(&mut self, now: Tick, counts: Counts) {
        self.hysteresis.settle(now, self.recovery);
        let elapsed = now.since(self.sample.start);
        if elapsed < self.interval() {
            return;
        }
        let OpenSample { before, tripped, .. } = self.sample;
        let offered = counts.offered.saturating_sub(before.offered);
        let rate = offered as f64 / elapsed.as_secs_f64();
        self.sample = OpenSample { start: now, before: counts, tripped: false };
        self.value = Some(rate);
        let admitted = counts.admitted.saturating_sub(before.admitted) as f64 / elapsed.as_secs_f64();
        // Falls slowly: medium would swing between too much and too little from sample to sample.
        self.admitted = Some(self.admitted.map_or(admitted, |last| admitted.max(last * ADMITTED_KEPT)));
        let ceiling = self.ceiling.unwrap_or(f64::INFINITY);
        let level = match Level::of(rate, ceiling, self.recovery) {
            Level::Over if offered <= allowed(ceiling, elapsed) => Level::Between,
            level => level,
        };
        self.hysteresis.update(now, level, self.recovery, || reason(rate, ceiling));
        let succeeded = counts.succeeded.saturating_sub(before.succeeded);
        if let Some(baseline) = self.baseline.as_mut().filter(|_| !tripped && !self.hysteresis.holding()) {
            baseline.learn(succeeded as f64 / elapsed.as_secs_f64());
            self.ceiling = self.lower_ceiling();
        }
    }

    /// Trips inside a sample when it has taken all that it may. True if it did.
    pub(crate) fn burst(&mut self, now: Tick, counts: Counts) -> bool {
        let Some(allowance) = self.allowance() else { return false };
        if allowance.remaining(now, counts.offered).is_some() {
            return false;
        }
        let length = now.since(self.sample.start).max(allowance.interval).as_secs_f64();
        let before = self.sample.before;
        let rate = counts.offered.saturating_sub(before.offered) as f64 / length;
        self.value = Some(rate);
        self.admitted = Some(counts.admitted.saturating_sub(before.admitted) as f64 / length);
        self.hysteresis.update(now, Level::Over, self.recovery, || reason(rate, allowance.ceiling));
        true
    }

    /// What the running sample may take, when there is a ceiling.
    pub(crate) fn allowance(&self) -> Option<Allowance> {
        self.ceiling.map(|ceiling| Allowance {
            sample_start: self.sample.start,
            offered_before: self.sample.before.offered,
            ceiling,
            interval: self.interval(),
        })
    }

    pub(crate) fn ceiling(&self) -> Option<f64> {
        self.ceiling
    }

    pub(crate) fn standing(&self) -> Standing<'_> {
        let learning = self.baseline.as_ref().is_some_and(|baseline| baseline.ceiling().is_none());
        Standing {
            value: self.value,
            threshold: self.ceiling,
            pressing: self.admitted.zip(self.ceiling),
            baseline: self.baseline.as_ref().and_then(Baseline::average),
            ..Standing::of_traffic(TierName::Qps, learning, &self.hysteresis, self.recovery)
        }
    }

    /// Length of a sample: below one request in each a rate is no number of requests, so it gets longer.
    fn interval(&self) -> Duration {
        let one_request = self.ceiling.map_or(Duration::ZERO, |ceiling| {
            Duration::try_from_secs_f64(1.0 / ceiling).unwrap_or(Duration::MAX)
        });
        interval(self.config).max(one_request.min(window(self.config)))
    }

    /// Whether the given ceiling is the one in force.
    pub(crate) fn is_written(&self) -> bool {
        self.config.max.is_some_and(|max| self.ceiling.is_some_and(|ceiling| ceiling >= max.get()))
    }

    /// The lower of the learned and the given ceiling.
    fn lower_ceiling(&self) -> Option<f64> {
        let learned = self.baseline.as_ref().and_then(Baseline::ceiling);
        learned.into_iter().chain(self.config.max.map(Rate::get)).reduce(f64::min)
    }
}

fn interval(config: QpsTier) -> Duration {
    config.sample_interval_millis.duration()
}

fn window(config: QpsTier) -> Duration {
    config.window_millis.duration()
}

fn reason(rate: f64, ceiling: f64) -> String {
    format!("{rate:.1} requests/s over the ceiling of {ceiling:.1}")
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
