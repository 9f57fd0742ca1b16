//! [`SentRequest`]: a request between its asker and the node that is asked, and its answer on the way back.

use crate::sim::activity::Activity;
use crate::sim::network::handle::{Handle, Key64, Net};
use crate::sim::scenario::behaviour::AskedFor;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::request_events::Ask;
use core::time::Duration;

/// A request on its way, or its answer, with what the link does to them.
#[derive(Clone, Debug)]
pub(crate) struct SentRequest {
    pub(crate) request: RequestId,
    pub(crate) target: Key64,
    /// From the answer's departure to its arrival.
    pub(crate) answer_delay: Duration,
    /// A second copy of the answer arrives this much later.
    pub(crate) duplicate: Option<Duration>,
    pub(crate) activity: Activity,
    /// The asker, by index.
    pub(crate) asker: u32,
    /// The asker's incarnation when it sent the request: a later one does not receive the answer.
    pub(crate) incarnation: u32,
    pub(crate) node: Handle,
    pub(crate) answer_lost: bool,
    /// If the node cannot be reached, the asker receives a refusal.
    pub(crate) refused: bool,
    /// Whether the asker had to connect first.
    pub(crate) dialled: bool,
    /// The broadcast that it is sent for, in the foreground or in the background.
    pub(crate) broadcast: Option<u32>,
    pub(crate) payload: Payload,
}

/// What a request carries besides its target: the records that it asks to store, or a message.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    Empty,
    /// A message: the record that a search looks for, or any number.
    Message(u32),
    /// One record, by number.
    Record(u32),
    Records(Box<[u32]>),
}

impl Payload {
    pub(crate) fn of(ask: &Ask<Net>) -> Self {
        match ask {
            Ask::Store { message, .. } => Self::Record(*message),
            Ask::Batch { records, .. } => {
                Self::Records(records.iter().map(|record| record.message).collect())
            }
            Ask::Message(message) => Self::Message(*message),
            Ask::FindCloser => Self::Empty,
        }
    }

    pub(crate) fn asked_for(&self) -> AskedFor<'_> {
        match self {
            Self::Empty => AskedFor::Nodes,
            Self::Message(message) => AskedFor::Message(*message),
            Self::Record(_) | Self::Records(_) => AskedFor::Store(self.records()),
        }
    }

    pub(crate) fn records(&self) -> &[u32] {
        match self {
            Self::Empty | Self::Message(_) => &[],
            Self::Record(record) => core::slice::from_ref(record),
            Self::Records(records) => records,
        }
    }
}
