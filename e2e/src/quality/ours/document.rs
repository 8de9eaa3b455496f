//! The policy of the bench as the operator would compile it.

use serde_json::{Value, json};

/// The document for one value of each axis.
pub(super) fn json(values: &[f64], learned_qps: bool) -> Value {
    let millis = |seconds: f64| (seconds * 1000.0).round() as u64;
    let [longest, hold, period] = [values[0], values[1], values[2]].map(millis);
    let mut document = json!({
        "apiVersion": "policy.tidegate.dev/v1",
        "revision": "quality",
        "priority": {
            "from": [{"header": "x-priority"}],
            "default": "Medium",
            "reservedHigh": 0.2,
            "highAllowedFrom": [{"cidr": "10.0.0.0/8"}],
        },
        "tiers": {
            "policy": "bench/quality",
            "mode": "Enforce",
            "recovery": {"belowRatio": 0.9, "holdMillis": hold},
            "latency": {
                "signal": "TimeToFirstToken",
                "percentile": 0.99,
                "periodMillis": period,
                "periods": 2,
                "minimumSamples": 5,
                "learned": {"factor": 1.8, "minimumPeriods": 6},
                "maxMillis": longest,
            },
        },
    });
    if learned_qps {
        document["tiers"]["qps"] = json!({
            "sampleIntervalMillis": 1000,
            "windowMillis": 300_000,
            "learned": {"sigma": 2.0, "factor": 1.5, "floor": 1.0, "minimumSamples": 30},
        });
    }
    document
}
