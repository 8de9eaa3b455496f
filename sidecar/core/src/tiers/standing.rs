//! How a tier stands at one instant.

use tidegate_policy::report::{TierName, TierState, TierStatus};
use tidegate_policy::{Mode, Recovery};

use super::hysteresis::{Hysteresis, Phase};
use crate::{Tick, pressure};

/// What is read off a tier: by the gate for every request, and by people as a status.
#[derive(Debug, Clone)]
pub(crate) struct Standing<'a> {
    pub(crate) name: TierName,
    pub(crate) state: TierState,
    pub(crate) value: Option<f64>,
    pub(crate) threshold: Option<f64>,
    /// What presses, and its ceiling, where those are not the value and the threshold that are shown.
    pub(crate) pressing: Option<(f64, f64)>,
    pub(crate) unit: &'static str,
    /// What it has learned to be normal.
    pub(crate) baseline: Option<f64>,
    pub(crate) hysteresis: &'a Hysteresis,
    pub(crate) recovery: Recovery,
    /// When the signal was read, of tiers that have one from outside.
    pub(crate) signal_at: Option<Tick>,
    /// Why the signal is stale.
    pub(crate) stale_reason: Option<&'a str>,
}

impl<'a> Standing<'a> {
    /// A tier without a signal from outside: it is learning until a ceiling can be learned.
    pub(crate) fn of_traffic(
        name: TierName,
        learning: bool,
        hysteresis: &'a Hysteresis,
        recovery: Recovery,
    ) -> Self {
        let state = match hysteresis.phase() {
            Phase::Tripped => TierState::Tripped,
            Phase::Recovering { .. } | Phase::Ramping { .. } => TierState::Recovering,
            Phase::Normal if learning => TierState::Learning,
            Phase::Normal => TierState::Normal,
        };
        Self {
            name,
            state,
            value: None,
            threshold: None,
            pressing: None,
            unit: unit(name),
            baseline: None,
            hysteresis,
            recovery,
            signal_at: None,
            stale_reason: None,
        }
    }

    /// Whether low priority is refused because of it.
    pub(crate) fn shedding(&self) -> bool {
        self.hysteresis.shedding()
    }

    /// The tier's own pressure.
    pub(crate) fn pressure(&self) -> f64 {
        pressure::of_tier(self.pressing.or(self.value.zip(self.threshold)), self.hysteresis.grip())
    }

    pub(crate) fn status(&self, policy: &str, mode: Mode, now: Tick) -> TierStatus {
        let last = self.hysteresis.last();
        let countdown = self.hysteresis.countdown(now, self.recovery);
        TierStatus {
            tier: self.name,
            policy: policy.to_owned(),
            mode,
            state: self.state,
            shedding: self.shedding(),
            value: self.value,
            threshold: self.threshold,
            unit: self.unit.to_owned(),
            pressure: self.pressure(),
            weight: 0.0,
            baseline: self.baseline,
            last_trigger_reason: last.map(|trigger| trigger.reason.clone()),
            last_triggered_millis_ago: last.map(|trigger| millis(now.since(trigger.at))),
            recovery_countdown_millis: countdown.map(millis),
            signal_age_millis: self.signal_at.map(|at| millis(now.since(at))),
            stale_reason: self.stale_reason.map(str::to_owned),
            signals: Vec::new(),
            estimate: None,
            overdue: None,
        }
    }
}

pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unit(name: TierName) -> &'static str {
    match name {
        TierName::Qps => "requests/s",
        TierName::GpuMemory => "bytes",
        TierName::Latency => "ms",
    }
}
