//! Watches policies and pods, injects sidecars, programs them and reports back.

fn main() {}
