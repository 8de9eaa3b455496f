//! `cargo +nightly fuzz run stream`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_sidecar::fuzzing::stream(data));
