//! A Kademlia DHT engine as pure, synchronous state machines. There is no IO in it: no sockets, no clock, no
//! threads, no async runtime, no global state. The caller submits `(now, event)` and gets back the events that
//! follow, each stamped with the OpenTelemetry span context and the deadline that it inherited. So the same
//! engine runs under any runtime and over any wire protocol, in a fuzzer, and in a simulator under virtual time.
//!
//! # A whole driver
//!
//! ```
//! use kad_proto::coordinator::{Inbound, Outbound};
//! use kad_proto::{Config, Coordinator, Family, Instant, Key8, Machine, Response, Secret, Stamped, Start};
//! use std::{sync::mpsc, time::Duration};
//!
//! #[derive(Clone, Debug, Default, PartialEq)]
//! struct Tiny; // names the types of one network: here a node is its 8-bit key
//!
//! impl Family for Tiny {
//!     type Key = Key8;
//!     type Target = Key8;
//!     type Node = Key8;
//!     type Message = ();
//!     fn key(node: &Key8) -> Key8 {
//!         *node
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // All that strangers must not guess is derived from the secret: 32 random bytes.
//! let secret = Secret::new(rand::random());
//! let mut dht = Coordinator::<Tiny>::new(Key8::new([0]), Config::default(), &secret)?;
//! let anchor = std::time::Instant::now();
//! let now = || Instant::from_std(anchor, std::time::Instant::now());
//! let (socket, inbox) = mpsc::channel(); // stands for your IO: the channel delivers inbound events
//!
//! let start = Start::find(1, Key8::new([0x42])).with_seeds(vec![Key8::new([0x80])]);
//! let mut event = Stamped::new(Inbound::from(start)).with_deadline(now() + Duration::from_secs(5));
//! let closest = 'lookup: loop {
//!     for out in dht.handle(now(), event) {
//!         match out.event {
//!             // Send it, in the span `out.context`, and expect the answer by `out.deadline`. Here the node
//!             // answers at once: it knows three others.
//!             Outbound::Request(request) => {
//!                 let closer = [0x20, 0x40, 0x41].map(|byte| Key8::new([byte])).to_vec();
//!                 socket.send(Stamped::new(Response::answered(request.id, closer).into()))?;
//!             }
//!             Outbound::Cancel(cancel) => println!("abort the IO of {:?}", cancel.id),
//!             Outbound::Finished(finish) => break 'lookup finish.closest,
//!             _ => {}
//!         }
//!     }
//!     // Wait for an inbound event, but no longer than until the engine has something to do by itself.
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
//! Every machine is driven in this way: submit what happened, act on each event that is returned, and call
//! again with a tick at [`poll_timeout`](Machine::poll_timeout) unless something happens before. One call
//! runs the machine to quiescence; there is nothing to drain, and nothing to poll in a loop.
//!
//! # Where to go from here
//!
//! The [`guide`] has a page for each task: [embedding](guide::embedding) the engine, [looking up](guide::looking_up),
//! [storing](guide::storing), [maintaining a table](guide::maintaining_a_table), [bringing your own
//! wire](guide::bring_your_own_wire), simulating, recording, tracing, [testing](guide::testing). For reference: [`coordinator`] says which event may follow which, [`context`] which span
//! an event carries, [`deadline`] until when requests and operations live.
//!
//! # The machines
//!
//! Each is a value that can be cloned, sent and used alone. The constructor of each takes a [`Secret`] where it needs
//! one.
//!
//! | machine | what it does |
//! | --- | --- |
//! | [`Coordinator`] | a whole node: lookups, broadcasts and crawls that begin from its routing table, and [the maintenance](routing) of that table |
//! | [`QueryPool`] | many lookups, of which a bounded number runs at once |
//! | [`Query`] | one lookup at a time |
//! | [`Maintenance`] | a routing table that keeps itself up to date, by the four that follow: the coordinator without its lookups |
//! | [`Bootstrap`] | joins a network: looks up the node's own key |
//! | [`Include`] | checks candidates before they enter a routing table |
//! | [`Probe`] | checks the nodes of a routing table, so that the dead leave it |
//! | [`Explore`] | refreshes buckets, on a schedule |
//! | [`BroadcastPool`] | stores records with the nodes closest to their keys, in time |
//! | [`Crawl`] | maps a network: asks every node for its routing table, bucket by bucket |
//! | [`Network`] | no lookups: requests within limits in flight, per node and in total |
//! | [`Reprovide`] | emits which records are to be stored again, and when, region by region of the key space |
//!
//! Plain data rather than machines, as they need no wake-up:
//!
//! | data | what it is |
//! | --- | --- |
//! | [`RoutingTable`] | k-buckets |
//! | [`NetworkSize`] | an estimate of the number of nodes in the network, from lookups |
//! | [`Sweep`] | which nodes are to store which of many records, found by few lookups |
//!
//! Behind features of the same name, as modules:
//!
//! | module | what it does |
//! | --- | --- |
//! | `record` | a coordinator that records what it receives, for replay: a failure in the field becomes a test |
//! | `sim` | a deterministic simulator of whole networks |
//! | `testing` | the contract of every machine as a checker over any events, for tests of families and drivers |
//! | `telemetry` | a coordinator whose operations and requests are OpenTelemetry spans, and metrics |
//!
//! # Guarantees
//!
//! * **No panic.** No sequence of events causes one: unknown and late ids are ignored and counted in
//!   [`RequestStats`]; a start that cannot be accepted is answered by [`Refused`], which says why; a configuration that
//!   makes no sense is a [`ConfigError`] that names the field. The crate forbids unsafe code.
//! * **Everything ends.** Each accepted start is answered by exactly one finish ([`Finish`] of a lookup), at
//!   the first call at or after its deadline at the latest, and no event of it comes after that. (What an
//!   optimistic broadcast has left to do then is a [side effect](Initiator::Background), with a time-out of
//!   its own.)
//! * **Reproducible.** The same construction and the same sequence of calls give the same output, on any
//!   platform. Random numbers are derived from the [`Secret`], and the iteration order of a hash map never
//!   influences the output.
//! * **Bounded.** The memory is bounded, whatever peers answer: see [`QueryConfig`], [`PoolConfig`],
//!   [`NetworkConfig`], [`TableConfig`], [`RoutingConfig`], [`CrawlConfig`], [`BroadcastConfig`] and
//!   [`NetworkSizeConfig`] for the bounds. In steady state an answer causes no heap allocation, as long as no
//!   request has to wait (a span context with a non-empty trace state is the exception: each copy of it is
//!   one).
//!
//! # What is not the crate's business
//!
//! Sockets, codecs, timers, encryption, and storing and serving records are the driver's. The driver answers
//! the queries of other nodes from [`RoutingTable::closest`]. On an unauthenticated wire, the driver names
//! its requests by [their tokens](Request::token), not by their ids, which can be
//! [guessed](guide::embedding#transaction-ids-on-an-unauthenticated-wire).

pub mod broadcast;
mod collections;
pub mod context;
pub mod coordinator;
pub mod crawl;
pub mod deadline;
pub mod guide;
pub mod lookups;
pub mod maintenance;
pub mod network_size;
mod operations;
#[cfg(feature = "record")]
pub mod record;
pub mod requests;
pub mod routing;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "telemetry")]
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
mod vocabulary;

pub use broadcast::regions::{Coverage, Gaps, Prefix};
pub use broadcast::reprovide::{Reprovide, ReprovideConfig};
pub use broadcast::sweep::{Sweep, SweepConfig};
pub use broadcast::{BroadcastConfig, BroadcastPool, StartBroadcast};
pub use context::Context;
pub use coordinator::{Config, Coordinator};
pub use crawl::{Crawl, CrawlConfig, StartCrawl};
pub use lookups::config::QueryConfig;
pub use lookups::query::Query;
pub use lookups::query_pool::QueryPool;
pub use maintenance::bootstrap::Bootstrap;
pub use maintenance::explore::Explore;
pub use maintenance::{Maintenance, MaintenanceConfig};
pub use network_size::{NetworkSize, NetworkSizeConfig};
pub use operations::config::PoolConfig;
pub use requests::config::NetworkConfig;
pub use requests::network::Network;
pub use requests::request_queue::SubmitRefusal;
pub use requests::stats::RequestStats;
pub use routing::bootstrap_schedule::BootstrapConfig;
pub use routing::candidate_list::IncludeCounts;
pub use routing::candidate_queue::IncludeConfig;
pub use routing::config::{RoutingConfig, RoutingCounts};
pub use routing::events::{Bootstrapped, RoutingInbound, RoutingOutbound};
pub use routing::explore_schedule::{ExploreConfig, Schedule};
pub use routing::include::Include;
pub use routing::probe::Probe;
pub use routing::probe_list::{ProbeConfig, ProbeCounts};
pub use routing::table::{RoutingTable, SavedNode, TableConfig};
pub use routing::table_view::TableView;
pub use vocabulary::config_error::ConfigError;
pub use vocabulary::family::{AnswerScope, Family, Group, ToldBy};
pub use vocabulary::id::{OperationId, RequestId};
pub use vocabulary::key::{Bits, Key, Key8, Key160, Key256, ParseKeyError};
pub use vocabulary::machine::{Batch, Machine, Stamped};
pub use vocabulary::operation_events::{
    Contact, Finish, OperationInbound, OperationOutbound, OperationStats, Outcome, Progress, RefusalReason,
    Refused, Start, Started, ValueReport,
};
pub use vocabulary::region::{RegionReport, SizeBasis};
pub use vocabulary::request_events::{
    Answer, AnswerExtra, Ask, Cancel, CancelReason, Failure, Initiator, Record, Request, RequestOutcome,
    Response, Verdict,
};
pub use vocabulary::secret::{Secret, WireToken};
pub use vocabulary::target::Target;
pub use vocabulary::time::Instant;

/// Of the crate `opentelemetry`, whose version is therefore part of this crate's interface.
pub use opentelemetry::trace::SpanContext;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
