//! What a sidecar tells about itself: in its reports to the operator, and, as [`Status`], to people at
//! `/throttle/status`.

use serde::{Deserialize, Serialize};

use crate::{Mode, Stage};

/// Sent to the operator when the stream opens, when a state changes (at most once a second) and every 10 s.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of the sidecar.
    pub version: String,
    /// Revision of the document in force.
    pub revision: String,
    /// The document that was refused last, when it is newer than the one in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedDocument>,
    /// State of the engine.
    pub status: Status,
}

/// A document that did not validate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedDocument {
    /// Its revision, when it could be read.
    pub revision: String,
    /// Why, in one line.
    pub message: String,
}

/// State of the decision engine at one instant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Revision of the document in force.
    pub revision: String,
    /// The one pressure score, 0 to 1.
    pub pressure: f64,
    /// The level from which the fused pressure slows requests down; only with self-calibration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure_onset: Option<f64>,
    /// Requests in flight.
    pub in_flight: u64,
    /// What the inference engine said last about its own load; absent when it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineLoad>,
    /// The tiers that are configured.
    pub tiers: Vec<TierStatus>,
    /// The limits that are configured.
    pub limits: Vec<LimitStatus>,
    /// The breaker, when one is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerStatus>,
    /// The limit of requests in flight, when one is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<ConcurrencyStatus>,
    /// The queue, when one is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueStatus>,
}

/// State of the limit of requests in flight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConcurrencyStatus {
    /// The policy it comes from.
    pub policy: String,
    /// Enforce or Shadow.
    pub mode: Mode,
    /// `adaptive`, `gradient2`, `aimd` or `static`.
    pub algorithm: String,
    /// Requests that may be in flight, the reserve included.
    pub limit: u64,
    /// Of those only high priority may use so many.
    pub reserve: u64,
    /// Medium priority may bring the common share up to so many under the present pressure.
    pub medium: u64,
    /// Low priority up to so many; 0 while a tier sheds or high finds no place.
    pub low: u64,
    /// Requests that hold a place.
    pub in_flight: u64,
    /// Requests that found none, since it is in force.
    pub refused: u64,
}

/// State of the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// The policy it comes from.
    pub policy: String,
    /// Enforce or Shadow.
    pub mode: Mode,
    /// Requests that may wait.
    pub max_length: u64,
    /// Requests that wait.
    pub length: u64,
    /// How long the first of them has waited.
    pub oldest_millis: u64,
    /// Requests that waited, and how they ended, since the pod started.
    pub admitted: u64,
    /// Their time was over.
    pub timed_out: u64,
    /// They made room for a higher class, or their class is refused.
    pub evicted: u64,
    /// Requests that found the queue full.
    pub refused: u64,
}

/// What the inference engine says about its own load. A number that this kind of engine does not tell is absent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EngineLoad {
    /// Share of the KV cache in use, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_cache_usage: Option<f64>,
    /// Requests in the running batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<u64>,
    /// Requests that wait for a place in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u64>,
    /// Requests preempted since the engine started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemptions: Option<u64>,
    /// Age of the reading.
    pub age_millis: u64,
}

/// One of the three tiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TierName {
    /// Requests per second.
    Qps,
    /// GPU memory.
    GpuMemory,
    /// Latency percentile.
    Latency,
}

impl TierName {
    /// As in metrics and headers: `qps`, `gpu-memory`, `latency`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Qps => "qps",
            Self::GpuMemory => "gpu-memory",
            Self::Latency => "latency",
        }
    }
}

/// State of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum TierState {
    /// Not enough history for the learned ceiling; a static one holds.
    #[default]
    Learning,
    /// Below its ceiling.
    Normal,
    /// Over its ceiling.
    Tripped,
    /// Below its ceiling again: acts as tripped for the hold time, then lets low priority in by degrees.
    Recovering,
    /// Its signal is too old or missing; `onStale` says what the tier does.
    Stale,
    /// The last period had too few samples for a verdict.
    NoData,
}

impl TierState {
    /// As in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Learning => "learning",
            Self::Normal => "normal",
            Self::Tripped => "tripped",
            Self::Recovering => "recovering",
            Self::Stale => "stale",
            Self::NoData => "no-data",
        }
    }

    /// Every state, for metrics that export one series each.
    pub const ALL: [Self; 6] =
        [Self::Learning, Self::Normal, Self::Tripped, Self::Recovering, Self::Stale, Self::NoData];
}

/// All that is known about a tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TierStatus {
    /// Which one.
    pub tier: TierName,
    /// The policy it comes from.
    pub policy: String,
    /// Enforce or Shadow.
    pub mode: Mode,
    /// Its state.
    pub state: TierState,
    /// Whether low priority is refused because of it, as it is while tripped and recovering, or stale with
    /// `onStale: Trip`.
    pub shedding: bool,
    /// Current value: requests/s, bytes, or milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// The ceiling in force, in the unit of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// `requests/s`, `bytes` or `ms`.
    pub unit: String,
    /// Its own pressure, 0 to 1.
    pub pressure: f64,
    /// Its weight in the fusion of all pressures; the weights of all tiers add up to 1.
    #[serde(default)]
    pub weight: f64,
    /// What it has learned to be normal, in the unit of the value: the moving average of successes, the mean of
    /// past percentiles, the plateau of GPU memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<f64>,
    /// Why it tripped last, such as `412.0 requests/s over the ceiling of 400.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_trigger_reason: Option<String>,
    /// Milliseconds since it tripped last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_triggered_millis_ago: Option<u64>,
    /// Milliseconds of calm still needed to recover; only while tripped or recovering.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_countdown_millis: Option<u64>,
    /// Age of the signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal_age_millis: Option<u64>,
    /// Why the signal is stale, such as `the pod has no GPU`; only while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_reason: Option<String>,
    /// Each signal of a tier that has several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<SignalStatus>,
    /// Estimates of the latency's 95th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<LatencyEstimate>,
    /// Requests in flight that are older than the ceiling of latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overdue: Option<u64>,
}

/// One of the signals of a tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignalStatus {
    /// `nvml` or `kv-cache`.
    pub name: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// The ceiling in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// `bytes` or `ratio`.
    pub unit: String,
    /// Age of the last reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_millis: Option<u64>,
    /// Why it is stale; only while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_reason: Option<String>,
}

/// The 95th percentile of latency in milliseconds, from the last minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencyEstimate {
    /// Exact, over a window of 10 s slices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_millis: Option<f64>,
    /// The moving average of the percentile of each second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_average_millis: Option<f64>,
    /// The window, moved to the moving average by as much of the difference as chance does not explain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hybrid_millis: Option<f64>,
}

/// State of one limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitStatus {
    /// The policy it comes from.
    pub policy: String,
    /// The rule's name.
    pub name: String,
    /// Enforce or Shadow.
    pub mode: Mode,
    /// Keys that are remembered.
    pub keys: u64,
    /// Requests it refused since it is in force.
    pub refused: u64,
    /// What may count at once for one key: the bucket's size, the window's limit or the permits.
    #[serde(default)]
    pub size: u64,
    /// How much of that is left; only where all requests of the pod count together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
}

/// State of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum BreakerState {
    /// Requests pass.
    #[default]
    Closed,
    /// Requests are refused or go to the fallback.
    Open,
    /// A few probes pass.
    HalfOpen,
}

impl BreakerState {
    /// As in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }

    /// Every state, for metrics that export one series each.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];
}

/// All that is known about a breaker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BreakerStatus {
    /// The policy it comes from.
    pub policy: String,
    /// Enforce or Shadow.
    pub mode: Mode,
    /// Its state.
    pub state: BreakerState,
    /// Share of failures among the calls of the error-ratio window, when that is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_ratio: Option<f64>,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// Why it opened last, such as `5xx_rate_85%_in_30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_trigger_reason: Option<String>,
    /// Milliseconds until it half-opens; only while open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_open_in_millis: Option<u64>,
    /// Transitions since it is in force, by from and to.
    pub transitions: Vec<Transition>,
    /// Where each value of a key has a breaker of its own. Then the state above is that of the one that lets least
    /// pass, and the transitions are those of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<BreakerGroups>,
    /// The breakers of stages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageStatus>,
}

/// How many breakers there are of values of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BreakerGroups {
    /// Values with a breaker of their own.
    pub tracked: u64,
    /// Open ones, that of all other values included.
    pub open: u64,
    /// Half-open ones, likewise.
    pub half_open: u64,
}

/// State of the breaker of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageStatus {
    /// Which one.
    pub stage: Stage,
    /// Its state.
    pub state: StageState,
    /// Why it opened last, such as `attention_p99_over_800ms_by_12%_in_30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_trigger_reason: Option<String>,
    /// Since one of its times was last heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal_age_millis: Option<u64>,
    /// Share of its times in the window that are over the threshold, where it has one and there are times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_ratio: Option<f64>,
    /// How often it ran out of memory in the window, where that is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_memory: Option<u64>,
}

/// State of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StageState {
    /// Nobody tells its times, or has lately: requests pass.
    NoSignal,
    /// Requests pass.
    Closed,
    /// No request passes.
    Open,
    /// Some requests pass.
    HalfOpen,
}

impl StageState {
    /// As in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSignal => "no-signal",
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }

    /// Every state, for metrics that export one series each.
    pub const ALL: [Self; 4] = [Self::NoSignal, Self::Closed, Self::Open, Self::HalfOpen];
}

/// How often a breaker went from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// From this state
    pub from: BreakerState,
    /// to that one,
    pub to: BreakerState,
    /// so often.
    pub count: u64,
}
