//! The clusters, the simulators, the end-to-end tests and the demo of Tidegate.

pub mod apiserver;
pub mod bench;
pub mod cluster;
pub mod demo;
pub mod device_plugin;
pub mod engine;
pub mod harness;
pub mod load;
pub mod plots;
pub mod quality;
pub mod random;
pub mod scale;
pub mod server;
pub mod trace;
