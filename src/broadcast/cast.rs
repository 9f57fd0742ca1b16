//! A broadcast, as the task of an operation: what all strategies have in common.

use super::optimistic::Optimistic;
use super::stores::Stores;
use super::sweep::Sweeper;
use super::{
    BroadcastConfig, BroadcastFinish, BroadcastProgress, StartBroadcast, StoreEnd, Strategy, Success,
};
use crate::deadline;
use crate::event::{Answer, Ask, Contact, Outcome, Progress, Record};
use crate::family::Family;
use crate::lookup::{self, Lookup, Miss, Spot};
use crate::netsize::{NotEnoughData, Thresholds};
use crate::outbox::Seeded;
use crate::pool::PoolConfig;
use crate::task::{End, Found, Next, Place, Task};
use crate::time::Instant;
use core::time::Duration;
use smallvec::SmallVec;
use std::collections::{HashMap, HashSet};

/// How nodes are found.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // boxed as a whole where it matters
enum Plan<F: Family> {
    /// They have been.
    None,
    FollowUp(Lookup<F>),
    Optimistic(Optimistic<F>),
    Sweep(Sweeper<F>),
}

/// What the search for nodes wants.
pub(crate) enum Look<F: Family> {
    /// Ask this node, for the lookup of this number.
    Ask { number: u16, spot: Spot, node: F::Node, hop: u16, again: bool },
    /// The lookup of this number is over, and the search is not.
    Ended(u16),
    /// Something has changed: look again.
    Again,
    /// Wait for those asked.
    Wait,
    /// It is over.
    Over(Outcome),
}

impl<F: Family> Look<F> {
    /// What a lookup of this number wants.
    pub(crate) fn of(number: u16, next: lookup::Next<F>) -> Self {
        match next {
            lookup::Next::Ask { spot, node, hop, again } => Self::Ask { number, spot, node, hop, again },
            lookup::Next::Wait => Self::Wait,
            lookup::Next::Done(done) => Self::Over(done.into()),
        }
    }
}

/// What nodes' answers carried, by key.
type Tokens<F> =
    HashMap<<F as Family>::Key, SmallVec<[(<F as Family>::Node, <F as Family>::Message); 1]>, Seeded>;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Cast<F: Family> {
    target: F::Key,
    plan: Plan<F>,
    ask: Ask<F>,
    records: Vec<Record<F>>,
    success: Success,
    stores: Stores<F>,
    /// What answers carried, by the keys of their nodes. Never iterated.
    tokens: Tokens<F>,
    store_time: Duration,
    parallel: usize,
    /// Nodes are still looked for, and until when.
    looking: Option<Instant>,
    /// Lookups begun.
    lookups: u32,
    /// How the lookup ended.
    lookup: Option<Outcome>,
    fell_back: Option<NotEnoughData>,
    closest: Vec<Contact<F>>,
    /// Lookups that are over, and whose requests are to be given up.
    abandon: SmallVec<[u16; 2]>,
}

impl<F: Family> Cast<F> {
    pub(crate) fn new(
        local: F::Key,
        pool: &PoolConfig,
        config: &BroadcastConfig,
        start: StartBroadcast<F>,
        size: impl FnOnce() -> Result<u64, NotEnoughData>,
    ) -> Self {
        let StartBroadcast { records, strategy, ask, success, seeds, .. } = start;
        let (query, hash) = (&pool.query, Seeded(pool.hash_seed));
        let finds = ask == Ask::FindCloser;
        let target = records.first().map_or(local, |record| record.key);
        let lookup = |seeds| Lookup::new(local, target, query.rules_for(None, finds), seeds);
        let mut stores = Stores::new();
        let mut fell_back = None;
        let plan = match strategy {
            Strategy::FollowUp => Plan::FollowUp(lookup(seeds)),
            Strategy::Static(nodes) => {
                fix(&mut stores, nodes, local, hash);
                Plan::None
            }
            Strategy::Optimistic { nodes } => match nodes.map_or_else(size, Ok) {
                Ok(nodes) => Plan::Optimistic(Optimistic::new(
                    lookup(seeds),
                    Thresholds::new(query.k, nodes),
                    query.k,
                    config,
                )),
                Err(unknown) => {
                    fell_back = Some(unknown);
                    Plan::FollowUp(lookup(seeds))
                }
            },
            Strategy::Sweep => {
                let by = config.sweep_by(query);
                let rules = query.rules_for(Some(by.results), finds);
                Plan::Sweep(Sweeper::new(local, rules, by, config.max_lookups, &records, seeds))
            }
        };
        Self {
            target,
            plan,
            ask,
            records,
            success,
            stores,
            tokens: HashMap::with_hasher(hash),
            store_time: config.store_time,
            parallel: config.parallel,
            looking: None,
            lookups: 0,
            lookup: None,
            fell_back,
            closest: Vec::new(),
            abandon: SmallVec::new(),
        }
    }

    /// Until when nodes are looked for, of an operation that ends at the deadline: rule 8.
    fn look_until(&self, now: Instant, deadline: Instant) -> Option<Instant> {
        match &self.plan {
            Plan::Sweep(_) => deadline::of_sweep(now, deadline),
            _ => deadline::of_lookup(now, deadline, self.store_time),
        }
    }

    /// The lookup of this number.
    fn lookup(&mut self, number: u16) -> Option<&mut Lookup<F>> {
        match &mut self.plan {
            Plan::None => None,
            Plan::FollowUp(lookup) => Some(lookup),
            Plan::Optimistic(plan) => Some(&mut plan.lookup),
            Plan::Sweep(plan) => plan.lookup(number),
        }
    }

    /// No more nodes are looked for: stores with those found.
    fn end_looking(&mut self, outcome: Outcome) {
        self.looking = None;
        match core::mem::replace(&mut self.plan, Plan::None) {
            Plan::None => {}
            Plan::FollowUp(lookup) => {
                self.lookup = Some(outcome);
                self.abandon.push(0);
                self.closest = lookup.into_closest();
                self.stores.reserve(self.closest.len());
                for Contact { node, hop, .. } in &self.closest {
                    self.stores.push(node.clone(), hop.saturating_add(1), Vec::new());
                }
            }
            Plan::Optimistic(mut plan) => {
                self.lookup = Some(outcome);
                self.abandon.push(0);
                plan.over = true;
                plan.stale = true;
                self.plan = Plan::Optimistic(plan);
            }
            Plan::Sweep(mut plan) => {
                plan.settle(&mut self.stores, &mut self.abandon, &self.records);
                self.plan = Plan::Sweep(plan);
            }
        }
    }

    /// Whether an optimistic broadcast has enough to return, and has not returned.
    fn returns(&mut self) -> bool {
        match &mut self.plan {
            Plan::Optimistic(plan) if !plan.returned && self.stores.stored() >= plan.enough => {
                plan.returned = true;
                true
            }
            _ => false,
        }
    }

    fn close(&mut self, place: u32, end: StoreEnd<F>) {
        let (failed, silent) =
            (end != StoreEnd::Stored, matches!(end, StoreEnd::TimedOut | StoreEnd::Failed));
        self.stores.ended(place, end);
        if let Plan::Optimistic(plan) = &mut self.plan {
            plan.stale = true;
            if failed {
                let store = self.stores.get(place).filter(|_| silent);
                plan.failed(store.map(|store| &store.node));
            }
        }
    }

    /// The node wants this back when it is to store.
    fn carried(&mut self, node: &F::Node, token: F::Message) {
        let alike = self.tokens.entry(F::key(node)).or_default();
        match alike.iter_mut().find(|(of, _)| of == node) {
            Some((_, last)) => *last = token,
            None => alike.push((node.clone(), token)),
        }
    }

    /// A request of a lookup has ended.
    fn of_lookup<R>(&mut self, number: u16, does: impl FnOnce(&mut Lookup<F>) -> R) -> Option<R> {
        let done = self.lookup(number).map(does);
        if let Plan::Optimistic(plan) = &mut self.plan {
            plan.stale = true;
        }
        done
    }

    /// The last word, where this is said of stores that have not been sent, and of those that have not ended.
    fn account(&self, end: End, left: &StoreEnd<F>, open: &StoreEnd<F>) -> BroadcastFinish<F> {
        let End { operation, outcome, statistics } = end;
        let short = self.stores.short(self.records.len(), self.success);
        let (sweep, lookups, explored) = match &self.plan {
            Plan::Sweep(plan) => (true, plan.begun, plan.explored),
            _ => (false, self.lookups, None),
        };
        // Cut off; or not over, and not needed any more.
        let cut = outcome != Outcome::Complete && self.looking.is_some() && !sweep;
        BroadcastFinish {
            operation,
            target: self.target,
            outcome,
            succeeded: short == 0,
            short,
            lookups,
            lookup: self.lookup.or(cut.then_some(outcome)),
            explored,
            fell_back: self.fell_back,
            closest: Vec::new(),
            stores: self.stores.account(left, open),
            statistics,
        }
    }
}

/// Stores with these nodes.
fn fix<F: Family>(stores: &mut Stores<F>, nodes: Vec<F::Node>, local: F::Key, hash: Seeded) {
    let mut keys = HashSet::with_hasher(hash);
    stores.reserve(nodes.len());
    for node in nodes {
        let key = F::key(&node);
        let is_new = keys.insert(key) || stores.iter().all(|store| store.node != node);
        if key != local && is_new {
            stores.push(node, 1, Vec::new());
        }
    }
}

impl<F: Family> Task<F> for Cast<F> {
    type Progress = BroadcastProgress<F>;
    type Finish = BroadcastFinish<F>;

    fn begin(&mut self, now: Instant, deadline: Instant) {
        match &mut self.plan {
            Plan::None => return,
            Plan::FollowUp(lookup) => lookup.begin(),
            Plan::Optimistic(plan) => plan.begin(),
            Plan::Sweep(_) => {}
        }
        self.lookups = u32::from(!matches!(self.plan, Plan::Sweep(_)));
        self.looking = self.look_until(now, deadline);
        if self.looking.is_none() {
            self.end_looking(Outcome::DeadlineExceeded);
        }
    }

    fn next(&mut self, _now: Instant) -> Next<F> {
        loop {
            if let Some(lookup) = self.abandon.pop() {
                return Next::Abandon { lookup };
            }
            if let Plan::Optimistic(plan) = &mut self.plan {
                plan.update(&mut self.stores);
            }
            if self.stores.in_flight() < self.parallel
                && let Some((place, store)) = self.stores.next()
            {
                let (place, node, hop) = (Place::Store(place), store.node.clone(), store.hop);
                let until = Instant::FAR_FUTURE;
                return Next::Ask { place, node, hop, again: false, patient: true, until };
            }
            if self.returns() {
                return Next::Return;
            }
            let look = match (&mut self.plan, self.looking) {
                (_, None) | (Plan::None, _) => None,
                (Plan::FollowUp(lookup), Some(until)) => Some((Look::of(0, lookup.next()), until)),
                (Plan::Optimistic(plan), Some(until)) => plan.look().map(|look| (look, until)),
                (Plan::Sweep(plan), Some(until)) => Some((plan.look(), until)),
            };
            match look {
                Some((Look::Ask { number, spot, node, hop, again }, until)) => {
                    let place = Place::Lookup { number, spot };
                    return Next::Ask { place, node, hop, again, patient: false, until };
                }
                Some((Look::Ended(number), _)) => self.abandon.push(number),
                Some((Look::Again, _)) => {}
                Some((Look::Wait, _)) => return Next::Wait,
                Some((Look::Over(outcome), _)) => self.end_looking(outcome),
                None if self.stores.open() > 0 => return Next::Wait,
                None => return Next::Done(Outcome::Complete),
            }
        }
    }

    fn take_back(&mut self, place: Place) {
        match place {
            Place::Lookup { number, spot } => {
                if let Some(lookup) = self.lookup(number) {
                    lookup.take_back(spot);
                }
            }
            Place::Store(place) => self.stores.take_back(place),
            Place::Crawl(_) => {}
        }
    }

    fn ask(&mut self, place: Place, node: &F::Node) -> (F::Key, Ask<F>) {
        let key = F::key(node);
        match place {
            Place::Lookup { number, spot } => {
                let target = self.lookup(number).map_or(key, |lookup| spot.target(lookup.target()));
                (target, self.ask.clone())
            }
            Place::Store(place) => {
                self.stores.sent(place);
                let carried = self.tokens.get(&key).into_iter().flatten();
                let token = carried.filter(|(of, _)| of == node).map(|(_, token)| token.clone()).next();
                let records = self.stores.get(place).map_or(&[][..], |store| &store.records);
                if let ([], Some(Record { key, message })) = (records, self.records.first()) {
                    return (*key, Ask::Store { message: message.clone(), token });
                }
                let record = |place: &u32| self.records.get(*place as usize).cloned();
                (key, Ask::Batch { records: records.iter().filter_map(record).collect(), token })
            }
            Place::Crawl(_) => (key, self.ask.clone()),
        }
    }

    fn answered(&mut self, place: Place, node: &F::Node, elapsed: Duration, answer: &mut Answer<F>) -> u8 {
        match place {
            Place::Lookup { number, spot } => {
                if let Some(token) = answer.carried.token.take() {
                    self.carried(node, token);
                }
                let value = answer.carried.value;
                self.of_lookup(number, |lookup| lookup.answered(spot, elapsed, &answer.closer, value))
                    .unwrap_or(0)
            }
            Place::Store(place) => {
                self.close(place, StoreEnd::Stored);
                0
            }
            Place::Crawl(_) => 0,
        }
    }

    fn missed(&mut self, place: Place, miss: Miss) {
        match place {
            Place::Lookup { number, spot } => {
                self.of_lookup(number, |lookup| lookup.missed(spot, miss));
            }
            Place::Store(place) => {
                let timed_out = miss == Miss::TimedOut;
                self.close(place, if timed_out { StoreEnd::TimedOut } else { StoreEnd::Failed });
            }
            Place::Crawl(_) => {}
        }
    }

    fn rejected(&mut self, place: Place, why: &F::Message) {
        match place {
            Place::Store(place) => self.close(place, StoreEnd::Rejected(why.clone())),
            place => self.missed(place, Miss::Failed),
        }
    }

    fn withdrawn(&mut self, place: Place) {
        if let Place::Lookup { number, spot } = place {
            self.of_lookup(number, |lookup| lookup.withdrawn(spot));
        }
    }

    fn slow(&mut self, place: Place) {
        if let Place::Lookup { number, spot } = place {
            self.of_lookup(number, |lookup| lookup.slow(spot));
        }
    }

    fn timer(&self) -> Option<Instant> {
        self.looking
    }

    fn elapse(&mut self, now: Instant) {
        if self.looking.is_some_and(|until| until <= now) {
            self.end_looking(Outcome::DeadlineExceeded);
        }
    }

    fn rest(&self) -> usize {
        match &self.plan {
            Plan::Optimistic(plan) if self.looking.is_some() || self.stores.open() > 0 => {
                plan.rest(&self.stores)
            }
            _ => 0,
        }
    }

    fn abandoned(&mut self) -> Option<u16> {
        self.abandon.pop()
    }

    fn detach(&mut self, end: End, deadline: Instant) -> Option<BroadcastFinish<F>> {
        let mut finish = self.account(end, &StoreEnd::Background, &StoreEnd::Background);
        let now = end.statistics.ended.unwrap_or(deadline);
        if let Plan::Optimistic(plan) = &mut self.plan {
            finish.closest = plan.lookup.closest();
            plan.budget = plan.rest(&self.stores).saturating_sub(self.stores.open());
        }
        if self.looking.is_some() {
            self.looking = self.look_until(now, deadline);
            if self.looking.is_none() {
                self.end_looking(Outcome::DeadlineExceeded);
            }
        }
        Some(finish)
    }

    fn progress(&self, request: Progress<F>, place: Place) -> BroadcastProgress<F> {
        let store = matches!(place, Place::Store(_));
        BroadcastProgress { request, store, counts: self.stores.counts() }
    }

    fn finish(self, end: End) -> BroadcastFinish<F> {
        let finish = self.account(end, &StoreEnd::Unsent, &StoreEnd::Cancelled);
        let closest = match self.plan {
            Plan::FollowUp(lookup) => lookup.into_closest(),
            Plan::Optimistic(plan) => plan.lookup.into_closest(),
            Plan::None | Plan::Sweep(_) => self.closest,
        };
        BroadcastFinish { closest, ..finish }
    }

    fn found(_: &mut BroadcastFinish<F>) -> Option<Found<'_, F>> {
        None
    }
}
