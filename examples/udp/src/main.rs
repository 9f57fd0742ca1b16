//! A node of BitTorrent's DHT (BEP 5) over one UDP socket: all that an embedder of `kad-proto` has to write.
//!
//! ```sh
//! cargo run -p kad-udp -- --port 6881
//! cargo run -p kad-udp -- --bootstrap 127.0.0.1:6881 --find 4ccd00e38533a76675f08bdbf6b34c8247398888
//! ```
//!
//! The engine does no IO and reads no clock. [`Driver::run`] does both, in a loop of five steps:
//!
//! 1. Pass an event and the current time to the engine.
//! 2. Carry out all events that it returns: send requests, forget those that it cancels, take what has finished.
//! 3. Read when the engine must be called again if nothing happens before: `poll_timeout`.
//! 4. Wait for a datagram, but no longer than until then.
//! 5. Turn the result into the next event: a node that has sent a query, an answer to a request of ours, or a tick
//!    where only time has passed. Back to step 1.
//!
//! The other files: `bep5.rs` has the types of the network, `krpc.rs` the codec, `socket.rs` the socket,
//! `options.rs` the command line.

mod bep5;
mod krpc;
mod options;
mod socket;

use bep5::{Bep5, K};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::{
    Coordinator, Finish, Instant, Key160, Machine, Request, Response, RoutingInbound, RoutingOutbound,
    Secret, Stamped, Start,
};
use krpc::{Body, Message, Node, Query};
use options::Options;
use socket::Socket;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::error::Error;
use std::io;
use std::net::SocketAddrV4;
use std::process::ExitCode;
use std::time::Duration;

/// Tags: numbers by which the driver recognises the operations that it starts.
const JOIN: u64 = 0;
const FIND: u64 = 1;

/// Names a query on the wire. BEP 5 allows any string, but the crate `mainline` ignores ids that do not have 4
/// bytes.
type Transaction = [u8; 4];

/// The transaction id of a request: the first bytes of its token, which no stranger can guess to forge an answer.
fn transaction(request: &Request<Bep5>) -> Transaction {
    let [a, b, c, d, ..] = request.token.to_bytes();
    [a, b, c, d]
}

/// The engine, and the state that its embedder keeps.
struct Driver {
    dht: Coordinator<Bep5>,
    socket: Socket,
    /// Requests in flight, by the address of the node and the transaction id.
    pending: HashMap<(SocketAddrV4, Transaction), Request<Bep5>>,
    /// The program leaves soon, and asks others not to admit it to their routing tables (BEP 43).
    read_only: bool,
    /// The origin of the engine's time.
    anchor: std::time::Instant,
}

impl Driver {
    fn new(port: u16, read_only: bool) -> Result<Self, Box<dyn Error>> {
        // The engine reads no random numbers from the system: it derives all that strangers must not guess from
        // this secret.
        let (id, secret) = (Key160::new(rand::random()), Secret::new(rand::random()));
        Ok(Self {
            dht: Coordinator::new(id, bep5::config(read_only), &secret)?,
            socket: Socket::bind(port)?,
            pending: HashMap::new(),
            read_only,
            anchor: std::time::Instant::now(),
        })
    }

    /// The loop. It begins with the start of an operation. The finish of a find ends it; without a find it
    /// never ends.
    fn run(&mut self, start: Stamped<Inbound<Bep5>>) -> io::Result<Finish<Bep5>> {
        let mut event = start;
        loop {
            // Read the clock here, after the wait. The engine handles what is due by now before the event: so a
            // flood of datagrams delays no time-out, and an answer that is submitted after its deadline is late,
            // even if it arrived in time. Do nothing slow in this loop.
            for out in self.dht.handle(self.now(), event) {
                match out.event {
                    // `out.deadline` is when its answer is late. It needs no timer in the driver: `poll_timeout`
                    // covers it.
                    Outbound::Request(request) => self.ask(request),
                    // Timed out, or no longer needed. UDP has nothing to abort, so forget the request: a late
                    // answer then matches none. Without this, each lost datagram would leave an entry for ever.
                    Outbound::Cancel(cancel) => self.pending.retain(|_, request| request.id != cancel.id),
                    Outbound::Finished(finish) if finish.operation.tag() == FIND => return Ok(finish),
                    // The operation has not begun, so there will be no finish to wait for.
                    Outbound::Refused(refused) => return Err(io::Error::other(refused.reason)),
                    Outbound::Routing(change) => report_routing(&change),
                    _ => {} // events that this program has no use for
                }
            }
            // `poll_timeout` is exact: a tick before it does nothing, one after it makes time-outs late. If it has
            // passed, the wait is zero, and a datagram that is in the socket already is handled before the tick.
            let wait = self.dht.poll_timeout().map(|at| at - self.now());
            event = Stamped::new(match self.socket.receive(wait)? {
                Some((message, from)) => self.read(message, from),
                None => Inbound::Tick,
            });
        }
    }

    /// Sends a request of the engine.
    fn ask(&mut self, request: Request<Bep5>) {
        let (transaction, to) = (transaction(&request), request.node.1);
        // Two requests in flight to one address have the same id once in 2^32. Then the earlier one keeps it, and
        // the later one is not sent: it times out, like one that is lost on the way.
        if let Entry::Vacant(entry) = self.pending.entry((to, transaction)) {
            let query = Query::FindNode { target: entry.insert(request).target };
            self.query(to, transaction, query, self.read_only);
        }
    }

    /// The engine's event for a message; a tick where there is none.
    fn read(&mut self, Message { transaction, body }: Message, from: SocketAddrV4) -> Inbound<Bep5> {
        if let Body::Query { from: id, query, read_only } = body {
            // Answer first: when the engine learns of the sender, it checks it by a request. A node that names no
            // others fails the check, and one that joins through this node knows no others until it has this
            // answer.
            self.serve(from, transaction, &query);
            return if read_only { Inbound::Tick } else { RoutingInbound::Discovered((id, from)).into() };
        }
        // An answer counts if its address and its transaction id are those of a request in flight.
        let asked = Transaction::try_from(transaction).ok();
        let Some(request) = asked.and_then(|transaction| self.pending.remove(&(from, transaction))) else {
            return Inbound::Tick;
        };
        match body {
            Body::Response { from: id, nodes } if id == request.node.0 => {
                Response::answered(request.id, nodes.unwrap_or_default()).into()
            }
            _ => Response::failed(request.id).into(), // an error, or another node lives there now
        }
    }

    /// Answers a query.
    fn serve(&self, to: SocketAddrV4, transaction: Vec<u8>, query: &Query) {
        let (table, from) = (self.dht.table(), self.dht.table().local());
        let body = match query {
            Query::Ping => Body::Response { from, nodes: None },
            Query::FindNode { target } => {
                let closest = table.closest(*target).take(K).map(|known| *known.node());
                Body::Response { from, nodes: Some(closest.collect()) }
            }
            Query::Other(_) => Body::Error { code: 204, text: "Method Unknown".into() },
        };
        self.socket.send(Message { transaction, body }, to);
    }

    fn query(&self, to: SocketAddrV4, transaction: Transaction, query: Query, read_only: bool) {
        let body = Body::Query { from: self.dht.table().local(), query, read_only };
        self.socket.send(Message { transaction: transaction.to_vec(), body }, to);
    }

    fn now(&self) -> Instant {
        Instant::from_std(self.anchor, std::time::Instant::now())
    }

    /// Makes first contact. The engine needs the ids of nodes, and of this one only the address is known: ping it,
    /// a few times in case a datagram is lost.
    fn reverse_ping(&mut self, address: SocketAddrV4, deadline: Instant) -> io::Result<Option<Node>> {
        for _ in 0..4 {
            let transaction: Transaction = rand::random();
            // Always read-only: as long as the loop does not run, no query is answered.
            self.query(address, transaction, Query::Ping, true);
            let until = deadline.min(self.now() + Duration::from_millis(500));
            while self.now() < until {
                if let Some((message, from)) = self.socket.receive(Some(until - self.now()))?
                    && (from, message.transaction) == (address, Vec::from(transaction))
                    && let Body::Response { from: id, .. } = message.body
                {
                    return Ok(Some((id, address)));
                }
            }
        }
        Ok(None)
    }
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let Some(options) = Options::parse()? else { return Ok(ExitCode::SUCCESS) };
    let mut driver = Driver::new(options.port, options.find.is_some())?;
    println!("node {} on port {}", driver.dht.table().local(), driver.socket.port()?);
    let deadline = driver.now() + options.deadline;
    let mut seeds = Vec::new();
    if let Some(address) = options.bootstrap {
        let Some(node) = driver.reverse_ping(address, deadline)? else {
            eprintln!("nobody answers at {address}");
            return Ok(ExitCode::from(2));
        };
        seeds.push(node);
    }
    // A bootstrap is a lookup of the node's own key. Without seeds it ends at once: the first node waits for
    // others.
    let start = match options.find {
        Some(target) => Start::find(FIND, target).with_seeds(seeds),
        None => Start::bootstrap(JOIN, driver.dht.table().local(), seeds),
    };
    let finish = driver.run(Stamped::new(Inbound::Start(start)).with_deadline(deadline))?;
    report(&finish);
    Ok(if finish.closest.is_empty() { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

/// Prints what happens to the routing table: its bootstrap, and which nodes enter (+) and leave (-).
fn report_routing(change: &RoutingOutbound<Bep5>) {
    match change {
        RoutingOutbound::Bootstrapped(join) => println!("bootstrap ended: {} nodes known", join.nodes),
        RoutingOutbound::Admitted((id, address)) => println!("+ {id}  {address}"),
        RoutingOutbound::Removed((id, address)) => println!("- {id}  {address}"),
        _ => {}
    }
}

/// Prints the result of a find.
fn report(finish: &Finish<Bep5>) {
    println!("closest to {}:", finish.target);
    for contact in &finish.closest {
        let (id, address) = contact.node;
        println!("  {id}  {address}  hop {}, {:?}", contact.hop(), contact.round_trip());
    }
    let it = finish.stats;
    let took = it.ended.map_or(Duration::ZERO, |ended| ended - it.started);
    println!("{} after {took:?}, {} hops", finish.outcome, it.hops);
    println!(
        "{} requests: {} answered, {} failed, {} timed out, {} cancelled",
        it.sent, it.answered, it.failed, it.timed_out, it.cancelled
    );
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("kad-udp: {error}");
        ExitCode::FAILURE
    })
}
