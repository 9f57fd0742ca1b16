//! The command line.

use kad_proto::Key160;
use lexopt::{Arg, Parser, ValueExt};
use std::error::Error;
use std::net::{SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::time::Duration;

const HELP: &str = "\
A node of BitTorrent's DHT: it joins a network and answers others until Ctrl-C, or looks up one key.

Usage: kad-udp [OPTIONS]
  --port N               listen on this port [default: any that is free]
  --bootstrap HOST:PORT  begin with this node
  --find HEX             look up this key of 40 hexadecimal digits, print the closest nodes, and leave
  --deadline TIME        look up, or join, for this long at most: 500ms, 5s [default: 10s]
  --help                 print this

It prints + for each node that enters its routing table, and - for each that leaves it.
A lookup has converged if the 8 closest nodes have answered, and is unsure if others may be closer.
If there are fewer, all are found, or it is exhausted where some do not answer.
Exit code: 0 if the lookup found nodes, 2 if nobody answered, 1 for errors.
";

pub(crate) struct Options {
    /// 0: any that is free.
    pub(crate) port: u16,
    pub(crate) bootstrap: Option<SocketAddrV4>,
    pub(crate) find: Option<Key160>,
    pub(crate) deadline: Duration,
}

impl Options {
    /// Reads the command line; `None` if it asked for help, which is printed.
    pub(crate) fn parse() -> Result<Option<Self>, lexopt::Error> {
        let mut options = Self { port: 0, bootstrap: None, find: None, deadline: Duration::from_secs(10) };
        let mut parser = Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("port") => options.port = parser.value()?.parse()?,
                Arg::Long("bootstrap") => options.bootstrap = Some(parser.value()?.parse_with(resolve)?),
                Arg::Long("find") => options.find = Some(parser.value()?.parse_with(Key160::from_hex)?),
                Arg::Long("deadline") => options.deadline = parser.value()?.parse_with(duration)?,
                Arg::Long("help") => {
                    print!("{HELP}");
                    return Ok(None);
                }
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(Some(options))
    }
}

fn resolve(text: &str) -> Result<SocketAddrV4, Box<dyn Error + Send + Sync>> {
    let mut addresses = text.to_socket_addrs()?.filter_map(|address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    });
    addresses.next().ok_or_else(|| "no IPv4 address".into())
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    let millis = text.strip_suffix("ms").map(|number| (number, 1));
    let (number, unit) = millis.or(text.strip_suffix('s').map(|number| (number, 1_000))).unwrap_or((text, 0));
    match number.parse::<u32>() {
        Ok(count) if count > 0 && unit > 0 => Ok(Duration::from_millis(unit) * count),
        _ => Err("not a time like 500ms or 5s"),
    }
}
