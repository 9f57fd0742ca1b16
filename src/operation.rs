//! One lookup under way: its candidates, its requests, its context and its deadline.

use crate::context::{Cause, Context};
use crate::event::{
    self, Ask, Cancel, Ended, Finish, GivenUp, Outcome, Owner, Progress, Reply, Says, Start, Started,
    Statistics,
};
use crate::family::Family;
use crate::id::{OperationId, RequestId};
use crate::inflight::{Due, Owned};
use crate::key::Key;
use crate::lookup::{Done, Lookup, Miss, Next, Spot};
use crate::machine::Stamped;
use crate::outbox::{Ending, Outbox, Refused, Request, Submitted, To};
use crate::query::QueryConfig;
use crate::time::Instant;
use crate::turn::{Turn, Work};
use core::time::Duration;
use opentelemetry::trace::SpanContext;

/// What a lookup wants to know again when a request of its ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) operation: OperationId,
    spot: Spot,
    hop: u16,
}

impl Asked {
    /// Whether the node was one to begin with.
    pub(crate) const fn is_seed(&self) -> bool {
        self.hop == 1
    }
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

/// A start that is accepted, with what it was given.
pub(crate) struct Accepted<F: Family> {
    pub(crate) now: Instant,
    pub(crate) id: OperationId,
    pub(crate) owner: Owner,
    pub(crate) deadline: Instant,
    pub(crate) context: SpanContext,
    pub(crate) start: Start<F>,
}

#[derive(Clone, Debug)]
pub(crate) struct Operation<F: Family> {
    pub(crate) id: OperationId,
    /// Whose it is: the caller's, or that of the routing maintenance, which says nothing but its requests.
    pub(crate) owner: Owner,
    /// A lookup of our own key.
    pub(crate) bootstrap: bool,
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
    pub(crate) fn new(accepted: Accepted<F>, local: F::Key, config: &QueryConfig) -> Self {
        let Accepted { now, id, owner, deadline, context, start } = accepted;
        let bootstrap = start.is_bootstrap(local);
        let lookup = Lookup::new(local, start.target, config.rules(&start), start.seeds);
        let statistics = Statistics { started: now, ..Statistics::default() };
        let ask = start.ask;
        Self { id, owner, bootstrap, deadline, context, ask, lookup, owned: Owned::NOTHING, statistics }
    }

    /// Says that the start was accepted.
    pub(crate) fn announce<E: Says<F>>(&self, turn: &mut Turn<'_, F, E>) {
        self.say(turn, Some(self.deadline), Started { operation: self.id });
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
                    let (to, work) = (To { node, again, check: false }, Work::Lookup(asked));
                    match turn.outbox.submit(turn.now, &mut self.owned, self.deadline, to, work) {
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
        let Work::Lookup(asked) = request.work else { return };
        self.statistics.requests += 1;
        let target = asked.spot.target(self.lookup.target());
        let request = event::Request {
            id,
            owner: self.owner,
            node: request.node.clone(),
            target,
            ask: self.ask.clone(),
            hop: u32::from(asked.hop),
        };
        self.say(turn, Some(deadline), request);
    }

    /// Takes the answer to a request that the outbox recognised.
    pub(crate) fn answered<E: Says<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        id: RequestId,
        closer: Vec<F::Node>,
    ) -> Onward<F::Key> {
        let Some((asked, request)) = self.close(turn, id, Ending::Answered) else { return Onward::Continues };
        let elapsed = request.age(turn.now);
        self.statistics.success += 1;
        self.statistics.hops = self.statistics.hops.max(u32::from(asked.hop));
        let superseded = self.lookup.answered(asked.spot, elapsed, &closer);
        self.report(turn, (id, request.node), asked.hop, elapsed, Reply::Answered { closer });
        for _ in 0..superseded {
            let same = |other: &Request<F, Work>| is_of(&other.work, asked.spot);
            let Some(id) = turn.outbox.find(self.owned, same) else { break };
            self.give_up(turn, id, GivenUp::Superseded);
        }
        self.advance(turn)
    }

    /// Takes the caller's report that a request failed, which the outbox recognised.
    pub(crate) fn failed<E: Says<F>>(&mut self, turn: &mut Turn<'_, F, E>, id: RequestId) -> Onward<F::Key> {
        let Some((asked, request)) = self.close(turn, id, Ending::Failed) else { return Onward::Continues };
        let spot = asked.spot;
        self.statistics.failure += 1;
        self.lookup.missed(spot, Miss::Failed);
        // Nothing more is sent to it.
        let waits = |other: &Request<F, Work>| is_of(&other.work, spot) && !other.is_emitted();
        while let Some(id) = turn.outbox.find(self.owned, waits) {
            turn.outbox.close(&mut self.owned, id, turn.now, Ending::Cancelled);
            self.lookup.withdrawn(spot);
        }
        let elapsed = request.age(turn.now);
        self.report(turn, (id, request.node), asked.hop, elapsed, Reply::Failed);
        self.advance(turn)
    }

    /// Whether no other request to the node of this one is in flight.
    pub(crate) fn is_last(&self, outbox: &Outbox<F, Work>, request: RequestId, asked: Asked) -> bool {
        let mut others = outbox.in_flight(self.owned).filter(|(id, _)| *id != request);
        !others.any(|(_, other)| is_of(other, asked.spot))
    }

    fn close<E>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        id: RequestId,
        ending: Ending,
    ) -> Option<(Asked, Request<F, Work>)> {
        let request = turn.outbox.close(&mut self.owned, id, turn.now, ending)?;
        Some((*request.work.lookup()?, request))
    }

    /// Takes what time did to a request.
    pub(crate) fn due<E: Says<F>>(&mut self, turn: &mut Turn<'_, F, E>, due: Due) -> Onward<F::Key> {
        match due {
            Due::Soft(id) => {
                if let Some(asked) = turn.outbox.get(id).and_then(|request| request.work.lookup()) {
                    self.lookup.slow(asked.spot);
                }
            }
            Due::Hard(id) => self.timed_out(turn, id),
        }
        self.advance(turn)
    }

    /// A request that waits has its operation's time, and so ends with it: only one that was sent gets here.
    fn timed_out<E: Says<F>>(&mut self, turn: &mut Turn<'_, F, E>, id: RequestId) {
        let Some((asked, request)) = self.close(turn, id, Ending::TimedOut) else { return };
        let elapsed = request.age(turn.now);
        self.statistics.timeouts += 1;
        self.lookup.missed(asked.spot, Miss::TimedOut);
        self.cancel(turn, id, request.node.clone(), GivenUp::TimedOut);
        self.report(turn, (id, request.node), asked.hop, elapsed, Reply::TimedOut);
    }

    /// Gives up what is in flight and says the last word; to the caller if it is his, and to whoever waits for it inside.
    pub(crate) fn finish<E: Says<F>>(mut self, turn: &mut Turn<'_, F, E>, outcome: Outcome) -> Option<Ended> {
        while let Some(id) = turn.outbox.find(self.owned, |_| true) {
            self.give_up(turn, id, GivenUp::OperationEnded);
        }
        self.statistics.ended = Some(turn.now);
        let (target, statistics) = (self.lookup.target(), self.statistics);
        let context = self.context(&turn.cause);
        let awaited = self.bootstrap || self.owner.operation().is_none();
        let detached = awaited.then(|| self.detach(&turn.cause));
        let closest = self.lookup.into_closest();
        let nearest = closest.first().map(|contact| F::key(&contact.node).common_prefix_len(&target));
        if let Owner::Operation(operation) = self.owner {
            let event = Finish { operation, target, outcome, closest, statistics };
            turn.out.push(Stamped { event: event.into(), context, deadline: Some(self.deadline) });
        }
        detached.map(|context| Ended { owner: self.owner, outcome, statistics, nearest, context })
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
        let deadline = self.owner.operation().map(|_| self.deadline);
        self.say(turn, deadline, Cancel { id, owner: self.owner, node, reason });
    }

    fn report<E: Says<F>>(
        &self,
        turn: &mut Turn<'_, F, E>,
        (id, node): (RequestId, F::Node),
        hop: u16,
        elapsed: Duration,
        reply: Reply<F>,
    ) {
        let Owner::Operation(operation) = self.owner else { return };
        let (hop, statistics) = (u32::from(hop), self.statistics);
        self.say(
            turn,
            Some(self.deadline),
            Progress { id, operation, node, hop, elapsed, reply, statistics },
        );
    }

    fn say<E>(&self, turn: &mut Turn<'_, F, E>, deadline: Option<Instant>, event: impl Into<E>) {
        let context = self.context(&turn.cause);
        turn.out.push(Stamped { event: event.into(), context, deadline });
    }

    /// The context of what this operation says.
    fn context(&self, cause: &Cause<'_>) -> Context {
        match self.owner {
            Owner::Operation(_) => cause.stamp(self.id, &self.context),
            _ => self.detach(cause),
        }
    }
}

/// Whether a request is for this candidate of its operation.
fn is_of(work: &Work, spot: Spot) -> bool {
    work.lookup().is_some_and(|asked| asked.spot.is_of(spot))
}
