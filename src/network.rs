//! The network machine: limits on requests in flight, for whoever has no lookup but requests to send.
//!
//! Queries, pool and coordinator have the same limits built in; this machine offers them alone.

use crate::context::{self, Cause};
use crate::deadline::Clock;
use crate::error::ConfigError;
use crate::family::Family;
use crate::id::RequestId;
use crate::inflight::{Due, Owned};
use crate::machine::{Batch, Machine, Stamped};
use crate::outbox::{Ending, NetworkConfig, Outbox, Refusal, Refused, Submitted, To, Traffic};
use crate::time::Instant;
use opentelemetry::trace::SpanContext;

/// What a [`Network`] is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Inbound<F: Family> {
    /// Send this message when there is capacity. The stamp holds the request's span and the deadline by which it
    /// must have been answered, waiting included; without one, that is the configured timeout from now.
    Submit {
        /// The caller's own name for it, handed back with all that is said of it. Need not be unique.
        tag: u64,
        /// Where to send it.
        node: F::Node,
        /// What to send.
        message: F::Message,
    },
    /// Give up a request that was accepted. Ignored if it has ended.
    Withdraw(RequestId),
    /// A request was answered.
    Answered(RequestId),
    /// A request failed.
    Failed(RequestId),
    /// Nothing happened but time.
    Tick,
}

/// What a [`Network`] says. A submission is answered by `Accepted` or `Refused`; an accepted one may be followed by
/// `Send`, and ends with exactly one `Ended`. After `Send`, a request that is given up yields one `Cancel` before
/// its end.
#[derive(Clone, Debug, PartialEq)]
pub enum Outbound<F: Family> {
    /// The submission was accepted under this id.
    Accepted {
        /// The submission's tag.
        tag: u64,
        /// Names the request from now on.
        request: RequestId,
    },
    /// The submission was not accepted.
    Refused {
        /// The submission's tag.
        tag: u64,
        /// Why.
        reason: Refusal,
    },
    /// Send this now.
    Send {
        /// The submission's tag.
        tag: u64,
        /// The request.
        request: RequestId,
        /// Where to.
        node: F::Node,
        /// What.
        message: F::Message,
    },
    /// The request was given up; abort its IO.
    Cancel {
        /// The submission's tag.
        tag: u64,
        /// The request.
        request: RequestId,
    },
    /// The request's last event.
    Ended {
        /// The submission's tag.
        tag: u64,
        /// The request.
        request: RequestId,
        /// The node it was for.
        node: F::Node,
        /// How it ended.
        end: End,
    },
}

/// How a request of a [`Network`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// It was answered.
    Answered,
    /// The caller reported that it failed.
    Failed,
    /// It ran into its timeout or its deadline.
    TimedOut,
    /// Its time passed while it waited for capacity: it was never sent.
    Unsent,
    /// The caller withdrew it.
    Withdrawn,
}

/// What the machine keeps of a submission.
#[derive(Clone, Debug)]
struct Submission<F: Family> {
    tag: u64,
    message: F::Message,
    context: SpanContext,
}

/// Sends requests within [limits](NetworkConfig), per node and in total, and queues the rest in order of deadline.
/// Each request is an operation of its own: it has the context and the deadline that its submission was stamped
/// with.
#[derive(Clone, Debug)]
pub struct Network<F: Family> {
    clock: Clock,
    outbox: Outbox<F, Submission<F>>,
    owned: Owned,
}

impl<F: Family> Network<F> {
    /// A network machine with these limits.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(config: NetworkConfig) -> Result<Self, ConfigError> {
        // Slots of operations are nobody's business here, so nothing happens at a soft limit.
        let outbox = Outbox::new(config)?.without_soft_limits();
        Ok(Self { clock: Clock::default(), outbox, owned: Owned::NOTHING })
    }

    /// What became of all requests so far.
    pub fn traffic(&self) -> Traffic {
        self.outbox.traffic()
    }

    /// How many nodes the machine has state for.
    pub fn tracked_nodes(&self) -> usize {
        self.outbox.tracked_nodes()
    }

    fn send(
        &self,
        id: RequestId,
        deadline: Instant,
        cause: Cause<'_, RequestId>,
        out: &mut Batch<Outbound<F>>,
    ) {
        let Some(request) = self.outbox.get(id) else { return };
        let Submission { tag, message, context } = &request.work;
        let (node, message) = (request.node.clone(), message.clone());
        let event = Outbound::Send { tag: *tag, request: id, node, message };
        out.push(Stamped { event, context: cause.stamp(id, context), deadline: Some(deadline) });
    }

    /// Sends what waits and has room.
    fn release(&mut self, now: Instant, out: &mut Batch<Outbound<F>>) {
        while let Some((id, deadline)) = self.outbox.release(now) {
            self.send(id, deadline, Cause::TIME, out);
        }
    }

    fn end(
        &mut self,
        now: Instant,
        id: RequestId,
        ending: Ending,
        cause: Cause<'_, RequestId>,
        out: &mut Batch<Outbound<F>>,
    ) {
        let Some(request) = self.outbox.close(&mut self.owned, id, now, ending) else { return };
        let tag = request.work.tag;
        let deadline = Some(request.operation_deadline);
        let mut say = |event| {
            let context = cause.stamp(id, &request.work.context);
            out.push(Stamped { event, context, deadline });
        };
        let end = match ending {
            Ending::Answered => End::Answered,
            Ending::Failed => End::Failed,
            Ending::TimedOut if request.is_emitted() => End::TimedOut,
            Ending::TimedOut => End::Unsent,
            Ending::Cancelled => End::Withdrawn,
        };
        if request.is_emitted() && matches!(end, End::TimedOut | End::Withdrawn) {
            say(Outbound::Cancel { tag, request: id });
        }
        say(Outbound::Ended { tag, request: id, node: request.node.clone(), end });
    }
}

impl<F: Family> Machine for Network<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let now = self.clock.advance(now);
        while let Some(due) = self.outbox.expire(now) {
            if let Due::Hard(id) = due {
                self.end(now, id, Ending::TimedOut, Cause::TIME, out);
            }
        }
        self.release(now, out);
        let Stamped { event, context, deadline } = event;
        match event {
            Inbound::Submit { tag, node, message } => {
                let work = Submission { tag, message, context: context::own(&context) };
                let until = deadline.unwrap_or(now + self.outbox.config.request_timeout);
                let to = To { node, again: false, patient: false };
                let submitted = self.outbox.submit(now, &mut self.owned, until, to, work);
                let until = Some(until).filter(|_| submitted.is_ok());
                let mut say = |event| {
                    out.push(Stamped { event, context: context.clone(), deadline: until });
                };
                match submitted {
                    Err(Refused::NoTimeLeft) => say(Outbound::Refused { tag, reason: Refusal::NoTimeLeft }),
                    Err(Refused::QueueFull { .. }) => {
                        say(Outbound::Refused { tag, reason: Refusal::QueueFull });
                    }
                    Ok(Submitted::Queued(request)) => say(Outbound::Accepted { tag, request }),
                    Ok(Submitted::Sent(request, deadline)) => {
                        say(Outbound::Accepted { tag, request });
                        self.send(request, deadline, Cause::event(request, &context), out);
                    }
                }
            }
            Inbound::Withdraw(id) if self.outbox.get(id).is_some() => {
                self.end(now, id, Ending::Cancelled, Cause::event(id, &context), out);
            }
            Inbound::Withdraw(id) => self.outbox.count_ended(id),
            Inbound::Answered(id) => {
                if self.outbox.recognise(id).is_some() {
                    self.end(now, id, Ending::Answered, Cause::event(id, &context), out);
                }
            }
            Inbound::Failed(id) => {
                if self.outbox.recognise(id).is_some() {
                    self.end(now, id, Ending::Failed, Cause::event(id, &context), out);
                }
            }
            Inbound::Tick => {}
        }
        self.release(now, out);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.outbox.next_timeout()
    }
}
