//! What holds between calls: the routing table, turns, sums, limits, and the wake-up.

use super::matter::Timer;
use super::net::{Net, Peer};
use super::subject::{Out, Subject};
use super::{Call, Ledger};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::{Bits, Instant, Stamped, Traffic};
use std::collections::BTreeSet;

impl<const N: usize> Ledger<N> {
    /// Rule 4: what happens to the routing table is nobody's child and has no deadline.
    pub(super) fn side_effects<S: Subject<N>>(&mut self, machine: &S, call: &Call<'_, N>, out: &[Out<N>]) {
        let Some(table) = machine.table() else { return };
        let is_effect = |out: &&Out<N>| matches!(out.event, Outbound::Admitted(_) | Outbound::Removed(_));
        let effects: Vec<_> = out.iter().filter(is_effect).cloned().collect();
        let node = |record: &kad_proto::table::Record<Net<N>>| *record.node();
        let (held, members): (BTreeSet<Peer<N>>, _) =
            (table.iter().map(node).collect(), self.members.iter().copied().collect());
        assert_eq!(held, members, "table: as the side effects say");
        if self.untended {
            let events = |of: &[Out<N>]| of.iter().map(|out| out.event.clone()).collect::<Vec<_>>();
            assert_eq!(events(&effects), events(&call.effects), "table: as the events say");
            assert!(
                call.vague || effects == call.effects,
                "context 4: side effects, linked to what led to them: {effects:?}, {:?}",
                call.effects
            );
            assert_eq!(table.len(), self.table.len(), "table: as the side effects say");
            let nodes = table.iter().zip(self.table.iter());
            assert!({ nodes }.all(|(is, should)| is == should), "table: as the events say");
        }
        for effect in effects {
            self.count(if matches!(effect.event, Outbound::Admitted(_)) { "admitted" } else { "removed" });
        }
    }

    /// Those that wait take their turn, earliest deadline first, then in order of arrival: when time has run, before
    /// a start is looked at, and at the end of the call.
    pub(super) fn take_turns(&mut self, call: &mut Call<'_, N>) {
        let running = self.operations.values().filter(|op| op.running).count();
        let mut waiting: Vec<_> = self.operations.values_mut().filter(|op| !op.running).collect();
        waiting.sort_by_key(|op| (op.deadline, op.arrival));
        let turns = self.config.pool.max_running - running;
        let next = waiting.get(turns).map(|op| (op.deadline, op.arrival));
        for op in waiting.into_iter().take(turns) {
            op.running = true;
            op.begin(call.now);
        }
        for brief in call.brief.drain(..) {
            assert!(next.is_none_or(|next| brief < next), "pool: takes turns in order of deadline");
        }
    }

    /// Only those whose turn it is have sent requests.
    pub(super) fn turns<S: Subject<N>>(&mut self, out: &[Out<N>], machine: &S) {
        let running = self.operations.values().filter(|op| op.running).count();
        if let Some(counts) = machine.counts() {
            assert_eq!(counts, (self.operations.len(), running), "pool: operations that live and that run");
        }
        for stamped in out {
            if let Outbound::Request(request) = &stamped.event
                && let Some(id) = request.owner.operation()
                && let Some(op) = self.operations.get(&id)
            {
                assert!(op.running, "pool: takes turns in order of deadline, then of arrival");
            }
        }
        if running < self.operations.len() {
            self.count("waits for its turn");
        }
    }

    /// What holds between calls.
    pub(super) fn after<S: Subject<N>>(&mut self, machine: &S) {
        let traffic = machine.traffic();
        let sum =
            traffic.answered + traffic.failed + traffic.timed_out + traffic.cancelled + traffic.in_flight;
        assert_eq!(
            traffic.sent, sum,
            "deadline 5: sent = answered + failed + timed out + cancelled + in flight"
        );
        let queued = traffic.queued;
        assert_eq!(Traffic { queued: 0, ..traffic }, self.traffic, "deadline 5: traffic, as the events say");
        assert!(queued <= self.config.network.max_queued as u64, "network: requests that wait");
        assert!(
            queued == 0 || !self.operations.is_empty() || !self.asides.is_empty() || !self.untended,
            "deadline 7: nothing of an operation after its finish waits"
        );
        if queued > 0 {
            self.count("queued");
        }
        for (_, sent) in &self.requests {
            assert!(sent.deadline > self.now, "deadline 3: timed out in the first call at its deadline");
        }
        // Whether any request could be sent.
        let open = queued == 0 && self.requests.len() < self.config.network.max_in_flight;
        let busy = self.busy();
        self.settle_asides(queued);
        for op in self.operations.values() {
            assert!(op.deadline > self.now, "deadline 2: ends in the first call at its deadline");
            if open && op.running {
                op.matter.restless(self.now, &busy);
            }
        }
        self.wake(machine);
    }

    /// The wake-up is exact: a tick one nanosecond earlier does nothing, and at it does something.
    fn wake<S: Subject<N>>(&self, machine: &S) {
        let deadlines = self.operations.values().map(|op| op.deadline);
        let timers = self.requests.iter().flat_map(|(_, sent)| {
            [sent.soft.filter(|soft| *soft > self.now), Some(sent.deadline)].into_iter().flatten()
        });
        // An aside of which nothing is in flight may be over.
        let in_doubt = |id: &_| !self.requests.iter().any(|(_, sent)| sent.aside == Some(*id));
        let asides = || self.asides.iter().filter(|(id, _)| !in_doubt(id)).map(|(_, op)| op);
        let own = |op: &super::Op<N>| if op.running { op.matter.timer() } else { Timer::None };
        let timed: Vec<_> = self.operations.values().chain(asides()).map(own).collect();
        let own = timed.iter().filter_map(|timer| if let Timer::At(at) = timer { Some(*at) } else { None });
        let asides = asides().map(|op| op.deadline);
        let doubt = self.asides.keys().any(in_doubt) || timed.iter().any(|at| matches!(at, Timer::Maybe(_)));
        let earliest = deadlines.chain(asides).chain(own).chain(timers).min();
        let wake = machine.poll_timeout();
        // Soft limits that are adapted are the machine's own affair.
        let network = &self.config.network;
        if self.untended && !doubt && network.min_timeout >= network.request_timeout {
            assert_eq!(wake, earliest, "wake-up: the earliest of what is due");
        }
        assert!(
            wake.map_or(earliest.is_none(), |at| {
                earliest.map_or(!self.untended || doubt, |earliest| at <= earliest)
            }),
            "wake-up: not later than what is due"
        );
        let Some(at) = wake else { return };
        assert!(at > self.now, "wake-up: what was due is done");
        let mut early = machine.clone();
        let out = early.handle(Instant::from_nanos(at.as_nanos() - 1), Stamped::new(Inbound::Tick));
        assert_eq!(out, [], "wake-up: a nanosecond earlier there is nothing to do");
        assert_eq!(
            (early.poll_timeout(), early.traffic()),
            (wake, machine.traffic()),
            "wake-up: a nanosecond earlier"
        );
        let mut due = machine.clone();
        let out = due.handle(at, Stamped::new(Inbound::Tick));
        assert!(!out.is_empty() || due.poll_timeout() != wake, "wake-up: there is something to do");
    }

    /// The nodes to which no further request may be in flight.
    pub(super) fn busy(&self) -> Vec<Bits<N>> {
        let keys = self.requests.iter().map(|(_, sent)| sent.node.key);
        let to = |key| keys.clone().filter(|other| *other == key).count();
        keys.clone().filter(|key| to(*key) >= self.config.network.max_per_node).collect()
    }
}
