//! `cargo +nightly fuzz run metrics`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_sidecar::fuzzing::metrics(data));
