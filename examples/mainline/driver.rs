//! The driver: everything that the engine leaves to its embedder, over one UDP socket and without a runtime.
//!
//! The heart is [`Driver::step`], which is the whole loop of an embedder: wait for a datagram, but only until the engine
//! wants to be woken; tell the engine what came, or that time passed; do everything that it says.

use crate::goal::{self, Asks, Found, Goal, Payload};
use crate::krpc::{Answer, Body, Message, Query};
use crate::store::{self, Limits, Refusal, Store};
use crate::trace::{self, End, Ending, Failure, Had, Operation, Span};
use core::time::Duration;
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::netsize::NotEnoughData;
use kad_proto::routing::RoutingCounts;
use kad_proto::table::Saved;
use kad_proto::{
    Carried, Config, Context, Coordinator, Family, Finish, GivenUp, Group, Instant, Key160, Machine,
    OperationId, Owner, Request, RequestId, RoutingConfig, RoutingTable, Stamped, Start, Traffic,
};
use opentelemetry::trace::SpanContext;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::thread;

/// A node's id and address.
pub(crate) type Node = (Key160, SocketAddrV4);

/// The types of `BitTorrent`'s DHT.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mainline;

impl Family for Mainline {
    type Key = Key160;
    type Node = Node;
    type Message = Payload;

    fn key(node: &Node) -> Key160 {
        node.0
    }

    /// Nodes of one /24 network are likely to be in one hand: the routing table admits only a few of them. On
    /// loopback all nodes would be of one group, and a test network would never get into the table, so there the
    /// limits do not apply.
    fn group((_, address): &Node) -> Option<Group> {
        let ip = *address.ip();
        (!ip.is_loopback()).then(|| Group(u64::from(u32::from(ip) >> 8)))
    }

    /// Nothing can be sent to the others.
    fn admits((_, address): &Node) -> bool {
        let ip = address.ip();
        address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast()
    }
}

/// The engine's configuration for this driver, with operations that take up to `longest`.
pub(crate) fn config(longest: Duration) -> Config {
    let mut config = Config::default();
    config.pool.query.timeout = longest;
    config.broadcast.timeout = longest;
    config.crawl.timeout = longest;
    // Who is to store something has to have answered: it wants its token back.
    config.broadcast.unasked = false;
    // A program that ends after its operations has no table to look after.
    config.routing = RoutingConfig::off();
    // The answers to so many requests fit into a socket's receive buffer of 200 kB. More lookups at once would have
    // the system throw answers away; like this the engine lets requests wait for a moment.
    config.network.max_in_flight = 64;
    // Peers choose their ids: they must not know how ours are hashed.
    config.pool.hash_seed = rand::random();
    config.network.hash_seed = rand::random();
    config.crawl.hash_seed = rand::random();
    config.table.hash_seed = rand::random();
    config
}

/// The same for a node that stays, and checks the nodes of its table as often as this, if it is said.
pub(crate) fn staying(mut config: Config, probe: Option<Duration>) -> Config {
    config.routing = RoutingConfig { seed: rand::random(), ..RoutingConfig::default() };
    if let (Some(config), Some(interval)) = (&mut config.routing.probe, probe) {
        config.interval = interval;
        config.retry_interval = config.retry_interval.min(interval);
    }
    config
}

/// How this node behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settings {
    /// The share of outgoing datagrams to lose on purpose.
    pub(crate) drop: f64,
    /// Whether to answer queries.
    pub(crate) serve: bool,
    /// Whether to record the requests of the routing maintenance.
    pub(crate) trace_upkeep: bool,
}

/// What became of all datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Datagrams {
    pub(crate) sent: u64,
    /// Lost on purpose.
    pub(crate) dropped: u64,
    /// Not sent: the system refused.
    pub(crate) unsendable: u64,
    pub(crate) received: u64,
    /// Ignored: not KRPC.
    pub(crate) malformed: u64,
    /// Ignored: an answer that nobody waits for, or that came from an address that was not asked.
    pub(crate) unexpected: u64,
    /// Queries that were answered.
    pub(crate) served: u64,
    /// Ignored: queries to a node that does not serve.
    pub(crate) unserved: u64,
}

/// How many nodes an answer of ours names: the k of BEP 5.
const NODES_IN_ANSWER: usize = 8;
/// How often a bootstrap node is asked, and how long an answer is waited for each time.
const BOOTSTRAP_TRIES: u32 = 8;
/// So many times even if others have answered: messages get lost.
const BOOTSTRAP_LEAST: u32 = 4;
const BOOTSTRAP_WAIT: Duration = Duration::from_millis(250);
/// The tag of the engine's own lookup when it joins. Those of operations count from 0.
const JOIN: u64 = u64::MAX;
/// More than any message of the protocol. What is longer is cut off, and ignored as malformed.
const LARGEST_DATAGRAM: usize = 2048;

/// No less than the system's timers are late by.
const TIMER_TICK: Duration = Duration::from_millis(25);
const SMALL_STEP: Duration = Duration::from_micros(500);
/// What a read of the socket may say while there is nothing wrong with it. (The last two are how some systems say that
/// an earlier datagram could not be delivered.)
const NOTHING_CAME: [ErrorKind; 5] = [
    ErrorKind::WouldBlock,
    ErrorKind::TimedOut,
    ErrorKind::Interrupted,
    ErrorKind::ConnectionReset,
    ErrorKind::ConnectionRefused,
];

/// On the wire a transaction id is any string, but many nodes want it short, and the crate `mainline` ignores all that
/// do not have exactly four bytes.
type Transaction = [u8; 4];

/// A query of ours on the wire.
#[derive(Clone, Copy, Debug)]
struct Asked {
    to: SocketAddrV4,
    since: Instant,
    why: Why,
}

#[derive(Clone, Copy, Debug)]
enum Why {
    Bootstrap,
    /// The engine's request.
    Request {
        id: RequestId,
        key: Key160,
        target: Key160,
        asks: Asks,
        span: Option<Place>,
    },
}

/// Where the span of a request is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In the operation of this number, at this place.
    Operation(u64, usize),
    /// The same, of what it left to be done.
    Background(u64, usize),
    /// Nobody's: by its number.
    Detached(u64),
}

/// A DHT node: the engine, and all that it does not do itself.
#[derive(Debug)]
pub(crate) struct Driver {
    coordinator: Coordinator<Mainline>,
    /// How many nodes a bucket of its table holds.
    bucket_size: usize,
    socket: UdpSocket,
    address: SocketAddrV4,
    /// The origin of the engine's time.
    anchor: std::time::Instant,
    settings: Settings,
    /// What others have stored here.
    store: Store,
    asked: HashMap<Transaction, Asked>,
    /// Where the engine's requests are in `asked`, to forget them when they are cancelled.
    transactions: HashMap<RequestId, Transaction>,
    /// Bootstrap nodes that have not answered yet.
    silent: Vec<SocketAddrV4>,
    /// Those that have, and how long it took them.
    contacts: Vec<(Node, Duration)>,
    /// By number, in the order in which they were begun.
    operations: BTreeMap<u64, Operation>,
    begun: u64,
    /// Operations without an end, and requests that go on after the end of theirs.
    unfinished: usize,
    /// The spans of the routing maintenance, each a trace of its own, by number, in the order in which they were opened.
    upkeep: BTreeMap<u64, Span>,
    upkept: u64,
    /// What the engine said beside requests and operations, and when.
    news: Vec<(Instant, Outbound<Mainline>)>,
    datagrams: Datagrams,
}

/// Whether a node at `from` can know one at `named` that we can reach as well: what is local to somebody on the internet is
/// not local to us.
pub(crate) fn can_know(from: SocketAddrV4, named: SocketAddrV4) -> bool {
    let is_local = |ip: &Ipv4Addr| ip.is_loopback() || ip.is_private() || ip.is_link_local();
    is_local(from.ip()) || !is_local(named.ip())
}

/// Whether a node at `from` can mean a peer that we can reach as well.
fn is_peer(from: SocketAddrV4, peer: SocketAddrV4) -> bool {
    can_know(from, peer) && Mainline::admits(&(Key160::new([0; 20]), peer))
}

/// What the engine is told of a request that failed. A node that says that it does not do what it was asked to lives, and so
/// does one that gave us no token; but not to answer which nodes it knows is a failure.
fn failed(request: RequestId, asks: Asks, failure: &Failure) -> Inbound<Mainline> {
    match failure {
        Failure::Error { .. } | Failure::NoToken if asks != Asks::Nodes => {
            Inbound::Rejected { request, why: Payload::Refused(failure.clone()) }
        }
        _ => Inbound::Failed(request),
    }
}

impl Driver {
    /// The node with this id, on a socket of its own that is bound to this address. Port 0 is any that is free.
    ///
    /// # Errors
    /// Where there is no such socket; and where the engine does not accept the configuration, its error as an
    /// [`ErrorKind::InvalidInput`].
    pub(crate) fn new(
        mut address: SocketAddrV4,
        id: Key160,
        config: Config,
        settings: Settings,
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        address.set_port(socket.local_addr()?.port());
        let refused = |error| io::Error::new(ErrorKind::InvalidInput, error);
        let anchor = std::time::Instant::now();
        Ok(Self {
            bucket_size: config.table.bucket_size,
            coordinator: Coordinator::new(id, config).map_err(refused)?,
            socket,
            address,
            anchor,
            settings,
            store: Store::new(id, Limits::default(), anchor),
            asked: HashMap::new(),
            transactions: HashMap::new(),
            silent: Vec::new(),
            contacts: Vec::new(),
            operations: BTreeMap::new(),
            begun: 0,
            unfinished: 0,
            upkeep: BTreeMap::new(),
            upkept: 0,
            news: Vec::new(),
            datagrams: Datagrams::default(),
        })
    }

    /// Makes first contact. Of a bootstrap node only the address is known, and the engine deals in nodes that have ids:
    /// so the driver itself asks each for the nodes closest to our own id, a few times in case a datagram is lost,
    /// and tells the engine who answered. Goes on as soon as all have answered, or some have and the others had a
    /// fair chance. A node that serves joins then, from those that answered and those that were restored. Says which have
    /// not answered.
    ///
    /// # Errors
    /// That of the socket, where it cannot be read any more.
    pub(crate) fn bootstrap(&mut self, addresses: &[SocketAddrV4]) -> io::Result<Vec<SocketAddrV4>> {
        self.silent = addresses.to_vec();
        for round in 1..=BOOTSTRAP_TRIES {
            for to in self.silent.clone() {
                // One that cannot even be sent to remains silent.
                let _ = self.query(to, Query::FindNode { target: self.local() }, Why::Bootstrap);
            }
            let until = self.now() + BOOTSTRAP_WAIT;
            while !self.silent.is_empty() && self.now() < until {
                self.receive(Some(until))?;
            }
            if self.silent.len() < addresses.len() && (self.silent.is_empty() || round >= BOOTSTRAP_LEAST) {
                break;
            }
        }
        self.asked.retain(|_, asked| !matches!(asked.why, Why::Bootstrap));
        let contacts = core::mem::take(&mut self.contacts);
        if self.settings.serve {
            let restored = self.table().iter().map(|known| *known.node());
            let seeds = restored.chain(contacts.iter().map(|(node, _)| *node)).collect();
            let start = Start::bootstrap(JOIN, self.local(), seeds);
            self.tell(Stamped::new(Inbound::Start(start)).in_span(trace::root()));
        }
        for (node, round_trip) in contacts {
            self.tell(Stamped::new(Inbound::Connected { node, round_trip: Some(round_trip) }));
        }
        Ok(core::mem::take(&mut self.silent))
    }

    /// Begins a lookup of the nodes closest to `target`, as a trace of its own, to end within `time`.
    pub(crate) fn look_up(&mut self, target: Key160, time: Duration) {
        self.begin(Goal::Find, target, time);
    }

    /// Begins an operation, as a trace of its own, to end within `time`.
    pub(crate) fn begin(&mut self, goal: Goal, target: Key160, time: Duration) {
        let now = self.now();
        let start = self.start(Operation::new(goal, target, now, None)).by(now + time);
        self.tell(start);
    }

    /// Takes up an operation: says what the engine is to be told.
    fn start(&mut self, operation: Operation) -> Stamped<Inbound<Mainline>> {
        // The tag is ours to choose: the number of the operation, by which its events find their way.
        let tag = self.begun;
        let start = operation.goal.start(tag, operation.target);
        let start = Stamped::new(start).in_span(operation.root.clone());
        self.operations.insert(tag, operation);
        self.begun += 1;
        self.unfinished += 1;
        start
    }

    /// Ends all operations now.
    pub(crate) fn stop(&mut self) {
        let live = self.operations.keys().filter_map(|tag| self.coordinator.operation(*tag));
        for operation in live.collect::<Vec<_>>() {
            self.tell(Stamped::new(Inbound::Stop(operation)));
        }
    }

    /// Runs until all operations have ended, and what they left to be done in the background.
    ///
    /// # Errors
    /// That of the socket, where it cannot be read any more.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        while self.unfinished > 0 {
            self.step(None)?;
        }
        Ok(())
    }

    /// One turn of the loop, which takes no longer than until `latest`, if that is given.
    ///
    /// # Errors
    /// That of the socket, where it cannot be read any more.
    pub(crate) fn step(&mut self, latest: Option<Instant>) -> io::Result<()> {
        let wake = [self.coordinator.poll_timeout(), latest].into_iter().flatten().min();
        if !self.receive(wake)? {
            self.tell(Stamped::new(Inbound::Tick));
        }
        Ok(())
    }

    /// What wakes the loop from another thread: a datagram to ourselves with nothing in it.
    ///
    /// # Errors
    /// That of the system, where a socket cannot have a second handle.
    pub(crate) fn waker(&self) -> io::Result<impl Fn() + Send + use<>> {
        let (socket, mut to) = (self.socket.try_clone()?, self.address);
        if to.ip().is_unspecified() {
            to.set_ip(Ipv4Addr::LOCALHOST);
        }
        Ok(move || drop(socket.send_to(&[], to)))
    }

    /// Tells the engine what happened, and does what it says. That may fail at once, which has to be told too.
    pub(crate) fn tell(&mut self, event: Stamped<Inbound<Mainline>>) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.now();
            for said in self.coordinator.handle(now, event) {
                events.extend(self.act(said));
            }
        }
    }

    /// Does one thing that the engine says.
    fn act(&mut self, said: Stamped<Outbound<Mainline>>) -> Option<Stamped<Inbound<Mainline>>> {
        match said.event {
            Outbound::Request(request) => {
                return self.request(request, &said.context, said.deadline);
            }
            Outbound::Cancel(cancel) => {
                let ending = match cancel.reason {
                    GivenUp::TimedOut => Ending::TimedOut,
                    _ => Ending::Cancelled,
                };
                if let Some(Why::Request { span: Some(span), .. }) = self.forget(cancel.id) {
                    self.close(span, ending);
                }
            }
            Outbound::Started(started) => {
                if let Some(operation) = self.operations.get_mut(&started.operation.tag()) {
                    operation.deadline = said.deadline;
                }
            }
            Outbound::Finished(finish) => {
                let correction = self.correction(&finish);
                self.end(finish.operation.tag(), End::Lookup(finish));
                return correction;
            }
            Outbound::BroadcastFinished(finish) => self.end(finish.operation.tag(), End::Broadcast(finish)),
            Outbound::CrawlFinished(finish) => self.end(finish.operation.tag(), End::Crawl(finish)),
            Outbound::Refused(refused) => self.end(refused.tag, End::Refused(refused.reason)),
            Outbound::Progress(_) | Outbound::CrawlProgress(_) | Outbound::BroadcastProgress(_) => {}
            news => self.news.push((self.now(), news)),
        }
        None
    }

    /// Notes how an operation has ended.
    fn end(&mut self, tag: u64, end: End) {
        if let Some(operation) = self.operations.get_mut(&tag) {
            // Requests that are still open go on in the background.
            let open = operation.spans.iter().filter(|span| span.end.is_none()).count();
            operation.end = Some(end);
            self.unfinished = self.unfinished + open - 1;
        }
    }

    /// Where an item was found that is to be given to those of the closest nodes that lack it: has it stored with them, as a
    /// part of the same trace, in as much time as the search had.
    fn correction(&mut self, finish: &Finish<Mainline>) -> Option<Stamped<Inbound<Mainline>>> {
        let now = self.now();
        let operation = self.operations.get(&finish.operation.tag())?;
        let Goal::Get { correct: true, .. } = operation.goal else { return None };
        let item = operation.found.item.clone()?;
        let token = |node: &Node| Some((*node, operation.found.tokens.get(node)?.clone()));
        // Who has given no token stores nothing for others.
        let tokens: Vec<_> = finish.lacking().filter_map(|contact| token(&contact.node)).collect();
        if tokens.is_empty() {
            return None;
        }
        let time = operation.deadline.map(|deadline| now + (deadline - operation.started));
        let goal = Goal::Correct { item, tokens };
        let correction = Operation::new(goal, operation.target, now, Some(&operation.root));
        let start = self.start(correction);
        Some(match time {
            Some(deadline) => start.by(deadline),
            None => start,
        })
    }

    /// Sends one of the engine's requests: one of an operation in a span under the one that it is stamped with, and what is
    /// stamped with a link in a trace of its own.
    fn request(
        &mut self,
        request: Request<Mainline>,
        context: &Context,
        deadline: Option<Instant>,
    ) -> Option<Stamped<Inbound<Mainline>>> {
        let Request { id, owner, node, target, hop, ask } = request;
        let asks = Asks::of(&ask).unwrap_or(Asks::Nodes);
        let goal = owner.operation().and_then(|id| self.operations.get(&id.tag())).map(|it| &it.goal);
        let query = goal::query(ask, (node, target), goal, self.address.port());
        let sent = (self.now(), deadline);
        let span = self.open(owner, context, || Span::new(context, (owner, node, hop), asks.name(), sent));
        let why = Why::Request { id, key: node.0, target, asks, span };
        let sent = query.map(|query| self.query(node.1, query, why));
        let failure = match sent {
            Ok(Ok(transaction)) => {
                self.transactions.insert(id, transaction);
                return None;
            }
            Ok(Err(error)) => Failure::Unsendable(error.kind()),
            Err(failure) => failure,
        };
        let event = failed(id, asks, &failure);
        Some(self.ended(span, Ending::Failed(failure), event))
    }

    /// Waits for a datagram until `wake`, or for ever, and handles it. Says whether one came.
    fn receive(&mut self, wake: Option<Instant>) -> io::Result<bool> {
        let mut buffer = [0; LARGEST_DATAGRAM];
        loop {
            let wait = wake.map(|wake| wake - self.now());
            if wait.is_some_and(|wait| wait.is_zero()) {
                return Ok(false);
            }
            // A read timeout is rounded up to the system's timer tick. Where the last of the wait would be lost in it,
            // sleep in small steps instead: deadlines are kept to half a millisecond.
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

    /// Handles a datagram, whoever sent it and whatever is in it.
    pub(crate) fn datagram(&mut self, datagram: &[u8], from: SocketAddrV4) {
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
                self.serve(from, transaction, query);
                // That it does not serve, a node says of itself: anybody can say it of any other, so it is no reason to
                // take a node out of the table. It only is no candidate.
                if !read_only && !self.is_own_address(from) {
                    self.tell(Stamped::new(Inbound::Discovered((id, from))));
                }
            }
            Body::Response { from: id, answer } => {
                self.answer(from, &transaction, Ok((id, answer)));
            }
            Body::Error { code, text } => {
                self.answer(from, &transaction, Err(Failure::Error { code, text }));
            }
        }
    }

    /// Handles an answer: who says that it answers and what, or an error. It counts only if it has the
    /// transaction id that we gave and comes from the address that we asked.
    fn answer(&mut self, from: SocketAddrV4, transaction: &[u8], answer: Result<(Key160, Answer), Failure>) {
        let asked =
            Transaction::try_from(transaction).ok().and_then(|transaction| self.asked.get(&transaction));
        let Some(Asked { since, why, .. }) = asked.filter(|asked| asked.to == from).copied() else {
            self.datagrams.unexpected += 1;
            return;
        };
        match why {
            Why::Bootstrap => {
                if let Ok((id, _)) = answer {
                    // The nodes that it names are hearsay: the lookups will ask it themselves.
                    self.silent.retain(|address| *address != from);
                    self.contacts.push(((id, from), self.now() - since));
                }
            }
            Why::Request { id, key, target, asks, span } => {
                let answer = answer.and_then(|(answerer, answer)| {
                    if answerer == key { Ok(answer) } else { Err(Failure::OtherNode(answerer)) }
                });
                let (ending, event) = match answer {
                    Ok(answer) => self.read(id, (key, from), (asks, target), span, answer),
                    Err(failure) => {
                        let event = failed(id, asks, &failure);
                        (Ending::Failed(failure), event)
                    }
                };
                // This comes before the engine is told: should it find that the answer is late, it says so with a
                // cancel, and that is how the request ended then.
                let event = self.ended(span, ending, event);
                self.tell(event);
                self.forget(id);
            }
        }
    }

    /// Reads the answer of a node that was asked about this target: how the request ended, and what the engine is told.
    fn read(
        &mut self,
        request: RequestId,
        node: Node,
        (asks, target): (Asks, Key160),
        span: Option<Place>,
        answer: Answer,
    ) -> (Ending, Inbound<Mainline>) {
        if matches!(asks, Asks::Put | Asks::Announce) {
            return (Ending::Stored, Inbound::Answered { request, closer: Vec::new() });
        }
        let Answer { nodes, token, peers, item } = answer;
        let mut closer = nodes.unwrap_or_default();
        // Some nodes put whoever asks into their tables, under whatever id: we need not ask ourselves.
        closer.retain(|named| !self.is_own_address(named.1) && can_know(node.1, named.1));
        let had = match (asks, item, peers) {
            (Asks::Item, Some(item), _) if store::target(&item) == target => {
                self.note(span, |found| found.item = Some(item));
                Some(Had::Item)
            }
            (Asks::Item, Some(_), _) => Some(Had::OtherItem),
            (Asks::Peers, _, Some(peers)) => {
                let mut peers: Vec<_> = peers.into_iter().filter(|peer| is_peer(node.1, *peer)).collect();
                peers.sort_unstable();
                peers.dedup();
                let count = peers.len();
                self.note(span, |found| {
                    for peer in peers {
                        *found.peers.entry(peer).or_default() += 1;
                    }
                });
                (count > 0).then_some(Had::Peers(count))
            }
            _ => None,
        };
        if let Some(Span { had: place, .. }) = span.and_then(|span| self.span(span)) {
            *place = had;
        }
        if let (Asks::Item, Some(token)) = (asks, &token) {
            self.note(span, |found| drop(found.tokens.insert(node, token.clone())));
        }
        let value = matches!(had, Some(Had::Item | Had::Peers(_)));
        let carried = Carried { value, token: token.map(Payload::Token) };
        (Ending::Answered(closer.len()), Inbound::AnsweredWith { request, closer, carried })
    }

    /// Notes what an answer to one of an operation's own requests has shown.
    fn note(&mut self, span: Option<Place>, note: impl FnOnce(&mut Found)) {
        if let Some(Place::Operation(tag, _)) = span
            && let Some(operation) = self.operations.get_mut(&tag)
        {
            note(&mut operation.found);
        }
    }

    /// Answers a query.
    fn serve(&mut self, to: SocketAddrV4, transaction: Vec<u8>, query: Query) {
        if !self.settings.serve {
            self.datagrams.unserved += 1;
            return;
        }
        let body = match self.respond(to, query) {
            Ok(answer) => Body::Response { from: self.local(), answer },
            Err((code, text)) => Body::Error { code, text },
        };
        if self.send(&Message { transaction, body }, to).is_ok() {
            self.datagrams.served += 1;
        }
    }

    /// What a query from this address is answered, or the error that it is answered with.
    fn respond(&mut self, to: SocketAddrV4, query: Query) -> Result<Answer, (i64, String)> {
        let now = std::time::Instant::now();
        let refused = |refusal: Refusal| (refusal.code(), refusal.to_string());
        match query {
            Query::Ping => Ok(Answer::default()),
            Query::FindNode { target } => {
                Ok(Answer { nodes: Some(self.closest(target)), ..Answer::default() })
            }
            Query::GetPeers { info_hash } => {
                let peers = self.store.peers(&info_hash, now);
                let peers = (!peers.is_empty()).then_some(peers);
                Ok(Answer { peers, ..self.with_token(info_hash, to, now) })
            }
            Query::Get { target } => {
                let item = self.store.get(&target, now).map(<[u8]>::to_vec);
                Ok(Answer { item, ..self.with_token(target, to, now) })
            }
            Query::AnnouncePeer { info_hash, port, implied_port, token } => {
                let peer = SocketAddrV4::new(*to.ip(), if implied_port { to.port() } else { port });
                self.store.announce(peer, &token, &info_hash, now).map_err(refused)?;
                Ok(Answer::default())
            }
            Query::Put { item, target, token } => {
                self.store.put(*to.ip(), &token, target, item, now).map_err(refused)?;
                Ok(Answer::default())
            }
            Query::Other(_) => Err((204, "Method Unknown".into())),
        }
    }

    /// Where else to ask for what has this key, and the token with which to store it here.
    fn with_token(&mut self, key: Key160, to: SocketAddrV4, now: std::time::Instant) -> Answer {
        let token = Some(self.store.token(*to.ip(), now));
        Answer { nodes: Some(self.closest(key)), token, ..Answer::default() }
    }

    /// The nodes to name to somebody who looks for this key.
    fn closest(&self, target: Key160) -> Vec<Node> {
        self.table().closest(target).take(NODES_IN_ANSWER).map(|known| *known.node()).collect()
    }

    /// Asks a node something.
    fn query(&mut self, to: SocketAddrV4, query: Query, why: Why) -> io::Result<Transaction> {
        let mut transaction: Transaction = rand::random();
        while self.asked.contains_key(&transaction) {
            transaction = rand::random();
        }
        let body = Body::Query { from: self.local(), query, read_only: !self.settings.serve };
        let since = self.now();
        self.send(&Message { transaction: transaction.to_vec(), body }, to)?;
        self.asked.insert(transaction, Asked { to, since, why });
        Ok(transaction)
    }

    fn send(&mut self, message: &Message, to: SocketAddrV4) -> io::Result<()> {
        let datagram = message.encode().map_err(io::Error::other)?;
        if rand::random_bool(self.settings.drop) {
            self.datagrams.dropped += 1;
            return Ok(());
        }
        match self.socket.send_to(&datagram, to) {
            Ok(_) => self.datagrams.sent += 1,
            // A full buffer is a loss like any other on the way: time will tell.
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.datagrams.unsendable += 1,
            Err(error) => {
                self.datagrams.unsendable += 1;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Forgets a request of the engine's. An answer that is still on its way will be unexpected.
    fn forget(&mut self, request: RequestId) -> Option<Why> {
        let transaction = self.transactions.remove(&request)?;
        self.asked.remove(&transaction).map(|asked| asked.why)
    }

    /// Opens the span of a request. None is kept of a crawl, which makes too many, and of the routing maintenance only if that
    /// is wanted.
    fn open(&mut self, owner: Owner, stamp: &Context, span: impl FnOnce() -> Span) -> Option<Place> {
        let own = |operation: &OperationId| self.operations.contains_key(&operation.tag());
        if let Some(tag) = owner.operation().filter(own).map(OperationId::tag) {
            let operation = self.operations.get_mut(&tag)?;
            if matches!(operation.goal, Goal::Crawl { .. }) {
                return None;
            }
            operation.spans.push(span());
            return Some(Place::Operation(tag, operation.spans.len() - 1));
        }
        // What was left to be done says by its link whose trace it comes from, or that of what else was.
        if let (Owner::Background, Some(link)) = (owner, stamp.link()) {
            let mut operations = self.operations.iter_mut().rev();
            let of = operations.find(|(_, operation)| operation.led_to(link));
            if let Some((tag, operation)) = of {
                self.unfinished += 1;
                operation.background.push(span());
                return Some(Place::Background(*tag, operation.background.len() - 1));
            }
        }
        if !self.settings.trace_upkeep {
            return None;
        }
        let number = self.upkept;
        self.upkept += 1;
        self.upkeep.insert(number, span());
        Some(Place::Detached(number))
    }

    /// The span at this place.
    fn span(&mut self, place: Place) -> Option<&mut Span> {
        match place {
            Place::Operation(tag, span) => self.operations.get_mut(&tag)?.spans.get_mut(span),
            Place::Background(tag, span) => self.operations.get_mut(&tag)?.background.get_mut(span),
            Place::Detached(number) => self.upkeep.get_mut(&number),
        }
    }

    /// Ends the span of a request, if it has one, and stamps what comes of the request with it.
    fn ended(
        &mut self,
        span: Option<Place>,
        ending: Ending,
        event: Inbound<Mainline>,
    ) -> Stamped<Inbound<Mainline>> {
        let context = span.and_then(|span| self.close(span, ending));
        Stamped::new(event).in_span(context.unwrap_or(SpanContext::NONE))
    }

    /// Ends the span of a request. Says its context. Ending it again replaces how it ended.
    fn close(&mut self, place: Place, ending: Ending) -> Option<SpanContext> {
        let now = self.now();
        let goes_on = match place {
            Place::Operation(tag, _) => self.operations.get(&tag)?.end.is_some(),
            Place::Background(..) => true,
            Place::Detached(_) => false,
        };
        let span = self.span(place)?;
        let was_open = span.end.replace((now, ending)).is_none();
        let context = span.context.clone();
        self.unfinished -= usize::from(was_open && goes_on);
        Some(context)
    }

    /// What time it is, since the driver began.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_std(self.anchor, std::time::Instant::now())
    }

    /// Our own address.
    pub(crate) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Our own id.
    pub(crate) fn local(&self) -> Key160 {
        self.table().local()
    }

    /// The routing table.
    pub(crate) fn table(&self) -> &RoutingTable<Mainline> {
        self.coordinator.table()
    }

    /// Whether we would be talking to ourselves. Behind a router there are more such addresses than we can know.
    fn is_own_address(&self, address: SocketAddrV4) -> bool {
        let ip = *self.address.ip();
        let is_own = *address.ip() == ip || ip.is_unspecified() && address.ip().is_loopback();
        is_own && address.port() == self.address.port()
    }

    /// How many nodes a bucket of the routing table holds.
    pub(crate) fn bucket_size(&self) -> usize {
        self.bucket_size
    }

    /// Whether it answers others.
    pub(crate) fn serves(&self) -> bool {
        self.settings.serve
    }

    /// How many items of others it keeps, and the peers of how many torrents.
    pub(crate) fn stored(&self) -> (usize, usize) {
        self.store.len()
    }

    /// What the engine did for its routing table.
    pub(crate) fn routing(&self) -> RoutingCounts {
        self.coordinator.routing()
    }

    /// The nodes of the routing table, to be restored by the next run of the program.
    pub(crate) fn snapshot(&self) -> Vec<Saved<Mainline>> {
        self.coordinator.snapshot(self.now())
    }

    /// What became of all requests.
    pub(crate) fn traffic(&self) -> Traffic {
        self.coordinator.traffic()
    }

    /// What became of all datagrams.
    pub(crate) fn datagrams(&self) -> Datagrams {
        self.datagrams
    }

    /// How large the network is, if that is known.
    pub(crate) fn network_size(&self) -> Result<u64, NotEnoughData> {
        self.coordinator.network_size(self.now()).map(|size| size.nodes())
    }

    /// The operations that were not taken out, in the order in which they were begun.
    #[cfg(test)]
    pub(crate) fn operations(&self) -> Vec<&Operation> {
        self.operations.values().collect()
    }

    /// Takes out the operations that have ended; but not those that have left something to be done which is not, unless the
    /// program `leaves`.
    pub(crate) fn take_ended(&mut self, leaves: bool) -> Vec<Operation> {
        let all = core::mem::take(&mut self.operations).into_iter();
        let is_over = |operation: &Operation| operation.end.is_some() && (leaves || operation.is_over());
        let (ended, live) = all.partition::<BTreeMap<_, _>, _>(|(_, operation)| is_over(operation));
        self.operations = live;
        ended.into_values().collect()
    }

    /// How many operations have not ended, what they left to be done included.
    pub(crate) fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Takes out the spans of the routing maintenance that have ended.
    pub(crate) fn take_upkeep(&mut self) -> Vec<Span> {
        let all = core::mem::take(&mut self.upkeep).into_iter();
        let (ended, open) = all.partition::<BTreeMap<_, _>, _>(|(_, span)| span.end.is_some());
        self.upkeep = open;
        ended.into_values().collect()
    }

    /// Takes what the engine said beside requests and operations, and when.
    pub(crate) fn take_news(&mut self) -> Vec<(Instant, Outbound<Mainline>)> {
        core::mem::take(&mut self.news)
    }
}
