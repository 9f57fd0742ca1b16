//! The rows about the routing table.

use super::measure::{
    HOUR, MINUTE, MS, S, at_least, at_most, lookups, mean, network, one_maintained, pass, recall, stated,
    world,
};
use super::{Figure, Row, Trial, newcomers, outages};
use kad_proto::sim::{
    Activity, Answer, Behaviour, Bootstrap, Build, Effect, Handle, Key64, Party, Question, SimEvent, Who,
    World,
};
use kad_proto::{Config, Instant, Key};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

pub(super) const ROWS: &[Row] = &[
    row("T1", "resume: the machine sleeps, and its link comes back later than it", outages::resume),
    row(
        "T2",
        "outage: the link is down for 45 s to 60 min, and the seeds are gone for good",
        outages::outage,
    ),
    row("T3", "split: a part of 500 maintained nodes is cut off, and healed", split),
    row("T4", "tiny: 1 to 10 nodes, all know node 0; answers leave the asker out", tiny),
    row("T5", "full bucket of 20 living nodes, a newcomer every 10 s", newcomers::full_bucket),
    row("T6", "takeover: a claimant of an honest node's id at another address", newcomers::takeover),
    row("T7", "moved: the same id asks from a new address once a minute", newcomers::moved),
    row("T8", "flood of names: bogus addresses for the neighbours' keys, spoofed queries", newcomers::flood),
    row("T9", "client and server again", client),
    row("T10", "seeds: 40, of which 32 are dead", seeds),
    row("T11", "where nobody is: the refreshes of 7 days among 5,000 nodes", nobody),
    row("T13", "told: the driver knows that the link is down or up", outages::told),
    row("T14", "outage with a friend: one node of the local network goes on answering", outages::friend),
    row("T15", "at rest: nobody asks anything", at_rest),
];

const fn row(name: &'static str, world: &'static str, run: fn(Trial) -> Result<Vec<Figure>, String>) -> Row {
    Row { name, world, reached: false, in_short: true, seeded: true, run }
}

/// The number of the one maintained node, in the rows that have one.
pub(super) const OURS: u32 = 500;

/// The nodes of a node's table; none if it has no engine.
pub(super) fn held(world: &World, node: u32) -> Vec<Handle> {
    let engine = world.engine(world.handle(node));
    engine.map_or_else(Vec::new, |engine| engine.table().iter().map(|entry| *entry.node()).collect())
}

/// How many of these nodes a node's table holds.
pub(super) fn count_held(world: &World, node: u32, of: &[Handle]) -> usize {
    let held: BTreeSet<_> = held(world, node).into_iter().collect();
    of.iter().filter(|node| held.contains(node)).count()
}

/// The share of these nodes that a node's table holds; 1 of none.
pub(super) fn share_held(world: &World, node: u32, of: &[Handle]) -> f64 {
    if of.is_empty() { 1.0 } else { count_held(world, node, of) as f64 / of.len() as f64 }
}

/// The numbers of the nodes that are nearest to a node, without it, nearest first.
pub(super) fn nearest(world: &World, node: u32, count: usize) -> Vec<u32> {
    let own = world.handle(node).key();
    let mut others: Vec<u32> = (0..world.scenario().nodes).filter(|other| *other != node).collect();
    others.sort_unstable_by_key(|other| world.handle(*other).key().distance(&own));
    others.truncate(count);
    others
}

/// The handles of nodes, by number.
pub(super) fn handles(world: &World, numbers: &[u32]) -> Vec<Handle> {
    numbers.iter().map(|number| world.handle(*number)).collect()
}

/// Lets something happen now.
pub(super) fn apply(world: &mut World, effect: &Effect) -> Result<(), String> {
    world.apply(effect).map_err(|error| error.to_string())
}

/// From now on, the events for which this holds. It replaces an earlier watch.
pub(super) fn watch(
    world: &mut World,
    keep: impl Fn(&SimEvent) -> bool + Send + 'static,
) -> Receiver<(Instant, SimEvent)> {
    let (events, seen) = channel();
    world.set_log(move |at, event| {
        if keep(event) {
            let _ = events.send((at, *event)); // nobody may listen any more
        }
    });
    seen
}

/// T3: a part of the network is cut off from the rest, and every node keeps its table itself.
fn split(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    let nodes: u32 = if trial.short { 120 } else { 500 };
    let worlds: &[(u32, u32)] =
        if trial.short { &[(10, 20), (50, 60)] } else { &[(2, 20), (10, 60), (30, 20), (50, 60)] };
    for &(percent, minutes) in worlds {
        let mut scenario = network(trial);
        scenario.nodes = nodes;
        scenario.config = Config::default();
        (scenario.workload.lookups, scenario.workload.by) = (0, Who::All);
        let mut world = world(scenario)?;
        pass(&mut world, 20 * MINUTE)?;
        let before = world.look_closely().worst;
        // Numbers say nothing of keys. The seeds are on one side or the other, depending on the trial's seed.
        let first = u32::try_from(trial.seed.wrapping_mul(7_919) % u64::from(nodes)).unwrap_or_default();
        let few = (nodes * percent / 100).max(1);
        let part: Vec<u32> = (first..first + few).map(|number| number % nodes).collect();
        apply(&mut world, &Effect::Separate { who: Who::Nodes(part.clone().into()) })?;
        pass(&mut world, minutes * MINUTE)?;
        apply(&mut world, &Effect::Heal)?;
        pass(&mut world, 15 * MINUTE)?;
        let health = world.look_closely();
        for number in 0..100 {
            // Half of the lookups start in the part that was cut off.
            let inside = part.get(number as usize / 2 % part.len()).copied().unwrap_or_default();
            let outside = (first + few + 4 * number % (nodes - few)) % nodes;
            let by = if number % 2 == 0 { inside } else { outside };
            world.look_up(by, target(trial, number));
            pass(&mut world, S)?;
        }
        pass(&mut world, MINUTE)?;
        let name = format!("{percent} % for {minutes} min: ");
        figures.push(at_least(format!("{name}recall"), recall(&lookups(&world).collect::<Vec<_>>()), 0.99));
        figures.push(at_least(format!("{name}worst table"), health.worst, 0.95));
        figures.push(stated(format!("{name}worst table before"), before));
    }
    Ok(figures)
}

/// A key that no node has.
pub(super) fn target(trial: Trial, number: u32) -> Key64 {
    let seed = u32::try_from(trial.seed % 8_192).unwrap_or_default();
    Handle::point(seed * 1_000 + number).key()
}

/// T4: networks of 1 to 10 nodes, which are told of node 0 only.
fn tiny(trial: Trial) -> Result<Vec<Figure>, String> {
    let (mut complete, mut found, mut stored) = (Vec::new(), Vec::new(), Vec::new());
    let mut most = 0.0_f64;
    for nodes in 1..=10_u32 {
        let mut scenario = network(trial);
        scenario.nodes = nodes;
        scenario.config = Config::default();
        (scenario.workload.lookups, scenario.workload.by) = (0, Who::All);
        scenario.build = Build::Bootstrap(Bootstrap { seeds: 1, every: 100 * MS, settle: 500 * S });
        (scenario.answers.without_asker, scenario.answers.with_itself) = (true, false);
        let mut world = world(scenario)?;
        pass(&mut world, nodes * 100 * MS + MINUTE)?;
        let others = |node: u32| (0..nodes).filter(move |other| *other != node).collect::<Vec<_>>();
        complete.extend((0..nodes).map(|node| {
            let others = handles(&world, &others(node));
            f64::from(u8::from(count_held(&world, node, &others) == others.len()))
        }));
        if nodes > 1 {
            let first = world.lookups().len();
            for node in 0..nodes {
                world.look_up(node, target(trial, 100 * nodes + node));
                world.publish(node);
                pass(&mut world, 10 * S)?;
            }
            pass(&mut world, 2 * MINUTE)?;
            let made = world.lookups().iter().skip(first);
            let made: Vec<_> = made.filter(|it| it.reason == kad_proto::sim::Reason::Workload).collect();
            found.push(recall(&made));
            stored.push(mean(world.broadcasts().iter().map(|it| it.share.unwrap_or(0.0))));
        }
        pass(&mut world, 30 * MINUTE)?;
        let sent = |world: &World| (0..nodes).map(|node| world.upkeep_requests(node)).collect::<Vec<_>>();
        let (before, hours) = (sent(&world), if trial.short { 2 } else { 6 });
        pass(&mut world, hours * HOUR)?;
        let busiest = sent(&world).into_iter().zip(before).map(|(after, before)| after - before).max();
        most = most.max(busiest.unwrap_or_default() as f64 / f64::from(hours));
    }
    Ok(vec![
        at_least("complete tables after 60 s", mean(complete.into_iter()), 0.995),
        at_least("recall", mean(found.into_iter()), 0.995),
        at_least("broadcasts: share of those nearest", mean(stored.into_iter()), 0.995),
        at_most("requests an hour each, most", most, 60.0),
    ])
}

/// T9: nodes become clients, which their neighbours are told, and serve again later.
fn client(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    for told in [true, false] {
        let mut world = world(one_maintained(trial, OURS))?;
        pass(&mut world, 20 * MINUTE)?;
        let held = held(&world, OURS);
        let mut near = nearest(&world, OURS, 20);
        near.retain(|number| held.contains(&world.handle(*number)));
        near.truncate(10);
        let (clients, who) = (handles(&world, &near), Who::Nodes(near.clone().into()));
        // They tell our node only, so that others, whose tables nobody tends, go on naming them.
        let all = near.iter().copied().chain([OURS]).collect();
        apply(&mut world, &Effect::Separate { who: Who::Nodes(all) })?;
        apply(&mut world, &Effect::Serve { who: who.clone(), serve: false })?;
        apply(&mut world, &Effect::Heal)?;
        pass(&mut world, 10 * MINUTE)?;
        if count_held(&world, OURS, &clients) > 0 {
            return Err("a client is in the table".to_owned());
        }
        if told {
            apply(&mut world, &Effect::Serve { who, serve: true })?;
        } else {
            // Their word does not get through to it.
            apply(&mut world, &Effect::Separate { who: Who::Node(OURS) })?;
            apply(&mut world, &Effect::Serve { who, serve: true })?;
            apply(&mut world, &Effect::Heal)?;
            for client in &clients {
                world.look_up(OURS, client.key());
                pass(&mut world, S)?;
            }
        }
        pass(&mut world, MINUTE)?;
        let name = if told { "taken back when told, share" } else { "taken back by its answer, share" };
        figures.push(at_least(name, share_held(&world, OURS, &clients), 0.995));
    }
    Ok(figures)
}

/// T10: nodes with empty tables are told of 40 seeds.
fn seeds(trial: Trial) -> Result<Vec<Figure>, String> {
    const TRIED: u32 = 10;
    let begin = |living: u32| -> Result<(World, Vec<Handle>), String> {
        let mut scenario = one_maintained(trial, OURS);
        scenario.maintained = Who::Nodes((OURS..OURS + TRIED).collect());
        let mut world = world(scenario)?;
        let numbers: Vec<u32> = (1_000..1_040).collect();
        let told = handles(&world, &numbers);
        // The seeds that the simulator tells nodes of are dead too, and the nodes begin with nothing.
        let gone = (0..3).chain(1_000 + living..1_040).collect();
        apply(&mut world, &Effect::Kill { who: Who::Nodes(gone) })?;
        let who = Who::Nodes((OURS..OURS + TRIED).collect());
        apply(&mut world, &Effect::Restart { who: who.clone(), snapshot: false })?;
        pass(&mut world, 5 * MINUTE)?;
        if (OURS..OURS + TRIED).any(|node| !held(&world, node).is_empty()) {
            return Err("a table is not empty".to_owned());
        }
        apply(&mut world, &Effect::Seeds { who, seeds: told.clone() })?;
        Ok((world, told))
    };
    // The living ones are told first.
    let (mut some, told) = begin(8)?;
    let told_at = some.now();
    let tables = handles(&some, &(OURS..OURS + TRIED).collect::<Vec<_>>());
    let living: BTreeSet<_> = told.iter().copied().take(8).collect();
    let heard = watch(&mut some, move |event| match event {
        SimEvent::Answered { node, .. } => living.contains(node),
        _ => false,
    });
    pass(&mut some, HOUR)?;
    let mut waited = BTreeMap::new();
    for (at, event) in heard.try_iter() {
        if let SimEvent::Answered { from, .. } = event {
            waited.entry(from).or_insert_with(|| (at - told_at).as_secs_f64());
        }
    }
    let waits = tables.iter().map(|table| waited.get(table).copied().unwrap_or(3_600.0));
    let slowest = waits.fold(0.0, f64::max);
    // Nobody is there: the second hour.
    let (mut none, _) = begin(0)?;
    pass(&mut none, HOUR)?;
    let sent = |world: &World| (OURS..OURS + TRIED).map(|node| world.upkeep_requests(node)).sum::<u64>();
    let before = sent(&none);
    let asked =
        watch(&mut none, |event| matches!(event, SimEvent::Sent { activity: Activity::Bootstrap, .. }));
    pass(&mut none, HOUR)?;
    let each = (sent(&none) - before) as f64 / f64::from(TRIED);
    // Who tries in the same second.
    let mut together = BTreeMap::<u64, BTreeSet<Handle>>::new();
    for (at, event) in asked.try_iter() {
        if let SimEvent::Sent { from, .. } = event {
            together.entry((at - Instant::ORIGIN).as_secs()).or_default().insert(from);
        }
    }
    let busiest = together.values().map(BTreeSet::len).max().unwrap_or_default();
    Ok(vec![
        at_most("s to an answer of one that lives, slowest", slowest, 60.0),
        at_most("all dead: requests in the second hour", each, 100.0),
        // Jitter: the ten nodes were told at the same instant.
        at_most("all dead: that try in one second, of 10", busiest as f64, 5.0),
    ])
}

/// Answers honestly, and tells when a node asked for the nodes nearest to itself.
#[derive(Debug)]
struct OwnKey(Sender<Instant>);

impl Behaviour for OwnKey {
    fn answer(&self, question: Question<'_>) -> Option<Answer> {
        if question.target == question.asker.key() {
            let _ = self.0.send(question.at); // nobody may listen any more
        }
        Some(Answer::naming(question.honest.to_vec()))
    }
}

/// T11: which buckets one node refreshes.
fn nobody(trial: Trial) -> Result<Vec<Figure>, String> {
    let (nodes, days) = if trial.short { (1_000, 2_u32) } else { (5_000, 7) };
    let (asked, own) = channel();
    let mut scenario = one_maintained(trial, OURS);
    scenario.nodes = nodes;
    scenario.hostile = vec![Party::new(1.0, OwnKey(asked))];
    let mut world = world(scenario)?;
    let local = world.handle(OURS).key();
    let cpl = |number: u32| world.handle(number).key().common_prefix_len(&local);
    let inhabited: BTreeSet<u32> = (0..nodes).filter(|number| *number != OURS).map(cpl).collect();
    pass(&mut world, 24 * days * HOUR)?;
    let Some(engine) = world.engine(world.handle(OURS)) else { return Err("no engine".to_owned()) };
    let (mut all, mut empty) = (0, 0);
    for cpl in 0..Key64::BITS {
        all += engine.refreshes(cpl);
        empty += if inhabited.contains(&cpl) { 0 } else { engine.refreshes(cpl) };
    }
    // Questions that are less than a minute apart belong to one lookup. The liveness checks of others ask for their keys.
    let (mut last, mut own_lookups) = (None, 0);
    for at in own.try_iter() {
        own_lookups += u32::from(last.is_none_or(|last| at - last > MINUTE));
        last = Some(at);
    }
    // The nearest bucket is due once an hour, and a tenth of that later at most.
    Ok(vec![
        at_most("refreshes of buckets where nobody is, share", empty as f64 / (all as f64).max(1.0), 0.05),
        at_least("lookups of the own key a day", f64::from(own_lookups) / f64::from(days), 20.0),
        stated("refreshes a day", all as f64 / f64::from(days)),
    ])
}

/// T15: what one node costs that has nothing to do.
fn at_rest(trial: Trial) -> Result<Vec<Figure>, String> {
    let rest = |config: Config| -> Result<(f64, f64), String> {
        let mut scenario = one_maintained(trial, OURS);
        scenario.config = config;
        let mut world = world(scenario)?;
        pass(&mut world, 2 * HOUR)?;
        let (sent, wakes, hours) = (world.upkeep_requests(OURS), world.wakes(OURS), 24);
        pass(&mut world, hours * HOUR)?;
        let an_hour = |count: u64| count as f64 / f64::from(hours);
        Ok((an_hour(world.upkeep_requests(OURS) - sent), an_hour(world.wakes(OURS) - wakes)))
    };
    let (sent, wakes) = rest(Config::default())?;
    let (quiet_sent, quiet_wakes) = rest(Config::quiet())?;
    Ok(vec![
        stated("requests an hour", sent),
        stated("wake-ups an hour", wakes),
        stated("quiet: requests an hour", quiet_sent),
        stated("quiet: wake-ups an hour", quiet_wakes),
        at_most("quiet: requests, of the default's", quiet_sent / sent.max(1.0), 0.1),
        at_most("quiet: wake-ups, of the default's", quiet_wakes / wakes.max(1.0), 0.1),
    ])
}

/// A duration in seconds, for the names of figures.
pub(super) fn in_words(time: Duration) -> String {
    match time.as_secs() {
        secs if secs >= 86_400 => format!("{} d", secs / 86_400),
        secs if secs >= 3_600 * 2 => format!("{} h", secs / 3_600),
        secs if secs > 120 => format!("{} min", secs / 60),
        secs => format!("{secs} s"),
    }
}
