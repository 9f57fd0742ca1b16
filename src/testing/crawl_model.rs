//! The model of a crawl: which nodes were named, hence which node is asked what and in which order, and what the
//! crawl must report.

use crate::coordinator::events::Outbound;
use crate::crawl::config::CrawlConfig;
use crate::crawl::events::{CrawlCounts, Crawled, Reach, StartCrawl};
use crate::routing::table::RoutingTable;
use crate::testing::broken::{Checked, broken, ensure, ensure_eq, ensure_some};
use crate::testing::operation_model::{Counts, OperationKind, OperationModel, RequestEnd, RequestSent, all};
use crate::testing::request_in_flight::RequestInFlight;
use crate::testing::target::key_of;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::key::Key;
use crate::vocabulary::local_node::LocalNode;
use crate::vocabulary::operation_events::Outcome;
use crate::vocabulary::request_events::{Ask, CancelReason, Request, RequestOutcome};
use crate::vocabulary::time::Instant;
use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

/// How many nodes with the same key are kept.
const MAX_NODES_PER_KEY: usize = 8;

/// A node that was named.
#[derive(Clone, Debug)]
struct CrawledNode<F: Family> {
    node: F::Node,
    hop: u32,
    /// Buckets asked for, and those of them that it answered for.
    asked: u32,
    answered: u32,
    requests: u32,
    /// Requests in a row without an answer.
    failures_in_row: u32,
    /// It is not asked any more, as it has left too many requests in a row unanswered.
    given_up: bool,
    /// Its request in flight.
    pending: Option<RequestId>,
    round_trip: Option<Duration>,
}

#[derive(Clone)]
pub(super) struct CrawlModel<F: Family> {
    local: LocalNode<F>,
    config: CrawlConfig,
    /// The nodes to begin with, until it begins.
    seeds: Vec<F::Node>,
    has_begun: bool,
    /// In the order of first naming.
    nodes: Vec<CrawledNode<F>>,
    edges: BTreeSet<(usize, usize)>,
    /// The nodes to ask, in order, as indices. A node whose request waits for capacity is still listed.
    queue: VecDeque<usize>,
    left_out: u64,
    /// How many requests to nodes that had answered before were answered, and how many were not.
    repeat_answers: [u64; 2],
    /// A node or an edge had no room.
    limit_hit: bool,
}

/// The nodes that a crawl begins with.
pub(super) fn seeds<F: Family>(start: &StartCrawl<F>, table: Option<&RoutingTable<F>>) -> Vec<F::Node> {
    start.seeds.iter().cloned().chain(all(table)).collect()
}

impl<F: Family> CrawlModel<F> {
    pub(super) fn new(local: LocalNode<F>, config: CrawlConfig, seeds: Vec<F::Node>) -> Self {
        Self {
            local,
            config,
            seeds,
            has_begun: false,
            nodes: Vec::new(),
            edges: BTreeSet::new(),
            queue: VecDeque::new(),
            left_out: 0,
            repeat_answers: [0; 2],
            limit_hit: false,
        }
    }

    fn buckets(&self) -> u32 {
        self.config.max_cpl.min(F::Key::BITS - 1) + 1
    }

    /// It is allowed to run.
    fn begin(&mut self) {
        self.has_begun = true;
        for node in core::mem::take(&mut self.seeds) {
            self.name_node(&node, 1);
        }
    }

    /// A node is named. Returns its index, if it is kept.
    fn name_node(&mut self, node: &F::Node, hop: u32) -> Option<usize> {
        let key = F::key(node);
        if !self.local.may_ask(node) {
            return None;
        }
        if let Some(place) = self.nodes.iter().position(|seen| seen.node == *node) {
            return Some(place);
        }
        let no_room = self.nodes.len() >= self.config.max_nodes;
        let alike = self.nodes.iter().filter(|seen| F::key(&seen.node) == key).count();
        self.limit_hit |= no_room;
        if no_room || alike >= MAX_NODES_PER_KEY {
            self.left_out += 1;
            return None;
        }
        let seen = CrawledNode {
            node: node.clone(),
            hop,
            asked: 0,
            answered: 0,
            requests: 0,
            failures_in_row: 0,
            given_up: false,
            pending: None,
            round_trip: None,
        };
        self.nodes.push(seen);
        self.queue.push_back(self.nodes.len() - 1);
        Some(self.nodes.len() - 1)
    }

    /// Whether a node will not be asked again after its request in flight.
    fn is_done(&self, seen: &CrawledNode<F>) -> bool {
        seen.given_up || seen.answered >= self.buckets()
    }

    /// Whether so many requests in a row without an answer are enough to give up a node: with the share of requests that
    /// are lost, as far as known, one node of 64 times as many as there are would have lost as many.
    fn is_enough(&self, failures: u32) -> bool {
        let [answered, missed] = self.repeat_answers.map(u128::from);
        let share = ((missed + 1) << 32) / (answered + missed + 20);
        let nodes = (self.nodes.len() as u128 * 64) << 32;
        let left = (0..failures).fold(nodes, |left, _| (left * share) >> 32);
        failures >= self.config.max_failures || failures >= 2 && left <= 1 << 32
    }

    /// Nodes that have answered, and were given up later.
    fn unsure(&self) -> usize {
        self.nodes.iter().filter(|seen| seen.given_up && seen.answered > 0).count()
    }

    fn reach(&self, seen: &CrawledNode<F>) -> Reach {
        match (seen.answered > 0, seen.pending.is_none() && self.is_done(seen)) {
            (true, _) => Reach::Reachable,
            (false, true) => Reach::Unreachable,
            (false, false) => Reach::Unknown,
        }
    }

    /// A request has ended, with an answer or without. Returns the index of its node.
    fn close(&mut self, request_end: &RequestEnd<'_, F>) -> Checked<(usize, &mut CrawledNode<F>)> {
        let mut nodes = self.nodes.iter_mut().enumerate();
        let closed = nodes.find(|(_, seen)| seen.pending == Some(request_end.id));
        let (place, seen) = ensure_some!(closed, "crawl: a request that ends is to a node that was named");
        seen.pending = None;
        Ok((place, seen))
    }

    fn requeue(&mut self, place: usize) {
        if self.nodes.get(place).is_some_and(|seen| !self.is_done(seen)) {
            self.queue.push_back(place);
        }
    }

    fn check_counts(&self, counts: &CrawlCounts) -> Checked {
        let of = |reach| self.nodes.iter().filter(|seen| self.reach(seen) == reach).count();
        let said = [counts.nodes, counts.reachable, counts.unreachable, counts.unsure, counts.edges];
        let (reachable, unreachable) = (of(Reach::Reachable), of(Reach::Unreachable));
        let expected = [self.nodes.len(), reachable, unreachable, self.unsure(), self.edges.len()]
            .map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        ensure_eq!(said, expected, "crawl: counts of nodes, reachable, unreachable, unsure, edges");
        ensure_eq!(counts.left_out, self.left_out, "crawl: count of what was left out");
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.nodes.iter().filter(|seen| seen.pending.is_some()).count()
    }
}

impl<F: Family> OperationModel<F> for CrawlModel<F> {
    fn boxed(&self) -> Box<dyn OperationModel<F>> {
        Box::new(self.clone())
    }

    fn kind(&self) -> OperationKind {
        OperationKind::Crawl
    }

    fn has_no_soft_limit(&self, _request: &Request<F>) -> bool {
        true
    }

    fn request_sent(&mut self, sent_event: &RequestSent<'_, F>) -> Checked<(bool, Counts)> {
        if !self.has_begun {
            self.begin();
        }
        let request = sent_event.request;
        let place = self.nodes.iter().position(|seen| seen.node == request.node);
        let place = ensure_some!(place, "crawl: asks only nodes that were named and kept: {request:?}");
        if sent_event.nothing_queued {
            ensure_eq!(
                self.queue.front(),
                Some(&place),
                "crawl: round robin, in the order in which nodes were named"
            );
        }
        let turn = self.queue.iter().position(|turn| *turn == place);
        self.queue.remove(ensure_some!(turn, "crawl: asks only nodes that are queued: {request:?}"));
        let Some(seen) = self.nodes.get(place) else { return Ok((true, Vec::new())) };
        ensure!(
            !self.is_done(seen),
            "crawl: asks no node for more buckets than configured, nor after max_failures: {seen:?}"
        );
        ensure_eq!(seen.pending, None, "crawl: at most one request in flight to a node: {seen:?}");
        let (key, target) = (F::key(&seen.node), key_of::<F>(&request.target));
        let bucket = seen.answered;
        ensure_eq!(
            key.common_prefix_len(&target),
            bucket,
            "crawl: each bucket until it is answered, in order: {seen:?}"
        );
        ensure_eq!(
            target,
            key.with_flipped(bucket),
            "crawl: the target is the node's key with one bit flipped"
        );
        ensure_eq!(
            (&request.ask, request.hop),
            (&Ask::FindCloser, seen.hop),
            "crawl: asks for closer nodes, with the node's hop: {seen:?}"
        );
        if let Some(seen) = self.nodes.get_mut(place) {
            seen.asked = seen.answered + 1;
            seen.requests += 1;
            seen.pending = Some(request.id);
        }
        let repeats = self.nodes.get(place).is_some_and(|seen| seen.failures_in_row > 0);
        ensure!(self.in_flight() <= self.config.max_in_flight, "crawl: at most max_in_flight requests");
        let mut counts = vec!["crawl: request"];
        counts.extend(repeats.then_some("crawl: repeated"));
        counts.extend(sent_event.nothing_queued.then_some("crawl: request in turn"));
        counts.extend((self.in_flight() == self.config.max_in_flight).then_some("crawl: all slots"));
        Ok((true, counts))
    }

    fn request_answered(&mut self, request_end: &RequestEnd<'_, F>) -> Checked<Vec<RequestId>> {
        let RequestOutcome::Answered { closer } = request_end.outcome else {
            broken!("progress: not an answer: {:?}", request_end.outcome)
        };
        let (place, seen) = self.close(request_end)?;
        if seen.answered == 0 {
            let micros = u32::try_from(request_end.elapsed.as_micros()).unwrap_or(u32::MAX);
            seen.round_trip = Some(Duration::from_micros(u64::from(micros)));
        }
        let is_repeated_answer = seen.answered > 0;
        seen.answered += 1;
        seen.failures_in_row = 0;
        let hop = seen.hop + 1;
        let [answered, _] = &mut self.repeat_answers;
        *answered += u64::from(is_repeated_answer);
        for (number, node) in closer.iter().enumerate() {
            if number >= self.config.max_closer_nodes {
                self.left_out += 1;
                continue;
            }
            let Some(named) = self.name_node(node, hop).filter(|named| *named != place) else {
                continue;
            };
            let edge = (place, named);
            if self.edges.contains(&edge) {
                continue;
            }
            if self.edges.len() < self.config.max_edges {
                self.edges.insert(edge);
            } else {
                self.left_out += 1;
                self.limit_hit = true;
            }
        }
        self.requeue(place);
        Ok(Vec::new())
    }

    fn request_failed(&mut self, request_end: &RequestEnd<'_, F>) -> Checked<bool> {
        let (place, seen) = self.close(request_end)?;
        seen.failures_in_row += 1;
        let (failures, has_answered) = (seen.failures_in_row, seen.answered > 0);
        let [_, missed] = &mut self.repeat_answers;
        *missed += u64::from(has_answered);
        let gives_up = self.is_enough(failures);
        if let Some(seen) = self.nodes.get_mut(place) {
            seen.given_up = gives_up;
        }
        self.requeue(place);
        Ok(true)
    }

    fn request_cancelled(
        &mut self,
        _now: Instant,
        id: RequestId,
        sent: &RequestInFlight<F>,
        reason: CancelReason,
    ) -> Checked {
        ensure_eq!(reason, CancelReason::OperationEnded, "crawl: cancels nothing before its end");
        let pending = self.nodes.iter().any(|seen| seen.pending == Some(id) && seen.node == sent.node);
        ensure!(pending, "crawl: cancels only requests in flight");
        Ok(())
    }

    fn check_progress(&mut self, _now: Instant, event: &Outbound<F>) -> Checked<Counts> {
        let Outbound::CrawlProgress(progress) = event else {
            broken!("progress: of another kind of operation: {event:?}")
        };
        self.check_counts(&progress.counts)?;
        let refuses = matches!(progress.request.outcome, RequestOutcome::Rejected(_));
        let mut counts = vec!["crawl: progress"];
        counts.extend(refuses.then_some("crawl: rejected"));
        counts.extend((progress.counts.left_out > 0).then_some("crawl: left out"));
        Ok(counts)
    }

    fn check_finish(&mut self, _now: Instant, event: &Outbound<F>, _in_flight: usize) -> Checked<Counts> {
        let Outbound::CrawlFinished(finish) = event else {
            broken!("finish: of another kind of operation: {event:?}")
        };
        // A crawl that was stopped or that expired before it was allowed to run has not read its seeds.
        let cut =
            matches!(finish.outcome, Outcome::DeadlineExceeded | Outcome::Stopped | Outcome::Overloaded);
        if !(self.has_begun || cut && finish.nodes.is_empty()) {
            self.begin();
        }
        self.check_counts(&finish.counts)?;
        let fields = |it: &Crawled<F>| {
            (it.node.clone(), it.reach, [it.hop, it.asked, it.answered, it.requests], it.round_trip)
        };
        let known = |seen: &CrawledNode<F>| {
            let counts = [seen.hop, seen.asked, seen.answered, seen.requests];
            (seen.node.clone(), self.reach(seen), counts, seen.round_trip)
        };
        let listed: Vec<_> = finish.nodes.iter().map(fields).collect();
        let expected: Vec<_> = self.nodes.iter().map(known).collect();
        ensure_eq!(listed, expected, "crawl: nodes agree with the events");
        let listed = finish.edges.iter().map(|(from, to)| (*from as usize, *to as usize));
        ensure!(
            listed.eq(self.edges.iter().copied()),
            "crawl: edges agree with the events: {:?}, not {:?}",
            finish.edges,
            self.edges
        );
        let left = self.nodes.iter().any(|seen| seen.pending.is_some() || !self.is_done(seen));
        match finish.outcome {
            Outcome::Complete | Outcome::NodeLimit | Outcome::Unsure => {
                ensure!(!left, "outcome: {} only when nothing is left to ask", finish.outcome);
                let limited = finish.outcome == Outcome::NodeLimit;
                ensure_eq!(limited, self.limit_hit, "outcome: node limit exactly if something had no room");
                let unsure = finish.outcome == Outcome::Unsure;
                ensure_eq!(
                    unsure,
                    !limited && self.unsure() > 0,
                    "outcome: unsure exactly if a node that had answered was given up"
                );
            }
            Outcome::DeadlineExceeded | Outcome::Stopped | Outcome::Overloaded => {}
            outcome => broken!("outcome: not of a crawl: {outcome}"),
        }
        let has = |reach| finish.nodes.iter().any(|crawled| crawled.reach == reach);
        let crowded = self.nodes.iter().any(|seen| {
            let alike = self.nodes.iter().filter(|other| F::key(&other.node) == F::key(&seen.node));
            alike.count() == MAX_NODES_PER_KEY
        });
        let rested =
            self.nodes.iter().any(|seen| seen.answered > 0 && seen.answered < self.buckets() && !left);
        let situations = [
            (finish.outcome == Outcome::Complete && finish.nodes.len() > 2, "crawl: complete, several nodes"),
            (finish.outcome == Outcome::NodeLimit, "crawl: node limit"),
            (finish.outcome == Outcome::Unsure, "crawl: unsure"),
            (cut && !finish.edges.is_empty(), "crawl: partial results"),
            (cut && self.in_flight() > 0, "crawl: cut off with requests in flight"),
            (has(Reach::Reachable) && has(Reach::Unreachable), "crawl: some unreachable"),
            (has(Reach::Unknown), "crawl: some unknown"),
            (crowded, "crawl: as many nodes with one key as are kept"),
            (rested, "crawl: a node answered and then failed"),
            (finish.edges.len() == self.config.max_edges && self.limit_hit, "crawl: edge limit"),
            (finish.nodes.iter().any(|crawled| crawled.hop > 3), "crawl: hop above 3"),
            (finish.nodes.is_empty(), "crawl: no node to ask"),
        ];
        Ok(situations.into_iter().filter(|(is, _)| *is).map(|(_, what)| what).collect())
    }

    fn check_not_idle(&self, _now: Instant, busy: &[F::Key]) -> Checked {
        let all_slots = self.in_flight() >= self.config.max_in_flight;
        // It waits for a busy node and asks no other instead; this may have been so since it began.
        let first = self.queue.front().and_then(|place| self.nodes.get(*place)).map(|seen| &seen.node);
        let waits = first.into_iter().chain(&self.seeds).any(|node| busy.contains(&F::key(node)));
        ensure!(all_slots || waits || self.queue.is_empty(), "not idle: a node could be asked now");
        ensure!(self.in_flight() > 0 || waits, "not idle: a live crawl waits for a request");
        Ok(())
    }
}
