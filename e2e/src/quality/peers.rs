//! Other people's policies, written anew from what they published.

pub mod aimd;
pub mod engine_queue;
pub mod envoy_admission;
pub mod gradient2;
pub mod none;
pub mod sentinel_bbr;
pub mod static_concurrency;
pub mod static_rate;
pub mod vegas;
mod window;

use super::policy::Kind;

/// All of them.
pub const PEERS: [&Kind; 11] = [
    &none::KIND,
    &static_rate::KIND,
    &static_concurrency::KIND,
    &static_concurrency::SHARES,
    &gradient2::FED_FIRST_TOKEN,
    &gradient2::FED_TOTAL,
    &vegas::KIND,
    &aimd::KIND,
    &envoy_admission::KIND,
    &sentinel_bbr::KIND,
    &engine_queue::KIND,
];
