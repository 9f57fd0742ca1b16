//! The account of a lookup: what holds whatever it was told; the rest is [`Known`].

use super::Sent;
use super::known::Known;
use super::matter::{Asking, Counts, Kind, Matter, Replied};
use super::net::Net;
use kad_proto::coordinator::Outbound;
use kad_proto::{
    Ask, Bits, Config, GivenUp, Instant, Outcome, RefusedBecause, Reply, RequestId, RoutingTable, Start,
};

pub(crate) struct Lookup<const N: usize> {
    local: Bits<N>,
    start: Start<Net<N>>,
    paths: usize,
    known: Known<N>,
    /// Answers that carried a value.
    values: usize,
    /// Requests given up by its end whose nodes may yet have answered.
    abandoned: u32,
}

/// What a lookup's start has to have.
pub(crate) fn objection<const N: usize>(start: &Start<Net<N>>, config: &Config) -> Option<RefusedBecause> {
    let most = config.pool.query.max_candidates;
    if start.num_results.is_some_and(|wanted| !(1..=most).contains(&wanted)) {
        return Some(RefusedBecause::NumResults { most });
    }
    (start.quorum == Some(0)).then_some(RefusedBecause::Quorum)
}

impl<const N: usize> Lookup<N> {
    pub(crate) fn new(
        local: Bits<N>,
        config: &Config,
        start: &Start<Net<N>>,
        table: Option<&RoutingTable<Net<N>>>,
    ) -> Self {
        let query = &config.pool.query;
        let mut start = start.clone();
        let wanted = 2 * query.k.max(start.num_results.unwrap_or(0));
        let nearest = table.into_iter().flat_map(|table| table.closest(start.target).take(wanted));
        let nearest: Vec<_> = nearest.map(|record| *record.node()).collect();
        start.seeds.extend(nearest);
        let known = Known::new(local, start.target, config, &start, &start.seeds);
        Self { local, start, paths: query.paths, known, values: 0, abandoned: 0 }
    }
}

impl<const N: usize> Matter<N> for Lookup<N> {
    fn kind(&self) -> Kind {
        Kind::Lookup
    }

    fn look(&mut self, now: Instant) {
        self.known.look(now);
    }

    fn asks(&mut self, asking: &Asking<'_, N>) -> (bool, Counts) {
        let Asking { now, request, soft, unqueued } = *asking;
        assert_eq!(request.ask, self.start.ask, "a request asks what the start said");
        let first = self.known.asks(now, request, soft, unqueued);
        let mut counts = vec![if request.ask == Ask::FindCloser { "request" } else { "request: message" }];
        counts.extend((!first).then_some("request: again"));
        counts.extend((request.target != self.start.target).then_some("request: of the rim"));
        (first, counts)
    }

    fn answered(&mut self, replied: &Replied<'_, N>) -> Vec<RequestId> {
        let Reply::Answered { closer } = replied.reply else { panic!("answered by {:?}", replied.reply) };
        let value = replied.carried.is_some_and(|carried| carried.value);
        self.values += usize::from(value);
        let Sent { node, hop, .. } = *replied.sent;
        self.known.answered(replied.id, node, replied.elapsed, hop, closer, value)
    }

    fn missed(&mut self, replied: &Replied<'_, N>) -> bool {
        let node = replied.sent.node;
        self.known.missed(replied.id, node, matches!(replied.reply, Reply::TimedOut));
        self.known.is_quiet(&node)
    }

    fn given_up(&mut self, _now: Instant, _id: RequestId, sent: &Sent<N>, reason: GivenUp) {
        assert_eq!(reason, GivenUp::OperationEnded, "a lookup gives up nothing before its end");
        self.abandoned += u32::from(!self.known.has_failed(&sent.node));
    }

    fn progress(&mut self, _now: Instant, event: &Outbound<Net<N>>) -> Counts {
        assert!(matches!(event, Outbound::Progress(_)), "progress of another kind: {event:?}");
        Vec::new()
    }

    fn finish(&mut self, _now: Instant, event: &Outbound<Net<N>>, _in_flight: usize) -> Counts {
        let Outbound::Finished(finish) = event else { panic!("a finish of another kind: {event:?}") };
        assert_eq!(finish.target, self.start.target);
        assert_ne!(finish.outcome, Outcome::Complete, "outcome: not of a lookup");
        assert_eq!(
            finish.outcome == Outcome::Quorum,
            self.start.quorum.is_some_and(|quorum| self.values >= quorum),
            "quorum: ends it with the answer that makes it, and nothing else does"
        );
        self.known.assert_finish(finish.outcome, &finish.closest);
        // At the node limit, a path that has converged does not wait for what it has in flight.
        let waits =
            finish.outcome == Outcome::Exhausted || finish.outcome == Outcome::NodeLimit && self.paths == 1;
        assert!(!waits || self.abandoned == 0, "outcome: {:?} while somebody may yet answer", finish.outcome);
        let exact = self.known.is_exact() && finish.closest.len() > 2;
        exact.then_some("finish: exact account of several results").into_iter().collect()
    }

    fn restless(&self, now: Instant, busy: &[Bits<N>]) {
        self.known.assert_restless(now, busy);
    }

    fn is_bootstrap(&self) -> bool {
        self.start.target == self.local && self.start.ask == Ask::FindCloser
    }
}
