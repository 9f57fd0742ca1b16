//! Optimistic: stores during the lookup (Trautwein et al., INFOCOM 2024; go-libp2p-kad-dht).
//!
//! At any time the closest nodes known, of which none is known to have failed, are the *window*: k of them. A node of the window
//! is stored with
//!
//! * as soon as it is no farther than the individual threshold: it is almost surely one of the k closest of the network;
//! * whoever it is, once the mean distance of a full window is below the set threshold, or the lookup is over. While that is so,
//!   nobody else is looked for, unless a store has failed.
//!
//! A store that fails takes its node out of the window, and the next one takes its place; so a window of which the dead have
//! been taken out is what the record is stored with in the end. And it says that the network is not what the set threshold takes
//! it for: answers name dead nodes as well, so the k closest that live reach farther than those named. So from then on the
//! lookup knows the node as failed and is not ended by the threshold, but goes on to its own end, beyond the
//! [rim](crate::path), in the background too. Where nobody fails, it costs nothing. Whoever merely refused lives, and is
//! replaced only. This differs from go-libp2p-kad-dht, which neither replaces nodes nor goes on.

use super::BroadcastConfig;
use super::cast::Look;
use super::stores::Stores;
use crate::event::Contact;
use crate::family::Family;
use crate::lookup::Lookup;
use crate::netsize::Thresholds;
use smallvec::SmallVec;

#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // each stands for itself
pub(crate) struct Optimistic<F: Family> {
    pub(crate) lookup: Lookup<F>,
    thresholds: Thresholds,
    k: usize,
    /// Whether to store with nodes that have not answered yet.
    unasked: bool,
    /// How many must have stored for the broadcast to return.
    pub(crate) enough: usize,
    pub(crate) returned: bool,
    /// How many more nodes may be stored with.
    pub(crate) budget: usize,
    /// The lookup is over.
    pub(crate) over: bool,
    /// The window is as good as it needs to be.
    stopped: bool,
    /// A store has failed: the lookup goes on until it ends by itself.
    troubled: bool,
    /// Something has happened since the last look at the window.
    pub(crate) stale: bool,
}

impl<F: Family> Optimistic<F> {
    pub(crate) fn new(lookup: Lookup<F>, thresholds: Thresholds, k: usize, config: &BroadcastConfig) -> Self {
        Self {
            lookup,
            thresholds,
            k,
            unasked: config.unasked,
            enough: (k * usize::from(config.return_share)).div_ceil(100).max(1),
            returned: false,
            budget: 2 * k,
            over: false,
            stopped: false,
            troubled: false,
            stale: true,
        }
    }

    pub(crate) fn begin(&mut self) {
        self.lookup.begin();
    }

    /// Asks on, unless there is no need to.
    pub(crate) fn look(&mut self) -> Option<Look<F>> {
        if self.stopped || self.budget == 0 {
            return None;
        }
        let look = Look::of(0, self.lookup.next());
        // Who had been silent may be in the window again, from now on and not only when something else happens.
        if let Look::Ask { spot, .. } = look {
            self.stale |= self.lookup.is_back(spot);
        }
        Some(look)
    }

    /// A store has failed; by this node, where it is silent.
    pub(crate) fn failed(&mut self, silent: Option<&F::Node>) {
        self.troubled = true;
        if let Some(node) = silent {
            self.lookup.lost(node);
        }
    }

    /// How many more stores there may be, those under way included: as each of them may fail, whatever is left of the budget.
    pub(crate) fn rest(&self, stores: &Stores<F>) -> usize {
        self.budget + stores.open()
    }

    /// Looks at the window, and adds whom to store with.
    pub(crate) fn update(&mut self, stores: &mut Stores<F>) {
        if !core::mem::replace(&mut self.stale, false) {
            return;
        }
        let target = self.lookup.target();
        let mut window: SmallVec<[(u32, F::Key, bool); 32]> = SmallVec::new();
        self.lookup.look_at_live(|spot, contact, has_answered| {
            let store = stores.of(&contact.node);
            if !store.is_some_and(super::stores::Store::has_failed) {
                window.push((spot, F::key(&contact.node), store.is_none() && (has_answered || self.unasked)));
            }
            window.len() < self.k
        });
        let keys = window.iter().map(|(_, key, _)| *key);
        // Where nodes have to answer first, the lookup is what makes them.
        let dense = self.unasked && self.thresholds.may_stop(&target, keys);
        self.stopped = dense && !self.troubled;
        let all = dense || self.over;
        let mut due: SmallVec<[(F::Node, u16); 8]> = SmallVec::new();
        let mut window = window.into_iter().filter(|(.., open)| *open).peekable();
        self.lookup.look_at_live(|spot, Contact { node, hop, .. }, _| {
            if let Some((_, key, _)) = window.next_if(|(of, ..)| *of == spot)
                && (all || self.thresholds.is_close(&target, &key))
            {
                due.push((node.clone(), hop.saturating_add(1)));
            }
            window.peek().is_some()
        });
        for (node, hop) in due {
            if self.budget == 0 {
                break;
            }
            self.budget -= 1;
            stores.push(node, hop, Vec::new());
        }
    }
}
