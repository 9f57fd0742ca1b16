//! The size of the network by which regions are determined.

use crate::routing::table::{RoutingTable, TableEntry};
use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;
use crate::vocabulary::region::{KnownSize, SizeBasis};

/// The size of the network by which regions are determined: the `estimate`, if there is one, as far as the table agrees.
///
/// The table holds the nodes nearest to the own key completely, each of which was checked again and again. So its density
/// there shows the size of the network as k samples do: within 1 part in √k, one standard deviation. An attacker shapes the
/// lookups that an estimate is made of more cheaply. So an estimate that is more than two of these larger than the table's
/// counts as if it were two larger. One that is smaller counts as it is: nodes that answer are easily made up and hardly hidden, and
/// that holds of the own neighbourhood, too. Only a size below the number of nodes that the table has heard from is impossible: liars
/// who keep a node from all others make its estimate as small. That number counts instead.
///
/// Where there is no estimate, the table stands in. Then it must not be taken at its densest: with k Sybils around the own id, whoever
/// stores would take any region for one that holds none but Sybils. So the sparsest counts of the k nearest, the k + 1 nearest, and
/// so on, as far as the table knows all that there are: s Sybils among n others there make it larger by (s + n) / n at most.
///
/// The estimate is of the last hours, and lags behind where a network grows, as a new one does; the table does not. So an operation
/// stores in the region by the estimate, the larger one, and judges what it finds by the sparsest of the table if that is more.
pub(crate) fn known_size<F: Family>(
    table: &RoutingTable<F>,
    estimate: Option<u64>,
    k: usize,
) -> Option<KnownSize> {
    let heard_from = u64::try_from(table.verified()).unwrap_or(u64::MAX);
    let sparsest = densities(table, k).min();
    let Some(nodes) = estimate else {
        let nodes = sparsest?.max(heard_from);
        return Some(KnownSize { nodes, most: nodes, basis: SizeBasis::Table });
    };
    let parts = u64::try_from(k.isqrt()).unwrap_or(u64::MAX).max(1);
    let around = densities(table, k).next();
    let most = around.map_or(u64::MAX, |around| around.saturating_add(around.saturating_mul(2) / parts));
    let bounded = nodes.min(most).max(heard_from);
    let basis = if bounded == nodes { SizeBasis::Estimate } else { SizeBasis::Table };
    Some(KnownSize { nodes: bounded, most: bounded.max(sparsest.unwrap_or(0)), basis })
}

/// The sizes of networks that are everywhere as dense as it is around the own key, by the distances of the k-th nearest node that was
/// heard from, and of those after it as far as the table holds all that there are: up to the farthest bucket that has room. None
/// if there are fewer than k, or as long as no lookup of the own key has found who is near: a table of a few nodes from anywhere looks
/// as that of a small network does.
fn densities<F: Family>(table: &RoutingTable<F>, k: usize) -> impl Iterator<Item = u64> {
    let own = table.local();
    let has_room = |cpl: &u32| table.bucket(*cpl).len() < table.bucket_size();
    let first_with_room = (0..F::Key::BITS).find(has_room).unwrap_or(F::Key::BITS);
    let verified = table.closest(own).filter(|entry: &&TableEntry<F>| entry.is_verified());
    let ranks = (0_u128..).zip(verified).filter(move |_| table.knows_neighbourhood() && k > 0);
    let from_k = ranks.skip(k.saturating_sub(1));
    let is_complete =
        move |place: usize, entry: &TableEntry<F>| place == 0 || table.cpl(entry.node()) >= first_with_room;
    let complete = from_k.enumerate().take_while(move |(place, (_, entry))| is_complete(*place, entry));
    complete.map(move |(_, (nearer, entry))| {
        // Of the i nearest of N, i - 1 are nearer than the last of them.
        let distance = F::key(entry.node()).distance(&own).leading().max(1);
        let nodes = nearer.max(1) * (u128::from(u64::MAX) + 1) / u128::from(distance);
        u64::try_from(nodes).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::known_size;
    use crate::routing::table::{RoutingTable, TableConfig};
    use crate::vocabulary::family::Family;
    use crate::vocabulary::key::{Bits, Key};
    use crate::vocabulary::region::SizeBasis;
    use crate::vocabulary::secret::Secret;
    use crate::vocabulary::time::Instant;
    use rand_core::{Rng, SeedableRng};
    use rand_xoshiro::Xoshiro256PlusPlus;

    type Key64 = Bits<8>;

    #[derive(Clone, Debug, Default, PartialEq)]
    struct Plain;

    impl Family for Plain {
        type Key = Key64;
        type Target = Key64;
        type Node = Key64;
        type Message = ();

        fn key(node: &Key64) -> Key64 {
            *node
        }
    }

    /// What the table of a node says that knows whom it can of a network of `nodes`, and of Sybils next to its own key.
    fn by_table(nodes: u64, sybils: u64, seed: u64) -> u64 {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let own = Key64::new(random.next_u64().to_be_bytes());
        let mut table =
            RoutingTable::<Plain>::new(own, TableConfig::default(), &Secret::from_seed(seed)).expect("valid");
        for _ in 0..nodes {
            table.offer(Instant::from_secs(1), &Key64::new(random.next_u64().to_be_bytes()), None);
        }
        for number in 1..=sybils {
            table.offer(Instant::from_secs(1), &own.distance(&Key64::new(number.to_be_bytes())), None);
        }
        assert_eq!(known_size(&table, None, 20), None, "nobody has looked who is near");
        table.neighbourhood_found();
        let known = known_size(&table, None, 20).expect("it knows more than 20");
        assert_eq!(known.basis, SizeBasis::Table);
        known.nodes
    }

    #[test]
    fn sybils_around_the_own_id_do_not_make_the_network_look_large() {
        for nodes in [100, 2_000, 10_000] {
            for seed in 0..20 {
                let calm = by_table(nodes, 0, seed);
                assert!((nodes * 2 / 5..nodes * 2).contains(&calm), "{nodes}, {seed}: {calm}");
                for (sybils, most) in [(5, 3), (20, 4), (45, 6), (200, 12)] {
                    let attacked = by_table(nodes, sybils, seed);
                    assert!(
                        (calm..nodes * most).contains(&attacked),
                        "{nodes}, {seed}, {sybils}: {attacked}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_estimate_counts_as_far_as_the_table_agrees() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
        let own = Key64::new(random.next_u64().to_be_bytes());
        let mut table =
            RoutingTable::<Plain>::new(own, TableConfig::default(), &Secret::from_seed(7)).expect("valid");
        for _ in 0..1_000 {
            table.offer(Instant::from_secs(1), &Key64::new(random.next_u64().to_be_bytes()), None);
        }
        let known = |table: &RoutingTable<Plain>, nodes| {
            let known = known_size(table, Some(nodes), 20).expect("an estimate");
            (known.nodes, known.basis)
        };
        assert_eq!(
            known(&table, 1_000_000),
            (1_000_000, SizeBasis::Estimate),
            "there is nothing to hold against it"
        );
        table.neighbourhood_found();
        assert_eq!(known(&table, 500), (500, SizeBasis::Estimate));
        let (nodes, basis) = known(&table, 1_000_000);
        assert!(nodes < 3_000 && basis == SizeBasis::Table, "{nodes}");
        let heard_from = table.iter().count() as u64;
        assert!((100..500).contains(&heard_from), "{heard_from}");
        assert_eq!(known(&table, 41), (heard_from, SizeBasis::Table), "no network is smaller than its part");
        assert_eq!(known(&table, heard_from), (heard_from, SizeBasis::Estimate));
    }
}
