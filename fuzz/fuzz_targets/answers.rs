//! `cargo +nightly fuzz run answers`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_sidecar::fuzzing::answers(data));
