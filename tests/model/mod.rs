//! The model: one simulated network, one ledger, one way to turn bytes into a scenario.
//!
//! The property tests, the corpus replay and the fuzz targets all run [`check`]: bytes become a
//! [`Scenario`](bytes::Scenario), the [world](world) plays it against a machine, and the [ledger](ledger::Ledger)
//! sees every event in and out and asserts the contract after every call. Where an assertion fails, its message names
//! the rule: those of the context and deadline rules by their number (`context 3`, `deadline 5`), the others by name.
//!
//! - [`bytes`]: any bytes are a scenario; a header, then steps of four bytes, so that what shrinks stays alike.
//! - [`world`]: nodes that are honest, dead, or liars, and what a schedule does to their answers.
//! - [`ledger`]: the machines in one shape, the rules of all operations, and those of lookups, of crawls and of broadcasts.

#![allow(dead_code)] // each test binary uses its part

pub(crate) mod bytes;
#[path = "../ledger/mod.rs"]
pub(crate) mod ledger;
pub(crate) mod world;

#[allow(unused_imports)] // as above
pub(crate) use bytes::{CAST_HEADER, CRAWL_HEADER, HEADER, Kind, STEP, decode};
#[allow(unused_imports)] // as above
pub(crate) use ledger::net::{Net, Peer, Random, Tally};
pub(crate) use world::run;
#[allow(unused_imports)] // as above
pub(crate) use world::run_on;

/// Plays the scenario that the bytes are, against this machine, under the eyes of the witness.
pub(crate) fn check(kind: Kind, bytes: &[u8]) -> Tally {
    run(&decode(kind, bytes))
}
