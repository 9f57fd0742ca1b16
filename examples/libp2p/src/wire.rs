//! The wire of `/ipfs/kad/1.0.0`: its family, and its messages (libp2p specs, kad-dht).

use futures::{AsyncReadExt, AsyncWriteExt};
use kad_proto::{Ask, Family, Group, Key256, Target, ToldBy};
use kad_proto_async::{Payload, Reply, Wire};
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::{PeerId, Stream};
use prost::Message as _;
use sha2::{Digest, Sha256};
use std::hash::{Hash, Hasher};

/// What is asked for: the bytes that are hashed to a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Preimage {
    bytes: Vec<u8>,
    key: Key256,
}

impl Preimage {
    /// The target that these bytes name: those of a peer id, of a multihash, of the key of a record.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self { key: Key256::new(Sha256::digest(&bytes).into()), bytes }
    }
}

impl Target<Key256> for Preimage {
    fn key(&self) -> Key256 {
        self.key
    }
}

/// A node. It is who its id says, wherever it can be reached.
#[derive(Clone, Debug, Eq)]
pub struct Peer {
    /// The id, which the transport proves.
    pub id: PeerId,
    key: Key256,
    /// Where it may be reached.
    pub addresses: Vec<Multiaddr>,
}

/// How many addresses of a peer are remembered. An answer may name any number.
const MAX_ADDRESSES: usize = 8;

impl Peer {
    /// The peer with this id and these addresses.
    pub fn new(id: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) -> Self {
        let addresses = addresses.into_iter().take(MAX_ADDRESSES).collect();
        Self { id, key: Preimage::new(id.to_bytes()).key, addresses }
    }
}

impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Hash for Peer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// The group of an address: its network.
pub(crate) fn group(address: &Multiaddr) -> Option<Group> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) if !ip.is_loopback() => Some(Group(u64::from(u32::from(ip) >> 16))),
        Protocol::Ip6(ip) if !ip.is_loopback() => Some(Group((u128::from(ip) >> 96) as u64)),
        _ => None,
    })
}

/// The types of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ipfs;

impl Family for Ipfs {
    type Key = Key256;
    type Target = Preimage;
    type Node = Peer;
    type Message = Payload<Self>;
    const NODES_CHANGE: bool = true;

    fn key(node: &Peer) -> Key256 {
        node.key
    }

    fn admits(&self, node: &Peer) -> bool {
        !node.addresses.is_empty()
    }

    fn group(node: &Peer) -> Option<Group> {
        node.addresses.iter().find_map(group)
    }

    fn target_of(node: &Peer) -> Option<Preimage> {
        Some(Preimage { bytes: node.id.to_bytes(), key: node.key })
    }

    fn update(known: &mut Peer, told: &Peer, by: ToldBy) -> bool {
        let before = known.addresses.clone();
        if by == ToldBy::Itself && !told.addresses.is_empty() {
            known.addresses.clone_from(&told.addresses);
        } else {
            let news = told.addresses.iter().filter(|at| !before.contains(at)).cloned();
            known.addresses.extend(news.take(MAX_ADDRESSES.saturating_sub(before.len())));
        }
        known.addresses != before
    }
}

impl Wire for Ipfs {
    type Value = Vec<u8>;
    type Provider = Peer;

    fn size(value: &Vec<u8>) -> usize {
        value.len()
    }
}

const PUT_VALUE: i32 = 0;
const GET_VALUE: i32 = 1;
const ADD_PROVIDER: i32 = 2;
const GET_PROVIDERS: i32 = 3;
const FIND_NODE: i32 = 4;

/// The longest message that is read, in bytes: what rust-libp2p allows.
const MAX_MESSAGE: usize = 16 * 1024;

#[derive(Clone, PartialEq, prost::Message)]
struct PeerMessage {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    addresses: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RecordMessage {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// A request or an answer.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Message {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    record: Option<RecordMessage>,
    #[prost(message, repeated, tag = "8")]
    closer: Vec<PeerMessage>,
    #[prost(message, repeated, tag = "9")]
    providers: Vec<PeerMessage>,
}

fn to_wire(peers: &[Peer]) -> Vec<PeerMessage> {
    let message = |peer: &Peer| {
        let addresses = peer.addresses.iter().map(Multiaddr::to_vec).collect();
        PeerMessage { id: peer.id.to_bytes(), addresses }
    };
    peers.iter().map(message).collect()
}

/// Those that can be read: one that cannot costs itself, not the answer.
fn from_wire(peers: Vec<PeerMessage>) -> Vec<Peer> {
    let peer = |message: PeerMessage| {
        let addresses = message.addresses.into_iter().filter_map(|bytes| Multiaddr::try_from(bytes).ok());
        Some(Peer::new(PeerId::from_bytes(&message.id).ok()?, addresses))
    };
    peers.into_iter().filter_map(peer).collect()
}

impl Message {
    fn new(kind: i32, target: &Preimage) -> Self {
        Self { kind, key: target.bytes.clone(), ..Self::default() }
    }

    fn carrying(target: &Preimage, payload: &Payload<Ipfs>) -> Option<Self> {
        Some(match payload {
            Payload::Get => Self::new(GET_VALUE, target),
            Payload::GetProviders => Self::new(GET_PROVIDERS, target),
            Payload::Put(value) => {
                let record = RecordMessage { key: target.bytes.clone(), value: value.clone() };
                Self { record: Some(record), ..Self::new(PUT_VALUE, target) }
            }
            Payload::Provide(provider) => {
                let providers = to_wire(std::slice::from_ref(provider));
                Self { providers, ..Self::new(ADD_PROVIDER, target) }
            }
            Payload::Token(_) | Payload::Reason(_) => return None,
        })
    }

    /// The messages of a request: one, or one for each record.
    pub(crate) fn requests(target: &Preimage, ask: &Ask<Ipfs>) -> Vec<Self> {
        match ask {
            Ask::FindCloser => vec![Self::new(FIND_NODE, target)],
            Ask::Message(message) | Ask::Store { message, .. } => {
                Self::carrying(target, message).into_iter().collect()
            }
            Ask::Batch { records, .. } => {
                records.iter().filter_map(|record| Self::carrying(&record.target, &record.message)).collect()
            }
        }
    }

    /// What a message of this peer asks for.
    pub(crate) fn ask(&self, from: PeerId) -> Option<(Preimage, Ask<Ipfs>)> {
        let token = None;
        let ask = match self.kind {
            FIND_NODE => Ask::FindCloser,
            GET_VALUE => Ask::Message(Payload::Get),
            GET_PROVIDERS => Ask::Message(Payload::GetProviders),
            PUT_VALUE => Ask::Store { message: Payload::Put(self.record.as_ref()?.value.clone()), token },
            // Nobody may name another as a provider.
            ADD_PROVIDER => {
                let provider = from_wire(self.providers.clone()).into_iter().find(|peer| peer.id == from)?;
                Ask::Store { message: Payload::Provide(provider), token }
            }
            _ => return None,
        };
        Some((Preimage::new(self.key.clone()), ask))
    }

    /// Whether the other side answers it.
    pub(crate) const fn has_answer(&self) -> bool {
        self.kind != ADD_PROVIDER
    }

    /// The answer to it. Who asks is not named.
    pub(crate) fn answer(self, reply: Reply<Ipfs>, to: PeerId) -> Self {
        if self.kind == PUT_VALUE {
            return self;
        }
        let key = self.key.clone();
        let closer: Vec<_> = reply.closer.into_iter().filter(|peer| peer.id != to).collect();
        Self {
            record: reply.values.into_iter().next().map(|value| RecordMessage { key, value }),
            closer: to_wire(&closer),
            providers: to_wire(&reply.providers),
            ..self
        }
    }

    /// What an answer to `self` says.
    pub(crate) fn reply(&self, answer: Self) -> Reply<Ipfs> {
        let record = answer.record.filter(|record| self.kind == GET_VALUE && record.key == self.key);
        let providers = if self.kind == GET_PROVIDERS { from_wire(answer.providers) } else { Vec::new() };
        let values = record.map(|record| record.value).into_iter().collect();
        Reply { values, providers, ..Reply::naming(from_wire(answer.closer)) }
    }

    pub(crate) async fn write(&self, to: &mut Stream) -> std::io::Result<()> {
        to.write_all(&self.encode_length_delimited_to_vec()).await?;
        to.flush().await
    }

    /// `None` where the other side has closed the stream, or sends what is no message.
    pub(crate) async fn read(from: &mut Stream) -> std::io::Result<Option<Self>> {
        let length = match unsigned_varint::aio::read_usize(&mut *from).await {
            Ok(length) if length <= MAX_MESSAGE => length,
            _ => return Ok(None),
        };
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes).await?;
        Ok(Some(Self::decode(&bytes[..])?))
    }
}
