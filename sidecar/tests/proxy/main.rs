//! The data path on loopback: raw sockets on both sides, so that every byte of the protocol is the test's own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod connections;
mod decisions;
mod fallbacks;
mod framing;
mod limits;
mod nobody;
mod prefixes;
mod queue;
mod sequences;
mod streaming;
mod support;
mod timeouts;
mod tokens;
mod upgrades;
