//! Recording of nodes: `World::record` chooses them before the run, `World::recordings` returns the results.

use crate::record::{Header, Keep, RecordingWriter};
use crate::routing::config::RoutingConfig;
use crate::sim::network::handle::Net;
use crate::sim::world::World;
use crate::sim::world::node::engine_seeds;
use crate::sim::world::recordings::{NotRecorded, RecordedNode};

impl World {
    /// Records node `index` from the beginning, [with the text](crate::record::Recorder::with_text) or without. A
    /// second call for the same node replaces the first. It does not change the run. Before the first step only.
    ///
    /// # Errors
    /// [`NotRecorded`] if the run has begun or there is no such node.
    pub fn record(&mut self, index: u32, keep: Keep, text: bool) -> Result<(), NotRecorded> {
        if self.recordings.closed {
            return Err(NotRecorded::Late);
        }
        if index >= self.scenario.nodes {
            return Err(NotRecorded::NoSuchNode);
        }
        self.recordings.nodes.insert(index, RecordedNode { keep, text, incarnations: Vec::new() });
        self.begin_recording(index);
        Ok(())
    }

    /// The recordings of node `index` up to now, each complete: one for each incarnation, the first one first, as
    /// a node whose maintenance is on restarts with an empty table whenever it comes online. Empty if it was
    /// never online, or is not [recorded](World::record). `keep` applies to each of them.
    pub fn recordings(&self, index: u32) -> Vec<Vec<u8>> {
        let recorded = self.recordings.nodes.get(&index).map(|recorded| recorded.incarnations.as_slice());
        recorded.unwrap_or_default().iter().map(RecordingWriter::bytes).collect()
    }

    /// Accepts no more nodes to record: the run begins.
    pub(super) const fn close_recordings(&mut self) {
        self.recordings.closed = true;
    }

    /// Begins a recording of a node whose new engine has had no call yet, if the node is recorded.
    pub(super) fn begin_recording(&mut self, index: u32) {
        if !self.recordings.nodes.contains_key(&index) {
            return;
        }
        let round_trips = self.known_round_trips(index);
        let node = self.nodes.get(index as usize);
        let maintained = node.is_some_and(|node| node.maintained);
        let engine = node.and_then(|node| node.engine.as_ref());
        if let Some(recorded) = self.recordings.nodes.get_mut(&index)
            && let Some(engine) = engine
        {
            let (table, mut config) = (engine.table(), self.scenario.config.clone());
            if !maintained {
                config.routing = RoutingConfig::off();
            }
            let choices = engine_seeds(&self.scenario, index).choices;
            let nodes = table.iter().map(|record| *record.node()).collect();
            let family = table.local_node().family;
            let header = Header { local: table.local(), config, choices, nodes, round_trips, family };
            recorded.incarnations.push(RecordingWriter::new::<Net>(&header, recorded.keep, recorded.text));
        }
    }
}
