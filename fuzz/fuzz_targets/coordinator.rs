//! Decodes bytes into a scenario of a coordinator and plays it under the contract checker, as the property tests
//! do.
#![no_main]

mod calls;
#[path = "../../tests/random_world/mod.rs"]
mod random_world;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    calls::count(&random_world::check(random_world::MachineKind::Coordinator, bytes));
});
