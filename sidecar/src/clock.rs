//! The one place that reads the time.

use std::time::Instant;

use tidegate_core::Tick;

/// A monotonic clock whose origin is the start of the process.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> Tick {
        Tick::from_duration(self.origin.elapsed())
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
