//! The contract of the machines, as a checker that follows one machine by its events.
//!
//! Feature `testing`. A [`ContractChecker`] sees every event into a machine and out of it. It keeps its own model
//! of each operation, of the requests in flight and of the routing table, and checks every outbound event and what
//! holds after every call: that contexts and deadlines follow [their](crate::context) [rules](crate::deadline),
//! that each start has one answer and one finish, that each request ends once, that counters add up, that limits
//! are kept, that the machine wants to be woken up in time, and that each operation requests and reports what one
//! of its kind may. It holds for any configuration, any [`Family`](crate::Family) and any sequence of events,
//! sensible or not, with one exception: it does not follow bans, nor a change of the family's value or of the node's id. After
//! [`Banned`, `Family` and `Identity`](crate::RoutingInbound) it may report what is right. The simulator (feature `sim`) and this
//! crate's property tests and fuzz targets use the same checker.
//!
//! # In a property test
//!
//! [`ContractChecker::call`] takes the place of [`Machine::handle`](crate::Machine::handle), and panics where the
//! machine breaks a rule. Here, a family and the nodes of a network, which a test would draw at random:
//!
//! ```
//! use kad_proto::coordinator::{Inbound, Outbound};
//! use kad_proto::testing::ContractChecker;
//! use kad_proto::{Config, Family, Instant, Key8, Query, Response, Secret, Stamped, Start};
//! use std::time::Duration;
//!
//! #[derive(Clone, Debug, Default, PartialEq)]
//! struct Tiny;
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
//! # fn main() -> Result<(), kad_proto::ConfigError> {
//! let (local, config) = (Key8::new([0]), Config::default());
//! let mut query = Query::<Tiny>::new(local, config.query.clone(), config.network.clone(), &Secret::from_seed(1))?;
//! let mut checker = ContractChecker::new(local, config)?;
//!
//! let mut now = Instant::from_secs(1);
//! let start = Start::find(7, Key8::new([0x42])).with_seeds(vec![Key8::new([0x80])]);
//! checker.call(&mut query, now, &Stamped::new(start.into()));
//! // The checker knows the requests in flight. The node 0x41 does not answer.
//! while let Some((request, sent)) = checker.requests().first() {
//!     now = now + Duration::from_millis(30);
//!     let response = match sent.node {
//!         node if node == Key8::new([0x41]) => Response::failed(*request),
//!         _ => Response::answered(*request, [0x20, 0x40, 0x41].map(|byte| Key8::new([byte])).to_vec()),
//!     };
//!     for out in checker.call(&mut query, now, &Stamped::new(response.into())) {
//!         if let Outbound::Finished(finish) = out.event {
//!             assert_eq!(finish.closest.len(), 3);
//!         }
//!     }
//! }
//! assert_eq!(checker.check_ended(Instant::FAR_FUTURE), Ok(()));
//! # Ok(())
//! # }
//! ```
//!
//! The events are those of a coordinator, which contain those of all others, so that one test can be played
//! against several machines: see [`MachineUnderTest`]. A driver that contains a machine implements it too, and is
//! then tested for passing events on as they are.
//!
//! # Around a machine
//!
//! [`Checked`] stands where a [`Coordinator`](crate::Coordinator) stood in your driver, and judges both sides: the machine by this
//! contract, and the driver by what a machine asks of it. It names each [fault](DriverFault) of the driver: an answer after its
//! cancel, an answer twice, an answer outside of its request's trace, a late wake-up, a tick without need. [`terminates`] is a whole
//! driver under virtual time, for a network that you make up: it runs operations to their ends.
//!
//! # Scenarios
//!
//! [`check`] makes a [`Scenario`] of any bytes and plays it against a machine, for any family that is a [`Sample`]: a fuzz target is
//! one call. With the feature `proptest`, the module `strategies` draws scenarios and their parts. See
//! [the guide](crate::guide::testing#property-test-your-own-dht-in-twenty-lines).
//!
//! # Beside a driver
//!
//! Who drives a machine already, as the simulator does, has each call checked by [`ContractChecker::check`]. It
//! returns the broken rule as a value. [`without_models`](ContractChecker::without_models) makes that cheap enough
//! for thousands of nodes: which requests an operation may send is then not checked, but everything that a driver
//! relies on is.
//!
//! # What is in which file
//!
//! | file | what it checks |
//! | --- | --- |
//! | `checker.rs` | the stamps, and that each event may come now; what is called by tests |
//! | `checked.rs`, `driver_fault.rs` | a machine and its driver, from between them |
//! | `scenario.rs`, `world.rs`, `sample.rs`, `draw.rs` | nothing itself: random worlds, for any family |
//! | `small_network.rs`, `strategies.rs` | nothing itself: what a property test draws |
//! | `operation_rules.rs`, `request_rules.rs` | starts, refusals, finishes; requests and their endings |
//! | `side_effects.rs`, `table_rules.rs` | the stamps of side effects; the routing table |
//! | `call_invariants.rs` | what holds between calls: the order of running, counters, limits, the wake-up |
//! | `background_operations.rs` | what an optimistic broadcast still does after its finish |
//! | `operation_model.rs` | nothing itself: the trait of the models |
//! | `lookup_model.rs`, `candidate_model.rs` | which node a lookup may ask, and when and how it ends |
//! | `crawl_model.rs` | the same of a crawl |
//! | `broadcast_model.rs` | with which nodes a broadcast stores, and when |
//! | `report_model.rs` | without models: the closest nodes and the stores that a finish reports |

mod background_operations;
mod broadcast_model;
pub(crate) mod broken;
mod call_invariants;
mod candidate_model;
mod checked;
pub(crate) mod checker;
mod common_parts;
mod crawl_model;
mod draw;
mod driver_fault;
mod expected_start;
mod lookup_model;
mod machine_under_test;
mod node_map;
mod operation_model;
mod operation_rules;
mod report_model;
mod request_in_flight;
mod request_rules;
mod sample;
mod scenario;
mod side_effects;
mod small_network;
#[cfg(feature = "proptest")]
pub mod strategies;
mod table_rules;
mod target;
#[cfg(test)]
#[allow(clippy::indexing_slicing)] // a test may fail so
mod tests;
mod value_model;
mod world;

pub use broken::Broken;
pub use checked::{Checked, Fate, Fault, terminates};
pub use checker::ContractChecker;
pub use draw::Draw;
pub use driver_fault::DriverFault;
pub use machine_under_test::MachineUnderTest;
pub use request_in_flight::RequestInFlight;
pub use sample::{REFUSED, Sample};
pub use scenario::{MachineKind, Scenario};
pub use small_network::{Manner, SmallNetwork};
pub use world::{Tally, check};
