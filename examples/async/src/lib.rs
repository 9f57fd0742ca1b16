//! The DHT engine [`kad_proto`] for async runtimes: bring a transport, get a handle whose calls are futures and streams.
//!
//! The engine decides, and does no IO. Every program that embeds it in an async runtime writes the same loop around it:
//! requests become futures, cancels abort them, one timer wakes the engine, callers wait for their operations. This crate
//! is that loop, once. It depends on no runtime: the node is one future, which any executor polls.
//!
//! | you bring | you get |
//! | --- | --- |
//! | a [`Transport`]: one async method, which sends a request and returns the answer | a [`Dht`]: [`find_node`](Dht::find_node), [`get`](Dht::get), [`get_providers`](Dht::get_providers), [`put`](Dht::put), [`provide`](Dht::provide), [`bootstrap`](Dht::bootstrap), [`crawl`](Dht::crawl) |
//! | a [`Timer`]: those of tokio and smol are features of this crate | a future that runs the node |
//! | a [`Wire`]: the types of your network | answers to the queries of others: [`serve`](Dht::serve) |
//! | if you like, a [`Store`] | a store in memory that is bounded, expires, and lets nobody have all of it |
//!
//! # A whole program
//!
//! ```
//! # #[cfg(not(feature = "tokio"))]
//! # fn main() {}
//! # #[cfg(feature = "tokio")] mod example {
//! use kad_proto::{Config, Failure, Family, Key256, RoutingInbound, Secret};
//! use kad_proto_async::{Call, Dht, Node, Payload, Reply, TokioTimer, Transport, Wire};
//! use std::collections::HashMap;
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! #[derive(Clone, Debug, Default, PartialEq)]
//! struct Mine; // names the types of one network: here a node is its key
//!
//! impl Family for Mine {
//!     type Key = Key256;
//!     type Target = Key256;
//!     type Node = Key256;
//!     type Message = Payload<Mine>;
//!     fn key(node: &Key256) -> Key256 {
//!         *node
//!     }
//! }
//!
//! impl Wire for Mine {
//!     type Value = Vec<u8>;
//!     type Provider = Key256;
//! }
//!
//! type Peers = Arc<Mutex<HashMap<Key256, Dht<Mine>>>>; // stands for the network
//!
//! struct Link(Key256, Peers); // your IO: encode `call.ask`, send it to `call.node`, wait, decode the answer
//!
//! impl Transport<Mine> for Link {
//!     async fn request(&self, call: Call<Mine>) -> Result<Reply<Mine>, Failure<Mine>> {
//!         let peer = self.1.lock().unwrap().get(&call.node).cloned().ok_or(Failure::Unreachable)?;
//!         // On the other side, for each query that comes in: answer it, then report who asked.
//!         let answer = peer.serve(&call.target, &call.ask, None);
//!         peer.report(RoutingInbound::Discovered(self.0));
//!         answer.map_err(|refusal| Failure::Rejected(Payload::Reason(refusal.to_string())))
//!     }
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! pub async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let (peers, first) = (Peers::default(), Key256::new([0; 32]));
//!     for byte in 0..30 {
//!         let (id, secret) = (Key256::new([byte; 32]), Secret::new(rand::random()));
//!         let node = Node::new(id, Config::default(), &secret)?;
//!         let (dht, run) = node.run(Link(id, peers.clone()), TokioTimer::new())?;
//!         tokio::spawn(run);
//!         peers.lock().unwrap().insert(id, dht.clone());
//!         dht.bootstrap(vec![first]).await?;
//!     }
//!     let (dht, key) = (peers.lock().unwrap()[&first].clone(), Key256::new([0xaa; 32]));
//!     let stored = dht.put(key, b"a record".to_vec()).within(Duration::from_secs(5)).await?;
//!     println!("{} nodes store it", stored.stores.len());
//!     let mut found = dht.get(key).enough(2).start();
//!     while let Some(found) = found.next().await {
//!         assert_eq!(found.item, b"a record"); // dropping `found` would abort its requests
//!     }
//!     dht.shutdown().await;
//!     Ok(())
//! }
//! # }
//! # #[cfg(feature = "tokio")]
//! # fn main() { example::main().unwrap() }
//! ```
//!
//! # What is promised
//!
//! * **A dropped call is cancelled.** The engine stops the operation, and the futures of its requests are dropped, in the same
//!   turn of the loop. Nothing of it is left.
//! * **Every call ends.** By itself, by the deadline of the call ([`within`](Operation::within), [`until`](Operation::until)) or
//!   by the configured time-out, with what it has found by then: the finish says which. At [`Dht::shutdown`] too.
//! * **Nobody holds up others.** A caller who does not read [misses](Running::missed) items; operations beyond
//!   [`Limits::operations`] wait in their callers' futures, until their deadline at most; every queue is bounded.
//! * **Nothing is polled in vain.** There is one timer, set to the engine's next wake-up exactly. A node at rest does nothing.
//! * **What has arrived comes before time.** Answers that are there when the timer fires are handed over before the tick; those that
//!   say [when they arrived](Reply::arrived) count as of then.
//!
//! # Spans
//!
//! Give [`Node::with_engine`] a `kad_proto::telemetry::Traced`, and each operation is a trace. With the feature `telemetry` of this
//! crate, the future of each request runs within its request's span, so that what the transport traces belongs there.
//! [`Operation::in_span`] makes a call a part of the caller's own trace. Without all that, nothing is paid for it.
//!
//! # Not the kit's business
//!
//! Codecs and sockets; tokens of unauthenticated wires (the transport makes and checks them, before it calls [`Dht::serve`]);
//! answers in parts, which the transport puts together. Transports and timers must be `Send`, so a browser's need a wrapper.

pub use handle::Dht;
pub use mailbox::{Error, Found};
pub use node::{Limits, Node};
pub use operation::{Broadcast, Crawl, Finishing, Kind, Lookup, Operation, Providers, Running, Values};
pub use store::{MemoryStore, Refusal, Store, StoreLimits};
#[cfg(feature = "smol")]
pub use transport::SmolTimer;
#[cfg(feature = "tokio")]
pub use transport::TokioTimer;
pub use transport::{Call, Timer, Transport};
pub use wire::{Payload, Reply, Wire};

mod event_loop;
mod handle;
mod mailbox;
mod node;
mod operation;
mod repeat;
mod store;
mod transport;
mod wire;
