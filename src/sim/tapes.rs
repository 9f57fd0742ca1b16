//! Nodes of a [`World`] that are recorded.

use super::node::config;
use super::nodes::Net;
use super::world::World;
use crate::coordinator::{Coordinator, Inbound, Outbound};
use crate::machine::{Batch, Machine, Stamped};
use crate::record::{Beginning, Keep, Tape};
use crate::time::Instant;
use core::fmt;
use std::collections::BTreeMap;

/// Why a node is not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotRecorded {
    /// The run has begun: what it was told before would be lacking.
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

/// The tapes of the recorded nodes, by index.
#[derive(Default)]
pub(crate) struct Tapes {
    /// The run has begun.
    closed: bool,
    nodes: BTreeMap<u32, Taped>,
}

struct Taped {
    keep: Keep,
    text: bool,
    /// One for each engine that it has had.
    lives: Vec<Tape>,
}

impl Tapes {
    pub(crate) const fn close(&mut self) {
        self.closed = true;
    }

    /// Makes the next call of a node's engine, on its tape where there is one.
    pub(crate) fn handle_into(
        &mut self,
        index: u32,
        engine: &mut Coordinator<Net>,
        now: Instant,
        event: Stamped<Inbound<Net>>,
        out: &mut Batch<Outbound<Net>>,
    ) {
        match self.nodes.get_mut(&index).and_then(|taped| taped.lives.last_mut()) {
            None => engine.handle_into(now, event, out),
            Some(tape) => tape.handle_into(engine, now, event, out),
        }
    }
}

impl World {
    /// Has node `index` recorded from the beginning, [with the text](crate::record::Recorder::with_text) or without; the second
    /// time counts. It changes nothing of the run. Before the first step only.
    ///
    /// # Errors
    /// [`NotRecorded`] says why it is not.
    pub fn record(&mut self, index: u32, keep: Keep, text: bool) -> Result<(), NotRecorded> {
        if self.tapes.closed {
            return Err(NotRecorded::Late);
        }
        if index >= self.scenario.nodes {
            return Err(NotRecorded::NoSuchNode);
        }
        self.tapes.nodes.insert(index, Taped { keep, text, lives: Vec::new() });
        self.tape(index);
        Ok(())
    }

    /// The recordings of node `index` as they stand, closed: one for each life, the first one first, as a node that
    /// keeps its table itself begins anew whenever it comes. None where it was never there, or is not
    /// [recorded](World::record). What is kept is kept of each life.
    pub fn recordings(&self, index: u32) -> Vec<Vec<u8>> {
        let lives = self.tapes.nodes.get(&index).map(|taped| taped.lives.as_slice());
        lives.unwrap_or_default().iter().map(Tape::bytes).collect()
    }

    /// A recorded node has an engine that was told nothing yet: its tape begins.
    pub(crate) fn tape(&mut self, index: u32) {
        if !self.tapes.nodes.contains_key(&index) {
            return;
        }
        let round_trips = self.measured(index);
        let engine = self.nodes.get(index as usize).and_then(|node| node.engine.as_ref());
        if let Some(taped) = self.tapes.nodes.get_mut(&index)
            && let Some(engine) = engine
        {
            let (table, config) = (engine.table(), config(&self.scenario, index));
            let nodes = table.iter().map(|record| *record.node()).collect();
            let beginning = Beginning { local: table.local(), config, nodes, round_trips };
            taped.lives.push(Tape::new::<Net>(&beginning, taped.keep, taped.text));
        }
    }
}
