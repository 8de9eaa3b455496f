//! `cargo +nightly fuzz run events`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::events(data));
