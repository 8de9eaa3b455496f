//! What is normal for a pod in requests per second, learned from what it served.

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_policy::{LearnedQps, Rate, Ratio};

/// Samples without a success in a row that still belong to sparse traffic; more are an idle stretch, which says
/// nothing about what is too much.
const LONGEST_GAP: usize = 30;
/// −ln of how often chance alone may carry a sample over the ceiling: once in ten million samples, four months of
/// samples of a second.
const RARITY: f64 = 16.118;
const HOUR: f64 = 3600.0;

/// The moving average of past samples, and the ceiling that follows from it.
#[derive(Debug, Clone)]
pub(super) struct Baseline {
    config: LearnedQps,
    /// Length of a sample.
    interval: Duration,
    /// Samples in the window.
    room: usize,
    /// Rates of past samples, oldest first.
    samples: VecDeque<f64>,
    /// Samples without a success since the last one with.
    gap: usize,
    /// Samples ever learned, up to the size of a window.
    learned: usize,
    ceiling: Option<f64>,
}

impl Baseline {
    pub(super) fn new(config: LearnedQps, interval: Duration, window: Duration) -> Self {
        let mut baseline = Self {
            config,
            interval,
            room: room(interval, window),
            samples: VecDeque::new(),
            gap: 0,
            learned: 0,
            ceiling: None,
        };
        baseline.ceiling = baseline.uncapped();
        baseline
    }

    /// The same history under other parameters. Unchanged ones keep the ceiling as it is. A seed that the pod was
    /// born with stays: only the document of its admission had one.
    pub(super) fn succeed(&self, config: LearnedQps, interval: Duration, window: Duration) -> Self {
        let config = LearnedQps { seed: config.seed.or(self.config.seed), ..config };
        let mut next = Self { config, interval, room: room(interval, window), ..self.clone() };
        if (config, interval, next.room) != (self.config, self.interval, self.room) {
            next.forget_old();
            next.ceiling = next.uncapped();
        }
        next
    }

    /// Takes the rate of successes of a sample in which nothing was tripped.
    pub(super) fn learn(&mut self, rate: f64) {
        if rate <= 0.0 {
            self.gap += usize::from(!self.samples.is_empty());
            return;
        }
        let gap = std::mem::take(&mut self.gap);
        let between = if gap <= LONGEST_GAP { gap } else { 0 };
        self.samples.extend(std::iter::repeat_n(0.0, between));
        self.samples.push_back(rate);
        let mature = self.is_mature();
        self.learned = (self.learned + between + 1).min(self.room);
        self.forget_old();
        self.ceiling = match (self.uncapped(), self.ceiling) {
            (Some(next), Some(before)) if mature => Some(self.cap(before, next, between + 1)),
            (next, _) => next,
        };
    }

    /// The learned ceiling; None before enough was learned.
    pub(super) fn ceiling(&self) -> Option<f64> {
        self.ceiling
    }

    /// The moving average.
    pub(super) fn average(&self) -> Option<f64> {
        let own = self.moments().map(|(mean, _)| mean);
        own.or_else(|| self.config.seed.map(Rate::get))
    }

    /// Whether its growth is bounded: it has seen a whole window, or been given the average of its siblings. What
    /// comes before is a start, not growth.
    fn is_mature(&self) -> bool {
        self.learned >= self.room || self.config.seed.is_some()
    }

    /// `next`, no further from `before` than `samples` samples of growth.
    fn cap(&self, before: f64, next: f64, samples: usize) -> f64 {
        let Some(growth) = self.config.growth_per_hour.map(Ratio::get) else { return next };
        let hours = samples as f64 * self.interval.as_secs_f64() / HOUR;
        // Not `powf`: for two functions the C library of mathematics would be in every process.
        let most = libm::pow(1.0 + growth, hours);
        next.clamp(before / most, before * most)
    }

    /// (Moving average + sigma × standard deviation) × factor, and never below the floor, the least number of
    /// requests, or what chance alone brings at this average.
    fn uncapped(&self) -> Option<f64> {
        let (mean, deviation) = self.moments().or_else(|| self.seeded())?;
        let plain = (mean + self.config.sigma.get() * deviation) * self.config.factor.get();
        let seconds = self.interval.as_secs_f64();
        let least = f64::from(self.config.minimum_requests) / seconds;
        let chance = chance(mean * seconds) / seconds;
        Some(plain.max(self.config.floor.get()).max(least).max(chance))
    }

    /// Mean and standard deviation of enough samples.
    fn moments(&self) -> Option<(f64, f64)> {
        let n = self.samples.len() as f64;
        if self.samples.len() < self.config.minimum_samples.max(1) as usize {
            return None;
        }
        let mean = self.samples.iter().sum::<f64>() / n;
        let variance = self.samples.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / n;
        Some((mean, variance.sqrt()))
    }

    /// The siblings' average, with the deviation of independent arrivals.
    fn seeded(&self) -> Option<(f64, f64)> {
        let mean = self.config.seed?.get();
        Some((mean, (mean / self.interval.as_secs_f64()).sqrt()))
    }

    fn forget_old(&mut self) {
        let excess = self.samples.len().saturating_sub(self.room);
        self.samples.drain(..excess);
    }
}

fn room(interval: Duration, window: Duration) -> usize {
    (window.as_millis() / interval.as_millis().max(1)).clamp(1, 3600) as usize
}

/// Requests in one sample that independent arrivals with this mean exceed less than once in ten million samples.
///
/// Bernstein's bound of the tail of the Poisson distribution (Boucheron, Lugosi, Massart, *Concentration
/// Inequalities*, 2013, §2.7–2.8). Without it a sparse stream trips by chance: the plain formula at 0.5 requests a
/// second is 2.9, which every seventieth second exceeds.
fn chance(mean: f64) -> f64 {
    let third = RARITY / 3.0;
    (mean + third + (third * third + 2.0 * mean * RARITY).sqrt()).ceil()
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
