//! An indexed heap: timers and deadline-ordered queues.

/// A min-heap that holds each slot at most once and can take it out from anywhere, so that the smallest entry
/// is always a live one and [`peek`](Heap::peek) is exact. All changes are O(log n); equal keys come in order
/// of slot.
///
/// Four children to a node: half the depth of a binary heap, and the children share a cache line.
#[derive(Clone, Debug)]
pub(crate) struct Heap<K> {
    entries: Vec<(K, u32)>,
    /// By slot: where it stands in `entries`, or `ABSENT`.
    places: Vec<u32>,
}

const ABSENT: u32 = u32::MAX;
const ARITY: usize = 4;

impl<K: Copy + Ord> Heap<K> {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), places: Vec::new() }
    }

    /// The smallest entry.
    pub(crate) fn peek(&self) -> Option<(K, u32)> {
        self.entries.first().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Puts a slot in with this key, or changes its key.
    pub(crate) fn set(&mut self, slot: u32, key: K) {
        let index = slot as usize;
        if index >= self.places.len() {
            self.places.resize(index + 1, ABSENT);
        }
        let place = self.place(slot).unwrap_or_else(|| {
            self.entries.push((key, slot));
            self.entries.len() - 1
        });
        self.settle(place, (key, slot));
    }

    /// Takes a slot out. Says whether it was in.
    pub(crate) fn clear(&mut self, slot: u32) -> bool {
        let Some(place) = self.place(slot) else { return false };
        if let Some(at) = self.places.get_mut(slot as usize) {
            *at = ABSENT;
        }
        if let Some(last) = self.entries.pop()
            && place < self.entries.len()
        {
            self.settle(place, last);
        }
        true
    }

    /// Takes out the smallest entry if its key is at most `limit`.
    pub(crate) fn pop_until(&mut self, limit: K) -> Option<(K, u32)> {
        let first = self.peek().filter(|(key, _)| *key <= limit)?;
        self.clear(first.1);
        Some(first)
    }

    fn place(&self, slot: u32) -> Option<usize> {
        self.places.get(slot as usize).filter(|place| **place != ABSENT).map(|place| *place as usize)
    }

    /// Lets `entry`, which may take `place`, rise or sink to where it belongs.
    fn settle(&mut self, mut place: usize, entry: (K, u32)) {
        while place > 0 {
            let parent = (place - 1) / ARITY;
            match self.entries.get(parent) {
                Some(above) if *above > entry => self.put(place, *above),
                _ => break,
            }
            place = parent;
        }
        loop {
            let first = place * ARITY + 1;
            let children = self.entries.get(first..self.entries.len().min(first + ARITY)).unwrap_or(&[]);
            match children.iter().enumerate().min_by_key(|(_, child)| **child) {
                Some((offset, child)) if *child < entry => {
                    let child = *child;
                    self.put(place, child);
                    place = first + offset;
                }
                _ => break,
            }
        }
        self.put(place, entry);
    }

    #[allow(clippy::cast_possible_truncation)] // as many entries as slots, and slots are u32
    fn put(&mut self, place: usize, entry: (K, u32)) {
        if let (Some(to), Some(at)) = (self.entries.get_mut(place), self.places.get_mut(entry.1 as usize)) {
            *to = entry;
            *at = place as u32;
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
            let mut heap = Heap::new();
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
