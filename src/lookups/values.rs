//! [`ValueTally`]: which of the values that answers carried is the newest, and how many nodes have it.

use crate::vocabulary::operation_events::Carried;
use crate::vocabulary::request_events::Verdict;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ValueTally {
    /// The version of the value that the caller holds.
    held: Option<u64>,
    /// The newest version, that one included.
    newest: Option<u64>,
    /// Nodes that have answered with it.
    count: u32,
    /// Path and slot of the first of them.
    first: Option<(u16, u16)>,
    /// An answer has carried something, valid or not.
    is_any: bool,
}

impl ValueTally {
    /// Before the first answer: the caller holds a valid value of this version, or none.
    pub(crate) const fn of_caller(held: Option<u64>) -> Self {
        Self { held, newest: held, count: 0, first: None, is_any: false }
    }

    pub(crate) const fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// How many nodes have answered with the newest.
    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    /// Path and slot of the first of them.
    pub(crate) const fn first(&self) -> Option<(u16, u16)> {
        self.first
    }

    pub(crate) const fn is_any(&self) -> bool {
        self.is_any
    }

    /// How many have the newest, the caller included.
    pub(crate) fn holders(&self) -> usize {
        let own = self.held.is_some() && self.held == self.newest;
        self.count as usize + usize::from(own)
    }

    /// An answer about the value has come from the node at this path and slot, which had carried `was` before. Returns
    /// what it has carried now, and whether that is newer than what all others have.
    pub(crate) fn enter(&mut self, was: Carried, verdict: Verdict, at: (u16, u16)) -> (Carried, bool) {
        self.is_any |= verdict != Verdict::Nothing;
        let version = match verdict {
            Verdict::Nothing => return (was.max(Carried::Nothing), false),
            Verdict::Invalid => return (was.max(Carried::Invalid), false),
            Verdict::Valid(version) if Some(version) < self.newest => {
                return (was.max(Carried::Older), false);
            }
            Verdict::Valid(version) => version,
        };
        let is_newer = Some(version) > self.newest;
        if is_newer {
            (self.newest, self.count, self.first) = (Some(version), 0, None);
        }
        self.count += u32::from(is_newer || was != Carried::Newest);
        self.first = self.first.or(Some(at));
        (Carried::Newest, is_newer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_counts_once_by_the_best_of_its_answers() {
        let mut tally = ValueTally::of_caller(None);
        let mut was = Carried::Unknown;
        for verdict in
            [Verdict::Invalid, Verdict::Nothing, Verdict::Valid(3), Verdict::Valid(3), Verdict::Invalid]
        {
            was = tally.enter(was, verdict, (0, 7)).0;
        }
        assert_eq!((was, tally.count(), tally.first()), (Carried::Newest, 1, Some((0, 7))));
        // Of two that had the same, one has a newer one now.
        assert_eq!(tally.enter(Carried::Unknown, Verdict::Valid(3), (0, 8)), (Carried::Newest, false));
        assert_eq!(tally.enter(Carried::Newest, Verdict::Valid(4), (0, 8)), (Carried::Newest, true));
        assert_eq!((tally.holders(), tally.first()), (1, Some((0, 8))));
    }

    #[test]
    fn what_the_caller_holds_counts_until_a_newer_one_comes() {
        let mut tally = ValueTally::of_caller(Some(5));
        assert_eq!(tally.holders(), 1);
        assert_eq!(tally.enter(Carried::Unknown, Verdict::Valid(4), (0, 0)), (Carried::Older, false));
        assert_eq!(tally.enter(Carried::Unknown, Verdict::Valid(5), (0, 1)), (Carried::Newest, false));
        assert_eq!((tally.holders(), tally.count(), tally.first()), (2, 1, Some((0, 1))));
        assert_eq!(tally.enter(Carried::Unknown, Verdict::Valid(6), (0, 2)), (Carried::Newest, true));
        assert_eq!((tally.holders(), tally.newest()), (1, Some(6)));
    }
}
