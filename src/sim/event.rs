//! [`SimEvent`]: what happens in a simulated network, as the log and the fingerprint see it.

use crate::sim::activity::Activity;
use crate::sim::network::handle::Handle;
use crate::sim::results::end::End;
use crate::vocabulary::operation_events::{Outcome, RefusalReason};
use crate::vocabulary::time::Instant;
use core::fmt;

/// Something that happened in a run. Lookups and broadcasts are given by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SimEvent {
    /// A lookup began.
    Started {
        /// The lookup.
        lookup: u32,
        /// The node that started it.
        node: Handle,
    },
    /// A request was sent.
    Sent {
        /// What it is for.
        activity: Activity,
        /// The node that asks.
        from: Handle,
        /// The node that is asked.
        to: Handle,
        /// The length of the causal chain that led to it.
        hop: u32,
        /// When it times out.
        deadline: Instant,
    },
    /// A request or its answer was lost, or the node that was asked sends no answer, or the asker is offline by
    /// now.
    Lost {
        /// What the request was for.
        activity: Activity,
        /// The node that asked.
        from: Handle,
        /// The node that was asked.
        to: Handle,
    },
    /// A request arrived. Then the answer arrives ([`Answered`](Self::Answered)), or is [`Lost`](Self::Lost).
    Asked {
        /// What the request is for.
        activity: Activity,
        /// The node that was asked.
        node: Handle,
        /// How many nodes the answer contains.
        closer: u32,
    },
    /// An answer arrived.
    Answered {
        /// What the request was for.
        activity: Activity,
        /// The node that asked.
        from: Handle,
        /// The node that answered.
        node: Handle,
    },
    /// The asker's engine cancelled a request.
    Cancelled {
        /// What the request was for.
        activity: Activity,
        /// The node that was asked.
        node: Handle,
        /// Whether it timed out; otherwise its operation needs it no more.
        timed_out: bool,
    },
    /// A node's engine was called at its wake-up time.
    Woke {
        /// The node.
        node: Handle,
    },
    /// A lookup ended.
    Finished {
        /// The lookup.
        lookup: u32,
        /// How it ended.
        end: End,
        /// How many nodes it found.
        results: u32,
    },
    /// The asker was notified that the node it asked cannot be reached.
    Refused {
        /// What the request was for.
        activity: Activity,
        /// The node that was asked.
        node: Handle,
    },
    /// A node came online: it joined, or returned.
    Came {
        /// The node.
        node: Handle,
    },
    /// A node went offline.
    Went {
        /// The node.
        node: Handle,
    },
    /// A node's reverse ping to one that had asked it was answered.
    ReversePinged {
        /// The node that was asked, and pinged.
        node: Handle,
        /// The node that had asked.
        asker: Handle,
    },
    /// The caller of a lookup stopped it.
    Stopped {
        /// The lookup.
        lookup: u32,
    },
    /// A broadcast began.
    BroadcastStarted {
        /// The broadcast.
        broadcast: u32,
        /// The node that started it.
        node: Handle,
    },
    /// A broadcast finished; an optimistic one may go on in the background.
    BroadcastFinished {
        /// The broadcast.
        broadcast: u32,
        /// How it ended.
        end: End,
        /// How many nodes it had chosen to store with by then.
        stores: u32,
    },
    /// The caller of a broadcast stopped it.
    BroadcastStopped {
        /// The broadcast.
        broadcast: u32,
    },
    /// A node stored records that it received.
    Stored {
        /// The node.
        node: Handle,
        /// How many records.
        records: u32,
    },
    /// A Sybil advertised itself.
    Intruded {
        /// The node that received the advertisement.
        node: Handle,
        /// The Sybil.
        sybil: Handle,
    },
    /// A bootstrap ended.
    Bootstrapped {
        /// The node that bootstrapped.
        node: Handle,
        /// How many nodes its table holds now.
        nodes: u32,
    },
    /// A routing table is nearly empty.
    NearEmpty {
        /// The node whose table it is.
        node: Handle,
        /// How many nodes are left in it.
        nodes: u32,
    },
    /// A node takes itself for cut off.
    CutOff {
        /// The node.
        node: Handle,
    },
    /// A node does so no longer.
    Reconnected {
        /// The node.
        node: Handle,
    },
    /// A node entered a routing table.
    Admitted {
        /// The node whose table it is.
        table: Handle,
        /// The node that entered.
        node: Handle,
    },
    /// A node left a routing table.
    Removed {
        /// The node whose table it is.
        table: Handle,
        /// The node that left.
        node: Handle,
    },
}

impl SimEvent {
    /// The event as numbers, for the fingerprint. The first identifies the variant; these numbers never change.
    pub(crate) fn numbers(&self) -> [u64; 5] {
        let wide = |handle: Handle| u64::from(handle.0);
        match *self {
            Self::Started { lookup, node } => [1, lookup.into(), wide(node), 0, 0],
            Self::Sent { activity, from, to, hop, deadline } => {
                [2 | u64::from(hop) << 8, activity.number(), wide(from), wide(to), deadline.as_nanos()]
            }
            Self::Lost { activity, from, to } => [3, activity.number(), wide(from), wide(to), 0],
            Self::Asked { activity, node, closer } => [4, activity.number(), wide(node), closer.into(), 0],
            Self::Answered { activity, from, node } => [5, activity.number(), wide(from), wide(node), 0],
            Self::Cancelled { activity, node, timed_out } => {
                [6, activity.number(), wide(node), timed_out.into(), 0]
            }
            Self::Woke { node } => [7, 0, wide(node), 0, 0],
            Self::Finished { lookup, end, results } => [8, lookup.into(), end_number(end), results.into(), 0],
            Self::Admitted { table, node } => [9, 0, wide(table), wide(node), 0],
            Self::Removed { table, node } => [10, 0, wide(table), wide(node), 0],
            Self::Refused { activity, node } => [11, activity.number(), wide(node), 0, 0],
            Self::Came { node } => [12, 0, wide(node), 0, 0],
            Self::Went { node } => [13, 0, wide(node), 0, 0],
            Self::ReversePinged { node, asker } => [14, 0, wide(node), wide(asker), 0],
            Self::Stopped { lookup } => [15, lookup.into(), 0, 0, 0],
            Self::Intruded { node, sybil } => [16, 0, wide(node), wide(sybil), 0],
            Self::Bootstrapped { node, nodes } => [17, 0, wide(node), nodes.into(), 0],
            Self::NearEmpty { node, nodes } => [18, 0, wide(node), nodes.into(), 0],
            Self::BroadcastStarted { broadcast, node } => [19, broadcast.into(), wide(node), 0, 0],
            Self::BroadcastFinished { broadcast, end, stores } => {
                [20, broadcast.into(), end_number(end), stores.into(), 0]
            }
            Self::BroadcastStopped { broadcast } => [21, broadcast.into(), 0, 0, 0],
            Self::Stored { node, records } => [22, 0, wide(node), records.into(), 0],
            Self::CutOff { node } => [23, 0, wide(node), 0, 0],
            Self::Reconnected { node } => [24, 0, wide(node), 0, 0],
        }
    }
}

fn end_number(end: End) -> u64 {
    match end {
        End::Finished(Outcome::Converged) => 0,
        End::Finished(Outcome::Exhausted) => 1,
        End::Finished(Outcome::NodeLimit) => 2,
        End::Finished(Outcome::DeadlineExceeded) => 3,
        End::Finished(Outcome::Stopped) => 4,
        End::Finished(Outcome::Quorum) => 5,
        End::Finished(Outcome::Complete) => 6,
        End::Finished(Outcome::StoppedEarly) => 7,
        End::Finished(Outcome::Unsure) => 8,
        End::Finished(Outcome::AllFound) => 9,
        End::Finished(Outcome::Unreachable) => 10,
        End::Finished(Outcome::Overloaded) => 11,
        End::Refused(RefusalReason::TagInUse) => 16,
        End::Refused(RefusalReason::Full) => 17,
        End::Refused(RefusalReason::DeadlinePassed) => 18,
        End::Refused(RefusalReason::NumResults { .. }) => 19,
        End::Refused(RefusalReason::Quorum) => 20,
        End::Refused(RefusalReason::Records { .. }) => 21,
        End::Refused(RefusalReason::Nodes { .. }) => 22,
        End::NobodyThere => 32,
    }
}

impl fmt::Display for SimEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { lookup, node } => write!(f, "lookup {lookup} starts at {node}"),
            Self::Sent { activity, from, to, hop, deadline } => {
                write!(f, "{activity}: {from} asks {to} (hop {hop}, until {deadline})")
            }
            Self::Lost { activity, from, to } => write!(f, "{activity}: lost between {from} and {to}"),
            Self::Asked { activity, node, closer } => {
                write!(f, "{activity}: {node} is asked and names {closer} nodes")
            }
            Self::Answered { activity, from, node } => {
                write!(f, "{activity}: {from} has the answer of {node}")
            }
            Self::Cancelled { activity, node, timed_out: true } => write!(f, "{activity}: {node} timed out"),
            Self::Cancelled { activity, node, .. } => write!(f, "{activity}: {node} is needed no more"),
            Self::Woke { node } => write!(f, "{node} wakes"),
            Self::Finished { lookup, end, results } => {
                write!(f, "lookup {lookup} ends: {end}, {results} nodes found")
            }
            Self::Refused { activity, node } => write!(f, "{activity}: nobody is at {node}"),
            Self::Came { node } => write!(f, "{node} comes"),
            Self::Went { node } => write!(f, "{node} goes"),
            Self::ReversePinged { node, asker } => write!(f, "{node} has reached {asker}, who had asked it"),
            Self::Stopped { lookup } => write!(f, "lookup {lookup} is stopped"),
            Self::BroadcastStarted { broadcast, node } => {
                write!(f, "broadcast {broadcast} starts at {node}")
            }
            Self::BroadcastFinished { broadcast, end, stores } => {
                write!(f, "broadcast {broadcast} ends: {end}, {stores} nodes to store with")
            }
            Self::BroadcastStopped { broadcast } => write!(f, "broadcast {broadcast} is stopped"),
            Self::Stored { node, records } => write!(f, "{node} stores {records} records"),
            Self::Intruded { node, sybil } => write!(f, "{sybil} makes itself known to {node}"),
            Self::Bootstrapped { node, nodes } => {
                write!(f, "{node} has bootstrapped: it knows {nodes} nodes")
            }
            Self::NearEmpty { node, nodes } => write!(f, "{node} knows {nodes} nodes only"),
            Self::CutOff { node } => write!(f, "{node} takes itself for cut off"),
            Self::Reconnected { node } => write!(f, "{node} is cut off no longer"),
            Self::Admitted { table, node } => write!(f, "{node} enters the table of {table}"),
            Self::Removed { table, node } => write!(f, "{node} leaves the table of {table}"),
        }
    }
}
