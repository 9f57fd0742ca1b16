//! [`Region`]: the distance from a key within which k of the network's nodes are, on average; and which of the nodes within it
//! are stored with or asked.
//!
//! Of N random keys, k are within k / (N + 1) of the key space of any other, on average. Whoever wants to own a key places
//! nodes nearer to it than all others. So a record is stored with, and searched at, the nodes of the whole region, but at
//! least the k closest. Where the k closest reach as far as the region does, this changes nothing.
//!
//! Not all nodes of a region can be asked, as anybody may make up nodes. Their number is bounded, and the bound is
//! [spent evenly](Spread) over the key space: half for the outer half of the region, and half for the inner one; what the
//! one does not need goes to the other; and the same within each half. So two hundred nodes next to the key take nothing from the
//! honest, who are spread as keys are.

use crate::network_size::gamma::gamma_p;
use crate::vocabulary::family::{Family, Group};
use crate::vocabulary::operation_events::Contact;
use crate::vocabulary::region::{KnownSize, RegionReport, SizeBasis};
use smallvec::SmallVec;

/// So many requests more than a multiple of k may be sent: where k is small, one dead node must not use them up.
const FEW_REQUESTS: usize = 8;

/// How many times farther than the region those are at least who are asked about it from beyond.
const MUCH_FARTHER: u64 = 4;

/// A part of a region is a crowd if chance explains its nodes with a probability below this. A dozen parts and sums of parts
/// are looked at, so that of 10,000 honest neighbourhoods about one is doubted.
const CROWD: f64 = 1e-5;
/// The same where the whole neighbourhood is implausible already: then a dense place of honest ones is taken for a crowd in about one of
/// ten. Where it is not, no more of its stores count than nodes are expected there.
const CROWD_IN_IMPLAUSIBLE: f64 = 0.02;

/// See the [module](self).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    /// The first 64 bits of the distance k / (N + 1).
    reach: u64,
    /// The k closest of an honest neighbourhood are nearer than this in 1 of 1,000 cases.
    implausible: u64,
    /// The most nodes that are stored with or asked.
    most: u16,
    k: u16,
    nodes: u64,
    /// What is found is judged by this number of nodes.
    judged_by: u64,
    basis: SizeBasis,
}

impl Region {
    /// The region of a network of this size, in which k nodes are to be, with the bound `factor` times k.
    pub(crate) fn of(k: usize, factor: usize, size: KnownSize) -> Self {
        let to_u16 = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        let wanted = u64::try_from(k).unwrap_or(u64::MAX);
        let reach = match size.nodes.checked_add(1) {
            Some(nodes) if nodes > wanted => (u64::MAX / nodes).saturating_mul(wanted),
            Some(_) => u64::MAX,
            None => wanted,
        };
        let KnownSize { nodes, most: judged_by, basis } = size;
        let most = to_u16(k.saturating_mul(factor));
        Self {
            reach,
            implausible: share_of(reach, implausible(to_u16(k))),
            most,
            k: to_u16(k),
            nodes,
            judged_by,
            basis,
        }
    }

    /// How far the region reaches, if the k-th closest that answers is at this distance: twice as far where that is hardly ever
    /// so by chance.
    pub(crate) const fn reach(&self, kth: u64) -> u64 {
        if self.is_refuted_by(kth) { self.reach.saturating_mul(2) } else { self.reach }
    }

    /// Whoever is farther than this is asked about the region from beyond: hardly one of those who name each other only, at plausible
    /// distances. `beyond`: the region, or the k closest, reach so far.
    pub(crate) fn much_farther(&self, beyond: u64) -> u64 {
        self.reach.saturating_mul(MUCH_FARTHER).max(beyond.saturating_mul(2))
    }

    /// How far it reaches where the k closest are plausible; and the most nodes in it that are stored with.
    pub(crate) fn width(&self) -> (u64, usize) {
        (self.reach, self.most.into())
    }

    /// How many nodes an optimistic broadcast may store with once its lookup has ended, besides the 2k of before.
    pub(crate) fn most_when_known(&self) -> usize {
        let (k, most) = (usize::from(self.k), usize::from(self.most));
        most.saturating_sub(2 * k).max(k)
    }

    /// Whether the k closest are hardly ever as near by chance as this distance of the k-th.
    pub(crate) const fn is_refuted_by(&self, kth: u64) -> bool {
        kth < self.implausible
    }

    /// Whether the k closest are hardly ever as far by chance as this distance of the k-th: with k = 20 in 1 of 4,000 cases.
    pub(crate) const fn is_deserted_by(&self, kth: u64) -> bool {
        kth / 2 > self.reach
    }

    /// Whether the k closest are that far only where others keep from us who is nearer, or most of the network has gone since its
    /// size was estimated: three times as far as the region reaches, or six times where the own table alone tells how far that is.
    /// Where k is small, that is so by chance.
    const fn is_doubtfully_far(&self, kth: u64) -> bool {
        let times = if matches!(self.basis, SizeBasis::Table) { 6 } else { 3 };
        self.k >= 6 && kth / times > self.reach
    }

    /// Whether one more request may be sent to a node at this distance as one of the `k` nearest, after so many to those up to
    /// it, as many as such in the region, and so many to all there: all of these may be made up, and each may name one that is a
    /// little nearer. An honest neighbourhood takes fewer, though half of its nodes are dead; one that is denser than is plausible
    /// gets less still. `is_flooded`: these have used up what is for the nearest without an answer, so they get what others of the
    /// region are not there to use.
    pub(super) fn may_ask(
        &self,
        distance: u64,
        up_to: usize,
        (as_nearest, to_all): (usize, usize),
        k: u16,
        is_flooded: bool,
    ) -> bool {
        let (k, per_node) = (usize::from(k), usize::from(self.most / self.k.max(1)));
        let most = k * (per_node + 2) + FEW_REQUESTS;
        let most_of_all = most + usize::from(self.most);
        let most = if is_flooded { most_of_all } else { most };
        let most_up_to =
            if self.is_refuted_by(distance) && !is_flooded { k * per_node + FEW_REQUESTS } else { most };
        distance > self.reach(0) || up_to < most_up_to && as_nearest < most && to_all < most_of_all
    }

    /// Whether one more request may be sent to a node of the region besides the nearest, after so many to those, and to all.
    pub(super) fn may_ask_others(&self, to_others: usize, to_all: usize) -> bool {
        let most = usize::from(self.most);
        to_others < most && to_all < 2 * most + FEW_REQUESTS
    }

    /// How many stores are repeated at most.
    pub(crate) fn most_repeats(&self) -> usize {
        self.k.into()
    }

    /// How many nodes there may be besides the k closest.
    pub(super) fn most_others(&self) -> usize {
        usize::from(self.most.saturating_sub(self.k))
    }

    /// How many bits the distances of the outermost part have in common, and those of the first that is none: so near to the
    /// key that less than one honest node is likely there.
    pub(super) fn parts(&self, reach: u64) -> core::ops::Range<u8> {
        #[allow(clippy::cast_possible_truncation)] // at most 65
        let first = reach.leading_zeros() as u8 + 1;
        #[allow(clippy::cast_possible_truncation)] // at most 17
        let parts = (2 * u32::from(self.k)).ilog2() as u8 + 1;
        first..(first + parts).min(65)
    }

    /// Marks those of `distances`, in order, that are stored with besides the k first.
    pub(super) fn pick(
        &self,
        distances: &[u64],
        group: impl Fn(usize) -> Option<Group>,
        limit: usize,
    ) -> Picked {
        let mut spread = Spread { distances, picked: SmallVec::from_elem(false, distances.len()) };
        let quota = self.most_others();
        if distances.len() > quota {
            let is_barred = crowded(distances.len(), group, limit);
            let rest: SmallVec<[u64; 128]> =
                distances.iter().zip(&is_barred).filter(|(_, barred)| !**barred).map(|(at, _)| *at).collect();
            if rest.len() >= quota {
                let mut some = Spread { distances: &rest, picked: SmallVec::from_elem(false, rest.len()) };
                some.evenly(0..rest.len(), quota, 0);
                let free = spread.picked.iter_mut().zip(&is_barred).filter(|(_, barred)| !**barred);
                free.zip(some.picked).for_each(|((place, _), picked)| *place = picked);
                return spread.picked;
            }
        }
        spread.evenly(0..distances.len(), quota, 0);
        spread.picked
    }

    /// Which of these contacts, in order of distance, are stored with: the k closest of those that have `answered`, and
    /// others of the region.
    pub(crate) fn select<F: Family>(
        &self,
        target: u64,
        contacts: &[Contact<F>],
        answered: &[bool],
        per_group: usize,
    ) -> Picked {
        use crate::vocabulary::key::Key;
        let distance = |contact: &Contact<F>| F::key(&contact.node).leading() ^ target;
        let mut all: Picked = SmallVec::from_elem(false, contacts.len());
        let (mut left, mut kth) = (self.k, 0);
        for (place, (contact, _)) in all.iter_mut().zip(contacts.iter().zip(answered)).filter(|it| *it.1.1) {
            if left == 0 {
                break;
            }
            (*place, kth, left) = (true, distance(contact), left - 1);
        }
        let reach = self.reach(if left == 0 { kth } else { u64::MAX });
        let within = contacts.iter().take_while(|contact| distance(contact) <= reach);
        let others = within.zip(&mut all).filter(|(_, is_closest)| !**is_closest);
        let (others, places): (SmallVec<[&Contact<F>; 128]>, SmallVec<[&mut bool; 128]>) = others.unzip();
        let distances: SmallVec<[u64; 128]> = others.iter().map(|contact| distance(contact)).collect();
        let group = |index: usize| others.get(index).and_then(|contact| F::group(&contact.node));
        let picked = self.pick(&distances, group, per_group);
        places.into_iter().zip(picked).for_each(|(place, picked)| *place = picked);
        all
    }

    /// What is reported of a region in which these nodes were stored with: the distance of each, and whether it has stored the
    /// record. `closest`: the distances of the closest that answered, in order. `known`: those of all that have answered, and of those
    /// known within reach that may, though they are more than are stored with.
    ///
    /// From the outermost part to the innermost, a part counts as a crowd if there are more nodes in it than chance explains, or
    /// in it and the parts before it that are none. Nothing tells the honest of a crowd from others, so no store there is credible.
    /// Where the k closest that have answered, or fewer, are doubtfully far, only stores up to twice the reach are.
    pub(crate) fn report(
        &self,
        closest: impl Iterator<Item = u64>,
        stores: impl Iterator<Item = (u64, bool)>,
        known: impl Iterator<Item = u64>,
    ) -> (RegionReport, Doubts) {
        let k = usize::from(self.k.clamp(1, 1_024));
        let mut report = RegionReport {
            nodes: self.nodes,
            basis: self.basis,
            answered: 0,
            stored: 0,
            credible: 0,
            plausibility: None,
        };
        // At some ranks, each of which may be unlikely by chance: so many times the least of them is a bound.
        let ranks = [k, k / 2, k / 4];
        let mut least = f64::INFINITY;
        // The rank of the last that has answered, and whether it is far.
        let mut farthest = (0, false);
        for (rank, distance) in (1..=k).zip(closest) {
            farthest = (rank, self.is_doubtfully_far(distance));
            if ranks.contains(&rank) {
                #[allow(clippy::cast_precision_loss)] // as good as it gets; a rank is at most 1,024
                let (rank, expected) =
                    (rank as f64, self.judged_by as f64 * (distance as f64 / u64::MAX as f64));
                least = least.min(gamma_p(rank, expected));
            }
        }
        report.plausibility = least.is_finite().then_some((3.0 * least).min(1.0));
        let mut parts = [(0_u64, 0_u64); 66];
        let (core, mut cover) = (self.parts(self.reach).end, self.reach);
        // The part, or what is nearer than the innermost.
        let part_of = |distance: u64| (distance.leading_zeros() + 1).min(u32::from(core)) as usize;
        let (mut stored_near, mut stored_not_far) = (0_u64, 0);
        for (distance, is_stored) in stores {
            let part = part_of(distance);
            stored_near += u64::from(is_stored && distance / 2 <= self.reach);
            stored_not_far += usize::from(is_stored && !self.is_doubtfully_far(distance));
            cover = cover.max(distance);
            if let Some((all, stored)) = parts.get_mut(part) {
                *all += 1;
                *stored += u64::from(is_stored);
            }
        }
        let mut all_known = [0_u64; 66];
        for distance in known.filter(|distance| *distance <= cover) {
            if let Some(known) = all_known.get_mut(part_of(distance)) {
                *known += 1;
            }
        }
        let number = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let is_implausible = report.is_implausible();
        let level = if is_implausible { CROWD_IN_IMPLAUSIBLE } else { CROWD };
        let (mut most, mut is_crowded_somewhere, mut outer) = (0_u64, false, (0_u64, 0_u64));
        let mut credible = SmallVec::<[(u64, u64); 64]>::new();
        for (len, (all, stored)) in (0_u32..).zip(parts) {
            let here = all_known.get(len as usize).copied().unwrap_or(0).max(stored);
            report.answered = report.answered.saturating_add(number(all));
            report.stored = report.stored.saturating_add(number(stored));
            // A part with so many bits in common is 1 of 2^len of the key space, as far as it was searched; the core is as large as
            // the last part.
            let width = u64::MAX.checked_shr(len.min(u32::from(core).saturating_sub(1))).unwrap_or(1);
            let expected = self.expected_sixteenths(if len < u32::from(core) {
                width.min(cover.saturating_sub(width))
            } else {
                width
            });
            let (far, far_expected) = (outer.0 + here, outer.1.saturating_add(expected));
            if is_crowded(here, expected, level) || is_crowded(far, far_expected, level) {
                is_crowded_somewhere = true;
                most = most.saturating_add(expected / 16);
            } else {
                outer = (far, far_expected);
                most = most.saturating_add(all);
                credible.push((stored, expected.div_ceil(16)));
            }
        }
        // Of an optimistic broadcast few may have answered, as it stores with the others, too.
        let is_deserted = farthest.1 && (farthest.0 == k || stored_not_far < k / 2);
        let is_doubted = is_crowded_somewhere || is_implausible || is_deserted;
        // Where some are a crowd, the others may be mixed with them: as many count as there should be.
        let counts =
            |(stored, expected): &(u64, u64)| if is_doubted { (*stored).min(*expected) } else { *stored };
        report.credible = number(credible.iter().map(counts).sum());
        if is_deserted {
            report.credible = report.credible.min(number(stored_near));
        }
        // Of the nodes up to there that an honest network has: three eighths, and half of k.
        let there = usize::try_from(self.expected_sixteenths(cover) / 16).unwrap_or(usize::MAX);
        let least = if is_doubted { (k / 2).max(there.saturating_mul(3) / 8) } else { 0 };
        (report, Doubts { all: usize::try_from(most).unwrap_or(usize::MAX), least })
    }

    /// How many honest nodes are within so much of the key space, on average, in sixteenths.
    pub(crate) fn expected_sixteenths(&self, width: u64) -> u64 {
        let expected = u128::from(self.k) * 16 * u128::from(width) / u128::from(self.reach.max(1));
        let nodes = u128::from(self.nodes.max(1));
        let expected = expected.min(u128::from(u64::MAX)) * u128::from(self.judged_by) / nodes;
        u64::try_from(expected).unwrap_or(u64::MAX)
    }
}

/// What is to be doubted of the stores in a region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doubts {
    /// How many nodes there can be that are honest.
    pub(crate) all: usize,
    /// So many credible stores are wanted, whatever the caller asks for: none where there is no crowd, else at least k/2.
    pub(crate) least: usize,
}

/// Which share of its average distance the k-th closest of an honest neighbourhood falls below in 1 of 1,000 cases, in 1 of
/// 65,536: the quantile of Γ(k) by the approximation of Wilson and Hilferty (1931).
fn implausible(k: u16) -> u64 {
    const NORMAL_QUANTILE: f64 = -3.09;
    let k = f64::from(k.max(1));
    let root = (1.0 - 1.0 / (9.0 * k) + NORMAL_QUANTILE / (3.0 * libm::sqrt(k))).max(0.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 65,536
    let share = (root * root * root * 65_536.0) as u64;
    share
}

/// A share of a distance, in 1 of 65,536.
fn share_of(distance: u64, share: u64) -> u64 {
    u64::try_from((u128::from(distance) * u128::from(share)) >> 16).unwrap_or(u64::MAX)
}

/// Whether chance explains so many nodes where so many are expected with a probability below `level` (Poisson).
fn is_crowded(found: u64, expected_sixteenths: u64, level: f64) -> bool {
    #[allow(clippy::cast_precision_loss)] // numbers of nodes
    let (found, expected) = (found as f64, expected_sixteenths as f64 / 16.0);
    found > expected && gamma_p(found, expected) < level
}

pub(crate) type Picked = SmallVec<[bool; 128]>;

/// Which of some nodes are of groups with more than `limit` nodes among them, beyond that number, the farthest first.
fn crowded(count: usize, group: impl Fn(usize) -> Option<Group>, limit: usize) -> Picked {
    let mut barred = SmallVec::from_elem(false, count);
    let mut groups: SmallVec<[(Group, usize); 128]> =
        (0..count).filter_map(|index| Some((group(index)?, index))).collect();
    groups.sort_unstable();
    for crowd in groups.chunk_by(|a, b| a.0 == b.0) {
        let too_many = crowd.len().saturating_sub(limit);
        for (_, index) in crowd.iter().take(too_many) {
            if let Some(barred) = barred.get_mut(*index) {
                *barred = true;
            }
        }
    }
    barred
}

/// Picks some of the nodes at these distances, in order, evenly over the key space.
struct Spread<'a> {
    distances: &'a [u64],
    picked: Picked,
}

impl Spread<'_> {
    /// Picks at most `quota` of the nodes of this range, whose distances agree in the first `bits` bits.
    fn evenly(&mut self, range: core::ops::Range<usize>, quota: usize, mut bits: u32) {
        if quota == 0 {
            return;
        }
        if range.len() > quota {
            while bits < 64 {
                let here = self.distances.get(range.clone()).unwrap_or_default();
                let middle = range.start + here.partition_point(|at| at >> (63 - bits) & 1 == 0);
                bits += 1;
                if middle > range.start && middle < range.end {
                    let (near, far) = (range.start..middle, middle..range.end);
                    let for_far = (quota - quota / 2).min(far.len());
                    let for_near = (quota - for_far).min(near.len());
                    self.evenly(near, for_near, bits);
                    self.evenly(far, quota - for_near, bits);
                    return;
                }
            }
        }
        let picked = self.picked.get_mut(range).unwrap_or_default();
        picked.iter_mut().take(quota).for_each(|picked| *picked = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(nodes: u64) -> Region {
        Region::of(20, 4, KnownSize { nodes, most: nodes, basis: SizeBasis::Estimate })
    }

    fn picked(distances: &[u64], quota: usize) -> Vec<u64> {
        let mut spread = Spread { distances, picked: SmallVec::from_elem(false, distances.len()) };
        spread.evenly(0..distances.len(), quota, 0);
        distances.iter().zip(spread.picked).filter(|(_, picked)| *picked).map(|(at, _)| *at).collect()
    }

    #[test]
    fn k_of_all_nodes_are_within_reach() {
        assert_eq!(region(19).reach, u64::MAX);
        assert_eq!(region(39).reach, u64::MAX / 40 * 20);
        assert_eq!(region(u64::MAX).reach, 20);
        let region = region(9_999);
        assert_eq!(region.reach(region.reach), region.reach);
        assert_eq!(region.reach(region.reach / 4), 2 * region.reach, "crowded");
        // As near as that in 1 of 1,000 cases.
        for k in [2_u16, 4, 8, 20, 100] {
            #[allow(clippy::cast_precision_loss)]
            let at = implausible(k) as f64 / 65_536.0 * f64::from(k);
            let probability = gamma_p(f64::from(k), at);
            assert!((0.000_05..0.001_2).contains(&probability), "{k}: {probability}");
        }
        assert_eq!(implausible(1), 0, "one node says nothing");
    }

    #[test]
    fn a_crowd_takes_nothing_from_those_spread_out() {
        // Twenty honest ones, evenly; two hundred next to the key.
        let honest: Vec<_> = (1..=20).map(|at| at << 50).collect();
        let all: Vec<_> = (1..=200).chain(honest.iter().copied()).collect();
        let chosen = picked(&all, 60);
        assert_eq!(chosen.len(), 60);
        assert!(honest.iter().all(|at| chosen.contains(at)), "{chosen:?}");
        // As many in each of three places.
        let three: Vec<_> = [1_u64 << 40, 1 << 41, 1 << 42]
            .iter()
            .flat_map(|at| (0..40).map(move |more| at + more))
            .collect();
        let chosen = picked(&three, 60);
        let count = |at: u64| chosen.iter().filter(|one| **one >= at && **one < at + 40).count();
        assert_eq!((count(1 << 40), count(1 << 41), count(1 << 42)), (15, 15, 30), "half for the outer half");
        assert_eq!(picked(&three, 0), Vec::<u64>::new());
        assert_eq!(picked(&[7, 7, 7], 2), [7, 7], "at one place, the first");
        assert_eq!(picked(&three, 200), three);
    }

    #[test]
    fn what_a_crowd_has_stored_is_not_credible() {
        let region = region(9_999);
        let part = region.reach / 20;
        // The honest neighbourhood.
        let honest: Vec<_> = (1..=20).map(|at| at * part).collect();
        let (report, _) = region.report(
            honest.iter().copied(),
            honest.iter().map(|at| (*at, true)),
            honest.iter().copied(),
        );
        assert_eq!((report.answered, report.stored, report.credible), (20, 20, 20));
        assert!(report.plausibility.unwrap() > 0.3);
        // Twenty next to the key, and nobody else.
        let sybils = 1..=20;
        let (report, _) = region.report(sybils.clone(), sybils.clone().map(|at| (at, true)), sybils.clone());
        assert_eq!((report.answered, report.stored, report.credible), (20, 20, 0));
        assert!(report.plausibility.unwrap() < 1e-9);
        // And with the honest.
        let all = sybils.chain(honest);
        let (report, _) = region.report(all.clone(), all.clone().map(|at| (at, true)), all);
        assert!(
            (report.answered, report.stored) == (40, 40) && (18..=20).contains(&report.credible),
            "{report:?}"
        );
        assert_eq!(
            region.report(1..=4, core::iter::empty(), core::iter::empty()).0.plausibility,
            None,
            "too few"
        );
    }

    /// Others are kept from us, or most of the network has gone.
    #[test]
    fn what_is_stored_far_from_the_key_is_not_credible() {
        let farthest = |region: &Region, times: u64| {
            let all: Vec<_> = (1..=20).map(|at| region.reach / 20 * times * at).collect();
            let (report, doubts) =
                region.report(all.iter().copied(), all.iter().map(|at| (*at, true)), all.iter().copied());
            (report.stored, report.credible, doubts.least)
        };
        let region = region(9_999);
        assert_eq!(farthest(&region, 2), (20, 20, 0));
        let (stored, credible, least) = farthest(&region, 4);
        assert!(stored == 20 && (8..=10).contains(&credible) && least >= 10, "{credible} of {least}");
        // Where fewer have answered, the last of these tells; but not if enough of those that have not answered store it near.
        let few = |near: u64| {
            let answered: Vec<_> = (1..=5).map(|at| region.reach * at).collect();
            let stored = (1..=near).map(|at| region.reach / 20 * at).chain(answered.iter().copied());
            let stored: Vec<_> = stored.map(|at| (at, true)).collect();
            let known = stored.iter().map(|(at, _)| *at);
            region.report(answered.iter().copied(), stored.iter().copied(), known).1.least
        };
        assert_eq!((few(6) >= 10, few(7)), (true, 0), "seven and three of the five are not that far");
        // The own table does not tell the size that well.
        let region = Region { basis: SizeBasis::Table, ..region };
        assert_eq!(farthest(&region, 5), (20, 20, 0));
        assert_eq!(farthest(&region, 7), (20, 5, 52));
    }
}
