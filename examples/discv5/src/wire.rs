//! The family of discv5, and its messages (devp2p, `discv5-wire.md`, version 5.1).

use alloy_rlp::{Decodable, Encodable, Header};
use enr::k256::ecdsa::SigningKey;
use enr::{Enr, NodeId};
use kad_proto::{AnswerScope, Family, Group, Key, Key256, ToldBy};
use kad_proto_async::{Payload, Wire};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// How many records an answer names at most, and how many of them one packet holds: a record has up to 300 bytes, a packet 1,280.
pub(crate) const MAX_RECORDS: usize = 16;
const PER_PACKET: usize = 3;

/// A node: its record (ENR), which it has signed. It is who its id says, wherever it can be reached.
#[derive(Clone, Debug)]
pub struct Record(pub Arc<Enr<SigningKey>>);

impl Record {
    pub(crate) fn id(&self) -> NodeId {
        self.0.node_id()
    }

    /// The node id, which is the keccak256 of the public key.
    #[must_use]
    pub fn key(&self) -> Key256 {
        Key256::new(self.id().raw())
    }

    /// Where it can be reached, if the record says so.
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.udp4_socket().map(SocketAddr::V4)
    }
}

impl From<Enr<SigningKey>> for Record {
    fn from(enr: Enr<SigningKey>) -> Self {
        Self(Arc::new(enr))
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

/// The types of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Discv5;

impl Family for Discv5 {
    type Key = Key256;
    type Target = Key256;
    type Node = Record;
    type Message = Payload<Self>;
    const NODES_CHANGE: bool = true;

    fn key(node: &Record) -> Key256 {
        node.key()
    }

    // A node of the internet would also refuse private addresses, unless it has one itself.
    fn admits(&self, node: &Record) -> bool {
        node.address().is_some_and(|at| at.port() != 0 && !at.ip().is_unspecified())
    }

    fn group(node: &Record) -> Option<Group> {
        let ip = node.0.udp4_socket().map(|at| *at.ip()).filter(|ip| !ip.is_loopback());
        ip.map(|ip| Group(u64::from(u32::from(ip) >> 8)))
    }

    fn answers(&self) -> AnswerScope {
        AnswerScope::Buckets(MAX_RECORDS)
    }

    // It is signed, so it does not matter who tells it.
    fn update(known: &mut Record, told: &Record, _: ToldBy) -> bool {
        let is_newer = told.0.seq() > known.0.seq();
        if is_newer {
            known.clone_from(told);
        }
        is_newer
    }
}

/// Nothing is stored in this network.
impl Wire for Discv5 {
    type Value = ();
    type Provider = ();

    fn accepts(_: &Key256, (): &()) -> bool {
        false
    }
}

/// The logarithmic distance of two nodes: 0 of the same, otherwise 256 less the leading bits that they share.
pub(crate) fn distance(a: &Key256, b: &Key256) -> u64 {
    u64::from(Key256::BITS - a.common_prefix_len(b))
}

/// What to ask a node for: the distance of the target, and those next to it. About itself, a node also tells its record.
pub(crate) fn distances(asked: &Key256, target: &Key256) -> Vec<u64> {
    match distance(asked, target) {
        0 => vec![0, 256],
        at => [at, at + 1, at - 1].into_iter().filter(|at| (1..=256).contains(at)).collect(),
    }
}

/// The id of a request: the other side repeats it in what it answers.
pub(crate) type Id = Vec<u8>;

/// A message of another node, decrypted. (This node never asks for a `PONG` or a `TALKRESP`.)
#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    Ping {
        id: Id,
        sequence: u64,
    },
    FindNode {
        id: Id,
        distances: Vec<u64>,
    },
    /// The records are encoded.
    Nodes {
        id: Id,
        total: u64,
        records: Vec<Vec<u8>>,
    },
    Talk {
        id: Id,
    },
}

impl Message {
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, mut rest) = bytes.split_first()?;
        let fields = &mut Header::decode_bytes(&mut rest, true).ok()?;
        let id = Header::decode_bytes(fields, false).ok().filter(|id| id.len() <= 8)?.to_vec();
        Some(match kind {
            1 => Self::Ping { id, sequence: u64::decode(fields).ok()? },
            3 => Self::FindNode { id, distances: Vec::decode(fields).ok()? },
            4 => {
                let total = u64::decode(fields).ok()?;
                Self::Nodes { id, total, records: items(Header::decode_bytes(fields, true).ok()?)? }
            }
            5 => Self::Talk { id },
            _ => return None,
        })
    }
}

/// The items of a list of lists, encoded.
fn items(mut list: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut items = Vec::new();
    while !list.is_empty() {
        let mut others = list;
        Header::decode_bytes(&mut others, true).ok()?;
        items.push(list.get(..list.len() - others.len())?.to_vec());
        list = others;
    }
    Some(items)
}

fn encode(kind: u8, id: &[u8], fields: &[&dyn Encodable]) -> Vec<u8> {
    let payload_length = id.length() + fields.iter().copied().map(Encodable::length).sum::<usize>();
    let mut bytes = vec![kind];
    Header { list: true, payload_length }.encode(&mut bytes);
    id.encode(&mut bytes);
    for field in fields {
        field.encode(&mut bytes);
    }
    bytes
}

/// The answer to a `PING`: the sequence number of this node's record, and where the other one was seen.
pub(crate) fn pong(id: &[u8], sequence: u64, seen: SocketAddr) -> Vec<u8> {
    match seen.ip() {
        IpAddr::V4(ip) => encode(2, id, &[&sequence, &ip, &seen.port()]),
        IpAddr::V6(ip) => encode(2, id, &[&sequence, &ip, &seen.port()]),
    }
}

/// Asks for the records that a node knows at these distances from itself.
pub(crate) fn find_node(id: &[u8], distances: &Vec<u64>) -> Vec<u8> {
    encode(3, id, &[distances])
}

/// The packets of an answer that names these records. There is always one.
pub(crate) fn nodes(id: &[u8], records: &[Record]) -> Vec<Vec<u8>> {
    let total = records.len().div_ceil(PER_PACKET).max(1);
    let packet = |number: usize| {
        let these = records.iter().skip(number * PER_PACKET).take(PER_PACKET);
        let these: Vec<Enr<SigningKey>> = these.map(|record| (*record.0).clone()).collect();
        encode(4, id, &[&(total as u64), &these])
    };
    (0..total).map(packet).collect()
}

/// The answer to a `TALKREQ` of a protocol that is not known.
pub(crate) fn talk_answer(id: &[u8]) -> Vec<u8> {
    encode(6, id, &[&""])
}
