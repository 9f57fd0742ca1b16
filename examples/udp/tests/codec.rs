//! The codec: what it writes, what it reads, and that it takes any bytes.

#![allow(clippy::unwrap_used)]

#[path = "../src/krpc.rs"]
mod krpc;

use kad_proto::Key160;
use krpc::{Body, Message, Query};
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::SocketAddrV4;

fn key(bytes: &[u8; 20]) -> Key160 {
    Key160::new(*bytes)
}

/// The examples of BEP 5.
#[test]
fn writes_and_reads_what_the_specification_shows() {
    let (asks, answers) = (key(b"abcdefghij0123456789"), key(b"mnopqrstuvwxyz123456"));
    let query = |query| Body::Query { from: asks, query, read_only: false };
    let node = (key(b"0123456789abcdefghij"), "97.120.106.101:11893".parse().unwrap());
    let cases: [(&[u8], Body); 6] = [
        (b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", query(Query::Ping)),
        (
            b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe",
            query(Query::FindNode { target: answers }),
        ),
        (
            b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping2:roi1e1:t2:aa1:y1:qe",
            Body::Query { from: asks, query: Query::Ping, read_only: true },
        ),
        (b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re", Body::Response { from: answers, nodes: None }),
        (
            b"d1:rd2:id20:mnopqrstuvwxyz1234565:nodes26:0123456789abcdefghijaxje.ue1:t2:aa1:y1:re",
            Body::Response { from: answers, nodes: Some(vec![node]) },
        ),
        (
            b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee",
            Body::Error { code: 201, text: "A Generic Error Ocurred".into() },
        ),
    ];
    for (datagram, body) in cases {
        let message = Message { transaction: b"aa".to_vec(), body };
        assert_eq!(Message::decode(datagram).as_ref(), Some(&message));
        assert_eq!(String::from_utf8_lossy(&message.encode()), String::from_utf8_lossy(datagram));
    }
}

#[test]
fn skips_what_others_add() {
    let get_peers =
        b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:wantl2:n42:n6ee1:q9:get_peers\
        1:t0:1:v4:LT\x01\x021:y1:qe";
    let Message { transaction, body } = Message::decode(get_peers).unwrap();
    let query = Query::Other("get_peers".into());
    assert!(transaction.is_empty());
    assert_eq!(body, Body::Query { from: key(b"abcdefghij0123456789"), query, read_only: false });

    let response = b"d2:ip6:\x7f\x00\x00\x01\xe8/1:rd2:id20:mnopqrstuvwxyz1234565:nodes0:1:pi59439e5:token2:xxe1:t1:x1:y1:re";
    let body = Message::decode(response).unwrap().body;
    assert_eq!(body, Body::Response { from: key(b"mnopqrstuvwxyz123456"), nodes: Some(vec![]) });
}

#[test]
fn rejects_what_is_not_krpc() {
    // Deep in a field that would be skipped: without a limit, it would overflow the stack.
    let deep = [b"d1:x".as_slice(), &b"l".repeat(30_000), &b"e".repeat(30_000), b"e"].concat();
    let junk: [&[u8]; 28] = [
        b"",
        b"\0",
        b"GET / HTTP/1.1\r\n\r\n",
        &deep,
        &b"l".repeat(30_000),
        &[b'e'; 10],
        b"d",
        b"de",
        b"le",
        b"i1e",
        b"4:ping",
        b"d1:t2:aa",
        b"d1:t3:aae",
        b"d1:t99999999999999999999:aae",
        b"d1:t18446744073709551615:aae",
        b"d1:t-1:aae",
        b"d1:ti1",
        b"d1:ti7e1:y1:re",
        // No query, no response, no error, and nothing that there is.
        b"d1:t2:aa1:y1:qe",
        b"d1:t2:aa1:y1:re",
        b"d1:t2:aa1:y1:ee",
        b"d1:t2:aa1:y1:xe",
        b"d1:eli201ee1:t2:aa1:y1:ee",
        // No target; and one, an id and a list of nodes that do not have the right length.
        b"d1:ad2:id20:abcdefghij0123456789e1:q9:find_node1:t2:aa1:y1:qe",
        b"d1:ad2:id20:abcdefghij01234567896:target1:xe1:q9:find_node1:t2:aa1:y1:qe",
        b"d1:rd2:id3:abce1:t2:aa1:y1:re",
        b"d1:rd2:id20:mnopqrstuvwxyz1234565:nodes3:abce1:t2:aa1:y1:re",
        // Something behind the end.
        b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:ree",
    ];
    for datagram in junk {
        let shown: String = datagram.iter().take(60).map(|byte| char::from(*byte)).collect();
        assert_eq!(Message::decode(datagram), None, "{shown}");
    }
}

fn keys() -> impl Strategy<Value = Key160> {
    any::<[u8; 20]>().prop_map(Key160::new)
}

fn messages() -> impl Strategy<Value = Message> {
    let address = any::<([u8; 4], u16)>().prop_map(|(ip, port)| SocketAddrV4::new(ip.into(), port));
    let nodes = proptest::option::of(vec((keys(), address), 0..30));
    let query = prop_oneof![
        Just(Query::Ping),
        keys().prop_map(|target| Query::FindNode { target }),
        "[a-z]{5,8}".prop_map(Query::Other),
    ];
    let body = prop_oneof![
        (keys(), query, any::<bool>()).prop_map(|(from, query, read_only)| Body::Query {
            from,
            query,
            read_only
        }),
        (keys(), nodes).prop_map(|(from, nodes)| Body::Response { from, nodes }),
        (any::<i64>(), ".{0,40}").prop_map(|(code, text)| Body::Error { code, text }),
    ];
    (vec(any::<u8>(), 0..20), body).prop_map(|(transaction, body)| Message { transaction, body })
}

proptest! {
    #[test]
    fn reads_what_it_writes(message in messages()) {
        prop_assert_eq!(Message::decode(&message.clone().encode()), Some(message));
    }

    #[test]
    fn takes_any_bytes(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Message::decode(&bytes);
    }

    /// Bytes that bencode is made of, so that they get past the first.
    #[test]
    fn takes_any_bytes_like_bencode(text in "[dlie0-3:tyqare-]{0,100}") {
        let _ = Message::decode(text.as_bytes());
    }

    #[test]
    fn takes_any_change_to_a_message(
        message in messages(),
        cut in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = message.encode();
        let short = bytes.iter().take(cut.index(bytes.len())).copied().collect::<Vec<_>>();
        prop_assert_eq!(Message::decode(&short), None);
        for (place, byte) in changes {
            *place.get_mut(&mut bytes) = byte;
        }
        let _ = Message::decode(&bytes);
    }
}
