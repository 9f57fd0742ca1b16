//! A Kademlia DHT engine as pure, synchronous state machines. There is no IO in it: no sockets, no clock, no
//! threads, no async runtime, no global state. The caller hands in `(now, event)` and gets back the events that
//! follow, each stamped with the OpenTelemetry span context and the deadline that it inherited. So the same
//! engine runs under any runtime and over any wire protocol, in a fuzzer, and in a simulator under virtual time.
//!
//! # A whole driver
//!
//! ```
//! use kad_proto::coordinator::{Inbound, Outbound};
//! use kad_proto::{Config, Coordinator, Family, Instant, Key8, Machine, Stamped, Start};
//! use std::{sync::mpsc, time::Duration};
//!
//! #[derive(Clone, Debug, PartialEq)]
//! struct Tiny; // names the types of one network: here a node is its 8-bit key
//!
//! impl Family for Tiny {
//!     type Key = Key8;
//!     type Node = Key8;
//!     type Message = ();
//!     fn key(node: &Key8) -> Key8 {
//!         *node
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut dht = Coordinator::<Tiny>::new(Key8::new([0]), Config::default())?;
//! let anchor = std::time::Instant::now();
//! let now = || Instant::from_std(anchor, std::time::Instant::now());
//! let (socket, inbox) = mpsc::channel(); // stands for your IO: what comes in, comes in here
//!
//! let start = Start::find(1, Key8::new([0x42])).with_seeds(vec![Key8::new([0x80])]);
//! let mut event = Stamped::new(Inbound::Start(start)).by(now() + Duration::from_secs(5));
//! let closest = 'lookup: loop {
//!     for out in dht.handle(now(), event) {
//!         match out.event {
//!             // Send it, in the span `out.context`, and expect the answer by `out.deadline`. Here the node answers
//!             // at once: it knows three others.
//!             Outbound::Request(request) => {
//!                 let closer = [0x20, 0x40, 0x41].map(|byte| Key8::new([byte])).to_vec();
//!                 socket.send(Stamped::new(Inbound::Answered { request: request.id, closer }))?;
//!             }
//!             Outbound::Cancel(cancel) => println!("abort the IO of {:?}", cancel.id),
//!             Outbound::Finished(finish) => break 'lookup finish.closest,
//!             _ => {}
//!         }
//!     }
//!     // Wait for what comes in, but no longer than until the engine has something to do by itself.
//!     let wait = dht.poll_timeout().map_or(Duration::from_secs(3600), |at| at - now());
//!     event = match inbox.recv_timeout(wait) {
//!         Ok(answer) => answer,
//!         Err(mpsc::RecvTimeoutError::Timeout) => Stamped::new(Inbound::Tick),
//!         Err(closed) => return Err(closed.into()),
//!     };
//! };
//! assert_eq!(closest[0].node, Key8::new([0x40]), "the distance to 0x42 is 2; that of 0x41 is 3");
//! # Ok(())
//! # }
//! ```
//!
//! That is all there is to driving any of the machines: hand in what happened, do what comes out, and call again
//! with a tick at [`poll_timeout`](Machine::poll_timeout) unless something happens before. One call runs the machine
//! to quiescence; there is nothing to drain, and nothing to poll in a loop.
//!
//! # The machines
//!
//! | machine | what it does |
//! | --- | --- |
//! | [`Coordinator`] | a whole node: lookups, broadcasts and crawls that begin from its routing table, and [the maintenance](routing) of that table |
//! | [`QueryPool`] | many lookups, of which a bounded number runs at once |
//! | [`Query`] | one lookup at a time |
//! | [`Maintenance`] | a routing table that looks after itself, by the four that follow: the coordinator without its lookups |
//! | [`Bootstrap`] | joins: looks up one's own key |
//! | [`Include`] | checks candidates before they enter a routing table |
//! | [`Probe`] | checks the nodes of a routing table, so that the dead leave it |
//! | [`Explore`] | refreshes buckets, on a schedule |
//! | [`BroadcastPool`] | stores records with the nodes closest to their keys, in time |
//! | [`Crawl`] | maps a network: asks every node for what it knows |
//! | [`Network`] | no lookups: requests within limits in flight, per node and in total |
//! | [`NetworkSize`] | an estimate of how many nodes there are, from lookups; plain data |
//! | [`Sweep`] | which nodes are to hold which of many records, by few lookups; plain data |
//! | [`Reprovide`] | when which records are to be stored again, region by region of the key space |
//! | [`RoutingTable`] | k-buckets; plain data rather than a machine, as it wants no wake-up |
//!
//! Each is a value that can be cloned, sent and used alone. The rules that they all keep are stated once:
//! [`context`] says which event carries which span, [`deadline`] until when each matters.
//!
//! Behind features of the same name, as modules:
//!
//! | module | what it does |
//! | --- | --- |
//! | `record` | a coordinator that records what it is told, for replay: a failure in the field becomes a test |
//! | `sim` | a deterministic simulator of whole networks |
//! | `telemetry` | a coordinator whose operations and requests are OpenTelemetry spans, and metrics |
//!
//! # Guarantees
//!
//! * **No panic.** No sequence of events causes one: unknown, late and forged ids are ignored and counted in
//!   [`Traffic`]; a start that cannot be accepted is answered by [`Refused`], which says why; a configuration that
//!   makes no sense is a [`ConfigError`] that names the field. The crate forbids unsafe code.
//! * **Everything ends.** Each accepted start is answered by exactly one finish ([`Finish`] of a lookup), at the first call at
//!   or after its deadline at the latest, and nothing of it comes after that. (What an optimistic broadcast has left to do then
//!   is a [side effect](Owner::Background), with a time-out of its own.)
//! * **Reproducible.** The same construction and the same sequence of calls give the same output, on any platform. Random
//!   numbers come from [a seed](RoutingConfig::seed), and the order of no hash map shows.
//! * **Bounded.** Whatever peers answer: see [`QueryConfig`], [`PoolConfig`], [`NetworkConfig`], [`TableConfig`],
//!   [`RoutingConfig`], [`CrawlConfig`], [`BroadcastConfig`] and [`NetworkSizeConfig`] for the bounds. In steady state an answer causes no heap allocation, as long as no request has to wait (a span
//!   context with a non-empty trace state is the exception: each copy of it is one).
//!
//! # What is not the crate's business
//!
//! Sockets, codecs, timers, encryption, keeping records, serving them: the driver's. Requests that come
//! in from others are answered by the driver from [`RoutingTable::closest`].

pub mod bootstrap;
pub mod broadcast;
mod check;
pub mod context;
pub mod coordinator;
pub mod crawl;
pub mod deadline;
mod error;
mod event;
pub mod explore;
mod family;
mod heap;
mod id;
pub mod include;
mod inflight;
mod job;
mod key;
mod keyspace;
mod lookup;
mod machine;
pub mod maintenance;
pub mod netsize;
pub mod network;
mod operation;
mod outbox;
mod pace;
mod path;
pub mod pool;
pub mod probe;
pub mod query;
#[cfg(feature = "record")]
pub mod record;
pub mod reprovide;
pub mod routing;
#[cfg(feature = "sim")]
pub mod sim;
pub mod sweep;
pub mod table;
mod task;
#[cfg(feature = "telemetry")]
pub mod telemetry;
mod time;
mod turn;

pub use bootstrap::{Bootstrap, BootstrapConfig};
pub use broadcast::{BroadcastConfig, BroadcastPool};
pub use context::Context;
pub use coordinator::{Config, Coordinator};
pub use crawl::{Crawl, CrawlConfig};
pub use error::ConfigError;
pub use event::{
    Ask, Bootstrapped, Cancel, Carried, Contact, Finish, GivenUp, Outcome, Owner, Progress, Record, Refused,
    RefusedBecause, Reply, Request, Start, Started, Statistics,
};
pub use explore::{Explore, ExploreConfig};
pub use family::{Family, Group};
pub use id::{OperationId, RequestId};
pub use include::{Include, IncludeConfig};
pub use key::{Bits, Key, Key8, Key160, Key256, ParseKeyError};
pub use keyspace::{Coverage, Gaps, Prefix};
pub use machine::{Batch, Machine, Stamped};
pub use maintenance::Maintenance;
pub use netsize::{NetworkSize, NetworkSizeConfig};
pub use network::Network;
pub use outbox::{NetworkConfig, Refusal, Traffic};
pub use pool::{PoolConfig, QueryPool};
pub use probe::{Probe, ProbeConfig};
pub use query::{Query, QueryConfig};
pub use reprovide::{Reprovide, ReprovideConfig};
pub use routing::RoutingConfig;
pub use sweep::{Sweep, SweepConfig};
pub use table::{RoutingTable, TableConfig};
pub use time::Instant;

/// Of the crate `opentelemetry`, whose version is therefore part of this crate's interface.
pub use opentelemetry::trace::SpanContext;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
