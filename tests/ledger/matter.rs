//! What an operation is about, as far as the rules are not those of every operation.

use super::Sent;
use super::crawl::{self, Survey};
use super::lookup::{self, Lookup};
use super::net::{Net, Peer};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::{
    Bits, Carried, Config, GivenUp, Instant, OperationId, Outcome, Progress, RefusedBecause, Reply, Request,
    RequestId, RoutingTable, Statistics,
};
use std::time::Duration;

/// The kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Lookup,
    Crawl,
}

/// A start, as the ledger sees it.
pub(crate) struct Opening<'a, const N: usize> {
    pub(crate) kind: Kind,
    pub(crate) tag: u64,
    /// How long it may take at most.
    pub(crate) timeout: Duration,
    /// How many of its kind may live.
    pub(crate) most: usize,
    /// What else its kind has to object to.
    pub(crate) objection: Option<RefusedBecause>,
    pub(crate) matter: Make<'a, N>,
}

/// Makes the account of an operation, of a node with this key and, where there is one, this table.
pub(crate) type Make<'a, const N: usize> =
    Box<dyn FnOnce(Bits<N>, Option<&RoutingTable<Net<N>>>) -> Box<dyn Matter<N>> + 'a>;

/// What an inbound event would start.
pub(crate) fn opening<'a, const N: usize>(
    event: &'a Inbound<Net<N>>,
    config: &'a Config,
) -> Option<Opening<'a, N>> {
    match event {
        Inbound::Start(start) => Some(Opening {
            kind: Kind::Lookup,
            tag: start.tag,
            timeout: config.pool.query.timeout,
            most: usize::MAX,
            objection: lookup::objection(start, config),
            matter: Box::new(move |local, table| Box::new(Lookup::new(local, config, start, table))),
        }),
        Inbound::Crawl(start) => Some(Opening {
            kind: Kind::Crawl,
            tag: start.tag,
            timeout: config.crawl.timeout,
            most: config.crawl.max_crawls,
            objection: None,
            matter: Box::new(move |local, table| {
                Box::new(Survey::new(local, config.crawl.clone(), crawl::seeds(start, table)))
            }),
        }),
        _ => None,
    }
}

/// What every progress has, of whichever kind it is.
pub(crate) fn progress_of<const N: usize>(event: &Outbound<Net<N>>) -> Option<&Progress<Net<N>>> {
    match event {
        Outbound::Progress(progress) => Some(progress),
        Outbound::CrawlProgress(progress) => Some(&progress.request),
        _ => None,
    }
}

/// What every finish has, of whichever kind it is.
pub(crate) fn ending<const N: usize>(event: &Outbound<Net<N>>) -> Option<(OperationId, Outcome, Statistics)> {
    match event {
        Outbound::Finished(finish) => Some((finish.operation, finish.outcome, finish.statistics)),
        Outbound::CrawlFinished(finish) => Some((finish.operation, finish.outcome, finish.statistics)),
        _ => None,
    }
}

/// A request comes out.
pub(crate) struct Asking<'a, const N: usize> {
    pub(crate) now: Instant,
    pub(crate) request: &'a Request<Net<N>>,
    /// When it will be slow, where that can be told.
    pub(crate) soft: Option<Instant>,
    /// Nothing waited for capacity before or after this call.
    pub(crate) unqueued: bool,
}

/// A request has ended.
pub(crate) struct Replied<'a, const N: usize> {
    pub(crate) id: RequestId,
    pub(crate) sent: &'a Sent<N>,
    pub(crate) elapsed: Duration,
    pub(crate) reply: &'a Reply<Net<N>>,
    pub(crate) carried: Option<&'a Carried<Net<N>>>,
}

/// What is to be counted in the tally.
pub(crate) type Counts = Vec<&'static str>;

/// The account of one operation. It is told what comes out in the order in which it does, after the ledger has found it to keep
/// the rules of all operations, and asserts those of its kind.
pub(crate) trait Matter<const N: usize> {
    fn kind(&self) -> Kind;

    /// Time has passed.
    fn look(&mut self, now: Instant) {
        let _ = now;
    }

    /// Its requests have no soft limits.
    fn is_patient(&self) -> bool {
        false
    }

    /// A request comes out. Says whether it has the whole of its time: whether no earlier one to the node is listened to.
    fn asks(&mut self, asking: &Asking<'_, N>) -> (bool, Counts);

    /// A request was answered. Says which others are superseded by it, and must be given up next.
    fn answered(&mut self, replied: &Replied<'_, N>) -> Vec<RequestId>;

    /// A request failed, was refused, or timed out. Says whether no other to its node is in flight.
    fn missed(&mut self, replied: &Replied<'_, N>) -> bool;

    /// A request was given up, for a reason that is neither its time-out nor another answer of its node.
    fn given_up(&mut self, id: RequestId, sent: &Sent<N>, reason: GivenUp);

    /// A progress comes out; the request has been accounted for.
    fn progress(&mut self, event: &Outbound<Net<N>>) -> Counts;

    /// The finish comes out.
    fn finish(&mut self, event: &Outbound<Net<N>>) -> Counts;

    /// It goes on after a call, and nothing keeps it from sending: it must have a reason to wait. `busy` names the nodes that
    /// have as many requests as they may.
    fn restless(&self, now: Instant, busy: &[Bits<N>]);

    /// Its end is noticed as that of a bootstrap.
    fn is_bootstrap(&self) -> bool {
        false
    }
}

/// The nodes of a table, in its order.
pub(crate) fn all<const N: usize>(table: Option<&RoutingTable<Net<N>>>) -> Vec<Peer<N>> {
    table.into_iter().flat_map(RoutingTable::iter).map(|record| *record.node()).collect()
}
