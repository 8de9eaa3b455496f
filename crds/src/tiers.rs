//! The three adaptive tiers.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Bytes, Decimal, Duration, Percentage, defaults};

/// The adaptive tiers. Each one that is written can trip on its own: low priority is then refused and medium
/// slowed down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.qps) || has(self.gpuMemory) || has(self.latency)").message(Tiers::NONE))]
pub struct Tiers {
    /// Trips when more requests arrive per second than a learned ceiling or a static cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qps: Option<QpsTier>,
    /// Trips when the memory of the pod's own GPUs runs out, by NVML's word, by the engine's, or by both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_memory: Option<GpuMemoryTier>,
    /// Trips when a latency percentile stays over a learned or absolute ceiling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyTier>,
    /// When a tripped tier recovers.
    #[serde(default)]
    pub recovery: Recovery,
    /// Whether the level from which the pressure of all tiers together slows requests down follows what is usual
    /// for the pod.
    #[serde(default)]
    pub self_calibration: SelfCalibration,
}

/// Whether something calibrates itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum SelfCalibration {
    /// Every pressure counts.
    #[default]
    Disabled,
    /// Pressure that is usual while nothing trips does not count.
    Enabled,
}

impl Tiers {
    /// What is said about tiers of which none is on.
    pub const NONE: &str = "no tier is on: write qps, gpuMemory, latency or several of them";
}

/// Requests per second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.learned) || has(self.max)").message(QpsTier::NONE))]
#[x_kube(validation = Rule::new(
    "duration(self.window) >= duration(self.sampleInterval) + duration(self.sampleInterval)"
).message(QpsTier::WINDOW).field_path(".window"))]
#[x_kube(validation = Rule::new(
    "!has(self.learned) || !has(self.max) || double(self.learned.floor) < double(self.max)"
).message(QpsTier::FLOOR).field_path(".learned.floor"))]
pub struct QpsTier {
    /// A ceiling learned from the pod's own traffic: (moving average + sigma × standard deviation) × factor.
    /// `{}` takes all defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learned: Option<LearnedQps>,
    /// A static cap in requests per second, in force from the first request on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Decimal>,
    /// Length of one sample.
    #[serde(default = "defaults::sample_interval")]
    pub sample_interval: Duration,
    /// Length of the history that the learned ceiling looks at, 2 to 3600 samples.
    #[serde(default = "defaults::qps_window")]
    pub window: Duration,
}

impl QpsTier {
    /// What is said about a tier without a ceiling.
    pub const NONE: &str =
        "nothing to trip at: write learned: {} for a learned ceiling, max: for a static one, or both";
    /// What is said about a window of fewer than two samples.
    pub const WINDOW: &str = "too short to learn from: write a window of at least twice the sampleInterval";
    /// What is said about a learned ceiling that the static one always undercuts.
    pub const FLOOR: &str = "a learned ceiling is never below its floor, so that it never holds beside a lower max: write a floor \
                             below max, raise max, or leave learned out";
}

/// Parameters of the learned ceiling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LearnedQps {
    /// Standard deviations above the moving average.
    #[serde(default = "defaults::sigma")]
    pub sigma: Decimal,
    /// Multiplier of the sum.
    #[serde(default = "defaults::qps_factor")]
    pub factor: Decimal,
    /// The learned ceiling is never below this many requests per second.
    #[serde(default = "defaults::qps_floor")]
    pub floor: Decimal,
    /// Samples needed before the learned ceiling holds; until then only `max` does.
    #[serde(default = "defaults::qps_minimum_samples")]
    #[schemars(range(min = 2, max = 3600))]
    pub minimum_samples: i32,
    /// The learned ceiling is never below so many requests in one sample.
    #[serde(default = "defaults::qps_minimum_requests")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub minimum_requests: i32,
    /// Most by which the learned ceiling grows within an hour once it has seen a whole window, over 0% and up to
    /// 100%; nor does it fall faster.
    #[serde(default = "defaults::growth_per_hour")]
    pub growth_per_hour: Percentage,
}

/// Memory of the pod's own GPUs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "has(self.maxUtilization) || has(self.maxBytes) || has(self.plateau) || self.source == 'KvCache'"
).message(GpuMemoryTier::NONE))]
#[x_kube(validation = Rule::new(
    "self.source != 'KvCache' || !(has(self.maxUtilization) || has(self.maxBytes) || has(self.plateau))"
).message(GpuMemoryTier::UNASKED))]
#[x_kube(validation = Rule::new(
    "self.source == 'KvCache' || duration(self.staleAfter) >= duration('2s')"
).message(GpuMemoryTier::STALE).field_path(".staleAfter"))]
#[x_kube(validation = Rule::new(
    "self.source == 'Nvml' || duration(self.kvCache.staleAfter) >= duration('1s')"
).message(KvCache::STALE).field_path(".kvCache.staleAfter"))]
pub struct GpuMemoryTier {
    /// Who is asked: `Nvml`, the engine's `KvCache`, or both (`Auto`).
    #[serde(default)]
    pub source: MemorySource,
    /// Share of the memory of the fullest of the pod's GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_utilization: Option<Percentage>,
    /// Amount used on the fullest of the pod's GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<Bytes>,
    /// Learns what the engine reserves when it starts; growth above it counts then, and `maxUtilization` only
    /// where it is higher. `{}` takes all defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plateau: Option<Plateau>,
    /// The ceiling of the engine's KV cache, for the sources `KvCache` and `Auto`.
    #[serde(default)]
    pub kv_cache: KvCache,
    /// Age at which a reading counts as stale, at least 2s, the time between two of them.
    #[serde(default = "defaults::stale_after")]
    pub stale_after: Duration,
    /// What the tier does while its reading is stale or missing.
    #[serde(default)]
    pub on_stale: OnStale,
}

impl GpuMemoryTier {
    /// What is said about a tier without a ceiling.
    pub const NONE: &str =
        "nothing to trip at: write maxUtilization: 75%, maxBytes: 32Gi, plateau: {} or several of them";
    /// What is said about ceilings of memory where NVML is not asked.
    pub const UNASKED: &str = "maxUtilization, maxBytes and plateau are for NVML, which KvCache does not ask: write source: Auto, or \
                               leave them out";
    /// What is said about readings that are stale between two of them.
    pub const STALE: &str = "stale before NVML is read again, every 2 s: write a staleAfter of at least 2s";
    /// What is said about a ceiling of the KV cache where the engine is not asked.
    pub const ENGINE_UNASKED: &str =
        "kvCache is for engines that are asked: write source: KvCache or Auto, or leave kvCache out";
}

/// Who says how full the memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum MemorySource {
    /// The driver of the GPUs.
    #[default]
    Nvml,
    /// The inference engine.
    KvCache,
    /// The engine, with NVML as the guard against running out of memory; NVML alone while the engine says nothing.
    Auto,
}

/// What an engine reserves when it starts and never gives back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plateau {
    /// How long the use has to stay the same, to 1 % of the memory, while requests are served.
    #[serde(default = "defaults::plateau_stable_for")]
    pub stable_for: Duration,
    /// Share of the memory above the plateau that may be used.
    #[serde(default = "defaults::plateau_growth")]
    pub growth: Percentage,
}

/// The ceiling of the engine's KV cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KvCache {
    /// Share of the cache that may be needed, by what is in it, what waits for it and what was admitted since.
    #[serde(default = "defaults::kv_cache_max_usage")]
    pub max_usage: Percentage,
    /// Age at which a reading of the engine counts as stale, at least 1s, the time between two of them.
    #[serde(default = "defaults::kv_cache_stale_after")]
    pub stale_after: Duration,
    /// What the tier does while that reading is stale or missing; with `Auto` NVML goes on.
    #[serde(default)]
    pub on_stale: OnStale,
}

impl KvCache {
    /// What is said about readings that are stale between two of them.
    pub const STALE: &str =
        "stale before the engine is read again, every 1 s: write a kvCache.staleAfter of at least 1s";
}

impl Default for KvCache {
    fn default() -> Self {
        Self {
            max_usage: defaults::kv_cache_max_usage(),
            stale_after: defaults::kv_cache_stale_after(),
            on_stale: OnStale::default(),
        }
    }
}

/// What a tier does while its signal is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum OnStale {
    /// The tier is as if it were off.
    #[default]
    Ignore,
    /// The last reading stays in force.
    HoldLast,
    /// The tier trips.
    Trip,
}

/// A percentile of the latency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.learned) || has(self.max)").message(LatencyTier::NONE))]
pub struct LatencyTier {
    /// What is measured.
    #[serde(default)]
    pub signal: LatencySignal,
    /// Which percentile, over 0 and up to 100.
    #[serde(default = "defaults::percentile")]
    pub percentile: Decimal,
    /// Length of one period.
    #[serde(default = "defaults::period")]
    pub period: Duration,
    /// Consecutive bad periods that trip the tier.
    #[serde(default = "defaults::periods")]
    #[schemars(range(min = 1, max = 100))]
    pub periods: i32,
    /// A period with fewer samples gives no verdict.
    #[serde(default = "defaults::latency_minimum_samples")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub minimum_samples: i32,
    /// A ceiling learned from the pod's own answers: factor × the mean of the percentiles of past untripped
    /// periods. `{}` takes all defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learned: Option<LearnedLatency>,
    /// An absolute ceiling, in force from the first request on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Duration>,
}

impl LatencyTier {
    /// What is said about a tier without a ceiling.
    pub const NONE: &str =
        "nothing to trip at: write learned: {} for a learned ceiling, max: 8s for an absolute one, or both";
}

/// Parameters of the learned latency ceiling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LearnedLatency {
    /// Multiplier of the mean.
    #[serde(default = "defaults::latency_factor")]
    pub factor: Decimal,
    /// Untripped periods needed before the learned ceiling holds; until then only `max` does.
    #[serde(default = "defaults::minimum_periods")]
    #[schemars(range(min = 1, max = 1000))]
    pub minimum_periods: i32,
}

/// The latency that a tier looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum LatencySignal {
    /// From the request's head to the end of the response.
    TotalLatency,
    /// From the request's head to the first byte of the response's body.
    #[default]
    TimeToFirstToken,
    /// Mean time between the events of a streamed response.
    TimePerOutputToken,
}

/// Hysteresis of every tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// Share of the ceiling below which a value counts as recovered.
    #[serde(default = "defaults::recovery_below")]
    pub below: Percentage,
    /// How long the value has to stay there.
    #[serde(default = "defaults::recovery_hold")]
    pub hold: Duration,
    /// How long low priority is let back in after that by degrees, from a trickle on.
    #[serde(default = "defaults::recovery_ramp")]
    pub ramp: Duration,
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            below: defaults::recovery_below(),
            hold: defaults::recovery_hold(),
            ramp: defaults::recovery_ramp(),
        }
    }
}
