//! The real binary, at its edges: command line, policy sources, admin port, supervision. The proxy's own behaviour is
//! tested elsewhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod agent;
mod api_keys;
mod authority;
mod cardinality;
mod command_line;
mod crash;
mod decision_log;
mod drain;
mod engine;
mod engine_metrics;
mod gpu;
mod hooks;
mod identity;
mod key_sets;
mod metrics;
mod named_port;
#[path = "../proxy/nobody.rs"]
mod nobody;
mod operator;
mod panic;
mod policy_file;
mod policy_start;
mod policy_stream;
mod probe;
mod refusal;
mod server;
mod sidecar;
mod signer;
mod stages;
#[path = "../proxy/support.rs"]
#[allow(dead_code, reason = "shared with the tests of the data path")]
mod support;
mod trace;
