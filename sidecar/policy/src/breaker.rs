//! The circuit breaker.

use serde::{Deserialize, Serialize};

use crate::{Millis, Mode, Ratio, RelativePath};

/// The breaker of a pod, taken whole from one `CircuitBreakerPolicy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Breaker {
    /// The policy it comes from, as `namespace/name`.
    pub policy: String,
    /// Enforce or Shadow.
    pub mode: Mode,
    /// What opens it; any one is enough, and at least one is set.
    pub trip: Trip,
    /// How long it stays open before it lets probes through.
    pub open_millis: Millis,
    /// What closes it again.
    pub half_open: HalfOpen,
    /// Time until the head of the response; later is a failure, answered with 504.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_millis: Option<Millis>,
    /// What answers while it is open; 503 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
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
}

/// Trips at `count` failures without a success between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsecutiveFailures {
    /// At least one.
    pub count: u32,
}

/// Trips when failures ÷ calls reaches `threshold`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorRatio {
    /// The share.
    pub threshold: Ratio,
    /// The trailing window.
    pub window_millis: Millis,
    /// Fewer calls give no verdict.
    pub minimum_requests: u32,
}

/// Trips when slow calls ÷ calls reaches `threshold`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlowCallRatio {
    /// The share.
    pub threshold: Ratio,
    /// A call is slow when its response head takes longer.
    pub slower_than_millis: Millis,
    /// The trailing window.
    pub window_millis: Millis,
    /// Fewer calls give no verdict.
    pub minimum_requests: u32,
}

/// How an open breaker is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HalfOpen {
    /// Requests let through at a time, 1 to 1000; when so many succeeded it closes, one failure reopens it.
    pub probes: u32,
}

/// What answers in place of the engine's own endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Fallback {
    /// The same request to another path of the same engine, once, outside the breaker.
    Path(RelativePath),
}
