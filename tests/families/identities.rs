//! Who a node is and where it can be reached: addresses that move, claimants of ids, hearsay; clients, nodes that are
//! gone or banned; changes of this node's id and policy.

use crate::bep5::{Bep5, Contact};
use crate::figures::{Spread, size};
use crate::libp2p::{Asked, Libp2p, MAX_ADDRESSES, Peer, Preimages, Reach};
use crate::maintained::{Kind, bep5, discv5, libp2p};
use crate::network::{Link, Network, Random, Wire};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::{
    Config, Coordinator, Family, Initiator, Instant, Key, Machine, NetworkConfig, Outcome, Request, Response,
    RoutingConfig, RoutingInbound, RoutingOutbound, Secret, Stamped, Start, Target,
};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const NODES: usize = size(30, 60);
const SEEDS: u64 = size(2, 8);

fn address(number: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(0x2000_0000 | number << 8), 7000)
}

/// One engine, by hand.
struct One<F: Wire> {
    engine: Coordinator<F>,
    now: Instant,
    random: Random,
}

impl<F: Wire> One<F> {
    fn new(kind: &Kind<F>, config: Config) -> Self {
        let mut random = Random(7);
        let local = F::target_of(&(kind.node)(&mut random)).unwrap();
        let engine = Coordinator::new(local, config, &Secret::from_seed(7)).unwrap();
        Self { engine: engine.with_family(kind.family.clone()), now: Instant::ORIGIN, random }
    }

    fn submit(&mut self, event: impl Into<Inbound<F>>) -> Vec<Outbound<F>> {
        let out = self.engine.handle(self.now, Stamped::new(event.into()));
        out.into_iter().map(|out| out.event).collect()
    }

    fn wait(&mut self, time: Duration) -> Vec<Outbound<F>> {
        self.now = self.now + time;
        self.submit(Inbound::Tick)
    }

    fn connect(&mut self, node: &F::Node) -> Vec<Outbound<F>> {
        self.submit(RoutingInbound::Connected { node: node.clone(), round_trip: None })
    }

    fn holds(&self, node: &F::Node) -> bool {
        self.engine.table().get(node).is_some()
    }
}

fn requests<F: Wire>(out: &[Outbound<F>]) -> Vec<Request<F>> {
    let request = |out: &Outbound<F>| match out {
        Outbound::Request(request) => Some(request.clone()),
        _ => None,
    };
    out.iter().filter_map(request).collect()
}

// Addresses that move.

/// A node moves, and asks its neighbours from its new address. The share of those it asked that know the new one at
/// once, and of all tables that held it that hold it still after some time.
fn moves<F: Wire>(kind: &Kind<F>, seed: u64) -> (f64, f64) {
    let mut network = kind.network(seed, NODES, 0.0);
    let mover = network.random.below(NODES);
    let node = network.hosts[mover].node.clone();
    let held = |network: &Network<F>| {
        (0..NODES).filter(|host| *host != mover && network.hosts[*host].knows(&node)).collect::<Vec<_>>()
    };
    let before = held(&network);
    assert!(before.len() > 10, "{}", before.len());
    network.move_to(mover, address(seed as u32));
    let new = F::addresses(&network.hosts[mover].node);
    network.hosts.iter_mut().for_each(|host| host.log = Some(Vec::new()));
    let began = network.now;
    let own = F::target_of(&node).unwrap();
    network.lookup(mover, own.clone());
    network.run_for(S);
    let log = network.hosts[mover].log.take().unwrap();
    let asked = |node: &F::Node| {
        log.iter().any(|(_, out)| matches!(out, Outbound::Request(request) if request.node == *node))
    };
    let told: Vec<_> = before.iter().copied().filter(|host| asked(&network.hosts[*host].node)).collect();
    let knows = |host: &&usize| {
        let updated = network.hosts[**host].log.iter().flatten().find_map(|(at, out)| match out {
            Outbound::Routing(RoutingOutbound::Updated(updated)) if *updated == node => Some((*at, updated)),
            _ => None,
        });
        updated.is_some_and(|(at, updated)| F::addresses(updated) == new && at - began <= S)
    };
    let at_once = told.iter().filter(knows).count() as f64 / told.len() as f64;
    // The next request of one who was told goes to the new address, and is answered.
    for host in &told[..3] {
        network.hosts[*host].log = Some(Vec::new());
        let finish = network.lookup(*host, own.clone());
        assert!(finish.closest[0].node == node, "{}: it is found", kind.name);
        let log = network.hosts[*host].log.take().unwrap();
        let to_it = log.iter().find_map(|(_, out)| match out {
            Outbound::Request(request) if request.node == node => Some(F::addresses(&request.node)),
            _ => None,
        });
        assert_eq!(to_it, Some(new.clone()), "{}", kind.name);
    }
    network.run_for(size(20, 40) * MINUTE);
    (at_once, held(&network).len() as f64 / before.len() as f64)
}

fn proved_moves<F: Wire>(kind: &Kind<F>) {
    let all: Vec<_> = (1..=SEEDS).map(|seed| moves(kind, seed)).collect();
    let (at_once, kept): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let at_once =
        Spread::of(&at_once).print(&format!("{}, a move is known at once by those asked", kind.name));
    let kept =
        Spread::of(&kept).print(&format!("{}, tables that hold the mover half an hour later", kind.name));
    assert!(at_once.min == 1.0 && kept.mean >= 0.9, "{at_once} {kept}");
}

#[test]
fn a_peer_of_libp2p_moves() {
    proved_moves(&libp2p(Libp2p::with_table(12).preimages));
}

#[test]
fn a_node_of_discv5_moves() {
    proved_moves(&discv5());
}

// Claimants.

/// Somebody claims the id of a living node of BEP 5, and asks from another address once a minute.
struct Claim {
    network: Network<Bep5>,
    victim: usize,
    claimant: usize,
    before: Vec<usize>,
}

impl Claim {
    fn new(seed: u64, loss: f64) -> Self {
        let kind = bep5();
        let mut network = kind.network(seed, NODES, loss);
        let victim = network.random.below(NODES);
        let node = network.hosts[victim].node.clone();
        // Where the bucket is full, any other node may take a place that becomes free.
        let has_room = |host: &usize| {
            let table = network.hosts[*host].engine().table();
            table.bucket(table.local().common_prefix_len(&node.id)).len() < Bep5::BUCKET
        };
        let knows = |host: &usize| *host != victim && network.hosts[*host].knows(&node);
        let before: Vec<_> = (0..NODES).filter(knows).filter(has_room).collect();
        let claimant = kind.join(&mut network, Contact { address: address(1), ..node }, true);
        Self { network, victim, claimant, before }
    }

    /// The claimant asks everybody once a minute.
    fn ask(&mut self, minutes: u32) {
        for _ in 0..minutes {
            let node = self.network.hosts[self.claimant].node.clone();
            for host in self.before.clone() {
                self.network.submit(host, Inbound::Routing(RoutingInbound::Discovered(node.clone())));
            }
            self.network.run_for(MINUTE);
        }
    }

    fn share_that_know(&self, host: usize) -> f64 {
        let node = &self.network.hosts[host].node;
        let know = self.before.iter().filter(|other| self.network.hosts[**other].knows(node)).count();
        know as f64 / self.before.len() as f64
    }
}

#[test]
fn a_claimant_replaces_a_node_of_bep_5_only_once_that_is_silent() {
    let (mut kept, mut replaced) = (Vec::new(), Vec::new());
    for seed in 1..=SEEDS {
        let mut claim = Claim::new(seed, 0.0);
        claim.ask(40);
        assert_eq!(claim.share_that_know(claim.claimant), 0.0, "seed {seed}: nobody takes the claimant");
        kept.push(claim.share_that_know(claim.victim));
        claim.network.kill(claim.victim);
        claim.ask(20);
        assert_eq!(claim.share_that_know(claim.victim), 0.0, "seed {seed}: the dead leave the tables");
        replaced.push(claim.share_that_know(claim.claimant));
    }
    let kept = Spread::of(&kept).print("BEP 5, tables that keep a living node whose id is claimed");
    let replaced = Spread::of(&replaced).print("BEP 5, tables that take the claimant once it is dead");
    assert!(kept.min == 1.0 && replaced.mean >= 0.95, "{kept} {replaced}");
}

/// A living node loses its place only if four checks in a row are lost: 3 of a million, where 2 % of all messages are. The
/// claimant causes one check a minute.
#[test]
fn a_claimant_gains_next_to_nothing_from_lost_messages() {
    let mut taken = Vec::new();
    let kept = Spread::over(1..=SEEDS, |seed| {
        let mut claim = Claim::new(seed, 0.02);
        claim.ask(size(120, 600));
        taken.push(claim.share_that_know(claim.claimant));
        claim.share_that_know(claim.victim)
    });
    kept.print("BEP 5, 2 % lost, tables that keep a living node whose id is claimed for hours");
    let taken = Spread::of(&taken).print("BEP 5, 2 % lost, tables that take the claimant");
    assert!(kept.mean >= 0.95 && taken.mean <= size(0.02, 0.05), "{kept} {taken}");
}

/// A node of BEP 5 has another address, and its old one is silent: it asks once a minute.
#[test]
fn a_node_of_bep_5_moves() {
    let waits = Spread::over(1..=SEEDS, |seed| {
        let mut claim = Claim::new(seed, 0.0);
        claim.network.kill(claim.victim);
        let mut minutes = 0;
        while claim.share_that_know(claim.claimant) < 0.9 && minutes < 60 {
            claim.ask(1);
            minutes += 1;
        }
        f64::from(minutes)
    });
    waits.print("BEP 5, minutes until 0.9 of the tables know the new address");
    assert!(waits.mean <= 20.0, "{waits}");
}

/// Of two who claim one id on a wire that does not prove it, the one that answers is asked: another identity at an
/// address that is remembered is reported as gone.
#[test]
fn another_id_at_the_address_is_no_answer() {
    let kind = bep5();
    let mut network = kind.network(3, NODES, 0.0);
    let (old, new) = (network.hosts[5].node.clone(), (kind.node)(&mut network.random));
    let holders: Vec<_> = (0..NODES).filter(|host| network.hosts[*host].knows(&old)).collect();
    // The program there starts again with another id.
    network.hosts[5].node = Contact { id: new.id, ..old.clone() };
    network.submit(5, Inbound::Routing(RoutingInbound::Identity(new.id)));
    for holder in &holders {
        network.lookup(*holder, old.id);
        assert!(!network.hosts[*holder].knows(&old), "it left with the first answer");
    }
    network.run_for(MINUTE);
    let node = &network.hosts[5].node;
    let knows = (0..NODES).filter(|host| network.hosts[*host].knows(node)).count();
    assert!(knows * 2 > holders.len(), "and is known by its new id: {knows} of {}", holders.len());
}

// Hearsay.

#[test]
fn hearsay_does_not_displace_the_own_word() {
    let kind = libp2p(Preimages::None);
    let mut one = One::new(&kind, Config { routing: RoutingConfig::off(), ..Config::default() });
    let (liar, honest) = (Peer::random(&mut one.random), Peer::random(&mut one.random));
    let own = honest.addresses[0];
    one.connect(&liar);
    one.connect(&honest);
    for round in 0..4 {
        let target = Asked::random(&mut one.random);
        let out = one.submit(Start::find(round, target));
        let asked = requests(&out).into_iter().find(|request| request.node == liar).unwrap();
        let bogus = (0..8).map(|number| address(100 * round as u32 + number)).collect();
        one.submit(Response::answered(asked.id, vec![Peer { addresses: bogus, ..honest.clone() }]));
        let id = one.engine.operation(round).unwrap();
        one.submit(Inbound::Stop(id));
        let known = &one.engine.table().get(&honest).unwrap().node().addresses;
        assert!(known[0] == own && known.len() <= MAX_ADDRESSES, "{known:?}");
    }
    // Its own word replaces what others have told.
    let moved = Libp2p::moved(&honest, address(9_999));
    let out = one.submit(RoutingInbound::Discovered(moved.clone()));
    let updated = |out: &Outbound<Libp2p>| matches!(out, Outbound::Routing(RoutingOutbound::Updated(node)) if node.addresses == moved.addresses);
    assert!(out.iter().any(updated), "{out:?}");
    assert_eq!(one.engine.table().get(&honest).unwrap().node().addresses, moved.addresses);
}

/// A lookup hears of a node at an address where it is not, asks in vain, and then hears where it is.
#[test]
fn a_bogus_address_does_not_rule_a_node_out() {
    let kind = libp2p(Preimages::None);
    let mut one = One::new(&kind, Config { routing: RoutingConfig::off(), ..Config::default() });
    let (liar, honest) = (Peer::random(&mut one.random), Peer::random(&mut one.random));
    let wanted = Peer::random(&mut one.random);
    let target = Libp2p::target_of(&wanted).unwrap();
    let out = one.submit(Start::find(1, target).with_seeds(vec![liar.clone(), honest.clone()]));
    let ask = |node: &Peer, out: &[Outbound<Libp2p>]| {
        requests(out).into_iter().find(|request| request.node == *node)
    };
    let (to_liar, to_honest) = (ask(&liar, &out).unwrap(), ask(&honest, &out).unwrap());
    let bogus = Peer { addresses: vec![address(1)], ..wanted.clone() };
    let out = one.submit(Response::answered(to_liar.id, vec![bogus]));
    let in_vain = ask(&wanted, &out).expect("it is asked at the bogus address");
    one.submit(Response::unreachable(in_vain.id));
    let out = one.submit(Response::answered(to_honest.id, vec![wanted.clone()]));
    let again = ask(&wanted, &out).expect("it is asked again, as there is news of it");
    assert!(again.node.addresses.contains(&wanted.addresses[0]));
    let out = one.submit(Response::answered(again.id, vec![]));
    let found =
        out.iter().any(|out| matches!(out, Outbound::Finished(finish) if finish.closest[0].node == wanted));
    assert!(found, "{out:?}");
}

// Clients and servers.

#[test]
fn a_client_that_serves_again_is_taken_back() {
    for kind in [libp2p(Preimages::None)] {
        let mut one = One::new(&kind, Config::default());
        let (node, other) = (Peer::random(&mut one.random), Peer::random(&mut one.random));
        one.connect(&node);
        one.connect(&other);
        let by_answering = [false, true];
        for by_answering in by_answering {
            assert!(one.holds(&node));
            one.submit(RoutingInbound::Client(node.clone()));
            assert!(!one.holds(&node));
            one.connect(&node);
            let out = one.submit(RoutingInbound::Discovered(node.clone()));
            assert!(!one.holds(&node) && requests(&out).iter().all(|request| request.node != node));
            let request = if by_answering {
                // A lookup asks it, as others name it.
                let out = one
                    .submit(Start::find(1, Libp2p::target_of(&node).unwrap()).with_seeds(vec![node.clone()]));
                requests(&out).into_iter().find(|request| request.node == node).unwrap()
            } else {
                let out = one.submit(RoutingInbound::Server(node.clone()));
                requests(&out).into_iter().find(|request| request.node == node).unwrap()
            };
            let out = one.submit(Response::answered(request.id, vec![other.clone()]));
            let admitted = |out: &Outbound<_>| matches!(out, Outbound::Routing(RoutingOutbound::Admitted(admitted)) if *admitted == node);
            assert!(out.iter().any(admitted), "{by_answering}: {out:?}");
        }
    }
}

// Gone and banned.

#[test]
fn who_is_gone_leaves_at_once_and_may_come_back() {
    let kind = discv5();
    let mut one = One::new(&kind, Config::default());
    let (node, other) = ((kind.node)(&mut one.random), (kind.node)(&mut one.random));
    one.connect(&node);
    one.connect(&other);
    let out = one.submit(RoutingInbound::Gone(node.clone()));
    assert!(
        !one.holds(&node) && requests(&out).iter().all(|request| request.node != node),
        "it is not checked"
    );
    let out = one.submit(RoutingInbound::Discovered(node.clone()));
    let check = requests(&out).into_iter().find(|request| request.node == node).expect("a check");
    assert_eq!(check.initiator, Initiator::Include);
    one.submit(Response::answered(check.id, vec![other]));
    assert!(one.holds(&node));
}

#[test]
fn who_is_banned_is_neither_asked_nor_admitted() {
    let kind = bep5();
    let network = NetworkConfig { max_in_flight: 1, ..NetworkConfig::default() };
    let routing = RoutingConfig { include: RoutingConfig::default().include, ..RoutingConfig::off() };
    let mut one = One::new(&kind, Config { network, routing, ..Config::default() });
    let nodes: Vec<_> = (0..3).map(|_| (kind.node)(&mut one.random)).collect();
    nodes.iter().for_each(|node| {
        one.connect(node);
    });
    let target = one.random.key();
    let out = one.submit(Start::find(1, target));
    let asked = requests(&out);
    assert_eq!(asked.len(), 1, "the others wait");
    let banned = nodes.iter().find(|node| **node != asked[0].node).unwrap().clone();
    let ban = |duration| RoutingInbound::Banned { node: banned.clone(), duration };
    let out = one.submit(ban(10 * MINUTE));
    assert!(!one.holds(&banned) && out.iter().any(|out| matches!(out, Outbound::Routing(_))));
    // The lookup goes on without it: of three nodes two are asked.
    let mut out = one.submit(Response::answered(asked[0].id, vec![banned.clone()]));
    let mut named = vec![asked[0].node.clone()];
    while let Some(request) = requests(&out).first() {
        named.push(request.node.clone());
        out = one.submit(Response::answered(request.id, vec![banned.clone()]));
    }
    let mut in_lookup = named.clone();
    in_lookup.retain(|node| *node == banned);
    assert!(in_lookup.is_empty(), "{named:?}");
    assert_eq!(one.engine.operations(), 0, "it has ended");
    // Nor is it checked or admitted, until the time has passed.
    one.wait(S);
    let refused = |one: &mut One<Bep5>| {
        one.connect(&banned);
        let out = one.submit(RoutingInbound::Discovered(banned.clone()));
        requests(&out).iter().all(|request| request.node != banned) && !one.holds(&banned)
    };
    assert!(refused(&mut one));
    one.now = one.now + 10 * MINUTE;
    one.connect(&banned);
    assert!(one.holds(&banned), "the ban is over");
    one.submit(ban(10 * MINUTE));
    assert!(refused(&mut one));
    one.submit(ban(Duration::ZERO));
    one.connect(&banned);
    assert!(one.holds(&banned), "the ban is lifted");
}

// Changes of this node.

#[test]
fn a_change_of_policy_removes_nodes() {
    let kind = libp2p(Preimages::None);
    let mut one = One::new(&kind, Config::default());
    let private = |number| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, number), 4001);
    let mut nodes: Vec<_> = (0..12).map(|_| Peer::random(&mut one.random)).collect();
    nodes[..6].iter_mut().enumerate().for_each(|(at, node)| node.addresses = vec![private(at as u8)]);
    nodes[5].addresses.push(address(5));
    nodes.iter().for_each(|node| {
        one.connect(node);
    });
    assert_eq!(one.engine.table().len(), 12);
    let wan = Libp2p { reach: Reach::Wan, ..kind.family.clone() };
    let out = one.submit(RoutingInbound::Family(wan.clone()));
    let removed =
        out.iter().filter(|out| matches!(out, Outbound::Routing(RoutingOutbound::Removed(_)))).count();
    assert_eq!((removed, one.engine.table().len()), (5, 7), "one of the six has a public address too");
    // Nodes that are not admitted do not come back, neither as candidates of the table nor of a lookup.
    let target = Libp2p::target_of(&nodes[0]).unwrap();
    let out = one.submit(Start::find(1, target));
    let asked = requests(&out);
    let out = one.submit(Response::answered(asked[0].id, nodes.clone()));
    assert!(requests(&out).iter().all(|request| wan.admits(&request.node)), "{out:?}");
    one.connect(&nodes[0]);
    assert!(!one.holds(&nodes[0]));
    one.submit(RoutingInbound::Family(kind.family.clone()));
    one.connect(&nodes[0]);
    assert!(one.holds(&nodes[0]), "the policy is the old one again");
}

/// A node takes another id in the middle of its work.
fn another_id<F: Wire>(kind: &Kind<F>) {
    let (mut shares, mut known) = (Vec::new(), Vec::new());
    // With two seeds, that is with eight lookups, a single one that misses three nodes decides.
    for seed in 1..=SEEDS.max(5) {
        let mut network = kind.network(seed, 2 * NODES, 0.0);
        let host = network.random.below(NODES);
        let old = network.hosts[host].node.clone();
        let table = |network: &Network<F>| {
            network.hosts[host].engine().table().iter().map(|entry| entry.node().clone()).collect::<Vec<_>>()
        };
        let before = table(&network);
        network.hosts[host].finishes.clear();
        // Lookups that live meanwhile.
        for _ in 0..4 {
            let target = (kind.target)(&mut network.random);
            network.start_lookup(host, target, Vec::new());
        }
        network.run_for(Duration::from_millis(30));
        network.hosts[host].log = Some(Vec::new());
        let new = (kind.node)(&mut network.random);
        let own = F::target_of(&new).unwrap();
        let to = F::addresses(&network.hosts[host].node)[0];
        network.hosts[host].node = F::moved(&new, to);
        network.submit(host, Inbound::Routing(RoutingInbound::Identity(own.clone())));
        // Nothing is lost that fits.
        let after = table(&network);
        let engine = network.hosts[host].engine();
        for lost in before.iter().filter(|node| !after.contains(node)) {
            let bucket = engine.table().bucket(engine.table().local().common_prefix_len(&F::key(lost)));
            assert!(bucket.len() >= F::BUCKET, "{}: there was room for {lost:?}", kind.name);
        }
        assert_eq!(engine.table().local(), own.key());
        let log = network.hosts[host].log.clone().unwrap();
        let is_bootstrap = |out: &Outbound<F>| matches!(out, Outbound::Request(request) if request.initiator == Initiator::Bootstrap);
        assert!(log.iter().any(|(_, out)| is_bootstrap(out)), "{}: a bootstrap begins at once", kind.name);
        network.run_operations();
        let finishes = core::mem::take(&mut network.hosts[host].finishes);
        assert_eq!(finishes.len(), 4);
        for finish in finishes {
            assert_eq!(finish.outcome, Outcome::Converged);
            let (found, all) = network.found(host, &finish, kind.k);
            shares.push(found as f64 / all as f64);
        }
        network.run_for(2 * MINUTE);
        let log = network.hosts[host].log.take().unwrap();
        // Operations that live do not ask the old id, and what begins later does not ask the new one.
        for request in log.iter().flat_map(|(_, out)| requests(core::slice::from_ref(out))) {
            let is_operation = request.initiator.operation().is_some();
            let own = if is_operation { &old } else { &network.hosts[host].node };
            assert!(F::key(&request.node) != F::key(own), "{}: {request:?}", kind.name);
        }
        // The others find it by its new id.
        let by = network.closest(own.key(), kind.k, host);
        known.push(
            by.iter().filter(|by| network.hosts[**by].knows(&network.hosts[host].node)).count() as f64
                / by.len() as f64,
        );
    }
    let shares = Spread::of(&shares).print(&format!("{}, lookups during a change of the own id", kind.name));
    let known = Spread::of(&known).print(&format!("{}, new neighbours that know the new id", kind.name));
    assert!(shares.mean >= 0.98 && known.mean >= 0.95, "{shares} {known}");
}

#[test]
fn this_node_takes_another_id() {
    another_id(&libp2p(Libp2p::with_table(12).preimages));
    another_id(&discv5());
    another_id(&bep5());
}

// Two networks in one process.

#[test]
fn lan_and_wan_stay_apart() {
    let shares = Spread::over(1..=SEEDS, |seed| {
        let mut network = Network::<Libp2p>::new(seed, Link::default());
        let mut all = Vec::new();
        for number in 0..NODES as u8 {
            let (private, public) =
                (SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, number), 4001), address(u32::from(number)));
            let id = network.random.next();
            // A third of the processes is in the LAN alone, a third in the WAN; a third has two engines, each of which
            // tells all addresses of its process.
            let (reaches, addresses): (&[Reach], _) = match number % 3 {
                0 => (&[Reach::Lan], vec![private]),
                1 => (&[Reach::Wan], vec![public]),
                _ => (&[Reach::Lan, Reach::Wan], vec![private, public]),
            };
            let known: Vec<_> = (0..network.hosts.len()).collect();
            for reach in reaches {
                let family = Libp2p { reach: *reach, ..Libp2p::with_table(12) };
                let host = network.add_engine(Peer::new(id, addresses.clone()), family, Config::default());
                all.push((host, *reach));
                // Its own addresses in its network lead to it, and not to the other engine of the process.
                for address in addresses.iter().filter(|address| reach.fits(address)) {
                    network.serve_at(host, *address);
                }
                // Anybody may be among the seeds.
                network.join(host, &known[known.len().saturating_sub(6)..]);
            }
            network.run_for(S);
        }
        network.run_for(4 * MINUTE);
        let (mut found, mut of) = (0, 0);
        for (host, reach) in all.clone() {
            let admits = Libp2p { reach, ..Libp2p::default() };
            let table = network.hosts[host].engine().table();
            assert!(table.iter().all(|entry| admits.admits(entry.node())), "{reach:?}");
            let key = Libp2p::key(&network.hosts[host].node);
            let mut truth: Vec<_> = all.iter().filter(|(other, of)| *other != host && *of == reach).collect();
            truth.sort_by_key(|(other, _)| Libp2p::key(&network.hosts[*other].node).distance(&key));
            truth.truncate(20);
            of += truth.len();
            found += truth
                .iter()
                .filter(|(other, _)| network.hosts[host].knows(&network.hosts[*other].node))
                .count();
        }
        f64::from(found as u32) / of as f64
    });
    shares.print("libp2p, LAN and WAN, tables");
    assert!(shares.mean >= 0.98, "{shares}");
}
