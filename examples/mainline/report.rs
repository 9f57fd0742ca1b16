//! What the program prints: of one lookup, of the routing table, and of all that happened; as text or as JSON.

use crate::driver::{Driver, Mainline};
use crate::testnet::Testnet;
use crate::trace::{Ending, Lookup, Span};
use core::fmt;
use core::time::Duration;
use kad_proto::coordinator::Outbound;
use kad_proto::table::Record;
use kad_proto::{Finish, Instant, Key, Key160, Outcome, RoutingTable, Statistics};
use serde_json::{Value, json};

/// Of one lookup.
pub(crate) struct LookupReport<'a> {
    pub(crate) lookup: &'a Lookup,
    /// The network, where its nodes are known.
    pub(crate) testnet: Option<&'a Testnet>,
}

impl LookupReport<'_> {
    /// 0 if it came to an end of its own or was stopped, 2 if it ran into its deadline or found nobody, 1 if it was
    /// refused.
    pub(crate) fn exit_code(&self) -> u8 {
        match &self.lookup.end {
            Some(Ok(finish)) if finish.outcome == Outcome::Stopped => 0,
            Some(Ok(finish)) if finish.outcome == Outcome::DeadlineExceeded || finish.closest.is_empty() => 2,
            Some(Ok(_)) => 0,
            Some(Err(_)) | None => 1,
        }
    }

    /// How many of the k closest nodes in truth were found, for k = 8 and 20: k (or less where there are fewer nodes),
    /// and how many.
    fn true_closest(&self, finish: &Finish<Mainline>) -> Vec<(usize, usize)> {
        let Some(testnet) = self.testnet else { return Vec::new() };
        let found = |node| finish.closest.iter().any(|contact| contact.node == node);
        let count = |k| {
            let truth = testnet.closest(finish.target, k);
            (truth.len(), truth.into_iter().filter(|node| found(*node)).count())
        };
        [8, 20].map(count).to_vec()
    }

    pub(crate) fn json(&self) -> Value {
        let lookup = self.lookup;
        let value = json!({
            "target": lookup.target.to_string(),
            "trace_id": lookup.root.trace_id().to_string(),
            "span_id": lookup.root.span_id().to_string(),
            "started_us": at(lookup.started),
            "deadline_us": lookup.deadline.map(at),
            "spans": lookup.tree().iter().map(|(_, span)| span_json(span)).collect::<Vec<_>>(),
        });
        let end = match &lookup.end {
            Some(Ok(finish)) => json!({
                "outcome": outcome(finish.outcome),
                "ended_us": finish.statistics.ended.map(at),
                "closest": finish.closest.iter().map(|contact| json!({
                    "key": contact.node.0.to_string(),
                    "address": contact.node.1.to_string(),
                    "round_trip_us": micros(contact.round_trip()),
                    "hop": contact.hop(),
                })).collect::<Vec<_>>(),
                "true_closest": self.true_closest(finish).iter().map(|(of, found)| json!({
                    "of": of,
                    "found": found,
                })).collect::<Vec<_>>(),
                "statistics": statistics_json(&finish.statistics),
            }),
            Some(Err(reason)) => json!({ "outcome": "refused", "reason": reason.to_string() }),
            None => json!({ "outcome": "running" }),
        };
        joined(value, end)
    }
}

impl fmt::Display for LookupReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lookup = self.lookup;
        writeln!(f, "\nlookup of {}", lookup.target)?;
        match &lookup.end {
            Some(Ok(finish)) => {
                let s = &finish.statistics;
                let took = s.ended.map_or(Duration::ZERO, |ended| ended - s.started);
                writeln!(f, "  {} after {}", outcome(finish.outcome), Millis(took))?;
                writeln!(f, "  {:<40}  {:<21}  {:>10}  hop", "closest nodes", "address", "round trip")?;
                for contact in &finish.closest {
                    let ((key, address), round_trip) = (contact.node, Millis(contact.round_trip()));
                    writeln!(f, "  {key}  {address:<21}  {round_trip:>10}  {:>3}", contact.hop())?;
                }
                for (of, found) in self.true_closest(finish) {
                    writeln!(f, "  found {found} of the {of} that are closest in truth")?;
                }
                write!(f, "  {} requests: {} answered, {} failed, ", s.requests, s.success, s.failure)?;
                writeln!(f, "{} timed out, {} cancelled; {} hops", s.timeouts, s.cancelled, s.hops)?;
            }
            Some(Err(reason)) => writeln!(f, "  refused: {reason}")?,
            None => writeln!(f, "  running")?,
        }
        writeln!(f, "  trace {}", lookup.root.trace_id())?;
        writeln!(f, "    {} lookup", lookup.root.span_id())?;
        for (depth, span) in lookup.tree() {
            write!(f, "    {:indent$}{} ", "", span.context.span_id(), indent = 2 * depth)?;
            write!(f, "{} hop {}", span.node.1, span.hop)?;
            match &span.end {
                Some((_, ending)) => {
                    write!(f, " {ending} after {}", Millis(span.elapsed().unwrap_or_default()))?;
                    match ending {
                        Ending::Answered(named) => writeln!(f, ", named {named}")?,
                        Ending::Failed(failure) => writeln!(f, ": {failure}")?,
                        _ => writeln!(f)?,
                    }
                }
                None => writeln!(f, " in flight")?,
            }
        }
        Ok(())
    }
}

/// Of everything at the end.
pub(crate) struct Totals<'a>(pub(crate) &'a Driver);

impl Totals<'_> {
    pub(crate) fn json(&self) -> Value {
        let (traffic, routing, datagrams) = (self.0.traffic(), self.0.routing(), self.0.datagrams());
        let (items, torrents) = self.0.stored();
        json!({
            "local": { "key": self.0.local().to_string(), "address": self.0.address().to_string() },
            "requests": {
                "sent": traffic.sent,
                "answered": traffic.answered,
                "failed": traffic.failed,
                "timed_out": traffic.timed_out,
                "cancelled": traffic.cancelled,
                "in_flight": traffic.in_flight,
            },
            "routing": {
                "candidates": routing.include.offered,
                "passed": routing.include.passed,
                "failed": routing.include.failed,
                "probes_passed": routing.probe.passed,
                "probes_failed": routing.probe.failed,
                "explored": routing.explored,
                "bootstraps": routing.bootstraps,
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
            },
            "kept": { "items": items, "torrents": torrents },
        })
    }
}

impl fmt::Display for Totals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (r, d) = (self.0.routing(), self.0.datagrams());
        if self.0.serves() {
            write!(
                f,
                "\nrouting table: {} candidates, of which {} passed and {} failed; ",
                r.include.offered, r.include.passed, r.include.failed
            )?;
            write!(f, "{} probes passed, {} failed; ", r.probe.passed, r.probe.failed)?;
            writeln!(f, "{} buckets explored, {} bootstraps of its own", r.explored, r.bootstraps)?;
            let (items, torrents) = self.0.stored();
            writeln!(f, "\nkept for others: {items} items, peers of {torrents} torrents")?;
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
        writeln!(f, "{} queries; {} queries served", d.unserved, d.served)
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
        let failing = |bucket: &[Record<_>]| bucket.iter().filter(|record| record.failures() > 0).count();
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
            Outbound::Admitted((key, address)) => json!({
                "event": "admitted",
                "key": key.to_string(),
                "address": address.to_string(),
            }),
            Outbound::Removed((key, address)) => json!({
                "event": "removed",
                "key": key.to_string(),
                "address": address.to_string(),
            }),
            Outbound::Bootstrapped(end) => json!({
                "event": "bootstrapped",
                "outcome": outcome(end.outcome),
                "nodes": end.nodes,
                "statistics": statistics_json(&end.statistics),
            }),
            Outbound::NearEmpty { nodes } => json!({ "event": "nearly empty", "nodes": nodes }),
            other => json!({ "event": "other", "said": format!("{other:?}") }),
        };
        joined(json, json!({ "at_us": at(self.now) }))
    }
}

/// Only what is not seen in the plot of the table.
impl fmt::Display for News<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.said {
            Outbound::Bootstrapped(end) => {
                let (outcome, requests) = (outcome(end.outcome), end.statistics.requests);
                writeln!(
                    f,
                    "\nbootstrap: {outcome} after {requests} requests; {} nodes in the table",
                    end.nodes
                )
            }
            Outbound::NearEmpty { nodes } => writeln!(f, "\nnearly empty: {nodes} nodes in the table"),
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

fn span_json(span: &Span) -> Value {
    let ending = span.end.as_ref().map(|(_, ending)| ending);
    json!({
        "span_id": span.context.span_id().to_string(),
        "trace_id": span.context.trace_id().to_string(),
        "parent_id": span.parent.to_string(),
        "key": span.node.0.to_string(),
        "address": span.node.1.to_string(),
        "hop": span.hop,
        "sent_us": at(span.sent),
        "deadline_us": span.deadline.map(at),
        "elapsed_us": span.elapsed().map(micros),
        "outcome": ending.map(ToString::to_string),
        "reason": match ending {
            Some(Ending::Failed(failure)) => Some(failure.to_string()),
            _ => None,
        },
    })
}

fn statistics_json(statistics: &Statistics) -> Value {
    json!({
        "requests": statistics.requests,
        "success": statistics.success,
        "failure": statistics.failure,
        "timeouts": statistics.timeouts,
        "cancelled": statistics.cancelled,
        "hops": statistics.hops,
    })
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Converged => "converged",
        Outcome::Exhausted => "exhausted",
        Outcome::NodeLimit => "node limit",
        Outcome::DeadlineExceeded => "deadline exceeded",
        Outcome::Stopped => "stopped",
        _ => "ended",
    }
}

/// Microseconds since the driver began.
fn at(instant: Instant) -> u64 {
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
