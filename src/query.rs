//! The query: one lookup at a time.

use crate::error::{ConfigError, require};
use crate::event::{
    Answer, Ask, Cancel, Carried, Finish, Outcome, Progress, Refused, RefusedBecause, Request, Start,
    Started, says,
};
use crate::family::Family;
use crate::id::{OperationId, RequestId};
use crate::lookup::{Lookup, Miss, Next, Rules};
use crate::machine::{Batch, Machine, Stamped};
use crate::outbox::{NetworkConfig, Traffic};
use crate::pool::{PoolConfig, QueryPool};
use crate::task::{self, End, Found, Place, Task};
use crate::time::Instant;
use core::time::Duration;

/// How lookups go about it.
///
/// Memory: a lookup holds at most `max_candidates` nodes that it has heard of and not asked (on each path), and at
/// most `max_nodes` that it has asked, whatever its peers answer; some 24 bytes and a node id for each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct QueryConfig {
    /// How long an operation may take at most; its start may ask for less. Default: 60 s.
    pub timeout: Duration,
    /// k: how many closest nodes a lookup is after. 1 to `max_candidates`; twice k is a good value for that, so raise both
    /// together. Default: 20.
    pub k: usize,
    /// alpha: how many concurrency slots a lookup (each path of it) has while it makes progress; a round of alpha answers
    /// that brings no new node among the k closest lets it widen to k. A request past the soft limit occupies none.
    /// 1 to 1,024. Default: 3.
    pub alpha: usize,
    /// beta: ends the lookup when this many closest nodes have answered, instead of k. 1 to k. Default: none.
    pub beta: Option<usize>,
    /// Disjoint paths (S/Kademlia, section 4.4): with more than one, seeds are dealt out to as many lookups that share
    /// no node, and their results are merged. 1 to 64. Default: 1.
    pub paths: usize,
    /// How often a node may be asked again that is among the k closest and has been silent past its time-out (where it is
    /// only asked for closer nodes, past the soft limit): a lost message is not a dead node. Unless this is 0, a node that is
    /// slow and nearer than all that have answered is asked once more: it would be the first of the result. At most 16.
    /// Default: 1.
    pub retries: usize,
    /// How many nodes of one answer are looked at; the others are ignored. 1 to 1,024. Default: 40.
    pub max_closer_nodes: usize,
    /// An answer that names more nodes of one [`Group`](crate::Group) than this has those of the group ignored: one
    /// party does not get to fill the neighbourhood with its own. At least 1. Default: 3.
    pub max_per_group: usize,
    /// How many candidates a path keeps that it has not asked; the closest win, but one answer brings in no more than half
    /// of it. Where a start asks for more results than half of it, twice that many. At least k, at most 8,192. Default:
    /// 40.
    pub max_candidates: usize,
    /// Where nodes are silent, find-closer lookups ask others about keys beside the target as well, so as to learn of the
    /// nodes that stand in for the dead: see [`Request::target`]. Default: true.
    pub rim: bool,
    /// How many nodes a lookup asks; see [`NodeLimit`](crate::Outcome::NodeLimit). At least `max_candidates`, at most 16,384.
    /// Default: 240.
    pub max_nodes: usize,
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            k: 20,
            alpha: 3,
            beta: None,
            paths: 1,
            retries: 1,
            max_closer_nodes: 40,
            max_per_group: 3,
            max_candidates: 40,
            rim: true,
            max_nodes: 240,
        }
    }
}

impl QueryConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let upto = |most: usize| 1..=most;
        require(!self.timeout.is_zero(), "query.timeout", "longer than zero")?;
        require(upto(8_192).contains(&self.max_candidates), "query.max_candidates", "1 to 8,192")?;
        require(upto(self.max_candidates).contains(&self.k), "query.k", "1 to query.max_candidates")?;
        require(upto(1_024).contains(&self.alpha), "query.alpha", "1 to 1,024")?;
        require(self.beta.is_none_or(|beta| upto(self.k).contains(&beta)), "query.beta", "1 to query.k")?;
        require(upto(64).contains(&self.paths), "query.paths", "1 to 64")?;
        require(self.retries <= 16, "query.retries", "at most 16")?;
        require(upto(1_024).contains(&self.max_closer_nodes), "query.max_closer_nodes", "1 to 1,024")?;
        require(self.max_per_group > 0, "query.max_per_group", "at least 1")?;
        let nodes = self.max_candidates..=16_384;
        require(nodes.contains(&self.max_nodes), "query.max_nodes", "query.max_candidates to 16,384")
    }

    /// Whether a start can be accepted, or why not.
    pub(crate) fn admit<F: Family>(&self, start: &Start<F>) -> Result<(), RefusedBecause> {
        if start.num_results.is_some_and(|wanted| wanted == 0 || wanted > self.max_candidates) {
            return Err(RefusedBecause::NumResults { most: self.max_candidates });
        }
        if start.quorum == Some(0) { Err(RefusedBecause::Quorum) } else { Ok(()) }
    }

    /// The numbers for one lookup. All fields are validated, so that none is cut off here.
    pub(crate) fn rules<F: Family>(&self, start: &Start<F>) -> Rules {
        self.rules_for(start.num_results, start.ask == Ask::FindCloser)
    }

    /// The same, for a lookup of so many results that asks for closer nodes only, or sends messages.
    pub(crate) fn rules_for(&self, num_results: Option<usize>, finds: bool) -> Rules {
        let small = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        let num_results = num_results.unwrap_or(self.k);
        let k = self.k.max(num_results);
        Rules {
            k: small(k),
            beta: small(self.beta.unwrap_or(k)),
            alpha: small(self.alpha),
            paths: small(self.paths),
            retries: small(self.retries),
            max_closer_nodes: small(self.max_closer_nodes),
            max_per_group: self.max_per_group,
            max_candidates: small(self.max_candidates.max(2 * num_results)),
            max_nodes: small(self.max_nodes),
            num_results: small(num_results),
            rim: self.rim && finds,
            hedges: finds,
        }
    }
}

/// What a [`Query`] and a [`QueryPool`] are told.
#[derive(Clone, Debug, PartialEq)]
pub enum Inbound<F: Family> {
    /// Begin a lookup. Sent by whoever wants one; its stamp holds the lookup's span and deadline.
    Start(Start<F>),
    /// End a lookup now, as if its deadline had come. Ignored if it has ended.
    Stop(OperationId),
    /// A request was answered. Sent by the driver; its stamp holds the span in which it did the IO.
    Answered {
        /// The request.
        request: RequestId,
        /// The nodes that the answer names.
        closer: Vec<F::Node>,
    },
    /// The same, and the answer carried something else that the engine has to know.
    AnsweredWith {
        /// The request.
        request: RequestId,
        /// The nodes that the answer names.
        closer: Vec<F::Node>,
        /// What it carried besides.
        carried: Carried<F>,
    },
    /// A request failed: the node is unreachable, or answered nonsense. Sent by the driver.
    Failed(RequestId),
    /// The node lives, and refused to do what the request asked for. Sent by the driver; its stamp is as that of an answer.
    Rejected {
        /// The request.
        request: RequestId,
        /// Why, as the driver puts it: passed through.
        why: F::Message,
    },
    /// Nothing happened but time.
    Tick,
}

/// What a [`Query`] and a [`QueryPool`] say.
#[derive(Clone, Debug, PartialEq)]
pub enum Outbound<F: Family> {
    /// A start was accepted.
    Started(Started),
    /// Send this, and hand back the answer or the failure.
    Request(Request<F>),
    /// A request was given up; abort its IO.
    Cancel(Cancel<F>),
    /// A request ended.
    Progress(Progress<F>),
    /// An operation ended: its last event.
    Finished(Finish<F>),
    /// A start was not accepted.
    Refused(Refused),
}

says!(Outbound {
    Started: Started,
    Request: Request<F>,
    Cancel: Cancel<F>,
    Progress: Progress<F>,
    Finished: Finish<F>,
    Refused: Refused,
});

/// A lookup, as the [task](Task) of an operation.
#[derive(Clone, Debug)]
pub(crate) struct Search<F: Family> {
    lookup: Lookup<F>,
    ask: Ask<F>,
    /// How many answers that carry a value are still wanted; none where there is no quorum.
    wanted: Option<usize>,
}

impl<F: Family> Search<F> {
    pub(crate) fn new(local: F::Key, config: &QueryConfig, start: Start<F>) -> Self {
        let lookup = Lookup::new(local, start.target, config.rules(&start), start.seeds);
        Self { lookup, ask: start.ask, wanted: start.quorum }
    }
}

/// A task that can be a lookup, among others.
pub(crate) trait MaySearch<F: Family>: Task<F> + From<Search<F>> {}

impl<F: Family, T: Task<F> + From<Search<F>>> MaySearch<F> for T {}

impl<F: Family> Task<F> for Search<F> {
    type Progress = Progress<F>;
    type Finish = Finish<F>;

    fn begin(&mut self, _now: Instant, _deadline: Instant) {
        self.lookup.begin();
    }

    fn next(&mut self, _now: Instant) -> task::Next<F> {
        if self.wanted == Some(0) {
            return task::Next::Done(Outcome::Quorum);
        }
        match self.lookup.next() {
            Next::Ask { spot, node, hop, again } => {
                let place = Place::Lookup { number: 0, spot };
                let until = Instant::FAR_FUTURE;
                task::Next::Ask { place, node, hop, again, patient: false, until }
            }
            Next::Wait => task::Next::Wait,
            Next::Done(done) => task::Next::Done(done.into()),
        }
    }

    fn take_back(&mut self, place: Place) {
        if let Place::Lookup { spot, .. } = place {
            self.lookup.take_back(spot);
        }
    }

    fn ask(&mut self, place: Place, _node: &F::Node) -> (F::Key, Ask<F>) {
        let target = self.lookup.target();
        let target = if let Place::Lookup { spot, .. } = place { spot.target(target) } else { target };
        (target, self.ask.clone())
    }

    fn answered(&mut self, place: Place, _: &F::Node, elapsed: Duration, answer: &mut Answer<F>) -> u8 {
        let Place::Lookup { spot, .. } = place else { return 0 };
        let value = answer.carried.value;
        self.wanted = self.wanted.map(|wanted| wanted.saturating_sub(usize::from(value)));
        self.lookup.answered(spot, elapsed, &answer.closer, value)
    }

    fn missed(&mut self, place: Place, miss: Miss) {
        if let Place::Lookup { spot, .. } = place {
            self.lookup.missed(spot, miss);
        }
    }

    fn withdrawn(&mut self, place: Place) {
        if let Place::Lookup { spot, .. } = place {
            self.lookup.withdrawn(spot);
        }
    }

    fn slow(&mut self, place: Place) {
        if let Place::Lookup { spot, .. } = place {
            self.lookup.slow(spot);
        }
    }

    fn progress(&self, progress: Progress<F>, _place: Place) -> Progress<F> {
        progress
    }

    fn finish(self, end: End) -> Finish<F> {
        let End { operation, outcome, statistics } = end;
        let target = self.lookup.target();
        Finish { operation, target, outcome, closest: self.lookup.into_closest(), statistics }
    }

    fn found(finish: &mut Finish<F>) -> Option<Found<'_, F>> {
        Some(Found { target: finish.target, closest: &mut finish.closest })
    }
}

/// One lookup at a time, with requests of its own. When one has finished, another can be started; before that, a
/// start is refused as [`Full`](RefusedBecause::Full).
///
/// It is a [`QueryPool`] of one. For a lookup that knows where to begin, see the
/// [`Coordinator`](crate::Coordinator).
#[derive(Clone, Debug)]
pub struct Query<F: Family>(QueryPool<F>);

impl<F: Family> Query<F> {
    /// A query of the node whose own key is `local`: that key is never asked.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(local: F::Key, query: QueryConfig, network: NetworkConfig) -> Result<Self, ConfigError> {
        let pool = PoolConfig { query, max_running: 1, max_waiting: 0, ..PoolConfig::default() };
        QueryPool::new(local, pool, network).map(Self)
    }

    /// What became of all requests so far.
    pub fn traffic(&self) -> Traffic {
        self.0.traffic()
    }
}

impl<F: Family> Machine for Query<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        self.0.handle_into(now, event, out);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }
}
