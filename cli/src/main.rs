//! kubectl tidegate: policies without a cluster, and a look into one.

fn main() {}
