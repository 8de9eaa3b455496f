//! `CircuitBreakerPolicy`.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    CircuitBreakerPolicyStatus, Decimal, Duration, Fallback, HeaderName, Hook, Mode, Percentage, PodSelector,
    StageBreaker, StatusMatch, TargetRef, defaults,
};

/// Stops sending requests to an engine that fails, and tries it again later. Each pod has a breaker of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "CircuitBreakerPolicy",
    plural = "circuitbreakerpolicies",
    shortname = "cbp",
    category = "tidegate",
    namespaced,
    status = "CircuitBreakerPolicyStatus",
    derive = "PartialEq",
    doc = "A circuit breaker in front of each pod of an inference engine.",
    label("gateway.networking.k8s.io/policy", "direct"),
    annotation("helm.sh/resource-policy", "keep"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].status"
    ),
    printcolumn(name = "Pods", type_ = "string", json_path = ".status.enforced"),
    printcolumn(name = "Open", type_ = "integer", json_path = ".status.breakersOpen"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].reason"
    ),
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".status.ancestors[0].ancestorRef.name",
        priority = "1"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].message",
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "[has(self.targetService), has(self.targetRefs) && size(self.targetRefs) > 0, has(self.selector)].filter(named, named).size() <= 1"
).message(CircuitBreakerPolicySpec::ONE_TARGET))]
#[x_kube(validation = Rule::new("has(self.failureThreshold) || has(self.trip) || (has(self.stages) && size(self.stages) > 0)").message(CircuitBreakerPolicySpec::NOTHING))]
#[x_kube(validation = Rule::new(
    "!has(self.fallback) || !has(self.fallbackEndpoint)"
).message(CircuitBreakerPolicySpec::ONE_FALLBACK))]
#[x_kube(validation = Rule::new(
    "!self.failureStatuses.exists(status, status in self.backpressureStatuses)"
).message(CircuitBreakerPolicySpec::STATUS_IN_BOTH))]
pub struct CircuitBreakerPolicySpec {
    /// Short for the pods behind this Service. Excludes `targetRefs` and `selector`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message(CircuitBreakerPolicySpec::SERVICE))]
    pub target_service: Option<String>,
    /// The objects whose pods the policy acts on. Excludes `selector`; without any of the three it is the default of
    /// its whole namespace. Where several policies act on a pod, the more specific one wins: selector, then
    /// workload, then Service, then namespace; of equals the oldest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub target_refs: Vec<TargetRef>,
    /// The pods the policy acts on, by their labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<PodSelector>,
    /// `Enforce`, or `Shadow`: decide, count and log, and let every request pass.
    #[serde(default)]
    pub mode: Mode,
    /// Opens the breaker after so many failures in a row. A failure is an answer with one of `failureStatuses`, a
    /// broken connection or a timeout; refusals of the sidecar never count.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub failure_threshold: Option<i32>,
    /// Milliseconds that a plain answer may take in all, and a stream until its first byte; later is a failure. Short
    /// for `timeouts.total` of plain answers and `timeouts.firstByte`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub timeout_ms: Option<i64>,
    /// How long the engine may take, by what is waited for. What is left out may take as long as it likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// A path of the same engine that answers while the breaker is open; tried once, outside of the breaker. 503
    /// when left out or when it fails too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new(CircuitBreakerPolicySpec::IS_PATH).message(CircuitBreakerPolicySpec::FALLBACK))]
    pub fallback_endpoint: Option<String>,
    /// What answers in place of the engine, and when. Excludes `fallbackEndpoint`, which is short for one with a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// Who is sent a `CloudEvent` when the breaker changes its state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub hooks: Vec<Hook>,
    /// Statuses that are failures: `4xx`, `5xx` or single ones. One that is named counts as it is named, whatever
    /// its class counts as.
    #[serde(default = "defaults::failure_statuses")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub failure_statuses: Vec<StatusMatch>,
    /// Statuses by which the engine says that it is busy, not broken: neither failure nor success.
    #[serde(default = "defaults::backpressure_statuses")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub backpressure_statuses: Vec<StatusMatch>,
    /// A breaker for each value of a header instead of one for each pod, such as for canary groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_by: Option<GroupBy>,
    /// What else opens the breaker; any one is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trip: Option<Trip>,
    /// Breakers over the stages of the engine's pipeline, each with a state of its own and `open` and `halfOpen` of
    /// this policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub stages: Vec<StageBreaker>,
    /// The open state.
    #[serde(default)]
    pub open: Open,
    /// The half-open state.
    #[serde(default)]
    pub half_open: HalfOpen,
}

impl CircuitBreakerPolicySpec {
    /// What is said about a text that no Service can be named.
    pub const SERVICE: &str = "not the name of a Service of this namespace: write lower-case letters, digits and '-', such as payment-service";
    /// The rule of a text that is a path of the same server.
    pub const IS_PATH: &str =
        "self.startsWith('/') && !self.startsWith('//') && self.matches('^[!-\"$-~]+$')";
    /// What is said about a fallback elsewhere.
    pub const FALLBACK: &str =
        "not a path on the same engine: write one that begins with a single '/', such as /fallback/payment";
    /// What is said about several ways of naming the pods at once.
    pub const ONE_TARGET: &str = "targetService, targetRefs and selector exclude each other: write one of them, or none for the whole namespace";
    /// What is said about a breaker that never opens.
    pub const NOTHING: &str = "nothing opens this breaker: write failureThreshold: 5, trip.errorRatio, trip.slowCallRatio, trip.latency, trip.inFlight, stages or several of them";
    /// What is said about fallbacks in both forms.
    pub const ONE_FALLBACK: &str =
        "fallbackEndpoint and fallback exclude each other: write it as fallback.to[].path";
    /// What is said about a status that would count as two things.
    pub const STATUS_IN_BOTH: &str =
        "a status is in failureStatuses and in backpressureStatuses: write it in one of both";
}

/// How long the engine may take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "has(self.connect) || has(self.firstByte) || has(self.betweenChunks) || has(self.total)"
).message(Timeouts::NOTHING))]
pub struct Timeouts {
    /// Until a connection to the engine stands; `5s` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<Duration>,
    /// Until the head of an answer, and of a stream until the first byte behind it. A plain answer has its head when it
    /// is whole. `timeoutMs` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Duration>,
    /// Between two pieces of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub between_chunks: Option<Duration>,
    /// Until the end of an answer, streams included; of plain ones `timeoutMs` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Duration>,
}

impl Timeouts {
    /// What is said about empty `timeouts`.
    pub const NOTHING: &str =
        "timeouts is empty: write connect, firstByte, betweenChunks or total, or leave timeouts out";
    /// What is said about a limit that never comes first.
    pub const TOTAL: &str = "is more than timeouts.total: write less, or leave one of both out";
}

/// What opens a breaker, besides failures in a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "has(self.errorRatio) || has(self.slowCallRatio) || has(self.latency) || has(self.inFlight)"
).message(Trip::NOTHING))]
pub struct Trip {
    /// Share of failures among the calls of a window. `{}` takes all defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_ratio: Option<ErrorRatio>,
    /// Share of slow calls among the calls of a window. `{}` takes all defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_call_ratio: Option<SlowCallRatio>,
    /// Latency percentile of a window. `{}` takes all defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyPercentile>,
    /// Requests in flight at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<InFlight>,
}

impl Trip {
    /// What is said about an empty `trip`.
    pub const NOTHING: &str = "trip is empty: write errorRatio: {}, slowCallRatio: {}, latency: {} or inFlight: {}, or leave trip out";
    /// What is said about a window of both kinds.
    pub const ONE_WINDOW: &str =
        "a window is a time or a number of calls: write window or windowCalls, or neither for the default";
    /// What is said about a minimum that never comes together.
    pub const MINIMUM: &str =
        "minimumRequests is more than windowCalls holds: write a minimumRequests up to windowCalls";
}

/// Share of failures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.window) || !has(self.windowCalls)").message(Trip::ONE_WINDOW))]
#[x_kube(validation = Rule::new(
    "!has(self.windowCalls) || self.minimumRequests <= self.windowCalls"
).message(Trip::MINIMUM))]
pub struct ErrorRatio {
    /// The share at which the breaker opens.
    #[serde(default = "defaults::trip_threshold")]
    pub threshold: Percentage,
    /// The trailing window; `30s` when left out, and there is no `windowCalls`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    /// The window as a number of calls, the last ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub window_calls: Option<i32>,
    /// Fewer calls give no verdict.
    #[serde(default = "defaults::minimum_requests")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub minimum_requests: i32,
}

/// Share of slow calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.window) || !has(self.windowCalls)").message(Trip::ONE_WINDOW))]
#[x_kube(validation = Rule::new(
    "!has(self.windowCalls) || self.minimumRequests <= self.windowCalls"
).message(Trip::MINIMUM))]
pub struct SlowCallRatio {
    /// The share at which the breaker opens.
    #[serde(default = "defaults::slow_threshold")]
    pub threshold: Percentage,
    /// A call is slow when the first byte of its response's body takes longer: of a stream, its first token.
    #[serde(default = "defaults::slower_than")]
    pub slower_than: Duration,
    /// The trailing window; `10s` when left out, and there is no `windowCalls`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    /// The window as a number of calls, the last ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub window_calls: Option<i32>,
    /// Fewer calls give no verdict.
    #[serde(default = "defaults::minimum_requests")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub minimum_requests: i32,
}

/// Latency percentile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.window) || !has(self.windowCalls)").message(Trip::ONE_WINDOW))]
#[x_kube(validation = Rule::new(
    "!has(self.windowCalls) || self.minimumRequests <= self.windowCalls"
).message(Trip::MINIMUM))]
pub struct LatencyPercentile {
    /// The percentile, such as `95` or `"99.9"`; below 100.
    #[serde(default = "defaults::trip_percentile")]
    pub percentile: Decimal,
    /// The breaker opens when the percentile of the times until the first byte of the response's body is over this.
    #[serde(default = "defaults::trip_latency")]
    pub over: Duration,
    /// The trailing window; `30s` when left out, and there is no `windowCalls`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    /// The window as a number of calls, the last ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub window_calls: Option<i32>,
    /// Fewer calls give no verdict.
    #[serde(default = "defaults::minimum_requests")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub minimum_requests: i32,
}

/// Requests in flight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InFlight {
    /// The breaker opens when a request arrives while so many are in flight.
    #[serde(default = "defaults::trip_in_flight")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max: i32,
}

/// What tells the breakers of a pod apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupBy {
    /// The header whose values are the groups. Requests without it are a group too.
    pub header: HeaderName,
    /// The first so many values have breakers of their own; all others share one.
    #[serde(default = "defaults::groups")]
    #[schemars(range(min = 1, max = 256))]
    pub max: i32,
}

/// The open state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Open {
    /// How long the breaker stays open before it lets probes through.
    #[serde(default = "defaults::open_duration")]
    pub duration: Duration,
}

impl Default for Open {
    fn default() -> Self {
        Self { duration: defaults::open_duration() }
    }
}

/// The half-open state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HalfOpen {
    /// Requests let through; when so many succeeded the ramp begins, one failure opens it again.
    #[serde(default = "defaults::probes")]
    #[schemars(range(min = 1, max = 1000))]
    pub probes: i32,
    /// Before it closes, 10 %, 25 % and 50 % of the requests pass, each for a third of this time; what opens a
    /// closed breaker opens it here too. A tenth of `open.duration` when left out; `0s` closes at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Duration>,
}

impl Default for HalfOpen {
    fn default() -> Self {
        Self { probes: defaults::probes(), ramp: None }
    }
}
