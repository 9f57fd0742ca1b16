//! [`OptimisticSearch`]: a lookup that stores while it runs (Trautwein et al., INFOCOM 2024; go-libp2p-kad-dht).
//!
//! The *window* is the k closest nodes known at a time, without those known to have failed. The record is stored
//! with a node of the window
//!
//! * as soon as it is no farther than the individual threshold: it is almost surely one of the k closest of the
//!   network;
//! * in any case, once the mean distance of a full window is below the set threshold, or the lookup has ended.
//!   While the mean is below the set threshold, the lookup sends no request, unless a store has failed.
//!
//! A store that fails takes its node out of the window, and the next closest node enters it; so does one that timed out, until
//! it has succeeded the second time. So in the end the record is stored with a window without failed nodes. A failed store also shows
//! that the set threshold does not fit the network: answers name dead nodes as well, so the k closest live nodes are farther away
//! than the k closest named. From then on the threshold no longer stops the lookup: it runs to its own end,
//! including its [edge probing](crate::lookups::edge_probing), also in the background. If a store timed out
//! or failed, the lookup counts its node as failed. A node that rejected its store is alive, so it is only
//! replaced. If no store fails, this costs nothing.
//!
//! The size of the network may be wrong: a caller has said so, or others have lied. The lookup shows that. The set threshold
//! does not stop it before a node of the window has answered, which knows whether there are nearer ones. Where the window is
//! far denser than the size says, no more is stored before the lookup has ended by itself, with the nodes of the
//! [region](crate::lookups::region) of the key. What was stored by guess until then takes nothing of the number of nodes that may be
//! stored with from then on. go-libp2p-kad-dht neither replaces nodes nor continues
//! the lookup.

use crate::broadcast::config::BroadcastConfig;
use crate::broadcast::search_step::SearchStep;
use crate::broadcast::store_list::{StoreEntry, StoreList, from_both_ends};
use crate::lookups::lookup::Lookup;
use crate::lookups::region::Region;
use crate::network_size::thresholds::Thresholds;
use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;
use crate::vocabulary::operation_events::Contact;
use crate::vocabulary::time::Instant;
use smallvec::SmallVec;

/// The node search of an optimistic broadcast. Its user calls [`update`](Self::update) before each
/// [`step`](Self::step).
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // independent of each other
pub(crate) struct OptimisticSearch<F: Family> {
    pub(crate) lookup: Lookup<F>,
    thresholds: Thresholds,
    /// The region by the size that the thresholds are of.
    expected: Region,
    k: usize,
    store_before_response: bool,
    /// How many nodes must have stored the record for the broadcast to return.
    pub(crate) stores_to_return: usize,
    pub(crate) has_returned: bool,
    /// How many more nodes may be added to the stores.
    store_budget: usize,
    /// How many more it will be once the lookup has ended: what was guessed before takes nothing of it.
    budget_when_known: usize,
    lookup_ended: bool,
    /// In the region, nodes that have not answered are stored with, too: its share of the time ran out.
    with_unanswered: bool,
    /// The set threshold has stopped the lookup.
    stopped_by_set: bool,
    /// A store has failed: the set threshold stops the lookup no more.
    had_failed_store: bool,
    /// The window may have changed since the last [`update`](Self::update).
    pub(crate) window_changed: bool,
}

impl<F: Family> OptimisticSearch<F> {
    pub(crate) fn new(
        lookup: Lookup<F>,
        thresholds: Thresholds,
        expected: Region,
        k: usize,
        config: &BroadcastConfig,
    ) -> Self {
        Self {
            lookup,
            thresholds,
            expected,
            k,
            store_before_response: config.store_before_response,
            stores_to_return: (k * usize::from(config.early_return_percent)).div_ceil(100).max(1),
            has_returned: false,
            store_budget: 2 * k,
            budget_when_known: if config.regions { expected.most_when_known() } else { 0 },
            lookup_ended: false,
            with_unanswered: false,
            stopped_by_set: false,
            had_failed_store: false,
            window_changed: true,
        }
    }

    pub(crate) fn begin(&mut self) {
        self.lookup.begin();
    }

    /// The lookup's next step; `None` if none is needed.
    pub(crate) fn step(&mut self, now: Instant) -> Option<SearchStep<F>> {
        if self.stopped_by_set || self.store_budget + self.budget_when_known == 0 {
            return None;
        }
        let step = SearchStep::of_lookup(0, self.lookup.next(now));
        // A silent node that is asked again is live, so it may be back in the window at once.
        if let SearchStep::Ask { candidate, .. } = step {
            self.window_changed |= self.lookup.is_revived(candidate);
        }
        Some(step)
    }

    /// A store has failed; `silent` is its node, unless that rejected the store.
    pub(crate) fn store_failed(&mut self, silent: Option<&F::Node>) {
        self.had_failed_store = true;
        if let Some(node) = silent {
            self.lookup.mark_failed(node);
        }
    }

    /// How many more stores there may be, those that have not ended included: as each of them may fail and be
    /// replaced, all that is left of the budget.
    pub(crate) fn max_remaining_stores(&self, stores: &StoreList<F>) -> usize {
        self.store_budget + self.budget_when_known + stores.remaining()
    }

    /// The lookup has ended. `with_unanswered`: nodes of the region that have not answered are stored with, too.
    pub(crate) fn end_lookup(&mut self, with_unanswered: bool) {
        (self.lookup_ended, self.with_unanswered, self.window_changed) = (true, with_unanswered, true);
        self.store_budget += core::mem::take(&mut self.budget_when_known);
    }

    /// Recomputes the window if it may have changed, and adds the nodes to store with now.
    pub(crate) fn update(&mut self, stores: &mut StoreList<F>) {
        if !core::mem::replace(&mut self.window_changed, false) {
            return;
        }
        let target = self.lookup.key();
        // For each node: its number in the lookup, its key, and whether the record may be stored with it.
        let mut window: SmallVec<[(u32, F::Key, bool); 32]> = SmallVec::new();
        let mut is_confirmed = false;
        self.lookup.visit_live(|candidate, contact, has_answered| {
            let entry = stores.find(&contact.node);
            if !entry.is_some_and(StoreEntry::is_doubtful) {
                is_confirmed |= has_answered;
                window.push((
                    candidate,
                    F::key(&contact.node),
                    entry.is_none() && (has_answered || self.store_before_response),
                ));
            }
            window.len() < self.k
        });
        let keys = window.iter().map(|(_, key, _)| *key);
        // If nodes must answer before a store, only the requests of the lookup make them answer: then the set
        // threshold must not stop it.
        let is_dense = self.store_before_response && self.thresholds.may_stop(&target, keys);
        let kth = window.get(self.k - 1).map(|(_, key, _)| key.distance(&target).leading());
        let is_refuted = kth.is_some_and(|kth| self.expected.is_refuted_by(kth));
        self.stopped_by_set = is_dense && is_confirmed && !is_refuted && !self.had_failed_store;
        let whole_window = is_dense && !is_refuted || self.lookup_ended;
        let mut due: SmallVec<[(F::Node, u16); 8]> = SmallVec::new();
        let mut window = window.into_iter().filter(|(.., may_store)| *may_store).peekable();
        self.lookup.visit_live(|candidate, Contact { node, hop, .. }, _| {
            if let Some((_, key, _)) = window.next_if(|(of, ..)| *of == candidate)
                && (whole_window || !is_refuted && self.thresholds.is_close(&target, &key))
            {
                due.push((node.clone(), hop.saturating_add(1)));
            }
            window.peek().is_some()
        });
        if self.lookup_ended {
            // The k closest are in the window.
            let closest = due.len();
            let others = self.lookup.stores(self.with_unanswered);
            let is_new = |node: &F::Node| stores.find(node).is_none();
            for Contact { node, hop, .. } in others.into_iter().filter(|contact| is_new(&contact.node)) {
                if due.iter().all(|(other, _)| *other != node) {
                    due.push((node, hop.saturating_add(1)));
                }
            }
            if due.len() > closest {
                due = from_both_ends(due.into_iter()).collect();
            }
        }
        for (node, hop) in due {
            if self.store_budget == 0 {
                break;
            }
            self.store_budget -= 1;
            stores.push(node, hop, Vec::new());
        }
    }
}
