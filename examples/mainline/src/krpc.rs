//! KRPC, the wire protocol of `BitTorrent`'s DHT: bencoded dictionaries in UDP datagrams.
//!
//! What it takes to look up nodes and to be one (BEP 5), peers included, and to store and get immutable items (BEP
//! 44). Everything that comes in is from strangers: [`Message::decode`] takes any bytes and says what is wrong
//! with them.

use crate::family::Node;
use core::fmt;
use kad_proto::Key160;
use serde::{Deserialize, Serialize};
use serde_bencode::value::Value;
use serde_bytes::ByteBuf;
use std::net::{Ipv4Addr, SocketAddrV4};

/// One datagram.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Chosen by the sender of a query, and repeated in the answer. Ours have 4 bytes, those of others any number.
    pub transaction: Vec<u8>,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Query {
        from: Key160,
        query: Query,
        /// The sender answers no queries and does not want to be in anybody's routing table (BEP 43).
        read_only: bool,
    },
    Response {
        from: Key160,
        answer: Answer,
    },
    Error {
        code: i64,
        text: String,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    Ping,
    FindNode {
        target: Key160,
    },
    /// Also answered by the nodes closest to `info_hash`, by a node that knows no peers. With this query
    /// libtorrent checks whether a node lives: who does not answer it is never named to others.
    GetPeers {
        info_hash: Key160,
    },
    /// The sender is a peer of this torrent.
    AnnouncePeer {
        info_hash: Key160,
        port: u16,
        /// The port is not `port`, but that from which the query came.
        implied_port: bool,
        token: Vec<u8>,
    },
    /// Who has this item?
    Get {
        target: Key160,
    },
    /// Keep this item.
    Put {
        /// Bencoded.
        item: Vec<u8>,
        /// Its SHA-1, according to the sender. BEP 44 has it said of mutable items only, but the crate `mainline`
        /// says it always, and ignores queries without.
        target: Option<Key160>,
        token: Vec<u8>,
    },
    /// One that this program does not know. Among them a `put` of a mutable item, that is one with a public key.
    Other(String),
}

/// The content of a response. Which fields there are depends on the query, and on what the sender has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The closest nodes that the sender knows.
    pub nodes: Option<Vec<Node>>,
    /// To be handed back with what is to be stored there.
    pub token: Option<Vec<u8>>,
    /// Peers of the torrent that was asked for.
    pub peers: Option<Vec<SocketAddrV4>>,
    /// An item, bencoded. Whether it is the one that was asked for, its SHA-1 tells.
    pub item: Option<Vec<u8>>,
}

/// Why a datagram is not KRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not exactly one bencoded value of a sane depth.
    Bencode,
    /// A field is missing or has the wrong type.
    Fields,
    /// An id or a target does not have 20 bytes.
    IdLength,
    /// The nodes are not a multiple of 26 bytes.
    NodesLength,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bencode => "not bencoded",
            Self::Fields => "a field is missing or has the wrong type",
            Self::IdLength => "an id does not have 20 bytes",
            Self::NodesLength => "the nodes are not a multiple of 26 bytes",
        })
    }
}

impl std::error::Error for Malformed {}

impl Message {
    /// The datagram.
    ///
    /// # Errors
    /// [`Malformed::Bencode`] where an item is not bencoded as it ought to be, or too deep.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut wire = Wire { t: ByteBuf::from(self.transaction.clone()), ..Wire::default() };
        match &self.body {
            Body::Query { from, query, read_only } => {
                let mut arguments = Arguments { id: bytes(from), ..Arguments::default() };
                let name = match query {
                    Query::Ping => "ping",
                    Query::FindNode { target } => {
                        arguments.target = Some(bytes(target));
                        "find_node"
                    }
                    Query::GetPeers { info_hash } => {
                        arguments.info_hash = Some(bytes(info_hash));
                        "get_peers"
                    }
                    Query::AnnouncePeer { info_hash, port, implied_port, token } => {
                        arguments.info_hash = Some(bytes(info_hash));
                        arguments.port = Some(i64::from(*port));
                        arguments.implied_port = implied_port.then_some(1);
                        arguments.token = Some(ByteBuf::from(token.clone()));
                        "announce_peer"
                    }
                    Query::Get { target } => {
                        arguments.target = Some(bytes(target));
                        "get"
                    }
                    Query::Put { item, target, token } => {
                        arguments.v = Some(value(item)?);
                        arguments.target = target.as_ref().map(bytes);
                        arguments.token = Some(ByteBuf::from(token.clone()));
                        "put"
                    }
                    Query::Other(name) => name.as_str(),
                };
                wire.y = ByteBuf::from(*b"q");
                wire.q = Some(ByteBuf::from(name));
                wire.a = Some(arguments);
                wire.ro = read_only.then_some(1);
            }
            Body::Response { from, answer } => {
                wire.y = ByteBuf::from(*b"r");
                wire.r = Some(Returned {
                    id: bytes(from),
                    nodes: answer.nodes.as_deref().map(compact),
                    token: answer.token.clone().map(ByteBuf::from),
                    v: answer.item.as_deref().map(value).transpose()?,
                    values: answer
                        .peers
                        .as_deref()
                        .map(|peers| peers.iter().copied().map(compact_peer).collect()),
                });
            }
            Body::Error { code, text } => {
                wire.y = ByteBuf::from(*b"e");
                wire.e = Some((*code, ByteBuf::from(text.as_bytes())));
            }
        }
        serde_bencode::to_bytes(&wire).map_err(|_| Malformed::Bencode)
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// [`Malformed`] says why it is not KRPC.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        if !is_one_shallow_value(datagram, MAX_DEPTH) {
            return Err(Malformed::Bencode);
        }
        let wire: Wire = serde_bencode::from_bytes(datagram).map_err(|_| Malformed::Fields)?;
        let body = match (wire.y.as_slice(), wire.q, wire.a, wire.r, wire.e) {
            (b"q", Some(name), Some(arguments), ..) => Body::Query {
                from: key(&arguments.id)?,
                query: query(&name, arguments)?,
                read_only: wire.ro == Some(1),
            },
            (b"r", _, _, Some(returned), _) => {
                let answer = Answer {
                    nodes: returned.nodes.map(|nodes| nodes_of(&nodes)).transpose()?,
                    token: returned.token.map(ByteBuf::into_vec),
                    // Those that are not IPv4 are of no use here.
                    peers: returned
                        .values
                        .map(|values| values.iter().filter_map(|peer| address(peer)).collect()),
                    item: returned.v.map(|value| item(&value)).transpose()?,
                };
                Body::Response { from: key(&returned.id)?, answer }
            }
            (b"e", _, _, _, Some((code, text))) => {
                Body::Error { code, text: String::from_utf8_lossy(&text).into_owned() }
            }
            _ => return Err(Malformed::Fields),
        };
        Ok(Self { transaction: wire.t.into_vec(), body })
    }
}

/// A message as it is bencoded: one dictionary with keys of one or two letters.
#[derive(Default, Serialize, Deserialize)]
struct Wire {
    t: ByteBuf,
    y: ByteBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    q: Option<ByteBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    a: Option<Arguments>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    r: Option<Returned>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    e: Option<(i64, ByteBuf)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ro: Option<i64>,
}

#[derive(Default, Serialize, Deserialize)]
struct Arguments {
    id: ByteBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    implied_port: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    info_hash: Option<ByteBuf>,
    /// The public key of a mutable item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    k: Option<ByteBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<ByteBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<ByteBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    v: Option<Value>,
}

#[derive(Serialize, Deserialize)]
struct Returned {
    id: ByteBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nodes: Option<ByteBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<ByteBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    v: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    values: Option<Vec<ByteBuf>>,
}

/// Reads the query of this name.
fn query(name: &[u8], arguments: Arguments) -> Result<Query, Malformed> {
    let wanted = |argument: Option<ByteBuf>| argument.ok_or(Malformed::Fields);
    Ok(match name {
        b"ping" => Query::Ping,
        b"find_node" => Query::FindNode { target: key(&wanted(arguments.target)?)? },
        b"get_peers" => Query::GetPeers { info_hash: key(&wanted(arguments.info_hash)?)? },
        b"announce_peer" => {
            let implied_port = arguments.implied_port.is_some_and(|implied| implied != 0);
            let port = arguments.port.or(implied_port.then_some(0)).ok_or(Malformed::Fields)?;
            Query::AnnouncePeer {
                info_hash: key(&wanted(arguments.info_hash)?)?,
                port: u16::try_from(port).map_err(|_| Malformed::Fields)?,
                implied_port,
                token: wanted(arguments.token)?.into_vec(),
            }
        }
        b"get" => Query::Get { target: key(&wanted(arguments.target)?)? },
        b"put" if arguments.k.is_none() => Query::Put {
            item: item(&arguments.v.ok_or(Malformed::Fields)?)?,
            target: arguments.target.map(|target| key(&target)).transpose()?,
            token: wanted(arguments.token)?.into_vec(),
        },
        other => Query::Other(String::from_utf8_lossy(other).into_owned()),
    })
}

/// Reads an item of our own.
fn value(item: &[u8]) -> Result<Value, Malformed> {
    let value = is_one_shallow_value(item, MAX_DEPTH - ITEM_DEPTH)
        .then(|| serde_bencode::from_bytes(item).ok())
        .flatten()
        .ok_or(Malformed::Bencode)?;
    // What would be sent is something else if its dictionaries are not in order, for example.
    if self::item(&value)? == item { Ok(value) } else { Err(Malformed::Bencode) }
}

/// Bencodes an item of a stranger. If it was not bencoded as it ought to be, this is not what it was, and has
/// another SHA-1.
fn item(value: &Value) -> Result<Vec<u8>, Malformed> {
    serde_bencode::to_bytes(value).map_err(|_| Malformed::Bencode)
}

fn bytes(key: &Key160) -> ByteBuf {
    ByteBuf::from(*key.as_bytes())
}

fn key(bytes: &[u8]) -> Result<Key160, Malformed> {
    bytes.try_into().map(Key160::new).map_err(|_| Malformed::IdLength)
}

/// Compact node info: 20 bytes of id, 6 of address.
fn compact(nodes: &[Node]) -> ByteBuf {
    let mut bytes = ByteBuf::with_capacity(26 * nodes.len());
    for (id, address) in nodes {
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&compact_peer(*address));
    }
    bytes
}

/// Compact peer info: 4 bytes of address, 2 of port.
fn compact_peer(address: SocketAddrV4) -> ByteBuf {
    ByteBuf::from([&address.ip().octets()[..], &address.port().to_be_bytes()].concat())
}

/// Reads compact node info.
fn nodes_of(compact: &[u8]) -> Result<Vec<Node>, Malformed> {
    let (entries, []) = compact.as_chunks::<26>() else { return Err(Malformed::NodesLength) };
    let node = |entry: &[u8; 26]| {
        let (id, peer) = entry.split_first_chunk()?;
        Some((Key160::new(*id), address(peer)?))
    };
    entries.iter().map(|entry| node(entry).ok_or(Malformed::NodesLength)).collect()
}

/// Reads compact peer info.
fn address(compact: &[u8]) -> Option<SocketAddrV4> {
    let (ip, port) = compact.split_first_chunk::<4>()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(*ip), u16::from_be_bytes(port.try_into().ok()?)))
}

/// Nobody needs more.
const MAX_DEPTH: usize = 8;
/// How deep in a message an item is.
const ITEM_DEPTH: usize = 2;

/// Whether the bytes are exactly one bencoded value of at most this depth. `serde_bencode` recurses once for each
/// level, without a limit: a datagram of nothing but `l`s could overflow the stack.
fn is_one_shallow_value(datagram: &[u8], max_depth: usize) -> bool {
    let mut bytes = datagram;
    let mut depth = 0_usize;
    while let Some((first, rest)) = bytes.split_first() {
        let after = match first {
            b'l' | b'd' if depth < max_depth => {
                depth += 1;
                bytes = rest;
                continue;
            }
            b'e' if depth > 0 => {
                depth -= 1;
                Some(rest)
            }
            b'i' => rest.split(|byte| *byte == b'e').next().and_then(|digits| rest.get(digits.len() + 1..)),
            b'0'..=b'9' => string_end(bytes).and_then(|end| bytes.get(end..)),
            _ => None,
        };
        match after {
            Some([]) if depth == 0 => return true,
            Some(after) if depth > 0 => bytes = after,
            _ => return false,
        }
    }
    false
}

/// Where the string `<length>:<bytes>` that these bytes begin with ends.
fn string_end(bytes: &[u8]) -> Option<usize> {
    let digits = bytes.iter().position(|byte| *byte == b':')?;
    let length: usize = core::str::from_utf8(bytes.get(..digits)?).ok()?.parse().ok()?;
    length.checked_add(digits + 1)
}
