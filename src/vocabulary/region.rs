//! The region of a key: how large the network was taken for, and what was found within it. See
//! [storing](crate::guide::storing).

/// What is less probable than this is implausible: one of 1,000 honest lookups or neighbourhoods is.
pub(crate) const IMPLAUSIBLE: f64 = 0.001;

/// What the size of the network was based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub enum SizeBasis {
    /// The estimate made of lookups: [`NetworkSize`](crate::NetworkSize).
    Estimate,
    /// The density of the own routing table around the own key: there is no estimate, or it is larger than that by more
    /// than chance explains.
    Table,
    /// What the start of an optimistic broadcast said.
    Hint,
}

/// How many nodes the network has, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownSize {
    pub(crate) nodes: u64,
    /// As many there may be: what is found is judged by this number, which is not less.
    pub(crate) most: u64,
    pub(crate) basis: SizeBasis,
}

impl KnownSize {
    /// What the caller says.
    pub(crate) const fn hint(nodes: u64) -> Self {
        Self { nodes, most: nodes, basis: SizeBasis::Hint }
    }

    /// What is `known`, where the caller says that there are so many nodes: what is known counts before it, but what is found is
    /// judged by the caller's number, if that is more.
    pub(crate) fn with_hint(known: Option<Self>, nodes: u64) -> Self {
        known.map_or(Self::hint(nodes), |known| Self { most: known.most.max(nodes), ..known })
    }
}

/// The region of a key, as an operation saw it: all keys up to the distance within which k of the network's nodes are, on
/// average.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RegionReport {
    /// The number of nodes that the network was taken to have.
    pub nodes: u64,
    /// Where this number is from.
    pub basis: SizeBasis,
    /// The nodes that have answered and were stored with, or were asked: those within the region, but at least the k
    /// closest, and at most [`region_bound`](crate::QueryConfig::region_bound) times k; those of all paths together. Of a store
    /// whose time was over, also nodes that [had not answered](crate::BroadcastConfig::store_before_response).
    pub answered: u32,
    /// How many of them have stored the record. 0 of a lookup.
    pub stored: u32,
    /// How many nodes that can be honest have stored the record: where more nodes are known, in a part of the region, than there
    /// can plausibly be, none there counts, and in the other parts as many as there should be; and where the last of the k closest
    /// that have answered, or of fewer, is more than three times as far as the region reaches (six times, by the
    /// [table](SizeBasis::Table)), as if others were kept from us, those up to twice as far. 0 of a lookup.
    pub credible: u32,
    /// How probable it is, at most, that so many honest nodes are at least as close to the key as those that have answered: three
    /// times the least of the [probabilities](crate::network_size::SizeEstimate::plausibility) for the k, k/2 and k/4 closest of them,
    /// as far as there are so many. Of 1,000 honest neighbourhoods, at most one [is implausible](Self::is_implausible). Of an
    /// operation that was cut short, such as a search by its quorum, the nodes that have answered are farther than the closest, so an
    /// attack may go unseen. `None` if fewer than k/4 have answered.
    pub plausibility: Option<f64>,
}

impl RegionReport {
    /// Whether the nodes are so near to the key as hardly ever by chance: their [plausibility](Self::plausibility) is below 0.001.
    pub fn is_implausible(&self) -> bool {
        self.plausibility.is_some_and(|plausibility| plausibility < IMPLAUSIBLE)
    }
}
