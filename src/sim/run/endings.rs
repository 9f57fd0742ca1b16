//! What the world notes when a request, a lookup or a broadcast ends. Nothing here calls an engine: these methods
//! run while an engine's outbound events are performed.

use crate::broadcast::events::BroadcastFinish;
use crate::sim::activity::{Activity, short_tag};
use crate::sim::event::SimEvent;
use crate::sim::network::handle::{Handle, Net};
use crate::sim::results::broadcast_run::BroadcastEnding;
use crate::sim::results::end::End;
use crate::sim::results::lookup_run::{Asked, Ending, Reason, RequestEnd};
use crate::sim::world::World;
use crate::sim::world::action::Action;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::operation_events::Finish;
use std::collections::BTreeMap;

impl World {
    /// Notes how a request of a lookup ended.
    pub(super) fn request_ended(&mut self, lookup: u32, request: RequestId, end: RequestEnd) {
        let now = self.now;
        let asked = self.lookups.get_mut(lookup as usize).map(|lookup| lookup.asked.as_mut_slice());
        let same = |asked: &&mut Asked| asked.request == request && asked.ended.is_none();
        if let Some(asked) = asked.unwrap_or_default().iter_mut().rev().find(same) {
            asked.ended = Some((now, end));
        }
    }

    /// An engine has finished a lookup: measures its recall.
    pub(super) fn lookup_finished(&mut self, finish: &Finish<Net>) {
        let lookup = short_tag(finish.operation.tag());
        let Some(starter) = self.lookups.get(lookup as usize).map(|lookup| lookup.starter) else { return };
        let truth = self.truly_closest(finish.target, starter);
        let is_found = |node: &Handle| finish.closest.iter().any(|contact| contact.node == *node);
        let found = truth.iter().filter(|node| is_found(node)).count();
        let recall = if truth.is_empty() { 1.0 } else { found as f64 / truth.len() as f64 };
        let hit = truth.first().is_none_or(is_found);
        if let Some(lookup) = self.lookups.get_mut(lookup as usize).filter(|it| it.reason == Reason::Workload)
        {
            lookup.found = finish.closest.iter().map(|contact| contact.node).collect();
            lookup.missed = truth.into_iter().filter(|node| !is_found(node)).collect();
        }
        let (end, at) = (End::Finished(finish.outcome), self.now);
        let results = u32::try_from(finish.closest.len()).unwrap_or(u32::MAX);
        self.close_lookup(
            lookup,
            results,
            Ending { end, at, stats: finish.stats, recall, hit, region: finish.region },
        );
    }

    /// Notes the end of a lookup.
    pub(super) fn close_lookup(&mut self, number: u32, results: u32, ending: Ending) {
        self.emit(&SimEvent::Finished { lookup: number, end: ending.end, results });
        let is_detailed = self.detailed.contains(&number);
        if let Some(lookup) = self.lookups.get_mut(number as usize) {
            lookup.ending = Some(ending);
            self.unfinished -= u32::from(lookup.reason == Reason::Workload);
            if !is_detailed {
                lookup.asked = Vec::new();
            }
            if lookup.reason == Reason::Warmup {
                let starter = lookup.starter;
                self.warmup_lookup_ended(starter);
            }
        }
    }

    /// Counts a warm-up lookup that ended; after the last one of its node, the waiting broadcasts are scheduled.
    fn warmup_lookup_ended(&mut self, node: Handle) {
        let Some(index) = self.population.index_ever(node) else { return };
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        if let Some(left) = &mut node.warmup_left {
            *left = left.saturating_sub(1);
            if *left > 0 {
                return;
            }
        }
        // Scheduled and not submitted here, as a call of the same engine is being performed.
        for broadcast in self.waiting_for_warmup.remove(&index).unwrap_or_default() {
            self.queue.schedule(self.now, Action::SubmitBroadcast { node: index, broadcast });
        }
    }

    /// An engine has finished a broadcast; its background may go on.
    pub(super) fn broadcast_finished(&mut self, finish: &BroadcastFinish<Net>) {
        let Activity::Broadcast(number) = Activity::from_tag(short_tag(finish.operation.tag())) else {
            return;
        };
        let ending = BroadcastEnding {
            end: End::Finished(finish.outcome),
            at: self.now,
            succeeded: finish.succeeded,
            fell_back: finish.fallback_reason.is_some(),
            lookups: finish.lookups,
            share: self.coverage(number).share,
            stats: finish.stats,
            region: finish.region,
        };
        let stores = u32::try_from(finish.stores.len()).unwrap_or(u32::MAX);
        self.close_broadcast(number, stores, ending);
    }

    /// Notes the end of a broadcast that no engine accepted.
    pub(super) fn broadcast_not_started(&mut self, number: u32, end: End) {
        self.close_broadcast(number, 0, BroadcastEnding::without_requests(end, self.now));
    }

    fn close_broadcast(&mut self, number: u32, stores: u32, ending: BroadcastEnding) {
        self.emit(&SimEvent::BroadcastFinished { broadcast: number, end: ending.end, stores });
        if let Some(broadcast) = self.broadcasts.get_mut(number as usize) {
            broadcast.ending = Some(ending);
            self.unfinished -= 1;
            // By then the requests that were sent last in the background have arrived, except the slowest.
            let config = &self.scenario.config;
            let after = config.broadcast.background_timeout + config.network.request_timeout;
            self.queue.schedule(self.now + after, Action::MeasureCoverage(number));
        }
    }

    /// Measures which nodes hold the records of a broadcast whose background is over.
    pub(super) fn measure_coverage(&mut self, number: u32) {
        let Coverage { share, least, held_by_none } = self.coverage(number);
        if let Some(broadcast) = self.broadcasts.get_mut(number as usize) {
            (broadcast.share, broadcast.least, broadcast.held_by_none) = (Some(share), least, held_by_none);
            broadcast.tries = BTreeMap::new();
        }
    }

    /// The share of the k nodes closest to a record's key, among those that can answer now, that hold the record:
    /// the mean over the records of a broadcast, and the least.
    fn coverage(&self, number: u32) -> Coverage {
        let mut coverage = Coverage { share: 0.0, least: 1.0, held_by_none: 0 };
        let Some(broadcast) = self.broadcasts.get(number as usize) else { return coverage };
        for record in broadcast.first..broadcast.first + broadcast.records {
            let truth = self.truly_closest(self.record_key(record), broadcast.starter);
            let holders = truth.iter().filter(|node| self.holds(**node, record)).count();
            let share = if truth.is_empty() { 1.0 } else { holders as f64 / truth.len() as f64 };
            coverage.share += share / f64::from(broadcast.records.max(1));
            coverage.least = coverage.least.min(share);
            coverage.held_by_none += u32::from(holders == 0 && !truth.is_empty());
        }
        coverage
    }
}

/// Which nodes hold the records of a broadcast.
struct Coverage {
    /// The mean share of the true k closest nodes that hold a record.
    share: f64,
    /// The least such share of any record.
    least: f64,
    /// How many records none of them holds.
    held_by_none: u32,
}
