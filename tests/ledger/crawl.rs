//! The account of a crawl: who was named, hence who is asked what, in which order; and what the crawl must say of it.

use super::Sent;
use super::matter::{Asking, Counts, Kind, Matter, Replied, all};
use super::net::{Net, Peer};
use kad_proto::coordinator::Outbound;
use kad_proto::crawl::{CrawlCounts, Crawled, Reach, StartCrawl};
use kad_proto::{
    Ask, Bits, CrawlConfig, Family, GivenUp, Instant, Key, Outcome, Reply, Request, RequestId, RoutingTable,
};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// How many nodes with one key are taken.
const ALIKE: usize = 8;

/// A node that was named.
#[derive(Clone, Debug)]
struct Seen<const N: usize> {
    node: Peer<N>,
    hop: u32,
    asked: u32,
    answered: u32,
    /// Requests in a row without an answer.
    silent: u32,
    /// What it has in flight.
    open: Option<RequestId>,
    round_trip: Option<Duration>,
}

pub(crate) struct Survey<const N: usize> {
    local: Bits<N>,
    config: CrawlConfig,
    /// Nodes to begin with, until it begins.
    seeds: Vec<Peer<N>>,
    begun: bool,
    /// In the order in which they were first named.
    nodes: Vec<Seen<N>>,
    edges: BTreeSet<(usize, usize)>,
    /// Who is to be asked, the first first. Those whose requests wait for capacity are still in it.
    turns: VecDeque<usize>,
    left_out: u64,
    /// Something had no room.
    full: bool,
}

/// The nodes that a crawl begins with.
pub(crate) fn seeds<const N: usize>(
    start: &StartCrawl<Net<N>>,
    table: Option<&RoutingTable<Net<N>>>,
) -> Vec<Peer<N>> {
    start.seeds.iter().copied().chain(all(table)).collect()
}

impl<const N: usize> Survey<N> {
    pub(crate) fn new(local: Bits<N>, config: CrawlConfig, seeds: Vec<Peer<N>>) -> Self {
        Self {
            local,
            config,
            seeds,
            begun: false,
            nodes: Vec::new(),
            edges: BTreeSet::new(),
            turns: VecDeque::new(),
            left_out: 0,
            full: false,
        }
    }

    fn buckets(&self) -> u32 {
        self.config.max_cpl.min(Bits::<N>::BITS - 1) + 1
    }

    /// It has taken its turn.
    fn begin(&mut self) {
        self.begun = true;
        for node in std::mem::take(&mut self.seeds) {
            self.named(node, 1);
        }
    }

    /// A node is named. Says where it stands, if it is taken.
    fn named(&mut self, node: Peer<N>, hop: u32) -> Option<usize> {
        if node.key == self.local || !Net::<N>::admits(&node) {
            return None;
        }
        if let Some(place) = self.nodes.iter().position(|seen| seen.node == node) {
            return Some(place);
        }
        let no_room = self.nodes.len() >= self.config.max_nodes;
        let crowded = self.nodes.iter().filter(|seen| seen.node.key == node.key).count() >= ALIKE;
        self.full |= no_room;
        if no_room || crowded {
            self.left_out += 1;
            return None;
        }
        let seen = Seen { node, hop, asked: 0, answered: 0, silent: 0, open: None, round_trip: None };
        self.nodes.push(seen);
        self.turns.push_back(self.nodes.len() - 1);
        Some(self.nodes.len() - 1)
    }

    /// Whether a node will be asked no more, once what it has in flight has ended.
    fn is_over(&self, seen: &Seen<N>) -> bool {
        seen.asked >= self.buckets() || seen.silent >= self.config.max_failures
    }

    fn reach(&self, seen: &Seen<N>) -> Reach {
        match (seen.answered > 0, seen.open.is_none() && self.is_over(seen)) {
            (true, _) => Reach::Reachable,
            (false, true) => Reach::Unreachable,
            (false, false) => Reach::Unknown,
        }
    }

    /// A request has ended, with an answer or without.
    fn ended(&mut self, replied: &Replied<'_, N>) -> usize {
        let place = self.nodes.iter().position(|seen| seen.open == Some(replied.id));
        let place = place.expect("crawl: a request of it is to a node that was named");
        self.nodes[place].open = None;
        place
    }

    fn goes_on(&mut self, place: usize) {
        if !self.is_over(&self.nodes[place]) {
            self.turns.push_back(place);
        }
    }

    fn assert_counts(&self, counts: &CrawlCounts) {
        let of = |reach| self.nodes.iter().filter(|seen| self.reach(seen) == reach).count();
        let said = (counts.nodes, counts.reachable, counts.unreachable, counts.edges, counts.left_out);
        let [nodes, reachable, unreachable, edges] =
            [self.nodes.len(), of(Reach::Reachable), of(Reach::Unreachable), self.edges.len()]
                .map(|count| u32::try_from(count).unwrap());
        let expected = (nodes, reachable, unreachable, edges, self.left_out);
        assert_eq!(said, expected, "crawl: nodes, reachable, unreachable, edges, left out");
    }

    fn in_flight(&self) -> usize {
        self.nodes.iter().filter(|seen| seen.open.is_some()).count()
    }
}

impl<const N: usize> Matter<N> for Survey<N> {
    fn kind(&self) -> Kind {
        Kind::Crawl
    }

    fn is_patient(&self, _request: &Request<Net<N>>) -> bool {
        true
    }

    fn asks(&mut self, asking: &Asking<'_, N>) -> (bool, Counts) {
        if !self.begun {
            self.begin();
        }
        let request = asking.request;
        let place = self.nodes.iter().position(|seen| seen.node == request.node);
        let place =
            place.expect("crawl: asks nobody who was not named, or had no room, or is not to be asked");
        if asking.unqueued {
            assert_eq!(
                self.turns.front(),
                Some(&place),
                "crawl: by turns, in the order in which nodes were named"
            );
        }
        let turn = self.turns.iter().position(|turn| *turn == place);
        self.turns.remove(turn.expect("crawl: asked out of turn, or too often"));
        let over = self.is_over(&self.nodes[place]);
        let seen = &mut self.nodes[place];
        assert!(!over, "crawl: asked too often: {seen:?}");
        assert_eq!(seen.open, None, "crawl: at most one request in flight to a node: {seen:?}");
        let bucket = seen.node.key.common_prefix_len(&request.target);
        assert_eq!(bucket, seen.asked, "crawl: each bucket once, in order: {seen:?}");
        assert_eq!(
            request.target,
            seen.node.key.with_flipped(seen.asked),
            "crawl: its own key with one bit flipped"
        );
        assert_eq!((&request.ask, request.hop), (&Ask::FindCloser, seen.hop), "crawl: {seen:?}");
        seen.asked += 1;
        seen.open = Some(request.id);
        assert!(self.in_flight() <= self.config.max_in_flight, "crawl: requests in flight");
        let mut counts = vec!["crawl: request"];
        counts.extend(asking.unqueued.then_some("crawl: request in turn"));
        counts.extend((self.in_flight() == self.config.max_in_flight).then_some("crawl: all slots"));
        (true, counts)
    }

    fn answered(&mut self, replied: &Replied<'_, N>) -> Vec<RequestId> {
        let Reply::Answered { closer } = replied.reply else { panic!("answered by {:?}", replied.reply) };
        let place = self.ended(replied);
        let seen = &mut self.nodes[place];
        if seen.answered == 0 {
            let micros = u32::try_from(replied.elapsed.as_micros()).unwrap_or(u32::MAX);
            seen.round_trip = Some(Duration::from_micros(u64::from(micros)));
        }
        seen.answered += 1;
        seen.silent = 0;
        let hop = seen.hop + 1;
        for (number, node) in closer.iter().enumerate() {
            if number >= self.config.max_closer_nodes {
                self.left_out += 1;
                continue;
            }
            let Some(named) = self.named(*node, hop).filter(|named| *named != place) else { continue };
            let edge = (place, named);
            if self.edges.contains(&edge) {
                continue;
            }
            if self.edges.len() < self.config.max_edges {
                self.edges.insert(edge);
            } else {
                self.left_out += 1;
                self.full = true;
            }
        }
        self.goes_on(place);
        Vec::new()
    }

    fn missed(&mut self, replied: &Replied<'_, N>) -> bool {
        let place = self.ended(replied);
        self.nodes[place].silent += 1;
        self.goes_on(place);
        true
    }

    fn given_up(&mut self, _now: Instant, id: RequestId, sent: &Sent<N>, reason: GivenUp) {
        assert_eq!(reason, GivenUp::OperationEnded, "a crawl gives up nothing before its end");
        let open = self.nodes.iter().any(|seen| seen.open == Some(id) && seen.node == sent.node);
        assert!(open, "crawl: gives up what is in flight");
    }

    fn progress(&mut self, _now: Instant, event: &Outbound<Net<N>>) -> Counts {
        let Outbound::CrawlProgress(progress) = event else { panic!("progress of another kind: {event:?}") };
        self.assert_counts(&progress.counts);
        let refuses = matches!(progress.request.reply, Reply::Rejected(_));
        let mut counts = vec!["crawl: progress"];
        counts.extend(refuses.then_some("crawl: refusal"));
        counts.extend((progress.counts.left_out > 0).then_some("crawl: left out"));
        counts
    }

    fn finish(&mut self, _now: Instant, event: &Outbound<Net<N>>, _in_flight: usize) -> Counts {
        let Outbound::CrawlFinished(finish) = event else { panic!("a finish of another kind: {event:?}") };
        // One that was stopped or ended before its turn has not looked at its seeds.
        let cut = matches!(finish.outcome, Outcome::DeadlineExceeded | Outcome::Stopped);
        if !(self.begun || cut && finish.nodes.is_empty()) {
            self.begin();
        }
        self.assert_counts(&finish.counts);
        let expected: Vec<_> = self
            .nodes
            .iter()
            .map(|seen| Crawled::<Net<N>> {
                node: seen.node,
                reach: self.reach(seen),
                hop: seen.hop,
                asked: seen.asked,
                answered: seen.answered,
                round_trip: seen.round_trip,
            })
            .collect();
        assert_eq!(finish.nodes, expected, "crawl: nodes, as the events say");
        let edges: Vec<_> = self.edges.iter().map(|(from, to)| [*from, *to].map(|at| at as u32)).collect();
        let said: Vec<_> = finish.edges.iter().map(|(from, to)| [*from, *to]).collect();
        assert_eq!(said, edges, "crawl: edges, as the events say");
        let left = self.nodes.iter().any(|seen| seen.open.is_some() || !self.is_over(seen));
        match finish.outcome {
            Outcome::Complete | Outcome::NodeLimit => {
                assert!(!left, "outcome: {} while something is left to ask", finish.outcome);
                let limited = finish.outcome == Outcome::NodeLimit;
                assert_eq!(limited, self.full, "outcome: the node limit, where something had no room");
            }
            Outcome::DeadlineExceeded | Outcome::Stopped => {}
            outcome => panic!("outcome: {outcome} is none of a crawl's"),
        }
        let has = |reach| finish.nodes.iter().any(|crawled| crawled.reach == reach);
        let crowded = self
            .nodes
            .iter()
            .any(|seen| self.nodes.iter().filter(|other| other.node.key == seen.node.key).count() == ALIKE);
        let rested = self.nodes.iter().any(|seen| seen.answered > 0 && seen.asked < self.buckets() && !left);
        let seen = [
            (finish.outcome == Outcome::Complete && finish.nodes.len() > 2, "crawl: complete, of several"),
            (finish.outcome == Outcome::NodeLimit, "crawl: node limit"),
            (cut && !finish.edges.is_empty(), "crawl: partial results"),
            (cut && self.in_flight() > 0, "crawl: cut off with requests in flight"),
            (has(Reach::Reachable) && has(Reach::Unreachable), "crawl: some could not be reached"),
            (has(Reach::Unknown), "crawl: some are unknown"),
            (crowded, "crawl: eight with one key"),
            (rested, "crawl: one that answered fell silent"),
            (finish.edges.len() == self.config.max_edges && self.full, "crawl: as many edges as may be"),
            (finish.nodes.iter().any(|crawled| crawled.hop > 3), "crawl: far away"),
            (finish.nodes.is_empty(), "crawl: nobody to ask"),
        ];
        seen.into_iter().filter(|(is, _)| *is).map(|(_, what)| what).collect()
    }

    fn restless(&self, _now: Instant, busy: &[Bits<N>]) {
        let full = self.in_flight() >= self.config.max_in_flight;
        // It waits for a node that is busy, and asks nobody in its stead; maybe since it began.
        let first = self.turns.front().map(|place| &self.nodes[*place].node);
        let waits = first.into_iter().chain(&self.seeds).any(|node| busy.contains(&node.key));
        assert!(full || waits || self.turns.is_empty(), "quiescence: somebody could be asked now");
        assert!(self.in_flight() > 0 || waits, "quiescence: a crawl that goes on waits for something");
    }
}
