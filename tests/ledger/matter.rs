//! What an operation is about, as far as the rules are not those of every operation.

use super::Sent;
use super::cast::{self, Cast};
use super::crawl::{self, Survey};
use super::lookup::{self, Lookup};
use super::net::{Net, Peer};
use kad_proto::broadcast::Strategy;
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::netsize::NotEnoughData;
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
    Cast,
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

/// What a node knows when an operation starts.
pub(crate) struct World<'a, const N: usize> {
    /// Its own key.
    pub(crate) local: Bits<N>,
    pub(crate) table: Option<&'a RoutingTable<Net<N>>>,
    /// How large the network is.
    pub(crate) size: Result<u64, NotEnoughData>,
}

/// Makes the account of an operation, of a node that knows this.
pub(crate) type Make<'a, const N: usize> = Box<dyn FnOnce(&World<'_, N>) -> Box<dyn Matter<N>> + 'a>;

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
            matter: Box::new(move |world| Box::new(Lookup::new(world.local, config, start, world.table))),
        }),
        Inbound::Crawl(start) => Some(Opening {
            kind: Kind::Crawl,
            tag: start.tag,
            timeout: config.crawl.timeout,
            most: config.crawl.max_crawls,
            objection: None,
            matter: Box::new(move |world| {
                let seeds = crawl::seeds(start, world.table);
                Box::new(Survey::new(world.local, config.crawl.clone(), seeds))
            }),
        }),
        Inbound::Broadcast(start) => Some(Opening {
            kind: Kind::Cast,
            tag: start.tag,
            timeout: match start.strategy {
                Strategy::Sweep => config.broadcast.sweep_timeout,
                _ => config.broadcast.timeout,
            },
            most: usize::MAX,
            objection: cast::objection(start, config),
            matter: Box::new(move |world| Box::new(Cast::new(config, start, world))),
        }),
        _ => None,
    }
}

/// What every progress has, of whichever kind it is.
pub(crate) fn progress_of<const N: usize>(event: &Outbound<Net<N>>) -> Option<&Progress<Net<N>>> {
    match event {
        Outbound::Progress(progress) => Some(progress),
        Outbound::CrawlProgress(progress) => Some(&progress.request),
        Outbound::BroadcastProgress(progress) => Some(&progress.request),
        _ => None,
    }
}

/// What every finish has, of whichever kind it is.
pub(crate) fn ending<const N: usize>(event: &Outbound<Net<N>>) -> Option<(OperationId, Outcome, Statistics)> {
    match event {
        Outbound::Finished(finish) => Some((finish.operation, finish.outcome, finish.statistics)),
        Outbound::CrawlFinished(finish) => Some((finish.operation, finish.outcome, finish.statistics)),
        Outbound::BroadcastFinished(finish) => Some((finish.operation, finish.outcome, finish.statistics)),
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
    pub(crate) now: Instant,
    pub(crate) id: RequestId,
    pub(crate) sent: &'a Sent<N>,
    pub(crate) elapsed: Duration,
    pub(crate) reply: &'a Reply<Net<N>>,
    pub(crate) carried: Option<&'a Carried<Net<N>>>,
}

/// When an operation has something to do of its own, before its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    None,
    At(Instant),
    /// Then, or never: it cannot be told.
    Maybe(Instant),
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

    /// It takes its turn, and ends at this deadline.
    fn begin(&mut self, now: Instant, deadline: Instant) {
        let _ = (now, deadline);
    }

    /// All that was due by now is done.
    fn passed(&mut self, now: Instant) {
        let _ = now;
    }

    /// A request has no soft limit.
    fn is_patient(&self, request: &Request<Net<N>>) -> bool {
        let _ = request;
        false
    }

    /// Until when the answer to a request is of use, where that is before its operation's deadline.
    fn until(&self, request: &Request<Net<N>>) -> Option<Instant> {
        let _ = request;
        None
    }

    /// When it has something to do of its own.
    fn timer(&self) -> Timer {
        Timer::None
    }

    /// It has finished, with something left to do: whether it goes on as a side effect until this time, and with how many
    /// stores at most.
    fn goes_on(&mut self, now: Instant, until: Instant) -> Option<(bool, usize)> {
        let _ = (now, until);
        None
    }

    /// Whether a request is one to store.
    fn is_store(&self, id: RequestId) -> bool {
        let _ = id;
        false
    }

    /// Whether a request that is nobody's may be its own.
    fn would_ask(&self, request: &Request<Net<N>>) -> bool {
        let _ = request;
        false
    }

    /// How many nodes it has not stored with yet, as far as that is known.
    fn left(&self) -> usize {
        0
    }

    /// What it is told from now on is not all.
    fn blind(&mut self) {}

    /// A request comes out. Says whether it has the whole of its time: whether no earlier one to the node is listened to.
    fn asks(&mut self, asking: &Asking<'_, N>) -> (bool, Counts);

    /// A request was answered. Says which others are superseded by it, and must be given up next.
    fn answered(&mut self, replied: &Replied<'_, N>) -> Vec<RequestId>;

    /// A request failed, was refused, or timed out. Says whether no other to its node is in flight.
    fn missed(&mut self, replied: &Replied<'_, N>) -> bool;

    /// A request was given up, for a reason that is neither its time-out nor another answer of its node.
    fn given_up(&mut self, now: Instant, id: RequestId, sent: &Sent<N>, reason: GivenUp);

    /// A progress comes out; the request has been accounted for.
    fn progress(&mut self, now: Instant, event: &Outbound<Net<N>>) -> Counts;

    /// The finish comes out, and so many requests are in flight.
    fn finish(&mut self, now: Instant, event: &Outbound<Net<N>>, in_flight: usize) -> Counts;

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
