//! [`Purpose`]: the part of a machine that a request belongs to, and the node within that part.
//!
//! This is plain data that is stored with a request in the queue and in the in-flight table, and returned when the
//! request ends. Lookups, crawls and broadcasts find their node by a [`NodeRef`], the liveness checks of the
//! routing table by a [`CheckRef`].

use crate::vocabulary::id::{OperationId, RequestId};
use crate::vocabulary::key::Key;
use crate::vocabulary::request_events::Initiator;
use crate::vocabulary::time::Instant;

/// What a request belongs to, and which node it asks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// A request of an operation.
    Operation(OperationRequest),
    /// The request of a liveness check, by include or by probe.
    Check(CheckRef),
    /// A request of a lookup that has ended, whose answer is still listened to; the number is that of the listener in
    /// the pool of operations.
    Listening(u32),
}

impl Purpose {
    /// The request of an operation, if it is one.
    pub(crate) const fn operation(&self) -> Option<&OperationRequest> {
        match self {
            Self::Operation(request) => Some(request),
            Self::Check(_) | Self::Listening(_) => None,
        }
    }

    /// The liveness check, if it is one.
    pub(crate) const fn check(&self) -> Option<CheckRef> {
        match self {
            Self::Check(check) => Some(*check),
            Self::Operation(_) | Self::Listening(_) => None,
        }
    }
}

/// A request of an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OperationRequest {
    pub(crate) operation: OperationId,
    pub(crate) node: NodeRef,
    /// Length of the causal chain that led to the node; see [`Request::hop`](crate::Request::hop).
    pub(crate) hop: u16,
}

impl OperationRequest {
    /// Whether the node was a seed of the operation.
    pub(crate) const fn is_seed(&self) -> bool {
        self.hop == 1
    }
}

/// A liveness check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckRef {
    /// [`Initiator::Include`] or [`Initiator::Probe`].
    pub(crate) initiator: Initiator,
    /// The slot of the node in the list of the initiator.
    pub(crate) slot: u32,
}

/// A liveness check that waited in the request queue and is to be sent now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReleasedCheck {
    pub(crate) check: CheckRef,
    pub(crate) request: RequestId,
    pub(crate) deadline: Instant,
}

/// A reference to a node within the task of an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NodeRef {
    /// A candidate of one of the task's lookups. Most tasks have one lookup, number 0.
    Lookup { number: u16, candidate: CandidateRef },
    /// A node of a crawl, by its index.
    Crawl(u32),
    /// A node that a broadcast stores with, by its index.
    Store(u32),
}

impl NodeRef {
    /// Whether both refer to the same node of the same part of the task.
    pub(crate) const fn is_same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Lookup { number, candidate }, Self::Lookup { number: same, candidate: other }) => {
                number == same && candidate.is_same(other)
            }
            (Self::Crawl(node), Self::Crawl(other)) | (Self::Store(node), Self::Store(other)) => {
                node == other
            }
            _ => false,
        }
    }

    /// Whether its operation has at most one request to the node at a time: a crawl asks each node one thing after
    /// another.
    pub(crate) const fn has_one_request(self) -> bool {
        matches!(self, Self::Crawl(_))
    }

    /// The number of the lookup, if the node is a candidate of one.
    pub(crate) const fn lookup(self) -> Option<u16> {
        match self {
            Self::Lookup { number, .. } => Some(number),
            _ => None,
        }
    }
}

/// The distances of a block: the first, and how many bits they have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) first: u64,
    pub(crate) len: u8,
}

impl Block {
    /// All distances.
    pub(crate) const ALL: Self = Self { first: 0, len: 0 };

    /// The block with this distance in it.
    pub(crate) const fn around(distance: u64, len: u8) -> Self {
        Self { first: distance & !Self::rest(len), len }
    }

    /// The bits of a distance after the first `len`.
    pub(crate) const fn rest(len: u8) -> u64 {
        if len >= 64 { 0 } else { u64::MAX >> len }
    }

    /// The point of the block that is nearest to this target.
    pub(crate) fn point<K: Key>(self, target: &K) -> K {
        let bits = (0..K::BITS.min(64)).filter(|bit| self.first >> (63 - bit) & 1 == 1);
        bits.fold(*target, |point, bit| point.with_flipped(bit))
    }

    /// Whether its [point](Self::point) is the target itself.
    pub(crate) const fn is_at_target(self) -> bool {
        self.first == 0
    }

    /// The subtree of all keys that differ from the target first at bit `len`, from 1 to 64.
    pub(crate) const fn part(len: u8) -> Self {
        let first = 1
            << (64
                - if len > 64 {
                    64
                } else if len == 0 {
                    1
                } else {
                    len
                });
        Self { first, len }
    }

    pub(crate) const fn last(self) -> u64 {
        self.first | Self::rest(self.len)
    }
}

/// A reference to a candidate of a lookup, and the point that it was asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CandidateRef {
    /// The number of the disjoint path that the candidate belongs to.
    pub(crate) path: u16,
    /// The slot of the candidate's contact in its path.
    pub(crate) slot: u16,
    /// The first 64 bits of the candidate's distance to the target, by which it is found in the sorted candidate
    /// list.
    pub(crate) distance_prefix: u64,
    /// The block whose point it is asked about; `None` if it is asked about the target itself.
    pub(crate) block: Option<Block>,
    /// The node is asked only to learn the edge of the target's neighbourhood.
    pub(crate) edge_probe: bool,
}

impl CandidateRef {
    /// Whether both refer to the same candidate.
    pub(crate) const fn is_same(self, other: Self) -> bool {
        self.path == other.path && self.slot == other.slot
    }
}

/// Which request of an operation to a node it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    First,
    /// A second one, while an answer to the first, which is slow, is still accepted.
    Hedge,
    /// One more, after those before have ended, or are silent.
    Again,
}
