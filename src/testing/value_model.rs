//! [`ValueModel`]: what the answers of each node of a lookup have carried, and what its finish has to say of that.

use crate::testing::broken::{Checked, ensure_eq};
use crate::testing::node_map::NodeMap;
use crate::testing::operation_model::Counts;
use crate::vocabulary::family::Family;
use crate::vocabulary::operation_events::{Contact, Finish, ValueReport};
use crate::vocabulary::request_events::Verdict;

#[derive(Clone, Debug)]
pub(super) struct ValueModel<F: Family> {
    /// The version that the caller holds.
    held: Option<u64>,
    /// The best verdict on each node that was asked about the value.
    verdicts: NodeMap<F, Verdict>,
    /// The first answers with a valid value of each version, in order.
    first: Vec<(u64, F::Node)>,
}

/// The order of verdicts on one node.
const fn worth(verdict: Verdict) -> (u8, u64) {
    match verdict {
        Verdict::Nothing => (0, 0),
        Verdict::Invalid => (1, 0),
        Verdict::Valid(version) => (2, version),
    }
}

impl<F: Family> ValueModel<F> {
    pub(super) fn new(held: Option<u64>) -> Self {
        Self { held, verdicts: NodeMap::default(), first: Vec::new() }
    }

    /// A node has answered a question about the value.
    pub(super) fn answered(&mut self, node: &F::Node, verdict: Verdict) {
        self.verdicts.update(node, |best| {
            if worth(verdict) > worth(*best) {
                *best = verdict;
            }
        });
        if let Verdict::Valid(version) = verdict
            && self.first.iter().all(|(known, _)| *known != version)
        {
            self.first.push((version, node.clone()));
        }
    }

    fn newest(&self) -> Option<u64> {
        let answered = self.first.iter().map(|(version, _)| *version);
        answered.chain(self.held).max()
    }

    fn count(&self, counts: impl Fn(Verdict) -> bool) -> u32 {
        u32::try_from(self.verdicts.values().filter(|verdict| counts(**verdict)).count()).unwrap_or(u32::MAX)
    }

    /// How many have the newest, the caller included.
    pub(super) fn holders(&self) -> usize {
        let newest = self.newest();
        let own = self.held.is_some() && self.held == newest;
        let others = newest.map_or(0, |newest| self.count(|verdict| verdict == Verdict::Valid(newest)));
        others as usize + usize::from(own)
    }

    /// Whether the node has answered with a valid value of the newest version.
    pub(super) fn has_newest(&self, node: &F::Node) -> bool {
        let verdict = self.verdicts.get(node).copied();
        self.newest().is_some_and(|newest| verdict == Some(Verdict::Valid(newest)))
    }

    /// Whether the node has answered without the newest, and without a lie.
    fn is_to_correct(&self, node: &F::Node) -> bool {
        let verdict = self.verdicts.get(node).copied();
        let lacks = matches!(verdict, Some(Verdict::Nothing | Verdict::Valid(_)));
        self.newest().is_some() && lacks && !self.has_newest(node)
    }

    /// Checks what a finish says of the values.
    pub(super) fn check_finish(&self, finish: &Finish<F>) -> Checked<Counts> {
        let newest = self.newest();
        let valid = |verdict| matches!(verdict, Verdict::Valid(_));
        let is_newest = |verdict| newest.is_some_and(|newest| verdict == Verdict::Valid(newest));
        let first = self.first.iter().find(|(version, _)| Some(*version) == newest);
        let expected = ValueReport::<F> {
            newest,
            first: first.map(|(_, node)| node.clone()),
            valid: self.count(is_newest),
            older: self.count(|verdict| valid(verdict) && !is_newest(verdict)),
            invalid: self.count(|verdict| verdict == Verdict::Invalid),
        };
        ensure_eq!(
            finish.values,
            expected,
            "values: the finish counts nodes by the verdicts on their answers"
        );
        let node = |contact: &Contact<F>| contact.node.clone();
        let found: Vec<_> = finish.to_correct().map(node).collect();
        let lacking = finish.closest.iter().filter(|contact| self.is_to_correct(&contact.node));
        ensure_eq!(
            found,
            lacking.map(node).collect::<Vec<_>>(),
            "values: to correct are the closest that lack the newest, and have not lied"
        );
        let seen = [
            (!found.is_empty(), "values: some to correct"),
            (expected.older > 0, "values: older"),
            (expected.invalid > 0, "values: invalid"),
            (expected.valid > 0 && expected.invalid > 0, "values: valid beside invalid"),
            (self.held.is_some() && self.held < newest, "values: newer than what the caller holds"),
        ];
        Ok(seen.into_iter().filter_map(|(is_seen, what)| is_seen.then_some(what)).collect())
    }
}
