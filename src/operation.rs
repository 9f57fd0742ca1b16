//! One operation under way: its requests, its context, its deadline and its statistics. What it is about is its
//! [task's](crate::task) to know.

use crate::context::{Cause, Context};
use crate::event::{
    self, Answer, Cancel, Ended, GivenUp, Outcome, Owner, Progress, Reply, Says, Started, Statistics,
};
use crate::family::Family;
use crate::id::{OperationId, RequestId};
use crate::inflight::{Due, Owned};
use crate::key::Key;
use crate::lookup::Miss;
use crate::machine::Stamped;
use crate::outbox::{Ending, Outbox, Refused, Request, Submitted, To};
use crate::task::{End, Found, Next, Place, Task};
use crate::time::Instant;
use crate::turn::{Turn, Work};
use core::marker::PhantomData;
use core::time::Duration;
use opentelemetry::trace::SpanContext;

/// What an operation wants to know again when a request of its ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) operation: OperationId,
    place: Place,
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
    /// It could ask somebody until then, but the queue of requests is full; where that node is `busy`, room elsewhere is no
    /// help.
    Starves {
        busy: Option<K>,
        /// Until when its answer would be of use: what it stands in line by.
        until: Instant,
    },
    /// It has what the caller wants, and can go on as a side effect.
    Returns,
    Ends(Outcome),
}

/// A start that is accepted, with what it was given.
pub(crate) struct Accepted {
    pub(crate) now: Instant,
    pub(crate) id: OperationId,
    pub(crate) owner: Owner,
    pub(crate) deadline: Instant,
    pub(crate) context: SpanContext,
    /// It is a lookup of our own key.
    pub(crate) bootstrap: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Operation<F: Family, T> {
    pub(crate) id: OperationId,
    /// Whose it is: the caller's, or that of a side effect, which says nothing but its requests.
    pub(crate) owner: Owner,
    /// A lookup of our own key.
    pub(crate) bootstrap: bool,
    pub(crate) deadline: Instant,
    /// When time will have something to say of it, as its pool knows it.
    pub(crate) armed: Instant,
    /// How many requests it was granted to go on with as a side effect.
    pub(crate) granted: usize,
    /// The context it was started with.
    context: SpanContext,
    task: T,
    owned: Owned,
    statistics: Statistics,
    family: PhantomData<F>,
}

impl<F: Family, T: Task<F>> Operation<F, T> {
    /// Accepts a start, which must be in order with the configuration.
    pub(crate) fn new(accepted: Accepted, task: T) -> Self {
        let Accepted { now, id, owner, deadline, context, bootstrap } = accepted;
        let statistics = Statistics { started: now, ..Statistics::default() };
        Self {
            id,
            owner,
            bootstrap,
            deadline,
            armed: task.timer().map_or(deadline, |at| at.min(deadline)),
            granted: 0,
            context,
            task,
            owned: Owned::NOTHING,
            statistics,
            family: PhantomData,
        }
    }

    /// Says that the start was accepted.
    pub(crate) fn announce<E: From<Started>>(&self, turn: &mut Turn<'_, F, E>) {
        self.say(turn, Some(self.deadline), Started { operation: self.id });
    }

    /// When time has something to say of it.
    pub(crate) fn timer(&self) -> Instant {
        self.task.timer().map_or(self.deadline, |at| at.min(self.deadline))
    }

    /// Takes its turn after the wait for one.
    pub(crate) fn begin<E: Says<F, T>>(&mut self, turn: &mut Turn<'_, F, E>) -> Onward<F::Key> {
        self.task.begin(turn.now, self.deadline);
        self.advance(turn)
    }

    /// The time of its timer has come, which is before its deadline. Says when it comes next.
    pub(crate) fn elapse<E: Says<F, T>>(&mut self, turn: &mut Turn<'_, F, E>) -> Instant {
        self.task.elapse(turn.now);
        // Now rather than with what follows: these requests have no time left, and that is not their nodes' failure.
        while let Some(lookup) = self.task.abandoned() {
            self.abandon(turn, lookup);
        }
        self.armed = self.timer();
        self.armed
    }

    /// Asks whoever can be asked now.
    pub(crate) fn advance<E: Says<F, T>>(&mut self, turn: &mut Turn<'_, F, E>) -> Onward<F::Key> {
        // A caller came late: what is due follows in the same call, but only after the requests whose time ran out before.
        if self.armed <= turn.now {
            return Onward::Continues;
        }
        loop {
            match self.task.next(turn.now) {
                Next::Ask { place, node, hop, again, patient, until } => {
                    let asked = Asked { operation: self.id, place, hop };
                    let (to, work) = (To { node, again, patient }, Work::Operation(asked));
                    let until = until.min(self.deadline);
                    match turn.outbox.submit(turn.now, &mut self.owned, until, to, work) {
                        Ok(Submitted::Sent(id, deadline)) => self.send(turn, id, deadline),
                        Ok(Submitted::Queued(_)) => {}
                        Err(refused) => {
                            self.task.take_back(place);
                            return match refused {
                                Refused::QueueFull { busy } => Onward::Starves { busy, until },
                                Refused::NoTimeLeft => Onward::Continues,
                            };
                        }
                    }
                }
                Next::Abandon { lookup } => self.abandon(turn, lookup),
                Next::Wait => return Onward::Continues,
                Next::Return => return Onward::Returns,
                Next::Done(outcome) => return Onward::Ends(outcome),
            }
        }
    }

    /// Gives up the requests of a lookup that is over.
    fn abandon<E: From<Cancel<F>>>(&mut self, turn: &mut Turn<'_, F, E>, lookup: u16) {
        let of = |request: &Request<F, Work>| {
            request.work.operation().is_some_and(|asked| asked.place.lookup() == Some(lookup))
        };
        while let Some(id) = turn.outbox.find(self.owned, of) {
            self.give_up(turn, id, GivenUp::LookupEnded);
        }
    }

    /// Emits a request that the outbox let go.
    pub(crate) fn send<E: Says<F, T>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        id: RequestId,
        deadline: Instant,
    ) {
        let Some(request) = turn.outbox.get(id) else { return };
        let Work::Operation(asked) = request.work else { return };
        self.statistics.requests += 1;
        let (target, ask) = self.task.ask(asked.place, &request.node);
        let node = request.node.clone();
        let hop = u32::from(asked.hop);
        let request = event::Request { id, owner: self.owner, node, target, ask, hop };
        self.say(turn, Some(deadline), request);
    }

    /// Takes the answer to a request that the outbox recognised.
    pub(crate) fn answered<E: Says<F, T>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        id: RequestId,
        mut answer: Answer<F>,
    ) -> Onward<F::Key> {
        let Some((asked, request)) = self.close(turn, id, Ending::Answered) else { return Onward::Continues };
        let elapsed = request.age(turn.now);
        self.statistics.success += 1;
        self.statistics.hops = self.statistics.hops.max(u32::from(asked.hop));
        let superseded = self.task.answered(asked.place, &request.node, elapsed, &mut answer);
        let reply = Reply::Answered { closer: answer.closer };
        self.report(turn, (id, request.node), asked, elapsed, reply);
        for _ in 0..superseded {
            let same = |other: &Request<F, Work>| is_of(&other.work, asked.place);
            let Some(id) = turn.outbox.find(self.owned, same) else { break };
            self.give_up(turn, id, GivenUp::Superseded);
        }
        self.advance(turn)
    }

    /// Takes the caller's report that a request failed, which the outbox recognised; or that the node refused, and why.
    pub(crate) fn failed<E: Says<F, T>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        id: RequestId,
        why: Option<F::Message>,
    ) -> Onward<F::Key> {
        let Some((asked, request)) = self.close(turn, id, Ending::Failed) else { return Onward::Continues };
        let place = asked.place;
        self.statistics.failure += 1;
        match &why {
            Some(why) => self.task.rejected(place, why),
            None => self.task.missed(place, Miss::Failed),
        }
        // Nothing more is sent to it.
        let waits = |other: &Request<F, Work>| is_of(&other.work, place) && !other.is_emitted();
        while let Some(id) = turn.outbox.find(self.owned, waits) {
            turn.outbox.close(&mut self.owned, id, turn.now, Ending::Cancelled);
            self.task.withdrawn(place);
        }
        let elapsed = request.age(turn.now);
        let reply = why.map_or(Reply::Failed, Reply::Rejected);
        self.report(turn, (id, request.node), asked, elapsed, reply);
        self.advance(turn)
    }

    /// Whether no other request to the node of this one is in flight.
    pub(crate) fn is_last(&self, outbox: &Outbox<F, Work>, request: RequestId, asked: Asked) -> bool {
        let mut others = outbox.in_flight(self.owned).filter(|(id, _)| *id != request);
        !others.any(|(_, other)| is_of(other, asked.place))
    }

    fn close<E>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        id: RequestId,
        ending: Ending,
    ) -> Option<(Asked, Request<F, Work>)> {
        let request = turn.outbox.close(&mut self.owned, id, turn.now, ending)?;
        Some((*request.work.operation()?, request))
    }

    /// Takes what time did to a request.
    pub(crate) fn due<E: Says<F, T>>(&mut self, turn: &mut Turn<'_, F, E>, due: Due) -> Onward<F::Key> {
        match due {
            Due::Soft(id) => {
                if let Some(asked) = turn.outbox.get(id).and_then(|request| request.work.operation()) {
                    self.task.slow(asked.place);
                }
            }
            Due::Hard(id) if turn.outbox.get(id).is_some_and(Request::had_all) => self.cut_off(turn, id),
            Due::Hard(id) => self.timed_out(turn, id),
        }
        self.advance(turn)
    }

    /// A request that waits has its operation's time, and so ends with it. It gets here only where its operation has returned
    /// since and goes on for longer: it was never sent, and there is nothing to be said of it.
    fn timed_out<E: Says<F, T>>(&mut self, turn: &mut Turn<'_, F, E>, id: RequestId) {
        let was_sent = turn.outbox.get(id).is_some_and(Request::is_emitted);
        let ending = if was_sent { Ending::TimedOut } else { Ending::Cancelled };
        let Some((asked, request)) = self.close(turn, id, ending) else { return };
        if !was_sent {
            self.task.missed(asked.place, Miss::Failed);
            return;
        }
        let elapsed = request.age(turn.now);
        self.statistics.timeouts += 1;
        self.task.missed(asked.place, Miss::TimedOut);
        self.cancel(turn, id, request.node.clone(), GivenUp::TimedOut);
        self.report(turn, (id, request.node), asked, elapsed, Reply::TimedOut);
    }

    /// A request has had all the time that its operation had when it was sent, and its operation goes on as a side effect.
    fn cut_off<E: Says<F, T>>(&mut self, turn: &mut Turn<'_, F, E>, id: RequestId) {
        if let Some(asked) = turn.outbox.get(id).and_then(|request| request.work.operation()).copied() {
            self.give_up(turn, id, GivenUp::OperationEnded);
            self.task.missed(asked.place, Miss::TimedOut);
        }
    }

    /// Whether it counts towards the bound of crawls.
    pub(crate) fn is_crawl(&self) -> bool {
        self.task.is_crawl()
    }

    /// How many requests it may make as a side effect.
    pub(crate) fn rest(&self) -> usize {
        self.task.rest()
    }

    /// Says the last word to the caller, and goes on as a side effect until this deadline.
    pub(crate) fn detach<E: Says<F, T>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        outcome: Outcome,
        deadline: Instant,
    ) {
        let end = End {
            operation: self.id,
            outcome,
            statistics: Statistics { ended: Some(turn.now), ..self.statistics },
        };
        self.granted = self.task.rest();
        if let Some(finish) = self.task.detach(end, deadline) {
            self.say(turn, Some(self.deadline), finish);
        }
        self.owner = Owner::Background;
        self.deadline = deadline;
        // What was sent has the deadline that it was sent with; what waits has that of the side effect.
        let looks = self.timer();
        let until = |request: &Request<F, Work>| {
            let place = request.work.operation().map(|asked| asked.place);
            if place.is_some_and(|place| place.lookup().is_some()) { looks } else { deadline }
        };
        turn.outbox.postpone(self.owned, until);
    }

    /// Gives up what is in flight and says the last word; to the caller if it is his, and to whoever waits for it inside.
    pub(crate) fn finish<E: Says<F, T>>(
        mut self,
        turn: &mut Turn<'_, F, E>,
        outcome: Outcome,
    ) -> Option<Ended<F>> {
        while let Some(id) = turn.outbox.find(self.owned, |_| true) {
            self.give_up(turn, id, GivenUp::OperationEnded);
        }
        self.statistics.ended = Some(turn.now);
        let context = self.context(&turn.cause);
        let inside = self.owner.operation().is_none();
        let awaited = self.bootstrap || inside;
        let detached = awaited.then(|| self.detached(&turn.cause));
        let Self { owner, statistics, deadline, .. } = self;
        let mut finish = self.task.finish(End { operation: self.id, outcome, statistics });
        let ended = detached.zip(T::found(&mut finish)).map(|(context, found)| {
            let Found { target, closest } = found;
            let nearest = closest.first().map(|contact| F::key(&contact.node).common_prefix_len(&target));
            let closest = if inside { core::mem::take(closest) } else { Vec::new() };
            Ended { owner, outcome, statistics, nearest, target, closest, context }
        });
        if !inside {
            turn.out.push(Stamped { event: finish.into(), context, deadline: Some(deadline) });
        }
        ended
    }

    /// Gives up a request that says nothing about its node.
    fn give_up<E: From<Cancel<F>>>(&mut self, turn: &mut Turn<'_, F, E>, id: RequestId, reason: GivenUp) {
        let closed = turn.outbox.close(&mut self.owned, id, turn.now, Ending::Cancelled);
        let Some(request) = closed else { return };
        if request.is_emitted() {
            self.statistics.cancelled += 1;
            self.cancel(turn, id, request.node, reason);
        } else if let (GivenUp::OperationEnded, Some(asked)) = (reason, request.work.operation()) {
            self.task.withdrawn(asked.place);
        }
    }

    /// The context of a side effect of this operation.
    pub(crate) fn detached(&self, cause: &Cause<'_>) -> Context {
        cause.detach(self.id, &self.context)
    }

    fn cancel<E: From<Cancel<F>>>(
        &self,
        turn: &mut Turn<'_, F, E>,
        id: RequestId,
        node: F::Node,
        reason: GivenUp,
    ) {
        let deadline = self.owner.operation().map(|_| self.deadline);
        self.say(turn, deadline, Cancel { id, owner: self.owner, node, reason });
    }

    fn report<E: Says<F, T>>(
        &self,
        turn: &mut Turn<'_, F, E>,
        (id, node): (RequestId, F::Node),
        asked: Asked,
        elapsed: Duration,
        reply: Reply<F>,
    ) {
        let Owner::Operation(operation) = self.owner else { return };
        let (hop, statistics) = (u32::from(asked.hop), self.statistics);
        let progress = Progress { id, operation, node, hop, elapsed, reply, statistics };
        self.say(turn, Some(self.deadline), self.task.progress(progress, asked.place));
    }

    fn say<E>(&self, turn: &mut Turn<'_, F, E>, deadline: Option<Instant>, event: impl Into<E>) {
        let context = self.context(&turn.cause);
        turn.out.push(Stamped { event: event.into(), context, deadline });
    }

    /// The context of what this operation says.
    fn context(&self, cause: &Cause<'_>) -> Context {
        match self.owner {
            Owner::Operation(_) => cause.stamp(self.id, &self.context),
            _ => self.detached(cause),
        }
    }
}

/// Whether a request is for this node of its operation.
fn is_of(work: &Work, place: Place) -> bool {
    work.operation().is_some_and(|asked| asked.place.is_of(place))
}
