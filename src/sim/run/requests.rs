//! Sends requests: draws what the link does to them, counts them, and schedules their arrival.

use crate::sim::activity::Activity;
use crate::sim::event::SimEvent;
use crate::sim::network::handle::{Handle, Net};
use crate::sim::random::{Random, Stream, scaled};
use crate::sim::results::lookup_run::Asked;
use crate::sim::scenario::change::Sends;
use crate::sim::scenario::dial::Dial;
use crate::sim::scenario::link::{Conditions, Exchange};
use crate::sim::world::World;
use crate::sim::world::action::Action;
use crate::sim::world::connections::Connections;
use crate::sim::world::sent_request::{Payload, SentRequest};
use crate::vocabulary::request_events::Request;
use crate::vocabulary::time::Instant;
use core::time::Duration;

impl World {
    /// What would happen to request number `tries`, from 0, of this lookup to this node if it were sent now: its
    /// round trip, or `None` if it is lost or not answered. It is the same draw that the engine's own request
    /// gets.
    pub fn round_trip(&self, lookup: u32, from: Handle, to: Handle, tries: u64) -> Option<Duration> {
        let exchange = self.lookup_exchange(lookup, from, to, tries);
        let lost = exchange.request_lost || exchange.answer_lost || !self.answers(to);
        (!lost && !self.is_separated(from, to)).then(|| exchange.request_delay + exchange.answer_delay)
    }

    /// Sends a request of a node, by index.
    pub(super) fn send_request(
        &mut self,
        asker: u32,
        request: &Request<Net>,
        deadline: Option<Instant>,
        broadcast: Option<u32>,
    ) {
        let activity = request.initiator.into();
        let (from, to) = (self.population.handle(asker), request.node);
        let link_down = self.nodes.get(asker as usize).and_then(|node| node.link_down);
        let deadline = deadline.unwrap_or(Instant::FAR_FUTURE);
        let payload = Payload::of(&request.ask);
        let mut exchange = match (activity, broadcast) {
            (Activity::Lookup(lookup), _) => {
                let tries = self.count_lookup_request(lookup, request);
                self.lookup_exchange(lookup, from, to, tries)
            }
            (_, Some(broadcast)) => {
                let tries = self.count_broadcast_request(broadcast, request, &payload);
                let ids = [u64::from(broadcast), u64::from(to.0), tries];
                self.draw_exchange(from, to, Random::new(self.scenario.seed, Stream::Broadcast, ids))
            }
            (activity, None) => self.maintenance_exchange(activity, asker, from, to),
        };
        self.emit(&SimEvent::Sent { activity, from, to, hop: request.hop, deadline });
        // A node that goes offline has stopped its operations, but not the background of its broadcasts.
        let is_gone = broadcast.is_some() && self.engine(from).is_none();
        let fails = link_down == Some(Sends::Fail) && !is_gone;
        let arrives = self.is_askable(to) && !self.is_separated(from, to) && !is_gone;
        let refused = exchange.refused && link_down.is_none() && !is_gone;
        if !fails && (exchange.request_lost || !(arrives || refused)) {
            self.emit(&SimEvent::Lost { activity, from, to });
            return;
        }
        let dialled = !fails && self.connect(asker, from, to, &mut exchange);
        let sent = SentRequest {
            request: request.id,
            target: request.target,
            answer_delay: exchange.answer_delay,
            duplicate: exchange.duplicate,
            activity,
            asker,
            incarnation: self.incarnation(asker),
            node: to,
            answer_lost: exchange.answer_lost,
            refused,
            dialled,
            broadcast,
            payload,
        };
        if fails {
            self.queue.schedule(self.now, Action::DeliverRefusal(sent));
        } else {
            self.queue.schedule(self.now + exchange.request_delay, Action::DeliverRequest(sent));
        }
    }

    /// Where first contacts cost something: delays a request until there is a connection. Returns whether the asker had to
    /// wait for one.
    fn connect(&mut self, asker: u32, from: Handle, to: Handle, exchange: &mut Exchange) -> bool {
        let Some(dial) = self.scenario.link.dial else { return false };
        let takes = scaled(exchange.request_delay + exchange.answer_delay, dial.round_trips);
        let now = self.now;
        let Some(own) = self.connections(asker, &dial) else { return false };
        let (wait, dialled) = own.use_now(&dial, now, to, takes);
        exchange.request_delay += wait;
        if !self.is_askable(to) || self.is_separated(from, to) {
            // Nobody is there to connect to: the next request dials again.
            self.connections(asker, &dial).into_iter().for_each(|own| own.close(to));
        } else if let Some(other) = self.population.index(to)
            && let Some(others) = self.connections(other, &dial)
        {
            others.use_now(&dial, now, from, takes);
        }
        dialled
    }

    /// The connections of a node, by index; in the beginning those to the nodes of its table.
    fn connections(&mut self, index: u32, dial: &Dial) -> Option<&mut Connections> {
        let node = self.nodes.get_mut(index as usize)?;
        let engine = node.engine.as_ref().filter(|_| dial.tables && node.incarnation == 0);
        let connections = node.connections.get_or_insert_with(|| {
            let table = engine.into_iter().flat_map(|engine| engine.table().iter());
            Box::new(Connections::to(table.map(|entry| *entry.node()), dial))
        });
        Some(connections)
    }

    /// What the link does to request number `tries` of a lookup to a node.
    fn lookup_exchange(&self, lookup: u32, from: Handle, to: Handle, tries: u64) -> Exchange {
        let ids = [u64::from(lookup), u64::from(to.0), tries];
        self.draw_exchange(from, to, Random::new(self.scenario.seed, Stream::Exchange, ids))
    }

    /// Counts a request of the table's maintenance, and draws what the link does to it.
    fn maintenance_exchange(&mut self, activity: Activity, asker: u32, from: Handle, to: Handle) -> Exchange {
        self.upkeep.count(activity);
        let Some(node) = self.nodes.get_mut(asker as usize) else {
            return self.lookup_exchange(0, from, to, 0);
        };
        node.upkeep_requests += 1;
        let ids = [u64::from(from.0), u64::from(node.upkeep_requests)];
        self.draw_exchange(from, to, Random::new(self.scenario.seed, Stream::Upkeep, ids))
    }

    fn draw_exchange(&self, from: Handle, to: Handle, mut random: Random) -> Exchange {
        self.scenario.link.exchange(&self.trip(from, to), &self.conditions(to), &mut random)
    }

    /// What holds for an exchange with this node now, besides the link.
    pub(super) fn conditions(&self, to: Handle) -> Conditions {
        let slow = self.node(to).is_some_and(|node| node.slow);
        let (factor, add) = self.slow_down;
        Conditions {
            loss: self.loss,
            factor: if slow { self.scenario.slow.factor * factor } else { factor },
            add,
            round_trip: self.behaviour_of(to).and_then(|behaviour| behaviour.round_trip()),
        }
    }

    /// Notes a request of a lookup. Returns how many requests it has sent to that node before.
    fn count_lookup_request(&mut self, lookup: u32, request: &Request<Net>) -> u64 {
        let Some(lookup) = self.lookups.get_mut(lookup as usize) else { return 0 };
        let tries = lookup.asked.iter().filter(|asked| asked.node == request.node).count() as u64;
        let (node, hop, sent, request) = (request.node, request.hop, self.now, request.id);
        lookup.asked.push(Asked { node, hop, sent, ended: None, request });
        tries
    }

    /// Counts a request of a broadcast. Returns how many requests it has sent to that node before.
    fn count_broadcast_request(&mut self, broadcast: u32, request: &Request<Net>, payload: &Payload) -> u64 {
        let Some(broadcast) = self.broadcasts.get_mut(broadcast as usize) else { return 0 };
        match payload {
            Payload::Empty | Payload::Message(_) => broadcast.finds += 1,
            payload => {
                broadcast.stores += 1;
                broadcast.stored += u32::try_from(payload.records().len()).unwrap_or(u32::MAX);
            }
        }
        let tries = broadcast.tries.entry(request.node).or_default();
        *tries += 1;
        *tries - 1
    }

    /// How often a node, by index, has restarted with an empty table.
    pub(super) fn incarnation(&self, index: u32) -> u32 {
        self.nodes.get(index as usize).map_or(0, |node| node.incarnation)
    }
}
