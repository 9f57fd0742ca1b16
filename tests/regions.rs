//! Records in the region of their key: what an attacker who places nodes next to it achieves, and what it costs.
//!
//! The checker that runs in each world has no models, so it does not know the bounds of a region: they are tested here, and by
//! `tests/properties.rs` in small worlds.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use kad_proto::sim::{
    Answer, AskedFor, Behaviour, Broadcasts, Censor, End, Handle, Interarrival, Party, Place, Placement,
    Question, Scenario, Scheme, Sybils, Who, World,
};
use kad_proto::{Key, Outcome, RegionReport, SizeBasis};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const RECORDS: u32 = 3;
const K: usize = 20;

/// 2,000 nodes; three of them publish a record each.
fn scenario(seed: u64, regions: bool) -> Scenario {
    let mut scenario = Scenario::lossy();
    scenario.seed = seed;
    scenario.nodes = 2_000;
    scenario.workload.lookups = 0;
    scenario.config.query.regions = regions;
    scenario.config.broadcast.regions = regions;
    scenario.broadcasts = Some(Broadcasts {
        scheme: Scheme::FollowUp,
        count: RECORDS,
        pace: Interarrival::Every(Duration::from_secs(10)),
        warmup_lookups: 20,
        by: Who::Nodes((100..103).collect()),
        ..Broadcasts::default()
    });
    scenario
}

/// So many Sybils next to each record, each in a group of its own, as far as there are groups.
fn besieged(count: u32, truthful: bool, regions: bool) -> Scenario {
    let sybils = |record| Sybils {
        near: Place::Record(record),
        count,
        groups: Handle::GROUPS,
        placed: Placement::Nearest,
        in_tables: true,
        every: Duration::ZERO,
        behaviour: Arc::new(Censor { truthful, lies: false }),
        ..Sybils::default()
    };
    Scenario { sybils: (0..RECORDS).map(sybils).collect(), ..scenario(u64::from(count), regions) }
}

/// What a world with records was like.
struct Seen {
    /// How many of the records were found.
    found: u32,
    /// Requests of each store: to find nodes, and to store.
    requests: Vec<u32>,
    /// Of these, to store.
    stored: Vec<u32>,
    /// Requests of each search that no quorum ends.
    searched: Vec<u32>,
    stores: Vec<Option<RegionReport>>,
    searches: Vec<Option<RegionReport>>,
    succeeded: usize,
    /// How often something else than the record was shown.
    lies: u32,
    /// Which share of the k closest honest nodes hold each record.
    shares: Vec<f64>,
    /// How many honest nodes hold each record, and how many there are, in each of four parts of twice the region, from the key
    /// outwards: the inner half of the region, its outer half, and as much beyond it as that, twice.
    parts: Vec<[(u32, u32); 4]>,
}

/// Stores the records, and searches for each from another node that has made lookups before.
fn run(scenario: Scenario) -> Seen {
    let mut world = World::new(scenario).unwrap();
    world.run().unwrap_or_else(|broken| panic!("{broken}"));
    let (mut found, mut searches, mut requests) = (0, Vec::new(), Vec::new());
    for record in 0..RECORDS {
        for number in 0..20 {
            world.look_up(120 + record, Handle::point(20 * record + number).key());
        }
        world.run().unwrap_or_else(|broken| panic!("{broken}"));
        for enough in [1, 1_000] {
            let number = world.search(120 + record, record, enough);
            world.run().unwrap_or_else(|broken| panic!("{broken}"));
            let lookup = &world.lookups()[number as usize];
            let ending = lookup.ending.unwrap();
            if enough == 1 {
                found += u32::from(ending.end == End::Finished(Outcome::Quorum) && lookup.shown > 0);
            } else {
                searches.push(ending.region);
                requests.push(ending.stats.sent);
            }
        }
    }
    let parts = |record| {
        let (key, half) = (world.record_key(record).leading(), u64::MAX / 2_001 * 10);
        let mut parts = [(0, 0); 4];
        for node in (0..2_000).map(|index| world.handle(index)) {
            let part = usize::try_from((node.key().leading() ^ key) / half).unwrap_or(usize::MAX);
            if let Some((held, all)) = parts.get_mut(part) {
                *held += u32::from(world.holds(node, record));
                *all += 1;
            }
        }
        parts
    };
    let endings: Vec<_> = world.broadcasts().iter().map(|run| run.ending.unwrap()).collect();
    Seen {
        found,
        requests: world.broadcasts().iter().map(|run| run.finds + run.stores).collect(),
        stored: world.broadcasts().iter().map(|run| run.stores).collect(),
        searched: requests,
        stores: endings.iter().map(|ending| ending.region).collect(),
        searches,
        lies: world.lookups().iter().map(|lookup| lookup.lies).sum(),
        succeeded: endings.iter().filter(|ending| ending.succeeded).count(),
        shares: world.broadcasts().iter().map(|run| run.share.unwrap()).collect(),
        parts: (0..RECORDS).map(parts).collect(),
    }
}

/// Whether a finish says that there are more nodes next to the key than there can be.
fn is_alarmed(region: Option<&RegionReport>) -> bool {
    region.is_some_and(RegionReport::is_implausible)
}

#[test]
fn sybils_next_to_a_key_hide_no_record() {
    for (count, truthful) in [(5, false), (20, true), (45, false), (200, true), (200, false)] {
        let seen = run(besieged(count, truthful, true));
        let what = format!("{count} Sybils, truthful: {truthful}");
        assert_eq!((seen.found, seen.succeeded), (RECORDS, RECORDS as usize), "{what}");
        for region in seen.stores.iter().chain(&seen.searches) {
            let region = region.as_ref().unwrap_or_else(|| panic!("{what}: the size is known"));
            let answered = region.answered as usize;
            assert!(answered > K && answered <= 4 * K, "{what}: the region, not the count: {region:?}");
            assert!(count < 20 || is_alarmed(Some(region)), "{what}: {region:?}");
        }
        for region in seen.stores.iter().flatten() {
            // The honest ones of those within reach: about k, and twice as many where that is more.
            let credible = region.credible as usize;
            assert!(credible >= K / 2 && region.credible <= region.stored, "{what}: {region:?}");
        }
        assert!(seen.shares.iter().all(|share| *share >= 0.8), "{what}: {:?}", seen.shares);
    }
}

/// Sybils that show something else, which the driver tells from the record: no lie ends a search.
#[test]
fn liars_next_to_a_key_end_no_search() {
    for count in [20, 200] {
        let mut scenario = besieged(count, false, true);
        for sybils in &mut scenario.sybils {
            sybils.behaviour = Arc::new(Censor { truthful: false, lies: true });
        }
        let seen = run(scenario);
        assert_eq!((seen.found, seen.succeeded), (RECORDS, RECORDS as usize), "{count} liars");
        assert!(seen.lies >= RECORDS * 20, "{count}: they were asked: {}", seen.lies);
    }
}

/// Two hundred Sybils in the inner half of the region, where ten honest nodes are: more than are stored with or asked. What is
/// spent is spent evenly by sub-region, so nearly all honest nodes of the outermost hold the record. (Spent on the nearest
/// first, less than half of them do.)
#[test]
fn in_a_crowd_denser_than_the_bound_the_outer_parts_hold_the_record() {
    let (mut held, mut all) = (0, 0);
    for seed in 1..5 {
        let mut scenario = besieged(200, false, true);
        scenario.seed = seed;
        for sybils in &mut scenario.sybils {
            sybils.placed = Placement::Plausible { crowd: 20 };
            sybils.groups = 200;
        }
        let seen = run(scenario);
        assert_eq!(seen.found, RECORDS);
        assert!(seen.stores.iter().flatten().all(|region| region.answered as usize <= 4 * K));
        assert!(seen.shares.iter().all(|share| *share > 0.0), "{:?}", seen.shares);
        let (mut held_here, mut all_here) = (0, 0);
        for [.., (held, all)] in seen.parts {
            (held_here, all_here) = (held_here + held, all_here + all);
        }
        assert!(held_here * 2 >= all_here, "seed {seed}: {held_here} of {all_here} in the outermost quarter");
        (held, all) = (held + held_here, all + all_here);
    }
    assert!(all > 80 && held * 4 >= all * 3, "{held} of {all} in the outermost quarter");
}

/// A Sybil that names its accomplices, slowly.
#[derive(Clone, Debug)]
struct Obstacle {
    after: Duration,
}

impl Behaviour for Obstacle {
    fn answer(&self, question: Question<'_>) -> Option<Answer> {
        let closer = question.members.iter().take(question.k).copied().collect();
        Some(Answer { closer, after: self.after, keeps: false, shows: None })
    }
}

fn obstructed(count: u32, after: Duration) -> Scenario {
    let mut scenario = besieged(count, false, true);
    for sybils in &mut scenario.sybils {
        sybils.behaviour = Arc::new(Obstacle { after });
    }
    scenario.known_round_trips = 0;
    scenario
}

#[test]
fn slow_sybils_do_not_keep_a_store_with_a_deadline_from_the_region() {
    for (count, seconds) in [(200, 10), (45, 5)] {
        let mut scenario = obstructed(count, Duration::from_millis(1_900));
        scenario.broadcasts.as_mut().unwrap().deadline = Some(Duration::from_secs(seconds));
        let seen = run(scenario);
        assert_eq!(seen.found, RECORDS, "{count} Sybils, {seconds} s: {:?}", seen.stores);
        let shares: f64 = seen.shares.iter().sum();
        assert!(seconds < 10 || shares >= 1.5, "{:?}", seen.shares);
    }
}

/// Where the nodes of a region are silent there are at most 6k + 8 requests to the nearest, and 4k to others, none once all are
/// 8k + 8: in all 10k + 8 at most. And k stores are repeated. Requests on the way there, and to those beyond who tell of the region,
/// are not bounded so.
#[test]
fn silent_sybils_amplify_a_search_by_no_more_than_is_stated() {
    // On the way there, and beyond the region; and k more, as those who name the silent are doubted: of this seed.
    const OTHERS: usize = 16 + K;
    let mut scenario = besieged(200, false, true);
    scenario.known_round_trips = 0;
    for sybils in &mut scenario.sybils {
        sybils.behaviour = Arc::new(Silent(Arc::default()));
    }
    let seen = run(scenario);
    let may_be = 6 * K + 8..=8 * K + 8 + OTHERS;
    assert!(seen.searched.iter().all(|sent| may_be.contains(&(*sent as usize))), "{:?}", seen.searched);
    assert!(seen.stored.iter().all(|stores| *stores as usize == 5 * K), "{:?}", seen.stored);
    for seed in 1..=6 {
        let (mut scenario, asked) = (besieged(200, false, true), Arc::new(AtomicUsize::new(0)));
        (scenario.seed, scenario.known_round_trips) = (seed, 0);
        for sybils in &mut scenario.sybils {
            sybils.behaviour = Arc::new(Silent(Arc::clone(&asked)));
        }
        let mut world = World::new(scenario).unwrap();
        world.run().unwrap_or_else(|broken| panic!("{broken}"));
        for record in 0..RECORDS {
            for number in 0..20 {
                world.look_up(120 + record, Handle::point(20 * record + number).key());
            }
            world.run().unwrap_or_else(|broken| panic!("{broken}"));
            asked.store(0, Ordering::Relaxed);
            let number = world.search(120 + record, record, 1_000);
            world.run().unwrap_or_else(|broken| panic!("{broken}"));
            // All Sybils are in the region. Honest nodes there are asked besides, and others on the way there.
            let (to_sybils, sent) = (asked.load(Ordering::Relaxed), world.lookups()[number as usize].ending);
            let sent = sent.unwrap().stats.sent as usize;
            assert!((5 * K..=10 * K + 8).contains(&to_sybils), "seed {seed}: {to_sybils} of {sent}");
            assert!((6 * K + 8..=14 * K).contains(&sent), "seed {seed}: {to_sybils} of {sent}");
        }
        let stores: Vec<_> = world.broadcasts().iter().map(|run| run.stores as usize).collect();
        assert!(stores.iter().all(|stores| (4 * K..=5 * K).contains(stores)), "seed {seed}: {stores:?}");
    }
}

/// A Sybil that names its accomplices, but says nothing to the messages of searches; it counts these.
#[derive(Clone, Debug)]
struct Silent(Arc<AtomicUsize>);

impl Behaviour for Silent {
    fn answer(&self, question: Question<'_>) -> Option<Answer> {
        match question.asked {
            AskedFor::Message(_) => {
                self.0.fetch_add(1, Ordering::Relaxed);
                None
            }
            AskedFor::Store(_) => None,
            _ => {
                let closer = question.members.iter().take(question.k).copied().collect();
                Some(Answer { closer, ..Answer::default() })
            }
        }
    }
}

/// All nodes that are 4 to 12 times as far from a record as its region reaches: asked about it, they name only nodes
/// there that do not exist. The others are honest.
#[derive(Debug)]
struct Ring {
    reach: u64,
    keys: Vec<u64>,
    /// By record.
    made_up: Vec<Vec<Handle>>,
    kept: Kept,
}

/// Who keeps what: node and record.
#[derive(Debug, Default)]
struct Kept(Mutex<BTreeSet<(u32, u32)>>);

impl Kept {
    /// An honest node's answer.
    fn answer(&self, question: &Question<'_>) -> Answer {
        let (mut kept, node) = (self.0.lock().unwrap(), question.node.0);
        let shows = match question.asked {
            AskedFor::Message(record) => kept.contains(&(node, record)).then_some(record),
            AskedFor::Store(records) => {
                kept.extend(records.iter().map(|record| (node, *record)));
                None
            }
            _ => None,
        };
        Answer { closer: question.honest.to_vec(), keeps: true, shows, ..Answer::default() }
    }
}

impl Ring {
    fn around(records: &[Handle], nodes: u64) -> Self {
        let reach = u64::MAX / (nodes + 1) * K as u64;
        let keys: Vec<_> = records.iter().map(|record| record.key().leading()).collect();
        let mut made_up = vec![Vec::new(); keys.len()];
        for handle in (0..1 << 17).map(|number: u32| Handle::made_up(number.wrapping_mul(0x9e37_79b1))) {
            for (key, made_up) in keys.iter().zip(&mut made_up) {
                if handle.key().leading() ^ key < reach && made_up.len() < 1_000 {
                    made_up.push(handle);
                }
            }
        }
        Self { reach, keys, made_up, kept: Kept::default() }
    }
}

impl Behaviour for Ring {
    fn answer(&self, question: Question<'_>) -> Option<Answer> {
        let (target, node) = (question.target.leading(), question.node.key().leading());
        for (key, made_up) in self.keys.iter().zip(&self.made_up) {
            let is_about = key ^ target <= self.reach * 4;
            if is_about && (self.reach * 4..self.reach * 12).contains(&(key ^ node)) {
                return Some(Answer::naming(made_up.clone()));
            }
        }
        Some(self.kept.answer(&question))
    }
}

/// The names of those who were asked first use up the requests, and would keep out whom others name.
#[test]
fn who_stand_around_a_region_do_not_hide_it_behind_names_that_they_make_up() {
    let (mut shares, each) = (Vec::new(), 40);
    for seed in 1..=2 {
        let keys: Vec<_> = (0..each).map(|record| 100 * seed + record).collect();
        let records: Vec<_> = keys.iter().map(|key| Handle::point(*key)).collect();
        let mut scenario = scenario(seed.into(), true);
        scenario.check_invariants = false;
        scenario.hostile = vec![Party { share: 1.0, behaviour: Arc::new(Ring::around(&records, 2_000)) }];
        let broadcasts = scenario.broadcasts.as_mut().unwrap();
        (broadcasts.keys, broadcasts.count) = (Some(keys.into()), each);
        let mut world = World::new(scenario).unwrap();
        world.run().unwrap();
        shares.extend(world.broadcasts().iter().map(|broadcast| broadcast.share.unwrap()));
    }
    let elsewhere = shares.iter().filter(|share| **share < 0.05).count();
    let mean = shares.iter().sum::<f64>() / f64::from(2 * each);
    assert!(elsewhere <= 2 && mean >= 0.9, "{elsewhere} of {} are elsewhere, {mean}", shares.len());
}

/// Nodes that the publisher knew before, nearer to the key than all others in its table. They accept what is stored with them and
/// keep nothing, and name so many nodes that do not exist, at such distances, in multiples of what the region reaches.
#[derive(Debug)]
struct Acquaintances {
    liars: Mutex<Vec<Handle>>,
    names: usize,
    at: Range<u64>,
    reach: u64,
    /// In order of their keys.
    made_up: Vec<Handle>,
    kept: Kept,
}

impl Behaviour for Acquaintances {
    fn answer(&self, question: Question<'_>) -> Option<Answer> {
        if !self.liars.lock().unwrap().contains(&question.node) {
            return Some(self.kept.answer(&question));
        }
        let target = question.target.leading();
        let around = (self.at.end * self.reach).next_power_of_two() - 1;
        let range = self.at.start * self.reach..self.at.end * self.reach;
        let of = |key: u64| self.made_up.partition_point(|node| node.key().leading() < key);
        let names: Vec<_> = self.made_up[of(target & !around)..of(target | around)]
            .iter()
            .filter(|node| range.contains(&(node.key().leading() ^ target)))
            .copied()
            .collect();
        let first = usize::try_from((question.node.key().leading() ^ target) % 1_000).unwrap();
        Some(Answer::naming(names.iter().cycle().skip(first).take(self.names).copied().collect()))
    }
}

/// So many stores, where so many of the own table lie: whether they are told to have succeeded, and what share of the k closest that
/// do not lie has the record.
fn among_acquaintances(liars: usize, names: usize, at: &Range<u64>, seeds: u64) -> Vec<(bool, f64)> {
    let nodes = 1_000;
    let mut made_up: Vec<_> = (0..1 << 17).map(|number| Handle::made_up(number * 3)).collect();
    made_up.sort_unstable_by_key(|node| node.key().leading());
    let mut endings = Vec::new();
    for seed in 0..seeds {
        let mut scenario = scenario(seed, true);
        (scenario.nodes, scenario.check_invariants) = (nodes, false);
        let party = Arc::new(Acquaintances {
            liars: Mutex::default(),
            names,
            at: at.clone(),
            reach: u64::MAX / u64::from(nodes + 1) * K as u64,
            made_up: made_up.clone(),
            kept: Kept::default(),
        });
        scenario.hostile = vec![Party { share: 1.0, behaviour: Arc::<Acquaintances>::clone(&party) }];
        let broadcasts = scenario.broadcasts.as_mut().unwrap();
        (broadcasts.count, broadcasts.by, broadcasts.warmup_lookups) = (1, Who::Node(100), 50);
        let mut world = World::new(scenario).unwrap();
        let target = world.record_key(0);
        let liars = world.closest_in_table(world.handle(100), target, liars);
        party.liars.lock().unwrap().clone_from(&liars);
        world.run().unwrap();
        let mut closest: Vec<_> = (0..nodes).map(|index| world.handle(index)).collect();
        closest.sort_unstable_by_key(|node| node.key().distance(&target));
        let honest = || closest.iter().take(K).filter(|node| !liars.contains(node));
        let count = |number: usize| f64::from(u32::try_from(number).unwrap());
        let held = honest().filter(|node| world.holds(**node, 0)).count();
        let share = count(held) / count(honest().count().max(1));
        let stored = &world.broadcasts()[0];
        // Of the few seeds of a debug build, the share of all k closest is held to the same bounds.
        let share = if cfg!(debug_assertions) { stored.share.unwrap() } else { share };
        endings.push((stored.ending.unwrap().succeeded, share));
    }
    endings
}

/// How many of them are told that they have succeeded, and the least share of these.
fn told(stores: &[(bool, f64)]) -> (u64, f64) {
    let told = stores.iter().filter(|(succeeded, _)| *succeeded);
    told.fold((0, 1.0), |(number, least), (_, share)| (number + 1, share.min(least)))
}

/// How many stores are tried.
const STORES: u64 = if cfg!(debug_assertions) { 12 } else { 60 };

/// The others are asked about blocks of their own as soon as somebody has told of the target, so nobody else would tell of it.
#[test]
fn a_few_liars_in_the_own_table_do_not_keep_the_others_from_telling_of_the_target() {
    let (told, least) = told(&among_acquaintances(10, 10, &(1..3), STORES));
    assert!(told >= STORES * 2 / 3 && least >= 0.4, "{told} of {STORES} are told, {least}");
}

/// The nodes that they make up are nearer than all others, and would use up the requests before anybody else is asked. Those that many
/// silent ones were named by are asked last.
#[test]
fn liars_in_the_own_table_do_not_use_up_the_requests_with_names_within_the_region() {
    for liars in [4, 14] {
        let (told, least) = told(&among_acquaintances(liars, 20, &(0..1), STORES));
        assert!(told >= STORES * 7 / 8 && least >= 0.4, "{liars}: {told} of {STORES} are told, {least}");
    }
}

/// As many as k: everybody whom the store begins with lies. Further nodes of the table tell of others.
#[test]
fn liars_in_the_own_table_who_are_all_that_a_store_begins_with_do_not_keep_it_from_others() {
    let all = among_acquaintances(K, 20, &(0..1), STORES);
    let found = all.iter().filter(|(_, share)| *share >= 0.4).count() as u64;
    assert!(found >= STORES * 3 / 4, "{found} of {STORES}: {all:?}");
}

/// What an optimistic broadcast has stored by guess takes nothing from what it stores in the region.
#[test]
fn a_hint_that_is_too_small_hides_nothing_among_sybils() {
    let mut scenario = besieged(20, false, true);
    scenario.broadcasts.as_mut().unwrap().scheme = Scheme::Optimistic { nodes: Some(20) };
    let seen = run(scenario);
    assert_eq!(seen.found, RECORDS, "{:?}", seen.shares);
    assert!(seen.shares.iter().all(|share| *share >= 0.8), "{:?}", seen.shares);
}

/// Four Sybils for each honest node, everywhere in the region: hardly anything shows that enough of the honest have the record.
#[test]
fn success_is_not_told_of_what_a_crowd_has_stored() {
    let mut scenario = besieged(200, false, true);
    for sybils in &mut scenario.sybils {
        sybils.placed = Placement::Plausible { crowd: 4 };
    }
    let seen = run(scenario);
    assert!(seen.stores.iter().flatten().all(|region| region.stored as usize > 3 * K), "{:?}", seen.stores);
    assert!(seen.succeeded <= 1, "{:?}", seen.stores);
}

#[test]
fn with_the_k_closest_alone_they_hide_all() {
    let seen = run(besieged(20, false, false));
    assert_eq!(seen.found, 0, "twenty Sybils take every place");
    assert!(seen.stores.iter().chain(&seen.searches).all(Option::is_none), "and nobody says so");
}

#[test]
fn with_nobody_lying_the_region_costs_little_for_every_k() {
    for k in [3, 8, 20] {
        let of = |seed, regions| {
            let mut scenario = scenario(seed, regions);
            (scenario.k, scenario.config.query.k) = (k, k);
            let seen = run(scenario);
            [seen.requests.iter().sum::<u32>(), seen.searched.iter().sum()]
        };
        let (mut plain, mut in_region) = ([0, 0], [0, 0]);
        let is_within = |most, [plain, in_region]: [[u32; 2]; 2]| {
            plain.iter().zip(in_region).all(|(plain, in_region)| in_region * 100 <= plain * most)
        };
        for seed in 1..=4 {
            let of_seed = [of(seed, false), of(seed, true)];
            assert!(is_within(150, of_seed), "k {k}, seed {seed}: without regions and with: {of_seed:?}");
            let add = |sums: &mut [u32; 2], more: [u32; 2]| {
                sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
            };
            add(&mut plain, of_seed[0]);
            add(&mut in_region, of_seed[1]);
        }
        assert!(is_within(120, [plain, in_region]), "k {k}: {in_region:?} with regions, {plain:?} without");
    }
}

#[test]
fn an_honest_region_is_reported_as_it_is() {
    let in_region = run(scenario(1, true));
    assert_eq!((in_region.found, in_region.succeeded), (RECORDS, RECORDS as usize));
    for region in in_region.stores.iter().chain(&in_region.searches) {
        let region = region.as_ref().unwrap();
        assert!(!is_alarmed(Some(region)) && region.basis == SizeBasis::Estimate, "{region:?}");
        assert!(region.nodes.abs_diff(2_000) < 600, "{region:?}");
    }
}

/// It stores with nodes before they have answered, so that few have when it returns.
#[test]
fn an_optimistic_broadcast_in_an_honest_region_is_told_to_succeed() {
    let mut scenario = scenario(1, true);
    scenario.broadcasts.as_mut().unwrap().scheme = Scheme::Optimistic { nodes: None };
    let seen = run(scenario);
    assert_eq!((seen.found, seen.succeeded), (RECORDS, RECORDS as usize), "{:?}", seen.stores);
}

#[test]
fn without_an_estimate_the_own_table_shows_the_size() {
    let mut scenario = besieged(45, false, true);
    scenario.config.network_size = None;
    let seen = run(scenario);
    assert_eq!(seen.found, RECORDS);
    for region in seen.stores.iter().chain(&seen.searches) {
        let region = region.as_ref().unwrap();
        assert!(region.basis == SizeBasis::Table && (800..5_000).contains(&region.nodes), "{region:?}");
    }
}

/// Sybils next to a record may stand next to its publisher, too, so that its table looks far denser than the network is.
#[test]
fn a_table_among_sybils_does_not_make_the_region_small() {
    let mut scenario = besieged(20, true, true);
    (scenario.seed, scenario.known_round_trips) = (1_000, 0);
    let broadcasts = scenario.broadcasts.as_mut().unwrap();
    (broadcasts.count, broadcasts.warmup_lookups) = (8, 50);
    broadcasts.by = Who::Nodes((100..120).collect());
    let near = |record| Sybils { near: Place::Record(record), ..scenario.sybils[0].clone() };
    scenario.sybils = (0..8).map(near).collect();
    let mut world = World::new(scenario).unwrap();
    world.run().unwrap_or_else(|broken| panic!("{broken}"));
    for run in world.broadcasts() {
        let region = run.ending.unwrap().region.unwrap();
        assert!(region.nodes < 4_000 && run.share.unwrap() > 0.5, "{run:?}");
    }
}
