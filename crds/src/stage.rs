//! Breakers over the stages of an engine's pipeline.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Decimal, Duration, defaults};

/// Stops the pod while a stage of its engine's pipeline is slow or runs out of memory. A stage of which nothing is heard
/// lets everything pass, and its state is `NoSignal`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.latency) || has(self.outOfMemory)").message(StageBreaker::NOTHING))]
pub struct StageBreaker {
    /// Which one. The times of `queue`, `prefill` and `decode` are read from the metrics of the engine; those of any
    /// name come in the `Server-Timing` header or trailer of its answers.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9][-_.a-z0-9]*$')").message(StageBreaker::NAME))]
    pub name: String,
    /// A percentile of its times. `{}` takes all defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<StageLatency>,
    /// How often the engine ran out of memory, as its answers say. `{}` takes all defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_of_memory: Option<OutOfMemory>,
}

impl StageBreaker {
    /// What is said about a stage that nothing opens.
    pub const NOTHING: &str =
        "nothing opens the breaker of this stage: write latency: {}, outOfMemory: {} or both";
    /// What is said about a text that is no name.
    pub const NAME: &str = "not the name of a stage: write lower-case letters, digits, '-', '_' and '.', such as prefill or attention";
}

/// A percentile of the times of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StageLatency {
    /// The percentile, such as `99` or `"99.9"`; below 100.
    #[serde(default = "defaults::stage_percentile")]
    pub percentile: Decimal,
    /// The breaker of the stage opens when the percentile of its times is above this.
    #[serde(default = "defaults::trip_latency")]
    pub above: Duration,
    /// The trailing window.
    #[serde(default = "defaults::stage_window")]
    pub window: Duration,
    /// Fewer times in the window give no verdict.
    #[serde(default = "defaults::minimum_requests")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub minimum_requests: i32,
}

impl Default for StageLatency {
    fn default() -> Self {
        Self {
            percentile: defaults::stage_percentile(),
            above: defaults::trip_latency(),
            window: defaults::stage_window(),
            minimum_requests: defaults::minimum_requests(),
        }
    }
}

/// How often an engine may run out of memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutOfMemory {
    /// The breaker of the stage opens when it ran out of memory so often in the window.
    #[serde(default = "defaults::out_of_memory_count")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub count: i32,
    /// The trailing window.
    #[serde(default = "defaults::out_of_memory_window")]
    pub window: Duration,
}
