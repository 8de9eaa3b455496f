//! What is fuzzed of the policy document and of the decision core.
//!
//! Each function takes any bytes and panics where a promise is broken. `cargo test` runs them on corpora grown from
//! seeds; `cargo fuzz run`, from the folder `fuzz` of the repository, lets them grow by what is covered.

// A broken promise ends the run: that is what a fuzzer looks for.
#![allow(clippy::panic)]

mod bytes;
mod events;
mod policies;

pub use events::events;

use tidegate_core::{Engine, Tick};
use tidegate_policy::PolicyDocument;

/// Reads a policy document. One that is refused names its mistakes; one that is accepted is read back the same from
/// what it writes, and an engine obeys it without a panic, from the first instant to the last and at every extreme of
/// requests and readings.
pub fn policy(json: &[u8]) {
    match PolicyDocument::from_json(json) {
        Ok(document) => {
            let engine = Engine::new(&document, 7, Tick::from_nanos(1));
            for now in [1, 2_000_000_000, u64::MAX / 2, u64::MAX] {
                events::serve_extremes(&engine, Tick::from_nanos(now));
            }
            let written = policies::written(&document);
            assert_eq!(
                PolicyDocument::from_json(&written).as_ref(),
                Ok(&document),
                "it is read back the same"
            );
            let status = engine.snapshot(Tick::from_nanos(u64::MAX));
            assert!((0.0..=1.0).contains(&status.pressure), "pressure {}", status.pressure);
        }
        Err(errors) => {
            assert!(!errors.as_slice().is_empty(), "a refusal has a reason");
            for error in errors.as_slice() {
                assert!(!error.message().is_empty(), "a mistake at {:?} says what it is", error.path());
            }
        }
    }
}

#[cfg(test)]
mod tests;
