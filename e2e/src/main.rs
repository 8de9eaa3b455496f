//! The clusters, the simulators, the end-to-end tests and the demo of Tidegate.

fn main() {}
