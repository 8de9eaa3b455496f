//! `cargo +nightly fuzz run headers`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_sidecar::fuzzing::headers(data));
