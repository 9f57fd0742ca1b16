//! The rows about a node whose own link fails.

use super::measure::{HOUR, MINUTE, S, at_least, at_most, one_maintained, pass, stated, world};
use super::tables::{OURS, apply, held, in_words, nearest, share_held};
use super::{Figure, Trial};
use kad_proto::sim::{Effect, Handle, Sends, Who, World};
use std::time::Duration;

const SENDS: [(Sends, &str); 2] = [(Sends::Fail, "fails"), (Sends::Lost, "lost")];

/// A world with one maintained node, a few seconds before it probes most of its table. `seeds`: the seeds live.
fn begin(trial: Trial, seeds: bool) -> Result<World, String> {
    let mut world = world(one_maintained(trial, OURS))?;
    // Ideal tables were last seen at time zero, so all nodes are probed after each quarter of an hour.
    pass(&mut world, 30 * MINUTE - 5 * S)?;
    if !seeds {
        apply(&mut world, &Effect::Kill { who: Who::First(3) })?;
    }
    Ok(world)
}

/// What became of the table of a node that was cut off.
struct After {
    /// How many nodes were removed while it was cut off.
    removed: f64,
    /// How many requests it sent meanwhile.
    sent: f64,
    /// The share of the living of before that its table holds, some time after.
    back: f64,
    /// How many of those in its table live an hour after, as a share of the living of before.
    hour_later: f64,
    /// The share of the dead in its table an hour after.
    dead: f64,
}

/// A node is cut off by this effect for so long, until that one; `back` later it should know the living again.
fn cut_off(
    world: &mut World,
    [begins, ends]: [&[Effect]; 2],
    asleep: Duration,
    lasts: Duration,
    back: Duration,
) -> Result<After, String> {
    let (before, sent) = (held(world, OURS), world.upkeep_requests(OURS));
    begins.iter().try_for_each(|effect| apply(world, effect))?;
    if !asleep.is_zero() {
        apply(world, &Effect::Sleep { who: Who::Node(OURS), time: asleep })?;
        // Some of the network is gone by the time it wakes: a tenth after a night, half of it after a month.
        let one_in = if asleep > 24 * HOUR { 2 } else { 10 };
        let dies = |number: &u32| number.is_multiple_of(one_in) && *number != OURS;
        let dead: Vec<u32> = (0..world.scenario().nodes).filter(dies).collect();
        apply(world, &Effect::Kill { who: Who::Nodes(dead.into()) })?;
        pass(world, asleep)?;
    }
    pass(world, lasts)?;
    let removed = (1.0 - share_held(world, OURS, &before)) * before.len() as f64;
    let sent = (world.upkeep_requests(OURS) - sent) as f64;
    ends.iter().try_for_each(|effect| apply(world, effect))?;
    let lives = |node: &Handle| world.engine(*node).is_some();
    let living: Vec<_> = before.iter().copied().filter(lives).collect();
    pass(world, back)?;
    let share = share_held(world, OURS, &living);
    pass(world, HOUR.saturating_sub(back))?;
    let known = held(world, OURS).into_iter().filter(|node| world.engine(*node).is_some()).count();
    let hour_later = known as f64 / living.len().max(1) as f64;
    Ok(After { removed, sent, back: share, hour_later, dead: world.look_at(OURS).dead })
}

/// The link goes down, and up again. `told`: the engine is told.
fn link(sends: Sends, told: bool) -> [Vec<Effect>; 2] {
    let who = Who::Node(OURS);
    let tell = |up| told.then(|| Effect::TellLink { who: who.clone(), up });
    let (down, up) = (Effect::LinkDown { who: who.clone(), sends }, Effect::LinkUp { who: who.clone() });
    [[down].into_iter().chain(tell(false)).collect(), [up].into_iter().chain(tell(true)).collect()]
}

impl After {
    /// The figures: nobody removed, back in time, few requests (outages of the rows last an hour at most); and an hour
    /// later, as an empty table is never the last word.
    fn figures(&self, name: &str, back: Duration) -> Vec<Figure> {
        vec![
            at_most(format!("{name}: removed meanwhile"), self.removed.round(), 0.0),
            at_least(format!("{name}: back in {}", in_words(back)), self.back, 0.95),
            at_least(format!("{name}: nodes in 1 h, of before"), self.hour_later, 0.95),
            at_most(format!("{name}: dead in the table in 1 h"), self.dead, 0.05),
            at_most(format!("{name}: requests meanwhile"), self.sent, 100.0),
        ]
    }
}

/// T1: the machine sleeps; the link comes back 30 s after it, or 120 s.
pub(super) fn resume(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    for asleep in [8 * HOUR, 30 * 24 * HOUR] {
        for (sends, word) in SENDS {
            let mut world = begin(trial, true)?;
            let lasts = if sends == Sends::Fail { 30 * S } else { 120 * S };
            let [down, up] = link(sends, false);
            let after = cut_off(&mut world, [&down, &up], asleep, lasts, MINUTE)?;
            figures.append(&mut after.figures(&format!("{}, {word}", in_words(asleep)), MINUTE));
        }
    }
    Ok(figures)
}

/// How soon after an outage that nobody told of the table must be back.
fn back_after(lasts: Duration) -> Duration {
    if lasts < 5 * MINUTE { MINUTE } else { 3 * MINUTE }
}

/// T2: the link is down.
pub(super) fn outage(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    let all: &[Duration] =
        if trial.short { &[45 * S, HOUR] } else { &[45 * S, 4 * MINUTE, 15 * MINUTE, HOUR] };
    for &lasts in all {
        for (sends, word) in SENDS {
            let mut world = begin(trial, false)?;
            let ([down, up], back) = (link(sends, false), back_after(lasts));
            let after = cut_off(&mut world, [&down, &up], Duration::ZERO, lasts, back)?;
            figures.append(&mut after.figures(&format!("{}, {word}", in_words(lasts)), back));
        }
    }
    // The same where the seeds go on living.
    let mut world = begin(trial, true)?;
    let ([down, up], back) = (link(Sends::Lost, false), back_after(HOUR));
    let after = cut_off(&mut world, [&down, &up], Duration::ZERO, HOUR, back)?;
    figures.append(&mut after.figures("60 min, seeds live", back));
    Ok(figures)
}

/// T13: as T1 and T2, but the driver tells the engine that the link is down, and when it is up.
pub(super) fn told(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    let at_once = 10 * S;
    for (sends, word) in SENDS {
        for (asleep, lasts) in [(30 * 24 * HOUR, 120 * S), (Duration::ZERO, HOUR)] {
            let mut world = begin(trial, asleep > HOUR)?;
            let [down, up] = link(sends, true);
            let after = cut_off(&mut world, [&down, &up], asleep, lasts, at_once)?;
            let name = if asleep.is_zero() { "60 min" } else { "30 d and 120 s" };
            figures.append(&mut after.figures(&format!("{name}, {word}"), at_once));
        }
    }
    Ok(figures)
}

/// T14: the node and one that it knows are cut off together.
pub(super) fn friend(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    let all: &[Duration] = if trial.short { &[HOUR] } else { &[4 * MINUTE, HOUR] };
    for &lasts in all {
        for near in [false, true] {
            let mut world = begin(trial, false)?;
            let local = world.handle(OURS);
            let in_bucket = |cpl| {
                let table = world.engine(local).map(|engine| engine.table().bucket(cpl));
                table.into_iter().flatten().find_map(|entry| world.number(*entry.node()))
            };
            let nearest = nearest(&world, OURS, 1).first().copied();
            let Some(friend) = (if near { nearest } else { in_bucket(0) }) else {
                return Err("no friend".to_owned());
            };
            let who = Who::Nodes([OURS, friend].into());
            let (begins, back) = ([Effect::Separate { who }], back_after(lasts));
            let ends = [Effect::Heal];
            let after = cut_off(&mut world, [&begins, &ends], Duration::ZERO, lasts, back)?;
            let kind = if near { "the nearest" } else { "a far one" };
            figures.append(&mut after.figures(&format!("{}, {kind}", in_words(lasts)), back));
        }
    }
    // The silence of seeds and restored nodes is no evidence of an outage: a node that comes back after a long time, all
    // of whose seeds and nine in ten of whose nodes are dead, must not keep the dead for it.
    let mut world = begin(trial, false)?;
    let before = held(&world, OURS);
    apply(&mut world, &Effect::Kill { who: Who::Node(OURS) })?;
    let dies = |number: &u32| !number.is_multiple_of(10);
    let dead: Vec<u32> = (0..world.scenario().nodes).filter(dies).collect();
    apply(&mut world, &Effect::Kill { who: Who::Nodes(dead.into()) })?;
    pass(&mut world, 8 * HOUR)?;
    apply(&mut world, &Effect::Restart { who: Who::Node(OURS), snapshot: true })?;
    pass(&mut world, 15 * MINUTE)?;
    let health = world.look_at(OURS);
    figures.push(at_most("restored, 9 in 10 dead: dead kept", health.dead, 0.05));
    let living: Vec<_> = before.into_iter().filter(|node| world.engine(*node).is_some()).collect();
    figures.push(at_least(
        "restored, 9 in 10 dead: the living kept",
        share_held(&world, OURS, &living),
        0.95,
    ));
    figures.push(stated("restored, 9 in 10 dead: nodes", health.size));
    Ok(figures)
}
