//! L12: 500 lookups with one deadline, more than can be done by then; in one of the worlds, the caller begins another with
//! the same deadline whenever one ends.
//!
//! Each of the 500 should be served: it sends a request before the deadline; or be told early that there is no time for it, and end
//! as overloaded. And none should be overtaken: send its first request later than one that began after it. Both hold if what
//! could not be sent or queued is tried again in the order in which it was refused.

use crate::weather::programs::tools::{Agenda, Random, at_most, stated};
use crate::weather::{Figure, Row, Trial};
use kad_proto::lookups::query::{Inbound, Outbound};
use kad_proto::sim::{Handle, Net};
use kad_proto::{
    Batch, Instant, Machine, NetworkConfig, OperationId, Outcome, PoolConfig, QueryConfig, QueryPool,
    RequestId, Response, Secret, Stamped, Start,
};
use std::collections::VecDeque;
use std::time::Duration;

/// The row.
pub(super) const ROW: Row = Row {
    name: "L12",
    world: "500 operations at once that starve, all with one deadline",
    reached: false,
    in_short: true,
    seeded: true,
    run,
};

/// The world.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// How many lookups live at once.
    pub live: usize,
    /// Whether the caller begins another lookup when one ends.
    pub newcomers: bool,
    /// How many requests may be in flight.
    pub max_in_flight: usize,
    /// How many requests may wait; operations wait for the rest.
    pub max_queued: usize,
    /// When all lookups end.
    pub deadline: Duration,
    /// The seed of the round trips.
    pub seed: u64,
}

impl Crowd {
    /// 500 at once, each with 20 requests to make before the deadline. Some 6,400 of these 10,000 can be sent by then.
    pub const fn new(seed: u64) -> Self {
        let deadline = Duration::from_secs(20);
        Self { live: 500, newcomers: false, max_in_flight: 16, max_queued: 64, deadline, seed }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// Lookups that began.
    pub begun: u64,
    /// Lookups that came to their end before the deadline.
    pub done: u64,
    /// Lookups that were told before half of the time was over that there is none for them.
    pub told: u64,
    /// Of those that began first, all at once: how many never sent a request, and were not told so.
    pub never: u64,
    /// Of those that began first: how many sent their first request after one that began later, or never.
    pub overtaken: u64,
}

/// How many nodes each lookup asks: seeds of its own, which name nobody.
const SEEDS: u32 = 20;

struct Run {
    pool: QueryPool<Net>,
    crowd: Crowd,
    random: Random,
    agenda: Agenda<RequestId>,
    /// By tag: the number of the first request, counted over all.
    first_request: Vec<Option<u64>>,
    sent: u64,
    done: u64,
    /// By tag: whether it was told early that it cannot be done.
    told: Vec<bool>,
    to_begin: VecDeque<u64>,
}

impl Run {
    fn call(&mut self, now: Instant, event: Stamped<Inbound<Net>>, out: &mut Batch<Outbound<Net>>) {
        self.pool.handle_into(now, event, out);
        for Stamped { event, .. } in out.drain(..) {
            match event {
                Outbound::Request(request) => {
                    let tag = request.initiator.operation().map(OperationId::tag);
                    let place = tag.and_then(|tag| usize::try_from(tag).ok());
                    if let Some(first) = place.and_then(|place| self.first_request.get_mut(place)) {
                        first.get_or_insert(self.sent);
                    }
                    self.sent += 1;
                    let round_trip =
                        self.random.duration(Duration::from_millis(20), Duration::from_millis(80));
                    self.agenda.enter(now + round_trip, request.id);
                }
                Outbound::Finished(finish) if now < self.end() => {
                    let is_told = finish.outcome == Outcome::Overloaded;
                    self.done += u64::from(!is_told);
                    let is_early = is_told && now < Instant::ORIGIN + self.crowd.deadline / 2;
                    let place = usize::try_from(finish.operation.tag()).ok();
                    if let Some(told) = place.and_then(|place| self.told.get_mut(place)) {
                        *told = is_early;
                    }
                    if self.crowd.newcomers {
                        self.to_begin.push_back(self.first_request.len() as u64);
                        self.first_request.push(None);
                        self.told.push(false);
                    }
                }
                _ => {}
            }
        }
    }

    fn end(&self) -> Instant {
        Instant::ORIGIN + self.crowd.deadline
    }

    fn begin(&mut self, now: Instant, tag: u64, out: &mut Batch<Outbound<Net>>) {
        let number = u32::try_from(tag).unwrap_or(u32::MAX);
        let seeds = (0..SEEDS).map(|seed| Handle((number * SEEDS + seed) % Handle::NODES)).collect();
        let start = Start::find(tag, Handle::point(number).key()).with_seeds(seeds);
        self.call(now, Stamped::new(Inbound::Start(start)).with_deadline(self.end()), out);
    }
}

impl Crowd {
    /// Runs it to the deadline.
    ///
    /// # Errors
    /// The configuration is not valid.
    pub fn run(self) -> Result<Served, String> {
        let network = NetworkConfig {
            max_in_flight: self.max_in_flight,
            max_queued: self.max_queued,
            ..NetworkConfig::default()
        };
        let pool = PoolConfig { progress: false, ..PoolConfig::default() };
        let local = Handle::point(Handle::NODES - 1).key();
        let query = QueryConfig { timeout: Duration::MAX, ..QueryConfig::default() };
        let pool = QueryPool::<Net>::new(local, query, pool, network, &Secret::from_seed(self.seed));
        let mut run = Run {
            pool: pool.map_err(|error| error.to_string())?,
            crowd: self,
            random: Random::new(self.seed),
            agenda: Agenda::new(),
            first_request: (0..self.live).map(|_| None).collect(),
            sent: 0,
            done: 0,
            told: vec![false; self.live],
            to_begin: (0..self.live as u64).collect(),
        };
        let (mut now, mut out) = (Instant::ORIGIN, Batch::new());
        loop {
            while let Some(tag) = run.to_begin.pop_front() {
                run.begin(now, tag, &mut out);
            }
            let tick = run.pool.poll_timeout();
            let answer = run.agenda.next_at().filter(|at| tick.is_none_or(|tick| *at < tick));
            let Some(next) = answer.or(tick).filter(|next| *next < run.end()) else { break };
            now = now.max(next);
            match answer.and_then(|_| run.agenda.take_next()) {
                Some((_, id)) => {
                    let response = Response::answered(id, Vec::new());
                    run.call(now, Stamped::new(Inbound::Response(response)), &mut out);
                }
                None => run.call(now, Stamped::new(Inbound::Tick), &mut out),
            }
        }
        Ok(run.served())
    }
}

impl Run {
    fn served(&self) -> Served {
        let first = self.first_request.iter().zip(&self.told).take(self.crowd.live);
        let never = first.filter(|(sent, told)| sent.is_none() && !**told).count() as u64;
        let told = self.told.iter().filter(|told| **told).count() as u64;
        // From the last to the first: the earliest request of those that began later.
        let (mut earliest, mut overtaken) = (u64::MAX, 0);
        for (place, sent) in self.first_request.iter().enumerate().rev() {
            let sent = sent.unwrap_or(u64::MAX);
            overtaken += u64::from(sent > earliest && place < self.crowd.live);
            earliest = earliest.min(sent);
        }
        Served { begun: self.first_request.len() as u64, done: self.done, told, never, overtaken }
    }
}

fn run(trial: Trial) -> Result<Vec<Figure>, String> {
    let crowd = Crowd::new(trial.seed);
    // Each lookup submits three requests at first.
    let but_two = (crowd.live - 2) * QueryConfig::default().alpha - crowd.max_in_flight;
    let all = NetworkConfig::default().max_queued;
    let worlds = [
        ("room for 64", crowd),
        ("room for all but two", Crowd { max_queued: but_two, ..crowd }),
        ("room for all", Crowd { max_queued: all, ..crowd }),
        ("room for 64, newcomers", Crowd { newcomers: true, deadline: crowd.deadline * 3, ..crowd }),
    ];
    let mut figures = Vec::new();
    for (name, crowd) in worlds {
        let served = crowd.run()?;
        figures.push(at_most(format!("neither served nor told, {name}"), served.never as f64, 0.0));
        figures.push(at_most(format!("overtaken, {name}"), served.overtaken as f64, 0.0));
        figures.push(stated(format!("lookups done, {name}"), served.done as f64));
        figures.push(stated(format!("told early that there is no time, {name}"), served.told as f64));
    }
    Ok(figures)
}
