//! The command line.

use core::fmt::Display;
use core::str::FromStr;
use core::time::Duration;
use kad_mainline::engine;
use kad_mainline::goal::Goal;
use kad_mainline::store::{self, Limits};
use kad_proto::Key160;
use lexopt::{Arg, Parser, ValueExt};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::path::PathBuf;

pub(crate) const HELP: &str = "\
Looks up keys in a BitTorrent DHT, stores items and peers there and finds them, maps it, and can be a node of it, with the
engine kad-proto.

Without --bootstrap or --load it starts a network of its own: nodes of the crate `mainline`, on loopback. But with --serve and
without --nodes it is then the first node of a network, for others to begin with.

Usage: kad-mainline [OPTIONS]

To begin with:
  --bootstrap HOST:PORT  begin with this node instead of a network of its own; repeatable. A name that cannot be resolved is
                         left out, with a warning, if anything else is given to begin with. A node that stays goes on asking
                         until one answers
  --load FILE            begin with the id and the nodes that --save wrote
  --nodes N              start this many nodes, 1 to 1000 [default: 30]
  --port N               listen on this port [default: any that is free]
To look up:
  --target HEX           look up this key of 40 hexadecimal digits; repeatable [default: random]
  --queries N            do this many lookups at once, 1 to 10000 [default: 1 for each target; none if there is something
                         else to do]
To store and to find, one after the other in the order given, after the lookups; --put, --get, --announce, --peers and --crawl
are repeatable:
  --put TEXT             store this text as an immutable item (BEP 44) with the nodes closest to its SHA-1, the target
  --get TARGET           get the item with this target, and check it
  --announce INFOHASH    be named as a peer of this torrent (BEP 5)
  --announce-port N      as a peer at this port [default: the one that this program sends from]
  --peers INFOHASH       get the peers of this torrent
  --crawl [FILE]         map the whole network, and draw it into this file for Graphviz
  --optimistic           with --put, --announce: store during the lookup already with nodes that are close enough for the
                         size of the network, which takes some lookups to know, and leave the rest to be done later
  --quorum N             with --get, --peers: end once so many nodes had it [default: 1 for --get, else all that are asked]
  --correct              with --get: ask all, and store the item with those of the closest nodes that lack it
For all of it:
  --k N                  search for this many of the closest nodes, and store with them, 1 to 40 [default: 8, as many as BEP 5
                         has an answer name: with more, each answer leaves out some, and it takes more requests]
  --deadline TIME        give each lookup, and each of the above, this long: 500ms, 5s, 1m [default: 10s]
  --drop SHARE           lose this share of outgoing datagrams, 0 to 1 [default: 0]
To stay:
  --stay TIME            be a node for this long: answer others, keep items and peers for them, maintain the routing
                         table, and show it every 5 s. It answers one host 10 queries a second and 100 at once, and all
                         hosts together 100 kB a second (twice: nodes that it knows have that apart); on loopback, each
                         port is a host. --get and --peers find what it keeps itself
  --serve                the same until interrupted (Ctrl-C). What there is to look up or to do waits until another node is
                         known
  --every TIME           meanwhile do the lookups, and all else, again this often [default: once]
  --probe TIME           check this often whether a node of the table lives [default: 15m]
  --trace-upkeep         list the requests of the routing maintenance, and what each links to
In the end:
  --save FILE            write the id and the nodes of the routing table, as JSON; and every minute while it stays. A table of
                         fewer than 4 nodes does not replace a file that holds more
  --svg FILE             draw the traces; not with --stay or --serve
  --record FILE          write all that the engine was told, to be replayed: in the end, and every 5 s while it stays. It holds
                         all that peers said, addresses included
  --otlp URL             send spans and metrics to this collector, as they come: http://127.0.0.1:4318. At most 65,536 spans
                         wait to be sent; more are lost. Only where built with the feature `otlp`:
                         cargo run --release -p kad-mainline --features otlp -- --otlp URL
  --json                 print one JSON object to stdout, and all else to stderr; while it stays, one for each event too
  --help                 print this

Instead of all this:
  --replay FILE          tell a fresh engine what --record wrote, and compare what it says: show the first difference, or the
                         traces of the operations once more; only with --svg and --json

Exit code: 0 if all lookups came to an end of their own, and all else had success. 3 if an item or peers were not found
though all was asked, or nobody has stored something. 2 if a lookup or a crawl ran into its deadline or found nobody, or the
deadline is why there was no success. 1 for errors: bad arguments, no bootstrap node that answered, a recording that cannot be
written, spans or metrics that the collector did not take, a replay that differs or of a file that cannot be replayed. Of
several, the highest.
";

#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Host and port of each.
    pub(crate) bootstrap: Vec<String>,
    pub(crate) load: Option<PathBuf>,
    pub(crate) nodes: Option<usize>,
    /// 0: any that is free.
    pub(crate) port: u16,
    pub(crate) targets: Vec<Key160>,
    pub(crate) queries: Option<usize>,
    /// What to do besides, in order.
    pub(crate) actions: Vec<Action>,
    pub(crate) k: usize,
    pub(crate) deadline: Duration,
    pub(crate) drop: f64,
    pub(crate) stay: Stay,
    pub(crate) every: Option<Duration>,
    pub(crate) probe: Option<Duration>,
    pub(crate) trace_upkeep: bool,
    pub(crate) save: Option<PathBuf>,
    pub(crate) svg: Option<PathBuf>,
    pub(crate) record: Option<PathBuf>,
    /// Where a collector is.
    pub(crate) otlp: Option<String>,
    pub(crate) replay: Option<PathBuf>,
    pub(crate) json: bool,
}

/// Something to do besides lookups: with this target.
pub(crate) type Action = (Goal, Key160);

/// What holds for all actions, wherever it is said.
#[derive(Clone, Copy, Debug, Default)]
struct Manner {
    port: Option<u16>,
    optimistic: bool,
    quorum: Option<usize>,
    correct: bool,
}

/// Whether to be a node of the network, rather than a client that leaves after its lookups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stay {
    No,
    For(Duration),
    UntilInterrupted,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bootstrap: Vec::new(),
            load: None,
            nodes: None,
            port: 0,
            targets: Vec::new(),
            queries: None,
            actions: Vec::new(),
            k: engine::K,
            deadline: Duration::from_secs(10),
            drop: 0.0,
            stay: Stay::No,
            every: None,
            probe: None,
            trace_upkeep: false,
            save: None,
            svg: None,
            record: None,
            otlp: None,
            replay: None,
            json: false,
        }
    }
}

impl Options {
    /// Reads the arguments; `None` if help was asked for.
    ///
    /// # Errors
    /// Says which argument is wrong, and how.
    pub(crate) fn parse(mut parser: Parser) -> Result<Option<Self>, lexopt::Error> {
        let mut options = Self::default();
        let mut manner = Manner::default();
        let mut runs = None;
        while let Some(argument) = parser.next()? {
            if let Arg::Long(name) = argument
                && !matches!(name, "replay" | "svg" | "json" | "help")
            {
                runs.get_or_insert_with(|| name.to_owned());
            }
            match argument {
                Arg::Long("bootstrap") => {
                    options.bootstrap.push(value(&mut parser, "--bootstrap", host_and_port)?);
                }
                Arg::Long("load") => options.load = Some(parser.value()?.into()),
                Arg::Long("nodes") => {
                    options.nodes = Some(value(&mut parser, "--nodes", |text| number(text, 1_000))?);
                }
                Arg::Long("port") => {
                    options.port = value(&mut parser, "--port", |text| number(text, u16::MAX))?;
                }
                Arg::Long("target") => {
                    options.targets.push(value(&mut parser, "--target", Key160::from_hex)?);
                }
                Arg::Long("queries") => {
                    options.queries = Some(value(&mut parser, "--queries", |text| number(text, 10_000))?);
                }
                Arg::Long("put") => {
                    let item = value(&mut parser, "--put", item)?;
                    let target = store::target(&item);
                    options.actions.push((Goal::Put { item, optimistic: false }, target));
                }
                Arg::Long("get") => {
                    let goal = Goal::Get { quorum: None, correct: false };
                    options.actions.push((goal, value(&mut parser, "--get", Key160::from_hex)?));
                }
                Arg::Long("announce") => {
                    let goal = Goal::Announce { port: None, optimistic: false };
                    options.actions.push((goal, value(&mut parser, "--announce", Key160::from_hex)?));
                }
                Arg::Long("peers") => {
                    let goal = Goal::Peers { quorum: None };
                    options.actions.push((goal, value(&mut parser, "--peers", Key160::from_hex)?));
                }
                Arg::Long("crawl") => {
                    let file = file(&mut parser);
                    // It has no target; its trace has to have some key.
                    options.actions.push((Goal::Crawl { file }, Key160::new([0; 20])));
                }
                Arg::Long("announce-port") => {
                    let port = value(&mut parser, "--announce-port", |text| number(text, u16::MAX))?;
                    manner.port = Some(port);
                }
                Arg::Long("optimistic") => manner.optimistic = true,
                Arg::Long("quorum") => {
                    manner.quorum = Some(value(&mut parser, "--quorum", |text| number(text, 1_000))?);
                }
                Arg::Long("correct") => manner.correct = true,
                Arg::Long("trace-upkeep") => options.trace_upkeep = true,
                Arg::Long("k") => options.k = value(&mut parser, "--k", |text| number(text, 40))?,
                Arg::Long("deadline") => options.deadline = value(&mut parser, "--deadline", duration)?,
                Arg::Long("drop") => options.drop = value(&mut parser, "--drop", share)?,
                Arg::Long(name @ ("stay" | "serve")) if options.stay != Stay::No => {
                    return Err(format!("--{name}: how long to stay is said already").into());
                }
                Arg::Long("stay") => options.stay = Stay::For(value(&mut parser, "--stay", duration)?),
                Arg::Long("serve") => options.stay = Stay::UntilInterrupted,
                Arg::Long("every") => options.every = Some(value(&mut parser, "--every", duration)?),
                Arg::Long("probe") => options.probe = Some(value(&mut parser, "--probe", duration)?),
                Arg::Long("save") => options.save = Some(parser.value()?.into()),
                Arg::Long("svg") => options.svg = Some(parser.value()?.into()),
                Arg::Long("record") => options.record = Some(parser.value()?.into()),
                Arg::Long("otlp") => options.otlp = Some(parser.value()?.string()?),
                Arg::Long("replay") => options.replay = Some(parser.value()?.into()),
                Arg::Long("json") => options.json = true,
                Arg::Long("help") | Arg::Short('h') => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        options.check(runs.as_deref())?;
        manner.apply(&mut options.actions)?;
        Ok(Some(options))
    }

    /// Whether the options go together. The first that has to do with a run, if any, is given.
    fn check(&self, runs: Option<&str>) -> Result<(), String> {
        if let (Some(_), Some(name)) = (&self.replay, runs) {
            return Err(format!("--{name}: not with --replay, which runs nothing"));
        }
        if self.svg.is_some() && self.stay != Stay::No {
            return Err(
                "--svg: not with --stay or --serve; but what --record wrote can be drawn by --replay".into(),
            );
        }
        if self.otlp.is_some() && !cfg!(feature = "otlp") {
            let build = "cargo run --release -p kad-mainline --features otlp -- --otlp URL";
            return Err(format!("--otlp: this program was built without an exporter; {build}"));
        }
        let has_tls = |url: &str| url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
        if let Some(url) = self.otlp.as_deref().filter(|url| has_tls(url)) {
            return Err(format!("--otlp {url}: there is no TLS in this build, only http://"));
        }
        let joins = !self.bootstrap.is_empty() || self.load.is_some();
        if self.nodes.is_some() && joins {
            return Err("--nodes: no nodes are started with --bootstrap or --load".into());
        }
        let staying = [
            (self.every.is_some(), "--every"),
            (self.probe.is_some(), "--probe"),
            (self.trace_upkeep, "--trace-upkeep"),
        ];
        for (given, name) in staying {
            if given && self.stay == Stay::No {
                return Err(format!("{name}: only with --stay or --serve"));
            }
        }
        Ok(())
    }

    /// What to look up: as many keys as were asked for.
    pub(crate) fn targets(&self) -> impl Iterator<Item = Key160> {
        let least = usize::from(self.actions.is_empty());
        let count = self.queries.unwrap_or(self.targets.len().max(least));
        let mut given = self.targets.iter().cycle();
        core::iter::repeat_with(move || given.next().copied().unwrap_or_else(|| Key160::new(rand::random())))
            .take(count)
    }
}

impl Manner {
    /// Says so of the actions.
    fn apply(self, actions: &mut [Action]) -> Result<(), String> {
        let Self { port: at, optimistic: early, quorum: wanted, correct: corrects } = self;
        let is = |name: &str| actions.iter().any(|(goal, _)| goal.name() == name);
        let needs = [
            (at.is_some(), "--announce-port", is("announce"), "--announce"),
            (early, "--optimistic", is("put") || is("announce"), "--put or --announce"),
            (wanted.is_some(), "--quorum", is("get") || is("peers"), "--get or --peers"),
            (corrects, "--correct", is("get"), "--get"),
        ];
        for (given, name, is_met, needed) in needs {
            if given && !is_met {
                return Err(format!("{name}: only with {needed}"));
            }
        }
        for (goal, _) in actions {
            match goal {
                Goal::Put { optimistic, .. } => *optimistic = early,
                Goal::Announce { port, optimistic } => (*port, *optimistic) = (at, early),
                Goal::Get { quorum, correct } => {
                    (*quorum, *correct) = (wanted.or((!corrects).then_some(1)), corrects);
                }
                Goal::Peers { quorum } => *quorum = wanted,
                Goal::Find | Goal::Correct { .. } | Goal::Crawl { .. } => {}
            }
        }
        Ok(())
    }
}

/// A file that an option may name, or not.
fn file(parser: &mut Parser) -> Option<PathBuf> {
    let attached = parser.optional_value();
    let is_value = |text: &std::ffi::OsStr| !text.to_string_lossy().starts_with('-');
    attached.or_else(|| parser.try_raw_args()?.next_if(is_value)).map(PathBuf::from)
}

/// A text as an item: bencoded.
fn item(text: &str) -> Result<Vec<u8>, String> {
    let most = Limits::default().item;
    let item = format!("{}:{text}", text.len()).into_bytes();
    if item.len() <= most {
        Ok(item)
    } else {
        Err(format!("an item has no more than {most} bytes, bencoded"))
    }
}

/// Reads the value of an option. An error names the option and the value.
fn value<T, E: Display>(
    parser: &mut Parser,
    option: &str,
    read: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, lexopt::Error> {
    let text = parser.value()?.string()?;
    read(&text).map_err(|error| format!("{option} {text}: {error}").into())
}

fn number<N>(text: &str, most: N) -> Result<N, String>
where
    N: Copy + Display + FromStr + From<u8> + PartialOrd,
{
    text.parse()
        .ok()
        .filter(|number| (N::from(1)..=most).contains(number))
        .ok_or(format!("not a number from 1 to {most}"))
}

fn share(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or("not a share from 0 to 1")
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let millis: u64 = match text.get(digits.len()..) {
        Some("ms") => 1,
        Some("s") => 1_000,
        Some("m") => 60_000,
        _ => return Err("not a time like 500ms, 5s or 1m"),
    };
    let count: u64 = digits.parse().map_err(|_| "not a time like 500ms, 5s or 1m")?;
    match count.checked_mul(millis) {
        Some(0) => Err("no time at all"),
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => Err("too long"),
    }
}

/// Whether the text has the form of a host and a port. Whether there is such a host is another question.
fn host_and_port(text: &str) -> Result<String, &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("no host and port")?;
    let port: u16 = port.parse().map_err(|_| "no port from 1 to 65535")?;
    if host.is_empty() || port == 0 { Err("no IPv4 address and port") } else { Ok(text.to_owned()) }
}

/// The address of a host. One that listens on all addresses of this machine (0.0.0.0) is reached on loopback.
///
/// # Errors
/// Says why there is none.
pub(crate) fn resolve(text: &str) -> Result<SocketAddrV4, String> {
    let addresses = text.to_socket_addrs().map_err(|error| error.to_string())?;
    let mut usable = addresses.filter_map(|address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    });
    let mut address = usable.next().ok_or("no IPv4 address and port")?;
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST);
    }
    Ok(address)
}
