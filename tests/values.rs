//! What a search tells of the values that answers carried, by the verdicts of its driver.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

#[allow(dead_code)] // each test binary uses a part of it
#[path = "support/tiny.rs"]
mod tiny;

use kad_proto::lookups::query::{Inbound, Outbound};
use kad_proto::{
    Batch, Contact, Finish, Instant, Key8, Machine, NetworkConfig, Outcome, PoolConfig, Query, QueryConfig,
    QueryPool, Response, Secret, Stamped, Start, ValueReport, Verdict,
};
use tiny::Tiny;

const ABSENT: Verdict = Verdict::Nothing;
const LIE: Verdict = Verdict::Invalid;
const OLD: Verdict = Verdict::Valid(4);
const NEW: Verdict = Verdict::Valid(5);

const fn node(key: u8) -> Key8 {
    Key8::new([key])
}

/// A search for key 0 that begins with these nodes, each of which gives what stands beside it. They are asked one after the
/// other, the nearest first. Returns the finish, and how many were asked.
fn search(start: impl FnOnce(Start<Tiny>) -> Start<Tiny>, nodes: &[(u8, Verdict)]) -> (Finish<Tiny>, usize) {
    let network = NetworkConfig { max_in_flight: 1, ..NetworkConfig::default() };
    let mut query = Query::new(node(0xff), QueryConfig::default(), network, &Secret::from_seed(0)).unwrap();
    let seeds = nodes.iter().map(|(key, _)| node(*key)).collect();
    let start = start(Start::message(1, node(0), ()).with_seeds(seeds));
    let mut batch = query.handle(Instant::ORIGIN, Stamped::new(Inbound::Start(start)));
    let mut asked = 0;
    loop {
        let mut answers = Vec::new();
        for out in batch {
            match out.event {
                Outbound::Request(request) => {
                    asked += 1;
                    let verdict = nodes.iter().find(|(key, _)| node(*key) == request.node).unwrap().1;
                    answers.push(Response::answered(request.id, Vec::new()).with_verdict(verdict));
                }
                Outbound::Finished(finish) => return (finish, asked),
                _ => {}
            }
        }
        let answer = answers.pop().unwrap();
        assert!(answers.is_empty(), "one at a time");
        batch = query.handle(Instant::from_millis(1), Stamped::new(Inbound::Response(answer)));
    }
}

fn to_correct(finish: &Finish<Tiny>) -> Vec<u8> {
    finish.to_correct().map(|contact| contact.node.as_bytes()[0]).collect()
}

#[test]
fn lies_neither_end_a_search_nor_count() {
    let (finish, asked) =
        search(|start| start.with_quorum(1), &[(1, LIE), (2, LIE), (3, ABSENT), (4, NEW), (5, NEW)]);
    assert_eq!((finish.outcome, asked), (Outcome::Quorum, 4));
    let ValueReport { newest, first, valid, older, invalid, .. } = finish.values;
    assert_eq!((newest, first, valid, older, invalid), (Some(5), Some(node(4)), 1, 0, 2));
    assert_eq!(to_correct(&finish), [3], "not the liars");

    let (finish, asked) = search(|start| start.with_quorum(1), &[(1, LIE), (2, LIE), (3, ABSENT)]);
    assert_eq!((asked, finish.values.newest, finish.values.first, finish.values.invalid), (3, None, None, 2));
    assert_ne!(finish.outcome, Outcome::Quorum);
    assert_eq!(to_correct(&finish), [] as [u8; 0], "there is nothing to correct with");
}

#[test]
fn old_values_do_not_end_a_search() {
    // Whoever replays old values ends no search: the count begins anew with the newer one.
    let nodes = [(1, OLD), (2, NEW), (3, OLD), (4, ABSENT), (5, NEW), (6, NEW)];
    let (finish, asked) = search(|start| start.with_quorum(2), &nodes);
    assert_eq!((finish.outcome, asked), (Outcome::Quorum, 5));
    assert_eq!((finish.values.valid, finish.values.older), (2, 2));
    assert_eq!((finish.values.newest, finish.values.first), (Some(5), Some(node(2))));
    assert_eq!(to_correct(&finish), [1, 3, 4]);
    let has: Vec<_> = finish.closest.iter().map(Contact::has_value).collect();
    assert_eq!(has, [false, true, false, false, true]);
}

#[test]
fn what_the_caller_holds_counts_as_one() {
    let nodes = [(1, ABSENT), (2, NEW), (3, OLD)];
    let (finish, asked) = search(|start| start.with_quorum(1).with_held(5), &nodes);
    assert_eq!((finish.outcome, asked, finish.values.newest), (Outcome::Quorum, 0, Some(5)));
    assert_eq!((finish.values.first, finish.values.valid), (None, 0), "no node has answered with it");

    let (finish, asked) = search(|start| start.with_quorum(2).with_held(5), &nodes);
    assert_eq!((finish.outcome, asked), (Outcome::Quorum, 2));
    assert_eq!(to_correct(&finish), [1]);

    // What it holds is older than what others have.
    let (finish, asked) = search(|start| start.with_quorum(2).with_held(4), &nodes);
    assert_eq!((asked, finish.values.valid, finish.values.older), (3, 1, 1));
    assert_ne!(finish.outcome, Outcome::Quorum);

    // Nobody else has it: all of them lack it.
    let (finish, _) = search(|start| start.with_held(5), &[(1, ABSENT), (2, OLD), (3, LIE)]);
    assert_eq!(
        (finish.values.newest, finish.values.first.is_none(), to_correct(&finish)),
        (Some(5), true, vec![1, 2])
    );
}

#[test]
fn who_holds_it_waits_for_nobody() {
    let pool = PoolConfig { max_running: 1, max_waiting: 8, ..PoolConfig::default() };
    let (config, network) = (QueryConfig::default(), NetworkConfig::default());
    let mut machine =
        QueryPool::<Tiny>::new(node(0xff), config, pool, network, &Secret::from_seed(0)).unwrap();
    let start = |tag| Start::message(tag, node(0), ()).with_seeds(vec![node(1)]).with_quorum(1);
    let mut tell = |start| machine.handle(Instant::ORIGIN, Stamped::new(Inbound::Start(start)));
    assert_eq!((tell(start(1)).len(), tell(start(2)).len()), (2, 1), "one runs, and one waits");
    let out = tell(start(3).with_held(7));
    let [Outbound::Started(_), Outbound::Finished(finish)] = [&out[0].event, &out[1].event] else {
        panic!("{out:?}")
    };
    assert_eq!((out.len(), finish.outcome, finish.values.newest), (2, Outcome::Quorum, Some(7)));
    assert_eq!((machine.operations(), machine.running()), (2, 1));
}

#[test]
fn a_node_whose_answer_has_no_last_part_is_not_to_correct() {
    let mut query = Query::<Tiny>::new(
        node(0xff),
        QueryConfig::default(),
        NetworkConfig::default(),
        &Secret::from_seed(0),
    )
    .unwrap();
    let start = Start::message(1, node(0), ()).with_seeds(vec![node(1), node(2)]).with_held(1);
    let mut now = Instant::ORIGIN;
    let mut batch = query.handle(now, Stamped::new(Inbound::Start(start)));
    loop {
        let mut answers = Vec::new();
        for out in batch {
            match out.event {
                Outbound::Request(request) if request.node == node(1) => {
                    answers.push(Response::part(request.id, vec![node(3)]));
                }
                Outbound::Request(request) => answers.push(Response::answered(request.id, Vec::new())),
                Outbound::Finished(finish) => {
                    return assert_eq!((to_correct(&finish), finish.closest.len()), (vec![2, 3], 3));
                }
                _ => {}
            }
        }
        batch = Batch::new();
        if answers.is_empty() {
            now = query.poll_timeout().unwrap();
            query.handle_into(now, Stamped::new(Inbound::Tick), &mut batch);
        }
        for answer in answers {
            query.handle_into(now, Stamped::new(Inbound::Response(answer)), &mut batch);
        }
    }
}
