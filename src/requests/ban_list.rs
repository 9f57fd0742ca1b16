//! [`BanList`]: nodes that are not to be asked for some time, and this node's own keys.

use crate::collections::seeded_hash::SeededHash;
use crate::vocabulary::family::Family;
use crate::vocabulary::time::Instant;
use smallvec::SmallVec;
use std::collections::{HashMap, VecDeque};

/// How many own keys of this node are remembered, the latest ones.
const MAX_OWN_KEYS: usize = 8;

/// A bounded list of banned nodes; beyond the bound, the ban that was declared first is forgotten.
#[derive(Clone, Debug)]
pub(crate) struct BanList<F: Family> {
    capacity: usize,
    /// By key; nodes may share one. Never iterated.
    bans: HashMap<F::Key, SmallVec<[Ban<F>; 1]>, SeededHash>,
    /// The bans in the order of declaration, the latest last, by key and number.
    order: VecDeque<(F::Key, u64)>,
    declared: u64,
    /// This node's own keys, once it has changed its key: live operations know only the one that they began with.
    own_keys: VecDeque<F::Key>,
}

#[derive(Clone, Debug)]
struct Ban<F: Family> {
    node: F::Node,
    until: Instant,
    number: u64,
}

impl<F: Family> BanList<F> {
    pub(crate) fn new(capacity: usize, hash: SeededHash) -> Self {
        Self {
            capacity,
            bans: HashMap::with_hasher(hash),
            order: VecDeque::new(),
            declared: 0,
            own_keys: VecDeque::new(),
        }
    }

    /// Whether a node must not be asked now: it is banned, or has a key of this node's own.
    #[inline]
    pub(crate) fn contains(&self, now: Instant, node: &F::Node) -> bool {
        (!self.order.is_empty() || !self.own_keys.is_empty()) && self.is_listed(now, node)
    }

    #[cold]
    fn is_listed(&self, now: Instant, node: &F::Node) -> bool {
        let key = F::key(node);
        let mut bans = self.bans.get(&key).into_iter().flatten();
        self.own_keys.contains(&key) || bans.any(|ban| ban.node == *node && now < ban.until)
    }

    /// This node had the key `before`, and has the key `key` now.
    pub(crate) fn change_own_key(&mut self, before: F::Key, key: F::Key) {
        for own in [before, key] {
            self.own_keys.retain(|known| *known != own);
            self.own_keys.push_back(own);
        }
        while self.own_keys.len() > MAX_OWN_KEYS {
            self.own_keys.pop_front();
        }
    }

    /// Bans a node until the given time, in place of an earlier ban of it; lifts that ban if the time is not after
    /// `now`.
    pub(crate) fn insert(&mut self, now: Instant, node: F::Node, until: Instant) {
        let key = F::key(&node);
        self.retain(|of, ban| *of != key || ban.node != node);
        if until <= now || self.capacity == 0 {
            return;
        }
        if self.order.len() >= self.capacity {
            self.retain(|_, ban| now < ban.until);
        }
        if self.order.len() >= self.capacity
            && let Some((_, first)) = self.order.front().copied()
        {
            self.retain(|_, ban| ban.number != first);
        }
        let number = self.declared;
        self.declared += 1;
        self.bans.entry(key).or_default().push(Ban { node, until, number });
        self.order.push_back((key, number));
    }

    /// Drops the bans that are not to be kept.
    fn retain(&mut self, keep: impl Fn(&F::Key, &Ban<F>) -> bool) {
        let bans = &mut self.bans;
        self.order.retain(|(key, number)| {
            let Some(of_key) = bans.get_mut(key) else { return false };
            let Some(at) = of_key.iter().position(|ban| ban.number == *number) else { return false };
            let kept = of_key.get(at).is_some_and(|ban| keep(key, ban));
            if !kept {
                of_key.remove(at);
                if of_key.is_empty() {
                    bans.remove(key);
                }
            }
            kept
        });
    }

    pub(crate) fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node)) {
        for (key, number) in &self.order {
            let bans = self.bans.get(key).into_iter().flatten();
            bans.filter(|ban| ban.number == *number).for_each(|ban| visit(&ban.node));
        }
    }
}
