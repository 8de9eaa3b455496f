//! Limits by key.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, HeaderName};

/// One limit: so many requests per window for each value of the key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.burst) || self.algorithm == 'TokenBucket'").message(Limit::BURST))]
#[x_kube(validation = Rule::new(
    "!has(self.subWindows) || self.algorithm == 'SlidingWindow'"
).message(Limit::SUB_WINDOWS))]
pub struct Limit {
    /// Name of the rule, as it appears in refusals, metrics and status. Its counters survive a change of its numbers.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message(Limit::NAME))]
    pub name: String,
    /// What requests are counted by; several parts are combined. Without a key all requests of a pod count together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub key: Vec<KeyPart>,
    /// How they are counted.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Requests per window.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub limit: i64,
    /// The window.
    pub window: Duration,
    /// Only for `TokenBucket`: how many requests may come at once; `limit` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst: Option<i64>,
    /// Only for `SlidingWindow`: the number of slots the window moves by; 10 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 60))]
    pub sub_windows: Option<i32>,
}

impl Limit {
    /// What is said about a name that could not stand in a header or a label.
    pub const NAME: &str = "not a name: write lower-case letters, digits and '-', such as per-user";
    /// What is said about a burst where there is no bucket.
    pub const BURST: &str =
        "burst is the size of a token bucket: write algorithm: TokenBucket, or leave burst out";
    /// What is said about sub-windows where there is no window.
    pub const SUB_WINDOWS: &str =
        "subWindows divide a sliding window: write algorithm: SlidingWindow, or leave subWindows out";
}

/// One part of a key. A part that a request lacks counts as empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.header), has(self.jwtClaim), has(self.source)].exists_one(written, written)").message(KeyPart::EXACTLY_ONE))]
pub struct KeyPart {
    /// The value of this header field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderName>,
    /// A claim of a token that `identity` believes; of a list all values together. A name that begins with a slash is
    /// a JSON Pointer into nested claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub jwt_claim: Option<String>,
    /// A property of the request other than a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<KeySource>,
}

impl KeyPart {
    /// What is said about a part that is both or neither.
    pub const EXACTLY_ONE: &str =
        "a part of a key is one thing: write header: x-api-key, jwtClaim: sub, or source: Path or ClientIP";
}

/// A property of the request other than a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeySource {
    /// The path, without its query.
    Path,
    /// The address of the client's end of the connection.
    ClientIP,
}

/// How a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// Refills evenly; `burst` requests may come at once.
    #[default]
    TokenBucket,
    /// At most `limit` requests in any trailing window.
    SlidingWindow,
}
