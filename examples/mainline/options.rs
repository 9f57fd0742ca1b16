//! The command line.

use core::fmt::Display;
use core::time::Duration;
use kad_proto::Key160;
use lexopt::{Arg, Parser, ValueExt};
use std::net::{SocketAddr, SocketAddrV4, ToSocketAddrs};

pub(crate) const HELP: &str = "\
Looks up keys in a BitTorrent DHT, with the engine kad-proto.

Without --bootstrap it starts a network of its own: nodes of the crate `mainline`, on loopback.

Usage: mainline [OPTIONS]

Options:
  --bootstrap HOST:PORT  begin with this node instead of a network of its own; repeatable
  --nodes N              start this many nodes, 1 to 1000 [default: 30]
  --target HEX           look up this key of 40 hexadecimal digits [default: random]
  --queries N            do this many lookups at once, 1 to 10000 [default: 1]
  --deadline TIME        give each lookup this long: 500ms, 5s, 1m [default: 10s]
  --drop SHARE           lose this share of outgoing datagrams, 0 to 1 [default: 0]
  --serve                stay up afterwards, and answer ping and find_node all along
  --json                 print one JSON object to stdout, and all else to stderr
  --help                 print this

Exit code: 0 if all lookups came to an end of their own, 2 if one ran into its deadline or found nobody, 1 for errors: bad
arguments, no bootstrap node that answers.
";

#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Empty: a network of our own.
    pub(crate) bootstrap: Vec<SocketAddrV4>,
    pub(crate) nodes: usize,
    pub(crate) target: Option<Key160>,
    pub(crate) queries: usize,
    pub(crate) deadline: Duration,
    pub(crate) drop: f64,
    pub(crate) serve: bool,
    pub(crate) json: bool,
}

impl Options {
    /// Reads the arguments; `None` if help was asked for.
    ///
    /// # Errors
    /// Says which argument is wrong, and how.
    pub(crate) fn parse(mut parser: Parser) -> Result<Option<Self>, lexopt::Error> {
        let mut options = Self {
            bootstrap: Vec::new(),
            nodes: 30,
            target: None,
            queries: 1,
            deadline: Duration::from_secs(10),
            drop: 0.0,
            serve: false,
            json: false,
        };
        let mut nodes_given = false;
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("bootstrap") => {
                    let address = value(&mut parser, "--bootstrap", resolve)?;
                    if !options.bootstrap.contains(&address) {
                        options.bootstrap.push(address);
                    }
                }
                Arg::Long("nodes") => {
                    options.nodes = value(&mut parser, "--nodes", |text| number(text, 1_000))?;
                    nodes_given = true;
                }
                Arg::Long("target") => {
                    options.target = Some(value(&mut parser, "--target", Key160::from_hex)?);
                }
                Arg::Long("queries") => {
                    options.queries = value(&mut parser, "--queries", |text| number(text, 10_000))?;
                }
                Arg::Long("deadline") => options.deadline = value(&mut parser, "--deadline", duration)?,
                Arg::Long("drop") => options.drop = value(&mut parser, "--drop", share)?,
                Arg::Long("serve") => options.serve = true,
                Arg::Long("json") => options.json = true,
                Arg::Long("help") | Arg::Short('h') => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        if nodes_given && !options.bootstrap.is_empty() {
            return Err("--nodes: no nodes are started with --bootstrap".into());
        }
        Ok(Some(options))
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

fn number(text: &str, most: usize) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| (1..=most).contains(number))
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

fn resolve(text: &str) -> Result<SocketAddrV4, String> {
    let addresses = text.to_socket_addrs().map_err(|error| error.to_string())?;
    let mut usable = addresses.filter_map(|address| match address {
        SocketAddr::V4(address) if address.port() != 0 => Some(address),
        _ => None,
    });
    usable.next().ok_or_else(|| "no IPv4 address and port".into())
}
