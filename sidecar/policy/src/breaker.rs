//! The circuit breaker.

use serde::{Deserialize, Serialize};

use crate::{
    AnswerCache, Fallback, FallbackOn, FallbackPath, Fallbacks, Hook, KeyPart, Millis, Mode, Ratio, Stage,
    StatusMatch,
};

/// The breaker of a pod, taken whole from one `CircuitBreakerPolicy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Breaker {
    /// The policy it comes from, as `namespace/name`.
    pub policy: String,
    /// Enforce or Shadow.
    pub mode: Mode,
    /// What opens it; any one is enough. At least one is set, here or as a stage.
    #[serde(default)]
    pub trip: Trip,
    /// Statuses that are failures; `5xx` when absent. A broken connection and a timeout are failures always.
    #[serde(default = "default_failures", skip_serializing_if = "is_default_failures")]
    pub failure_statuses: Vec<StatusMatch>,
    /// Statuses by which the engine says that it is busy, not broken: neither failure nor success. 429 and 503
    /// when absent.
    #[serde(default = "default_backpressure", skip_serializing_if = "is_default_backpressure")]
    pub backpressure_statuses: Vec<StatusMatch>,
    /// One breaker for each value of a key instead of one for the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<Per>,
    /// Breakers over what the engine tells of its stages, at most one for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageBreaker>,
    /// How long it stays open before it lets probes through.
    pub open_millis: Millis,
    /// What closes it again.
    pub half_open: HalfOpen,
    /// Longest time of a plain answer, and until the first byte of a stream; what takes longer is a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_millis: Option<Millis>,
    /// Time limits by what is waited for; they go before `timeout_millis`.
    #[serde(default, skip_serializing_if = "Timeouts::is_none")]
    pub timeouts: Timeouts,
    /// What answers while it is open; 503 when absent. Short for `fallbacks` with this one and `on` open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackPath>,
    /// What answers in place of the engine, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallbacks: Option<Fallbacks>,
    /// Who is told of its changes, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
}

impl Breaker {
    /// Whether something else answers while it is open.
    pub fn falls_back_when_open(&self) -> bool {
        self.falls_back_on(FallbackOn::Open)
    }

    /// Whether something else answers then.
    pub fn falls_back_on(&self, on: FallbackOn) -> bool {
        let listed = self.fallbacks.as_ref().is_some_and(|fallbacks| fallbacks.on.contains(&on));
        listed || (self.fallback.is_some() && on == FallbackOn::Open)
    }

    /// The same, where its decisions are carried out.
    pub fn obeys_on(&self, on: FallbackOn) -> bool {
        self.is_enforced() && self.falls_back_on(on)
    }

    /// What answers then, in the order in which it is tried.
    pub fn fallbacks_on(&self, on: FallbackOn) -> Vec<Fallback> {
        let short = self.fallback.iter().filter(|_| on == FallbackOn::Open);
        let short = short.map(|FallbackPath { path }| Fallback::Path(path.clone()));
        let listed = self.fallbacks.iter().filter(|fallbacks| fallbacks.on.contains(&on));
        short.chain(listed.flat_map(|fallbacks| fallbacks.to.iter().cloned())).collect()
    }

    /// What is kept of answers, where they are a fallback.
    pub fn answer_cache(&self) -> Option<&AnswerCache> {
        self.fallbacks.iter().flat_map(|fallbacks| &fallbacks.to).find_map(|fallback| match fallback {
            Fallback::Cache(cache) => Some(cache),
            _ => None,
        })
    }

    /// Whether its decisions are carried out.
    pub fn is_enforced(&self) -> bool {
        self.mode == Mode::Enforce
    }
}

fn default_failures() -> Vec<StatusMatch> {
    StatusMatch::FAILURES.to_vec()
}

fn default_backpressure() -> Vec<StatusMatch> {
    StatusMatch::BACKPRESSURE.to_vec()
}

fn is_default_failures(statuses: &[StatusMatch]) -> bool {
    statuses == StatusMatch::FAILURES
}

fn is_default_backpressure(statuses: &[StatusMatch]) -> bool {
    statuses == StatusMatch::BACKPRESSURE
}

/// What opens a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trip {
    /// Failures in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<ConsecutiveFailures>,
    /// Share of failures in a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_ratio: Option<ErrorRatio>,
    /// Share of slow calls in a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_call_ratio: Option<SlowCallRatio>,
    /// Latency percentile of a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyPercentile>,
    /// Requests in flight at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<InFlight>,
}

/// Trips at `count` failures without a success between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsecutiveFailures {
    /// 1 to 1000000.
    pub count: u32,
}

/// Trips when failures ÷ calls reaches `threshold`. The window is a time or a number of calls.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorRatio {
    /// The share.
    pub threshold: Ratio,
    /// The trailing window; absent where `window_calls` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_millis: Option<Millis>,
    /// The last so many calls, 1 to 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_calls: Option<u32>,
    /// Fewer calls give no verdict; 1 to 1000000, no more than `window_calls`.
    pub minimum_requests: u32,
}

/// Trips when slow calls ÷ calls reaches `threshold`. The window is a time or a number of calls.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlowCallRatio {
    /// The share.
    pub threshold: Ratio,
    /// A call is slow when the first byte of its response's body takes longer.
    pub slower_than_millis: Millis,
    /// The trailing window; absent where `window_calls` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_millis: Option<Millis>,
    /// The last so many calls, 1 to 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_calls: Option<u32>,
    /// Fewer calls give no verdict; 1 to 1000000, no more than `window_calls`.
    pub minimum_requests: u32,
}

/// Trips when the percentile (nearest rank) of the times until the first byte of the response's body is over
/// `over_millis`. The window is a time or a number of calls.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LatencyPercentile {
    /// The percentile as a share, 0.95 for P95.
    pub percentile: Ratio,
    /// The ceiling.
    pub over_millis: Millis,
    /// The trailing window; absent where `window_calls` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_millis: Option<Millis>,
    /// The last so many calls, 1 to 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_calls: Option<u32>,
    /// Fewer calls give no verdict; 1 to 1000000, no more than `window_calls`.
    pub minimum_requests: u32,
}

/// Trips when a request arrives while `max` are in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InFlight {
    /// 1 to 1000000.
    pub max: u32,
}

/// What tells breakers of one pod apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Per {
    /// The key, 1 to 8 parts. A part that a request lacks counts as empty.
    pub key: Vec<KeyPart>,
    /// The first so many values have breakers of their own, 1 to 256; all others share one.
    pub max: u32,
}

/// Stops the pod while one stage of its pipeline is slow or runs out of memory. At least one of both conditions is
/// set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StageBreaker {
    /// Which one.
    pub stage: Stage,
    /// Trips when the percentile of its times in the window is over this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_millis: Option<Millis>,
    /// The percentile as a share, below 1; 0.99 when absent.
    #[serde(default = "p99")]
    pub percentile: Ratio,
    /// The trailing window; 30 s when absent.
    #[serde(default = "half_a_minute")]
    pub window_millis: Millis,
    /// Fewer times in the window give no verdict, 1 to 1000000; 20 when absent.
    #[serde(default = "twenty")]
    pub minimum_requests: u32,
    /// Trips when the stage ran out of memory too often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_memory: Option<OutOfMemory>,
    /// How long after the last of its times it has no signal; the window when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_after_millis: Option<Millis>,
}

const fn p99() -> Ratio {
    Ratio::P99
}

const fn half_a_minute() -> Millis {
    Millis::HALF_A_MINUTE
}

const fn twenty() -> u32 {
    20
}

/// Trips at `count` events in a trailing window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutOfMemory {
    /// 1 to 1000000.
    pub count: u32,
    /// The trailing window.
    pub window_millis: Millis,
}

/// How long the engine may take. What is absent may take as long as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Timeouts {
    /// Until a connection to the engine stands; 5 s when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_millis: Option<Millis>,
    /// Until the head of an answer, and of a stream also the first byte behind it; `timeout_millis` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_millis: Option<Millis>,
    /// Between two pieces of an answer's body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between_chunks_millis: Option<Millis>,
    /// Until the end of an answer, streams included; for plain ones `timeout_millis` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_millis: Option<Millis>,
}

impl Timeouts {
    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How an open breaker is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HalfOpen {
    /// Requests let through at a time, 1 to 1000; when so many succeeded the ramp begins, one failure reopens it.
    pub probes: u32,
    /// Length of the ramp of 10, 25 and 50 % of the requests, a third of it each, before it closes. It closes at
    /// once when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp_millis: Option<Millis>,
}
