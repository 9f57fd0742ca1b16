//! Bytes as a scenario for broadcasts, under the assertions of the property tests.
#![no_main]

#[path = "../../tests/model/mod.rs"]
mod model;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    model::check(model::Kind::Broadcast, bytes);
});
