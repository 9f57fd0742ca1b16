//! What the event loop costs above the engine: the same lookups in a network in memory, whose answers come at once, by the
//! engine alone and by the kit.
//!
//! `cargo bench -p kad-proto-async --bench instructions -- WHICH N` does 50 lookups N times, to be counted by callgrind: see
//! the script `examples/async/instructions`. WHICH is `engine` or `kit`. It prints the number of events that the engine was
//! given.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]
#![allow(unexpected_cfgs)] // of the file that is shared

#[allow(dead_code)] // shared with the tests of the engine
#[path = "../../../tests/support/ideal.rs"]
mod ideal;

use ideal::Ideal;
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::{
    Batch, Config, Coordinator, Failure, Family, Instant, Key256, Machine, Response, RoutingConfig, Secret,
    Stamped, Start,
};
use kad_proto_async::{Call, Node, Payload, Reply, Timer, Transport, Wire};
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

const LOCAL: Key256 = Key256::new([0; 32]);
const LOOKUPS: usize = 50;

#[derive(Clone, Debug, Default, PartialEq)]
struct Mem;

impl Family for Mem {
    type Key = Key256;
    type Target = Key256;
    type Node = Key256;
    type Message = Payload<Self>;

    fn key(node: &Key256) -> Key256 {
        *node
    }
}

impl Wire for Mem {
    type Value = u64;
    type Provider = u64;
}

/// An engine that counts its calls.
#[derive(Debug)]
struct Counted(Coordinator<Mem>, Arc<AtomicUsize>);

impl AsRef<Coordinator<Mem>> for Counted {
    fn as_ref(&self) -> &Coordinator<Mem> {
        &self.0
    }
}

impl Machine for Counted {
    type Inbound = Inbound<Mem>;
    type Outbound = Outbound<Mem>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<Mem>>, out: &mut Batch<Outbound<Mem>>) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.handle_into(now, event, out);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }
}

/// Time stands still, and is not waited for.
struct Still;

impl Timer for Still {
    fn now(&self) -> Instant {
        Instant::ORIGIN
    }

    async fn sleep_until(&self, _: Instant) {
        std::future::pending::<()>().await;
    }
}

struct Link(Arc<Ideal>);

impl Transport<Mem> for Link {
    async fn request(&self, call: Call<Mem>) -> Result<Reply<Mem>, Failure<Mem>> {
        Ok(Reply::naming(self.0.answer(self.0.index(&call.node).unwrap(), &call.target)))
    }
}

fn engine(calls: &Arc<AtomicUsize>) -> Counted {
    let config = Config { routing: RoutingConfig::off(), ..Config::default() };
    Counted(Coordinator::new(LOCAL, config, &Secret::from_seed(0)).unwrap(), calls.clone())
}

/// By the engine alone: a queue of requests.
fn by_engine(network: &Ideal, calls: &Arc<AtomicUsize>, times: usize) {
    let (mut engine, mut out, mut requests) = (engine(calls), Batch::new(), VecDeque::new());
    for (target, first) in (0..times).flat_map(|_| network.lookups(LOOKUPS)) {
        let start = Start::find(1, target).with_seeds(network.answer(first, &target));
        let mut event = Stamped::new(Inbound::Start(start));
        'lookup: loop {
            engine.handle_into(Instant::ORIGIN, event, &mut out);
            for said in out.drain(..) {
                match said.event {
                    Outbound::Request(request) => requests.push_back((request.id, request.node)),
                    Outbound::Finished(_) => break 'lookup,
                    _ => {}
                }
            }
            let (request, node) = requests.pop_front().unwrap();
            let closer = network.answer(network.index(&node).unwrap(), &target);
            event = Stamped::new(Inbound::Response(Response::answered(request, closer)));
        }
        requests.clear();
    }
}

/// By the kit: a handle, an event loop, and futures.
fn by_kit(network: &Arc<Ideal>, calls: &Arc<AtomicUsize>, times: usize) {
    let node = Node::with_engine(engine(calls), LOCAL);
    let (dht, run) = node.run(Link(network.clone()), Still).unwrap();
    let (mut run, mut cx) = (pin!(run), Context::from_waker(Waker::noop()));
    for (target, first) in (0..times).flat_map(|_| network.lookups(LOOKUPS)) {
        let seeds = network.answer(first, &target);
        let mut lookup = pin!(dht.find_node(target).with_seeds(seeds).into_future());
        loop {
            if let Poll::Ready(found) = lookup.as_mut().poll(&mut cx) {
                assert!(!found.unwrap().closest.is_empty());
                break;
            }
            assert_eq!(run.as_mut().poll(&mut cx), Poll::Pending);
        }
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (network, calls) = (Arc::new(Ideal::new(2_000)), Arc::new(AtomicUsize::new(0)));
    let [which, times] = &arguments[..] else {
        return println!("see the script examples/async/instructions");
    };
    let times = times.parse().unwrap();
    match which.as_str() {
        "engine" => by_engine(&network, &calls, times),
        _ => by_kit(&network, &calls, times),
    }
    println!("events: {}", calls.load(Ordering::Relaxed));
}
