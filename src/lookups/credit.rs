//! [`Credit`]: whether the nodes that somebody has named answer.
//!
//! Anybody can name any number of nodes that do not exist, nearer to the target than all others. So a node that was the first to name
//! many that are silent, and hardly any that answer, is *doubted*: the others that it was the first to name are *put off*, until there is
//! nobody else to ask. So each that names such nodes costs few requests before others are asked. If one that is not doubted names
//! the same node, that counts as if it had been the first.
//!
//! An honest node names some that have gone, too. If half have gone, eight of them are silent before any answers in 1 of 250 cases; then
//! others have named the rest, or these are asked a little later. In a flood some of them may have to give up their places in the list
//! to others, and are candidates again when they are named again.

/// So many nodes that somebody has named may be silent before that is doubted; and [`FOR_EACH`] more for each that has answered.
const MAX_SILENT: u8 = 8;

/// So many may be asked and not have answered yet, where most of the nodes that the others have named are silent.
const MAX_OPEN: u8 = 2;

/// How many more may be silent, or open, for each that has answered.
const FOR_EACH: u8 = 8;

/// So many silent ones among all that were named, and more than [`FOR_EACH`] for each that has answered and is nearer to the target than
/// who has named it, are a flood: most that are named near the target are made up, or most of the network has gone.
const FLOOD: u16 = 16;

/// What a lookup knows of the node in a slot as one that was named, and as one that names.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The slot of the one that has first named it; [`NOBODY`] for a node to begin with.
    named_by: u16,
    /// It is nearer to the target than that one.
    is_nearer: bool,
    standing: Standing,
    /// Of those that it has first named: how many were asked and have not answered; how many of these are silent; and how many
    /// have answered.
    open: u8,
    silent: u8,
    answered: u8,
}

const NOBODY: u16 = u16::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    NotAsked,
    Asked,
    Silent,
    Answered,
}

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct Credit {
    /// By slot.
    entries: Vec<Entry>,
    /// Of all that were named: how many are silent, and how many have answered.
    silent: u16,
    answered: u16,
    /// How many of these are nearer than who has named them.
    nearer: u16,
}

impl Credit {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { entries: Vec::with_capacity(capacity), ..Self::default() }
    }

    /// A candidate that was not asked is in this slot now. `named_by`: the slot of the one that has named it, if anybody has.
    /// `is_nearer`: it is nearer to the target than that one.
    pub(super) fn heard(&mut self, slot: u16, named_by: Option<u16>, is_nearer: bool) {
        let named_by = named_by.unwrap_or(NOBODY);
        let standing = Standing::NotAsked;
        let entry = Entry { named_by, is_nearer, standing, open: 0, silent: 0, answered: 0 };
        match self.entries.get_mut(usize::from(slot)) {
            Some(place) => *place = entry,
            None => self.entries.push(entry),
        }
    }

    /// Another one, in the slot `by`, has named a candidate that was not asked.
    #[inline]
    pub(super) fn named_again(&mut self, slot: u16, by: u16) {
        if self.is_put_off(slot)
            && !self.is_doubted(by)
            && let Some(entry) = self.entries.get_mut(usize::from(slot))
            && entry.standing == Standing::NotAsked
        {
            entry.named_by = by;
        }
    }

    /// The candidate is asked.
    pub(super) fn asked(&mut self, slot: u16) {
        self.change(slot, |standing| if standing == Standing::NotAsked { Standing::Asked } else { standing });
    }

    /// The request to it could not be sent, and it was not asked before.
    pub(super) fn not_asked(&mut self, slot: u16) {
        self.change(slot, |_| Standing::NotAsked);
    }

    /// It has not answered in its usual time, or at all.
    pub(super) fn silent(&mut self, slot: u16) {
        self.change(slot, |standing| if standing == Standing::Asked { Standing::Silent } else { standing });
    }

    /// It has answered.
    pub(super) fn answered(&mut self, slot: u16) {
        self.change(slot, |_| Standing::Answered);
    }

    fn change(&mut self, slot: u16, to: impl FnOnce(Standing) -> Standing) {
        let Some(entry) = self.entries.get_mut(usize::from(slot)) else { return };
        let (from, named_by, is_nearer) = (entry.standing, entry.named_by, entry.is_nearer);
        entry.standing = to(from);
        let to = entry.standing;
        if from == to || named_by == NOBODY {
            return;
        }
        self.silent = self.silent + u16::from(to == Standing::Silent) - u16::from(from == Standing::Silent);
        self.answered += u16::from(to == Standing::Answered);
        self.nearer += u16::from(to == Standing::Answered && is_nearer);
        if let Some(namer) = self.entries.get_mut(usize::from(named_by)) {
            let count = |count: &mut u8, was: bool, is: bool| {
                *count = count.saturating_add(is.into()).saturating_sub(was.into());
            };
            let is_open = |standing| matches!(standing, Standing::Asked | Standing::Silent);
            count(&mut namer.open, is_open(from), is_open(to));
            count(&mut namer.silent, from == Standing::Silent, to == Standing::Silent);
            count(&mut namer.answered, false, to == Standing::Answered);
        }
    }

    /// Whether anybody can be doubted: so many are silent.
    pub(super) fn may_doubt(&self) -> bool {
        self.silent >= u16::from(MAX_SILENT)
    }

    /// Whether nobody that was named has answered.
    pub(super) const fn has_no_answer(&self) -> bool {
        self.answered == 0
    }

    /// Whether one of those that the node in this slot was the first to name has answered.
    pub(super) fn is_confirmed(&self, slot: u16) -> bool {
        self.entries.get(usize::from(slot)).is_some_and(|entry| entry.answered > 0)
    }

    /// How many that somebody has named are silent.
    pub(super) const fn num_silent(&self) -> u16 {
        self.silent
    }

    /// How many that somebody has named, and that are nearer than that one, have answered.
    pub(super) const fn num_nearer(&self) -> u16 {
        self.nearer
    }

    /// Whether most of the nodes that were named are silent.
    pub(super) fn is_flood(&self) -> bool {
        self.silent >= FLOOD && self.silent > u16::from(FOR_EACH) * self.nearer
    }

    /// Whether too many of those that the node in this slot has named are silent.
    pub(super) fn is_doubted(&self, slot: u16) -> bool {
        self.would_be_doubted(slot, self.is_flood())
    }

    /// The same, in a flood or not.
    fn would_be_doubted(&self, slot: u16, is_flood: bool) -> bool {
        let Some(entry) = self.entries.get(usize::from(slot)) else { return false };
        let more = entry.answered.saturating_mul(FOR_EACH);
        entry.silent >= MAX_SILENT.saturating_add(more)
            || is_flood && entry.open >= MAX_OPEN.saturating_add(more)
    }

    /// Whether a candidate that was not asked is asked once there is nobody else to ask.
    pub(super) fn is_put_off(&self, slot: u16) -> bool {
        let Some(entry) = self.entries.get(usize::from(slot)) else { return false };
        entry.named_by != NOBODY && self.is_doubted(entry.named_by)
    }

    /// Whether a candidate that was not asked may tell of the target in the place of those put off: nobody has named it, or so few
    /// of the same namer are open as may be in a flood.
    pub(super) fn may_replace_doubted(&self, slot: u16) -> bool {
        let Some(entry) = self.entries.get(usize::from(slot)) else { return false };
        entry.named_by == NOBODY || !self.would_be_doubted(entry.named_by, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node to begin with, in slot 0, that has named so many, in the slots after it; one more of the nodes to begin with, last.
    fn credit(named: u16, is_nearer: bool) -> Credit {
        let mut credit = Credit::default();
        credit.heard(0, None, false);
        (1..=named).for_each(|slot| credit.heard(slot, Some(0), is_nearer));
        credit.heard(named + 1, None, false);
        credit
    }

    fn ask(credit: &mut Credit, slots: core::ops::RangeInclusive<u16>, change: fn(&mut Credit, u16)) {
        for slot in slots {
            credit.asked(slot);
            change(credit, slot);
        }
    }

    #[test]
    fn whose_names_are_silent_is_doubted_until_enough_of_them_answer() {
        let mut credit = credit(30, true);
        ask(&mut credit, 1..=7, Credit::silent);
        assert!(!credit.may_doubt() && !credit.is_doubted(0));
        ask(&mut credit, 8..=8, Credit::silent);
        assert!(credit.may_doubt() && credit.is_doubted(0) && credit.is_put_off(30));
        assert!(!credit.is_put_off(0) && !credit.is_put_off(31), "nobody has named these");
        // One answers, late; then as many more may be silent as for any that answers.
        credit.answered(8);
        assert!(!credit.is_doubted(0));
        ask(&mut credit, 9..=16, Credit::silent);
        assert!(!credit.is_doubted(0), "fifteen, and one has answered");
        ask(&mut credit, 17..=17, Credit::silent);
        assert!(credit.is_doubted(0));
        assert_eq!(credit.num_nearer(), 1);
    }

    /// A liar may name nodes that are no help.
    #[test]
    fn those_that_are_farther_than_who_has_named_them_end_no_flood() {
        for is_nearer in [true, false] {
            let mut credit = credit(20, is_nearer);
            ask(&mut credit, 1..=2, Credit::answered);
            ask(&mut credit, 3..=18, Credit::silent);
            assert_eq!(
                (credit.num_nearer(), credit.is_flood()),
                if is_nearer { (2, false) } else { (0, true) }
            );
            assert!(!credit.is_doubted(0), "it has named two that are there");
        }
    }

    #[test]
    fn in_a_flood_two_of_each_are_asked_until_one_of_them_answers() {
        let mut credit = credit(20, true);
        ask(&mut credit, 1..=15, Credit::silent);
        credit.heard(22, Some(21), true);
        credit.heard(23, Some(21), true);
        credit.asked(22);
        credit.asked(23);
        assert!(!credit.is_flood() && !credit.is_doubted(21), "fifteen are silent");
        ask(&mut credit, 16..=16, Credit::silent);
        assert!(credit.is_flood() && credit.is_doubted(21));
        credit.not_asked(23);
        assert!(!credit.is_doubted(21), "it could not be sent");
        credit.asked(23);
        credit.answered(22);
        assert!(!credit.is_doubted(21));
        // 16 are silent: it takes more than eight for each that has answered.
        assert!(credit.is_flood());
        credit.heard(24, Some(21), true);
        ask(&mut credit, 24..=24, Credit::answered);
        assert!(!credit.is_flood());
    }

    /// At once, before any of them can be silent.
    #[test]
    fn two_of_each_may_replace_those_put_off_whether_in_a_flood_or_not() {
        let mut credit = credit(20, true);
        assert!(credit.may_replace_doubted(21), "nobody has named it");
        credit.asked(1);
        assert!(credit.may_replace_doubted(3));
        credit.asked(2);
        assert!(!credit.may_replace_doubted(3) && !credit.is_put_off(3) && credit.num_silent() == 0);
        assert!(!credit.is_confirmed(0));
        credit.answered(2);
        assert!(credit.may_replace_doubted(3) && credit.is_confirmed(0) && !credit.is_confirmed(2));
    }

    #[test]
    fn one_that_is_not_doubted_speaks_for_whom_others_have_named() {
        let mut credit = credit(12, true);
        ask(&mut credit, 1..=8, Credit::silent);
        credit.named_again(9, 0);
        assert!(credit.is_put_off(9), "the same one again");
        credit.named_again(9, 13);
        assert!(!credit.is_put_off(9) && credit.is_put_off(10));
        // It is its name now.
        credit.asked(9);
        credit.answered(9);
        assert!(credit.is_doubted(0));
        credit.named_again(8, 13);
        assert_eq!(credit.entries[8].named_by, 0, "it was asked for the sake of the other");
        // Another node takes the place of one that was not asked.
        credit.heard(10, None, false);
        assert!(!credit.is_put_off(10));
    }
}
