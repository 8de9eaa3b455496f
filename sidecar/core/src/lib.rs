//! The decision engine of Tidegate.
//!
//! ```text
//!   Facts ──admit──▶ Decision ──(engine answers)── responded ── complete
//!                       ▲
//!   Signals ──observe───┤      tick ── learns, trips, recovers      snapshot ──▶ Status
//!
//!   Decision::Queue ── its place comes out of complete, leave or tick ──▶ resume ──▶ Decision
//! ```
//!
//! Nothing here reads a clock, does I/O, logs or counts for anybody else: time is an argument, so the same engine
//! serves live traffic and replays a recorded hour in seconds. All of it is called through `&self` from many
//! threads.

mod ages;
mod breaker;
mod concurrency;
mod deadline;
mod decision;
mod divisor;
mod engine;
mod facts;
mod gate;
mod gradient;
mod histogram;
mod lane;
mod limit;
mod meter;
mod pressure;
mod priority;
mod queue;
mod ramp;
mod resource;
mod spread;
mod sync;
#[cfg(test)]
#[cfg(not(loom))]
mod testing;
mod tick;
mod tiers;

pub use decision::{Admission, Answer, Cause, Decision, Refusal, Rule, TimeLimits};
pub use engine::{Engine, Ticket, Waiting};
pub use facts::{
    Claims, Completion, EngineReading, Facts, GpuMemoryReading, HeadOutcome, Headers, NoClaims, Signal,
    StageReading, Tokens,
};
pub use limit::{Quota, QuotaKeys, QuotaUnit};
pub use queue::Place;
pub use resource::{Lease, Level, ResourceLimiter, ResourceRefusal, Units, UnknownResource};
pub use tick::Tick;
