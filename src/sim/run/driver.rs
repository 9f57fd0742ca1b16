//! The driver of every node: calls its engine, performs the engine's outbound events, and schedules its wake-ups.

use crate::coordinator::events::{Inbound, Outbound};
use crate::routing::events::RoutingOutbound;
use crate::sim::activity::{Activity, short_tag};
use crate::sim::event::SimEvent;
use crate::sim::network::handle::Net;
use crate::sim::random::Stream;
use crate::sim::results::end::End;
use crate::sim::results::lookup_run::{Ending, RequestEnd};
use crate::sim::world::World;
use crate::sim::world::action::Action;
use crate::sim::world::node::Node;
use crate::vocabulary::id::RequestId;
#[cfg(not(feature = "record"))]
use crate::vocabulary::machine::Machine;
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::request_events::{CancelReason, RequestOutcome};
use crate::vocabulary::time::Instant;
use core::time::Duration;

impl World {
    /// Calls the engine of a node, by index, and performs the outbound events. Without an engine, nothing happens.
    ///
    /// Where calls are checked and something is due, the engine is called twice: with a tick first, so that the
    /// checker knows what the event has caused. The contract says that this is the same.
    pub(super) fn call_engine(&mut self, index: u32, event: Stamped<Inbound<Net>>) {
        self.tell_known_round_trips(index);
        let due = self.nodes.get(index as usize).and_then(Node::timeout).is_some_and(|at| at <= self.now);
        if due && self.checkers.is_some() && event.event != Inbound::Tick {
            self.handle_event(index, Stamped::new(Inbound::Tick));
        }
        self.handle_event(index, event);
        self.schedule_wake(index);
    }

    /// Makes one call of an engine, has it checked, and performs the outbound events.
    fn handle_event(&mut self, index: u32, event: Stamped<Inbound<Net>>) {
        let response_to = match &event.event {
            Inbound::Response(response) => Some(response.request),
            _ => None,
        };
        let mut batch = core::mem::take(&mut self.outbound);
        if let Some(engine) = self.nodes.get_mut(index as usize).and_then(|node| node.engine.as_mut()) {
            let checked = self.checkers.as_mut().map(|checkers| {
                checkers.begin(index, engine);
                event.clone()
            });
            #[cfg(feature = "record")]
            self.recordings.handle_into(index, engine, self.now, event, &mut batch);
            #[cfg(not(feature = "record"))]
            engine.handle_into(self.now, event, &mut batch);
            if let (Some(checkers), Some(event)) = (&mut self.checkers, checked)
                && let Some(checker) = checkers.get_mut(index)
                && let Err(broken) = checker.check(self.now, &event, &batch, engine)
            {
                self.violate(self.population.handle(index), &broken);
            }
        }
        for stamped in batch.drain(..) {
            self.perform(index, response_to, stamped);
        }
        self.outbound = batch;
    }

    /// Performs one outbound event of a node's engine. `response_to` is the request whose response caused it, if
    /// any.
    fn perform(&mut self, index: u32, response_to: Option<RequestId>, stamped: Stamped<Outbound<Net>>) {
        let table = self.population.handle(index);
        match stamped.event {
            Outbound::Started(started) => {
                self.operations.insert((index, short_tag(started.operation.tag())), started.operation);
            }
            Outbound::Request(request) => {
                let broadcast = Self::broadcast_of(request.initiator.into(), &stamped.context);
                self.send_request(index, &request, stamped.deadline, broadcast);
            }
            Outbound::Cancel(cancel) => {
                let activity = cancel.initiator.into();
                let timed_out = cancel.reason == CancelReason::TimedOut;
                self.emit(&SimEvent::Cancelled { activity, node: cancel.node, timed_out });
                if let Activity::Lookup(lookup) = activity {
                    let end = if timed_out { RequestEnd::TimedOut } else { RequestEnd::Cancelled };
                    self.request_ended(lookup, cancel.id, end);
                }
            }
            Outbound::Progress(progress) => {
                let end = match progress.outcome {
                    RequestOutcome::Answered { .. } => RequestEnd::Answered,
                    RequestOutcome::TimedOut | RequestOutcome::Incomplete { .. } => return, // its cancel came before
                    _ => RequestEnd::Failed,
                };
                if let Some(request) = response_to {
                    self.request_ended(short_tag(progress.operation.tag()), request, end);
                }
            }
            Outbound::Finished(finish) => {
                self.operations.remove(&(index, short_tag(finish.operation.tag())));
                self.lookup_finished(&finish);
            }
            Outbound::BroadcastFinished(finish) => {
                self.operations.remove(&(index, short_tag(finish.operation.tag())));
                self.broadcast_finished(&finish);
            }
            Outbound::Refused(refused) => {
                let (tag, end) = (short_tag(refused.tag), End::Refused(refused.reason));
                if let Activity::Broadcast(broadcast) = Activity::from_tag(tag) {
                    self.broadcast_not_started(broadcast, end);
                    return;
                }
                self.close_lookup(tag, 0, Ending::without_requests(end, self.now));
            }
            Outbound::Routing(RoutingOutbound::Admitted(node)) => {
                self.emit(&SimEvent::Admitted { table, node });
            }
            Outbound::Routing(RoutingOutbound::Removed(node)) => {
                self.emit(&SimEvent::Removed { table, node });
            }
            // With the maintenance off, the engine emits it after any lookup of the node's own key.
            Outbound::Routing(RoutingOutbound::Bootstrapped(it)) if self.scenario.is_maintained() => {
                let nodes = u32::try_from(it.nodes).unwrap_or(u32::MAX);
                self.emit(&SimEvent::Bootstrapped { node: table, nodes });
            }
            // The simulator starts no crawls.
            Outbound::Routing(RoutingOutbound::Bootstrapped(_) | RoutingOutbound::Updated(_))
            | Outbound::CrawlProgress(_)
            | Outbound::CrawlFinished(_)
            | Outbound::BroadcastProgress(_)
            | Outbound::NetworkSize { .. } => {}
            Outbound::Routing(RoutingOutbound::CutOff { .. }) => self.emit(&SimEvent::CutOff { node: table }),
            Outbound::Routing(RoutingOutbound::Reconnected { .. }) => {
                self.emit(&SimEvent::Reconnected { node: table });
            }
            Outbound::Routing(RoutingOutbound::NearEmpty { nodes }) => {
                let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
                self.emit(&SimEvent::NearEmpty { node: table, nodes });
            }
        }
    }

    /// Performs a scheduled wake-up. Wake-ups are never removed from the queue: if the engine was called
    /// after one was scheduled, it may have nothing to do yet.
    pub(super) fn wake(&mut self, index: u32) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        if node.next_wake != now {
            return;
        }
        node.next_wake = Instant::FAR_FUTURE;
        if let Some(until) = self.wakes_at(index) {
            self.schedule_wake_at(index, until);
            return;
        }
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        if node.timeout().is_some_and(|at| at <= now) {
            node.wakes += 1;
            self.emit(&SimEvent::Woke { node: self.population.handle(index) });
            self.call_engine(index, Stamped::new(Inbound::Tick));
        } else {
            self.schedule_wake(index);
        }
    }

    /// Schedules a wake-up at the engine's next time-out, unless one is scheduled that is no later.
    fn schedule_wake(&mut self, index: u32) {
        if let Some(at) = self.nodes.get(index as usize).and_then(Node::timeout) {
            self.schedule_wake_at(index, at);
        }
    }

    fn schedule_wake_at(&mut self, index: u32, at: Instant) {
        if let Some(node) = self.nodes.get_mut(index as usize)
            && at < node.next_wake
        {
            node.next_wake = at;
            self.queue.schedule(at, Action::Wake(index));
        }
    }

    #[cfg(test)]
    pub(super) fn wake_at_once(&mut self, index: u32) {
        self.call_engine(index, Stamped::new(Inbound::Tick));
    }

    /// Feeds the round trips that were measured before the run to a node's engine, at its first call.
    fn tell_known_round_trips(&mut self, index: u32) {
        let round_trips = self.known_round_trips(index);
        if let Some(node) = self.nodes.get_mut(index as usize)
            && let Some(engine) = &mut node.engine
            && core::mem::take(&mut node.known_round_trips_pending)
        {
            for round_trip in round_trips {
                engine.observe(round_trip);
            }
        }
    }

    /// The round trips, to nodes of its table, that a node has measured before the run; empty once its engine has
    /// them.
    pub(super) fn known_round_trips(&self, index: u32) -> Vec<Duration> {
        let node = self.nodes.get(index as usize).filter(|node| node.known_round_trips_pending);
        let Some(engine) = node.and_then(|node| node.engine.as_ref()) else { return Vec::new() };
        let from = self.population.handle(index);
        let mut random = self.random(Stream::PreseedRtt, index);
        let known: Vec<_> = engine.table().iter().map(|record| *record.node()).collect();
        let some = known.into_iter().cycle().take(usize::from(self.scenario.known_round_trips));
        some.map(|to| self.scenario.link.round_trip.draw(&self.trip(from, to), &mut random)).collect()
    }
}
