//! [`Recordings`]: the recordings of the chosen nodes of a run.

use crate::coordinator::Coordinator;
use crate::coordinator::events::{Inbound, Outbound};
use crate::record::{Keep, RecordingWriter};
use crate::sim::network::handle::Net;
use crate::vocabulary::machine::{Batch, Machine, Stamped};
use crate::vocabulary::time::Instant;
use core::fmt;
use std::collections::BTreeMap;

/// Why a node is not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotRecorded {
    /// The run has begun: the calls before would be missing.
    Late,
    /// The network has fewer nodes.
    NoSuchNode,
}

impl fmt::Display for NotRecorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Late => "the run has begun",
            Self::NoSuchNode => "there is no such node",
        })
    }
}

impl core::error::Error for NotRecorded {}

/// The recorded nodes, by index.
#[derive(Default)]
pub(crate) struct Recordings {
    /// The run has begun: no more nodes are accepted.
    pub(crate) closed: bool,
    pub(crate) nodes: BTreeMap<u32, RecordedNode>,
}

pub(crate) struct RecordedNode {
    pub(crate) keep: Keep,
    pub(crate) text: bool,
    /// One writer for each incarnation of the node.
    pub(crate) incarnations: Vec<RecordingWriter>,
}

impl Recordings {
    /// Makes the next call of a node's engine, and records it if the node is recorded.
    pub(crate) fn handle_into(
        &mut self,
        index: u32,
        engine: &mut Coordinator<Net>,
        now: Instant,
        event: Stamped<Inbound<Net>>,
        out: &mut Batch<Outbound<Net>>,
    ) {
        match self.nodes.get_mut(&index).and_then(|recorded| recorded.incarnations.last_mut()) {
            None => engine.handle_into(now, event, out),
            Some(writer) => writer.handle_into(engine, now, event, out),
        }
    }
}
