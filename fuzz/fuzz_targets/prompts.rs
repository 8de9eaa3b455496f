//! `cargo +nightly fuzz run prompts`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_sidecar::fuzzing::prompts(data));
