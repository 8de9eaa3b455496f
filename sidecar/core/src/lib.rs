//! The decision engine of Tidegate.
//!
//! ```text
//!   Facts ──admit──▶ Decision ──(engine answers)── responded ── complete
//!                       ▲
//!   Signals ──observe───┤      tick ── learns, trips, recovers      snapshot ──▶ Status
//! ```
//!
//! Nothing here reads a clock, does I/O, logs or counts for anybody else: time is an argument, so the same engine
//! serves live traffic and replays a recorded hour in seconds. All of it is called through `&self` from many
//! threads.

mod decision;
mod engine;
mod facts;
mod tick;

pub use decision::{Admission, Answer, Cause, Decision, Refusal, Rule};
pub use engine::{Engine, Ticket};
pub use facts::{Completion, Facts, GpuMemoryReading, HeadOutcome, Headers, Signal};
pub use tick::Tick;
