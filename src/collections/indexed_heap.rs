//! [`IndexedHeap`]: a min-heap with removal by slot, for timers and for queues in order of deadline.

/// A min-heap of keys, with at most one entry per slot, from which an entry can be removed wherever it is. So
/// there are no stale entries, and [`peek`](IndexedHeap::peek) is exact. All changes are O(log n); equal keys are
/// ordered by slot.
///
/// Each heap node has four children: the heap is half as deep as a binary one, and the children share a cache
/// line.
#[derive(Clone, Debug)]
pub(crate) struct IndexedHeap<K> {
    entries: Vec<(K, u32)>,
    /// By slot: the index of its entry in `entries`, or `ABSENT`.
    positions: Vec<u32>,
}

impl<K> Default for IndexedHeap<K> {
    fn default() -> Self {
        Self { entries: Vec::new(), positions: Vec::new() }
    }
}

const ABSENT: u32 = u32::MAX;

const ARITY: usize = 4;

impl<K: Copy + Ord> IndexedHeap<K> {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), positions: Vec::new() }
    }

    /// The smallest entry.
    pub(crate) fn peek(&self) -> Option<(K, u32)> {
        self.entries.first().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The key of the slot, if it is present.
    pub(crate) fn get(&self, slot: u32) -> Option<K> {
        self.entries.get(self.position(slot)?).map(|(key, _)| *key)
    }

    /// All entries, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, u32)> {
        self.entries.iter().copied()
    }

    /// Inserts the slot with this key, or changes its key.
    pub(crate) fn set(&mut self, slot: u32, key: K) {
        let index = slot as usize;
        if index >= self.positions.len() {
            self.positions.resize(index + 1, ABSENT);
        }
        let position = self.position(slot).unwrap_or_else(|| {
            self.entries.push((key, slot));
            self.entries.len() - 1
        });
        self.sift(position, (key, slot));
    }

    /// Removes the slot. Returns whether it was present.
    pub(crate) fn clear(&mut self, slot: u32) -> bool {
        let Some(position) = self.position(slot) else { return false };
        if let Some(at) = self.positions.get_mut(slot as usize) {
            *at = ABSENT;
        }
        if let Some(last) = self.entries.pop()
            && position < self.entries.len()
        {
            self.sift(position, last);
        }
        true
    }

    /// Removes and returns the smallest entry, if its key is at most `limit`.
    pub(crate) fn pop_until(&mut self, limit: K) -> Option<(K, u32)> {
        let first = self.peek().filter(|(key, _)| *key <= limit)?;
        self.clear(first.1);
        Some(first)
    }

    fn position(&self, slot: u32) -> Option<usize> {
        self.positions
            .get(slot as usize)
            .filter(|position| **position != ABSENT)
            .map(|position| *position as usize)
    }

    /// Stores `entry`, for which the position is free, after moving it up or down to restore the heap order.
    fn sift(&mut self, mut position: usize, entry: (K, u32)) {
        while position > 0 {
            let parent = (position - 1) / ARITY;
            match self.entries.get(parent) {
                Some(above) if *above > entry => self.store_at(position, *above),
                _ => break,
            }
            position = parent;
        }
        loop {
            let first = position * ARITY + 1;
            let children = self.entries.get(first..self.entries.len().min(first + ARITY)).unwrap_or(&[]);
            match children.iter().enumerate().min_by_key(|(_, child)| **child) {
                Some((offset, child)) if *child < entry => {
                    let child = *child;
                    self.store_at(position, child);
                    position = first + offset;
                }
                _ => break,
            }
        }
        self.store_at(position, entry);
    }

    #[allow(clippy::cast_possible_truncation)] // as many entries as slots, and slots are u32
    fn store_at(&mut self, position: usize, entry: (K, u32)) {
        if let (Some(to), Some(at)) =
            (self.entries.get_mut(position), self.positions.get_mut(entry.1 as usize))
        {
            *to = entry;
            *at = position as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Set(u32, u8),
        Clear(u32),
        Pop(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..40u32, any::<u8>()).prop_map(|(slot, key)| Step::Set(slot, key)),
            1 => (0..40u32).prop_map(Step::Clear),
            1 => any::<u8>().prop_map(Step::Pop),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_map(steps in proptest::collection::vec(step(), 0..200)) {
            let mut heap = IndexedHeap::new();
            let mut model = BTreeMap::new();
            for step in steps {
                let least = |model: &BTreeMap<u32, u8>| model.iter().map(|(slot, key)| (*key, *slot)).min();
                match step {
                    Step::Set(slot, key) => {
                        heap.set(slot, key);
                        model.insert(slot, key);
                    }
                    Step::Clear(slot) => {
                        prop_assert_eq!(heap.clear(slot), model.remove(&slot).is_some());
                    }
                    Step::Pop(limit) => {
                        let due = least(&model).filter(|(key, _)| *key <= limit);
                        prop_assert_eq!(heap.pop_until(limit), due);
                        due.map(|(_, slot)| model.remove(&slot));
                    }
                }
                prop_assert_eq!(heap.peek(), least(&model));
            }
        }
    }
}
