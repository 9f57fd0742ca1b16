//! What the routing tables look like at some instant.

use super::event::Work;
use super::queue::Plan;
use super::world::World;
use crate::time::Instant;

/// The routing tables of the nodes that are there at one instant, on average.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// When.
    pub at: Instant,
    /// How many nodes are there.
    pub up: u32,
    /// How many nodes a table holds.
    pub size: f64,
    /// How many of them stand in the bucket of each common prefix length, from 0.
    pub by_cpl: Vec<f64>,
    /// The share of nodes in the tables that could not be asked: dead, away, or not to be reached. 0 to 1.
    pub dead: f64,
    /// How many [Sybils](super::Sybils) a table holds. They are not counted as dead.
    pub sybils: f64,
    /// How many nodes a table lacks: an ideal one would hold so many more of those that can be asked.
    pub missing: f64,
    /// The share of the true k closest to a table's own key, among those that can be asked, that are among the k
    /// closest in it. 0 to 1.
    pub recall: f64,
    /// The least such share of any table.
    pub worst: f64,
    /// The share of tables that have all of them. 0 to 1.
    pub complete: f64,
    /// Requests that were not for lookups, of a node in a minute, since the look before.
    pub upkeep: Upkeep,
}

/// Requests that are not for lookups.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Upkeep {
    /// Of bootstraps that began by themselves.
    pub bootstrap: f64,
    /// Of refreshes of buckets.
    pub explore: f64,
    /// Checks of nodes that may enter a table.
    pub include: f64,
    /// Checks of nodes in the tables.
    pub probe: f64,
}

impl Upkeep {
    /// All of them.
    pub fn sum(&self) -> f64 {
        self.bootstrap + self.explore + self.include + self.probe
    }

    /// Counts a request.
    pub(crate) fn count(&mut self, work: Work) {
        match work {
            Work::Lookup(_) | Work::Broadcast(_) | Work::Background => {}
            Work::Bootstrap => self.bootstrap += 1.0,
            Work::Explore => self.explore += 1.0,
            Work::Include => self.include += 1.0,
            Work::Probe => self.probe += 1.0,
        }
    }

    fn times(self, factor: f64) -> Self {
        let Self { bootstrap, explore, include, probe } = self;
        Self {
            bootstrap: bootstrap * factor,
            explore: explore * factor,
            include: include * factor,
            probe: probe * factor,
        }
    }
}

/// How many tables are looked at in the course of a run.
const SAMPLE: usize = 256;

impl World {
    /// Looks at some of the routing tables, and plans the next look.
    pub(crate) fn look(&mut self) {
        let mut health = self.examine(self.nodes.len().div_ceil(SAMPLE).max(1));
        if let Some(every) = self.scenario.health {
            let per_minute = 60.0 / every.as_secs_f64() / f64::from(health.up.max(1));
            health.upkeep = core::mem::take(&mut self.upkeep).times(per_minute);
        }
        self.health.push(health);
        if let Some(every) = self.scenario.health {
            self.queue.plan(self.now + every, Plan::Health);
        }
    }

    /// What the routing tables of all nodes look like now. Says nothing of upkeep.
    pub fn look_closely(&self) -> Health {
        self.examine(1)
    }

    /// Looks at the table of each `step`-th node.
    fn examine(&self, step: usize) -> Health {
        let tally = self.population.tally(|node| self.answers(node));
        let k = self.scenario.config.table.bucket_size;
        let (mut tables, mut complete) = (0_u32, 0_u32);
        let (mut records, mut dead, mut sybils, mut missing) = (0_u64, 0_u64, 0_u64, 0_u64);
        let (mut recall, mut worst, mut by_cpl) = (0.0, 1.0_f64, Vec::<f64>::new());
        for (index, node) in (0..).zip(&self.nodes).step_by(step) {
            let Some(table) = node.engine.as_ref().filter(|_| node.up).map(crate::Coordinator::table) else {
                continue;
            };
            tables += 1;
            records += table.len() as u64;
            for (cpl, others) in (0..).zip(self.population.others(index, &tally)) {
                let bucket = table.bucket(cpl);
                let live = bucket.iter().filter(|record| self.answers(*record.node())).count();
                let foreign = bucket.iter().filter(|record| self.is_sybil(*record.node())).count();
                dead += (bucket.len() - live - foreign) as u64;
                sybils += foreign as u64;
                missing += others.min(k).saturating_sub(live) as u64;
                let place = cpl as usize;
                if by_cpl.len() <= place && !bucket.is_empty() {
                    by_cpl.resize(place + 1, 0.0);
                }
                by_cpl.iter_mut().skip(place).take(1).for_each(|sum| *sum += bucket.len() as f64);
            }
            let own = self.population.handle(index);
            let (truth, known) = (self.truly_closest(own.key(), own), self.closest_known(own, own.key()));
            let found = truth.iter().filter(|node| known.contains(node)).count();
            let share = found as f64 / truth.len().max(1) as f64;
            recall += share;
            worst = worst.min(share);
            complete += u32::from(found == truth.len());
        }
        let mean = |sum: f64| sum / f64::from(tables.max(1));
        let up = self.nodes.iter().filter(|node| node.up).count();
        Health {
            at: self.now,
            up: u32::try_from(up).unwrap_or(u32::MAX),
            size: mean(records as f64),
            by_cpl: by_cpl.into_iter().map(mean).collect(),
            dead: dead as f64 / records.max(1) as f64,
            sybils: mean(sybils as f64),
            missing: mean(missing as f64),
            recall: mean(recall),
            worst: if tables > 0 { worst } else { 0.0 },
            complete: mean(f64::from(complete)),
            upkeep: Upkeep::default(),
        }
    }
}
