//! The proxy beside an inference engine that decides what its pod can take.
//!
//! ```text
//!              ┌ proxy ── client ─▶ decision ─▶ engine of the pod
//!   Shared ────┤            (refusal)
//!              └ metrics, drain, clock: what every part of the process sees
//! ```

pub mod admin;
pub mod args;
pub mod backoff;
pub mod caps;
pub mod clock;
pub mod drain;
pub mod endpoint;
pub mod engine_metrics;
pub mod fallback;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod gpu;
pub mod hooks;
pub mod identity;
pub mod listeners;
pub mod log;
mod loopback;
pub mod memory;
pub mod metrics;
pub mod policy;
pub mod pressure;
pub mod proxy;
mod quota;
mod quoted;
pub mod redirect;
pub mod refusal;
pub mod request_log;
pub mod route;
pub mod shared;
pub mod stages;
pub mod supervisor;
pub mod tokens;
pub mod trace;
pub mod transitions;
pub mod transport;
pub mod trust;
pub mod turns;
pub mod worker;
