//! The cost of tracing, measuring and recording a coordinator: lookups of the common workload, whose answers name
//! 20 nodes of 32 bytes each, by a plain coordinator and by each of the wrappers around it.
//!
//! `cargo bench --all-features --bench wrappers [-- WHICH N]`; with arguments it does 50 lookups N times and
//! nothing else, to be counted by callgrind: see `benches/instructions`. WHICH is `plain`, or `off`, `nothing`,
//! `unsampled`, `spans` (the tracer of a `Traced`), `metrics`, or `ring` (a recorder).

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
use kad_proto::telemetry::{Metrics, Traced};
use kad_proto::{
    Batch, Config, Coordinator, Instant, Key256, Machine, Response, RoutingConfig, Secret, Stamped, Start,
};
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::trace::noop::NoopTracer;
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use std::collections::VecDeque;
use std::time::{Duration, Instant as Clock, SystemTime};

const LOCAL: Key256 = Key256::new([0; 32]);
const LOOKUPS: usize = 200;
const ROUNDS: usize = 10;

/// Runs one lookup. Returns the number of calls and the time that the machine took for them.
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
        event = Stamped::new(Inbound::Response(Response::answered(request, closer)));
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

fn plain() -> Coordinator<Plain> {
    Coordinator::new(LOCAL, config(), &Secret::from_seed(0)).unwrap()
}

fn recorder(keep: Keep) -> Recorder<Plain> {
    Recorder::new(LOCAL, config(), &Secret::from_seed(0), keep).unwrap()
}

/// Spans that are made and, without a processor, dropped; or, unsampled, not made.
fn traced(sampler: Sampler) -> Traced<Plain, SdkTracer> {
    let tracer = SdkTracerProvider::builder().with_sampler(sampler).build().tracer("bench");
    Traced::new(plain(), tracer, SystemTime::now())
}

/// The tracer of a program that has none installed.
fn nothing() -> Traced<Plain, NoopTracer> {
    Traced::new(plain(), NoopTracer::new(), SystemTime::now())
}

fn off() -> Traced<Plain, NoopTracer> {
    Traced::off(plain())
}

fn measured() -> Traced<Plain, NoopTracer> {
    let reader = PeriodicReader::builder(InMemoryMetricExporter::default()).build();
    let provider = SdkMeterProvider::builder().with_reader(reader).build();
    let measured = off().with_metrics(Metrics::new(&provider.meter("bench")));
    // Dropping the last handle would stop the counting; it is kept for as long as the program runs.
    std::mem::forget(provider);
    measured
}

const RING: Keep = Keep::Last { bytes: 1_000_000 };

/// The inbound events of 50 lookups, prepared in advance, so that only the wrapper differs. The ids of requests
/// are equal for all wrappers.
fn script() -> Vec<Inbound<Plain>> {
    let (network, mut out, mut told) = (Ideal::new(2_000), Batch::new(), Told(plain(), Vec::new()));
    for (target, first) in network.lookups(50) {
        lookup(&mut told, &network, target, first, &mut out);
    }
    told.1
}

/// A coordinator that notes its inbound events.
struct Told(Coordinator<Plain>, Vec<Inbound<Plain>>);

impl Machine for Told {
    type Inbound = Inbound<Plain>;
    type Outbound = Outbound<Plain>;

    fn handle_into(
        &mut self,
        now: Instant,
        event: Stamped<Inbound<Plain>>,
        out: &mut Batch<Outbound<Plain>>,
    ) {
        self.1.push(event.event.clone());
        self.0.handle_into(now, event, out);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }
}

/// Plays the script this many times, to a new machine each time.
fn count<M>(machine: impl Fn() -> M, times: usize)
where
    M: Machine<Inbound = Inbound<Plain>, Outbound = Outbound<Plain>>,
{
    let (script, mut out) = (script(), Batch::new());
    for _ in 0..times {
        let mut machine = machine();
        for event in &script {
            machine.handle_into(Instant::ORIGIN, Stamped::new(event.clone()), &mut out);
            out.clear();
        }
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [which, many] = &arguments[..] {
        let many = many.parse().unwrap();
        return match which.as_str() {
            "off" => count(off, many),
            "nothing" => count(nothing, many),
            "unsampled" => count(|| traced(Sampler::AlwaysOff), many),
            "spans" => count(|| traced(Sampler::AlwaysOn), many),
            "metrics" => count(measured, many),
            "ring" => count(|| recorder(RING), many),
            _ => count(plain, many),
        };
    }
    let network = Ideal::new(10_000);
    measure("as it is", plain(), &network);
    measure("traced, no tracer", off(), &network);
    measure("traced, none installed", nothing(), &network);
    measure("traced, sampled out", traced(Sampler::AlwaysOff), &network);
    measure("traced", traced(Sampler::AlwaysOn), &network);
    measure("metrics", measured(), &network);
    measure("ring of 1 MB", recorder(RING), &network);
    measure("ring of 1 MB, with text", recorder(RING).with_text(), &network);
    let (mut all, mut calls, mut out) = (recorder(Keep::All), 0, Batch::new());
    let head = all.take().len();
    for (target, first) in network.lookups(LOOKUPS) {
        calls += lookup(&mut all, &network, target, first, &mut out).0;
    }
    let bytes = all.bytes().len() as f64 / calls as f64;
    println!("{bytes:.0} bytes per call, {head} for the construction");
}
