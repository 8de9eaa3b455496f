//! The tiers as gauges: one series for each tier, so that their coupling can be seen on one graph.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tidegate_policy::report::{LatencyEstimate, SignalStatus, TierState, TierStatus};

type Real = Gauge<f64, AtomicU64>;
type Label = (&'static str, &'static str);

#[derive(Debug, Default)]
pub(super) struct Tiers {
    state: Family<[Label; 2], Gauge>,
    value: Family<[Label; 1], Real>,
    threshold: Family<[Label; 1], Real>,
    baseline: Family<[Label; 1], Real>,
    pressure: Family<[Label; 1], Real>,
    weight: Family<[Label; 1], Real>,
    signal_value: Family<[Label; 2], Real>,
    signal_age: Family<[Label; 2], Real>,
    latency_p95: Family<[Label; 1], Real>,
    overdue: Family<[Label; 1], Real>,
}

impl Tiers {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        registry.register("tier_state", "1 for the state that the tier is in", this.state.clone());
        registry.register(
            "tier_signal_age_seconds",
            "Age of the last reading of each signal of a tier",
            this.signal_age.clone(),
        );
        for (name, help, family) in [
            (
                "tier_value",
                "Current value of the tier: requests/s, bytes, ratio or milliseconds",
                &this.value,
            ),
            ("tier_threshold", "Ceiling in force, in the unit of the value", &this.threshold),
            (
                "tier_baseline",
                "What the tier has learned to be normal, in the unit of the value",
                &this.baseline,
            ),
            ("tier_pressure_ratio", "The tier's own pressure, 0 to 1", &this.pressure),
            ("tier_weight_ratio", "The tier's weight in the pressure of all, 0 to 1", &this.weight),
            ("latency_p95_seconds", "95th percentile of the last minute's latency", &this.latency_p95),
            ("tier_overdue_requests", "Requests in flight older than the ceiling of latency", &this.overdue),
        ] {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "tier_signal_value",
            "Value of each signal of a tier with several: bytes or ratio",
            this.signal_value.clone(),
        );
        this
    }

    pub(super) fn set(&self, tiers: &[TierStatus]) {
        self.clear();
        for tier in tiers {
            self.set_tier(tier);
        }
    }

    /// First, so that a tier that a policy took away disappears.
    fn clear(&self) {
        self.state.clear();
        self.signal_value.clear();
        self.signal_age.clear();
        let by_tier = [&self.value, &self.threshold, &self.baseline, &self.pressure, &self.weight];
        for family in by_tier.into_iter().chain([&self.latency_p95, &self.overdue]) {
            family.clear();
        }
    }

    fn set_tier(&self, tier: &TierStatus) {
        let name = ("tier", tier.tier.as_str());
        for state in TierState::ALL {
            let gauge = self.state.get_or_create(&[name, ("state", state.as_str())]);
            gauge.set(i64::from(state == tier.state));
        }
        for (family, value) in [
            (&self.value, tier.value),
            (&self.threshold, tier.threshold),
            (&self.baseline, tier.baseline),
            (&self.pressure, Some(tier.pressure)),
            (&self.weight, Some(tier.weight)),
            (&self.overdue, tier.overdue.map(|overdue| overdue as f64)),
        ] {
            set(family, name, value);
        }
        for signal in &tier.signals {
            self.set_signal(name, signal);
        }
        if let Some(estimate) = &tier.estimate {
            self.set_estimate(estimate);
        }
    }

    fn set_signal(&self, tier: Label, signal: &SignalStatus) {
        // Labels come from a fixed list.
        let name = if signal.name == "nvml" { "nvml" } else { "kv-cache" };
        let labels = [tier, ("signal", name)];
        if let Some(value) = signal.value {
            self.signal_value.get_or_create(&labels).set(value);
        }
        if let Some(age) = signal.age_millis {
            self.signal_age.get_or_create(&labels).set(age as f64 / 1000.0);
        }
    }

    fn set_estimate(&self, estimate: &LatencyEstimate) {
        for (name, millis) in [
            ("window", estimate.window_millis),
            ("moving-average", estimate.moving_average_millis),
            ("hybrid", estimate.hybrid_millis),
        ] {
            set(&self.latency_p95, ("estimate", name), millis.map(|millis| millis / 1000.0));
        }
    }
}

fn set(family: &Family<[Label; 1], Real>, label: Label, value: Option<f64>) {
    if let Some(value) = value {
        family.get_or_create(&[label]).set(value);
    }
}
