//! A deterministic simulator: a whole network of real coordinators in one process, under virtual time.
//!
//! Feature `sim`. Like the engine it is pure: a [`Scenario`] with its seed goes in, [events](Event) and
//! [`Figures`] come out. It reads no clock, starts no thread and keeps nothing global; the same scenario gives the
//! same events on every platform, as [`World::fingerprint`] shows.
//!
//! Networks begin with ideal tables, or nodes join one by one ([`Build`]). [Links](Link) delay, lose, duplicate and
//! reorder; [partitions](Partition) cut. Nodes are dead, hidden or [slow](Slow), [come and go](Churn), or follow a
//! [`Behaviour`] that is not honest. The [workload](Workload) is lookups and messages, each with a deadline and a trace
//! of its own; [broadcasts](Broadcasts) store records, and each node keeps which it holds. Where the scenario says so, every call of every engine is judged by the contract's [rules](Rule), and
//! what is [broken](Broken) comes with the seed and the command that shows it again. With the feature `record`, nodes that were
//! [chosen](World::record) record all that they are told, and their recordings are replayed without the rest of the network.
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

// Figures are small numbers, and the simulator draws and averages in floating point.
#![allow(clippy::cast_precision_loss)]

mod behaviour;
mod broadcast;
mod check;
mod churn;
mod drive;
mod event;
mod exchange;
mod figures;
mod health;
mod ideal;
mod join;
mod life;
mod link;
mod lookup;
mod node;
mod nodes;
mod partition;
mod publish;
mod queue;
mod random;
mod scenario;
mod sybils;
#[cfg(feature = "record")]
mod tapes;
mod workload;
mod world;

pub use behaviour::{Answer, Behaviour, Eclipse, Empty, Late, MadeUp, Party, Question, Silent};
pub use broadcast::{Broadcast, BroadcastEnding, Broadcasts, Scheme};
pub use check::{Broken, Rule};
pub use churn::{Churn, Length};
pub use event::{Event, Work};
pub use figures::{BroadcastFigures, Figures, Quantiles};
pub use health::{Health, Upkeep};
pub use join::{Bootstrap, Build, Join};
pub use link::{Latency, Link};
pub use lookup::{Asked, End, Ending, Fate, Lookup, Reason};
pub use nodes::{Handle, Key64, Net};
pub use partition::Partition;
pub use scenario::{Scenario, Slow};
pub use sybils::Sybils;
#[cfg(feature = "record")]
pub use tapes::NotRecorded;
pub use workload::{Pace, Workload};
pub use world::World;
