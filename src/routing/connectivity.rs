//! [`Connectivity`]: whether this node itself is cut off from the network.
//!
//! Silence has two causes: a node is dead, or nothing gets through to this node. Who takes the second for the first loses
//! the whole table in a short outage. So the silence of a node of the table counts against it only as far as others were
//! heard from meanwhile:
//!
//! * **Up.** A node is removed for its silence only if, since its last check but one, others have answered:
//!   [`WITNESSES`] of different groups, or all others that the table knows to be live, if these are fewer. If they have
//!   not, it stays, its checks back off, and [`TESTS`] others are checked at once, so that it turns out.
//! * **Cut off.** So many nodes of the table have fallen silent, one after the other, and so few others have answered
//!   meanwhile, that this node must be cut off. This is a cumulative sum: each node that falls silent adds one, each group
//!   that answers takes [`SILENT_FOR_EACH`] away, but not again within two minutes, and three groups that answer [`LATELY`]
//!   take all away. At half of [`MIN_SILENT`], [`TESTS`] nodes are checked at once, those heard from last: if many have died,
//!   these answer. At [`MIN_SILENT`], this node is cut off; or, if nobody at all has answered for two minutes, at the size of
//!   the table, if that is less. A neighbour in the local network may go on answering: of [`ONE_IN`] nodes one may. In smaller
//!   tables the others leave, then, and are [remembered](crate::routing::remembered). Only nodes count that have been heard
//!   from since they entered the table: the silence of seeds and restored nodes says nothing. Or the driver says so.
//! * While it is cut off, nobody is removed, no failure counts, and no lookup, check or refresh begins by itself; one node
//!   at a time is tested, ever more rarely, down to one in [`MAX_WAIT`]; none if the driver said it.
//! * It is **up again** when somebody is heard from who had not been heard from within two minutes before; if anybody had
//!   been, two such, and [`TESTS`] tests follow the first of them quickly. Or the driver says so. All failures are
//!   forgotten then, and the nodes of the table are checked, the nearest first, at a pace. It may have been a mistake: if
//!   nearly all have died at once. So for [`DOUBT`], [`MIN_SILENT`] is four times as large, and again after each further time.
//! * **After a jump of time**, when the machine was called much later than it had asked for (it slept), nothing but checks
//!   begins by itself until somebody was heard from: the link often comes back later than the machine.
//!
//! What one peer can do: by silence it counts as one node, by answers as one of its group. A table whose groups are limited
//! is told apart rightly as long as few of its nodes lie in one group. Who holds places in many groups, and answers alone
//! when this node is cut off, can have the others removed, as that looks as if they had died.

use crate::vocabulary::time::Instant;
use core::time::Duration;
use smallvec::SmallVec;

/// How many others, of different groups, must have answered so that the silence of a node counts.
const WITNESSES: usize = 3;
/// How many other nodes are checked at once if a node should leave and too few others have answered.
pub(super) const TESTS: usize = 8;
/// How many nodes of the table must fall silent, so that this node is taken for cut off when nobody answers.
const MIN_SILENT: u32 = 16;
/// How many more must do so for each group that has answered.
const SILENT_FOR_EACH: u32 = 16;
/// How many failures there must have been, of all silent nodes together.
const MIN_FAILURES: usize = 4;
/// Of so many nodes one may go on answering while this node is cut off.
const ONE_IN: usize = 32;
/// For how long more must be silent after this node was cut off.
const DOUBT: Duration = Duration::from_secs(1_800);
/// If enough groups have answered within this time, the link is up.
const LATELY: Duration = Duration::from_secs(15);
/// A machine that is called later than it asked for by this much has slept.
const JUMP: Duration = Duration::from_secs(60);
/// After a failure, answerers are recorded for this time. Who was heard from within this time before the link was lost is
/// company, and no sign that it is back.
const WATCH: Duration = Duration::from_secs(120);
/// How many answerers are recorded, the latest.
const MAX_HEARD: usize = 16;
/// The time between tests at first, and at most. Each is longer than the one before by an eighth of the time that has
/// passed since the link was lost.
const MIN_WAIT: Duration = Duration::from_secs(5);
const MAX_WAIT: Duration = Duration::from_secs(75);
/// The time between tests when there is a sign that the link is back.
const QUICK_WAIT: Duration = Duration::from_secs(1);

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Connectivity {
    cut_off: Option<CutOff>,
    /// Who answered, by group or key, and when last: recorded until `watched_until`. In order of arrival.
    heard: SmallVec<[(u64, Instant); MAX_HEARD]>,
    watched_until: Instant,
    /// The cumulative sum: see the [module](self).
    silence: u32,
    /// How often in a row this node was cut off, as inferred, and when that last ended.
    alarms: (u32, Instant),
    /// The silence of some node could not be judged.
    has_held: bool,
    /// Time has jumped, and nobody was heard from since.
    woke: bool,
}

/// This node is cut off.
#[derive(Clone, Copy, Debug)]
struct CutOff {
    since: Instant,
    /// The driver said it: nothing is tested.
    told: bool,
    next_test: Instant,
    /// Tests so far.
    tests: u32,
    /// Whether anybody answered within the time before.
    had_company: bool,
    /// How many tests are to follow quickly.
    quick_tests: usize,
    /// Who was heard from since, and had not been within the time before.
    newcomer: Option<u64>,
}

/// What it shows that somebody was heard from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing.
    Known,
    /// That the link is up: enough others were heard from lately.
    IsUp,
    /// That the link is back.
    IsBack,
}

/// What the silence of a node shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The node is silent, and others are not.
    Silent,
    /// Too few others were heard from to tell.
    Unclear,
    /// So few others were heard from that it must be found out at once whether this node is cut off.
    Doubtful,
    /// This node is cut off, since now.
    CutOff,
}

/// What the table knows of its verified nodes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Witnesses {
    pub(super) all: usize,
    /// Those that have failed since they were heard from.
    pub(super) silent: usize,
    /// Their failures.
    pub(super) failures: usize,
    /// One of them has failed now for the first time.
    pub(super) is_first: bool,
}

impl Connectivity {
    pub(super) fn new() -> Self {
        Self {
            cut_off: None,
            heard: SmallVec::new(),
            watched_until: Instant::ORIGIN,
            silence: 0,
            alarms: (0, Instant::ORIGIN),
            has_held: false,
            woke: false,
        }
    }

    pub(super) const fn is_cut_off(&self) -> bool {
        self.cut_off.is_some()
    }

    /// Whether lookups may begin by themselves, if they are not to find somebody at all.
    pub(super) const fn may_explore(&self) -> bool {
        self.cut_off.is_none() && !self.woke
    }

    /// The machine is called now, and asked to be called at `due`.
    #[inline]
    pub(super) fn called(&mut self, now: Instant, due: Option<Instant>) {
        self.woke |= due.is_some_and(|due| now - due > JUMP);
    }

    /// Whether it matters who is heard from now.
    #[inline]
    pub(super) fn is_watching(&self, now: Instant) -> bool {
        now < self.watched_until || self.cut_off.is_some() || self.woke
    }

    /// Somebody was heard from, of this group or with this key.
    pub(super) fn heard(&mut self, now: Instant, who: u64) -> Heard {
        self.woke = false;
        let known = self.heard.iter().position(|(known, _)| *known == who);
        if let Some(cut_off) = &mut self.cut_off {
            if known.is_some() {
                return Heard::Known;
            }
            let is_second = cut_off.newcomer.is_some_and(|first| first != who);
            if is_second || !cut_off.had_company {
                self.record(now, who);
                return Heard::IsBack;
            }
            if cut_off.newcomer.is_none() {
                (cut_off.newcomer, cut_off.quick_tests) = (Some(who), TESTS);
                cut_off.next_test = cut_off.next_test.min(now + QUICK_WAIT);
            }
            return Heard::Known;
        }
        // Its answers count again after a while.
        let counts = known.and_then(|index| self.heard.get(index)).is_none_or(|(_, at)| now - *at > WATCH);
        self.record(now, who);
        if counts {
            self.silence = self.silence.saturating_sub(SILENT_FOR_EACH);
        }
        if self.count_since(now, LATELY) < WITNESSES {
            return Heard::Known;
        }
        self.silence = 0;
        if core::mem::take(&mut self.has_held) { Heard::IsUp } else { Heard::Known }
    }

    /// Records an answerer, as the latest.
    fn record(&mut self, now: Instant, who: u64) {
        let known = self.heard.iter().position(|(known, _)| *known == who);
        if let Some(index) = known.or_else(|| (self.heard.len() == MAX_HEARD).then_some(0)) {
            self.heard.remove(index);
        }
        self.heard.push((who, now));
    }

    /// How many were heard from within this time.
    fn count_since(&self, now: Instant, time: Duration) -> usize {
        self.heard.iter().filter(|(_, at)| *at + time > now).count()
    }

    /// A node of the table was silent. `since`: when its last check but one had ended.
    pub(super) fn silent(&mut self, now: Instant, since: Instant, table: Witnesses) -> Finding {
        self.watched_until = now + WATCH;
        self.silence = self.silence.saturating_add(u32::from(table.is_first));
        let (alarms, ended) = self.alarms;
        let doubt = if now - ended < DOUBT { alarms.min(8) } else { 0 };
        let (company, all) = (self.count_since(now, WATCH), u32::try_from(table.all).unwrap_or(u32::MAX));
        let most = MIN_SILENT << (2 * doubt);
        let enough = if company == 0 { most.min(all.max(1)) } else { most };
        let is_possible = company * ONE_IN <= table.all;
        if table.failures >= MIN_FAILURES && self.silence >= enough && is_possible {
            self.lose(now, false);
            return Finding::CutOff;
        }
        if table.is_first && self.silence % MIN_SILENT == MIN_SILENT / 2 {
            return Finding::Doubtful;
        }
        let lately = self.heard.iter().filter(|(_, at)| *at >= since).count();
        let others = table.all.saturating_sub(table.silent).max(1);
        let is_clear = lately >= WITNESSES.min(others);
        self.has_held |= !is_clear;
        if is_clear { Finding::Silent } else { Finding::Unclear }
    }

    /// This node is cut off from now on. `told`: the driver says so.
    pub(super) fn lose(&mut self, now: Instant, told: bool) {
        if let Some(cut_off) = &mut self.cut_off {
            cut_off.told |= told;
            return;
        }
        self.heard.retain(|(_, at)| *at + WATCH > now);
        self.cut_off = Some(CutOff {
            since: now,
            told,
            next_test: now + MIN_WAIT,
            tests: 0,
            had_company: !self.heard.is_empty(),
            quick_tests: 0,
            newcomer: None,
        });
    }

    /// The link is back. Returns for how long it was not; `None` if it was.
    pub(super) fn regain(&mut self, now: Instant) -> Option<Duration> {
        (self.silence, self.woke) = (0, false);
        let cut_off = self.cut_off.take()?;
        let (alarms, ended) = self.alarms;
        let before = if now - ended < DOUBT { alarms } else { 0 };
        self.alarms = (if cut_off.told { 0 } else { before.saturating_add(1) }, now);
        self.watched_until = now + WATCH;
        Some(now - cut_off.since)
    }

    /// When the next node is to be tested, while this node is cut off.
    pub(super) fn next_test(&self) -> Option<Instant> {
        let cut_off = self.cut_off.filter(|cut_off| !cut_off.told)?;
        (cut_off.next_test < Instant::FAR_FUTURE).then_some(cut_off.next_test)
    }

    /// A test begins. Returns how many there were before.
    pub(super) fn test(&mut self, now: Instant) -> u32 {
        let Some(cut_off) = &mut self.cut_off else { return 0 };
        let wait = ((now - cut_off.since) / 8).clamp(MIN_WAIT, MAX_WAIT);
        cut_off.next_test = now + if cut_off.quick_tests > 0 { QUICK_WAIT } else { wait };
        cut_off.quick_tests = cut_off.quick_tests.saturating_sub(1);
        let before = cut_off.tests;
        cut_off.tests = before.saturating_add(1);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::{Connectivity, DOUBT, Finding, Heard, MIN_SILENT, WATCH, Witnesses};
    use crate::vocabulary::time::Instant;
    use core::time::Duration;

    const S: Duration = Duration::from_secs(1);
    /// So many that three groups may answer while this node is cut off.
    const ALL: usize = 2_000;

    fn at(seconds: u64) -> Instant {
        Instant::from_secs(10_000 + seconds)
    }

    /// One node after the other of a large table falls silent at once. What the last of so many shows.
    fn fall_silent(link: &mut Connectivity, now: Instant, nodes: u32) -> Finding {
        let mut last = Finding::Silent;
        for _ in 0..nodes {
            let witnesses = Witnesses { all: ALL, silent: 1, failures: 40, is_first: true };
            last = link.silent(now, now, witnesses);
        }
        last
    }

    #[test]
    fn at_half_of_the_sum_it_must_be_found_out_and_at_the_whole_it_is_cut_off() {
        let mut link = Connectivity::new();
        for silent in 1..=MIN_SILENT {
            let expected = match silent {
                8 => Finding::Doubtful,
                16 => Finding::CutOff,
                _ => Finding::Unclear,
            };
            assert_eq!(fall_silent(&mut link, at(0), 1), expected, "node {silent}");
        }
    }

    #[test]
    fn three_groups_that_answer_lately_take_all_of_the_sum_away() {
        let mut link = Connectivity::new();
        let hear = |link: &mut Connectivity, now| [0, 1, 2].map(|who| link.heard(now, who));
        assert_eq!(hear(&mut link, at(0)), [Heard::Known; 3]);
        // The same three again: none of them takes anything away by itself so soon.
        for round in 1..8 {
            let _ = fall_silent(&mut link, at(16 * round), MIN_SILENT - 1);
            assert!(!link.is_cut_off(), "in round {round}");
            assert_eq!(hear(&mut link, at(16 * round + 1)), [Heard::Known, Heard::Known, Heard::IsUp]);
        }
        // Two are too few for that.
        let _ = fall_silent(&mut link, at(120), MIN_SILENT - 1);
        assert_eq!([0, 1].map(|who| link.heard(at(135), who)), [Heard::Known; 2]);
        assert_eq!(fall_silent(&mut link, at(136), 1), Finding::CutOff);
    }

    #[test]
    fn after_each_alarm_four_times_as_many_must_be_silent_for_a_while() {
        let mut link = Connectivity::new();
        let mut now = at(0);
        for times in [1, 4, 16] {
            let _ = fall_silent(&mut link, now, times * MIN_SILENT - 1);
            assert!(!link.is_cut_off(), "after {times} times as many less one");
            assert_eq!(fall_silent(&mut link, now, 1), Finding::CutOff);
            now = now + S * 10;
            let _ = link.regain(now);
            now = now + WATCH;
        }
        now = now + DOUBT;
        assert_eq!(fall_silent(&mut link, now, MIN_SILENT), Finding::CutOff);
    }
}
