//! Each kind of world does what it says: links, outages, splits, classes of round trips, answers, changes of nodes,
//! attackers and workloads of the simulator.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may fail so

use kad_proto::sim::{
    Answers, Asked, Bootstrap, Broadcasts, Build, Censor, Change, Churn, Dial, Effect, End, Flood, Handle,
    Interarrival, Latency, LatencyMatrix, Length, Link, Party, Place, Placement, QuickCrowd, RequestEnd,
    Scenario, Sends, SimEvent, Sybils, Targets, Who, Workload, World,
};
use kad_proto::{Config, Instant, Key, Outcome};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// 300 nodes with ideal tables and constant round trips of 100 ms; no lookups.
fn calm() -> Scenario {
    Scenario {
        nodes: 300,
        link: Link { round_trip: Latency::Constant(100 * MS), ..Link::default() },
        workload: Workload { lookups: 0, ..Workload::default() },
        check_invariants: true,
        detailed_lookups: 1_000,
        ..Scenario::default()
    }
}

/// The same, with nodes that keep their tables themselves.
fn maintained() -> Scenario {
    Scenario { config: Config::default(), ..calm() }
}

type Events = Arc<Mutex<Vec<(Instant, SimEvent)>>>;

/// A world, and the list in which its events appear.
fn watched(scenario: Scenario) -> (World, Events) {
    let mut world = World::new(scenario).unwrap();
    let events = Events::default();
    let list = Arc::clone(&events);
    world.set_log(move |at, event| list.lock().unwrap().push((at, *event)));
    (world, events)
}

/// Looks up a point at a node, and runs for ten seconds. Returns the lookup's number.
fn look_up(world: &mut World, index: u32, point: u32) -> usize {
    let number = world.look_up(index, Handle::point(point).key());
    world.run_for(10 * S).unwrap();
    number as usize
}

fn recall(world: &World, lookup: usize) -> f64 {
    world.lookups()[lookup].ending.unwrap().recall
}

fn at(seconds: u32, effect: Effect) -> Change {
    Change::new(seconds * S, effect)
}

#[test]
fn measured_round_trips_belong_to_the_numbers_of_nodes() {
    let matrix = Arc::new(LatencyMatrix::parse("0 10 300\n10 0 50\n300 50 0\n").unwrap());
    for seed in 1..4 {
        let link = Link { round_trip: Latency::Matrix(Arc::clone(&matrix)), ..Link::default() };
        let world = World::new(Scenario { seed, link, ..calm() }).unwrap();
        let time = |from, to| world.round_trip(0, world.handle(from), world.handle(to), 0).unwrap();
        assert_eq!([time(0, 1), time(3, 5), time(2, 4), time(9, 12)], [10 * MS, 300 * MS, 50 * MS, 10 * MS]);
    }
}

#[test]
fn round_trips_slow_down_at_the_instant_and_losses_begin() {
    let changes = vec![
        at(5, Effect::SlowDown { factor: 2.0, add: 600 * MS }),
        at(8, Effect::Loss(1.0)),
        at(9, Effect::Loss(0.0)),
    ];
    let mut world = World::new(Scenario { changes, ..calm() }).unwrap();
    let time = |world: &World| world.round_trip(0, world.handle(1), world.handle(2), 0);
    world.run_for(4_999 * MS).unwrap();
    assert_eq!(time(&world), Some(100 * MS));
    world.run_for(MS).unwrap();
    assert_eq!(time(&world), Some(800 * MS));
    world.run_for(3 * S).unwrap();
    assert_eq!(time(&world), None);
    world.run_for(S).unwrap();
    assert_eq!(time(&world), Some(800 * MS));
    assert!(world.apply(&Effect::Loss(1.5)).is_err_and(|error| error.field() == "change.loss"));
}

#[test]
fn a_first_contact_costs_its_round_trips_and_a_second_one_does_not() {
    let link = Link { dial: Some(Dial { round_trips: 4.0, ..Dial::default() }), ..calm().link };
    let mut scenario = Scenario { link, nodes: 2_000, ..calm() };
    scenario.config.network.min_timeout = 2 * S; // else an answer after five round trips is too late
    let mut world = World::new(scenario).unwrap();
    let known: BTreeSet<_> = {
        let engine = world.engine(world.handle(7)).unwrap();
        engine.table().iter().map(|entry| *entry.node()).collect()
    };
    let mut dialled = 0;
    for _ in 0..2 {
        let lookup = look_up(&mut world, 7, 1);
        let answered = |asked: &&Asked| asked.ended.is_some_and(|(_, end)| end == RequestEnd::Answered);
        for asked in world.lookups()[lookup].asked.iter().filter(answered) {
            // An answer that came: after one round trip over a connection, after five where there was none.
            let took = asked.ended.unwrap().0 - asked.sent;
            if lookup == 0 && !known.contains(&asked.node) {
                assert!(took > 100 * MS, "{took:?}");
                dialled += usize::from(took == 500 * MS);
            } else if lookup == 1 {
                assert!(took <= 100 * MS, "{took:?} to {}", asked.node);
            }
        }
    }
    assert!(dialled > 5, "{dialled}");
    // Not used for ten minutes, connections are closed.
    world.run_for(11 * MINUTE).unwrap();
    let lookup = look_up(&mut world, 7, 1);
    assert!(
        world.lookups()[lookup].asked.iter().any(|asked| asked.ended.unwrap().0 - asked.sent == 500 * MS)
    );
}

#[test]
fn an_outage_cuts_and_sends_fail_at_once_or_are_lost() {
    for sends in [Sends::Fail, Sends::Lost] {
        let (mut world, events) = watched(calm());
        let node = world.handle(20);
        assert!(recall_of(&mut world, 20) > 0.99);
        // What is on its way when the link fails is lost, too.
        let lookup = world.look_up(20, Handle::point(9).key()) as usize;
        world.run_for(60 * MS).unwrap();
        world.apply(&Effect::LinkDown { who: Who::Node(20), sends }).unwrap();
        let down = world.now();
        world.run_for(S).unwrap();
        events.lock().unwrap().clear();
        let cut = world.look_up(20, Handle::point(10).key()) as usize;
        let other = world.look_up(21, node.key()) as usize;
        world.run_for(30 * S).unwrap();
        assert_eq!(
            (recall(&world, lookup), recall(&world, cut), recall(&world, other)),
            (1.0, 1.0, 1.0),
            "of nobody"
        );
        assert!(world.lookups()[lookup].found.is_empty() && world.lookups()[cut].found.is_empty());
        assert!(!world.lookups()[other].found.contains(&node) && !world.lookups()[other].found.is_empty());
        let refused =
            world.lookups()[cut].asked.iter().filter(|asked| asked.ended.unwrap().0 == asked.sent).count();
        assert_eq!(refused > 0, sends == Sends::Fail);
        let crossed = |event: &SimEvent| match event {
            SimEvent::Asked { activity, .. } => {
                *activity == kad_proto::sim::Activity::Lookup(u32::try_from(cut).unwrap())
            }
            SimEvent::Answered { node: answerer, from, .. } => *answerer == node || *from == node,
            _ => false,
        };
        assert!(!events.lock().unwrap().iter().any(|(at, event)| *at > down && crossed(event)));
        world.apply(&Effect::LinkUp { who: Who::Node(20) }).unwrap();
        let back = look_up(&mut world, 21, 12);
        assert!(recall(&world, back) > 0.99);
    }
}

fn recall_of(world: &mut World, index: u32) -> f64 {
    let lookup = look_up(world, index, 77);
    recall(world, lookup)
}

#[test]
fn a_machine_that_sleeps_hears_nothing_and_its_time_jumps() {
    let (mut world, events) = watched(Scenario { maintained: Who::Node(5), ..maintained() });
    let node = world.handle(5);
    world.run_for(30 * S).unwrap();
    let before = world.wakes(5);
    let lookup = world.look_up(5, Handle::point(3).key()) as usize;
    world.run_for(50 * MS).unwrap();
    let asleep = world.now();
    world.apply(&Effect::Sleep { who: Who::Node(5), time: 8 * 60 * MINUTE }).unwrap();
    world.run_for(479 * MINUTE + 59 * S).unwrap();
    let own = |event: &SimEvent| match event {
        SimEvent::Woke { node: other }
        | SimEvent::Sent { from: other, .. }
        | SimEvent::Answered { from: other, .. }
        | SimEvent::Asked { node: other, .. } => *other == node,
        _ => false,
    };
    assert!(!events.lock().unwrap().iter().any(|(at, event)| *at > asleep && own(event)));
    assert!(world.lookups()[lookup].ending.is_none(), "it does not end in its sleep");
    let nobody = world.look_up(5, node.key()) as usize;
    assert_eq!(world.lookups()[nobody].ending.unwrap().end, End::NobodyThere);
    world.run_for(MINUTE).unwrap();
    assert!(world.wakes(5) > before);
    let ending = world.lookups()[lookup].ending.unwrap();
    assert!(ending.at >= asleep + 8 * 60 * MINUTE, "{ending:?}");
}

#[test]
fn sets_that_are_separated_do_not_reach_each_other_until_they_are_healed() {
    let changes = vec![
        at(10, Effect::Separate { who: Who::Share(0.3) }),
        at(10, Effect::Separate { who: Who::Nodes((1..80).collect()) }),
        at(40, Effect::Heal),
    ];
    let (mut world, events) = watched(Scenario { changes, ..calm() });
    world.run_for(11 * S).unwrap();
    let reach =
        |world: &World, from, to| world.round_trip(0, world.handle(from), world.handle(to), 0).is_some();
    assert!(reach(&world, 1, 2) && reach(&world, 3, 1));
    let others = (80..300).filter(|other| reach(&world, 80, *other)).count();
    assert!(others > 40 && others < 180, "{others}");
    assert!(!(80..300).any(|other| reach(&world, 1, other) || reach(&world, other, 2)));
    events.lock().unwrap().clear();
    let lookup = look_up(&mut world, 1, 5);
    let found = &world.lookups()[lookup].found;
    let together = |node: &Handle| world.number(*node).is_some_and(|number| (1..80).contains(&number));
    assert!(!found.is_empty() && found.iter().all(together), "{found:?}");
    world.run_for(20 * S).unwrap();
    assert!((2..300).all(|other| reach(&world, 1, other)));
}

#[test]
fn answers_name_so_many_and_leave_out_who_asks() {
    for (names, told) in [(8, None), (3, Some(20))] {
        let answers = Answers { names, told, ..Answers::default() };
        let (mut world, events) = watched(Scenario { answers, ..calm() });
        let lookup = look_up(&mut world, 9, 4);
        assert!(!world.lookups()[lookup].found.is_empty());
        let named =
            |event: &SimEvent| if let SimEvent::Asked { closer, .. } = event { Some(*closer) } else { None };
        let named: Vec<_> = events.lock().unwrap().iter().filter_map(|(_, event)| named(event)).collect();
        assert_eq!(named.iter().max(), Some(&u32::from(names)));
    }
    // Two nodes: what the seed can name is the one who asks, and itself.
    for (without_asker, with_itself) in [(false, false), (true, false), (true, true)] {
        let answers = Answers { without_asker, with_itself, ..Answers::default() };
        let build = Build::Bootstrap(Bootstrap { seeds: 1, every: S, settle: 20 * S });
        let (mut world, events) = watched(Scenario { nodes: 2, answers, build, ..maintained() });
        world.run_for(5 * MINUTE).unwrap();
        let (zero, one) = (world.handle(0), world.handle(1));
        let asked = |event: &SimEvent| match event {
            SimEvent::Asked { node, closer, .. } if *node == zero => Some(*closer),
            _ => None,
        };
        let named: Vec<_> = events.lock().unwrap().iter().filter_map(|(_, event)| asked(event)).collect();
        let most = named.iter().max().copied();
        let expected = u32::from(!without_asker) + u32::from(with_itself);
        assert!(most <= Some(expected) && !named.is_empty(), "{most:?} {without_asker} {with_itself}");
        assert!(world.engine(one).unwrap().table().get(&zero).is_some() || !with_itself);
    }
}

#[test]
fn a_network_of_one_runs() {
    let build = Build::Bootstrap(Bootstrap { seeds: 1, every: S, settle: S });
    let workload = Workload { lookups: 3, ..Workload::default() };
    let mut world = World::new(Scenario { nodes: 1, build, workload, ..maintained() }).unwrap();
    world.run().unwrap();
    assert_eq!(world.figures().lookups, 3);
    assert!(World::new(Scenario { nodes: 0, ..calm() }).is_err());
}

#[test]
fn a_node_that_moves_is_silent_where_it_was() {
    let mut world = World::new(Scenario { maintained: Who::All, ..maintained() }).unwrap();
    world.run_for(MINUTE).unwrap();
    let old = world.handle(50);
    world.apply(&Effect::Move { who: Who::Node(50) }).unwrap();
    let new = world.handle(50);
    assert_eq!(
        (new.key(), new.address(), world.number(old), world.number(new)),
        (old.key(), 1, None, Some(50))
    );
    assert_eq!(world.round_trip(0, world.handle(1), old, 0), None);
    assert!(world.round_trip(0, world.handle(1), new, 0).is_some());
    let number = world.look_up(51, old.key()) as usize;
    world.run_for(10 * S).unwrap();
    assert!(!world.lookups()[number].found.contains(&old));
    assert!(world.lookups()[number].missed.contains(&new) || world.lookups()[number].found.contains(&new));
    // It looks something up itself: those whom it asks learn where it is.
    world.look_up(50, new.key());
    world.run_for(40 * MINUTE).unwrap();
    let number = world.look_up(51, old.key()) as usize;
    world.run_for(10 * S).unwrap();
    assert!(world.lookups()[number].found.contains(&new), "{:?}", world.lookups()[number].found);
}

#[test]
fn a_node_takes_another_id() {
    let mut world = World::new(maintained()).unwrap();
    world.run_for(MINUTE).unwrap();
    let old = world.handle(60);
    world.apply(&Effect::ChangeId { who: Who::Node(60) }).unwrap();
    let new = world.handle(60);
    assert!(new.key() != old.key() && world.number(old).is_none() && world.number(new) == Some(60));
    world.run_for(5 * MINUTE).unwrap();
    let engine = world.engine(new).unwrap();
    assert_eq!(engine.table().local(), new.key());
    let number = world.look_up(61, new.key()) as usize;
    world.run_for(10 * S).unwrap();
    assert_eq!(world.lookups()[number].found.first(), Some(&new));
    assert!(!world.lookups()[number].found.contains(&old));
}

#[test]
fn a_client_answers_nobody_and_serves_again() {
    let mut world = World::new(maintained()).unwrap();
    world.run_for(MINUTE).unwrap();
    let (node, near) = (world.handle(70), world.truly_closest(world.handle(70).key(), world.handle(70)));
    let holders = |world: &World| {
        let holds = |index: &u32| world.engine(world.handle(*index)).unwrap().table().get(&node).is_some();
        (0..300).filter(holds).count()
    };
    assert!(holders(&world) > 50);
    world.apply(&Effect::Serve { who: Who::Node(70), serve: false }).unwrap();
    assert_eq!(holders(&world), 0);
    assert!(!world.truly_closest(node.key(), near[0]).contains(&node));
    // It still asks, and is not reported to those that it asks.
    let number = world.look_up(70, Handle::point(8).key()) as usize;
    world.run_for(MINUTE).unwrap();
    assert!((recall(&world, number), holders(&world)) == (1.0, 0));
    world.apply(&Effect::Serve { who: Who::Node(70), serve: true }).unwrap();
    world.run_for(MINUTE).unwrap();
    assert!(world.truly_closest(node.key(), near[0]).contains(&node) && holders(&world) > 0);
}

#[test]
fn a_restart_brings_the_snapshot_or_an_empty_table() {
    for snapshot in [true, false] {
        let mut world = World::new(Scenario { maintained: Who::Node(80), ..maintained() }).unwrap();
        world.run_for(MINUTE).unwrap();
        let size = world.engine(world.handle(80)).unwrap().table().len();
        world.apply(&Effect::Kill { who: Who::Node(80) }).unwrap();
        assert!(world.engine(world.handle(80)).is_none());
        world.run_for(MINUTE).unwrap();
        world.apply(&Effect::Restart { who: Who::Node(80), snapshot }).unwrap();
        let back = world.engine(world.handle(80)).unwrap().table().len();
        assert_eq!(back, if snapshot { size } else { 0 });
        world.run_for(5 * MINUTE).unwrap();
        assert!(world.look_at(80).recall > 0.99);
    }
}

#[test]
fn contacts_are_restored_as_told() {
    let mut world = World::new(Scenario { maintained: Who::Node(80), ..maintained() }).unwrap();
    world.apply(&Effect::Restart { who: Who::Node(80), snapshot: false }).unwrap();
    let contacts: Vec<_> = (100..110).map(|index| world.handle(index)).collect();
    world.apply(&Effect::Restore { who: Who::Node(80), contacts: contacts.clone() }).unwrap();
    let table = world.engine(world.handle(80)).unwrap().table();
    assert!(contacts.iter().all(|node| table.get(node).is_some()) && table.len() == 10);
}

#[test]
fn seeds_are_told_and_asked() {
    let (mut world, events) = watched(Scenario { maintained: Who::Node(80), ..maintained() });
    let seeds: Vec<_> = (200..203).map(|index| world.handle(index)).collect();
    world.apply(&Effect::Kill { who: Who::First(3) }).unwrap(); // the seeds of the scenario
    world.apply(&Effect::Restart { who: Who::Node(80), snapshot: false }).unwrap();
    world.run_for(MINUTE).unwrap();
    assert!(world.engine(world.handle(80)).unwrap().table().is_empty());
    world.apply(&Effect::Seeds { who: Who::Node(80), seeds: seeds.clone() }).unwrap();
    world.run_for(10 * MINUTE).unwrap();
    let asked = |event: &SimEvent| matches!(event, SimEvent::Asked { node, .. } if seeds.contains(node));
    assert!(events.lock().unwrap().iter().any(|(_, event)| asked(event)));
    assert!(world.look_at(80).recall > 0.99);
}

#[test]
fn one_node_keeps_its_table_among_ideal_ones() {
    let mut world = World::new(Scenario { maintained: Who::Node(90), ..maintained() }).unwrap();
    let sizes = |world: &World| -> Vec<_> {
        let others = (0..300).filter(|index| *index != 90);
        others.map(|index| world.engine(world.handle(index)).unwrap().table().len()).collect()
    };
    let before = sizes(&world);
    world.run_for(120 * MINUTE).unwrap();
    assert!(world.upkeep_requests(90) > 50);
    assert!((0..300).all(|index| index == 90 || world.upkeep_requests(index) == 0));
    assert_eq!(sizes(&world), before);
}

#[test]
fn sybils_are_nearest_to_their_key_and_in_the_tables() {
    for (count, placed) in
        [(20, Placement::Nearest), (45, Placement::Nearest), (20, Placement::Plausible { crowd: 1 })]
    {
        let groups = u16::try_from(count).unwrap();
        let near = Place::Point(33);
        let set = Sybils {
            count,
            groups,
            near,
            placed,
            in_tables: true,
            every: Duration::ZERO,
            ..Sybils::default()
        };
        let world = World::new(Scenario { nodes: 10_000, sybils: vec![set], ..calm() }).unwrap();
        let (key, sybils) = (Handle::point(33).key(), world.sybils().next().unwrap().to_vec());
        assert_eq!(sybils.len(), count as usize);
        let of_groups: BTreeSet<_> = sybils.iter().map(|sybil| sybil.group().unwrap()).collect();
        assert_eq!(of_groups.len(), count as usize, "each in a group of its own");
        let honest = world.truly_closest(key, world.handle(0));
        let far = |node: &Handle| node.key().distance(&key);
        match placed {
            Placement::Nearest => assert!(far(sybils.last().unwrap()) < far(&honest[0])),
            // They do not crowd: they reach about as far as as many honest nodes do.
            _ => assert!(far(sybils.last().unwrap()) > far(&honest[5]) && far(&sybils[0]) < far(&honest[5])),
        }
        let known = world.closest_known(honest[0], key);
        let share = known.iter().filter(|node| sybils.contains(node)).count();
        assert!(
            if placed == Placement::Nearest { share == 20 } else { (5..=15).contains(&share) },
            "{share}"
        );
    }
}

#[test]
fn censors_accept_hide_and_lie() {
    for (lies, regions) in [(false, false), (true, false), (true, true)] {
        let set = |record| Sybils {
            count: 25,
            groups: 25,
            near: Place::Record(record),
            in_tables: true,
            every: Duration::ZERO,
            behaviour: Arc::new(Censor { truthful: true, lies }),
            ..Sybils::default()
        };
        // Record 0 is attacked, record 1 is not.
        let broadcasts = Broadcasts { count: 0, warmup_lookups: 0, ..Broadcasts::default() };
        let mut scenario =
            Scenario { nodes: 2_000, sybils: vec![set(0)], broadcasts: Some(broadcasts), ..calm() };
        // Without regions only the k closest are asked, and they are they.
        scenario.config.query.regions = regions;
        scenario.config.broadcast.regions = regions;
        let mut world = World::new(scenario).unwrap();
        let (attacked, other) = (world.publish(3) as usize, world.publish(3) as usize);
        world.run_for(MINUTE).unwrap();
        assert!(world.broadcasts()[attacked].ending.unwrap().succeeded, "they acknowledge");
        assert_eq!(world.broadcasts()[other].held_by_none, 0);
        let (lost, found) = (world.search(900, 0, 1) as usize, world.search(900, 1, 1) as usize);
        world.run_for(MINUTE).unwrap();
        let lookups = world.lookups();
        assert_eq!((lookups[lost].shown > 0, lookups[lost].lies > 5), (regions, lies && !regions));
        assert!(lookups[found].shown >= 1 && lookups[found].lies == 0);
        assert_eq!(lookups[found].ending.unwrap().end, End::Finished(Outcome::Quorum));
    }
}

#[test]
fn a_flood_of_names_arrives_and_nobody_is_there() {
    let flood = Flood { victim: 10, every: 2 * S, neighbours: 20 };
    let hostile = vec![Party::new(0.01, flood)];
    let (mut world, events) = watched(Scenario { hostile, maintained: Who::Node(10), ..maintained() });
    let victim = world.handle(10);
    let neighbours = world.truly_closest(victim.key(), victim);
    world.run_for(MINUTE).unwrap();
    let sender = |event: &SimEvent| {
        if let SimEvent::Intruded { sybil, node } = event { Some((*node, *sybil)) } else { None }
    };
    let senders: Vec<_> = events.lock().unwrap().iter().filter_map(|(_, event)| sender(event)).collect();
    assert_eq!(senders.len(), 31);
    let near = |sender: &Handle| neighbours.iter().any(|node| node.key() == sender.key());
    assert!(senders.iter().all(|(node, sender)| *node == victim && near(sender) && sender.address() >= 64));
    assert!(senders.iter().all(|(_, sender)| world.round_trip(0, victim, *sender, 0).is_none()));
}

#[test]
fn a_claimant_answers_by_the_id_of_another() {
    let set = Sybils {
        count: 1,
        near: Place::Node(40),
        placed: Placement::Claimant(9),
        audience: 10,
        ..Sybils::default()
    };
    let maintained_near = Who::Near { node: 40, count: 10 };
    let (mut world, events) =
        watched(Scenario { sybils: vec![set], maintained: maintained_near, ..maintained() });
    let claimant = world.sybils().next().unwrap()[0];
    assert_eq!((claimant.key(), claimant.address()), (world.handle(40).key(), 9));
    world.apply(&Effect::Kill { who: Who::Node(40) }).unwrap();
    world.run_for(120 * MINUTE).unwrap();
    let answered = |event: &SimEvent| matches!(event, SimEvent::Asked { node, .. } if *node == claimant);
    assert!(events.lock().unwrap().iter().any(|(_, event)| answered(event)));
}

#[test]
fn a_quick_crowd_answers_at_once() {
    let crowd = QuickCrowd { names: 240, round_trip: MS };
    let (mut world, events) = watched(Scenario { hostile: vec![Party::new(0.3, crowd)], ..calm() });
    let lookup = look_up(&mut world, 6, 2);
    let asked = &world.lookups()[lookup].asked;
    let quick = asked.iter().filter(|asked| asked.node.is_made_up());
    let quick: Vec<_> = quick.filter_map(|asked| asked.ended.map(|(at, _)| at - asked.sent)).collect();
    assert!(quick.len() > 10 && quick.iter().all(|took| *took <= MS), "{quick:?}");
    let named = |event: &SimEvent| matches!(event, SimEvent::Asked { closer: 240, .. });
    assert!(events.lock().unwrap().iter().any(|(_, event)| named(event)));
}

#[test]
fn a_workload_is_of_chosen_keys_by_chosen_nodes() {
    let workload = Workload {
        lookups: 30,
        pace: Interarrival::Every(S),
        by: Who::Nodes([4, 5].into()),
        targets: Targets::Points([1, 2, 3].into()),
        ..Workload::default()
    };
    let mut world = World::new(Scenario { workload, ..calm() }).unwrap();
    world.run().unwrap();
    let by: BTreeSet<_> = world.lookups().iter().map(|lookup| lookup.starter).collect();
    assert_eq!(by, BTreeSet::from([world.handle(4), world.handle(5)]));
    for (lookup, point) in world.lookups().iter().zip([1, 2, 3].into_iter().cycle()) {
        assert_eq!(lookup.target, Handle::point(point).key());
    }
    let workload = Workload { lookups: 2, targets: Targets::Nodes([300].into()), ..Workload::default() };
    let error = World::new(Scenario { workload, ..calm() }).unwrap_err();
    assert_eq!(error.field(), "workload.targets");
}

#[test]
fn records_of_a_workload_are_searched() {
    let keys = Some([500, 501].into());
    let broadcasts = Broadcasts {
        count: 2,
        pace: Interarrival::Every(S),
        warmup_lookups: 0,
        keys,
        ..Broadcasts::default()
    };
    let targets = Targets::Records { first: 0, count: 2, enough: 3 };
    let workload = Workload { lookups: 20, first: 30 * S, targets, ..Workload::default() };
    let mut world = World::new(Scenario { workload, broadcasts: Some(broadcasts), ..calm() }).unwrap();
    world.run().unwrap();
    assert_eq!(world.record_key(1), Handle::point(501).key());
    assert!(world.lookups().iter().all(|lookup| lookup.shown >= 3), "{}", world.figures());
    assert!(world.lookups().iter().any(|lookup| lookup.record == Some(1)));
}

/// Everything that can happen, in a network whose nodes keep their tables themselves.
fn troubled(seed: u64) -> Scenario {
    let who = |share| Who::Share(share);
    let changes = vec![
        at(2, Effect::LinkDown { who: who(0.1), sends: Sends::Fail }),
        at(3, Effect::LinkDown { who: who(0.1), sends: Sends::Lost }),
        at(4, Effect::Sleep { who: who(0.1), time: 20 * S }),
        at(5, Effect::Separate { who: who(0.3) }),
        at(6, Effect::Move { who: who(0.1) }),
        at(8, Effect::Serve { who: who(0.1), serve: false }),
        at(9, Effect::Kill { who: Who::Known { to: 9, count: 5 } }),
        at(10, Effect::SlowDown { factor: 1.5, add: 50 * MS }),
        at(12, Effect::Heal),
        at(13, Effect::LinkUp { who: Who::All }),
        at(14, Effect::Loss(0.1)),
        at(15, Effect::Restart { who: Who::Near { node: 3, count: 6 }, snapshot: seed.is_multiple_of(2) }),
        at(16, Effect::ChangeId { who: who(0.05) }),
        at(17, Effect::Serve { who: Who::All, serve: true }),
    ];
    let censors = Sybils {
        count: 10,
        groups: 10,
        near: Place::Record(1),
        in_tables: true,
        behaviour: Arc::new(Censor { truthful: true, lies: true }),
        ..Sybils::default()
    };
    let length = Length::Exponential(30 * S);
    let classes =
        [(0.3, Latency::Constant(400 * MS)), (0.7, Latency::LogNormal { median: 50 * MS, sigma: 0.5 })];
    Scenario {
        seed,
        nodes: 60,
        build: if seed.is_multiple_of(3) {
            Build::Ideal
        } else {
            Build::Bootstrap(Bootstrap { every: 50 * MS, settle: 5 * S, ..Bootstrap::default() })
        },
        answers: Answers { names: 8, without_asker: true, ..Answers::default() },
        churn: Some(Churn { share: 0.3, sessions: length.clone(), absences: length, restores: true }),
        hostile: vec![
            Party::new(0.05, QuickCrowd { names: 30, round_trip: MS }),
            Party::new(
                0.05,
                Flood { victim: 7, every: 300 * MS, neighbours: u32::try_from(seed % 5).unwrap() },
            ),
        ],
        sybils: vec![censors],
        link: Link {
            round_trip: Latency::classes(classes),
            loss: 0.02,
            refusal: 0.3,
            dial: Some(Dial { most: 20, idle: 5 * S, ..Dial::default() }),
            ..Link::default()
        },
        changes,
        lasts: 40 * S,
        workload: Workload {
            lookups: 60,
            pace: Interarrival::Mean(500 * MS),
            targets: Targets::Records { first: 0, count: 4, enough: 2 },
            ..Workload::default()
        },
        broadcasts: Some(Broadcasts {
            count: 8,
            pace: Interarrival::Mean(4 * S),
            warmup_lookups: 2,
            ..Broadcasts::default()
        }),
        ..maintained()
    }
}

#[test]
fn the_contract_holds_in_any_weather_and_runs_are_repeated() {
    let seeds = if cfg!(debug_assertions) { 3 } else { 24 };
    let run = |seed| {
        let mut world = World::new(troubled(seed)).unwrap();
        if let Err(broken) = world.run() {
            panic!("seed {seed}: {broken}");
        }
        assert!(world.now() >= Instant::ORIGIN + 40 * S);
        assert_eq!((world.figures().lookups, world.figures().running), (60, 0), "seed {seed}");
        world.fingerprint()
    };
    let all = || (0..seeds).map(run).collect::<Vec<_>>();
    let (first, second) = std::thread::scope(|threads| {
        let second = threads.spawn(all);
        (all(), second.join().unwrap())
    });
    assert_eq!(first, second);
    let prints = BTreeSet::from_iter(first);
    assert_eq!(prints.len() as u64, seeds);
}

#[cfg(feature = "record")]
#[test]
fn nodes_that_are_recorded_in_any_weather_replay() {
    use kad_proto::record::{Keep, Recording};
    use kad_proto::sim::Net;

    let mut calls = 0;
    for seed in if cfg!(debug_assertions) { 2..3 } else { 2..6 } {
        let mut world = World::new(troubled(seed)).unwrap();
        (0..60).for_each(|index| world.record(index, Keep::All, false).unwrap());
        world.run().unwrap();
        for bytes in (0..60).flat_map(|index| world.recordings(index)) {
            let recording = Recording::<Net>::open(&bytes).unwrap();
            let replayed = recording.replay().unwrap();
            assert!(replayed.difference.is_none(), "seed {seed}: {:?}", replayed.difference);
            calls += replayed.calls;
        }
        let mut plain = World::new(troubled(seed)).unwrap();
        plain.run().unwrap();
        assert_eq!(plain.fingerprint(), world.fingerprint());
    }
    assert!(calls > 1_000, "{calls}");
}
