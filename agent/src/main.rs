//! Tells each sidecar of its node about the GPUs of its own pod.

fn main() {}
