//! What happens when a request, an answer, a refusal or the pong of a reverse ping arrives.

use crate::coordinator::events::Inbound;
use crate::routing::events::RoutingInbound;
use crate::sim::activity::Activity;
use crate::sim::event::SimEvent;
use crate::sim::network::handle::Handle;
use crate::sim::random::{Random, Stream};
use crate::sim::scenario::behaviour::{Answer, Question};
use crate::sim::world::World;
use crate::sim::world::action::Action;
use crate::sim::world::sent_request::{Payload, SentRequest};
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::request_events::Response;
use core::time::Duration;

impl World {
    /// A request arrives, and the node answers.
    pub(super) fn deliver_request(&mut self, sent: SentRequest) {
        let SentRequest { activity, node, asker, .. } = sent;
        let from = self.population.handle(asker);
        if !self.is_askable(node) || self.is_separated(node, from) {
            if sent.refused {
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
        if !sent.payload.records().is_empty() {
            self.store_records(node, &sent.payload);
        }
        self.schedule_reverse_ping(node, from, activity);
        self.report_discovered(node, from);
        let Some(Answer { closer, after }) = answer.filter(|_| !sent.answer_lost) else {
            self.emit(&SimEvent::Lost { activity, from, to: node });
            return;
        };
        let at = self.now + after + sent.answer_delay;
        if let Some(later) = sent.duplicate {
            self.queue.schedule(at + later, Action::DeliverAnswer(sent.clone(), closer.clone()));
        }
        self.queue.schedule(at, Action::DeliverAnswer(sent, closer));
    }

    /// The answer of the node that is asked; `None` if it sends none.
    fn answer_to(&self, sent: &SentRequest, asker: Handle) -> Option<Answer> {
        let SentRequest { activity, node, target, .. } = *sent;
        if self.is_sybil(node) {
            return Some(Answer { closer: self.closest_sybils(node, target), after: Duration::ZERO });
        }
        // The answer to a store contains no nodes.
        let stores = !sent.payload.records().is_empty();
        let mut honest = if stores { Vec::new() } else { self.closest_known(node, target) };
        if !stores && target == node.key() && self.scenario.is_maintained() {
            honest.insert(0, node); // a node that is asked for its own key returns itself first
            honest.truncate(self.scenario.k);
        }
        let party = match self.node(node) {
            Some(node) => node.party.map(usize::from),
            None => self.accomplice_party(),
        };
        match party.and_then(|party| self.scenario.hostile.get(party)) {
            None => Some(Answer { closer: honest, after: Duration::ZERO }),
            Some(party) => {
                let ids = [activity.number(), u64::from(node.0), self.now.as_nanos()];
                let random = Random::new(self.scenario.seed, Stream::Answer, ids);
                let k = self.scenario.k;
                party.behaviour.answer(Question { node, asker, target, k, honest: &honest, random })
            }
        }
    }

    /// Stores the records of a request at a node, if it is honest.
    fn store_records(&mut self, node: Handle, payload: &Payload) {
        let records = u32::try_from(payload.records().len()).unwrap_or(u32::MAX);
        let Some(index) = self.population.index(node) else { return };
        let Some(there) = self.nodes.get_mut(index as usize).filter(|there| there.party.is_none()) else {
            return;
        };
        there.records.extend(payload.records());
        self.emit(&SimEvent::Stored { node, records });
    }

    /// If maintenance is on, reports the asker to the engine of the node that it asked.
    fn report_discovered(&mut self, node: Handle, asker: Handle) {
        if let Some(index) = self.population.index(node).filter(|_| self.scenario.is_maintained()) {
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
        let exchange = self.scenario.link.exchange(node, asker, 1.0, &mut random);
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
        if self.engine(node).is_none() || !self.answers(asker) || self.is_separated(node, asker) {
            return;
        }
        self.emit(&SimEvent::ReversePinged { node, asker });
        let connected = RoutingInbound::Connected { node: asker, round_trip: Some(round_trip) };
        let stamped = Stamped::new(Inbound::Routing(connected)).in_span(self.span(activity));
        self.call_engine(index, stamped);
    }

    /// An answer arrives.
    pub(super) fn deliver_answer(&mut self, sent: &SentRequest, closer: Vec<Handle>) {
        let SentRequest { activity, node, asker, request, .. } = *sent;
        let from = self.population.handle(asker);
        if self.engine(from).is_none() || self.incarnation(asker) != sent.incarnation {
            self.emit(&SimEvent::Lost { activity, from, to: node });
            return;
        }
        self.emit(&SimEvent::Answered { activity, from, node });
        let response = Inbound::Response(Response::answered(request, closer));
        let stamped = Stamped::new(response).in_span(self.answer_span(sent));
        self.call_engine(asker, stamped);
    }

    /// The notice arrives that the node asked cannot be reached.
    pub(super) fn deliver_refusal(&mut self, sent: &SentRequest) {
        let SentRequest { activity, node, asker, request, .. } = *sent;
        if self.engine(self.population.handle(asker)).is_none() || self.incarnation(asker) != sent.incarnation
        {
            return;
        }
        self.emit(&SimEvent::Refused { activity, node });
        let response = Inbound::Response(Response::failed(request));
        let stamped = Stamped::new(response).in_span(self.answer_span(sent));
        self.call_engine(asker, stamped);
    }
}
