//! [`DriverFault`]: what a driver does wrong, by name.

use crate::coordinator::events::{Inbound, Outbound};
use crate::vocabulary::family::Family;
use crate::vocabulary::id::{OperationId, RequestId};
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::request_events::{CancelReason, Response};
use crate::vocabulary::time::Instant;
use core::fmt;
use core::time::Duration;
use opentelemetry::trace::{SpanContext, TraceId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a driver does wrong. A machine bears all of it: it ignores answers that come too late, and does what is due whenever it is
/// called. But the driver does work in vain, holds IO that nobody waits for, or loses its traces.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DriverFault {
    /// An answer, or a failure, to a request that was cancelled before it arrived: its IO was not aborted. No fault if
    /// [`Response::arrived_at`] says that it was there before the cancel.
    AnsweredAfterCancel {
        /// The request.
        request: RequestId,
        /// Why it was cancelled.
        reason: CancelReason,
        /// When it was cancelled.
        cancelled: Instant,
        /// When the answer was handed in.
        now: Instant,
    },
    /// A second answer, or failure, to a request; or a part after the last.
    AnsweredTwice {
        /// The request.
        request: RequestId,
        /// When the first was handed in.
        first: Instant,
        /// When the second was.
        now: Instant,
    },
    /// An answer to a request that this machine has not made, or that ended more than 65,536 others ago.
    AnsweredUnknown {
        /// The id in the answer.
        request: RequestId,
        /// When it was handed in.
        now: Instant,
    },
    /// The request belongs to a trace, and its answer is stamped with none, or with another one: what follows from it is lost
    /// from the trace.
    OutsideTrace {
        /// The request.
        request: RequestId,
        /// The trace that it belongs to.
        expected: TraceId,
        /// The trace of the answer's stamp; `None`: it has no span.
        found: Option<TraceId>,
        /// When the answer was handed in.
        now: Instant,
    },
    /// The machine was to be called at its wake-up, and was called later.
    WokenLate {
        /// The wake-up.
        due: Instant,
        /// When it was called.
        now: Instant,
    },
    /// A tick at which nothing was due.
    NeedlessTick {
        /// The wake-up; `None` if there is none.
        due: Option<Instant>,
        /// When the tick came.
        now: Instant,
    },
    /// An earlier time than one already seen: the clock is not monotonic, or several clocks are mixed.
    TimeWentBack {
        /// The latest time seen.
        latest: Instant,
        /// The time of this call.
        now: Instant,
    },
    /// A stop of an operation that was not live: it has ended, and its driver did not take note.
    StoppedUnknown {
        /// The operation.
        operation: OperationId,
        /// When the stop came.
        now: Instant,
    },
}

impl fmt::Display for DriverFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnsweredAfterCancel { request, reason, cancelled, now } => write!(
                f,
                "answered after its cancel: {request:?} was cancelled at {cancelled} ({reason:?}), and answered at {now}"
            ),
            Self::AnsweredTwice { request, first, now } => {
                write!(f, "answered twice: {request:?}, at {first} and at {now}")
            }
            Self::AnsweredUnknown { request, now } => {
                write!(f, "answered, but never sent: {request:?}, at {now}")
            }
            Self::OutsideTrace { request, expected, found: None, now } => {
                write!(
                    f,
                    "outside of its trace: the answer to {request:?} of {expected} has no span, at {now}"
                )
            }
            Self::OutsideTrace { request, expected, found: Some(found), now } => {
                write!(
                    f,
                    "outside of its trace: the answer to {request:?} of {expected} is of {found}, at {now}"
                )
            }
            Self::WokenLate { due, now } => write!(f, "woken late: due at {due}, called at {now}"),
            Self::NeedlessTick { due: Some(due), now } => {
                write!(f, "ticks without need: at {now}, nothing is due before {due}")
            }
            Self::NeedlessTick { due: None, now } => {
                write!(f, "ticks without need: at {now}, nothing is due at all")
            }
            Self::TimeWentBack { latest, now } => write!(f, "time went back: from {latest} to {now}"),
            Self::StoppedUnknown { operation, now } => {
                write!(f, "stopped, but not live: {operation:?}, at {now}")
            }
        }
    }
}

impl core::error::Error for DriverFault {}

/// So many requests that have ended are remembered.
const MAX_ENDED: usize = 65_536;

/// A request as the driver knows it.
#[derive(Clone, Copy, Debug)]
enum Known {
    /// It belongs to this trace, if to any.
    InFlight(Option<TraceId>),
    Answered(Instant),
    Cancelled(Instant, CancelReason),
}

/// Watches a driver by what it hands in, and what it was told.
#[derive(Clone, Debug, Default)]
pub(super) struct DriverWatch {
    /// By how much a wake-up may be late.
    pub(super) lateness: Duration,
    now: Instant,
    requests: BTreeMap<RequestId, Known>,
    /// Those of them that have ended, in the order of ending.
    ended: VecDeque<RequestId>,
    operations: BTreeSet<OperationId>,
}

impl DriverWatch {
    /// The latest time seen.
    pub(super) const fn now(&self) -> Instant {
        self.now
    }

    /// The driver calls the machine, whose wake-up was at `due`.
    pub(super) fn before<F: Family>(
        &mut self,
        now: Instant,
        event: &Stamped<Inbound<F>>,
        due: Option<Instant>,
        found: &mut Vec<DriverFault>,
    ) {
        if now < self.now {
            found.push(DriverFault::TimeWentBack { latest: self.now, now });
        }
        self.now = self.now.max(now);
        let now = self.now;
        if let Some(due) = due
            && now - due > self.lateness
        {
            found.push(DriverFault::WokenLate { due, now });
        }
        match &event.event {
            Inbound::Tick if due.is_none_or(|due| due > now) => {
                found.push(DriverFault::NeedlessTick { due, now });
            }
            Inbound::Stop(operation) if !self.operations.contains(operation) => {
                found.push(DriverFault::StoppedUnknown { operation: *operation, now });
            }
            Inbound::Response(response) => {
                let trace = event.context.parent().map(SpanContext::trace_id);
                found.extend(self.answered(response, trace));
            }
            _ => {}
        }
    }

    fn answered<F: Family>(&mut self, response: &Response<F>, trace: Option<TraceId>) -> Option<DriverFault> {
        let (now, request) = (self.now, response.request);
        match self.requests.get(&request).copied() {
            None => Some(DriverFault::AnsweredUnknown { request, now }),
            Some(Known::Answered(first)) => Some(DriverFault::AnsweredTwice { request, first, now }),
            Some(Known::Cancelled(cancelled, _)) if response.arrived < cancelled => None,
            Some(Known::Cancelled(cancelled, reason)) => {
                Some(DriverFault::AnsweredAfterCancel { request, reason, cancelled, now })
            }
            Some(Known::InFlight(expected)) => {
                if !response.result.as_ref().is_ok_and(|answer| answer.is_part) {
                    self.end(request, Known::Answered(now));
                }
                let expected = expected.filter(|expected| trace != Some(*expected))?;
                Some(DriverFault::OutsideTrace { request, expected, found: trace, now })
            }
        }
    }

    fn end(&mut self, request: RequestId, how: Known) {
        self.requests.insert(request, how);
        self.ended.push_back(request);
        if self.ended.len() > MAX_ENDED
            && let Some(oldest) = self.ended.pop_front()
        {
            self.requests.remove(&oldest);
        }
    }

    /// The machine has told the driver this.
    pub(super) fn after<F: Family>(&mut self, now: Instant, outbound: &[Stamped<Outbound<F>>]) {
        for stamped in outbound {
            match &stamped.event {
                Outbound::Request(request) => {
                    let trace = stamped.context.parent().map(SpanContext::trace_id);
                    self.requests.insert(request.id, Known::InFlight(trace));
                }
                // An answer that came in the call of the cancel came before it.
                Outbound::Cancel(cancel)
                    if matches!(self.requests.get(&cancel.id), Some(Known::InFlight(_))) =>
                {
                    self.end(cancel.id, Known::Cancelled(now, cancel.reason));
                }
                Outbound::Started(started) => {
                    self.operations.insert(started.operation);
                }
                Outbound::Finished(finish) => {
                    self.operations.remove(&finish.operation);
                }
                Outbound::CrawlFinished(finish) => {
                    self.operations.remove(&finish.operation);
                }
                Outbound::BroadcastFinished(finish) => {
                    self.operations.remove(&finish.operation);
                }
                _ => {}
            }
        }
    }
}
