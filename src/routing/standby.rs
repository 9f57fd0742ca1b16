//! [`Standby`]: the replacement cache, which holds who waits for a place in a full bucket (Kademlia paper, section 4.1).

use crate::vocabulary::family::{Family, ToldBy};
use crate::vocabulary::time::Instant;
use core::time::Duration;

/// So many wait for a place in one bucket.
const MAX_WAITING: usize = 4;
/// Who answered this long ago gives its place in the line to the next who answers, and is not called any more.
const FRESH: Duration = Duration::from_secs(900);

/// The replacement cache: nodes that have answered while their bucket was full, by bucket. A node of the bucket that is in doubt keeps
/// its place until the doubt is settled; if it leaves, the one of these that answered last is checked, and enters.
///
/// Who waits keeps its place in the line against those who come later, of one group one: nobody can take the line by
/// answering often.
#[derive(Clone, Debug)]
pub(super) struct Standby<F: Family> {
    /// By common prefix length with the own key, in order of arrival.
    buckets: Vec<Vec<(F::Node, Instant)>>,
}

impl<F: Family> Standby<F> {
    pub(super) const fn new() -> Self {
        Self { buckets: Vec::new() }
    }

    /// A node has answered, and its bucket is full.
    pub(super) fn wait(&mut self, now: Instant, cpl: u32, node: &F::Node) {
        if self.buckets.len() <= cpl as usize {
            self.buckets.resize_with(cpl as usize + 1, Vec::new);
        }
        let Some(line) = self.buckets.get_mut(cpl as usize) else { return };
        let group = F::group(node);
        let replaces = |(known, _): &(F::Node, Instant)| {
            known == node || (group.is_some() && F::group(known) == group) || F::key(known) == F::key(node)
        };
        if let Some((known, since)) = line.iter_mut().find(|waiting| replaces(waiting)) {
            if known == node || is_stale(now, *since) {
                known.clone_from(node);
                *since = now;
            }
        } else if line.len() < MAX_WAITING {
            line.push((node.clone(), now));
        } else if let Some((known, since)) = line.iter_mut().find(|(_, since)| is_stale(now, *since)) {
            known.clone_from(node);
            *since = now;
        }
    }

    /// A place in this bucket is free: who answered last is to be checked.
    pub(super) fn next(&mut self, now: Instant, cpl: u32) -> Option<F::Node> {
        let line = self.buckets.get_mut(cpl as usize)?;
        line.retain(|(_, since)| !is_stale(now, *since));
        let latest = line.iter().enumerate().max_by_key(|(_, (_, since))| *since).map(|(at, _)| at)?;
        Some(line.remove(latest).0)
    }

    /// A node is gone, or does not serve.
    pub(super) fn forget(&mut self, cpl: u32, node: &F::Node) {
        if let Some(line) = self.buckets.get_mut(cpl as usize) {
            line.retain(|(known, _)| known != node);
        }
    }

    /// This node has another id: the buckets are others.
    pub(super) fn clear(&mut self) {
        self.buckets.clear();
    }

    /// A node has told about itself.
    pub(super) fn told_by_itself(&mut self, cpl: u32, node: &F::Node) {
        let line = self.buckets.get_mut(cpl as usize);
        for (known, _) in line.into_iter().flatten().filter(|(known, _)| known == node) {
            F::update(known, node, ToldBy::Itself);
        }
    }

    pub(super) fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node)) {
        self.buckets.iter().flatten().map(|(node, _)| node).for_each(visit);
    }
}

fn is_stale(now: Instant, since: Instant) -> bool {
    now - since > FRESH
}

#[cfg(test)]
mod tests {
    use super::{FRESH, MAX_WAITING, Standby};
    use crate::vocabulary::family::{Family, Group};
    use crate::vocabulary::key::Key8;
    use crate::vocabulary::time::Instant;
    use core::time::Duration;

    /// A key, and a group unless it is 0.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Grouped;

    impl Family for Grouped {
        type Key = Key8;
        type Target = Key8;
        type Node = (u8, u8);
        type Message = ();

        fn key(node: &(u8, u8)) -> Key8 {
            Key8::new([node.0])
        }

        fn group(node: &(u8, u8)) -> Option<Group> {
            (node.1 != 0).then_some(Group(u64::from(node.1)))
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_secs(10_000 + seconds)
    }

    #[test]
    fn the_latest_is_called_first_each_once_and_only_for_its_own_bucket() {
        let mut standby = Standby::<Grouped>::new();
        for node in 0..3 {
            standby.wait(at(u64::from(node)), 2, &(node, 0));
        }
        standby.wait(at(9), 2, &(1, 0));
        assert_eq!(standby.next(at(10), 1), None);
        let called: Vec<_> = core::iter::from_fn(|| standby.next(at(10), 2)).collect();
        assert_eq!(called, [(1, 0), (2, 0), (0, 0)]);
    }

    #[test]
    fn who_waits_keeps_its_place_until_it_is_stale() {
        let mut standby = Standby::<Grouped>::new();
        for node in 0..100 {
            standby.wait(at(u64::from(node)), 0, &(node, 0));
        }
        let line: Vec<_> =
            core::iter::from_fn(|| standby.clone().next(at(100), 0).inspect(|node| standby.forget(0, node)))
                .collect();
        assert_eq!(line, [(3, 0), (2, 0), (1, 0), (0, 0)]);
        assert_eq!(line.len(), MAX_WAITING);

        standby.wait(at(200), 0, &(1, 0));
        assert_eq!(standby.clone().next(at(200) + FRESH, 0), Some((1, 0)));
        let late = at(200) + FRESH + Duration::from_secs(1);
        assert_eq!(standby.clone().next(late, 0), None);
        for node in 10..14 {
            standby.wait(at(200), 0, &(node, 0));
        }
        standby.wait(late, 0, &(20, 0));
        assert_eq!(standby.next(late, 0), Some((20, 0)));
    }

    #[test]
    fn of_a_group_one_waits_and_of_a_key() {
        let mut standby = Standby::<Grouped>::new();
        for node in 0..9 {
            standby.wait(at(u64::from(node)), 0, &(node, 7));
        }
        standby.wait(at(9), 0, &(0, 8));
        assert_eq!(standby.next(at(10), 0), Some((0, 7)));
        assert_eq!(standby.next(at(10), 0), None);
    }
}
