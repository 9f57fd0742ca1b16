//! The example's codec: KRPC messages there and back, and everything that is not KRPC.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

/// All that the codec wants of the driver.
mod driver {
    pub(crate) type Node = (kad_proto::Key160, std::net::SocketAddrV4);
}
#[path = "../examples/mainline/krpc.rs"]
mod krpc;

use kad_proto::Key160;
use krpc::{Body, Malformed, Message, Query};
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::SocketAddrV4;

/// The messages of BEP 5's own examples.
#[test]
fn the_examples_of_the_specification() {
    let (asker, answerer) = (Key160::new(*b"abcdefghij0123456789"), Key160::new(*b"mnopqrstuvwxyz123456"));
    let query = |query| Body::Query { from: asker, query, read_only: false };
    let cases: [(&[u8], Body); 5] = [
        (b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", query(Query::Ping)),
        (b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re", Body::Response { from: answerer, nodes: None }),
        (
            b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe",
            query(Query::FindNode { target: answerer }),
        ),
        (
            b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers1:t2:aa1:y1:qe",
            query(Query::GetPeers { info_hash: answerer }),
        ),
        (
            b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee",
            Body::Error { code: 201, text: "A Generic Error Ocurred".into() },
        ),
    ];
    for (datagram, body) in cases {
        let message = Message { transaction: b"aa".to_vec(), body };
        assert_eq!(Message::decode(datagram), Ok(message.clone()));
        assert_eq!(message.encode().unwrap(), datagram, "{}", String::from_utf8_lossy(datagram));
    }
}

#[test]
fn what_others_add_is_ignored() {
    let ping = b"d1:ad2:id20:abcdefghij01234567893:fool1:ai-5eee1:q4:ping2:roi1e1:t0:1:v4:LT\x01\x021:y1:qe";
    let Ok(Message { transaction, body: Body::Query { query: Query::Ping, read_only: true, .. } }) =
        Message::decode(ping)
    else {
        unreachable!("{:?}", Message::decode(ping))
    };
    assert!(transaction.is_empty());
    let announce =
        b"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti6881e\
        5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe";
    let Body::Query { query, .. } = Message::decode(announce).unwrap().body else { unreachable!() };
    assert_eq!(query, Query::Other("announce_peer".into()));
}

#[test]
fn what_is_not_krpc_is_named() {
    use Malformed::{Bencode, Fields, IdLength, NodesLength};
    let deep = [vec![b'l'; 30_000], vec![b'e'; 30_000]].concat();
    // In an unknown field, which is skipped: without a limit this overflows the stack.
    let deep_value = [b"d1:x".as_slice(), &deep, b"e"].concat();
    let cases: [(&[u8], Malformed); 32] = [
        (b"", Bencode),
        (b"\0", Bencode),
        (b"GET / HTTP/1.1\r\n\r\n", Bencode),
        (&deep_value, Bencode),
        (&deep, Bencode),
        (&[b'l'; 2_048], Bencode),
        (&[b'e'; 10], Bencode),
        (b"d", Bencode),
        (b"d1:t2:aa", Bencode),
        (b"d1:t3:aae", Bencode),
        (b"d1:t99999999999999999999:aae", Bencode),
        (b"d1:t18446744073709551615:aae", Bencode),
        (b"d1:t-1:aae", Bencode),
        (b"d1:ti1", Bencode),
        // Something behind the end.
        (b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:ree", Bencode),
        (b"de", Fields),
        (b"le", Fields),
        (b"i1e", Fields),
        (b"4:ping", Fields),
        (b"d1:t2:aae", Fields),
        (b"d1:t2:aa1:y1:qe", Fields),
        (b"d1:t2:aa1:y1:re", Fields),
        (b"d1:t2:aa1:y1:xe", Fields),
        (b"d1:ti7e1:y1:re", Fields),
        (b"di1e1:t1:y1:re", Fields),
        (b"d1:eli201ee1:t2:aa1:y1:ee", Fields),
        (b"d1:rd2:id3:abce1:t2:aa1:y1:re", IdLength),
        (b"d1:ad2:id20:abcdefghij01234567896:target1:xe1:q9:find_node1:t2:aa1:y1:qe", IdLength),
        (b"d1:ad2:id20:abcdefghij0123456789e1:q9:find_node1:t2:aa1:y1:qe", Fields),
        (b"d1:ad2:id20:abcdefghij0123456789e1:q9:get_peers1:t2:aa1:y1:qe", Fields),
        (b"d1:ad2:id20:abcdefghij01234567899:info_hash1:xe1:q9:get_peers1:t2:aa1:y1:qe", IdLength),
        (b"d1:rd2:id20:mnopqrstuvwxyz1234565:nodes3:abce1:t2:aa1:y1:re", NodesLength),
    ];
    for (datagram, why) in cases {
        let shown = String::from_utf8_lossy(&datagram[..datagram.len().min(60)]);
        assert_eq!(Message::decode(datagram), Err(why), "{shown}");
    }
}

fn keys() -> impl Strategy<Value = Key160> {
    any::<[u8; 20]>().prop_map(Key160::new)
}

fn messages() -> impl Strategy<Value = Message> {
    let address = any::<([u8; 4], u16)>().prop_map(|(ip, port)| SocketAddrV4::new(ip.into(), port));
    let nodes = vec((keys(), address), 0..30);
    let query = prop_oneof![
        Just(Query::Ping),
        keys().prop_map(|target| Query::FindNode { target }),
        keys().prop_map(|info_hash| Query::GetPeers { info_hash }),
        "[a-z_]{5,8}".prop_map(Query::Other),
    ];
    let body = prop_oneof![
        (keys(), query, any::<bool>()).prop_map(|(from, query, read_only)| Body::Query {
            from,
            query,
            read_only
        }),
        (keys(), proptest::option::of(nodes)).prop_map(|(from, nodes)| Body::Response { from, nodes }),
        (any::<i64>(), ".{0,40}").prop_map(|(code, text)| Body::Error { code, text }),
    ];
    (vec(any::<u8>(), 0..20), body).prop_map(|(transaction, body)| Message { transaction, body })
}

proptest! {
    #[test]
    fn there_and_back(message in messages()) {
        prop_assert_eq!(Message::decode(&message.encode().unwrap()), Ok(message));
    }

    #[test]
    fn any_bytes_are_taken(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Message::decode(&bytes);
    }

    /// Bytes that bencoding is made of, so that they get past the first letter.
    #[test]
    fn any_bencode_like_bytes_are_taken(text in "[dlie0-3:tyqare-]{0,100}") {
        let _ = Message::decode(text.as_bytes());
    }

    #[test]
    fn any_change_to_a_message_is_taken(
        message in messages(),
        cut in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = message.encode().unwrap();
        prop_assert!(Message::decode(&bytes[..cut.index(bytes.len())]).is_err(), "a message cut short");
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let _ = Message::decode(&bytes);
    }
}
