//! [`NodeMap`]: a map from nodes, which can be compared but not ordered, and of which two may have the same key.

use crate::vocabulary::family::Family;

/// A map from nodes, in the order of their keys; nodes with the same key are in the order of insertion.
#[derive(Clone, Debug)]
pub(super) struct NodeMap<F: Family, V> {
    entries: Vec<(F::Node, V)>,
}

/// A set of nodes.
pub(super) type NodeSet<F> = NodeMap<F, ()>;

impl<F: Family, V> Default for NodeMap<F, V> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<F: Family, V> NodeMap<F, V> {
    /// The place of a node, or else where it would be inserted.
    fn place(&self, node: &F::Node) -> Result<usize, usize> {
        let key = F::key(node);
        let first = self.entries.partition_point(|(other, _)| F::key(other) < key);
        let alike = self.entries.iter().skip(first).take_while(|(other, _)| F::key(other) == key);
        let mut end = first;
        for (place, (other, _)) in (first..).zip(alike) {
            if other == node {
                return Ok(place);
            }
            end = place + 1;
        }
        Err(end)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn contains(&self, node: &F::Node) -> bool {
        self.place(node).is_ok()
    }

    pub(super) fn get(&self, node: &F::Node) -> Option<&V> {
        self.entries.get(self.place(node).ok()?).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, node: &F::Node) -> Option<&mut V> {
        let place = self.place(node).ok()?;
        self.entries.get_mut(place).map(|(_, value)| value)
    }

    /// Inserts or replaces a value. Returns whether the node is new.
    pub(super) fn insert(&mut self, node: F::Node, value: V) -> bool {
        let place = self.place(&node);
        match place {
            Ok(place) => {
                if let Some(entry) = self.entries.get_mut(place) {
                    entry.1 = value;
                }
            }
            Err(place) => self.entries.insert(place, (node, value)),
        }
        place.is_err()
    }

    /// Removes a node. Returns whether it was there.
    pub(super) fn remove(&mut self, node: &F::Node) -> bool {
        let place = self.place(node);
        if let Ok(place) = place {
            self.entries.remove(place);
        }
        place.is_ok()
    }

    /// Removes the nodes whose values fail the test.
    pub(super) fn retain(&mut self, test: impl Fn(&V) -> bool) {
        self.entries.retain(|(_, value)| test(value));
    }

    /// The nodes and their values, in the order of keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&F::Node, &V)> {
        self.entries.iter().map(|(node, value)| (node, value))
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &F::Node> {
        self.entries.iter().map(|(node, _)| node)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }
}

impl<F: Family, V: Default> NodeMap<F, V> {
    /// The value of a node, which is inserted if it is absent.
    pub(super) fn update(&mut self, node: &F::Node, change: impl FnOnce(&mut V)) {
        if !self.contains(node) {
            self.insert(node.clone(), V::default());
        }
        if let Some(value) = self.get_mut(node) {
            change(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::key::Key8;

    /// A node is a key and an address.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Addressed;

    impl Family for Addressed {
        type Key = Key8;
        type Target = Key8;
        type Node = (u8, char);
        type Message = ();

        fn key(node: &(u8, char)) -> Key8 {
            Key8::new([node.0])
        }
    }

    #[test]
    fn nodes_with_one_key_are_told_apart() {
        let mut map = NodeMap::<Addressed, u32>::default();
        for (number, node) in (0..).zip([(2, 'b'), (1, 'x'), (2, 'a'), (3, 'z')]) {
            assert!(map.insert(node, number));
        }
        assert!(!map.insert((2, 'a'), 7));
        assert_eq!(map.nodes().copied().collect::<Vec<_>>(), [(1, 'x'), (2, 'b'), (2, 'a'), (3, 'z')]);
        assert_eq!((map.get(&(2, 'a')), map.get(&(2, 'b')), map.get(&(2, 'c'))), (Some(&7), Some(&0), None));
        assert!(map.remove(&(2, 'b')) && !map.remove(&(2, 'b')) && map.contains(&(2, 'a')));
        map.update(&(9, 'q'), |value| *value += 5);
        assert_eq!((map.get(&(9, 'q')), map.len()), (Some(&5), 4));
    }
}
