//! The proxy beside an inference engine that decides what its pod can take.

pub mod args;
pub mod endpoint;
pub mod redirect;
