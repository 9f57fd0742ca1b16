//! [`End`]: how an operation ended.

use crate::vocabulary::operation_events::{Outcome, RefusalReason};
use core::fmt;
use serde::{Serialize, Serializer};

/// How a lookup or a broadcast ended. Serialised as its text; a refusal with its reason: `refused: no more operations
/// can wait`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The engine finished it, with this outcome.
    Finished(Outcome),
    /// The engine refused it, for this reason.
    Refused(RefusalReason),
    /// No online node was found to start it, or its node has gone offline.
    NobodyThere,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished(outcome) => outcome.fmt(f),
            Self::Refused(_) => f.write_str("refused"),
            Self::NobodyThere => f.write_str("nobody there"),
        }
    }
}

impl Serialize for End {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Refused(reason) => to.collect_str(&format_args!("{self}: {reason}")),
            Self::Finished(_) | Self::NobodyThere => to.collect_str(self),
        }
    }
}
