//! Decodes bytes into a scenario of the routing maintenance in a coordinator and plays it under the checker of its
//! contract.
#![no_main]

mod calls;
#[path = "../../tests/maintenance_contract/mod.rs"]
mod maintenance_contract;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    calls::count(
        &maintenance_contract::run_scenario::<kad_proto::Coordinator<maintenance_contract::Grouped>>(bytes),
    );
});
