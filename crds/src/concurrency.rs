//! The limit of requests in flight, and the queue in front of it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, KeyPart, LatencySignal, defaults};

/// How many requests may be in flight in a pod. High priority has its share of them for itself, at least one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "self.min <= self.initial && self.initial <= self.max"
).message(Concurrency::ORDER).field_path(".initial"))]
#[x_kube(validation = Rule::new(
    "!has(self.target) || self.algorithm == 'Adaptive'"
).message(Concurrency::TARGET).field_path(".target"))]
pub struct Concurrency {
    /// How the limit moves.
    #[serde(default)]
    pub algorithm: ConcurrencyAlgorithm,
    /// The limit in the beginning, and of `Static` always.
    #[serde(default = "defaults::concurrency_initial")]
    #[schemars(range(min = 2, max = 100_000))]
    pub initial: i32,
    /// The limit is never below it.
    #[serde(default = "defaults::concurrency_min")]
    #[schemars(range(min = 2, max = 100_000))]
    pub min: i32,
    /// The limit is never above it.
    #[serde(default = "defaults::concurrency_max")]
    #[schemars(range(min = 2, max = 100_000))]
    pub max: i32,
    /// The latency that the algorithm looks at.
    #[serde(default)]
    pub signal: LatencySignal,
    /// Only for `Adaptive`: the latency to stay below; learned when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Duration>,
}

impl Concurrency {
    /// What is said about a limit outside of its bounds.
    pub const ORDER: &str = "initial is not between min and max: write min <= initial <= max";
    /// What is said about a target of an algorithm that has none.
    pub const TARGET: &str = "target is for Adaptive: write algorithm: Adaptive, or leave target out";
}

/// How a limit of requests in flight moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyAlgorithm {
    /// Keeps waiting out of the engine, by the time to first token and by what the engine says about itself.
    #[default]
    Adaptive,
    /// Gradient2 of Netflix' concurrency-limits.
    Gradient2,
    /// Additive increase, multiplicative decrease.
    Aimd,
    /// Does not move.
    Static,
}

/// Where requests wait that find no place in flight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// Requests that may wait.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_length: i32,
    /// How long one may wait, unless its client waits for less.
    pub timeout: Duration,
    /// Requests with equal values are one tenant's; the tenants of a class are served evenly. Left out: all are one's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub tenant: Vec<KeyPart>,
}
