//! Tidegate's own decision engine, whole and with parts taken away.

mod document;
mod sidecar;

use serde_json::json;
use tidegate_policy::PolicyDocument;

use self::{document::Parts, sidecar::Sidecar};
use super::policy::{Axis, Kind, Policy};

const SOURCE: &str = "tidegate-core";
const TARGET: Axis = Axis { name: "tolerance of the learned TTFT", low: 1.5, high: 8.0 };
const COMMON: [Axis; 3] = [
    Axis { name: "longest wait in the queue in seconds", low: 0.3, high: 4.0 },
    Axis { name: "KV use that trips", low: 0.7, high: 0.99 },
    Axis { name: "hold in seconds", low: 1.0, high: 20.0 },
];
const AXES: &[Axis] = &[TARGET, COMMON[0], COMMON[1], COMMON[2]];
const DEFAULT: &[f64] = &[3.0, 1.0, 0.9, 10.0];

/// With every tier, its own limit of requests in flight and the queue.
pub const WHOLE: Kind = Kind {
    name: "Tidegate",
    source: SOURCE,
    axes: AXES,
    default: DEFAULT,
    build: |values, seed| build(&Parts::all(values), seed),
};

/// The same with the defaults of every field.
pub const UNTUNED: Kind = Kind {
    name: "Tidegate, nothing tuned",
    source: SOURCE,
    axes: &[],
    default: &[],
    build: |_, seed| build(&Parts::all(DEFAULT), seed),
};

/// Without the learned ceiling of requests per second.
pub const WITHOUT_LEARNED_QPS: Kind = Kind {
    name: "Tidegate without learned QPS",
    source: SOURCE,
    axes: AXES,
    default: DEFAULT,
    build: |values, seed| build(&Parts { learned_qps: false, ..Parts::all(values) }, seed),
};

/// Without the learned ceiling, and Gradient2 moves the limit of requests in flight.
pub const GRADIENT2: Kind = Kind {
    name: "Tidegate without learned QPS, Gradient2 inside",
    source: SOURCE,
    axes: &[Axis { name: "tolerance", low: 1.05, high: 3.0 }, COMMON[0], COMMON[1], COMMON[2]],
    default: &[1.5, 1.0, 0.9, 10.0],
    build: |values, seed| {
        let algorithm = json!({"gradient2": {"tolerance": values[0]}});
        build(&Parts { learned_qps: false, algorithm, ..Parts::all(values) }, seed)
    },
};

/// Without the learned ceiling, and AIMD moves the limit of requests in flight.
pub const AIMD: Kind = Kind {
    name: "Tidegate without learned QPS, AIMD inside",
    source: SOURCE,
    axes: &[
        Axis { name: "seconds that count as too slow", low: 0.3, high: 8.0 },
        COMMON[0],
        COMMON[1],
        COMMON[2],
    ],
    default: &[5.0, 1.0, 0.9, 10.0],
    build: |values, seed| {
        let algorithm = json!({"aimd": {"timeoutMillis": document::millis(values[0])}});
        build(&Parts { learned_qps: false, algorithm, ..Parts::all(values) }, seed)
    },
};

/// Without the learned ceiling, and nothing moves the limit of requests in flight.
pub const STATIC: Kind = Kind {
    name: "Tidegate without learned QPS, static limit inside",
    source: SOURCE,
    axes: &[Axis { name: "in flight", low: 8.0, high: 128.0 }, COMMON[0], COMMON[1], COMMON[2]],
    default: &[20.0, 1.0, 0.9, 10.0],
    build: |values, seed| {
        let initial = values[0].round() as u32;
        build(&Parts { learned_qps: false, algorithm: json!("static"), initial, ..Parts::all(values) }, seed)
    },
};

/// The limit of requests in flight and the queue, without any tier.
pub const WITHOUT_TIERS: Kind = Kind {
    name: "Tidegate without tiers",
    source: SOURCE,
    axes: &[TARGET, COMMON[0]],
    default: &[3.0, 1.0],
    build: |values, seed| {
        build(&Parts { tiers: false, ..Parts::all(&[values[0], values[1], 0.9, 10.0]) }, seed)
    },
};

/// The tiers alone.
pub const TIERS_ALONE: Kind = Kind {
    name: "Tidegate, tiers alone",
    source: SOURCE,
    axes: AXES,
    default: DEFAULT,
    build: |values, seed| build(&Parts { in_flight: false, ..Parts::all(values) }, seed),
};

/// All variants.
pub const OURS: [&Kind; 8] =
    [&WHOLE, &UNTUNED, &WITHOUT_LEARNED_QPS, &GRADIENT2, &AIMD, &STATIC, &WITHOUT_TIERS, &TIERS_ALONE];

fn build(parts: &Parts, seed: u64) -> Box<dyn Policy> {
    // A document that does not validate protects nothing; a test holds that each of them does.
    let document = PolicyDocument::from_json(parts.json().to_string().as_bytes()).unwrap_or_default();
    Box::new(Sidecar::new(&document, seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_of_the_bench_validates() {
        for tiers in [true, false] {
            for algorithm in
                [json!({"adaptive": {}}), json!({"gradient2": {}}), json!({"aimd": {}}), json!("static")]
            {
                let parts = Parts { tiers, algorithm, ..Parts::all(DEFAULT) };
                PolicyDocument::from_json(parts.json().to_string().as_bytes()).unwrap();
            }
        }
    }
}
