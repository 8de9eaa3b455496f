//! What the engine has been told to do wrong.

use std::time::{Duration, Instant};

use serde::Deserialize;

/// `POST /fail`: answer requests with an error.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fail {
    /// Status of the error.
    pub status: u16,
    /// Share of the requests that fail, evenly spread, 0 to 1.
    pub ratio: f64,
    /// For how long; until `/reset` when absent.
    pub for_ms: Option<u64>,
}

impl Default for Fail {
    fn default() -> Self {
        Self { status: 500, ratio: 1.0, for_ms: None }
    }
}

/// `POST /hang` and `POST /oom`: for how long.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct For {
    /// Until `/reset` when absent.
    pub for_ms: Option<u64>,
}

/// `POST /slow`: every step takes `factor` times as long.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slow {
    /// More than 0.
    pub factor: f64,
    /// Until `/reset` when absent.
    #[serde(default)]
    pub for_ms: Option<u64>,
}

/// `POST /gpu-memory`: what the GPU says instead of the model's own use. Neither field: back to the model's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GpuMemory {
    /// Bytes on each GPU.
    pub bytes: Option<u64>,
    /// Share of each GPU's memory, 0 to 1.
    pub fraction: Option<f64>,
}

/// A fault with its end.
#[derive(Debug, Clone)]
struct Timed<T> {
    what: T,
    until: Option<Instant>,
}

impl<T> Timed<T> {
    fn new(now: Instant, what: T, for_ms: Option<u64>) -> Self {
        Self { what, until: for_ms.map(|ms| now + Duration::from_millis(ms)) }
    }
}

fn active<T>(fault: Option<&Timed<T>>, now: Instant) -> Option<&T> {
    fault.filter(|fault| fault.until.is_none_or(|until| now < until)).map(|fault| &fault.what)
}

/// All faults in force.
#[derive(Debug, Default)]
pub struct Faults {
    fail: Option<Timed<Fail>>,
    hang: Option<Timed<()>>,
    slow: Option<Timed<f64>>,
    out_of_memory: Option<Timed<()>>,
    gpu_memory: GpuMemory,
    owed: f64,
}

impl Faults {
    /// Makes a share of the requests fail.
    pub fn fail(&mut self, now: Instant, fail: Fail) {
        let for_ms = fail.for_ms;
        self.owed = 0.0;
        self.fail = Some(Timed::new(now, fail, for_ms));
    }

    /// Stops every answer.
    pub fn hang(&mut self, now: Instant, duration: &For) {
        self.hang = Some(Timed::new(now, (), duration.for_ms));
    }

    /// Stretches every step.
    pub fn slow(&mut self, now: Instant, slow: &Slow) {
        self.slow = Some(Timed::new(now, slow.factor, slow.for_ms));
    }

    /// Fills the GPU and fails everything.
    pub fn run_out_of_memory(&mut self, now: Instant, duration: &For) {
        self.out_of_memory = Some(Timed::new(now, (), duration.for_ms));
    }

    /// Overrides the memory that the GPU shows.
    pub fn set_gpu_memory(&mut self, memory: GpuMemory) {
        self.gpu_memory = memory;
    }

    /// The status with which the next request fails, if it does. Counts the request: a ratio of 0.25 fails every
    /// fourth, so that a test knows what it gets.
    pub fn next_failure(&mut self, now: Instant) -> Option<u16> {
        let fail = active(self.fail.as_ref(), now)?;
        self.owed += fail.ratio;
        (self.owed >= 1.0 - 1e-9).then(|| {
            self.owed -= 1.0;
            fail.status
        })
    }

    /// Whether nothing is answered.
    pub fn hangs(&self, now: Instant) -> bool {
        active(self.hang.as_ref(), now).is_some()
    }

    /// Whether the GPU is full and every request fails.
    pub fn is_out_of_memory(&self, now: Instant) -> bool {
        active(self.out_of_memory.as_ref(), now).is_some()
    }

    /// By how much every step is stretched.
    pub fn slowdown(&self, now: Instant) -> f64 {
        active(self.slow.as_ref(), now).copied().unwrap_or(1.0)
    }

    /// The override of the GPU's memory.
    pub fn gpu_memory(&self) -> GpuMemory {
        self.gpu_memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_fails_exactly_its_share_of_the_requests() {
        let now = Instant::now();
        let mut faults = Faults::default();
        faults.fail(now, Fail { status: 503, ratio: 0.3, for_ms: None });
        let failed = (0..100).filter(|_| faults.next_failure(now) == Some(503)).count();
        assert_eq!(failed, 30);
    }

    #[test]
    fn a_fault_ends_when_its_time_is_over() {
        let now = Instant::now();
        let mut faults = Faults::default();
        faults.fail(now, Fail { for_ms: Some(50), ..Fail::default() });
        faults.hang(now, &For { for_ms: Some(50) });
        let later = now + Duration::from_millis(50);
        assert_eq!((faults.next_failure(now), faults.next_failure(later)), (Some(500), None));
        assert_eq!((faults.hangs(now), faults.hangs(later)), (true, false));
    }
}
