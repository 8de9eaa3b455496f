//! The contract between the operator and the sidecar.
//!
//! ```text
//!  operator ──PolicyDocument (JSON)──▶ sidecar        stream::PolicyEvent, one JSON object per line
//!           ◀──────Report (JSON)──────                report::Report
//! ```
//!
//! The document is parsed, not validated: every type here refuses a value that the engine could not obey, and
//! says where it stands and what to write instead. Unknown fields are refused too, because a limit that is
//! silently ignored is a limit that does not hold. The same document is what a sidecar reads from a file where
//! there is no cluster.

mod breaker;
mod concurrency;
mod document;
mod errors;
mod fallback;
mod hook;
mod identity;
mod lenient;
mod limit;
mod priority;
mod resource;
mod scalar;
mod stage;
mod tiers;
mod validate;

pub mod report;
pub mod stream;

pub use breaker::{
    Breaker, ConsecutiveFailures, ErrorRatio, HalfOpen, InFlight, LatencyPercentile, OutOfMemory, Per,
    SlowCallRatio, StageBreaker, Timeouts, Trip,
};
pub use concurrency::{Concurrency, ConcurrencyAlgorithm, Queue};
pub use document::{API_VERSION, PolicyDocument, RateLimitHeaders};
pub use errors::{DocumentError, DocumentErrors};
pub use fallback::{AnswerCache, Destination, Fallback, FallbackOn, FallbackPath, Fallbacks, StaticAnswer};
pub use hook::{Hook, HookEvent, HookMode};
pub use identity::{ApiKeys, ClientIp, ForwardedBy, Identity, JwtAlgorithm, JwtIssuer, JwtKeys};
pub use limit::{
    Algorithm, Condition, Cost, KeyPart, Limit, Match, OnExhausted, Ring, Subject, TokenWeights,
};
pub use priority::{Better, Claimant, Number, Priority, PriorityClass, PrioritySource};
pub use resource::{Quota, ResourceLimits};
pub use scalar::{
    Factor, HeaderName, HttpUrl, Millis, Mode, Rate, Ratio, RelativePath, ScalarError, StatusMatch, Weight,
};
pub use stage::Stage;
pub use tiers::{
    GpuMemoryTier, KvCache, LatencySignal, LatencyTier, LearnedLatency, LearnedQps, MemorySource, OnStale,
    Plateau, QpsTier, Recovery, Tiers,
};
