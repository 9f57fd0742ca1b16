//! Following a lookup: one real trace, from its first span to its last.
//!
//! A node of the example `mainline` looked up a key among 60 nodes of an independent BitTorrent implementation, over UDP, and lost
//! 15 % of what it sent on purpose. Each row is a span, under what led to it; what a collector shows looks much the same.
//!
#![doc = include_str!("lookup.svg")]
//!
//! The lookup was recorded, so that the picture can be made again, and will be the same:
//!
//! ```sh
//! cargo run --release --all-features --example mainline -- \
//!     --replay examples/mainline/lookup.kadrec --svg src/telemetry/lookup.svg
//! ```
//!
//! Without `--svg`, and in every run of the example, the trace is drawn in the terminal; `--json` prints it span by span.
//!
//! # What is seen
//!
//! **0 ms: the root.** The driver hands in the start, and that is the first span, `kad find`. It has no parent here. In a program
//! with a trace of its own, the start would be stamped with the caller's span, and the whole tree would hang under that.
//!
//! **0 ms: three requests, hop 1.** The lookup asks alpha = 3 nodes of those that it begins with. What caused the requests is the
//! start, so they are children of the root ([rule 1](crate::context)).
//!
//! **0.7 ms: the first answer.** The node at `:41458` names 18 others. Its slot is free, so the nearest of them, `:35896`, is asked in
//! the same call. What caused this request is that answer: its span hangs under the span of the request that was answered. One
//! such chain leads from `:41458` to `:38388`, another from `:6881` to `:57429`. The depth of a span tells how long the
//! chain of answers was that led to it; its hop tells something else, the length of the chain of who first named whom (`:38388` had been
//! named by the first seed already: hop 2, at depth 4).
//!
//! **2.2 ms: twelve at once.** The answer of `:38388` is the third in a row (after those of `:40463` and `:47370`) that names nobody new
//! among the k nearest: the lookup stalls, and widens from alpha to k = 20 requests. All that it sends at this moment hangs under
//! this one answer.
//!
//! **2.2 to 86 ms: silence.** Nine of the twelve answer within a millisecond. The datagrams to or from the other three are lost, as is what was
//! said to or by the third seed. Nothing is sent meanwhile: the twenty nearest have answered, or are being waited for.
//!
//! **86 ms: the soft limit.** Time-outs follow the round trips that were observed, and never go below 250 ms here; the soft limit is a
//! third of that. The three silent ones of the twelve have their slots taken away, and are asked once more, as a lost datagram is not a dead node.
//! No answer caused these requests: they hang under the root ([rule 2](crate::context)).
//!
//! **86 ms: two are alive.** `:40717` and `:39986` answer the second request. The first one to each is given up at once:
//! `superseded`, which is no error and is not held against the node. From the answer of `:40717` others become known. As
//! two nodes are silent still, two of these are asked in their stead, and one of them names `:45357`, which is nearer: hop 4.
//!
//! **170 ms: one more soft limit.** `:45357` is asked again, and `:58925` in its stead; both answer. Both hang under the root.
//!
//! **250 ms: the third seed.** `:35037` was asked at 0 ms, when no round trip had been measured yet: its soft limit was the configured
//! 250 ms, its deadline 1 s. It has been silent until now, is asked again, and answers.
//!
//! **253 ms: the end.** `:58433` was asked twice. A request that is repeated after a soft limit has the time-out less that limit, so that
//! both are due at about the same time, here within half a millisecond, and the driver's wake-up notices them in one call: `timed
//! out`, two spans with the status of an error, `error.type` `timeout`. The node is no longer counted upon;
//! the twenty nearest nodes that live have answered, and the root ends: `kad.outcome` `converged`, with
//! `kad.requests` 29, `kad.success` 23, `kad.timeouts` 2, `kad.cancelled` 4, `kad.hops` 4 and the nodes found as `kad.closest`.
//!
//! # What is not seen
//!
//! The nodes that answered, and those that they named, are of use to the routing table too. Where a node keeps one, its checks are traces of
//! their own: they are not this lookup's work, do not end with it, and have no part of its deadline. A check that this lookup
//! led to has a span link to the request whose answer named the node ([rule 4](crate::context)).
//! `cargo run --release --all-features --example mainline -- --stay 10s --trace-upkeep` lists them.
//!
//! # In a tool that you have
//!
//! The example sends its spans and metrics to a collector that takes OTLP over HTTP, without TLS (it is another package then, for what
//! the exporter depends on):
//!
//! ```sh
//! cargo run --release --package mainline-otlp -- --otlp http://127.0.0.1:4318 --nodes 60 --drop 0.15
//! ```
//!
//! In a program of yours, [`Traced`](super::Traced) stands where the [`Coordinator`](crate::Coordinator) stood.
