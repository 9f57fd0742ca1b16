//! The codec: KRPC messages there and back, and everything that is not KRPC.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use kad_mainline::krpc::{Answer, Body, Malformed, Message, Query};
use kad_proto::Key160;
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::SocketAddrV4;

/// The messages of BEP 5's own examples, and one of BEP 44.
#[test]
fn the_examples_of_the_specification() {
    let (asker, answerer) = (Key160::new(*b"abcdefghij0123456789"), Key160::new(*b"mnopqrstuvwxyz123456"));
    let query = |query| Body::Query { from: asker, query, read_only: false };
    let says = |answer| Body::Response { from: answerer, answer };
    let cases: [(&[u8], Body); 9] = [
        (b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", query(Query::Ping)),
        (b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re", says(Answer::default())),
        (
            b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe",
            query(Query::FindNode { target: answerer }),
        ),
        (
            b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers\
            1:t2:aa1:y1:qe",
            query(Query::GetPeers { info_hash: answerer }),
        ),
        (
            b"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:port\
            i6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe",
            query(Query::AnnouncePeer {
                info_hash: answerer,
                port: 6881,
                implied_port: true,
                token: b"aoeusnth".to_vec(),
            }),
        ),
        (
            b"d1:rd2:id20:abcdefghij01234567895:nodes52:mnopqrstuvwxyz123456axje.uabcdefghij0123456789idhtnm\
            5:token8:aoeusnthe1:t2:aa1:y1:re",
            Body::Response {
                from: asker,
                answer: Answer {
                    nodes: Some(vec![
                        (answerer, SocketAddrV4::new((*b"axje").into(), u16::from_be_bytes(*b".u"))),
                        (asker, SocketAddrV4::new((*b"idht").into(), u16::from_be_bytes(*b"nm"))),
                    ]),
                    token: Some(b"aoeusnth".to_vec()),
                    ..Answer::default()
                },
            },
        ),
        (
            b"d1:rd2:id20:mnopqrstuvwxyz1234565:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re",
            says(Answer {
                token: Some(b"aoeusnth".to_vec()),
                peers: Some(
                    ["97.120.106.101:11893", "105.100.104.116:28269"]
                        .map(|peer| peer.parse().unwrap())
                        .to_vec(),
                ),
                ..Answer::default()
            }),
        ),
        // BEP 44 shows none in full. This is as it describes them, with the item of its test vector.
        (
            b"d1:rd2:id20:mnopqrstuvwxyz1234565:nodes0:5:token1:x1:v12:Hello World!e1:t2:aa1:y1:re",
            says(Answer {
                nodes: Some(Vec::new()),
                token: Some(b"x".to_vec()),
                item: Some(b"12:Hello World!".to_vec()),
                ..Answer::default()
            }),
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
    // Of a mutable item, what somebody has already.
    let get = b"d1:ad2:id20:abcdefghij01234567891:k3:key3:seqi4e6:target20:mnopqrstuvwxyz1234564:wantl2:\
        n4ee1:q3:get1:t2:aa1:y1:qe";
    let Body::Query { query, .. } = Message::decode(get).unwrap().body else { unreachable!() };
    assert_eq!(query, Query::Get { target: Key160::new(*b"mnopqrstuvwxyz123456") });
    // A mutable item is another matter, even without its signature.
    let put = b"d1:ad2:id20:abcdefghij01234567891:k3:key5:token1:x1:v1:xe1:q3:put1:t2:aa1:y1:qe";
    let Body::Query { query, .. } = Message::decode(put).unwrap().body else { unreachable!() };
    assert_eq!(query, Query::Other("put".into()));
    // A port that is implied need not be said.
    let announce = b"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz123456\
        5:token1:xe1:q13:announce_peer1:t2:aa1:y1:qe";
    let Body::Query { query, .. } = Message::decode(announce).unwrap().body else { unreachable!() };
    let info_hash = Key160::new(*b"mnopqrstuvwxyz123456");
    let token = b"x".to_vec();
    assert_eq!(query, Query::AnnouncePeer { info_hash, port: 0, implied_port: true, token });
}

/// Datagrams of libtorrent 2.1.1 and of the crate `mainline` 8.0.1, as they came.
#[test]
fn what_others_send() {
    let theirs = Key160::new(*b"\xe0\xc5gy\xf6\x92\x9fu\xa3Ui}\xad\xda\x01\xe9\xf5\t\xd6\x93");
    let torrent = Key160::new([b'x'; 20]);
    let queries: [(&[u8], Query); 5] = [
        (
            b"d1:ad2:id20:\xe0\xc5gy\xf6\x92\x9fu\xa3Ui}\xad\xda\x01\xe9\xf5\t\xd6\x936:target20:\xf4\
            \xd3\x93\xca\xc4\x04\xe5a\x89J\xfc\xcd\xac\xfaq\xff\xef\xcc\x93pe1:q3:get1:t2:tW1:v4:LT\x02\
            \x111:y1:qe",
            Query::Get { target: Key160::from_hex("f4d393cac404e561894afccdacfa71ffefcc9370").unwrap() },
        ),
        (
            b"d1:ad2:id20:\xe0\xc5gy\xf6\x92\x9fu\xa3Ui}\xad\xda\x01\xe9\xf5\t\xd6\x935:token8:tokn12341\
            :vd1:ai1e1:ll0:1:\xffeee1:q3:put1:t2:\xd7\xdd1:v4:LT\x02\x111:y1:qe",
            Query::Put { item: b"d1:ai1e1:ll0:1:\xffee".to_vec(), target: None, token: b"tokn1234".to_vec() },
        ),
        (
            b"d1:ad2:id20:\xe0\xc5gy\xf6\x92\x9fu\xa3Ui}\xad\xda\x01\xe9\xf5\t\xd6\x939:info_hash20:xxxx\
            xxxxxxxxxxxxxxxx4:porti6881e4:seedi0e5:token8:tokn1234e1:q13:announce_peer1:t2:V\xf21:v4:LT\
            \x02\x111:y1:qe",
            Query::AnnouncePeer {
                info_hash: torrent,
                port: 6881,
                implied_port: false,
                token: b"tokn1234".to_vec(),
            },
        ),
        (
            b"d1:ad2:id20:\xbfLM\xb2\x19\xe0oN\xb6\x08\xa5\x12\x131\xda\xb2\r\x1d\x14d6:target20:!6\x8b\
            \x03\xd6\xe6\xce\xb3\x04Z|\xed\'\n\xdbB\xcdC\xb4\x195:token8:|u\x05B*\x00\x1e\x121:v17:kept \
            by kad-protoe1:q3:put2:roi1e1:t4:\x00\x00\x00\x041:v4:RS\x00\x051:y1:qe",
            Query::Put {
                item: b"17:kept by kad-proto".to_vec(),
                target: Some(Key160::new(*b"!6\x8b\x03\xd6\xe6\xce\xb3\x04Z|\xed\'\n\xdbB\xcdC\xb4\x19")),
                token: b"|u\x05B*\x00\x1e\x12".to_vec(),
            },
        ),
        (
            b"d1:ad2:id20:Wr\x18\x01\xbe\xe5\xdc\xf3\xa9\x19 ^)\x93t\xc0\x87\x8a\x8a\xf512:implied_porti\
            1e9:info_hash20:\xec\x8dN\xad\x03b\xab\xa7#\xf1\xdc\xd0X\xdex\x9eP\x84\x9a\xae4:porti0e5:tok\
            en8:|u\x05B*\x00\x1e\x12e1:q13:announce_peer2:roi1e1:t4:\x00\x00\x00\x081:v4:RS\x00\x051:y1:\
            qe",
            Query::AnnouncePeer {
                info_hash: Key160::new(*b"\xec\x8dN\xad\x03b\xab\xa7#\xf1\xdc\xd0X\xdex\x9eP\x84\x9a\xae"),
                port: 0,
                implied_port: true,
                token: b"|u\x05B*\x00\x1e\x12".to_vec(),
            },
        ),
    ];
    for (datagram, expected) in queries {
        let Body::Query { query, .. } = Message::decode(datagram).unwrap().body else { unreachable!() };
        assert_eq!(query, expected);
    }

    let near = |id: &[u8; 20], port| (Key160::new(*id), SocketAddrV4::new([127, 0, 0, 1].into(), port));
    let nodes = Some(vec![
        near(b"\x96B\x9a\x84\xd0t\xbd/\x9e\xae\x9fG{\xaa\xf6$\x8d\xa1a\xb2", 0x8f3b),
        near(b"\x9a\xa4\xa9\x98\x03\xa4/\xbe\x90=#\xf9\xfa\xbb\x00\x89@-8\xe0", 0xc51f),
    ]);
    let got = b"d2:ip6:\x7f\x00\x00\x01\xe8/1:rd2:id20:\xe0\xc5gy\xf6\x92\x9fu\xa3Ui}\xad\xda\x01\xe9\
        \xf5\t\xd6\x935:nodes52:\x96B\x9a\x84\xd0t\xbd/\x9e\xae\x9fG{\xaa\xf6$\x8d\xa1a\xb2\x7f\x00\x00\
        \x01\x8f;\x9a\xa4\xa9\x98\x03\xa4/\xbe\x90=#\xf9\xfa\xbb\x00\x89@-8\xe0\x7f\x00\x00\x01\xc5\x1f1\
        :pi59439e5:token4:\xaeQi\x1e1:v12:Hello World!e1:t4:2\x95\x9151:v4:LT\x02\x111:y1:re";
    let item = Some(b"12:Hello World!".to_vec());
    let answer = Answer { nodes, item, token: Some(b"\xaeQi\x1e".to_vec()), peers: None };
    assert_eq!(Message::decode(got).unwrap().body, Body::Response { from: theirs, answer });

    let found = b"d2:ip6:\x7f\x00\x00\x01\xecu1:rd2:id20:\x8d`ck\x8d)j\x02\xd5\xdcC9\xde\x08\xa7\x1f\x84\
        \x0b\xc4\xbd5:nodes26:W\xe2</\x95l\x94\x94e}\x89\xd5\xd6\xf1K\xcd\xa6\xc9\xe3\xe4\x7f\x00\x00\
        \x01\x8415:token4:\xf9O\x9c\xa56:valuesl6:\x7f\x00\x00\x01\x1a\xe1ee2:roi0e1:t4:\xfc\x9c\x7f\xae\
        1:v4:RS\x00\x051:y1:re";
    let answer = Answer {
        nodes: Some(vec![near(b"W\xe2</\x95l\x94\x94e}\x89\xd5\xd6\xf1K\xcd\xa6\xc9\xe3\xe4", 0x8431)]),
        token: Some(b"\xf9O\x9c\xa5".to_vec()),
        peers: Some(vec!["127.0.0.1:6881".parse().unwrap()]),
        item: None,
    };
    let from = Key160::new(*b"\x8d`ck\x8d)j\x02\xd5\xdcC9\xde\x08\xa7\x1f\x84\x0b\xc4\xbd");
    assert_eq!(Message::decode(found).unwrap().body, Body::Response { from, answer });

    // libtorrent's errors say who it is, as responses do.
    let refused = b"d1:eli205e15:message too bige2:ip6:\x7f\x00\x00\x01\xba\x9c1:rd2:id20:\xe0\xc5gy\xf6\
        \x92\x9fu\xa3Ui}\xad\xda\x01\xe9\xf5\t\xd6\x931:pi47772ee1:t4:\xd2\xee\x00\xf91:v4:LT\x02\x111:y\
        1:ee";
    let body = Body::Error { code: 205, text: "message too big".into() };
    assert_eq!(Message::decode(refused).unwrap().body, body);
    // IPv6 peers are left out.
    let mixed = b"d1:rd2:id20:mnopqrstuvwxyz1234566:valuesl6:axje.u18:0123456789abcdefghee1:t2:aa1:y1:re";
    let Body::Response { answer, .. } = Message::decode(mixed).unwrap().body else { unreachable!() };
    assert_eq!(answer.peers, Some(vec!["97.120.106.101:11893".parse().unwrap()]));
}

#[test]
fn items_are_what_they_were() {
    let message = |item: &[u8]| {
        let item = item.to_vec();
        let query = Query::Put { item, target: None, token: vec![0xff; 4] };
        let body = Body::Query { from: Key160::new([1; 20]), query, read_only: false };
        Message { transaction: b"aa".to_vec(), body }
    };
    let sound: [&[u8]; 8] = [
        b"0:",
        b"i0e",
        b"i-9223372036854775808e",
        b"le",
        b"de",
        b"4:\xff\x00\x01e",
        b"d0:le1:ad1:bi1eee",
        b"llllllee4:nulleeee",
    ];
    for item in sound {
        let encoded = message(item).encode().unwrap();
        assert_eq!(Message::decode(&encoded), Ok(message(item)), "{}", String::from_utf8_lossy(item));
    }
    // Not bencoded, not as it ought to be, too deep, and larger than anybody's numbers.
    let unsound: [&[u8]; 10] = [
        b"",
        b"x",
        b"i01e",
        b"i-0e",
        b"i1e1:a",
        b"d1:b0:1:a0:e",
        b"d1:a0:1:a0:e",
        b"03:abc",
        b"lllllllleeeeeeee",
        b"i99999999999999999999e",
    ];
    for item in unsound {
        assert_eq!(message(item).encode(), Err(Malformed::Bencode), "{}", String::from_utf8_lossy(item));
    }
    // On the wire such an item is read, but as another: its SHA-1 is not what the sender says.
    let put = b"d1:ad2:id20:abcdefghij01234567895:token1:x1:vd1:b0:1:a0:ee1:q3:put1:t2:aa1:y1:qe";
    let Body::Query { query: Query::Put { item, .. }, .. } = Message::decode(put).unwrap().body else {
        unreachable!()
    };
    assert_eq!(item, b"d1:a0:1:b0:e");
}

#[test]
fn what_is_not_krpc_is_named() {
    use Malformed::{Bencode, Fields, IdLength, NodesLength};
    let deep = [vec![b'l'; 30_000], vec![b'e'; 30_000]].concat();
    // In an unknown field, which is skipped: without a limit this overflows the stack.
    let deep_value = [b"d1:x".as_slice(), &deep, b"e"].concat();
    let cases: [(&[u8], Malformed); 40] = [
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
        (b"d1:rd2:id20:mnopqrstuvwxyz1234566:values3:abce1:t2:aa1:y1:re", Fields),
        (b"d1:rd2:id20:mnopqrstuvwxyz1234566:valuesli1eee1:t2:aa1:y1:re", Fields),
        (b"d1:rd2:id20:mnopqrstuvwxyz1234561:vi99999999999999999999ee1:t2:aa1:y1:re", Fields),
        (b"d1:ad2:id20:abcdefghij0123456789e1:q3:get1:t2:aa1:y1:qe", Fields),
        (b"d1:ad2:id20:abcdefghij01234567895:token1:xe1:q3:put1:t2:aa1:y1:qe", Fields),
        (b"d1:ad2:id20:abcdefghij01234567891:v1:xe1:q3:put1:t2:aa1:y1:qe", Fields),
        (b"d1:ad2:id20:abcdefghij01234567896:target1:x5:token1:x1:v1:xe1:q3:put1:t2:aa1:y1:qe", IdLength),
        (
            b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti65536e5:token1:xe\
            1:q13:announce_peer1:t2:aa1:y1:qe",
            Fields,
        ),
    ];
    for (datagram, why) in cases {
        let shown = String::from_utf8_lossy(&datagram[..datagram.len().min(60)]);
        assert_eq!(Message::decode(datagram), Err(why), "{shown}");
    }
}

fn keys() -> impl Strategy<Value = Key160> {
    any::<[u8; 20]>().prop_map(Key160::new)
}

/// A bencoded item, of a depth of at most 4.
fn items() -> impl Strategy<Value = Vec<u8>> {
    let string = |bytes: &[u8]| [format!("{}:", bytes.len()).as_bytes(), bytes].concat();
    let leaf = prop_oneof![
        any::<i64>().prop_map(|number| format!("i{number}e").into_bytes()),
        vec(any::<u8>(), 0..20).prop_map(move |bytes| string(&bytes)),
    ];
    leaf.prop_recursive(3, 20, 5, move |inner| {
        let list = vec(inner.clone(), 0..5).prop_map(|items| [b"l", &items.concat()[..], b"e"].concat());
        let entries = proptest::collection::btree_map(vec(any::<u8>(), 0..4), inner, 0..5);
        let dictionary = entries.prop_map(move |entries| {
            let entries = entries.into_iter().map(|(key, item)| [string(&key), item].concat());
            [b"d", &entries.collect::<Vec<_>>().concat()[..], b"e"].concat()
        });
        prop_oneof![list, dictionary]
    })
}

fn messages() -> impl Strategy<Value = Message> {
    use proptest::option::of;
    let address = any::<([u8; 4], u16)>().prop_map(|(ip, port)| SocketAddrV4::new(ip.into(), port));
    let nodes = vec((keys(), address.clone()), 0..30);
    let token = || vec(any::<u8>(), 0..30);
    let answer = (of(nodes), of(token()), of(vec(address, 0..30)), of(items()))
        .prop_map(|(nodes, token, peers, item)| Answer { nodes, token, peers, item });
    let announce = (keys(), any::<u16>(), any::<bool>(), token());
    let query = prop_oneof![
        Just(Query::Ping),
        keys().prop_map(|target| Query::FindNode { target }),
        keys().prop_map(|info_hash| Query::GetPeers { info_hash }),
        keys().prop_map(|target| Query::Get { target }),
        (items(), of(keys()), token()).prop_map(|(item, target, token)| Query::Put { item, target, token }),
        announce.prop_map(|(info_hash, port, implied_port, token)| Query::AnnouncePeer {
            info_hash,
            port,
            implied_port,
            token
        }),
        "[a-z_]{5,8}".prop_map(Query::Other),
    ];
    let body = prop_oneof![
        (keys(), query, any::<bool>()).prop_map(|(from, query, read_only)| Body::Query {
            from,
            query,
            read_only
        }),
        (keys(), answer).prop_map(|(from, answer)| Body::Response { from, answer }),
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
