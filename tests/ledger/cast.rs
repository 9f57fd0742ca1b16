//! The account of a broadcast: whom it may store with and when, what becomes of each store, and what it must say of it.
//!
//! Where the account of its lookup is exact, so is that of the nodes to store with; else only what holds in any case is
//! checked. A sweep's lookups are told apart by what they ask about.

use super::Sent;
use super::known::Known;
use super::matter::{Asking, Counts, Kind, Matter, Replied, Timer, World, all};
use super::net::{Net, Peer};
use kad_proto::broadcast::{BroadcastFinish, StartBroadcast, StoreEnd, Strategy, Success};
use kad_proto::coordinator::Outbound;
use kad_proto::netsize::{NotEnoughData, Thresholds};
use kad_proto::{
    Ask, Bits, BroadcastConfig, Config, GivenUp, Instant, Key, Outcome, QueryConfig, RefusedBecause, Reply,
    Request, RequestId, Start,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A node to store with.
#[derive(Clone, Debug)]
struct Store<const N: usize> {
    node: Peer<N>,
    hop: Option<u32>,
    /// The records of a batch, by their places.
    records: Vec<u32>,
    sent: Option<RequestId>,
    end: Option<StoreEnd<Net<N>>>,
}

impl<const N: usize> Store<N> {
    fn is_stored(&self) -> bool {
        self.end == Some(StoreEnd::Stored)
    }

    fn has_failed(&self) -> bool {
        self.end.is_some() && !self.is_stored()
    }
}

/// A lookup that stores as it goes.
struct Eager<const N: usize> {
    known: Known<N>,
    thresholds: Thresholds,
    /// How many more nodes may be stored with.
    budget: usize,
    enough: usize,
    /// The window is as good as it needs to be.
    stopped: bool,
    /// A store has failed: the lookup goes on to its own end.
    troubled: bool,
    /// Something has happened since the window was looked at.
    stale: bool,
}

/// What one lookup of a sweep was told.
#[derive(Default)]
struct Leg<const N: usize> {
    pending: Vec<(RequestId, Peer<N>)>,
    asked: BTreeSet<Peer<N>>,
    answered: BTreeSet<Peer<N>>,
}

#[derive(Default)]
struct Tour<const N: usize> {
    /// Who was named, and how far away each may be.
    named: BTreeMap<Peer<N>, BTreeSet<u32>>,
    /// By what they ask about.
    legs: BTreeMap<Bits<N>, Leg<N>>,
}

#[allow(clippy::large_enum_variant)]
enum Plan<const N: usize> {
    Static,
    FollowUp(Known<N>),
    Optimistic(Eager<N>),
    Sweep(Tour<N>),
}

pub(crate) struct Cast<const N: usize> {
    local: Bits<N>,
    query: QueryConfig,
    config: BroadcastConfig,
    start: StartBroadcast<Net<N>>,
    plan: Plan<N>,
    fell_back: Option<NotEnoughData>,
    /// Its end, and until when it looks for nodes, once it has begun.
    times: Option<(Instant, Option<Instant>)>,
    /// When its lookup was over, as far as that could be seen.
    over: Option<Instant>,
    /// It was over because its share of the time ran out, for sure.
    late: bool,
    /// The nodes to store with: all of them, in order, where the account is exact; else those that have been sent to.
    stores: Vec<Store<N>>,
    exact: bool,
    tokens: BTreeMap<Peer<N>, u64>,
    /// How many nodes there were to store with, as last said.
    said: u32,
    background: bool,
    /// It has returned, and there was no room for what was left.
    gives_up_rest: bool,
    /// What it does now is not all told.
    lost: bool,
    /// How many stores there may be in the background, and how many of them have ended.
    rest: usize,
    later: usize,
}

/// What a broadcast's start has to have.
pub(crate) fn objection<const N: usize>(
    start: &StartBroadcast<Net<N>>,
    config: &Config,
) -> Option<RefusedBecause> {
    let sweep = start.strategy == Strategy::Sweep;
    let most = if sweep { config.broadcast.max_records } else { 1 };
    if !(1..=most).contains(&start.records.len()) {
        return Some(RefusedBecause::Records { most });
    }
    let most = config.broadcast.max_nodes;
    match &start.strategy {
        Strategy::Static(nodes) if nodes.len() > most => Some(RefusedBecause::Nodes { most }),
        _ => None,
    }
}

/// Until when a broadcast looks for nodes: deadline rule 8.
fn looks_until(now: Instant, deadline: Instant, store_time: Option<Duration>) -> Option<Instant> {
    let left = (deadline.as_nanos() - now.as_nanos()) as u128;
    let kept = store_time.map_or(left.div_ceil(2), |time| time.as_nanos().min(left / 10).max(1));
    let until = Instant::from_nanos(now.as_nanos() + (left.saturating_sub(kept)) as u64);
    (until > now).then_some(until)
}

fn enough(success: Success, all: usize) -> usize {
    let wanted = match success {
        Success::Count(count) => count.min(all),
        Success::Share(share) => (all * usize::from(share)).div_ceil(100),
    };
    wanted.max(1)
}

impl<const N: usize> Cast<N> {
    pub(crate) fn new(config: &Config, start: &StartBroadcast<Net<N>>, world: &World<'_, N>) -> Self {
        let (query, local) = (config.pool.query.clone(), world.local);
        let target = start.records[0].key;
        let mut seeds = start.seeds.clone();
        let table = world.table.into_iter();
        match &start.strategy {
            Strategy::Static(_) => {}
            Strategy::Sweep => seeds.extend(all(world.table)),
            _ => seeds.extend(table.flat_map(|it| it.closest(target).take(2 * query.k)).map(|it| *it.node())),
        }
        let known = || {
            let start = match &start.ask {
                Ask::Message(message) => Start::message(0, target, *message),
                _ => Start::find(0, target),
            };
            Known::new(local, target, config, &start, &seeds)
        };
        let mut fell_back = None;
        // Whether a silent node is to be asked again is not told while that waits for capacity; nor whether one is to be asked
        // that then fails to store.
        let roomy = config.network.max_in_flight >= 1_000 && config.network.max_per_node >= 16;
        let eager = matches!(start.strategy, Strategy::Optimistic { .. });
        let told = roomy || query.retries == 0 && !eager;
        let mut exact = config.network.max_queued >= 1_000 && told;
        let plan = match &start.strategy {
            Strategy::Static(_) => Plan::Static,
            Strategy::FollowUp => Plan::FollowUp(known()),
            Strategy::Optimistic { nodes } => match nodes.map_or_else(|| world.size, Ok) {
                Err(unknown) => {
                    fell_back = Some(unknown);
                    Plan::FollowUp(known())
                }
                Ok(nodes) => Plan::Optimistic(Eager {
                    known: known(),
                    thresholds: Thresholds::new(query.k, nodes),
                    budget: 2 * query.k,
                    enough: (query.k * usize::from(config.broadcast.return_share)).div_ceil(100).max(1),
                    stopped: false,
                    troubled: false,
                    stale: true,
                }),
            },
            Strategy::Sweep => {
                exact = false;
                let named = seeds.iter().map(|seed| (*seed, BTreeSet::from([1]))).collect();
                Plan::Sweep(Tour { named, legs: BTreeMap::new() })
            }
            other => panic!("a strategy that the ledger does not know: {other:?}"),
        };
        let mut cast = Self {
            local,
            query,
            config: config.broadcast.clone(),
            start: start.clone(),
            plan,
            fell_back,
            times: None,
            over: None,
            late: false,
            stores: Vec::new(),
            exact,
            tokens: BTreeMap::new(),
            said: 0,
            background: false,
            gives_up_rest: false,
            lost: false,
            rest: 0,
            later: 0,
        };
        if let Strategy::Static(nodes) = &start.strategy {
            cast.exact = true;
            for node in nodes {
                if node.key != local && !cast.stores.iter().any(|store| store.node == *node) {
                    cast.push(*node, 1);
                }
            }
        }
        cast
    }

    fn push(&mut self, node: Peer<N>, hop: u32) {
        let store = Store { node, hop: Some(hop), records: Vec::new(), sent: None, end: None };
        self.stores.push(store);
    }

    fn known(&self) -> Option<&Known<N>> {
        match &self.plan {
            Plan::FollowUp(known) | Plan::Optimistic(Eager { known, .. }) => Some(known),
            _ => None,
        }
    }

    fn known_mut(&mut self) -> Option<&mut Known<N>> {
        match &mut self.plan {
            Plan::FollowUp(known) | Plan::Optimistic(Eager { known, .. }) => Some(known),
            _ => None,
        }
    }

    fn stored(&self) -> usize {
        self.stores.iter().filter(|store| store.is_stored()).count()
    }

    fn failed(&self) -> usize {
        self.stores.iter().filter(|store| store.has_failed()).count()
    }

    fn in_flight(&self) -> usize {
        self.stores.iter().filter(|store| store.sent.is_some() && store.end.is_none()).count()
    }

    /// To be sent, or in flight.
    fn open(&self) -> usize {
        self.stores.iter().filter(|store| store.end.is_none()).count()
    }

    fn deadline(&self) -> Option<Instant> {
        self.times.map(|(deadline, _)| deadline)
    }

    fn until_looks(&self) -> Option<Instant> {
        self.times.and_then(|(_, until)| until).filter(|_| self.over.is_none())
    }

    /// Whether the time to look for nodes has run out by now, and was not over before.
    fn is_late(&self, now: Instant) -> bool {
        self.until_looks().is_some_and(|until| until <= now)
    }

    /// The lookup is over: follow-ups know whom to store with.
    fn end_looking(&mut self, now: Instant) {
        if self.over.is_some() || matches!(self.plan, Plan::Static) {
            return;
        }
        self.over = Some(now);
        match &mut self.plan {
            Plan::FollowUp(known) => {
                self.exact &= known.is_exact();
                if self.exact {
                    for (node, hop) in known.closest() {
                        self.push(node, hop + 1);
                    }
                }
            }
            Plan::Optimistic(eager) => {
                eager.stale = true;
                self.look_at_window(now);
            }
            Plan::Sweep(tour) => {
                let open = tour.legs.values().any(|leg| !leg.pending.is_empty());
                assert!(!open, "deadline 8: what a lookup that is over has in flight is given up");
            }
            Plan::Static => {}
        }
    }

    /// Something has happened, and whom to store with may have changed.
    fn happened(&mut self, now: Instant) {
        if let Plan::Optimistic(eager) = &mut self.plan {
            eager.stale = true;
        }
        // A caller came late: the lookup's end is next, or that of the operation.
        if !self.is_late(now) && self.deadline().is_some_and(|deadline| deadline > now) {
            self.look_at_window(now);
        }
        if self.until_looks().is_some()
            && !self.is_late(now)
            && self.is_sure()
            && self.looks()
            && self.known().is_some_and(Known::is_over)
        {
            self.end_looking(now);
        }
    }

    /// Whether it looks on: an optimistic one may have paused.
    fn looks(&self) -> bool {
        let pauses = |eager: &Eager<N>| eager.stopped || eager.budget == 0;
        self.over.is_none() && !matches!(&self.plan, Plan::Optimistic(eager) if pauses(eager))
    }

    /// Whether the end of the lookup can be told.
    fn is_sure(&self) -> bool {
        self.exact && self.known().is_some_and(Known::is_sure)
    }

    /// What it keeps for storing; `None`: half.
    fn store_time(&self) -> Option<Duration> {
        (!matches!(self.plan, Plan::Sweep(_))).then_some(self.config.store_time)
    }

    fn look_at_window(&mut self, now: Instant) {
        let looking = self.over.is_none();
        let sure = self.is_sure() || !looking;
        let exact = self.exact;
        let k = self.query.k;
        let Plan::Optimistic(eager) = &mut self.plan else { return };
        if !std::mem::replace(&mut eager.stale, false) || self.times.is_none_or(|(end, _)| end <= now) {
            return;
        }
        self.exact = exact && eager.known.is_exact() && sure;
        if !self.exact {
            self.stores.retain(|store| store.sent.is_some());
            return;
        }
        let target = self.start.records[0].key;
        let store = |node: &Peer<N>| self.stores.iter().find(|store| store.node == *node);
        let window: Vec<_> = eager.known.live();
        let window: Vec<_> = window
            .into_iter()
            .filter(|(node, ..)| !store(node).is_some_and(Store::has_failed))
            .take(k)
            .collect();
        let keys = window.iter().map(|(node, ..)| node.key);
        let dense = self.config.unasked && eager.thresholds.may_stop(&target, keys);
        eager.stopped = dense && !eager.troubled;
        let everybody = dense || !looking;
        let due: Vec<_> = window
            .into_iter()
            .filter(|(node, _, answered)| {
                store(node).is_none()
                    && (*answered || self.config.unasked)
                    && (everybody || eager.thresholds.is_close(&target, &node.key))
            })
            .take(eager.budget)
            .collect();
        eager.budget -= due.len();
        for (node, hop, _) in due {
            self.push(node, hop + 1);
        }
    }

    /// A store request comes out.
    fn stores(&mut self, asking: &Asking<'_, N>) -> Counts {
        let Asking { now, request, .. } = *asking;
        let node = request.node;
        assert_ne!(node.key, self.local, "store: never with ourselves");
        if !matches!(self.plan, Plan::Static | Plan::Optimistic(_)) || self.is_late(now) {
            self.end_looking(now);
        }
        let (message, token) = match &request.ask {
            Ask::Store { message, token } => (Some(message), token),
            Ask::Batch { token, .. } => (None, token),
            other => panic!("no store: {other:?}"),
        };
        assert!(
            self.lost || *token == self.tokens.get(&node).copied(),
            "token: what the node's own answer carried: {token:?} of {:?}",
            self.tokens
        );
        let mut records = Vec::new();
        if let Ask::Batch { records: batch, .. } = &request.ask {
            assert_eq!(self.start.strategy, Strategy::Sweep, "store: batches are a sweep's");
            assert_eq!(request.target, node.key, "store: a batch is about the node");
            for record in batch {
                let place = self.start.records.iter().position(|given| given == record);
                records.push(place.expect("store: a record of the broadcast") as u32);
            }
            assert!(!records.is_empty(), "store: something");
        } else {
            let record = &self.start.records[0];
            assert_ne!(self.start.strategy, Strategy::Sweep, "store: a sweep's are batches");
            assert_eq!((message, request.target), (Some(&record.message), record.key), "store: the record");
        }
        let place = self.stores.iter().position(|store| store.node == node);
        if self.exact && place.is_none() {
            let expected: Vec<_> = self.stores.iter().map(|store| store.node).collect();
            panic!("store: not with {node:?}, but {expected:?}; {:?}", self.known().map(Known::to_string));
        }
        let place = place.unwrap_or_else(|| {
            self.stores.push(Store { node, hop: None, records: Vec::new(), sent: None, end: None });
            self.stores.len() - 1
        });
        if let Some(hop) = self.stores[place].hop {
            assert_eq!(request.hop, hop, "hops: of a store");
        }
        if !self.lost {
            self.may_store(now, request);
        }
        let ended = self.stores.iter().filter(|store| store.end.is_some()).count();
        assert!(!self.exact || place < ended + self.config.parallel, "store: so many at once, in order");
        let store = &mut self.stores[place];
        assert_eq!(store.sent, None, "store: at most once with a node: {node:?}");
        store.sent = Some(request.id);
        store.records = records;
        assert!(self.in_flight() <= self.config.parallel, "store: so many in flight");
        let mut counts = vec!["store: sent"];
        counts.extend(token.map(|_| "store: with a token"));
        counts.extend(self.exact.then_some("store: by an exact account"));
        if self.background {
            let left = self.rest.checked_sub(self.in_flight() + self.later);
            assert!(left.is_some(), "background: as many stores as were left, at most");
            counts.push("background: store sent");
        }
        counts
    }

    /// What holds of a node to store with, whatever is known.
    fn may_store(&self, now: Instant, request: &Request<Net<N>>) {
        let node = request.node;
        match &self.plan {
            Plan::Static => {}
            Plan::FollowUp(known) => {
                assert!(known.has_answered(&node), "follow-up: stores with nodes that answered");
                assert!(!known.is_pending(), "follow-up: stores when its lookup is over");
            }
            Plan::Optimistic(eager) => {
                let hops = eager.known.hops(&node).expect("optimistic: stores with nodes that were named");
                assert!(hops.contains(&(request.hop - 1)), "hops: of a store");
                let answered = eager.known.has_answered(&node);
                assert!(self.config.unasked || answered, "optimistic: only with nodes that answered");
                let close = eager.thresholds.is_close(&self.start.records[0].key, &node.key);
                let looks = eager.known.is_pending() && !self.is_late(now);
                assert!(
                    close || self.config.unasked || !looks,
                    "optimistic: within the individual threshold as long as it looks"
                );
            }
            Plan::Sweep(tour) => {
                assert_eq!(request.hop, 1, "hops: of a batch");
                assert!(
                    tour.legs.values().any(|leg| leg.answered.contains(&node)),
                    "sweep: stores with nodes found"
                );
            }
        }
    }

    /// An optimistic broadcast learns of it, and its lookup too where the node is silent.
    fn store_failed(&mut self, node: &Peer<N>, silent: bool) {
        if let Plan::Optimistic(eager) = &mut self.plan {
            eager.troubled = true;
            if silent {
                eager.known.lost(node);
            }
        }
    }

    fn store_mut(&mut self, id: RequestId) -> Option<&mut Store<N>> {
        self.stores.iter_mut().find(|store| store.sent == Some(id))
    }

    fn is_store(&self, id: RequestId) -> bool {
        self.stores.iter().any(|store| store.sent == Some(id))
    }

    fn assert_lookup(&self, finish: &BroadcastFinish<Net<N>>) {
        let Some(known) = self.known() else {
            assert_eq!((finish.lookup, finish.closest.len()), (None, 0), "lookup: there was none");
            return;
        };
        let end = finish.statistics.ended.unwrap();
        let until = self.times.map(|(_, until)| until);
        match (finish.lookup, until) {
            (lookup, None) => assert_eq!(lookup, None, "lookup: has not begun"),
            (None, Some(_)) => {
                // It has what it wants before the lookup is over.
                assert_eq!(finish.outcome, Outcome::Complete, "lookup: how it ended");
                assert!(matches!(self.plan, Plan::Optimistic(_)), "lookup: how it ended");
                assert!(!self.exact || self.over.is_none(), "lookup: how it ended");
            }
            (Some(Outcome::DeadlineExceeded), Some(until)) => {
                assert!(until.is_none_or(|until| until <= end), "deadline 8: its share had not run out");
                let early = self.over.filter(|over| until.is_some_and(|until| *over < until));
                assert_eq!(early, None, "lookup: was over before its share ran out");
            }
            (Some(Outcome::Stopped), Some(_)) => {
                assert_eq!(finish.outcome, Outcome::Stopped, "lookup: how it ended");
                assert!(!self.exact || self.over.is_none(), "lookup: was over");
            }
            (Some(lookup), Some(until)) => {
                assert!(until.is_some(), "deadline 8: it had no time");
                let natural = matches!(lookup, Outcome::Converged | Outcome::Exhausted | Outcome::NodeLimit);
                assert!(natural, "lookup: {lookup} is none of a broadcast's");
                assert!(!self.late, "deadline 8: the share ran out");
            }
        }
        if until.is_some() {
            known.assert_finish(finish.lookup.unwrap_or(Outcome::Complete), &finish.closest);
        } else {
            assert_eq!(finish.closest.len(), 0, "closest: has not begun");
        }
    }

    fn assert_stores(&self, finish: &BroadcastFinish<Net<N>>) {
        let nodes: Vec<_> = finish.stores.iter().map(|stored| stored.node).collect();
        if self.exact && (self.times.is_some() || matches!(self.plan, Plan::Static)) {
            let expected: Vec<_> = self.stores.iter().map(|store| store.node).collect();
            assert_eq!(nodes, expected, "stores: the nodes that were to be stored with, in order");
        }
        assert!(nodes.len() >= self.said as usize, "counts: nodes to store with are not forgotten");
        for (place, stored) in finish.stores.iter().enumerate() {
            assert!(!nodes[..place].contains(&stored.node), "stores: a node twice: {stored:?}");
            let store = self.stores.iter().find(|store| store.node == stored.node);
            let sent = store.is_some_and(|store| store.sent.is_some());
            let expected = match store.and_then(|store| store.end.clone()) {
                Some(end) => end,
                None if self.background => StoreEnd::Background,
                None if sent => StoreEnd::Cancelled,
                None => StoreEnd::Unsent,
            };
            assert_eq!(stored.end, expected, "stores: as the events say: {stored:?}");
            if let Some(store) = store.filter(|_| sent) {
                assert_eq!(stored.records, store.records, "stores: the records sent");
            }
        }
        for store in &self.stores {
            assert!(
                nodes.contains(&store.node) || store.sent.is_none(),
                "stores: all that were sent: {store:?}"
            );
        }
        self.assert_success(finish);
    }

    fn assert_success(&self, finish: &BroadcastFinish<Net<N>>) {
        let met = |of: Vec<&StoreEnd<Net<N>>>| {
            let stored = of.iter().filter(|end| ***end == StoreEnd::Stored).count();
            stored >= enough(self.start.success, of.len())
        };
        let short = match &self.plan {
            Plan::Sweep(_) => (0..self.start.records.len() as u32)
                .filter(|place| {
                    let of = finish.stores.iter().filter(|stored| stored.records.contains(place));
                    !met(of.map(|stored| &stored.end).collect())
                })
                .count(),
            _ => {
                let one = finish.stores.iter().all(|stored| stored.records.is_empty());
                assert!(one, "stores: one record needs no list");
                usize::from(!met(finish.stores.iter().map(|stored| &stored.end).collect()))
            }
        };
        assert_eq!(
            (finish.short, finish.succeeded),
            (short, short == 0),
            "success: by the rule of the start"
        );
    }

    /// Each record went to the k closest of the nodes found.
    fn assert_allotted(&self, tour: &Tour<N>, finish: &BroadcastFinish<Net<N>>) -> bool {
        let keys: Vec<_> = finish.stores.iter().map(|stored| stored.node.key).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "sweep: each node one batch, in order of their keys");
        let answered = |node| tour.legs.values().any(|leg| leg.answered.contains(node));
        assert!(finish.stores.iter().all(|stored| answered(&stored.node)), "sweep: nodes found");
        let mut found: BTreeSet<_> = keys.iter().copied().collect();
        if !self.query.rim {
            // All that its lookups told of, by what they looked up.
            let k = self.query.k;
            let most = self.config.sweep.results.clamp(k + 1, self.query.max_candidates.max(k + 1));
            for (target, leg) in &tour.legs {
                let mut closest: Vec<_> = leg.answered.iter().map(|node| node.key).collect();
                closest.sort_by_key(|key| key.distance(target));
                found.extend(closest.into_iter().take(most));
            }
        }
        for (place, record) in (0..).zip(&self.start.records) {
            let of = finish.stores.iter().filter(|stored| stored.records.contains(&place));
            let mut holders: Vec<_> = of.map(|stored| stored.node.key).collect();
            let mut closest: Vec<_> = found.iter().copied().collect();
            holders.sort_by_key(|key| key.distance(&record.key));
            closest.sort_by_key(|key| key.distance(&record.key));
            closest.truncate(self.query.k);
            assert_eq!(
                holders, closest,
                "sweep: each record to the k closest of the nodes found: {record:?}"
            );
        }
        found.len() > self.query.k
    }
}

impl<const N: usize> Matter<N> for Cast<N> {
    fn kind(&self) -> Kind {
        Kind::Cast
    }

    fn begin(&mut self, now: Instant, deadline: Instant) {
        let until = looks_until(now, deadline, self.store_time());
        self.times = Some((deadline, until));
        if matches!(self.plan, Plan::Static) {
            self.times = Some((deadline, None));
        } else if until.is_none() {
            self.end_looking(now);
        }
        self.happened(now);
    }

    fn look(&mut self, now: Instant) {
        if let Some(known) = self.known_mut() {
            known.look(now);
        }
    }

    fn passed(&mut self, now: Instant) {
        if self.is_late(now) {
            self.end_looking(now);
        }
    }

    fn is_patient(&self, request: &Request<Net<N>>) -> bool {
        matches!(request.ask, Ask::Store { .. } | Ask::Batch { .. })
    }

    fn until(&self, request: &Request<Net<N>>) -> Option<Instant> {
        let until = self.times.and_then(|(_, until)| until);
        until.filter(|_| !self.is_patient(request))
    }

    fn timer(&self) -> Timer {
        let Some(until) = self.until_looks() else { return Timer::None };
        let pending = match &self.plan {
            Plan::Sweep(tour) => tour.legs.values().any(|leg| !leg.pending.is_empty()),
            _ => self.known().is_some_and(Known::is_pending),
        };
        if pending || self.is_sure() { Timer::At(until) } else { Timer::Maybe(until) }
    }

    fn is_store(&self, id: RequestId) -> bool {
        Cast::is_store(self, id)
    }

    fn would_ask(&self, request: &Request<Net<N>>) -> bool {
        match &request.ask {
            Ask::Store { message, .. } => *message == self.start.records[0].message,
            Ask::Batch { .. } => false,
            ask => {
                let flipped = request.target.distance(&self.start.records[0].key);
                let bits: u32 = flipped.as_bytes().iter().map(|byte| byte.count_ones()).sum();
                *ask == self.start.ask && bits <= 1
            }
        }
    }

    fn blind(&mut self) {
        self.exact = false;
        self.lost = true;
    }

    fn asks(&mut self, asking: &Asking<'_, N>) -> (bool, Counts) {
        let Asking { now, request, soft, unqueued } = *asking;
        if self.is_patient(request) {
            return (true, self.stores(asking));
        }
        if self.lost {
            return (false, vec!["background: lookup request"]);
        }
        assert_eq!(request.ask, self.start.ask, "a request asks what the start said");
        assert!(!self.is_late(now), "deadline 8: looks no longer than its share of the time");
        assert_eq!(self.over, None, "lookup: is over");
        assert_ne!(request.node.key, self.local, "query: never contacts self");
        let mut counts = vec!["cast: lookup request"];
        counts.extend(self.background.then_some("background: lookup request"));
        let (rim, max_lookups) = (self.query.rim, self.config.max_lookups);
        match &mut self.plan {
            Plan::Static => panic!("static: looks for nobody"),
            Plan::FollowUp(known) => (known.asks(now, request, soft, unqueued), counts),
            Plan::Optimistic(eager) => {
                assert!(
                    !self.exact || !unqueued || !eager.stopped,
                    "optimistic: looks for nobody beyond the set threshold"
                );
                // Whoever was silent is in the window again.
                eager.stale |= eager.known.is_silent(&request.node);
                let first = eager.known.asks(now, request, soft, unqueued);
                self.look_at_window(now);
                (first, counts)
            }
            Plan::Sweep(tour) => {
                let hops = tour.named.get(&request.node).expect("sweep: asks nodes that were named");
                assert!(hops.contains(&request.hop), "hops: {} of {hops:?}", request.hop);
                let leg = tour.legs.entry(request.target).or_default();
                let first = leg.asked.insert(request.node);
                leg.pending.push((request.id, request.node));
                if !rim {
                    let running = tour.legs.values().filter(|leg| !leg.pending.is_empty()).count();
                    assert!(running <= max_lookups, "sweep: so many lookups at once");
                    let most = self.config.sweep.max_lookups;
                    assert!(tour.legs.len() <= most, "sweep: so many lookups");
                    counts.extend((running > 1).then_some("sweep: several lookups at once"));
                }
                // Another bit of the key may be asked about when a node is asked again.
                (first && !rim, counts)
            }
        }
    }

    fn answered(&mut self, replied: &Replied<'_, N>) -> Vec<RequestId> {
        let Reply::Answered { closer } = replied.reply else { panic!("answered by {:?}", replied.reply) };
        let Sent { node, hop, target, .. } = *replied.sent;
        let id = replied.id;
        if self.lost && !self.is_store(id) {
            return Vec::new();
        }
        let mut superseded = Vec::new();
        let background = usize::from(self.background);
        if let Some(store) = self.store_mut(id) {
            store.end = Some(StoreEnd::Stored);
            self.later += background;
        } else {
            if let Some(token) = replied.carried.and_then(|carried| carried.token) {
                self.tokens.insert(node, token);
            }
            let value = replied.carried.is_some_and(|carried| carried.value);
            let most = self.query.max_closer_nodes;
            match &mut self.plan {
                Plan::Static => panic!("static: looks for nobody"),
                Plan::FollowUp(known) | Plan::Optimistic(Eager { known, .. }) => {
                    superseded = known.answered(id, node, replied.elapsed, hop, closer, value);
                }
                Plan::Sweep(tour) => {
                    let leg = tour.legs.entry(target).or_default();
                    let others = leg.pending.iter().filter(|(other, to)| *other != id && *to == node);
                    superseded.extend(others.map(|(other, _)| *other));
                    leg.pending.retain(|(_, to)| *to != node);
                    leg.answered.insert(node);
                    tour.named.entry(node).or_default().insert(1);
                    for named in closer.iter().take(most) {
                        tour.named.entry(*named).or_default().insert(hop + 1);
                    }
                }
            }
        }
        if self.background {
            self.happened(replied.now);
        }
        superseded
    }

    fn missed(&mut self, replied: &Replied<'_, N>) -> bool {
        let (id, &Sent { node, target, .. }) = (replied.id, replied.sent);
        let timed_out = matches!(replied.reply, Reply::TimedOut);
        if self.until_looks().is_some_and(|until| until <= replied.now && replied.sent.deadline >= until) {
            self.end_looking(replied.now);
        }
        if self.lost && !self.is_store(id) {
            return false;
        }
        let mut quiet = true;
        let background = usize::from(self.background);
        if let Some(store) = self.store_mut(id) {
            store.end = Some(match replied.reply {
                Reply::Rejected(why) => StoreEnd::Rejected(*why),
                Reply::TimedOut => StoreEnd::TimedOut,
                _ => StoreEnd::Failed,
            });
            self.later += background;
            self.store_failed(&node, !matches!(replied.reply, Reply::Rejected(_)));
        } else {
            match &mut self.plan {
                Plan::Static => panic!("static: looks for nobody"),
                Plan::FollowUp(known) | Plan::Optimistic(Eager { known, .. }) => {
                    known.missed(id, node, timed_out);
                    quiet = known.is_quiet(&node);
                }
                Plan::Sweep(tour) => {
                    let leg = tour.legs.entry(target).or_default();
                    leg.pending.retain(|(other, _)| *other != id);
                    quiet = leg.pending.iter().all(|(_, to)| *to != node);
                }
            }
        }
        if self.background {
            self.happened(replied.now);
        }
        quiet
    }

    fn given_up(&mut self, now: Instant, id: RequestId, sent: &Sent<N>, reason: GivenUp) {
        let until = self.times.and_then(|(_, until)| until);
        if reason == GivenUp::LookupEnded {
            assert!(!self.is_store(id), "a store is not a lookup's");
            if let Some(until) = until {
                assert!(
                    until > now || sent.deadline >= until,
                    "deadline 6: a request that ran into its own timeout before its lookup ended is a failure"
                );
                self.late |= until <= now;
            }
        }
        // It had all the time that there was when it was sent, and the rest goes on.
        let cut_off = reason == GivenUp::OperationEnded && self.background && sent.deadline <= now;
        let cut_off = cut_off && self.deadline().is_some_and(|end| end > now);
        match &mut self.plan {
            Plan::Sweep(tour) => {
                let leg = tour.legs.entry(sent.target).or_default();
                leg.pending.retain(|(other, _)| *other != id);
            }
            Plan::Optimistic(Eager { known, .. })
                if cut_off && !self.stores.iter().any(|it| it.sent == Some(id)) =>
            {
                known.missed(id, sent.node, true);
            }
            Plan::FollowUp(known) | Plan::Optimistic(Eager { known, .. }) => known.abandoned(id, &sent.node),
            Plan::Static => {}
        }
        match reason {
            GivenUp::LookupEnded if !matches!(self.plan, Plan::Sweep(_)) => self.end_looking(now),
            GivenUp::LookupEnded => {}
            GivenUp::OperationEnded if cut_off => {
                if let Some(store) = self.store_mut(id) {
                    store.end = Some(StoreEnd::Failed);
                    self.later += 1;
                    self.store_failed(&sent.node, true);
                }
                self.happened(now);
            }
            GivenUp::OperationEnded => {}
            reason => panic!("a broadcast does not give up anything for that: {reason}"),
        }
    }

    fn progress(&mut self, now: Instant, event: &Outbound<Net<N>>) -> Counts {
        let Outbound::BroadcastProgress(progress) = event else {
            panic!("progress of another kind: {event:?}")
        };
        assert_eq!(progress.store, self.is_store(progress.request.id), "progress: of a store or not");
        let (stored, failed) = (progress.counts.stored as usize, progress.counts.failed as usize);
        assert_eq!((stored, failed), (self.stored(), self.failed()), "counts: as the events say");
        let nodes = progress.counts.nodes;
        let known = self.stores.len() as u32;
        if self.exact {
            assert_eq!(nodes, known, "counts: nodes to store with");
        } else {
            assert!(nodes >= known && nodes >= self.said, "counts: nodes to store with");
        }
        self.said = nodes;
        self.happened(now);
        vec![if progress.store { "cast: progress of a store" } else { "cast: progress of a lookup" }]
    }

    fn finish(&mut self, now: Instant, event: &Outbound<Net<N>>, in_flight: usize) -> Counts {
        let Outbound::BroadcastFinished(finish) = event else {
            panic!("a finish of another kind: {event:?}")
        };
        let cut = matches!(finish.outcome, Outcome::DeadlineExceeded | Outcome::Stopped);
        assert!(cut || finish.outcome == Outcome::Complete, "outcome: {}", finish.outcome);
        if self.is_late(now) {
            self.end_looking(now);
        }
        let natural =
            matches!(finish.lookup, Some(Outcome::Converged | Outcome::Exhausted | Outcome::NodeLimit));
        self.exact &= self.known().is_none_or(Known::is_exact);
        if self.over.is_none() && (natural || !cut) {
            match &self.plan {
                Plan::FollowUp(_) => self.end_looking(now),
                Plan::Optimistic(_) if natural => self.exact = false,
                _ => {}
            }
        }
        let stored = self.stored();
        let returns = matches!(&self.plan, Plan::Optimistic(eager) if !cut && stored >= eager.enough);
        let goes_on = finish.stores.iter().any(|store| store.end == StoreEnd::Background);
        // Where nothing is in flight and nobody is to be stored with, it may go on looking.
        let left = |end: &StoreEnd<Net<N>>| {
            matches!(end, StoreEnd::Background | StoreEnd::Cancelled | StoreEnd::Unsent)
        };
        let open = finish.stores.iter().filter(|stored| left(&stored.end)).count();
        let rest = (2 * self.query.k).saturating_sub(finish.stores.len()) + open;
        let unseen = open == 0 && rest > 0 && rest <= self.config.max_background && self.over.is_none();
        self.background = returns && (goes_on || in_flight > 0 || unseen);
        assert!(!goes_on || returns, "background: only what an optimistic broadcast has left");
        assert_eq!(finish.target, self.start.records[0].key);
        assert_eq!(finish.fell_back, self.fell_back, "fell back: where the size is not known");
        self.assert_stores(finish);
        let sizes = finish.stores.len();
        assert!(
            cut || returns || open == 0,
            "outcome: complete while something is left to be stored: {:?}",
            finish.stores
        );
        self.assert_lookup(finish);
        let mut exact = self.exact && sizes > 1;
        if let Plan::Sweep(tour) = &self.plan {
            let begun = self.times.is_some();
            assert!(begun || finish.explored.is_none(), "sweep: has not begun");
            assert!(finish.explored.is_none() || open == 0 || cut, "sweep: explored");
            exact = begun && (finish.explored.is_some() || sizes > 0) && self.assert_allotted(tour, finish);
            let share_left = self.until_looks().is_some_and(|until| until > now);
            let early = cut && finish.stores.is_empty();
            assert!(finish.explored.is_some() || !share_left || early, "sweep: why it looked no further");
        } else {
            assert_eq!(finish.explored, None, "explored: of sweeps only");
        }
        self.rest = rest;
        self.gives_up_rest = returns && !self.background && open > 0;
        if let Plan::Optimistic(eager) = &mut self.plan
            && self.background
        {
            eager.budget = self.rest - open;
        }
        let end = |of: fn(&StoreEnd<Net<N>>) -> bool| finish.stores.iter().any(|stored| of(&stored.end));
        let kind = match (&self.plan, &self.fell_back) {
            (_, Some(_)) => "cast: fell back",
            (Plan::Static, _) => "cast: static",
            (Plan::FollowUp(_), _) => "cast: follow-up",
            (Plan::Optimistic(_), _) => "cast: optimistic",
            (Plan::Sweep(_), _) => "cast: sweep",
        };
        let storing = !finish.stores.is_empty() && self.over.is_some();
        let share = finish.lookup == Some(Outcome::DeadlineExceeded) && finish.outcome == Outcome::Complete;
        let by_hand = finish.outcome == Outcome::Stopped && self.times.is_some();
        let seen = [
            (true, kind),
            (finish.succeeded, "cast: succeeded"),
            (!finish.succeeded && sizes > 0, "cast: short"),
            (exact, "cast: an exact account of several"),
            (share, "cast: its lookup's share ran out"),
            (share && sizes > 0, "cast: its lookup's share ran out, and it stored"),
            (self.background, "cast: returned early"),
            (returns && !self.background && open > 0, "cast: returned, no room in the background"),
            (by_hand && !storing, "cast: stopped while it looked"),
            (by_hand && storing, "cast: stopped while it stored"),
            (end(|end| *end == StoreEnd::Stored), "store: stored"),
            (end(|end| *end == StoreEnd::Failed), "store: failed"),
            (end(|end| matches!(end, StoreEnd::Rejected(_))), "store: rejected"),
            (end(|end| *end == StoreEnd::TimedOut), "store: timed out"),
            (end(|end| *end == StoreEnd::Cancelled), "store: cancelled"),
            (end(|end| *end == StoreEnd::Unsent), "store: unsent"),
            (end(|end| *end == StoreEnd::Background), "store: in the background"),
            (finish.explored.is_some() && sizes > 1, "sweep: explored"),
            (matches!(self.plan, Plan::Sweep(_)) && exact, "sweep: allotted"),
        ];
        seen.into_iter().filter(|(is, _)| *is).map(|(_, what)| what).collect()
    }

    fn goes_on(&mut self, now: Instant, until: Instant) -> Option<(bool, usize)> {
        if !self.background {
            return self.gives_up_rest.then_some((false, self.rest));
        }
        let looking = self.until_looks().and_then(|_| looks_until(now, until, self.store_time()));
        let looked = self.until_looks().is_some();
        self.times = Some((until, if looked { looking } else { None }));
        if looked && looking.is_none() {
            self.end_looking(now);
        }
        Some((true, self.rest))
    }

    fn left(&self) -> usize {
        if self.exact { self.open() } else { 0 }
    }

    fn restless(&self, now: Instant, busy: &[Bits<N>]) {
        let in_flight = self.in_flight();
        // The next is handed in, and waits for a node that is busy.
        let next = self.stores.iter().find(|store| store.sent.is_none());
        let stuck = next.is_some_and(|store| busy.contains(&store.node.key));
        if self.exact && next.is_some() {
            let full = in_flight >= self.config.parallel
                || self.stores.iter().any(|store| store.sent.is_none() && busy.contains(&store.node.key));
            assert!(full || stuck, "quiescence: {next:?} could be stored with now");
        }
        let pending = match &self.plan {
            Plan::Sweep(tour) => tour.legs.values().any(|leg| !leg.pending.is_empty()),
            Plan::Static => false,
            _ => self.known().is_some_and(Known::is_pending),
        };
        let waits = in_flight > 0 || pending || !busy.is_empty();
        assert!(waits, "quiescence: a broadcast that goes on waits for something");
        if self.exact
            && self.looks()
            && !stuck
            && !self.lost
            && let Some(known) = self.known()
        {
            known.assert_restless(now, busy);
        }
    }
}
