//! The record of each operation: what it is for, what it has found, and how it ended.

use crate::family::Mainline;
use crate::goal::{Found, Goal};
use kad_proto::broadcast::BroadcastFinish;
use kad_proto::crawl::CrawlFinish;
use kad_proto::{Finish, Instant, Key160, Outcome, RefusedBecause, Statistics};
use opentelemetry::trace::SpanContext;

/// One operation.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) tag: u64,
    pub(crate) goal: Goal,
    pub(crate) target: Key160,
    pub(crate) started: Instant,
    /// The span that it is, if it is one.
    pub(crate) span: Option<SpanContext>,
    /// The deadline that the engine gave it.
    pub(crate) deadline: Option<Instant>,
    pub(crate) found: Found,
    /// How it ended, once it has.
    pub(crate) end: Option<End>,
}

impl Operation {
    /// An operation that begins now.
    pub(crate) fn new(tag: u64, goal: Goal, target: Key160, started: Instant) -> Self {
        Self { tag, goal, target, started, span: None, deadline: None, found: Found::default(), end: None }
    }
}

/// How an operation ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Lookup(Finish<Mainline>),
    Broadcast(BroadcastFinish<Mainline>),
    Crawl(CrawlFinish<Mainline>),
    Refused(RefusedBecause),
}

impl End {
    /// Its outcome and its statistics, if it was begun at all.
    pub(crate) const fn figures(&self) -> Result<(Outcome, &Statistics), RefusedBecause> {
        match self {
            Self::Lookup(finish) => Ok((finish.outcome, &finish.statistics)),
            Self::Broadcast(finish) => Ok((finish.outcome, &finish.statistics)),
            Self::Crawl(finish) => Ok((finish.outcome, &finish.statistics)),
            Self::Refused(reason) => Err(*reason),
        }
    }
}
