//! [`Network`]: a machine that sends single requests within limits on requests in flight, without lookups.
//!
//! The query, the pools and the coordinator have the same limits built in; this machine offers them alone.

use crate::context::{self, Cause};
use crate::deadline::MonotonicClock;
use crate::requests::config::NetworkConfig;
use crate::requests::in_flight_table::RequestList;
use crate::requests::purpose::Attempt;
use crate::requests::request_queue::{
    Ending, Expired, Recipient, RequestQueue, SubmitError, SubmitRefusal, Submitted,
};
use crate::requests::stats::RequestStats;
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::machine::{Batch, Machine, Stamped};
use crate::vocabulary::secret::Secret;
use crate::vocabulary::time::Instant;
use opentelemetry::trace::SpanContext;

/// Inbound events of a [`Network`].
#[derive(Clone, Debug, PartialEq)]
pub enum Inbound<F: Family> {
    /// Submit a message, to be sent when there is capacity. The stamp contains the request's span context, and the
    /// deadline by which it must have been answered, including the time that it waits; the default is the
    /// configured `request_timeout` from now.
    Submit {
        /// A number that the caller chooses; every event about the request contains it. Need not be unique.
        tag: u64,
        /// The node to send it to.
        node: F::Node,
        /// The message to send.
        message: F::Message,
    },
    /// Withdraw a request that was accepted, whether it was sent or not. Ignored if it has ended.
    Withdraw(RequestId),
    /// A request was answered.
    Answered(RequestId),
    /// A request failed.
    Failed(RequestId),
    /// Time has passed, and no other event happened.
    Tick,
}

/// Outbound events of a [`Network`]. Every submission is answered by `Accepted` or `Refused`. `Accepted` is
/// followed by at most one `Send` and by exactly one `Ended`. If a request times out or is withdrawn after
/// its `Send`, one `Cancel` comes before its `Ended`.
#[derive(Clone, Debug, PartialEq)]
pub enum Outbound<F: Family> {
    /// The submission was accepted under this id.
    Accepted {
        /// The submission's tag.
        tag: u64,
        /// The id of the request.
        request: RequestId,
    },
    /// The submission was not accepted.
    Refused {
        /// The submission's tag.
        tag: u64,
        /// Why it was not accepted.
        reason: SubmitRefusal,
    },
    /// Send this message now. The deadline of the stamp is the instant from which an answer is late.
    Send {
        /// The submission's tag.
        tag: u64,
        /// The request.
        request: RequestId,
        /// The node to send it to.
        node: F::Node,
        /// The message to send.
        message: F::Message,
    },
    /// The request was cancelled: abort its IO.
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
    /// It was sent, and its timeout or its deadline passed without an answer.
    TimedOut,
    /// Its deadline passed while it waited for capacity: it was never sent.
    Unsent,
    /// The caller withdrew it.
    Withdrawn,
}

/// The part of a submission that the machine stores until the request ends.
#[derive(Clone, Debug)]
struct Submission<F: Family> {
    tag: u64,
    message: F::Message,
    context: SpanContext,
}

/// A machine that sends requests within [limits](NetworkConfig), per node and in total, and queues the others in
/// order of deadline. In the sense of the rules of [`context`] and [`deadline`](crate::deadline),
/// each request is an operation: it has the context and the deadline that its submission was stamped with.
#[derive(Clone, Debug)]
pub struct Network<F: Family> {
    clock: MonotonicClock,
    requests: RequestQueue<F, Submission<F>>,
    own_requests: RequestList,
}

impl<F: Family> Network<F> {
    /// A machine with these limits.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(config: NetworkConfig, secret: &Secret) -> Result<Self, ConfigError> {
        // There are no operations with concurrency slots here, so soft limits have no effect.
        let requests = RequestQueue::new(config, &secret.seeds())?.without_soft_limits();
        Ok(Self { clock: MonotonicClock::default(), requests, own_requests: RequestList::EMPTY })
    }

    /// The number of requests so far, by how they ended.
    pub fn request_stats(&self) -> RequestStats {
        self.requests.stats()
    }

    /// The number of nodes that the machine has state for: those with requests in flight.
    pub fn tracked_nodes(&self) -> usize {
        self.requests.tracked_nodes()
    }

    fn send(
        &self,
        id: RequestId,
        deadline: Instant,
        cause: Cause<'_, RequestId>,
        out: &mut Batch<Outbound<F>>,
    ) {
        let Some(request) = self.requests.get(id) else { return };
        let Submission { tag, message, context } = &request.purpose;
        let (node, message) = (request.node.clone(), message.clone());
        let event = Outbound::Send { tag: *tag, request: id, node, message };
        out.push(Stamped { event, context: cause.stamp(id, context), deadline: Some(deadline) });
    }

    /// Sends the waiting requests for which there is capacity.
    fn release(&mut self, now: Instant, out: &mut Batch<Outbound<F>>) {
        while let Some((id, deadline)) = self.requests.release(now) {
            self.send(id, deadline, Cause::TIME, out);
        }
    }

    fn end_request(
        &mut self,
        now: Instant,
        id: RequestId,
        ending: Ending,
        cause: Cause<'_, RequestId>,
        out: &mut Batch<Outbound<F>>,
    ) {
        let Some(request) = self.requests.close(&mut self.own_requests, id, now, ending) else { return };
        let tag = request.purpose.tag;
        let deadline = Some(request.operation_deadline);
        let mut emit = |event| {
            let context = cause.stamp(id, &request.purpose.context);
            out.push(Stamped { event, context, deadline });
        };
        let end = match ending {
            Ending::Answered | Ending::Incomplete => End::Answered,
            Ending::Failed => End::Failed,
            Ending::TimedOut if request.is_emitted() => End::TimedOut,
            Ending::TimedOut => End::Unsent,
            Ending::Cancelled => End::Withdrawn,
        };
        if request.is_emitted() && matches!(end, End::TimedOut | End::Withdrawn) {
            emit(Outbound::Cancel { tag, request: id });
        }
        emit(Outbound::Ended { tag, request: id, node: request.node.clone(), end });
    }
}

impl<F: Family> Machine for Network<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let now = self.clock.advance(now);
        while let Some(due) = self.requests.expire(now) {
            if let Expired::Hard(id) = due {
                self.end_request(now, id, Ending::TimedOut, Cause::TIME, out);
            }
        }
        self.release(now, out);
        let Stamped { event, context, deadline } = event;
        match event {
            Inbound::Submit { tag, node, message } => {
                let purpose = Submission { tag, message, context: context::stored(&context) };
                let until = deadline.unwrap_or(now + self.requests.config.request_timeout);
                let to = Recipient {
                    node,
                    attempt: Attempt::First,
                    no_soft_limit: false,
                    is_named: false,
                    arrival: 0,
                };
                let submitted = self.requests.submit(now, &mut self.own_requests, until, to, purpose);
                let until = Some(until).filter(|_| submitted.is_ok());
                let mut emit = |event| {
                    out.push(Stamped { event, context: context.clone(), deadline: until });
                };
                match submitted {
                    Err(SubmitError::NoTimeLeft | SubmitError::Banned) => {
                        emit(Outbound::Refused { tag, reason: SubmitRefusal::NoTimeLeft });
                    }
                    Err(SubmitError::QueueFull { .. }) => {
                        emit(Outbound::Refused { tag, reason: SubmitRefusal::QueueFull });
                    }
                    Ok(Submitted::Queued(request)) => emit(Outbound::Accepted { tag, request }),
                    Ok(Submitted::Sent(request, deadline)) => {
                        emit(Outbound::Accepted { tag, request });
                        self.send(request, deadline, Cause::event(request, &context), out);
                    }
                }
            }
            Inbound::Withdraw(id) if self.requests.get(id).is_some() => {
                self.end_request(now, id, Ending::Cancelled, Cause::event(id, &context), out);
            }
            Inbound::Withdraw(id) => self.requests.count_stale_request(id),
            Inbound::Answered(id) => {
                if self.requests.match_response(id).is_some() {
                    self.end_request(now, id, Ending::Answered, Cause::event(id, &context), out);
                }
            }
            Inbound::Failed(id) => {
                if self.requests.match_response(id).is_some() {
                    self.end_request(now, id, Ending::Failed, Cause::event(id, &context), out);
                }
            }
            Inbound::Tick => {}
        }
        self.release(now, out);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.requests.next_timeout()
    }
}
