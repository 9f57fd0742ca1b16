//! One lookup under way: its candidates, its requests, its context and its deadline.

use crate::context::{Cause, Context};
use crate::event::{
    self, Ask, Cancel, Finish, GivenUp, Outcome, Progress, Reply, Says, Start, Started, Statistics,
};
use crate::family::Family;
use crate::id::{OperationId, RequestId};
use crate::inflight::{Due, Owned};
use crate::lookup::{Done, Lookup, Miss, Next, Spot};
use crate::machine::{Batch, Stamped};
use crate::outbox::{Ending, Outbox, Refused, Request, Submitted, To};
use crate::query::QueryConfig;
use crate::time::Instant;
use core::time::Duration;
use opentelemetry::trace::SpanContext;

/// What a lookup wants to know again when a request of its ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) operation: OperationId,
    spot: Spot,
    hop: u16,
}

/// One call of a machine, as the operations in it see it.
pub(crate) struct Turn<'a, F: Family, E> {
    pub(crate) now: Instant,
    pub(crate) cause: Cause<'a>,
    pub(crate) outbox: &'a mut Outbox<F, Asked>,
    pub(crate) out: &'a mut Batch<E>,
}

/// Whether an operation goes on.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) enum Onward<K> {
    Continues,
    /// It could ask somebody, but the queue of requests is full; where that node is `busy`, room elsewhere is no help.
    Starves {
        busy: Option<K>,
    },
    Ends(Outcome),
}

#[derive(Clone, Debug)]
pub(crate) struct Operation<F: Family> {
    pub(crate) id: OperationId,
    pub(crate) deadline: Instant,
    /// The context it was started with.
    context: SpanContext,
    ask: Ask<F>,
    lookup: Lookup<F>,
    owned: Owned,
    statistics: Statistics,
}

impl<F: Family> Operation<F> {
    /// Accepts a start, which must be in order with the configuration.
    pub(crate) fn new(
        now: Instant,
        id: OperationId,
        deadline: Instant,
        context: SpanContext,
        local: F::Key,
        config: &QueryConfig,
        start: Start<F>,
    ) -> Self {
        let lookup = Lookup::new(local, start.target, config.rules(&start), start.seeds);
        let statistics = Statistics { started: now, ..Statistics::default() };
        let ask = start.ask;
        Self { id, deadline, context, ask, lookup, owned: Owned::NOTHING, statistics }
    }

    /// Says that the start was accepted.
    pub(crate) fn announce<E: Says<F>>(&self, turn: &mut Turn<'_, F, E>) {
        self.say(turn, self.deadline, Started { operation: self.id });
    }

    /// Takes its turn after the wait for one.
    pub(crate) fn begin<E: Says<F>>(&mut self, turn: &mut Turn<'_, F, E>) -> Onward<F::Key> {
        self.lookup.begin();
        self.advance(turn)
    }

    /// Asks whoever can be asked now.
    pub(crate) fn advance<E: Says<F>>(&mut self, turn: &mut Turn<'_, F, E>) -> Onward<F::Key> {
        // A caller came late: this ends in the same call, but only after the requests whose time ran out before.
        if self.deadline <= turn.now {
            return Onward::Continues;
        }
        loop {
            match self.lookup.next() {
                Next::Ask { spot, node, hop, again } => {
                    let asked = Asked { operation: self.id, spot, hop };
                    match turn.outbox.submit(
                        turn.now,
                        &mut self.owned,
                        self.deadline,
                        To { node, again },
                        asked,
                    ) {
                        Ok(Submitted::Sent(id, deadline)) => self.send(turn, id, deadline),
                        Ok(Submitted::Queued(_)) => {}
                        Err(refused) => {
                            self.lookup.take_back(spot);
                            return match refused {
                                Refused::QueueFull { busy } => Onward::Starves { busy },
                                Refused::NoTimeLeft => Onward::Continues,
                            };
                        }
                    }
                }
                Next::Wait => return Onward::Continues,
                Next::Done(done) => {
                    return Onward::Ends(match done {
                        Done::Converged => Outcome::Converged,
                        Done::Exhausted => Outcome::Exhausted,
                        Done::NodeLimit => Outcome::NodeLimit,
                    });
                }
            }
        }
    }

    /// Emits a request that the outbox let go.
    pub(crate) fn send<E: Says<F>>(&mut self, turn: &mut Turn<'_, F, E>, id: RequestId, deadline: Instant) {
        let Some(request) = turn.outbox.get(id) else { return };
        self.statistics.requests += 1;
        let target = request.work.spot.target(self.lookup.target());
        let request = event::Request {
            id,
            operation: self.id,
            node: request.node.clone(),
            target,
            ask: self.ask.clone(),
            hop: u32::from(request.work.hop),
        };
        self.say(turn, deadline, request);
    }

    /// Takes the answer to a request that the outbox recognised.
    pub(crate) fn answered<E: Says<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        id: RequestId,
        closer: Vec<F::Node>,
    ) -> Onward<F::Key> {
        let Some(request) = turn.outbox.close(&mut self.owned, id, turn.now, Ending::Answered) else {
            return Onward::Continues;
        };
        let (asked, elapsed) = (request.work, request.age(turn.now));
        self.statistics.success += 1;
        self.statistics.hops = self.statistics.hops.max(u32::from(asked.hop));
        let superseded = self.lookup.answered(asked.spot, elapsed, &closer);
        self.report(turn, (id, request.node), asked.hop, elapsed, Reply::Answered { closer });
        for _ in 0..superseded {
            let same = |other: &Request<F, Asked>| other.work.spot.is_of(asked.spot);
            let Some(id) = turn.outbox.find(self.owned, same) else { break };
            self.give_up(turn, id, GivenUp::Superseded);
        }
        self.advance(turn)
    }

    /// Takes the caller's report that a request failed, which the outbox recognised.
    pub(crate) fn failed<E: Says<F>>(&mut self, turn: &mut Turn<'_, F, E>, id: RequestId) -> Onward<F::Key> {
        let Some(request) = turn.outbox.close(&mut self.owned, id, turn.now, Ending::Failed) else {
            return Onward::Continues;
        };
        let spot = request.work.spot;
        self.statistics.failure += 1;
        self.lookup.missed(spot, Miss::Failed);
        // Nothing more is sent to it.
        let waits = |other: &Request<F, Asked>| other.work.spot.is_of(spot) && !other.is_emitted();
        while let Some(id) = turn.outbox.find(self.owned, waits) {
            turn.outbox.close(&mut self.owned, id, turn.now, Ending::Cancelled);
            self.lookup.withdrawn(spot);
        }
        let elapsed = request.age(turn.now);
        self.report(turn, (id, request.node), request.work.hop, elapsed, Reply::Failed);
        self.advance(turn)
    }

    /// Whether no other request to the node of this one is in flight.
    pub(crate) fn is_last(&self, outbox: &Outbox<F, Asked>, request: RequestId, asked: Asked) -> bool {
        let mut others = outbox.in_flight(self.owned).filter(|(id, _)| *id != request);
        !others.any(|(_, other)| other.spot.is_of(asked.spot))
    }

    /// Takes what time did to a request.
    pub(crate) fn due<E: Says<F>>(&mut self, turn: &mut Turn<'_, F, E>, due: Due) -> Onward<F::Key> {
        match due {
            Due::Soft(id) => {
                if let Some(request) = turn.outbox.get(id) {
                    self.lookup.slow(request.work.spot);
                }
            }
            Due::Hard(id) => self.timed_out(turn, id),
        }
        self.advance(turn)
    }

    /// A request that waits has its operation's time, and so ends with it: only one that was sent gets here.
    fn timed_out<E: Says<F>>(&mut self, turn: &mut Turn<'_, F, E>, id: RequestId) {
        let closed = turn.outbox.close(&mut self.owned, id, turn.now, Ending::TimedOut);
        let Some(request) = closed else { return };
        let (asked, elapsed) = (request.work, request.age(turn.now));
        self.statistics.timeouts += 1;
        self.lookup.missed(asked.spot, Miss::TimedOut);
        self.cancel(turn, id, request.node.clone(), GivenUp::TimedOut);
        self.report(turn, (id, request.node), asked.hop, elapsed, Reply::TimedOut);
    }

    /// Gives up what is in flight and says the last word.
    pub(crate) fn finish<E: Says<F>>(mut self, turn: &mut Turn<'_, F, E>, outcome: Outcome) {
        while let Some(id) = turn.outbox.find(self.owned, |_| true) {
            self.give_up(turn, id, GivenUp::OperationEnded);
        }
        self.statistics.ended = Some(turn.now);
        let context = turn.cause.stamp(self.id, &self.context);
        let event = Finish {
            operation: self.id,
            target: self.lookup.target(),
            outcome,
            closest: self.lookup.into_closest(),
            statistics: self.statistics,
        };
        turn.out.push(Stamped { event: event.into(), context, deadline: Some(self.deadline) });
    }

    /// Gives up a request that says nothing about its node.
    fn give_up<E: Says<F>>(&mut self, turn: &mut Turn<'_, F, E>, id: RequestId, reason: GivenUp) {
        let closed = turn.outbox.close(&mut self.owned, id, turn.now, Ending::Cancelled);
        if let Some(request) = closed.filter(Request::is_emitted) {
            self.statistics.cancelled += 1;
            self.cancel(turn, id, request.node, reason);
        }
    }

    /// The context of a side effect of this operation.
    pub(crate) fn detach(&self, cause: &Cause<'_>) -> Context {
        cause.detach(self.id, &self.context)
    }

    fn cancel<E: Says<F>>(&self, turn: &mut Turn<'_, F, E>, id: RequestId, node: F::Node, reason: GivenUp) {
        self.say(turn, self.deadline, Cancel { id, operation: self.id, node, reason });
    }

    fn report<E: Says<F>>(
        &self,
        turn: &mut Turn<'_, F, E>,
        (id, node): (RequestId, F::Node),
        hop: u16,
        elapsed: Duration,
        reply: Reply<F>,
    ) {
        let (operation, statistics) = (self.id, self.statistics);
        let hop = u32::from(hop);
        self.say(turn, self.deadline, Progress { id, operation, node, hop, elapsed, reply, statistics });
    }

    fn say<E>(&self, turn: &mut Turn<'_, F, E>, deadline: Instant, event: impl Into<E>) {
        let context = turn.cause.stamp(self.id, &self.context);
        turn.out.push(Stamped { event: event.into(), context, deadline: Some(deadline) });
    }
}
