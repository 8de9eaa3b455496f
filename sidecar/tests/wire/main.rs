//! The real binary between raw clients and engines: what it takes as a request, and how it passes it on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../edge/sidecar.rs"]
#[allow(dead_code, reason = "shared with the tests of the binary's edges")]
mod sidecar;
#[path = "../proxy/support.rs"]
#[allow(dead_code, reason = "shared with the tests of the data path")]
mod support;

mod payloads;
mod smuggling;
