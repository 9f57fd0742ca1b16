//! The query pool: many lookups, of which a bounded number runs at once.

use crate::check::Check;
use crate::context::{self, Cause, Context};
use crate::deadline::{self, Clock};
use crate::error::{ConfigError, require};
use crate::event::{Answer, Carried, Ended, Outcome, Owner, Refused, RefusedBecause, Says, Start};
use crate::family::Family;
use crate::heap::Heap;
use crate::id::{Arena, OperationId, RequestId};
use crate::inflight::Due;
use crate::machine::{Batch, Machine, Stamped};
use crate::operation::{Accepted, Onward, Operation};
use crate::outbox::{NetworkConfig, Outbox, Seeded, Traffic};
use crate::query::{Inbound, Outbound, QueryConfig, Search};
use crate::task::Task;
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
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct PoolConfig {
    /// Each lookup's configuration.
    pub query: QueryConfig,
    /// How many lookups run at once. 1 to 2^24. Default: 16,384.
    pub max_running: usize,
    /// How many lookups wait for their turn, earliest deadline first, then in order of arrival. One more is refused.
    /// At most 2^24. Default: 65,536.
    pub max_waiting: usize,
    /// Seed of the hash of the tables of tags, and of what nodes' answers [carried](crate::Carried::token). It has no influence on
    /// what comes out, but where peers choose their ids, give it a random number. Default: 0.
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

/// All live operations, each with a task `T`. Borrows the outbox of the machine that owns it, through [`Turn`].
#[derive(Clone, Debug)]
pub(crate) struct Pool<F: Family, T> {
    local: F::Key,
    config: PoolConfig,
    operations: Arena<Operation<F, T>>,
    tags: HashMap<u64, OperationId, Seeded>,
    /// When time has something to say of each operation, by slot: its deadline, or a timer of its task before that.
    timers: Heap<Instant>,
    /// Those that wait for their turn, by deadline and arrival.
    waiting: Heap<(Instant, u64)>,
    starving: Starving<F>,
    arrivals: u64,
    /// Operations of the caller's that run.
    running: usize,
    /// Crawls that live.
    crawls: usize,
    /// What operations that have returned may go on with.
    background: Background,
    /// Lookups that somebody inside waits for, and that have ended.
    ended: Vec<Ended<F>>,
}

/// What goes on after the finish of its operation, as a side effect.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Background {
    /// How many requests there may be, sent or to be sent.
    pub(crate) most: usize,
    /// How long it may go on.
    pub(crate) timeout: Duration,
    /// How many of them have been granted.
    pub(crate) granted: usize,
}

/// The stamp of a start, and what else the pool has to know of it.
pub(crate) struct Starting {
    pub(crate) tag: u64,
    pub(crate) context: Context,
    pub(crate) deadline: Option<Instant>,
    /// How long it may take at most.
    pub(crate) timeout: Duration,
    pub(crate) bootstrap: bool,
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

/// What came of a request, as the driver tells.
pub(crate) enum Replied<F: Family> {
    Answer(Vec<F::Node>, Carried<F>),
    Failure(Option<F::Message>),
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

impl<F: Family, T: Task<F>> Pool<F, T> {
    pub(crate) fn new(local: F::Key, config: PoolConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            local,
            operations: Arena::new(),
            tags: HashMap::with_hasher(Seeded(config.hash_seed)),
            timers: Heap::new(),
            waiting: Heap::new(),
            starving: Starving::new(),
            arrivals: 0,
            running: 0,
            crawls: 0,
            background: Background::default(),
            ended: Vec::new(),
            config,
        })
    }

    /// The same, whose operations may go on as side effects.
    pub(crate) fn with_background(self, background: Background) -> Self {
        Self { background, ..self }
    }

    /// Accepts a start or refuses it: `objection` says why the task cannot be accepted, if so. The task is made only if it is.
    pub(crate) fn start<E: Says<F, T>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        starting: Starting,
        objection: Result<(), RefusedBecause>,
        task: impl FnOnce(&Self) -> T,
    ) {
        let admitted = self.admit(turn.now, &starting, objection);
        let Starting { tag, context, bootstrap, .. } = starting;
        let deadline = match admitted {
            Ok(deadline) => deadline,
            Err(reason) => {
                let event = Refused { tag, reason }.into();
                turn.out.push(Stamped { event, context, deadline: None });
                return;
            }
        };
        let task = task(self);
        self.crawls += usize::from(task.is_crawl());
        let handle = self.operations.next_handle();
        let id = OperationId::new(tag, handle);
        self.tags.insert(tag, id);
        let (now, owner, context) = (turn.now, Owner::Operation(id), context::own(&context));
        let accepted = Accepted { now, id, owner, deadline, context, bootstrap };
        let operation = Operation::new(accepted, task);
        operation.announce(turn);
        self.timers.set(handle.slot(), operation.armed);
        self.operations.insert(operation);
        self.waiting.set(handle.slot(), (deadline, self.arrivals));
        self.arrivals += 1;
    }

    /// The next lookup that somebody inside waits for and that has ended.
    pub(crate) fn ended(&mut self) -> Option<Ended<F>> {
        self.ended.pop()
    }

    fn admit(
        &self,
        now: Instant,
        starting: &Starting,
        objection: Result<(), RefusedBecause>,
    ) -> Result<Instant, RefusedBecause> {
        if self.tags.contains_key(&starting.tag) {
            return Err(RefusedBecause::TagInUse);
        }
        if self.tags.len() >= self.config.max_running + self.config.max_waiting {
            return Err(RefusedBecause::Full);
        }
        objection?;
        deadline::of_operation(now, starting.deadline, starting.timeout).ok_or(RefusedBecause::DeadlinePassed)
    }

    /// Ends a lookup of the routing maintenance.
    pub(crate) fn give_up<E: Says<F, T>>(&mut self, turn: &mut Turn<'_, F, E>, id: OperationId) {
        self.end(turn, id, Outcome::Stopped);
    }

    /// Ends an operation of the caller's, if it lives.
    pub(crate) fn stop<E: Says<F, T>>(&mut self, turn: &mut Turn<'_, F, E>, id: OperationId) {
        let lives = |operation: &Operation<F, T>| operation.owner == Owner::Operation(id);
        if self.operations.get(id.handle()).is_some_and(lives) {
            self.end(turn, id, Outcome::Stopped);
        } else {
            turn.outbox.count_unknown();
        }
    }

    /// Takes an answer to a request that the outbox recognised.
    pub(crate) fn answered<E: Says<F, T>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        id: OperationId,
        request: RequestId,
        answer: Answer<F>,
    ) {
        self.starving.first(turn.outbox);
        if let Some(operation) = self.operations.get_mut(id.handle()) {
            let onward = operation.answered(turn, request, answer);
            self.go(turn, id, onward);
        }
    }

    /// Takes the failure of a request that the outbox recognised, or the node's refusal and why.
    pub(crate) fn failed<E: Says<F, T>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        id: OperationId,
        request: RequestId,
        why: Option<F::Message>,
    ) {
        self.starving.first(turn.outbox);
        if let Some(operation) = self.operations.get_mut(id.handle()) {
            let onward = operation.failed(turn, request, why);
            self.go(turn, id, onward);
        }
    }

    /// Does the earliest thing that is due, if any. At the same instant operations end before requests time out: a
    /// request that had all of its operation's time did not run into a timeout of its own.
    pub(crate) fn elapse<E: Says<F, T>>(&mut self, turn: &mut Turn<'_, F, E>) -> Option<Elapsed<F>> {
        let timer = turn.outbox.next_timeout().filter(|at| *at <= turn.now);
        let own = self.timers.peek().filter(|(at, _)| *at <= turn.now);
        if let Some((at, slot)) = own
            && timer.is_none_or(|timer| at <= timer)
        {
            let (id, over) = self.operations.at(slot).map(|(_, op)| (op.id, op.deadline <= at))?;
            if over {
                self.end(turn, id, Outcome::DeadlineExceeded);
            } else {
                if let Some(operation) = self.operations.at_mut(slot) {
                    self.timers.set(slot, operation.elapse(turn));
                }
                self.resume(turn, slot, Operation::advance);
            }
            return Some(Elapsed::Internal);
        }
        self.starving.first(turn.outbox);
        let due = turn.outbox.expire(turn.now)?;
        let (Due::Soft(due_id) | Due::Hard(due_id)) = due;
        let request = turn.outbox.get(due_id)?;
        let asked = match request.work {
            Work::Operation(asked) => asked,
            Work::Check(_) => return Some(Elapsed::Check(due_id)),
        };
        let id = asked.operation;
        let operation = self.operations.get_mut(id.handle())?;
        let elapsed = match due {
            // One silence is one failure, even if the node was asked twice.
            Due::Hard(_) if !request.had_all() && operation.is_last(turn.outbox, due_id, asked) => {
                Elapsed::TimedOut(request.node.clone(), operation.detached(&turn.cause))
            }
            _ => Elapsed::Internal,
        };
        let onward = operation.due(turn, due);
        self.go(turn, id, onward);
        Some(elapsed)
    }

    /// Takes what came of a request, where it is known: of a machine that has operations only.
    pub(crate) fn reply<'a, E: Says<F, T>>(
        &mut self,
        turn: &mut Turn<'a, F, E>,
        request: RequestId,
        context: &'a Context,
        replied: Replied<F>,
    ) {
        let known = turn.outbox.recognise(request).and_then(|request| request.work.operation()).copied();
        let Some(asked) = known else { return };
        turn.cause = Cause::event(asked.operation, context);
        match replied {
            Replied::Answer(closer, carried) => {
                self.answered(turn, asked.operation, request, Answer { closer, carried });
            }
            Replied::Failure(why) => self.failed(turn, asked.operation, request, why),
        }
    }

    /// Lets go what there is room for: operations that wait for their turn, requests that wait for capacity, operations
    /// that could not hand in a request. A check that can be sent is handed to `send`.
    pub(crate) fn settle<E: Says<F, T>>(
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
                    Some(Work::Operation(asked)) => {
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

    fn resume<E: Says<F, T>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        slot: u32,
        step: impl FnOnce(&mut Operation<F, T>, &mut Turn<'_, F, E>) -> Onward<F::Key>,
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

    /// When the first operation ends, or its task has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.peek().map(|(at, _)| at)
    }

    /// The context of a side effect of an operation.
    pub(crate) fn detach(&self, cause: &Cause<'_>, id: OperationId) -> Option<Context> {
        self.operations.get(id.handle()).map(|operation| operation.detached(cause))
    }

    /// Whether an operation looks up our own key.
    pub(crate) fn is_bootstrap(&self, id: OperationId) -> bool {
        self.operations.get(id.handle()).is_some_and(|operation| operation.bootstrap)
    }

    /// The live operation with this tag.
    pub(crate) fn operation(&self, tag: u64) -> Option<OperationId> {
        self.tags.get(&tag).copied()
    }

    /// How many crawls live.
    pub(crate) const fn crawls(&self) -> usize {
        self.crawls
    }

    /// How operations go about it.
    pub(crate) const fn config(&self) -> &PoolConfig {
        &self.config
    }

    /// Our own key.
    pub(crate) const fn local(&self) -> F::Key {
        self.local
    }

    /// The caller's live operations, and how many of them run.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.tags.len(), self.running)
    }

    fn go<E: Says<F, T>>(&mut self, turn: &mut Turn<'_, F, E>, id: OperationId, onward: Onward<F::Key>) {
        let slot = id.handle().slot();
        match onward {
            Onward::Ends(outcome) => return self.end(turn, id, outcome),
            Onward::Returns => return self.detach_rest(turn, id),
            // By the same deadline as the outbox goes by: whoever comes first here must not have to stand back there.
            Onward::Starves { busy, until } => self.starving.insert(slot, until, busy, turn.outbox),
            Onward::Continues => {}
        }
        if let Some(operation) = self.operations.get_mut(id.handle()) {
            let timer = operation.timer();
            if timer != operation.armed {
                operation.armed = timer;
                self.timers.set(slot, timer);
            }
        }
    }

    /// The way out for an operation that has returned: what is left goes on as a side effect, if there is room for it.
    fn detach_rest<E: Says<F, T>>(&mut self, turn: &mut Turn<'_, F, E>, id: OperationId) {
        let Background { most, timeout, granted } = self.background;
        let deadline = deadline::of_operation(turn.now, None, timeout);
        let Some(operation) = self.operations.get_mut(id.handle()) else { return };
        let rest = operation.rest();
        let Some(deadline) = deadline.filter(|_| rest > 0 && granted + rest <= most) else {
            return self.end(turn, id, Outcome::Complete);
        };
        operation.detach(turn, Outcome::Complete, deadline);
        self.background.granted += rest;
        self.tags.remove(&id.tag());
        self.running -= 1;
        self.resume(turn, id.handle().slot(), Operation::advance);
    }

    /// The one way out of the pool: by convergence, by deadline, by hand.
    fn end<E: Says<F, T>>(&mut self, turn: &mut Turn<'_, F, E>, id: OperationId, outcome: Outcome) {
        let slot = id.handle().slot();
        let Some(operation) = self.operations.remove(id.handle()) else { return };
        self.timers.clear(slot);
        self.starving.remove(slot, turn.outbox);
        match operation.owner {
            Owner::Operation(_) => {
                self.tags.remove(&id.tag());
                if !self.waiting.clear(slot) {
                    self.running -= 1;
                }
            }
            Owner::Background => self.background.granted -= operation.granted,
            _ => {}
        }
        self.crawls -= usize::from(operation.is_crawl());
        self.ended.extend(operation.finish(turn, outcome));
    }
}

impl<F: Family, T: Task<F> + From<Search<F>>> Pool<F, T> {
    /// Accepts the start of a lookup or refuses it. `more_seeds` is asked only if it is accepted.
    pub(crate) fn start_query<E: Says<F, T>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        stamped: Stamped<Start<F>>,
        more_seeds: impl FnOnce(&mut Start<F>),
    ) {
        let Stamped { event: mut start, context, deadline } = stamped;
        let (tag, query) = (start.tag, &self.config.query);
        let (timeout, bootstrap) = (query.timeout, start.is_bootstrap(self.local));
        let objection = query.admit(&start);
        let starting = Starting { tag, context, deadline, timeout, bootstrap };
        self.start(turn, starting, objection, |pool| {
            more_seeds(&mut start);
            Search::new(pool.local, &pool.config.query, start).into()
        });
    }

    /// Begins a lookup of the routing maintenance, beside all that wait: it has no tag and no turn. Names it, if it did.
    pub(crate) fn begin<E: Says<F, T>>(
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
        let bootstrap = start.is_bootstrap(self.local);
        let accepted = Accepted { now: turn.now, id, owner, deadline, context: origin, bootstrap };
        let search = Search::new(self.local, &self.config.query, start);
        self.operations.insert(Operation::new(accepted, search.into()));
        self.timers.set(handle.slot(), deadline);
        self.resume(turn, handle.slot(), Operation::begin);
        Some(id)
    }
}

/// Many lookups over one set of requests: a machine of its own.
///
/// The cost of an event does not grow with the number of lookups, but for timers: O(log n).
#[derive(Clone, Debug)]
pub struct QueryPool<F: Family> {
    clock: Clock,
    outbox: Outbox<F, Work>,
    pool: Pool<F, Search<F>>,
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
                pool.start_query(&mut turn, Stamped { event, context, deadline }, |_| ());
            }
            Inbound::Stop(id) => {
                turn.cause = Cause::event(id, &context);
                pool.stop(&mut turn, id);
            }
            Inbound::Answered { request, closer } => {
                pool.reply(&mut turn, request, &context, Replied::Answer(closer, Carried::default()));
            }
            Inbound::AnsweredWith { request, closer, carried } => {
                pool.reply(&mut turn, request, &context, Replied::Answer(closer, carried));
            }
            Inbound::Failed(request) => pool.reply(&mut turn, request, &context, Replied::Failure(None)),
            Inbound::Rejected { request, why } => {
                pool.reply(&mut turn, request, &context, Replied::Failure(Some(why)));
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
