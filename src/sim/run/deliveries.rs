//! What happens when a request, an answer, a refusal or the pong of a reverse ping arrives.

use crate::coordinator::events::Inbound;
use crate::routing::events::RoutingInbound;
use crate::sim::activity::Activity;
use crate::sim::event::SimEvent;
use crate::sim::network::handle::{Handle, Key64};
use crate::sim::random::{Random, Stream};
use crate::sim::scenario::answers::Answers;
use crate::sim::scenario::behaviour::{Answer, AskedFor, Question};
use crate::sim::scenario::link::Conditions;
use crate::sim::world::World;
use crate::sim::world::action::Action;
use crate::sim::world::sent_request::{Payload, SentRequest};
use crate::vocabulary::key::Key;
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::request_events::{Response, Verdict};
use core::time::Duration;

impl World {
    /// A request arrives, and the node answers.
    pub(super) fn deliver_request(&mut self, sent: SentRequest) {
        let SentRequest { activity, node, asker, .. } = sent;
        let from = self.population.handle(asker);
        let is_client = self.node(node).is_some_and(|node| !node.serves);
        if !self.is_askable(node) || self.is_separated(node, from) || is_client {
            let reachable = is_client && self.is_askable(node) && !self.is_separated(node, from);
            if sent.refused || reachable && !sent.answer_lost {
                self.queue.schedule(self.now + sent.answer_delay, Action::DeliverRefusal(sent));
            } else {
                self.emit(&SimEvent::Lost { activity, from, to: node });
            }
            return;
        }
        let answer = self.answer_to(&sent, from);
        let named = answer.as_ref().map_or(0, |answer| answer.closer.len());
        let closer = u32::try_from(named).unwrap_or(u32::MAX);
        self.emit(&SimEvent::Asked { activity, node, closer });
        if !sent.payload.records().is_empty() && answer.as_ref().is_some_and(|answer| answer.keeps) {
            self.store_records(node, &sent.payload);
        }
        self.schedule_reverse_ping(node, from, activity);
        if self.nodes.get(asker as usize).is_some_and(|asker| asker.serves) {
            self.report_discovered(node, from);
        }
        let Some(Answer { closer, after, shows, .. }) = answer.filter(|_| !sent.answer_lost) else {
            self.emit(&SimEvent::Lost { activity, from, to: node });
            return;
        };
        let at = self.now + after + sent.answer_delay;
        if let Some(later) = sent.duplicate {
            self.queue.schedule(at + later, Action::DeliverAnswer(sent.clone(), closer.clone(), shows));
        }
        self.queue.schedule(at, Action::DeliverAnswer(sent, closer, shows));
    }

    /// The answer of the node that is asked; `None` if it sends none.
    fn answer_to(&self, sent: &SentRequest, asker: Handle) -> Option<Answer> {
        let SentRequest { activity, node, target, ref payload, .. } = *sent;
        let names = usize::from(self.scenario.answers.names);
        let behaviour = self.behaviour_of(node);
        let honest = match self.sybils.set_of(node) {
            None => self.honest_answer(payload, node, target, asker),
            Some(_) => self.population.closest(target, names, |other| other != asker && self.answers(other)),
        };
        let wanted = payload.asked_for();
        let Some(behaviour) = behaviour else {
            let shows = match wanted {
                AskedFor::Message(record) if self.holds(node, record) => Some(record),
                _ => None,
            };
            return Some(Answer { keeps: true, shows, ..Answer::naming(honest) });
        };
        let ids = [activity.number(), u64::from(node.0), self.now.as_nanos()];
        let random = Random::new(self.scenario.seed, Stream::Answer, ids);
        let own_set = self.sybils.set_of(node).and_then(|set| self.sybils.all().get(set));
        let others = own_set.into_iter().flatten().copied().filter(|sybil| *sybil != node);
        let mut members: Vec<_> = others.collect();
        members.sort_unstable_by_key(|sybil| sybil.key().distance(&target));
        let (at, members) = (self.now, members.as_slice());
        behaviour.answer(Question {
            at,
            node,
            asker,
            target,
            asked: wanted,
            k: names,
            honest: &honest,
            members,
            random,
        })
    }

    /// The nodes that an honest node names.
    fn honest_answer(&self, payload: &Payload, node: Handle, target: Key64, asker: Handle) -> Vec<Handle> {
        // The answer to a store contains no nodes.
        if !payload.records().is_empty() {
            return Vec::new();
        }
        let Answers { names, with_itself, without_asker, .. } = self.scenario.answers;
        let names = usize::from(names);
        let mut nodes = self.closest_in_table(node, target, names + usize::from(without_asker));
        if without_asker {
            nodes.retain(|named| *named != asker);
        }
        if with_itself && target == node.key() && self.engine(node).is_some() {
            nodes.insert(0, node);
        }
        nodes.truncate(names);
        nodes
    }

    /// Stores the records of a request at a node.
    fn store_records(&mut self, node: Handle, payload: &Payload) {
        let records = u32::try_from(payload.records().len()).unwrap_or(u32::MAX);
        let Some(index) = self.population.index(node) else { return };
        let Some(there) = self.nodes.get_mut(index as usize) else { return };
        there.records.extend(payload.records());
        self.emit(&SimEvent::Stored { node, records });
    }

    /// If a node keeps its table itself, reports the asker to its engine.
    pub(super) fn report_discovered(&mut self, node: Handle, asker: Handle) {
        let keeps_table = |index: &u32| {
            let there = self.nodes.get(*index as usize);
            there.is_some_and(|node| node.maintained && node.up && self.now >= node.asleep_until)
        };
        if let Some(index) = self.population.index(node).filter(keeps_table) {
            let discovered = Inbound::Routing(RoutingInbound::Discovered(asker));
            let stamped = Stamped::new(discovered).in_span(self.root_span());
            self.call_engine(index, stamped);
        }
    }

    /// If reverse pings are on, a node pings an asker that its table lacks.
    fn schedule_reverse_ping(&mut self, node: Handle, asker: Handle, activity: Activity) {
        let lacks_asker = |node| self.engine(node).is_some_and(|engine| engine.table().get(&asker).is_none());
        if !self.scenario.reverse_ping || !lacks_asker(node) || !self.answers(asker) {
            return;
        }
        let ids = [activity.number(), u64::from(node.0)];
        let mut random = Random::new(self.scenario.seed, Stream::ReversePing, ids);
        let conditions = Conditions { factor: 1.0, ..self.conditions(asker) };
        let exchange = self.scenario.link.exchange(&self.trip(node, asker), &conditions, &mut random);
        if let Some(index) = self.population.index(node)
            && !exchange.request_lost
            && !exchange.answer_lost
        {
            let round_trip = exchange.request_delay + exchange.answer_delay;
            let action = Action::ReversePing { node: index, asker, activity, round_trip };
            self.queue.schedule(self.now + round_trip, action);
        }
    }

    /// The pong of a reverse ping arrives: reports the asker to the node's engine.
    pub(super) fn deliver_reverse_ping(
        &mut self,
        index: u32,
        asker: Handle,
        activity: Activity,
        round_trip: Duration,
    ) {
        let node = self.population.handle(index);
        if !self.is_awake(index) || !self.answers(asker) || self.is_separated(node, asker) {
            return;
        }
        self.emit(&SimEvent::ReversePinged { node, asker });
        let connected = RoutingInbound::Connected { node: asker, round_trip: Some(round_trip) };
        let stamped = Stamped::new(Inbound::Routing(connected)).in_span(self.span(activity));
        self.call_engine(index, stamped);
    }

    /// An answer arrives.
    pub(super) fn deliver_answer(&mut self, sent: &SentRequest, closer: Vec<Handle>, shows: Option<u32>) {
        let SentRequest { activity, node, asker, request, ref payload, .. } = *sent;
        let from = self.population.handle(asker);
        if !self.receives(sent) || (self.links_changed && self.is_separated(node, from)) {
            self.emit(&SimEvent::Lost { activity, from, to: node });
            return;
        }
        self.emit(&SimEvent::Answered { activity, from, node });
        let mut response = Response::answered(request, closer);
        if sent.dialled {
            response = response.after_dial();
        }
        if let (Some(shown), AskedFor::Message(record), Activity::Lookup(lookup)) =
            (shows, payload.asked_for(), activity)
            && let Some(lookup) = self.lookups.get_mut(lookup as usize)
            && lookup.record == Some(record)
            && lookup.ending.is_none()
        {
            // The driver tells a record from a lie.
            if shown == record {
                lookup.shown += 1;
                response = response.with_value();
            } else {
                lookup.lies += 1;
                response = response.with_verdict(Verdict::Invalid);
            }
        }
        let stamped = Stamped::new(Inbound::Response(response)).in_span(self.answer_span(sent));
        self.call_engine(asker, stamped);
    }

    /// Whether the engine that sent a request is there to receive what comes of it.
    fn receives(&self, sent: &SentRequest) -> bool {
        let asker = self.nodes.get(sent.asker as usize);
        asker.is_some_and(|node| {
            node.up
                && node.engine.is_some()
                && node.incarnation == sent.incarnation
                && self.now >= node.asleep_until
        })
    }

    /// The notice arrives that the node asked cannot be reached, or serves nobody.
    pub(super) fn deliver_refusal(&mut self, sent: &SentRequest) {
        let SentRequest { activity, node, asker, request, .. } = *sent;
        if !self.receives(sent) {
            return;
        }
        self.emit(&SimEvent::Refused { activity, node });
        let down = self.nodes.get(asker as usize).is_some_and(|node| node.link_down.is_some());
        let response = if down { Response::unreachable(request) } else { Response::failed(request) };
        let stamped = Stamped::new(Inbound::Response(response)).in_span(self.answer_span(sent));
        self.call_engine(asker, stamped);
    }
}
