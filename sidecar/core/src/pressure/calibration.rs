//! Self-calibration of the level from which the fused pressure counts.
//!
//! The fused pressure of a second is the confidence that the pod has too much to do, and a decision: to slow medium
//! down or not to. Where a pod lives close to its ceilings that confidence swings all day without a tier ever
//! tripping, and slowing medium down for it is noise. So the level from which it counts, its onset, learns from
//! the last two minutes in which nothing was tripped:
//!
//! * Refit: when the standard deviation of the confidence is over 0.18, the onset becomes its 95th percentile.
//! * Drift: a decision is of low confidence when it falls within 0.1 of the onset, on either side. When 7 or more of
//!   them follow each other the load has drifted to where the onset lies, and the onset moves to their mean by 30 %.
//!
//! The onset never exceeds 0.5, the pressure from which tiers trip, and a tripped tier's own pressure passes it by.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Tick;

/// Between two decisions.
const STEP: Duration = Duration::from_secs(1);
/// Decisions that are remembered.
const REMEMBERED: usize = 120;
/// Decisions needed for a refit.
const ENOUGH: usize = 60;
/// Standard deviation from which the onset is refitted.
const SPREAD: f64 = 0.18;
/// Percentile to which it is refitted.
const REFIT: f64 = 0.95;
/// Distance from the onset within which a decision is of low confidence.
const NEAR: f64 = 0.1;
/// Decisions of low confidence in a row that show drift.
const IN_A_ROW: usize = 7;
/// Share of the way that the onset goes towards their mean.
const ALPHA: f64 = 0.3;
/// The onset is never higher.
const HIGHEST: f64 = 0.5;

#[derive(Debug, Clone)]
pub(super) struct Calibration {
    onset: f64,
    /// Confidences of untripped seconds, oldest first.
    past: VecDeque<f64>,
    /// Decisions of low confidence in a row, up to the newest.
    low: usize,
    decided: Tick,
}

impl Calibration {
    pub(super) fn new(now: Tick) -> Self {
        Self { onset: 0.0, past: VecDeque::new(), low: 0, decided: now }
    }

    pub(super) fn onset(&self) -> f64 {
        self.onset
    }

    /// What of a pressure is above the onset, from 0 to 1.
    pub(super) fn above_onset(&self, pressure: f64) -> f64 {
        ((pressure - self.onset) / (1.0 - self.onset)).clamp(0.0, 1.0)
    }

    /// Takes the confidence of a second that is over. `tripped` time teaches nothing.
    pub(super) fn tick(&mut self, now: Tick, confidence: f64, tripped: bool) {
        if now.since(self.decided) < STEP {
            return;
        }
        self.decided = now;
        if tripped {
            self.low = 0;
            return;
        }
        self.past.push_back(confidence);
        if self.past.len() > REMEMBERED {
            self.past.pop_front();
        }
        // A pod without pressure is no doubtful case, wherever the onset lies.
        let near = confidence > 0.0 && (confidence - self.onset).abs() < NEAR;
        self.low = if near { self.low + 1 } else { 0 };
        if self.past.len() >= ENOUGH && deviation(&self.past) > SPREAD {
            self.refit();
        } else if self.low >= IN_A_ROW {
            self.compensate();
        }
    }

    fn refit(&mut self) {
        let mut sorted: Vec<f64> = self.past.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let rank = (REFIT * sorted.len() as f64).ceil() as usize;
        self.onset = sorted.get(rank.saturating_sub(1)).copied().unwrap_or(self.onset).clamp(0.0, HIGHEST);
    }

    fn compensate(&mut self) {
        let mean = self.past.iter().rev().take(self.low).sum::<f64>() / self.low as f64;
        self.onset = (self.onset + ALPHA * (mean - self.onset)).clamp(0.0, HIGHEST);
    }
}

fn deviation(values: &VecDeque<f64>) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt()
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn after(confidences: impl IntoIterator<Item = (f64, bool)>) -> Calibration {
        let mut calibration = Calibration::new(Tick::default());
        for (i, (confidence, tripped)) in confidences.into_iter().enumerate() {
            calibration.tick(Tick::default() + STEP * (i as u32 + 1), confidence, tripped);
        }
        calibration
    }

    #[test]
    fn a_confidence_that_swings_refits_the_onset_to_its_ninety_fifth_percentile() {
        let calm = after((0..200).map(|i| (0.2 + f64::from(i % 20) * 0.01, false)));
        assert!(calm.onset() <= 0.0, "a deviation of 0.06 is none");
        let wide = after((0..200).map(|i| (if i % 10 < 5 { 0.0 } else { 0.4 }, false)));
        assert!((wide.onset() - 0.4).abs() < 1e-9, "{}", wide.onset());
        assert!(wide.above_onset(0.4) <= 0.0);
        assert!((wide.above_onset(1.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn seven_doubtful_decisions_in_a_row_move_the_onset_and_six_do_not() {
        let six = after((0..60).map(|i| (if i % 7 == 6 { 0.0 } else { 0.05 }, false)));
        assert!(six.onset() <= 0.0);
        let seven = after((0..7).map(|_| (0.05, false)));
        assert!((seven.onset() - 0.3 * 0.05).abs() < 1e-9, "{}", seven.onset());
        let long = after((0..60).map(|_| (0.05, false)));
        assert!((long.onset() - 0.05).abs() < 1e-6, "{}", long.onset());
    }

    #[test]
    fn tripped_time_teaches_nothing_and_time_that_stands_still_neither() {
        let tripped = after((0..300).map(|i| (if i % 2 == 0 { 0.0 } else { 1.0 }, true)));
        assert!(tripped.onset() <= 0.0);
        let mut still = Calibration::new(Tick::default());
        (0..1000).for_each(|_| still.tick(Tick::default(), 0.05, false));
        assert!(still.onset() <= 0.0);
    }

    #[test]
    fn the_onset_stays_below_the_pressure_at_which_tiers_trip() {
        let calibration = after((0..300).map(|i| (if i % 2 == 0 { 0.0 } else { 1.0 }, false)));
        assert!((calibration.onset() - HIGHEST).abs() < 1e-9);
    }
}
