//! KRPC, the wire protocol of `BitTorrent`'s DHT (BEP 5): bencoded dictionaries in UDP datagrams.
//!
//! Only what it takes to look up nodes and to be one: the queries `ping`, `find_node` and `get_peers`, responses,
//! errors. Everything that comes in is from strangers: [`Message::decode`] takes any bytes and says what is wrong with
//! them.

use crate::driver::Node;
use core::fmt;
use kad_proto::Key160;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::net::{Ipv4Addr, SocketAddrV4};

/// One datagram.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    /// Chosen by whoever asks, and repeated by whoever answers. Ours have 4 bytes, those of others any number.
    pub(crate) transaction: Vec<u8>,
    pub(crate) body: Body,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    Query {
        from: Key160,
        query: Query,
        /// The sender answers no queries and does not want to be in anybody's routing table (BEP 43).
        read_only: bool,
    },
    Response {
        from: Key160,
        /// The closest nodes that the sender knows; a response to a `ping` has none.
        nodes: Option<Vec<Node>>,
    },
    Error {
        code: i64,
        text: String,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Query {
    Ping,
    FindNode {
        target: Key160,
    },
    /// Also answered by the nodes closest to `info_hash`, by a node that knows no peers. With this query libtorrent
    /// checks whether a node lives: who does not answer it is never named to others.
    GetPeers {
        info_hash: Key160,
    },
    /// One that this program does not know.
    Other(String),
}

/// Why a datagram is not KRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
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
    /// None that could happen: the values at hand can all be bencoded.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, serde_bencode::Error> {
        let mut wire = Wire { t: ByteBuf::from(self.transaction.clone()), ..Wire::default() };
        match &self.body {
            Body::Query { from, query, read_only } => {
                let (name, target, info_hash) = match query {
                    Query::Ping => ("ping", None, None),
                    Query::FindNode { target } => ("find_node", Some(bytes(target)), None),
                    Query::GetPeers { info_hash } => ("get_peers", None, Some(bytes(info_hash))),
                    Query::Other(name) => (name.as_str(), None, None),
                };
                wire.y = ByteBuf::from(*b"q");
                wire.q = Some(ByteBuf::from(name));
                wire.a = Some(Arguments { id: bytes(from), info_hash, target });
                wire.ro = read_only.then_some(1);
            }
            Body::Response { from, nodes } => {
                wire.y = ByteBuf::from(*b"r");
                wire.r = Some(Returned { id: bytes(from), nodes: nodes.as_deref().map(compact) });
            }
            Body::Error { code, text } => {
                wire.y = ByteBuf::from(*b"e");
                wire.e = Some((*code, ByteBuf::from(text.as_bytes())));
            }
        }
        serde_bencode::to_bytes(&wire)
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// [`Malformed`] says why it is not KRPC.
    pub(crate) fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        if !is_one_shallow_value(datagram) {
            return Err(Malformed::Bencode);
        }
        let wire: Wire = serde_bencode::from_bytes(datagram).map_err(|_| Malformed::Fields)?;
        let body = match (wire.y.as_slice(), wire.q, wire.a, wire.r, wire.e) {
            (b"q", Some(name), Some(arguments), ..) => {
                let wanted = |argument: Option<ByteBuf>| key(&argument.ok_or(Malformed::Fields)?);
                let query = match name.as_slice() {
                    b"ping" => Query::Ping,
                    b"find_node" => Query::FindNode { target: wanted(arguments.target)? },
                    b"get_peers" => Query::GetPeers { info_hash: wanted(arguments.info_hash)? },
                    other => Query::Other(String::from_utf8_lossy(other).into_owned()),
                };
                Body::Query { from: key(&arguments.id)?, query, read_only: wire.ro == Some(1) }
            }
            (b"r", _, _, Some(returned), _) => {
                let nodes = returned.nodes.map(|nodes| nodes_of(&nodes)).transpose()?;
                Body::Response { from: key(&returned.id)?, nodes }
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

#[derive(Serialize, Deserialize)]
struct Arguments {
    id: ByteBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    info_hash: Option<ByteBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<ByteBuf>,
}

#[derive(Serialize, Deserialize)]
struct Returned {
    id: ByteBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nodes: Option<ByteBuf>,
}

fn bytes(key: &Key160) -> ByteBuf {
    ByteBuf::from(*key.as_bytes())
}

fn key(bytes: &[u8]) -> Result<Key160, Malformed> {
    bytes.try_into().map(Key160::new).map_err(|_| Malformed::IdLength)
}

/// Compact node info: 20 bytes of id, 4 of address, 2 of port.
fn compact(nodes: &[Node]) -> ByteBuf {
    let mut bytes = ByteBuf::with_capacity(26 * nodes.len());
    for (id, address) in nodes {
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&address.ip().octets());
        bytes.extend_from_slice(&address.port().to_be_bytes());
    }
    bytes
}

/// Reads compact node info.
fn nodes_of(compact: &[u8]) -> Result<Vec<Node>, Malformed> {
    let (entries, []) = compact.as_chunks::<26>() else { return Err(Malformed::NodesLength) };
    let mut nodes = Vec::with_capacity(entries.len());
    for entry in entries {
        let (Some((id, rest)), Some((_, port))) = (entry.split_first_chunk(), entry.split_last_chunk())
        else {
            return Err(Malformed::NodesLength);
        };
        let (Some(ip), port) = (rest.first_chunk::<4>(), u16::from_be_bytes(*port)) else {
            return Err(Malformed::NodesLength);
        };
        nodes.push((Key160::new(*id), SocketAddrV4::new(Ipv4Addr::from(*ip), port)));
    }
    Ok(nodes)
}

/// Whether the bytes are exactly one bencoded value of at most this depth. `serde_bencode` recurses once for each
/// level, without a limit: a datagram of nothing but `l`s could overflow the stack.
fn is_one_shallow_value(datagram: &[u8]) -> bool {
    const MAX_DEPTH: usize = 8;
    let mut bytes = datagram;
    let mut depth = 0_usize;
    while let Some((first, rest)) = bytes.split_first() {
        let after = match first {
            b'l' | b'd' if depth < MAX_DEPTH => {
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
