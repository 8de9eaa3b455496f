//! The three adaptive tiers: requests per second, GPU memory, latency.

use serde::{Deserialize, Serialize};

use crate::{Factor, Millis, Mode, Rate, Ratio};

/// The tiers of one `RateLimitPolicy`, taken whole. A tier that is absent is off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tiers {
    /// The policy these tiers come from, as `namespace/name`.
    pub policy: String,
    /// Enforce or Shadow.
    pub mode: Mode,
    /// Requests per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qps: Option<QpsTier>,
    /// Memory of the pod's own GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory: Option<GpuMemoryTier>,
    /// Latency percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyTier>,
    /// When a tripped tier recovers.
    pub recovery: Recovery,
}

/// Hysteresis of every tier: it recovers after its value stayed below `below_ratio` × threshold for `hold`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recovery {
    /// Share of the threshold below which a value counts as recovered.
    pub below_ratio: Ratio,
    /// How long it has to stay there.
    pub hold_millis: Millis,
}

/// Trips when the requests offered in one sample interval exceed the ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QpsTier {
    /// Length of one sample.
    pub sample_interval_millis: Millis,
    /// Length of history that the learned ceiling looks at; at least two samples.
    pub window_millis: Millis,
    /// The learned ceiling: (moving average + sigma × standard deviation) × factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned: Option<LearnedQps>,
    /// The static cap, in force from the first request on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Rate>,
}

/// Parameters of the learned ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LearnedQps {
    /// Standard deviations above the moving average.
    pub sigma: Factor,
    /// Multiplier of the sum.
    pub factor: Factor,
    /// The learned ceiling is never below this rate.
    pub floor: Rate,
    /// Samples needed before the learned ceiling holds; until then the tier is `Learning`.
    pub minimum_samples: u32,
}

/// Trips when the pod's GPUs use more than a share or an amount of memory. At least one of both is set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GpuMemoryTier {
    /// Share of the memory of all the pod's GPUs together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_utilization: Option<Ratio>,
    /// Bytes used on all the pod's GPUs together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// Age at which a reading counts as stale.
    pub stale_after_millis: Millis,
    /// What the tier does while its reading is stale.
    pub on_stale: OnStale,
}

/// What a tier does while its signal is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum OnStale {
    /// The tier is as if it were off.
    #[default]
    Ignore,
    /// The last reading stays in force.
    HoldLast,
    /// The tier trips.
    Trip,
}

/// Trips after `periods` consecutive periods whose percentile lies above the ceiling. At least one of `learned`
/// and `max_millis` is set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LatencyTier {
    /// What is measured.
    pub signal: LatencySignal,
    /// The percentile as a share, 0.99 for P99.
    pub percentile: Ratio,
    /// Length of one period.
    pub period_millis: Millis,
    /// Consecutive bad periods that trip the tier; at least one.
    pub periods: u32,
    /// A period with fewer samples gives no verdict.
    pub minimum_samples: u32,
    /// The learned ceiling: factor × mean of the percentiles of past untripped periods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned: Option<LearnedLatency>,
    /// The absolute ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_millis: Option<Millis>,
}

/// Parameters of the learned latency ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LearnedLatency {
    /// Multiplier of the mean.
    pub factor: Factor,
    /// Untripped periods needed before the learned ceiling holds; at least one.
    pub minimum_periods: u32,
}

/// The latency that a tier looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum LatencySignal {
    /// From the request's head to the end of the response.
    TotalLatency,
    /// From the request's head to the first byte of the response's body.
    #[default]
    TimeToFirstToken,
    /// Mean time between the events of a streamed response.
    TimePerOutputToken,
}
