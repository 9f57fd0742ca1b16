//! Routing maintenance: how the routing table looks after itself.
//!
//! | what happens | what follows |
//! | --- | --- |
//! | a node is named by an answer, or [discovered](crate::coordinator::Inbound::Discovered) by the driver | it is offered to [include](crate::include), if the table would take it; one that is only named, and has [failed lately](crate::IncludeConfig::retry_interval), is not |
//! | a node answers a request of ours and names somebody, or is a seed of a bootstrap | it enters the table, if there is room; its record is refreshed, and its [probe](crate::probe) postponed |
//! | a request runs into its time-out, or fails | nothing is removed: the node's probe is due now, and decides |
//! | a request is given up because its operation ended | nothing |
//! | [`TableConfig::max_failures`](crate::TableConfig::max_failures) probes in a row fail | the node is removed |
//! | a candidate has passed its check, and its bucket is full | it takes the place of the node there with the most failed probes, if one has failed any |
//! | fewer than [`BootstrapConfig::min_nodes`] are left | a notice, and a bootstrap from the seeds remembered, unless one is under way |
//! | the caller starts a bootstrap while one that began by itself is under way | it takes the place of that one, whose requests are given up without a notice, and begins with its seeds too |
//! | a bootstrap ends | a notice; [explore](crate::explore) refreshes all buckets farther away than the closest neighbour |
//!
//! The [`Coordinator`](crate::Coordinator) does all of it by itself, and [`Maintenance`](crate::Maintenance) does it alone. It is
//! side-effect work: it has links instead of parents, and deadlines of its own ([rule 4](crate::context)).

use crate::bootstrap::{BootstrapConfig, Bootstrapper};
use crate::broadcast::{StartBroadcast, Strategy};
use crate::check::Check;
use crate::context::{self, Context};
use crate::error::{ConfigError, require};
use crate::event::{Asks, Bootstrapped, Contact, Ended, Outcome, Owner, Says, Start};
use crate::explore::{ExploreConfig, Explorer, explore};
use crate::family::Family;
use crate::id::{OperationId, RequestId};
use crate::include::{Candidate, IncludeConfig, IncludeCounts, Vetting};
use crate::key::Key;
use crate::machine::Stamped;
use crate::netsize::{NetworkSize, NetworkSizeConfig, NotEnoughData, SizeEstimate};
use crate::outbox::{Ending, Outbox, Seeded};
use crate::pool::{Pool, earlier};
use crate::probe::{ProbeConfig, ProbeCounts, Probed, Prober};
use crate::query::MaySearch;
use crate::table::{Offered, Record, RoutingTable, Saved};
use crate::task::Task;
use crate::time::Instant;
use crate::turn::{Turn, Work};
use core::time::Duration;
use opentelemetry::trace::SpanContext;
use std::collections::{HashMap, VecDeque};

/// Which parts of the routing maintenance there are, and how each goes about it. By default, all of them.
///
/// Memory: that of the parts, and `max_clients` node ids and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct RoutingConfig {
    /// Joins anew where the table is nearly empty. Without it, only the caller bootstraps.
    pub bootstrap: Option<BootstrapConfig>,
    /// Checks candidates. Without it, only nodes that have answered enter the table.
    pub include: Option<IncludeConfig>,
    /// Checks the nodes of the table. Without it, each request of ours that a node fails to answer counts as a failure of
    /// it, and [`TableConfig::max_failures`](crate::TableConfig::max_failures) in a row remove it.
    pub probe: Option<ProbeConfig>,
    /// Refreshes buckets. Without it, only lookups of the caller do.
    pub explore: Option<ExploreConfig>,
    /// How many nodes known not to serve are remembered, the latest told, one for each key. At most 2^20. Default: 1,024.
    pub max_clients: usize,
    /// Seed of the random keys and the jitter of explore. Should differ from node to node. Default: 0.
    pub seed: u64,
}

impl Default for RoutingConfig {
    fn default() -> Self {
        Self {
            bootstrap: Some(BootstrapConfig::default()),
            include: Some(IncludeConfig::default()),
            probe: Some(ProbeConfig::default()),
            explore: Some(ExploreConfig::default()),
            ..Self::off()
        }
    }
}

impl RoutingConfig {
    /// No maintenance: the table learns by answers and notices only.
    pub const fn off() -> Self {
        Self { bootstrap: None, include: None, probe: None, explore: None, max_clients: 1_024, seed: 0 }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.bootstrap.as_ref().map_or(Ok(()), BootstrapConfig::validate)?;
        self.include.as_ref().map_or(Ok(()), IncludeConfig::validate)?;
        self.probe.as_ref().map_or(Ok(()), ProbeConfig::validate)?;
        self.explore.as_ref().map_or(Ok(()), ExploreConfig::validate)?;
        require(self.max_clients <= 1 << 20, "routing.max_clients", "at most 2^20")
    }
}

/// What the routing maintenance did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoutingCounts {
    /// Candidates.
    pub include: IncludeCounts,
    /// Checks of nodes in the table.
    pub probe: ProbeCounts,
    /// Buckets that explore has begun to refresh.
    pub explored: u64,
    /// Bootstraps that began by themselves.
    pub bootstraps: u64,
}

/// What the maintenance says beside its requests and its lookups: side effects.
pub(crate) enum Notice<F: Family> {
    Admitted(F::Node),
    Removed(F::Node),
    Bootstrapped(Bootstrapped),
    NearEmpty { nodes: usize },
}

/// Makes an outbound enum of what the maintenance says.
macro_rules! says_notices {
    ($outbound:ident) => {
        impl<F: Family> From<crate::routing::Notice<F>> for $outbound<F> {
            fn from(notice: crate::routing::Notice<F>) -> Self {
                use crate::routing::Notice;
                match notice {
                    Notice::Admitted(node) => Self::Admitted(node),
                    Notice::Removed(node) => Self::Removed(node),
                    Notice::Bootstrapped(bootstrapped) => Self::Bootstrapped(bootstrapped),
                    Notice::NearEmpty { nodes } => Self::NearEmpty { nodes },
                }
            }
        }
    };
}
pub(crate) use says_notices;

/// What a machine with a routing table can say.
pub(crate) trait Tells<F: Family>: Asks<F> + From<Notice<F>> {}

impl<F: Family, E> Tells<F> for E where E: Asks<F> + From<Notice<F>> {}

fn tell<F: Family, E: Tells<F>>(turn: &mut Turn<'_, F, E>, notice: Notice<F>, context: Context) {
    turn.out.push(Stamped { event: notice.into(), context, deadline: None });
}

/// The routing table and those who look after it.
#[derive(Clone, Debug)]
pub(crate) struct Routing<F: Family> {
    pub(crate) table: RoutingTable<F>,
    bootstrap: Option<Bootstrapper<F>>,
    include: Option<Vetting<F>>,
    probe: Option<Prober<F>>,
    explore: Option<Explorer>,
    clients: Clients<F>,
    max_closer_nodes: usize,
    pub(crate) k: usize,
    bootstraps: u64,
    size: Option<Sizing<F>>,
}

/// What is known of the size of the network.
#[derive(Clone, Debug)]
struct Sizing<F: Family> {
    samples: NetworkSize<F::Key>,
    /// Lookups since the last estimate.
    since: usize,
    /// The last estimate that was published.
    published: Option<u64>,
    /// One that is to be, and the link to the lookup that led to it.
    news: Option<(u64, Context)>,
}

impl<F: Family> Sizing<F> {
    /// An estimate that differs by one part of so many from the last one published is news.
    const NEWS: u64 = 10;

    fn take(&mut self, now: Instant, target: F::Key, closest: &[Contact<F>], fill: usize, context: Context) {
        let keys = closest.iter().map(|contact| F::key(&contact.node));
        if !self.samples.record(now, target, keys, fill) {
            return;
        }
        // An estimate takes as long as a lookup: one for each tenth of the samples is enough.
        self.since += 1;
        if self.since < self.samples.samples() / 10 {
            return;
        }
        self.since = 0;
        let Ok(estimate) = self.samples.estimate(now) else { return };
        let nodes = estimate.nodes();
        if self.published.is_none_or(|last| last.abs_diff(nodes) > last / Self::NEWS) {
            self.published = Some(nodes);
            self.news = Some((nodes, context));
        }
    }
}

/// Nodes known not to serve.
#[derive(Clone, Debug)]
struct Clients<F: Family> {
    most: usize,
    /// By key; the one told of last, where there are several. Never iterated.
    nodes: HashMap<F::Key, F::Node, Seeded>,
    /// The latest last.
    order: VecDeque<F::Key>,
}

impl<F: Family> Clients<F> {
    fn contains(&self, node: &F::Node) -> bool {
        !self.nodes.is_empty() && self.nodes.get(&F::key(node)).is_some_and(|known| known == node)
    }

    fn insert(&mut self, node: F::Node) {
        let key = F::key(&node);
        if self.most > 0 && self.nodes.insert(key, node).is_none() {
            self.order.push_back(key);
            if self.order.len() > self.most
                && let Some(oldest) = self.order.pop_front()
            {
                self.nodes.remove(&oldest);
            }
        }
    }
}

impl<F: Family> Routing<F> {
    pub(crate) fn new(
        table: RoutingTable<F>,
        config: RoutingConfig,
        k: usize,
        max_closer_nodes: usize,
        size: Option<NetworkSizeConfig>,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let (local, hash_seed) = (table.local(), table.hash_seed());
        let mut probe = config.probe.map(|probe| Prober::new(local, &probe, hash_seed)).transpose()?;
        if let Some(probe) = &mut probe {
            table.iter().for_each(|record| probe.insert(record.node(), record.last_seen()));
        }
        Ok(Self {
            table,
            bootstrap: config.bootstrap.map(Bootstrapper::new).transpose()?,
            include: config.include.map(|include| Vetting::new(&include, hash_seed)).transpose()?,
            probe,
            explore: config
                .explore
                .map(|explore| Explorer::new::<F::Key>(explore, config.seed))
                .transpose()?,
            clients: Clients {
                most: config.max_clients,
                nodes: HashMap::with_hasher(Seeded(hash_seed)),
                order: VecDeque::new(),
            },
            max_closer_nodes,
            k,
            bootstraps: 0,
            size: size
                .map(|size| NetworkSize::new(NetworkSizeConfig { k: size.k.min(k), ..size }))
                .transpose()?
                .map(|samples| Sizing { samples, since: 0, published: None, news: None }),
        })
    }

    /// Gives a broadcast the nodes of the table to begin with.
    pub(crate) fn seed(&self, start: &mut StartBroadcast<F>) {
        let node = |record: &Record<F>| record.node().clone();
        match (&start.strategy, start.records.first()) {
            (Strategy::Static(_), _) | (_, None) => {}
            (Strategy::Sweep, _) => start.seeds.extend(self.table.iter().map(node)),
            (_, Some(record)) => {
                let closest = self.table.closest(record.key).take(2 * self.k).map(node);
                start.seeds.extend(closest);
            }
        }
    }

    /// How large the network is.
    pub(crate) fn network_size(&self, now: Instant) -> Result<SizeEstimate, NotEnoughData> {
        let none = NotEnoughData { samples: 0, needed: 1 };
        self.size.as_ref().map_or(Err(none), |size| size.samples.estimate(now))
    }

    /// Takes a lookup that has converged as a sample of the size of the network.
    pub(crate) fn sample(&mut self, now: Instant, target: F::Key, closest: &[Contact<F>], context: &Context) {
        let fill = self.table.bucket(self.table.local().common_prefix_len(&target)).len();
        if let Some(size) = &mut self.size {
            size.take(now, target, closest, fill, context::detached(context));
        }
    }

    /// The size of the network, where that is news, and the link to the lookup that showed it.
    pub(crate) fn news(&mut self) -> Option<(u64, Context)> {
        self.size.as_mut()?.news.take()
    }

    pub(crate) fn counts(&self) -> RoutingCounts {
        RoutingCounts {
            include: self.include.as_ref().map(Vetting::counts).unwrap_or_default(),
            probe: self.probe.as_ref().map(Prober::counts).unwrap_or_default(),
            explored: self.explore.as_ref().map_or(0, Explorer::all_explored),
            bootstraps: self.bootstraps,
        }
    }

    pub(crate) fn explored(&self, cpl: u32) -> u64 {
        self.explore.as_ref().map_or(0, |explore| explore.explored(cpl))
    }

    /// Whether the probe list holds a node; `None` where nothing is probed.
    pub(crate) fn probes(&self, node: &F::Node) -> Option<bool> {
        self.probe.as_ref().map(|probe| probe.contains(node))
    }

    pub(crate) fn snapshot(&self, now: Instant) -> Vec<Saved<F>> {
        let save = |record: &Record<F>| Saved {
            node: record.node().clone(),
            age: now - record.last_seen(),
            round_trip: record.round_trip(),
        };
        self.table.iter().map(save).collect()
    }

    /// The first call: schedules begin.
    pub(crate) fn begin(&mut self, now: Instant) {
        if let Some(explore) = &mut self.explore {
            explore.begin(now);
        }
    }

    /// A node is known to live, and to serve: it enters the table if there is room.
    pub(crate) fn alive<E: Tells<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        node: &F::Node,
        round_trip: Option<Duration>,
        context: impl FnOnce() -> Context,
    ) {
        if self.clients.contains(node) {
            return;
        }
        if self.refresh(turn.now, node, round_trip) {
            return;
        }
        if let Some(include) = &mut self.include {
            include.heard(node);
        }
        if let Offered::Admitted { evicted } = self.table.offer(turn.now, node, round_trip) {
            let context = context();
            if let Some(evicted) = evicted {
                self.left(turn, evicted, context.clone());
            }
            if let Some(probe) = &mut self.probe {
                probe.add_alive(turn, node);
            }
            tell(turn, Notice::Admitted(node.clone()), context.clone());
            self.note(turn, &context);
        }
    }

    /// Whether who gives this answer is fit for the table.
    pub(crate) fn trusts(&self, closer: &[F::Node]) -> bool {
        self.include.is_none() || !closer.is_empty()
    }

    /// A node is known to live. Says whether it is in the table; its record is refreshed then, and its probe postponed.
    pub(crate) fn refresh(&mut self, now: Instant, node: &F::Node, round_trip: Option<Duration>) -> bool {
        let known = self.table.refresh(now, node, round_trip);
        if known && let Some(probe) = &mut self.probe {
            probe.alive(now, node);
        }
        known
    }

    /// Whether a node that has shown itself fit for the table would enter it.
    pub(crate) fn wants(&self, node: &F::Node) -> bool {
        self.table.wants(node) && !self.clients.contains(node)
    }

    /// A node failed to answer: its probe decides, where there is one.
    pub(crate) fn suspect<E: Tells<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        node: &F::Node,
        context: impl FnOnce() -> Context,
    ) {
        match &mut self.probe {
            Some(probe) => probe.suspect(turn.now, node, context::origin(&context())),
            None => self.missed(turn, node, context),
        }
    }

    /// Counts a failure of a node, which may remove it.
    fn missed<E: Tells<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        node: &F::Node,
        context: impl FnOnce() -> Context,
    ) {
        if self.table.failed(node) {
            let context = context();
            self.left(turn, node.clone(), context.clone());
            self.note(turn, &context);
        }
    }

    /// A node has left the table.
    fn left<E: Tells<F>>(&mut self, turn: &mut Turn<'_, F, E>, node: F::Node, context: Context) {
        if let Some(probe) = &mut self.probe {
            probe.remove(turn, &node);
        }
        tell(turn, Notice::Removed(node), context);
    }

    /// The table has changed its size.
    fn note<E: Tells<F>>(&mut self, turn: &mut Turn<'_, F, E>, context: &Context) {
        let nodes = self.table.len();
        if let Some(bootstrap) = &mut self.bootstrap
            && bootstrap.note(nodes, context::origin(context))
        {
            tell(turn, Notice::NearEmpty { nodes }, context.clone());
        }
    }

    /// Nodes that somebody named: they are checked, if the table would take them. One answer fills half of the room there is.
    pub(crate) fn discovered(&mut self, now: Instant, nodes: &[F::Node], context: impl FnOnce() -> Context) {
        let Some(include) = self.include.as_mut().filter(|include| include.room() > 0) else { return };
        let most = include.room().div_ceil(2);
        let nodes = nodes.get(..self.max_closer_nodes).unwrap_or(nodes);
        let wanted = |node: &&F::Node| self.table.wants(node) && !self.clients.contains(node);
        let mut wanted = nodes.iter().filter(wanted).take(most).peekable();
        if wanted.peek().is_some() {
            let context = context();
            wanted.for_each(|node| include.offer(now, node, context::origin(&context)));
        }
    }

    /// A node was heard from itself, and nothing is proved: like [`discovered`](Self::discovered), whatever came of its last
    /// checks.
    pub(crate) fn heard(&mut self, now: Instant, node: &F::Node, context: impl FnOnce() -> Context) {
        if let Some(include) = &mut self.include {
            include.heard(node);
        }
        self.discovered(now, core::slice::from_ref(node), context);
    }

    /// A node is known not to serve.
    pub(crate) fn client<E: Tells<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        node: F::Node,
        context: &Context,
    ) {
        self.clients.insert(node.clone());
        if self.table.remove(&node) {
            let context = context::detached(context);
            self.left(turn, node, context.clone());
            self.note(turn, &context);
        }
    }

    /// Takes back a snapshot: its nodes enter the table, and are probed at once.
    pub(crate) fn restore<E: Tells<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        saved: Vec<Saved<F>>,
        context: &Context,
    ) {
        if let Some(bootstrap) = &mut self.bootstrap {
            let nodes: Vec<_> = saved.iter().map(|saved| saved.node.clone()).collect();
            bootstrap.remember(&nodes);
        }
        for Saved { node, age, round_trip } in saved {
            if !self.table.wants(&node) {
                continue;
            }
            self.alive(turn, &node, round_trip, || context::detached(context));
            self.table.backdate(&node, age);
            if let Some(probe) = &mut self.probe {
                probe.suspect(turn.now, &node, context::origin(context));
            }
        }
    }

    /// Remembers where to bootstrap from.
    pub(crate) fn remember(&mut self, seeds: &[F::Node]) {
        if let Some(bootstrap) = &mut self.bootstrap {
            bootstrap.remember(seeds);
        }
    }

    /// A bootstrap of the caller's begins, which gave the first `given` of these seeds. Names the one that began by itself,
    /// whose place it takes; its seeds are begun with too.
    pub(crate) fn bootstrap_begins(&mut self, seeds: &mut Vec<F::Node>, given: usize) -> Option<OperationId> {
        let bootstrap = self.bootstrap.as_mut()?;
        bootstrap.running += 1;
        let replaced = bootstrap.by_itself.take();
        if replaced.is_some() {
            seeds.extend_from_slice(&bootstrap.seeds);
        }
        bootstrap.remember(seeds.get(..given).unwrap_or_default());
        replaced
    }

    /// A check ended. `names`: it was answered, and the answer names somebody.
    pub(crate) fn checked<E: Tells<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        id: RequestId,
        ending: Ending,
        names: bool,
        cause: Option<&Context>,
    ) {
        let Some(check) = turn.check(id) else { return };
        if check.owner == Owner::Include {
            let ended = self.include.as_mut().and_then(|part| part.end(turn, check.slot, id, ending, names));
            if let Some((Candidate { node, origin }, round_trip)) = ended.filter(|_| names) {
                self.alive(turn, &node, Some(round_trip), || context::aside(cause, &origin));
            }
            return;
        }
        let ended = self.probe.as_mut().and_then(|part| part.end(turn, check.slot, id, ending));
        if let Some(Probed { node, round_trip, origin, sent }) = ended {
            if ending == Ending::Answered {
                self.alive(turn, &node, Some(round_trip), || context::aside(cause, &origin));
            } else if sent {
                self.missed(turn, &node, || context::aside(cause, &origin));
            }
        }
    }

    /// Emits the request of a check that waited for capacity.
    pub(crate) fn send<E: Tells<F>>(
        &self,
        turn: &mut Turn<'_, F, E>,
        check: Check,
        id: RequestId,
        deadline: Instant,
    ) {
        if check.owner == Owner::Include {
            if let Some(include) = &self.include {
                include.send(turn, check.slot, id, deadline);
            }
        } else if let Some(probe) = &self.probe {
            probe.send(turn, check.slot, id, deadline);
        }
    }

    /// Lets the pool and everybody here do all that can be done now.
    pub(crate) fn settle<T: MaySearch<F>, E: Tells<F> + Says<F, T>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        pool: &mut Pool<F, T>,
    ) {
        loop {
            pool.settle(turn, |turn, check, id, deadline| self.send(turn, check, id, deadline));
            if let Some(ended) = pool.ended() {
                self.lookup_ended(turn, ended);
            } else if !self.begin_bootstrap(turn, pool)
                && !self.explore.as_mut().is_some_and(|part| explore(part, pool, &self.table, turn, self.k))
            {
                break;
            }
        }
        pool.stand_back(turn);
        if let Some(probe) = &mut self.probe {
            probe.advance(turn);
        }
        if let Some(include) = &mut self.include {
            let (table, clients) = (&self.table, &self.clients);
            include.advance(turn, |node| table.wants(node) && !clients.contains(node));
        }
    }

    fn lookup_ended<E: Tells<F>>(&mut self, turn: &mut Turn<'_, F, E>, ended: Ended<F>) {
        if ended.outcome == Outcome::Converged && !ended.closest.is_empty() {
            self.sample(turn.now, ended.target, &ended.closest, &ended.context);
        }
        if ended.owner == Owner::Explore {
            if let Some(explore) = &mut self.explore {
                explore.ended(turn.now);
            }
            return;
        }
        if let Some(bootstrap) = &mut self.bootstrap {
            bootstrap.running = bootstrap.running.saturating_sub(1);
            bootstrap.not_before = turn.now + bootstrap.config.retry_interval;
            if ended.owner == Owner::Bootstrap {
                bootstrap.by_itself = None;
            }
        }
        if ended.owner == Owner::Bootstrap && ended.outcome == Outcome::Stopped {
            return; // One of the caller's has taken its place.
        }
        if let Some(explore) = &mut self.explore
            && let Some(nearest) = ended.nearest
        {
            explore.refresh(turn.now, nearest, context::origin(&ended.context));
        }
        let notice = Notice::Bootstrapped(Bootstrapped {
            operation: ended.owner.operation(),
            outcome: ended.outcome,
            nodes: self.table.len(),
            statistics: ended.statistics,
        });
        tell(turn, notice, ended.context);
    }

    /// Begins a bootstrap, if one is due. Says whether it did.
    fn begin_bootstrap<T: MaySearch<F>, E: Tells<F> + Says<F, T>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        pool: &mut Pool<F, T>,
    ) -> bool {
        let Some(bootstrap) = &mut self.bootstrap else { return false };
        if bootstrap.next_timeout(self.table.len()).is_none_or(|at| at > turn.now) {
            return false;
        }
        let known = self.table.iter().map(|record| record.node().clone());
        let seeds = known.chain(bootstrap.seeds.iter().cloned()).collect();
        let start = Start::bootstrap(0, self.table.local(), seeds);
        let origin = core::mem::replace(&mut bootstrap.origin, SpanContext::NONE);
        bootstrap.by_itself = pool.begin(turn, Owner::Bootstrap, bootstrap.config.timeout, origin, start);
        let begins = bootstrap.by_itself.is_some();
        if begins {
            bootstrap.running += 1;
            self.bootstraps += 1;
        } else {
            bootstrap.not_before = Instant::FAR_FUTURE;
        }
        begins
    }

    /// When the machine that owns the parts has something to do without news.
    pub(crate) fn poll_timeout<T: Task<F>>(
        &self,
        pool: &Pool<F, T>,
        outbox: &Outbox<F, Work>,
    ) -> Option<Instant> {
        earlier(self.next_timeout(), earlier(pool.next_deadline(), outbox.next_timeout()))
    }

    /// When there is something to do without news.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let nodes = self.table.len();
        let bootstrap = self.bootstrap.as_ref().and_then(|part| part.next_timeout(nodes));
        let explore = self.explore.as_ref().filter(|_| nodes > 0).and_then(Explorer::next_timeout);
        let probe = self.probe.as_ref().and_then(Prober::next_timeout);
        earlier(bootstrap, earlier(explore, probe))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key8;
    use crate::{Config, Coordinator, Machine, Stamped, TableConfig, coordinator::Inbound};

    /// A key, and an address.
    #[derive(Clone, Debug, PartialEq)]
    struct Addressed;

    impl Family for Addressed {
        type Key = Key8;
        type Node = (u8, u8);
        type Message = ();

        fn key(node: &(u8, u8)) -> Key8 {
            Key8::new([node.0])
        }
    }

    fn table() -> RoutingTable<Addressed> {
        RoutingTable::new(Key8::new([0xff]), TableConfig::default()).unwrap()
    }

    /// Only probes.
    fn config() -> Config {
        let probe = Some(ProbeConfig::default());
        Config {
            routing: RoutingConfig { probe, max_clients: 2, ..RoutingConfig::off() },
            ..Config::default()
        }
    }

    #[test]
    fn a_table_to_begin_with_is_probed() {
        let mut table = table();
        let _: Offered<Addressed> = table.offer(Instant::from_secs(100), &(1, 1), None);
        let machine = Coordinator::with_table(table, config()).unwrap();
        assert_eq!((machine.probes(&(1, 1)), machine.probes(&(1, 2))), (Some(true), Some(false)));
        assert_eq!(machine.poll_timeout(), Some(Instant::from_secs(100 + 15 * 60)));
    }

    #[test]
    fn who_calls_itself_a_client_keeps_no_other_of_the_same_key_out() {
        let mut machine = Coordinator::with_table(table(), config()).unwrap();
        let mut tell = |event| machine.handle(Instant::ORIGIN, Stamped::new(event)).len();
        assert_eq!(tell(Inbound::Client((1, 66))), 0);
        assert_eq!(tell(Inbound::Connected { node: (1, 66), round_trip: None }), 0);
        assert_eq!(tell(Inbound::Connected { node: (1, 1), round_trip: None }), 1);
        assert_eq!(tell(Inbound::Client((1, 66))), 0);
        assert_eq!(machine.probes(&(1, 1)), Some(true));
    }

    #[test]
    fn the_clients_told_of_first_are_forgotten() {
        let mut machine = Coordinator::with_table(table(), config()).unwrap();
        for key in 1..=3 {
            let _ = machine.handle(Instant::ORIGIN, Stamped::new(Inbound::Client((key, 0))));
        }
        for key in 1..=3 {
            let event = Inbound::Connected { node: (key, 0), round_trip: None };
            let _ = machine.handle(Instant::ORIGIN, Stamped::new(event));
        }
        assert_eq!(machine.table().iter().map(|record| record.node().0).collect::<Vec<_>>(), [1]);
    }
}
