//! The redirection as the kernel does it: two network namespaces joined by a veth pair, the sidecar's rules in one
//! of them, a client in the other. Needs root and iproute2.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod net;
mod pod;
mod rules;
