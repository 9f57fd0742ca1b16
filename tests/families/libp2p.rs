//! A family like libp2p's: a peer id with addresses, keys that are the SHA-256 of ids, requests that carry the preimage.

use crate::network::{Known, Random, Wire};
use kad_proto::{AnswerScope, Family, Key, Key256, Request, Target, ToldBy};
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, OnceLock};

/// The most addresses that are kept of a peer, as far as others have told them.
pub(crate) const MAX_ADDRESSES: usize = 4;

fn hash(bytes: &[u8]) -> Key256 {
    Key256::new(Sha256::digest(bytes).into())
}

/// A peer: its id, with its hash, and where it can be reached. Its id is proved by the transport.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) id: [u8; 12],
    pub(crate) key: Key256,
    pub(crate) addresses: Vec<SocketAddrV4>,
}

impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Peer {
    pub(crate) fn new(id: u64, addresses: Vec<SocketAddrV4>) -> Self {
        let mut bytes = *b"peer00000000";
        bytes[4..].copy_from_slice(&id.to_be_bytes());
        Self { id: bytes, key: hash(&bytes), addresses }
    }

    /// A peer with a public address.
    pub(crate) fn random(random: &mut Random) -> Self {
        let address = SocketAddrV4::new(Ipv4Addr::from(0x5000_0000 | random.next() as u32 >> 3), 4001);
        Self::new(random.next(), vec![address])
    }
}

/// What a request carries, with its key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    /// What is sent. The answerer hashes it.
    pub(crate) wire: WireTarget,
    key: Key256,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum WireTarget {
    /// Bytes, which the answerer hashes.
    Preimage(Vec<u8>),
    /// A key. No wire has this: it stands for an oracle that finds a preimage of any key.
    Oracle(Key256),
}

impl WireTarget {
    /// What the answerer makes of it.
    fn key(&self) -> Key256 {
        match self {
            Self::Preimage(bytes) => hash(bytes),
            Self::Oracle(key) => *key,
        }
    }
}

impl Asked {
    pub(crate) fn preimage(bytes: &[u8]) -> Self {
        Self { wire: WireTarget::Preimage(bytes.to_vec()), key: hash(bytes) }
    }

    /// A random target of a caller's.
    pub(crate) fn random(random: &mut Random) -> Self {
        Self::preimage(&random.next().to_le_bytes())
    }
}

impl Target<Key256> for Asked {
    fn key(&self) -> Key256 {
        self.key
    }
}

/// A preimage for each prefix of some bits.
#[derive(PartialEq)]
pub(crate) struct PreimageTable {
    bits: u32,
    /// By prefix.
    preimages: Vec<u32>,
}

impl fmt::Debug for PreimageTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "preimages for prefixes of {} bits", self.bits)
    }
}

impl PreimageTable {
    /// Made once for each length.
    pub(crate) fn of_bits(bits: u32) -> Arc<Self> {
        static TABLES: [OnceLock<Arc<PreimageTable>>; 17] = [const { OnceLock::new() }; 17];
        TABLES[bits as usize].get_or_init(|| Arc::new(Self::new(bits))).clone()
    }

    fn new(bits: u32) -> Self {
        let mut preimages = vec![u32::MAX; 1 << bits];
        let mut left = preimages.len();
        for number in 0.. {
            let prefix = (hash(&u32::to_le_bytes(number)).leading() >> (64 - bits)) as usize;
            if preimages[prefix] == u32::MAX {
                preimages[prefix] = number;
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        Self { bits, preimages }
    }

    fn near(&self, point: Key256, bits: u32) -> Option<Asked> {
        let prefix = (point.leading() >> (64 - self.bits)) as usize;
        (bits <= self.bits).then(|| Asked::preimage(&self.preimages[prefix].to_le_bytes()))
    }
}

/// How a family finds a target near a point.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Preimages {
    #[default]
    None,
    Table(Arc<PreimageTable>),
    /// For comparison: as if a preimage of each key were known.
    Exact,
    /// For comparison: the point itself is sent as if it were the preimage, so the answerer looks elsewhere.
    HashAsKey,
}

/// Which addresses can be dialled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reach {
    #[default]
    Any,
    Lan,
    Wan,
}

impl Reach {
    pub(crate) fn fits(self, address: &SocketAddrV4) -> bool {
        match self {
            Self::Any => true,
            Self::Lan => address.ip().is_private(),
            Self::Wan => !address.ip().is_private(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Libp2p {
    pub(crate) preimages: Preimages,
    pub(crate) reach: Reach,
}

impl Libp2p {
    pub(crate) fn with(preimages: Preimages) -> Self {
        Self { preimages, reach: Reach::Any }
    }

    pub(crate) fn with_table(bits: u32) -> Self {
        Self::with(Preimages::Table(PreimageTable::of_bits(bits)))
    }
}

impl Family for Libp2p {
    type Key = Key256;
    type Target = Asked;
    type Node = Peer;
    type Message = u64;

    const NODES_CHANGE: bool = true;

    fn key(node: &Peer) -> Key256 {
        node.key
    }

    fn admits(&self, node: &Peer) -> bool {
        node.addresses.iter().any(|address| self.reach.fits(address))
    }

    fn target_of(node: &Peer) -> Option<Asked> {
        Some(Asked { wire: WireTarget::Preimage(node.id.to_vec()), key: node.key })
    }

    fn target_near(&self, point: Key256, bits: u32) -> Option<Asked> {
        match &self.preimages {
            Preimages::None => None,
            Preimages::Table(table) => table.near(point, bits),
            Preimages::Exact => Some(Asked { wire: WireTarget::Oracle(point), key: point }),
            Preimages::HashAsKey => {
                Some(Asked { wire: WireTarget::Preimage(point.as_bytes().to_vec()), key: point })
            }
        }
    }

    fn answers(&self) -> AnswerScope {
        AnswerScope::Closest(20)
    }

    fn update(known: &mut Peer, told: &Peer, by: ToldBy) -> bool {
        if by == ToldBy::Itself {
            let changes = !told.addresses.is_empty() && known.addresses != told.addresses;
            if changes {
                known.addresses.clone_from(&told.addresses);
            }
            return changes;
        }
        let before = known.addresses.len();
        for address in &told.addresses {
            if known.addresses.len() < MAX_ADDRESSES && !known.addresses.contains(address) {
                known.addresses.push(*address);
            }
        }
        known.addresses.len() > before
    }
}

impl Wire for Libp2p {
    type Query = WireTarget;

    const BUCKET: usize = 20;
    const CONNECTS: bool = true;
    const PROVES_IDENTITY: bool = true;
    const STORE_IS_ANSWERED: bool = false;
    const TOKENS: bool = false;

    fn query(request: &Request<Self>) -> WireTarget {
        request.target.wire.clone()
    }

    /// The 20 closest, in one message; the asker is left out.
    fn answer(_: &Peer, known: &dyn Known<Self>, asker: &Peer, query: &WireTarget) -> Vec<Vec<Peer>> {
        let mut closest = known.closest(query.key(), 21);
        closest.retain(|node| node != asker);
        closest.truncate(20);
        vec![closest]
    }

    fn addresses(node: &Peer) -> Vec<SocketAddrV4> {
        node.addresses.clone()
    }

    fn can_dial(&self, address: &SocketAddrV4) -> bool {
        self.reach.fits(address)
    }

    fn moved(node: &Peer, to: SocketAddrV4) -> Peer {
        Peer { addresses: vec![to], ..node.clone() }
    }
}
