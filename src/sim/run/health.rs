//! Measures the routing tables.

use crate::coordinator::Coordinator;
use crate::sim::results::health::{Health, Upkeep};
use crate::sim::world::World;
use crate::sim::world::action::Action;

/// About how many tables are measured each time in the course of a run.
const SAMPLE: usize = 256;

impl World {
    /// Measures some of the routing tables, and schedules the next measurement.
    pub(super) fn sample_health(&mut self) {
        let step = self.nodes.len().div_ceil(SAMPLE).max(1);
        let mut health = self.measure_tables((0..self.scenario.nodes).step_by(step));
        if let Some(every) = self.scenario.health {
            let per_minute = 60.0 / every.as_secs_f64() / f64::from(health.up.max(1));
            health.upkeep = core::mem::take(&mut self.upkeep).times(per_minute);
        }
        self.health.push(health);
        if let Some(every) = self.scenario.health {
            self.queue.schedule(self.now + every, Action::SampleHealth);
        }
    }

    /// Measures the routing tables of all nodes now, without [`upkeep`](Health::upkeep), which stays zero.
    pub fn look_closely(&self) -> Health {
        self.measure_tables(0..self.scenario.nodes)
    }

    /// Measures the routing table of one node, by number, now, without [`upkeep`](Health::upkeep).
    pub fn look_at(&self, index: u32) -> Health {
        self.measure_tables(core::iter::once(index))
    }

    /// Measures the tables of these nodes.
    fn measure_tables(&self, some: impl Iterator<Item = u32>) -> Health {
        let sums = self.population.prefix_sums(|node| self.answers(node));
        let k = self.scenario.config.table.bucket_size;
        let (mut tables, mut complete) = (0_u32, 0_u32);
        let (mut records, mut dead, mut sybils, mut missing) = (0_u64, 0_u64, 0_u64, 0_u64);
        let (mut recall, mut worst, mut by_cpl) = (0.0, 1.0_f64, Vec::<f64>::new());
        for index in some {
            let Some(table) = self.engine(self.population.handle(index)).map(Coordinator::table) else {
                continue;
            };
            tables += 1;
            records += table.len() as u64;
            for (cpl, others) in (0..).zip(self.population.count_by_cpl(index, &sums)) {
                let bucket = table.bucket(cpl);
                let live = bucket.iter().filter(|record| self.answers(*record.node())).count();
                let foreign = bucket.iter().filter(|record| self.is_sybil(*record.node())).count();
                dead += (bucket.len() - live - foreign) as u64;
                sybils += foreign as u64;
                missing += others.min(k).saturating_sub(live) as u64;
                let index = cpl as usize;
                if by_cpl.len() <= index && !bucket.is_empty() {
                    by_cpl.resize(index + 1, 0.0);
                }
                by_cpl.iter_mut().skip(index).take(1).for_each(|sum| *sum += bucket.len() as f64);
            }
            let own = self.population.handle(index);
            let (truth, known) =
                (self.truly_closest(own.key(), own), self.closest_in_table(own, own.key(), self.scenario.k));
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
