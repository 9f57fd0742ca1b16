//! Network size: how many nodes the network has, estimated from how close to their targets lookups find nodes;
//! and, given that, how close a node must be for an optimistic store.
//!
//! If N keys are uniformly random, the i-th closest of them to any target is on average at i / (N + 1) of the
//! key space. So each completed lookup is a sample of N. Only nodes that have answered count, only [lookups that
//! agree](NetworkSize::estimate), and no address group for more than one of them: free names move the estimate by nothing.
//! [How sure it is](SizeEstimate::range) is a part of the result. The estimate and the thresholds are those of
//! go-libp2p-kad-dht (`netsize`, and its optimistic provide; Trautwein et al., INFOCOM 2024). Distances here
//! are *normed*: shares of the largest possible distance, 0 to 1.
//!
//! All decisions use IEEE arithmetic and the `libm` crate, so they are the same on every platform.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `estimator.rs` | [`NetworkSize`]: the samples, and the estimate from them |
//! | `thresholds.rs` | [`Thresholds`]: how close to a key a node must be for an optimistic store |
//! | `watch.rs` | feeds lookups to the estimator, and decides when a new estimate is emitted |
//! | `gamma.rs`, `numbers.rs` | the gamma function, and conversions to `f64` |
//! | `config.rs` | configuration |
//!
//! This is arithmetic on plain numbers: it sends no request, and knows neither operations nor the routing
//! table.

pub(crate) mod config;
pub(crate) mod estimator;
pub(crate) mod gamma;
pub(crate) mod numbers;
pub(crate) mod thresholds;
pub(crate) mod watch;

pub use config::NetworkSizeConfig;
pub use estimator::{NetworkSize, NotEnoughData, SizeEstimate};
pub use thresholds::Thresholds;
