//! KRPC, the wire protocol of BEP 5: one bencoded dictionary in each UDP datagram.
//!
//! Datagrams come from strangers: [`Message::decode`] takes any bytes, and returns `None` for what is not KRPC.

use kad_proto::Key160;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::net::{Ipv4Addr, SocketAddrV4};

/// A node: its id, and where it listens.
pub(crate) type Node = (Key160, SocketAddrV4);

/// One datagram.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    /// Chosen by the sender of a query, of any length, and repeated in the answer.
    pub(crate) transaction: Vec<u8>,
    pub(crate) body: Body,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    Query {
        from: Key160,
        query: Query,
        /// The sender answers no queries, and does not want to be in routing tables (BEP 43).
        read_only: bool,
    },
    Response {
        from: Key160,
        /// The closest nodes that the sender knows: the answer to `find_node`. That to `ping` has none.
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
    /// One that this program does not know, by name.
    Other(String),
}

impl Message {
    /// The datagram.
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut wire = Wire { t: self.transaction.into(), ..Wire::default() };
        match self.body {
            Body::Query { from, query, read_only } => {
                let (name, target) = match query {
                    Query::Ping => ("ping".into(), None),
                    Query::FindNode { target } => ("find_node".into(), Some(bytes(target))),
                    Query::Other(name) => (name, None),
                };
                wire.y = b"q".to_vec().into();
                wire.q = Some(name.into_bytes().into());
                wire.a = Some(Arguments { id: bytes(from), target });
                wire.ro = read_only.then_some(1);
            }
            Body::Response { from, nodes } => {
                wire.y = b"r".to_vec().into();
                wire.r = Some(Returned { id: bytes(from), nodes: nodes.map(|nodes| compact(&nodes)) });
            }
            Body::Error { code, text } => {
                wire.y = b"e".to_vec().into();
                wire.e = Some((code, text.into_bytes().into()));
            }
        }
        // A dictionary of strings and numbers can always be bencoded.
        serde_bencode::to_bytes(&wire).unwrap_or_default()
    }

    /// Reads a datagram; `None` where it is not KRPC.
    pub(crate) fn decode(datagram: &[u8]) -> Option<Self> {
        check_nesting(datagram)?;
        let wire: Wire = serde_bencode::from_bytes(datagram).ok()?;
        let body = match wire.y.as_slice() {
            b"q" => {
                let Arguments { id, target } = wire.a?;
                let query = match wire.q?.as_slice() {
                    b"ping" => Query::Ping,
                    b"find_node" => Query::FindNode { target: key(&target?)? },
                    other => Query::Other(String::from_utf8_lossy(other).into_owned()),
                };
                Body::Query { from: key(&id)?, query, read_only: wire.ro == Some(1) }
            }
            b"r" => {
                let Returned { id, nodes } = wire.r?;
                let nodes = match nodes {
                    Some(nodes) => Some(nodes_of(&nodes)?),
                    None => None,
                };
                Body::Response { from: key(&id)?, nodes }
            }
            b"e" => {
                let (code, text) = wire.e?;
                Body::Error { code, text: String::from_utf8_lossy(&text).into_owned() }
            }
            _ => return None,
        };
        Some(Self { transaction: wire.t.into_vec(), body })
    }
}

/// A message as it is bencoded. Keys that are not listed here are skipped.
#[derive(Default, Serialize, Deserialize)]
struct Wire {
    /// The transaction id.
    t: ByteBuf,
    /// Whether it is a query, a response or an error.
    y: ByteBuf,
    /// The name of a query, and its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    q: Option<ByteBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    a: Option<Arguments>,
    /// What a response returns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    r: Option<Returned>,
    /// Code and text of an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    e: Option<(i64, ByteBuf)>,
    /// 1 where the sender is read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ro: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct Arguments {
    id: ByteBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<ByteBuf>,
}

#[derive(Serialize, Deserialize)]
struct Returned {
    id: ByteBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nodes: Option<ByteBuf>,
}

fn bytes(key: Key160) -> ByteBuf {
    ByteBuf::from(*key.as_bytes())
}

fn key(bytes: &[u8]) -> Option<Key160> {
    Some(Key160::new(bytes.try_into().ok()?))
}

/// Compact node info: 20 bytes of id, 4 of address, 2 of port, for each node.
fn compact(nodes: &[Node]) -> ByteBuf {
    let mut bytes = ByteBuf::with_capacity(26 * nodes.len());
    for (id, address) in nodes {
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&address.ip().octets());
        bytes.extend_from_slice(&address.port().to_be_bytes());
    }
    bytes
}

/// Reads compact node info; `None` where it is not a multiple of 26 bytes.
fn nodes_of(compact: &[u8]) -> Option<Vec<Node>> {
    let (entries, []) = compact.as_chunks::<26>() else { return None };
    entries.iter().map(node_of).collect()
}

fn node_of(entry: &[u8; 26]) -> Option<Node> {
    let (id, rest) = entry.split_first_chunk::<20>()?;
    let (ip, port) = rest.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes(port.try_into().ok()?);
    Some((Key160::new(*id), SocketAddrV4::new(Ipv4Addr::from(*ip), port)))
}

/// How deep lists and dictionaries may be nested. Messages of BEP 5 need 2; others put more into theirs.
const MAX_NESTING: usize = 8;

/// Checks that the bytes are one value of bencode, nested at most [`MAX_NESTING`] deep, and that each string
/// is as long as its prefix says.
///
/// `serde_bencode` recurses once for each level, without a limit: a datagram of nothing but `l`s would overflow
/// the stack.
fn check_nesting(datagram: &[u8]) -> Option<()> {
    let (mut rest, mut depth) = (datagram, 0_usize);
    loop {
        let (first, behind) = rest.split_first()?;
        rest = match first {
            b'l' | b'd' if depth < MAX_NESTING => {
                depth += 1;
                behind
            }
            b'e' => {
                depth = depth.checked_sub(1)?;
                behind
            }
            b'i' => split_at(behind, b'e')?.1,
            b'0'..=b'9' => {
                let (length, string) = split_at(rest, b':')?;
                let length: usize = core::str::from_utf8(length).ok()?.parse().ok()?;
                string.get(length..)?
            }
            _ => return None,
        };
        if depth == 0 {
            return rest.is_empty().then_some(());
        }
    }
}

/// The bytes before the first `byte`, and those after it; `None` if there is no such byte.
fn split_at(bytes: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|other| *other == byte)?;
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}
