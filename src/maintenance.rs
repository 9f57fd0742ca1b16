//! The routing maintenance as a machine of its own: one routing table, and those who look after it.
//!
//! What follows from what is said in [`routing`](crate::routing); how events are handled is said here, for the
//! [`Coordinator`](crate::Coordinator) too.

use crate::context::{self, Cause, Context};
use crate::coordinator::Config;
use crate::deadline::Clock;
use crate::error::ConfigError;
use crate::event::{
    Answer, Bootstrapped, Cancel, Carried, Finish, Progress, Refused, Request, Says, Start, Started, says,
};
use crate::family::Family;
use crate::id::{OperationId, RequestId};
use crate::machine::{Batch, Machine, Stamped};
use crate::outbox::{Ending, Outbox, Traffic};
use crate::pool::{Elapsed, Pool, Replied};
use crate::query::{MaySearch, Search};
use crate::routing::{Routing, RoutingCounts, Tells, says_notices};
use crate::table::{RoutingTable, Saved};
use crate::time::Instant;
use crate::turn::{Turn, Work};
use core::time::Duration;

/// What a [`Maintenance`] is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Inbound<F: Family> {
    /// Join: an operation of the caller's, the lookup of [`Start::bootstrap`]. The stamp holds its span and its deadline.
    Bootstrap {
        /// The caller's own name for the operation, see [`Start::tag`].
        tag: u64,
        /// Nodes to begin with, beside those that the table knows. They are remembered.
        seeds: Vec<F::Node>,
    },
    /// End a bootstrap of the caller's now, as if its deadline had come. Ignored if it has ended.
    Stop(OperationId),
    /// A request was answered. The stamp holds the span in which the driver did the IO.
    Answered {
        /// The request.
        request: RequestId,
        /// The nodes that the answer names.
        closer: Vec<F::Node>,
    },
    /// A request failed: the node is unreachable, or answered nonsense.
    Failed(RequestId),
    /// A node is known to live and to serve: it answered a request of somebody else's, say. It is offered to the table, which
    /// may have no room for it.
    Connected {
        /// The node.
        node: F::Node,
        /// The round trip, if it was measured; time-outs are adapted to it.
        round_trip: Option<Duration>,
    },
    /// A node could not be reached by somebody else: see [what follows](crate::routing).
    Disconnected(F::Node),
    /// A node was heard of or from, and nothing is proved. It is checked before it enters the table.
    Discovered(F::Node),
    /// A node is known not to serve: see [`coordinator::Inbound::Client`](crate::coordinator::Inbound::Client).
    Client(F::Node),
    /// Remember these nodes as places to join from.
    Seeds(Vec<F::Node>),
    /// What an earlier run of the program knew: see [`Maintenance::snapshot`].
    Restore(Vec<Saved<F>>),
    /// Nothing happened but time.
    Tick,
}

/// What a [`Maintenance`] says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outbound<F: Family> {
    /// A bootstrap of the caller's was accepted.
    Started(Started),
    /// Send this, and hand back the answer or the failure.
    Request(Request<F>),
    /// A request was given up; abort its IO.
    Cancel(Cancel<F>),
    /// A request of the caller's bootstrap ended.
    Progress(Progress<F>),
    /// A bootstrap of the caller's ended: its last event.
    Finished(Finish<F>),
    /// A bootstrap of the caller's was not accepted.
    Refused(Refused),
    /// A node entered the routing table: a side effect, linked to what led to it.
    Admitted(F::Node),
    /// A node left the routing table: a side effect, linked to what led to it.
    Removed(F::Node),
    /// A bootstrap ended: a side effect, linked to it.
    Bootstrapped(Bootstrapped),
    /// The routing table has fallen below [`BootstrapConfig::min_nodes`](crate::BootstrapConfig::min_nodes): a bootstrap from
    /// the seeds remembered begins by itself.
    NearEmpty {
        /// How many nodes are left.
        nodes: usize,
    },
}

says!(Outbound {
    Started: Started,
    Request: Request<F>,
    Cancel: Cancel<F>,
    Progress: Progress<F>,
    Finished: Finish<F>,
    Refused: Refused,
});
says_notices!(Outbound);

/// A routing table that looks after itself: bootstrap, include, probe and explore over one table, with requests of their
/// own. For who brings his own lookups, or wants a table to serve from and nothing else.
///
/// It is a [`Coordinator`](crate::Coordinator) that knows no other operation than the bootstrap.
#[derive(Clone, Debug)]
pub struct Maintenance<F: Family> {
    clock: Clock,
    outbox: Outbox<F, Work>,
    pool: Pool<F, Search<F>>,
    routing: Routing<F>,
}

impl<F: Family> Maintenance<F> {
    /// An empty table around the key `local`. `config.pool` is that of the lookups of bootstrap and explore.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(local: F::Key, config: Config) -> Result<Self, ConfigError> {
        let Config { pool, network, table, routing, .. } = config;
        let (k, max_closer_nodes) = (pool.query.k, pool.query.max_closer_nodes);
        let table = RoutingTable::new(local, table)?;
        Ok(Self {
            clock: Clock::default(),
            outbox: Outbox::new(network)?,
            pool: Pool::new(local, pool)?,
            routing: Routing::new(table, routing, k, max_closer_nodes, None)?,
        })
    }

    /// The routing table.
    pub const fn table(&self) -> &RoutingTable<F> {
        &self.routing.table
    }

    /// What was done so far.
    pub fn counts(&self) -> RoutingCounts {
        self.routing.counts()
    }

    /// How many refreshes of the bucket with this common prefix length (in bits) explore has begun.
    pub fn explored(&self, cpl: u32) -> u64 {
        self.routing.explored(cpl)
    }

    /// Whether a node is in the list of nodes to probe, which holds exactly those of the table; `None` where
    /// [nothing is probed](crate::RoutingConfig::probe).
    pub fn probes(&self, node: &F::Node) -> Option<bool> {
        self.routing.probes(node)
    }

    /// The nodes of the routing table as plain data, to be stored and given back by [`Inbound::Restore`] when the program
    /// begins anew.
    pub fn snapshot(&self, now: Instant) -> Vec<Saved<F>> {
        self.routing.snapshot(now)
    }

    /// What became of all requests so far.
    pub fn traffic(&self) -> Traffic {
        self.outbox.traffic()
    }

    /// The live bootstrap that was started with this tag, to stop it by.
    pub fn operation(&self, tag: u64) -> Option<OperationId> {
        self.pool.operation(tag)
    }
}

impl<F: Family> Machine for Maintenance<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let Self { clock, outbox, pool, routing } = self;
        let Stamped { event, context, deadline } = event;
        let mut turn = Turn { now: clock.advance(now), cause: Cause::TIME, outbox, out };
        routing.elapse(&mut turn, pool);
        match event {
            Inbound::Bootstrap { tag, seeds } => {
                let event = Start::bootstrap(tag, routing.table.local(), seeds);
                routing.start(&mut turn, pool, Stamped { event, context, deadline });
            }
            Inbound::Stop(id) => {
                turn.cause = Cause::event(id, &context);
                pool.stop(&mut turn, id);
            }
            Inbound::Answered { request, closer } => {
                routing.reply(
                    &mut turn,
                    pool,
                    request,
                    &context,
                    Replied::Answer(closer, Carried::default()),
                );
            }
            Inbound::Failed(request) => {
                routing.reply(&mut turn, pool, request, &context, Replied::Failure(None));
            }
            Inbound::Connected { node, round_trip } => {
                routing.connected(&mut turn, &node, round_trip, &context);
            }
            Inbound::Disconnected(node) => routing.disconnected(&mut turn, &node, &context),
            Inbound::Discovered(node) => routing.heard_of(turn.now, &node, &context),
            Inbound::Client(node) => routing.client(&mut turn, node, &context),
            Inbound::Seeds(seeds) => routing.remember(&seeds),
            Inbound::Restore(saved) => routing.restore(&mut turn, saved, &context),
            Inbound::Tick => {}
        }
        routing.settle(&mut turn, pool);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.routing.poll_timeout(&self.pool, &self.outbox)
    }
}

/// How events are handled, whoever owns the parts.
impl<F: Family> Routing<F> {
    /// Does all that was due by now, before the event is looked at.
    pub(crate) fn elapse<T: MaySearch<F>, E: Tells<F> + Says<F, T>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        pool: &mut Pool<F, T>,
    ) {
        self.begin(turn.now);
        let mut elapsed = self.next_timeout().is_some_and(|at| at <= turn.now);
        while let Some(what) = pool.elapse(turn) {
            elapsed = true;
            match what {
                Elapsed::TimedOut(node, context) => self.suspect(turn, &node, || context),
                Elapsed::Check(id) => self.checked(turn, id, Ending::TimedOut, false, None),
                Elapsed::Internal => {}
            }
        }
        if elapsed {
            self.settle(turn, pool);
        }
    }

    /// Starts an operation of the caller's, from the nodes that the table knows too.
    pub(crate) fn start<T: MaySearch<F>, E: Tells<F> + Says<F, T>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        pool: &mut Pool<F, T>,
        start: Stamped<Start<F>>,
    ) {
        let mut replaced = None;
        pool.start_query(turn, start, |start| {
            let table = &self.table;
            let bootstraps = start.is_bootstrap(table.local());
            // Twice as many as it is after: where some are dead, the others may know nobody else.
            let wanted = 2 * self.k.max(start.num_results.unwrap_or(0));
            let known = table.closest(start.target).take(wanted);
            let given = start.seeds.len();
            start.seeds.reserve(wanted.min(table.len()));
            start.seeds.extend(known.map(|record| record.node().clone()));
            if bootstraps {
                replaced = self.bootstrap_begins(&mut start.seeds, given);
            }
        });
        if let Some(id) = replaced {
            pool.give_up(turn, id);
        }
    }

    /// A request of ours was answered or has failed, or somebody says so.
    pub(crate) fn reply<'a, T: MaySearch<F>, E: Tells<F> + Says<F, T>>(
        &mut self,
        turn: &mut Turn<'a, F, E>,
        pool: &mut Pool<F, T>,
        request: RequestId,
        context: &'a Context,
        replied: Replied<F>,
    ) {
        match replied {
            Replied::Answer(closer, carried) => {
                self.answered(turn, pool, request, context, Answer { closer, carried });
            }
            Replied::Failure(why) => self.failed(turn, pool, request, context, why),
        }
    }

    fn answered<'a, T: MaySearch<F>, E: Tells<F> + Says<F, T>>(
        &mut self,
        turn: &mut Turn<'a, F, E>,
        pool: &mut Pool<F, T>,
        request: RequestId,
        context: &'a Context,
        answer: Answer<F>,
    ) {
        let now = turn.now;
        match turn.outbox.recognise(request).map(|known| (known.work, known)) {
            Some((Work::Operation(asked), known)) => {
                let (id, closer) = (asked.operation, &answer.closer);
                let elapsed = Some(known.age(now));
                // The seeds of a bootstrap are the caller's own, and may know nobody yet.
                let fit = self.trusts(closer) || (asked.is_seed() && pool.is_bootstrap(id));
                let is_new = !self.refresh(now, &known.node, elapsed) && fit;
                let newcomer = (is_new && self.wants(&known.node)).then(|| known.node.clone());
                turn.cause = Cause::event(id, context);
                let cause = turn.cause;
                let detached = || pool.detach(&cause, id).unwrap_or(Context::NONE);
                if let Some(node) = newcomer {
                    self.alive(turn, &node, elapsed, detached);
                }
                self.discovered(now, closer, detached);
                pool.answered(turn, id, request, answer);
            }
            Some((Work::Check(_), _)) => {
                let names = !answer.closer.is_empty();
                self.checked(turn, request, Ending::Answered, names, Some(context));
                self.discovered(now, &answer.closer, || context::detached(context));
            }
            None => {}
        }
    }

    /// It failed, or its node lives and refused: then it says why.
    fn failed<'a, T: MaySearch<F>, E: Tells<F> + Says<F, T>>(
        &mut self,
        turn: &mut Turn<'a, F, E>,
        pool: &mut Pool<F, T>,
        request: RequestId,
        context: &'a Context,
        why: Option<F::Message>,
    ) {
        let now = turn.now;
        match turn.outbox.recognise(request).map(|known| (known.work, known)) {
            Some((Work::Operation(asked), known)) => {
                let id = asked.operation;
                let (node, elapsed) = (known.node.clone(), known.age(now));
                turn.cause = Cause::event(id, context);
                let cause = turn.cause;
                if why.is_some() {
                    self.refresh(now, &node, Some(elapsed));
                } else {
                    self.suspect(turn, &node, || pool.detach(&cause, id).unwrap_or(Context::NONE));
                }
                pool.failed(turn, id, request, why);
            }
            Some((Work::Check(_), _)) => self.checked(turn, request, Ending::Failed, false, Some(context)),
            None => {}
        }
    }

    /// A node is known to live, and to serve, by other means than a request of ours.
    pub(crate) fn connected<E: Tells<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        node: &F::Node,
        round_trip: Option<Duration>,
        context: &Context,
    ) {
        if let Some(round_trip) = round_trip {
            turn.outbox.observe(round_trip);
        }
        self.alive(turn, node, round_trip, || context::detached(context));
    }

    /// A node could not be reached, by other means than a request of ours.
    pub(crate) fn disconnected<E: Tells<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        node: &F::Node,
        context: &Context,
    ) {
        self.suspect(turn, node, || context::detached(context));
    }

    /// A node was heard of or from, and nothing is proved.
    pub(crate) fn heard_of(&mut self, now: Instant, node: &F::Node, context: &Context) {
        self.heard(now, node, || context::detached(context));
    }
}
