//! Promises about Kubernetes, each kept on a real API server and kubelet. `make e2e` runs them.

// Helpers of tests fail as tests do.
#![allow(clippy::expect_used)]

mod breaker;
mod chaos;
mod chart;
mod cli;
mod concurrency;
mod control_plane;
mod endings;
mod gpu;
mod identity;
mod injection;
mod interception;
mod isolation;
mod lifecycle;
mod policy;
mod protocols;
mod tiers;
mod tokens;
