//! Limits by key.

use serde::{Deserialize, Serialize};

use crate::{HeaderName, Millis, Mode, Weight};

/// One rule. Rules of several policies add up; the most restrictive decides and is named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    /// The policy it comes from, as `namespace/name`.
    pub policy: String,
    /// The rule's name within its policy. Policy and name are the rule's identity: its counters survive a change
    /// of everything else but the key, the algorithm and what is counted.
    pub name: String,
    /// Enforce or Shadow.
    pub mode: Mode,
    /// What requests are counted by. Empty: all requests of the pod count together.
    pub key: Vec<KeyPart>,
    /// How they are counted.
    pub algorithm: Algorithm,
    /// What may count in one window, or, of `Concurrency`, at once: requests, or what they cost. At least one.
    pub limit: u64,
    /// The window. `Concurrency` has none; every other algorithm needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_millis: Option<Millis>,
    /// What a request counts.
    #[serde(default, skip_serializing_if = "Cost::is_requests")]
    pub cost: Cost,
}

/// One part of a key. A part that a request lacks counts as empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum KeyPart {
    /// The value of a header.
    Header(HeaderName),
    /// A claim of the request's verified token.
    JwtClaim(String),
    /// The path of the request, without its query.
    Path,
    /// The method of the request.
    Method,
    /// The address of the client's end of the connection.
    ClientIp,
}

/// How a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Algorithm {
    /// Refills evenly at limit ÷ window; `burst` may come at once.
    TokenBucket {
        /// Size of the bucket, at least one.
        burst: u64,
        /// What is in every bucket when the rule comes into force, at most `burst`; all of it when absent. An engine
        /// that has just started then meets a burst that grows with the rate.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initial: Option<u64>,
    },
    /// At most `limit` in any trailing window, counted in a ring of sub-windows: what is counted stays for up to one
    /// sub-window longer than the window.
    SlidingWindow {
        /// Number of sub-windows, 1 to 60.
        sub_windows: u32,
    },
    /// At most `limit` in any trailing window, by a log that has the instant of each: exact, and 8 bytes of memory
    /// for each of `limit` and key.
    SlidingLog,
    /// At most `limit` in each window; windows follow one another, so around a border between two of them up to
    /// twice as much passes in a shorter time.
    FixedWindow,
    /// Leaks evenly at limit ÷ window and holds up to `burst`.
    LeakyBucket {
        /// Size of the bucket, at least one.
        burst: u64,
        /// Policing when absent: what the bucket holds has passed already. Else pacing: requests leave the bucket one
        /// after another, each waits for its turn, and one that would wait longer is refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_wait_millis: Option<Millis>,
    },
    /// At most `limit` in flight.
    Concurrency,
}

/// What a request counts. Tokens are estimated when a request is admitted; when it has ended, what it used instead is
/// settled: more becomes debt, less is given back.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Cost {
    /// One.
    #[default]
    Requests,
    /// The tokens of its prompt.
    PromptTokens,
    /// The tokens of its prompt and of its answer.
    TotalTokens,
    /// Tokens, weighted by what they cost the engine.
    Tokens(TokenWeights),
}

/// What one token of each kind counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenWeights {
    /// A token of the prompt that the engine has to compute.
    pub input: Weight,
    /// A token of the prompt that the engine has in its cache.
    pub cached: Weight,
    /// A token of the answer.
    pub output: Weight,
}

impl Limit {
    /// Largest limit of an exact log.
    pub const MOST_LOGGED: u64 = 10_000;
}

impl Cost {
    /// Whether every request counts one.
    pub const fn is_requests(&self) -> bool {
        matches!(self, Self::Requests)
    }
}
