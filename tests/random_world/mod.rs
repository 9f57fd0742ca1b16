//! A random world: a simulated network that a decoded scenario plays against a machine, under the checker of the
//! contract.
//!
//! The property tests, the corpus replay and the fuzz targets all run [`check`]: bytes become a
//! [`Scenario`](scenario::Scenario), the [world](world) plays it against a machine, and the
//! [`ContractChecker`](kad_proto::testing::ContractChecker) sees every event in and out and asserts the contract after every
//! call. Each assertion's message names the rule: the context and deadline rules by their number in the modules
//! `context` and `deadline` (`context 3`, `deadline 5`), the others by name.
//!
//! - [`scenario`]: decodes any bytes into a scenario: a header, then steps of four bytes, so that a shrunk input
//!   stays similar.
//! - [`world`]: nodes that are honest, dead, or lie, Sybils next to the targets where a test wants them, and the order and
//!   time of their answers.
//! - [`contract`]: the types of the network, and how each machine is constructed.

#![allow(dead_code)] // each test binary uses a part of it

#[path = "../contract/mod.rs"]
pub(crate) mod contract;
pub(crate) mod scenario;
pub(crate) mod world;

#[allow(unused_imports)] // as above
pub(crate) use contract::test_family::{Net, Peer, Random, Tally};
#[allow(unused_imports)] // as above
pub(crate) use scenario::{BROADCAST_HEADER, CRAWL_HEADER, HEADER, MachineKind, STEP, decode};
pub(crate) use world::run;
#[allow(unused_imports)] // as above
pub(crate) use world::run_on;

/// Plays the scenario that the bytes encode against a machine of this kind. Returns how often each situation
/// occurred.
pub(crate) fn check(kind: MachineKind, bytes: &[u8]) -> Tally {
    run(&decode(kind, bytes))
}
