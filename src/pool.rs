//! The query pool: many lookups, of which a bounded number runs at once.

use crate::check::Check;
use crate::context::{self, Cause, Context};
use crate::deadline::{self, Clock};
use crate::error::{ConfigError, require};
use crate::event::{Ended, Outcome, Owner, Refused, RefusedBecause, Says, Start};
use crate::family::Family;
use crate::heap::Heap;
use crate::id::{Arena, OperationId, RequestId};
use crate::inflight::Due;
use crate::machine::{Batch, Machine, Stamped};
use crate::operation::{Accepted, Onward, Operation};
use crate::outbox::{NetworkConfig, Outbox, Seeded, Traffic};
use crate::query::{Inbound, Outbound, QueryConfig};
use crate::time::Instant;
use crate::turn::{Turn, Work};
use core::time::Duration;
use opentelemetry::trace::SpanContext;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How many lookups there may be, and how each goes about it.
///
/// Memory: at most `max_running` lookups as [`QueryConfig`] bounds them, and at most `max_waiting` that hold their
/// seeds only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Each lookup's configuration.
    pub query: QueryConfig,
    /// How many lookups run at once. 1 to 2^24. Default: 16,384.
    pub max_running: usize,
    /// How many lookups wait for their turn, earliest deadline first, then in order of arrival. One more is refused.
    /// At most 2^24. Default: 65,536.
    pub max_waiting: usize,
    /// Seed of the hash of the table of tags. It has no influence on what comes out. Default: 0.
    pub hash_seed: u64,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { query: QueryConfig::default(), max_running: 16_384, max_waiting: 65_536, hash_seed: 0 }
    }
}

impl PoolConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        const MOST: usize = 1 << 24;
        self.query.validate()?;
        require((1..=MOST).contains(&self.max_running), "pool.max_running", "1 to 2^24")?;
        require(self.max_waiting <= MOST, "pool.max_waiting", "at most 2^24")
    }
}

/// All live operations. Borrows the outbox of the machine that owns it, through [`Turn`].
#[derive(Clone, Debug)]
pub(crate) struct Pool<F: Family> {
    local: F::Key,
    config: PoolConfig,
    operations: Arena<Operation<F>>,
    tags: HashMap<u64, OperationId, Seeded>,
    /// The deadline of every operation, by slot.
    deadlines: Heap<Instant>,
    /// Those that wait for their turn, by deadline and arrival.
    waiting: Heap<(Instant, u64)>,
    starving: Starving<F>,
    arrivals: u64,
    /// Operations of the caller's that run.
    running: usize,
    /// Lookups that somebody inside waits for, and that have ended.
    ended: Vec<Ended>,
}

/// Operations that run and could not hand in a request, because the queue of requests was full. Each is tried again
/// when that can help, and not before: the cost of a call does not grow with their number.
#[derive(Clone, Debug)]
struct Starving<F: Family> {
    /// All of them, by deadline. Space in the queue helps any.
    all: Heap<Instant>,
    /// Those whose node was not busy, by deadline: free capacity helps them too.
    eager: Heap<Instant>,
    /// The others, by the node that was busy and by deadline: room at that node helps them.
    stuck: BTreeSet<(F::Key, Instant, u32)>,
    /// Where the others stand in `stuck`.
    places: BTreeMap<u32, (F::Key, Instant)>,
}

impl<F: Family> Starving<F> {
    const fn new() -> Self {
        Self { all: Heap::new(), eager: Heap::new(), stuck: BTreeSet::new(), places: BTreeMap::new() }
    }

    fn insert<T>(&mut self, slot: u32, deadline: Instant, busy: Option<F::Key>, outbox: &mut Outbox<F, T>) {
        self.remove(slot, outbox);
        if let Some(node) = busy {
            outbox.want(node);
        }
        self.all.set(slot, deadline);
        match busy {
            None => self.eager.set(slot, deadline),
            Some(node) => {
                self.stuck.insert((node, deadline, slot));
                self.places.insert(slot, (node, deadline));
            }
        }
    }

    fn remove<T>(&mut self, slot: u32, outbox: &mut Outbox<F, T>) {
        if self.all.clear(slot)
            && !self.eager.clear(slot)
            && let Some((node, deadline)) = self.places.remove(&slot)
        {
            self.stuck.remove(&(node, deadline, slot));
            if self.waiter(node).is_none() {
                outbox.forget(node);
            }
        }
    }

    /// Takes out the first that can be helped.
    fn next<T>(&mut self, outbox: &mut Outbox<F, T>) -> Option<u32> {
        let (_, first) = self.all.peek()?;
        let slot = if outbox.has_space() {
            Some(first)
        } else if outbox.is_free() {
            self.eager.peek().map(|(_, slot)| slot).or_else(|| self.unstuck(outbox))
        } else {
            None
        }?;
        self.remove(slot, outbox);
        Some(slot)
    }

    /// The first of those whose node is no longer busy.
    fn unstuck<T>(&self, outbox: &mut Outbox<F, T>) -> Option<u32> {
        while let Some(node) = outbox.freed() {
            match self.waiter(node) {
                Some(slot) => return Some(slot),
                None => outbox.forget(node),
            }
        }
        None
    }

    fn waiter(&self, node: F::Key) -> Option<u32> {
        let (of, _, slot) = self.stuck.range((node, Instant::ORIGIN, 0)..).next()?;
        (*of == node).then_some(*slot)
    }

    /// Lets others stand back behind the first that can be helped now.
    fn first<T>(&self, outbox: &mut Outbox<F, T>) {
        let helped = if outbox.has_space() { &self.all } else { &self.eager };
        outbox.stand_back(helped.peek().map(|(deadline, _)| deadline));
    }
}

/// What one step of [`Pool::elapse`] did.
pub(crate) enum Elapsed<F: Family> {
    /// A request ran into its own timeout: a failure of this node. The context is that of a side effect.
    TimedOut(F::Node, Context),
    /// A check ran into its timeout; it is still open.
    Check(RequestId),
    /// Something that concerns operations only.
    Internal,
}

impl<F: Family> Pool<F> {
    pub(crate) fn new(local: F::Key, config: PoolConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            local,
            operations: Arena::new(),
            tags: HashMap::with_hasher(Seeded(config.hash_seed)),
            deadlines: Heap::new(),
            waiting: Heap::new(),
            starving: Starving::new(),
            arrivals: 0,
            running: 0,
            ended: Vec::new(),
            config,
        })
    }

    /// Accepts a start or refuses it. `more_seeds` is asked only if it is accepted.
    pub(crate) fn start<E: Says<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        stamped: Stamped<Start<F>>,
        more_seeds: impl FnOnce(&mut Start<F>),
    ) {
        let Stamped { event: mut start, context, deadline } = stamped;
        let deadline = match self.admit(turn.now, deadline, &start) {
            Ok(deadline) => deadline,
            Err(reason) => {
                let event = Refused { tag: start.tag, reason }.into();
                turn.out.push(Stamped { event, context, deadline: None });
                return;
            }
        };
        more_seeds(&mut start);
        let handle = self.operations.next_handle();
        let id = OperationId::new(start.tag, handle);
        self.tags.insert(start.tag, id);
        let (now, owner, context) = (turn.now, Owner::Operation(id), context::own(&context));
        let accepted = Accepted { now, id, owner, deadline, context, start };
        let operation = Operation::new(accepted, self.local, &self.config.query);
        operation.announce(turn);
        self.operations.insert(operation);
        self.deadlines.set(handle.slot(), deadline);
        self.waiting.set(handle.slot(), (deadline, self.arrivals));
        self.arrivals += 1;
    }

    /// Begins a lookup of the routing maintenance, beside all that wait: it has no tag and no turn. Names it, if it did.
    pub(crate) fn begin<E: Says<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        owner: Owner,
        timeout: Duration,
        origin: SpanContext,
        start: Start<F>,
    ) -> Option<OperationId> {
        let deadline = deadline::of_operation(turn.now, None, timeout)?;
        let handle = self.operations.next_handle();
        let id = OperationId::new(start.tag, handle);
        let accepted = Accepted { now: turn.now, id, owner, deadline, context: origin, start };
        self.operations.insert(Operation::new(accepted, self.local, &self.config.query));
        self.deadlines.set(handle.slot(), deadline);
        self.resume(turn, handle.slot(), Operation::begin);
        Some(id)
    }

    /// The next lookup that somebody inside waits for and that has ended.
    pub(crate) fn ended(&mut self) -> Option<Ended> {
        self.ended.pop()
    }

    fn admit(
        &self,
        now: Instant,
        deadline: Option<Instant>,
        start: &Start<F>,
    ) -> Result<Instant, RefusedBecause> {
        if self.tags.contains_key(&start.tag) {
            return Err(RefusedBecause::TagInUse);
        }
        if self.tags.len() >= self.config.max_running + self.config.max_waiting {
            return Err(RefusedBecause::Full);
        }
        self.config.query.admit(now, deadline, start)
    }

    /// Ends a lookup of the routing maintenance.
    pub(crate) fn give_up<E: Says<F>>(&mut self, turn: &mut Turn<'_, F, E>, id: OperationId) {
        self.end(turn, id, Outcome::Stopped);
    }

    /// Ends an operation of the caller's, if it lives.
    pub(crate) fn stop<E: Says<F>>(&mut self, turn: &mut Turn<'_, F, E>, id: OperationId) {
        if self.operations.get(id.handle()).is_some_and(|operation| operation.owner == Owner::Operation(id)) {
            self.end(turn, id, Outcome::Stopped);
        } else {
            turn.outbox.count_unknown();
        }
    }

    /// Takes an answer to a request that the outbox recognised.
    pub(crate) fn answered<E: Says<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        id: OperationId,
        request: RequestId,
        closer: Vec<F::Node>,
    ) {
        self.starving.first(turn.outbox);
        if let Some(operation) = self.operations.get_mut(id.handle()) {
            let onward = operation.answered(turn, request, closer);
            self.go(turn, id, onward);
        }
    }

    /// Takes the failure of a request that the outbox recognised.
    pub(crate) fn failed<E: Says<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        id: OperationId,
        request: RequestId,
    ) {
        self.starving.first(turn.outbox);
        if let Some(operation) = self.operations.get_mut(id.handle()) {
            let onward = operation.failed(turn, request);
            self.go(turn, id, onward);
        }
    }

    /// Does the earliest thing that is due, if any. At the same instant operations end before requests time out: a
    /// request that had all of its operation's time did not run into a timeout of its own.
    pub(crate) fn elapse<E: Says<F>>(&mut self, turn: &mut Turn<'_, F, E>) -> Option<Elapsed<F>> {
        let timer = turn.outbox.next_timeout().filter(|at| *at <= turn.now);
        let deadline = self.deadlines.peek().filter(|(at, _)| *at <= turn.now);
        if let Some((at, slot)) = deadline
            && timer.is_none_or(|timer| at <= timer)
        {
            let id = self.operations.at(slot).map(|(_, operation)| operation.id)?;
            self.end(turn, id, Outcome::DeadlineExceeded);
            return Some(Elapsed::Internal);
        }
        self.starving.first(turn.outbox);
        let due = turn.outbox.expire(turn.now)?;
        let (Due::Soft(due_id) | Due::Hard(due_id)) = due;
        let request = turn.outbox.get(due_id)?;
        let asked = match request.work {
            Work::Lookup(asked) => asked,
            Work::Check(_) => return Some(Elapsed::Check(due_id)),
        };
        let id = asked.operation;
        let operation = self.operations.get_mut(id.handle())?;
        let elapsed = match due {
            // One silence is one failure, even if the node was asked twice.
            Due::Hard(_) if request.is_emitted() && operation.is_last(turn.outbox, due_id, asked) => {
                Elapsed::TimedOut(request.node.clone(), operation.detach(&turn.cause))
            }
            _ => Elapsed::Internal,
        };
        let onward = operation.due(turn, due);
        self.go(turn, id, onward);
        Some(elapsed)
    }

    /// Lets go what there is room for: operations that wait for their turn, requests that wait for capacity, operations
    /// that could not hand in a request. A check that can be sent is handed to `send`.
    pub(crate) fn settle<E: Says<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        mut send: impl FnMut(&mut Turn<'_, F, E>, Check, RequestId, Instant),
    ) {
        loop {
            if self.running < self.config.max_running
                && let Some((_, slot)) = self.waiting.peek()
            {
                self.waiting.clear(slot);
                self.running += 1;
                self.resume(turn, slot, Operation::begin);
            } else if let Some((request, deadline)) = turn.outbox.release(turn.now) {
                match turn.outbox.get(request).map(|request| request.work) {
                    Some(Work::Lookup(asked)) => {
                        if let Some(operation) = self.operations.get_mut(asked.operation.handle()) {
                            operation.send(turn, request, deadline);
                        }
                    }
                    Some(Work::Check(check)) => send(turn, check, request, deadline),
                    None => {}
                }
            } else if let Some(slot) = self.starving.next(turn.outbox) {
                self.resume(turn, slot, Operation::advance);
            } else {
                return;
            }
        }
    }

    fn resume<E: Says<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        slot: u32,
        step: impl FnOnce(&mut Operation<F>, &mut Turn<'_, F, E>) -> Onward<F::Key>,
    ) {
        self.starving.first(turn.outbox);
        if let Some(operation) = self.operations.at_mut(slot) {
            let (id, onward) = (operation.id, step(operation, turn));
            self.go(turn, id, onward);
        }
    }

    /// Lets checks stand back behind the operations that wait for room in the queue now, and behind no others.
    pub(crate) fn stand_back<E>(&self, turn: &mut Turn<'_, F, E>) {
        self.starving.first(turn.outbox);
    }

    /// When the first operation ends.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.peek().map(|(at, _)| at)
    }

    /// The context of a side effect of an operation.
    pub(crate) fn detach(&self, cause: &Cause<'_>, id: OperationId) -> Option<Context> {
        self.operations.get(id.handle()).map(|operation| operation.detach(cause))
    }

    /// Whether an operation looks up our own key.
    pub(crate) fn is_bootstrap(&self, id: OperationId) -> bool {
        self.operations.get(id.handle()).is_some_and(|operation| operation.bootstrap)
    }

    /// The live operation with this tag.
    pub(crate) fn operation(&self, tag: u64) -> Option<OperationId> {
        self.tags.get(&tag).copied()
    }

    /// The caller's live operations, and how many of them run.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.tags.len(), self.running)
    }

    fn go<E: Says<F>>(&mut self, turn: &mut Turn<'_, F, E>, id: OperationId, onward: Onward<F::Key>) {
        match onward {
            Onward::Ends(outcome) => self.end(turn, id, outcome),
            Onward::Starves { busy } => {
                let deadline = self.operations.get(id.handle()).map(|operation| operation.deadline);
                self.starving.insert(id.handle().slot(), deadline.unwrap_or(turn.now), busy, turn.outbox);
            }
            Onward::Continues => {}
        }
    }

    /// The one way out of the pool: by convergence, by deadline, by hand.
    fn end<E: Says<F>>(&mut self, turn: &mut Turn<'_, F, E>, id: OperationId, outcome: Outcome) {
        let slot = id.handle().slot();
        let Some(operation) = self.operations.remove(id.handle()) else { return };
        self.deadlines.clear(slot);
        self.starving.remove(slot, turn.outbox);
        if operation.owner.operation().is_some() {
            self.tags.remove(&id.tag());
            if !self.waiting.clear(slot) {
                self.running -= 1;
            }
        }
        self.ended.extend(operation.finish(turn, outcome));
    }
}

/// Many lookups over one set of requests: a machine of its own.
///
/// The cost of an event does not grow with the number of lookups, but for timers: O(log n).
#[derive(Clone, Debug)]
pub struct QueryPool<F: Family> {
    clock: Clock,
    outbox: Outbox<F, Work>,
    pool: Pool<F>,
}

impl<F: Family> QueryPool<F> {
    /// A pool of the node whose own key is `local`: that key is never asked.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(local: F::Key, pool: PoolConfig, network: NetworkConfig) -> Result<Self, ConfigError> {
        let (pool, outbox) = (Pool::new(local, pool)?, Outbox::new(network)?);
        Ok(Self { clock: Clock::default(), outbox, pool })
    }

    /// What became of all requests so far.
    pub fn traffic(&self) -> Traffic {
        self.outbox.traffic()
    }

    /// The live operation that was started with this tag, to stop it by.
    pub fn operation(&self, tag: u64) -> Option<OperationId> {
        self.pool.operation(tag)
    }

    /// Operations that live, running or waiting.
    pub fn operations(&self) -> usize {
        self.pool.counts().0
    }

    /// Operations that run.
    pub fn running(&self) -> usize {
        self.pool.counts().1
    }
}

impl<F: Family> Machine for QueryPool<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let Self { clock, outbox, pool } = self;
        let Stamped { event, context, deadline } = event;
        let mut turn = Turn { now: clock.advance(now), cause: Cause::TIME, outbox, out };
        let mut elapsed = false;
        while pool.elapse(&mut turn).is_some() {
            elapsed = true;
        }
        if elapsed {
            pool.settle(&mut turn, |_, _, _, _| ());
        }
        match event {
            Inbound::Start(event) => {
                let context = context.clone();
                pool.start(&mut turn, Stamped { event, context, deadline }, |_| ());
            }
            Inbound::Stop(id) => {
                turn.cause = Cause::event(id, &context);
                pool.stop(&mut turn, id);
            }
            Inbound::Answered { request, closer } => {
                if let Some(asked) =
                    turn.outbox.recognise(request).and_then(|request| request.work.lookup()).copied()
                {
                    turn.cause = Cause::event(asked.operation, &context);
                    pool.answered(&mut turn, asked.operation, request, closer);
                }
            }
            Inbound::Failed(request) => {
                if let Some(asked) =
                    turn.outbox.recognise(request).and_then(|request| request.work.lookup()).copied()
                {
                    turn.cause = Cause::event(asked.operation, &context);
                    pool.failed(&mut turn, asked.operation, request);
                }
            }
            Inbound::Tick => {}
        }
        pool.settle(&mut turn, |_, _, _, _| ());
        // Nobody here waits for them.
        while pool.ended().is_some() {}
    }

    fn poll_timeout(&self) -> Option<Instant> {
        earlier(self.pool.next_deadline(), self.outbox.next_timeout())
    }
}

/// The earlier of two, where `None` is never.
pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
