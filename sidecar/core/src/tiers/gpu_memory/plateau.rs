//! What an engine reserves when it starts.
//!
//! vLLM takes 90 % of the GPU's memory for its KV cache before it serves the first request, and never gives it
//! back. What it uses then says nothing; what counts is growth above it.

use tidegate_policy::Plateau;

use crate::{GpuMemoryReading, Tick};

/// Readings belong to one plateau when they differ by no more than this share of the memory.
const TOLERANCE: f64 = 0.01;
/// Below this share of the plateau the engine has been started again.
const RESTARTED: f64 = 0.5;

/// Looks for a stretch of time in which the engine served requests and its memory stayed the same.
#[derive(Debug, Clone, Default)]
pub(super) struct PlateauWatch {
    level: Option<u64>,
    stretch: Option<Stretch>,
}

/// Readings that stayed the same so far.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    since: Tick,
    lowest: u64,
    highest: u64,
    /// Requests the engine had served when it began.
    served: u64,
}

impl PlateauWatch {
    pub(super) fn level(&self) -> Option<u64> {
        self.level
    }

    /// Takes a reading. `served`: requests served so far; before the engine serves, what stays the same is a model
    /// being loaded. `tripped` time teaches nothing.
    pub(super) fn learn(&mut self, reading: GpuMemoryReading, plateau: Plateau, served: u64, tripped: bool) {
        let used = reading.used;
        match self.level {
            Some(level) if (used as f64) < level as f64 * RESTARTED => self.level = None,
            Some(_) => return,
            None => {}
        }
        let fresh = Stretch { since: reading.at, lowest: used, highest: used, served };
        let stretch = self.stretch.filter(|_| !tripped).unwrap_or(fresh);
        let wider =
            Stretch { lowest: stretch.lowest.min(used), highest: stretch.highest.max(used), ..stretch };
        let same = (wider.highest - wider.lowest) as f64 <= TOLERANCE * reading.total as f64;
        let stretch = if same { wider } else { fresh };
        let long_enough = reading.at.since(stretch.since) >= plateau.stable_millis.duration();
        if long_enough && served > stretch.served && reading.total > 0 {
            self.level = Some(stretch.highest);
            self.stretch = None;
        } else {
            self.stretch = Some(stretch);
        }
    }
}
