//! `cargo +nightly fuzz run usage`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_sidecar::fuzzing::usage(data));
