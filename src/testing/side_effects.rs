//! The stamps of side effects: context rule 4.

use crate::context::Context;
use crate::coordinator::events::{Inbound, Outbound};
use crate::testing::broken::{Checked, ensure};
use crate::vocabulary::family::Family;
use crate::vocabulary::machine::Stamped;

/// Rule 4: a side effect has a link, no parent.
pub(super) fn check_link<F: Family>(stamped: &Stamped<Outbound<F>>) -> Checked {
    ensure!(
        matches!(stamped.context, Context::Link(_)),
        "context 4: a side effect carries a link, no parent: {stamped:?}"
    );
    Ok(())
}

/// Rule 4: a side effect other than a request has a link, no parent, and no deadline.
pub(super) fn check_detached<F: Family>(stamped: &Stamped<Outbound<F>>) -> Checked {
    check_link(stamped)?;
    ensure!(stamped.deadline.is_none(), "context 4: a side effect has no deadline: {stamped:?}");
    Ok(())
}

/// Rule 4, for the change that an event of no operation causes.
pub(super) fn link<F: Family>(event: &Stamped<Inbound<F>>) -> Context {
    let (Context::Parent(span) | Context::Link(span)) = &event.context;
    Context::Link(span.clone())
}
