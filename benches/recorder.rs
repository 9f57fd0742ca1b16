//! What a recorder costs: `cargo bench --features record --bench recorder [-- plain N | ring N]`.
//!
//! Lookups of the common workload by a coordinator: without a recorder, with a ring of 1 MB, and with the text as well. Each
//! recorded answer names 20 nodes of 32 bytes. `plain N` and `ring N` do N lookups and nothing else, to be counted by callgrind.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation
)]

#[allow(dead_code)] // shared with the tests
#[path = "../tests/support/ideal.rs"]
mod ideal;

use ideal::{Ideal, Plain};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::record::{Keep, Recorder};
use kad_proto::{Batch, Config, Coordinator, Instant, Key256, Machine, RoutingConfig, Stamped, Start};
use std::collections::VecDeque;
use std::time::{Duration, Instant as Clock};

const LOCAL: Key256 = Key256::new([0; 32]);
const LOOKUPS: usize = 200;
const ROUNDS: usize = 10;

/// Runs one lookup. Says how many calls that were and how long the machine took for them.
fn lookup(
    machine: &mut impl Machine<Inbound = Inbound<Plain>, Outbound = Outbound<Plain>>,
    network: &Ideal,
    target: Key256,
    first: usize,
    out: &mut Batch<Outbound<Plain>>,
) -> (u64, Duration) {
    let mut requests = VecDeque::new();
    let start = Start::find(1, target).with_seeds(network.answer(first, &target));
    let mut event = Stamped::new(Inbound::Start(start));
    let (mut calls, mut took) = (0, Duration::ZERO);
    loop {
        let begin = Clock::now();
        machine.handle_into(Instant::ORIGIN, event, out);
        took += begin.elapsed();
        calls += 1;
        let mut over = false;
        for said in out.drain(..) {
            match said.event {
                Outbound::Request(request) => requests.push_back((request.id, request.node)),
                Outbound::Finished(_) => over = true,
                _ => {}
            }
        }
        if over {
            return (calls, took);
        }
        let (request, node) = requests.pop_front().unwrap();
        let closer = network.answer(network.index(&node).unwrap(), &target);
        event = Stamped::new(Inbound::Answered { request, closer });
    }
}

fn measure(
    name: &str,
    mut machine: impl Machine<Inbound = Inbound<Plain>, Outbound = Outbound<Plain>>,
    network: &Ideal,
) {
    let (mut best, mut out) = (f64::MAX, Batch::new());
    for _ in 0..ROUNDS {
        let (mut calls, mut took) = (0, Duration::ZERO);
        for (target, first) in network.lookups(LOOKUPS) {
            let (more, time) = lookup(&mut machine, network, target, first, &mut out);
            calls += more;
            took += time;
        }
        best = best.min(took.as_nanos() as f64 / calls as f64);
    }
    println!("{name:24} {best:8.0} ns per call");
}

fn config() -> Config {
    Config { routing: RoutingConfig::off(), ..Config::default() }
}

fn recorder(keep: Keep) -> Recorder<Plain> {
    Recorder::new(LOCAL, config(), keep).unwrap()
}

fn main() {
    let ring = Keep::Last { bytes: 1_000_000 };
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [which, many] = &arguments[..] {
        let (network, mut out) = (Ideal::new(2_000), Batch::new());
        let (mut plain, mut recorder) = (Coordinator::new(LOCAL, config()).unwrap(), recorder(ring));
        let mut calls = 0;
        for (target, first) in network.lookups(many.parse().unwrap()) {
            calls += match which.as_str() {
                "plain" => lookup(&mut plain, &network, target, first, &mut out).0,
                _ => lookup(&mut recorder, &network, target, first, &mut out).0,
            };
        }
        println!("{calls} calls");
        return;
    }
    let network = Ideal::new(10_000);
    measure("no recorder", Coordinator::new(LOCAL, config()).unwrap(), &network);
    measure("ring of 1 MB", recorder(ring), &network);
    measure("ring of 1 MB, with text", recorder(ring).with_text(), &network);
    let (mut all, mut calls, mut out) = (recorder(Keep::All), 0, Batch::new());
    let head = all.take().len();
    for (target, first) in network.lookups(LOOKUPS) {
        calls += lookup(&mut all, &network, target, first, &mut out).0;
    }
    let bytes = all.bytes().len() as f64 / calls as f64;
    println!("{bytes:.0} bytes per call, {head} for the construction");
}
