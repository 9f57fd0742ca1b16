//! Any bytes as a recording: an error, a difference, or the same again.
#![no_main]

#[path = "../../tests/recording/mod.rs"]
mod recording;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = recording::check(bytes);
});
