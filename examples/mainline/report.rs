//! What the program prints in the end: as text by `Display`, or as JSON.

use crate::driver::{Driver, Mainline};
use crate::testnet::Testnet;
use crate::trace::{Ending, Lookup, Span};
use core::fmt;
use core::time::Duration;
use kad_proto::{Finish, Instant, Outcome, Statistics};
use serde_json::{Value, json};

pub(crate) struct Report<'a> {
    pub(crate) driver: &'a Driver,
    /// The network, where its nodes are known.
    pub(crate) testnet: Option<&'a Testnet>,
}

impl Report<'_> {
    /// 0 if all lookups came to an end of their own, 2 if one ran into its deadline or found nobody, 1 if one was
    /// refused.
    pub(crate) fn exit_code(&self) -> u8 {
        let codes = self.driver.lookups().iter().map(|lookup| match &lookup.end {
            Some(Ok(finish)) if finish.outcome == Outcome::DeadlineExceeded || finish.closest.is_empty() => 2,
            Some(Ok(_)) => 0,
            Some(Err(_)) | None => 1,
        });
        codes.max().unwrap_or(0)
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
        let (traffic, datagrams) = (self.driver.traffic(), self.driver.datagrams());
        json!({
            "local": { "key": self.driver.local().to_string(), "address": self.driver.address().to_string() },
            "nodes": self.testnet.map(Testnet::len),
            "lookups": self.driver.lookups().iter().map(|lookup| self.lookup_json(lookup)).collect::<Vec<_>>(),
            "requests": {
                "sent": traffic.sent,
                "answered": traffic.answered,
                "failed": traffic.failed,
                "timed_out": traffic.timed_out,
                "cancelled": traffic.cancelled,
                "in_flight": traffic.in_flight,
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
            "exit": self.exit_code(),
        })
    }

    fn lookup_json(&self, lookup: &Lookup) -> Value {
        let mut value = json!({
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
        if let (Value::Object(value), Value::Object(end)) = (&mut value, end) {
            value.extend(end);
        }
        value
    }

    fn lookup_text(&self, f: &mut fmt::Formatter<'_>, lookup: &Lookup) -> fmt::Result {
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
            match span.end {
                Some((_, ending)) => {
                    write!(f, " {ending} after {}", Millis(span.elapsed().unwrap_or_default()))?;
                    if let Ending::Answered(named) = ending {
                        write!(f, ", named {named}")?;
                    }
                    writeln!(f)?;
                }
                None => writeln!(f, " in flight")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for lookup in self.driver.lookups() {
            self.lookup_text(f, lookup)?;
        }
        let d = self.driver.datagrams();
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

fn span_json(span: &Span) -> Value {
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
        "outcome": span.end.map(|(_, ending)| ending.to_string()),
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
