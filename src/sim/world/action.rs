//! [`Action`]: what is scheduled to happen in a run.

use crate::sim::activity::Activity;
use crate::sim::network::handle::Handle;
use crate::sim::world::sent_request::SentRequest;
use core::time::Duration;

/// A scheduled action. Nodes that churn, join or wake are given by index.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Starts the next lookup of the workload.
    StartLookup,
    /// Starts the next broadcast: chooses its node, which makes its warm-up lookups first.
    StartBroadcast,
    /// Gives a broadcast, by number, to the engine of its node.
    SubmitBroadcast { node: u32, broadcast: u32 },
    /// Stops a broadcast, by number, as its caller would.
    StopBroadcast(u32),
    /// The background of a broadcast is over: measures which nodes hold its records.
    MeasureCoverage(u32),
    /// A node joins.
    Join(u32),
    /// A node looks up a random key; `left` more such lookups follow.
    Refresh { node: u32, left: u32 },
    /// The network is built.
    NetworkBuilt,
    /// A node goes online or offline; `changes` numbers its changes, from 1.
    TogglePresence { node: u32, changes: u32 },
    /// Stops a lookup, by number, as its caller would.
    StopLookup(u32),
    /// The pong of a reverse ping arrives after this round trip: `node` pinged `asker`, which had asked it.
    ReversePing { node: u32, asker: Handle, activity: Activity, round_trip: Duration },
    /// A Sybil of a set advertises itself; the number counts the advertisements.
    AdvertiseSybil { set: u32, number: u32 },
    /// A party, or the set of Sybils after all parties, acts of its own accord; the number counts its turns.
    Act { party: u32, number: u32 },
    /// The change of the scenario with this number happens.
    Change(u32),
    /// The run has lasted as long as it should.
    Lasted,
    /// Measures the routing tables.
    SampleHealth,
    /// Calls a node's engine, if its wake-up time has come.
    Wake(u32),
    /// A request arrives.
    DeliverRequest(SentRequest),
    /// An answer with these nodes, and with this record, arrives.
    DeliverAnswer(SentRequest, Vec<Handle>, Option<u32>),
    /// The notice arrives that the node asked cannot be reached, or serves nobody.
    DeliverRefusal(SentRequest),
}

impl Action {
    /// Whether a run goes on as long as it is scheduled. If the nodes' maintenance is on, some message is
    /// always under way: there a run goes on for the scheduled workload only.
    pub(crate) const fn keeps_running(&self, maintained: bool) -> bool {
        match self {
            Self::TogglePresence { .. }
            | Self::AdvertiseSybil { .. }
            | Self::Act { .. }
            | Self::SampleHealth => false,
            Self::StartLookup
            | Self::StartBroadcast
            | Self::SubmitBroadcast { .. }
            | Self::StopBroadcast(_)
            | Self::MeasureCoverage(_)
            | Self::Join(_)
            | Self::Refresh { .. }
            | Self::NetworkBuilt
            | Self::Change(_)
            | Self::Lasted
            | Self::StopLookup(_) => true,
            Self::ReversePing { .. }
            | Self::Wake(_)
            | Self::DeliverRequest(_)
            | Self::DeliverAnswer(..)
            | Self::DeliverRefusal(_) => !maintained,
        }
    }
}
