//! Spans and metrics of a coordinator, for whoever uses OpenTelemetry (feature `telemetry`).
//!
//! The engine starts no span and reads no clock: it says which span context each event inherits. [`Traced`] is a coordinator
//! that makes spans of that, by a tracer of yours: a driver that hands its events to a `Traced` instead of a `Coordinator` sees
//! each operation as a trace, without further work; [`Spans`] makes single ones, for drivers that go about it in another way.
//! [`Metrics`] makes instruments of the engine's plain numbers.
//!
//! # Spans
//!
//! | span | parent | kind | begins | ends |
//! | --- | --- | --- | --- | --- |
//! | `kad find`, `kad message`, `kad bootstrap`, `kad crawl`, `kad broadcast` | the span of the start's stamp; a new root without one (with a link, where the stamp has one) | internal | with the start | with the finish or the refusal |
//! | `FIND_NODE`, `MESSAGE`, `STORE`, `BATCH`: a request | rules 1 to 3 of [`context`](crate::context): the request whose answer led to it, or its operation; for side effects (rule 4) a new root with a link | client | when the engine says it | with its answer, failure, time-out or cancel |
//!
//! A span has the status of an error, or none: an answer and what was given up through no fault of the node leave it unset, as
//! OpenTelemetry wants of libraries.
//!
//! The request's own context takes the place of what the engine stamped it with, so that the driver can send it along
//! (`traceparent`); an answer that the driver hands in without a context gets that of its request. Who is sampled out stays
//! sampled out, and trace states are carried, as the tracer sees to both.
//!
//! | attribute | on | what |
//! | --- | --- | --- |
//! | `rpc.system.name` | requests | `kademlia` |
//! | `rpc.method` | requests | as the name of the span |
//! | `error.type` | requests, operations | why it failed: `timeout`, `failed`, `rejected`; `refused`, `deadline exceeded`, `unsuccessful`: a broadcast that has not met its [success](crate::broadcast::Success), while one that has is no error whatever its time. Its status is an error then |
//! | `kad.operation` | operations and their requests | the tag, up to 2^63 - 1 |
//! | `kad.owner` | requests that are side effects | `bootstrap`, `explore`, `include`, `probe`, `background` |
//! | `kad.target` | all but crawls | the key that is approached, or asked about; of a broadcast that of its first record |
//! | `kad.node` | requests | the node, by its `Debug`; [others](Spans::describe_nodes) in its stead, `network.peer.address` say |
//! | `kad.hop` | requests | length of the causal chain of who first named whom |
//! | `kad.deadline.remaining` | all | seconds from its begin to its deadline |
//! | `kad.end` | requests, and operations that are abandoned | how it ended: `answered`, `failed`, `rejected`, `timed out`, or why else it was given up: `operation ended`, `lookup ended`, `superseded` by another request to the node, `unneeded`; `abandoned`, where [the program ended](Traced::abandon) |
//! | `kad.closer` | requests that were answered | how many nodes the answer names |
//! | `kad.request.size`, `kad.response.size` | requests | bytes, where the driver [says so](Traced::request_span) |
//! | `kad.outcome` | operations | how it ended |
//! | `kad.requests`, `kad.success`, `kad.failure`, `kad.timeouts`, `kad.cancelled`, `kad.hops` | operations | its statistics |
//! | `kad.closest` | lookups | the closest nodes that answered: partial, where the outcome says so |
//! | `kad.nodes`, `kad.reachable`, `kad.unreachable`, `kad.edges` | crawls | what was found |
//! | `kad.stores`, `kad.stored`, `kad.succeeded` | broadcasts | with how many nodes it was to store, how many have, and whether that was enough |
//!
//! Those that begin with `rpc`, `error` or `network` are OpenTelemetry's semantic conventions. Samplers are shown `rpc.system.name`,
//! `rpc.method`, `kad.operation` and `kad.owner`: one that keeps what has no owner keeps operations, and drops the upkeep (and what optimistic broadcasts do after their
//! finish, which has the owner `background`).
//!
//! # Metrics
//!
//! See [`Metrics`].
//!
//! # An example
//!
//! [`following_a_lookup`] walks through one real trace.
//!
//! # What it costs
//!
//! Instructions of a lookup of 23 requests, which is 192,000 by the coordinator as it is (`benches/instructions`):
//!
//! | | more |
//! | --- | --- |
//! | [off](Traced::off), or no tracer installed | 900: the event is moved once more by each call |
//! | sampled out | 66,000 |
//! | all spans made by OpenTelemetry's SDK, without a span processor | 785,000, of which most is the text of attributes |
//! | [metrics](Metrics), by OpenTelemetry's SDK | 122,000 |

pub mod following_a_lookup;
mod metrics;
mod spans;
mod traced;

pub use metrics::Metrics;
pub use spans::{RequestEnd, Spans};
pub use traced::Traced;
