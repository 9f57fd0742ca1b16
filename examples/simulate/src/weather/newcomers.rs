//! The rows about nodes that want to get into a table, or to take another's place in it.

use super::measure::{HOUR, MINUTE, MS, S, at_least, at_most, mean, one_maintained, pass, stated, world};
use super::tables::{OURS, apply, count_held, handles, held, nearest, share_held, watch};
use super::{Figure, Trial};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::sim::{
    Act, Activity, Answer, Behaviour, Effect, Flood, Handle, Key64, Party, Place, Placement, Question,
    Scenario, SimEvent, Sybils, Turn, Who, World,
};
use kad_proto::{
    Config, Coordinator, Family, Instant, Key, Machine, RequestId, Response, RoutingInbound, Secret, Stamped,
    Start, ToldBy,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Nodes ask another one from time to time, all at once, from wherever they are.
#[derive(Debug)]
struct Regular {
    /// The node that they ask, by number.
    asked: u32,
    /// Who asks.
    by: Vec<u32>,
    /// From when on, in time of the run.
    from: Duration,
    /// How often.
    every: Duration,
}

impl Regular {
    /// A party of nobody, for what it does of its own accord.
    fn party(self) -> Party {
        Party::new(0.0, self)
    }
}

fn honest(question: &Question<'_>) -> Answer {
    Answer::naming(question.honest.to_vec())
}

impl Behaviour for Regular {
    fn answer(&self, question: Question<'_>) -> Option<Answer> {
        Some(honest(&question))
    }

    fn acts_every(&self) -> Option<Duration> {
        Some(self.every)
    }

    fn act(&self, turn: Turn<'_>) -> Vec<Act> {
        if turn.at < Instant::ORIGIN + self.from {
            return Vec::new();
        }
        let ask = |number: &u32| Act::Ask { node: turn.node(self.asked), sender: turn.node(*number) };
        self.by.iter().map(ask).collect()
    }
}

/// A newcomer of a node's farthest bucket asks it every ten seconds: anybody but these.
#[derive(Debug)]
struct Newcomers(Vec<Handle>);

impl Behaviour for Newcomers {
    fn answer(&self, question: Question<'_>) -> Option<Answer> {
        Some(honest(&question))
    }

    fn acts_every(&self) -> Option<Duration> {
        Some(10 * S)
    }

    fn act(&self, mut turn: Turn<'_>) -> Vec<Act> {
        let node = turn.node(OURS);
        let far =
            |sender: &Handle| sender.key().common_prefix_len(&node.key()) == 0 && !self.0.contains(sender);
        let sender = (0..64).find_map(|_| {
            let number = turn.below(turn.nodes);
            Some(turn.node(number)).filter(far)
        });
        sender.map(|sender| Act::Ask { node, sender }).into_iter().collect()
    }
}

/// The nodes of our farthest bucket, which is full.
fn farthest_bucket(world: &World) -> Result<Vec<Handle>, String> {
    let engine = world.engine(world.handle(OURS)).ok_or("no engine")?;
    let bucket: Vec<_> = engine.table().bucket(0).iter().map(|entry| *entry.node()).collect();
    if bucket.len() == 20 { Ok(bucket) } else { Err(format!("a bucket of {}", bucket.len())) }
}

/// T5: how many of a full bucket's nodes are left after two days, all of which live.
pub(super) fn full_bucket(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    for (percent, least) in [(1, 19.0), (2, 19.0), (5, 18.0)] {
        let mut scenario = one_maintained(trial, OURS);
        scenario.link.loss = f64::from(percent) / 100.0;
        let bucket = farthest_bucket(&world(scenario.clone())?)?;
        scenario.hostile = vec![Party::new(0.0, Newcomers(bucket.clone()))];
        let mut world = world(scenario)?;
        pass(&mut world, 48 * HOUR)?;
        let left: Vec<_> = held(&world, OURS).into_iter().filter(|node| bucket.contains(node)).collect();
        figures.push(at_least(format!("{percent} % lost: left of 20"), left.len() as f64, least));
        // Those that die must go all the same.
        let gone: Vec<_> = left.into_iter().take(3).collect();
        let numbers: Vec<u32> = gone.iter().filter_map(|node| world.number(*node)).collect();
        apply(&mut world, &Effect::Kill { who: Who::Nodes(numbers.into()) })?;
        pass(&mut world, 4 * HOUR)?;
        let kept = count_held(&world, OURS, &gone) as f64;
        figures.push(at_most(format!("{percent} % lost: dead kept for 4 h, of 3"), kept, 0.0));
    }
    Ok(figures)
}

/// A node claims the id of an honest one, and asks once a minute, until it falls silent.
#[derive(Clone, Copy, Debug)]
struct Claim {
    until: Instant,
}

impl Behaviour for Claim {
    fn answer(&self, question: Question<'_>) -> Option<Answer> {
        (question.at < self.until).then(|| honest(&question))
    }

    fn acts_every(&self) -> Option<Duration> {
        Some(MINUTE)
    }

    fn act(&self, turn: Turn<'_>) -> Vec<Act> {
        let sender = turn.members.first().filter(|_| turn.at < self.until);
        sender.map(|sender| Act::Ask { node: turn.node(OURS), sender: *sender }).into_iter().collect()
    }
}

/// The ten nodes nearest to ours: none of them can be displaced for want of room.
fn victims(scenario: &Scenario) -> Result<Vec<u32>, String> {
    Ok(nearest(&world(scenario.clone())?, OURS, 10))
}

/// Claimants of the ids of these nodes, each at another address.
fn claimants(victims: &[u32], until: Instant) -> Vec<Sybils> {
    let claimant = |victim: &u32| Sybils {
        count: 1,
        near: Place::Node(*victim),
        placed: Placement::Claimant(1),
        every: Duration::ZERO,
        behaviour: Arc::new(Claim { until }),
        ..Sybils::default()
    };
    victims.iter().map(claimant).collect()
}

/// T6: ids are claimed from other addresses.
pub(super) fn takeover(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    let mut scenario = one_maintained(trial, OURS);
    let victims = victims(&scenario)?;
    let links = |up: bool| {
        let who = Who::Nodes(victims.clone().into());
        if up { Effect::LinkUp { who } } else { Effect::LinkDown { who, sends: kad_proto::sim::Sends::Lost } }
    };
    // The honest ones live, and lose 2 %.
    scenario.sybils = claimants(&victims, Instant::FAR_FUTURE);
    let mut world_of_days = world(scenario.clone())?;
    let honest = handles(&world_of_days, &victims);
    pass(&mut world_of_days, 72 * HOUR)?;
    figures.push(at_least(
        "unproved: kept for 72 h, share",
        share_held(&world_of_days, OURS, &honest),
        0.995,
    ));
    // They are silent from 10 min on, and back at 40 min, when the claimants fall silent.
    let back = Instant::ORIGIN + 40 * MINUTE;
    scenario.sybils = claimants(&victims, back);
    let again = Regular { asked: OURS, by: victims.clone(), from: 40 * MINUTE, every: MINUTE };
    scenario.hostile = vec![again.party()];
    let mut world = world(scenario)?;
    let ours = world.handle(OURS);
    pass(&mut world, 9 * MINUTE)?;
    let events = watch(&mut world, move |event| match event {
        SimEvent::Sent { from, .. } | SimEvent::Answered { from, .. } => *from == ours,
        SimEvent::Removed { table, .. } | SimEvent::Admitted { table, .. } => *table == ours,
        _ => false,
    });
    pass(&mut world, MINUTE)?;
    apply(&mut world, &links(false))?;
    pass(&mut world, 30 * MINUTE - MS)?;
    // Of each node, those since it last answered.
    let mut tries = BTreeMap::<Handle, Vec<Instant>>::new();
    let (mut fewest, mut shortest) = (f64::INFINITY, f64::INFINITY);
    for (at, event) in events.try_iter() {
        match event {
            SimEvent::Sent { to, .. } => tries.entry(to).or_default().push(at),
            SimEvent::Answered { node, .. } => {
                tries.remove(&node);
            }
            SimEvent::Removed { node, .. } if honest.contains(&node) => {
                let tries = tries.get(&node).map(Vec::as_slice).unwrap_or_default();
                fewest = fewest.min(tries.len() as f64);
                shortest = shortest.min(tries.first().map_or(0.0, |first| (at - *first).as_secs_f64()));
            }
            _ => {}
        }
    }
    figures.push(at_least("unproved: failed tries before it leaves", fewest.min(1_000.0), 4.0));
    figures.push(at_least("unproved: s of failing before it leaves", shortest.min(1_000.0), 30.0));
    // What has taken the place by then: a table that keeps the silent for ever is no better.
    let taken: Vec<_> = honest.iter().filter_map(|node| node.at_address(1)).collect();
    figures.push(at_least("unproved: replaced in 30 min, share", share_held(&world, OURS, &taken), 0.995));
    apply(&mut world, &links(true))?;
    let waits = admissions(&mut world, &honest, 30 * MINUTE)?;
    let returned = waits.iter().filter(|wait| **wait < 1_800.0).count() as f64 / waits.len().max(1) as f64;
    figures.push(at_least("unproved: comes back within 30 min, share", returned, 0.995));
    figures.push(stated("unproved: s until it is back, mean", mean(waits.into_iter())));
    let (wait, goes_there) = proved(trial)?;
    figures.push(at_most("proved: s until the address counts", wait, 0.0));
    figures.push(at_least("proved: the next request goes there", goes_there, 1.0));
    Ok(figures)
}

/// The time in seconds until each of these nodes is in the table, at most this.
fn admissions(world: &mut World, nodes: &[Handle], most: Duration) -> Result<Vec<f64>, String> {
    let (ours, began) = (world.handle(OURS), world.now());
    let entered =
        watch(world, move |event| matches!(event, SimEvent::Admitted { table, .. } if *table == ours));
    let there = held(world, OURS);
    pass(world, most)?;
    let mut waits: BTreeMap<Handle, f64> = there.into_iter().map(|node| (node, 0.0)).collect();
    for (at, event) in entered.try_iter() {
        if let SimEvent::Admitted { node, .. } = event {
            waits.entry(node).or_insert_with(|| (at - began).as_secs_f64());
        }
    }
    Ok(nodes.iter().map(|node| waits.get(node).copied().unwrap_or(most.as_secs_f64())).collect())
}

/// T7: five neighbours move, and ask from their new addresses, at once and then once a minute.
pub(super) fn moved(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut scenario = one_maintained(trial, OURS);
    let near = victims(&scenario)?;
    let movers: Vec<u32> = near.into_iter().step_by(2).collect();
    scenario.hostile =
        vec![Regular { asked: OURS, by: movers.clone(), from: 40 * MINUTE, every: MINUTE }.party()];
    let mut world = world(scenario)?;
    pass(&mut world, 40 * MINUTE - MS)?;
    apply(&mut world, &Effect::Move { who: Who::Nodes(movers.clone().into()) })?;
    let there = handles(&world, &movers);
    let waits = admissions(&mut world, &there, HOUR)?;
    let slowest = waits.iter().copied().fold(0.0, f64::max);
    let (wait, goes_there) = proved(trial)?;
    Ok(vec![
        stated("unproved: s, mean of five", mean(waits.into_iter())),
        at_most("unproved: s, slowest of five", slowest, 60.0),
        at_most("proved: s", wait, 0.0),
        at_least("proved: the next request goes there", goes_there, 1.0),
    ])
}

/// Queries with spoofed senders near the victim: made-up nodes, which its table would have room for.
#[derive(Debug)]
struct Spoofed(Vec<Handle>);

impl Behaviour for Spoofed {
    fn answer(&self, question: Question<'_>) -> Option<Answer> {
        Some(honest(&question))
    }

    fn acts_every(&self) -> Option<Duration> {
        Some(10 * MS)
    }

    fn act(&self, mut turn: Turn<'_>) -> Vec<Act> {
        let count = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let sender = self.0.get(turn.below(count) as usize);
        sender.map(|sender| Act::Ask { node: turn.node(OURS), sender: *sender }).into_iter().collect()
    }
}

/// Answers honestly, but never names these nodes.
#[derive(Debug)]
struct Hides(Vec<Handle>);

impl Behaviour for Hides {
    fn answer(&self, question: Question<'_>) -> Option<Answer> {
        let mut answer = honest(&question);
        answer.closer.retain(|node| !self.0.contains(node));
        Some(answer)
    }
}

/// T8: somebody sends us queries that say they come from our neighbours, and from nobody.
pub(super) fn flood(trial: Trial) -> Result<Vec<Figure>, String> {
    let plain = world(one_maintained(trial, OURS))?;
    let local = plain.handle(OURS).key();
    let near = nearest(&plain, OURS, 80);
    let cpl_of = |number: &u32| plain.handle(*number).key().common_prefix_len(&local);
    // Only of buckets that have room for all nodes that could be in them.
    let cut_off = near.last().map_or(0, cpl_of);
    let has_room = |number: &&u32| {
        let of_bucket = near.iter().filter(|other| cpl_of(other) == cpl_of(number));
        cpl_of(number) > cut_off && of_bucket.count() <= 20
    };
    let with_room: Vec<u32> = near.iter().filter(has_room).copied().collect();
    let neighbours = with_room.get(..20).unwrap_or(&with_room);
    let newcomers: Vec<u32> = with_room.iter().rev().copied().take(10).collect();
    let newcomers = newcomers.as_slice();
    if newcomers.len() < 10 {
        return Err(format!("{} newcomers", newcomers.len()));
    }
    let cpl = newcomers.iter().map(cpl_of).min().unwrap_or_default();
    let spoofed = (0..1 << 20).map(Handle::made_up);
    let spoofed = spoofed.filter(|handle| handle.key().common_prefix_len(&local) >= cpl);
    let spoofed: Vec<_> = spoofed.take(4_096).collect();
    // A world in which these nodes are not there while we begin with an empty table, and come ten minutes later.
    // If `hidden`, nobody names them.
    let start = |late: &[u32], every: Duration, hidden: bool| -> Result<World, String> {
        let mut scenario = one_maintained(trial, OURS);
        scenario.answers.names = 40;
        scenario.answers.told = Some(20);
        let ask = Regular { asked: OURS, by: late.to_vec(), from: 10 * MINUTE, every };
        let names = Flood { victim: OURS, every: 2 * S, neighbours: 20 };
        scenario.hostile =
            vec![Party::new(0.0, names), Party::new(0.0, Spoofed(spoofed.clone())), ask.party()];
        if hidden {
            scenario.hostile.push(Party::new(1.0, Hides(handles(&plain, late))));
        }
        let mut world = world(scenario)?;
        let who = Who::Nodes(late.into());
        apply(&mut world, &Effect::LinkDown { who: who.clone(), sends: kad_proto::sim::Sends::Lost })?;
        apply(&mut world, &Effect::Restart { who: Who::Node(OURS), snapshot: false })?;
        pass(&mut world, 10 * MINUTE - MS)?;
        let late = handles(&world, late);
        if count_held(&world, OURS, &late) > 0 || held(&world, OURS).is_empty() {
            return Err("the table is not as it should be".to_owned());
        }
        apply(&mut world, &Effect::LinkUp { who })?;
        Ok(world)
    };
    let mut figures = Vec::new();
    // The neighbours come, and ask now and then.
    let mut world = start(neighbours, 5 * MINUTE, false)?;
    let names = handles(&world, neighbours);
    pass(&mut world, 15 * MINUTE)?;
    let in_table = 20.0 * share_held(&world, OURS, &names);
    figures.push(stated("neighbours in the table after 15 min, of 20", in_table));
    pass(&mut world, 15 * MINUTE)?;
    let in_table = 20.0 * share_held(&world, OURS, &names);
    figures.push(at_least("neighbours in the table after 30 min, of 20", in_table, 19.9));
    // Ten nodes come, and are named by those who answer our lookups.
    let mut world = start(newcomers, MINUTE, false)?;
    let names = handles(&world, newcomers);
    for _ in 0..3 {
        world.look_up(OURS, local);
    }
    let waits = admissions(&mut world, &names, 2 * MINUTE)?;
    let share = waits.iter().filter(|wait| **wait < 120.0).count() as f64 / waits.len() as f64;
    figures.push(at_least("named twice: in the table in 120 s", share, 0.995));
    // They are known by their own queries only.
    let mut world = start(newcomers, MINUTE, true)?;
    let counts =
        |world: &World| world.engine(world.handle(OURS)).map(|engine| engine.routing_counts().include);
    let before = counts(&world);
    let waits = admissions(&mut world, &names, 30 * MINUTE)?;
    let share = waits.iter().filter(|wait| **wait < 1_800.0).count() as f64 / waits.len() as f64;
    figures.push(stated("own queries: in the table in 30 min", share));
    figures.push(stated("own queries: s, mean, at most 1,800", mean(waits.into_iter())));
    if let (Some(before), Some(after)) = (before, counts(&world)) {
        let checks = after.passed + after.failed - before.passed - before.failed;
        figures.push(stated("checks a second, mean", checks as f64 / 1_800.0));
    }
    let ours = world.handle(OURS);
    let unsolicited =
        move |to: &Handle| to.is_made_up() || to.address() > 0 || names.contains(&to.at_first_address());
    let checks = watch(
        &mut world,
        move |event| matches!(event, SimEvent::Sent { activity: Activity::Include, from, to, .. } if *from == ours && unsolicited(to)),
    );
    pass(&mut world, 10 * MINUTE)?;
    let mut by_second = BTreeMap::<u64, u32>::new();
    for (at, _) in checks.try_iter() {
        *by_second.entry((at - Instant::ORIGIN).as_secs()).or_default() += 1;
    }
    let most = by_second.values().copied().max().unwrap_or_default();
    figures.push(at_most("unsolicited checks in a second, most", f64::from(most), 5.0));
    Ok(figures)
}

/// A network whose transport proves identity: a node is its id, wherever it is.
#[derive(Clone, Debug, Default, PartialEq)]
struct Proved;

#[derive(Clone, Debug)]
struct Peer {
    id: Handle,
    address: u32,
}

impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Family for Proved {
    type Key = Key64;
    type Target = Key64;
    type Node = Peer;
    type Message = u32;

    const NODES_CHANGE: bool = true;

    fn key(node: &Peer) -> Key64 {
        node.id.key()
    }

    fn update(known: &mut Peer, told: &Peer, by: ToldBy) -> bool {
        let moves = by == ToldBy::Itself && known.address != told.address;
        if moves {
            known.address = told.address;
        }
        moves
    }
}

/// One node with forty others, under a virtual clock.
struct Small {
    engine: Coordinator<Proved>,
    now: Instant,
    peers: Vec<Peer>,
    /// Answers under way.
    answers: VecDeque<(Instant, RequestId)>,
    /// The requests so far.
    asked: Vec<Peer>,
}

impl Small {
    fn submit(&mut self, event: impl Into<Inbound<Proved>>) {
        for stamped in self.engine.handle(self.now, Stamped::new(event.into())) {
            let Outbound::Request(request) = stamped.event else { continue };
            let lives = self.peers.iter().any(|it| *it == request.node && it.address == request.node.address);
            self.asked.push(request.node);
            if lives {
                self.answers.push_back((self.now + 80 * MS, request.id));
            }
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + 20 * MS;
            self.submit(Inbound::Tick);
            while let Some((at, id)) = self.answers.front().copied()
                && at <= self.now
            {
                self.answers.pop_front();
                let named = self.peers.iter().take(20).cloned().collect();
                self.submit(Response::answered(id, named));
            }
        }
    }
}

/// A node of ours moves, where identity is proved, and asks us once a minute from its new address: after how many seconds
/// the table has it, an hour at most; and whether the next request of a lookup for it goes there.
fn proved(trial: Trial) -> Result<(f64, f64), String> {
    let first = u32::try_from(trial.seed % 8_192).unwrap_or_default() * 1_000;
    let local = Handle(first).key();
    let engine = Coordinator::new(local, Config::default(), &Secret::from_seed(trial.seed));
    let engine = engine.map_err(|error| error.to_string())?;
    let peers = (1..=40).map(|number| Peer { id: Handle(first + number), address: 0 }).collect();
    let mut small =
        Small { engine, now: Instant::ORIGIN, peers, answers: VecDeque::new(), asked: Vec::new() };
    for peer in small.peers.clone() {
        small.submit(RoutingInbound::Connected { node: peer, round_trip: None });
    }
    small.run_for(10 * MINUTE);
    let Some(mover) = small.peers.get_mut(5) else { return Err("no peers".to_owned()) };
    mover.address = 1;
    let (mover, began) = (mover.clone(), small.now);
    let mut wait = 3_600.0;
    while small.now < began + HOUR {
        small.submit(RoutingInbound::Discovered(mover.clone()));
        let known = small.engine.table().get(&mover).map(|entry| entry.node().address);
        if known == Some(mover.address) {
            wait = (small.now - began).as_secs_f64();
            break;
        }
        small.run_for(MINUTE);
    }
    small.asked.clear();
    small.submit(Start::find(1, mover.id.key()));
    small.run_for(10 * S);
    let asked = small.asked.iter().find(|asked| **asked == mover);
    Ok((wait, f64::from(u8::from(asked.is_some_and(|asked| asked.address == mover.address)))))
}
