//! R7: a provider whose machine sleeps for hours or days: what is due when it wakes.
//!
//! 4,096 regions, each with keys, are due one by one for two rounds of 22 h. Then nothing is called until the machine
//! wakes. A region is overdue if at that time it was last due more than an interval ago. What is overdue should be done
//! soon, but not at once, and what has waited the longest first. In a second part the link is down for an hour after the
//! machine wakes, so that every store fails after a minute, and the caller says so
//! ([`Inbound::Failed`]).

use crate::weather::programs::tools::{Agenda, Random, at_least, at_most, stated};
use crate::weather::{Figure, Row, Trial};
use kad_proto::broadcast::reprovide::{Inbound, Outbound};
use kad_proto::sim::Key64;
use kad_proto::{Batch, Instant, Machine, Reprovide, ReprovideConfig, Stamped};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The row.
pub(super) const ROW: Row = Row {
    name: "R7",
    world: "reprovide after a sleep of 8 h, 30 d, with 4,096 regions",
    reached: true,
    in_short: true,
    seeded: true,
    run,
};

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);

/// A provider that sleeps.
#[derive(Clone, Copy, Debug)]
pub struct Sleep {
    /// How long it sleeps.
    pub length: Duration,
    /// The prefix length of the regions.
    pub bits: u32,
    /// How long every store fails after it wakes.
    pub link_down: Duration,
    /// The seed of the keys, and of when it falls asleep.
    pub seed: u64,
}

/// What it does in the day after it wakes.
#[derive(Clone, Copy, Debug)]
pub struct Awake {
    /// The most regions that one call makes due.
    pub in_a_call: u64,
    /// The most regions that become due within 60 seconds.
    pub in_a_minute: u64,
    /// How many regions were overdue when it woke.
    pub overdue: u64,
    /// How long it took until each of these was due once; `None` if it took longer than a day.
    pub all_due: Option<Duration>,
    /// How many of them became due while one was not that was more overdue.
    pub out_of_order: u64,
    /// Of the regions that became due while the link was down: the most often that one was due in that time.
    pub tries: u64,
    /// The share of these that became due within an hour after the link was back.
    pub again: f64,
}

struct Provider {
    schedule: Reprovide<Key64>,
    bits: u32,
    out: Batch<Outbound<Key64>>,
}

impl Provider {
    /// The regions that are due, each with its keys.
    fn call(&mut self, now: Instant, event: Inbound<Key64>) -> Vec<(u64, Vec<Key64>)> {
        self.schedule.handle_into(now, Stamped::new(event), &mut self.out);
        let due = self.out.drain(..).filter_map(|stamped| match stamped.event {
            Outbound::Due { region, keys } => Some((region.first(), keys)),
            Outbound::Refused { .. } => None,
        });
        let bits = self.bits;
        let number = |first: Key64| u64::from_be_bytes(*first.as_bytes()) >> (64 - bits);
        due.map(|(first, keys)| (number(first), keys)).collect()
    }

    /// Calls it whenever it wants to be called, up to this time.
    fn run(&mut self, until: Instant, mut each: impl FnMut(Instant, u64)) {
        while let Some(at) = self.schedule.poll_timeout().filter(|at| *at <= until) {
            for (region, _) in self.call(at, Inbound::Tick) {
                each(at, region);
            }
        }
    }
}

impl Sleep {
    fn provider(&self, random: &mut Random) -> Result<Provider, String> {
        let config = ReprovideConfig { bits: self.bits, ..ReprovideConfig::default() };
        let schedule = Reprovide::new(Key64::new(random.next().to_be_bytes()), config);
        let mut provider = Provider {
            schedule: schedule.map_err(|error| error.to_string())?,
            bits: self.bits,
            out: Batch::new(),
        };
        let mut keys = Vec::new();
        for region in 0..1_u64 << self.bits {
            for _ in 0..2 {
                let key = region << (64 - self.bits) | random.next() >> self.bits;
                keys.push(Key64::new(key.to_be_bytes()));
            }
        }
        provider.call(Instant::ORIGIN, Inbound::Add(keys));
        Ok(provider)
    }

    /// Runs it, and a day after it wakes.
    ///
    /// # Errors
    /// The configuration is not valid, or a region was not due before the sleep.
    pub fn run(self) -> Result<Awake, String> {
        let mut random = Random::new(self.seed);
        let mut provider = self.provider(&mut random)?;
        let interval = ReprovideConfig::default().interval;
        let asleep = Instant::ORIGIN + interval * 2 + interval.mul_f64(random.unit());
        let mut last = BTreeMap::new();
        provider.run(asleep, |at, region| {
            last.insert(region, at);
        });
        if last.len() as u64 != 1 << self.bits {
            return Err("a region was never due".into());
        }
        let woken = asleep + self.length;
        let is_overdue = |(_, at): &(&u64, &Instant)| **at + interval <= woken;
        let overdue: BTreeSet<_> =
            last.iter().filter(is_overdue).map(|(region, at)| (*at, *region)).collect();
        let mut awake = Morning {
            link_back: woken + self.link_down,
            woken,
            last,
            left: overdue.clone(),
            failures: Agenda::new(),
            failed: BTreeMap::new(),
            again: BTreeSet::new(),
            recent: Agenda::new(),
            in_minute: 0,
            awake: Awake {
                in_a_call: 0,
                in_a_minute: 0,
                overdue: overdue.len() as u64,
                all_due: None,
                out_of_order: 0,
                tries: 0,
                again: 1.0,
            },
        };
        awake.run(&mut provider, woken + HOUR * 24);
        Ok(awake.told())
    }
}

/// The day after it wakes.
struct Morning {
    woken: Instant,
    link_back: Instant,
    /// When each region was last due before the sleep.
    last: BTreeMap<u64, Instant>,
    /// The overdue regions that were not due again yet, by when they were last due.
    left: BTreeSet<(Instant, u64)>,
    /// When the caller learns that a store has failed, and of which keys.
    failures: Agenda<Vec<Key64>>,
    /// How often each region was due while the link was down.
    failed: BTreeMap<u64, u64>,
    /// Those that were due within an hour after it was back.
    again: BTreeSet<u64>,
    /// The regions due in the last minute, by when they leave it.
    recent: Agenda<()>,
    in_minute: u64,
    awake: Awake,
}

impl Morning {
    fn run(&mut self, provider: &mut Provider, until: Instant) {
        let due = provider.call(self.woken, Inbound::Tick);
        self.due(self.woken, due);
        loop {
            let (tick, failure) = (provider.schedule.poll_timeout(), self.failures.next_at());
            let failure = failure.filter(|at| tick.is_none_or(|tick| *at <= tick));
            let Some(at) = failure.or(tick).filter(|at| *at <= until) else { return };
            let event = match failure.and_then(|_| self.failures.take_next()) {
                Some((_, keys)) => Inbound::Failed(keys),
                None => Inbound::Tick,
            };
            let due = provider.call(at, event);
            self.due(at, due);
        }
    }

    /// One call made these regions due.
    fn due(&mut self, now: Instant, regions: Vec<(u64, Vec<Key64>)>) {
        let awake = &mut self.awake;
        awake.in_a_call = awake.in_a_call.max(regions.len() as u64);
        for (region, keys) in regions {
            self.in_minute += 1;
            self.recent.enter(now + MINUTE, ());
            while self.recent.next_at().is_some_and(|at| at <= now) {
                self.recent.take_next();
                self.in_minute -= 1;
            }
            awake.in_a_minute = awake.in_a_minute.max(self.in_minute);
            if let Some(at) = self.last.get(&region)
                && self.left.remove(&(*at, region))
            {
                awake.out_of_order += u64::from(self.left.first().is_some_and(|(most, _)| most < at));
                if self.left.is_empty() {
                    awake.all_due = Some(now - self.woken);
                }
            }
            if now < self.link_back {
                *self.failed.entry(region).or_default() += 1;
                self.failures.enter(now + MINUTE, keys);
            } else if now <= self.link_back + HOUR {
                self.again.insert(region);
            }
        }
    }

    fn told(self) -> Awake {
        let again = self.failed.keys().filter(|region| self.again.contains(region)).count();
        let share = if self.failed.is_empty() { 1.0 } else { again as f64 / self.failed.len() as f64 };
        let tries = self.failed.values().copied().max().unwrap_or_default();
        Awake { tries, again: share, ..self.awake }
    }
}

fn run(trial: Trial) -> Result<Vec<Figure>, String> {
    let bits = if trial.short { 10 } else { 12 };
    let mut figures = Vec::new();
    for (name, length) in [("8 h", HOUR * 8), ("30 d", HOUR * 24 * 30)] {
        let sleep = Sleep { length, bits, link_down: Duration::ZERO, seed: trial.seed };
        let awake = sleep.run()?;
        figures.push(stated(format!("regions overdue, {name}"), awake.overdue as f64));
        figures.push(at_most(format!("regions due in a call, {name}"), awake.in_a_call as f64, 8.0));
        figures.push(at_most(format!("regions due in a minute, {name}"), awake.in_a_minute as f64, 64.0));
        let hours = awake.all_due.map_or(f64::INFINITY, |all| all.as_secs_f64() / HOUR.as_secs_f64());
        figures.push(at_most(format!("hours until all are done, {name}"), hours.min(24.0), 6.0));
        figures.push(at_most(format!("regions out of order, {name}"), awake.out_of_order as f64, 0.0));
    }
    let sleep = Sleep { length: HOUR * 8, bits, link_down: HOUR, seed: trial.seed };
    let awake = sleep.run()?;
    figures.push(at_most("tries of a failing region in an hour", awake.tries as f64, 8.0));
    figures.push(at_least("failed regions done in the next hour", awake.again, 1.0));
    Ok(figures)
}
