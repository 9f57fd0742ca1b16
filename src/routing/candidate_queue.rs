//! [`CandidateQueue`]: candidates that wait for a check before they may enter the routing table, and those being
//! checked. Who waits, and who goes first, is [`CandidateList`]'s; when checks begin and end, this file's.

use crate::collections::seeded_hash::SeededHash;
use crate::requests::call_context::CallContext;
use crate::requests::purpose::{Purpose, ReleasedCheck};
use crate::requests::request_queue::{Ending, PendingRequest};
use crate::routing::candidate_list::{Candidate, CandidateList, IncludeCounts, Origin};
use crate::routing::failed_checks::FailedChecks;
use crate::routing::liveness_check::LivenessChecks;
use crate::vocabulary::config_error::{ConfigError, require};
use crate::vocabulary::family::Family;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::outbound::EmitsRequests;
use crate::vocabulary::request_events::Initiator;
use crate::vocabulary::secret::Seeds;
use crate::vocabulary::time::Instant;
use core::time::Duration;
use opentelemetry::trace::SpanContext;

/// For each slot: how many checks that are past their soft limit are listened to.
const LISTENED_TO_PER_SLOT: usize = 8;

/// How candidates are checked.
///
/// Memory: at most `max_queued + 9 * max_in_flight` candidates, each a node id, a key, a span context and some 100 bytes;
/// and for at most `max_failed` failed checks a node id, two keys and some 40 bytes each.
///
/// # Shares
///
/// Whoever makes nodes known has a share of the queue, so that no flood of names keeps others out:
///
/// | candidates | share of `max_queued` | what goes first | without room |
/// | --- | --- | --- | --- |
/// | named by answers | five eighths, at least; half of that for those that one source, a [group](Family::group) or a node, has named | those named by two sources, then in order of arrival | dropped; but the oldest gives way if its source has more |
/// | known by their own contact only | a quarter, at most 64; four of one group, two with one key | a random one | a random one gives way, of the same group or key if that has its part |
/// | [claimants](crate::routing#identity), while their key is held | an eighth, at most 32; two with one key | the holder of the key is checked; when the key is free, they go before all others | a random one gives way |
///
/// What answers name that were only given because their node had made contact counts as named by one and the same source.
///
/// # How long a node waits that nobody else names
///
/// If c contacts a second come from nodes that are not in the table, and from made-up ones, and one check may begin in each
/// [`unsolicited_interval`](Self::unsolicited_interval), a contact leads to a check with a probability of
/// about 1 / (c * `unsolicited_interval`), or at once if that is more than one. It is the same for all contacts, so a node that makes contact every minute is checked within c * `unsolicited_interval` minutes on average: in
/// 20 minutes under a flood of 100 a second. Where the sender of a contact cannot be spoofed, a flood from g groups takes at
/// most 4 g places of the share, and honest nodes have the others to themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct IncludeConfig {
    /// The maximum number of checks in flight before their soft limit. One that is not answered by then gives its place
    /// to the next; until its deadline, its answer counts in full all the same. At most 8 times as many are listened to in
    /// this way; with more, a check keeps its place until its deadline. 1 to 1,024. Default: 3.
    pub max_in_flight: usize,
    /// The maximum number of candidates that wait, in [shares](Self#shares); further ones are dropped, and counted. 1 to
    /// 2^16. Default: 128.
    pub max_queued: usize,
    /// The least time from the beginning of one check to the next of nodes that are known only by their own contact
    /// ([`Discovered`](crate::RoutingInbound::Discovered), [`Server`](crate::RoutingInbound::Server)). On some transports,
    /// anybody can make contact in the name of another, and would otherwise decide how many requests this node sends to
    /// that one. Checks of table nodes whose [key is claimed](crate::routing#identity) are counted with them. Zero: no
    /// limit. Default: 200 ms, so 5 checks a second.
    pub unsolicited_interval: Duration,
    /// The maximum duration of a check, including its wait for capacity. Once sent, its request has at most
    /// the network's request time-out. Longer than zero. Default: 10 s.
    pub timeout: Duration,
    /// Backoff: if two checks of a node in a row have failed, it is not checked again for this time when
    /// other nodes name it, because they keep naming a dead node for long. After a single failure there is no
    /// backoff, as a message may have been lost: one that two nodes have named, or that nobody has named but the queue has
    /// room for, is checked once more. A node that contacts this one itself is checked in any case. Longer
    /// than zero. Default: 5 min.
    pub retry_interval: Duration,
    /// The maximum number of failed checks that are remembered; beyond it, the oldest is forgotten. At most
    /// 2^20; 0 is none. Default: 1,024.
    pub max_failed: usize,
}

impl Default for IncludeConfig {
    fn default() -> Self {
        Self {
            max_in_flight: 3,
            max_queued: 128,
            unsolicited_interval: Duration::from_millis(200),
            timeout: Duration::from_secs(10),
            retry_interval: Duration::from_secs(300),
            max_failed: 1_024,
        }
    }
}

impl IncludeConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require((1..=1_024).contains(&self.max_in_flight), "include.max_in_flight", "1 to 1,024")?;
        require((1..=1 << 16).contains(&self.max_queued), "include.max_queued", "1 to 2^16")?;
        require(!self.timeout.is_zero(), "include.timeout", "longer than zero")?;
        require(!self.retry_interval.is_zero(), "include.retry_interval", "longer than zero")?;
        require(self.max_failed <= 1 << 20, "include.max_failed", "at most 2^20")
    }
}

/// The check of a candidate that has ended.
pub(crate) struct EndedCheck<F: Family> {
    pub(crate) candidate: Candidate<F>,
    pub(crate) request: PendingRequest<F, Purpose>,
    /// The candidate is queued for another check.
    pub(crate) again: bool,
}

/// Whether a candidate is to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Check,
    /// It is to be dropped: the table would not admit it.
    Unwanted,
    /// Another node has its key, and is checked now instead.
    Claims,
    /// The same, but that one was heard from so lately that it is not checked before this time.
    Later(Instant),
}

/// Candidates that wait for a check, and those being checked.
#[derive(Clone, Debug)]
pub(crate) struct CandidateQueue<F: Family> {
    checks: LivenessChecks<F>,
    list: CandidateList<F>,
    failures: FailedChecks<F>,
    unsolicited: UnsolicitedChecks,
}

/// The checks of nodes that nobody else has named: how many, and when the next may begin.
#[derive(Clone, Debug)]
struct UnsolicitedChecks {
    interval: Duration,
    /// The next may begin from then on.
    next: Instant,
    in_flight: usize,
    max_in_flight: usize,
    /// The last check to begin was one of them.
    had_turn: bool,
    /// The request queue has refused the request of the next one in this call: it is tried again in the next.
    is_refused: bool,
}

impl<F: Family> CandidateQueue<F> {
    pub(crate) fn new(local: F::Target, config: &IncludeConfig, seeds: &Seeds) -> Result<Self, ConfigError> {
        config.validate()?;
        let max_listening = LISTENED_TO_PER_SLOT * config.max_in_flight;
        let checks = LivenessChecks::new(Initiator::Include, local, config.timeout, config.max_in_flight);
        Ok(Self {
            checks: checks.listening_on(max_listening),
            list: CandidateList::new(config.max_queued, seeds.hash, seeds.choices),
            failures: FailedChecks::new(config.max_failed, config.retry_interval, SeededHash(seeds.hash)),
            unsolicited: UnsolicitedChecks {
                interval: config.unsolicited_interval,
                next: Instant::ORIGIN,
                in_flight: 0,
                max_in_flight: config.max_in_flight.midpoint(max_listening),
                had_turn: false,
                is_refused: false,
            },
        })
    }

    pub(crate) fn counts(&self) -> IncludeCounts {
        IncludeCounts {
            in_flight: self.checks.in_flight() as u64,
            listening: self.checks.listening() as u64,
            queued: self.list.waiting() as u64,
            ..self.list.counts
        }
    }

    /// The node itself was heard from: forgets its failed checks.
    pub(crate) fn forget_failures(&mut self, node: &F::Node) {
        self.failures.forget(node);
    }

    /// This node has another id.
    pub(crate) fn set_own_target(&mut self, target: F::Target) {
        self.checks.set_own_target(target);
    }

    /// Merges what a candidate tells about itself.
    pub(crate) fn told_by_itself(&mut self, node: &F::Node) {
        self.list.told_by_itself(node);
    }

    /// What is known of a candidate.
    pub(crate) fn known(&self, node: &F::Node) -> Option<&F::Node> {
        self.list.known(node)
    }

    /// Drops a candidate that waits.
    pub(crate) fn withdraw(&mut self, node: &F::Node) {
        self.list.withdraw(node);
    }

    /// A node has left the table: whoever claims its key may be checked.
    pub(crate) fn key_freed(&mut self, key: &F::Key) {
        self.list.key_freed(key);
    }

    /// Visits all nodes that the queue holds.
    pub(crate) fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node)) {
        self.list.visit_nodes(visit);
        self.failures.visit_nodes(visit);
    }

    /// Queues a candidate, unless it is queued or being checked already, is in backoff, or there is no room for it.
    pub(crate) fn offer(&mut self, now: Instant, node: &F::Node, link: &SpanContext, origin: Origin) {
        self.list.counts.offered += 1;
        let may_be_kept_out = !matches!(origin, Origin::Contact | Origin::Returning);
        if may_be_kept_out && self.failures.keep_out(now, node) {
            self.list.counts.backed_off += 1;
        } else {
            self.list.offer(node, link, origin);
        }
    }

    /// A node has made contact whose key another one of the table has: that one is to be checked, not before `due`.
    pub(crate) fn claim(&mut self, node: &F::Node, link: &SpanContext, due: Instant) {
        self.list.counts.offered += 1;
        self.list.claim(node, link, due);
    }

    /// As what the nodes count that the answer to a check names: if the check was unsolicited, anybody can have caused
    /// it.
    pub(crate) fn origin_of_answer(&self, slot: u32, answerer: u64) -> Origin {
        let is_unsolicited = self.list.get(slot).is_some_and(Candidate::is_unsolicited);
        if is_unsolicited { Origin::StrangersAnswer } else { Origin::Answer(answerer) }
    }

    /// Whether the check of a candidate that goes first would begin now.
    pub(crate) fn can_begin(&self) -> bool {
        self.checks.has_slot() && !self.list.has_preferred()
    }

    /// Begins checks, at most `most`, and as many as may be in flight. `judge` says whether a candidate is still to be
    /// checked.
    pub(crate) fn advance<E: EmitsRequests<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        mut most: usize,
        mut judge: impl FnMut(&Candidate<F>) -> Verdict,
    ) {
        self.unsolicited.is_refused = false;
        let mut named_refused = false;
        while most > 0
            && self.checks.has_slot()
            && let Some(slot) = self.next_candidate(call.now, named_refused)
            && let Some(candidate) = self.list.get(slot)
        {
            let is_unsolicited = candidate.waits_unsolicited();
            let is_banned = call.requests.is_banned(call.now, &candidate.node);
            match if is_banned { Verdict::Unwanted } else { judge(candidate) } {
                Verdict::Check => {
                    if self.checks.begin(call, slot, &candidate.node, &candidate.link).is_none() {
                        // The others may be accepted: their nodes are not as busy.
                        let refused = if is_unsolicited {
                            &mut self.unsolicited.is_refused
                        } else {
                            &mut named_refused
                        };
                        *refused = true;
                        continue;
                    }
                    self.unsolicited.in_flight += usize::from(candidate.is_unsolicited());
                    self.list.begin(slot);
                    most -= 1;
                }
                Verdict::Claims => self.list.park(slot, call.now, None),
                Verdict::Later(at) => {
                    self.list.park(slot, call.now, Some(at));
                    continue;
                }
                Verdict::Unwanted => {
                    self.list.remove(slot);
                    self.list.counts.unwanted += 1;
                    continue;
                }
            }
            self.unsolicited.had_turn = is_unsolicited;
            if is_unsolicited {
                self.unsolicited.next = call.now + self.unsolicited.interval;
            }
        }
    }

    /// The candidate that is next. Where slots are few, those that nobody else has named and the others take turns.
    fn next_candidate(&mut self, now: Instant, named_refused: bool) -> Option<u32> {
        let named = self.list.first_named().filter(|_| !named_refused);
        let is_due = self.next_unsolicited().is_some_and(|at| at <= now);
        if is_due && (named.is_none() || !self.unsolicited.had_turn) {
            return self.list.next_unsolicited(now);
        }
        named
    }

    /// When the next check may begin of those that nobody else has named.
    fn next_unsolicited(&self) -> Option<Instant> {
        let UnsolicitedChecks { is_refused, in_flight, max_in_flight, .. } = self.unsolicited;
        let from = self.list.unsolicited_from().filter(|_| !is_refused && in_flight < max_in_flight)?;
        Some(from.max(self.unsolicited.next))
    }

    /// When the next check may begin, if it waits only for that. A check that may begin at `FAR_FUTURE` never begins.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.next_unsolicited().filter(|at| self.checks.has_slot() && *at < Instant::FAR_FUTURE)
    }

    /// Emits the request of a check that was queued for capacity.
    pub(crate) fn send<E: EmitsRequests<F>>(
        &self,
        call: &mut CallContext<'_, F, E>,
        released: ReleasedCheck,
    ) {
        let ReleasedCheck { check, request, deadline } = released;
        if let Some(candidate) = self.list.get(check.slot) {
            self.checks.send(call, request, deadline, &candidate.link);
        }
    }

    /// A check is past its soft limit.
    pub(crate) fn slow<E>(&mut self, call: &mut CallContext<'_, F, E>, id: RequestId) {
        self.checks.slow(call, id);
    }

    /// Ends a check. `passed`: it was answered, and the answer names at least one node.
    pub(crate) fn end<E: EmitsRequests<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        slot: u32,
        id: RequestId,
        ending: Ending,
        passed: bool,
    ) -> Option<EndedCheck<F>> {
        let candidate = self.list.remove(slot)?;
        *(if passed { &mut self.list.counts.passed } else { &mut self.list.counts.failed }) += 1;
        self.unsolicited.in_flight -= usize::from(candidate.is_unsolicited());
        let request = self.checks.end(call, id, ending, &candidate.link);
        let mut again = false;
        if candidate.has_news && !passed {
            // It was asked where it is not: it is checked again, where it says that it is.
            self.list.counts.offered += 1;
            again = self.list.offer(&candidate.node, &candidate.link, candidate.origin());
        }
        let request = request?;
        if passed {
            self.failures.forget(&candidate.node);
        } else if request.is_emitted() && !candidate.has_news {
            self.failures.insert(call.now, candidate.node.clone());
            again = ending == Ending::TimedOut && self.list.retry(&candidate);
        }
        Some(EndedCheck { candidate, request, again })
    }
}
