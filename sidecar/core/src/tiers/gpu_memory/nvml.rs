//! What the driver says of the GPUs' memory.

use tidegate_policy::GpuMemoryTier;

use super::plateau::PlateauWatch;
use super::{Signal, why_stale};
use crate::{GpuMemoryReading, Tick};

const GIB: f64 = (1u64 << 30) as f64;

/// Readings of NVML against a share, an amount or a learned plateau.
#[derive(Debug, Clone)]
pub(super) struct Nvml {
    /// Since when a reading is waited for.
    started: Tick,
    reading: Option<GpuMemoryReading>,
    plateau: PlateauWatch,
}

/// What NVML is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It decides alone.
    Alone,
    /// Beside the engine's own word it only warns before the memory runs out: a share in use says nothing there.
    Guard,
}

impl Nvml {
    pub(super) fn new(now: Tick) -> Self {
        Self { started: now, reading: None, plateau: PlateauWatch::default() }
    }

    pub(super) fn observe(
        &mut self,
        reading: GpuMemoryReading,
        plateau: Option<tidegate_policy::Plateau>,
        served: u64,
        tripped: bool,
    ) {
        if self.reading.is_some_and(|last| last.at > reading.at) {
            return;
        }
        self.reading = Some(reading);
        if let Some(plateau) = plateau {
            self.plateau.learn(reading, plateau, served, tripped);
        }
    }

    /// The learned plateau in bytes.
    pub(super) fn plateau(&self) -> Option<f64> {
        self.plateau.level().map(|level| level as f64)
    }

    pub(super) fn look(&self, now: Tick, config: GpuMemoryTier, role: Role) -> Signal {
        let reading = self.reading.filter(|reading| reading.total > 0);
        let value = reading.map(|reading| reading.used as f64);
        let threshold = reading.and_then(|reading| self.ceiling(config, role, reading));
        Signal {
            name: "nvml",
            unit: "bytes",
            value,
            threshold,
            reserved: self.plateau().unwrap_or(0.0),
            harmless: false,
            read_at: self.reading.map(|reading| reading.at),
            stale: self.why_stale(now, config),
            on_stale: config.on_stale,
            reason: reading.zip(threshold).map_or_else(String::new, |(reading, at)| reason(reading, at)),
        }
    }

    /// The amount, or a share: of everything, or of what lies above the plateau when that is learned. None while
    /// it is not.
    fn ceiling(&self, config: GpuMemoryTier, role: Role, reading: GpuMemoryReading) -> Option<f64> {
        let total = reading.total as f64;
        let share = config.max_utilization.map(|share| share.get() * total);
        let share = share.filter(|_| role == Role::Alone);
        let relative = match config.plateau {
            Some(plateau) => self.plateau.level().map(|level| {
                let level = (level as f64).min(total);
                (level + plateau.growth.get() * (total - level)).max(share.unwrap_or(0.0))
            }),
            None => share,
        };
        let amount = config.max_bytes.map(|bytes| bytes as f64);
        relative.into_iter().chain(amount).reduce(f64::min)
    }

    fn why_stale(&self, now: Tick, config: GpuMemoryTier) -> Option<String> {
        if self.reading.is_some_and(|reading| reading.total == 0) {
            return Some("the pod has no GPU".to_owned());
        }
        let read_at = self.reading.map(|reading| reading.at);
        why_stale(now, read_at, self.started, config.stale_after_millis.duration(), "GPU memory")
    }
}

fn reason(reading: GpuMemoryReading, ceiling: f64) -> String {
    format!(
        "{:.1} GiB of {:.1} GiB over the ceiling of {:.1} GiB",
        reading.used as f64 / GIB,
        reading.total as f64 / GIB,
        ceiling / GIB
    )
}
