//! [`Store`]: what a node keeps for others, and what it has others keep; [`MemoryStore`], a store that is bounded.

use crate::wire::Wire;
use core::fmt::{self, Debug};
use core::time::Duration;
use kad_proto::{Group, Instant, Key, Record, Target};
use std::collections::{BTreeMap, HashMap};

/// What a node keeps: values and providers for others, and the own records that are
/// [stored again and again](crate::Operation::repeated).
///
/// Its methods are called with a lock held, by the event loop and by whoever [serves](crate::Dht::serve): they should be
/// quick. A store on a disk keeps an index in memory, and writes in a task of its own.
pub trait Store<W: Wire>: Debug + Send + 'static {
    /// The value with this key, if it has not expired.
    fn value(&self, key: &W::Key, now: Instant) -> Option<W::Value>;

    /// The providers of this key that have not expired: no more than an answer names.
    fn providers(&self, key: &W::Key, now: Instant) -> Vec<W::Provider>;

    /// Keeps a value for others, which the [wire accepts](Wire::accepts). `from` is the group of the address that it
    /// came from.
    ///
    /// # Errors
    /// [`Refusal`] says why it is not kept.
    fn put(&mut self, key: W::Key, value: W::Value, from: Option<Group>, now: Instant)
    -> Result<(), Refusal>;

    /// Remembers a provider.
    ///
    /// # Errors
    /// [`Refusal`] says why it is not remembered.
    fn add_provider(
        &mut self,
        key: W::Key,
        provider: W::Provider,
        from: Option<Group>,
        now: Instant,
    ) -> Result<(), Refusal>;

    /// Remembers an own record, in place of an earlier one with its key: it is to be stored again and again.
    fn repeat(&mut self, record: Record<W>);

    /// Forgets the own record with this key.
    fn forget(&mut self, key: &W::Key);

    /// The own record with this key.
    fn record(&self, key: &W::Key) -> Option<Record<W>>;

    /// The keys of the own records, for the schedule of a node that starts.
    fn repeated(&self) -> Vec<W::Key>;
}

/// Why something is not stored for another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The wire does not [accept](Wire::accepts) the value under its target.
    Invalid,
    /// The value that is there is [newer](Wire::replaces).
    Outdated,
    /// The value is larger than any may be.
    TooLarge,
    /// The group of the sender has its share already.
    Share,
    /// There is no room, and all that is kept is nearer to the own key.
    Full,
    /// The message asks for nothing that a node can do.
    Unknown,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "the value is not valid under this key",
            Self::Outdated => "a newer value is stored",
            Self::TooLarge => "the value is too large",
            Self::Share => "this address has stored its share",
            Self::Full => "no room",
            Self::Unknown => "unknown request",
        })
    }
}

impl core::error::Error for Refusal {}

/// How much a [`MemoryStore`] keeps, and for how long.
///
/// Memory: `bytes` for the values, and some 100 bytes for each value and each provider. Own records are not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreLimits {
    /// How many values. Default: 10,000.
    pub values: usize,
    /// How large all values may be, in bytes. Default: 16,000,000.
    pub bytes: usize,
    /// How large one value may be, in bytes. Default: 65,536.
    pub value_bytes: usize,
    /// How many providers, of all keys. Default: 100,000.
    pub providers: usize,
    /// How many providers of one key; no more are named in an answer. Default: 100.
    pub providers_of_key: usize,
    /// How many percent of the values, and of the providers, one [group](kad_proto::Family::group) may have stored, at
    /// least one. Default: 10.
    pub share: usize,
    /// How long a value is kept. Default: 48 h, as in libp2p.
    pub value_life: Duration,
    /// How long a provider is kept. Default: 48 h, as in libp2p.
    pub provider_life: Duration,
}

impl Default for StoreLimits {
    fn default() -> Self {
        let life = Duration::from_secs(48 * 3_600);
        Self {
            values: 10_000,
            bytes: 16_000_000,
            value_bytes: 65_536,
            providers: 100_000,
            providers_of_key: 100,
            share: 10,
            value_life: life,
            provider_life: life,
        }
    }
}

/// How often what has expired is dropped. It is not given out meanwhile.
const SWEEP: Duration = Duration::from_secs(60);

/// Something that is kept for another.
#[derive(Debug)]
struct Held<T> {
    item: T,
    expires: Instant,
    from: Option<Group>,
}

/// How many things each group has stored.
#[derive(Debug, Default)]
struct Shares(HashMap<Group, usize>);

impl Shares {
    fn add(&mut self, group: Option<Group>) {
        if let Some(group) = group {
            *self.0.entry(group).or_default() += 1;
        }
    }

    fn remove(&mut self, group: Option<Group>) {
        if let Some(group) = group
            && let Some(count) = self.0.get_mut(&group)
        {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&group);
            }
        }
    }

    fn has_room(&self, group: Option<Group>, most: usize) -> bool {
        group.is_none_or(|group| self.0.get(&group).is_none_or(|count| *count < most))
    }
}

/// A store in memory, bounded whatever strangers store. Where it is full, what is farthest from the own key makes room for
/// what is nearer, as others look for that here. No group of addresses gets more than its share.
#[derive(Debug)]
pub struct MemoryStore<W: Wire> {
    local: W::Key,
    limits: StoreLimits,
    /// In order of distance from the own key, as are the providers.
    values: BTreeMap<W::Key, Held<W::Value>>,
    bytes: usize,
    value_shares: Shares,
    /// Those of one key in the order in which they were told of.
    providers: BTreeMap<W::Key, Vec<Held<W::Provider>>>,
    provider_count: usize,
    provider_shares: Shares,
    own: BTreeMap<W::Key, Record<W>>,
    swept: Instant,
}

impl<W: Wire> MemoryStore<W> {
    /// An empty store, of the node with this key.
    pub fn new(local: W::Key, limits: StoreLimits) -> Self {
        Self {
            local,
            limits,
            values: BTreeMap::new(),
            bytes: 0,
            value_shares: Shares::default(),
            providers: BTreeMap::new(),
            provider_count: 0,
            provider_shares: Shares::default(),
            own: BTreeMap::new(),
            swept: Instant::ORIGIN,
        }
    }

    /// How many values, and how many providers.
    pub fn len(&self) -> (usize, usize) {
        (self.values.len(), self.provider_count)
    }

    /// Whether nothing is kept for others.
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }

    /// How many things a group may have stored, where there is room for so many.
    fn share(&self, of: usize) -> usize {
        (of.saturating_mul(self.limits.share) / 100).max(1)
    }

    fn remove_value(&mut self, distance: &W::Key) {
        if let Some(held) = self.values.remove(distance) {
            self.bytes -= W::size(&held.item);
            self.value_shares.remove(held.from);
        }
    }

    fn remove_providers(&mut self, distance: &W::Key) {
        for held in self.providers.remove(distance).into_iter().flatten() {
            self.provider_count -= 1;
            self.provider_shares.remove(held.from);
        }
    }

    /// Drops what has expired, now and then.
    fn sweep(&mut self, now: Instant) {
        if now - self.swept < SWEEP {
            return;
        }
        self.swept = now;
        let expired: Vec<_> =
            self.values.iter().filter(|(_, held)| held.expires <= now).map(|(key, _)| *key).collect();
        for key in expired {
            self.remove_value(&key);
        }
        let (count, shares) = (&mut self.provider_count, &mut self.provider_shares);
        self.providers.retain(|_, held| {
            held.retain(|held| {
                let lives = now < held.expires;
                if !lives {
                    *count -= 1;
                    shares.remove(held.from);
                }
                lives
            });
            !held.is_empty()
        });
    }

    /// Makes room for a value at this distance, in place of the one that is there, at the cost of what is farther, if that is
    /// enough.
    fn make_room(&mut self, distance: &W::Key, size: usize) -> Result<(), Refusal> {
        let known = self.values.get(distance);
        let mut count = self.values.len() - usize::from(known.is_some());
        let mut bytes = self.bytes - known.map_or(0, |held| W::size(&held.item));
        let mut farther = self.values.range(distance..).rev().filter(|(key, _)| *key != distance);
        let mut going = Vec::new();
        while count >= self.limits.values || bytes + size > self.limits.bytes {
            let (key, held) = farther.next().ok_or(Refusal::Full)?;
            bytes -= W::size(&held.item);
            count -= 1;
            going.push(*key);
        }
        for key in going {
            self.remove_value(&key);
        }
        Ok(())
    }
}

impl<W: Wire> Store<W> for MemoryStore<W> {
    fn value(&self, key: &W::Key, now: Instant) -> Option<W::Value> {
        let held = self.values.get(&key.distance(&self.local))?;
        (now < held.expires).then(|| held.item.clone())
    }

    fn providers(&self, key: &W::Key, now: Instant) -> Vec<W::Provider> {
        let known = self.providers.get(&key.distance(&self.local)).into_iter().flatten();
        known.filter(|held| now < held.expires).map(|held| held.item.clone()).collect()
    }

    fn put(
        &mut self,
        key: W::Key,
        value: W::Value,
        from: Option<Group>,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.sweep(now);
        let (distance, size) = (key.distance(&self.local), W::size(&value));
        if size > self.limits.value_bytes {
            return Err(Refusal::TooLarge);
        }
        let known = self.values.get(&distance);
        if known.is_some_and(|held| now < held.expires && !W::replaces(&held.item, &value)) {
            return Err(Refusal::Outdated);
        }
        let expires = now + self.limits.value_life;
        if let Some(held) = self.values.get_mut(&distance)
            && held.item == value
        {
            held.expires = expires;
            return Ok(());
        }
        let is_own = self.values.get(&distance).is_some_and(|held| held.from == from);
        if !is_own && !self.value_shares.has_room(from, self.share(self.limits.values)) {
            return Err(Refusal::Share);
        }
        self.make_room(&distance, size)?;
        self.remove_value(&distance);
        self.bytes += size;
        self.value_shares.add(from);
        self.values.insert(distance, Held { item: value, expires, from });
        Ok(())
    }

    fn add_provider(
        &mut self,
        key: W::Key,
        provider: W::Provider,
        from: Option<Group>,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.sweep(now);
        let distance = key.distance(&self.local);
        let expires = now + self.limits.provider_life;
        let known = self.providers.get_mut(&distance).and_then(|held| {
            let at = held.iter().position(|held| held.item == provider)?;
            Some(held.remove(at))
        });
        if let Some(known) = known {
            // Told again, it is the latest; whose share it counts to remains.
            let held = Held { item: provider, expires, from: known.from };
            self.providers.entry(distance).or_default().push(held);
            return Ok(());
        }
        if !self.provider_shares.has_room(from, self.share(self.limits.providers)) {
            return Err(Refusal::Share);
        }
        let of_key = self.providers.get(&distance).map_or(0, Vec::len);
        if of_key >= self.limits.providers_of_key {
            let held = self.providers.entry(distance).or_default();
            let gone = largest_group(held, from).map(|at| held.remove(at));
            self.provider_shares.remove(gone.and_then(|gone| gone.from));
            self.provider_count -= 1;
        } else if self.provider_count >= self.limits.providers {
            let farthest = self.providers.last_key_value().map(|(key, _)| *key);
            let farthest = farthest.filter(|farthest| *farthest > distance).ok_or(Refusal::Full)?;
            self.remove_providers(&farthest);
        }
        self.provider_count += 1;
        self.provider_shares.add(from);
        self.providers.entry(distance).or_default().push(Held { item: provider, expires, from });
        Ok(())
    }

    fn repeat(&mut self, record: Record<W>) {
        self.own.insert(record.target.key(), record);
    }

    fn forget(&mut self, key: &W::Key) {
        self.own.remove(key);
    }

    fn record(&self, key: &W::Key) -> Option<Record<W>> {
        self.own.get(key).cloned()
    }

    fn repeated(&self) -> Vec<W::Key> {
        self.own.keys().copied().collect()
    }
}

/// Which provider makes room for one from this group: the oldest of the group that has the most, the newcomer counted.
/// Those that belong to no group are a group each.
fn largest_group<T>(held: &[Held<T>], newcomer: Option<Group>) -> Option<usize> {
    let mut counts: HashMap<Group, usize> = HashMap::new();
    for group in held.iter().map(|held| held.from).chain([newcomer]).flatten() {
        *counts.entry(group).or_default() += 1;
    }
    let size = |held: &Held<T>| held.from.and_then(|group| counts.get(&group)).copied().unwrap_or(1);
    // The first of the largest is the oldest.
    let (at, _) = held.iter().enumerate().rev().max_by_key(|(_, held)| size(held))?;
    Some(at)
}
