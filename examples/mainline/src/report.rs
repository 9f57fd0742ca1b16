//! What the program prints: of one operation, of the routing table, and of all that happened; as text or as JSON.

use core::fmt;
use core::time::Duration;
use kad_mainline::driver::Driver;
use kad_mainline::engine;
use kad_mainline::family::{Mainline, Payload};
use kad_mainline::goal::Goal;
use kad_mainline::map::Map;
use kad_mainline::operation::{End, Operation};
use kad_mainline::testnet::Testnet;
use kad_mainline::trace::{Ending, HAD, Kept, Span};
use kad_mainline::waterfall::{Waterfall, label, rows};
use kad_proto::broadcast::{BroadcastFinish, StoreEnd, Stored};
use kad_proto::coordinator::Outbound;
use kad_proto::routing::table::TableEntry;
use kad_proto::{Finish, Instant, Key, Key160, OperationStats, Outcome, RoutingOutbound, RoutingTable};
use opentelemetry::trace::{SpanContext, SpanId};
use serde_json::{Value, json};
use std::{fs, io};

/// Of one operation.
pub(crate) struct Report<'a> {
    pub(crate) operation: Operation,
    /// Those that have ended, in the order of their start.
    pub(crate) spans: Vec<Span>,
    /// Our own key.
    pub(crate) local: Key160,
    /// How many of the closest nodes it searched for.
    k: usize,
    /// The network, where its nodes are known.
    pub(crate) testnet: Option<&'a Testnet>,
}

impl<'a> Report<'a> {
    /// Takes the spans of an operation of this driver.
    pub(crate) fn new(
        operation: Operation,
        kept: &Kept,
        driver: &Driver,
        testnet: Option<&'a Testnet>,
    ) -> Self {
        let spans = kept.take(operation.tag, driver.origin());
        Self { operation, spans, local: driver.local(), k: driver.k(), testnet }
    }

    /// 0 if it had success: a lookup or a crawl if it came to an end of its own or was stopped. 2 if it had none,
    /// or only in part, because it ran into its deadline; and where a lookup or a crawl found nobody. 3 if it
    /// found nothing, or nobody has stored something, though all was asked. 1 if it was refused.
    pub(crate) fn exit_code(&self) -> u8 {
        let found = &self.operation.found;
        let (outcome, success, otherwise) = match &self.operation.end {
            Some(End::Lookup(finish)) => match self.operation.goal {
                Goal::Get { .. } => (finish.outcome, found.item.is_some(), 3),
                Goal::Peers { .. } => (finish.outcome, !found.peers.is_empty(), 3),
                _ => (finish.outcome, completes(finish.outcome) && !finish.closest.is_empty(), 2),
            },
            Some(End::Broadcast(finish)) => {
                // Nobody was found to store with, for want of time.
                let late = finish.lookup_outcome.filter(|_| finish.stores.is_empty());
                (late.unwrap_or(finish.outcome), finish.succeeded, 3)
            }
            Some(End::Crawl(finish)) => {
                (finish.outcome, completes(finish.outcome) && finish.counts.reachable > 0, 2)
            }
            Some(End::Refused(_)) | None => return 1,
        };
        match outcome {
            _ if success => 0,
            Outcome::Stopped => 0,
            Outcome::DeadlineExceeded => 2,
            _ => otherwise,
        }
    }

    /// Draws the map of a crawl, if that is wanted.
    ///
    /// # Errors
    /// That of the file system, which names the file.
    pub(crate) fn draw(&self) -> io::Result<()> {
        let (Goal::Crawl { file: Some(path) }, Some(End::Crawl(crawl))) =
            (&self.operation.goal, &self.operation.end)
        else {
            return Ok(());
        };
        let dot = Map { crawl, local: self.local }.dot().map_err(io::Error::other)?;
        fs::write(path, dot)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    /// How many of the closest nodes in truth were found, of BEP 5's k and of the k that was searched for: k (or less
    /// where there are fewer nodes), and how many.
    fn true_closest(&self, finish: &Finish<Mainline>) -> Vec<(usize, usize)> {
        let Some(testnet) = self.testnet else { return Vec::new() };
        let mut of = vec![engine::K.min(self.k), self.k];
        of.dedup();
        let found = |node| finish.closest.iter().any(|contact| contact.node == node);
        let count = |k| {
            let truth = testnet.closest(finish.target, k);
            (truth.len(), truth.into_iter().filter(|node| found(*node)).count())
        };
        of.into_iter().map(count).collect()
    }

    /// The text of the item that was put or found, as it can be shown.
    fn item(&self) -> Option<String> {
        match &self.operation.goal {
            Goal::Put { item, .. } | Goal::Correct { item, .. } => Some(shown(item)),
            _ => self.operation.found.item.as_deref().map(shown),
        }
    }

    /// The span of the store with a node.
    fn store_span(&self, stored: &Stored<Mainline>) -> Option<&Span> {
        let (key, address) = (stored.node.0.to_string(), stored.node.1.to_string());
        let of = |span: &&Span| span.is_store() && span.key() == key && span.address() == address;
        self.spans.iter().rev().find(of)
    }

    /// Why a store was not done, if so.
    fn reason(&self, stored: &Stored<Mainline>) -> Option<String> {
        match &stored.end {
            StoreEnd::Rejected(Payload::Refused(failure)) => Some(failure.to_string()),
            StoreEnd::Failed => self.store_span(stored)?.failure().map(Into::into),
            _ => None,
        }
    }

    /// What became of a store that went on in the background, and else what the engine says of it.
    fn store_end(&self, stored: &Stored<Mainline>) -> (&'static str, Option<String>) {
        if stored.end != StoreEnd::Background {
            return (store_end(&stored.end), self.reason(stored));
        }
        let Some(span) = self.store_span(stored) else { return ("left to be done", None) };
        let end = match span.ending() {
            Ending::Answered | Ending::Stored => "stored later",
            Ending::Failed => "failed later",
            Ending::TimedOut => "timed out later",
            Ending::Cancelled => "cancelled later",
            Ending::Abandoned => "left to be done",
        };
        (end, span.failure().map(Into::into))
    }

    /// With how many nodes it was stored, later ones included.
    fn stored(&self, finish: &BroadcastFinish<Mainline>) -> usize {
        let ends = finish.stores.iter().map(|stored| self.store_end(stored).0);
        ends.filter(|end| end.starts_with("stored")).count()
    }

    pub(crate) fn json(&self) -> Value {
        let operation = &self.operation;
        let id =
            |span: Option<SpanId>| span.filter(|span| *span != SpanId::INVALID).map(|span| span.to_string());
        let root = self.spans.iter().find(|span| !span.is_request());
        let value = json!({
            "event": operation.goal.name(),
            "target": operation.target.to_string(),
            "trace_id": operation.span.as_ref().map(|span| span.trace_id().to_string()),
            "span_id": id(operation.span.as_ref().map(SpanContext::span_id)),
            "parent_id": id(root.map(Span::parent)),
            "started_us": at(operation.started),
            "deadline_us": operation.deadline.map(at),
            "spans": requests_json(&self.spans, false),
        });
        let end = match operation.end.as_ref().map(|end| (end, end.figures())) {
            Some((end, Ok((outcome, stats)))) => {
                let of_all = json!({
                    "outcome": text(outcome),
                    "ended_us": stats.ended.map(at),
                    "stats": stats_json(stats),
                    "exit": self.exit_code(),
                });
                joined(
                    of_all,
                    match end {
                        End::Lookup(finish) => self.lookup_json(finish),
                        End::Broadcast(finish) => self.broadcast_json(finish),
                        End::Crawl(crawl) => Map { crawl, local: self.local }.json(),
                        End::Refused(_) => Value::Null,
                    },
                )
            }
            Some((_, Err(reason))) => json!({ "outcome": "refused", "reason": reason.to_string() }),
            None => json!({ "outcome": "running" }),
        };
        joined(value, end)
    }

    fn lookup_json(&self, finish: &Finish<Mainline>) -> Value {
        let value = json!({
            "closest": finish.closest.iter().map(|contact| json!({
                "key": contact.node.0.to_string(),
                "address": contact.node.1.to_string(),
                "round_trip_us": micros(contact.round_trip()),
                "hop": contact.hop(),
                "value": contact.has_value(),
            })).collect::<Vec<_>>(),
            "true_closest": self.true_closest(finish).iter().map(|(of, found)| json!({
                "of": of,
                "found": found,
            })).collect::<Vec<_>>(),
        });
        joined(value, self.found_json())
    }

    /// What a search has found, and whether in the own store.
    fn found_json(&self) -> Value {
        let found = &self.operation.found;
        match self.operation.goal {
            Goal::Get { .. } => json!({
                "item": found.item.as_deref().map(|item| item.escape_ascii().to_string()),
                "text": found.item.as_deref().and_then(string),
                "own": found.own_item,
            }),
            Goal::Peers { .. } => json!({
                "peers": found.peers.iter().map(|(peer, nodes)| json!({
                    "address": peer.to_string(),
                    "nodes": nodes,
                    "own": found.own_peers.contains(peer),
                })).collect::<Vec<_>>(),
            }),
            _ => Value::Null,
        }
    }

    fn broadcast_json(&self, finish: &BroadcastFinish<Mainline>) -> Value {
        json!({
            "item": self.item(),
            "strategy": strategy(&self.operation.goal, finish),
            "fell_back": finish.fallback_reason.map(|why| why.to_string()),
            "lookup": finish.lookup_outcome.map(text),
            "succeeded": finish.succeeded,
            "stored": self.stored(finish),
            "stores": finish.stores.iter().map(|stored| {
                let (end, reason) = self.store_end(stored);
                json!({
                    "key": stored.node.0.to_string(),
                    "address": stored.node.1.to_string(),
                    "outcome": end,
                    "reason": reason,
                })
            }).collect::<Vec<_>>(),
            "background": requests_json(&self.spans, true),
        })
    }

    /// What a search has found, and where.
    fn write_found(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = &self.operation.found;
        match (&self.operation.goal, self.item()) {
            (Goal::Get { .. }, Some(item)) if found.own_item => {
                writeln!(f, "  found {item}, whose SHA-1 is the target, in the own store")
            }
            (Goal::Get { .. }, Some(item)) => writeln!(f, "  found {item}, whose SHA-1 is the target"),
            (Goal::Get { .. }, None) => writeln!(f, "  not found: nobody that was asked has it"),
            (Goal::Peers { .. }, _) if found.peers.is_empty() => {
                writeln!(f, "  not found: nobody that was asked knows a peer")
            }
            (Goal::Peers { .. }, _) => found.peers.iter().try_for_each(|(peer, nodes)| {
                match (found.own_peers.contains(peer), nodes) {
                    (true, 0) => writeln!(f, "  peer {peer}, in the own store"),
                    (true, _) => writeln!(f, "  peer {peer}, in the own store and named by {nodes}"),
                    (false, _) => writeln!(f, "  peer {peer}, named by {nodes}"),
                }
            }),
            _ => Ok(()),
        }
    }

    fn write_lookup(&self, f: &mut fmt::Formatter<'_>, finish: &Finish<Mainline>) -> fmt::Result {
        let had = finish.closest.iter().filter(|contact| contact.has_value()).count();
        self.write_found(f)?;
        if finish.stats.sent == 0 && finish.outcome == Outcome::Quorum {
            return Ok(()); // nobody had to be asked
        }
        let searches = self.operation.goal != Goal::Find;
        if searches {
            writeln!(f, "  {had} of the {} closest nodes that answered had it", finish.closest.len())?;
        }
        let mark = if searches { "  had it" } else { "" };
        writeln!(f, "  {:<40}  {:<21}  {:>10}  hop{mark}", "closest nodes", "address", "round trip")?;
        for contact in &finish.closest {
            let ((key, address), round_trip) = (contact.node, Millis(contact.round_trip()));
            let has = if contact.has_value() { "  yes" } else { "" };
            writeln!(f, "  {key}  {address:<21}  {round_trip:>10}  {:>3}{has}", contact.hop())?;
        }
        // One that has what it wants before has not looked for them all.
        let whole = finish.outcome != Outcome::Quorum;
        for (of, found) in self.true_closest(finish).into_iter().filter(|_| whole) {
            writeln!(f, "  found {found} of the {of} that are closest in truth")?;
        }
        Ok(())
    }

    fn write_broadcast(&self, f: &mut fmt::Formatter<'_>, finish: &BroadcastFinish<Mainline>) -> fmt::Result {
        write!(f, "  {}", strategy(&self.operation.goal, finish))?;
        if let Some(why) = finish.fallback_reason {
            write!(f, " instead of optimistic: {why}")?;
        }
        match finish.lookup_outcome {
            Some(outcome) => writeln!(f, "; its lookup: {}", text(outcome))?,
            None => writeln!(f)?,
        }
        writeln!(f, "  stored with {} of {} nodes", self.stored(finish), finish.stores.len())?;
        if !finish.stores.is_empty() {
            writeln!(f, "  {:<40}  {:<21}  store", "nodes to store with", "address")?;
        }
        for stored in &finish.stores {
            let (key, address) = stored.node;
            let (end, reason) = self.store_end(stored);
            write!(f, "  {key}  {address:<21}  {end}")?;
            match reason {
                Some(reason) => writeln!(f, ": {reason}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = &self.operation;
        match (&operation.goal, self.item()) {
            (Goal::Crawl { .. }, _) => writeln!(f, "\ncrawl")?,
            (Goal::Put { .. } | Goal::Correct { .. }, Some(item)) => {
                writeln!(f, "\n{} of {}: {item}", operation.goal.name(), operation.target)?;
            }
            _ => writeln!(f, "\n{} of {}", operation.goal.name(), operation.target)?,
        }
        match operation.end.as_ref().map(|end| (end, end.figures())) {
            Some((end, Ok((outcome, s)))) => {
                let took = s.ended.map_or(Duration::ZERO, |ended| ended - s.started);
                writeln!(f, "  {} after {}", text(outcome), Millis(took))?;
                match end {
                    End::Lookup(finish) => self.write_lookup(f, finish)?,
                    End::Broadcast(finish) => self.write_broadcast(f, finish)?,
                    End::Crawl(crawl) => write!(f, "{}", Map { crawl, local: self.local })?,
                    End::Refused(_) => {}
                }
                write!(f, "  {} requests: {} answered, {} failed, ", s.sent, s.answered, s.failed)?;
                writeln!(f, "{} timed out, {} cancelled; {} hops", s.timed_out, s.cancelled, s.hops)?;
            }
            Some((_, Err(reason))) => writeln!(f, "  refused: {reason}")?,
            None => writeln!(f, "  running")?,
        }
        if let Goal::Crawl { file: Some(path) } = &operation.goal {
            writeln!(f, "  drawn into {}", path.display())?;
        }
        if let Some(span) = self.spans.iter().find(|span| !span.is_request()) {
            write!(f, "{}", Ids(span))?;
        }
        write!(f, "{}", Waterfall(&self.spans))
    }
}

/// Which span an operation is: a line.
pub(crate) struct Ids<'a>(pub(crate) &'a Span);

impl fmt::Display for Ids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = self.0.context();
        write!(f, "  trace {} span {}", context.trace_id(), context.span_id())?;
        match self.0.parent() {
            SpanId::INVALID => writeln!(f),
            parent => writeln!(f, ", under {parent}"),
        }
    }
}

/// Of a request of the routing maintenance, which is a trace of its own.
pub(crate) struct Upkeep<'a>(pub(crate) &'a Span);

impl Upkeep<'_> {
    pub(crate) fn json(&self) -> Value {
        joined(span_json(self.0), json!({ "event": "upkeep", "initiator": self.0.initiator() }))
    }
}

impl fmt::Display for Upkeep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (span, context) = (self.0, self.0.context());
        write!(f, "upkeep {}/{} {} ", context.trace_id(), context.span_id(), span.initiator())?;
        writeln!(f, "{}, after {}", label(span), Millis(span.elapsed()))?;
        match (span.link(), span.parent()) {
            (Some(link), _) => writeln!(f, "    linked to {}/{}", link.trace_id(), link.span_id()),
            (None, SpanId::INVALID) => Ok(()),
            (None, parent) => writeln!(f, "    under {parent}"),
        }
    }
}

/// Whether an operation has come to an end that is not forced upon it by time.
fn completes(outcome: Outcome) -> bool {
    outcome != Outcome::DeadlineExceeded
}

/// An item, as it can be shown: a stranger's bytes, which are not to control a terminal.
fn shown(item: &[u8]) -> String {
    match string(item) {
        Some(text) => format!("\"{}\"", text.escape_debug()),
        None => format!("the bencoded {}", item.escape_ascii()),
    }
}

/// The text that an item is, if it is one.
fn string(item: &[u8]) -> Option<&str> {
    let colon = item.iter().position(|byte| *byte == b':')?;
    let (length, text) = (item.get(..colon)?, item.get(colon + 1..)?);
    length.iter().all(u8::is_ascii_digit).then(|| str::from_utf8(text).ok())?
}

/// With whom a broadcast stores.
fn strategy(goal: &Goal, finish: &BroadcastFinish<Mainline>) -> &'static str {
    match goal {
        Goal::Correct { .. } => "static",
        Goal::Put { optimistic: true, .. } | Goal::Announce { optimistic: true, .. }
            if finish.fallback_reason.is_none() =>
        {
            "optimistic"
        }
        _ => "follow-up",
    }
}

/// How a store ended.
const fn store_end(end: &StoreEnd<Mainline>) -> &'static str {
    match end {
        StoreEnd::Stored => "stored",
        StoreEnd::Failed => "failed",
        StoreEnd::Rejected(_) => "refused",
        StoreEnd::TimedOut => "timed out",
        StoreEnd::Cancelled => "cancelled",
        StoreEnd::Unsent => "not sent",
        StoreEnd::Background => "in the background",
        _ => "ended",
    }
}

/// Of everything at the end.
pub(crate) struct Totals<'a>(pub(crate) &'a Driver);

impl Totals<'_> {
    pub(crate) fn json(&self) -> Value {
        let (requests, routing, datagrams) =
            (self.0.request_stats(), self.0.routing_counts(), self.0.datagrams());
        let (items, torrents) = self.0.stored();
        json!({
            "local": { "key": self.0.local().to_string(), "address": self.0.address().to_string() },
            "requests": {
                "sent": requests.sent,
                "answered": requests.answered,
                "failed": requests.failed,
                "timed_out": requests.timed_out,
                "cancelled": requests.cancelled,
                "in_flight": requests.in_flight,
            },
            "routing": {
                "candidates": routing.include.offered,
                "passed": routing.include.passed,
                "failed": routing.include.failed,
                "probes_passed": routing.probe.passed,
                "probes_failed": routing.probe.failed,
                "explored": routing.refreshes,
                "bootstraps": routing.automatic_bootstraps,
            },
            "datagrams": {
                "sent": datagrams.sent,
                "dropped": datagrams.dropped,
                "unsendable": datagrams.unsendable,
                "received": datagrams.received,
                "malformed": datagrams.malformed,
                "unexpected": datagrams.unexpected,
                "served": datagrams.served,
                "unserved": datagrams.unserved,
                "limited": datagrams.limited,
                "overload": datagrams.overload,
            },
            "kept": { "items": items, "torrents": torrents },
            "network_size": self.0.network_size().ok(),
        })
    }
}

impl fmt::Display for Totals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (r, d) = (self.0.routing_counts(), self.0.datagrams());
        if self.0.serves() {
            write!(
                f,
                "\nrouting table: {} candidates, of which {} passed and {} failed; ",
                r.include.offered, r.include.passed, r.include.failed
            )?;
            write!(f, "{} probes passed, {} failed; ", r.probe.passed, r.probe.failed)?;
            writeln!(
                f,
                "{} buckets explored, {} bootstraps of its own",
                r.refreshes, r.automatic_bootstraps
            )?;
            let (items, torrents) = self.0.stored();
            writeln!(f, "\nkept for others: {items} items, peers of {torrents} torrents")?;
        }
        if let Ok(nodes) = self.0.network_size() {
            writeln!(f, "\nestimated size of the network: {nodes} nodes")?;
        }
        write!(
            f,
            "\ndatagrams: {} sent, {} lost on purpose, {} unsendable; ",
            d.sent, d.dropped, d.unsendable
        )?;
        write!(
            f,
            "{} received, of which ignored: {} malformed, {} unexpected, ",
            d.received, d.malformed, d.unexpected
        )?;
        write!(f, "{} queries; {} queries served", d.unserved, d.served)?;
        if self.0.serves() {
            write!(f, ", {} above the limit of their host", d.limited)?;
            write!(f, " and {} above that of all", d.overload)?;
        }
        writeln!(f)
    }
}

/// Of the routing table at an instant: by bucket, as a plot.
pub(crate) struct Occupancy<'a> {
    pub(crate) table: &'a RoutingTable<Mainline>,
    pub(crate) now: Instant,
    /// How many nodes a bucket holds.
    pub(crate) room: usize,
}

impl Occupancy<'_> {
    /// The buckets up to the last that holds nodes: common prefix length, nodes, and how many of these have failed
    /// since they last answered.
    fn buckets(&self) -> Vec<(u32, usize, usize)> {
        let failing = |bucket: &[TableEntry<_>]| bucket.iter().filter(|entry| entry.failures() > 0).count();
        let bucket = |cpl| (cpl, self.table.bucket(cpl).len(), failing(self.table.bucket(cpl)));
        let mut buckets: Vec<_> = (0..Key160::BITS).map(bucket).collect();
        buckets.truncate(buckets.iter().rposition(|(_, nodes, _)| *nodes > 0).map_or(0, |last| last + 1));
        buckets
    }

    pub(crate) fn json(&self) -> Value {
        let bucket = |(cpl, nodes, failing)| json!({ "cpl": cpl, "nodes": nodes, "failing": failing });
        json!({
            "event": "table",
            "at_us": at(self.now),
            "nodes": self.table.len(),
            "buckets": self.buckets().into_iter().map(bucket).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Occupancy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.now.as_nanos() / 1_000_000_000;
        writeln!(
            f,
            "\nrouting table after {seconds} s: {} nodes (? has failed since it last answered)",
            self.table.len()
        )?;
        for (cpl, nodes, failing) in self.buckets() {
            let [live, failing, free] =
                [("#", nodes - failing), ("?", failing), (".", self.room.saturating_sub(nodes))]
                    .map(|(mark, count)| mark.repeat(count));
            writeln!(f, "  cpl {cpl:>3}  {live}{failing}{free} {nodes:>3}")?;
        }
        Ok(())
    }
}

/// Of something else that the engine said.
pub(crate) struct News<'a> {
    pub(crate) now: Instant,
    pub(crate) said: &'a Outbound<Mainline>,
}

impl News<'_> {
    pub(crate) fn json(&self) -> Value {
        let json = match self.said {
            Outbound::Routing(RoutingOutbound::Admitted((key, address))) => json!({
                "event": "admitted",
                "key": key.to_string(),
                "address": address.to_string(),
            }),
            Outbound::Routing(RoutingOutbound::Removed((key, address))) => json!({
                "event": "removed",
                "key": key.to_string(),
                "address": address.to_string(),
            }),
            Outbound::Routing(RoutingOutbound::Bootstrapped(end)) => json!({
                "event": "bootstrapped",
                "outcome": text(end.outcome),
                "nodes": end.nodes,
                "stats": stats_json(&end.stats),
            }),
            Outbound::Routing(RoutingOutbound::NearEmpty { nodes }) => {
                json!({ "event": "nearly empty", "nodes": nodes })
            }
            Outbound::Routing(RoutingOutbound::CutOff { .. }) => json!({ "event": "cut off" }),
            Outbound::Routing(RoutingOutbound::Reconnected { lasted }) => {
                json!({ "event": "reconnected", "after_s": lasted.as_secs_f64() })
            }
            Outbound::NetworkSize { nodes } => json!({ "event": "network size", "nodes": nodes }),
            other => json!({ "event": "other", "said": format!("{other:?}") }),
        };
        joined(json, json!({ "at_us": at(self.now) }))
    }
}

/// Only what is not seen in the plot of the table.
impl fmt::Display for News<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.said {
            Outbound::Routing(RoutingOutbound::Bootstrapped(end)) => {
                let (outcome, requests) = (text(end.outcome), end.stats.sent);
                writeln!(
                    f,
                    "\nbootstrap: {outcome} after {requests} requests; {} nodes in the table",
                    end.nodes
                )
            }
            Outbound::Routing(RoutingOutbound::NearEmpty { nodes }) => {
                writeln!(f, "\nnearly empty: {nodes} nodes in the table")
            }
            Outbound::Routing(RoutingOutbound::CutOff { .. }) => {
                writeln!(f, "\ncut off: nobody answers; the table is kept as it is")
            }
            Outbound::Routing(RoutingOutbound::Reconnected { lasted }) => {
                writeln!(f, "\nreconnected after {} s", lasted.as_secs())
            }
            _ => Ok(()),
        }
    }
}

/// One object of two.
pub(crate) fn joined(mut json: Value, more: Value) -> Value {
    if let (Value::Object(json), Value::Object(more)) = (&mut json, more) {
        json.extend(more);
    }
    json
}

/// The requests of an operation, those that led to others first: its own, or what it left to be done after its
/// end.
pub(crate) fn requests_json(spans: &[Span], background: bool) -> Vec<Value> {
    let rows = rows(spans).into_iter().map(|row| row.span);
    rows.filter(|span| span.is_request() && span.is_background() == background).map(span_json).collect()
}

fn span_json(span: &Span) -> Value {
    let ending = span.ending().text();
    json!({
        "span_id": span.context().span_id().to_string(),
        "trace_id": span.context().trace_id().to_string(),
        "parent_id": span.parent().to_string(),
        "link": span.link().map(|link| json!({
            "trace_id": link.trace_id().to_string(),
            "span_id": link.span_id().to_string(),
        })),
        "asked": span.asked(),
        "had": span.text(HAD),
        "key": span.key(),
        "address": span.address(),
        "hop": span.hop(),
        "sent_us": at(span.started),
        "deadline_us": span.deadline().map(at),
        "elapsed_us": ending.map(|_| micros(span.elapsed())),
        "outcome": ending,
        "reason": span.failure(),
        "request_bytes": span.number("kad.request.size"),
        "response_bytes": span.number("kad.response.size"),
    })
}

fn stats_json(stats: &OperationStats) -> Value {
    json!({
        "sent": stats.sent,
        "answered": stats.answered,
        "failed": stats.failed,
        "timed_out": stats.timed_out,
        "cancelled": stats.cancelled,
        "hops": stats.hops,
    })
}

/// How an operation ended, in words.
fn text(outcome: Outcome) -> String {
    outcome.to_string()
}

/// Microseconds since the driver began.
pub(crate) fn at(instant: Instant) -> u64 {
    instant.as_nanos() / 1_000
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A duration in milliseconds, padded as asked for.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.3} ms", self.0.as_secs_f64() * 1_000.0))
    }
}
