//! OpenTelemetry spans and metrics of a coordinator (feature `telemetry`).
//!
//! The engine starts no span and reads no clock: it stamps each event with the span context that it inherits.
//! [`Traced`] is a coordinator that starts spans accordingly, with a tracer of yours: a driver that passes its
//! events to a `Traced` instead of a `Coordinator` gets each operation as a trace, without further work. [`Spans`]
//! starts and ends single spans, for drivers that keep spans themselves. [`Metrics`] exports the engine's plain
//! numbers as instruments.
//!
//! This module wraps the coordinator: it sees the events in and out and changes only their contexts. No other
//! room of the engine knows it, and no decision of the engine depends on a tracer.
//!
//! # Spans
//!
//! | span | parent | kind | begins | ends |
//! | --- | --- | --- | --- | --- |
//! | `kad find`, `kad message`, `kad bootstrap`, `kad crawl`, `kad broadcast` | the span of the start's stamp; a new root without one (with a link, if the stamp has one) | internal | with the start | with the finish or the refusal |
//! | `FIND_NODE`, `MESSAGE`, `STORE`, `BATCH`: a request | rules 1 to 3 of [`context`](crate::context): the request whose answer led to it, or its operation; for side effects (rule 4) a new root with a link | client | when the engine emits it | with its answer, failure, time-out or cancel |
//!
//! The status of a span is an error or unset: answers, and requests cancelled through no fault of the node, leave
//! it unset, as OpenTelemetry requires of libraries.
//!
//! The span context of a request replaces the one that the engine stamped it with, so that the driver can send it
//! along (`traceparent`). A response that the driver submits without a context gets that of its request. The
//! tracer keeps what is sampled out sampled out, and carries trace states.
//!
//! | attribute | on | what |
//! | --- | --- | --- |
//! | `rpc.system.name` | requests | `kademlia` |
//! | `rpc.method` | requests | as the name of the span |
//! | `error.type` | requests, operations | why it failed: `timeout`, `failed`, `unreachable`, `connection_refused`, `gone`, `rejected`; `refused`, `deadline exceeded`, `unsuccessful`. If it is set, the status of the span is an error. `unsuccessful` is a broadcast that has not met its [success](crate::broadcast::events::Success); a broadcast that has met it is no error, even at its deadline |
//! | `kad.operation` | operations and their requests | the tag, up to 2^63 - 1 |
//! | `kad.initiator` | requests that are side effects | `bootstrap`, `explore`, `include`, `probe`, `background` |
//! | `kad.target` | all but crawls | the key that is looked up or asked about; of a broadcast, the key of its first record |
//! | `kad.node` | requests | the node, by its `Debug`; it can be [replaced](Spans::describe_nodes) by others, for example `network.peer.address` |
//! | `kad.hop` | requests | length of the causal chain that led to the node: 1 for a seed, else one more than the hop of the answer that first named it |
//! | `kad.deadline.remaining` | all | seconds from its beginning to its deadline |
//! | `kad.end` | requests, and operations that are abandoned | how it ended: `answered`, `failed`, `unreachable`, `connection refused`, `gone`, `rejected`, `timed out`, or why else it was cancelled: `incomplete` (a part of the answer came), `operation ended`, `lookup ended`, `superseded` by another request to the node, `unneeded`; `abandoned`, if [the program ended](Traced::abandon) |
//! | `kad.closer` | requests that were answered | how many nodes the answer names |
//! | `kad.request.size`, `kad.response.size` | requests | bytes, if the driver sets it: [in the task of the engine](Traced::request_span) or [in any other](Traced::share_attributes) |
//! | `kad.outcome` | operations | how it ended |
//! | `kad.sent`, `kad.answered`, `kad.failed`, `kad.timed_out`, `kad.cancelled`, `kad.hops` | operations | its statistics |
//! | `kad.closest` | lookups | the closest nodes that answered: partial, if the outcome says so |
//! | `kad.nodes`, `kad.reachable`, `kad.unreachable`, `kad.edges` | crawls | what was found |
//! | `kad.stores`, `kad.stored`, `kad.refused`, `kad.succeeded` | broadcasts | with how many nodes it was to store, how many have stored, how many have refused to, and whether it is stored with enough |
//!
//! Attributes that begin with `rpc`, `error` or `network` are OpenTelemetry's semantic conventions. Samplers see
//! `rpc.system.name`, `rpc.method`, `kad.operation` and `kad.initiator`: a sampler that drops spans with
//! `kad.initiator` keeps operations, and drops the table maintenance, and what optimistic broadcasts do after
//! their finish (`background`).
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
//! Additional instructions for a lookup of 23 requests, for which the coordinator alone needs 191,300
//! (`benches/instructions`):
//!
//! | | additional |
//! | --- | --- |
//! | [off](Traced::off), or no tracer installed | 900: each call moves the event once more |
//! | sampled out | 66,000 |
//! | all spans made by OpenTelemetry's SDK, without a span processor | 785,000, most of them for the text of attributes |
//! | [metrics](Metrics), by OpenTelemetry's SDK | 122,000 |

pub mod following_a_lookup;
mod metrics;
mod span_attributes;
mod spans;
mod traced;

pub use metrics::Metrics;
pub use span_attributes::SpanAttributes;
pub use spans::{RequestEnd, Spans};
pub use traced::Traced;
