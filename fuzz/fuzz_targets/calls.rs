//! `cargo +nightly fuzz run calls`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_sidecar::fuzzing::calls(data));
