//! Bytes as a scenario for the routing maintenance inside the coordinator, under the assertions of its property test.
#![no_main]

#[path = "../../tests/upkeep/mod.rs"]
mod upkeep;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    upkeep::soak::<kad_proto::Coordinator<upkeep::Grouped>>(bytes);
});
