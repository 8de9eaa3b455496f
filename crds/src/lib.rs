//! What users of Tidegate write: the custom resources, their defaults and validation rules.
//!
//! ```text
//!  RateLimitPolicy        tiers, priority, limits        ─┐            ┌─ which pods: target.rs
//!                                                         ├─ attached ─┤
//!  CircuitBreakerPolicy   what trips, fallback, timeout  ─┘            └─ what became of it: status.rs
//! ```
//!
//! The `CustomResourceDefinitions` that [`definitions`] gives are generated from these types and from nothing else.
//! Every list and string has a bound, so that the cost of the CEL rules stays within the API server's budget.
//! What CEL cannot judge within one object (a GEP-2257 duration of more than 31 days, a decimal out of range) is
//! judged by `tidegate_operator_core::compile`.

// `KubeSchema` writes a copy of each struct into the body of a function, where `pub` reaches nobody.
#![allow(unreachable_pub)]
// Each `printcolumn` of a resource has its own name, type and path.
#![allow(clippy::duplicated_attributes)]

mod circuit_breaker;
mod concurrency;
mod defaults;
mod definition;
mod fallback;
mod hook;
mod identity;
mod limit;
mod plans;
mod priority;
mod rate_limit;
mod reference;
mod scalar;
mod stage;
mod status;
mod target;
mod tiers;
mod when;

pub use circuit_breaker::{
    CircuitBreakerPolicy, CircuitBreakerPolicySpec, ErrorRatio, GroupBy, HalfOpen, InFlight,
    LatencyPercentile, Open, SlowCallRatio, Timeouts, Trip,
};
pub use concurrency::{Concurrency, ConcurrencyAlgorithm, Queue};
pub use definition::{definitions, unknown_fields};
pub use fallback::{AnswerCache, Fallback, FallbackOn, FallbackService, FallbackTarget, StaticAnswer};
pub use hook::{Hook, HookEvent, HookMode};
pub use identity::{ApiKeys, ClientIp, ForwardedBy, Identity, Jwks, JwtAlgorithm, JwtIssuer, UnknownClient};
pub use limit::{Algorithm, Cost, KeyPart, KeySource, Limit, OnExhausted, TokenWeights};
pub use plans::{Plan, PlanSource, Plans};
pub use priority::{
    Better, Claimant, ClaimedHeader, Priority, PriorityClass, PriorityFrom, PriorityNumber, PrioritySource,
    Reserved, StripHeaders,
};
pub use rate_limit::{RateLimitHeaders, RateLimitPolicy, RateLimitPolicySpec};
pub use reference::reference;
pub use scalar::{Bytes, Decimal, Duration, HeaderName, Mode, Percentage, StatusMatch};
pub use stage::{OutOfMemory, StageBreaker, StageLatency};
pub use status::{
    AncestorRef, CircuitBreakerPolicyStatus, LimitStatus, PodCounts, PolicyAncestorStatus,
    RateLimitPolicyStatus, TierCounts,
};
pub use target::{PodSelector, SelectorOperator, SelectorRequirement, TargetRef};
pub use tiers::{
    GpuMemoryTier, KvCache, LatencySignal, LatencyTier, LearnedLatency, LearnedQps, MemorySource, OnStale,
    Plateau, QpsTier, Recovery, SelfCalibration, Tiers,
};
pub use when::{When, WhenSource};

/// The API group of all resources.
pub const GROUP: &str = "tidegate.dev";
/// The version of all resources.
pub const VERSION: &str = "v1alpha1";
