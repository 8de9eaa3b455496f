//! What is fuzzed of the parsers of this crate. Built for tests and for the fuzzer (`--cfg fuzzing`), and in no product.
//!
//! Each function takes any bytes and panics where a promise of a parser is broken: it never panics itself, keeps bounded
//! memory, reads the same however its input is cut, and agrees with a second reader where there is one. `cargo test`
//! runs them on the seeds in `fuzz/seeds` and on damaged copies of them; `make fuzz` lets those grow by what is
//! covered.

// A broken promise ends the run: that is what a fuzzer looks for.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used)]

mod headers;

pub use crate::engine_metrics::fuzzing::metrics;
pub use crate::proxy::fuzzing::{answers, requests};
pub use crate::stages::fuzzing::timings;
pub use crate::tokens::fuzzing::{prompts, stream, usage};
pub use crate::tokens::grpc::fuzzing::calls;
pub(crate) use headers::fields;
pub use headers::headers;

/// The first byte as a length of pieces, and the rest.
pub(crate) fn cut(data: &[u8]) -> (usize, &[u8]) {
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    (usize::from(*first % 32) + 1, rest)
}

#[cfg(test)]
mod tests;
