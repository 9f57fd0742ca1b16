//! KRPC, the wire protocol of `BitTorrent`'s DHT: bencoded dictionaries in UDP datagrams.
//!
//! What it takes to look up nodes and to be one (BEP 5), peers included, and to store and get immutable items (BEP
//! 44). Everything that comes in is from strangers: [`Message::decode`] takes any bytes and says what is wrong
//! with them. What is wrong with an optional field costs that field only, and what is wrong with an entry of a list
//! costs that entry: the rest of the message is taken.

use crate::family::Node;
use core::fmt;
use kad_proto::Key160;
use serde::Serialize;
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
        /// [`GENERIC_ERROR`] where it says none that is a number.
        code: i64,
        text: String,
    },
    /// A query that lacks something it needs, or has something else there. It is answered with [`PROTOCOL_ERROR`].
    BadQuery(Malformed),
}

/// The codes of errors of BEP 5. This is one that fits none of the others.
pub const GENERIC_ERROR: i64 = 201;
/// The node that was asked cannot do it now.
pub const SERVER_ERROR: i64 = 202;
/// The query is malformed, has invalid arguments, or a bad token.
pub const PROTOCOL_ERROR: i64 = 203;
/// The node that was asked does not know the query's method.
pub const METHOD_UNKNOWN: i64 = 204;

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
    /// Keep this mutable item, that is one with a public key. This program keeps none, and reads no more of it.
    PutMutable,
    /// One of a method that this program does not know.
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
    /// A field that is needed is missing or has the wrong type.
    Fields,
    /// An id, or a target that is needed, does not have 20 bytes.
    IdLength,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bencode => "not bencoded",
            Self::Fields => "a field is missing or has the wrong type",
            Self::IdLength => "an id does not have 20 bytes",
        })
    }
}

impl std::error::Error for Malformed {}

impl Message {
    /// The datagram.
    ///
    /// # Errors
    /// [`Malformed::Bencode`] where an item is not bencoded as it ought to be, or too deep. [`Malformed::Fields`] for
    /// a message that nobody ought to send: a [`Body::BadQuery`] or a [`Query::PutMutable`].
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
                    Query::PutMutable => return Err(Malformed::Fields),
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
            Body::BadQuery(_) => return Err(Malformed::Fields),
        }
        serde_bencode::to_bytes(&wire).map_err(|_| Malformed::Bencode)
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// [`Malformed`] says why it is to be ignored: it is not one bencoded dictionary, has no transaction id, is
    /// neither a query nor a response nor an error, or is a response that does not say from whom. A query that is
    /// malformed otherwise is a [`Body::BadQuery`].
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let (message, rest) = Raw::split(datagram).ok_or(Malformed::Bencode)?;
        if !rest.is_empty() {
            return Err(Malformed::Bencode);
        }
        let message = message.dictionary().ok_or(Malformed::Fields)?;
        let transaction = message.string(b"t").ok_or(Malformed::Fields)?.to_vec();
        let body = match message.string(b"y") {
            Some(b"q") => query(&message).unwrap_or_else(Body::BadQuery),
            Some(b"r") => response(&message)?,
            Some(b"e") => error(&message),
            _ => return Err(Malformed::Fields),
        };
        Ok(Self { transaction, body })
    }
}

/// A message as it is bencoded: one dictionary with keys of one or two letters.
#[derive(Default, Serialize)]
struct Wire {
    t: ByteBuf,
    y: ByteBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    q: Option<ByteBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    a: Option<Arguments>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r: Option<Returned>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<(i64, ByteBuf)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ro: Option<i64>,
}

#[derive(Default, Serialize)]
struct Arguments {
    id: ByteBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    implied_port: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info_hash: Option<ByteBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<ByteBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<ByteBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<Value>,
}

#[derive(Serialize)]
struct Returned {
    id: ByteBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<ByteBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<ByteBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<Vec<ByteBuf>>,
}

/// Reads a query.
fn query(message: &Dictionary<'_>) -> Result<Body, Malformed> {
    let name = message.string(b"q").ok_or(Malformed::Fields)?;
    let arguments = message.dictionary(b"a").ok_or(Malformed::Fields)?;
    let from = arguments.key(b"id")?;
    let token = || arguments.string(b"token").map(<[u8]>::to_vec).ok_or(Malformed::Fields);
    let query = match name {
        b"ping" => Query::Ping,
        b"find_node" => Query::FindNode { target: arguments.key(b"target")? },
        b"get_peers" => Query::GetPeers { info_hash: arguments.key(b"info_hash")? },
        b"announce_peer" => {
            let implied_port = arguments.integer(b"implied_port").is_some_and(|implied| implied != 0);
            let port = arguments.integer(b"port").and_then(|port| u16::try_from(port).ok());
            Query::AnnouncePeer {
                info_hash: arguments.key(b"info_hash")?,
                port: port.or(implied_port.then_some(0)).ok_or(Malformed::Fields)?,
                implied_port,
                token: token()?,
            }
        }
        b"get" => Query::Get { target: arguments.key(b"target")? },
        // With any public key: to keep its value as an immutable item is not what the sender wants.
        b"put" if arguments.get(b"k").is_some() => {
            let has = |name: &[u8], length| arguments.string(name).is_some_and(|it| it.len() == length);
            let is_whole = has(b"k", 32) && has(b"sig", 64) && arguments.integer(b"seq").is_some();
            token()?;
            arguments.item()?;
            if !is_whole {
                return Err(Malformed::Fields);
            }
            Query::PutMutable
        }
        b"put" => {
            Query::Put { item: arguments.item()?, target: arguments.key(b"target").ok(), token: token()? }
        }
        other => Query::Other(String::from_utf8_lossy(other).into_owned()),
    };
    Ok(Body::Query { from, query, read_only: message.integer(b"ro") == Some(1) })
}

/// Reads a response: whose it is, and what is well-formed of the rest.
fn response(message: &Dictionary<'_>) -> Result<Body, Malformed> {
    let returned = message.dictionary(b"r").ok_or(Malformed::Fields)?;
    let answer = Answer {
        nodes: returned.string(b"nodes").map(nodes_of),
        token: returned.string(b"token").map(<[u8]>::to_vec),
        // Those that are not IPv4 are of no use here.
        peers: returned
            .get(b"values")
            .and_then(Raw::list)
            .map(|values| values.filter_map(|peer| address(peer.string()?)).collect()),
        item: returned.item().ok(),
    };
    Ok(Body::Response { from: returned.key(b"id")?, answer })
}

/// Reads an error. Whatever it says, the query that it answers has failed.
fn error(message: &Dictionary<'_>) -> Body {
    let mut said = message.get(b"e").and_then(Raw::list).into_iter().flatten();
    let code = said.next().and_then(Raw::integer).unwrap_or(GENERIC_ERROR);
    let text = said.next().and_then(Raw::string).unwrap_or_default();
    Body::Error { code, text: String::from_utf8_lossy(text).into_owned() }
}

/// Reads an item of our own.
fn value(item: &[u8]) -> Result<Value, Malformed> {
    let (raw, rest) = Raw::split(item).ok_or(Malformed::Bencode)?;
    let value = raw.value().filter(|_| rest.is_empty()).ok_or(Malformed::Bencode)?;
    // What would be sent is something else if its dictionaries are not in order, for example.
    if bencoded(&value)? == item { Ok(value) } else { Err(Malformed::Bencode) }
}

/// Bencodes an item of a stranger. If it was not bencoded as it ought to be, this is not what it was, and has
/// another SHA-1.
fn bencoded(value: &Value) -> Result<Vec<u8>, Malformed> {
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

/// Reads compact node info: the entries that are whole.
fn nodes_of(compact: &[u8]) -> Vec<Node> {
    let (entries, _) = compact.as_chunks::<26>();
    let node = |entry: &[u8; 26]| {
        let (id, peer) = entry.split_first_chunk()?;
        Some((Key160::new(*id), address(peer)?))
    };
    entries.iter().filter_map(node).collect()
}

/// Reads compact peer info.
fn address(compact: &[u8]) -> Option<SocketAddrV4> {
    let (ip, port) = compact.split_first_chunk::<4>()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(*ip), u16::from_be_bytes(port.try_into().ok()?)))
}

/// How deep an item may be: nobody needs more. `serde_bencode` recurses once for each level, without a limit, so that
/// an item of nothing but `l`s could overflow the stack.
const ITEM_DEPTH: usize = 6;

/// The bytes of one bencoded value, of which nothing is known but where it ends.
#[derive(Clone, Copy)]
struct Raw<'a>(&'a [u8]);

impl<'a> Raw<'a> {
    /// The value that these bytes begin with, and what is behind it. Linear in the length of the value, however
    /// deep that is.
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut rest = bytes;
        let mut depth = 0_usize;
        loop {
            rest = match rest.first()? {
                b'l' | b'd' => {
                    depth += 1;
                    rest.get(1..)?
                }
                b'e' => {
                    depth = depth.checked_sub(1)?;
                    rest.get(1..)?
                }
                b'i' => {
                    let end = rest.iter().position(|byte| *byte == b'e')?;
                    rest.get(end + 1..)?
                }
                _ => split_string(rest)?.1,
            };
            if depth == 0 {
                let length = bytes.len() - rest.len();
                return Some((Self(bytes.get(..length)?), rest));
            }
        }
    }

    fn string(self) -> Option<&'a [u8]> {
        split_string(self.0).map(|(string, _)| string)
    }

    fn integer(self) -> Option<i64> {
        let digits = self.0.strip_prefix(b"i")?.strip_suffix(b"e")?;
        let text = core::str::from_utf8(digits).ok()?;
        if text.starts_with('+') { None } else { text.parse().ok() }
    }

    fn list(self) -> Option<impl Iterator<Item = Raw<'a>>> {
        let mut rest = self.0.strip_prefix(b"l")?;
        Some(core::iter::from_fn(move || {
            let (value, after) = Raw::split(rest)?;
            rest = after;
            Some(value)
        }))
    }

    /// `None` where a key is no string, or has no value.
    fn dictionary(self) -> Option<Dictionary<'a>> {
        let mut rest = self.0.strip_prefix(b"d")?;
        let mut entries = Vec::new();
        while rest != b"e" {
            let (key, after) = split_string(rest)?;
            let (value, after) = Self::split(after)?;
            entries.push((key, value));
            rest = after;
        }
        Some(Dictionary(entries))
    }

    /// All of it, if it is no deeper than an item may be.
    fn value(self) -> Option<Value> {
        self.is_shallow().then(|| serde_bencode::from_bytes(self.0).ok()).flatten()
    }

    fn is_shallow(self) -> bool {
        let (mut rest, mut depth) = (self.0, 0_usize);
        while let Some(first) = rest.first() {
            let after = match first {
                b'l' | b'd' if depth < ITEM_DEPTH => {
                    depth += 1;
                    rest.get(1..)
                }
                b'l' | b'd' => None,
                b'e' => {
                    depth = depth.saturating_sub(1);
                    rest.get(1..)
                }
                _ => Self::split(rest).map(|(_, after)| after),
            };
            let Some(after) = after else { return false };
            rest = after;
        }
        true
    }
}

/// The entries of a bencoded dictionary. Of two with one key, the first counts.
struct Dictionary<'a>(Vec<(&'a [u8], Raw<'a>)>);

impl<'a> Dictionary<'a> {
    fn get(&self, name: &[u8]) -> Option<Raw<'a>> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn string(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.get(name)?.string()
    }

    fn integer(&self, name: &[u8]) -> Option<i64> {
        self.get(name)?.integer()
    }

    fn dictionary(&self, name: &[u8]) -> Option<Self> {
        self.get(name)?.dictionary()
    }

    fn key(&self, name: &[u8]) -> Result<Key160, Malformed> {
        key(self.string(name).ok_or(Malformed::Fields)?)
    }

    /// The item that is called `v` in queries and responses.
    fn item(&self) -> Result<Vec<u8>, Malformed> {
        bencoded(&self.get(b"v").and_then(Raw::value).ok_or(Malformed::Fields)?)
    }
}

/// The string `<length>:<bytes>` that these bytes begin with, and what is behind it.
fn split_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let length: usize = core::str::from_utf8(bytes.get(..digits)?).ok()?.parse().ok()?;
    bytes.get(digits..)?.strip_prefix(b":")?.split_at_checked(length)
}
