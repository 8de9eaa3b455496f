//! Limits by key.

use serde::{Deserialize, Serialize};

use crate::{HeaderName, Millis, Mode};

/// One rule. Rules of several policies add up; the most restrictive decides and is named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    /// The policy it comes from, as `namespace/name`.
    pub policy: String,
    /// The rule's name within its policy. Policy and name are the rule's identity: its counters survive a change
    /// of everything else but the algorithm and the key.
    pub name: String,
    /// Enforce or Shadow.
    pub mode: Mode,
    /// What requests are counted by. Empty: all requests of the pod count together.
    pub key: Vec<KeyPart>,
    /// How they are counted.
    pub algorithm: Algorithm,
    /// Requests per window, at least one.
    pub limit: u64,
    /// The window.
    pub window_millis: Millis,
}

/// One part of a key. A part that a request lacks counts as empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum KeyPart {
    /// The value of a header.
    Header(HeaderName),
    /// The path of the request, without its query.
    Path,
    /// The address of the client's end of the connection.
    ClientIp,
}

/// How a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Algorithm {
    /// Refills evenly at limit ÷ window; `burst` requests may come at once.
    TokenBucket {
        /// Size of the bucket, at least one.
        burst: u64,
    },
    /// At most `limit` requests in any trailing window, counted in a ring of sub-windows.
    SlidingWindow {
        /// Number of sub-windows, 1 to 60.
        #[serde(rename = "subWindows")]
        sub_windows: u32,
    },
}
