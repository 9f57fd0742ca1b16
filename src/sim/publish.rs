//! How the nodes of a [`World`] store records.

use super::broadcast::{Broadcast, BroadcastEnding, Broadcasts, Scheme};
use super::check::Told;
use super::drive::number;
use super::event::{Event, Work};
use super::lookup::{End, Reason};
use super::nodes::{Handle, Net};
use super::queue::{Cargo, Plan};
use super::random::{Draw, Purpose, scaled};
use super::world::World;
use crate::broadcast::{BroadcastFinish, StartBroadcast, Strategy};
use crate::coordinator::Inbound;
use crate::event::{Record, Request};
use crate::machine::Stamped;
use core::time::Duration;
use std::collections::BTreeMap;

impl World {
    /// Plans the broadcast after the next one; the next begins, once its node has learnt how large the network is.
    pub(crate) fn broadcast(&mut self) {
        let Some(broadcasts) = self.scenario.broadcasts.clone() else { return };
        let number = u32::try_from(self.broadcasts.len()).unwrap_or(u32::MAX);
        if number + 1 < broadcasts.count {
            let gap = broadcasts.pace.gap(self.scenario.seed, [u64::from(number), 1], number);
            self.queue.plan(self.now + gap, Plan::Broadcast);
        }
        let mut draw = self.chance(Purpose::Publisher, number);
        let tries = 1_000;
        let live = |index: &u32| self.nodes.get(*index as usize).is_some_and(|node| node.up);
        let starter = (0..tries).map(|_| draw.below(self.scenario.nodes)).find(live);
        let records = broadcasts.scheme.records();
        self.broadcasts.push(Broadcast {
            number,
            starter: self.population.handle(starter.unwrap_or_default()),
            first: number * records,
            records,
            began: self.now,
            ending: None,
            finds: 0,
            stores: 0,
            stored: 0,
            share: None,
            least: 0.0,
            tries: BTreeMap::new(),
        });
        self.awaited += 1;
        match starter {
            None => self.cast_off(number, End::NobodyThere),
            Some(starter) => self.learn(starter, number, &broadcasts),
        }
    }

    /// A broadcast begins when its node has made some lookups.
    fn learn(&mut self, index: u32, broadcast: u32, broadcasts: &Broadcasts) {
        const FORGETS: Duration = Duration::from_secs(60 * 60);
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        if node.lessons == Some(0) && self.now - node.learnt > FORGETS {
            node.lessons = None;
        }
        let begins = node.lessons.is_none();
        if begins {
            node.learnt = self.now;
        }
        let left = *node.lessons.get_or_insert(broadcasts.learn);
        if left == 0 {
            self.publish(index, broadcast);
            return;
        }
        self.learning.entry(index).or_default().push(broadcast);
        if begins {
            for lesson in 0..broadcasts.learn {
                let ids = [u64::from(index), u64::from(lesson)];
                let mut draw = Draw::new(self.scenario.seed, Purpose::Learn, ids);
                let target = Handle::point(draw.below(Handle::NODES)).key();
                self.look_up(Reason::Learn, Some(index), target, false, Vec::new());
            }
        }
    }

    /// A lookup of a node that learns has ended.
    pub(crate) fn learnt(&mut self, node: Handle) {
        let Some(index) = self.population.index(node) else { return };
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        if let Some(left) = &mut node.lessons {
            *left = left.saturating_sub(1);
            if *left > 0 {
                return;
            }
        }
        // Not at once: the engine is being told something.
        for broadcast in self.learning.remove(&index).unwrap_or_default() {
            self.queue.plan(self.now, Plan::Publish(index, broadcast));
        }
    }

    /// A broadcast begins.
    pub(crate) fn publish(&mut self, index: u32, number: u32) {
        let (now, node) = (self.now, self.population.handle(index));
        let Some(broadcast) = self.broadcasts.get_mut(number as usize) else { return };
        broadcast.began = now;
        let (first, count) = (broadcast.first, broadcast.records);
        self.note(&Event::BroadcastStarted { broadcast: number, node });
        let Some(broadcasts) = self.scenario.broadcasts.as_ref() else { return };
        let Broadcasts { scheme, success, deadline, stopped, .. } = *broadcasts;
        if self.engine(node).is_none() {
            self.cast_off(number, End::NobodyThere);
            return;
        }
        let mut draw = self.chance(Purpose::StopBroadcast, number);
        if draw.chance(stopped) {
            let later = scaled(Duration::from_secs(1), draw.unit());
            self.queue.plan(now + later, Plan::StopBroadcast(number));
        }
        let records: Vec<Record<Net>> = (first..first + count)
            .map(|record| Record { key: self.record_key(record), message: record })
            .collect();
        let work = Work::Broadcast(number);
        let (tag, target) = (work.tag().unwrap_or_default(), self.record_key(first));
        let strategy = match scheme {
            Scheme::FollowUp => Strategy::FollowUp,
            Scheme::Static => Strategy::Static(self.closest_known(node, target)),
            Scheme::Optimistic { nodes } => Strategy::Optimistic { nodes },
            Scheme::Sweep { .. } => Strategy::Sweep,
        };
        let start = StartBroadcast {
            records,
            strategy,
            success,
            ..StartBroadcast::follow_up(u64::from(tag), target, first)
        };
        let mut stamped = Stamped::new(Inbound::Broadcast(start)).in_span(self.span(work));
        stamped.deadline = deadline.map(|deadline| now + deadline);
        self.tell(index, Told::Start { tag, target, deadline: stamped.deadline }, stamped);
    }

    /// The caller of a broadcast stops it.
    pub(crate) fn stop_broadcast(&mut self, number: u32) {
        let work = Work::Broadcast(number);
        let starter = self.broadcasts.get(number as usize).map(|broadcast| broadcast.starter);
        let Some(index) = starter.and_then(|starter| self.population.index(starter)) else { return };
        let Some(id) = work.tag().and_then(|tag| self.running.get(&(index, tag))).copied() else { return };
        self.note(&Event::BroadcastStopped { broadcast: number });
        let stop = Stamped::new(Inbound::Stop(id)).in_span(self.span(work));
        self.tell(index, Told::Stop, stop);
    }

    /// Notes a request of a broadcast. Says how often it has asked that node before.
    pub(crate) fn broadcast_asks(&mut self, broadcast: u32, request: &Request<Net>, cargo: &Cargo) -> u64 {
        let Some(broadcast) = self.broadcasts.get_mut(broadcast as usize) else { return 0 };
        match cargo {
            Cargo::Nothing => broadcast.finds += 1,
            cargo => {
                broadcast.stores += 1;
                broadcast.stored += u32::try_from(cargo.records().len()).unwrap_or(u32::MAX);
            }
        }
        let tries = broadcast.tries.entry(request.node).or_default();
        *tries += 1;
        *tries - 1
    }

    /// A store arrives at a node. One that is honest keeps it.
    pub(crate) fn keep(&mut self, node: Handle, cargo: &Cargo) {
        let records = u32::try_from(cargo.records().len()).unwrap_or(u32::MAX);
        let Some(index) = self.population.index(node) else { return };
        let Some(there) = self.nodes.get_mut(index as usize).filter(|there| there.party.is_none()) else {
            return;
        };
        there.held.extend(cargo.records());
        self.note(&Event::Stored { node, records });
    }

    /// A broadcast has ended, for its caller.
    pub(crate) fn returned(&mut self, finish: &BroadcastFinish<Net>) {
        let Work::Broadcast(number) = Work::of(number(finish.operation.tag())) else { return };
        let ending = BroadcastEnding {
            end: End::Finished(finish.outcome),
            at: self.now,
            succeeded: finish.succeeded,
            fell_back: finish.fell_back.is_some(),
            lookups: finish.lookups,
            share: self.share(number).0,
            statistics: finish.statistics,
        };
        let stores = u32::try_from(finish.stores.len()).unwrap_or(u32::MAX);
        self.close(number, stores, ending);
    }

    /// A broadcast has ended before it began.
    pub(crate) fn cast_off(&mut self, number: u32, end: End) {
        self.close(number, 0, BroadcastEnding::none(end, self.now));
    }

    fn close(&mut self, number: u32, stores: u32, ending: BroadcastEnding) {
        self.note(&Event::BroadcastFinished { broadcast: number, end: ending.end, stores });
        if let Some(broadcast) = self.broadcasts.get_mut(number as usize) {
            broadcast.ending = Some(ending);
            self.awaited -= 1;
            // What was sent at the end of the background has arrived by then, but for the slowest.
            let config = &self.scenario.config;
            let after = config.broadcast.background_timeout + config.network.request_timeout;
            self.queue.plan(self.now + after, Plan::Judge(number));
        }
    }

    /// Notes who holds the records of a broadcast whose background is over.
    pub(crate) fn judge(&mut self, number: u32) {
        let (share, least) = self.share(number);
        if let Some(broadcast) = self.broadcasts.get_mut(number as usize) {
            (broadcast.share, broadcast.least) = (Some(share), least);
            broadcast.tries = BTreeMap::new();
        }
    }

    /// The share of the k nodes closest to its key, among those that can answer now, that hold a record: the mean over the
    /// records of a broadcast, and the least.
    fn share(&self, number: u32) -> (f64, f64) {
        let Some(broadcast) = self.broadcasts.get(number as usize) else { return (0.0, 0.0) };
        let (mut sum, mut least) = (0.0, 1.0_f64);
        for record in broadcast.first..broadcast.first + broadcast.records {
            let truth = self.truly_closest(self.record_key(record), broadcast.starter);
            let holders = truth.iter().filter(|node| self.holds(**node, record)).count();
            let share = if truth.is_empty() { 1.0 } else { holders as f64 / truth.len() as f64 };
            sum += share;
            least = least.min(share);
        }
        (sum / f64::from(broadcast.records.max(1)), least)
    }
}
