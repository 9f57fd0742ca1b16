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

/// A `put` with these fields, a signature, a token and a value.
fn mutable(key: &[u8], sequence: &[u8]) -> Vec<u8> {
    let signature = [b'S'; 64];
    let rest = [b"3:sig64:", &signature[..], b"5:token1:x1:v1:xe1:q3:put1:t2:aa1:y1:qe"].concat();
    [b"d1:ad2:id20:abcdefghij0123456789", key, sequence, &rest].concat()
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
    // A mutable item is another matter.
    let put = mutable(b"1:k32:the public key of a mutable item", b"3:seqi4e");
    let Body::Query { query, .. } = Message::decode(&put).unwrap().body else { unreachable!() };
    assert_eq!(query, Query::PutMutable);
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
    use Malformed::{Bencode, Fields, IdLength};
    let deep = [vec![b'l'; 30_000], vec![b'e'; 30_000]].concat();
    let cases: [(&[u8], Malformed); 30] = [
        (b"", Bencode),
        (b"\0", Bencode),
        (b"GET / HTTP/1.1\r\n\r\n", Bencode),
        (&[b'l'; 2_048], Bencode),
        (&[b'e'; 10], Bencode),
        (b"d", Bencode),
        (b"d1:t2:aa", Bencode),
        (b"d1:t3:aae", Bencode),
        (b"d1:t99999999999999999999:aae", Bencode),
        (b"d1:t18446744073709551615:aae", Bencode),
        (b"d1:t-1:aae", Bencode),
        (b"d1:t:aae", Bencode),
        (b"d1:ti1", Bencode),
        // Something behind the end.
        (b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:ree", Bencode),
        (&deep, Fields),
        (b"de", Fields),
        (b"le", Fields),
        (b"i1e", Fields),
        (b"4:ping", Fields),
        (b"d1:t2:aae", Fields),
        (b"d1:t2:aa1:y1:re", Fields),
        (b"d1:t2:aa1:y1:xe", Fields),
        (b"d1:t2:aa1:yi1ee", Fields),
        // Keys that are no strings, or have no value.
        (b"di1e1:t1:y1:re", Fields),
        (b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:r1:ze", Fields),
        (b"d1:rd2:id20:mnopqrstuvwxyz12345620:mnopqrstuvwxyz123456e1:t2:aa1:y1:re", Fields),
        (b"d1:rd5:nodes0:e1:t2:aa1:y1:re", Fields),
        (b"d1:rd2:idi7ee1:t2:aa1:y1:re", Fields),
        (b"d1:rle1:t2:aa1:y1:re", Fields),
        (b"d1:rd2:id3:abce1:t2:aa1:y1:re", IdLength),
    ];
    for (datagram, why) in cases {
        let shown = String::from_utf8_lossy(&datagram[..datagram.len().min(60)]);
        assert_eq!(Message::decode(datagram), Err(why), "{shown}");
    }
    // Nobody can be told that there is something wrong who does not say with which query.
    for kind in [
        &b"1:ad2:id20:abcdefghij0123456789e1:q4:ping1:y1:q"[..],
        b"1:ad2:id20:abcdefghij0123456789e1:q4:ping1:ti7e1:y1:q",
        b"1:q4:ping1:y1:q",
        b"1:rd2:id20:mnopqrstuvwxyz123456e1:y1:r",
        b"1:eli201e1:xe1:tle1:y1:e",
    ] {
        let datagram = [b"d", kind, b"e"].concat();
        assert_eq!(Message::decode(&datagram), Err(Fields), "{}", String::from_utf8_lossy(&datagram));
    }
}

/// Each lacks something that it needs: it is told so.
#[test]
fn a_malformed_query_is_one_that_can_be_answered() {
    use Malformed::{Fields, IdLength};
    let id = "2:id20:abcdefghij0123456789";
    let target = "6:target20:mnopqrstuvwxyz123456";
    let info_hash = "9:info_hash20:mnopqrstuvwxyz123456";
    let cases = [
        ("ping", String::new(), Fields),
        ("ping", "2:id3:abc".into(), IdLength),
        ("ping", "2:idi1e".into(), Fields),
        ("what_is_this", "2:id3:abc".into(), IdLength),
        ("find_node", id.into(), Fields),
        ("find_node", format!("{id}6:target1:x"), IdLength),
        ("find_node", format!("{id}6:targetl1:xe"), Fields),
        ("find_node", target.into(), Fields),
        ("get_peers", id.into(), Fields),
        ("get_peers", format!("{id}{target}"), Fields),
        ("get_peers", format!("{id}9:info_hash1:x"), IdLength),
        ("get", id.into(), Fields),
        ("get", format!("{id}6:target21:mnopqrstuvwxyz1234567"), IdLength),
        ("announce_peer", format!("{id}4:porti1e5:token1:x"), Fields),
        ("announce_peer", format!("{id}{info_hash}4:porti1e"), Fields),
        ("announce_peer", format!("{id}{info_hash}4:porti1e5:tokeni1e"), Fields),
        ("announce_peer", format!("{id}{info_hash}5:token1:x"), Fields),
        ("announce_peer", format!("{id}{info_hash}4:porti65536e5:token1:x"), Fields),
        ("announce_peer", format!("{id}{info_hash}4:porti-1e5:token1:x"), Fields),
        ("announce_peer", format!("{id}12:implied_porti0e{info_hash}5:token1:x"), Fields),
        ("announce_peer", format!("{id}12:implied_port1:1{info_hash}5:token1:x"), Fields),
        ("put", format!("{id}5:token1:x"), Fields),
        ("put", format!("{id}1:v1:x"), Fields),
        ("put", format!("{id}5:token1:x1:vi99999999999999999999e"), Fields),
        ("put", format!("{id}5:token1:x1:v{}{}", "l".repeat(7), "e".repeat(7)), Fields),
        ("put", format!("{id}1:k3:key5:token1:x1:v1:x"), Fields),
    ];
    for (name, arguments, why) in cases {
        let datagram = format!("d1:ad{arguments}e1:q{}:{name}1:t2:aa1:y1:qe", name.len());
        let body = Body::BadQuery(why);
        assert_eq!(
            Message::decode(datagram.as_bytes()),
            Ok(Message { transaction: b"aa".to_vec(), body }),
            "{datagram}"
        );
    }
    for datagram in [
        &b"d1:t2:aa1:y1:qe"[..],
        b"d1:ad2:id20:abcdefghij0123456789e1:t2:aa1:y1:qe",
        b"d1:ad2:id20:abcdefghij0123456789e1:qi4e1:t2:aa1:y1:qe",
        b"d1:q4:ping1:t2:aa1:y1:qe",
        b"d1:a2:id1:q4:ping1:t2:aa1:y1:qe",
    ] {
        assert_eq!(Message::decode(datagram).unwrap().body, Body::BadQuery(Fields));
    }
    for half in [mutable(b"", b"1:k3:key"), mutable(b"1:k32:the public key of a mutable item", b"3:seq1:4")] {
        assert_eq!(Message::decode(&half).unwrap().body, Body::BadQuery(Fields));
    }
    // Nobody sends such a query on purpose.
    let message = Message { transaction: b"aa".to_vec(), body: Body::BadQuery(Fields) };
    assert_eq!(message.encode(), Err(Fields));
}

/// What is wrong with one field, or with one entry of it, leaves the rest as it is.
#[test]
fn a_bad_optional_field_costs_that_field() {
    let answerer = Key160::new(*b"mnopqrstuvwxyz123456");
    let node = "mnopqrstuvwxyz123456axje.u";
    let nodes = Some(vec![(answerer, "97.120.106.101:11893".parse().unwrap())]);
    let whole = Answer {
        nodes: nodes.clone(),
        token: Some(b"tok".to_vec()),
        peers: Some(vec!["105.100.104.116:28269".parse().unwrap()]),
        item: Some(b"2:it".to_vec()),
    };
    let fields = [format!("26:{node}"), "3:tok".into(), "2:it".into(), "l6:idhtnme".into()];
    let without = |answer: &Answer, which| match which {
        0 => Answer { nodes: None, ..answer.clone() },
        1 => Answer { token: None, ..answer.clone() },
        2 => Answer { item: None, ..answer.clone() },
        _ => Answer { peers: None, ..answer.clone() },
    };
    let deep = format!("{}{}", "l".repeat(30_000), "e".repeat(30_000));
    // None of these is an item either: too large a number, too deep, a dictionary of odd length.
    let bad = ["i99999999999999999999e", &deep, "d1:xe", "ixe", "i-e"];
    let mut cases = vec![(fields.clone(), whole.clone())];
    for (which, bad) in (0..4).flat_map(|which| bad.map(|bad| (which, bad))) {
        let mut fields = fields.clone();
        fields[which] = bad.to_owned();
        let mut answer = without(&whole, which);
        if which == 3 && bad.starts_with('l') {
            // A list, if one without peers.
            answer.peers = Some(Vec::new());
        }
        cases.push((fields, answer));
    }
    // Entries that are whole count.
    let with = |which: usize, value: &str, answer: Answer| {
        let mut fields = fields.clone();
        fields[which] = value.to_owned();
        (fields, answer)
    };
    let of_nodes = |nodes| Answer { nodes, ..whole.clone() };
    cases.push(with(0, "0:", of_nodes(Some(Vec::new()))));
    cases.push(with(0, "3:abc", of_nodes(Some(Vec::new()))));
    cases.push(with(0, &format!("25:{}", &node[1..]), of_nodes(Some(Vec::new()))));
    cases.push(with(0, &format!("29:{node}abc"), of_nodes(nodes.clone())));
    cases.push(with(0, &format!("51:{node}{}", &node[1..]), of_nodes(nodes)));
    for entries in
        ["5:abcde6:idhtnm", "i1e6:idhtnm7:abcdefg", "6:idhtnm0:le", "d1:a1:be6:idhtnmi99999999999999999999e"]
    {
        cases.push(with(3, &format!("l{entries}e"), whole.clone()));
    }
    for (fields, answer) in cases {
        let [nodes, token, item, values] = &fields;
        // And what is not ours to read is there in every form.
        for (ip, version, port) in
            [("6:axje.u", "4:LT\x01\x02", "i1e"), ("i1e", "le", "de"), ("d1:xe", "ixe", "ixe")]
        {
            let datagram = format!(
                "d2:ip{ip}1:rd2:id20:mnopqrstuvwxyz1234565:nodes{nodes}6:nodes6i1e1:p{port}\
                5:token{token}1:v{item}6:values{values}e1:t2:aa1:v{version}1:y1:re"
            );
            let body = Body::Response { from: answerer, answer: answer.clone() };
            let shown = &datagram[..datagram.len().min(300)];
            assert_eq!(Message::decode(datagram.as_bytes()).map(|message| message.body), Ok(body), "{shown}");
        }
    }
}

#[test]
fn a_bad_optional_argument_costs_that_argument() {
    let (asker, target) = (Key160::new(*b"abcdefghij0123456789"), Key160::new(*b"mnopqrstuvwxyz123456"));
    let decode = |arguments: &str, name: &str, more: &str| {
        let arguments = format!("2:id20:abcdefghij0123456789{arguments}");
        let text = format!("d1:ad{arguments}e1:q{}:{name}{more}1:t2:aa1:y1:qe", name.len());
        Message::decode(text.as_bytes()).unwrap().body
    };
    let query = |query| Body::Query { from: asker, query, read_only: false };
    for read_only in ["2:roi0e", "2:ro1:1", "2:role", "2:roi99999999999999999999e", "1:vi4e2:ipi4e"] {
        assert_eq!(decode("", "ping", read_only), query(Query::Ping), "{read_only}");
    }
    let is_read_only = |body| matches!(body, Body::Query { query: Query::Ping, read_only: true, .. });
    assert!(is_read_only(decode("", "ping", "2:roi1e")));
    for want in ["4:wanti4e", "4:wantl1:xi4ee", "4:want2:n4", "6:noseedle", "1:xd1:xe"] {
        let found = decode(&format!("6:target20:mnopqrstuvwxyz123456{want}"), "find_node", "");
        assert_eq!(found, query(Query::FindNode { target }), "{want}");
    }
    let announce = |port: &str, implied| {
        let arguments = format!("12:implied_port{implied}9:info_hash20:mnopqrstuvwxyz123456{port}5:token1:x");
        decode(&arguments, "announce_peer", "")
    };
    let announced = |port, implied_port| {
        query(Query::AnnouncePeer { info_hash: target, port, implied_port, token: b"x".to_vec() })
    };
    for implied in ["1:1", "le", "i99999999999999999999e"] {
        assert_eq!(announce("4:porti7e", implied), announced(7, false), "{implied}");
    }
    for port in ["4:porti65536e", "4:port1:7", "4:porti-1e", ""] {
        assert_eq!(announce(port, "i1e"), announced(0, true), "{port}");
    }
    // The item says itself what its target is.
    for said in ["1:x", "i4e", "le"] {
        let put = decode(&format!("6:target{said}5:token1:x1:v1:x"), "put", "");
        let item = b"1:x".to_vec();
        assert_eq!(put, query(Query::Put { item, target: None, token: b"x".to_vec() }), "{said}");
    }
}

#[test]
fn a_bad_error_is_an_error() {
    use kad_mainline::krpc::GENERIC_ERROR;
    let cases = [
        ("1:eli203e3:bade", 203, "bad"),
        ("1:eli203e3:badi7e1:xe", 203, "bad"),
        ("1:eli203ee", 203, ""),
        ("1:eli203ei7ee", 203, ""),
        ("1:el3:2033:bade", GENERIC_ERROR, "bad"),
        ("1:eli99999999999999999999e3:bade", GENERIC_ERROR, "bad"),
        ("1:ele", GENERIC_ERROR, ""),
        ("1:ei203e", GENERIC_ERROR, ""),
        ("", GENERIC_ERROR, ""),
    ];
    for (said, code, text) in cases {
        let datagram = format!("d{said}1:t2:aa1:y1:ee");
        let body = Body::Error { code, text: text.into() };
        assert_eq!(Message::decode(datagram.as_bytes()).unwrap().body, body, "{datagram}");
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

/// Any bencoded value: also numbers that are none, and dictionaries whose keys are no strings.
fn values() -> impl Strategy<Value = Vec<u8>> {
    let mangled = prop_oneof![
        Just(b"ixe".to_vec()),
        Just(b"i99999999999999999999e".to_vec()),
        Just(b"di1ei2ee".to_vec()),
        Just(b"d1:xe".to_vec()),
        Just(b"lllllllllleeeeeeeeee".to_vec()),
    ];
    prop_oneof![items(), mangled]
}

proptest! {
    /// Whatever one of the optional fields is, the others are what they were.
    #[test]
    fn one_field_of_any_value_costs_no_other(
        from in keys(),
        token in vec(any::<u8>(), 0..30),
        which in 0..5_usize,
        value in values(),
    ) {
        let text = |bytes: &[u8]| [format!("{}:", bytes.len()).as_bytes(), bytes].concat();
        let nodes = [from.as_bytes(), &[127, 0, 0, 1, 0, 7][..]].concat();
        let mut fields = [
            (&b"5:nodes"[..], text(&nodes)),
            (b"5:token", text(&token)),
            (b"1:v", b"2:it".to_vec()),
            (b"6:values", b"l6:\x7f\0\0\x01\0\x08e".to_vec()),
            (b"1:x", b"de".to_vec()),
        ];
        fields[which].1 = value;
        let fields: Vec<_> = fields.iter().map(|(name, value)| [name, &value[..]].concat()).collect();
        let datagram =
            [b"d1:rd2:id", &text(from.as_bytes())[..], &fields.concat(), b"e1:t2:aa1:y1:re"].concat();
        let Ok(Message { body: Body::Response { from: said, answer }, .. }) = Message::decode(&datagram) else {
            return Err(TestCaseError::fail("the field has cost the message"));
        };
        prop_assert_eq!(said, from);
        let localhost = |port| SocketAddrV4::new([127, 0, 0, 1].into(), port);
        let is = [
            answer.nodes == Some(vec![(from, localhost(7))]),
            answer.token == Some(token),
            answer.item == Some(b"2:it".to_vec()),
            answer.peers == Some(vec![localhost(8)]),
        ];
        for (place, is) in is.into_iter().enumerate() {
            prop_assert!(is || place == which, "field {} was lost for field {}", place, which);
        }
    }

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
