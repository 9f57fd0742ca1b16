//! The map that a crawl has made: in numbers, and as a drawing for Graphviz.

use crate::family::Mainline;
use core::fmt::{self, Write};
use kad_proto::crawl::{CrawlFinish, Crawled, Reach};
use kad_proto::{Key, Key160};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How many edges nodes have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Degrees {
    pub least: u32,
    pub median: u32,
    pub p90: u32,
    pub most: u32,
}

impl Degrees {
    fn of(mut degrees: Vec<u32>) -> Self {
        degrees.sort_unstable();
        let at = |place: usize| degrees.get(place).copied().unwrap_or_default();
        let last = degrees.len().saturating_sub(1);
        Self { least: at(0), median: at(last / 2), p90: at(last * 9 / 10), most: at(last) }
    }

    fn json(self) -> Value {
        let Self { least, median, p90, most } = self;
        json!({ "least": least, "median": median, "p90": p90, "most": most })
    }
}

impl fmt::Display for Degrees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, median, p90, most } = self;
        write!(f, "{least} at least, {median} in the middle, {p90} at the 90th percentile, {most} at most")
    }
}

/// What a crawl has found, seen from the node with the key `local`.
#[derive(Clone, Copy, Debug)]
pub struct Map<'a> {
    pub crawl: &'a CrawlFinish<Mainline>,
    pub local: Key160,
}

impl Map<'_> {
    /// How many others each node that answered names; and how many name each node.
    pub fn degrees(&self) -> (Degrees, Degrees) {
        let mut degrees = vec![(0, 0); self.crawl.nodes.len()];
        for (from, to) in &self.crawl.edges {
            if let Some((out, _)) = degrees.get_mut(*from as usize) {
                *out += 1;
            }
            if let Some((_, within)) = degrees.get_mut(*to as usize) {
                *within += 1;
            }
        }
        let answered = degrees.iter().zip(&self.crawl.nodes).filter(|(_, node)| node.answered > 0);
        let out = answered.map(|((out, _), _)| *out).collect();
        (Degrees::of(out), Degrees::of(degrees.into_iter().map(|(_, within)| within).collect()))
    }

    /// How many nodes there are at each common prefix length with us, and how many of them could be reached.
    pub fn by_cpl(&self) -> BTreeMap<u32, (usize, usize)> {
        let mut counts = BTreeMap::<_, (usize, usize)>::new();
        for node in &self.crawl.nodes {
            let (all, reachable) = counts.entry(self.local.common_prefix_len(&node.node.0)).or_default();
            *all += 1;
            *reachable += usize::from(node.reach == Reach::Reachable);
        }
        counts
    }

    pub fn json(&self) -> Value {
        let counts = self.crawl.counts;
        let (outgoing, incoming) = self.degrees();
        let node = |node: &Crawled<Mainline>| {
            json!({
                "key": node.node.0.to_string(),
                "address": node.node.1.to_string(),
                "reach": reach(node.reach),
                "hop": node.hop,
                "asked": node.asked,
                "answered": node.answered,
                "round_trip_us": node.round_trip.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            })
        };
        json!({
            "counts": {
                "nodes": counts.nodes,
                "reachable": counts.reachable,
                "unreachable": counts.unreachable,
                "edges": counts.edges,
                "left_out": counts.left_out,
            },
            "names": outgoing.json(),
            "named": incoming.json(),
            "by_cpl": self.by_cpl().into_iter().map(|(cpl, (nodes, reachable))| json!({
                "cpl": cpl,
                "nodes": nodes,
                "reachable": reachable,
            })).collect::<Vec<_>>(),
            "nodes": self.crawl.nodes.iter().map(node).collect::<Vec<_>>(),
            "edges": self.crawl.edges,
        })
    }

    /// A drawing, in the language of Graphviz. Nodes stand where they were found, and say their addresses.
    ///
    /// # Errors
    /// None but those of the formatter, which has none.
    pub fn dot(&self) -> Result<String, fmt::Error> {
        let mut dot = String::from("digraph dht {\n");
        let counts = self.crawl.counts;
        writeln!(dot, "  label=\"{} nodes, {} edges\";", counts.nodes, counts.edges)?;
        writeln!(dot, "  node [shape=box, style=filled, fillcolor=\"#d5e8d4\", fontsize=9];")?;
        writeln!(dot, "  edge [color=\"#00000030\", arrowsize=0.4];")?;
        for (place, Crawled { node: (key, address), reach, .. }) in self.crawl.nodes.iter().enumerate() {
            let color = match reach {
                Reach::Reachable => "",
                Reach::Unreachable => ", fillcolor=\"#f8cecc\"",
                _ => ", fillcolor=\"#eeeeee\"",
            };
            let key = key.to_string();
            let short = key.get(..8).unwrap_or_default();
            writeln!(dot, "  n{place} [label=\"{short}\\n{address}\", tooltip=\"{key}\"{color}];")?;
        }
        for (from, to) in &self.crawl.edges {
            writeln!(dot, "  n{from} -> n{to};")?;
        }
        dot.push_str("}\n");
        Ok(dot)
    }
}

impl fmt::Display for Map<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.crawl.counts;
        let known = counts.reachable + counts.unreachable;
        write!(f, "  {} nodes: {} reachable, ", counts.nodes, counts.reachable)?;
        write!(f, "{} unreachable, {} not known; ", counts.unreachable, counts.nodes.saturating_sub(known))?;
        writeln!(f, "{} edges; {} left out", counts.edges, counts.left_out)?;
        let (outgoing, incoming) = self.degrees();
        writeln!(f, "  each names others: {outgoing}")?;
        writeln!(f, "  and is named by others: {incoming}")?;
        let by_cpl = self.by_cpl().into_iter().map(|(cpl, (nodes, _))| format!("{cpl}: {nodes}"));
        writeln!(f, "  nodes by common prefix length with us: {}", by_cpl.collect::<Vec<_>>().join(", "))
    }
}

const fn reach(reach: Reach) -> &'static str {
    match reach {
        Reach::Reachable => "reachable",
        Reach::Unreachable => "unreachable",
        _ => "unknown",
    }
}
