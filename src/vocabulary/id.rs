//! [`OperationId`] and [`RequestId`]: handles of a [generational slab](crate::collections::generational_slab).

use crate::collections::generational_slab::Handle;
use core::fmt;

/// The id of a live operation. Issued when a start is accepted.
///
/// It contains the `tag` that the caller chose, so that events can be routed without a table in the driver, and a
/// generation: an id whose operation has ended never matches a later operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct OperationId {
    tag: u64,
    handle: Handle,
}

impl OperationId {
    pub(crate) const fn new(tag: u64, handle: Handle) -> Self {
        Self { tag, handle }
    }

    /// The tag that the caller chose for the operation in its start.
    pub const fn tag(self) -> u64 {
        self.tag
    }

    pub(crate) const fn handle(self) -> Handle {
        self.handle
    }
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation {} ({:?})", self.tag, self.handle)
    }
}

/// The id of a request in flight. The driver returns it with the answer or the failure.
///
/// It converts to and from a `u64`, so that it can be used as the transaction id of a wire protocol. An id that is
/// late (its request has ended) and an id that was never issued are recognised and ignored;
/// [`RequestStats`](crate::RequestStats) counts them. But ids count upwards, so others can guess the id of a live
/// request, and a guessed id is not recognised as forged. On an unauthenticated wire use
/// [`Request::token`](crate::Request::token) (a [`WireToken`](crate::WireToken)) as the transaction id instead.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct RequestId(Handle);

impl RequestId {
    pub(crate) const fn new(handle: Handle) -> Self {
        Self(handle)
    }

    pub(crate) const fn handle(self) -> Handle {
        self.0
    }

    /// The id as a number: the generation in the upper 32 bits, the slot in the lower.
    /// [`from_u64`](RequestId::from_u64) is the inverse.
    pub const fn to_u64(self) -> u64 {
        (self.0.generation as u64) << 32 | self.0.slot as u64
    }

    /// The id with this number. Every number is allowed: a machine ignores an id that it never issued.
    #[allow(clippy::cast_possible_truncation)] // the two halves of the number
    pub const fn from_u64(number: u64) -> Self {
        Self(Handle { generation: (number >> 32) as u32, slot: number as u32 })
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_travel_as_numbers() {
        for number in [0, 1, u64::MAX, 1 << 32, 0x1234_5678_9abc_def0] {
            assert_eq!(RequestId::from_u64(number).to_u64(), number);
        }
    }
}
