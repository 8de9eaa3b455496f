//! The tier of GPU memory.

use tidegate_policy::report::{TierName, TierState};
use tidegate_policy::{GpuMemoryTier, OnStale, Recovery};

use super::hysteresis::{Hysteresis, Level, Phase};
use super::standing::Standing;
use crate::{GpuMemoryReading, Tick};

const GIB: f64 = (1u64 << 30) as f64;

/// The last reading against a share or an amount of memory.
#[derive(Debug, Clone)]
pub(crate) struct GpuMemory {
    config: GpuMemoryTier,
    recovery: Recovery,
    /// Since when a reading is waited for.
    started: Tick,
    reading: Option<GpuMemoryReading>,
    stale: Option<String>,
    hysteresis: Hysteresis,
}

impl GpuMemory {
    pub(crate) fn new(config: GpuMemoryTier, recovery: Recovery, now: Tick) -> Self {
        Self { config, recovery, started: now, reading: None, stale: None, hysteresis: Hysteresis::default() }
    }

    /// The tier with other parameters and the readings of this one.
    pub(crate) fn succeed(&self, config: GpuMemoryTier, recovery: Recovery, now: Tick) -> Self {
        let mut tier = Self { config, recovery, ..self.clone() };
        tier.tick(now);
        tier
    }

    /// Takes a reading, unless a newer one was taken before.
    pub(crate) fn observe(&mut self, now: Tick, reading: GpuMemoryReading) {
        if self.reading.is_none_or(|last| last.at <= reading.at) {
            self.reading = Some(reading);
        }
        self.tick(now);
    }

    /// Judges the last reading at `now`, or its age.
    pub(crate) fn tick(&mut self, now: Tick) {
        self.stale = self.why_stale(now);
        match (&self.stale, self.config.on_stale) {
            (None, _) | (Some(_), OnStale::HoldLast) => self.judge(now),
            (Some(_), OnStale::Ignore) => self.hysteresis.reset(),
            (Some(why), OnStale::Trip) => {
                self.hysteresis.update(now, Level::Over, self.recovery, || why.clone());
            }
        }
    }

    pub(crate) fn standing(&self) -> Standing<'_> {
        let state = match self.hysteresis.phase() {
            _ if self.stale.is_some() => TierState::Stale,
            Phase::Tripped => TierState::Tripped,
            Phase::Recovering { .. } => TierState::Recovering,
            Phase::Normal if self.reading.is_none() => TierState::Learning,
            Phase::Normal => TierState::Normal,
        };
        // A value that is as good as off must not press.
        let in_force = self.stale.is_none() || self.config.on_stale == OnStale::HoldLast;
        let reading = self.reading.filter(|reading| reading.total > 0 && in_force);
        Standing {
            name: TierName::GpuMemory,
            state,
            shedding: self.hysteresis.shedding(),
            value: reading.map(|reading| reading.used as f64),
            threshold: reading.map(|reading| self.ceiling(reading)),
            hysteresis: &self.hysteresis,
            recovery: self.recovery,
            signal_at: self.reading.map(|reading| reading.at),
            stale_reason: self.stale.as_deref(),
        }
    }

    fn judge(&mut self, now: Tick) {
        if let Some(reading) = self.reading.filter(|reading| reading.total > 0) {
            let ceiling = self.ceiling(reading);
            let level = Level::of(reading.used as f64, ceiling, self.recovery);
            self.hysteresis.update(now, level, self.recovery, || reason(reading, ceiling));
        }
    }

    /// The lower of the share and the amount.
    fn ceiling(&self, reading: GpuMemoryReading) -> f64 {
        let share = self.config.max_utilization.map(|share| share.get() * reading.total as f64);
        let amount = self.config.max_bytes.map(|bytes| bytes as f64);
        share.into_iter().chain(amount).reduce(f64::min).unwrap_or(f64::INFINITY)
    }

    fn why_stale(&self, now: Tick) -> Option<String> {
        let since = self.reading.map_or(self.started, |reading| reading.at);
        let age = now.since(since);
        let old = age >= self.config.stale_after_millis.duration();
        match self.reading {
            Some(reading) if reading.total == 0 => Some("the pod has no GPU".to_owned()),
            Some(_) if old => Some(format!("no GPU memory reading for {:.1} s", age.as_secs_f64())),
            None if old => Some(format!("no GPU memory reading in {:.1} s", age.as_secs_f64())),
            _ => None,
        }
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

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use tidegate_policy::{Millis, Ratio};

    const G: u64 = 1 << 30;

    fn second(n: u64) -> Tick {
        Tick::from_nanos(n * 1_000_000_000)
    }

    fn tier(on_stale: OnStale, max_bytes: Option<u64>) -> GpuMemory {
        let config = GpuMemoryTier {
            max_utilization: Ratio::new(0.75).ok(),
            max_bytes,
            stale_after_millis: Millis::new(10_000).unwrap(),
            on_stale,
        };
        let recovery =
            Recovery { below_ratio: Ratio::new(0.9).unwrap(), hold_millis: Millis::new(5000).unwrap() };
        GpuMemory::new(config, recovery, second(0))
    }

    fn read(tier: &mut GpuMemory, at: u64, used: u64) {
        tier.observe(second(at), GpuMemoryReading { used, total: 40 * G, at: second(at) });
    }

    #[test]
    fn it_trips_over_the_share_and_recovers_below_nine_tenths_of_it() {
        let mut tier = tier(OnStale::Ignore, None);
        read(&mut tier, 1, 30 * G);
        assert_eq!(tier.standing().state, TierState::Normal, "30 of 40 GiB is exactly 75 %");
        read(&mut tier, 2, 31 * G);
        assert_eq!(tier.standing().state, TierState::Tripped);
        let reason = "31.0 GiB of 40.0 GiB over the ceiling of 30.0 GiB";
        assert_eq!(tier.standing().hysteresis.last().unwrap().reason, reason);
        read(&mut tier, 3, 26 * G);
        assert_eq!(tier.standing().state, TierState::Recovering);
        tier.tick(second(8));
        assert_eq!(tier.standing().state, TierState::Normal);
    }

    #[test]
    fn the_lower_of_share_and_amount_holds() {
        let mut tier = tier(OnStale::Ignore, Some(20 * G));
        read(&mut tier, 1, 21 * G);
        assert_eq!(tier.standing().threshold, Some(20.0 * G as f64));
        assert_eq!(tier.standing().state, TierState::Tripped);
    }

    #[test]
    fn a_stale_reading_that_is_ignored_sheds_nothing_and_presses_nothing() {
        let mut tier = tier(OnStale::Ignore, None);
        read(&mut tier, 1, 39 * G);
        assert!(tier.standing().shedding);
        tier.tick(second(11));
        let standing = tier.standing();
        assert_eq!((standing.state, standing.shedding), (TierState::Stale, false));
        assert!(standing.pressure() <= 0.0);
        assert_eq!(standing.stale_reason, Some("no GPU memory reading for 10.0 s"));
    }

    #[test]
    fn a_stale_reading_that_is_held_stays_in_force() {
        let mut tier = tier(OnStale::HoldLast, None);
        read(&mut tier, 1, 39 * G);
        tier.tick(second(100));
        assert_eq!((tier.standing().state, tier.standing().shedding), (TierState::Stale, true));
    }

    #[test]
    fn a_reading_that_never_came_trips_if_it_was_told_to() {
        let mut tier = tier(OnStale::Trip, None);
        tier.tick(second(9));
        assert_eq!((tier.standing().state, tier.standing().shedding), (TierState::Learning, false));
        tier.tick(second(10));
        assert_eq!((tier.standing().state, tier.standing().shedding), (TierState::Stale, true));
        assert_eq!(tier.standing().hysteresis.last().unwrap().reason, "no GPU memory reading in 10.0 s");
        read(&mut tier, 11, G);
        tier.tick(second(16));
        assert_eq!((tier.standing().state, tier.standing().shedding), (TierState::Normal, false));
    }

    #[test]
    fn a_pod_without_a_gpu_is_stale_with_that_reason() {
        let mut tier = tier(OnStale::Ignore, None);
        tier.observe(second(1), GpuMemoryReading { used: 0, total: 0, at: second(1) });
        let standing = tier.standing();
        assert_eq!((standing.state, standing.shedding), (TierState::Stale, false));
        assert_eq!((standing.value, standing.stale_reason), (None, Some("the pod has no GPU")));
    }

    #[test]
    fn a_reading_that_arrives_out_of_order_is_not_taken() {
        let mut tier = tier(OnStale::Ignore, None);
        read(&mut tier, 5, 10 * G);
        tier.observe(second(6), GpuMemoryReading { used: 39 * G, total: 40 * G, at: second(4) });
        assert_eq!(tier.standing().value, Some(10.0 * G as f64));
    }
}
