//! The driver: everything that the engine leaves to its embedder, over one UDP socket and without a runtime.
//!
//! The core is [`Driver::step`], one turn of an embedder's loop: wait for a datagram, but no longer than until the
//! engine's `poll_timeout`; pass the engine an event for the datagram, or a tick; carry out all events that it
//! returns.

use crate::engine::Engine;
use crate::family::{Failure, Mainline, Node, Payload};
use crate::goal::{self, Asks, Found, Goal};
use crate::krpc::{Answer, Body, Malformed, Message, PROTOCOL_ERROR, Query};
use crate::limiter::{Excess, Limiter, Rates};
use crate::operation::{End, Operation};
use crate::serving;
use crate::shares::Host;
use crate::store::{self, Limits, Store};
use crate::trace;
use core::time::Duration;
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::network_size::NotEnoughData;
use kad_proto::routing::table::{SavedNode, TableEntry};
use kad_proto::telemetry::{Metrics, Spans, Traced};
use kad_proto::{
    AnswerExtra, Config, Context, Family, Finish, Initiator, Instant, Key160, Machine, OperationId, Request,
    RequestId, RequestStats, Response, RoutingCounts, RoutingInbound, RoutingTable, Stamped, Start, Verdict,
    WireToken,
};
use opentelemetry::KeyValue;
use opentelemetry::trace::Span;
use opentelemetry_sdk::trace::SdkTracer;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::thread;
use std::time::SystemTime;

/// How this node behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// The share of outgoing datagrams to lose on purpose.
    pub drop: f64,
    /// Whether to answer queries.
    pub serve: bool,
    /// Whether to record the inbound events of the engine.
    pub record: bool,
    /// How many queries to answer.
    pub rates: Rates,
}

/// Counters of datagrams, by what was done with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Datagrams {
    pub sent: u64,
    /// Lost on purpose.
    pub dropped: u64,
    /// Not sent: the system returned an error.
    pub unsendable: u64,
    pub received: u64,
    /// Ignored: not KRPC.
    pub malformed: u64,
    /// Ignored: an answer whose address and transaction id are those of no query on the wire.
    pub unexpected: u64,
    /// Queries that were answered.
    pub served: u64,
    /// Ignored: queries of hosts that asked too much.
    pub limited: u64,
    /// Ignored: queries while all hosts together asked too much.
    pub overload: u64,
    /// Ignored: queries to a node that does not serve.
    pub unserved: u64,
}

/// How many queries a bootstrap node is sent at most, and how long the driver waits for an answer to each.
const BOOTSTRAP_TRIES: u32 = 8;
/// How many queries it is sent even if others have answered: datagrams get lost.
const BOOTSTRAP_LEAST: u32 = 4;
const BOOTSTRAP_WAIT: Duration = Duration::from_millis(250);
/// How long a node that stays waits, until it asks the bootstrap nodes again of which none has answered: at first, and
/// at most. It doubles.
const AGAIN: Duration = Duration::from_secs(2);
const AGAIN_MOST: Duration = Duration::from_secs(60);
/// The tag of the bootstrap. The tags of operations count from 0.
pub const JOIN: u64 = u64::MAX;
/// In bytes, more than any message of the protocol has. Longer datagrams are cut off, and ignored as malformed.
const LARGEST_DATAGRAM: usize = 2048;

/// The granularity of the system's timers, which round a read time-out up: an upper bound.
const TIMER_TICK: Duration = Duration::from_millis(25);
/// How long one sleep takes at the end of a wait.
const SMALL_STEP: Duration = Duration::from_micros(500);
/// Errors that a read of the socket may return though nothing is wrong with it. (Some systems report by the last
/// two that an earlier datagram could not be delivered.)
const NOTHING_CAME: [ErrorKind; 5] = [
    ErrorKind::WouldBlock,
    ErrorKind::TimedOut,
    ErrorKind::Interrupted,
    ErrorKind::ConnectionReset,
    ErrorKind::ConnectionRefused,
];

/// BEP 5 allows any string as a transaction id, but many nodes want it short, and the crate `mainline` ignores all
/// that do not have exactly 4 bytes.
type Transaction = [u8; 4];

/// The transaction id of a request of the engine: the first bytes of its token. Whoever can guess the id can forge
/// the answer.
const fn transaction(token: WireToken) -> Transaction {
    let [a, b, c, d, ..] = token.to_bytes();
    [a, b, c, d]
}

/// A query of ours on the wire.
#[derive(Clone, Copy, Debug)]
struct Asked {
    since: Instant,
    why: Why,
}

#[derive(Clone, Copy, Debug)]
enum Why {
    Bootstrap,
    /// The engine's request.
    Request {
        id: RequestId,
        initiator: Initiator,
        key: Key160,
        target: Key160,
        asks: Asks,
    },
}

/// A DHT node: the engine, its socket, and what it stores for others.
#[derive(Debug)]
pub struct Driver {
    engine: Traced<Mainline, SdkTracer, Engine>,
    /// How many nodes a bucket of the routing table holds.
    bucket_size: usize,
    /// How many of the closest nodes an operation searches for.
    k: usize,
    socket: UdpSocket,
    address: SocketAddrV4,
    /// The origin of the engine's time, by the monotonic clock and by the wall clock.
    anchor: std::time::Instant,
    origin: SystemTime,
    settings: Settings,
    /// Items, peers and tokens for other nodes.
    store: Store,
    /// Whether to answer them.
    limiter: Limiter,
    /// Our queries on the wire, by the address that was asked and the transaction id.
    asked: HashMap<(SocketAddrV4, Transaction), Asked>,
    /// Where the engine's requests are in `asked`, to forget them when they are cancelled.
    wire_keys: HashMap<RequestId, (SocketAddrV4, Transaction)>,
    /// The bootstrap nodes that have not answered yet, while they are asked.
    silent: Vec<SocketAddrV4>,
    /// The bootstrap nodes that have answered, and their round trips, until the engine is told of them.
    contacts: Vec<(Node, Duration)>,
    /// Where none has answered: when they are asked again, and how long the wait for that is.
    again: Option<(Instant, Duration)>,
    /// By tag, in the order in which they were started.
    operations: BTreeMap<u64, Operation>,
    begun: u64,
    /// Outbound events of the engine other than those of requests and operations, and when they came.
    news: Vec<(Instant, Outbound<Mainline>)>,
    datagrams: Datagrams,
}

/// Whether an address that a node at `from` names can be reached from here: local addresses that a node on the
/// internet names are those of another network.
pub fn can_know(from: SocketAddrV4, named: SocketAddrV4) -> bool {
    let is_local = |ip: &Ipv4Addr| ip.is_loopback() || ip.is_private() || ip.is_link_local();
    is_local(from.ip()) || !is_local(named.ip())
}

/// The same of a peer of a torrent; and whether anything can be sent to it.
fn is_peer(from: SocketAddrV4, peer: SocketAddrV4) -> bool {
    can_know(from, peer) && Mainline::default().admits(&(Key160::new([0; 20]), peer))
}

/// A number as the attribute of a span.
fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Driver {
    /// The node with this id, on a new socket that is bound to this address. Port 0 is any that is free. Its
    /// operations and requests are spans of this tracer, and counted by these metrics.
    ///
    /// # Errors
    /// Where the socket cannot be bound; and, as an [`ErrorKind::InvalidInput`], where the engine does not accept
    /// the configuration.
    pub fn new(
        mut address: SocketAddrV4,
        id: Key160,
        config: Config,
        settings: Settings,
        tracer: SdkTracer,
        metrics: Option<Metrics>,
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        address.set_port(socket.local_addr()?.port());
        let refused = |error| io::Error::new(ErrorKind::InvalidInput, error);
        let (anchor, origin) = (std::time::Instant::now(), SystemTime::now());
        let (bucket_size, k) = (config.table.bucket_size, config.query.k);
        let engine = Engine::new(id, config, settings.record).map_err(refused)?;
        let mut engine =
            Traced::with_spans(engine, Spans::new(tracer, origin).describe_nodes(trace::describe));
        if let Some(metrics) = metrics {
            engine = engine.with_metrics(metrics);
        }
        Ok(Self {
            engine,
            bucket_size,
            k,
            socket,
            address,
            anchor,
            origin,
            settings,
            store: Store::new(id, Limits::default(), anchor),
            limiter: Limiter::new(settings.rates),
            asked: HashMap::new(),
            wire_keys: HashMap::new(),
            silent: Vec::new(),
            contacts: Vec::new(),
            again: None,
            operations: BTreeMap::new(),
            begun: 0,
            news: Vec::new(),
            datagrams: Datagrams::default(),
        })
    }

    /// Makes first contact. Of a bootstrap node only the address is known, and the engine needs ids: so the driver
    /// sends each a `find_node` for its own id, several times in case a datagram is lost, and reports to the
    /// engine the nodes that answered. It returns as soon as all have answered; or after some rounds, if at least
    /// one has. A node that serves then starts a bootstrap, from the nodes that answered and those that were
    /// restored. Returns the addresses that have not answered.
    ///
    /// If none has, a node that serves goes on asking them, in [`step`](Self::step), until one answers.
    ///
    /// # Errors
    /// That of the socket, where it cannot be read any more.
    pub fn bootstrap(&mut self, addresses: &[SocketAddrV4]) -> io::Result<Vec<SocketAddrV4>> {
        self.silent = addresses.to_vec();
        for round in 1..=BOOTSTRAP_TRIES {
            self.ask_silent();
            let until = self.now() + BOOTSTRAP_WAIT;
            while !self.silent.is_empty() && self.now() < until {
                self.receive(Some(until))?;
            }
            if self.silent.len() < addresses.len() && (self.silent.is_empty() || round >= BOOTSTRAP_LEAST) {
                break;
            }
        }
        self.asked.retain(|_, asked| !matches!(asked.why, Why::Bootstrap));
        if self.settings.serve && !self.silent.is_empty() && self.contacts.is_empty() {
            self.again = Some((self.now() + AGAIN, AGAIN));
            self.join();
            return Ok(self.silent.clone());
        }
        self.join();
        Ok(core::mem::take(&mut self.silent))
    }

    /// Bootstrap nodes to ask, beside those of which none has answered: names that are resolved by now.
    pub fn expect(&mut self, addresses: impl IntoIterator<Item = SocketAddrV4>) {
        for address in addresses {
            if !self.silent.contains(&address) {
                self.silent.push(address);
            }
        }
        if self.again.is_none() && !self.silent.is_empty() {
            self.again = Some((self.now(), AGAIN));
        }
    }

    /// Sends each bootstrap node a query that has not answered yet.
    fn ask_silent(&mut self) {
        for to in self.silent.clone() {
            // A node to which the query cannot be sent remains among the silent.
            let wire_key = (to, rand::random());
            let _ = self.query(wire_key, Query::FindNode { target: self.local() }, Why::Bootstrap);
        }
    }

    /// Asks the bootstrap nodes again, if it is time and none has answered; and tells the engine of those that have.
    fn ask_again(&mut self) {
        let Some((at, wait)) = self.again else { return };
        if !self.contacts.is_empty() {
            self.again = None;
            self.silent.clear();
            self.asked.retain(|_, asked| !matches!(asked.why, Why::Bootstrap));
            self.join();
        } else if at <= self.now() {
            self.asked.retain(|_, asked| !matches!(asked.why, Why::Bootstrap));
            self.ask_silent();
            self.again = Some((self.now() + wait, (wait * 2).min(AGAIN_MOST)));
        }
    }

    /// Tells the engine of the bootstrap nodes that have answered.
    fn join(&mut self) {
        let contacts = core::mem::take(&mut self.contacts);
        if self.settings.serve {
            let restored = self.table().iter().map(|known| *known.node());
            let seeds: Vec<_> = restored.chain(contacts.iter().map(|(node, _)| *node)).collect();
            if !seeds.is_empty() {
                let start = Start::bootstrap(JOIN, self.local(), seeds);
                self.tell(Stamped::new(start.into()));
            }
        }
        for (node, round_trip) in contacts {
            let connected = RoutingInbound::Connected { node, round_trip: Some(round_trip) };
            self.tell(Stamped::new(connected.into()));
        }
    }

    /// Starts a lookup of the nodes closest to `target`, as a new trace, to end within `time`.
    pub fn look_up(&mut self, target: Key160, time: Duration) {
        self.begin(Goal::Find, target, time);
    }

    /// Starts an operation, as a new trace, to end within `time`. What it searches for is searched for in the own
    /// store first, which counts as one node that has it; where no other has to be asked, it has ended at once.
    pub fn begin(&mut self, goal: Goal, target: Key160, time: Duration) {
        let now = self.now();
        let found = self.found_in_store(&goal, target);
        let tag = self.begun;
        let mut start = self.start(goal, target, now);
        if let Inbound::Start(start) = &mut start.event {
            start.held = (found.item.is_some() || !found.peers.is_empty()).then_some(0);
        }
        if let Some(operation) = self.operations.get_mut(&tag) {
            operation.found = found;
        }
        self.tell(start.with_deadline(now + time));
    }

    /// What this node keeps itself of what an operation searches for.
    fn found_in_store(&self, goal: &Goal, target: Key160) -> Found {
        let (mut found, now) = (Found::default(), std::time::Instant::now());
        match goal {
            Goal::Get { .. } => {
                found.item = self.store.get(&target, now).map(<[u8]>::to_vec);
                found.own_item = found.item.is_some();
            }
            Goal::Peers { .. } => {
                found.own_peers = self.store.all_peers(&target, now).collect();
                found.peers = found.own_peers.iter().map(|peer| (*peer, 0)).collect();
            }
            _ => {}
        }
        found
    }

    /// Records an operation, and returns the event that starts it.
    fn start(&mut self, goal: Goal, target: Key160, now: Instant) -> Stamped<Inbound<Mainline>> {
        // The driver chooses the tag: the number of the operation, by which its events are matched.
        let tag = self.begun;
        self.begun += 1;
        let start = goal.start(tag, target);
        self.operations.insert(tag, Operation::new(tag, goal, target, now));
        Stamped::new(start)
    }

    /// Stops all operations now.
    pub fn stop(&mut self) {
        let live = self.operations.keys().filter_map(|tag| self.engine.coordinator().operation(*tag));
        for operation in live.collect::<Vec<_>>() {
            self.tell(Stamped::new(Inbound::Stop(operation)));
        }
    }

    /// Runs until all operations have ended, and the requests that go on after their finish.
    ///
    /// # Errors
    /// That of the socket, where it cannot be read any more.
    pub fn run(&mut self) -> io::Result<()> {
        while self.unfinished() > 0 {
            self.step(None)?;
        }
        Ok(())
    }

    /// One turn of the loop, which ends at `latest` at the latest, if that is given.
    ///
    /// # Errors
    /// That of the socket, where it cannot be read any more.
    pub fn step(&mut self, latest: Option<Instant>) -> io::Result<()> {
        let again = self.again.map(|(at, _)| at);
        let wake = [self.engine.poll_timeout(), latest, again].into_iter().flatten().min();
        if !self.receive(wake)? {
            self.tell(Stamped::new(Inbound::Tick));
        }
        self.ask_again();
        Ok(())
    }

    /// A function that wakes the loop from another thread, by an empty datagram to the driver's own address.
    ///
    /// # Errors
    /// That of the system, where a socket cannot have a second handle.
    pub fn waker(&self) -> io::Result<impl Fn() + Send + use<>> {
        let (socket, mut to) = (self.socket.try_clone()?, self.address);
        if to.ip().is_unspecified() {
            to.set_ip(Ipv4Addr::LOCALHOST);
        }
        Ok(move || drop(socket.send_to(&[], to)))
    }

    /// Passes an event to the engine, and carries out the events that it returns. Those may lead to further
    /// inbound events, such as the failure of a request that cannot be sent.
    pub fn tell(&mut self, event: Stamped<Inbound<Mainline>>) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.now();
            for out in self.engine.handle(now, event) {
                events.extend(self.act(out));
            }
        }
    }

    /// Carries out one outbound event of the engine. Returns an inbound event where one follows at once.
    fn act(&mut self, out: Stamped<Outbound<Mainline>>) -> Option<Stamped<Inbound<Mainline>>> {
        match out.event {
            Outbound::Request(request) => return self.request(request),
            Outbound::Cancel(cancel) => self.forget(cancel.id),
            Outbound::Started(started) => self.placed(started.operation.tag(), &out.context, out.deadline),
            Outbound::Finished(finish) => {
                let correction = self.correction(&finish);
                self.end(finish.operation.tag(), End::Lookup(finish));
                return correction;
            }
            Outbound::BroadcastFinished(finish) => self.end(finish.operation.tag(), End::Broadcast(finish)),
            Outbound::CrawlFinished(finish) => self.end(finish.operation.tag(), End::Crawl(finish)),
            Outbound::Refused(refused) => {
                self.placed(refused.tag, &out.context, None);
                self.end(refused.tag, End::Refused(refused.reason));
            }
            Outbound::Progress(_) | Outbound::CrawlProgress(_) | Outbound::BroadcastProgress(_) => {}
            news => self.news.push((self.now(), news)),
        }
        None
    }

    /// Records the span and the deadline of an operation.
    fn placed(&mut self, tag: u64, context: &Context, deadline: Option<Instant>) {
        if let Some(operation) = self.operations.get_mut(&tag) {
            operation.span = context.parent().cloned();
            operation.deadline = deadline;
        }
    }

    /// Records how an operation has ended.
    fn end(&mut self, tag: u64, end: End) {
        if let Some(operation) = self.operations.get_mut(&tag) {
            operation.end = Some(end);
        }
    }

    /// After a search with `correct` that has found an item: starts a broadcast that stores it with those of the
    /// closest nodes that lack it, in the same trace and with as much time as the search had.
    fn correction(&mut self, finish: &Finish<Mainline>) -> Option<Stamped<Inbound<Mainline>>> {
        let now = self.now();
        let operation = self.operations.get(&finish.operation.tag())?;
        let Goal::Get { correct: true, .. } = operation.goal else { return None };
        let item = operation.found.item.clone()?;
        let token = |node: &Node| Some((*node, operation.found.tokens.get(node)?.clone()));
        // A node that has given no token accepts no store.
        let tokens: Vec<_> = finish.to_correct().filter_map(|contact| token(&contact.node)).collect();
        if tokens.is_empty() {
            return None;
        }
        let time = operation.deadline.map(|deadline| now + (deadline - operation.started));
        let goal = Goal::Correct { item, tokens };
        let (target, span) = (operation.target, operation.span.clone());
        let mut start = self.start(goal, target, now);
        start.deadline = time;
        start.context = span.map_or(Context::NONE, Context::from);
        Some(start)
    }

    /// Sends a request of the engine. Returns its failure where it cannot be sent.
    fn request(&mut self, request: Request<Mainline>) -> Option<Stamped<Inbound<Mainline>>> {
        let Request { id, token, initiator, node, target, ask, .. } = request;
        let asks = Asks::of(&ask).unwrap_or(Asks::Nodes);
        self.note(id, trace::ASKED, asks.name());
        let goal = initiator.operation().and_then(|id| self.operations.get(&id.tag())).map(|it| &it.goal);
        let query = goal::query(ask, (node, target), goal, self.address.port());
        let why = Why::Request { id, initiator, key: node.0, target, asks };
        let wire_key = (node.1, transaction(token));
        let sent = query.map(|query| self.query(wire_key, query, why));
        let failure = match sent {
            Ok(Ok(size)) => {
                self.note(id, "kad.request.size", count(size));
                self.wire_keys.insert(id, wire_key);
                return None;
            }
            Ok(Err(error)) => Failure::Unsendable(error.kind().to_string()),
            Err(failure) => failure,
        };
        self.note(id, trace::FAILURE, failure.to_string());
        Some(Stamped::new(goal::failed(id, asks, failure)))
    }

    /// Sets an attribute of the span of a request that only the driver knows.
    fn note(&mut self, request: RequestId, name: &'static str, value: impl Into<opentelemetry::Value>) {
        if let Some(span) = self.engine.request_span(request) {
            span.set_attribute(KeyValue::new(name, value));
        }
    }

    /// Waits for a datagram until `wake`, or for ever, and handles it. Returns whether one came.
    fn receive(&mut self, wake: Option<Instant>) -> io::Result<bool> {
        let mut buffer = [0; LARGEST_DATAGRAM];
        loop {
            let wait = wake.map(|wake| wake - self.now());
            if wait.is_some_and(|wait| wait.is_zero()) {
                return Ok(false);
            }
            // The system rounds a read time-out up to its timer tick. So the last part of the wait, shorter than a
            // tick, is a loop of small sleeps: deadlines are kept to half a millisecond.
            let last = wait.is_some_and(|wait| wait <= TIMER_TICK);
            self.socket.set_nonblocking(last)?;
            if !last {
                self.socket.set_read_timeout(wait.map(|wait| wait.saturating_sub(TIMER_TICK)))?;
            }
            match self.socket.recv_from(&mut buffer) {
                Ok((length, SocketAddr::V4(from))) => {
                    self.datagram(buffer.get(..length).unwrap_or_default(), from);
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock && last => thread::sleep(SMALL_STEP),
                Ok(_) => {}
                Err(error) if NOTHING_CAME.contains(&error.kind()) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Handles a datagram from any sender, with any content.
    pub fn datagram(&mut self, datagram: &[u8], from: SocketAddrV4) {
        if datagram.is_empty() && self.is_own_address(from) {
            return;
        }
        self.datagrams.received += 1;
        let Ok(Message { transaction, body }) = Message::decode(datagram) else {
            self.datagrams.malformed += 1;
            return;
        };
        match body {
            Body::Query { from: id, query, read_only } => {
                let is_proven = self.is_proven((id, from), &query);
                let is_served = self.serve(from, transaction, Ok(query), is_proven);
                // A read-only sender becomes no candidate. If it is in the table it stays there, as the address of
                // a datagram can be forged to name any other node.
                if is_served && !read_only && !self.is_own_address(from) {
                    self.tell(Stamped::new(RoutingInbound::Discovered((id, from)).into()));
                }
            }
            Body::BadQuery(why) => {
                self.serve(from, transaction, Err(why), false);
            }
            Body::Response { from: id, answer } => {
                self.answer(from, &transaction, Ok((id, answer)), datagram.len());
            }
            Body::Error { code, text } => {
                self.answer(from, &transaction, Err(Failure::Error { code, text }), datagram.len());
            }
        }
    }

    /// Handles an answer of `size` bytes: the id that the sender claims and its answer, or an error. It counts
    /// only if its address and its transaction id are those of a query on the wire.
    fn answer(
        &mut self,
        from: SocketAddrV4,
        transaction: &[u8],
        answer: Result<(Key160, Answer), Failure>,
        size: usize,
    ) {
        let transaction = Transaction::try_from(transaction).ok();
        let asked = transaction.and_then(|transaction| self.asked.get(&(from, transaction)));
        let Some(Asked { since, why }) = asked.copied() else {
            self.datagrams.unexpected += 1;
            return;
        };
        match why {
            Why::Bootstrap => {
                if let Ok((id, _)) = answer {
                    // The nodes that it names are not used: lookups will ask it themselves.
                    self.silent.retain(|address| *address != from);
                    self.contacts.push(((id, from), self.now() - since));
                }
            }
            Why::Request { id, initiator, key, target, asks } => {
                // Attributes of its span must be set before the engine handles the response, as that ends the
                // span.
                self.note(id, "kad.response.size", count(size));
                let answer = answer.and_then(|(answerer, answer)| {
                    if answerer == key { Ok(answer) } else { Err(Failure::OtherNode(answerer)) }
                });
                let event = match answer {
                    Ok(answer) => self.read(id, (key, from), (asks, target), initiator, answer),
                    Err(failure) => {
                        self.note(id, trace::FAILURE, failure.to_string());
                        goal::failed(id, asks, failure)
                    }
                };
                self.forget(id);
                self.tell(Stamped::new(event));
            }
        }
    }

    /// Reads the answer of a node that was asked about this target, and returns the event for the engine.
    fn read(
        &mut self,
        request: RequestId,
        node: Node,
        (asks, target): (Asks, Key160),
        initiator: Initiator,
        answer: Answer,
    ) -> Inbound<Mainline> {
        if matches!(asks, Asks::Put | Asks::Announce) {
            return Response::answered(request, Vec::new()).into();
        }
        let Answer { nodes, token, peers, item } = answer;
        let mut closer = nodes.unwrap_or_default();
        // Some nodes admit any sender to their tables, and name this node: it must not send requests to itself.
        closer.retain(|named| !self.is_own_address(named.1) && can_know(node.1, named.1));
        let mut value = Verdict::Nothing;
        match (asks, item, peers) {
            (Asks::Item, Some(item), _) if store::target(&item) == target => {
                self.note(request, trace::HAD, "the item");
                self.found(initiator, |found| found.item = Some(item));
                value = Verdict::Valid(0);
            }
            (Asks::Item, Some(_), _) => {
                self.note(request, trace::HAD, "another item than that asked for");
                value = Verdict::Invalid;
            }
            (Asks::Peers, _, Some(peers)) => {
                let mut peers: Vec<_> = peers.into_iter().filter(|peer| is_peer(node.1, *peer)).collect();
                peers.sort_unstable();
                peers.dedup();
                if !peers.is_empty() {
                    value = Verdict::Valid(0);
                    let plural = if peers.len() == 1 { "" } else { "s" };
                    self.note(request, trace::HAD, format!("{} peer{plural}", peers.len()));
                }
                self.found(initiator, |found| {
                    for peer in peers {
                        *found.peers.entry(peer).or_default() += 1;
                    }
                });
            }
            _ => {}
        }
        if let (Asks::Item, Some(token)) = (asks, &token) {
            self.found(initiator, |found| drop(found.tokens.insert(node, token.clone())));
        }
        let extra = AnswerExtra { value, token: token.map(Payload::Token) };
        Response::answered(request, closer).with_extra(extra).into()
    }

    /// Records what an answer to a request of an operation contained.
    fn found(&mut self, initiator: Initiator, note: impl FnOnce(&mut Found)) {
        if let Some(operation) = initiator.operation().and_then(|id| self.operations.get_mut(&id.tag())) {
            note(&mut operation.found);
        }
    }

    /// Whether the address of who asks is proven: this node has answered us from there, or has a token that we have
    /// sent there.
    fn is_proven(&self, node: Node, query: &Query) -> bool {
        let token = match query {
            Query::AnnouncePeer { token, .. } | Query::Put { token, .. } => Some(token),
            _ => None,
        };
        let has_token = token.is_some_and(|token| self.store.knows(*node.1.ip(), token));
        has_token || self.table().get(&node).is_some_and(TableEntry::is_verified)
    }

    /// Answers a query, or says that it is malformed, unless its sender asks too much. Returns whether it may be
    /// listened to.
    fn serve(
        &mut self,
        to: SocketAddrV4,
        transaction: Vec<u8>,
        query: Result<Query, Malformed>,
        is_proven: bool,
    ) -> bool {
        if !self.settings.serve {
            self.datagrams.unserved += 1;
            return true;
        }
        let now = std::time::Instant::now();
        match self.limiter.admit(Host::of(to), is_proven, now) {
            Ok(()) => {}
            Err(excess) => {
                let count = match excess {
                    Excess::OfHost => &mut self.datagrams.limited,
                    Excess::OfAll => &mut self.datagrams.overload,
                };
                *count += 1;
                return false;
            }
        }
        let table = self.engine.coordinator().table();
        let answer = match query {
            Ok(query) => serving::respond(&mut self.store, table, to, query),
            Err(why) => Err((PROTOCOL_ERROR, why.to_string())),
        };
        let body = match answer {
            Ok(answer) => Body::Response { from: self.local(), answer },
            Err((code, text)) => Body::Error { code, text },
        };
        if let Ok(size) = self.send(&Message { transaction, body }, to) {
            self.limiter.answered(size, is_proven, now);
            self.datagrams.served += 1;
        }
        true
    }

    /// Sends a query to this address under this transaction id, and returns its size in bytes.
    ///
    /// # Errors
    /// That of the socket; [`ErrorKind::AlreadyExists`] where a query with this id is on the wire to this address
    /// already, which happens once in 2^32. The earlier query keeps the id, and the later one fails at once.
    fn query(
        &mut self,
        wire_key @ (to, transaction): (SocketAddrV4, Transaction),
        query: Query,
        why: Why,
    ) -> io::Result<usize> {
        if self.asked.contains_key(&wire_key) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let body = Body::Query { from: self.local(), query, read_only: !self.settings.serve };
        let since = self.now();
        let size = self.send(&Message { transaction: transaction.to_vec(), body }, to)?;
        self.asked.insert(wire_key, Asked { since, why });
        Ok(size)
    }

    /// Sends a message, and returns its size in bytes.
    fn send(&mut self, message: &Message, to: SocketAddrV4) -> io::Result<usize> {
        let datagram = message.encode().map_err(io::Error::other)?;
        if rand::random_bool(self.settings.drop) {
            self.datagrams.dropped += 1;
            return Ok(datagram.len());
        }
        match self.socket.send_to(&datagram, to) {
            Ok(_) => self.datagrams.sent += 1,
            // A full buffer loses the datagram as the network may: the request times out.
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.datagrams.unsendable += 1,
            Err(error) => {
                self.datagrams.unsendable += 1;
                return Err(error);
            }
        }
        Ok(datagram.len())
    }

    /// Forgets a request of the engine. A late answer to it will count as unexpected.
    fn forget(&mut self, request: RequestId) {
        if let Some(wire_key) = self.wire_keys.remove(&request) {
            self.asked.remove(&wire_key);
        }
    }

    /// The time since the driver was constructed.
    pub fn now(&self) -> Instant {
        Instant::from_std(self.anchor, std::time::Instant::now())
    }

    /// The wall-clock time when the driver was constructed.
    pub fn origin(&self) -> SystemTime {
        self.origin
    }

    /// Ends all open spans: for a program that ends.
    pub fn abandon(&mut self) {
        let now = self.now();
        self.engine.abandon(now);
    }

    /// Brings the gauges up to date, where there are metrics.
    pub fn measure(&mut self) {
        let now = self.now();
        self.engine.measure(now);
    }

    /// Takes the part of the recording since the last call; `None` where nothing is recorded.
    pub fn take_recording(&mut self) -> Option<Vec<u8>> {
        self.engine.machine_mut().take_recording()
    }

    /// The rest of the recording, which closes it.
    pub fn recording(&self) -> Option<Vec<u8>> {
        self.engine.machine().recording()
    }

    /// Our own address.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Our own id.
    pub fn local(&self) -> Key160 {
        self.table().local()
    }

    /// The routing table.
    pub fn table(&self) -> &RoutingTable<Mainline> {
        self.engine.coordinator().table()
    }

    /// Whether an address is that of the driver itself. Behind a router it has others, which it cannot know.
    fn is_own_address(&self, address: SocketAddrV4) -> bool {
        let ip = *self.address.ip();
        let is_own = *address.ip() == ip || ip.is_unspecified() && address.ip().is_loopback();
        is_own && address.port() == self.address.port()
    }

    /// How many nodes a bucket of the routing table holds.
    pub fn bucket_size(&self) -> usize {
        self.bucket_size
    }

    /// How many of the closest nodes an operation searches for, and stores with.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Whether it answers others.
    pub fn serves(&self) -> bool {
        self.settings.serve
    }

    /// How many items it stores for others, and for how many torrents it stores peers.
    pub fn stored(&self) -> (usize, usize) {
        self.store.len()
    }

    /// Counters of the routing maintenance.
    pub fn routing_counts(&self) -> RoutingCounts {
        self.engine.coordinator().routing_counts()
    }

    /// The nodes of the routing table, to be restored by the next run of the program.
    pub fn snapshot(&self) -> Vec<SavedNode<Mainline>> {
        self.engine.coordinator().snapshot(self.now())
    }

    /// Counters of the engine's requests.
    pub fn request_stats(&self) -> RequestStats {
        self.engine.coordinator().request_stats()
    }

    /// Counters of datagrams.
    pub fn datagrams(&self) -> Datagrams {
        self.datagrams
    }

    /// The estimated number of nodes of the network.
    ///
    /// # Errors
    /// Where there are too few lookups to estimate it by.
    pub fn network_size(&self) -> Result<u64, NotEnoughData> {
        self.engine.coordinator().network_size(self.now()).map(|size| size.nodes())
    }

    /// The operations that were not taken, in the order in which they were started.
    pub fn operations(&self) -> Vec<&Operation> {
        self.operations.values().collect()
    }

    /// Takes the operations that have ended; but not those with requests that go on after their finish, unless the
    /// program `leaves`.
    pub fn take_ended(&mut self, leaves: bool) -> Vec<Operation> {
        let all = core::mem::take(&mut self.operations).into_iter();
        let is_over =
            |(_, operation): &(_, Operation)| operation.end.is_some() && (leaves || !self.goes_on(operation));
        let (ended, live) = all.partition::<BTreeMap<_, _>, _>(is_over);
        self.operations = live;
        ended.into_values().collect()
    }

    /// Whether requests of an operation go on after its finish. Background requests do not name the broadcast that
    /// led to them: so any of them counts for every broadcast.
    fn goes_on(&self, operation: &Operation) -> bool {
        let leads = matches!(operation.end, Some(End::Broadcast(_)));
        self.initiators().any(|initiator| match initiator {
            Initiator::Background => leads,
            _ => initiator.operation().map(OperationId::tag) == Some(operation.tag),
        })
    }

    /// The initiators of the requests on the wire.
    fn initiators(&self) -> impl Iterator<Item = Initiator> {
        self.asked.values().filter_map(|asked| match asked.why {
            Why::Bootstrap => None,
            Why::Request { initiator, .. } => Some(initiator),
        })
    }

    /// How many operations have not ended, and requests that go on after the end of theirs.
    pub fn unfinished(&self) -> usize {
        let live = self.operations.values().filter(|operation| operation.end.is_none());
        let operation =
            |initiator: &Initiator| initiator.operation().and_then(|id| self.operations.get(&id.tag()));
        let goes_on = |initiator: &Initiator| {
            *initiator == Initiator::Background
                || operation(initiator).is_some_and(|operation| operation.end.is_some())
        };
        live.count() + self.initiators().filter(goes_on).count()
    }

    /// Takes the outbound events other than those of requests and operations, and when they came.
    pub fn take_news(&mut self) -> Vec<(Instant, Outbound<Mainline>)> {
        core::mem::take(&mut self.news)
    }
}
