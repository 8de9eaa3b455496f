//! What the engine tells of the stages of its pipeline, for the breakers of stages: times in the `Server-Timing` of its
//! answers, the histograms of its metrics, and errors that say that it ran out of memory.
//!
//! Nothing is looked at where the policy has no breaker of a stage.

mod complaint;
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, reason = "a broken promise ends the run")]
pub(crate) mod fuzzing;
mod histogram;
mod server_timing;

use http::HeaderMap;
use tidegate_core::{Engine, StageReading, Tick};
use tidegate_policy::StageBreaker;

pub use complaint::Complaint;
pub use histogram::{Histograms, Told};

/// Takes the times that an answer tells in its header or trailer.
pub fn hear(engine: &Engine, now: Tick, fields: &HeaderMap) {
    let stages = of(engine);
    if stages.is_empty() {
        return;
    }
    let values = fields.get_all("server-timing").iter().filter_map(|value| value.to_str().ok());
    for metric in values.flat_map(server_timing::metrics).take(server_timing::MOST) {
        let named =
            stages.iter().position(|breaker| breaker.stage.as_str().eq_ignore_ascii_case(metric.name));
        if let (Some(i), Some(took)) = (named, metric.took) {
            engine.observe_stage(now, i, StageReading::Took(took));
        }
    }
}

/// Whether somebody counts how often the engine runs out of memory.
pub fn counts_memory(engine: &Engine) -> bool {
    of(engine).iter().any(|stage| stage.out_of_memory.is_some())
}

/// It ran out of memory. In which of its stages is not told, so it counts for every one that counts it.
pub fn ran_out_of_memory(engine: &Engine, now: Tick) {
    for (i, stage) in of(engine).iter().enumerate() {
        if stage.out_of_memory.is_some() {
            engine.observe_stage(now, i, StageReading::OutOfMemory);
        }
    }
}

/// The breakers of stages of the policy in force.
pub fn of(engine: &Engine) -> &[StageBreaker] {
    engine.breaker_policy().map_or(&[], |policy| &policy.stages)
}
