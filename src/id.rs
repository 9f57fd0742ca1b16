//! Ids of operations and requests, and the arena that gives them out.

use core::fmt;
use slab::Slab;

/// Names a live operation. Given out when a start is accepted.
///
/// It holds the `tag` that the caller chose, by which events can be routed without a table of one's own, and a
/// generation: an id that outlived its operation never names another one.
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

    /// The caller's own name for the operation, as the start gave it.
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

/// Names a request in flight. The driver hands it back with the answer.
///
/// It converts to and from a `u64`, so that it can travel in a wire protocol's transaction id: a forged or late
/// one is recognised and ignored.
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

    /// The id as a number; [`from_u64`](RequestId::from_u64) is the way back.
    pub const fn to_u64(self) -> u64 {
        (self.0.generation as u64) << 32 | self.0.slot as u64
    }

    /// The id that this number stands for. Any number is allowed; one that was never given out is ignored.
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

/// A slot of an [`Arena`] and the generation in which it was filled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Handle {
    // The generation comes first, so that handles order by age.
    generation: u32,
    slot: u32,
}

impl Handle {
    pub(crate) const fn slot(self) -> u32 {
        self.slot
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// A slab whose handles carry a generation. Generations count the insertions into the whole arena, so a handle
/// could be mistaken only after exactly a multiple of 2^32 of them.
#[derive(Clone, Debug)]
pub(crate) struct Arena<T> {
    slab: Slab<(u32, T)>,
    next: u32,
    /// The generations have begun anew: every number has been used.
    wrapped: bool,
    /// How many slots have ever been filled.
    slots: u32,
}

impl<T> Arena<T> {
    pub(crate) const fn new() -> Self {
        Self { slab: Slab::new(), next: 0, wrapped: false, slots: 0 }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// The handle that the next insertion will return.
    #[allow(clippy::cast_possible_truncation)] // 2^32 live entries do not fit into memory
    pub(crate) fn next_handle(&self) -> Handle {
        Handle { generation: self.next, slot: self.slab.vacant_key() as u32 }
    }

    pub(crate) fn insert(&mut self, value: T) -> Handle {
        let handle = self.next_handle();
        self.slab.insert((self.next, value));
        self.next = self.next.wrapping_add(1);
        self.wrapped |= self.next == 0;
        self.slots = self.slots.max(handle.slot + 1);
        handle
    }

    pub(crate) fn get(&self, handle: Handle) -> Option<&T> {
        let (generation, value) = self.slab.get(handle.slot as usize)?;
        (*generation == handle.generation).then_some(value)
    }

    pub(crate) fn get_mut(&mut self, handle: Handle) -> Option<&mut T> {
        let (generation, value) = self.slab.get_mut(handle.slot as usize)?;
        (*generation == handle.generation).then_some(value)
    }

    /// The live entry in a slot, with its handle.
    pub(crate) fn at(&self, slot: u32) -> Option<(Handle, &T)> {
        let (generation, value) = self.slab.get(slot as usize)?;
        Some((Handle { generation: *generation, slot }, value))
    }

    pub(crate) fn at_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slab.get_mut(slot as usize).map(|(_, value)| value)
    }

    pub(crate) fn remove(&mut self, handle: Handle) -> Option<T> {
        self.get(handle)?;
        self.slab.try_remove(handle.slot as usize).map(|(_, value)| value)
    }

    /// Whether the handle may once have been given out: false means that it is made up.
    pub(crate) fn was_issued(&self, handle: Handle) -> bool {
        let age = self.next.wrapping_sub(handle.generation);
        let past =
            if self.wrapped { (1..=u32::MAX / 2).contains(&age) } else { handle.generation < self.next };
        past && handle.slot < self.slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_slot_is_another_handle() {
        let mut arena = Arena::new();
        let first = arena.insert('a');
        assert_eq!(arena.remove(first), Some('a'));
        let second = arena.insert('b');
        assert_eq!(first.slot(), second.slot());
        assert_eq!(arena.get(first), None);
        assert_eq!(arena.remove(first), None);
        assert_eq!(arena.get(second), Some(&'b'));
        assert!(arena.was_issued(first) && arena.was_issued(second));
        assert!(!arena.was_issued(arena.next_handle()));
    }

    #[test]
    fn a_generation_that_has_not_come_yet_is_made_up() {
        let mut arena = Arena::new();
        arena.insert('a');
        for generation in [1, u32::MAX / 2, u32::MAX / 2 + 2, u32::MAX] {
            assert!(!arena.was_issued(Handle { generation, slot: 0 }), "{generation}");
        }
        assert!(!arena.was_issued(Handle { generation: 0, slot: 1 }));
    }

    #[test]
    fn generations_wrap() {
        let mut arena = Arena::new();
        arena.next = u32::MAX;
        let old = arena.insert(1);
        arena.remove(old);
        let new = arena.insert(2);
        assert_eq!((arena.get(old), arena.get(new)), (None, Some(&2)));
        assert!(arena.was_issued(old) && arena.was_issued(new));
    }

    #[test]
    fn request_ids_travel_as_numbers() {
        for number in [0, 1, u64::MAX, 1 << 32, 0x1234_5678_9abc_def0] {
            assert_eq!(RequestId::from_u64(number).to_u64(), number);
        }
    }
}
