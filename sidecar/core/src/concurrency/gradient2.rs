//! Gradient2 of Netflix' concurrency-limits (`Gradient2Limit.java`, version 0.5): the limit follows the ratio of the
//! long average of the latency to the last window's.

use tidegate_policy::{Factor, Ratio};

use super::window::Window;

const TOLERANCE: f64 = 1.5;
const SMOOTHING: f64 = 0.2;
const HEADROOM: u32 = 4;
/// Windows that the long average looks back, and those that it simply averages in the beginning.
const LONG: f64 = 600.0;
const WARM_UP: u32 = 10;
/// A long average so many times the last latency has seen too much load, and shrinks by itself.
const DRIFT: f64 = 2.0;
const DECAY: f64 = 0.95;

/// The algorithm.
#[derive(Debug, Clone)]
pub(super) struct Gradient2 {
    tolerance: f64,
    smoothing: f64,
    headroom: f64,
    long: f64,
    windows: u32,
}

impl Gradient2 {
    pub(super) fn new(tolerance: Option<Factor>, smoothing: Option<Ratio>, headroom: Option<u32>) -> Self {
        Self {
            tolerance: tolerance.map_or(TOLERANCE, Factor::get),
            smoothing: smoothing.map_or(SMOOTHING, Ratio::get),
            headroom: f64::from(headroom.unwrap_or(HEADROOM)),
            long: 0.0,
            windows: 0,
        }
    }

    pub(super) fn update(&mut self, limit: f64, window: &Window) -> f64 {
        let Some(short) = window.mean.filter(|mean| *mean > 0.0) else { return limit };
        self.windows = self.windows.saturating_add(1);
        let weight = if self.windows <= WARM_UP { 1.0 / f64::from(self.windows) } else { 2.0 / (LONG + 1.0) };
        self.long += weight * (short - self.long);
        if self.long / short > DRIFT {
            self.long *= DECAY;
        }
        // The limit says nothing while nobody comes near it.
        if f64::from(window.peak) < limit / 2.0 {
            return limit;
        }
        let gradient = (self.tolerance * self.long / short).clamp(0.5, 1.0);
        let next = limit * gradient + self.headroom;
        limit * (1.0 - self.smoothing) + next * self.smoothing
    }
}
