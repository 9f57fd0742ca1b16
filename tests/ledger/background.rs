//! What goes on after the finish of its operation: side effects, linked to it, in bounds of number and time.

use super::matter::{Asking, Replied};
use super::net::Net;
use super::subject::{In, Out};
use super::{Call, Ledger, Op, Sent};
use kad_proto::coordinator::Inbound;
use kad_proto::{Context, GivenUp, Instant, OperationId, Owner, Reply, Request, RequestId};
use std::rc::Rc;

/// What an inbound event says of a request.
fn reply_of<const N: usize>(event: &In<N>) -> Option<Reply<Net<N>>> {
    match &event.event {
        Inbound::Answered { closer, .. } | Inbound::AnsweredWith { closer, .. } => {
            Some(Reply::Answered { closer: closer.clone() })
        }
        Inbound::Failed(_) => Some(Reply::Failed),
        Inbound::Rejected { why, .. } => Some(Reply::Rejected(*why)),
        _ => None,
    }
}

impl<const N: usize> Ledger<N> {
    fn link(&self, call: &Call<'_, N>, id: OperationId) -> Context {
        Context::Link(self.context(call, id))
    }

    /// What an aside still has in flight.
    fn of_aside(&self, id: OperationId) -> impl Iterator<Item = &(RequestId, Sent<N>)> {
        self.requests.iter().filter(move |(_, sent)| sent.aside == Some(id))
    }

    /// An operation has finished, and may have left something to do.
    pub(super) fn goes_on(&mut self, call: &Call<'_, N>, id: OperationId) {
        let config = Rc::clone(&self.config);
        let until = call.now + config.broadcast.background_timeout;
        let Some(op) = self.operations.get_mut(&id) else { return };
        let Some((goes_on, rest)) = op.matter.goes_on(call.now, until) else { return };
        let most = config.broadcast.max_background;
        // Nobody else is granted any.
        let alone = self.asides.keys().all(|aside| self.of_aside(*aside).next().is_none());
        if alone && call.unqueued {
            assert_eq!(goes_on, rest <= most, "background: {rest} of {most} stores may go on");
        }
        assert!(!goes_on || rest <= most, "background: {rest} stores, where {most} may go on");
        if !goes_on {
            return;
        }
        if let Some(mut op) = self.operations.remove(&id) {
            op.deadline = until;
            self.asides.insert(id, op);
        }
        for (_, sent) in &mut self.requests {
            if sent.owner == Owner::Operation(id) {
                (sent.owner, sent.aside) = (Owner::Background, Some(id));
            }
        }
    }

    /// A request of the background comes out. Says when it is slow, until when its answer is of use, and whose it is, where
    /// that can be told.
    pub(super) fn background_request(
        &mut self,
        call: &Call<'_, N>,
        stamped: &Out<N>,
        request: &Request<Net<N>>,
        deadline: Instant,
    ) -> (Option<Instant>, Instant, Option<OperationId>) {
        let network = self.config.network.clone();
        let own = call.now + network.request_timeout;
        let fixed = network.min_timeout >= network.request_timeout;
        let link = |id: &OperationId| call.vague || self.link(call, *id) == stamped.context;
        let may = |(id, op): &(&OperationId, &Op<N>)| op.matter.would_ask(request) && link(id);
        let mine: Vec<_> = self.asides.iter().filter(may).map(|(id, _)| *id).collect();
        assert!(matches!(stamped.context, Context::Link(_)), "context 4: a link, and no parent: {stamped:?}");
        assert!(
            !mine.is_empty(),
            "deadline 7: nothing after the finish but what was left, linked to it: {stamped:?} after {:?}",
            call.event
        );
        let [id] = mine[..] else {
            for id in mine {
                let op = self.asides.get_mut(&id).unwrap();
                assert!(op.deadline > call.now, "background: over by its time-out");
                op.matter.blind();
            }
            self.count("background: whose it is cannot be told");
            return (None, own, None);
        };
        let op = self.asides.get_mut(&id).unwrap();
        let until = op.matter.until(request).map_or(op.deadline, |until| until.min(op.deadline));
        let latest = until.min(own);
        assert!(
            deadline <= latest,
            "deadline 3: the earlier of the background's and now + the request timeout"
        );
        let soft = Some(call.now + network.soft_timeout);
        let soft = soft.filter(|soft| fixed && *soft < deadline && !op.matter.is_patient(request));
        let asking = Asking { now: call.now, request, soft, unqueued: call.unqueued };
        let (first, counts) = op.matter.asks(&asking);
        assert!(
            !fixed || !first || deadline == latest,
            "deadline 3: not earlier either: {stamped:?} {latest:?} at {}",
            call.now
        );
        counts.into_iter().for_each(|what| self.count(what));
        (soft, until, Some(id))
    }

    /// Something came for a request of the background.
    pub(super) fn background_reply(&mut self, call: &mut Call<'_, N>, id: RequestId, sent: &Sent<N>) {
        let (event, now) = (call.event, call.now);
        let Some(reply) = reply_of(event) else { return };
        let elapsed = now - sent.at;
        call.cause = sent.aside;
        call.vague |= sent.aside.is_none();
        let carried = match &event.event {
            Inbound::AnsweredWith { carried, .. } => Some(carried),
            _ => None,
        };
        let replied = Replied { now, id, sent, elapsed, reply: &reply, carried };
        if let Some(op) = sent.aside.and_then(|aside| self.asides.get_mut(&aside)) {
            if matches!(reply, Reply::Answered { .. }) {
                op.superseded = op.matter.answered(&replied);
            } else {
                op.matter.missed(&replied);
            }
        }
        let link = sent.aside.map_or(Context::NONE, |aside| self.link(call, aside));
        match reply {
            Reply::Answered { .. } => self.alive(call, sent.node, Some(elapsed), &link),
            Reply::Rejected(_) => {
                self.table.refresh(now, &sent.node, Some(elapsed));
            }
            _ => self.dead(call, sent.node, &link),
        }
        self.count("background: reply");
    }

    pub(super) fn background_cancel(
        &mut self,
        call: &mut Call<'_, N>,
        stamped: &Out<N>,
        id: RequestId,
        sent: &Sent<N>,
        reason: GivenUp,
    ) {
        let now = call.now;
        let link = sent.aside.map(|aside| self.link(call, aside));
        assert!(matches!(stamped.context, Context::Link(_)), "context 4: a link, and no parent: {stamped:?}");
        assert!(
            call.vague || link.as_ref().is_none_or(|link| *link == stamped.context),
            "context 4: linked to its operation, or to the answer: {stamped:?}"
        );
        assert_eq!(stamped.deadline, None, "context 4: no deadline");
        let Some(aside) = sent.aside else { return };
        let Some(op) = self.asides.get_mut(&aside) else {
            panic!("background: of one that is over: {sent:?}")
        };
        let store = op.matter.is_store(id);
        let what = match reason {
            GivenUp::TimedOut => {
                assert!(
                    sent.deadline < sent.until,
                    "deadline 6: it had all the time that there was: no failure of the node: {sent:?}"
                );
                let (reply, elapsed) = (Reply::TimedOut, now - sent.at);
                let replied = Replied { now, id, sent, elapsed, reply: &reply, carried: None };
                let silent = op.matter.missed(&replied);
                if silent {
                    let link = link.unwrap_or(Context::NONE);
                    self.dead(call, sent.node, &link);
                }
                if store { "background: store timed out" } else { "background: lookup timed out" }
            }
            GivenUp::Superseded => {
                assert!(op.superseded.contains(&id), "deadline 5: superseded by no answer of its node");
                op.superseded.retain(|superseded| *superseded != id);
                "background: superseded"
            }
            GivenUp::OperationEnded | GivenUp::LookupEnded => {
                assert!(
                    reason == GivenUp::LookupEnded
                        || op.deadline > now
                        || sent.deadline >= sent.until.min(op.deadline),
                    "deadline 6: a request that ran into its own timeout is a failure"
                );
                op.matter.given_up(now, id, sent, reason);
                if store { "background: store cancelled" } else { "background: lookup cancelled" }
            }
            reason => panic!("background: given up for no such reason: {reason}"),
        };
        self.count(what);
    }

    /// Asides that are over leave nothing; all others are within bounds.
    pub(super) fn settle_asides(&mut self, queued: u64) {
        let network = &self.config.network;
        let open = queued == 0 && self.requests.len() < network.max_in_flight;
        let busy = self.busy();
        let of = |id: &OperationId| self.of_aside(*id).map(|(id, _)| *id).collect::<Vec<_>>();
        let stores = |(id, op): (&OperationId, &Op<N>)| {
            of(id).into_iter().filter(|request| op.matter.is_store(*request)).count()
        };
        let all: usize = self.asides.iter().map(stores).sum();
        assert!(all <= self.config.broadcast.max_background, "background: {all} stores at once");
        let mut over = Vec::new();
        for (id, op) in &self.asides {
            assert!(op.superseded.is_empty(), "deadline 5: what is superseded is given up");
            let in_flight = !of(id).is_empty();
            if op.deadline <= self.now {
                assert!(!in_flight, "background: over by its time-out");
                over.push(*id);
            } else if in_flight && open {
                op.matter.restless(self.now, &busy);
            } else if !in_flight && open && busy.is_empty() {
                assert_eq!(op.matter.left(), 0, "background: over while something is left to be stored");
                over.push(*id);
            }
        }
        self.asides.retain(|id, _| !over.contains(id));
    }
}
