//! Additive increase, multiplicative decrease (Chiu and Jain 1989), as in `AIMDLimit.java` of Netflix'
//! concurrency-limits.

use tidegate_policy::{Millis, Ratio};

use super::window::Window;

const BACKOFF: f64 = 0.9;
const TIMEOUT: f64 = 5.0;

/// The algorithm.
#[derive(Debug, Clone)]
pub(super) struct Aimd {
    backoff: f64,
    timeout: f64,
}

impl Aimd {
    pub(super) fn new(backoff: Option<Ratio>, timeout: Option<Millis>) -> Self {
        Self {
            backoff: backoff.map_or(BACKOFF, Ratio::get),
            timeout: timeout.map_or(TIMEOUT, |timeout| timeout.duration().as_secs_f64()),
        }
    }

    pub(super) fn update(&self, limit: f64, window: &Window) -> f64 {
        if window.dropped || window.mean.is_some_and(|mean| mean > self.timeout) {
            limit * self.backoff
        } else if window.mean.is_some() && f64::from(window.peak) * 2.0 >= limit {
            limit + 1.0
        } else {
            limit
        }
    }
}
