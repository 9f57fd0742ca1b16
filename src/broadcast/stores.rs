//! The nodes that a broadcast stores with, and what became of each.

use super::{StoreCounts, StoreEnd, Stored, Success};
use crate::family::Family;

/// One node that something is stored with.
#[derive(Clone, Debug)]
pub(crate) struct Store<F: Family> {
    pub(crate) node: F::Node,
    /// Where its lookup keeps it, as far as that matters.
    pub(crate) spot: u32,
    /// Length of the causal chain that led to it.
    pub(crate) hop: u16,
    /// The records it gets, by their places; empty where there is only one.
    pub(crate) records: Vec<u32>,
    state: State<F>,
}

#[derive(Clone, Debug)]
enum State<F: Family> {
    /// Its turn has not come.
    Due,
    /// Handed in, and not sent yet.
    Waiting,
    Sent,
    Ended(StoreEnd<F>),
}

impl<F: Family> Store<F> {
    /// Whether it has failed, in whatever way.
    pub(crate) const fn has_failed(&self) -> bool {
        matches!(&self.state, State::Ended(end) if !matches!(end, StoreEnd::Stored))
    }
}

/// All of them, in the order in which they are sent.
#[derive(Clone, Debug)]
pub(crate) struct Stores<F: Family> {
    list: Vec<Store<F>>,
    /// The first that is due.
    next: usize,
    in_flight: usize,
    stored: usize,
    failed: usize,
}

impl<F: Family> Stores<F> {
    pub(crate) const fn new() -> Self {
        Self { list: Vec::new(), next: 0, in_flight: 0, stored: 0, failed: 0 }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Store<F>> {
        self.list.iter()
    }

    pub(crate) fn get(&self, place: u32) -> Option<&Store<F>> {
        self.list.get(place as usize)
    }

    /// Takes room for so many more.
    pub(crate) fn reserve(&mut self, more: usize) {
        self.list.reserve(more);
    }

    /// One more node to store with.
    pub(crate) fn push(&mut self, node: F::Node, spot: u32, hop: u16, records: Vec<u32>) {
        self.list.push(Store { node, spot, hop, records, state: State::Due });
    }

    /// The store of this node, which its lookup keeps in this spot.
    pub(crate) fn of(&mut self, spot: u32, node: &F::Node) -> Option<&Store<F>> {
        let kept = self.list.iter().position(|store| store.spot == spot && store.node == *node);
        // It may have been pushed out of the lookup, and named again.
        let place = kept.or_else(|| self.list.iter().position(|store| store.node == *node))?;
        let store = self.list.get_mut(place)?;
        store.spot = spot;
        Some(store)
    }

    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) const fn stored(&self) -> usize {
        self.stored
    }

    /// How many are due or in flight.
    pub(crate) fn open(&self) -> usize {
        self.list.len() - self.stored - self.failed
    }

    pub(crate) fn counts(&self) -> StoreCounts {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        StoreCounts {
            nodes: number(self.list.len()),
            stored: number(self.stored),
            failed: number(self.failed),
        }
    }

    /// The next that is due, which is handed in now.
    pub(crate) fn next(&mut self) -> Option<(u32, &Store<F>)> {
        let place = u32::try_from(self.next).ok()?;
        let store = self.list.get_mut(self.next)?;
        store.state = State::Waiting;
        self.next += 1;
        self.in_flight += 1;
        Some((place, store))
    }

    /// It could not be handed in.
    pub(crate) fn take_back(&mut self, place: u32) {
        if let Some(store) = self.list.get_mut(place as usize) {
            store.state = State::Due;
            self.next -= 1;
            self.in_flight -= 1;
        }
    }

    /// It is sent now.
    pub(crate) fn sent(&mut self, place: u32) {
        if let Some(store) = self.list.get_mut(place as usize) {
            store.state = State::Sent;
        }
    }

    /// It has ended.
    pub(crate) fn ended(&mut self, place: u32, end: StoreEnd<F>) {
        if let Some(store) = self.list.get_mut(place as usize) {
            self.in_flight -= 1;
            *(if end == StoreEnd::Stored { &mut self.stored } else { &mut self.failed }) += 1;
            store.state = State::Ended(end);
        }
    }

    /// What is said of all of them in the end; `left` is said of those that have not been sent, and `open` of those that have
    /// not ended.
    pub(crate) fn account(&self, left: &StoreEnd<F>, open: &StoreEnd<F>) -> Vec<Stored<F>> {
        let account = |store: &Store<F>| Stored {
            node: store.node.clone(),
            end: match &store.state {
                State::Due | State::Waiting => left.clone(),
                State::Sent => open.clone(),
                State::Ended(end) => end.clone(),
            },
            records: store.records.clone(),
        };
        self.list.iter().map(account).collect()
    }

    /// How many of so many records are not stored with as many nodes as they should be.
    pub(crate) fn short(&self, records: usize, success: Success) -> usize {
        if records <= 1 && self.list.iter().all(|store| store.records.is_empty()) {
            return usize::from(!success.is_met(self.stored, self.list.len()));
        }
        let mut sums = vec![(0, 0); records];
        for store in &self.list {
            let stored = usize::from(matches!(store.state, State::Ended(StoreEnd::Stored)));
            for record in &store.records {
                if let Some((done, all)) = sums.get_mut(*record as usize) {
                    *done += stored;
                    *all += 1;
                }
            }
        }
        sums.into_iter().filter(|(done, all)| !success.is_met(*done, *all)).count()
    }
}
