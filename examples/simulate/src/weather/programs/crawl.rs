//! R8: crawls of a network of 1,000 living nodes with ideal tables, where requests are lost; and what a failure costs
//! while 60,000 requests are in flight.
//!
//! The edges that there are: each node names, for each of its buckets, the nodes of its table closest to a key of that
//! bucket. That is what a crawl finds if nothing is lost.
//!
//! The cost: nothing that an engine does at a failure can be counted by a program (it calls no function of the family),
//! so the time of single calls is measured. It is stated and not judged; instructions are counted by callgrind.

use crate::weather::programs::tools::{Agenda, Random, at_least, at_most, stated};
use crate::weather::{Figure, Row, Trial};
use kad_proto::crawl::{CrawlFinish, Inbound, Outbound, Reach};
use kad_proto::sim::{Handle, Net, Scenario, World};
use kad_proto::{
    Batch, Crawl, CrawlConfig, Instant, Key, Machine, NetworkConfig, Outcome, RequestId, Response, Secret,
    Stamped, StartCrawl,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// The row.
pub(super) const ROW: Row = Row {
    name: "R8",
    world: "a crawl of 1,000 nodes with 2 and 5 % loss; a failure with 60,000 requests in flight",
    reached: true,
    in_short: true,
    seeded: true,
    run,
};

/// How many requests time out in one call.
const TIMED_OUT: u32 = 2_000;

/// A network to be crawled.
#[derive(Debug)]
pub struct Network {
    world: World,
    nodes: u32,
    seed: u64,
    edges: BTreeSet<(Handle, Handle)>,
}

/// What a crawl found.
#[derive(Clone, Copy, Debug)]
pub struct Map {
    /// The share of the edges.
    pub edges: f64,
    /// The share of the nodes.
    pub nodes: f64,
    /// Nodes said to be unreachable, though they live.
    pub unreachable: u64,
    /// Edges that there are not.
    pub false_edges: u64,
    /// Whether the crawl says that it is complete.
    pub told_complete: bool,
    /// Requests sent.
    pub requests: u64,
    /// How long it took.
    pub took: Duration,
}

impl Network {
    /// A network of so many nodes, all of which live, with ideal tables.
    ///
    /// # Errors
    /// The number of nodes is not valid.
    pub fn new(nodes: u32, seed: u64) -> Result<Self, String> {
        let scenario = Scenario { seed, nodes, ..Scenario::default() };
        let world = World::new(scenario).map_err(|error| error.to_string())?;
        let mut edges = BTreeSet::new();
        for node in (0..nodes).map(|index| world.handle(index)) {
            for cpl in 0..=CrawlConfig::default().max_cpl {
                let named = world.closest_known(node, node.key().with_flipped(cpl));
                edges.extend(named.into_iter().filter(|named| *named != node).map(|named| (node, named)));
            }
        }
        Ok(Self { world, nodes, seed, edges })
    }

    /// Crawls it from one node, where this share of the requests is lost.
    ///
    /// # Errors
    /// The crawl does not end.
    pub fn crawl(&self, loss: f64) -> Result<Map, String> {
        let mut random = Random::new(self.seed ^ loss.to_bits());
        let mut crawler = crawler(CrawlConfig::default(), self.seed)?;
        let (mut now, mut out) = (Instant::ORIGIN, Batch::new());
        let mut agenda: Agenda<(RequestId, Vec<Handle>)> = Agenda::new();
        let start = StartCrawl::new(1).with_seeds(vec![self.world.handle(0)]);
        crawler.handle_into(now, Stamped::new(Inbound::Start(start)), &mut out);
        loop {
            for stamped in out.drain(..) {
                match stamped.event {
                    Outbound::Request(request) if random.unit() >= loss => {
                        let closer = self.world.closest_known(request.node, request.target);
                        let round_trip =
                            random.duration(Duration::from_millis(20), Duration::from_millis(200));
                        agenda.enter(now + round_trip, (request.id, closer));
                    }
                    Outbound::Finished(finish) => return Ok(self.map(&finish, now)),
                    _ => {}
                }
            }
            let tick = crawler.poll_timeout();
            let answer = agenda.next_at().filter(|at| tick.is_none_or(|tick| *at < tick));
            now = answer.or(tick).ok_or("the crawl does not end")?.max(now);
            let event = match answer.and_then(|_| agenda.take_next()) {
                Some((_, (id, closer))) => Inbound::Response(Response::answered(id, closer)),
                None => Inbound::Tick,
            };
            crawler.handle_into(now, Stamped::new(event), &mut out);
        }
    }

    fn map(&self, finish: &CrawlFinish<Net>, now: Instant) -> Map {
        let node = |place: u32| finish.nodes.get(place as usize).map(|crawled| crawled.node);
        let found = finish.edges.iter().filter_map(|(from, to)| Some((node(*from)?, node(*to)?)));
        let found: BTreeSet<_> = found.collect();
        let right = found.intersection(&self.edges).count();
        let unreachable = |reach: Reach| finish.nodes.iter().filter(|crawled| crawled.reach == reach).count();
        Map {
            edges: right as f64 / self.edges.len() as f64,
            nodes: finish.nodes.len() as f64 / f64::from(self.nodes),
            unreachable: unreachable(Reach::Unreachable) as u64,
            false_edges: (found.len() - right) as u64,
            told_complete: finish.outcome == Outcome::Complete,
            requests: u64::from(finish.stats.sent),
            took: now - Instant::ORIGIN,
        }
    }
}

fn crawler(config: CrawlConfig, seed: u64) -> Result<Crawl<Net>, String> {
    let local = Handle::point(0).key();
    let crawler = Crawl::new(local, config, NetworkConfig::default(), &Secret::from_seed(seed));
    crawler.map_err(|error| error.to_string())
}

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With an answer that names nobody.
    Answer,
    /// With a failure that the driver reports.
    Failure,
}

/// A crawl with so many requests in flight, each to a node of its own.
#[derive(Debug)]
pub struct Busy {
    crawler: Crawl<Net>,
    requests: Vec<RequestId>,
    out: Batch<Outbound<Net>>,
}

impl Busy {
    /// A crawl that has just begun.
    ///
    /// # Errors
    /// The number is not valid: it is at most 65,536.
    pub fn new(in_flight: u32) -> Result<Self, String> {
        let max_in_flight = usize::try_from(in_flight).map_err(|error| error.to_string())?;
        let mut crawler = crawler(CrawlConfig { max_in_flight, ..CrawlConfig::default() }, 1)?;
        let start = StartCrawl::new(1).with_seeds((0..in_flight).map(Handle).collect());
        let mut out = Batch::new();
        crawler.handle_into(Instant::ORIGIN, Stamped::new(Inbound::Start(start)), &mut out);
        let requests = out.drain(..).filter_map(|stamped| match stamped.event {
            Outbound::Request(request) => Some(request.id),
            _ => None,
        });
        let requests = requests.collect();
        Ok(Self { crawler, requests, out })
    }

    /// How many are in flight.
    pub fn in_flight(&self) -> u64 {
        self.crawler.request_stats().in_flight
    }

    /// Ends one request, the one sent last of those sent at first; another takes its place. Returns whether there was one.
    pub fn end_one(&mut self, ending: Ending) -> bool {
        let Some(id) = self.requests.pop() else { return false };
        let response = match ending {
            Ending::Answer => Response::answered(id, Vec::new()),
            Ending::Failure => Response::failed(id),
        };
        self.crawler.handle_into(Instant::ORIGIN, Stamped::new(Inbound::Response(response)), &mut self.out);
        self.out.clear();
        true
    }

    /// Lets all that are in flight run into their time-out, in one call.
    pub fn time_out(&mut self) {
        let now = self.crawler.poll_timeout().unwrap_or(Instant::ORIGIN);
        self.crawler.handle_into(now, Stamped::new(Inbound::Tick), &mut self.out);
        self.out.clear();
        self.requests.clear();
    }
}

/// The median time of a call, in nanoseconds, by ending: of answers and failures that take turns.
fn times(in_flight: u32, calls: u32) -> Result<[f64; 2], String> {
    let mut busy = Busy::new(in_flight)?;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..calls {
        for (ending, times) in [Ending::Answer, Ending::Failure].into_iter().zip(&mut times) {
            let begun = std::time::Instant::now();
            if busy.end_one(ending) {
                times.push(begun.elapsed().as_nanos());
            }
        }
    }
    Ok(times.map(|mut times| {
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default() as f64
    }))
}

/// The mean time of a time-out, and of an answer, with so many requests in flight, in nanoseconds.
fn times_of_time_outs(in_flight: u32) -> Result<[f64; 2], String> {
    let mut answered = Busy::new(in_flight)?;
    let begun = std::time::Instant::now();
    while answered.end_one(Ending::Answer) {}
    let answers = begun.elapsed();
    let mut silent = Busy::new(in_flight)?;
    let begun = std::time::Instant::now();
    silent.time_out();
    Ok([begun.elapsed(), answers].map(|time| time.as_nanos() as f64 / f64::from(in_flight)))
}

fn run(trial: Trial) -> Result<Vec<Figure>, String> {
    let network = Network::new(if trial.short { 300 } else { 1_000 }, trial.seed)?;
    let mut figures = Vec::new();
    for (name, loss) in [("2 % lost", 0.02), ("5 % lost", 0.05)] {
        let map = network.crawl(loss)?;
        figures.push(at_least(format!("edges found, {name}"), map.edges, 0.999));
        figures.push(at_most(format!("living nodes unreachable, {name}"), map.unreachable as f64, 0.0));
        let is_wrong = map.told_complete && map.edges < 1.0;
        figures.push(stated(format!("told complete and is not, {name}"), f64::from(u8::from(is_wrong))));
        figures.push(stated(format!("requests, {name}"), map.requests as f64));
        figures.push(stated(format!("seconds, {name}"), map.took.as_secs_f64()));
    }
    let (in_flight, calls) = if trial.short { (10_000, 50) } else { (60_000, 200) };
    let [answer, failure] = times(in_flight, calls)?;
    figures.push(stated(format!("measured ns of an answer, {in_flight} in flight"), answer));
    figures.push(stated(format!("measured ns of a failure, {in_flight} in flight"), failure));
    figures.push(stated("measured failure / answer", failure / answer.max(1.0)));
    let [time_out, answer] = times_of_time_outs(TIMED_OUT)?;
    figures.push(stated(
        format!("measured time-out / answer, {TIMED_OUT} in flight"),
        time_out / answer.max(1.0),
    ));
    Ok(figures)
}
