//! What this node answers to others.

use crate::family::{Mainline, Node};
use crate::krpc::{Answer, GENERIC_ERROR, METHOD_UNKNOWN, Query};
use crate::store::{Refusal, Store};
use kad_proto::{Key160, RoutingTable};
use std::net::SocketAddrV4;
use std::time::Instant;

/// How many nodes an answer of ours names: the k of BEP 5.
const NODES_IN_ANSWER: usize = 8;

/// What a query from this address is answered.
///
/// # Errors
/// The code and the text of the error that it is answered with instead.
pub fn respond(
    store: &mut Store,
    table: &RoutingTable<Mainline>,
    to: SocketAddrV4,
    query: Query,
) -> Result<Answer, (i64, String)> {
    let now = Instant::now();
    let refused = |refusal: Refusal| (refusal.code(), refusal.to_string());
    match query {
        Query::Ping => Ok(Answer::default()),
        Query::FindNode { target } => Ok(Answer { nodes: Some(closest(table, target)), ..Answer::default() }),
        Query::GetPeers { info_hash } => {
            let peers = store.peers(&info_hash, now);
            let peers = (!peers.is_empty()).then_some(peers);
            Ok(Answer { peers, ..with_token(store, table, info_hash, to, now) })
        }
        Query::Get { target } => {
            let item = store.get(&target, now).map(<[u8]>::to_vec);
            Ok(Answer { item, ..with_token(store, table, target, to, now) })
        }
        Query::AnnouncePeer { info_hash, port, implied_port, token } => {
            let port = (!implied_port).then_some(port);
            store.announce(to, port, &token, &info_hash, now).map_err(refused)?;
            Ok(Answer::default())
        }
        Query::Put { item, target, token } => {
            store.put(to, &token, target, item, now).map_err(refused)?;
            Ok(Answer::default())
        }
        Query::PutMutable => Err((GENERIC_ERROR, "No mutable items here".into())),
        Query::Other(_) => Err((METHOD_UNKNOWN, "Method Unknown".into())),
    }
}

/// Where else to ask for what has this key, and the token with which to store it here.
fn with_token(
    store: &mut Store,
    table: &RoutingTable<Mainline>,
    key: Key160,
    to: SocketAddrV4,
    now: Instant,
) -> Answer {
    let token = Some(store.token(*to.ip(), now));
    Answer { nodes: Some(closest(table, key)), token, ..Answer::default() }
}

/// The nodes to name to somebody who looks for this key.
fn closest(table: &RoutingTable<Mainline>, target: Key160) -> Vec<Node> {
    table.closest(target).take(NODES_IN_ANSWER).map(|known| *known.node()).collect()
}
