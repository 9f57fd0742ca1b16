//! How nodes join, go online and offline, and die.

use crate::coordinator::events::Inbound;
use crate::routing::events::RoutingInbound;
use crate::sim::activity::{Activity, short_tag};
use crate::sim::event::SimEvent;
use crate::sim::network::handle::Handle;
use crate::sim::random::{Random, Stream};
use crate::sim::results::lookup_run::Reason;
use crate::sim::run::lookups::Sought;
use crate::sim::scenario::build::{Build, Join};
use crate::sim::world::World;
use crate::sim::world::action::Action;
use crate::sim::world::node::is_dead;
use crate::vocabulary::machine::Stamped;
use core::time::Duration;

impl World {
    /// The network is built: the nodes that are to be dead die, churn begins, and so do the lookups and the
    /// broadcasts.
    pub(super) fn network_built(&mut self) {
        for index in 0..self.scenario.nodes {
            if is_dead(&self.scenario, index) {
                self.take_down(index);
                if let Some(node) = self.nodes.get_mut(index as usize) {
                    node.engine = None;
                }
            } else if let Some((online, left)) = self.initial_presence(index) {
                let toggle = Action::TogglePresence { node: index, changes: 1 };
                self.queue.schedule(self.now + left, toggle);
                if !online {
                    self.take_down(index);
                }
            }
        }
        self.schedule_changes();
        self.schedule_acts();
        self.tell_seeds();
        if self.scenario.workload.lookups > 0 {
            self.queue.schedule(self.now + self.scenario.workload.begins(), Action::StartLookup);
        }
        if let Some(broadcasts) = self.scenario.broadcasts.as_ref().filter(|it| it.count > 0) {
            self.queue.schedule(self.now + broadcasts.begins(), Action::StartBroadcast);
        }
    }

    /// Whether a node that churns is online at the beginning, and how long this state lasts; `None` for a node
    /// that does not churn.
    fn initial_presence(&self, index: u32) -> Option<(bool, Duration)> {
        let churn = self.scenario.churn.as_ref().filter(|_| !self.scenario.is_seed(index))?;
        let mut random = self.random(Stream::Churn, index);
        random.chance(churn.share).then(|| churn.initial(&mut random))
    }

    /// Takes an online node down, or brings an offline one up, and schedules its next change.
    pub(super) fn toggle_presence(&mut self, index: u32, changes: u32) {
        let Some(churn) = &self.scenario.churn else { return };
        // The session of one that was killed ends now; its absence begins.
        let killed = self.nodes.get_mut(index as usize).is_some_and(|node| core::mem::take(&mut node.killed));
        let is_up = killed || self.nodes.get(index as usize).is_some_and(|node| node.up);
        let ids = [u64::from(index), u64::from(changes)];
        let lasts = churn.next(!is_up, &mut Random::new(self.scenario.seed, Stream::Churn, ids));
        let toggle = Action::TogglePresence { node: index, changes: changes.wrapping_add(1) };
        self.queue.schedule(self.now + lasts, toggle);
        if is_up { self.take_down(index) } else { self.bring_up(index) }
    }

    /// Nodes that begin with ideal tables, and keep them themselves, are told who the seeds are.
    fn tell_seeds(&mut self) {
        if self.scenario.build != Build::Ideal || !self.scenario.is_maintained() {
            return;
        }
        for index in 0..self.scenario.nodes {
            if self.nodes.get(index as usize).is_some_and(|node| node.maintained && node.up) {
                let seeds = self.seeds_of(index);
                self.tell(index, RoutingInbound::Seeds(seeds));
            }
        }
    }

    /// The seeds that a node knows.
    fn seeds_of(&self, index: u32) -> Vec<Handle> {
        let seeds = (0..self.scenario.build.seeds().min(self.scenario.nodes)).filter(|seed| *seed != index);
        seeds.map(|seed| self.population.handle(seed)).collect()
    }

    /// A node comes online. If it keeps its table itself, it starts anew.
    fn bring_up(&mut self, index: u32) {
        if self.keeps_table(index) {
            let restores = self.scenario.churn.as_ref().is_some_and(|churn| churn.restores);
            self.start_anew(index, restores);
            return;
        }
        if let Some(node) = self.nodes.get_mut(index as usize).filter(|node| node.engine.is_some()) {
            node.up = true;
            self.emit(&SimEvent::Came { node: self.population.handle(index) });
        }
    }

    /// Whether a node keeps its table itself: then its engine ends when it goes offline.
    fn keeps_table(&self, index: u32) -> bool {
        self.nodes.get(index as usize).is_some_and(|node| node.maintained)
    }

    /// A node that is offline starts with a new engine: with the snapshot of its table and the seeds; or with an empty
    /// table, and bootstraps from the seeds.
    pub(super) fn start_anew(&mut self, index: u32, snapshot: bool) {
        let (now, seeds) = (self.now, self.seeds_of(index));
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        let saved = node.snapshot.take().filter(|_| snapshot);
        node.up = true;
        node.restart(&self.scenario, &self.population, index);
        #[cfg(feature = "record")]
        self.begin_recording(index);
        self.emit(&SimEvent::Came { node: self.population.handle(index) });
        if let Some((at, mut saved)) = saved.filter(|(_, saved)| !saved.is_empty()) {
            for node in &mut saved {
                node.age += now - at;
            }
            self.tell(index, RoutingInbound::Seeds(seeds));
            self.tell(index, RoutingInbound::Restore(saved));
        } else {
            let target = self.population.handle(index).key();
            self.start_lookup(Reason::Join, Some(index), target, Sought::Nodes, seeds);
        }
    }

    /// A node stops its operations and goes offline. If it keeps its table itself, it loses its engine.
    pub(super) fn take_down(&mut self, index: u32) {
        if !self.nodes.get(index as usize).is_some_and(|node| node.up) {
            return;
        }
        let own: Vec<_> = self.operations.range((index, 0)..=(index, u32::MAX)).map(|(_, id)| *id).collect();
        for id in own {
            let span = self.span(Activity::from_tag(short_tag(id.tag())));
            self.call_engine(index, Stamped::new(Inbound::Stop(id)).in_span(span));
        }
        self.close_connections(index);
        let (handle, now, keeps_table) = (self.population.handle(index), self.now, self.keeps_table(index));
        if let Some(node) = self.nodes.get_mut(index as usize) {
            node.up = false;
            if keeps_table {
                node.snapshot = node.saved(now);
                node.engine = None;
                let forgotten = self.checkers.as_mut().map(|checkers| checkers.forget(index));
                if let Some(Err(broken)) = forgotten {
                    self.violate(handle, &broken);
                }
            }
            self.emit(&SimEvent::Went { node: handle });
        }
    }

    /// A node joins, in the way of the scenario's build; schedules the next one.
    pub(super) fn join(&mut self, index: u32) {
        match self.scenario.build {
            Build::Ideal => {}
            Build::Join(join) => self.join_by_lookup(index, join),
            Build::Bootstrap(bootstrap) => {
                if index + 1 < self.scenario.nodes {
                    let is_seed = index + 1 < bootstrap.seeds;
                    let every = if is_seed { Duration::ZERO } else { bootstrap.every };
                    self.queue.schedule(self.now + every, Action::Join(index + 1));
                }
                if self.initial_presence(index).is_none_or(|(online, _)| online) {
                    self.bring_up(index);
                }
            }
        }
    }

    /// A node joins by a lookup of its own key, with seeds that joined before.
    fn join_by_lookup(&mut self, index: u32, join: Join) {
        if index + 1 < self.scenario.nodes {
            self.queue.schedule(self.now + join.every, Action::Join(index + 1));
        }
        self.bring_up(index);
        if index == 0 {
            return;
        }
        let mut random = self.random(Stream::Seeds, index);
        let mut seeds: Vec<_> =
            (0..join.seeds).map(|_| self.population.handle(random.below(index))).collect();
        seeds.sort_unstable();
        seeds.dedup();
        let target = self.population.handle(index).key();
        self.start_lookup(Reason::Join, Some(index), target, Sought::Nodes, seeds);
        if join.refreshes > 0 {
            let refresh = Action::Refresh { node: index, left: join.refreshes - 1 };
            self.queue.schedule(self.now + join.pause, refresh);
        }
    }

    /// A node that has joined looks up a random key; schedules the next such lookup, if any are left.
    pub(super) fn refresh(&mut self, index: u32, left: u32) {
        let Build::Join(join) = self.scenario.build else { return };
        if left > 0 {
            let refresh = Action::Refresh { node: index, left: left - 1 };
            self.queue.schedule(self.now + join.pause, refresh);
        }
        let ids = [u64::from(index), u64::from(left)];
        let mut random = Random::new(self.scenario.seed, Stream::Target, ids);
        let target = Handle::point(random.below(Handle::NODES)).key();
        self.start_lookup(Reason::Refresh, Some(index), target, Sought::Nodes, Vec::new());
    }
}
