//! What holds after every call: operations run in order of deadline, counters add up, limits are kept, and the
//! wake-up is exact.

use crate::coordinator::events::{Inbound, Outbound};
use crate::requests::stats::RequestStats;
use crate::routing::config::RoutingConfig;
use crate::routing::explore_schedule::Schedule;
use crate::routing::table::RoutingTable;
use crate::testing::broken::{Checked, ensure, ensure_eq};
use crate::testing::checker::{CheckedCall, ContractChecker, TrackedOperation};
use crate::testing::machine_under_test::MachineUnderTest;
use crate::testing::operation_model::Timer;
use crate::testing::request_in_flight::RequestInFlight;
use crate::vocabulary::family::Family;
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::request_events::Initiator;
use crate::vocabulary::time::Instant;
use core::time::Duration;

/// So many wake-ups in a row may say nothing, and twice as many more as a machine has requests, operations and nodes.
const MAX_SILENT: usize = 4;

impl<F: Family> ContractChecker<F> {
    /// Waiting operations have begun in this call, earliest deadline first, then in order of arrival: so many that `running` run
    /// now, as the machine says; or, of a machine that does not say it, all for which there is a place.
    pub(super) fn start_waiting(&mut self, call: &mut CheckedCall<'_, F>, running: Option<usize>) -> Checked {
        let mut begun = core::mem::take(&mut call.ran_and_ended);
        let mut known = 0;
        for op in self.operations.values_mut() {
            ensure!(!op.model.needs_nothing(), "pool: what is done at its start waits for nobody");
            // It has sent requests in this call.
            if op.has_begun && !op.running {
                op.running = true;
                begun.push((op.deadline, op.arrival));
            }
            known += usize::from(op.running);
        }
        let mut waiting: Vec<_> = self.operations.values_mut().filter(|op| !op.running).collect();
        waiting.sort_by_key(|op| (op.deadline, op.arrival));
        let places = running.unwrap_or(self.pool.max_running).saturating_sub(known);
        // One that came in this call did not wait yet when others began by the passing of time.
        let waited = |op: &&TrackedOperation<F>| op.arrival < call.starts_before;
        let next = waiting.iter().skip(places).map(|op| &**op).find(waited);
        let next = next.map(|op| (op.deadline, op.arrival));
        for op in waiting.into_iter().take(places) {
            op.running = true;
            op.begin(call.now)?;
        }
        // Where the machine does not say how many run, one whose first request waits for capacity has begun unseen.
        let is_seen = running.is_some() || call.nothing_queued;
        for begun in begun.into_iter().filter(|_| is_seen) {
            ensure!(next.is_none_or(|next| begun < next), "pool: operations run in order of deadline");
        }
        Ok(())
    }

    /// Checks that only running operations have sent requests.
    pub(super) fn check_running<M: MachineUnderTest<F>>(
        &mut self,
        out: &[Stamped<Outbound<F>>],
        machine: &M,
    ) -> Checked {
        let running = self.operations.values().filter(|op| op.running).count();
        if let Some(counts) = machine.counts() {
            ensure_eq!(
                counts,
                (self.operations.len(), running),
                "pool: numbers of live and running operations"
            );
            let backlogged = running > 0 && machine.request_stats().queued > 0;
            ensure!(
                running == self.operations.len() || running >= self.pool.max_running || backlogged,
                "pool: an operation waits only for a place, or while requests wait"
            );
        }
        for stamped in out {
            if let Outbound::Request(request) = &stamped.event
                && let Some(id) = request.initiator.operation()
                && let Some(op) = self.operations.get(&id)
            {
                ensure!(op.running, "pool: operations run in order of deadline, then of arrival");
            }
        }
        if running < self.operations.len() {
            self.count("waits for a place to run");
        }
        Ok(())
    }

    /// Checks what holds between calls.
    pub(super) fn check_between_calls<M: MachineUnderTest<F>>(&mut self, machine: &M) -> Checked {
        let request_stats = machine.request_stats();
        let RequestStats { sent, answered, failed, timed_out, cancelled, in_flight, .. } = request_stats;
        ensure_eq!(
            sent,
            answered + failed + timed_out + cancelled + in_flight,
            "deadline 5, counters: sent = answered + failed + timed out + cancelled + in flight"
        );
        let queued = request_stats.queued;
        let mut from_events = self.request_stats;
        // No event tells of these.
        (from_events.queued, from_events.listening) = (queued, request_stats.listening);
        ensure_eq!(request_stats, from_events, "deadline 5, counters: they agree with the events");
        let network = &self.config.network;
        let listening = request_stats.listening;
        ensure!(
            in_flight - listening.min(in_flight) <= network.max_in_flight as u64,
            "network: at most max_in_flight requests are awaited, not {in_flight} without {listening}"
        );
        ensure!(listening <= network.max_listening as u64, "network: at most max_listening are listened to");
        let known = self.requests.iter().filter(|(_, sent)| sent.listening.is_some()).count() as u64;
        // Lookups of the maintenance are not followed.
        let all_known = network.is_fixed() && self.maintenance_off;
        ensure!(
            if all_known { known == listening } else { known <= listening },
            "network: {known} requests are listened to after the end of their lookups, not {listening}"
        );
        ensure!(queued <= self.config.network.max_queued as u64, "network: at most max_queued requests wait");
        ensure!(
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
            ensure!(
                sent.deadline > self.now,
                "deadline 3: a request times out in the first call at its deadline"
            );
        }
        // Whether any request could be sent.
        let open = queued == 0 && self.requests.len() < self.config.network.max_in_flight;
        let busy = if self.checks_models { self.busy_nodes() } else { Vec::new() };
        self.check_background(queued, &busy)?;
        for op in self.operations.values() {
            ensure!(
                op.deadline > self.now,
                "deadline 2: an operation ends in the first call at its deadline"
            );
            if open && op.running {
                op.model.check_not_idle(self.now, &busy)?;
            }
        }
        self.check_wake_up(machine)
    }

    /// The next wake-up is in the future and no later than what is due first; where the model knows all times, it
    /// is exactly then.
    fn check_wake_up<M: MachineUnderTest<F>>(&self, machine: &M) -> Checked {
        let deadlines = self.operations.values().map(|op| op.deadline);
        let timers = self.requests.iter().flat_map(|(_, sent)| {
            [sent.soft.filter(|soft| *soft > self.now), Some(sent.deadline)].into_iter().flatten()
        });
        // A background operation with nothing in flight may have ended.
        let in_doubt = |id: &_| !self.requests.iter().any(|(_, sent)| sent.background_of == Some(*id));
        let background = || self.background.iter().filter(|(id, _)| !in_doubt(id)).map(|(_, op)| op);
        let own = |op: &TrackedOperation<F>| if op.running { op.model.timer() } else { Timer::None };
        let timed: Vec<_> = self.operations.values().chain(background()).map(own).collect();
        let own = timed.iter().filter_map(|timer| if let Timer::At(at) = timer { Some(*at) } else { None });
        let background = background().map(|op| op.deadline);
        // The soft limit of a request whose operation is not known may or may not matter.
        let is_unknown = |sent: &RequestInFlight<F>| {
            sent.initiator == Initiator::Background
                && sent.background_of.is_none()
                && sent.listening.is_none()
        };
        let doubt = self.background.keys().any(in_doubt)
            || timed.iter().any(|at| matches!(at, Timer::Maybe(_)))
            || self.requests.iter().any(|(_, sent)| is_unknown(sent));
        let earliest = deadlines.chain(background).chain(own).chain(timers).min();
        let wake = machine.poll_timeout();
        ensure!(
            wake.is_none_or(|at| at > self.now),
            "wake-up: in the future, as everything due is done: at {wake:?}, now {}",
            self.now
        );
        // Adapted soft limits are not modelled.
        let network = &self.config.network;
        if self.maintenance_off && !doubt && network.is_fixed() {
            ensure_eq!(wake, earliest, "wake-up: exactly the earliest due time");
        }
        let Some(wake) = wake else {
            ensure!(earliest.is_none(), "wake-up: none, and something is due at {earliest:?}");
            return Ok(());
        };
        ensure!(
            earliest.map_or(!self.maintenance_off || doubt, |earliest| wake <= earliest),
            "wake-up: at {wake}, later than the earliest due time {earliest:?}"
        );
        Ok(())
    }

    /// A wake-up may say nothing: a soft limit passes, and there is nobody to ask instead. But what the machine has in hand passes so
    /// a few times only, and its maintenance tries again no sooner than it is configured to: it does not wake up on and on. Called
    /// before the new wake-up is noted.
    pub(super) fn check_silence<M: MachineUnderTest<F>>(
        &mut self,
        event: &Stamped<Inbound<F>>,
        outbound: &[Stamped<Outbound<F>>],
        machine: &M,
    ) -> Checked {
        let begins_anew = pace(&self.config.routing).is_some_and(|pace| self.now - self.silent_since >= pace);
        if !matches!(event.event, Inbound::Tick) || !outbound.is_empty() || begins_anew {
            (self.silent_wake_ups, self.silent_since) = (0, self.now);
        }
        if !matches!(event.event, Inbound::Tick) || self.wake.is_none_or(|wake| wake > self.now) {
            return Ok(());
        }
        self.count("wake-up");
        if outbound.is_empty() {
            self.count("wake-up: silent");
            self.silent_wake_ups += 1;
        }
        let queued = usize::try_from(machine.request_stats().queued).unwrap_or(usize::MAX);
        let operations = self.operations.len() + self.background.len();
        let nodes = machine.table().map_or(0, RoutingTable::len);
        let in_hand = self.requests.len().saturating_add(queued).saturating_add(operations + nodes);
        ensure!(
            self.silent_wake_ups <= MAX_SILENT + in_hand.saturating_mul(2),
            "wake-up: {} in a row said nothing, with {in_hand} requests, operations and nodes in hand",
            self.silent_wake_ups
        );
        Ok(())
    }

    /// The wake-up is exact: a tick one nanosecond earlier does nothing, and one at that time does something.
    pub(super) fn check_exact_wake_up<M: MachineUnderTest<F>>(machine: &M) -> Checked {
        let wake = machine.poll_timeout();
        let Some(at) = wake else { return Ok(()) };
        let mut other = machine.clone();
        let before = Instant::from_nanos(at.as_nanos().saturating_sub(1));
        let out = other.handle(before, Stamped::new(Inbound::Tick));
        ensure!(out.is_empty(), "wake-up: a nanosecond earlier nothing happens: {out:?}");
        ensure_eq!(
            (other.poll_timeout(), other.request_stats()),
            (wake, machine.request_stats()),
            "wake-up: a nanosecond earlier nothing changes"
        );
        let out = other.handle(at, Stamped::new(Inbound::Tick));
        ensure!(
            !out.is_empty() || other.poll_timeout() != wake,
            "wake-up: a tick at that time has an effect: at {at}"
        );
        Ok(())
    }

    /// The nodes that have as many requests in flight as the limit allows.
    pub(super) fn busy_nodes(&self) -> Vec<F::Key> {
        let mut keys: Vec<_> = self.requests.iter().map(|(_, sent)| F::key(&sent.node)).collect();
        keys.sort_unstable();
        let same = keys.chunk_by(|a, b| a == b).filter(|same| same.len() >= self.config.network.max_per_node);
        same.filter_map(|same| same.first().copied()).collect()
    }
}

/// How soon the maintenance may try again what did not succeed: the shortest time of its configuration.
fn pace(routing: &RoutingConfig) -> Option<Duration> {
    let bootstrap = routing.bootstrap.as_ref().map(|it| [it.retry_interval, it.return_interval, it.timeout]);
    let include = routing.include.as_ref().map(|it| [it.unsolicited_interval, it.retry_interval, it.timeout]);
    let probe = routing.probe.as_ref().map(|it| [it.interval, it.retry_interval, it.timeout]);
    let explore = routing.explore.as_ref().map(|it| match it.schedule {
        Schedule::Dynamic { interval, .. } => [interval, it.timeout, it.timeout],
        Schedule::NoWait => [it.timeout; 3],
    });
    [bootstrap, include, probe, explore].into_iter().flatten().flatten().filter(|it| !it.is_zero()).min()
}
