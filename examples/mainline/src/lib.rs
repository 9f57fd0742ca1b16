//! A node of `BitTorrent`'s DHT: the engine `kad-proto` over UDP, and what the program `kad-mainline` shows of it.
//!
//! To learn how the engine is embedded, read [`driver`]; where its spans go, [`provider`] and [`trace`]. The
//! program itself is the command line and what it prints; its tests use this library.

#![allow(missing_docs)] // of variants and fields that say what they are by their names

pub mod driver;
pub mod engine;
pub mod family;
pub mod goal;
pub mod krpc;
pub mod limiter;
pub mod map;
pub mod operation;
#[cfg(feature = "otlp")]
mod otlp;
pub mod provider;
pub mod saved;
pub mod serving;
pub mod shares;
pub mod store;
pub mod svg;
pub mod testnet;
pub mod trace;
pub mod waterfall;
