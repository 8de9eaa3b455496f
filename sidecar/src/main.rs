//! The proxy beside an inference engine that decides what its pod can take.

fn main() {}
