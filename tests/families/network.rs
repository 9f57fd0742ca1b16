//! A deterministic network: an event queue in virtual time, latency, loss, dead nodes; of any family, through [`Wire`].
//!
//! A node of the network is either a whole node, which drives a [`Coordinator`] as a program would, or one that only
//! answers, from an ideal table: for each common prefix length all nodes of the network, or as many as a bucket holds,
//! drawn at random. Ideal tables do not know who is dead.

use kad_proto::broadcast::BroadcastFinish;
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::crawl::CrawlFinish;
use kad_proto::{
    Ask, Batch, Cancel, CancelReason, Config, Coordinator, Failure, Family, Finish, Instant, Key, Machine,
    Request, RequestId, Response, RoutingInbound, RoutingTable, Secret, Stamped, Start, StartBroadcast,
    StartCrawl, Target,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddrV4;
use std::time::Duration;

/// A family with what its driver does on the wire.
pub(crate) trait Wire: Family<Message = u64> {
    /// What the request for closer nodes carries.
    type Query: Clone;

    /// How many nodes a bucket holds.
    const BUCKET: usize;
    /// Whether the transport makes connections: then a dial to where nobody is fails, and so does a request to a node
    /// that does not serve. Otherwise a message to it is lost.
    const CONNECTS: bool;
    /// Whether one who is asked proves who it is, before the request is delivered. Otherwise its answer says who it is.
    const PROVES_IDENTITY: bool;
    /// Whether the request to store has a reply.
    const STORE_IS_ANSWERED: bool;
    /// Whether a store must carry the token of the node's answer.
    const TOKENS: bool;

    /// What a request for closer nodes carries.
    fn query(request: &Request<Self>) -> Self::Query;

    /// Which nodes a node names, in packets.
    fn answer(
        own: &Self::Node,
        known: &dyn Known<Self>,
        asker: &Self::Node,
        query: &Self::Query,
    ) -> Vec<Vec<Self::Node>>;

    /// Where a node can be reached, in the order in which the addresses are tried.
    fn addresses(node: &Self::Node) -> Vec<SocketAddrV4>;

    /// Whether this host can dial an address.
    fn can_dial(&self, address: &SocketAddrV4) -> bool {
        let _ = address;
        true
    }

    /// The same identity at another address, as the node itself tells it afterwards.
    fn moved(node: &Self::Node, to: SocketAddrV4) -> Self::Node;
}

/// What a node that answers knows.
pub(crate) trait Known<F: Family> {
    /// The nodes closest to a key, closest first.
    fn closest(&self, key: F::Key, most: usize) -> Vec<F::Node>;
    /// The nodes that share exactly `cpl` bits with the node's own key.
    fn bucket(&self, cpl: u32) -> Vec<F::Node>;
}

impl<F: Family> Known<F> for RoutingTable<F> {
    fn closest(&self, key: F::Key, most: usize) -> Vec<F::Node> {
        Self::closest(self, key).take(most).map(|entry| entry.node().clone()).collect()
    }

    fn bucket(&self, cpl: u32) -> Vec<F::Node> {
        Self::bucket(self, cpl).iter().map(|entry| entry.node().clone()).collect()
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        ((self.next() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    pub(crate) fn key<K: Key>(&mut self) -> K {
        let (zero, flip) = (K::ZERO, self.next() & 1 == 1);
        let key = zero.random_with_cpl(0, || self.next());
        if flip { key } else { key.with_flipped(0) }
    }
}

/// The links between all nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// The least and the greatest time that a message takes.
    pub(crate) latency: (Duration, Duration),
    /// The share of all messages that are lost.
    pub(crate) loss: f64,
}

impl Default for Link {
    fn default() -> Self {
        Self { latency: (Duration::from_millis(10), Duration::from_millis(50)), loss: 0.0 }
    }
}

/// A node of the network.
pub(crate) struct Host<F: Wire> {
    /// As it tells of itself: its id, and its address now.
    pub(crate) node: F::Node,
    family: F,
    /// `None`: it only answers, from an ideal table.
    pub(crate) engine: Option<Coordinator<F>>,
    pub(crate) is_up: bool,
    /// Whether it answers others; else it is a client, and says so in its requests.
    pub(crate) serves: bool,
    /// The messages that it was asked to store.
    pub(crate) stored: BTreeSet<u64>,
    pub(crate) finishes: Vec<Finish<F>>,
    pub(crate) broadcasts: Vec<BroadcastFinish<F>>,
    pub(crate) crawls: Vec<CrawlFinish<F>>,
    /// All outbound events, if it is being watched.
    pub(crate) log: Option<Vec<(Instant, Outbound<F>)>>,
    /// The requests in flight: the node asked, and the packets that have come.
    pending: HashMap<u64, (F::Node, usize)>,
    /// Nodes that have said that they are clients.
    clients: Vec<F::Node>,
    /// An ideal table, as indices of hosts.
    view: Option<Vec<u32>>,
    /// When the engine is to be woken.
    wake: Instant,
}

impl<F: Wire> Host<F> {
    pub(crate) fn engine(&self) -> &Coordinator<F> {
        self.engine.as_ref().expect("a whole node")
    }

    /// Whether its table holds this node.
    pub(crate) fn knows(&self, node: &F::Node) -> bool {
        self.engine().table().get(node).is_some()
    }
}

/// A request to store, or for closer nodes.
enum What<F: Wire> {
    Find(F::Query),
    Store(Vec<u64>, Option<u64>),
}

enum Event<F: Wire> {
    Query { from: usize, id: RequestId, asker: F::Node, is_client: bool, to: usize, what: What<F> },
    Answer { to: usize, id: RequestId, by: F::Node, packets: usize, closer: Vec<F::Node> },
    Failure { to: usize, id: RequestId, failure: Failure<F> },
    Wake(usize),
}

/// What has happened in a network, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    /// Requests to nodes that are up.
    pub(crate) delivered: u64,
    pub(crate) timed_out: u64,
    pub(crate) incomplete: u64,
}

pub(crate) struct Network<F: Wire> {
    pub(crate) now: Instant,
    pub(crate) hosts: Vec<Host<F>>,
    pub(crate) counts: Counts,
    pub(crate) link: Link,
    pub(crate) random: Random,
    queue: BTreeMap<(Instant, u64), Event<F>>,
    events: u64,
    /// Who can be reached where.
    at: HashMap<SocketAddrV4, usize>,
    /// The hosts with ideal tables, in order of their keys.
    order: Vec<u32>,
    tags: u64,
}

/// The token of a node, as BEP 5 has them.
fn token<F: Wire>(node: &F::Node) -> u64 {
    F::key(node).leading() ^ 0xa5a5
}

impl<F: Wire> Network<F> {
    pub(crate) fn new(seed: u64, link: Link) -> Self {
        Self {
            now: Instant::ORIGIN,
            hosts: Vec::new(),
            counts: Counts::default(),
            link,
            random: Random(seed),
            queue: BTreeMap::new(),
            events: 0,
            at: HashMap::new(),
            order: Vec::new(),
            tags: 0,
        }
    }

    /// Adds a node that only answers, or has not begun to run.
    pub(crate) fn add(&mut self, node: F::Node) -> usize {
        let host = self.hosts.len();
        for address in F::addresses(&node) {
            self.at.entry(address).or_insert(host);
        }
        self.hosts.push(Host {
            node,
            family: F::default(),
            engine: None,
            is_up: true,
            serves: true,
            stored: BTreeSet::new(),
            finishes: Vec::new(),
            broadcasts: Vec::new(),
            crawls: Vec::new(),
            log: None,
            pending: HashMap::new(),
            clients: Vec::new(),
            view: None,
            wake: Instant::FAR_FUTURE,
        });
        host
    }

    /// Adds a whole node.
    pub(crate) fn add_engine(&mut self, node: F::Node, family: F, config: Config) -> usize {
        let host = self.add(node);
        let target = F::target_of(&self.hosts[host].node).expect("a node can be asked about itself");
        let secret = Secret::from_seed(self.random.next());
        self.hosts[host].family = family.clone();
        self.hosts[host].engine =
            Some(Coordinator::new(target, config, &secret).unwrap().with_family(family));
        host
    }

    /// Gives the nodes that have no engine ideal tables.
    pub(crate) fn set_ideal_tables(&mut self) {
        let mut order: Vec<_> = (0..self.hosts.len() as u32).collect();
        order.retain(|host| self.hosts[*host as usize].engine.is_none());
        order.sort_by_key(|host| F::key(&self.hosts[*host as usize].node));
        self.order = order;
    }

    /// A node has another address, and tells it.
    pub(crate) fn move_to(&mut self, host: usize, to: SocketAddrV4) {
        for address in F::addresses(&self.hosts[host].node) {
            if self.at.get(&address) == Some(&host) {
                self.at.remove(&address);
            }
        }
        self.hosts[host].node = F::moved(&self.hosts[host].node, to);
        self.at.insert(to, host);
    }

    /// From now on this node, of two that share an address, is reached there.
    pub(crate) fn serve_at(&mut self, host: usize, address: SocketAddrV4) {
        self.at.insert(address, host);
    }

    /// A node has gone away.
    pub(crate) fn kill(&mut self, host: usize) {
        self.hosts[host].is_up = false;
    }

    fn latency(&mut self) -> Duration {
        let (least, most) = self.link.latency;
        let range = (most - least).as_micros() as usize + 1;
        least + Duration::from_micros(self.random.below(range) as u64)
    }

    fn schedule(&mut self, at: Instant, event: Event<F>) {
        self.events += 1;
        self.queue.insert((at, self.events), event);
    }

    /// Submits an event to the engine of a node now, and does what it wants.
    pub(crate) fn submit(&mut self, host: usize, event: impl Into<Inbound<F>>) {
        self.submit_stamped(host, Stamped::new(event.into()));
    }

    fn submit_stamped(&mut self, host: usize, event: Stamped<Inbound<F>>) {
        let now = self.now;
        let Some(engine) = &mut self.hosts[host].engine else { return };
        let mut out = Batch::new();
        engine.handle_into(now, event, &mut out);
        let timeout = engine.poll_timeout();
        for Stamped { event, .. } in out {
            if let Some(log) = &mut self.hosts[host].log {
                log.push((now, event.clone()));
            }
            let to = &mut self.hosts[host];
            match event {
                Outbound::Request(request) => self.send(host, request),
                Outbound::Cancel(Cancel { id, reason, .. }) => {
                    to.pending.remove(&id.to_u64());
                    self.counts.timed_out += u64::from(reason == CancelReason::TimedOut);
                    self.counts.incomplete += u64::from(reason == CancelReason::Incomplete);
                }
                Outbound::Finished(finish) => to.finishes.push(finish),
                Outbound::BroadcastFinished(finish) => to.broadcasts.push(finish),
                Outbound::CrawlFinished(finish) => to.crawls.push(finish),
                Outbound::Refused(refused) => panic!("{refused:?}"),
                _ => {}
            }
        }
        if let Some(at) = timeout.filter(|at| *at < self.hosts[host].wake) {
            self.hosts[host].wake = at;
            self.schedule(at.max(now), Event::Wake(host));
        }
    }

    /// Sends a request of a node.
    fn send(&mut self, from: usize, request: Request<F>) {
        let what = match &request.ask {
            Ask::FindCloser | Ask::Message(_) => What::Find(F::query(&request)),
            Ask::Store { message, token } => What::Store(vec![*message], *token),
            Ask::Batch { records, token } => {
                What::Store(records.iter().map(|record| record.message).collect(), *token)
            }
        };
        let (id, meant) = (request.id, request.node);
        self.counts.requests += 1;
        self.hosts[from].pending.insert(id.to_u64(), (meant.clone(), 0));
        if matches!(what, What::Store(..)) && !F::STORE_IS_ANSWERED {
            // There is no reply: what was sent counts as stored.
            let (by, closer) = (meant.clone(), Vec::new());
            self.schedule(self.now, Event::Answer { to: from, id, by, packets: 1, closer });
        }
        let mut delay = self.latency();
        let (mut is_silent, mut others) = (!F::CONNECTS, 0);
        let mut addresses = F::addresses(&meant);
        addresses.retain(|address| self.hosts[from].family.can_dial(address));
        for address in &addresses {
            match self.at.get(address).copied() {
                Some(to) if !self.hosts[to].is_up => is_silent = true,
                Some(to) if self.hosts[to].node == meant || !F::PROVES_IDENTITY => {
                    self.counts.delivered += 1;
                    if self.random.chance(self.link.loss) {
                        return;
                    }
                    let (asker, is_client) = (self.hosts[from].node.clone(), !self.hosts[from].serves);
                    let at = self.now + delay;
                    return self.schedule(at, Event::Query { from, id, asker, is_client, to, what });
                }
                Some(_) => others += 1,
                None => {}
            }
            // Another address is tried.
            delay += self.latency();
        }
        if !is_silent {
            let failure =
                if others > 0 && others == addresses.len() { Failure::Gone } else { Failure::Unreachable };
            self.schedule(self.now + delay, Event::Failure { to: from, id, failure });
        }
    }

    /// A node has received a request: it answers, and reports who has asked.
    fn receive(
        &mut self,
        from: usize,
        id: RequestId,
        asker: F::Node,
        is_client: bool,
        to: usize,
        what: What<F>,
    ) {
        if !self.hosts[to].is_up {
            return;
        }
        if self.hosts[to].serves {
            let by = self.hosts[to].node.clone();
            match what {
                What::Find(query) => {
                    let packets = self.answer(to, &asker, &query);
                    for closer in packets.iter().cloned() {
                        if self.random.chance(self.link.loss) {
                            continue;
                        }
                        let (by, packets, at) = (by.clone(), packets.len(), self.now + self.latency());
                        self.schedule(at, Event::Answer { to: from, id, by, packets, closer });
                    }
                }
                What::Store(records, given) => {
                    if F::TOKENS && given != Some(token::<F>(&by)) {
                        let at = self.now + self.latency();
                        return self
                            .schedule(at, Event::Failure { to: from, id, failure: Failure::Rejected(0) });
                    }
                    self.hosts[to].stored.extend(records);
                    if F::STORE_IS_ANSWERED && !self.random.chance(self.link.loss) {
                        let at = self.now + self.latency();
                        let closer = Vec::new();
                        self.schedule(at, Event::Answer { to: from, id, by, packets: 1, closer });
                    }
                }
            }
        } else if F::CONNECTS {
            let at = self.now + self.latency();
            self.schedule(at, Event::Failure { to: from, id, failure: Failure::ConnectionRefused });
        }
        // What the driver reports of the asker, once it has answered.
        let known = self.hosts[to].clients.iter().position(|client| *client == asker);
        let report = match (is_client, known) {
            (true, Some(_)) => return,
            (true, None) => {
                self.hosts[to].clients.push(asker.clone());
                RoutingInbound::Client(asker)
            }
            (false, Some(known)) => {
                self.hosts[to].clients.remove(known);
                RoutingInbound::Server(asker)
            }
            (false, None) => RoutingInbound::Discovered(asker),
        };
        self.submit(to, Inbound::Routing(report));
    }

    /// What a node names, in packets.
    fn answer(&mut self, host: usize, asker: &F::Node, query: &F::Query) -> Vec<Vec<F::Node>> {
        if self.hosts[host].engine.is_none() && self.hosts[host].view.is_none() {
            self.hosts[host].view = Some(self.draw_view(host));
        }
        let Host { node, engine, view, .. } = &self.hosts[host];
        match (engine, view) {
            (Some(engine), _) => F::answer(node, engine.table(), asker, query),
            (None, Some(view)) => {
                F::answer(node, &IdealView { hosts: &self.hosts, own: node, view }, asker, query)
            }
            (None, None) => Vec::new(),
        }
    }

    /// The ideal table of a node.
    fn draw_view(&self, host: usize) -> Vec<u32> {
        let key = |at: usize| F::key(&self.hosts[self.order[at] as usize].node);
        let own = F::key(&self.hosts[host].node);
        let mut random = Random(own.leading());
        let (mut low, mut high) = (0, self.order.len());
        let mut view = Vec::new();
        for cpl in 0..F::Key::BITS {
            // Sorted keys that share `cpl` bits are adjacent; the next bit splits them.
            let middle = low
                + self.order[low..high]
                    .partition_point(|at| !F::key(&self.hosts[*at as usize].node).bit(cpl));
            let others = if own.bit(cpl) { low..middle } else { middle..high };
            (low, high) = if own.bit(cpl) { (middle, high) } else { (low, middle) };
            if others.len() <= F::BUCKET {
                view.extend_from_slice(&self.order[others]);
            } else {
                let mut drawn = BTreeSet::new();
                while drawn.len() < F::BUCKET {
                    drawn.insert(self.order[others.start + random.below(others.len())]);
                }
                view.extend(drawn);
            }
            if high - low <= 1 && (low == high || key(low) == own) {
                break;
            }
        }
        view
    }

    /// The nodes that a host with an ideal table knows.
    pub(crate) fn ideal_table(&mut self, host: usize) -> Vec<F::Node> {
        let view = self.draw_view(host);
        view.iter().map(|known| self.hosts[*known as usize].node.clone()).collect()
    }

    /// A response for a request of a node has arrived.
    fn respond(&mut self, to: usize, id: RequestId, by: F::Node, packets: usize, closer: Vec<F::Node>) {
        let Some((meant, came)) = self.hosts[to].pending.get_mut(&id.to_u64()) else { return };
        if *meant != by {
            // Another one is there.
            self.hosts[to].pending.remove(&id.to_u64());
            return self.submit(to, Response::gone(id));
        }
        *came += 1;
        let is_last = *came == packets;
        let has_moved = F::addresses(meant) != F::addresses(&by);
        if is_last {
            self.hosts[to].pending.remove(&id.to_u64());
        }
        let response = if is_last { Response::answered(id, closer) } else { Response::part(id, closer) };
        let response = if F::TOKENS { response.with_token(token::<F>(&by)) } else { response };
        self.submit(to, response);
        if has_moved && is_last {
            self.submit(to, Inbound::Routing(RoutingInbound::Connected { node: by, round_trip: None }));
        }
    }

    /// Handles the next event, if it is not later than `until`.
    fn step(&mut self, until: Instant) -> bool {
        let Some(first) = self.queue.first_entry().filter(|first| first.key().0 <= until) else {
            return false;
        };
        let ((at, _), event) = first.remove_entry();
        self.now = at;
        match event {
            Event::Query { from, id, asker, is_client, to, what } => {
                self.receive(from, id, asker, is_client, to, what);
            }
            Event::Answer { to, id, by, packets, closer } => {
                if self.hosts[to].is_up {
                    self.respond(to, id, by, packets, closer);
                }
            }
            Event::Failure { to, id, failure } => {
                if self.hosts[to].is_up && self.hosts[to].pending.remove(&id.to_u64()).is_some() {
                    self.submit(to, Response::new(id, Err(failure)));
                }
            }
            Event::Wake(host) => {
                if self.hosts[host].wake == at || self.hosts[host].wake <= self.now {
                    self.hosts[host].wake = Instant::FAR_FUTURE;
                    if self.hosts[host].is_up {
                        self.submit(host, Inbound::Tick);
                    }
                }
            }
        }
        true
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    /// Runs until the operations of all nodes that are up have ended.
    pub(crate) fn run_operations(&mut self) {
        let live =
            |host: &Host<F>| host.is_up && host.engine.as_ref().is_some_and(|engine| engine.operations() > 0);
        let until = self.now + Duration::from_secs(3_600);
        loop {
            for _ in 0..64 {
                assert!(self.step(until), "operations end");
                if self.queue.is_empty() {
                    break;
                }
            }
            if !self.hosts.iter().any(live) {
                return;
            }
        }
    }

    fn tag(&mut self) -> u64 {
        self.tags += 1;
        self.tags
    }

    /// Starts a lookup.
    pub(crate) fn start_lookup(&mut self, host: usize, target: F::Target, seeds: Vec<F::Node>) {
        let start = Start::find(self.tag(), target).with_seeds(seeds);
        self.submit(host, start);
    }

    /// Runs a lookup to its end.
    pub(crate) fn lookup(&mut self, host: usize, target: F::Target) -> Finish<F> {
        self.start_lookup(host, target, Vec::new());
        self.run_operations();
        self.hosts[host].finishes.pop().expect("a lookup has ended")
    }

    pub(crate) fn broadcast(&mut self, host: usize, start: StartBroadcast<F>) -> BroadcastFinish<F> {
        self.submit(host, start);
        self.run_operations();
        // The rest of an optimistic one goes on in the background.
        self.run_for(Duration::from_secs(12));
        self.hosts[host].broadcasts.pop().expect("a broadcast has ended")
    }

    pub(crate) fn crawl(&mut self, host: usize) -> CrawlFinish<F> {
        let tag = self.tag();
        self.submit(host, StartCrawl::new(tag));
        self.run_operations();
        self.hosts[host].crawls.pop().expect("a crawl has ended")
    }

    /// A whole node joins, by the nodes of these hosts.
    pub(crate) fn join(&mut self, host: usize, by: &[usize]) {
        let seeds = by.iter().map(|by| self.hosts[*by].node.clone()).collect();
        let local = F::target_of(&self.hosts[host].node).expect("a node can be asked about itself");
        let tag = self.tag();
        self.submit(host, Start::bootstrap(tag, local, seeds));
    }

    /// The hosts that are up and serve, closest to a key first; without `except`.
    pub(crate) fn closest(&self, key: F::Key, most: usize, except: usize) -> Vec<usize> {
        let live = |host: &usize| self.hosts[*host].is_up && self.hosts[*host].serves && *host != except;
        let mut all: Vec<_> = (0..self.hosts.len()).filter(live).collect();
        all.sort_by_key(|host| F::key(&self.hosts[*host].node).distance(&key));
        all.truncate(most);
        all
    }

    /// How many of the `k` hosts closest to the target a lookup has found, and how many there are.
    pub(crate) fn found(&self, by: usize, finish: &Finish<F>, k: usize) -> (usize, usize) {
        let truth = self.closest(finish.target.key(), k, by);
        let found =
            |host: &&usize| finish.closest.iter().any(|contact| contact.node == self.hosts[**host].node);
        (truth.iter().filter(found).count(), truth.len())
    }
}

/// The ideal table of one node.
struct IdealView<'a, F: Wire> {
    hosts: &'a [Host<F>],
    own: &'a F::Node,
    view: &'a [u32],
}

impl<F: Wire> IdealView<'_, F> {
    fn nodes(&self) -> impl Iterator<Item = &F::Node> {
        self.view.iter().map(|host| &self.hosts[*host as usize].node)
    }
}

impl<F: Wire> Known<F> for IdealView<'_, F> {
    fn closest(&self, key: F::Key, most: usize) -> Vec<F::Node> {
        let mut all: Vec<_> = self.nodes().map(|node| (F::key(node).distance(&key), node)).collect();
        if all.len() > most {
            all.select_nth_unstable_by_key(most, |(distance, _)| *distance);
            all.truncate(most);
        }
        all.sort_unstable_by_key(|(distance, _)| *distance);
        all.into_iter().map(|(_, node)| node.clone()).collect()
    }

    fn bucket(&self, cpl: u32) -> Vec<F::Node> {
        let own = F::key(self.own);
        self.nodes().filter(|node| F::key(node).common_prefix_len(&own) == cpl).cloned().collect()
    }
}
