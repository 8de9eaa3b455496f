//! The data path of the real binary on loopback: raw sockets on both sides, so that every byte of the protocol is the test's own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod breaker;
mod connections;
mod decisions;
mod fallbacks;
mod framing;
mod limits;
mod nobody;
mod prefixes;
mod priority;
mod queue;
mod sequences;
#[path = "../edge/sidecar.rs"]
#[allow(dead_code, reason = "shared with the tests of the binary's edges")]
mod sidecar;
mod streaming;
mod support;
mod timeouts;
mod tokens;
mod upgrades;
