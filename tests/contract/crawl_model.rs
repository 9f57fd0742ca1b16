//! The model of a crawl: which nodes were named, hence which node is asked what and in which order, and what the
//! crawl must report.

use super::RequestInFlight;
use super::operation_model::{Counts, OperationKind, OperationModel, RequestEnd, RequestSent, all};
use super::test_family::{Net, Peer};
use kad_proto::coordinator::Outbound;
use kad_proto::crawl::{CrawlCounts, Crawled, Reach, StartCrawl};
use kad_proto::{
    Ask, Bits, CancelReason, CrawlConfig, Family, Instant, Key, Outcome, Request, RequestId, RequestOutcome,
    RoutingTable,
};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// How many nodes with the same key are kept.
const MAX_NODES_PER_KEY: usize = 8;

/// A node that was named.
#[derive(Clone, Debug)]
struct CrawledNode<const N: usize> {
    node: Peer<N>,
    hop: u32,
    asked: u32,
    answered: u32,
    /// Requests in a row without an answer.
    failures_in_row: u32,
    /// Its request in flight.
    pending: Option<RequestId>,
    round_trip: Option<Duration>,
}

pub(crate) struct CrawlModel<const N: usize> {
    local: Bits<N>,
    config: CrawlConfig,
    /// The nodes to begin with, until it begins.
    seeds: Vec<Peer<N>>,
    has_begun: bool,
    /// In the order of first naming.
    nodes: Vec<CrawledNode<N>>,
    edges: BTreeSet<(usize, usize)>,
    /// The nodes to ask, in order, as indices. A node whose request waits for capacity is still listed.
    queue: VecDeque<usize>,
    left_out: u64,
    /// A node or an edge had no room.
    limit_hit: bool,
}

/// The nodes that a crawl begins with.
pub(crate) fn seeds<const N: usize>(
    start: &StartCrawl<Net<N>>,
    table: Option<&RoutingTable<Net<N>>>,
) -> Vec<Peer<N>> {
    start.seeds.iter().copied().chain(all(table)).collect()
}

impl<const N: usize> CrawlModel<N> {
    pub(crate) fn new(local: Bits<N>, config: CrawlConfig, seeds: Vec<Peer<N>>) -> Self {
        Self {
            local,
            config,
            seeds,
            has_begun: false,
            nodes: Vec::new(),
            edges: BTreeSet::new(),
            queue: VecDeque::new(),
            left_out: 0,
            limit_hit: false,
        }
    }

    fn buckets(&self) -> u32 {
        self.config.max_cpl.min(Bits::<N>::BITS - 1) + 1
    }

    /// It is allowed to run.
    fn begin(&mut self) {
        self.has_begun = true;
        for node in std::mem::take(&mut self.seeds) {
            self.name_node(node, 1);
        }
    }

    /// A node is named. Returns its index, if it is kept.
    fn name_node(&mut self, node: Peer<N>, hop: u32) -> Option<usize> {
        if node.key == self.local || !Net::<N>::admits(&node) {
            return None;
        }
        if let Some(place) = self.nodes.iter().position(|seen| seen.node == node) {
            return Some(place);
        }
        let no_room = self.nodes.len() >= self.config.max_nodes;
        let crowded = self.nodes.iter().filter(|seen| seen.node.key == node.key).count() >= MAX_NODES_PER_KEY;
        self.limit_hit |= no_room;
        if no_room || crowded {
            self.left_out += 1;
            return None;
        }
        let seen = CrawledNode {
            node,
            hop,
            asked: 0,
            answered: 0,
            failures_in_row: 0,
            pending: None,
            round_trip: None,
        };
        self.nodes.push(seen);
        self.queue.push_back(self.nodes.len() - 1);
        Some(self.nodes.len() - 1)
    }

    /// Whether a node will not be asked again after its request in flight.
    fn is_done(&self, seen: &CrawledNode<N>) -> bool {
        seen.asked >= self.buckets() || seen.failures_in_row >= self.config.max_failures
    }

    fn reach(&self, seen: &CrawledNode<N>) -> Reach {
        match (seen.answered > 0, seen.pending.is_none() && self.is_done(seen)) {
            (true, _) => Reach::Reachable,
            (false, true) => Reach::Unreachable,
            (false, false) => Reach::Unknown,
        }
    }

    /// A request has ended, with an answer or without. Returns the index of its node.
    fn close(&mut self, request_end: &RequestEnd<'_, N>) -> usize {
        let place = self.nodes.iter().position(|seen| seen.pending == Some(request_end.id));
        let place = place.expect("crawl: a request that ends is to a node that was named");
        self.nodes[place].pending = None;
        place
    }

    fn requeue(&mut self, place: usize) {
        if !self.is_done(&self.nodes[place]) {
            self.queue.push_back(place);
        }
    }

    fn assert_counts(&self, counts: &CrawlCounts) {
        let of = |reach| self.nodes.iter().filter(|seen| self.reach(seen) == reach).count();
        let said = (counts.nodes, counts.reachable, counts.unreachable, counts.edges, counts.left_out);
        let [nodes, reachable, unreachable, edges] =
            [self.nodes.len(), of(Reach::Reachable), of(Reach::Unreachable), self.edges.len()]
                .map(|count| u32::try_from(count).unwrap());
        let expected = (nodes, reachable, unreachable, edges, self.left_out);
        assert_eq!(said, expected, "crawl: counts of nodes, reachable, unreachable, edges, left out");
    }

    fn in_flight(&self) -> usize {
        self.nodes.iter().filter(|seen| seen.pending.is_some()).count()
    }
}

impl<const N: usize> OperationModel<N> for CrawlModel<N> {
    fn kind(&self) -> OperationKind {
        OperationKind::Crawl
    }

    fn has_no_soft_limit(&self, _request: &Request<Net<N>>) -> bool {
        true
    }

    fn request_sent(&mut self, sent_event: &RequestSent<'_, N>) -> (bool, Counts) {
        if !self.has_begun {
            self.begin();
        }
        let request = sent_event.request;
        let place = self.nodes.iter().position(|seen| seen.node == request.node);
        let place = place.expect("crawl: asks only nodes that were named and kept");
        if sent_event.nothing_queued {
            assert_eq!(
                self.queue.front(),
                Some(&place),
                "crawl: round robin, in the order in which nodes were named"
            );
        }
        let turn = self.queue.iter().position(|turn| *turn == place);
        self.queue.remove(turn.expect("crawl: asks only nodes that are queued"));
        let over = self.is_done(&self.nodes[place]);
        let seen = &mut self.nodes[place];
        assert!(
            !over,
            "crawl: asks no node for more buckets than configured, nor after max_failures: {seen:?}"
        );
        assert_eq!(seen.pending, None, "crawl: at most one request in flight to a node: {seen:?}");
        let bucket = seen.node.key.common_prefix_len(&request.target);
        assert_eq!(bucket, seen.asked, "crawl: each bucket once, in order: {seen:?}");
        assert_eq!(
            request.target,
            seen.node.key.with_flipped(seen.asked),
            "crawl: the target is the node's key with one bit flipped"
        );
        assert_eq!(
            (&request.ask, request.hop),
            (&Ask::FindCloser, seen.hop),
            "crawl: asks for closer nodes, with the node's hop: {seen:?}"
        );
        seen.asked += 1;
        seen.pending = Some(request.id);
        assert!(self.in_flight() <= self.config.max_in_flight, "crawl: at most max_in_flight requests");
        let mut counts = vec!["crawl: request"];
        counts.extend(sent_event.nothing_queued.then_some("crawl: request in turn"));
        counts.extend((self.in_flight() == self.config.max_in_flight).then_some("crawl: all slots"));
        (true, counts)
    }

    fn request_answered(&mut self, request_end: &RequestEnd<'_, N>) -> Vec<RequestId> {
        let RequestOutcome::Answered { closer } = request_end.outcome else {
            panic!("not an answer: {:?}", request_end.outcome)
        };
        let place = self.close(request_end);
        let seen = &mut self.nodes[place];
        if seen.answered == 0 {
            let micros = u32::try_from(request_end.elapsed.as_micros()).unwrap_or(u32::MAX);
            seen.round_trip = Some(Duration::from_micros(u64::from(micros)));
        }
        seen.answered += 1;
        seen.failures_in_row = 0;
        let hop = seen.hop + 1;
        for (number, node) in closer.iter().enumerate() {
            if number >= self.config.max_closer_nodes {
                self.left_out += 1;
                continue;
            }
            let Some(named) = self.name_node(*node, hop).filter(|named| *named != place) else {
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
        Vec::new()
    }

    fn request_failed(&mut self, request_end: &RequestEnd<'_, N>) -> bool {
        let place = self.close(request_end);
        self.nodes[place].failures_in_row += 1;
        self.requeue(place);
        true
    }

    fn request_cancelled(
        &mut self,
        _now: Instant,
        id: RequestId,
        sent: &RequestInFlight<N>,
        reason: CancelReason,
    ) {
        assert_eq!(reason, CancelReason::OperationEnded, "crawl: cancels nothing before its end");
        let pending = self.nodes.iter().any(|seen| seen.pending == Some(id) && seen.node == sent.node);
        assert!(pending, "crawl: cancels only requests in flight");
    }

    fn check_progress(&mut self, _now: Instant, event: &Outbound<Net<N>>) -> Counts {
        let Outbound::CrawlProgress(progress) = event else {
            panic!("progress: of another kind of operation: {event:?}")
        };
        self.assert_counts(&progress.counts);
        let refuses = matches!(progress.request.outcome, RequestOutcome::Rejected(_));
        let mut counts = vec!["crawl: progress"];
        counts.extend(refuses.then_some("crawl: rejected"));
        counts.extend((progress.counts.left_out > 0).then_some("crawl: left out"));
        counts
    }

    fn check_finish(&mut self, _now: Instant, event: &Outbound<Net<N>>, _in_flight: usize) -> Counts {
        let Outbound::CrawlFinished(finish) = event else {
            panic!("finish: of another kind of operation: {event:?}")
        };
        // A crawl that was stopped or that expired before it was allowed to run has not read its seeds.
        let cut = matches!(finish.outcome, Outcome::DeadlineExceeded | Outcome::Stopped);
        if !(self.has_begun || cut && finish.nodes.is_empty()) {
            self.begin();
        }
        self.assert_counts(&finish.counts);
        let expected: Vec<_> = self
            .nodes
            .iter()
            .map(|seen| (seen.node, self.reach(seen), (seen.hop, seen.asked, seen.answered), seen.round_trip))
            .collect();
        let fields =
            |it: &Crawled<Net<N>>| (it.node, it.reach, (it.hop, it.asked, it.answered), it.round_trip);
        let nodes: Vec<_> = finish.nodes.iter().map(fields).collect();
        assert_eq!(nodes, expected, "crawl: nodes agree with the events");
        let edges: Vec<_> = self.edges.iter().map(|(from, to)| [*from, *to].map(|at| at as u32)).collect();
        let said: Vec<_> = finish.edges.iter().map(|(from, to)| [*from, *to]).collect();
        assert_eq!(said, edges, "crawl: edges agree with the events");
        let left = self.nodes.iter().any(|seen| seen.pending.is_some() || !self.is_done(seen));
        match finish.outcome {
            Outcome::Complete | Outcome::NodeLimit => {
                assert!(!left, "outcome: {} only when nothing is left to ask", finish.outcome);
                let limited = finish.outcome == Outcome::NodeLimit;
                assert_eq!(limited, self.limit_hit, "outcome: node limit exactly if something had no room");
            }
            Outcome::DeadlineExceeded | Outcome::Stopped => {}
            outcome => panic!("outcome: not of a crawl: {outcome}"),
        }
        let has = |reach| finish.nodes.iter().any(|crawled| crawled.reach == reach);
        let crowded = self.nodes.iter().any(|seen| {
            self.nodes.iter().filter(|other| other.node.key == seen.node.key).count() == MAX_NODES_PER_KEY
        });
        let rested = self.nodes.iter().any(|seen| seen.answered > 0 && seen.asked < self.buckets() && !left);
        let situations = [
            (finish.outcome == Outcome::Complete && finish.nodes.len() > 2, "crawl: complete, several nodes"),
            (finish.outcome == Outcome::NodeLimit, "crawl: node limit"),
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
        situations.into_iter().filter(|(is, _)| *is).map(|(_, what)| what).collect()
    }

    fn assert_not_idle(&self, _now: Instant, busy: &[Bits<N>]) {
        let all_slots = self.in_flight() >= self.config.max_in_flight;
        // It waits for a busy node and asks no other instead; this may have been so since it began.
        let first = self.queue.front().map(|place| &self.nodes[*place].node);
        let waits = first.into_iter().chain(&self.seeds).any(|node| busy.contains(&node.key));
        assert!(all_slots || waits || self.queue.is_empty(), "not idle: a node could be asked now");
        assert!(self.in_flight() > 0 || waits, "not idle: a live crawl waits for a request");
    }
}
