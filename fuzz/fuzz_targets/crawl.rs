//! Bytes as a scenario with crawls, alone and in the coordinator, under the assertions of the property tests.
#![no_main]

#[path = "../../tests/model/mod.rs"]
mod model;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    model::check(model::Kind::Crawl, bytes);
});
