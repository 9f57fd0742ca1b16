//! Following a lookup: one real trace, explained from its first span to its last.
//!
//! A node of the example `mainline` looked up a key among 60 nodes of an independent BitTorrent implementation,
//! over UDP, and dropped 15 % of what it sent on purpose. Each row is a span, below its parent; a collector shows
//! much the same.
//!
#![doc = include_str!("lookup.svg")]
//!
//! The lookup was recorded, so the picture can be reproduced exactly:
//!
//! ```sh
//! cargo run --release -p kad-mainline -- \
//!     --replay tests/recordings/lookup.kadrec --svg src/telemetry/lookup.svg
//! ```
//!
//! Without `--svg`, and in every run of the example, the trace is drawn in the terminal; `--json` prints it span
//! by span.
//!
//! # What the trace shows
//!
//! **0 ms: the root.** The driver submits the start, which begins the first span, `kad find`. It has no parent
//! here. In a program with a trace of its own, the start would be stamped with the caller's span, which would be
//! the parent of the whole tree.
//!
//! **0 ms: three requests, hop 1.** The lookup asks alpha = 3 of its seeds. The start caused these requests, so
//! they are children of the root ([rule 1](crate::context)).
//!
//! **0.7 ms: the first answer.** The node at `:41458` names 18 others. Its slot is free, so the nearest of them,
//! `:35896`, is asked in the same call. That answer caused this request, so its span is a child of the span of the
//! answered request. One such chain leads from `:41458` to `:38388`, another from `:6881` to `:57429`. The depth
//! of a span is the length of the chain of answers that led to it. Its hop is different: the length of the chain
//! of nodes that first named each other (`:38388` had been named by the first seed already: hop 2, at depth 4).
//!
//! **2.2 ms: twelve at once.** The answer of `:38388` is the third in a row (after those of `:40463` and `:47370`)
//! that names no new node among the k nearest: the lookup stalls, and widens from alpha to k = 20 requests. All
//! requests that it sends at this moment are children of this one answer's request.
//!
//! **2.2 to 86 ms: silence.** Nine of the twelve answer within a millisecond. The datagrams to or from the other
//! three are lost, as are those to or from the third seed. Nothing is sent meanwhile: the twenty nearest have
//! answered, or their answers are awaited.
//!
//! **86 ms: the soft limit.** Time-outs adapt to the observed round trips, and are never below 250 ms here; the
//! soft limit is a third of that. The three silent nodes of the twelve lose their slots, and are asked once more,
//! as a lost datagram does not mean a dead node. No answer caused these requests: they are children of the root
//! ([rule 2](crate::context)).
//!
//! **86 ms: two are alive.** `:40717` and `:39986` answer the second request. The first request to each is
//! cancelled at once as `superseded`, which is no error and does not count against the node. The answer of
//! `:40717` names new nodes. As two nodes are still silent, two of the new nodes are asked instead, and one of
//! them names `:45357`, which is nearer: hop 4.
//!
//! **170 ms: one more soft limit.** `:45357` is asked again, and `:58925` is asked instead of it; both answer.
//! Both spans are children of the root.
//!
//! **250 ms: the third seed.** `:35037` was asked at 0 ms, when no round trip had been measured yet: its soft
//! limit was the configured 250 ms, its deadline 1 s. It has been silent until now; it is asked again, and
//! answers.
//!
//! **253 ms: the end.** `:58433` was asked twice. The time-out of a request that is repeated after a soft limit is
//! shorter by that limit, so both are due at about the same time, here within half a millisecond, and end in one
//! call at the driver's wake-up: `timed out`, two spans with the status of an error, `error.type` `timeout`. The
//! node now counts as failed; the twenty nearest live nodes have answered, and the root ends: `kad.outcome`
//! `converged`, with `kad.sent` 29, `kad.answered` 23, `kad.timed_out` 2, `kad.cancelled` 4, `kad.hops` 4 and
//! the nodes found as `kad.closest`.
//!
//! # What the trace does not show
//!
//! The nodes that answered, and those that they named, are candidates for the routing table. If a node has
//! one, its checks are separate traces: they are not part of this lookup, do not end with it, and do not
//! inherit its deadline. A check that this lookup led to has a span link to the request whose answer named
//! the node ([rule 4](crate::context)). `cargo run --release -p kad-mainline -- --stay 10s --trace-upkeep`
//! lists these checks.
//!
//! # In a collector
//!
//! The example can send its spans and metrics to a collector by OTLP over HTTP, without TLS (in a package of its
//! own, because of the exporter's dependencies):
//!
//! ```sh
//! cargo run --release -p kad-mainline --features otlp -- --otlp http://127.0.0.1:4318 --nodes 60 --drop 0.15
//! ```
//!
//! In your program, [`Traced`](super::Traced) takes the place of the [`Coordinator`](crate::Coordinator).
