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
//! **0.2 ms: the first answer.** The node at `:43314` names 20 others. Its slot is free, so the nearest of them,
//! `:39469`, is asked in the same call. That answer caused this request, so its span is a child of the span of the
//! answered request. One such chain leads from `:43314` to `:34311`, another from `:6881` to `:40754`. The depth
//! of a span is the length of the chain of answers that led to it. Its hop is different: the length of the chain
//! of nodes that first named each other (`:34311` had been named by the first seed already: hop 2, at depth 4).
//!
//! **0.8 ms: six at once.** Three answers in a row have named no new node among the k nearest: the lookup stalls, and
//! widens from alpha to k = 20 requests. All requests that it sends at this moment are children of the request whose
//! answer was the third, that of `:46507`. Whenever one of them is answered, the next nearest node is asked.
//!
//! **1.9 to 85 ms: silence.** All have answered but one, `:60431`: a datagram to it or from it is lost. Nothing is sent
//! meanwhile: the twenty nearest have answered, or their answers are awaited.
//!
//! **85 ms: the soft limit.** How long to wait follows the observed round trips, and is never below 250 ms here; the
//! soft limit is never below a third of that. The silent node loses its slot, and is asked once more, as a lost datagram
//! does not mean a dead node; and `:44692` is asked instead of it. No answer caused these requests: they are children of
//! the root ([rule 2](crate::context)).
//!
//! **85 ms: it is alive.** `:60431` answers the second request. The first request to it is cancelled at once as
//! `superseded`, which is no error and does not count against the node.
//!
//! **85 ms: the end.** With that answer the twenty nearest nodes have answered, and the root ends. The request to `:44692`
//! is cancelled, as the operation has ended; that is no error either. `kad.outcome` is `converged`, with `kad.sent` 25,
//! `kad.answered` 23, `kad.timed_out` 0, `kad.cancelled` 2, `kad.hops` 3 and the nodes found as `kad.closest`. Had
//! `:60431` been silent for longer than nearly all answers take, the lookup would have ended without it, and gone on
//! listening for its answer.
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
