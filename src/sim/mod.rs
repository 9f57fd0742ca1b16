//! A deterministic simulator: a whole network of real coordinators in one process, under virtual time.
//!
//! Feature `sim`. Like the engine it is pure: the input is a [`Scenario`] with its seed, the output are
//! [events](SimEvent) and [`Figures`]. It reads no clock, starts no thread and has no global state; the same
//! scenario gives the same events on every platform, as [`World::fingerprint`] shows.
//!
//! A network begins with ideal routing tables, or nodes join one by one ([`Build`]). [Links](Link) delay, lose,
//! duplicate and reorder; [partitions](Partition) separate nodes. Nodes can be dead, behind a NAT or [slow](Slow),
//! can go offline and [come back](Churn), or have a [`Behaviour`] that is not honest. The [workload](Workload) is
//! lookups and messages, each with its own deadline and trace; [broadcasts](Broadcasts) store records, and the
//! simulator keeps which node holds which. If the scenario asks for it, every call of every engine is checked
//! against the [invariants](Invariant) of the contract, and a [violation](Violation) comes with the seed and the
//! command that repeats it. With the feature `record`, [chosen](World::record) nodes are recorded, and their
//! recordings are replayed without the rest of the network.
//!
//! ```
//! use kad_proto::sim::{Scenario, World};
//!
//! let mut world = World::new(Scenario { nodes: 500, ..Scenario::default() })?;
//! world.run()?;
//! let figures = world.figures();
//! assert!(figures.recall > 0.99, "{figures}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! This module may use the engine, but the engine never uses it. What is random here comes from the
//! scenario's seed.
//!
//! # How it is layered
//!
//! Each module uses those above it in this list, and none below:
//!
//! * `split_mix`, `random`: random numbers;
//! * `network`: the keys of the nodes, and which nodes are close to which keys;
//! * `scenario`: everything that a run depends on;
//! * `activity`, `results`, `event`, `fingerprint`: what is known of a run;
//! * `invariants`: the checks of each call;
//! * `world`: the state of a run, with the queue of scheduled actions;
//! * `run`: the event loop, and what each action does.

// Figures are small numbers, and the simulator draws and averages in floating point.
#![allow(clippy::cast_precision_loss)]

mod activity;
mod event;
mod fingerprint;
mod invariants;
mod network;
mod random;
mod results;
mod run;
mod scenario;
mod split_mix;
mod world;

pub use activity::Activity;
pub use event::SimEvent;
pub use invariants::{Invariant, Violation};
pub use network::handle::{Handle, Key64, Net};
pub use results::broadcast_run::{BroadcastEnding, BroadcastRun};
pub use results::end::End;
pub use results::figures::{BroadcastFigures, Figures, Quantiles};
pub use results::health::{Health, Upkeep};
pub use results::lookup_run::{Asked, Ending, LookupRun, Reason, RequestEnd};
pub use scenario::answers::Answers;
pub use scenario::behaviour::{
    Act, Answer, AskedFor, Behaviour, Censor, Clique, Eclipse, Empty, Flood, Late, MadeUp, Party, Question,
    QuickCrowd, Silent, Turn,
};
pub use scenario::broadcasts::{Broadcasts, Scheme};
pub use scenario::build::{Bootstrap, Build, Join};
pub use scenario::change::{Change, Effect, Sends};
pub use scenario::churn::{Churn, Length};
pub use scenario::dial::Dial;
pub use scenario::interarrival::Interarrival;
pub use scenario::latency::{Latency, LatencyClass, Per, Trip};
pub use scenario::latency_matrix::{LatencyMatrix, MatrixError};
pub use scenario::link::Link;
pub use scenario::partition::Partition;
pub use scenario::sybils::{Place, Placement, Sybils};
pub use scenario::who::Who;
pub use scenario::workload::{Targets, Workload};
pub use scenario::{Scenario, Slow};
pub use world::World;
#[cfg(feature = "record")]
pub use world::recordings::NotRecorded;
