//! Limits by key.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Decimal, Duration, HeaderName, When};

/// One limit: so many requests per window, or in flight, for each value of the key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.window) != (self.algorithm == 'Concurrency')").message(Limit::WINDOW))]
#[x_kube(validation = Rule::new(
    "!has(self.burst) || self.algorithm == 'TokenBucket' || self.algorithm == 'LeakyBucket'"
).message(Limit::BURST))]
#[x_kube(validation = Rule::new("!has(self.initial) || self.algorithm == 'TokenBucket'").message(Limit::INITIAL))]
#[x_kube(validation = Rule::new(
    "!has(self.initial) || self.initial <= (has(self.burst) ? self.burst : self.limit)"
).message(Limit::TOO_FULL))]
#[x_kube(validation = Rule::new("!has(self.maxWait) || self.algorithm == 'LeakyBucket'").message(Limit::MAX_WAIT))]
#[x_kube(validation = Rule::new("self.algorithm != 'SlidingLog' || self.limit <= 10000").message(Limit::LOG))]
#[x_kube(validation = Rule::new(
    "!has(self.subWindows) || self.algorithm == 'SlidingWindow'"
).message(Limit::SUB_WINDOWS))]
#[x_kube(validation = Rule::new("has(self.weights) == (self.cost == 'WeightedTokens')").message(Limit::WEIGHTS))]
#[x_kube(validation = Rule::new("!has(self.onExhausted) || self.cost != 'Requests'").message(Limit::ON_EXHAUSTED))]
#[x_kube(validation = Rule::new("self.cost == 'Requests' || self.algorithm != 'SlidingLog'").message(Limit::LOGGED_TOKENS))]
pub struct Limit {
    /// Name of the rule, as it appears in refusals, metrics and status. Its counters survive a change of its numbers.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message(Limit::NAME))]
    pub name: String,
    /// What requests are counted by; several parts are combined. Without a key all requests of a pod count together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub key: Vec<KeyPart>,
    /// The requests that it is for: those of which all of this holds. Without it every request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub when: Vec<When>,
    /// How they are counted.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// What a request counts. Tokens are estimated before a request and settled with what the engine says it used.
    #[serde(default)]
    pub cost: Cost,
    /// Only for `WeightedTokens`: what one token of each kind counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<TokenWeights>,
    /// Only where tokens count: what becomes of a stream when they run out before it ends; `EndStream` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_exhausted: Option<OnExhausted>,
    /// Requests, or tokens, per window; of `Concurrency` in flight.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub limit: i64,
    /// The window. Every algorithm but `Concurrency` has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    /// Only for `TokenBucket` and `LeakyBucket`: what the bucket holds, so how many requests may come at once; `limit`
    /// when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst: Option<i64>,
    /// Only for `TokenBucket`: what is in each bucket when the sidecar starts; `burst` when left out. From there it fills
    /// at the rate of the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub initial: Option<i64>,
    /// Only for `LeakyBucket`: requests leave the bucket one after another at the rate of the limit, and one that would
    /// wait longer than this is refused. When left out nobody waits, and what the bucket cannot hold is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_wait: Option<Duration>,
    /// Only for `SlidingWindow`: the number of slots the window moves by; 10 when left out, 6 of very high limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 60))]
    pub sub_windows: Option<i32>,
    /// Values of the key that are counted each for itself, rounded up to a multiple of eight; all others share
    /// one count. 74880 when left out, of `SlidingLog` 1152. A `SlidingLog` takes 8 bytes for each of them and of
    /// `limit`, and all that a pod's limits ask for here may take 64 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_000_000))]
    pub max_keys: Option<i32>,
}

impl Limit {
    /// What is said about a name that could not stand in a header or a label.
    pub const NAME: &str = "not a name: write lower-case letters, digits and '-', such as per-user";
    /// What is said about a burst where there is no bucket.
    pub const BURST: &str =
        "burst is the size of a bucket: write algorithm: TokenBucket or LeakyBucket, or leave burst out";
    /// What is said about a window that is missing, or that cannot be.
    pub const WINDOW: &str =
        "requests are counted by window, but for those in flight: write window, or, for Concurrency, none";
    /// What is said about a fill where there is no bucket of tokens.
    pub const INITIAL: &str =
        "initial is what a token bucket begins with: write algorithm: TokenBucket, or leave initial out";
    /// What is said about a fill that does not fit.
    pub const TOO_FULL: &str =
        "initial does not fit the bucket: write at most burst, or limit where burst is left out";
    /// What is said about waiting where nobody waits.
    pub const MAX_WAIT: &str =
        "maxWait is for requests that queue: write algorithm: LeakyBucket, or leave maxWait out";
    /// What is said about a log that is too long.
    pub const LOG: &str =
        "too much for an exact log: write a limit of at most 10000, or algorithm: SlidingWindow";
    /// What is said about weights that are missing, or that nothing is weighed by.
    pub const WEIGHTS: &str =
        "weights are for cost: WeightedTokens: write both, such as weights: {output: 4}, or neither";
    /// What is said about tokens that run out where none are counted.
    pub const ON_EXHAUSTED: &str =
        "onExhausted is for limits of tokens: write cost: TotalTokens, or leave onExhausted out";
    /// What is said about an exact log of tokens.
    pub const LOGGED_TOKENS: &str = "an exact log counts requests: write algorithm: SlidingWindow for tokens";
    /// What is said about sub-windows where there is no window.
    pub const SUB_WINDOWS: &str =
        "subWindows divide a sliding window: write algorithm: SlidingWindow, or leave subWindows out";
}

/// What a request counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Cost {
    /// One.
    #[default]
    Requests,
    /// The tokens of its prompt.
    PromptTokens,
    /// The tokens of its prompt and of its answer.
    TotalTokens,
    /// The same, each kind by its weight.
    WeightedTokens,
}

/// What one token of each kind counts: 0 to 1000.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenWeights {
    /// A token of the prompt that the engine has to compute.
    #[serde(default = "one")]
    pub input: Decimal,
    /// A token of the prompt that the engine has in its cache.
    #[serde(default = "one")]
    pub cached: Decimal,
    /// A token of the answer.
    #[serde(default = "one")]
    pub output: Decimal,
}

fn one() -> Decimal {
    Decimal::Whole(1)
}

/// What becomes of a stream that goes on when the tokens of a limit have run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnExhausted {
    /// It ends, with an error as its client expects one: an error event, or the status of gRPC.
    EndStream,
    /// It goes on, and what is missing becomes debt, which later requests wait for.
    Finish,
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
    pub const EXACTLY_ONE: &str = "a part of a key is one thing: write header: x-api-key, jwtClaim: sub, or source: Path, Method, ClientIP or Model";
}

/// A property of the request other than a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeySource {
    /// The path, without its query.
    Path,
    /// The method.
    Method,
    /// The address of the client's end of the connection.
    ClientIP,
    /// The model that it asks for: of its path (`/v2/models/{model}/...`) or the begin of its body.
    Model,
}

/// How a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// Refills evenly; `burst` requests may come at once.
    #[default]
    TokenBucket,
    /// At most `limit` requests in any trailing window, counted in slots; a request counts for up to one slot longer.
    SlidingWindow,
    /// At most `limit` requests in any trailing window, exactly. For limits of up to 10000.
    SlidingLog,
    /// At most `limit` requests in each window, from the first to the last instant of it.
    FixedWindow,
    /// A bucket that leaks evenly: refuses what it cannot hold, or, with `maxWait`, lets requests out one after another.
    LeakyBucket,
    /// At most `limit` requests in flight.
    Concurrency,
}
