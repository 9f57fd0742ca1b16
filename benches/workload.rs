//! Speed of the common workload:
//! `cargo bench --bench workload [-- lookup | broadcast | pool [LIVE] | upkeep | table | once N]`.
//!
//! `once N` does N lookups and nothing else, `crawl answers N` and `crawl failures N` end N requests of a crawl that has
//! 60,000 in flight, to be counted by callgrind: see `benches/instructions`.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation
)]

#[path = "../tests/support/ideal.rs"]
mod ideal;

use ideal::{Ideal, Plain, SplitMix};
use kad_proto::broadcast::{self, StartBroadcast, Strategy};
use kad_proto::crawl::{self, StartCrawl};
use kad_proto::lookups::query::{Inbound, Outbound};
use kad_proto::{
    Ask, Batch, BroadcastConfig, BroadcastPool, Config, Coordinator, Crawl, CrawlConfig, Instant, Key256,
    Machine, NetworkConfig, Outcome, PoolConfig, Query, QueryConfig, QueryPool, RequestId, Response,
    RoutingConfig, RoutingInbound, RoutingTable, Secret, Stamped, Start, TableConfig, coordinator,
};
use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

const LOOKUPS: usize = 200;
const WARM_UP: usize = 5;
const ROUNDS: usize = 25;
const CROWDS: [usize; 4] = [1, 100, 1_000, 10_000];
const NOW: Instant = Instant::ORIGIN;

/// One lookup with all answers that it will get, in order.
#[derive(Clone)]
struct Script {
    target: Key256,
    seeds: Vec<Key256>,
    answers: VecDeque<Vec<Key256>>,
    requests: u32,
    hops: u32,
    recalled: usize,
}

/// The parts of a machine that the benches use.
trait Driven {
    type Out;
    fn start(&mut self, tag: u64, target: Key256, seeds: Vec<Key256>, out: &mut Batch<Self::Out>);
    fn answer(&mut self, request: RequestId, closer: Vec<Key256>, out: &mut Batch<Self::Out>);
    fn said(event: Self::Out) -> Said;
}

enum Said {
    Request(RequestId, Key256),
    Progress(Vec<Key256>),
    Finished(kad_proto::Finish<Plain>),
    Other,
}

macro_rules! driven {
    ($machine:ty, $inbound:ident, $outbound:ident) => {
        impl Driven for $machine {
            type Out = $outbound<Plain>;
            fn start(&mut self, tag: u64, target: Key256, seeds: Vec<Key256>, out: &mut Batch<Self::Out>) {
                let start = Start::find(tag, target).with_seeds(seeds);
                self.handle_into(NOW, Stamped::new($inbound::Start(start)), out);
            }
            fn answer(&mut self, request: RequestId, closer: Vec<Key256>, out: &mut Batch<Self::Out>) {
                self.handle_into(
                    NOW,
                    Stamped::new($inbound::Response(Response::answered(request, closer))),
                    out,
                );
            }
            fn said(event: Self::Out) -> Said {
                match event {
                    $outbound::Request(request) => Said::Request(request.id, request.node),
                    $outbound::Progress(progress) => match progress.outcome {
                        kad_proto::RequestOutcome::Answered { closer } => Said::Progress(closer),
                        _ => Said::Other,
                    },
                    $outbound::Finished(finish) => Said::Finished(finish),
                    _ => Said::Other,
                }
            }
        }
    };
}

use coordinator::{Inbound as CoordinatorIn, Outbound as CoordinatorOut};
driven!(Query<Plain>, Inbound, Outbound);
driven!(QueryPool<Plain>, Inbound, Outbound);
driven!(Coordinator<Plain>, CoordinatorIn, CoordinatorOut);

/// Runs a lookup to its end. `answer` returns the answer of a node; `keep` takes the vectors that come back, so
/// that freeing the caller's vectors is not counted.
fn run<M: Driven>(
    machine: &mut M,
    queue: &mut VecDeque<(RequestId, Key256)>,
    batch: &mut Batch<M::Out>,
    (target, seeds): (Key256, Vec<Key256>),
    mut answer: impl FnMut(&Key256) -> Vec<Key256>,
    keep: &mut Vec<Vec<Key256>>,
) -> Option<kad_proto::Finish<Plain>> {
    machine.start(1, target, seeds, batch);
    let mut finish = None;
    loop {
        for stamped in batch.drain(..) {
            match M::said(stamped.event) {
                Said::Request(id, node) => queue.push_back((id, node)),
                Said::Progress(closer) => keep.push(closer),
                Said::Finished(finished) => {
                    queue.clear();
                    finish = Some(finished);
                }
                Said::Other => {}
            }
        }
        let Some((id, node)) = queue.pop_front() else { return finish };
        machine.answer(id, answer(&node), batch);
    }
}

fn query() -> Query<Plain> {
    Query::new(Key256::new([0; 32]), QueryConfig::default(), NetworkConfig::default(), &Secret::from_seed(0))
        .unwrap()
}

fn coordinator() -> Coordinator<Plain> {
    Coordinator::new(
        Key256::new([0; 32]),
        Config { routing: RoutingConfig::off(), ..Config::default() },
        &Secret::from_seed(0),
    )
    .unwrap()
}

/// Plays every lookup once, and records the answers that it gets.
fn scripts(network: &Ideal, count: usize) -> Vec<Script> {
    let mut machine = query();
    let play = |(target, from): (Key256, usize)| {
        let seeds = network.answer(from, &target);
        let mut answers = VecDeque::new();
        let answer = |node: &Key256| {
            let answer = network.answer(network.index(node).unwrap(), &target);
            answers.push_back(answer.clone());
            answer
        };
        let (mut queue, mut batch) = (VecDeque::new(), Batch::new());
        let finish =
            run(&mut machine, &mut queue, &mut batch, (target, seeds.clone()), answer, &mut Vec::new());
        let finish = finish.unwrap();
        assert_eq!(finish.outcome, Outcome::Converged);
        let truth = network.truth(&target);
        let recalled = finish.closest.iter().filter(|contact| truth.contains(&contact.node)).count();
        let stats = finish.stats;
        Script { target, seeds, answers, requests: stats.sent, hops: stats.hops, recalled }
    };
    network.lookups(count).into_iter().map(play).collect()
}

/// Plays the scripts. `measured` is called with the work once everything is prepared, and takes the measurement.
fn play<M: Driven>(
    machine: &mut M,
    scripts: &[Script],
    measured: impl FnOnce(&mut dyn FnMut()) -> f64,
) -> f64 {
    let mut scripts = scripts.to_vec();
    let (mut queue, mut batch) = (VecDeque::with_capacity(64), Batch::with_capacity(64));
    let mut keep = Vec::with_capacity(scripts.len() * 64);
    let mut finishes = Vec::with_capacity(scripts.len());
    let figure = measured(&mut || {
        for script in &mut scripts {
            let seeds = std::mem::take(&mut script.seeds);
            let answers = &mut script.answers;
            let answer = |_: &Key256| answers.pop_front().unwrap_or_default();
            finishes.push(run(machine, &mut queue, &mut batch, (script.target, seeds), answer, &mut keep));
        }
    });
    black_box((finishes, keep));
    figure
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn measured(mut round: impl FnMut() -> f64) -> f64 {
    for _ in 0..WARM_UP {
        round();
    }
    median((0..ROUNDS).map(|_| round()).collect())
}

fn nanos_since(began: std::time::Instant) -> f64 {
    began.elapsed().as_nanos() as f64
}

fn lookup_of<M: Driven>(name: &str, mut machine: M, scripts: &[Script]) {
    let count = scripts.len() as f64;
    let events: usize = scripts.iter().map(|script| script.answers.len() + 1).sum();
    let time = measured(|| {
        play(&mut machine, scripts, |work| {
            let began = std::time::Instant::now();
            work();
            nanos_since(began)
        })
    });
    let (mut allocations, mut bytes) = (0.0, 0.0);
    play(&mut machine, scripts, |work| {
        let counted = allocation_counter::measure(work);
        (allocations, bytes) = (counted.count_total as f64, counted.bytes_total as f64);
        bytes
    });
    println!(
        "lookup, {name:11}  {:6.0} ns/lookup  {:4.0} ns/event  {:.1} allocations  {:.0} bytes",
        time / count,
        time / events as f64,
        allocations / count,
        bytes / count
    );
}

fn lookup(network: &Ideal) {
    let scripts = scripts(network, LOOKUPS);
    let count = scripts.len() as f64;
    let sum = |figure: fn(&Script) -> f64| scripts.iter().map(figure).sum::<f64>();
    println!(
        "lookup, quality      {:.1} requests  {:.2} hops  recall {:.4}",
        sum(|script| f64::from(script.requests)) / count,
        sum(|script| f64::from(script.hops)) / count,
        sum(|script| script.recalled as f64) / count / ideal::K as f64
    );
    lookup_of("query", query(), &scripts);
    lookup_of("coordinator", coordinator(), &scripts);
}

/// One broadcast with all answers that it will get, in order. The answer to a store names no nodes.
#[derive(Clone)]
struct BroadcastScript {
    target: Key256,
    seeds: Vec<Key256>,
    answers: VecDeque<Vec<Key256>>,
}

fn start_broadcast(script: &mut BroadcastScript, optimistic: bool, nodes: u64) -> StartBroadcast<Plain> {
    let seeds = std::mem::take(&mut script.seeds);
    let mut start = StartBroadcast::follow_up(1, script.target, 7).with_seeds(seeds);
    if optimistic {
        start.strategy = Strategy::Optimistic { nodes: Some(nodes) };
    }
    start
}

/// Runs a broadcast until nothing of it is left, including the background. `answer` returns the nodes that a node
/// names; `keep` is as for lookups. Returns the numbers of requests before the finish and in total, and of stores.
fn run_broadcast(
    machine: &mut BroadcastPool<Plain>,
    queue: &mut VecDeque<(RequestId, Key256, bool)>,
    batch: &mut Batch<broadcast::Outbound<Plain>>,
    start: StartBroadcast<Plain>,
    mut answer: impl FnMut(&Key256, bool) -> Vec<Key256>,
    keep: &mut Vec<Vec<Key256>>,
    finishes: &mut Vec<broadcast::BroadcastFinish<Plain>>,
) -> [u32; 3] {
    use broadcast::{Inbound, Outbound};
    let mut requests = [0; 3];
    machine.handle_into(NOW, Stamped::new(Inbound::Start(start)), batch);
    loop {
        for stamped in batch.drain(..) {
            match stamped.event {
                Outbound::Request(request) => {
                    let store = matches!(request.ask, Ask::Store { .. });
                    queue.push_back((request.id, request.node, store));
                    requests[1] += 1;
                    requests[2] += u32::from(store);
                }
                Outbound::Cancel(cancel) => queue.retain(|(id, ..)| *id != cancel.id),
                Outbound::Progress(progress) => {
                    if let kad_proto::RequestOutcome::Answered { closer } = progress.request.outcome {
                        keep.push(closer);
                    }
                }
                Outbound::Finished(finish) => {
                    requests[0] = requests[1];
                    finishes.push(finish);
                }
                _ => {}
            }
        }
        let Some((request, node, store)) = queue.pop_front() else { return requests };
        let closer = answer(&node, store);
        machine.handle_into(NOW, Stamped::new(Inbound::Response(Response::answered(request, closer))), batch);
    }
}

fn cast_of(name: &str, network: &Ideal, optimistic: bool) {
    let local = Key256::new([0; 32]);
    let (config, pool) = (BroadcastConfig::default(), PoolConfig::default());
    let mut machine = BroadcastPool::new(
        local,
        config,
        QueryConfig::default(),
        pool,
        NetworkConfig::default(),
        &Secret::from_seed(0),
    )
    .unwrap();
    let (mut queue, mut batch) = (VecDeque::with_capacity(64), Batch::with_capacity(64));
    let nodes = network.keys.len() as u64;
    let (mut sums, mut kept) = ([0; 3], 0);
    let lookups = network.lookups(LOOKUPS).into_iter();
    let scripts: Vec<_> = lookups
        .map(|(target, from)| {
            let (seeds, answers) = (network.answer(from, &target), VecDeque::new());
            let mut script = BroadcastScript { target, seeds: seeds.clone(), answers };
            let start = start_broadcast(&mut script, optimistic, nodes);
            let (mut holders, mut finishes) = (Vec::new(), Vec::new());
            let answer = |node: &Key256, store: bool| {
                holders.extend(store.then_some(*node));
                let known = || network.answer(network.index(node).unwrap(), &target);
                let answer = if store { Vec::new() } else { known() };
                script.answers.push_back(answer.clone());
                answer
            };
            let keep = &mut Vec::new();
            let requests =
                run_broadcast(&mut machine, &mut queue, &mut batch, start, answer, keep, &mut finishes);
            assert!(finishes[0].succeeded);
            sums.iter_mut().zip(requests).for_each(|(sum, count)| *sum += count);
            let truth = network.truth(&target);
            kept += holders.iter().filter(|holder| truth.contains(holder)).count();
            BroadcastScript { seeds, ..script }
        })
        .collect();
    let count = scripts.len() as f64;
    let events: usize = scripts.iter().map(|script| script.answers.len() + 1).sum();
    let mut play = |measured: &mut dyn FnMut(&mut dyn FnMut())| {
        let mut scripts = scripts.clone();
        let mut keep = Vec::with_capacity(scripts.len() * 128);
        let mut finishes = Vec::with_capacity(scripts.len());
        measured(&mut || {
            for script in &mut scripts {
                let start = start_broadcast(script, optimistic, nodes);
                let answers = &mut script.answers;
                let answer = |_: &Key256, _| answers.pop_front().unwrap_or_default();
                run_broadcast(&mut machine, &mut queue, &mut batch, start, answer, &mut keep, &mut finishes);
            }
        });
        black_box((keep, finishes));
    };
    let time = measured(|| {
        let mut took = 0.0;
        play(&mut |work| {
            let began = std::time::Instant::now();
            work();
            took = nanos_since(began);
        });
        took
    });
    let (mut allocations, mut bytes) = (0.0, 0.0);
    play(&mut |work| {
        let counted = allocation_counter::measure(work);
        (allocations, bytes) = (counted.count_total as f64, counted.bytes_total as f64);
    });
    println!(
        "broadcast, {name:10}  {:6.0} ns/broadcast  {:4.0} ns/event  {:.1} allocations  {:.0} bytes",
        time / count,
        time / events as f64,
        allocations / count,
        bytes / count
    );
    println!(
        "                       {:.1} requests, {:.1} before its finish, {:.1} of them stores, {:.1} with the {} closest",
        f64::from(sums[1]) / count,
        f64::from(sums[0]) / count,
        f64::from(sums[2]) / count,
        kept as f64 / count,
        ideal::K
    );
}

fn broadcasts(network: &Ideal) {
    cast_of("follow-up", network, false);
    cast_of("optimistic", network, true);
}

/// A running lookup.
struct Running {
    target: Key256,
    /// Its requests in flight.
    requests: VecDeque<(RequestId, Key256)>,
}

/// A pool with `live` running lookups, and what the workload must know of them.
struct Crowd<'a> {
    network: &'a Ideal,
    machine: QueryPool<Plain>,
    random: SplitMix,
    tags: u64,
    lookups: Vec<Running>,
    batch: Batch<Outbound<Plain>>,
}

impl<'a> Crowd<'a> {
    fn new(network: &'a Ideal, live: usize) -> Self {
        let config = PoolConfig { max_running: 1 << 20, ..PoolConfig::default() };
        let machine = QueryPool::new(
            Key256::new([0; 32]),
            QueryConfig::default(),
            config,
            NetworkConfig::default(),
            &Secret::from_seed(0),
        )
        .unwrap();
        let running = |_| Running { target: Key256::new([0; 32]), requests: VecDeque::with_capacity(32) };
        let lookups = (0..live).map(running).collect();
        let batch = Batch::with_capacity(1 << 16);
        let mut crowd = Self { network, machine, random: SplitMix(99), tags: 0, lookups, batch };
        (0..live).for_each(|place| crowd.start(place));
        crowd
    }

    /// Starts a lookup in this place.
    fn start(&mut self, place: usize) {
        let (target, from) = (self.random.key(), self.random.below(self.network.keys.len()));
        let tag = self.tags * self.lookups.len() as u64 + place as u64;
        self.tags += 1;
        self.lookups[place].target = target;
        self.lookups[place].requests.clear();
        self.machine.start(tag, target, self.network.answer(from, &target), &mut self.batch);
        self.take_in();
    }

    /// Reads what came out; starts another lookup where one has finished.
    fn take_in(&mut self) {
        let mut ended = Vec::new();
        for stamped in self.batch.drain(..) {
            let place = |id: kad_proto::OperationId| (id.tag() % self.lookups.len() as u64) as usize;
            match stamped.event {
                Outbound::Request(request) => {
                    let place = place(request.initiator.operation().unwrap());
                    self.lookups[place].requests.push_back((request.id, request.node));
                }
                Outbound::Finished(finish) => ended.push(place(finish.operation)),
                _ => {}
            }
        }
        for place in ended {
            self.start(place);
        }
    }

    /// Answers for up to `count` random lookups, each one at most once.
    fn answers(&mut self, count: usize) -> Vec<(RequestId, Vec<Key256>)> {
        let live = self.lookups.len();
        let mut places: Vec<_> = (0..count).map(|_| self.random.below(live)).collect();
        let order = places.clone();
        places.sort_unstable();
        places.dedup();
        let mut script = Vec::new();
        for place in order {
            if let Ok(unused) = places.binary_search(&place) {
                places.remove(unused);
                let Running { target, requests } = &mut self.lookups[place];
                if let Some((id, node)) = requests.pop_front() {
                    script.push((id, self.network.answer(self.network.index(&node).unwrap(), target)));
                }
            }
        }
        script
    }
}

/// One answer to a random one of `live` lookups, and the engine run until it emits nothing more; many of them in a
/// row, so that reading the clock does not count. Lookups are at all stages, and the heap is in the state that a
/// long run leaves it in.
fn pool(network: &Ideal, crowds: &[usize]) {
    for &live in crowds {
        let mut crowd = None;
        let counted = allocation_counter::measure(|| crowd = Some(Crowd::new(network, live)));
        let mut crowd = crowd.unwrap();
        let outside = live * size_of_val(&crowd.lookups[0])
            + live * 32 * size_of::<(RequestId, Key256)>()
            + (1 << 16) * size_of::<Stamped<Outbound<Plain>>>();
        let bytes = (counted.bytes_current as f64 - outside as f64) / live as f64;
        let chunk = (live / 4).clamp(1, 500);
        let rounds = (40 * live / chunk).max(2_000);
        let mut times = Vec::new();
        for round in 0..rounds {
            let script = crowd.answers(chunk);
            let count = script.len() as f64;
            let began = std::time::Instant::now();
            for (id, answer) in script {
                crowd.machine.answer(id, answer, &mut crowd.batch);
            }
            let took = nanos_since(began);
            if round >= rounds / 2 && count > 0.0 {
                times.push(took / count);
            }
            crowd.take_in();
        }
        println!("pool, {live:6} live   {:5.0} ns/answer  {bytes:5.0} bytes each", median(times));
    }
    println!("pool, the clock       {:5.0} ns, part of the figure for one", clock_cost());
}

/// A request of a coordinator: its id, the node, and the target.
type Asked = (RequestId, Key256, Key256);

/// An answer to a coordinator with 100 live lookups and a full routing table: with all of the maintenance, whose
/// own requests are answered too, and with none.
fn maintenance(network: &Ideal) {
    for (name, routing) in [("off", RoutingConfig::off()), ("on", RoutingConfig::default())] {
        let config = Config { routing, ..Config::default() };
        let mut machine =
            Coordinator::<Plain>::new(SplitMix(5).key(), config, &Secret::from_seed(0)).unwrap();
        let (mut now, mut tag, mut random) = (NOW, 0, SplitMix(99));
        let mut batch = Batch::with_capacity(1 << 16);
        for seed in 0..ideal::K {
            let node = network.keys[seed * 499];
            let round_trip = Some(Duration::from_millis(10));
            let event = CoordinatorIn::Routing(RoutingInbound::Connected { node, round_trip });
            machine.handle_into(now, event.into(), &mut batch);
        }
        let mut start = |machine: &mut Coordinator<Plain>, now, batch: &mut _| {
            tag += 1;
            let start = CoordinatorIn::Start(Start::find(tag, random.key()));
            machine.handle_into(now, start.into(), batch);
        };
        (0..100).for_each(|_| start(&mut machine, now, &mut batch));
        let (mut times, mut allocations, mut counted) = (Vec::new(), 0, 0);
        let mut asked = Vec::<Asked>::new();
        let rounds = 3_000;
        for round in 0..rounds {
            let (mut finished, steady) = (0, round >= rounds / 2);
            for stamped in batch.drain(..) {
                match stamped.event {
                    CoordinatorOut::Request(request) => {
                        asked.push((request.id, request.node, request.target));
                    }
                    CoordinatorOut::Finished(_) => finished += 1,
                    _ => {}
                }
            }
            let answer =
                |(id, node, target): Asked| (id, network.answer(network.index(&node).unwrap(), &target));
            let script: Vec<_> = asked.drain(..).map(answer).collect();
            let count = script.len();
            let work = || {
                for (request, closer) in script {
                    now = now + Duration::from_micros(50);
                    let answer = CoordinatorIn::Response(Response::answered(request, closer));
                    machine.handle_into(now, answer.into(), &mut batch);
                }
            };
            if steady && round % 2 == 0 {
                allocations += allocation_counter::measure(work).count_total;
                counted += count;
            } else {
                let began = std::time::Instant::now();
                work();
                times.push(nanos_since(began) / count as f64);
            }
            (0..finished).for_each(|_| start(&mut machine, now, &mut batch));
        }
        println!(
            "upkeep, {name:3}          {:5.0} ns/answer  {:.4} allocations  {} nodes in the table",
            median(times.split_off(rounds / 2)),
            allocations as f64 / counted as f64,
            machine.table().len()
        );
    }
}

/// The cost of reading the clock twice.
fn clock_cost() -> f64 {
    median((0..10_001).map(|_| nanos_since(black_box(std::time::Instant::now()))).collect())
}

fn table() {
    let mut random = SplitMix(7);
    let keys: Vec<_> = (0..100_000).map(|_| random.key()).collect();
    let targets: Vec<_> = (0..10_000).map(|_| random.key()).collect();
    let mut table =
        RoutingTable::<Plain>::new(random.key(), TableConfig::default(), &Secret::from_seed(0)).unwrap();
    let began = std::time::Instant::now();
    for key in &keys {
        black_box(table.offer(NOW, key, None));
    }
    let offer = nanos_since(began) / keys.len() as f64;
    let time = measured(|| {
        let began = std::time::Instant::now();
        for target in &targets {
            let mut found = 0;
            for record in table.closest(*target).take(ideal::K) {
                found += usize::from(record.node().as_bytes()[31]);
            }
            black_box(found);
        }
        nanos_since(began) / targets.len() as f64
    });
    println!("table, {} nodes       {offer:.0} ns/offer  {time:.0} ns for the closest 20", table.len());
}

/// Ends so many requests of a crawl with 60,000 in flight.
fn crawl(count: usize, is_answered: bool) {
    let config = CrawlConfig { max_in_flight: 60_000, ..CrawlConfig::default() };
    let mut random = SplitMix(7);
    let local = random.key();
    let seeds: Vec<_> = (0..60_000).map(|_| random.key()).collect();
    let network = NetworkConfig { max_in_flight: 60_000, ..NetworkConfig::default() };
    let mut machine = Crawl::<Plain>::new(local, config, network, &Secret::from_seed(0)).unwrap();
    let mut out = Batch::new();
    let start = crawl::Inbound::Start(StartCrawl::new(1).with_seeds(seeds));
    machine.handle_into(NOW, Stamped::new(start), &mut out);
    let requests = out.drain(..).filter_map(|stamped| match stamped.event {
        crawl::Outbound::Request(request) => Some(request.id),
        _ => None,
    });
    let requests: Vec<_> = requests.collect();
    assert_eq!(requests.len(), 60_000);
    for id in requests.into_iter().rev().take(count) {
        let response = if is_answered { Response::answered(id, Vec::new()) } else { Response::failed(id) };
        machine.handle_into(NOW, Stamped::new(crawl::Inbound::Response(response)), &mut out);
        out.clear();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["once", count] => {
            let scripts = scripts(&Ideal::new(2_000), 50);
            let mut machine = query();
            for _ in 0..count.parse().unwrap_or(1) {
                play(&mut machine, &scripts, |work| {
                    work();
                    0.0
                });
            }
        }
        ["crawl", ending, count] => crawl(count.parse().unwrap_or(1), ending == "answers"),
        ["lookup"] => lookup(&Ideal::new(10_000)),
        ["broadcast"] => broadcasts(&Ideal::new(10_000)),
        ["pool"] => pool(&Ideal::new(10_000), &CROWDS),
        ["pool", live] => pool(&Ideal::new(10_000), &[live.parse().unwrap_or(1)]),
        ["upkeep"] => maintenance(&Ideal::new(10_000)),
        ["table"] => table(),
        _ => {
            let network = Ideal::new(10_000);
            lookup(&network);
            broadcasts(&network);
            pool(&network, &CROWDS);
            maintenance(&network);
            table();
        }
    }
}
