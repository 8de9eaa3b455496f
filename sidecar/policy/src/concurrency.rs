//! The limit of requests in flight, which adapts itself, and the queue in front of it.

use serde::{Deserialize, Serialize};

use crate::{Factor, KeyPart, LatencySignal, Millis, Mode, Ratio};

/// How many requests may be in flight at once. High priority has a share of it for itself, at least one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Concurrency {
    /// The policy it comes from, as `namespace/name`.
    pub policy: String,
    /// Enforce or Shadow.
    pub mode: Mode,
    /// How the limit moves.
    #[serde(default)]
    pub algorithm: ConcurrencyAlgorithm,
    /// The limit in the beginning.
    #[serde(default = "default_initial")]
    pub initial: u32,
    /// The limit is never below it; at least 2, one for high and one for all.
    #[serde(default = "default_min")]
    pub min: u32,
    /// The limit is never above it.
    #[serde(default = "default_max")]
    pub max: u32,
    /// The latency that the algorithm looks at.
    #[serde(default)]
    pub latency: LatencySignal,
}

fn default_initial() -> u32 {
    20
}

fn default_min() -> u32 {
    4
}

fn default_max() -> u32 {
    1000
}

impl Concurrency {
    /// The limit in force where a policy asks for a queue and says nothing about what it waits for.
    pub fn default_of(policy: &str, mode: Mode) -> Self {
        Self {
            policy: policy.to_owned(),
            mode,
            algorithm: ConcurrencyAlgorithm::default(),
            initial: default_initial(),
            min: default_min(),
            max: default_max(),
            latency: LatencySignal::default(),
        }
    }
}

/// How a limit of requests in flight moves. A parameter that is absent has the value that its description gives.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum ConcurrencyAlgorithm {
    /// Keeps waiting out of the engine: follows its KV-cache use, its running and waiting requests and preemptions
    /// where it tells them, and always the time to first token that the requests in flight are headed for.
    Adaptive {
        /// The time to first token to stay below. Absent: `tolerance` times what is learned without load.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target_millis: Option<Millis>,
        /// Multiple of the learned time to first token that is tolerated; 3.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tolerance: Option<Factor>,
        /// Share of the KV cache that is filled at most; 0.9.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kv_cache: Option<Ratio>,
    },
    /// Gradient2 of Netflix' concurrency-limits: the long average of the latency divided by the short one.
    Gradient2 {
        /// Multiple of the long average that is no queueing yet; 1.5.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tolerance: Option<Factor>,
        /// Weight of a new limit; 0.2.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        smoothing: Option<Ratio>,
        /// Requests that may wait in the engine; 4.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        headroom: Option<u32>,
    },
    /// Additive increase, multiplicative decrease.
    Aimd {
        /// What is left of the limit when the latency is over the timeout, or a request was dropped; 0.9.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        backoff: Option<Ratio>,
        /// The mean latency that counts as a drop; 5 s.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_millis: Option<Millis>,
    },
    /// `initial`, always.
    Static,
}

impl ConcurrencyAlgorithm {
    /// As in status and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Adaptive { .. } => "adaptive",
            Self::Gradient2 { .. } => "gradient2",
            Self::Aimd { .. } => "aimd",
            Self::Static => "static",
        }
    }
}

impl Default for ConcurrencyAlgorithm {
    fn default() -> Self {
        Self::Adaptive { target_millis: None, tolerance: None, kv_cache: None }
    }
}

/// Where requests wait that find no place in flight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Queue {
    /// The policy it comes from, as `namespace/name`.
    pub policy: String,
    /// Enforce or Shadow: then nothing waits.
    pub mode: Mode,
    /// Requests that may wait.
    pub max_length: u32,
    /// How long one may wait.
    pub timeout_millis: Millis,
    /// Who shares the queue evenly with others of the same class: requests with an equal key are one tenant's. All
    /// requests are one tenant's when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenant: Vec<KeyPart>,
}
