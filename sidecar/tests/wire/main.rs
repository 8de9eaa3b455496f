//! The real binary between raw clients and engines: what it takes as a request, and how it passes it on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../proxy/nobody.rs"]
mod nobody;
#[path = "../edge/sidecar.rs"]
#[allow(dead_code, reason = "shared with the tests of the binary's edges")]
mod sidecar;
#[path = "../proxy/support.rs"]
#[allow(dead_code, reason = "shared with the tests of the data path")]
mod support;

mod abuse;
mod document;
mod downgrade;
mod floods;
mod grpc;
mod grpc_tokens;
mod hostile_engine;
mod http2;
mod inference;
mod memory;
mod payloads;
mod raw_http2;
mod rpc;
mod smuggling;
mod windows;

/// A sidecar before an engine whose every byte is the test's own: its metrics are looked for where there are none.
fn start(upstream: std::net::SocketAddr, arguments: &[&str]) -> sidecar::Sidecar {
    sidecar::Sidecar::start(upstream, &[&["--engine-metrics", "1"], arguments].concat())
}
