//! The record of each operation: what it is for, what it has found, and how it ended.

use crate::family::Mainline;
use crate::goal::{Found, Goal};
use kad_proto::broadcast::BroadcastFinish;
use kad_proto::crawl::CrawlFinish;
use kad_proto::{Finish, Instant, Key160, OperationStats, Outcome, RefusalReason};
use opentelemetry::trace::SpanContext;

/// One operation.
#[derive(Clone, Debug)]
pub struct Operation {
    pub tag: u64,
    pub goal: Goal,
    pub target: Key160,
    pub started: Instant,
    /// The span that it is, if it is one.
    pub span: Option<SpanContext>,
    /// The deadline that the engine gave it.
    pub deadline: Option<Instant>,
    pub found: Found,
    /// How it ended, once it has.
    pub end: Option<End>,
}

impl Operation {
    /// An operation that begins now.
    pub fn new(tag: u64, goal: Goal, target: Key160, started: Instant) -> Self {
        Self { tag, goal, target, started, span: None, deadline: None, found: Found::default(), end: None }
    }
}

/// How an operation ended.
#[derive(Clone, Debug)]
pub enum End {
    Lookup(Finish<Mainline>),
    Broadcast(BroadcastFinish<Mainline>),
    Crawl(CrawlFinish<Mainline>),
    Refused(RefusalReason),
}

impl End {
    /// Its outcome and its statistics.
    ///
    /// # Errors
    /// Why it was not begun, if it was not.
    pub const fn figures(&self) -> Result<(Outcome, &OperationStats), RefusalReason> {
        match self {
            Self::Lookup(finish) => Ok((finish.outcome, &finish.stats)),
            Self::Broadcast(finish) => Ok((finish.outcome, &finish.stats)),
            Self::Crawl(finish) => Ok((finish.outcome, &finish.stats)),
            Self::Refused(reason) => Err(*reason),
        }
    }
}
