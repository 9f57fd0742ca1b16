//! What holds after every call: the table agrees with the events, operations run in order of deadline, counters
//! add up, limits are kept, and the wake-up is exact.

use super::machine_under_test::{MachineUnderTest, Out};
use super::operation_model::Timer;
use super::test_family::{Net, Peer};
use super::{CheckedCall, ContractChecker};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::{Bits, Instant, RoutingOutbound, Stamped};
use std::collections::BTreeSet;

impl<const N: usize> ContractChecker<N> {
    /// Checks the routing table against its events. Rule 4: a change of the table has a link and no deadline.
    pub(super) fn check_table<S: MachineUnderTest<N>>(
        &mut self,
        machine: &S,
        call: &CheckedCall<'_, N>,
        out: &[Out<N>],
    ) {
        let Some(table) = machine.table() else { return };
        let is_effect = |out: &&Out<N>| {
            matches!(
                out.event,
                Outbound::Routing(RoutingOutbound::Admitted(_))
                    | Outbound::Routing(RoutingOutbound::Removed(_))
            )
        };
        let effects: Vec<_> = out.iter().filter(is_effect).cloned().collect();
        let node = |record: &kad_proto::routing::table::TableEntry<Net<N>>| *record.node();
        let (held, members): (BTreeSet<Peer<N>>, _) =
            (table.iter().map(node).collect(), self.members.iter().copied().collect());
        assert_eq!(held, members, "table: agrees with Admitted and Removed");
        if self.maintenance_off {
            let events = |of: &[Out<N>]| of.iter().map(|out| out.event.clone()).collect::<Vec<_>>();
            assert_eq!(events(&effects), events(&call.effects), "table: agrees with the inbound events");
            assert!(
                call.cause_ambiguous || effects == call.effects,
                "context 4: table changes link to the event that caused them: {effects:?}, {:?}",
                call.effects
            );
            assert_eq!(table.len(), self.table.len(), "table: agrees with Admitted and Removed");
            let nodes = table.iter().zip(self.table.iter());
            assert!({ nodes }.all(|(is, should)| is == should), "table: agrees with the inbound events");
        }
        for effect in effects {
            self.count(if matches!(effect.event, Outbound::Routing(RoutingOutbound::Admitted(_))) {
                "admitted"
            } else {
                "removed"
            });
        }
    }

    /// Lets waiting operations run, earliest deadline first, then in order of arrival. This happens when time has
    /// passed, before a start is handled, and at the end of the call.
    pub(super) fn start_waiting(&mut self, call: &mut CheckedCall<'_, N>) {
        let running = self.operations.values().filter(|op| op.running).count();
        let mut waiting: Vec<_> = self.operations.values_mut().filter(|op| !op.running).collect();
        waiting.sort_by_key(|op| (op.deadline, op.arrival));
        let free_slots = self.config.pool.max_running - running;
        let next = waiting.get(free_slots).map(|op| (op.deadline, op.arrival));
        for op in waiting.into_iter().take(free_slots) {
            op.running = true;
            op.begin(call.now);
        }
        for ran_and_ended in call.ran_and_ended.drain(..) {
            assert!(
                next.is_none_or(|next| ran_and_ended < next),
                "pool: operations run in order of deadline"
            );
        }
    }

    /// Checks that only running operations have sent requests.
    pub(super) fn check_running<S: MachineUnderTest<N>>(&mut self, out: &[Out<N>], machine: &S) {
        let running = self.operations.values().filter(|op| op.running).count();
        if let Some(counts) = machine.counts() {
            assert_eq!(
                counts,
                (self.operations.len(), running),
                "pool: numbers of live and running operations"
            );
        }
        for stamped in out {
            if let Outbound::Request(request) = &stamped.event
                && let Some(id) = request.initiator.operation()
                && let Some(op) = self.operations.get(&id)
            {
                assert!(op.running, "pool: operations run in order of deadline, then of arrival");
            }
        }
        if running < self.operations.len() {
            self.count("waits for a place to run");
        }
    }

    /// Checks what holds between calls.
    pub(super) fn check_between_calls<S: MachineUnderTest<N>>(&mut self, machine: &S) {
        let request_stats = machine.request_stats();
        let sum = request_stats.answered
            + request_stats.failed
            + request_stats.timed_out
            + request_stats.cancelled
            + request_stats.in_flight;
        assert_eq!(
            request_stats.sent, sum,
            "deadline 5: sent = answered + failed + timed out + cancelled + in flight"
        );
        let queued = request_stats.queued;
        let mut from_events = self.request_stats;
        from_events.queued = queued; // no event tells of it
        assert_eq!(request_stats, from_events, "deadline 5: the counters agree with the events");
        assert!(queued <= self.config.network.max_queued as u64, "network: at most max_queued requests wait");
        assert!(
            queued == 0
                || !self.operations.is_empty()
                || !self.background.is_empty()
                || !self.maintenance_off,
            "deadline 7: no request of an operation waits after its finish"
        );
        if queued > 0 {
            self.count("queued");
        }
        for (_, sent) in &self.requests {
            assert!(
                sent.deadline > self.now,
                "deadline 3: a request times out in the first call at its deadline"
            );
        }
        // Whether any request could be sent.
        let open = queued == 0 && self.requests.len() < self.config.network.max_in_flight;
        let busy = self.busy_nodes();
        self.check_background(queued);
        for op in self.operations.values() {
            assert!(
                op.deadline > self.now,
                "deadline 2: an operation ends in the first call at its deadline"
            );
            if open && op.running {
                op.model.assert_not_idle(self.now, &busy);
            }
        }
        self.check_wake_up(machine);
    }

    /// The wake-up is exact: a tick one nanosecond earlier does nothing, and one at that time does something.
    fn check_wake_up<S: MachineUnderTest<N>>(&self, machine: &S) {
        let deadlines = self.operations.values().map(|op| op.deadline);
        let timers = self.requests.iter().flat_map(|(_, sent)| {
            [sent.soft.filter(|soft| *soft > self.now), Some(sent.deadline)].into_iter().flatten()
        });
        // A background operation with nothing in flight may have ended.
        let in_doubt = |id: &_| !self.requests.iter().any(|(_, sent)| sent.background_of == Some(*id));
        let background = || self.background.iter().filter(|(id, _)| !in_doubt(id)).map(|(_, op)| op);
        let own = |op: &super::TrackedOperation<N>| if op.running { op.model.timer() } else { Timer::None };
        let timed: Vec<_> = self.operations.values().chain(background()).map(own).collect();
        let own = timed.iter().filter_map(|timer| if let Timer::At(at) = timer { Some(*at) } else { None });
        let background = background().map(|op| op.deadline);
        let doubt =
            self.background.keys().any(in_doubt) || timed.iter().any(|at| matches!(at, Timer::Maybe(_)));
        let earliest = deadlines.chain(background).chain(own).chain(timers).min();
        let wake = machine.poll_timeout();
        // Adapted soft limits are not modelled.
        let network = &self.config.network;
        if self.maintenance_off && !doubt && network.min_timeout >= network.request_timeout {
            assert_eq!(wake, earliest, "wake-up: exactly the earliest due time");
        }
        assert!(
            wake.map_or(earliest.is_none(), |at| {
                earliest.map_or(!self.maintenance_off || doubt, |earliest| at <= earliest)
            }),
            "wake-up: not later than the earliest due time"
        );
        let Some(at) = wake else { return };
        assert!(at > self.now, "wake-up: in the future, as everything due is done");
        let mut early = machine.clone();
        let out = early.handle(Instant::from_nanos(at.as_nanos() - 1), Stamped::new(Inbound::Tick));
        assert_eq!(out, [], "wake-up: a nanosecond earlier nothing happens");
        assert_eq!(
            (early.poll_timeout(), early.request_stats()),
            (wake, machine.request_stats()),
            "wake-up: a nanosecond earlier nothing changes"
        );
        let mut due = machine.clone();
        let out = due.handle(at, Stamped::new(Inbound::Tick));
        assert!(!out.is_empty() || due.poll_timeout() != wake, "wake-up: a tick at that time has an effect");
    }

    /// The nodes that have as many requests in flight as the limit allows.
    pub(super) fn busy_nodes(&self) -> Vec<Bits<N>> {
        let keys = self.requests.iter().map(|(_, sent)| sent.node.key);
        let to = |key| keys.clone().filter(|other| *other == key).count();
        keys.clone().filter(|key| to(*key) >= self.config.network.max_per_node).collect()
    }
}
