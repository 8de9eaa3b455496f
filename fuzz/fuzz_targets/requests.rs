//! `cargo +nightly fuzz run requests`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_sidecar::fuzzing::requests(data));
