//! Scenarios as TOML: reads scenario files, and the settings of `--set KEY=VALUE`.

use crate::presets;
use kad_proto::sim::{
    Behaviour, Bootstrap, Broadcasts, Build, Censor, Change, Churn, Clique, Dial, Eclipse, Effect, Empty,
    Flood, Handle, Interarrival, Join, Late, Latency, LatencyMatrix, Length, Link, MadeUp, Partition, Party,
    Per, Place, Placement, QuickCrowd, Scenario, Scheme, Sends, Silent, Sybils, Targets, Who,
};
use kad_proto::{RoutingConfig, Schedule};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// A time: `"250ms"`, `"5s"`, `"10m"`, `"2h"`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Time(Duration);

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = text.split_at(unit);
        let seconds = match unit {
            "us" => Some(1e-6),
            "ms" => Some(1e-3),
            "s" => Some(1.0),
            "m" => Some(60.0),
            "h" => Some(3_600.0),
            _ => None,
        };
        let number = number.trim().parse::<f64>().ok().zip(seconds).map(|(number, unit)| number * unit);
        let time = number.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        time.map(Self).ok_or_else(|| format!("`{text}` is no time such as 250ms, 5s, 10m or 2h"))
    }
}

macro_rules! table {
    ($name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct $name { $($field: Option<$type>),* }
    };
}

table!(File {
    preset: String, seed: u64, nodes: u32, k: usize, known_round_trips: u16, reverse_ping: bool, dead: f64, nat: f64, detailed_lookups: u32,
    health: Time, lasts: Time, check_invariants: bool, maintained: WhoValue, answers: AnswersTable, join: JoinTable, bootstrap: BootstrapTable, sybils: SybilsTable, sybil_sets: Vec<SybilsTable>, changes: Vec<ChangeTable>, slow: SlowTable, churn: ChurnTable, hostile: Vec<PartyTable>,
    link: LinkTable, partition: PartitionTable, workload: WorkloadTable, broadcasts: BroadcastsTable, engine: EngineTable, routing: RoutingTable,
});
table!(JoinTable { seeds: u32, every: Time, refreshes: u32, pause: Time });
table!(BootstrapTable { seeds: u32, every: Time, settle: Time });
table!(AnswersTable { names: u16, told: u16, with_itself: bool, without_asker: bool });
table!(SybilsTable {
    count: u32,
    groups: u16,
    near: PlaceValue,
    placed: PlacementValue,
    in_tables: bool,
    from: Time,
    every: Time,
    audience: u32,
    behaviour: BehaviourValue
});
table!(SlowTable { share: f64, factor: f64 });
table!(ChurnTable { share: f64, sessions: LengthValue, absences: LengthValue, restores: bool });
table!(LinkTable { round_trip: LatencyValue, loss: f64, duplication: f64, reordering: f64, refusal: f64, dial: Part<DialTable> });
table!(DialTable { round_trips: f64, idle: Time, most: u32, tables: bool });
table!(PartitionTable { share: f64, from: Time, until: Time });
table!(WorkloadTable {
    lookups: u32,
    first: Time,
    pace: InterarrivalValue,
    deadline: Time,
    messages: f64,
    stopped: f64,
    by: WhoValue,
    targets: TargetsValue,
});
table!(BroadcastsTable {
    scheme: SchemeName,
    nodes: u64,
    records: u32,
    count: u32,
    first: Time,
    pace: InterarrivalValue,
    deadline: Time,
    warmup_lookups: u32,
    stopped: f64,
    by: WhoValue,
    keys: Vec<u32>,
});
table!(EngineTable {
    timeout: Time,
    k: usize,
    alpha: usize,
    beta: usize,
    paths: usize,
    retries: usize,
    max_closer_nodes: usize,
    max_candidates: usize,
    max_nodes: usize,
    max_running: usize,
    request_timeout: Time,
    soft_timeout: Time,
    min_timeout: Time,
    max_in_flight: usize,
    max_per_node: usize,
    max_queued: usize,
    bucket_size: usize,
    max_failures: usize,
    broadcast_timeout: Time,
    store_before_response: bool,
    early_return_percent: u8,
});

// Each part can be turned off by its name: `routing.probe = false`.
table!(RoutingTable { bootstrap: Part<BootstrapPart>, include: Part<IncludePart>, probe: Part<ProbePart>, explore: Part<ExplorePart>, max_clients: usize });
table!(BootstrapPart { min_nodes: usize, retry_interval: Time, timeout: Time, max_seeds: usize });
table!(IncludePart {
    max_in_flight: usize,
    max_queued: usize,
    timeout: Time,
    retry_interval: Time,
    max_failed: usize
});
table!(ProbePart { interval: Time, retry_interval: Time, max_in_flight: usize, timeout: Time });
table!(ExplorePart { interval: Time, multiplier: u32, jitter: u32, max_cpl: u32, timeout: Time });

/// Whether there is this part of the routing maintenance, or what is changed of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Part<T> {
    Is(bool),
    With(T),
}

impl<T> Part<T> {
    /// Applies it to the part's configuration.
    fn apply<C: Default>(self, to: &mut Option<C>, change: impl FnOnce(T, &mut C)) {
        match self {
            Self::Is(false) => *to = None,
            Self::Is(true) => drop(to.get_or_insert_default()),
            Self::With(table) => change(table, to.get_or_insert_default()),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartyTable {
    share: f64,
    behaviour: BehaviourValue,
    /// How much later a late one answers.
    after: Option<Time>,
}

/// How dishonest nodes behave.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum BehaviourValue {
    MadeUp,
    Eclipse,
    Late,
    Empty,
    Silent,
    Clique,
    Censor { truthful: bool, lies: bool },
    QuickCrowd { names: u32, round_trip: Time },
    Flood { victim: u32, every: Time, neighbours: u32 },
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum WhoValue {
    All,
    Node(u32),
    Nodes(Vec<u32>),
    First(u32),
    Share(f64),
    Near { node: u32, count: u32 },
    Known { to: u32, count: u32 },
    Except(Box<Self>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum PlaceValue {
    Node(u32),
    Point(u32),
    Record(u32),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum PlacementValue {
    Nearest,
    Plausible { crowd: u32 },
    Claimant(u32),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum TargetsValue {
    Random,
    Points(Vec<u32>),
    Nodes(Vec<u32>),
    Records { first: u32, count: u32, enough: usize },
}

/// What happens, and when.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeTable {
    at: Time,
    effect: EffectValue,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum EffectValue {
    LinkDown {
        who: WhoValue,
        #[serde(default)]
        fail: bool,
    },
    LinkUp {
        who: WhoValue,
    },
    TellLink {
        who: WhoValue,
        up: bool,
    },
    Sleep {
        who: WhoValue,
        time: Time,
    },
    Separate {
        who: WhoValue,
    },
    Heal,
    Kill {
        who: WhoValue,
    },
    Restart {
        who: WhoValue,
        #[serde(default)]
        snapshot: bool,
    },
    Restore {
        who: WhoValue,
        contacts: Vec<u32>,
    },
    Seeds {
        who: WhoValue,
        seeds: Vec<u32>,
    },
    Move {
        who: WhoValue,
    },
    ChangeId {
        who: WhoValue,
    },
    Serve {
        who: WhoValue,
        serve: bool,
    },
    Loss(f64),
    SlowDown {
        #[serde(default = "one")]
        factor: f64,
        add: Option<Time>,
    },
}

const fn one() -> f64 {
    1.0
}

/// A file of measured round trips, in milliseconds.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
struct MatrixFile(Arc<LatencyMatrix>);

impl TryFrom<String> for MatrixFile {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let text = std::fs::read_to_string(&name).map_err(|error| format!("{name}: {error}"))?;
        let matrix = LatencyMatrix::parse(&text).map_err(|error| format!("{name}: {error}"))?;
        Ok(Self(Arc::new(matrix)))
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SchemeName {
    FollowUp,
    Static,
    Optimistic,
    Sweep,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum LengthValue {
    Constant(Time),
    Exponential(Time),
    Weibull { scale: Time, shape: f64 },
    OneOf(Vec<Time>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum LatencyValue {
    Constant(Time),
    Uniform([Time; 2]),
    LogNormal {
        median: Time,
        sigma: f64,
    },
    Fixed {
        of: Box<Self>,
        per: PerName,
        #[serde(default)]
        jitter: f64,
    },
    Classes(Vec<ClassValue>),
    Matrix(MatrixFile),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PerName {
    Node,
    Pair,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassValue {
    share: f64,
    round_trip: LatencyValue,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum InterarrivalValue {
    Every(Time),
    Mean(Time),
    At(Vec<Time>),
}

/// Reads a scenario file named `name`.
///
/// # Errors
/// Says in which line and field the mistake is, and what is wrong.
pub fn read(name: &str, text: &str) -> Result<Scenario, String> {
    let file: File = parse(name, text)?;
    let mut scenario = match &file.preset {
        None => Scenario::default(),
        Some(preset) => presets::named(preset).ok_or_else(|| {
            let line = line_of(text, "preset").unwrap_or(1);
            format!("{name}:{line}: preset: `{preset}` is none of {}", presets::NAMES.join(", "))
        })?,
    };
    file.apply(&mut scenario);
    scenario.validate().map_err(|error| {
        let field = error.field();
        let last = field.rsplit('.').next().unwrap_or(field);
        let line = line_of(text, last).map_or_else(String::new, |line| format!(":{line}"));
        format!("{name}{line}: {field}: must be {}", error.bound())
    })?;
    Ok(scenario)
}

/// Takes a setting: `link.loss=0.05`.
///
/// # Errors
/// Says what is wrong.
pub fn set(setting: &str, scenario: &mut Scenario) -> Result<(), String> {
    let file: File = parse("--set", setting)?;
    if file.preset.is_some() {
        return Err("--set: preset: give it as an argument instead".to_owned());
    }
    file.apply(scenario);
    Ok(())
}

fn parse(name: &str, text: &str) -> Result<File, String> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = text.get(..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let content = text.lines().nth(line - 1).unwrap_or_default();
        let field = content.split('=').next().unwrap_or_default().trim();
        format!("{name}:{line}: {field}: {}", error.message().replace('\n', ", "))
    })
}

/// The first line that sets this field.
fn line_of(text: &str, field: &str) -> Option<usize> {
    let sets = |line: &str| {
        let key = line.split('=').next().unwrap_or_default().trim();
        line.contains('=') && (key == field || key.ends_with(&format!(".{field}")))
    };
    let mentions =
        |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == field);
    let place = text.lines().position(sets).or_else(|| text.lines().position(mentions));
    place.map(|place| place + 1)
}

fn put<T>(field: &mut T, value: Option<impl Into<T>>) {
    if let Some(value) = value {
        *field = value.into();
    }
}

impl From<Time> for Duration {
    fn from(time: Time) -> Self {
        time.0
    }
}

impl From<Time> for Option<Duration> {
    fn from(time: Time) -> Self {
        Some(time.0)
    }
}

fn times(list: Vec<Time>) -> Arc<[Duration]> {
    list.into_iter().map(Duration::from).collect()
}

impl From<LengthValue> for Length {
    fn from(value: LengthValue) -> Self {
        match value {
            LengthValue::Constant(Time(time)) => Self::Constant(time),
            LengthValue::Exponential(Time(mean)) => Self::Exponential(mean),
            LengthValue::Weibull { scale, shape } => Self::Weibull { scale: scale.0, shape },
            LengthValue::OneOf(list) => Self::OneOf(times(list)),
        }
    }
}

impl From<LatencyValue> for Latency {
    fn from(value: LatencyValue) -> Self {
        match value {
            LatencyValue::Constant(Time(time)) => Self::Constant(time),
            LatencyValue::Uniform([least, most]) => Self::Uniform(least.0, most.0),
            LatencyValue::LogNormal { median, sigma } => Self::LogNormal { median: median.0, sigma },
            LatencyValue::Fixed { of, per, jitter } => {
                let per = if matches!(per, PerName::Node) { Per::Node } else { Per::Pair };
                Self::fixed((*of).into(), per, jitter)
            }
            LatencyValue::Classes(list) => {
                Self::classes(list.into_iter().map(|class| (class.share, class.round_trip.into())))
            }
            LatencyValue::Matrix(MatrixFile(matrix)) => Self::Matrix(matrix),
        }
    }
}

impl From<InterarrivalValue> for Interarrival {
    fn from(value: InterarrivalValue) -> Self {
        match value {
            InterarrivalValue::Every(Time(time)) => Self::Every(time),
            InterarrivalValue::Mean(Time(mean)) => Self::Mean(mean),
            InterarrivalValue::At(list) => Self::At(times(list)),
        }
    }
}

impl From<PartyTable> for Party {
    fn from(party: PartyTable) -> Self {
        let after = party.after.map_or(Duration::from_secs(1), Duration::from);
        Self { share: party.share, behaviour: party.behaviour.behaviour(after) }
    }
}

impl BehaviourValue {
    fn behaviour(&self, after: Duration) -> Arc<dyn Behaviour> {
        match *self {
            Self::MadeUp => Arc::new(MadeUp),
            Self::Eclipse => Arc::new(Eclipse),
            Self::Late => Arc::new(Late(after)),
            Self::Empty => Arc::new(Empty),
            Self::Silent => Arc::new(Silent),
            Self::Clique => Arc::new(Clique),
            Self::Censor { truthful, lies } => Arc::new(Censor { truthful, lies }),
            Self::QuickCrowd { names, round_trip } => {
                Arc::new(QuickCrowd { names, round_trip: round_trip.into() })
            }
            Self::Flood { victim, every, neighbours } => {
                Arc::new(Flood { victim, every: every.into(), neighbours })
            }
        }
    }
}

impl From<WhoValue> for Who {
    fn from(value: WhoValue) -> Self {
        match value {
            WhoValue::All => Self::All,
            WhoValue::Node(node) => Self::Node(node),
            WhoValue::Nodes(list) => Self::Nodes(list.into()),
            WhoValue::First(count) => Self::First(count),
            WhoValue::Share(share) => Self::Share(share),
            WhoValue::Near { node, count } => Self::Near { node, count },
            WhoValue::Known { to, count } => Self::Known { to, count },
            WhoValue::Except(others) => Self::Except(Box::new((*others).into())),
        }
    }
}

impl From<TargetsValue> for Targets {
    fn from(value: TargetsValue) -> Self {
        match value {
            TargetsValue::Random => Self::Random,
            TargetsValue::Points(list) => Self::Points(list.into()),
            TargetsValue::Nodes(list) => Self::Nodes(list.into()),
            TargetsValue::Records { first, count, enough } => Self::Records { first, count, enough },
        }
    }
}

impl From<ChangeTable> for Change {
    fn from(ChangeTable { at, effect }: ChangeTable) -> Self {
        let effect = match effect {
            EffectValue::LinkDown { who, fail } => {
                let sends = if fail { Sends::Fail } else { Sends::Lost };
                Effect::LinkDown { who: who.into(), sends }
            }
            EffectValue::LinkUp { who } => Effect::LinkUp { who: who.into() },
            EffectValue::TellLink { who, up } => Effect::TellLink { who: who.into(), up },
            EffectValue::Sleep { who, time } => Effect::Sleep { who: who.into(), time: time.into() },
            EffectValue::Separate { who } => Effect::Separate { who: who.into() },
            EffectValue::Heal => Effect::Heal,
            EffectValue::Kill { who } => Effect::Kill { who: who.into() },
            EffectValue::Restart { who, snapshot } => Effect::Restart { who: who.into(), snapshot },
            EffectValue::Restore { who, contacts } => {
                Effect::Restore { who: who.into(), contacts: contacts.into_iter().map(Handle).collect() }
            }
            EffectValue::Seeds { who, seeds } => {
                Effect::Seeds { who: who.into(), seeds: seeds.into_iter().map(Handle).collect() }
            }
            EffectValue::Move { who } => Effect::Move { who: who.into() },
            EffectValue::ChangeId { who } => Effect::ChangeId { who: who.into() },
            EffectValue::Serve { who, serve } => Effect::Serve { who: who.into(), serve },
            EffectValue::Loss(loss) => Effect::Loss(loss),
            EffectValue::SlowDown { factor, add } => {
                Effect::SlowDown { factor, add: add.map_or(Duration::ZERO, Duration::from) }
            }
        };
        Self::new(at.into(), effect)
    }
}

impl SybilsTable {
    fn into_set(self) -> Sybils {
        let mut sybils = Sybils::default();
        self.apply(&mut sybils);
        sybils
    }

    fn apply(self, to: &mut Sybils) {
        put(&mut to.count, self.count);
        put(&mut to.groups, self.groups);
        if let Some(near) = self.near {
            to.near = match near {
                PlaceValue::Node(node) => Place::Node(node),
                PlaceValue::Point(point) => Place::Point(point),
                PlaceValue::Record(record) => Place::Record(record),
            };
        }
        if let Some(placed) = self.placed {
            to.placed = match placed {
                PlacementValue::Nearest => Placement::Nearest,
                PlacementValue::Plausible { crowd } => Placement::Plausible { crowd },
                PlacementValue::Claimant(address) => Placement::Claimant(address),
            };
        }
        put(&mut to.in_tables, self.in_tables);
        put(&mut to.from, self.from);
        put(&mut to.every, self.every);
        put(&mut to.audience, self.audience);
        if let Some(behaviour) = self.behaviour {
            to.behaviour = behaviour.behaviour(Duration::from_secs(1));
        }
    }
}

impl File {
    fn apply(self, to: &mut Scenario) {
        put(&mut to.seed, self.seed);
        put(&mut to.nodes, self.nodes);
        put(&mut to.k, self.k);
        put(&mut to.known_round_trips, self.known_round_trips);
        put(&mut to.lasts, self.lasts);
        put(&mut to.maintained, self.maintained);
        if let Some(table) = self.answers {
            put(&mut to.answers.names, table.names);
            put(&mut to.answers.told, table.told.map(Some));
            put(&mut to.answers.with_itself, table.with_itself);
            put(&mut to.answers.without_asker, table.without_asker);
        }
        put(&mut to.reverse_ping, self.reverse_ping);
        put(&mut to.dead, self.dead);
        put(&mut to.nat, self.nat);
        put(&mut to.detailed_lookups, self.detailed_lookups);
        put(&mut to.health, self.health);
        put(&mut to.check_invariants, self.check_invariants);
        if let Some(table) = self.join {
            let mut join = if let Build::Join(join) = to.build { join } else { Join::default() };
            put(&mut join.seeds, table.seeds);
            put(&mut join.every, table.every);
            put(&mut join.refreshes, table.refreshes);
            put(&mut join.pause, table.pause);
            to.build = Build::Join(join);
            to.reverse_ping = self.reverse_ping.unwrap_or(true);
        }
        if let Some(table) = self.bootstrap {
            let mut bootstrap = if let Build::Bootstrap(it) = to.build { it } else { Bootstrap::default() };
            put(&mut bootstrap.seeds, table.seeds);
            put(&mut bootstrap.every, table.every);
            put(&mut bootstrap.settle, table.settle);
            to.build = Build::Bootstrap(bootstrap);
            to.config.routing = RoutingConfig::default();
        }
        if let Some(tables) = self.sybil_sets {
            to.sybils = tables.into_iter().map(SybilsTable::into_set).collect();
        }
        if let Some(table) = self.sybils {
            match to.sybils.first_mut() {
                Some(first) => table.apply(first),
                None => to.sybils.push(table.into_set()),
            }
        }
        if let Some(changes) = self.changes {
            to.changes = changes.into_iter().map(Change::from).collect();
        }
        if let Some(table) = self.slow {
            put(&mut to.slow.share, table.share);
            put(&mut to.slow.factor, table.factor);
        }
        if let Some(table) = self.churn {
            let churn = to.churn.get_or_insert_with(Churn::ipfs);
            put(&mut churn.share, table.share);
            put(&mut churn.sessions, table.sessions);
            put(&mut churn.absences, table.absences);
            put(&mut churn.restores, table.restores);
        }
        if let Some(parties) = self.hostile {
            to.hostile = parties.into_iter().map(Party::from).collect();
        }
        if let Some(table) = self.link {
            table.apply(&mut to.link);
        }
        if let Some(table) = self.partition {
            let (mut share, mut from, mut until) = (0.5, Duration::ZERO, Duration::MAX);
            if let Some(Partition::Split { share: s, from: f, until: u }) = to.partition {
                (share, from, until) = (s, f, u);
            }
            put(&mut share, table.share);
            put(&mut from, table.from);
            put(&mut until, table.until);
            to.partition = Some(Partition::Split { share, from, until });
        }
        if let Some(table) = self.workload {
            put(&mut to.workload.lookups, table.lookups);
            put(&mut to.workload.first, table.first);
            put(&mut to.workload.pace, table.pace);
            put(&mut to.workload.deadline, table.deadline);
            put(&mut to.workload.messages, table.messages);
            put(&mut to.workload.stopped, table.stopped);
            put(&mut to.workload.by, table.by);
            put(&mut to.workload.targets, table.targets);
        }
        if let Some(table) = self.broadcasts {
            table.apply(to.broadcasts.get_or_insert_default());
        }
        if let Some(table) = self.engine {
            table.apply(to);
        }
        if let Some(table) = self.routing {
            table.apply(&mut to.config.routing);
        }
    }
}

impl LinkTable {
    fn apply(self, to: &mut Link) {
        put(&mut to.round_trip, self.round_trip);
        put(&mut to.loss, self.loss);
        put(&mut to.duplication, self.duplication);
        put(&mut to.reordering, self.reordering);
        put(&mut to.refusal, self.refusal);
        if let Some(part) = self.dial {
            part.apply(&mut to.dial, |table, dial: &mut Dial| {
                put(&mut dial.round_trips, table.round_trips);
                put(&mut dial.idle, table.idle);
                put(&mut dial.most, table.most);
                put(&mut dial.tables, table.tables);
            });
        }
    }
}

impl BroadcastsTable {
    fn apply(self, to: &mut Broadcasts) {
        match self.scheme {
            None => {}
            Some(SchemeName::FollowUp) => to.scheme = Scheme::FollowUp,
            Some(SchemeName::Static) => to.scheme = Scheme::Static,
            Some(SchemeName::Optimistic) => to.scheme = Scheme::Optimistic { nodes: None },
            Some(SchemeName::Sweep) => to.scheme = Scheme::Sweep { records: 1_000 },
        }
        match &mut to.scheme {
            Scheme::Optimistic { nodes } => put(nodes, self.nodes.map(Some)),
            Scheme::Sweep { records } => put(records, self.records),
            _ => {}
        }
        put(&mut to.count, self.count);
        put(&mut to.first, self.first);
        put(&mut to.pace, self.pace);
        put(&mut to.deadline, self.deadline);
        put(&mut to.warmup_lookups, self.warmup_lookups);
        put(&mut to.stopped, self.stopped);
        put(&mut to.by, self.by);
        if let Some(keys) = self.keys {
            to.keys = Some(keys.into());
        }
    }
}

impl EngineTable {
    fn apply(self, to: &mut Scenario) {
        let config = &mut to.config;
        put(&mut config.pool.max_running, self.max_running);
        let query = &mut config.query;
        put(&mut query.timeout, self.timeout);
        put(&mut query.k, self.k);
        put(&mut query.alpha, self.alpha);
        put(&mut query.beta, self.beta);
        put(&mut query.paths, self.paths);
        put(&mut query.retries, self.retries);
        put(&mut query.max_closer_nodes, self.max_closer_nodes);
        put(&mut query.max_candidates, self.max_candidates);
        put(&mut query.max_nodes, self.max_nodes);
        let network = &mut config.network;
        put(&mut network.request_timeout, self.request_timeout);
        put(&mut network.soft_timeout, self.soft_timeout);
        put(&mut network.min_timeout, self.min_timeout);
        put(&mut network.max_in_flight, self.max_in_flight);
        put(&mut network.max_per_node, self.max_per_node);
        put(&mut network.max_queued, self.max_queued);
        put(&mut config.table.bucket_size, self.bucket_size);
        put(&mut config.table.max_failures, self.max_failures);
        put(&mut config.broadcast.timeout, self.broadcast_timeout);
        put(&mut config.broadcast.store_before_response, self.store_before_response);
        put(&mut config.broadcast.early_return_percent, self.early_return_percent);
    }
}

impl RoutingTable {
    fn apply(self, to: &mut RoutingConfig) {
        put(&mut to.max_clients, self.max_clients);
        if let Some(part) = self.bootstrap {
            part.apply(&mut to.bootstrap, |table, config| {
                put(&mut config.min_nodes, table.min_nodes);
                put(&mut config.retry_interval, table.retry_interval);
                put(&mut config.timeout, table.timeout);
                put(&mut config.max_seeds, table.max_seeds);
            });
        }
        if let Some(part) = self.include {
            part.apply(&mut to.include, |table, config| {
                put(&mut config.max_in_flight, table.max_in_flight);
                put(&mut config.max_queued, table.max_queued);
                put(&mut config.timeout, table.timeout);
                put(&mut config.retry_interval, table.retry_interval);
                put(&mut config.max_failed, table.max_failed);
            });
        }
        if let Some(part) = self.probe {
            part.apply(&mut to.probe, |table, config| {
                put(&mut config.interval, table.interval);
                put(&mut config.retry_interval, table.retry_interval);
                put(&mut config.max_in_flight, table.max_in_flight);
                put(&mut config.timeout, table.timeout);
            });
        }
        if let Some(part) = self.explore {
            part.apply(&mut to.explore, |table, config| {
                put(&mut config.max_cpl, table.max_cpl);
                put(&mut config.timeout, table.timeout);
                if let Schedule::Dynamic { interval, multiplier, jitter } = &mut config.schedule {
                    put(interval, table.interval);
                    put(multiplier, table.multiplier);
                    put(jitter, table.jitter);
                }
            });
        }
    }
}
