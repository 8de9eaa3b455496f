//! The proxy beside an inference engine that decides what its pod can take.
//!
//! ```text
//!              ┌ proxy ── client ─▶ decision ─▶ engine of the pod
//!   Shared ────┤            (refusal)
//!              └ metrics, drain, clock: what every part of the process sees
//! ```

pub mod args;
pub mod clock;
pub mod drain;
pub mod endpoint;
pub mod metrics;
pub mod proxy;
pub mod redirect;
pub mod refusal;
pub mod shared;
