//! How the nodes of a [`World`] come, go and die.

use super::check::Told;
use super::drive::number;
use super::event::{Event, Work};
use super::join::Build;
use super::lookup::Reason;
use super::node::dead;
use super::nodes::Handle;
use super::queue::Plan;
use super::random::{Draw, Purpose};
use super::world::World;
use crate::coordinator::Inbound;
use crate::machine::Stamped;

impl World {
    /// The network is built: those that are to be dead die, others begin to come and go, and the workload begins.
    pub(crate) fn built(&mut self) {
        for index in 0..self.scenario.nodes {
            if dead(&self.scenario, index) {
                self.go(index);
                if let Some(node) = self.nodes.get_mut(index as usize) {
                    node.engine = None;
                }
            } else if let Some(churn) = &self.scenario.churn {
                let mut draw = self.chance(Purpose::Churn, index);
                if draw.chance(churn.share) {
                    let (there, left) = churn.begin(&mut draw);
                    self.queue.plan(self.now + left, Plan::Turn(index, 1));
                    if !there {
                        self.go(index);
                    }
                }
            }
        }
        if self.scenario.workload.lookups > 0 {
            self.queue.plan(self.now + self.scenario.workload.begins(), Plan::Start);
        }
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

    fn come(&mut self, index: u32) {
        if let Some(node) = self.nodes.get_mut(index as usize) {
            node.up = true;
            self.note(&Event::Came { node: self.population.handle(index) });
        }
    }

    /// A node stops what it is doing, and goes.
    fn go(&mut self, index: u32) {
        if !self.nodes.get(index as usize).is_some_and(|node| node.up) {
            return;
        }
        let own: Vec<_> = self.running.range((index, 0)..=(index, u32::MAX)).map(|(_, id)| *id).collect();
        for id in own {
            let stop = Stamped::new(Inbound::Stop(id)).in_span(self.span(Work::Lookup(number(id.tag()))));
            self.tell(index, Told::Stop, stop);
        }
        if let Some(node) = self.nodes.get_mut(index as usize) {
            node.up = false;
            self.note(&Event::Went { node: self.population.handle(index) });
        }
    }

    /// A node joins: it looks itself up, beginning from nodes that have joined before.
    pub(crate) fn join(&mut self, index: u32) {
        let Build::Join(join) = self.scenario.build else { return };
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
