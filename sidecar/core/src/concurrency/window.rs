//! What an algorithm looks at: a stretch of time between two ticks.

use std::time::Duration;

use crate::EngineReading;

/// A stretch of time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) elapsed: Duration,
    /// In flight at its end.
    pub(super) in_flight: u32,
    /// The most that were in flight at once.
    pub(super) peak: u32,
    /// Somebody took the last place that was his to take, or found none.
    pub(super) used: bool,
    /// Places of the reserve that nobody uses at its end.
    pub(super) spare: u32,
    /// Mean of the latencies that were taken, in seconds.
    pub(super) mean: Option<f64>,
    /// The engine turned requests away or did not answer them in time.
    pub(super) dropped: bool,
    /// Requests in flight whose answer has not begun; none where nobody tells when one begins.
    pub(super) pending: Option<u64>,
    /// Requests whose answer began.
    pub(super) begun: u64,
    /// What the engine said about itself, unless that is too old.
    pub(super) reading: Option<EngineReading>,
}
