//! Starts and stops broadcasts.
//!
//! A broadcast starts in two steps: its node is chosen and makes its warm-up lookups, and when these have ended
//! the broadcast is submitted to the engine.

use crate::broadcast::events::{StartBroadcast, Strategy};
use crate::coordinator::events::Inbound;
use crate::sim::activity::Activity;
use crate::sim::event::SimEvent;
use crate::sim::network::handle::{Handle, Net};
use crate::sim::random::{Random, Stream, scaled};
use crate::sim::results::broadcast_run::BroadcastRun;
use crate::sim::results::end::End;
use crate::sim::results::lookup_run::Reason;
use crate::sim::run::lookups::Sought;
use crate::sim::scenario::broadcasts::{Broadcasts, Scheme};
use crate::sim::world::World;
use crate::sim::world::action::Action;
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::request_events::Record;
use core::time::Duration;
use std::collections::BTreeMap;

impl World {
    /// Schedules the broadcast after this one, chooses a random online node for this one, and begins its warm-up.
    pub(super) fn start_next_broadcast(&mut self) {
        let Some(broadcasts) = self.scenario.broadcasts.clone() else { return };
        let number = u32::try_from(self.broadcasts.len()).unwrap_or(u32::MAX);
        if number + 1 < broadcasts.count {
            let gap = broadcasts.pace.gap(self.scenario.seed, [u64::from(number), 1], number);
            self.queue.schedule(self.now + gap, Action::StartBroadcast);
        }
        let starter = self.random_online_node(Stream::Publisher, number, &broadcasts.by);
        self.begin_broadcast(starter, number, &broadcasts);
    }

    /// Starts a broadcast at a node, by number, in the way of the scenario's [`Broadcasts`], or of the default ones.
    /// Returns its number among [`broadcasts`](World::broadcasts).
    pub fn publish(&mut self, index: u32) -> u32 {
        let number = u32::try_from(self.broadcasts.len()).unwrap_or(u32::MAX);
        let none = || Broadcasts { count: 0, ..Broadcasts::default() };
        let broadcasts = self.scenario.broadcasts.get_or_insert_with(none).clone();
        let awake = self.is_awake(index).then_some(index);
        self.begin_broadcast(awake, number, &broadcasts);
        number
    }

    fn begin_broadcast(&mut self, starter: Option<u32>, number: u32, broadcasts: &Broadcasts) {
        let records = broadcasts.scheme.records();
        self.broadcasts.push(BroadcastRun {
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
            held_by_none: 0,
            tries: BTreeMap::new(),
        });
        self.unfinished += 1;
        match starter {
            None => self.broadcast_not_started(number, End::NobodyThere),
            Some(starter) => self.warm_up(starter, number, broadcasts),
        }
    }

    /// Submits a broadcast after the warm-up lookups of its node: at once where these have ended, else when they
    /// end. They are repeated where the previous ones began more than an hour ago.
    fn warm_up(&mut self, index: u32, broadcast: u32, broadcasts: &Broadcasts) {
        const VALID: Duration = Duration::from_secs(60 * 60);
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        if node.warmup_left == Some(0) && self.now - node.warmup_began > VALID {
            node.warmup_left = None;
        }
        let begins = node.warmup_left.is_none();
        if begins {
            node.warmup_began = self.now;
        }
        let left = *node.warmup_left.get_or_insert(broadcasts.warmup_lookups);
        if left == 0 {
            self.submit_broadcast(index, broadcast);
            return;
        }
        self.waiting_for_warmup.entry(index).or_default().push(broadcast);
        if begins {
            for number in 0..broadcasts.warmup_lookups {
                let ids = [u64::from(index), u64::from(number)];
                let mut random = Random::new(self.scenario.seed, Stream::Warmup, ids);
                let target = Handle::point(random.below(Handle::NODES)).key();
                self.start_lookup(Reason::Warmup, Some(index), target, Sought::Nodes, Vec::new());
            }
        }
    }

    /// Submits a broadcast to the engine of its node.
    pub(super) fn submit_broadcast(&mut self, index: u32, number: u32) {
        let (now, node) = (self.now, self.population.handle(index));
        let Some(broadcast) = self.broadcasts.get_mut(number as usize) else { return };
        broadcast.began = now;
        let (first, count) = (broadcast.first, broadcast.records);
        self.emit(&SimEvent::BroadcastStarted { broadcast: number, node });
        let Some(broadcasts) = self.scenario.broadcasts.as_ref() else { return };
        let Broadcasts { scheme, success, deadline, stopped, .. } = *broadcasts;
        if self.engine(node).is_none() || !self.is_awake(index) {
            self.broadcast_not_started(number, End::NobodyThere);
            return;
        }
        let mut random = self.random(Stream::StopBroadcast, number);
        if random.chance(stopped) {
            let later = scaled(Duration::from_secs(1), random.unit());
            self.queue.schedule(now + later, Action::StopBroadcast(number));
        }
        let records: Vec<Record<Net>> = (first..first + count)
            .map(|record| Record { target: self.record_key(record), message: record })
            .collect();
        let activity = Activity::Broadcast(number);
        let (tag, target) = (activity.tag().unwrap_or_default(), self.record_key(first));
        let strategy = match scheme {
            Scheme::FollowUp => Strategy::FollowUp,
            Scheme::Static => Strategy::Static(self.closest_in_table(node, target, self.scenario.k)),
            Scheme::Optimistic { nodes } => Strategy::Optimistic { nodes },
            Scheme::Sweep { .. } => Strategy::Sweep,
        };
        let start = StartBroadcast {
            records,
            strategy,
            success,
            ..StartBroadcast::follow_up(u64::from(tag), target, first)
        };
        let mut stamped = Stamped::new(Inbound::Broadcast(start)).in_span(self.span(activity));
        stamped.deadline = deadline.map(|deadline| now + deadline);
        self.call_engine(index, stamped);
    }

    /// Stops a broadcast, as its caller would, if it runs.
    pub(super) fn stop_broadcast(&mut self, number: u32) {
        let activity = Activity::Broadcast(number);
        let starter = self.broadcasts.get(number as usize).map(|broadcast| broadcast.starter);
        let Some(index) = starter.and_then(|starter| self.population.index_ever(starter)) else { return };
        let Some(id) = activity.tag().and_then(|tag| self.operations.get(&(index, tag))).copied() else {
            return;
        };
        self.emit(&SimEvent::BroadcastStopped { broadcast: number });
        let stop = Stamped::new(Inbound::Stop(id)).in_span(self.span(activity));
        self.call_engine(index, stop);
    }
}
