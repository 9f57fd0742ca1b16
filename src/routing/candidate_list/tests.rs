//! Tests of the queue of candidates: whom it has room for, who goes first, and when.

use crate::routing::include::{Inbound, Outbound};
use crate::vocabulary::time::earlier;
use crate::{
    Config, Coordinator, Family, Group, Include, IncludeConfig, Initiator, Instant, Key8, Machine,
    NetworkConfig, ProbeConfig, RequestId, Response, RoutingConfig, RoutingInbound, RoutingOutbound, Secret,
    Stamped, TableConfig, coordinator,
};
use core::time::Duration;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);
const LOCAL: Key8 = Key8::new([0xff]);

/// A key and an address: identity is not proved. From 256 on, the address says the group.
#[derive(Clone, Debug, Default, PartialEq)]
struct Claimed;

type Node = (u8, u16);

impl Family for Claimed {
    type Key = Key8;
    type Target = Key8;
    type Node = Node;
    type Message = ();

    fn key(node: &Node) -> Key8 {
        Key8::new([node.0])
    }

    fn group(node: &Node) -> Option<Group> {
        (node.1 >= 256).then_some(Group(u64::from(node.1 >> 8)))
    }
}

/// Time-outs are not adapted: a soft limit of 1 s, a time-out of 2 s.
fn network() -> NetworkConfig {
    NetworkConfig { request_timeout: 2 * S, soft_timeout: S, min_timeout: 2 * S, ..NetworkConfig::default() }
}

/// A machine with checks, and what it did. Nodes at address 1 answer after 50 ms, others never.
struct Checked<M> {
    machine: M,
    now: Instant,
    asked: Vec<(Instant, Initiator, Node)>,
    open: Vec<(Instant, RequestId)>,
    passed: Vec<Node>,
    rejected: Vec<Node>,
    removed: Vec<(Instant, Node)>,
    /// The node that answers name: this one itself, unless said otherwise.
    names: Node,
}

type Queue = Checked<Include<Claimed>>;
type Whole = Checked<Coordinator<Claimed>>;

/// The parts of a machine that the tests use.
trait Checks: Machine {
    fn answer(id: RequestId, names: Node) -> Self::Inbound;
    fn tick() -> Self::Inbound;
    fn take(event: Self::Outbound, into: &mut Checked<Self>)
    where
        Self: Sized;
}

impl Checks for Include<Claimed> {
    fn answer(id: RequestId, names: Node) -> Self::Inbound {
        Response::answered(id, vec![names]).into()
    }

    fn tick() -> Self::Inbound {
        Inbound::Tick
    }

    fn take(event: Self::Outbound, into: &mut Checked<Self>) {
        match event {
            Outbound::Request(request) => into.asks(request.id, request.initiator, request.node),
            Outbound::Passed { node, .. } => into.passed.push(node),
            Outbound::Rejected(node) => into.rejected.push(node),
            Outbound::Cancel(_) => {}
        }
    }
}

impl Checks for Coordinator<Claimed> {
    fn answer(id: RequestId, names: Node) -> Self::Inbound {
        Response::answered(id, vec![names]).into()
    }

    fn tick() -> Self::Inbound {
        coordinator::Inbound::Tick
    }

    fn take(event: Self::Outbound, into: &mut Checked<Self>) {
        match event {
            coordinator::Outbound::Request(request) => {
                into.asks(request.id, request.initiator, request.node);
            }
            coordinator::Outbound::Routing(RoutingOutbound::Admitted(node)) => into.passed.push(node),
            coordinator::Outbound::Routing(RoutingOutbound::Removed(node)) => {
                into.removed.push((into.now, node));
            }
            _ => {}
        }
    }
}

impl<M: Checks> Checked<M> {
    fn of(machine: M) -> Self {
        let (asked, open, passed, rejected, removed) = Default::default();
        let (now, names) = (Instant::ORIGIN, (0xff, 0));
        Self { machine, now, asked, open, passed, rejected, removed, names }
    }

    fn asks(&mut self, id: RequestId, initiator: Initiator, node: Node) {
        self.asked.push((self.now, initiator, node));
        if node.1 == 1 {
            self.open.push((self.now + 50 * MS, id));
        }
    }

    fn submit(&mut self, event: impl Into<M::Inbound>) {
        for stamped in self.machine.handle(self.now, Stamped::new(event.into())) {
            M::take(stamped.event, self);
        }
    }

    /// Time passes: the machine is woken when it wants to be, and not otherwise.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let answer = self.open.first().map(|(at, _)| *at);
            let Some(next) = earlier(answer, self.machine.poll_timeout()).filter(|at| *at <= end) else {
                break;
            };
            assert!(next >= self.now);
            self.now = next;
            if answer == Some(next) {
                let (_, id) = self.open.remove(0);
                self.submit(M::answer(id, self.names));
            } else {
                self.submit(M::tick());
            }
        }
        self.now = end;
    }

    /// The nodes asked so far.
    fn nodes(&self) -> Vec<Node> {
        self.asked.iter().map(|(.., node)| *node).collect()
    }

    /// The most that were asked within a second.
    fn most_in_a_second(&self) -> usize {
        let within = |from: Instant| {
            let others = self.asked.iter().filter(|(at, ..)| *at >= from && *at < from + S);
            others.count()
        };
        self.asked.iter().map(|(at, ..)| within(*at)).max().unwrap_or_default()
    }
}

fn queue(config: &IncludeConfig) -> Queue {
    Checked::of(Include::new(LOCAL, config, network(), &Secret::from_seed(1)).unwrap())
}

/// A queue whose slots three silent nodes hold.
fn busy() -> Queue {
    let mut queue = queue(&IncludeConfig::default());
    (0xa0..0xa3).for_each(|key| queue.submit(Inbound::Offer((key, 0))));
    assert_eq!(queue.asked.len(), 3);
    queue
}

fn named(node: Node, by: Node) -> Inbound<Claimed> {
    Inbound::Named { node, by }
}

#[test]
fn a_bogus_address_keeps_no_other_with_its_key_out() {
    let mut queue = queue(&IncludeConfig::default());
    queue.submit(Inbound::Heard((7, 66)));
    queue.submit(named((7, 67), (0x80, 0)));
    queue.submit(named((7, 1), (0x81, 0)));
    assert_eq!(queue.nodes(), [(7, 66), (7, 67), (7, 1)]);
    queue.wait(100 * MS);
    assert_eq!((queue.passed.as_slice(), queue.machine.counts().in_flight), (&[(7, 1)][..], 2));
}

#[test]
fn of_a_key_few_wait_and_of_each_source_one() {
    let mut queue = busy();
    (2..12).for_each(|address| queue.submit(named((7, address), (0x80, 0))));
    assert_eq!(queue.machine.counts().queued, 1, "one source");
    // All of one group are one source.
    (12..22).for_each(|address| queue.submit(named((7, address), (0x81, 256 + address))));
    assert_eq!(queue.machine.counts().queued, 2);
    (0x82..0x8a).for_each(|by| queue.submit(named((7, 100 + u16::from(by)), (by, 0))));
    assert_eq!((queue.machine.counts().queued, queue.machine.counts().dropped), (4, 9 + 9 + 6));
    // Contacts are counted apart.
    (2..12).for_each(|address| queue.submit(Inbound::Heard((7, 1_000 + 256 * address))));
    assert_eq!(queue.machine.counts().queued, 4 + 2);
    queue.submit(named((8, 1), (0x80, 0)));
    assert_eq!(queue.machine.counts().queued, 7, "others have their own places");
}

#[test]
fn who_is_named_by_two_goes_first() {
    let mut queue = busy();
    (10..15).for_each(|key| queue.submit(named((key, 1), (0x80, 256))));
    queue.submit(named((13, 1), (0x81, 257)));
    queue.submit(Inbound::Heard((14, 1)));
    assert_eq!(queue.machine.counts().duplicate, 2, "of one group, and by itself");
    queue.submit(named((12, 1), (0x81, 512)));
    queue.wait(4 * S);
    let checked: Vec<_> = queue.nodes().split_off(3).into_iter().map(|(key, _)| key).collect();
    assert_eq!(checked, [12, 10, 11, 13, 14]);
}

#[test]
fn a_source_has_a_share_and_gives_way_to_others() {
    let mut queue = busy();
    let liar = (0x80, 256);
    (0..100).for_each(|key| queue.submit(named((key, 0), liar)));
    assert_eq!((queue.machine.counts().queued, queue.machine.counts().dropped), (40, 60));
    (0..100).for_each(|key| queue.submit(named((key, 2), (0x81, 512))));
    assert_eq!((queue.machine.counts().queued, queue.machine.counts().dropped), (80, 120));
    // The share of all answers is full: others get in all the same, up to their share.
    (100..140).for_each(|key| queue.submit(named((key, 0), (0x82, 768))));
    let counts = queue.machine.counts();
    assert_eq!(counts.queued, 80);
    assert_eq!(counts.offered, counts.queued + counts.in_flight + counts.dropped);
    (100..113).for_each(|key| queue.submit(named((key, 0), (0x83, 0))));
    queue.wait(5 * S);
    let asked = queue.nodes();
    assert!((100..113).all(|key| asked.contains(&(key, 0))), "{asked:?}");
}

#[test]
fn no_flood_of_contacts_keeps_a_named_node_out() {
    let mut queue = queue(&IncludeConfig::default());
    for number in 0..1_000_u16 {
        queue.submit(Inbound::Heard(((number % 200) as u8, 2 + number)));
        queue.wait(10 * MS);
    }
    let checks = queue.asked.len();
    queue.submit(named((7, 1), (0x80, 0)));
    queue.wait(S);
    assert_eq!(
        queue.nodes()[checks..].iter().position(|node| *node == (7, 1)),
        Some(0),
        "it has the next turn"
    );
    queue.wait(S);
    assert_eq!(queue.passed, [(7, 1)]);
}

#[test]
fn contacts_cause_at_most_five_checks_a_second() {
    let mut queue = queue(&IncludeConfig::default());
    (10..20).for_each(|key| queue.submit(Inbound::Heard((key, 1))));
    assert_eq!((queue.asked.len(), queue.machine.counts().queued), (1, 9));
    queue.wait(10 * S);
    let times: Vec<_> = queue.asked.iter().map(|(at, ..)| (*at - Instant::ORIGIN).as_millis()).collect();
    assert_eq!(times, [0, 200, 400, 600, 800, 1_000, 1_200, 1_400, 1_600, 1_800]);
    assert_eq!((queue.machine.counts().passed, queue.machine.poll_timeout()), (10, None));
    // Without a limit, all begin at once.
    let mut queue =
        self::queue(&IncludeConfig { unsolicited_interval: Duration::ZERO, ..IncludeConfig::default() });
    (10..13).for_each(|key| queue.submit(Inbound::Heard((key, 1))));
    assert_eq!(queue.asked.len(), 3);
}

#[test]
fn a_contact_has_the_same_chance_whenever_it_comes() {
    let mut queue = queue(&IncludeConfig::default());
    let mut address = 256;
    for second in 0..800_u32 {
        // Hundred made-up nodes a second, as soon as a check has begun; and one that lives, at any time.
        for turn in 0..5_u32 {
            for _ in 0..20 {
                address = if address == u16::MAX { 256 } else { address + 1 };
                queue.submit(Inbound::Heard(((address % 200) as u8, address)));
            }
            queue.wait((10 + 7 * second % 180) * MS);
            if turn == second % 5 {
                queue.submit(Inbound::Heard((210, 1)));
            }
            queue.wait((190 - 7 * second % 180) * MS);
        }
    }
    let checks = queue.passed.len();
    assert!((20..=80).contains(&checks), "{checks} of 800, of which one in twenty was to be expected");
    assert!(queue.most_in_a_second() <= 5);
}

#[test]
fn a_flood_from_one_group_takes_few_places() {
    let mut queue = queue(&IncludeConfig::default());
    for second in 0..20_u8 {
        for number in 0..100 {
            queue.submit(Inbound::Heard((number, 256 + u16::from(second))));
            queue.wait(10 * MS);
        }
        queue.submit(Inbound::Heard((200 + second, 1)));
    }
    queue.wait(5 * S);
    assert_eq!(queue.passed.len(), 20);
}

#[test]
fn a_silent_candidate_keeps_its_slot_until_the_soft_limit_and_is_listened_to() {
    let mut queue = busy();
    queue.submit(Inbound::Offer((10, 1)));
    queue.wait(999 * MS);
    assert_eq!(queue.asked.len(), 3);
    queue.wait(MS);
    assert_eq!(queue.nodes()[3..], [(10, 1)]);
    // One of the three answers late.
    let config = IncludeConfig { max_in_flight: 1, ..IncludeConfig::default() };
    let mut queue = self::queue(&config);
    queue.submit(Inbound::Offer((10, 1)));
    queue.open[0].0 = Instant::ORIGIN + 1_900 * MS;
    // Nine are listened to or being waited for, and no more.
    (20..80).for_each(|key| queue.submit(Inbound::Offer((key, 0))));
    queue.wait(S);
    assert_eq!((queue.machine.counts().in_flight, queue.machine.counts().listening), (2, 1));
    queue.wait(899 * MS);
    assert_eq!(queue.machine.request_stats().listening, 1);
    queue.wait(2 * MS);
    assert_eq!((queue.passed.as_slice(), queue.machine.counts().listening), (&[(10, 1)][..], 0));
}

#[test]
fn few_are_listened_to() {
    let config = IncludeConfig { max_in_flight: 2, ..IncludeConfig::default() };
    let network = NetworkConfig { request_timeout: 30 * S, min_timeout: 30 * S, ..network() };
    let config = IncludeConfig { timeout: 40 * S, ..config };
    let mut queue: Queue = Checked::of(Include::new(LOCAL, &config, network, &Secret::from_seed(1)).unwrap());
    (0..60).for_each(|key| queue.submit(Inbound::Offer((key, 0))));
    queue.wait(20 * S);
    let counts = queue.machine.counts();
    assert_eq!((counts.in_flight, counts.listening), (18, 16));
    queue.wait(10 * S);
    assert!(queue.machine.counts().failed > 0);
}

#[test]
fn a_lost_message_is_not_a_dead_node() {
    let mut queue = queue(&IncludeConfig::default());
    queue.submit(Inbound::Heard((7, 0)));
    queue.submit(named((8, 0), (0x80, 0)));
    queue.submit(named((9, 0), (0x80, 0)));
    queue.submit(named((9, 0), (0x81, 0)));
    queue.wait(10 * S);
    let mut asked = queue.nodes();
    asked.sort_unstable();
    assert_eq!(asked, [(7, 0), (7, 0), (8, 0), (9, 0), (9, 0)]);
    queue.rejected.sort_unstable();
    assert_eq!(queue.rejected, [(7, 0), (8, 0), (9, 0)], "each once");
    let counts = queue.machine.counts();
    assert_eq!((counts.offered, counts.duplicate, counts.failed), (6, 1, 5));
}

/// A coordinator with a table of these nodes.
fn whole(nodes: &[Node]) -> Whole {
    let probe = Some(ProbeConfig { interval: 3_600 * S, ..ProbeConfig::default() });
    let include = Some(IncludeConfig::default());
    let routing = RoutingConfig { include, probe, ..RoutingConfig::off() };
    let config = Config { network: network(), routing, ..Config::default() };
    let mut whole = Checked::of(Coordinator::new(LOCAL, config, &Secret::from_seed(1)).unwrap());
    for node in nodes {
        whole.submit(RoutingInbound::Connected { node: *node, round_trip: None });
    }
    whole
}

#[test]
fn a_claim_makes_the_holders_check_due_soon_and_the_claimants_when_the_key_is_free() {
    let mut table = whole(&[(7, 1)]);
    table.wait(3 * S);
    table.submit(RoutingInbound::Discovered((7, 2)));
    assert_eq!(table.machine.poll_timeout(), Some(Instant::from_secs(10)), "10 s after it was heard from");
    table.wait(67 * S);
    assert_eq!(table.nodes(), [(7, 1)], "it lives: the claimant is not even asked");
    table.submit(RoutingInbound::Server((7, 2)));
    assert_eq!(table.nodes(), [(7, 1), (7, 1)], "at once");
    table.wait(60 * S);
    // It falls silent, and somebody claims the key who lives. That others answer shows that this node is not cut off.
    let mut table = whole(&[(7, 0), (9, 1)]);
    table.submit(RoutingInbound::Discovered((7, 1)));
    table.wait(60 * S);
    let (left, gone) = table.removed[0];
    let failures = table.asked.iter().filter(|(.., node)| *node == (7, 0)).count();
    assert_eq!((gone, failures), ((7, 0), TableConfig::default().max_failures));
    let checked = table.asked.iter().find(|(.., node)| *node == (7, 1)).unwrap();
    assert_eq!((checked.0, checked.1), (left, Initiator::Include), "in the same call");
    assert_eq!(table.passed, [(7, 0), (9, 1), (7, 1)]);
    assert!(left - Instant::ORIGIN < 60 * S);
}

#[test]
fn a_claimant_that_asks_again_has_the_holder_checked_again() {
    let mut table = whole(&[(7, 1)]);
    for minute in 1..5 {
        table.wait(60 * S);
        table.submit(RoutingInbound::Discovered((7, 2)));
        assert_eq!(table.asked.len(), minute);
    }
    // A second claim within a minute has it checked a minute after the first.
    table.wait(20 * S);
    table.submit(RoutingInbound::Discovered((7, 5)));
    assert_eq!(table.machine.poll_timeout(), Some(Instant::from_secs(300)));
    table.wait(40 * S);
    assert_eq!(table.asked.len(), 5);
    // A client of its own accord, and who is banned, claims nothing.
    table.wait(60 * S);
    table.submit(RoutingInbound::Client((7, 3)));
    table.submit(RoutingInbound::Discovered((7, 3)));
    table.submit(RoutingInbound::Banned { node: (7, 4), duration: S });
    table.submit(RoutingInbound::Discovered((7, 4)));
    assert_eq!(table.asked.len(), 5);
}

#[test]
fn claims_and_contacts_together_cause_at_most_five_checks_a_second() {
    let holders: Vec<Node> = (0..10).map(|key| (key * 2, 1)).collect();
    let mut table = whole(&holders);
    table.wait(60 * S);
    for number in 0..3_000_u16 {
        let key = (number * 7 % 20) as u8;
        table.submit(RoutingInbound::Discovered((key, 300 + number)));
        table.wait(10 * MS);
    }
    assert!(table.most_in_a_second() <= 5 && table.asked.len() > 30, "{}", table.asked.len());
    assert!(table.asked.iter().any(|(_, initiator, _)| *initiator == Initiator::Probe));
    assert!(table.removed.is_empty());
}

#[test]
fn what_strangers_name_is_named_by_one() {
    let mut table = whole(&[]);
    table.names = (0xfe, 0);
    // Two that are known by their contact name the same nodes.
    table.submit(RoutingInbound::Discovered((7, 1)));
    table.wait(300 * MS);
    table.submit(RoutingInbound::Discovered((8, 1)));
    table.wait(300 * MS);
    assert_eq!(table.passed, [(7, 1), (8, 1)]);
    table.wait(5 * S);
    // (0xfe, 0) is dead, and not checked once more, as two different answerers would have it.
    assert_eq!(table.nodes(), [(7, 1), (0xfe, 0), (8, 1)]);
}

#[test]
fn a_client_is_checked_when_it_says_that_it_serves_again() {
    let mut table = whole(&[(7, 1)]);
    table.submit(RoutingInbound::Client((7, 1)));
    assert_eq!(table.removed, [(Instant::ORIGIN, (7, 1))]);
    table.submit(RoutingInbound::Discovered((7, 1)));
    assert_eq!(table.nodes(), []);
    table.submit(RoutingInbound::Server((7, 1)));
    table.wait(S);
    assert_eq!((table.nodes(), table.passed.len()), (vec![(7, 1)], 2));
}
