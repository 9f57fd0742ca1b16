//! [`GenerationalSlab`]: a slab whose handles stay tied to one entry, even after its slot is reused.
//!
//! Operation ids and request ids are such handles: an event that names an entry which has been removed is
//! recognised as late and never reaches the entry that occupies the slot now.

use core::fmt;
use slab::Slab;

/// A slot of a [`GenerationalSlab`] and the generation in which it was filled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Handle {
    // The first field, so that the derived order of handles is the order of insertion (until generations wrap).
    pub(crate) generation: u32,
    pub(crate) slot: u32,
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

/// A slab whose handles carry a generation. The generation counts the insertions into the whole slab, so an old
/// handle can match another entry only if a multiple of 2^32 insertions lies exactly between them.
#[derive(Clone, Debug)]
pub(crate) struct GenerationalSlab<T> {
    slab: Slab<(u32, T)>,
    next_generation: u32,
    /// Whether the generation counter has overflowed, so that every number has been used.
    wrapped: bool,
    /// The largest number of slots that were ever filled at the same time: slots from here on were never issued.
    slots_used: u32,
}

impl<T> GenerationalSlab<T> {
    pub(crate) const fn new() -> Self {
        Self { slab: Slab::new(), next_generation: 0, wrapped: false, slots_used: 0 }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// The handle that the next [`insert`](GenerationalSlab::insert) will return.
    #[allow(clippy::cast_possible_truncation)] // 2^32 live entries do not fit into memory
    pub(crate) fn next_handle(&self) -> Handle {
        Handle { generation: self.next_generation, slot: self.slab.vacant_key() as u32 }
    }

    /// All live entries, by slot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slab.iter().map(|(_, (_, value))| value)
    }

    /// The handles of all live entries, by slot.
    #[allow(clippy::cast_possible_truncation)] // as for `next_handle`
    pub(crate) fn handles(&self) -> impl Iterator<Item = Handle> {
        self.slab.iter().map(|(slot, (generation, _))| Handle { generation: *generation, slot: slot as u32 })
    }

    pub(crate) fn insert(&mut self, value: T) -> Handle {
        let handle = self.next_handle();
        self.slab.insert((self.next_generation, value));
        self.next_generation = self.next_generation.wrapping_add(1);
        self.wrapped |= self.next_generation == 0;
        self.slots_used = self.slots_used.max(handle.slot + 1);
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

    /// Whether the handle may have been returned by an earlier insertion; `false` means that it certainly was not.
    /// After the generations have wrapped, the last 2^31 - 1 of them count as issued.
    ///
    /// The generation and the slot are checked separately, so an invented handle may pass.
    pub(crate) fn was_issued(&self, handle: Handle) -> bool {
        let age = self.next_generation.wrapping_sub(handle.generation);
        let past = if self.wrapped {
            (1..=u32::MAX / 2).contains(&age)
        } else {
            handle.generation < self.next_generation
        };
        past && handle.slot < self.slots_used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_slot_is_another_handle() {
        let mut slab = GenerationalSlab::new();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_eq!(first.slot(), second.slot());
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&'b'));
        assert!(slab.was_issued(first) && slab.was_issued(second));
        assert!(!slab.was_issued(slab.next_handle()));
    }

    #[test]
    fn a_generation_in_the_future_was_not_issued() {
        let mut slab = GenerationalSlab::new();
        slab.insert('a');
        for generation in [1, u32::MAX / 2, u32::MAX / 2 + 2, u32::MAX] {
            assert!(!slab.was_issued(Handle { generation, slot: 0 }), "{generation}");
        }
        assert!(!slab.was_issued(Handle { generation: 0, slot: 1 }));
    }

    #[test]
    fn generations_wrap() {
        let mut slab = GenerationalSlab::new();
        slab.next_generation = u32::MAX;
        let old = slab.insert(1);
        slab.remove(old);
        let new = slab.insert(2);
        assert_eq!((slab.get(old), slab.get(new)), (None, Some(&2)));
        assert!(slab.was_issued(old) && slab.was_issued(new));
    }
}
