//! The random world of `kad_proto::testing`, with the family of these tests: keys of 8, 160 or 256 bits, as the bytes of a scenario
//! say.
//!
//! The property tests, the corpus replay and the fuzz targets all run [`check`].

#![allow(dead_code)] // each test binary uses a part of it

#[path = "../contract/mod.rs"]
pub(crate) mod contract;

#[allow(unused_imports)] // as above
pub(crate) use contract::test_family::{Net, Peer};
use kad_proto::testing::Broken;
#[allow(unused_imports)] // as above
pub(crate) use kad_proto::testing::{MachineKind, Scenario, Tally};

/// Plays the scenario that the bytes encode against a machine of this kind. Returns how often each situation
/// occurred.
pub(crate) fn check(kind: MachineKind, bytes: &[u8]) -> Tally {
    run(&Scenario::decode(kind, bytes)).unwrap_or_else(|broken| panic!("{broken}"))
}

/// Plays a scenario.
pub(crate) fn run(scenario: &Scenario) -> Result<Tally, Broken> {
    match scenario.width {
        1 => scenario.check::<Net<1>>(),
        20 => scenario.check::<Net<20>>(),
        _ => scenario.check::<Net<32>>(),
    }
}

/// Plays a scenario against the given type of machine.
pub(crate) fn run_on<const N: usize, S: contract::build::Build<N>>(scenario: &Scenario) -> Tally {
    scenario.play(S::build).unwrap_or_else(|broken| panic!("{broken}"))
}
