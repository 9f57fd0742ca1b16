//! The candidates of one lookup as the model knows them: which nodes it may ask, which answered, and how it may
//! end.
//!
//! A lookup keeps a bounded number of candidates, splits them among disjoint paths, and adapts its time-outs. As
//! long as none of these hides anything from an observer of events, the model is
//! [exact](CandidateModel::is_exact), and the rules of the iteration are checked to the letter; otherwise only
//! what holds in any case is.

use crate::coordinator::config::Config;
use crate::lookups::config::QueryConfig;
use crate::lookups::region::Region;
use crate::testing::broken::{Checked, broken, ensure, ensure_eq, ensure_some};
use crate::testing::node_map::NodeMap;
use crate::testing::operation_model::RequestEnd;
use crate::testing::target::{is_edge_of, key_of};
use crate::testing::value_model::ValueModel;
use crate::vocabulary::family::{AnswerScope, Family};
use crate::vocabulary::id::RequestId;
use crate::vocabulary::key::Key;
use crate::vocabulary::local_node::LocalNode;
use crate::vocabulary::operation_events::{Contact, Outcome};
use crate::vocabulary::request_events::{Ask, Request, Verdict};
use crate::vocabulary::target::Target;
use crate::vocabulary::time::Instant;
use core::fmt;
use core::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq)]
enum CandidateState {
    NotAsked,
    /// Asked; a slot is occupied until `slow_at`, then it may be asked again.
    Waiting {
        slow_at: Option<Instant>,
    },
    /// Its requests timed out, and it may be asked again.
    TimedOut,
    Answered {
        elapsed: Duration,
        hop: u32,
    },
    Failed,
}

#[derive(Clone, Debug)]
struct Candidate {
    state: CandidateState,
    /// One more than the hop of each answer that named it, the first one first.
    hops: Vec<u32>,
    /// Requests sent.
    tries: usize,
    /// One of them was about the target itself.
    asked_about_target: bool,
    /// Requests in flight.
    pending: Vec<RequestId>,
    /// All requests that ended timed out: one more may have waited for capacity meanwhile.
    only_timeouts: bool,
    /// It has failed by other means than a request of the lookup.
    failed_elsewhere: bool,
    /// It has answered, and is asked once more, about another point: until then a slot is occupied.
    again_until: Option<Instant>,
    /// Where in the order of answers those came that named it; none if it is a seed.
    named_by: Vec<u32>,
    /// If it has answered: where in that order its first answer came.
    answer: Option<u32>,
}

impl Candidate {
    fn answered(&self) -> bool {
        matches!(self.state, CandidateState::Answered { .. })
    }

    /// One more than the hop of the answer that first named it.
    fn first_hop(&self) -> u32 {
        self.hops.first().copied().unwrap_or_default()
    }

    /// Whether it was asked, and did not answer in its usual time.
    fn is_silent(&self, now: Instant) -> bool {
        self.tries > 0 && !self.answered() && (self.is_slow(now) || self.has_missed())
    }

    /// Whether a request to it has ended without an answer, or it was asked again.
    fn has_missed(&self) -> bool {
        self.tries > 1 || matches!(self.state, CandidateState::TimedOut | CandidateState::Failed)
    }

    fn is_slow(&self, now: Instant) -> bool {
        matches!(self.state, CandidateState::Waiting { slow_at: Some(at) } if at <= now)
    }
}

#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // independent facts
pub(super) struct CandidateModel<F: Family> {
    local: LocalNode<F>,
    target: F::Key,
    config: QueryConfig,
    num_results: usize,
    k: usize,
    max_candidates: usize,
    candidates: NodeMap<F, Candidate>,
    /// Answers and failures since the last answer that brought enough closer nodes.
    without_progress: usize,
    /// Slow nodes may have counted as rounds without progress, and no answer has brought progress since.
    counted_slow: bool,
    /// Soft limits are as configured, not adapted.
    fixed_timeouts: bool,
    exact: bool,
    /// A request has been slow, or ended without an answer: edge probes are allowed from now on.
    slow_or_failed: bool,
    /// The lookup only asks for closer nodes: a slow node may be asked again while its first request is in flight.
    is_find: bool,
    /// Nodes asked beyond the k closest, as edge probes.
    edge_probes: usize,
    /// The most nodes that an answer has named.
    most_named: usize,
    /// The region in which it asks all nodes.
    region: Option<Region>,
    /// Requests sent to nodes of the region.
    region_requests: usize,
    /// Requests to nodes of the region that were sent when k nearer nodes were known.
    region_beyond: usize,
    /// Nodes of the region that were first asked when k nearer ones were known.
    region_others: usize,
    /// It may have begun to ask in the region, where others than the nearest have slots of their own.
    entered_region: bool,
    /// Answers so far.
    answers: u32,
    /// So many of the nodes that somebody has named were silent that others may have been put off.
    may_put_off: bool,
    /// What the answers have carried.
    values: ValueModel<F>,
}

/// What cuts a lookup, and what prolongs it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LookupTerms {
    /// It ends when so many of the closest have answered.
    pub(super) beta: Option<usize>,
    /// It asks all nodes of this region.
    pub(super) region: Option<Region>,
    /// The version of the value that the caller holds.
    pub(super) held: Option<u64>,
}

impl<F: Family> CandidateModel<F> {
    /// How many nodes a path may ask beyond the k closest.
    const MAX_EDGE_PROBES: usize = 4;

    /// A node that has answered may be asked again if it was asked at most so many times more than it may be retried.
    const MAX_TRIES_AGAIN: usize = 2;

    pub(super) fn new(
        local: LocalNode<F>,
        target: F::Key,
        config: &Config,
        is_find: bool,
        num_results: Option<usize>,
        seeds: &[F::Node],
        terms: LookupTerms,
    ) -> Self {
        let (query, network) = (&config.query, &config.network);
        let num_results = num_results.unwrap_or(query.k);
        let fixed_timeouts = network.is_fixed();
        let mut model = Self {
            local,
            target,
            num_results,
            k: query.k.max(num_results),
            max_candidates: query.max_candidates.max(2 * num_results),
            candidates: NodeMap::default(),
            without_progress: 0,
            counted_slow: false,
            fixed_timeouts,
            exact: fixed_timeouts && query.paths == 1,
            slow_or_failed: false,
            is_find,
            edge_probes: 0,
            most_named: 0,
            region: terms.region,
            region_requests: 0,
            region_beyond: 0,
            region_others: 0,
            entered_region: false,
            answers: 0,
            may_put_off: false,
            values: ValueModel::new(terms.held),
            config: QueryConfig { beta: terms.beta, ..query.clone() },
        };
        for seed in seeds {
            model.add_candidate(seed, 1, None);
        }
        model
    }

    /// A lookup that has nobody left to ask begins with this node of the table, unless it did before. Which others it
    /// begins with is not known.
    pub(super) fn begins_with(&mut self, peer: &F::Node) {
        match self.candidates.get_mut(peer) {
            Some(candidate) if candidate.hops.contains(&1) => return,
            Some(candidate) => candidate.hops.insert(0, 1),
            None => {
                self.add_candidate(peer, 1, None);
            }
        }
        self.exact = false;
    }

    /// What the answers have carried.
    pub(super) const fn values(&self) -> &ValueModel<F> {
        &self.values
    }

    pub(super) fn is_exact(&self) -> bool {
        // What was asked there stays in flight, though a node that failed since is no longer one of the k known.
        self.exact
            && !self.may_put_off
            && !self.entered_region
            && !self.is_in_region()
            && !self.may_be_spent_in_region()
    }

    /// Whether so many requests were sent to the nearest nodes of the region that no more are asked.
    fn may_be_spent_in_region(&self) -> bool {
        let Some(region) = self.region else { return false };
        let within =
            self.candidates.iter().filter(|(peer, _)| self.distance(peer).leading() <= region.reach(0));
        let sent: usize = within.map(|(_, candidate)| candidate.tries).sum();
        sent >= self.k * self.config.region_bound + 8
    }

    /// The first 64 bits of the distance of the k-th closest node that has answered.
    fn kth_answered(&self) -> Option<u64> {
        let answered = self.candidates.iter().filter(|(_, candidate)| candidate.answered());
        let mut distances: Vec<_> = answered.map(|(peer, _)| self.distance(peer).leading()).collect();
        distances.sort_unstable();
        distances.get(self.k.checked_sub(1)?).copied()
    }

    /// Whether it may ask in the region: whom, is not modelled. So it is once the k closest have answered, or once k are known
    /// within it, some of which were asked.
    fn is_in_region(&self) -> bool {
        let Some(region) = self.region else { return false };
        let known = || self.kth_known().is_some_and(|kth| kth < region.reach(kth));
        self.kth_answered().is_some() || known()
    }

    /// The first 64 bits of the distance of the k-th closest node that is known and has not failed, once some were asked.
    fn kth_known(&self) -> Option<u64> {
        let mut known: Vec<_> =
            self.not_failed().iter().map(|(peer, _)| self.distance(peer).leading()).collect();
        known.sort_unstable();
        let kth = known.get(self.k.checked_sub(1)?).copied();
        kth.filter(|_| self.asked_nodes() >= self.config.alpha.min(self.k))
    }

    /// Whether this node may be asked about the region from beyond: it is much farther, and the k closest that are known are about
    /// as near as the region reaches.
    fn may_ask_beyond(&self, peer: &F::Node) -> bool {
        let Some((region, kth)) = self.region.zip(self.kth_known()) else { return false };
        kth <= region.much_farther(0) / 2 && self.distance(peer).leading() > region.much_farther(kth)
    }

    /// How many requests may have been sent to the nodes of the region up to one that is asked, those that are repeated included. With
    /// b = `region_bound`: fewer than (b + 2)k + 8 for one of the nearest, and fewer than 2bk + 8 for another; where fewer than k/2 nodes
    /// of the region have answered, bk more for one of the nearest.
    fn most_region_requests(&self) -> usize {
        let (k, bound) = (self.config.k, self.config.region_bound);
        let answered = |(peer, candidate): &(&F::Node, &Candidate)| {
            candidate.answered()
                && self.region.is_some_and(|region| self.distance(peer).leading() <= region.reach(0))
        };
        let is_flooded = self.candidates.iter().filter(answered).count() < self.k / 2;
        (self.k * (bound + 2) + 8 + if is_flooded { k * bound } else { 0 }).max(2 * k * bound + 8)
    }

    /// A node is asked: if it is of the region, the bounds allow it. `is_first`: for the first time. `is_other`: k nearer ones are
    /// known. `is_about_other`: about another point than the target.
    fn check_region(
        &mut self,
        peer: &F::Node,
        is_first: bool,
        is_other: bool,
        is_about_other: bool,
    ) -> Checked {
        let Some(region) = self.region else { return Ok(()) };
        let distance = self.distance(peer).leading();
        if self.config.paths > 1 || distance > region.reach(0) {
            return Ok(());
        }
        if distance <= region.width().0 {
            let most = self.k * (self.config.region_bound + 2) + 8 + self.config.k * self.config.region_bound;
            ensure!(
                self.region_requests < most,
                "region: at most {most} requests to its nodes: {peer:?} of {self}"
            );
            self.region_requests += 1;
        }
        let probes = if self.may_probe_edge() { self.most_edge_probes() } else { 0 };
        // By the whole distance, as keys may begin alike; the order of two nodes with the same key is unspecified.
        let place = self.distance(peer);
        // Somebody farther out may be asked about a part of the region: the bound is that of the requests to its nodes.
        let width = region.width().0;
        let is_from_beyond = is_about_other && distance > width;
        let is_up_to = |other: &F::Node| {
            let at = self.distance(other);
            if is_from_beyond { at.leading() <= width } else { at < place || other == peer }
        };
        let up_to = self.candidates.iter().filter(|(other, _)| is_up_to(other));
        let (sent, most) = (up_to.map(|(_, it)| it.tries).sum::<usize>(), self.most_region_requests());
        ensure!(
            sent < most + probes,
            "region: at most {most} requests to the nodes up to {peer:?} of {self}"
        );
        self.region_beyond += usize::from(is_other);
        if is_other && is_first && distance <= region.width().0 {
            let most = self.config.k * (self.config.region_bound - 1);
            // Where candidates may have been forgotten, nearer ones are not known any more.
            ensure!(
                !self.exact || self.region_others < most + probes,
                "region: at most {most} nodes besides the k closest: {peer:?} of {self}"
            );
            self.region_others += 1;
        }
        Ok(())
    }

    /// How many nodes a path may ask beyond the k closest as edge probes: some, where answers name fewer than k a multiple, and as
    /// many more as nodes are silent.
    fn most_edge_probes(&self) -> usize {
        let silent = self.candidates.values().filter(|candidate| !candidate.answered()).count();
        // What an answer names is learnt, so that it may be less than the most.
        let answer_size = self.answer_size().max(1);
        Self::MAX_EDGE_PROBES * self.k.div_ceil(answer_size) + silent
    }

    /// How many nodes an answer names, by those that have come.
    fn answer_size(&self) -> usize {
        self.local.family.answers().most().min(self.most_named)
    }

    /// What is to be counted of what it has done in its region.
    pub(super) fn region_situations(&self) -> impl Iterator<Item = &'static str> {
        core::iter::repeat_n("region: asked beyond the k closest", self.region_beyond)
    }

    /// Whether the model knows when the lookup ends: edge probes may come first.
    pub(super) fn end_is_predictable(&self) -> bool {
        self.is_exact() && !self.may_probe_edge()
    }

    /// Whether nothing is left to ask, as far as the model knows.
    pub(super) fn should_end(&self) -> bool {
        let (not_failed, required) = (self.not_failed(), self.required());
        let converged = not_failed.len() >= required
            && not_failed.iter().take(required).all(|(_, candidate)| candidate.answered());
        // Another request to a node that has failed may still be answered.
        let exhausted = not_failed.iter().all(|(_, candidate)| candidate.answered()) && !self.is_pending();
        // A node that was asked before may be asked again, at the limit of nodes too.
        let next = not_failed.iter().find(|(_, candidate)| !candidate.answered());
        let next_is_new = next.is_some_and(|(_, candidate)| candidate.state == CandidateState::NotAsked);
        let limited = next_is_new && self.asked_nodes() >= self.max_nodes() && !self.is_pending();
        converged || exhausted || limited
    }

    /// Whether a request is in flight.
    pub(super) fn is_pending(&self) -> bool {
        self.candidates.values().any(|candidate| !candidate.pending.is_empty())
    }

    /// Whether a request is in flight whose node has not failed.
    pub(super) fn is_awaited(&self) -> bool {
        let awaited = |candidate: &Candidate| {
            candidate.state != CandidateState::Failed && !candidate.pending.is_empty()
        };
        self.candidates.values().any(awaited)
    }

    pub(super) fn has_answered(&self, peer: &F::Node) -> bool {
        self.candidates.get(peer).is_some_and(Candidate::answered)
    }

    /// Whether the requests to a node timed out, and it has not been asked again since.
    pub(super) fn has_timed_out(&self, peer: &F::Node) -> bool {
        self.candidates.get(peer).is_some_and(|candidate| candidate.state == CandidateState::TimedOut)
    }

    /// The hops at which a node was named.
    pub(super) fn hops(&self, peer: &F::Node) -> Option<&[u32]> {
        self.candidates.get(peer).map(|candidate| candidate.hops.as_slice())
    }

    /// A request was cancelled because the lookup ended.
    pub(super) fn request_cancelled(&mut self, id: RequestId, peer: &F::Node) {
        if let Some(candidate) = self.candidates.get_mut(peer) {
            candidate.pending.retain(|other| *other != id);
        }
    }

    /// Nodes that have neither failed nor timed out, in order of distance: the hop of each, and whether it has
    /// answered.
    pub(super) fn usable(&self) -> Vec<(F::Node, u32, bool)> {
        let usable = self
            .not_failed()
            .into_iter()
            .filter(|(_, candidate)| candidate.state != CandidateState::TimedOut);
        usable.map(|(peer, candidate)| (peer.clone(), candidate.first_hop(), candidate.answered())).collect()
    }

    /// The closest nodes that have answered, in order of distance, and the hop of each.
    pub(super) fn closest(&self) -> Vec<(F::Node, u32)> {
        let answered = self.usable().into_iter().filter(|(.., answered)| *answered);
        answered.take(self.num_results).map(|(peer, hop, _)| (peer, hop)).collect()
    }

    /// How many nodes were named whose distances begin with at most these 64 bits.
    pub(super) fn named_within(&self, reach: u64) -> usize {
        self.candidates.nodes().filter(|peer| self.distance(peer).leading() <= reach).count()
    }

    fn distance(&self, peer: &F::Node) -> F::Key {
        F::key(peer).distance(&self.target)
    }

    /// Adds a node that a seed list or an answer names. Returns whether it is new.
    /// `by`: the answer that names it.
    fn add_candidate(&mut self, peer: &F::Node, hop: u32, by: Option<u32>) -> bool {
        let key = F::key(peer);
        if !self.local.may_ask(peer) {
            return false;
        }
        if let Some(candidate) = self.candidates.get_mut(peer) {
            candidate.hops.push(hop);
            candidate.named_by.extend(by.filter(|_| candidate.first_hop() > 1));
            return false;
        }
        // The order of two nodes with the same key is unspecified.
        self.exact = self.exact
            && self
                .candidates
                .values()
                .filter(|candidate| candidate.state == CandidateState::NotAsked)
                .count()
                < self.max_candidates
            && !self.candidates.nodes().any(|other| F::key(other) == key);
        let candidate = Candidate {
            state: CandidateState::NotAsked,
            hops: vec![hop],
            tries: 0,
            asked_about_target: false,
            pending: Vec::new(),
            only_timeouts: true,
            failed_elsewhere: false,
            again_until: None,
            named_by: by.into_iter().collect(),
            answer: None,
        };
        self.candidates.insert(peer.clone(), candidate);
        true
    }

    /// How many slots are occupied: nodes that are asked and not slow.
    fn occupied_slots(&self, now: Instant) -> usize {
        let waits = |candidate: &&Candidate| {
            let is_asked_again = candidate.again_until.is_some_and(|until| until > now);
            is_asked_again
                || matches!(candidate.state, CandidateState::Waiting { .. }) && !candidate.is_slow(now)
        };
        self.candidates.values().filter(waits).count()
    }

    fn max_nodes(&self) -> usize {
        let (most, wanted) = (self.config.max_nodes, self.num_results);
        if wanted > self.config.k { most.max(3 * wanted) } else { most }
    }

    fn asked_nodes(&self) -> usize {
        self.candidates.values().filter(|candidate| candidate.tries > 0).count()
    }

    /// The slots of a path after rounds without progress: as many nodes as an answer tells of.
    fn wide(&self) -> usize {
        self.config.alpha.max(self.k.min(self.local.family.answers().most()))
    }

    /// The slots that the lookup may use, at least.
    fn parallelism(&self) -> usize {
        let alpha = self.config.alpha;
        if self.without_progress >= alpha { self.wide() } else { alpha }
    }

    /// Many were asked and nobody has answered: slow nodes may count as rounds without progress.
    fn may_count_slow(&self) -> bool {
        let nobody = !self.candidates.values().any(Candidate::answered);
        let reached =
            self.candidates.values().filter(|candidate| candidate.state != CandidateState::NotAsked).count();
        nobody && self.slow_or_failed && reached > 2 * self.config.alpha
    }

    /// The slots that the lookup may use, at most.
    fn most_parallelism(&self) -> usize {
        if self.counted_slow || self.may_count_slow() { self.wide() } else { self.parallelism() }
    }

    /// A part of the answer to this request has come: its candidate becomes slow no more, if it is the latest to it.
    pub(super) fn answered_in_part(&mut self, now: Instant, id: RequestId, node: &F::Node) {
        let candidate = self.candidates.get_mut(node);
        let Some(candidate) = candidate.filter(|candidate| candidate.pending.last() == Some(&id)) else {
            return;
        };
        if candidate.again_until.is_some_and(|until| until > now) {
            candidate.again_until = Some(Instant::FAR_FUTURE);
        }
        if let CandidateState::Waiting { slow_at } = &mut candidate.state
            && slow_at.is_some_and(|at| at > now)
        {
            *slow_at = None;
        }
    }

    /// Time has passed, up to `now`.
    pub(super) fn time_passes(&mut self, now: Instant) {
        self.note_silent(now);
        self.slow_or_failed |= self.candidates.values().any(|candidate| candidate.is_slow(now));
    }

    /// Some that others have named are silent: 16 in all, or 8 that one has named. Then others may be put off.
    fn note_silent(&mut self, now: Instant) {
        let silent = || self.candidates.values().filter(|it| !it.named_by.is_empty() && it.is_silent(now));
        let of = |by: &u32| silent().filter(|it| it.named_by.contains(by)).count();
        self.may_put_off = self.may_put_off
            || silent().count() >= 16
            || silent().any(|it| it.named_by.iter().any(|by| of(by) >= 8));
    }

    /// Whether this candidate is put off: of those that each has named who has named it, eight more are silent than eight times as
    /// many as have answered.
    fn is_put_off(&self, candidate: &Candidate) -> bool {
        let is_doubted = |by: &u32| {
            let (mut silent, mut answered) = (0, 0);
            for it in self.candidates.values().filter(|it| it.named_by.contains(by)) {
                // By whom it was named first, if several have named it, is what counts.
                silent +=
                    usize::from(it.named_by.len() == 1 && !it.answered() && it.tries > 0 && it.has_missed());
                answered += usize::from(it.answered());
            }
            silent >= 8 + 8 * answered
        };
        !candidate.named_by.is_empty() && candidate.named_by.iter().all(is_doubted)
    }

    /// Nobody who is put off is asked about the target before a nearer seed.
    fn check_put_off(&self, request: &Request<F>) -> Checked {
        let peer = &request.node;
        let is_about_target = key_of::<F>(&request.target) == self.target;
        let Some(candidate) = self.candidates.get(peer).filter(|it| it.state == CandidateState::NotAsked)
        else {
            return Ok(());
        };
        if !self.exact || !is_about_target || self.region.is_some() || F::Target::at(self.target).is_none() {
            return Ok(());
        }
        let is_before = |(other, it): &(&F::Node, &Candidate)| {
            it.state == CandidateState::NotAsked
                && it.named_by.is_empty()
                && self.distance(other) < self.distance(peer)
        };
        let before = self.candidates.iter().find(is_before);
        ensure!(
            before.is_none() || !self.is_put_off(candidate),
            "lookup: asks {peer:?}, whom only some have named of whose nodes many are silent, before {before:?} of {self}"
        );
        Ok(())
    }

    /// A request comes out. `nothing_queued`: no request waited for capacity before or after this call. Returns
    /// whether the node was never asked before.
    pub(super) fn request_sent(
        &mut self,
        now: Instant,
        request: &Request<F>,
        slow_at: Option<Instant>,
        nothing_queued: bool,
    ) -> Checked<bool> {
        let peer = &request.node;
        let Some(candidate) = self.candidates.get(peer) else {
            broken!("lookup: asks only nodes that were named: {peer:?}")
        };
        ensure!(candidate.hops.contains(&request.hop), "hops: {} of {:?}", request.hop, candidate.hops);
        let first_named = candidate.first_hop() == request.hop;
        ensure!(
            !self.exact || first_named,
            "hops: one more than that of the answer that first named the node"
        );
        let entered_region = self.is_in_region();
        let may_ask = match candidate.state {
            CandidateState::NotAsked | CandidateState::TimedOut => true,
            CandidateState::Waiting { .. } => {
                // Beyond an adapted patience it is asked again as after a time-out.
                !self.fixed_timeouts || self.is_find && candidate.is_slow(now)
            }
            CandidateState::Failed => {
                (self.is_find && candidate.only_timeouts || candidate.failed_elsewhere) && !nothing_queued
            }
            // To explore the edge, about another point than before; or about the target, if it was asked about others only.
            CandidateState::Answered { .. } => {
                (key_of::<F>(&request.target) != self.target || !candidate.asked_about_target)
                    && candidate.pending.is_empty()
                    && candidate.tries <= self.config.retries + Self::MAX_TRIES_AGAIN
            }
        };
        ensure!(
            may_ask,
            "lookup: asks a node again only if it has not answered or failed: {peer:?} {:?}",
            candidate.state
        );
        let most = self.max_tries(peer, candidate, nothing_queued);
        ensure!(
            candidate.answered() || candidate.tries <= most,
            "lookup: a node is asked again only as often as `retries` allows"
        );
        self.check_target(request, nothing_queued)?;
        if nothing_queued {
            self.check_put_off(request)?;
        }
        let first = candidate.tries == 0;
        self.entered_region |= entered_region || !nothing_queued && self.region.is_some();
        // Nodes that the lookup has moved on from do not count: those that are slow, and those that were and are
        // asked again.
        let closer = self.candidates.iter().filter(|(other, candidate)| {
            let counts = match candidate.state {
                CandidateState::Waiting { .. } => !candidate.is_slow(now) && candidate.tries == 1,
                CandidateState::NotAsked | CandidateState::TimedOut | CandidateState::Answered { .. } => true,
                CandidateState::Failed => false,
            };
            counts && self.distance(other) < self.distance(peer)
        });
        let is_other = closer.count() >= self.k;
        if nothing_queued {
            let is_about_other = key_of::<F>(&request.target) != self.target;
            self.check_region(peer, first, is_other, is_about_other)?;
        }
        let beyond = self.is_exact() && nothing_queued && is_other;
        self.edge_probes += usize::from(beyond);
        let most = self.most_edge_probes();
        let may_probe = first || self.has_answered(peer);
        // Where the keys next to the target cannot be named, a node beyond the edge may be asked about the target.
        let is_about_edge = key_of::<F>(&request.target) != self.target
            || F::Target::at(self.target).is_none() && self.may_probe_edge();
        let edge_probe = may_probe && is_about_edge && self.edge_probes <= most;
        ensure!(
            !beyond || edge_probe,
            "lookup: asks only the k closest, apart from edge probes: {peer:?} of {self}"
        );
        let Some(candidate) = self.candidates.get_mut(peer) else { return Ok(first) };
        candidate.tries += 1;
        candidate.asked_about_target |= key_of::<F>(&request.target) == self.target;
        candidate.pending.push(request.id);
        // A node that is asked although it failed elsewhere was to be asked before that, and the request waited
        // for capacity.
        candidate.failed_elsewhere = false;
        if candidate.answered() {
            candidate.again_until = Some(slow_at.unwrap_or(Instant::FAR_FUTURE));
        } else {
            candidate.state = CandidateState::Waiting { slow_at };
        }
        ensure!(self.asked_nodes() <= self.max_nodes(), "lookup: at most max_nodes nodes");
        // Others of the region than the nearest have slots of their own.
        let most = self.config.paths * self.wide() * if self.entered_region { 2 } else { 1 };
        ensure!(
            !self.fixed_timeouts || self.occupied_slots(now) <= most,
            "lookup: at most max(alpha, min(k, what an answer names)) slots per path, twice as many in a region"
        );
        if self.is_exact() && nothing_queued {
            ensure!(
                self.occupied_slots(now) <= self.most_parallelism(),
                "lookup: alpha slots, and max(alpha, k) when it stalls: {self}"
            );
        }
        Ok(first)
    }

    /// How many times a node may have been asked for it to be asked again: once more than the retries if it is
    /// slow, and closer than all that have answered; where patience is adapted, also if it is silent, and repeats pay. Where
    /// requests waited for capacity, this may have held when the request was submitted.
    fn max_tries(&self, peer: &F::Node, candidate: &Candidate, nothing_queued: bool) -> usize {
        let retries = self.config.retries;
        let waits = self.is_find
            && retries > 0
            && !matches!(candidate.state, CandidateState::NotAsked | CandidateState::TimedOut);
        let nearer = |(other, candidate): (&F::Node, &Candidate)| {
            candidate.answered() && self.distance(other) < self.distance(peer)
        };
        let exact = self.exact && nothing_queued;
        let may_be_silent = retries > 0 && !self.fixed_timeouts && candidate.tries > 1;
        retries + usize::from(may_be_silent || waits && !(exact && self.candidates.iter().any(nearer)))
    }

    /// Whether the edge may be probed: a node was slow or failed, or an answer names fewer nodes than are looked for. What
    /// an answer names is learnt, on each of several paths.
    fn may_probe_edge(&self) -> bool {
        let answers = self.local.family.answers();
        let names_fewer = self.answer_size() < self.k || self.config.paths > 1;
        let unsure = self.slow_or_failed
            || !self.fixed_timeouts
            || names_fewer
            || matches!(answers, AnswerScope::Buckets(_));
        self.is_find && self.config.edge_probing && unsure
    }

    /// Checks the key that a node is asked about: the target or, after a slow or failed request, one
    /// [next to it](is_edge_of), which lies in another subtree.
    fn check_target(&self, request: &Request<F>, nothing_queued: bool) -> Checked {
        let target = key_of::<F>(&request.target);
        ensure!(
            is_edge_of::<F>(&target, &self.target),
            "lookup: the target differs from that of the lookup in the first 64 bits only: {:?}",
            request.target
        );
        let farthest = self.candidates.iter().map(|(peer, _)| self.distance(peer)).max();
        let has_any = F::Target::at(target).is_none();
        ensure!(
            has_any || farthest.is_none_or(|farthest| target.distance(&self.target) <= farthest),
            "lookup: asks about nothing farther than the nodes that it knows: {:?}",
            request.target
        );
        // Of a request that waited for capacity, that was decided before.
        let may = request.ask == Ask::FindCloser
            && (self.may_probe_edge()
                || !nothing_queued
                || self.is_in_region()
                || self.may_be_spent_in_region()
                || self.may_ask_beyond(&request.node));
        ensure!(
            target == self.target || may,
            "lookup: edge probes only after a slow or failed request, or for more nodes than an answer names"
        );
        Ok(())
    }

    /// Applies an answer. Returns the other requests to the node, which are superseded by it.
    pub(super) fn request_answered(
        &mut self,
        request_end: &RequestEnd<'_, F>,
        closer: &[F::Node],
        value: Option<Verdict>,
    ) -> Checked<Vec<RequestId>> {
        let (hop, elapsed) = (request_end.sent.hop, request_end.elapsed);
        // A question about another point says nothing of the value.
        let is_about_value = self.is_find || request_end.sent.target == self.target;
        self.counted_slow |= self.may_count_slow();
        if let Some(verdict) = value.filter(|_| is_about_value) {
            self.values.answered(&request_end.sent.node, verdict);
        }
        self.answers += 1;
        let latest = self.answers;
        let candidate = self.candidate_mut(&request_end.sent.node)?;
        let answer = *candidate.answer.get_or_insert(latest);
        candidate.state = CandidateState::Answered { elapsed, hop };
        candidate.again_until = None;
        let mut superseded = core::mem::take(&mut candidate.pending);
        superseded.retain(|other| *other != request_end.id);
        let kth_distance = self.kth_distance();
        let mut gained = 0;
        let closer = closer.get(..self.config.max_closer_nodes).unwrap_or(closer);
        self.most_named = self.most_named.max(closer.len());
        let crowd = |group| closer.iter().filter(|peer| F::group(peer) == Some(group)).count();
        let crowded =
            |peer: &F::Node| F::group(peer).is_some_and(|group| crowd(group) > self.config.max_per_group);
        let welcome: Vec<_> = closer.iter().filter(|peer| !crowded(peer)).collect();
        let mut room = (self.max_candidates / 2).max(1);
        for named in welcome {
            let near = kth_distance.is_none_or(|kth_distance| self.distance(named) < kth_distance);
            let news = self.add_candidate(named, hop + 1, Some(answer));
            // One answer may fill only a share of the candidates: which of the nodes are kept is unspecified.
            self.exact &= !news || room > 0;
            room = room.saturating_sub(usize::from(news));
            gained += usize::from(news && near);
        }
        // Progress is more than a sixteenth of the k closest, or of all that are named.
        let progress = gained > self.k.min(closer.len()) / 16;
        self.without_progress = if progress { 0 } else { self.without_progress + 1 };
        self.counted_slow &= !progress;
        Ok(superseded)
    }

    /// The distance of the k-th closest node that has neither failed nor timed out.
    fn kth_distance(&self) -> Option<F::Key> {
        let not_failed = self.candidates.iter();
        let not_failed = not_failed.filter(|(_, candidate)| {
            !matches!(candidate.state, CandidateState::Failed | CandidateState::TimedOut)
        });
        let mut distances: Vec<_> = not_failed.map(|(peer, _)| self.distance(peer)).collect();
        distances.sort_unstable();
        distances.get(self.k.checked_sub(1)?).copied()
    }

    /// A request ended without an answer. A node whose requests have all timed out may be asked again, within the
    /// number of retries.
    pub(super) fn request_failed(&mut self, id: RequestId, peer: &F::Node, timed_out: bool) -> Checked {
        let retries = self.config.retries;
        let candidate = self.candidate_mut(peer)?;
        candidate.pending.retain(|other| *other != id);
        candidate.only_timeouts &= timed_out;
        candidate.again_until = None;
        if candidate.answered() {
            // It was asked again.
        } else if candidate.state != CandidateState::Failed && (candidate.pending.is_empty() || !timed_out) {
            let again = timed_out && candidate.tries <= retries;
            candidate.state = if again { CandidateState::TimedOut } else { CandidateState::Failed };
        }
        self.without_progress += 1;
        self.slow_or_failed = true;
        self.note_silent(Instant::ORIGIN);
        Ok(())
    }

    /// A request that waits for the node, if there is one, has failed: it may be asked no more.
    pub(super) fn waiting_failed(&mut self, peer: &F::Node) {
        self.exact &= self.candidates.get_mut(peer).is_none_or(|candidate| candidate.answered());
    }

    /// A node has failed by other means than a request of the lookup.
    pub(super) fn node_failed(&mut self, peer: &F::Node) {
        if let Some(candidate) = self.candidates.get_mut(peer)
            && !candidate.answered()
            && candidate.state != CandidateState::Failed
        {
            if candidate.pending.is_empty() {
                candidate.state = CandidateState::Failed;
                candidate.failed_elsewhere = true;
            }
            self.slow_or_failed = true;
        }
    }

    fn candidate_mut(&mut self, peer: &F::Node) -> Checked<&mut Candidate> {
        let candidate = self.candidates.get_mut(peer);
        Ok(ensure_some!(candidate, "lookup: progress of a node that was named: {peer:?}"))
    }

    /// Whether no request to a node is in flight.
    pub(super) fn has_no_pending(&self, peer: &F::Node) -> bool {
        self.candidates.get(peer).is_none_or(|candidate| candidate.pending.is_empty())
    }

    /// Whether a node has failed.
    pub(super) fn has_failed(&self, peer: &F::Node) -> bool {
        self.candidates.get(peer).is_some_and(|candidate| candidate.state == CandidateState::Failed)
    }

    /// The nodes that have not failed, in order of distance.
    fn not_failed(&self) -> Vec<(&F::Node, &Candidate)> {
        let mut not_failed: Vec<_> = self
            .candidates
            .iter()
            .filter(|(_, candidate)| candidate.state != CandidateState::Failed)
            .collect();
        not_failed.sort_by_key(|(peer, _)| self.distance(peer));
        not_failed
    }

    /// Whether the lookup may have ended at the limit of nodes: it is reached, and one of the closest was left to ask. That
    /// is so of one that failed elsewhere, too: it may have failed after the limit was reached.
    fn may_end_at_limit(&self) -> bool {
        let is_left = |candidate: &Candidate| {
            candidate.failed_elsewhere || candidate.state != CandidateState::Failed && !candidate.answered()
        };
        let counts = |(_, candidate): &(_, &Candidate)| candidate.answered() || is_left(candidate);
        let mut closest: Vec<_> = self.candidates.iter().filter(counts).collect();
        closest.sort_by_key(|(peer, _)| self.distance(peer));
        let is_one_left = closest.iter().take(self.required()).any(|(_, candidate)| is_left(candidate));
        is_one_left && self.asked_nodes() == self.max_nodes()
    }

    /// How many of the closest nodes must have answered.
    fn required(&self) -> usize {
        self.config.beta.unwrap_or(self.k)
    }

    /// The lookup stays live after a call in which nothing prevented it from sending: it must have a reason to
    /// wait. `busy` lists the nodes with as many requests in flight as the limit allows.
    pub(super) fn check_not_idle(&self, now: Instant, busy: &[F::Key]) -> Checked {
        let pending = self.candidates.values().any(|candidate| !candidate.pending.is_empty());
        let waits = pending || !busy.is_empty();
        ensure!(waits, "not idle: a live lookup waits for a request: {self}");
        if !self.is_exact() {
            return Ok(());
        }
        let (not_failed, required) = (self.not_failed(), self.required());
        let converged = not_failed.len() >= required
            && not_failed.iter().take(required).all(|(_, candidate)| candidate.answered());
        // A node that has answered may have been asked again, when answers still named fewer nodes than are looked for: its answer is
        // waited for.
        let exhausted = not_failed.iter().all(|(_, candidate)| candidate.answered()) && !pending;
        // After a slow or failed request, edge probes may come first.
        let may_probe = self.slow_or_failed || self.may_probe_edge();
        ensure!(may_probe || !converged, "lookup: ends when the k closest have answered: {self}");
        ensure!(may_probe || !exhausted, "lookup: ends when nothing is left to ask: {self}");
        if converged || self.occupied_slots(now) >= self.parallelism() {
            return Ok(());
        }
        // While nobody has answered, others are asked before any is asked again.
        let may_repeat = self.candidates.values().any(Candidate::answered)
            || !self.candidates.values().any(|candidate| candidate.state == CandidateState::NotAsked);
        let mut window = 0;
        for (peer, candidate) in not_failed {
            let again =
                self.is_find && may_repeat && candidate.tries <= self.max_tries(peer, candidate, true);
            let could = match candidate.state {
                CandidateState::NotAsked => self.asked_nodes() < self.max_nodes(),
                CandidateState::TimedOut => true,
                CandidateState::Waiting { .. } => candidate.is_slow(now) && again,
                CandidateState::Answered { .. } | CandidateState::Failed => false,
            };
            if could && busy.contains(&F::key(peer)) {
                return Ok(()); // it waits for that node, and asks no other instead
            }
            ensure!(!could, "not idle: {peer:?} could be asked now: {self}");
            // At the limit of nodes no further node is asked: neither this one nor one beyond it.
            let slow = candidate.is_slow(now)
                || matches!(candidate.state, CandidateState::Waiting { .. }) && candidate.tries > 1;
            window += usize::from(!slow);
            if window == self.k || candidate.state == CandidateState::NotAsked {
                break;
            }
        }
        Ok(())
    }

    /// Checks the finish.
    pub(super) fn check_finish(&self, outcome: Outcome, closest: &[Contact<F>]) -> Checked {
        let responsive = self.candidates.iter().filter(|(_, candidate)| candidate.answered());
        let mut responsive: Vec<_> = responsive.map(|(peer, _)| self.distance(peer)).collect();
        responsive.sort_unstable();
        let found: Vec<_> = closest.iter().map(|contact| self.distance(&contact.node)).collect();
        let expected = responsive.get(..self.num_results).unwrap_or(&responsive);
        ensure_eq!(found, expected, "closest: the closest nodes that answered, in order");
        for (place, contact) in closest.iter().enumerate() {
            let state = self.candidates.get(&contact.node).map(|candidate| candidate.state);
            let Some(CandidateState::Answered { elapsed, hop }) = state else {
                broken!("closest: only nodes that answered: {contact:?}")
            };
            let double = closest.iter().take(place).any(|other| other.node == contact.node);
            ensure!(!double, "closest: each node once");
            let whole = u128::from(u32::MAX).min(elapsed.as_micros());
            let (round_trip, found_by) = (contact.round_trip().as_micros(), contact.hop());
            ensure_eq!((round_trip, found_by), (whole, hop), "closest: round trip and hop of each node");
            let has_newest = self.values.has_newest(&contact.node);
            ensure_eq!(
                contact.has_value(),
                has_newest,
                "closest: has_value is set for nodes with the newest value"
            );
        }
        let required = self.required();
        if matches!(outcome, Outcome::Converged | Outcome::StoppedEarly | Outcome::Unsure) {
            ensure!(responsive.len() >= required, "outcome: {outcome} only with enough answers");
        }
        ensure!(
            outcome != Outcome::Unreachable || responsive.is_empty(),
            "outcome: unreachable only if nobody answered: {self}"
        );
        ensure!(
            outcome != Outcome::StoppedEarly || required < self.k,
            "outcome: stopped early only where that is configured"
        );
        ensure!(
            outcome != Outcome::Converged || required == self.k,
            "outcome: converged only if it has waited for k nodes"
        );
        if !self.is_exact() {
            return Ok(());
        }
        let not_failed = self.not_failed();
        let converged = not_failed.len() >= required
            && not_failed.iter().take(required).all(|(_, candidate)| candidate.answered());
        let open = not_failed.iter().any(|(_, candidate)| !candidate.answered());
        match outcome {
            Outcome::Converged | Outcome::StoppedEarly | Outcome::Unsure => {
                ensure!(converged, "outcome: {outcome} only if the closest have all answered: {self}");
                let last = not_failed.iter().take(required).rfind(|(_, candidate)| candidate.answered());
                let edge = last.map(|(peer, _)| self.distance(peer));
                let nearer = |peer: &F::Node| edge.is_some_and(|edge| self.distance(peer) < edge);
                let silent = self.candidates.iter().filter(|(peer, other)| !other.answered() && nearer(peer));
                let (silent, answers) = (silent.count(), self.local.family.answers());
                let is_unsure = outcome == Outcome::Unsure;
                let names_fewer = self.answer_size() < self.k || matches!(answers, AnswerScope::Buckets(_));
                ensure!(
                    !is_unsure || silent > 0 || names_fewer,
                    "outcome: unsure only if a nearer node did not answer, or answers name fewer nodes: {self}"
                );
            }
            Outcome::Exhausted | Outcome::AllFound | Outcome::Unreachable => {
                ensure!(
                    !open && not_failed.len() < required,
                    "outcome: {outcome} only if nothing is left to ask: {self}"
                );
                let expected = if responsive.is_empty() {
                    Outcome::Unreachable
                } else if responsive.len() == self.candidates.iter().count()
                    && responsive.len() <= self.most_named + 1
                {
                    Outcome::AllFound
                } else {
                    Outcome::Exhausted
                };
                // Where an answer has named as many as it can, there may be more.
                let answers = self.local.family.answers();
                let is_full = self.most_named >= answers.most() || matches!(answers, AnswerScope::Buckets(_));
                let may_be_less = is_full && outcome == Outcome::Exhausted && expected == Outcome::AllFound;
                ensure!(
                    outcome == expected || may_be_less,
                    "outcome: by who has answered, {expected}, not {outcome}: {self}"
                );
            }
            Outcome::NodeLimit => {
                ensure!(
                    self.may_end_at_limit(),
                    "outcome: node limit only if it is reached with nodes left to ask: {self}"
                );
            }
            _ => {}
        }
        Ok(())
    }
}

impl<F: Family> fmt::Display for CandidateModel<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k {}, alpha {}, beta {:?}, ", self.k, self.config.alpha, self.config.beta)?;
        write!(f, "retries {}, max_nodes {}, ", self.config.retries, self.max_nodes())?;
        write!(
            f,
            "target {:?}, without progress {}, slow or failed {}",
            self.target, self.without_progress, self.slow_or_failed
        )?;
        let mut candidates: Vec<_> = self.candidates.iter().collect();
        candidates.sort_by_key(|(peer, _)| self.distance(peer));
        for (peer, Candidate { state, tries, pending, .. }) in candidates {
            write!(f, "\n{peer:?} {state:?}, tries {tries}, pending {pending:?}")?;
        }
        Ok(())
    }
}
