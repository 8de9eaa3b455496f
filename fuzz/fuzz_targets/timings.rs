//! `cargo +nightly fuzz run timings`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_sidecar::fuzzing::timings(data));
