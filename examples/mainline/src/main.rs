//! A real DHT: the engine `kad-proto` over UDP, speaking `BitTorrent`'s protocol.
//!
//! `cargo run --release -p kad-mainline` starts a network of the independent crate `mainline` on loopback and
//! looks up a random key in it; `-- --help` tells what else it does: it stores, finds, maps, and stays. To learn
//! how the engine is embedded, read `driver.rs`; where its spans go, `provider.rs` and `trace.rs`.

mod agenda;
mod options;
mod replay;
mod report;
mod stay;

use agenda::Agenda;
use kad_mainline::driver::{Driver, Settings};
use kad_mainline::goal::Goal;
use kad_mainline::provider::Providers;
use kad_mainline::saved::Saved;
use kad_mainline::testnet::Testnet;
use kad_mainline::trace::Kept;
use kad_mainline::{engine, saved, svg};
use kad_proto::{Key160, RoutingInbound, Stamped};
use options::{HELP, Options, Stay};
use report::{Report, Totals, joined};
use serde_json::json;
use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

fn main() -> ExitCode {
    let options = match Options::parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => options,
        Ok(None) => return exit(io::stdout().write_all(HELP.as_bytes()).is_err().into()),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}\nTry --help.");
            return exit(1);
        }
    };
    let done = match &options.replay {
        Some(path) => replay::replay(path, &options),
        None => run(&options).map(exit),
    };
    done.unwrap_or_else(|error| exit(fail(error.as_ref(), options.json)))
}

/// Says that all of it failed. Says the exit code.
fn fail(error: &dyn Error, in_json: bool) -> u8 {
    let _ = writeln!(io::stderr(), "error: {error}");
    if in_json {
        let _ = writeln!(io::stdout(), "{}", json!({ "error": error.to_string(), "exit": 1 }));
    }
    1
}

fn exit(code: u8) -> ExitCode {
    ExitCode::from(code)
}

/// Runs, reports, and then sees to what others read afterwards. Says the exit code.
///
/// # Errors
/// Where it could not begin.
fn run(options: &Options) -> Result<u8, Box<dyn Error>> {
    let mut tape = options.record.as_deref().map(Tape::create).transpose()?;
    let say = |text: String| -> io::Result<()> {
        if options.json { writeln!(io::stderr(), "{text}") } else { writeln!(io::stdout(), "{text}") }
    };
    let (id, known) = match &options.load {
        Some(path) => saved::read(path).map_err(|error| format!("{}: {error}", path.display()))?,
        None => (Key160::new(rand::random()), Vec::new()),
    };
    let is_first = options.stay == Stay::UntilInterrupted && options.nodes.is_none();
    let (testnet, bootstrap) = if options.bootstrap.is_empty() && options.load.is_none() && !is_first {
        let nodes = options.nodes.unwrap_or(30);
        say(format!("starting {nodes} nodes of the crate `mainline` on loopback"))?;
        let testnet = Testnet::start(nodes)?;
        let first = testnet.bootstrap();
        (Some(testnet), Bootstrap { addresses: first, unresolved: Vec::new() })
    } else {
        (None, Bootstrap::resolve(&options.bootstrap, !known.is_empty() || options.stay != Stay::No)?)
    };

    // Nobody else needs to reach a node whose network is on loopback. Who begins a network is to be reached.
    let others: Vec<_> = known.iter().map(|saved| saved.node.1).chain(bootstrap.addresses.clone()).collect();
    let all_loopback = others.iter().all(|address| address.ip().is_loopback());
    let all_loopback = all_loopback && !others.is_empty() && bootstrap.unresolved.is_empty();
    let ip = if all_loopback { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    let stays = options.stay != Stay::No;
    let mut config = engine::config(options.deadline);
    config.query.k = options.k;
    let kept = Kept::new(options.trace_upkeep);
    let providers = Providers::new(&kept, options.otlp.as_deref())?;
    let mut driver = Driver::new(
        SocketAddrV4::new(ip, options.port),
        id,
        if stays { engine::staying(config, options.probe) } else { config },
        Settings {
            drop: options.drop,
            serve: stays,
            record: options.record.is_some(),
            ..Settings::default()
        },
        providers.tracer(),
        providers.metrics(),
    )?;
    let does = if stays { "serving" } else { "listening" };
    say(format!("{does} on {} as node {}", driver.address(), driver.local()))?;

    let is_alone = known.is_empty();
    driver.tell(Stamped::new(RoutingInbound::Restore(known).into()));
    let done = work(&mut driver, options, (bootstrap, is_alone), testnet.as_ref(), &kept, &mut tape, &say);
    let mut code = done.unwrap_or_else(|error| fail(error.as_ref(), options.json));
    // All of it, above all where something went wrong. What was reported stays reported.
    let mut failures = Vec::new();
    if let Some(tape) = &mut tape {
        failures.extend(tape.append(driver.recording()).err());
    }
    driver.abandon();
    driver.measure();
    if let (Some(collector), Err(error)) = (&options.otlp, providers.flush()) {
        failures.push(format!("--otlp {collector}: {error}"));
    }
    for failure in failures {
        let _ = writeln!(io::stderr(), "error: {failure}");
        code = code.max(1);
    }
    Ok(code)
}

/// Does what the options say, from the first contact on, and reports it. Says the exit code.
fn work(
    driver: &mut Driver,
    options: &Options,
    (bootstrap, is_alone): (Bootstrap, bool),
    testnet: Option<&Testnet>,
    kept: &Kept,
    tape: &mut Option<Tape>,
    say: &dyn Fn(String) -> io::Result<()>,
) -> Result<u8, Box<dyn Error>> {
    let Bootstrap { addresses, unresolved } = bootstrap;
    let silent = driver.bootstrap(&addresses)?;
    let (nobody, stays) = (silent.len() == addresses.len(), options.stay != Stay::No);
    if is_alone && nobody && !stays {
        return Err(format!("no bootstrap node answered: {}", list(&silent)).into());
    }
    if !silent.is_empty() {
        let waits = if nobody && stays { ", which are asked again" } else { "" };
        say(format!("no answer from bootstrap nodes: {}{waits}", list(&silent)))?;
    }
    if nobody && options.bootstrap.is_empty() && stays && is_alone {
        say("nobody is known: this is the first node of a network".to_owned())?;
    }
    let unresolved = if nobody { unresolved } else { Vec::new() };

    let mut code = 0;
    let mut agenda = Agenda::new(options);
    if options.stay == Stay::No {
        while agenda.go_on(driver) {
            driver.run()?;
        }
    } else {
        code = stay::stay(driver, &mut agenda, options, (testnet, unresolved), kept, tape)?;
    }
    if let Some(path) = &options.save
        && let Saved::Kept(nodes) = save(path, driver)?
    {
        let held = driver.table().len();
        say(format!("{}: kept, with {nodes} nodes, as the routing table has {held}", path.display()))?;
    }
    driver.abandon();
    let ended = driver.take_ended(true).into_iter();
    let reports: Vec<_> = ended.map(|operation| Report::new(operation, kept, driver, testnet)).collect();
    code = reports.iter().map(Report::exit_code).fold(code, u8::max);
    for report in &reports {
        report.draw()?;
    }
    if let Some(path) = &options.svg {
        let spans: Vec<_> = reports.iter().map(|report| report.spans.as_slice()).collect();
        write_file(path, svg::svg(&spans)?.as_bytes())?;
    }
    if options.json {
        let (lookups, actions): (Vec<_>, Vec<_>) =
            reports.iter().partition(|report| report.operation.goal == Goal::Find);
        let json = json!({
            "event": "report",
            "nodes": testnet.map(Testnet::len),
            "lookups": lookups.into_iter().map(Report::json).collect::<Vec<_>>(),
            "actions": actions.into_iter().map(Report::json).collect::<Vec<_>>(),
            "exit": code,
        });
        writeln!(io::stdout(), "{}", joined(Totals(driver).json(), json))?;
    } else {
        for report in &reports {
            write!(io::stdout(), "{report}")?;
        }
        write!(io::stdout(), "{}", Totals(driver))?;
    }
    Ok(code)
}

/// Saves the id and the routing table.
///
/// # Errors
/// That of the file system, which names the file.
fn save(path: &Path, driver: &Driver) -> Result<Saved, String> {
    let saved = saved::save(path, driver.local(), &driver.snapshot());
    saved.map_err(|error| format!("{}: {error}", path.display()))
}

/// The bootstrap nodes that were given.
struct Bootstrap {
    addresses: Vec<SocketAddrV4>,
    /// Names that cannot be resolved now.
    unresolved: Vec<String>,
}

impl Bootstrap {
    /// Resolves their names. Each that cannot be resolved leads to a warning.
    ///
    /// # Errors
    /// Why the first could not be, if none could, and there is nothing else to begin with.
    fn resolve(names: &[String], has_other: bool) -> Result<Self, String> {
        let (mut addresses, mut unresolved) = (Vec::new(), Vec::new());
        for name in names {
            match options::resolve(name) {
                Ok(address) if addresses.contains(&address) => {}
                Ok(address) => addresses.push(address),
                Err(error) => unresolved.push((name.clone(), format!("--bootstrap {name}: {error}"))),
            }
        }
        match unresolved.first() {
            Some((_, error)) if addresses.is_empty() && !has_other => return Err(error.clone()),
            _ => {}
        }
        for (_, error) in &unresolved {
            let _ = writeln!(io::stderr(), "warning: {error}");
        }
        Ok(Self { addresses, unresolved: unresolved.into_iter().map(|(name, _)| name).collect() })
    }
}

/// The file of a recording, which is written as the program runs.
struct Tape {
    path: PathBuf,
    file: File,
}

impl Tape {
    /// An empty one.
    ///
    /// # Errors
    /// Where it cannot be created, which names it.
    fn create(path: &Path) -> Result<Self, String> {
        let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Writes the next piece, if there is one.
    ///
    /// # Errors
    /// Those of the file, which name it.
    fn append(&mut self, piece: Option<Vec<u8>>) -> Result<(), String> {
        let written = self.file.write_all(&piece.unwrap_or_default());
        written.map_err(|error| format!("{}: {error}", self.path.display()))
    }
}

/// Writes a file; an error names it.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}

fn list(addresses: &[SocketAddrV4]) -> String {
    let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}
