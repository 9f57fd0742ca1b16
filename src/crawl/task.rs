//! [`CrawlTask`]: a crawl as the task of an operation. It decides which node is asked next, and for which bucket.

use crate::collections::seeded_hash::SeededHash;
use crate::crawl::config::CrawlConfig;
use crate::crawl::events::{CrawlCounts, CrawlFinish, CrawlProgress, Crawled, Reach};
use crate::operations::task::{Found, NoAnswer, OperationEnd, Task, TaskStep};
use crate::operations::work::{Work, WorkKind};
use crate::requests::purpose::{Attempt, NodeRef};
use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;
use crate::vocabulary::local_node::LocalNode;
use crate::vocabulary::operation_events::{Outcome, Progress};
use crate::vocabulary::request_events::{Answer, Ask};
use crate::vocabulary::time::Instant;
use core::time::Duration;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// A node, and the state of the crawl's requests to it.
#[derive(Clone, Debug)]
struct CrawlNode<F: Family> {
    node: F::Node,
    /// Index of the next node with the same key, or [`NONE`].
    next_same_key: u32,
    /// The round trip of the first answer, in microseconds.
    micros: u32,
    hop: u16,
    /// Buckets asked for.
    asked: u16,
    /// Requests made; more than `asked` where one was repeated.
    tries: u16,
    /// The cpl of the next bucket to ask for.
    next_bucket: u16,
    /// The cpl of the bucket that the latest request asks for, or the first of those that it stands for.
    bucket: u16,
    /// The latest request asks for the node itself.
    asks_itself: bool,
    /// It has been asked about itself, for all buckets in which no target is known.
    asked_itself: bool,
    answered: u16,
    /// Consecutive requests without an answer.
    failures: u32,
    /// It will not be asked any more.
    is_done: bool,
}

/// No index.
const NONE: u32 = u32::MAX;

/// How many nodes with the same key are accepted: a bound on answers that name one key under many addresses.
const MAX_SAME_KEY: usize = 8;

/// The inverse of how many nodes a crawl may give up though they live.
const GIVEN_UP_WRONGLY: u128 = 64;

/// A crawl, as the [task](Task) of an operation.
#[derive(Clone, Debug)]
pub(crate) struct CrawlTask<F: Family> {
    local: LocalNode<F>,
    config: CrawlConfig,
    /// The number of buckets that each node is asked for.
    buckets: u16,
    seeds: Vec<F::Node>,
    nodes: Vec<CrawlNode<F>>,
    /// Index of the first node of each key. Never iterated.
    keys: HashMap<F::Key, u32, SeededHash>,
    /// If the family knows no targets near points: the same, in order of the keys. The nodes that are known are the
    /// targets then.
    targets: Option<BTreeMap<F::Key, u32>>,
    /// The index of the naming node in the upper 32 bits, that of the named node in the lower. Iterated only to be
    /// sorted.
    edges: HashSet<u64, SeededHash>,
    /// Nodes without a request in flight that are to be asked again, in order.
    ready: VecDeque<u32>,
    /// Requests in flight or waiting for capacity.
    pending: usize,
    /// A node or an edge was left out for lack of room.
    is_full: bool,
    counts: CrawlCounts,
    /// Of the requests to nodes that had answered before: how many ended, and how many of these without an answer.
    known_requests: u64,
    known_misses: u64,
}

impl<F: Family> CrawlTask<F> {
    pub(crate) fn new(
        local: &LocalNode<F>,
        config: CrawlConfig,
        seeds: Vec<F::Node>,
        hash: SeededHash,
    ) -> Self {
        let buckets = config.max_cpl.min(F::Key::BITS - 1) + 1;
        let has_targets = local.family.target_near(local.key().with_flipped(0), 1).is_some();
        Self {
            local: local.clone(),
            buckets: u16::try_from(buckets).unwrap_or(u16::MAX),
            seeds,
            nodes: Vec::new(),
            keys: HashMap::with_hasher(hash),
            targets: (!has_targets).then(BTreeMap::new),
            edges: HashSet::with_hasher(hash),
            ready: VecDeque::new(),
            pending: 0,
            is_full: false,
            counts: CrawlCounts::default(),
            known_requests: 0,
            known_misses: 0,
            config,
        }
    }

    /// The index of a node, which is added if it is not known. `None` if it must not be asked, or there is no
    /// room.
    fn find_or_add(&mut self, node: &F::Node, hop: u16) -> Option<u32> {
        let key = F::key(node);
        if !self.local.may_ask(node) {
            return None;
        }
        let first = self.keys.get(&key).copied();
        let (mut last, mut same_key, mut next) = (NONE, 0, first.unwrap_or(NONE));
        while let Some(known) = self.nodes.get(next as usize) {
            if known.node == *node {
                return Some(next);
            }
            same_key += 1;
            (last, next) = (next, known.next_same_key);
        }
        let index = u32::try_from(self.nodes.len()).ok().filter(|_| self.nodes.len() < self.config.max_nodes);
        self.is_full |= index.is_none();
        let Some(index) = index.filter(|_| same_key < MAX_SAME_KEY) else {
            self.counts.left_out += 1;
            return None;
        };
        if let Some(known) = self.nodes.get_mut(last as usize) {
            known.next_same_key = index;
        } else {
            self.keys.insert(key, index);
            if let Some(targets) = &mut self.targets {
                targets.insert(key, index);
            }
        }
        let (node, next_same_key) = (node.clone(), NONE);
        self.nodes.push(CrawlNode {
            node,
            next_same_key,
            micros: 0,
            hop,
            asked: 0,
            tries: 0,
            next_bucket: 0,
            bucket: 0,
            asks_itself: false,
            asked_itself: false,
            answered: 0,
            failures: 0,
            is_done: false,
        });
        self.counts.nodes += 1;
        self.ready.push_back(index);
        Some(index)
    }

    fn node(&self, node_ref: NodeRef) -> Option<&CrawlNode<F>> {
        let NodeRef::Crawl(index) = node_ref else { return None };
        self.nodes.get(index as usize)
    }

    /// A target in a bucket of a node, if the family knows one, or a node there is known.
    fn target_in(&self, node: &F::Node, bucket: u16) -> Option<F::Target> {
        let (bucket, bits) = (u32::from(bucket), u32::from(bucket) + 1);
        let point = F::key(node).with_flipped(bucket);
        let Some(targets) = &self.targets else { return self.local.family.target_near(point, bits) };
        let (first, last) = (point.spliced(bits, &F::Key::ZERO), point.spliced(bits, &F::Key::ONES));
        let above = targets.range(point..=last).next();
        let (_, there) = above.or_else(|| targets.range(first..point).next_back())?;
        self.nodes.get(*there as usize).and_then(|known| F::target_of(&known.node))
    }

    /// What to ask a node next: the bucket, and whether the node is asked about itself because no target in it is
    /// known. `None` if nothing is left to ask.
    fn next_question(&self, known: &CrawlNode<F>) -> Option<(u16, bool)> {
        (known.next_bucket..self.buckets).find_map(|bucket| {
            let has_target = self.target_in(&known.node, bucket).is_some();
            (has_target || !known.asked_itself).then_some((bucket, !has_target))
        })
    }

    /// How many requests in a row without an answer are enough to give up a node: so many that among all nodes known
    /// [`GIVEN_UP_WRONGLY`] are expected to have lost as many by chance.
    fn enough_failures(&self) -> u32 {
        let max = self.config.max_failures;
        // The share of lost requests, in parts of 2^32: as if one of twenty had been lost before.
        let misses = (self.known_misses + 1).min(1 << 31);
        let share = (misses << 32) / (self.known_requests + 20).max(misses);
        let mut wrong = (u128::from(self.counts.nodes) * GIVEN_UP_WRONGLY) << 32;
        for failures in 1..max {
            wrong = (wrong * u128::from(share)) >> 32;
            if wrong <= 1 << 32 && failures >= 2 {
                return failures;
            }
        }
        max
    }

    /// A request to a node has ended: the node is ready for its next, or done.
    fn request_ended(&mut self, index: u32) {
        self.pending -= 1;
        let Some(known) = self.nodes.get(index as usize) else { return };
        let is_given_up = known.failures > 0 && known.failures >= self.enough_failures();
        if !is_given_up && self.next_question(known).is_some() {
            self.ready.push_back(index);
            return;
        }
        let Some(known) = self.nodes.get_mut(index as usize) else { return };
        known.is_done = true;
        self.counts.unreachable += u32::from(known.answered == 0);
        self.counts.unsure += u32::from(is_given_up && known.answered > 0);
    }
}

impl<F: Family> Task<F> for CrawlTask<F> {
    type Progress = CrawlProgress<F>;
    type Finish = CrawlFinish<F>;

    fn begin(&mut self, _now: Instant, _deadline: Instant) {
        for node in core::mem::take(&mut self.seeds) {
            self.find_or_add(&node, 1);
        }
    }

    fn next(&mut self, _now: Instant) -> TaskStep<F> {
        if self.pending < self.config.max_in_flight
            && let Some(index) = self.ready.pop_front()
            && let Some((bucket, itself)) =
                self.nodes.get(index as usize).and_then(|known| self.next_question(known))
            && let Some(known) = self.nodes.get_mut(index as usize)
        {
            (known.bucket, known.next_bucket, known.asks_itself) = (bucket, bucket + 1, itself);
            known.asked_itself |= itself;
            // A node that has failed is asked the same again.
            known.asked += u16::from(known.failures == 0);
            known.tries += 1;
            self.pending += 1;
            let (node_ref, node, hop) = (NodeRef::Crawl(index), known.node.clone(), known.hop);
            let until = Instant::FAR_FUTURE;
            return TaskStep::Ask {
                node_ref,
                node,
                hop,
                attempt: Attempt::First,
                no_soft_limit: true,
                until,
            };
        }
        if self.pending > 0 {
            return TaskStep::Wait;
        }
        TaskStep::Done(match (self.is_full, self.counts.unsure) {
            (true, _) => Outcome::NodeLimit,
            (false, 0) => Outcome::Complete,
            (false, _) => Outcome::Unsure,
        })
    }

    fn take_back(&mut self, node_ref: NodeRef) {
        self.withdrawn(node_ref);
        if let NodeRef::Crawl(index) = node_ref {
            self.ready.push_front(index);
        }
    }

    fn ask(&mut self, node_ref: NodeRef, node: &F::Node) -> (F::Target, Ask<F>) {
        let bucket = self.node(node_ref).filter(|known| !known.asks_itself).map(|known| known.bucket);
        let target = bucket.and_then(|bucket| self.target_in(node, bucket));
        (target.unwrap_or_else(|| self.local.target_of(node)), Ask::FindCloser)
    }

    fn answered(&mut self, node_ref: NodeRef, _: &F::Node, elapsed: Duration, answer: &mut Answer<F>) -> u8 {
        let NodeRef::Crawl(index) = node_ref else { return 0 };
        let Some(known) = self.nodes.get_mut(index as usize) else { return 0 };
        if known.answered == 0 {
            known.micros = u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX);
            self.counts.reachable += 1;
        } else {
            self.known_requests += 1;
        }
        known.answered += 1;
        known.failures = 0;
        let hop = known.hop.saturating_add(1);
        let most = self.config.max_closer_nodes;
        self.counts.left_out += answer.closer.len().saturating_sub(most) as u64;
        for node in answer.closer.iter().take(most) {
            let Some(named) = self.find_or_add(node, hop).filter(|named| *named != index) else { continue };
            let edge = u64::from(index) << 32 | u64::from(named);
            if self.edges.len() < self.config.max_edges {
                self.counts.edges += u32::from(self.edges.insert(edge));
            } else {
                let is_left_out = !self.edges.contains(&edge);
                self.counts.left_out += u64::from(is_left_out);
                self.is_full |= is_left_out;
            }
        }
        self.request_ended(index);
        0
    }

    fn missed(&mut self, node_ref: NodeRef, _miss: NoAnswer) {
        if let NodeRef::Crawl(index) = node_ref
            && let Some(known) = self.nodes.get_mut(index as usize)
        {
            known.failures += 1;
            // A lost message does not mean a dead node: it is asked the same again, after those that are ready.
            known.next_bucket = known.bucket;
            known.asked_itself &= !known.asks_itself;
            let has_answered = u64::from(known.answered > 0);
            self.known_requests += has_answered;
            self.known_misses += has_answered;
            self.request_ended(index);
        }
    }

    fn withdrawn(&mut self, node_ref: NodeRef) {
        if let NodeRef::Crawl(index) = node_ref
            && let Some(known) = self.nodes.get_mut(index as usize)
        {
            known.asked -= u16::from(known.failures == 0);
            known.tries -= 1;
            known.next_bucket = known.bucket;
            known.asked_itself &= !known.asks_itself;
            self.pending -= 1;
        }
    }

    fn slow(&mut self, _node_ref: NodeRef, _may_repeat: bool) {}

    fn work(&self) -> Work {
        Work { kind: WorkKind::Crawl, size: 0 }
    }

    fn is_crawl(&self) -> bool {
        true
    }

    fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node)) {
        self.seeds.iter().chain(self.nodes.iter().map(|known| &known.node)).for_each(visit);
    }

    fn progress(&self, request: Progress<F>, _node_ref: NodeRef) -> CrawlProgress<F> {
        CrawlProgress { request, counts: self.counts }
    }

    #[allow(clippy::cast_possible_truncation)] // the two halves of a number
    fn finish(self, end: OperationEnd) -> CrawlFinish<F> {
        let OperationEnd { operation, outcome, stats } = end;
        let crawled = |known: CrawlNode<F>| Crawled {
            reach: match (known.answered > 0, known.is_done) {
                (true, _) => Reach::Reachable,
                (false, true) => Reach::Unreachable,
                (false, false) => Reach::Unknown,
            },
            hop: u32::from(known.hop),
            asked: u32::from(known.asked),
            requests: u32::from(known.tries),
            answered: u32::from(known.answered),
            round_trip: (known.answered > 0).then(|| Duration::from_micros(u64::from(known.micros))),
            node: known.node,
        };
        let mut edges: Vec<_> =
            self.edges.into_iter().map(|edge| ((edge >> 32) as u32, edge as u32)).collect();
        edges.sort_unstable();
        let nodes = self.nodes.into_iter().map(crawled).collect();
        CrawlFinish { operation, outcome, nodes, edges, counts: self.counts, stats }
    }

    fn found(_: &mut CrawlFinish<F>) -> Option<Found<'_, F>> {
        None
    }
}
