//! How requests and answers pass between the nodes of a [`World`].

use super::behaviour::{Answer, Question};
use super::check::Told;
use super::event::{Event, Work};
use super::link::Exchange;
use super::lookup::Asked;
use super::nodes::{Handle, Net};
use super::queue::{Cargo, Flight, Plan};
use super::random::{Draw, Purpose};
use super::world::World;
use crate::coordinator::Inbound;
use crate::event::Request;
use crate::machine::Stamped;
use crate::time::Instant;
use core::time::Duration;

impl World {
    /// What the link does to the `tries`-th request of a lookup to a node.
    pub(crate) fn exchange(&self, lookup: u32, from: Handle, to: Handle, tries: u64) -> Exchange {
        let ids = [u64::from(lookup), u64::from(to.0), tries];
        self.drawn(from, to, Draw::new(self.scenario.seed, Purpose::Exchange, ids))
    }

    fn drawn(&self, from: Handle, to: Handle, mut draw: Draw) -> Exchange {
        let slow = self.node(to).is_some_and(|node| node.slow);
        let factor = if slow { self.scenario.slow.factor } else { 1.0 };
        self.scenario.link.exchange(from, to, factor, &mut draw)
    }

    /// A request leaves its asker.
    pub(crate) fn send(
        &mut self,
        asker: u32,
        request: &Request<Net>,
        deadline: Option<Instant>,
        broadcast: Option<u32>,
    ) {
        let work = request.owner.into();
        let (from, to) = (self.population.handle(asker), request.node);
        let deadline = deadline.unwrap_or(Instant::FAR_FUTURE);
        let cargo = Cargo::of(&request.ask);
        let exchange = match (work, broadcast) {
            (Work::Lookup(lookup), _) => {
                let tries = self.asks(lookup, request);
                self.exchange(lookup, from, to, tries)
            }
            (_, Some(broadcast)) => {
                let tries = self.broadcast_asks(broadcast, request, &cargo);
                let ids = [u64::from(broadcast), u64::from(to.0), tries];
                self.drawn(from, to, Draw::new(self.scenario.seed, Purpose::Broadcast, ids))
            }
            (upkeep, None) => self.tend(upkeep, asker, from, to),
        };
        self.note(&Event::Sent { work, from, to, hop: request.hop, deadline });
        // Whoever has gone away has stopped all that it was asked for, but not what goes on in the background.
        let gone = broadcast.is_some() && self.engine(from).is_none();
        let there = self.is_askable(to) && !self.cut(from, to) && !gone;
        if exchange.request_lost || !(there || exchange.refused && !gone) {
            self.note(&Event::Lost { work, from, to });
            return;
        }
        let flight = Flight {
            request: request.id,
            target: request.target,
            back: exchange.back,
            duplicate: exchange.duplicate,
            work,
            asker,
            life: self.life(asker),
            node: to,
            answer_lost: exchange.answer_lost,
            refused: exchange.refused && !gone,
            broadcast,
            cargo,
        };
        self.queue.plan(self.now + exchange.there, Plan::Ask(flight));
    }

    /// Counts a request that is not for a lookup, and says what the link does to it.
    fn tend(&mut self, work: Work, asker: u32, from: Handle, to: Handle) -> Exchange {
        self.upkeep.count(work);
        let Some(node) = self.nodes.get_mut(asker as usize) else { return self.exchange(0, from, to, 0) };
        node.upkeep += 1;
        let ids = [u64::from(from.0), u64::from(node.upkeep)];
        self.drawn(from, to, Draw::new(self.scenario.seed, Purpose::Upkeep, ids))
    }

    fn life(&self, index: u32) -> u32 {
        self.nodes.get(index as usize).map_or(0, |node| node.life)
    }

    /// Notes a request of a lookup. Says how often it has asked that node before.
    fn asks(&mut self, lookup: u32, request: &Request<Net>) -> u64 {
        let Some(lookup) = self.lookups.get_mut(lookup as usize) else { return 0 };
        let tries = lookup.asked.iter().filter(|asked| asked.node == request.node).count() as u64;
        let (node, hop, sent, request) = (request.node, request.hop, self.now, request.id);
        lookup.asked.push(Asked { node, hop, sent, ended: None, request });
        tries
    }

    /// Whether a request to this node arrives anywhere.
    fn is_askable(&self, node: Handle) -> bool {
        match self.node(node) {
            Some(node) => node.up && node.open,
            None => self.is_sybil(node) || (node.is_accomplice() && self.accomplices().is_some()),
        }
    }

    /// The party that accomplices belong to.
    fn accomplices(&self) -> Option<usize> {
        self.scenario.hostile.iter().position(|party| party.behaviour.has_accomplices())
    }

    /// A request arrives, and the node answers.
    pub(crate) fn ask(&mut self, flight: Flight) {
        let Flight { work, node, asker, .. } = flight;
        let from = self.population.handle(asker);
        if !self.is_askable(node) || self.cut(node, from) {
            if flight.refused {
                self.queue.plan(self.now + flight.back, Plan::Refused(flight));
            } else {
                self.note(&Event::Lost { work, from, to: node });
            }
            return;
        }
        let answer = self.answer_of(&flight, from);
        let named = answer.as_ref().map_or(0, |answer| answer.closer.len());
        let closer = u32::try_from(named).unwrap_or(u32::MAX);
        self.note(&Event::Asked { work, node, closer });
        if !flight.cargo.records().is_empty() {
            self.keep(node, &flight.cargo);
        }
        self.plan_meeting(node, from, work);
        self.discovered(node, from);
        let Some(Answer { closer, after }) = answer.filter(|_| !flight.answer_lost) else {
            self.note(&Event::Lost { work, from, to: node });
            return;
        };
        let at = self.now + after + flight.back;
        if let Some(later) = flight.duplicate {
            self.queue.plan(at + later, Plan::Answer(flight.clone(), closer.clone()));
        }
        self.queue.plan(at, Plan::Answer(flight, closer));
    }

    /// What the node that is asked answers; `None` where it never does.
    fn answer_of(&self, flight: &Flight, asker: Handle) -> Option<Answer> {
        let Flight { work, node, target, .. } = *flight;
        if self.is_sybil(node) {
            return Some(Answer { closer: self.name_sybils(node, target), after: Duration::ZERO });
        }
        // Who is asked to store something names nobody.
        let stores = !flight.cargo.records().is_empty();
        let mut honest = if stores { Vec::new() } else { self.closest_known(node, target) };
        if !stores && target == node.key() && self.scenario.is_maintained() {
            honest.insert(0, node); // as a node does that is asked for itself
            honest.truncate(self.scenario.k);
        }
        let party = match self.node(node) {
            Some(node) => node.party.map(usize::from),
            None => self.accomplices(),
        };
        match party.and_then(|party| self.scenario.hostile.get(party)) {
            None => Some(Answer { closer: honest, after: Duration::ZERO }),
            Some(party) => {
                let ids = [work.number(), u64::from(node.0), self.now.as_nanos()];
                let draw = Draw::new(self.scenario.seed, Purpose::Answer, ids);
                let k = self.scenario.k;
                party.behaviour.answer(Question { node, asker, target, k, honest: &honest, draw })
            }
        }
    }

    /// A node that keeps its table itself is told of one that has asked it.
    fn discovered(&mut self, node: Handle, asker: Handle) {
        if let Some(index) = self.population.index(node).filter(|_| self.scenario.is_maintained()) {
            let told = Stamped::new(Inbound::Discovered(asker)).in_span(self.root());
            self.tell(index, Told::Notice, told);
        }
    }

    /// A node that was asked by one that it does not know asks back.
    fn plan_meeting(&mut self, node: Handle, asker: Handle, work: Work) {
        let unknown = |node| self.engine(node).is_some_and(|engine| engine.table().get(&asker).is_none());
        if !self.scenario.meet || !unknown(node) || !self.answers(asker) {
            return;
        }
        let ids = [work.number(), u64::from(node.0)];
        let mut draw = Draw::new(self.scenario.seed, Purpose::Meet, ids);
        let exchange = self.scenario.link.exchange(node, asker, 1.0, &mut draw);
        if let Some(index) = self.population.index(node)
            && !exchange.request_lost
            && !exchange.answer_lost
        {
            let took = exchange.there + exchange.back;
            self.queue.plan(self.now + took, Plan::Meet { node: index, asker, work, took });
        }
    }

    /// A node has reached one that asked it.
    pub(crate) fn meet(&mut self, index: u32, asker: Handle, work: Work, took: Duration) {
        let node = self.population.handle(index);
        if self.engine(node).is_none() || !self.answers(asker) || self.cut(node, asker) {
            return;
        }
        self.note(&Event::Met { node, asker });
        let event = Inbound::Connected { node: asker, round_trip: Some(took) };
        let stamped = Stamped::new(event).in_span(self.span(work));
        self.tell(index, Told::Notice, stamped);
    }

    /// An answer arrives.
    pub(crate) fn answer(&mut self, flight: &Flight, closer: Vec<Handle>) {
        let Flight { work, node, asker, request, .. } = *flight;
        let from = self.population.handle(asker);
        if self.engine(from).is_none() || self.life(asker) != flight.life {
            self.note(&Event::Lost { work, from, to: node });
            return;
        }
        self.note(&Event::Answered { work, from, node });
        let event = Inbound::Answered { request, closer };
        let stamped = Stamped::new(event).in_span(self.span_for(flight));
        self.tell(asker, Told::Answered(request), stamped);
    }

    /// The news arrives that nobody is there.
    pub(crate) fn refused(&mut self, flight: &Flight) {
        let Flight { work, node, asker, request, .. } = *flight;
        if self.engine(self.population.handle(asker)).is_none() || self.life(asker) != flight.life {
            return;
        }
        self.note(&Event::Refused { work, node });
        let stamped = Stamped::new(Inbound::Failed(request)).in_span(self.span_for(flight));
        self.tell(asker, Told::Failed(request), stamped);
    }
}
