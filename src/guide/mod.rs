//! The guide: one page for each thing that a user of the crate does. It holds no code.
//!
//! | page | what it explains |
//! | --- | --- |
//! | [`embedding`] | the driver: the loop, time, the secret, transaction ids, cancellation; what is fixed and why |
//! | [`bring_your_own_wire`] | a family and a driver for a protocol: targets, identities and addresses, answers, outcomes |
//! | [`looking_up`] | lookups and what they cost, quorums, maps of networks |
//! | [`storing`] | broadcasts: records stored with the nodes closest to their keys |
//! | [`maintaining_a_table`] | joining a network, and a routing table that keeps itself up to date |
#![cfg_attr(feature = "sim", doc = "| [`simulating`] | whole networks under virtual time |")]
#![cfg_attr(
    feature = "sim",
    doc = "| [`weather`] | worlds that are not kind, and how the engine does in each |"
)]
#![cfg_attr(
    not(feature = "sim"),
    doc = "| `simulating`, `weather` (feature `sim`) | whole networks under virtual time, and in worlds that are not kind |"
)]
#![cfg_attr(feature = "record", doc = "| [`recording`] | a failure in the field becomes a test |")]
#![cfg_attr(
    not(feature = "record"),
    doc = "| `recording` (feature `record`) | a failure in the field becomes a test |"
)]
#![cfg_attr(feature = "telemetry", doc = "| [`tracing`] | spans and metrics by OpenTelemetry |")]
#![cfg_attr(
    not(feature = "telemetry"),
    doc = "| `tracing` (feature `telemetry`) | spans and metrics by OpenTelemetry |"
)]
//! | [`testing`] | the tests, models and fuzz targets of this repository, and how to use them |
//!
//! The rules that every page relies on are stated once: [`context`](crate::context) says which span an event carries,
//! [`deadline`](crate::deadline) until when a request or an operation lives.
//!
//! Commands are meant to be run in a checkout of the repository. The figures were measured on a virtual machine with two
//! cores, if nothing else is said; each is given with the command that prints it. Those of simulated networks do not depend
//! on the machine.

#[doc = include_str!("embedding.md")]
pub mod embedding {}

#[doc = include_str!("bring_your_own_wire.md")]
pub mod bring_your_own_wire {}

#[doc = include_str!("looking_up.md")]
pub mod looking_up {}

#[doc = include_str!("storing.md")]
pub mod storing {}

#[doc = include_str!("maintaining_a_table.md")]
pub mod maintaining_a_table {}

#[cfg(feature = "sim")]
#[doc = include_str!("simulating.md")]
pub mod simulating {}

#[cfg(feature = "sim")]
#[doc = include_str!("weather.md")]
pub mod weather {}

#[cfg(feature = "record")]
#[doc = include_str!("recording.md")]
pub mod recording {}

#[cfg(feature = "telemetry")]
#[doc = include_str!("tracing.md")]
pub mod tracing {}

#[doc = include_str!("testing.md")]
pub mod testing {}
