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
/// that holds of the own neighbourhood, too.
pub(crate) fn known_size<F: Family>(
    table: &RoutingTable<F>,
    estimate: Option<u64>,
    k: usize,
) -> Option<KnownSize> {
    let by_table = density(table, k);
    let (Some(nodes), Some(around)) = (estimate, by_table) else {
        let by_table = by_table.map(|nodes| KnownSize { nodes, basis: SizeBasis::Table });
        return estimate.map(|nodes| KnownSize { nodes, basis: SizeBasis::Estimate }).or(by_table);
    };
    let parts = u64::try_from(k.isqrt()).unwrap_or(u64::MAX).max(1);
    let bounded = nodes.min(around.saturating_add(around.saturating_mul(2) / parts));
    let basis = if bounded == nodes { SizeBasis::Estimate } else { SizeBasis::Table };
    Some(KnownSize { nodes: bounded, basis })
}

/// The size of a network that is everywhere as dense as it is around the own key, by the distance of the k-th nearest node
/// that was heard from. `None` if there are fewer, or as long as no lookup of the own key has found who is near: a table of a few
/// nodes from anywhere looks as that of a small network does.
fn density<F: Family>(table: &RoutingTable<F>, k: usize) -> Option<u64> {
    if !table.knows_neighbourhood() {
        return None;
    }
    let own = table.local();
    let mut verified = table.closest(own).filter(|entry: &&TableEntry<F>| entry.is_verified());
    let farthest = F::key(verified.nth(k.checked_sub(1)?)?.node()).distance(&own).leading();
    // Of the k nearest of N, k - 1 are nearer than the last of them.
    let nearer = u128::try_from(k - 1).unwrap_or_default().max(1);
    let nodes = nearer * (u128::from(u64::MAX) + 1) / u128::from(farthest.max(1));
    Some(u64::try_from(nodes).unwrap_or(u64::MAX))
}
