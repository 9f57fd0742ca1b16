//! Until when: the deadline rules, in one place.
//!
//! | rule | what it says |
//! | --- | --- |
//! | 1. Bounded | An operation's deadline is the earlier of what its start asked for and `now` + the configured timeout. |
//! | 2. It ends | At the first call with `now >= deadline` the operation ends, in that call, with what it has found. |
//! | 3. Inherited | A request's deadline is the earlier of its operation's and `now` + the request timeout, as adapted. A request that would have no time left is not sent. |
//! | 4. Soft limit | After it a request no longer occupies a concurrency slot, but is still listened to, until its deadline. |
//! | 5. One cancel | Every request given up yields exactly one cancel; none follows its answer. Sent = answered + failed + timed out + cancelled + in flight, after every call. |
//! | 6. No blame | A request given up because its operation ended says nothing about the node. One that ran into its own timeout does. |
//! | 7. One finish | Every accepted start is answered by one finish, the last event of that operation; every other start by one refusal that says why. |
//! | 8. Shares | A broadcast keeps the end of its time for storing: the configured time, at most a tenth of all; a sweep half of its time, as it has many to store with. Where its lookup has not ended by then, the record is stored with the closest found so far. |
//! | 9. Stop | Stopping by hand is the same path as the deadline, with another outcome. |
//!
//! **Time runs before the event**: a call `handle(now, event)` first does all that was due by `now`, and what
//! follows from that, and only then looks at the event: it is the same as a tick at `now` and then the event. An
//! answer handed in at or after its request's deadline is therefore late, however the caller's timers are ordered.

use crate::time::{Instant, nanos};
use core::time::Duration;

/// The deadline of an operation accepted at `now` (rule 1), or `None` where no time is left.
pub(crate) fn of_operation(now: Instant, asked: Option<Instant>, timeout: Duration) -> Option<Instant> {
    let latest = now + timeout;
    Some(asked.map_or(latest, |asked| asked.min(latest))).filter(|deadline| *deadline > now)
}

/// The deadline of a request made at `now`, with a time-out in nanoseconds, for an operation that ends at `operation`
/// (rule 3), or `None` where no time is left.
pub(crate) fn of_request(now: Instant, operation: Instant, timeout: u64) -> Option<Instant> {
    Some(operation.min(now.plus(timeout))).filter(|deadline| *deadline > now)
}

/// Until when a broadcast that ends at `deadline` looks for nodes (rule 8), or `None` where no time is left for that.
pub(crate) fn of_lookup(now: Instant, deadline: Instant, store_time: Duration) -> Option<Instant> {
    let left = nanos(deadline - now);
    let kept = nanos(store_time).min(left / 10).max(1);
    Some(now.plus(left.saturating_sub(kept))).filter(|until| *until > now)
}

/// The same, of a sweep.
pub(crate) fn of_sweep(now: Instant, deadline: Instant) -> Option<Instant> {
    Some(now.plus(nanos(deadline - now) / 2)).filter(|until| *until > now)
}

/// The latest time seen. Time never runs backwards inside the engine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Takes a reading; an earlier one than the latest seen is treated as the latest.
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
        let mut clock = Clock::default();
        assert_eq!(clock.advance(Instant::from_nanos(5)), Instant::from_nanos(5));
        assert_eq!(clock.advance(Instant::from_nanos(3)), Instant::from_nanos(5));
    }
}
