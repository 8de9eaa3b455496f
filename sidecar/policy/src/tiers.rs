//! The three adaptive tiers: requests per second, GPU memory, latency.

use std::time::Duration;

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
    /// Whether the level from which the fused pressure slows requests down calibrates itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub self_calibration: bool,
}

/// Hysteresis of every tier: it recovers after its value stayed below `below_ratio` × threshold for `hold`, and
/// then lets low priority back in over `ramp`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recovery {
    /// Share of the threshold below which a value counts as recovered.
    pub below_ratio: Ratio,
    /// How long it has to stay there.
    pub hold_millis: Millis,
    /// How long low priority is let back in by degrees, from a trickle on; all at once where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp_millis: Option<Millis>,
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
    /// The learned ceiling is never below so many requests in one sample.
    #[serde(default)]
    pub minimum_requests: u32,
    /// Most by which the learned ceiling grows within an hour, once a whole window was learned, as a share of
    /// itself; nor does it fall faster. No bound where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth_per_hour: Option<Ratio>,
    /// The moving average of pods like this one: the ceiling of a new pod follows from it until it has learned its
    /// own. A later document without it takes nothing away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Rate>,
}

/// Trips when the memory of the pod's GPUs runs out: by what NVML says, by the use of the engine's KV cache, or by
/// both. At least one ceiling is set for each source.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GpuMemoryTier {
    /// Who is asked.
    #[serde(default)]
    pub source: MemorySource,
    /// Share of the memory of the fullest of the pod's GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_utilization: Option<Ratio>,
    /// Bytes used on the fullest of the pod's GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// Learns how much an engine reserves when it starts. Growth above that is what counts then: `max_utilization`
    /// holds only where it is higher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plateau: Option<Plateau>,
    /// The ceiling of the engine's KV cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_cache: Option<KvCache>,
    /// Age at which a reading counts as stale.
    pub stale_after_millis: Millis,
    /// What the tier does while its reading is stale.
    pub on_stale: OnStale,
}

impl GpuMemoryTier {
    /// NVML is read so often. What is stale sooner is stale between two readings.
    pub const READ_EVERY: Duration = Duration::from_secs(2);
}

/// Who says how full the memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum MemorySource {
    /// The driver of the GPUs.
    #[default]
    Nvml,
    /// The inference engine.
    KvCache,
    /// The engine's KV cache, with the requests that wait for room in it, and NVML as the guard against running
    /// out of memory; NVML alone while the engine says nothing.
    Auto,
}

/// What an engine reserves when it starts and never gives back.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plateau {
    /// How long the use has to stay the same, to 1 % of the memory, to be taken for the plateau.
    pub stable_millis: Millis,
    /// Share of the memory above the plateau that may be used.
    pub growth: Ratio,
}

/// The ceiling of the engine's KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KvCache {
    /// Share of the cache that may be in use.
    pub max_usage: Ratio,
    /// Age at which a reading counts as stale.
    pub stale_after_millis: Millis,
    /// What the tier does while its reading is stale. With `Auto` NVML goes on.
    pub on_stale: OnStale,
}

impl KvCache {
    /// The engine is read so often. What is stale sooner is stale between two readings.
    pub const READ_EVERY: Duration = Duration::from_secs(1);
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
