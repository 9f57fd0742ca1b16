//! How the nodes of a [`World`] come, go and die.

use super::check::Told;
use super::drive::number;
use super::event::{Event, Work};
use super::join::{Build, Join};
use super::lookup::Reason;
use super::node::dead;
use super::nodes::Handle;
use super::queue::Plan;
use super::random::{Draw, Purpose};
use super::world::World;
use crate::coordinator::Inbound;
use crate::machine::Stamped;
use core::time::Duration;

impl World {
    /// The network is built: those that are to be dead die, others begin to come and go, and the workload begins.
    pub(crate) fn built(&mut self) {
        for index in 0..self.scenario.nodes {
            if dead(&self.scenario, index) {
                self.go(index);
                if let Some(node) = self.nodes.get_mut(index as usize) {
                    node.engine = None;
                }
            } else if let Some((there, left)) = self.begins(index) {
                self.queue.plan(self.now + left, Plan::Turn(index, 1));
                if !there {
                    self.go(index);
                }
            }
        }
        if self.scenario.workload.lookups > 0 {
            self.queue.plan(self.now + self.scenario.workload.begins(), Plan::Start);
        }
        if let Some(broadcasts) = self.scenario.broadcasts.as_ref().filter(|it| it.count > 0) {
            self.queue.plan(self.now + broadcasts.begins(), Plan::Broadcast);
        }
    }

    /// Whether a node that comes and goes is there in the beginning, and for how long that stays so; `None` for one that
    /// stays.
    fn begins(&self, index: u32) -> Option<(bool, Duration)> {
        let churn = self.scenario.churn.as_ref().filter(|_| !self.scenario.is_seed(index))?;
        let mut draw = self.chance(Purpose::Churn, index);
        draw.chance(churn.share).then(|| churn.begin(&mut draw))
    }

    /// A node comes if it is away, and goes if it is there.
    pub(crate) fn turn(&mut self, index: u32, times: u32) {
        let Some(churn) = &self.scenario.churn else { return };
        let is_there = self.nodes.get(index as usize).is_some_and(|node| node.up);
        let ids = [u64::from(index), u64::from(times)];
        let lasts = churn.next(!is_there, &mut Draw::new(self.scenario.seed, Purpose::Churn, ids));
        self.queue.plan(self.now + lasts, Plan::Turn(index, times.wrapping_add(1)));
        if is_there { self.go(index) } else { self.come(index) }
    }

    /// A node comes. One that keeps its table itself begins anew: it knows the seeds, and bootstraps.
    fn come(&mut self, index: u32) {
        let begins_anew = self.scenario.is_maintained();
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        node.up = true;
        if begins_anew {
            node.begin(&self.scenario, &self.population, index);
            #[cfg(feature = "record")]
            self.tape(index);
        }
        self.note(&Event::Came { node: self.population.handle(index) });
        if begins_anew {
            let seeds = (0..self.scenario.build.seeds()).filter(|seed| *seed != index);
            let seeds = seeds.map(|seed| self.population.handle(seed)).collect();
            self.look_up(Reason::Join, Some(index), self.population.handle(index).key(), false, seeds);
        }
    }

    /// A node stops what it is doing, and goes.
    fn go(&mut self, index: u32) {
        if !self.nodes.get(index as usize).is_some_and(|node| node.up) {
            return;
        }
        let own: Vec<_> = self.running.range((index, 0)..=(index, u32::MAX)).map(|(_, id)| *id).collect();
        for id in own {
            let stop = Stamped::new(Inbound::Stop(id)).in_span(self.span(Work::of(number(id.tag()))));
            self.tell(index, Told::Stop, stop);
        }
        let handle = self.population.handle(index);
        if let Some(node) = self.nodes.get_mut(index as usize) {
            node.up = false;
            if self.scenario.is_maintained() {
                node.engine = None;
                self.checker.iter_mut().for_each(|checker| checker.forget(handle));
            }
            self.note(&Event::Went { node: handle });
        }
    }

    /// A node joins.
    pub(crate) fn join(&mut self, index: u32) {
        match self.scenario.build {
            Build::Ideal => {}
            Build::Join(join) => self.join_by_others(index, join),
            Build::Bootstrap(bootstrap) => {
                if index + 1 < self.scenario.nodes {
                    let is_seed = index + 1 < bootstrap.seeds;
                    let every = if is_seed { Duration::ZERO } else { bootstrap.every };
                    self.queue.plan(self.now + every, Plan::Join(index + 1));
                }
                if self.begins(index).is_none_or(|(there, _)| there) {
                    self.come(index);
                }
            }
        }
    }

    /// A node joins: it looks itself up, beginning from nodes that have joined before.
    fn join_by_others(&mut self, index: u32, join: Join) {
        if index + 1 < self.scenario.nodes {
            self.queue.plan(self.now + join.every, Plan::Join(index + 1));
        }
        self.come(index);
        if index == 0 {
            return;
        }
        let mut draw = self.chance(Purpose::Seeds, index);
        let mut seeds: Vec<_> = (0..join.seeds).map(|_| self.population.handle(draw.below(index))).collect();
        seeds.sort_unstable();
        seeds.dedup();
        let target = self.population.handle(index).key();
        self.look_up(Reason::Join, Some(index), target, false, seeds);
        if join.refreshes > 0 {
            self.queue.plan(self.now + join.pause, Plan::Refresh(index, join.refreshes - 1));
        }
    }

    /// A node looks up a random key.
    pub(crate) fn refresh(&mut self, index: u32, left: u32) {
        let Build::Join(join) = self.scenario.build else { return };
        if left > 0 {
            self.queue.plan(self.now + join.pause, Plan::Refresh(index, left - 1));
        }
        let ids = [u64::from(index), u64::from(left)];
        let mut draw = Draw::new(self.scenario.seed, Purpose::Target, ids);
        let target = Handle::point(draw.below(Handle::NODES)).key();
        self.look_up(Reason::Refresh, Some(index), target, false, Vec::new());
    }
}
