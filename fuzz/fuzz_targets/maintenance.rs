//! Bytes as a scenario for the routing maintenance alone, under the assertions of its property test.
#![no_main]

#[path = "../../tests/upkeep/mod.rs"]
mod upkeep;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    upkeep::soak::<kad_proto::Maintenance<upkeep::Grouped>>(bytes);
});
