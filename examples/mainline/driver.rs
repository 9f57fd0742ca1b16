//! The driver: everything that the engine leaves to its embedder, over one UDP socket and without a runtime.
//!
//! The heart is [`Driver::step`], which is the whole loop of an embedder: wait for a datagram, but only until the engine
//! wants to be woken; tell the engine what came, or that time passed; do everything that it says.

use crate::engine::Engine;
use crate::family::{Failure, Mainline, Node, Payload};
use crate::goal::{self, Asks, Found, Goal};
use crate::krpc::{Answer, Body, Message, Query};
use crate::operation::{End, Operation};
use crate::serving;
use crate::store::{self, Limits, Store};
use crate::trace;
use core::time::Duration;
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::netsize::NotEnoughData;
use kad_proto::routing::RoutingCounts;
use kad_proto::table::Saved;
use kad_proto::telemetry::{Metrics, Spans, Traced};
use kad_proto::{
    Carried, Config, Context, Family, Finish, Instant, Key160, Machine, OperationId, Owner, Request,
    RequestId, RoutingTable, Stamped, Start, Traffic,
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
pub(crate) struct Settings {
    /// The share of outgoing datagrams to lose on purpose.
    pub(crate) drop: f64,
    /// Whether to answer queries.
    pub(crate) serve: bool,
    /// Whether to record what the engine is told.
    pub(crate) record: bool,
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

/// How often a bootstrap node is asked, and how long an answer is waited for each time.
const BOOTSTRAP_TRIES: u32 = 8;
/// So many times even if others have answered: messages get lost.
const BOOTSTRAP_LEAST: u32 = 4;
const BOOTSTRAP_WAIT: Duration = Duration::from_millis(250);
/// The tag of the engine's own lookup when it joins. Those of operations count from 0.
pub(crate) const JOIN: u64 = u64::MAX;
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
        owner: Owner,
        key: Key160,
        target: Key160,
        asks: Asks,
    },
}

/// A DHT node: the engine, and all that it does not do itself.
#[derive(Debug)]
pub(crate) struct Driver {
    engine: Traced<Mainline, SdkTracer, Engine>,
    /// How many nodes a bucket of its table holds.
    bucket_size: usize,
    socket: UdpSocket,
    address: SocketAddrV4,
    /// The origin of the engine's time, and what time it was then.
    anchor: std::time::Instant,
    origin: SystemTime,
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

/// For the attribute of a span.
fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Driver {
    /// The node with this id, on a socket of its own that is bound to this address. Port 0 is any that is free. Its operations and
    /// requests are spans of this tracer, and counted by these metrics.
    ///
    /// # Errors
    /// Where there is no such socket; and where the engine does not accept the configuration, its error as an
    /// [`ErrorKind::InvalidInput`].
    pub(crate) fn new(
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
        let bucket_size = config.table.bucket_size;
        let engine = Engine::new(id, config, settings.record).map_err(refused)?;
        let mut engine =
            Traced::with_spans(engine, Spans::new(tracer, origin).describe_nodes(trace::describe));
        if let Some(metrics) = metrics {
            engine = engine.with_metrics(metrics);
        }
        Ok(Self {
            engine,
            bucket_size,
            socket,
            address,
            anchor,
            origin,
            settings,
            store: Store::new(id, Limits::default(), anchor),
            asked: HashMap::new(),
            transactions: HashMap::new(),
            silent: Vec::new(),
            contacts: Vec::new(),
            operations: BTreeMap::new(),
            begun: 0,
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
            self.tell(Stamped::new(Inbound::Start(start)));
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
        let start = self.start(goal, target, now).by(now + time);
        self.tell(start);
    }

    /// Takes up an operation: says what the engine is to be told.
    fn start(&mut self, goal: Goal, target: Key160, now: Instant) -> Stamped<Inbound<Mainline>> {
        // The tag is ours to choose: the number of the operation, by which its events find their way.
        let tag = self.begun;
        self.begun += 1;
        let start = goal.start(tag, target);
        self.operations.insert(tag, Operation::new(tag, goal, target, now));
        Stamped::new(start)
    }

    /// Ends all operations now.
    pub(crate) fn stop(&mut self) {
        let live = self.operations.keys().filter_map(|tag| self.engine.coordinator().operation(*tag));
        for operation in live.collect::<Vec<_>>() {
            self.tell(Stamped::new(Inbound::Stop(operation)));
        }
    }

    /// Runs until all operations have ended, and what they left to be done in the background.
    ///
    /// # Errors
    /// That of the socket, where it cannot be read any more.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        while self.unfinished() > 0 {
            self.step(None)?;
        }
        Ok(())
    }

    /// One turn of the loop, which takes no longer than until `latest`, if that is given.
    ///
    /// # Errors
    /// That of the socket, where it cannot be read any more.
    pub(crate) fn step(&mut self, latest: Option<Instant>) -> io::Result<()> {
        let wake = [self.engine.poll_timeout(), latest].into_iter().flatten().min();
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
            for said in self.engine.handle(now, event) {
                events.extend(self.act(said));
            }
        }
    }

    /// Does one thing that the engine says.
    fn act(&mut self, said: Stamped<Outbound<Mainline>>) -> Option<Stamped<Inbound<Mainline>>> {
        match said.event {
            Outbound::Request(request) => return self.request(request),
            Outbound::Cancel(cancel) => self.forget(cancel.id),
            Outbound::Started(started) => self.placed(started.operation.tag(), &said.context, said.deadline),
            Outbound::Finished(finish) => {
                let correction = self.correction(&finish);
                self.end(finish.operation.tag(), End::Lookup(finish));
                return correction;
            }
            Outbound::BroadcastFinished(finish) => self.end(finish.operation.tag(), End::Broadcast(finish)),
            Outbound::CrawlFinished(finish) => self.end(finish.operation.tag(), End::Crawl(finish)),
            Outbound::Refused(refused) => {
                self.placed(refused.tag, &said.context, None);
                self.end(refused.tag, End::Refused(refused.reason));
            }
            Outbound::Progress(_) | Outbound::CrawlProgress(_) | Outbound::BroadcastProgress(_) => {}
            news => self.news.push((self.now(), news)),
        }
        None
    }

    /// Notes which span an operation is, and until when it lasts.
    fn placed(&mut self, tag: u64, context: &Context, deadline: Option<Instant>) {
        if let Some(operation) = self.operations.get_mut(&tag) {
            operation.span = context.parent().cloned();
            operation.deadline = deadline;
        }
    }

    /// Notes how an operation has ended.
    fn end(&mut self, tag: u64, end: End) {
        if let Some(operation) = self.operations.get_mut(&tag) {
            operation.end = Some(end);
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
        let (target, span) = (operation.target, operation.span.clone());
        let mut start = self.start(goal, target, now);
        start.deadline = time;
        start.context = span.map_or(Context::NONE, Context::from);
        Some(start)
    }

    /// Sends one of the engine's requests.
    fn request(&mut self, request: Request<Mainline>) -> Option<Stamped<Inbound<Mainline>>> {
        let Request { id, owner, node, target, ask, .. } = request;
        let asks = Asks::of(&ask).unwrap_or(Asks::Nodes);
        self.note(id, trace::ASKED, asks.name());
        let goal = owner.operation().and_then(|id| self.operations.get(&id.tag())).map(|it| &it.goal);
        let query = goal::query(ask, (node, target), goal, self.address.port());
        let why = Why::Request { id, owner, key: node.0, target, asks };
        let sent = query.map(|query| self.query(node.1, query, why));
        let failure = match sent {
            Ok(Ok((transaction, size))) => {
                self.note(id, "kad.request.size", count(size));
                self.transactions.insert(id, transaction);
                return None;
            }
            Ok(Err(error)) => Failure::Unsendable(error.kind().to_string()),
            Err(failure) => failure,
        };
        self.note(id, trace::FAILURE, failure.to_string());
        Some(Stamped::new(goal::failed(id, asks, failure)))
    }

    /// Notes on the span of a request what only the driver knows of it.
    fn note(&mut self, request: RequestId, name: &'static str, value: impl Into<opentelemetry::Value>) {
        if let Some(span) = self.engine.request_span(request) {
            span.set_attribute(KeyValue::new(name, value));
        }
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
                self.answer(from, &transaction, Ok((id, answer)), datagram.len());
            }
            Body::Error { code, text } => {
                self.answer(from, &transaction, Err(Failure::Error { code, text }), datagram.len());
            }
        }
    }

    /// Handles an answer of so many bytes: who says that it answers and what, or an error. It counts only if it has the
    /// transaction id that we gave and comes from the address that we asked.
    fn answer(
        &mut self,
        from: SocketAddrV4,
        transaction: &[u8],
        answer: Result<(Key160, Answer), Failure>,
        size: usize,
    ) {
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
            Why::Request { id, owner, key, target, asks } => {
                // What its span is to say has to be noted before the engine is told, as that ends it.
                self.note(id, "kad.response.size", count(size));
                let answer = answer.and_then(|(answerer, answer)| {
                    if answerer == key { Ok(answer) } else { Err(Failure::OtherNode(answerer)) }
                });
                let event = match answer {
                    Ok(answer) => self.read(id, (key, from), (asks, target), owner, answer),
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

    /// Reads the answer of a node that was asked about this target: what the engine is told.
    fn read(
        &mut self,
        request: RequestId,
        node: Node,
        (asks, target): (Asks, Key160),
        owner: Owner,
        answer: Answer,
    ) -> Inbound<Mainline> {
        if matches!(asks, Asks::Put | Asks::Announce) {
            return Inbound::Answered { request, closer: Vec::new() };
        }
        let Answer { nodes, token, peers, item } = answer;
        let mut closer = nodes.unwrap_or_default();
        // Some nodes put whoever asks into their tables, under whatever id: we need not ask ourselves.
        closer.retain(|named| !self.is_own_address(named.1) && can_know(node.1, named.1));
        let mut value = false;
        match (asks, item, peers) {
            (Asks::Item, Some(item), _) if store::target(&item) == target => {
                self.note(request, trace::HAD, "the item");
                self.found(owner, |found| found.item = Some(item));
                value = true;
            }
            (Asks::Item, Some(_), _) => self.note(request, trace::HAD, "another item than that asked for"),
            (Asks::Peers, _, Some(peers)) => {
                let mut peers: Vec<_> = peers.into_iter().filter(|peer| is_peer(node.1, *peer)).collect();
                peers.sort_unstable();
                peers.dedup();
                value = !peers.is_empty();
                if value {
                    let plural = if peers.len() == 1 { "" } else { "s" };
                    self.note(request, trace::HAD, format!("{} peer{plural}", peers.len()));
                }
                self.found(owner, |found| {
                    for peer in peers {
                        *found.peers.entry(peer).or_default() += 1;
                    }
                });
            }
            _ => {}
        }
        if let (Asks::Item, Some(token)) = (asks, &token) {
            self.found(owner, |found| drop(found.tokens.insert(node, token.clone())));
        }
        let carried = Carried { value, token: token.map(Payload::Token) };
        Inbound::AnsweredWith { request, closer, carried }
    }

    /// Notes what an answer to one of an operation's own requests has shown.
    fn found(&mut self, owner: Owner, note: impl FnOnce(&mut Found)) {
        if let Some(operation) = owner.operation().and_then(|id| self.operations.get_mut(&id.tag())) {
            note(&mut operation.found);
        }
    }

    /// Answers a query.
    fn serve(&mut self, to: SocketAddrV4, transaction: Vec<u8>, query: Query) {
        if !self.settings.serve {
            self.datagrams.unserved += 1;
            return;
        }
        let table = self.engine.coordinator().table();
        let body = match serving::respond(&mut self.store, table, to, query) {
            Ok(answer) => Body::Response { from: self.local(), answer },
            Err((code, text)) => Body::Error { code, text },
        };
        if self.send(&Message { transaction, body }, to).is_ok() {
            self.datagrams.served += 1;
        }
    }

    /// Asks a node something, in so many bytes.
    fn query(&mut self, to: SocketAddrV4, query: Query, why: Why) -> io::Result<(Transaction, usize)> {
        let mut transaction: Transaction = rand::random();
        while self.asked.contains_key(&transaction) {
            transaction = rand::random();
        }
        let body = Body::Query { from: self.local(), query, read_only: !self.settings.serve };
        let since = self.now();
        let size = self.send(&Message { transaction: transaction.to_vec(), body }, to)?;
        self.asked.insert(transaction, Asked { to, since, why });
        Ok((transaction, size))
    }

    /// Sends a message, and says how many bytes it has.
    fn send(&mut self, message: &Message, to: SocketAddrV4) -> io::Result<usize> {
        let datagram = message.encode().map_err(io::Error::other)?;
        if rand::random_bool(self.settings.drop) {
            self.datagrams.dropped += 1;
            return Ok(datagram.len());
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
        Ok(datagram.len())
    }

    /// Forgets a request of the engine's. An answer that is still on its way will be unexpected.
    fn forget(&mut self, request: RequestId) {
        if let Some(transaction) = self.transactions.remove(&request) {
            self.asked.remove(&transaction);
        }
    }

    /// What time it is, since the driver began.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_std(self.anchor, std::time::Instant::now())
    }

    /// What time it was when the driver began.
    pub(crate) fn origin(&self) -> SystemTime {
        self.origin
    }

    /// Ends the spans of all that is not over: for a program that leaves.
    pub(crate) fn abandon(&mut self) {
        let now = self.now();
        self.engine.abandon(now);
    }

    /// Has the metrics, if there are any, say how the engine is now.
    pub(crate) fn measure(&mut self) {
        let now = self.now();
        self.engine.measure(now);
    }

    /// Takes what the engine was told since the last time, if that is recorded.
    pub(crate) fn take_recording(&mut self) -> Option<Vec<u8>> {
        self.engine.machine_mut().take_recording()
    }

    /// The rest of it, which closes the recording.
    pub(crate) fn recording(&self) -> Option<Vec<u8>> {
        self.engine.machine().recording()
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
        self.engine.coordinator().table()
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
        self.engine.coordinator().routing()
    }

    /// The nodes of the routing table, to be restored by the next run of the program.
    pub(crate) fn snapshot(&self) -> Vec<Saved<Mainline>> {
        self.engine.coordinator().snapshot(self.now())
    }

    /// What became of all requests.
    pub(crate) fn traffic(&self) -> Traffic {
        self.engine.coordinator().traffic()
    }

    /// What became of all datagrams.
    pub(crate) fn datagrams(&self) -> Datagrams {
        self.datagrams
    }

    /// How large the network is, if that is known.
    pub(crate) fn network_size(&self) -> Result<u64, NotEnoughData> {
        self.engine.coordinator().network_size(self.now()).map(|size| size.nodes())
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
        let is_over =
            |(_, operation): &(_, Operation)| operation.end.is_some() && (leaves || !self.goes_on(operation));
        let (ended, live) = all.partition::<BTreeMap<_, _>, _>(is_over);
        self.operations = live;
        ended.into_values().collect()
    }

    /// Whether an operation that has ended has left something to be done. What the engine does in the background it did
    /// not say for which: it is waited for by all that may have led to it.
    fn goes_on(&self, operation: &Operation) -> bool {
        let leads = matches!(operation.end, Some(End::Broadcast(_)));
        self.owners().any(|owner| match owner {
            Owner::Background => leads,
            _ => owner.operation().map(OperationId::tag) == Some(operation.tag),
        })
    }

    /// Whose the requests on the wire are.
    fn owners(&self) -> impl Iterator<Item = Owner> {
        self.asked.values().filter_map(|asked| match asked.why {
            Why::Bootstrap => None,
            Why::Request { owner, .. } => Some(owner),
        })
    }

    /// How many operations have not ended, and requests that go on after the end of theirs.
    pub(crate) fn unfinished(&self) -> usize {
        let live = self.operations.values().filter(|operation| operation.end.is_none());
        let operation = |owner: &Owner| owner.operation().and_then(|id| self.operations.get(&id.tag()));
        let goes_on = |owner: &Owner| {
            *owner == Owner::Background || operation(owner).is_some_and(|operation| operation.end.is_some())
        };
        live.count() + self.owners().filter(goes_on).count()
    }

    /// Takes what the engine said beside requests and operations, and when.
    pub(crate) fn take_news(&mut self) -> Vec<(Instant, Outbound<Mainline>)> {
        core::mem::take(&mut self.news)
    }
}
