//! The deadline rules: until when operations and requests live, and how they end.
//!
//! | rule | definition |
//! | --- | --- |
//! | 1. Bounded | An operation's deadline is the earlier of the deadline that its start asked for and `now` + the configured timeout. |
//! | 2. It ends | In the first call with `now >= deadline` the operation ends, with the results that it has by then. |
//! | 3. Inherited | A request's deadline is the earlier of its operation's deadline and `now` + the request timeout. A request that would have no time left is not sent. |
//! | 4. Limits before it | After its soft limit a request no longer occupies a concurrency slot of its operation. After its patience its node counts as silent for the operation, and it takes no place in flight. An answer is accepted until the request's deadline, and counts in full. How long these are follows from [observed round trips](crate::requests). |
//! | 5. One cancel | Every request that was sent and then times out or is no longer needed yields exactly one cancel. No cancel follows the answer to a request. After every call: sent = answered + failed + timed out + cancelled + in flight. |
//! | 6. No blame | A request that is cancelled because its operation ended is no evidence against the node. A request that ran into its own timeout is: it counts as a failure of the node. |
//! | 7. One finish | Every accepted start is followed by exactly one finish, the last event of its operation. If a lookup ends by itself, requests past their soft limit go on as side effects: they are listened to until their own deadlines, and their cancels are those of the [background](crate::Initiator::Background). Every other start is answered by exactly one refusal, which names the reason. |
//! | 8. Shares | A broadcast reserves the end of its time for storing: the configured time, at most a tenth of its whole time; a sweep reserves half of its time, as it stores with many nodes. If the lookup has not ended by then, the record is stored with the closest nodes that have answered so far; and in the [region](crate::BroadcastConfig::regions) of its key also with nodes that are known and have not answered, unless [`store_before_response`](crate::BroadcastConfig::store_before_response) is off. |
//! | 9. Stop | An operation that the caller stops ends in the same way as at its deadline, with another outcome. |
//!
//! **Time runs before the event**: a call `handle(now, event)` first does everything that was due by `now`, and
//! what follows from that, and only then handles the event: it is equivalent to a tick at `now` followed by the
//! event. An answer that is submitted at or after its request's deadline is therefore late, in whatever order the
//! caller's timers fire.

use crate::vocabulary::time::{Instant, nanos};
use core::time::Duration;

/// The deadline of an operation that is accepted at `now` (rule 1); `None` if no time is left. `asked` is the
/// deadline of the start, if it has one.
pub(crate) fn of_operation(now: Instant, asked: Option<Instant>, timeout: Duration) -> Option<Instant> {
    let latest = now + timeout;
    Some(asked.map_or(latest, |asked| asked.min(latest))).filter(|deadline| *deadline > now)
}

/// The deadline of a request that is made at `now`, with a `timeout` in nanoseconds, for an operation whose
/// deadline is `operation` (rule 3); `None` if no time is left.
pub(crate) fn of_request(now: Instant, operation: Instant, timeout: u64) -> Option<Instant> {
    Some(operation.min(now.plus(timeout))).filter(|deadline| *deadline > now)
}

/// The deadline of the lookup of a broadcast that ends at `deadline` (rule 8); `None` if no time is left for a
/// lookup. At least 1 ns is reserved for storing.
pub(crate) fn of_lookup(now: Instant, deadline: Instant, store_reserve: Duration) -> Option<Instant> {
    let left = nanos(deadline - now);
    let reserved = nanos(store_reserve).min(left / 10).max(1);
    Some(now.plus(left.saturating_sub(reserved))).filter(|until| *until > now)
}

/// The deadline of the lookups of a sweep that ends at `deadline` (rule 8); `None` if no time is left for them.
pub(crate) fn of_sweep(now: Instant, deadline: Instant) -> Option<Instant> {
    Some(now.plus(nanos(deadline - now) / 2)).filter(|until| *until > now)
}

/// The latest time seen. Each machine has one, so that time never runs backwards inside it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MonotonicClock(Instant);

impl MonotonicClock {
    /// Records a clock reading and returns the latest one so far: a `now` that is earlier than that is replaced by
    /// it.
    pub(crate) fn advance(&mut self, now: Instant) -> Instant {
        self.0 = self.0.max(now);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn the_earlier_of_both_and_never_now() {
        let at = Instant::from_millis;
        assert_eq!(of_operation(at(500), None, S), Some(at(1_500)));
        assert_eq!(of_operation(at(500), Some(at(700)), S), Some(at(700)));
        assert_eq!(of_operation(at(500), Some(at(9_000)), S), Some(at(1_500)));
        assert_eq!(of_operation(at(500), Some(at(500)), S), None);
        assert_eq!(of_operation(Instant::FAR_FUTURE, None, S), None);
        assert_eq!(of_request(at(500), at(600), 1_000_000_000), Some(at(600)));
        assert_eq!(of_request(at(500), at(9_000), 1_000_000_000), Some(at(1_500)));
        assert_eq!(of_request(at(500), at(500), 1_000_000_000), None);
    }

    #[test]
    fn stores_have_their_share() {
        let at = Instant::from_millis;
        assert_eq!(of_lookup(at(500), at(60_500), S), Some(at(59_500)));
        assert_eq!(of_lookup(at(500), at(5_500), S), Some(at(5_000)), "a tenth");
        let few = Instant::from_nanos;
        assert_eq!(of_lookup(few(5), few(7), S), Some(few(6)));
        assert_eq!(of_lookup(few(5), few(6), S), None);
        assert_eq!(of_lookup(few(6), few(5), S), None);
        assert_eq!((of_sweep(few(5), few(9)), of_sweep(few(5), few(6))), (Some(few(7)), None));
    }

    #[test]
    fn time_never_runs_backwards() {
        let mut clock = MonotonicClock::default();
        assert_eq!(clock.advance(Instant::from_nanos(5)), Instant::from_nanos(5));
        assert_eq!(clock.advance(Instant::from_nanos(3)), Instant::from_nanos(5));
    }
}
