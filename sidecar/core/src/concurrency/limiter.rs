//! Moves the limit, and says how many places there are for whom.

use std::time::Duration;

use tidegate_policy::{Concurrency, ConcurrencyAlgorithm, Mode};

use super::adaptive::Adaptive;
use super::advice::{Advice, Freed, Waits};
use super::aimd::Aimd;
use super::flow::{Flow, Totals};
use super::gradient2::Gradient2;
use super::permits::{Bounds, Permits};
use super::window::Window;
use crate::gradient::left;
use crate::{EngineReading, Tick};

/// How often our own algorithm looks.
const STEP: Duration = Duration::from_millis(500);
/// How often the others do, and the samples they need: `WindowedLimit.java` of Netflix' concurrency-limits.
const WINDOW: Duration = Duration::from_secs(1);
const WINDOW_SAMPLES: u64 = 10;
/// A reading of the engine that is older says nothing.
const READING_LASTS: Duration = Duration::from_secs(5);
/// What is remembered of the most requests in flight, after each step without pressure.
const CALM_DECAY: f64 = 0.999;

/// Where the limit stands and what it has seen. Only ticks touch it.
#[derive(Debug, Clone)]
pub(crate) struct Limiter {
    config: Concurrency,
    algorithm: Algorithm,
    /// Share of the limit that is kept for high.
    reserved: f64,
    limit: f64,
    start: Tick,
    before: Totals,
    refused: u64,
    peak: u32,
    used: bool,
    /// The most in flight while there was no pressure.
    calm: f64,
    freed: Freed,
}

#[derive(Debug, Clone)]
enum Algorithm {
    Adaptive(Adaptive),
    Gradient2(Gradient2),
    Aimd(Aimd),
    Static,
}

/// What the requests did up to a tick.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    /// The queue.
    pub(crate) queue: Waits,
    /// The pressure that moves the medium class here.
    pub(crate) pressure: f64,
    /// The engine's last reading.
    pub(crate) reading: Option<EngineReading>,
}

impl Limiter {
    pub(crate) fn new(config: &Concurrency, reserved: f64, now: Tick, flow: &Flow) -> Self {
        Self {
            algorithm: Algorithm::new(config.algorithm),
            reserved,
            limit: f64::from(config.initial),
            start: now,
            before: flow.totals(),
            refused: 0,
            peak: 0,
            used: false,
            calm: 0.0,
            freed: Freed::new(now, flow.totals()),
            config: config.clone(),
        }
    }

    /// The limiter of the next policy. The limit stays where it is, and what was learned under the same parameters.
    pub(crate) fn succeed(&self, config: &Concurrency, reserved: f64) -> Self {
        let same = self.config.algorithm == config.algorithm && self.config.latency == config.latency;
        let algorithm = if same { self.algorithm.clone() } else { Algorithm::new(config.algorithm) };
        let limit = match config.algorithm {
            ConcurrencyAlgorithm::Static => f64::from(config.initial),
            _ => self.limit,
        };
        let mut next = Self { algorithm, reserved, limit, config: config.clone(), ..self.clone() };
        next.limit = next.bounded(limit);
        next
    }

    /// The limit in force.
    pub(crate) fn limit(&self) -> u32 {
        whole(self.limit)
    }

    /// Whether it goes down when the engine says that its memory is full.
    pub(crate) fn heeds_the_engine(&self) -> bool {
        self.config.mode == Mode::Enforce && matches!(self.algorithm, Algorithm::Adaptive(_))
    }

    pub(crate) fn config(&self) -> &Concurrency {
        &self.config
    }

    /// Takes note of what happened, moves the limit if it is time to, and publishes it.
    pub(crate) fn tick(&mut self, now: Tick, flow: &Flow, permits: &Permits, progress: Progress) -> Advice {
        let totals = flow.totals();
        let in_use = permits.in_use();
        let peak = permits.peak();
        self.peak = self.peak.max(peak);
        let refused = totals.all_refused() != self.refused;
        self.used |= refused || progress.queue.waiting > 0 || in_use.common >= permits.bounds().medium;
        self.refused = totals.all_refused();
        if progress.pressure <= 0.0 {
            self.calm = (self.calm * CALM_DECAY).max(f64::from(peak));
        }
        if self.is_time(now, totals) {
            let window = self.window(now, totals, permits, progress.reading);
            let limit = self.algorithm.update(self.limit, f64::from(self.config.min), &window);
            self.limit = self.bounded(limit);
            (self.start, self.before, self.peak, self.used) = (now, totals, 0, false);
        }
        permits.publish(self.bounds(progress.pressure));
        self.freed.tick(now, totals, in_use.total(), progress.queue)
    }

    fn is_time(&self, now: Tick, totals: Totals) -> bool {
        let elapsed = now.since(self.start);
        match self.algorithm {
            Algorithm::Adaptive(_) => elapsed >= STEP,
            Algorithm::Gradient2(_) | Algorithm::Aimd(_) => {
                let flow = totals.since(self.before);
                elapsed >= WINDOW && (flow.samples >= WINDOW_SAMPLES || flow.drops > 0)
            }
            Algorithm::Static => false,
        }
    }

    fn window(&self, now: Tick, totals: Totals, permits: &Permits, reading: Option<EngineReading>) -> Window {
        let flow = totals.since(self.before);
        let in_use = permits.in_use();
        let mean = (flow.samples > 0).then(|| flow.nanos as f64 / flow.samples as f64 / 1e9);
        let pending = totals.all_entered().wrapping_sub(totals.begun).min(u64::from(in_use.total()));
        Window {
            elapsed: now.since(self.start),
            in_flight: in_use.total(),
            peak: self.peak,
            used: self.used,
            spare: permits.bounds().reserve.saturating_sub(in_use.reserve),
            mean,
            dropped: flow.drops > 0,
            pending: (totals.told > 0).then_some(pending),
            begun: flow.begun,
            reading: reading.filter(|reading| now.since(reading.at) <= READING_LASTS),
        }
    }

    fn bounded(&self, limit: f64) -> f64 {
        limit.clamp(f64::from(self.config.min), f64::from(self.config.max))
    }

    /// Who may have how many places. Under pressure medium keeps what the pressure leaves of the places that were in
    /// use without, unless the limit is lower anyway.
    fn bounds(&self, pressure: f64) -> Bounds {
        let limit = self.limit();
        let reserve =
            whole((f64::from(limit) * self.reserved).ceil()).clamp(1, limit.saturating_sub(1).max(1));
        let common = limit.saturating_sub(reserve).max(1);
        let medium = if pressure > 0.0 && self.calm > 0.0 {
            whole(self.calm * left(pressure)).clamp(1, common)
        } else {
            common
        };
        // Where low still finds a place, medium does.
        let low = if medium == 1 { 1 } else { medium - (medium / 8).max(1) };
        Bounds { reserve, common, medium, low }
    }
}

impl Algorithm {
    fn new(config: ConcurrencyAlgorithm) -> Self {
        match config {
            ConcurrencyAlgorithm::Adaptive { target_millis, tolerance, kv_cache } => {
                Self::Adaptive(Adaptive::new(target_millis, tolerance, kv_cache))
            }
            ConcurrencyAlgorithm::Gradient2 { tolerance, smoothing, headroom } => {
                Self::Gradient2(Gradient2::new(tolerance, smoothing, headroom))
            }
            ConcurrencyAlgorithm::Aimd { backoff, timeout_millis } => {
                Self::Aimd(Aimd::new(backoff, timeout_millis))
            }
            ConcurrencyAlgorithm::Static => Self::Static,
        }
    }

    fn update(&mut self, limit: f64, floor: f64, window: &Window) -> f64 {
        match self {
            Self::Adaptive(adaptive) => adaptive.update(limit, floor, window),
            Self::Gradient2(gradient) => gradient.update(limit, window),
            Self::Aimd(aimd) => aimd.update(limit, window),
            Self::Static => limit,
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a limit lies between 0 and 100000
fn whole(limit: f64) -> u32 {
    limit as u32
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
