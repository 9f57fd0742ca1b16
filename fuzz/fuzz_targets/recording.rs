//! Reads any bytes as a recording: this gives an error, a difference, or an equal replay, and never panics.
#![no_main]

#[path = "../../tests/recording/mod.rs"]
mod recording;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = recording::check(bytes);
});
