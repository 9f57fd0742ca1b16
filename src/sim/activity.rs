//! [`Activity`]: what a request is sent for, and the tags by which engines know lookups and broadcasts.

use crate::vocabulary::request_events::Initiator;
use core::fmt;

/// What a request is sent for: the engine's [`Initiator`](crate::Initiator), with the operation named by its
/// number in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Activity {
    /// A lookup, by number.
    Lookup(u32),
    /// A broadcast, by number.
    Broadcast(u32),
    /// A bootstrap that the routing maintenance began.
    Bootstrap,
    /// The refresh of a bucket.
    Explore,
    /// The liveness check of a node that may enter a routing table.
    Include,
    /// The liveness check of a node that is in a routing table.
    Probe,
    /// A store that an optimistic broadcast makes after its finish.
    Background,
}

impl From<Initiator> for Activity {
    fn from(initiator: Initiator) -> Self {
        match initiator {
            Initiator::Operation(id) => Self::from_tag(short_tag(id.tag())),
            Initiator::Bootstrap => Self::Bootstrap,
            Initiator::Explore => Self::Explore,
            Initiator::Include => Self::Include,
            Initiator::Probe => Self::Probe,
            Initiator::Background => Self::Background,
        }
    }
}

impl Activity {
    /// The first tag of broadcasts; the tags below are those of lookups.
    const BROADCASTS: u32 = 1 << 31;

    /// The lookup or the broadcast with this tag.
    pub(crate) const fn from_tag(tag: u32) -> Self {
        if tag < Self::BROADCASTS { Self::Lookup(tag) } else { Self::Broadcast(tag - Self::BROADCASTS) }
    }

    /// The tag of a lookup or a broadcast; `None` for the others.
    pub(crate) const fn tag(self) -> Option<u32> {
        match self {
            Self::Lookup(number) => Some(number),
            Self::Broadcast(number) => Some(number | Self::BROADCASTS),
            _ => None,
        }
    }

    /// A number that identifies it, as an id of a random stream and in the fingerprint; that of a lookup is its
    /// own.
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

impl fmt::Display for Activity {
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

/// The tag of a lookup or a broadcast, in 32 bits: the simulator uses no longer ones.
#[allow(clippy::cast_possible_truncation)] // the tags of a run are `u32`
pub(crate) const fn short_tag(tag: u64) -> u32 {
    tag as u32
}
