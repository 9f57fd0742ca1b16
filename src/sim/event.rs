//! What happens in a simulated network, and the fingerprint of all of it.

use super::drive::number;
use super::lookup::End;
use super::nodes::{GOLDEN, Handle};
use crate::event::{Outcome, Owner, RefusedBecause};
use crate::time::Instant;
use core::fmt;

/// What a request is sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Work {
    /// A lookup, by number.
    Lookup(u32),
    /// A broadcast, by number.
    Broadcast(u32),
    /// A bootstrap that began by itself.
    Bootstrap,
    /// The refresh of a bucket.
    Explore,
    /// The check of a node that may enter a routing table.
    Include,
    /// The check of a node that is in one.
    Probe,
    /// What an optimistic broadcast has left to do.
    Background,
}

impl From<Owner> for Work {
    fn from(owner: Owner) -> Self {
        match owner {
            Owner::Operation(id) => Self::of(number(id.tag())),
            Owner::Bootstrap => Self::Bootstrap,
            Owner::Explore => Self::Explore,
            Owner::Include => Self::Include,
            Owner::Probe => Self::Probe,
            Owner::Background => Self::Background,
        }
    }
}

impl Work {
    /// Tags of broadcasts begin here, below are those of lookups.
    const BROADCASTS: u32 = 1 << 31;

    /// The lookup or the broadcast with this tag.
    pub(crate) const fn of(tag: u32) -> Self {
        if tag < Self::BROADCASTS { Self::Lookup(tag) } else { Self::Broadcast(tag - Self::BROADCASTS) }
    }

    /// The tag of a lookup or a broadcast.
    pub(crate) const fn tag(self) -> Option<u32> {
        match self {
            Self::Lookup(number) => Some(number),
            Self::Broadcast(number) => Some(number | Self::BROADCASTS),
            _ => None,
        }
    }

    /// As a number; that of a lookup is its own.
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Lookup(lookup) => lookup.into(),
            Self::Bootstrap => 1 << 32,
            Self::Explore => 2 << 32,
            Self::Include => 3 << 32,
            Self::Probe => 4 << 32,
            Self::Background => 5 << 32,
            Self::Broadcast(number) => 6 << 32 | u64::from(number),
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(lookup) => write!(f, "lookup {lookup}"),
            Self::Broadcast(number) => write!(f, "broadcast {number}"),
            Self::Bootstrap => f.write_str("bootstrap"),
            Self::Explore => f.write_str("explore"),
            Self::Include => f.write_str("include"),
            Self::Probe => f.write_str("probe"),
            Self::Background => f.write_str("background"),
        }
    }
}

/// One thing that happened. Lookups are named by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A lookup began at this node.
    Started {
        /// The lookup.
        lookup: u32,
        /// Who looks.
        node: Handle,
    },
    /// A request left its asker.
    Sent {
        /// What for.
        work: Work,
        /// Who asks.
        from: Handle,
        /// Who is asked.
        to: Handle,
        /// Length of the causal chain.
        hop: u32,
        /// When its answer is late.
        deadline: Instant,
    },
    /// A request or its answer was lost on the way, or nobody is there to answer.
    Lost {
        /// What for.
        work: Work,
        /// Who asks.
        from: Handle,
        /// Who is asked.
        to: Handle,
    },
    /// A request arrived, and an answer left.
    Asked {
        /// What for.
        work: Work,
        /// Who is asked.
        node: Handle,
        /// How many nodes the answer names.
        closer: u32,
    },
    /// An answer arrived.
    Answered {
        /// What for.
        work: Work,
        /// Who asked.
        from: Handle,
        /// Who answered.
        node: Handle,
    },
    /// A request was given up by its asker.
    GivenUp {
        /// What for.
        work: Work,
        /// Who was asked.
        node: Handle,
        /// Whether it ran into its own timeout; else its lookup ended.
        timed_out: bool,
    },
    /// A node was told what time it is.
    Woke {
        /// The node.
        node: Handle,
    },
    /// A lookup ended.
    Finished {
        /// The lookup.
        lookup: u32,
        /// How.
        end: End,
        /// How many nodes it found.
        results: u32,
    },
    /// The caller of a request heard that nobody is there.
    Refused {
        /// What for.
        work: Work,
        /// Who was asked.
        node: Handle,
    },
    /// A node came: joined, or returned.
    Came {
        /// The node.
        node: Handle,
    },
    /// A node went away.
    Went {
        /// The node.
        node: Handle,
    },
    /// A node reached one that had asked it.
    Met {
        /// The node that was asked.
        node: Handle,
        /// The one that asked.
        asker: Handle,
    },
    /// The caller of a lookup stops it.
    Stopped {
        /// The lookup.
        lookup: u32,
    },
    /// A broadcast began at this node.
    BroadcastStarted {
        /// The broadcast.
        broadcast: u32,
        /// Whose it is.
        node: Handle,
    },
    /// A broadcast ended; what it has left to do may go on in the background.
    BroadcastFinished {
        /// The broadcast.
        broadcast: u32,
        /// How.
        end: End,
        /// How many nodes had something to store by then.
        stores: u32,
    },
    /// The caller of a broadcast stops it.
    BroadcastStopped {
        /// The broadcast.
        broadcast: u32,
    },
    /// A node was handed records, and holds them from now on.
    Stored {
        /// The node.
        node: Handle,
        /// How many.
        records: u32,
    },
    /// A Sybil made itself known.
    Intruded {
        /// To whom.
        node: Handle,
        /// The Sybil.
        sybil: Handle,
    },
    /// A bootstrap ended.
    Bootstrapped {
        /// Whose.
        node: Handle,
        /// How many nodes its table holds now.
        nodes: u32,
    },
    /// A routing table is nearly empty.
    NearEmpty {
        /// Whose.
        node: Handle,
        /// How many nodes are left.
        nodes: u32,
    },
    /// A node entered a routing table.
    Admitted {
        /// Whose table.
        table: Handle,
        /// The node.
        node: Handle,
    },
    /// A node left a routing table.
    Removed {
        /// Whose table.
        table: Handle,
        /// The node.
        node: Handle,
    },
}

impl Event {
    /// The event as numbers: what the fingerprint is made of.
    fn numbers(&self) -> [u64; 5] {
        let wide = |handle: Handle| u64::from(handle.0);
        match *self {
            Self::Started { lookup, node } => [1, lookup.into(), wide(node), 0, 0],
            Self::Sent { work, from, to, hop, deadline } => {
                [2 | u64::from(hop) << 8, work.number(), wide(from), wide(to), deadline.as_nanos()]
            }
            Self::Lost { work, from, to } => [3, work.number(), wide(from), wide(to), 0],
            Self::Asked { work, node, closer } => [4, work.number(), wide(node), closer.into(), 0],
            Self::Answered { work, from, node } => [5, work.number(), wide(from), wide(node), 0],
            Self::GivenUp { work, node, timed_out } => [6, work.number(), wide(node), timed_out.into(), 0],
            Self::Woke { node } => [7, 0, wide(node), 0, 0],
            Self::Finished { lookup, end, results } => [8, lookup.into(), end_number(end), results.into(), 0],
            Self::Admitted { table, node } => [9, 0, wide(table), wide(node), 0],
            Self::Removed { table, node } => [10, 0, wide(table), wide(node), 0],
            Self::Refused { work, node } => [11, work.number(), wide(node), 0, 0],
            Self::Came { node } => [12, 0, wide(node), 0, 0],
            Self::Went { node } => [13, 0, wide(node), 0, 0],
            Self::Met { node, asker } => [14, 0, wide(node), wide(asker), 0],
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
        End::Refused(RefusedBecause::TagInUse) => 16,
        End::Refused(RefusedBecause::Full) => 17,
        End::Refused(RefusedBecause::DeadlinePassed) => 18,
        End::Refused(RefusedBecause::NumResults { .. }) => 19,
        End::Refused(RefusedBecause::Quorum) => 20,
        End::Refused(RefusedBecause::Records { .. }) => 21,
        End::Refused(RefusedBecause::Nodes { .. }) => 22,
        End::NobodyThere => 32,
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { lookup, node } => write!(f, "lookup {lookup} starts at {node}"),
            Self::Sent { work, from, to, hop, deadline } => {
                write!(f, "{work}: {from} asks {to} (hop {hop}, until {deadline})")
            }
            Self::Lost { work, from, to } => write!(f, "{work}: lost between {from} and {to}"),
            Self::Asked { work, node, closer } => {
                write!(f, "{work}: {node} is asked and names {closer} nodes")
            }
            Self::Answered { work, from, node } => {
                write!(f, "{work}: {from} has the answer of {node}")
            }
            Self::GivenUp { work, node, timed_out: true } => write!(f, "{work}: {node} timed out"),
            Self::GivenUp { work, node, .. } => write!(f, "{work}: {node} is needed no more"),
            Self::Woke { node } => write!(f, "{node} wakes"),
            Self::Finished { lookup, end, results } => {
                write!(f, "lookup {lookup} ends: {end}, {results} nodes found")
            }
            Self::Refused { work, node } => write!(f, "{work}: nobody is at {node}"),
            Self::Came { node } => write!(f, "{node} comes"),
            Self::Went { node } => write!(f, "{node} goes"),
            Self::Met { node, asker } => write!(f, "{node} has reached {asker}, who had asked it"),
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
            Self::Admitted { table, node } => write!(f, "{node} enters the table of {table}"),
            Self::Removed { table, node } => write!(f, "{node} leaves the table of {table}"),
        }
    }
}

/// A running hash of all events with their times, a rotation and a multiplication for each of their numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn take(&mut self, at: Instant, event: &Event) {
        self.word(at.as_nanos());
        for number in event.numbers() {
            self.word(number);
        }
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(29) ^ word).wrapping_mul(GOLDEN);
    }

    pub(crate) const fn value(self) -> u64 {
        self.0
    }
}
