//! The parts that the events of all kinds of operations have in common.

use crate::coordinator::events::{Inbound, Outbound};
use crate::testing::request_in_flight::RequestInFlight;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::OperationId;
use crate::vocabulary::operation_events::{OperationStats, Outcome, Progress};
use crate::vocabulary::request_events::RequestOutcome;

/// The part of a progress event that is common to all kinds.
pub(super) fn progress_of<F: Family>(event: &Outbound<F>) -> Option<&Progress<F>> {
    match event {
        Outbound::Progress(progress) => Some(progress),
        Outbound::CrawlProgress(progress) => Some(&progress.request),
        Outbound::BroadcastProgress(progress) => Some(&progress.request),
        _ => None,
    }
}

/// The part of a finish event that is common to all kinds.
pub(super) fn finish_of<F: Family>(event: &Outbound<F>) -> Option<(OperationId, Outcome, OperationStats)> {
    match event {
        Outbound::Finished(finish) => Some((finish.operation, finish.outcome, finish.stats)),
        Outbound::CrawlFinished(finish) => Some((finish.operation, finish.outcome, finish.stats)),
        Outbound::BroadcastFinished(finish) => Some((finish.operation, finish.outcome, finish.stats)),
        _ => None,
    }
}

/// The outcome of this request that an inbound event reports; `None` for a part of its answer.
pub(super) fn outcome_of<F: Family>(
    event: &Inbound<F>,
    sent: &RequestInFlight<F>,
) -> Option<RequestOutcome<F>> {
    let Inbound::Response(response) = event else { return None };
    match &response.result {
        Ok(answer) if answer.is_part => None,
        Ok(answer) => Some(RequestOutcome::Answered { closer: sent.all_named(&answer.closer) }),
        Err(failure) => Some(failure.clone().into()),
    }
}
