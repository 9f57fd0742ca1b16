//! [`StoreList`]: the nodes that a broadcast stores with, and the state of the store with each.

use crate::broadcast::events::{StoreCounts, StoreEnd, Stored, Success};
use crate::vocabulary::family::Family;

/// The last, the first, the last but one, and so on: those nearest to the key may be slow, and must not take all the places
/// there are at once from the others of its region.
pub(crate) fn from_both_ends<T>(mut nodes: impl DoubleEndedIterator<Item = T>) -> impl Iterator<Item = T> {
    let mut is_last = false;
    core::iter::from_fn(move || {
        is_last = !is_last;
        if is_last { nodes.next_back() } else { nodes.next() }
    })
}

/// A node to store with, and the state of that store.
#[derive(Clone, Debug)]
pub(crate) struct StoreEntry<F: Family> {
    pub(crate) node: F::Node,
    /// Length of the causal chain that led to the node.
    pub(crate) hop: u16,
    /// The records for this node, as indices into the records of the start; empty if there is only one
    /// record.
    pub(crate) records: Vec<u32>,
    state: StoreState<F>,
    /// Its first request has timed out: it is sent once more.
    timed_out: bool,
}

#[derive(Clone, Debug)]
enum StoreState<F: Family> {
    /// Not submitted yet.
    Due,
    /// Submitted to the request queue, and not sent yet.
    Queued,
    Sent,
    Ended(StoreEnd<F>),
}

impl<F: Family> StoreEntry<F> {
    /// Whether the store has ended other than by success.
    pub(crate) const fn has_failed(&self) -> bool {
        matches!(&self.state, StoreState::Ended(end) if !matches!(end, StoreEnd::Stored))
    }

    pub(crate) const fn is_stored(&self) -> bool {
        matches!(&self.state, StoreState::Ended(StoreEnd::Stored))
    }

    /// Whether the store has failed, or is sent a second time and has not ended.
    pub(crate) const fn is_doubtful(&self) -> bool {
        self.has_failed() || self.timed_out && !matches!(self.state, StoreState::Ended(_))
    }
}

/// All stores of a broadcast, in the order in which they are submitted.
#[derive(Clone, Debug)]
pub(crate) struct StoreList<F: Family> {
    entries: Vec<StoreEntry<F>>,
    /// Index of the first entry that is due for the first time.
    next: usize,
    /// Indices of entries that are due again.
    again: Vec<u32>,
    /// How many were sent a second time, or are due again.
    repeated: usize,
    /// Submitted and not ended: queued or sent.
    in_flight: usize,
    /// Of the entries that have ended; `nodes` is not kept.
    ended: StoreCounts,
}

impl<F: Family> StoreList<F> {
    pub(crate) const fn new() -> Self {
        let ended = StoreCounts { nodes: 0, stored: 0, failed: 0, refused: 0, silent: 0 };
        Self { entries: Vec::new(), next: 0, again: Vec::new(), repeated: 0, in_flight: 0, ended }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &StoreEntry<F>> {
        self.entries.iter()
    }

    pub(crate) fn get(&self, index: u32) -> Option<&StoreEntry<F>> {
        self.entries.get(index as usize)
    }

    pub(crate) fn reserve(&mut self, additional: usize) {
        self.entries.reserve(additional);
    }

    pub(crate) fn push(&mut self, node: F::Node, hop: u16, records: Vec<u32>) {
        self.entries.push(StoreEntry { node, hop, records, state: StoreState::Due, timed_out: false });
    }

    pub(crate) fn find(&self, node: &F::Node) -> Option<&StoreEntry<F>> {
        self.entries.iter().find(|entry| entry.node == *node)
    }

    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many stores were repeated.
    pub(crate) const fn repeated(&self) -> usize {
        self.repeated
    }

    pub(crate) const fn stored(&self) -> usize {
        self.ended.stored as usize
    }

    /// How many have not ended: due, queued or sent.
    pub(crate) fn remaining(&self) -> usize {
        self.entries.len() - self.ended.stored as usize - self.ended.failed as usize
    }

    pub(crate) fn counts(&self) -> StoreCounts {
        let nodes = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        StoreCounts { nodes, ..self.ended }
    }

    /// Returns the next entry that is due, and its index. From now on it counts as submitted.
    pub(crate) fn submit_next(&mut self) -> Option<(u32, &StoreEntry<F>)> {
        let again = self.again.pop();
        let index = again.or_else(|| u32::try_from(self.next).ok())?;
        let entry = self.entries.get_mut(index as usize)?;
        entry.state = StoreState::Queued;
        self.next += usize::from(again.is_none());
        self.in_flight += 1;
        Some((index, entry))
    }

    /// Undoes the latest [`submit_next`](Self::submit_next): the request queue did not accept the request.
    pub(crate) fn take_back(&mut self, index: u32) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.state = StoreState::Due;
            self.in_flight -= 1;
            if entry.timed_out {
                self.again.push(index);
            } else {
                self.next -= 1;
            }
        }
    }

    /// A request has timed out: the message may have been lost, so the store is due once more. Returns whether that is so;
    /// not if it was sent twice.
    pub(crate) fn repeat(&mut self, index: u32) -> bool {
        let Some(entry) = self.entries.get_mut(index as usize).filter(|entry| !entry.timed_out) else {
            return false;
        };
        (entry.timed_out, entry.state) = (true, StoreState::Due);
        self.in_flight -= 1;
        self.again.push(index);
        self.repeated += 1;
        true
    }

    pub(crate) fn mark_sent(&mut self, index: u32) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.state = StoreState::Sent;
        }
    }

    pub(crate) fn mark_ended(&mut self, index: u32, end: StoreEnd<F>) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            self.in_flight -= 1;
            self.ended.count(&end);
            entry.state = StoreState::Ended(end);
        }
    }

    /// The report on every store: `unsent` for those that have not been sent, `unended` for those that were sent
    /// and have not ended.
    pub(crate) fn report(&self, unsent: &StoreEnd<F>, unended: &StoreEnd<F>) -> Vec<Stored<F>> {
        let report = |entry: &StoreEntry<F>| Stored {
            node: entry.node.clone(),
            end: match &entry.state {
                // For the second time there was no time left.
                StoreState::Due | StoreState::Queued if entry.timed_out && *unsent == StoreEnd::Unsent => {
                    StoreEnd::TimedOut
                }
                StoreState::Due | StoreState::Queued => unsent.clone(),
                StoreState::Sent => unended.clone(),
                StoreState::Ended(end) => end.clone(),
            },
            records: entry.records.clone(),
        };
        self.entries.iter().map(report).collect()
    }

    /// How many of the `records` records are stored with fewer nodes than `success` asks for.
    pub(crate) fn records_short(&self, records: usize, success: Success) -> usize {
        if records <= 1 && self.entries.iter().all(|entry| entry.records.is_empty()) {
            return usize::from(!success.is_met(self.stored(), self.entries.len()));
        }
        let mut sums = vec![(0, 0); records];
        for entry in &self.entries {
            let stored = usize::from(matches!(entry.state, StoreState::Ended(StoreEnd::Stored)));
            for record in &entry.records {
                if let Some((done, all)) = sums.get_mut(*record as usize) {
                    *done += stored;
                    *all += 1;
                }
            }
        }
        sums.into_iter().filter(|(done, all)| !success.is_met(*done, *all)).count()
    }
}
