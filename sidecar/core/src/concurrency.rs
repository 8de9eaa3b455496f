//! The limit of requests in flight: a reserve for high, a common share for all, and an algorithm that moves it.
//!
//! ```text
//!  in flight, completions, first tokens ──▶ algorithm ──limit──▶ reserve │ common share
//!  the engine's own readings ──────────────────┘                          high may use both
//!  pressure of the GPU-memory and latency tiers ─────────────────────────▶ medium up to a part of the common share
//!  a tier sheds, or high finds no place ─────────────────────────────────▶ low none of it, else most of medium's
//! ```
//!
//! The limit says what the engine can take, from whomever. What moves medium against the other classes is the pressure
//! alone, and of the two the lower holds: they are never multiplied, so that no request is refused twice for one cause.

mod adaptive;
mod advice;
mod aimd;
mod flow;
mod gradient2;
mod limiter;
mod permits;
mod window;

pub(crate) use advice::{Advice, Waits};
pub(crate) use flow::Flow;
pub(crate) use flow::class_index;
pub(crate) use limiter::{Limiter, Progress};
#[cfg(test)]
pub(crate) use permits::Bounds;
pub(crate) use permits::{Permits, Pool};
