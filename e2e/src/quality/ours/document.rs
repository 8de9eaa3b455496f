//! The policy of the bench as the operator would compile it: the defaults of every field, but for those that the
//! tuning moves.

use serde_json::{Value, json};

/// What the policy has.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) tiers: bool,
    pub(super) learned_qps: bool,
    /// A limit of requests in flight with a queue before it.
    pub(super) in_flight: bool,
    pub(super) algorithm: Value,
    /// The limit in the beginning.
    pub(super) initial: u32,
    pub(super) longest_wait: f64,
    pub(super) kv_usage: f64,
    pub(super) hold: f64,
}

pub(super) fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}

impl Parts {
    /// Everything, for one value of each axis.
    pub(super) fn all(values: &[f64]) -> Self {
        let [tolerance, longest_wait, kv_usage, hold] = [values[0], values[1], values[2], values[3]];
        Self {
            tiers: true,
            learned_qps: true,
            in_flight: true,
            algorithm: json!({"adaptive": {"tolerance": tolerance}}),
            initial: 20,
            longest_wait,
            kv_usage,
            hold,
        }
    }

    pub(super) fn json(&self) -> Value {
        let mut document = json!({
            "apiVersion": "policy.tidegate.dev/v1",
            "revision": "quality",
            "priority": {
                "from": [{"header": "x-priority"}],
                "default": "Medium",
                "reservedHigh": 0.2,
                "highAllowedFrom": [{"cidr": "10.0.0.0/8"}],
            },
        });
        if self.tiers {
            document["tiers"] = self.tiers();
        }
        if self.in_flight {
            document["concurrency"] = json!({
                "policy": "bench/quality", "mode": "Enforce", "algorithm": self.algorithm,
                "initial": self.initial, "min": 4, "max": 1000,
            });
            document["queue"] = json!({
                "policy": "bench/quality", "mode": "Enforce", "maxLength": 64,
                "timeoutMillis": millis(self.longest_wait), "tenant": [{"header": "x-tenant"}],
            });
        }
        document
    }

    fn tiers(&self) -> Value {
        let mut tiers = json!({
            "policy": "bench/quality",
            "mode": "Enforce",
            "recovery": {"belowRatio": 0.9, "holdMillis": millis(self.hold), "rampMillis": 5000},
            "gpuMemory": {
                "source": "Auto",
                "plateau": {"stableMillis": 60_000, "growth": 0.5},
                "kvCache": {"maxUsage": self.kv_usage, "staleAfterMillis": 5000, "onStale": "Ignore"},
                "staleAfterMillis": 10_000,
                "onStale": "Ignore",
            },
            "latency": {
                "signal": "TimeToFirstToken",
                "percentile": 0.99,
                "periodMillis": 10_000,
                "periods": 3,
                "minimumSamples": 100,
                "learned": {"factor": 1.8, "minimumPeriods": 6},
            },
        });
        if self.learned_qps {
            tiers["qps"] = json!({
                "sampleIntervalMillis": 1000,
                "windowMillis": 300_000,
                "learned": {
                    "sigma": 2.0, "factor": 1.5, "floor": 10.0, "minimumSamples": 60, "minimumRequests": 10,
                    "growthPerHour": 0.5,
                },
            });
        }
        tiers
    }
}
