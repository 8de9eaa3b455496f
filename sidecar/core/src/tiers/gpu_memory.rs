//! The tier of GPU memory.

mod kv_cache;
mod nvml;
mod plateau;

use std::time::Duration;

use tidegate_policy::report::{SignalStatus, TierName, TierState};
use tidegate_policy::{GpuMemoryTier, MemorySource, OnStale, Recovery};

use super::hysteresis::{Hysteresis, Level, Phase};
use super::standing::{Standing, millis};
use crate::{EngineReading, GpuMemoryReading, Tick};
use kv_cache::KvCacheUse;
pub(crate) use kv_cache::Work;
use nvml::Nvml;

/// How full the memory is, by one signal or by two.
#[derive(Debug, Clone)]
pub(crate) struct GpuMemory {
    config: GpuMemoryTier,
    recovery: Recovery,
    nvml: Nvml,
    kv_cache: KvCacheUse,
    /// The signals of the source, as of the last look.
    signals: Vec<Signal>,
    hysteresis: Hysteresis,
    /// A limit of places goes down by the same readings.
    regulated: bool,
}

/// A signal at one instant.
#[derive(Debug, Clone)]
struct Signal {
    name: &'static str,
    unit: &'static str,
    /// Value and ceiling, when there is something to hold the one against the other.
    value: Option<f64>,
    threshold: Option<f64>,
    /// The part of both that is there without any load: what an engine reserves when it starts.
    reserved: f64,
    /// However high the value is, it is no reason to trip.
    harmless: bool,
    read_at: Option<Tick>,
    stale: Option<String>,
    on_stale: OnStale,
    reason: String,
}

impl Signal {
    /// The level it speaks for. None: it has nothing to say.
    fn level(&self, recovery: Recovery) -> Option<Level> {
        match (&self.stale, self.on_stale) {
            (Some(_), OnStale::Trip) => Some(Level::Over),
            (Some(_), OnStale::Ignore) => None,
            (None, _) | (Some(_), OnStale::HoldLast) => {
                let (value, threshold) = self.above_reserve()?;
                match Level::of(value, threshold, recovery) {
                    Level::Over if self.harmless => Some(Level::Between),
                    level => Some(level),
                }
            }
        }
    }

    /// Whether its value may press.
    fn in_force(&self) -> bool {
        self.stale.is_none() || self.on_stale == OnStale::HoldLast
    }

    /// Value and ceiling above what is reserved. A ceiling that is not above it holds as it is.
    fn above_reserve(&self) -> Option<(f64, f64)> {
        let (value, threshold) = self.value.zip(self.threshold)?;
        let reserved = if threshold > self.reserved { self.reserved } else { 0.0 };
        Some(((value - reserved).max(0.0), threshold - reserved))
    }

    /// How close the value is to the ceiling.
    fn share(&self) -> f64 {
        let share = self.above_reserve().map_or(0.0, |(value, threshold)| value / threshold);
        if self.harmless { share.min(1.0) } else { share }
    }

    fn status(&self, now: Tick) -> SignalStatus {
        SignalStatus {
            name: self.name.to_owned(),
            value: self.value,
            threshold: self.threshold,
            unit: self.unit.to_owned(),
            age_millis: self.read_at.map(|at| millis(now.since(at))),
            stale_reason: self.stale.clone(),
        }
    }
}

impl GpuMemory {
    pub(crate) fn new(config: GpuMemoryTier, recovery: Recovery, now: Tick) -> Self {
        let mut tier = Self {
            config,
            recovery,
            nvml: Nvml::new(now),
            kv_cache: KvCacheUse::new(now),
            signals: Vec::new(),
            hysteresis: Hysteresis::default(),
            regulated: false,
        };
        tier.signals = tier.look(now, Work::default());
        tier
    }

    /// The tier with other parameters and the readings of this one.
    pub(crate) fn succeed(&self, config: GpuMemoryTier, recovery: Recovery, now: Tick, work: Work) -> Self {
        let mut tier = Self { config, recovery, ..self.clone() };
        tier.tick(now, work);
        tier
    }

    /// Says whether a limit of places goes down by the same readings: then the tier is the net below it.
    pub(crate) fn regulate(&mut self, regulated: bool) {
        self.regulated = regulated;
    }

    /// Takes a reading of NVML, unless a newer one was taken before. `tripped`: some tier is, so that the reading
    /// teaches nothing.
    pub(crate) fn observe(&mut self, now: Tick, reading: GpuMemoryReading, work: Work, tripped: bool) {
        self.nvml.observe(reading, self.config.plateau, work.succeeded, tripped);
        self.tick(now, work);
    }

    /// Takes a reading of the engine, unless a newer one was taken before.
    pub(crate) fn observe_engine(&mut self, now: Tick, reading: EngineReading, work: Work) {
        self.kv_cache.observe(reading, work);
        self.tick(now, work);
    }

    /// Judges the last readings at `now`, or their age.
    pub(crate) fn tick(&mut self, now: Tick, work: Work) {
        self.signals = self.look(now, work);
        let recovery = self.recovery;
        self.leave_it_to_the_limit(now);
        let judged = self.signals.iter().filter_map(|signal| Some((signal.level(recovery)?, signal)));
        match judged.min_by_key(|(level, _)| severity(*level)) {
            Some((level, signal)) => {
                let reason = signal.stale.as_ref().unwrap_or(&signal.reason);
                self.hysteresis.update(now, level, recovery, || reason.clone());
            }
            None if self.signals.iter().all(|signal| signal.stale.is_some()) => self.hysteresis.reset(),
            None => self.hysteresis.settle(now, recovery),
        }
    }

    pub(crate) fn standing(&self) -> Standing<'_> {
        let all_stale = self.signals.iter().all(|signal| signal.stale.is_some());
        let in_force = self.signals.iter().filter(|signal| signal.in_force());
        let main = in_force.max_by(|a, b| a.share().total_cmp(&b.share())).or(self.signals.first());
        let state = match self.hysteresis.phase() {
            _ if all_stale => TierState::Stale,
            Phase::Tripped => TierState::Tripped,
            Phase::Recovering { .. } | Phase::Ramping { .. } => TierState::Recovering,
            Phase::Normal if self.signals.iter().all(|s| s.value.zip(s.threshold).is_none()) => {
                TierState::Learning
            }
            Phase::Normal => TierState::Normal,
        };
        // A value that is as good as off must not press.
        let value = main.filter(|signal| signal.in_force());
        Standing {
            state,
            value: value.and_then(|signal| signal.value),
            threshold: value.and_then(|signal| signal.threshold),
            pressing: value.and_then(Signal::above_reserve),
            unit: main.map_or("bytes", |signal| signal.unit),
            baseline: self.nvml.plateau(),
            signal_at: main.and_then(|signal| signal.read_at),
            stale_reason: main.and_then(|signal| signal.stale.as_deref()),
            ..Standing::of_traffic(TierName::GpuMemory, false, &self.hysteresis, self.recovery)
        }
    }

    pub(crate) fn signals(&self, now: Tick) -> Vec<SignalStatus> {
        self.signals.iter().map(|signal| signal.status(now)).collect()
    }

    /// A KV cache that is over its ceiling is the limit's to bring back, where there is one; the tier trips when it did
    /// not.
    fn leave_it_to_the_limit(&mut self, now: Tick) {
        let Some(signal) = self.signals.iter_mut().find(|signal| signal.name == kv_cache::NAME) else {
            return;
        };
        let over = signal.stale.is_none() && signal.level(self.recovery) == Some(Level::Over);
        self.kv_cache.watch(now, over);
        let calm = !self.hysteresis.shedding();
        signal.harmless |= over && calm && self.regulated && self.kv_cache.may_be_brought_back(now);
    }

    /// The signals of the source, the one that decides first.
    fn look(&self, now: Tick, work: Work) -> Vec<Signal> {
        let kv_cache = || self.config.kv_cache.map(|config| self.kv_cache.look(now, config, work));
        match self.config.source {
            MemorySource::Nvml => vec![self.nvml.look(now, self.config, nvml::Role::Alone)],
            MemorySource::KvCache => {
                kv_cache().into_iter().map(|signal| Signal { harmless: false, ..signal }).collect()
            }
            MemorySource::Auto => {
                let kv_cache = kv_cache();
                let told = kv_cache.as_ref().is_some_and(Signal::in_force);
                let role = if told { nvml::Role::Guard } else { nvml::Role::Alone };
                kv_cache.into_iter().chain([self.nvml.look(now, self.config, role)]).collect()
            }
        }
    }
}

/// The worst first.
const fn severity(level: Level) -> u8 {
    match level {
        Level::Over => 0,
        Level::Between => 1,
        Level::Calm => 2,
    }
}

/// Why a reading is too old, if it is. `started`: since when one is waited for.
fn why_stale(now: Tick, read_at: Option<Tick>, started: Tick, limit: Duration, what: &str) -> Option<String> {
    let age = now.since(read_at.unwrap_or(started));
    let ago = if read_at.is_some() { "for" } else { "in" };
    (age >= limit).then(|| format!("no {what} reading {ago} {:.1} s", age.as_secs_f64()))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
