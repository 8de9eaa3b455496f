//! The pressure of one tier, and the one score that all of them make.

mod calibration;

use std::time::Duration;

use crate::Tick;
use calibration::Calibration;

/// Share of its ceiling at which a tier begins to press.
const ONSET: f64 = 0.8;
/// Least pressure of a tier that sheds, however far below its ceiling the value is: it has not recovered yet. And
/// the highest of one that does not: one bad period of latency, which may be chance, holds the traffic where it is
/// and does not cut it.
const SHEDDING: f64 = 0.5;
/// Weight of the newest softmax in the smoothed weights.
const ALPHA: f64 = 0.3;
/// How often the weights move.
const STEP: Duration = Duration::from_millis(100);
/// Number of tiers there can be.
const TIERS: usize = 3;

/// A tier's own pressure: rises from 0 at 80 % of its ceiling to 1 at the ceiling, to 0.5 and no further while the
/// tier does not shed, and from 0.5 on while it does. `grip`: how firmly the tier holds traffic back, 1 while it
/// sheds, falling to 0 while it lets low priority back in.
pub(crate) fn of_tier(value_and_ceiling: Option<(f64, f64)>, grip: f64) -> f64 {
    let own = value_and_ceiling
        .map_or(0.0, |(value, ceiling)| ((value / ceiling - ONSET) / (1.0 - ONSET)).clamp(0.0, 1.0));
    // A ceiling of zero gives no number.
    let own = if own.is_nan() { 1.0 } else { own };
    if grip >= 1.0 { own.max(SHEDDING) } else { own.min(SHEDDING).max(SHEDDING * grip) }
}

/// What the fusion is told about one tier.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Part {
    /// Its own pressure.
    pub(crate) pressure: f64,
    /// Nothing may bring the score below its pressure.
    pub(crate) tripped: bool,
}

/// Fuses the pressures of all tiers into one score.
///
/// The score is a weighted mean. The weights are a softmax of the pressures, smoothed over time, so that a tier
/// that presses gains weight and a moment's noise does not. A mean alone would let calm tiers talk a tripped one
/// down (pressures of 1, 0 and 0 have a softmax mean of 0.58), so the score is never below that of a tripped tier.
///
/// It rises with every tier: the derivative of the softmax mean by one pressure is its weight × (1 + the pressure
/// − the mean), which is not negative from 0 to 1; the smoothed part has constant weights.
#[derive(Debug, Clone)]
pub(crate) struct Fusion {
    /// The smoothed weights as of the last step, for as many tiers as there were.
    weights: [f64; TIERS],
    tiers: usize,
    stepped: Tick,
    calibration: Option<Calibration>,
}

impl Fusion {
    pub(crate) fn new(self_calibration: bool, now: Tick) -> Self {
        let calibration = self_calibration.then(|| Calibration::new(now));
        Self { weights: [0.0; TIERS], tiers: 0, stepped: now, calibration }
    }

    /// The fusion under another policy.
    pub(crate) fn succeed(&self, self_calibration: bool, now: Tick) -> Self {
        let kept = self.calibration.clone().filter(|_| self_calibration);
        let calibration = kept.or_else(|| self_calibration.then(|| Calibration::new(now)));
        Self { calibration, ..self.clone() }
    }

    /// Moves the weights, and calibrates. Only ticks do that: readings and bursts find both as they are.
    pub(crate) fn tick(&mut self, now: Tick, parts: &[Part]) {
        if now.since(self.stepped) >= STEP || self.tiers != parts.len() {
            self.weights = self.weights(parts);
            self.tiers = parts.len();
            self.stepped = now;
        }
        let mean = self.mean(parts);
        if let Some(calibration) = &mut self.calibration {
            calibration.tick(now, mean, parts.iter().any(|part| part.tripped));
        }
    }

    /// The score, from 0 (nothing is wrong) to 1.
    pub(crate) fn score(&self, parts: &[Part]) -> f64 {
        let tripped = parts.iter().filter(|part| part.tripped).map(|part| part.pressure).fold(0.0, f64::max);
        let mean = self.mean(parts);
        let mean = self.calibration.as_ref().map_or(mean, |calibration| calibration.above_onset(mean));
        mean.clamp(tripped, 1.0)
    }

    /// The level below which the fused pressure counts as none, if it calibrates itself.
    pub(crate) fn onset(&self) -> Option<f64> {
        self.calibration.as_ref().map(Calibration::onset)
    }

    /// The weights with which these pressures are fused now.
    pub(crate) fn weights(&self, parts: &[Part]) -> [f64; TIERS] {
        let newest = softmax(parts);
        if self.tiers != parts.len() {
            return newest;
        }
        std::array::from_fn(|i| self.weights[i] + ALPHA * (newest[i] - self.weights[i]))
    }

    fn mean(&self, parts: &[Part]) -> f64 {
        self.weights(parts).iter().zip(parts).map(|(weight, part)| weight * part.pressure).sum()
    }
}

/// The softmax of the pressures; zero for tiers that there are not.
fn softmax(parts: &[Part]) -> [f64; TIERS] {
    let powers: [f64; TIERS] =
        std::array::from_fn(|i| parts.get(i).map_or(0.0, |part| libm::exp(part.pressure)));
    let sum: f64 = powers.iter().sum();
    powers.map(|power| if sum > 0.0 { power / sum } else { 0.0 })
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
