//! Clusters for tests: one trait, three kinds.

pub mod cli;
pub mod images;
