//! The data path on loopback: raw sockets on both sides, so that every byte of the protocol is the test's own.

mod connections;
mod framing;
mod streaming;
mod support;
mod upgrades;
