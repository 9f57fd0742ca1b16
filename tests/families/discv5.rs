//! A family like discv5's: signed records with a sequence number, requests that carry distances, answers in packets.

use crate::network::{Known, Random, Wire};
use kad_proto::{AnswerScope, Family, Key, Key256, Request, ToldBy};
use std::net::{Ipv4Addr, SocketAddrV4};

/// The most records that an answer names, and that one packet holds.
const MAX_RECORDS: usize = 16;
const PER_PACKET: usize = 4;

/// A node record (ENR). It is signed: nobody else can make one with this id.
#[derive(Clone, Debug)]
pub(crate) struct Enr {
    pub(crate) id: Key256,
    /// The higher one holds.
    pub(crate) sequence: u64,
    pub(crate) address: SocketAddrV4,
}

impl PartialEq for Enr {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Enr {
    pub(crate) fn random(random: &mut Random) -> Self {
        let address = SocketAddrV4::new(Ipv4Addr::from(0x5000_0000 | random.next() as u32 >> 3), 9000);
        Self { id: random.key(), sequence: 1, address }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Discv5;

impl Family for Discv5 {
    type Key = Key256;
    type Target = Key256;
    type Node = Enr;
    type Message = u64;

    const NODES_CHANGE: bool = true;

    fn key(node: &Enr) -> Key256 {
        node.id
    }

    fn answers(&self) -> AnswerScope {
        AnswerScope::Buckets(MAX_RECORDS)
    }

    fn update(known: &mut Enr, told: &Enr, _: ToldBy) -> bool {
        let is_newer = told.sequence > known.sequence;
        if is_newer {
            known.clone_from(told);
        }
        is_newer
    }
}

/// The logarithmic distances that a node is asked for: that of the target, and those next to it.
pub(crate) fn distances(asked: &Key256, target: &Key256) -> Vec<u32> {
    let distance = Key256::BITS - asked.common_prefix_len(target);
    if distance == 0 {
        return vec![0, Key256::BITS];
    }
    let mut distances = vec![distance];
    distances.extend((distance < Key256::BITS).then_some(distance + 1));
    distances.extend((distance > 1).then(|| distance - 1));
    distances
}

/// A record list in packets; there is always one.
pub(crate) fn packets(records: &[Enr]) -> Vec<Vec<Enr>> {
    if records.is_empty() {
        return vec![Vec::new()];
    }
    records.chunks(PER_PACKET).map(<[Enr]>::to_vec).collect()
}

impl Wire for Discv5 {
    type Query = Vec<u32>;

    const BUCKET: usize = 16;
    const CONNECTS: bool = false;
    const PROVES_IDENTITY: bool = true;
    const STORE_IS_ANSWERED: bool = true;
    const TOKENS: bool = false;

    fn query(request: &Request<Self>) -> Vec<u32> {
        distances(&request.node.id, &request.target)
    }

    fn answer(own: &Enr, known: &dyn Known<Self>, asker: &Enr, query: &Vec<u32>) -> Vec<Vec<Enr>> {
        let mut records = Vec::new();
        for distance in query {
            match distance {
                0 => records.push(own.clone()),
                _ => records.extend(known.bucket(Key256::BITS - distance)),
            }
        }
        records.retain(|record| record != asker);
        records.truncate(MAX_RECORDS);
        packets(&records)
    }

    fn addresses(node: &Enr) -> Vec<SocketAddrV4> {
        vec![node.address]
    }

    fn moved(node: &Enr, to: SocketAddrV4) -> Enr {
        Enr { sequence: node.sequence + 1, address: to, ..node.clone() }
    }
}
